"""Random programs (`drawn.py`) are the same to the bit, eager and compiled."""

import warnings

import pytest

from tests.compile import drawn


@pytest.mark.parametrize("seed", range(80))
def test_random_programs(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broadcast losses and schedules before any step
        drawn.check(seed)
