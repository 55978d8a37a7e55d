"""A small GPT learns additions such as 12+7=19; prints the loss of each of 50 steps.

`python gpt.py [SEED]` under torch, `weft run gpt.py [SEED]` under Weft: the same lines.
"""

import math
import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 0
LETTERS, LENGTH, WIDTH, HEADS, STEPS = "0123456789+=;", 32, 64, 4, 50


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (
            part.view(b, t, HEADS, c // HEADS).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(c, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.out(y.transpose(1, 2).reshape(b, t, c)))
        return x + self.drop(self.down(F.gelu(self.up(self.norm2(x)))))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.letter = nn.Embedding(len(LETTERS), WIDTH)
        self.place = nn.Parameter(torch.empty(LENGTH, WIDTH).normal_(0, 0.02))
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(LETTERS), bias=False)
        for name, p in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                nn.init.normal_(p, 0.0, 0.02 / math.sqrt(4))

    def forward(self, letters):
        return self.head(self.norm(self.blocks(self.letter(letters) + self.place)))


torch.manual_seed(SEED)
pairs = torch.randint(100, (4000, 2)).tolist()
text = torch.tensor([LETTERS.index(c) for a, b in pairs for c in f"{a}+{b}={a + b};"])
windows = text[: len(text) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1)
loader = DataLoader(TensorDataset(windows), batch_size=16, shuffle=True, drop_last=True)
model = GPT()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
for step, (batch,) in zip(range(STEPS), loader):
    logits = model(batch[:, :-1])
    loss = F.cross_entropy(logits.reshape(-1, len(LETTERS)), batch[:, 1:].reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    print(f"step {step} loss {loss.item():.7f}")
