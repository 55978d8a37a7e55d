"""transformers: small models built from a config, trained for three steps, and sampled."""

import warnings

import torch

warnings.simplefilter("ignore")
import transformers
from transformers import (
    BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForSequenceClassification, GPT2Config,
    GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, ResNetConfig,
    ResNetForImageClassification, T5Config, T5ForConditionalGeneration, ViTConfig,
    ViTForImageClassification, WhisperConfig, WhisperForConditionalGeneration,
)

transformers.logging.set_verbosity_error()


def train(name, model, inputs):
    torch.manual_seed(0)
    model = model()
    inputs = inputs()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(3):
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(name, sum(p.numel() for p in model.parameters()), f"{loss.item():.5f}")
    return model


def tokens():
    x = torch.randint(3, 50, (2, 12))
    return dict(input_ids=x, labels=x)


def pictures():
    return dict(pixel_values=torch.randn(2, 3, 32, 32), labels=torch.tensor([0, 2]))


kw = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
          intermediate_size=64)
gpt2 = train("gpt2", lambda: GPT2LMHeadModel(GPT2Config(
    vocab_size=50, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=1,
    eos_token_id=2)), tokens)
train("bert", lambda: BertForMaskedLM(BertConfig(**kw)), tokens)
llama = train("llama", lambda: LlamaForCausalLM(LlamaConfig(
    **kw, num_key_value_heads=1, max_position_embeddings=64)), tokens)
train("mistral", lambda: MistralForCausalLM(MistralConfig(
    **kw, num_key_value_heads=1, sliding_window=4)), tokens)
train("distilbert", lambda: DistilBertForSequenceClassification(DistilBertConfig(
    vocab_size=50, dim=32, n_layers=2, n_heads=2, hidden_dim=64)),
    lambda: dict(input_ids=torch.randint(3, 50, (2, 12)), labels=torch.tensor([0, 1])))
train("t5", lambda: T5ForConditionalGeneration(T5Config(
    vocab_size=50, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
    decoder_start_token_id=0)), tokens)
train("vit", lambda: ViTForImageClassification(ViTConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32,
    patch_size=8, num_labels=3)), pictures)
train("resnet", lambda: ResNetForImageClassification(ResNetConfig(
    embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)),
    pictures)
train("whisper", lambda: WhisperForConditionalGeneration(WhisperConfig(
    vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
    decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=16,
    max_source_positions=20, max_target_positions=20, pad_token_id=0, bos_token_id=1,
    eos_token_id=2, decoder_start_token_id=3, begin_suppress_tokens=None)),
    lambda: dict(input_features=torch.randn(2, 16, 40), labels=torch.randint(4, 60, (2, 8))))
for name, model in (("gpt2", gpt2), ("llama", llama)):
    torch.manual_seed(1)
    model.eval()
    start = torch.tensor([[3, 4, 5]])
    print(name, model.generate(start, max_new_tokens=6, do_sample=False, pad_token_id=0).tolist())
    print(name, model.generate(start, max_new_tokens=6, do_sample=True, top_k=10,
                               pad_token_id=0).tolist())
