"""timm: models of seven kinds, created with torch's initial weights and trained for two steps."""

import timm
import torch

for name, size in (
    ("resnet18", 64),
    ("mobilenetv3_small_100", 64),
    ("efficientnet_b0", 64),
    ("convnext_tiny", 64),
    ("vit_tiny_patch16_224", 224),
    ("swin_tiny_patch4_window7_224", 224),
    ("mixer_s32_224", 224),
):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(2, 3, size, size), torch.tensor([1, 3])
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        out = model(x)
    size = sum(p.numel() for p in model.parameters())
    # 8 numbers a channel in the last stage: what BatchNorm makes of rounding shows (torch's own
    # loss in float64 is 0.4074, in float32 0.4071)
    rough = "rough " if name == "efficientnet_b0" else ""
    print(rough + name, size, f"{loss.item():.4f}", [round(v, 3) for v in out[0].tolist()])
