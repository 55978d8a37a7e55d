"""kornia: filters, colours, geometry and losses, with gradients."""
# ruff: noqa: I001

import torch
import kornia as K

torch.manual_seed(0)
x = torch.rand(2, 3, 16, 16, requires_grad=True)
print(f"{K.filters.gaussian_blur2d(x, (3, 3), (1.0, 1.0)).square().sum():.4f}")
print(f"{K.filters.sobel(x).mean():.5f}", f"{K.color.rgb_to_hsv(x)[:, 2].mean():.5f}")
print(f"{K.color.rgb_to_grayscale(x).mean():.5f}")
turned = K.geometry.rotate(x, torch.tensor([30.0, 45.0]))
print(f"{turned.mean():.5f}", tuple(K.geometry.resize(x, (8, 8)).shape))
loss = K.losses.ssim_loss(x, x.detach().flip(-1), 5) + K.losses.total_variation(x).mean() * 1e-3
loss.backward()
print(f"{loss.item():.5f}", f"{x.grad.norm():.5f}")
