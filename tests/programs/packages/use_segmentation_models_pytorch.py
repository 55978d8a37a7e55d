"""segmentation-models-pytorch: a Unet and an FPN with a resnet18, trained for two steps."""
# ruff: noqa: I001

import torch
import segmentation_models_pytorch as smp

for cls in (smp.Unet, smp.FPN):
    torch.manual_seed(0)
    model = cls("resnet18", encoder_weights=None, classes=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    criterion = smp.losses.DiceLoss("multiclass")
    x, y = torch.randn(2, 3, 64, 64), torch.randint(2, (2, 64, 64))
    for _ in range(2):
        loss = criterion(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(cls.__name__, sum(p.numel() for p in model.parameters()), f"{loss.item():.4f}")
