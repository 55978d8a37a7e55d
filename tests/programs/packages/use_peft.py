"""peft: LoRA on a tiny GPT-2, trained, merged and saved."""
# ruff: noqa: E402

import tempfile
import warnings

import torch

warnings.simplefilter("ignore")
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(0)
config = GPT2Config(
    vocab_size=50, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2
)
base = GPT2LMHeadModel(config)
model = get_peft_model(
    base,
    LoraConfig(
        r=4, lora_alpha=8, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    ),
)
print(model.get_nb_trainable_parameters())
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
x = torch.randint(3, 50, (2, 12))
for _ in range(3):
    loss = model(input_ids=x, labels=x).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"{loss.item():.5f}")
model.eval()
before = model(input_ids=x).logits
folder = tempfile.mkdtemp()
model.save_pretrained(folder)
torch.manual_seed(0)
again = PeftModel.from_pretrained(GPT2LMHeadModel(config), folder).eval()
print(torch.allclose(before, again(input_ids=x).logits, atol=1e-5))
merged = model.merge_and_unload()
print(torch.allclose(before, merged(input_ids=x).logits, atol=1e-5))
