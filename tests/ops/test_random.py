"""The public random names against torch's recorded draws: the values and what is drawn after."""

import json
from pathlib import Path

import numpy as np
import pytest

import weft
from tests.fixtures import random_public

RECORD = json.loads((Path(__file__).parents[1] / "fixtures" / "random_public.json").read_text())
CALLS = random_public.calls(weft)


@pytest.mark.parametrize("name", RECORD)
def test_draws_are_torchs(name):
    values, after = RECORD[name]
    weft.manual_seed(3)
    ours = CALLS[name]().numpy()
    np.testing.assert_allclose(ours, np.array(values, ours.dtype), rtol=3e-7, atol=0)
    assert weft.rand(2).tolist() == after
