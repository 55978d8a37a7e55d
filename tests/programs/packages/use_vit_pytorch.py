"""vit-pytorch: vision transformers trained for two steps."""

import torch

torch.manual_seed(0)
from vit_pytorch import ViT
from vit_pytorch.cait import CaiT
from vit_pytorch.cct import CCT
from vit_pytorch.deepvit import DeepViT
from vit_pytorch.simple_vit import SimpleViT

x = torch.randn(2, 3, 64, 64)
plain = dict(image_size=64, patch_size=16, num_classes=5, dim=32, depth=2, heads=2, mlp_dim=64)
cct = dict(img_size=64, embedding_dim=32, num_layers=2, num_heads=2, mlp_ratio=2.0, num_classes=5,
           n_conv_layers=2, positional_embedding="learnable")
for cls, kw in (
    (ViT, dict(**plain, dropout=0.1, emb_dropout=0.1)),
    (SimpleViT, plain),
    (DeepViT, plain),
    (CaiT, dict(**plain, cls_depth=1, layer_dropout=0.05)),
    (CCT, cct),
):
    model = cls(**kw)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(model(x), torch.tensor([1, 3]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(cls.__name__, f"{loss.item():.5f}")
