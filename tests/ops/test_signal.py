"""Windows and logspace give torch's numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

import weft

RECORD = json.loads((Path(__file__).resolve().parents[1] / "fixtures/signal.json").read_text())


@pytest.mark.parametrize("case", RECORD)
def test_equals_torch(case):
    name, rest = case.split(" ", 1)
    if name == "logspace":
        got = weft.logspace(*json.loads(rest), dtype=weft.float64)
    else:
        n, periodic = rest.split()
        got = getattr(weft, name)(int(n), periodic=periodic == "True", dtype=weft.float64)
    np.testing.assert_allclose(got.numpy(), RECORD[case], rtol=1e-10, atol=1e-12)


def test_dtypes_and_refusals():
    assert weft.hann_window(4).dtype is weft.float32
    assert weft.hann_window(3, requires_grad=True).requires_grad
    with pytest.raises(RuntimeError, match="non-negative window_length"):
        weft.hann_window(-1)
    with pytest.raises(RuntimeError, match="floating point"):
        weft.hann_window(3, dtype=weft.int64)
    with pytest.raises(RuntimeError, match="non-negative"):
        weft.logspace(0, 1, -1)


def test_truths_that_torch_asks_in_python_may_be_numbers():
    x = weft.randn(64)
    kw = {"window": weft.ones(16), "return_complex": True}
    one = weft.stft(x, 16, center=1, **kw)
    assert weft.equal(one, weft.stft(x, 16, center=True, **kw))
    assert len(weft.lu(weft.eye(3), True, 1)) == 3
