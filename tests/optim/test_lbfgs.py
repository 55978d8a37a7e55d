"""LBFGS beside torch's, iteration by iteration."""

import json
from pathlib import Path

import numpy as np
import pytest

import weft
from weft import optim

CASES = json.loads((Path(__file__).parents[1] / "fixtures/optim.json").read_text())["lbfgs"]


@pytest.mark.parametrize("case", CASES, ids=[str(c["settings"]) for c in CASES])
def test_iterations_are_torchs(case):
    x = weft.Parameter(weft.tensor([-1.2, 1.0, 0.5], dtype=weft.float64))
    y = weft.Parameter(weft.tensor([0.3], dtype=weft.float64))
    optimizer = optim.LBFGS([x, y], **case["settings"])

    def closure():
        optimizer.zero_grad()
        loss = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
        loss = loss + (x[2] - y[0]) ** 4 + 0.1 * (y**2).sum()
        loss.backward()
        return loss

    for wanted in case["rows"]:
        loss = optimizer.step(closure)
        state = optimizer.state[x]
        assert [state["func_evals"], state["n_iter"]] == wanted[1:3]
        got = [loss.item(), *x.tolist(), *y.tolist()]
        np.testing.assert_allclose(got, [wanted[0], *wanted[3:]], rtol=1e-6, atol=1e-9)


def test_a_least_squares_problem_is_solved():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((20, 5)), rng.standard_normal(20)
    w = weft.Parameter(weft.zeros(5, dtype=weft.float64))
    optimizer = optim.LBFGS([w], max_iter=50, line_search_fn="strong_wolfe")
    wa, wb = weft.from_numpy(a), weft.from_numpy(b)

    def closure():
        optimizer.zero_grad()
        loss = (wa @ w - wb).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    best = np.linalg.lstsq(a, b, rcond=None)[0]
    np.testing.assert_allclose(w.detach().numpy(), best, atol=1e-5)


def test_arguments_are_checked():
    p, q = weft.Parameter(weft.zeros(1)), weft.Parameter(weft.zeros(1))
    with pytest.raises(ValueError, match="doesn't support per-parameter options"):
        optim.LBFGS([{"params": [p]}, {"params": [q]}])
    optimizer = optim.LBFGS([p], line_search_fn="armijo")
    with pytest.raises(RuntimeError, match="only 'strong_wolfe'"):
        optimizer.step(lambda: p.sum())
