"""torchinfo: the summary of a model, by hooks."""

import torch
from torch import nn
from torchinfo import summary

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1),
    nn.BatchNorm2d(8),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(8 * 16, 10),
)
found = summary(
    model,
    (2, 3, 8, 8),
    verbose=0,
    col_names=("input_size", "output_size", "num_params", "mult_adds"),
)
print(found)
print(found.total_params, found.trainable_params, found.total_mult_adds)
