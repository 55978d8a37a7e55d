"""Complex numbers give torch's values, gradients, texts and errors (see make_complex.py)."""

import json
from pathlib import Path

import numpy as np
import pytest

import weft
from tests.fixtures import complex_cases as cases

RECORD = json.loads((Path(__file__).resolve().parents[1] / "fixtures/complex.json").read_text())


@pytest.mark.parametrize("case", cases.VALUES)
def test_values_and_gradients_are_torchs(case):
    got, want = cases.value(weft, case), RECORD["values"][case]
    for (d, shape, numbers), (want_d, want_shape, want_numbers) in zip(
        got["parts"], want["parts"], strict=True
    ):
        assert (d, shape) == (want_d, want_shape)
        np.testing.assert_allclose(numbers, want_numbers, rtol=1e-7, atol=1e-9)
    assert set(got["grads"]) == set(want["grads"])
    for name, numbers in want["grads"].items():
        np.testing.assert_allclose(got["grads"][name], numbers, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("case", cases.TEXTS)
def test_texts_are_torchs(case):
    assert cases.text(weft, case) == RECORD["texts"][case]


@pytest.mark.parametrize("case", cases.ERRORS)
def test_errors_are_torchs(case):
    kind, message = cases.error(weft, case)
    want, words = RECORD["errors"][case]
    assert kind == want, (message, words)
