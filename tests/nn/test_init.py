"""Initial values beside torch's: the same draws, the same numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import weft
from weft import nn

FIXTURES = Path(__file__).parents[1] / "fixtures"
INITS = json.loads((FIXTURES / "nn.json").read_text())["inits"]
ARRAYS = np.load(FIXTURES / "nn.npz")


@pytest.mark.parametrize("i", range(len(INITS)), ids=[c[0] for c in INITS])
def test_values_and_draws_are_torchs(i):
    text, shape, after = INITS[i]
    weft.manual_seed(i)
    t = weft.empty(tuple(shape))
    given = eval("nn.init." + text, {"nn": nn, "t": t})
    assert given is t
    if "orthogonal" in text:  # LAPACK's rounding
        np.testing.assert_allclose(t.numpy(), ARRAYS[f"i{i}"], rtol=1e-4, atol=1e-5)
    else:
        assert np.array_equal(t.numpy(), ARRAYS[f"i{i}"])
    assert weft.rand(1).item() == after


def test_parameters_stay_leaves():
    p = nn.Parameter(weft.empty(4, 4))
    for fn in (nn.init.kaiming_normal_, nn.init.orthogonal_, nn.init.eye_, nn.init.ones_):
        fn(p)
        assert p.is_leaf and p.requires_grad


def test_gains():
    assert nn.init.calculate_gain("tanh") == 5 / 3
    assert nn.init.calculate_gain("leaky_relu", 0.5) == math.sqrt(2 / 1.25)
    with pytest.raises(ValueError, match="Unsupported nonlinearity"):
        nn.init.calculate_gain("step")
    with pytest.raises(ValueError, match="not a valid number"):
        nn.init.calculate_gain("leaky_relu", "x")


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        nn.init.xavier_uniform_(weft.empty(3))
    with pytest.raises(ValueError, match="Mode fan_sum not supported"):
        nn.init.kaiming_uniform_(weft.empty(3, 3), mode="fan_sum")
    with pytest.raises(ValueError, match="2 dimensions"):
        nn.init.eye_(weft.empty(3))
    with pytest.raises(ValueError, match="divisible by groups"):
        nn.init.dirac_(weft.empty(3, 2, 2), groups=2)
    with pytest.warns(UserWarning, match="zero-element"):
        nn.init.kaiming_uniform_(weft.empty(0, 3))


def test_a_generator_of_ones_own():
    g = weft.Generator().manual_seed(7)
    a = nn.init.normal_(weft.empty(20), generator=g)
    weft.manual_seed(7)
    assert np.array_equal(a.numpy(), nn.init.normal_(weft.empty(20)).numpy())


def test_the_older_names_warn():
    with pytest.warns(FutureWarning, match=r"in favor of `nn\.init\.constant_`"):
        assert nn.init.constant(weft.empty(2), 3.0).tolist() == [3, 3]


def test_the_fills_that_packages_borrow():
    p = weft.nn.Parameter(weft.zeros(50))
    weft.manual_seed(3)
    drawn = weft.nn.init._no_grad_uniform_(p, -1.0, 2.0)
    weft.manual_seed(3)
    assert drawn is p and p.tolist() == weft.zeros(50).uniform_(-1.0, 2.0).tolist()
    g = weft.Generator().manual_seed(4)
    other = weft.zeros(50).normal_(1.0, 0.5, generator=weft.Generator().manual_seed(4))
    assert weft.nn.init._no_grad_normal_(p, 1.0, 0.5, generator=g).tolist() == other.tolist()
    assert set(weft.nn.init._no_grad_fill_(p, 2.5).tolist()) == {2.5}
    assert set(weft.nn.init._no_grad_zero_(p).tolist()) == {0.0} and p.requires_grad
