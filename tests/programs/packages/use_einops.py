"""einops: every function, the layers, and gradients through them."""

import torch
from einops import einsum, pack, rearrange, reduce, repeat, unpack
from einops.layers.torch import Rearrange, Reduce

torch.manual_seed(0)
x = torch.randn(2, 3, 4, 6)
y = rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=2, q=3)
print(tuple(y.shape), f"{(y * torch.arange(18)).sum():.4f}")
print(reduce(x, "b c h w -> b c", "mean").sum().item(), reduce(x, "b c h w -> c", "max").tolist())
print(tuple(repeat(x, "b c h w -> b (r c) h w", r=2).shape))
print(f"{einsum(x, x, 'b c h w, b d h w -> b c d').sum():.4f}")
m = torch.nn.Sequential(
    torch.nn.Conv2d(3, 6, 3),
    torch.nn.ReLU(),
    Reduce("b c h (w 2) -> b c h w", "max"),
    Rearrange("b c h w -> b (c h w)"),
    torch.nn.Linear(24, 10),
)
m(x).pow(2).sum().backward()
print(f"{m[0].weight.grad.norm():.5f}")
z, shapes = pack([x, x[:, :, :, 0]], "b c *")
print(tuple(z.shape), [tuple(t.shape) for t in unpack(z, shapes, "b c *")])
