"""Mixed precision: autocast in bfloat16 on the CPU, a GradScaler that is on, and one that is off."""

import warnings

import torch
import torch.nn as nn
from torch.cuda.amp import GradScaler as CudaScaler
from torch.cuda.amp import autocast as cuda_autocast

warnings.simplefilter("ignore")
torch.manual_seed(7)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = nn.Sequential(
    nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 24),
    nn.LayerNorm(24), nn.GELU(), nn.Linear(24, 4),
).to(device)
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
scaler = torch.amp.GradScaler(device, init_scale=2.0**10, growth_interval=4)
x, y = torch.randn(32, 1, 8, 8), torch.randint(4, (32,))

for step in range(8):
    with torch.autocast(device_type=device, dtype=torch.bfloat16):
        out = model(x)
        assert out.dtype is torch.bfloat16, out.dtype
        loss = nn.functional.cross_entropy(out, y)
    assert loss.dtype is torch.float32
    opt.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(opt)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(opt)
    scaler.update()
    print(step, f"rough {loss.item():.4f} scale {scaler.get_scale()}")

scaler = CudaScaler(enabled=torch.cuda.is_available())
for step in range(8):
    with cuda_autocast(enabled=torch.cuda.is_available()):
        loss = nn.functional.mse_loss(model(x).float().mean(1), y.float())
    opt.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.step(opt)
    scaler.update()
print(scaler.state_dict(), scaler.get_scale(), scaler.is_enabled())
