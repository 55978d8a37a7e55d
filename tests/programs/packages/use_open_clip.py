"""open_clip: a tiny two-tower model from a config, its contrastive loss, a step."""
# ruff: noqa: E402, C408

import warnings

import torch

warnings.simplefilter("ignore")
import open_clip
from open_clip.model import CLIP

torch.manual_seed(0)
model = CLIP(
    embed_dim=16,
    vision_cfg=dict(image_size=32, layers=2, width=32, head_width=16, patch_size=8),
    text_cfg=dict(context_length=12, vocab_size=64, width=32, heads=2, layers=2),
)
criterion = open_clip.ClipLoss()
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
image, text = torch.randn(4, 3, 32, 32), torch.randint(1, 64, (4, 12))
for _ in range(3):
    a, b, scale = model(image, text)
    loss = criterion(a, b, scale)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"{loss.item():.5f}")
