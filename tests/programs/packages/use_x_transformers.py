"""x-transformers: decoders of several kinds, trained and sampled."""

import warnings

import torch

warnings.simplefilter("ignore")
from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper


def train(name, **kw):
    torch.manual_seed(0)
    layers = Decoder(dim=32, depth=2, heads=2, **kw)
    model = AutoregressiveWrapper(
        TransformerWrapper(num_tokens=32, max_seq_len=16, attn_layers=layers)
    )
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    x = torch.randint(0, 32, (2, 16))
    for _ in range(3):
        loss = model(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(name, f"{loss.item():.5f}", model.generate(x[:, :2], 4, temperature=0.0).tolist())


train("plain")
train("flash", attn_flash=True)
train("rotary", rotary_pos_emb=True)
train("alibi", alibi_pos_bias=True)
train("rms swiglu", use_rmsnorm=True, ff_glu=True, ff_swish=True)
