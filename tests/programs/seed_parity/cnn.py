"""A convolutional net learns eight noisy patterns; prints the loss of each of 50 steps.

`python cnn.py [SEED]` under torch, `weft run cnn.py [SEED]` under Weft: the same lines.
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 0
CLASSES, STEPS = 8, 50


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.GELU(),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.GELU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2),
        )  # fmt: skip
        self.classify = nn.Linear(128, CLASSES)
        nn.init.kaiming_normal_(self.classify.weight)

    def forward(self, x):
        return self.classify(self.features(x))


torch.manual_seed(SEED)
patterns = torch.randn(CLASSES, 3, 16, 16)
labels = torch.randint(CLASSES, (2000,))
pictures = patterns[labels] + torch.randn(2000, 3, 16, 16)
train, _ = random_split(TensorDataset(pictures, labels), [1800, 200])
loader = DataLoader(train, batch_size=32, shuffle=True)
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
for step, (x, y) in zip(range(STEPS), loader):
    flipped = torch.rand(len(x)) < 0.5
    x = torch.where(flipped[:, None, None, None], x.flip(3), x)
    loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step} loss {loss.item():.7f}")
