"""pytorch-metric-learning: losses, a miner and a distance, with gradients."""

import torch
from pytorch_metric_learning import distances, losses, miners

torch.manual_seed(0)
x, y = torch.randn(12, 8, requires_grad=True), torch.arange(12) % 3
for loss in (
    losses.TripletMarginLoss(),
    losses.ContrastiveLoss(),
    losses.NTXentLoss(),
    losses.MultiSimilarityLoss(),
    losses.CircleLoss(),
    losses.ArcFaceLoss(3, 8),
    losses.SupConLoss(),
):
    value = loss(x, y)
    (g,) = torch.autograd.grad(value, x)
    print(type(loss).__name__, f"{value.item():.4f}", f"{g.norm():.4f}")
pairs = miners.MultiSimilarityMiner()(x, y)
print([len(p) for p in pairs], f"{distances.CosineSimilarity()(x).sum():.4f}")
