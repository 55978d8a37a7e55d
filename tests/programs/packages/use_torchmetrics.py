"""torchmetrics: classification, regression and aggregation metrics, by batches and as functions."""

import torch
import torchmetrics as tm
from torchmetrics.functional import accuracy, pairwise_cosine_similarity

torch.manual_seed(0)
metrics = tm.MetricCollection(
    {
        "accuracy": tm.Accuracy(task="multiclass", num_classes=4),
        "f1": tm.F1Score(task="multiclass", num_classes=4, average="macro"),
        "auroc": tm.AUROC(task="multiclass", num_classes=4),
        "precision": tm.Precision(task="multiclass", num_classes=4, average="weighted"),
    }
)
confusion = tm.ConfusionMatrix(task="multiclass", num_classes=4)
for _ in range(3):
    p, y = torch.randn(16, 4).softmax(-1), torch.randint(4, (16,))
    metrics.update(p, y)
    confusion.update(p, y)
print({k: round(v.item(), 5) for k, v in sorted(metrics.compute().items())})
print(confusion.compute().tolist())
a, b = torch.randn(20), torch.randn(20)
for cls in (tm.MeanSquaredError, tm.R2Score, tm.PearsonCorrCoef, tm.MeanAbsoluteError):
    m = cls()
    m.update(a[:10], b[:10])
    m.update(a[10:], b[10:])
    print(cls.__name__, f"{m.compute().item():.5f}")
mean = tm.MeanMetric()
mean.update(torch.tensor([1.0, 2.0]), weight=torch.tensor([1.0, 3.0]))
print(mean.compute().item(), f"{pairwise_cosine_similarity(torch.randn(3, 4)).sum():.5f}")
print(accuracy(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), task="binary").item())
