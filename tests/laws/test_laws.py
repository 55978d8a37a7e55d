"""Every op of the registry under every law: an op is tested by existing."""

import pytest

from tests.laws.checks import LAWS, ROOM_ERRORS, Idle, check
from weft.core import sampling

CASES = list(sampling.cases())


@pytest.mark.parametrize(("op", "index"), CASES, ids=[f"{n}-{i}" for n, i in CASES])
@pytest.mark.parametrize("name", LAWS)
def test_law(name, op, index):
    try:
        check(name, op, index)
    except Idle:
        pass  # the law has nothing to say; test_coverage.py counts what was checked


def test_every_room_imports():
    assert not ROOM_ERRORS, ROOM_ERRORS
    assert len({name for name, _ in CASES}) > 80
