"""Recurrences whose products are of bfloat16: values step by step, threads, other hosts' bits."""

import hashlib
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import weft
from tests.kernels.test_amx import needs, summed
from weft.kernels.layout import Layout
from weft.kernels.schedule.recurrent import CELLS, plan_recurrent, plan_recurrent_grad
from weft.runtime import native, threads

SIZES = [(3, 2, 5, 3), (2, 7, 17, 3), (4, 9, 33, 17), (1, 1, 16, 16), (3, 13, 64, 40), (2, 4, 1, 1)]


def rounded(a):
    return a.astype(ml_dtypes.bfloat16).astype(np.float64)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def run(plan, shape, ins):
    out = np.full(shape, np.nan, np.float32)
    launch = plan([Layout.of(a) for a in ins], Layout.of(out), pairs=True)
    assert native.launch(launch, out, ins) == 0
    return out


def forward(cell, sizes):
    """The planes, and the operands: x, the states, w, then the rest."""
    steps, rows, width, features = sizes
    rng = np.random.default_rng(sum(sizes))
    kind = CELLS[cell]

    def some(*shape):
        return rng.uniform(-0.5, 0.5, shape).astype(np.float32)

    every = kind.gates * width
    ins = [some(steps, rows, features if kind.reads else every)]
    ins += [some(rows, width) for _ in range(kind.states)]
    ins += [some(every, width)]
    ins += [some(width)] * kind.bias + [some(every, features), some(every)] * kind.reads
    shape = (kind.states + kind.kept, steps + 1, rows, width)
    return run(lambda *a, **k: plan_recurrent(cell, *a, **k), shape, ins), ins


def gradient(cell, y, w):
    kind = CELLS[cell]
    _, after, rows, width = y.shape
    rng = np.random.default_rng(7)
    given = [
        rng.uniform(-1, 1, (after - 1, rows, width)).astype(np.float32) for _ in range(kind.states)
    ]
    shape = (after + kind.sums, rows, kind.columns * width)
    ins = [*given, y, w]
    name = cell.removesuffix(" over inputs")
    return run(lambda *a, **k: plan_recurrent_grad(name, *a, **k), shape, ins), given


def stepped(cell, x, before, w, more):
    """The planes after one step in float64, from what the kernel itself had before it."""
    s = rounded(before[0]) @ rounded(w).T
    if cell.startswith("lstm"):
        if more:
            x = rounded(x) @ rounded(more[0]).T + more[1]
        i, f, g, o = np.split(x + s, 4, -1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c = f * before[1] + i * g
        return [o * np.tanh(c), c, i, f, g, o]
    if cell == "gru":
        (x_r, x_z, x_n), (s_r, s_z, s_n) = np.split(x, 3, -1), np.split(s, 3, -1)
        r, z, inner = sigmoid(x_r + s_r), sigmoid(x_z + s_z), s_n + more[0]
        n = np.tanh(x_n + r * inner)
        return [(before[0] - n) * z + n, r, z, n, inner]
    return [np.tanh(x + s) if cell == "tanh" else np.maximum(x + s, 0)]


def stepped_back(cell, dh, carry, y, before):
    """The columns of one step's gradient, and what goes on beside the product."""
    y = y.astype(np.float64)
    if cell.startswith("lstm"):
        _, c, i, f, g, o = y
        t = np.tanh(c)
        carry = carry + dh * o * (1 - t * t)
        da = carry * g * i * (1 - i), carry * before[1] * f * (1 - f), carry * i * (1 - g * g)
        return np.concatenate([*da, dh * t * o * (1 - o)], -1), carry * f
    if cell == "gru":
        _, r, z, n, inner = y
        dn = dh * (1 - z) * (1 - n * n)
        ds = dn * inner * r * (1 - r), dh * (before[0] - n) * z * (1 - z), dn * r
        return np.concatenate([*ds, dn], -1), dh * z
    return dh * (1 - y[0] ** 2 if cell == "tanh" else y[0] > 0), 0.0


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_each_step_is_its_rounded_products(cell, sizes):
    y, ins = forward(cell, sizes)
    kind, steps = CELLS[cell], sizes[0]
    states, w, more = ins[1 : 1 + kind.states], ins[1 + kind.states], ins[2 + kind.states :]
    np.testing.assert_array_equal(y[: kind.states, 0], states)
    for t in range(steps):
        want = stepped(cell, ins[0][t].astype(np.float64), y[: kind.states, t], w, more)
        np.testing.assert_allclose(y[:, t + 1], want, rtol=1e-5, atol=1e-6)

    d, given = gradient(cell, y, w)
    every = kind.gates * sizes[2]
    below, carry = np.zeros(y.shape[2:]), given[-1][-1].astype(np.float64)
    for t in reversed(range(steps)):
        dh = given[0][t] + below
        want, rest = stepped_back(cell, dh, carry, y[:, t + 1], y[: kind.states, t])
        np.testing.assert_allclose(d[t + 1], want, rtol=1e-5, atol=2e-6)
        below = rounded(d[t + 1][:, :every]) @ rounded(w)
        if kind.states == 2:
            carry = rest + (given[1][t - 1] if t else 0)
        else:
            below = below + rest
    width = sizes[2]
    np.testing.assert_allclose(d[0][:, :width], below, rtol=1e-5, atol=2e-6)
    if kind.states == 2:
        np.testing.assert_allclose(d[0][:, width : 2 * width], carry, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(d[-1], d[1:-1].sum(0), rtol=1e-5, atol=2e-6)


def digest():
    """Of all cells' results, forward and gradient."""
    hashed = hashlib.sha256()
    for cell in CELLS:
        for sizes in SIZES:
            y, ins = forward(cell, sizes)
            hashed.update(y.tobytes())
            hashed.update(gradient(cell, y, ins[1 + CELLS[cell].states])[0].tobytes())
    return hashed.hexdigest()


def test_threads_and_neighbours_change_no_bit(monkeypatch):
    before = threads.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            y, ins = forward("lstm over inputs", (3, 40, 256, 64))
            found.append((y.tobytes(), gradient("lstm", y, ins[3])[0].tobytes()))
    finally:
        threads.set_num_threads(before)
    assert found[0] == found[1] == found[2]
    few = [ins[0][:, 5:8].copy(), ins[1][5:8].copy(), ins[2][5:8].copy(), *ins[3:]]
    shape = (6, 4, 3, 256)
    own = run(lambda *a, **k: plan_recurrent("lstm over inputs", *a, **k), shape, few)
    np.testing.assert_array_equal(own, y[:, :, 5:8])


@pytest.mark.skipif("WEFT_TARGET" in os.environ, reason="already one of the others")
def test_hosts_without_such_products_give_the_same_bits():
    if not native.host().has_fma or native.host().arch not in ("x86_64", "amd64"):
        pytest.skip("no fused multiply-add, or no narrower target that has one")
    code = "from tests.kernels.test_recurrent_pairs import digest; print(digest())"

    def digest_of(target):
        env = {**os.environ, "WEFT_TARGET": target}
        call = [sys.executable, "-c", code]
        done = subprocess.run(call, env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    # tile registers have numbers of their own
    own = digest_of("avx512") if native.host().has("amx-bf16") else digest()
    assert digest_of("avx2") == own


@needs["pairs"]
@pytest.mark.parametrize("sizes", [*SIZES, (2, 37, 70, 100)], ids=str)
def test_products_in_tiles_are_summed_as_defined(sizes):
    """A relu's states are the sums, and its cotangents too."""
    y, ins = forward("relu", sizes)
    w = ins[2].astype(ml_dtypes.bfloat16)
    for t in range(sizes[0]):
        s = ins[0][t] + summed(y[0, t].astype(ml_dtypes.bfloat16), w.T)
        np.testing.assert_array_equal(y[0, t + 1], np.where(s > 0, s, 0))
    d, (dh,) = gradient("relu", y, ins[2])
    for t in reversed(range(1, sizes[0])):
        below = summed(d[t + 1].astype(ml_dtypes.bfloat16), w)
        np.testing.assert_array_equal(d[t], np.where(y[0, t] > 0, dh[t - 1] + below, 0))


def test_pairs_are_of_float32():
    a = Layout.contiguous((2, 3, 8), np.float64)
    w, h = (Layout.contiguous(shape, np.float64) for shape in ((8, 8), (3, 8)))
    with pytest.raises(ValueError, match="float64"):
        plan_recurrent("tanh", [a, h, w], Layout.contiguous((1, 3, 3, 8), np.float64), pairs=True)


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_the_gradient_of_a_row_alone_is_that_in_a_batch(steps):
    """Under autocast; a product of few rows is usually not rounded."""
    weft.manual_seed(steps)
    layer = weft.nn.LSTM(5, 20, batch_first=True)
    x = weft.randn(12, steps, 5)

    def step(rows):
        given = rows.clone().requires_grad_()
        with weft.autocast("cpu", dtype=weft.bfloat16):
            y = layer(given)[0]
        y.sum().backward()
        return given.grad

    every = step(x)
    for rows in (slice(0, 1), slice(5, 8), slice(2, 11)):
        assert weft.equal(step(x[rows]), every[rows])
        assert weft.equal(weft.compile(step)(x[rows]), every[rows])
