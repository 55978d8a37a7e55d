"""Fast math: products of float32 that round their operands to bfloat16, on request alone."""

import itertools

import ml_dtypes
import numpy as np
import pytest

import weft
from weft.compat.torch_ import settings
from weft.kernels.schedule.tile import multiplies_pairs

pairs = pytest.mark.skipif(not multiplies_pairs(), reason="the host has no products of bfloat16")


@pytest.fixture(autouse=True)
def reset():
    yield
    settings.set_float32_matmul_precision("highest")


def bits(t):
    return t.detach().numpy().tobytes()


def under(mode, run):
    weft.set_fast_math(mode)
    return run()


def rounded(a):
    return a.astype(ml_dtypes.bfloat16).astype(np.float64)


@pairs
@pytest.mark.parametrize(
    "m,k,n",
    [(8, 2, 1), (8, 3, 5), (9, 33, 17), (64, 64, 64), (33, 129, 70), (130, 900, 65), (8, 1, 4),
     (16, 0, 4), (7, 64, 33), (1, 64, 33)],
)  # fmt: skip
def test_products_of_rounded_operands(rng, m, k, n):
    for turn_a, turn_b in itertools.product((False, True), repeat=2):
        a, b = rng.standard_normal((m, k), "f"), rng.standard_normal((k, n), "f")
        x, y = weft.tensor(a.T.copy() if turn_a else a), weft.tensor(b.T.copy() if turn_b else b)
        x, y = x.T if turn_a else x, y.T if turn_b else y
        got = under(True, lambda: (x @ y).numpy())  # noqa: B023  run at once
        few = m < 8 or k < 2
        exact = a.astype(float) @ b if few else rounded(a) @ rounded(b)
        size = np.abs(a).astype(float) @ np.abs(b)
        assert (np.abs(got - exact) <= (k + 2) * 2.0**-23 * size).all()
        assert (np.abs(got - a.astype(float) @ b) <= 2.0**-7 * size).all()
        if not few and k * n > 100:
            assert np.abs(got - a.astype(float) @ b).max() > 1e-6 * size.max()  # it did round


@pairs
def test_values_that_are_no_numbers(rng):
    a, b = rng.standard_normal((9, 40), "f"), rng.standard_normal((40, 20), "f")
    a[2, 3], a[4, 7], b[9, 5] = np.nan, np.inf, -np.inf
    y = under(True, lambda: (weft.tensor(a) @ weft.tensor(b)).numpy())
    with np.errstate(invalid="ignore"):
        want = rounded(a) @ rounded(b)
    assert (np.isnan(y) == np.isnan(want)).all() and (np.isinf(y) == np.isinf(want)).all()
    found = np.isinf(want)
    assert (y[found] == want[found]).all() and np.isnan(y[2]).all() and found[:, 5].any()


@pairs
def test_rounds_to_nearest_even():
    one = np.float32(1)
    ties = [1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-8 + 2.0**-20, -1 - 2.0**-8, 1 + 2.0**-9]
    for turned in (False, True):  # operands are woven, or copied
        a = np.full((16, 16), 0, "f")
        a[: len(ties), 0] = ties
        a[: len(ties), 1] = one
        b = np.zeros((16, 16), "f")
        b[0] = one
        x = weft.tensor(a.T.copy()).T if turned else weft.tensor(a)
        y = under(True, lambda: (x @ weft.tensor(b)).numpy())  # noqa: B023  run at once
        assert (y[: len(ties), 3] == rounded(np.array(ties, "f"))).all()


@pairs
def test_batches_and_other_dtypes(rng):
    a, b = rng.standard_normal((3, 1, 9, 31), "f"), rng.standard_normal((4, 31, 18), "f")
    y = under(True, lambda: (weft.tensor(a) @ weft.tensor(b)).numpy())
    want = rounded(a) @ rounded(b)
    assert y.shape == (3, 4, 9, 18) and np.abs(y - want).max() < 1e-4
    for dtype in (weft.float64, weft.bfloat16, weft.float16):
        x = weft.randn(9, 30).to(dtype)
        run = lambda: bits((x @ x.T).float())  # noqa: B023  run at once
        assert under(True, run) == under(False, run)


def net():
    weft.manual_seed(3)
    return weft.nn.Sequential(
        weft.nn.Linear(33, 40), weft.nn.GELU(), weft.nn.Linear(40, 24), weft.nn.Tanh()
    )


def forward():
    model, x = net(), weft.linspace(-1, 1, 12 * 33).reshape(12, 33)
    return lambda: model(x)


def training():
    """Forward, backward and a step each call; its parameters are told apart by what they become."""
    model = net()
    optimizer = weft.optim.SGD(model.parameters(), lr=0.1)
    x = weft.linspace(-1, 1, 12 * 33).reshape(12, 33)

    def step():
        optimizer.zero_grad()
        loss = (model(x) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


@pytest.mark.parametrize("make", [forward, training])
@pytest.mark.parametrize("replay", [False, True])
def test_switching_back_and_forth_is_eager_to_the_bit(make, replay):
    turns = [False] * 6 + [True] * 7 + [False] * 2 + [True] * 2 + [False, True, False]
    with weft.no_grad() if make is forward else weft.enable_grad():
        eager, compiled = make(), weft.compile(make(), replay=replay)
        want = [under(mode, lambda: bits(eager())) for mode in turns]
        got = [under(mode, lambda: bits(compiled())) for mode in turns]
    assert got == want
    if make is forward:
        assert len(set(want)) == (2 if multiplies_pairs() else 1)
        assert all((w == want[0]) == (not mode) for w, mode in zip(want, turns, strict=True)) or (
            not multiplies_pairs()
        )
    if replay:
        assert compiled.stats["replayed"] > 2


@pairs
def test_the_setting_within_a_compiled_function(rng):
    a = weft.tensor(rng.standard_normal((12, 40), "f"))

    def both(x):
        weft.set_fast_math(True)
        y = x @ x.T
        weft.set_fast_math(False)
        return y, x @ x.T

    compiled = weft.compile(both)
    for _ in range(3):
        got, want = compiled(a), both(a)
        assert [bits(t) for t in got] == [bits(t) for t in want] and bits(got[0]) != bits(got[1])


@pairs
def test_the_gradient_is_taken_under_the_setting_of_its_time():
    model = net()
    x = weft.linspace(-1, 1, 12 * 33).reshape(12, 33)

    def run(forward, backward):
        def step():
            model.zero_grad()
            loss = under(forward, lambda: (model(x) ** 2).sum())
            under(backward, loss.backward)
            return model[0].weight.grad

        return step

    modes = list(itertools.product((False, True), repeat=2))
    want = [bits(run(*m)()) for m in modes]
    assert len(set(want)) == 4
    for replay in (False, True):
        setting = [False, False]

        def step():
            return run(*setting)()  # noqa: B023  the loop's own

        compiled = weft.compile(step, replay=replay)
        for m, w in [*zip(modes, want, strict=True)] * 3:
            setting[:] = m
            assert bits(compiled()) == w


@pairs
def test_weights_that_stay_are_packed_once_with_the_same_bits():
    model, x = net(), weft.linspace(-1, 1, 12 * 33).reshape(12, 33)
    weft.set_fast_math(True)
    with weft.no_grad():
        want = bits(model(x))
        compiled = weft.compile(model)
        assert [bits(compiled(x)) for _ in range(6)] == [want] * 6
        model[0].weight.mul_(2)
        assert bits(compiled(x)) == bits(model(x)) != want


def test_threads_change_nothing(rng):
    a, b = (weft.tensor(rng.standard_normal((300, 301), "f")) for _ in range(2))
    before, found = weft.get_num_threads(), set()
    weft.set_fast_math(True)
    try:
        for threads in (1, 2, 3):
            weft.set_num_threads(threads)
            found |= {bits(a @ b.T), bits(a[:150] @ b.T) + bits(a[150:] @ b.T)}
    finally:
        weft.set_num_threads(before)
    assert len(found) == 1


def test_torchs_name_for_it():
    assert settings.get_float32_matmul_precision() == "highest" and not weft.is_fast_math()
    settings.set_float32_matmul_precision("medium")
    assert weft.is_fast_math() and settings.get_float32_matmul_precision() == "medium"
    settings.set_float32_matmul_precision("high")
    assert not weft.is_fast_math() and settings.get_float32_matmul_precision() == "high"
    weft.set_fast_math(True)
    assert settings.get_float32_matmul_precision() == "medium"
    with pytest.warns(UserWarning, match="is not one of"):
        settings.set_float32_matmul_precision("low")
    assert weft.is_fast_math()
