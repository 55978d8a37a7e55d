"""Tensors print as torch prints them (tests/fixtures/make_text.py recorded how)."""

import json
from pathlib import Path

import pytest

import weft

TEXTS = json.loads((Path(__file__).parent / "fixtures/text.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", TEXTS)
def test_text(name):
    code, text = TEXTS[name]
    if name == "dtype":
        text = text.replace("torch.", "weft.")  # a dtype says whose it is
    assert repr(eval(code, {"torch": weft})) == text


def test_printoptions():
    x = weft.arange(10) / 7
    try:
        weft.set_printoptions(precision=2, threshold=5, edgeitems=2)
        assert repr(x) == "tensor([0.00, 0.14,  ..., 1.14, 1.29])"
        weft.set_printoptions(sci_mode=True)
        assert repr(x[1:3]) == "tensor([1.43e-01, 2.86e-01])"
        weft.set_printoptions(profile="full")
        assert "..." not in repr(weft.arange(2000))
    finally:
        weft.set_printoptions(profile="default")
    assert repr(x[1:3]) == "tensor([0.1429, 0.2857])"
