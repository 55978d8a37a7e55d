"""examples/char_lm.py with a tiny model: it runs, learns, and is the same eager and compiled."""

from __future__ import annotations

import re
import sys

import pytest

import weft
from examples import char_lm

TINY = {
    "steps": 24, "batch": 4, "length": 16, "width": 24, "heads": 2, "layers": 2, "lr": 0.01,
    "sample": 12,
}  # fmt: skip


def run(capsys, monkeypatch, *more: str) -> str:
    words = [f"--{k}={v}" for k, v in TINY.items()]
    monkeypatch.setattr(sys, "argv", ["char_lm.py", *words, *more])
    char_lm.main()
    return capsys.readouterr().out


def test_it_learns_and_compiled_is_eager(capsys, monkeypatch):
    compiled = run(capsys, monkeypatch)
    eager = run(capsys, monkeypatch, "--eager")
    timing = re.compile(r"^.* characters a second$", re.M)
    assert timing.search(compiled)
    assert timing.sub("", compiled) == timing.sub("", eager)  # loss and sample too
    held_out = float(re.search(r"held-out loss ([\d.]+)", compiled)[1])
    assert held_out < 3.6  # guessing among the letters: ln 97 = 4.6
    assert compiled.split("-" * 60 + "\n")[1].startswith("The ")


def test_attention_sees_no_later_letters():
    weft.manual_seed(0)
    model = char_lm.GPT(vocab=11, length=8, width=12, heads=3, layers=2, dropout=0.0).eval()
    tokens = weft.randint(0, 11, (2, 8))
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    with weft.no_grad():
        a, b = model(tokens), model(changed)
    assert weft.equal(a[:, :5], b[:, :5]) and not weft.equal(a[:, 5:], b[:, 5:])


def test_sampling_goes_past_the_window():
    weft.manual_seed(0)
    model = char_lm.GPT(vocab=3, length=4, width=8, heads=2, layers=1, dropout=0.0).eval()
    text = char_lm.sample(model, list("abc"), {"a": 0, "b": 1, "c": 2}, "ab", 9)
    assert len(text) == 11 and text.startswith("ab") and set(text) <= set("abc")


@pytest.mark.parametrize("length", [1, 8])
def test_any_length_up_to_the_window(length):
    model = char_lm.GPT(vocab=5, length=8, width=8, heads=2, layers=1, dropout=0.0)
    assert model(weft.zeros(2, length, dtype=weft.int64)).shape == (2, length, 5)
