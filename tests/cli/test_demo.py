"""weft demo: each stage's own check, on a short run; the parts of which it is made."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from click.testing import CliRunner

import weft
from weft import io
from weft.cli import main

pytest.importorskip("mlxtend")
digits = importlib.import_module("weft.cli.demo")  # `weft.cli.demo` is the command


def test_a_short_demo_passes_every_stage_but_accuracy(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "TIME_GOAL", 600.0)  # the machine may be busy
    words = ["demo", "--check", "--epochs", "1", "--folder", str(tmp_path)]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    out = done.output
    assert done.exit_code == 1 and "fell short: held-out accuracy" in out
    short = [line for line in out.splitlines() if "SHORT:" in line]
    assert len(short) == 1 and "held-out accuracy" in short[0]
    assert out.count("   ok: ") >= 4
    assert "the answers equal eager to the bit" in out and "draw a digit: http://127.0.0.1:" in out
    made = {p.name for p in tmp_path.iterdir()}
    assert {"digits.weft", "loss.png", "wrong.png", "last.weft", "events"} <= made
    assert io.verify(io.load(tmp_path / "digits.weft")).ok
    for name in ("loss.png", "wrong.png"):
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_fifth_is_held_out():
    training, held_out, pixels, labels = digits.split(*digits.load_digits())
    assert (len(training), len(held_out), pixels.shape) == (4000, 1000, (1000, 28, 28))
    x, y = held_out[17]
    assert int(y) == labels[17]
    assert np.allclose(x.numpy()[0] * digits.STD + digits.MEAN, pixels[17] / 255, atol=1e-6)
    seen = {row.tobytes() for row in training.tensors[0].numpy()}
    assert sum(row.tobytes() in seen for row in held_out.tensors[0].numpy()) == 0


def test_shifted_images_are_the_image_moved():
    rng = np.random.default_rng(0)
    image = rng.random((1, 1, 28, 28)).astype(np.float32)
    moved = digits.Shifted(weft.tensor(image), weft.tensor([3]), most=2)
    background = np.float32((0.0 - digits.MEAN) / digits.STD)
    padded = np.pad(image[0, 0], 2, constant_values=background)
    possible = {padded[y : y + 28, x : x + 28].tobytes() for y in range(5) for x in range(5)}
    weft.manual_seed(0)
    seen = set()
    for _ in range(200):
        x, y = moved[0]
        assert x.shape == (1, 28, 28) and int(y) == 3
        seen.add(x.numpy()[0].tobytes())
    assert seen == possible


def test_plots_without_a_mistake_or_with_many(tmp_path):
    rng = np.random.default_rng(0)
    pixels, labels = rng.random((50, 28, 28)), rng.integers(0, 10, 50)
    share = rng.random(50)
    assert digits.plot_wrong(pixels, labels, labels, share, tmp_path / "a.png") == 0
    assert digits.plot_wrong(pixels, labels, labels + 1, share, tmp_path / "b.png") == 50
    row = {"loss": 0.0, "accuracy": 1.0, "val_loss": 0.0, "val_accuracy": 1.0}
    digits.plot_history([row], tmp_path / "c.png")
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "b.png", "c.png"}
