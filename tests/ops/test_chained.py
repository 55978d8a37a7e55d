"""Composite ops and functions as one launch of their kernels (ops/formula.py, dispatch.chained):
asked a few hundred times they give the bits that they gave at first.
"""

import numpy as np
import pytest

import weft
from weft.nn import functional as F
from weft.ops import dispatch, formula
from weft.ops.cast import cast
from weft.ops.index import index_select
from weft.ops.stat import VectorNorm
from weft.runtime import native

OFTEN = 250
RNG = np.random.default_rng(0)
X = weft.tensor(RNG.standard_normal((4, 8)).astype(np.float32))
X[1, 3], X[2, 0] = float("nan"), float("inf")
Y = weft.tensor(RNG.standard_normal((4, 8)).astype(np.float32))
IMAGE = weft.tensor(RNG.standard_normal((2, 4, 5, 6)).astype(np.float32))
INTS = weft.tensor(RNG.integers(-3, 9, (3, 5)))
NONE = weft.zeros(0, 3)

CASES = {
    "std": lambda: Y.std(),
    "std of NaN": lambda: X.std(1),
    "var": lambda: Y.var(0, keepdim=True),
    "var of a transpose": lambda: Y.t().var(1, correction=0),
    "var of float64": lambda: Y.double().var(),
    "logsumexp": lambda: X.logsumexp(1),
    "nansum": lambda: X.nansum(),
    "norm": lambda: Y.norm(),
    "norm 1": lambda: Y.norm(1, dim=1),
    "norm inf": lambda: Y.norm(float("inf"), 0, True),
    "norm of a slice": lambda: Y[:, 1:6].norm(3, dim=1),
    "norm of nothing": lambda: NONE.norm(),
    "tril": lambda: Y.tril(-1),
    "triu of ints": lambda: INTS.triu(1),
    "trace": lambda: Y.trace(),
    "count_nonzero": lambda: INTS.count_nonzero(),
    "any": lambda: X.any(1),
    "all": lambda: INTS.all(),
    "sum of bools": lambda: (Y > 0).sum(0),
    "max": lambda: X.max(1),
    "min": lambda: INTS.min(0, keepdim=True),
    "pad": lambda: F.pad(Y, (1, 2, 0, 3), value=-0.5),
    "pad of ints": lambda: F.pad(INTS, (1, 0), value=7),
    "pad of a transpose": lambda: F.pad(Y.t(), (2, 1)),
    "pad of nothing": lambda: F.pad(NONE, (1, 1)),
    "reflect": lambda: F.pad(IMAGE, (1, 2, 3, 0), mode="reflect"),
    "replicate": lambda: F.pad(IMAGE[0], (1, 2), mode="replicate"),
    "circular": lambda: F.pad(IMAGE, (1, 2, 3, 0), mode="circular"),
    "dot": lambda: weft.dot(Y[0], X[2]),
    "mv": lambda: weft.mv(Y, X[3]),
    "vector @ matrix": lambda: Y[:, 1] @ Y,
    "vectors of nothing": lambda: NONE.t() @ NONE[:, 0],
    "amax": lambda: X.amax((0, 1)),
    "linalg.norm": lambda: weft.linalg.norm(Y),
    "flip": lambda: Y.flip(0, 1),
    "flip of a slice": lambda: Y[::2, 1:7].flip(1),
    "bilinear": lambda: F.interpolate(IMAGE, scale_factor=2, mode="bilinear"),
    "bicubic": lambda: F.interpolate(IMAGE, size=(3, 11), mode="bicubic"),
    "nearest": lambda: F.interpolate(IMAGE, scale_factor=1.5),
    "pixel_shuffle": lambda: F.pixel_shuffle(IMAGE, 2),
    "channel_shuffle": lambda: F.channel_shuffle(IMAGE, 2),
    "one_hot": lambda: F.one_hot(INTS.abs(), 9),
    "group_norm": lambda: F.group_norm(IMAGE, 2, weft.arange(4.0), weft.ones(4)),
    "instance_norm": lambda: F.instance_norm(IMAGE),
    "batch_norm": lambda: F.batch_norm(IMAGE, None, None, training=True),
    "softplus": lambda: F.softplus(X, 2.0),
    "lerp": lambda: weft.lerp(Y, X, 0.25),
    "addcmul": lambda: weft.addcmul(Y, X, Y, value=0.5),
    "addcdiv": lambda: weft.addcdiv(Y, Y, X, value=2),
    "logical_and": lambda: weft.logical_and(Y > 0, X > 0),
    "logical_and of ints": lambda: weft.logical_and(INTS, INTS + 1),
    "aminmax": lambda: Y.aminmax(dim=1),
}


def bits(y):
    parts = y if isinstance(y, tuple) else (y,)
    return [(p.shape, p.dtype, p.contiguous().numpy().tobytes()) for p in parts]


@pytest.mark.parametrize("name", CASES)
def test_bits_stay(name):
    call = CASES[name]
    first = bits(call())
    for _ in range(OFTEN):
        call()
    assert bits(call()) == first
    with weft.no_grad():
        assert bits(call()) == first


@pytest.mark.skipif(not native.builtins_fit(), reason="no builtins here")
def test_one_launch():
    x = weft.rand(3, 37)  # a shape that no other test asks for
    norm = VectorNorm(2.0, (0, 1), False)

    def named_std():  # a class with `__torch_function__` has public functions exchanged
        of = [op for op in dispatch.Chained._interned.values() if op.given == (1,)]
        return {op for op in of if op.function.__name__ == "std"}

    for op in {norm} | named_std():  # as new: others have had them learn enough layouts
        for name in ("_uses", "_calls", "call", "quick", "into"):
            vars(op).pop(name, None)
    for _ in range(OFTEN):
        x.norm()
        x.std(1)
    assert len(norm._calls)
    assert norm.quick(x).item() == pytest.approx(np.linalg.norm(x.numpy()), rel=1e-6)
    (y,) = [y for op in named_std() if (y := op.quick(x)) is not None]
    assert np.allclose(y.numpy(), x.numpy().std(1, ddof=1), rtol=1e-6)


def test_arguments_that_are_equal_and_not_the_same_are_told_apart():
    x = weft.rand(3, 7)
    want = x.numpy().std(ddof=1), x.numpy().std(1, ddof=1)
    for _ in range(OFTEN):
        x.std(True)
    for _ in range(OFTEN):
        x.std(1)
    assert x.std(True).shape == () and np.allclose(x.std(True).item(), want[0], rtol=1e-6)
    assert np.allclose(x.std(1).numpy(), want[1], rtol=1e-6)
    low = F.pad(x, (1, 1), value=0.0)
    for _ in range(OFTEN):
        F.pad(x, (1, 1), value=-0.0), F.pad(x, (1, 1), value=0.0)
    assert not np.signbit(low.numpy()[:, 0]).any()
    assert not np.signbit(F.pad(x, (1, 1), value=0.0).numpy()[:, 0]).any()
    assert np.signbit(F.pad(x, (1, 1), value=-0.0).numpy()[:, 0]).all()


def test_gradients_still_flow():
    x = weft.rand(4, 6)
    for _ in range(OFTEN):
        x.std(1), x.norm(dim=1), x.max(1), F.pad(x, (1, 1)), x.flip(0), x.tril()
    x.requires_grad_()
    a = x.detach().numpy().astype(np.float64)
    for _ in range(3):
        x.grad = None
        (x.std(1).sum() + x.norm(dim=1).sum() + x.max(1).values.sum()).backward()
        (F.pad(x, (1, 1)).sum() + x.flip(0)[0].sum() + x.tril().sum()).backward()
        want = (a - a.mean(1, keepdims=True)) / (5 * a.std(1, ddof=1, keepdims=True))
        want += a / np.linalg.norm(a, axis=1, keepdims=True)
        want += a == a.max(1, keepdims=True)
        want += 1 + np.tril(np.ones_like(a))
        want[-1] += 1
        assert np.allclose(x.grad.numpy(), want, rtol=1e-5)


GRADED = {
    "addcmul": lambda x, w: weft.addcmul(x, w, x, value=0.5).sum(),
    "group_norm": lambda x, w: (F.group_norm(x, 2, w[0], w[1]) * x).sum(),
    "batch_norm": lambda x, w: (F.batch_norm(x, None, None, w[0], w[1], True) * x).sum(),
    "mv": lambda x, w: ((x @ w[0]) * (w[:, 0] @ x)[0]).sum() + w[0] @ w[1],
    "resize": lambda x, w: (F.interpolate(x[None, None], size=(5, 6), mode="bilinear") ** 2).sum(),
}


@pytest.mark.parametrize("name", GRADED)
def test_gradients_stay(name):
    """Also of ops of more than three operands, whose nodes native code makes."""

    def grads():
        x = weft.tensor(np.linspace(-1, 2, 24, dtype=np.float32).reshape(6, 4), requires_grad=True)
        w = weft.tensor(np.linspace(1, 3, 24, dtype=np.float32).reshape(6, 4), requires_grad=True)
        y = GRADED[name](x, w)
        y.backward()
        return bits(y.detach()) + bits(x.grad) + (bits(w.grad) if w.grad is not None else [])

    first = grads()
    for _ in range(OFTEN):
        grads()
    assert grads() == first


def test_a_write_behind_a_node_is_seen():
    a, b = weft.rand(4, 8, requires_grad=True), weft.rand(4, 8)
    for _ in range(OFTEN):
        y = weft.addcmul(a, a, b, value=0.5)
    b.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_statistics_stay():
    def run():
        model = weft.nn.BatchNorm2d(4, momentum=0.3)
        for _ in range(3):
            model(IMAGE * 2).sum().backward()
        return bits(model.running_mean) + bits(model.running_var) + bits(model.weight.grad), model

    first = run()[0]
    for _ in range(OFTEN // 2):
        now, model = run()
    assert now == first
    a = IMAGE.numpy().astype(np.float64) * 2
    kept = 0.7**3
    mean, var = a.mean((0, 2, 3)), a.var((0, 2, 3), ddof=1)
    assert np.allclose(model.running_mean.numpy(), (1 - kept) * mean, rtol=1e-5, atol=1e-6)
    assert np.allclose(model.running_var.numpy(), kept + (1 - kept) * var, rtol=1e-5)
    assert model.num_batches_tracked == 3
    compiled = weft.nn.BatchNorm2d(4, momentum=0.3)
    step = weft.compile(lambda x: compiled(x * 2).sum())
    for _ in range(3):
        step(IMAGE)
    assert bits(compiled.running_mean) + bits(compiled.running_var) == first[:2]


def test_ints_in_place():
    n = weft.tensor([2**62, -5])
    for _ in range(OFTEN):
        n.add_(3)
    assert n.tolist() == [2**62 + 3 * OFTEN, 3 * OFTEN - 5]


def test_no_alias_of_the_operand():
    x = weft.rand(3, 1, 4, 4)
    for _ in range(OFTEN):
        F.pixel_shuffle(x, 1)
    y = F.pixel_shuffle(x, 1)
    y.zero_()
    assert x.abs().sum() > 0


def test_compiled_is_eager():
    def f(x):
        return x.std(1) + x.norm() + x.max(1).values + F.pad(x, (1, 0)).logsumexp(1)

    y = weft.rand(4, 6)
    for _ in range(OFTEN):
        want = f(y)
    g = weft.compile(f)
    for _ in range(3):
        assert bits(g(y)) == bits(want)


def test_bad_data_raises():
    table = weft.arange(5.0)

    @dispatch.chained
    def pick(x):
        return index_select(table, 0, cast(x, weft.int64))

    good, bad = weft.tensor([0.0, 4.0, 2.0]), weft.tensor([0.0, 5.0, 2.0])
    for _ in range(OFTEN):
        assert pick(good).tolist() == [0, 4, 2]
    with pytest.raises(IndexError):
        pick(bad)
    assert pick(good).tolist() == [0, 4, 2]


def test_what_looks_at_values_is_left_alone():
    @dispatch.chained
    def f(x):
        return x * 2.0 if x[0].item() > 0 else x * 3.0

    x = weft.ones(3)
    for _ in range(OFTEN):
        f(x)
    assert f(-x).tolist() == [-3, -3, -3]


def test_random_numbers_go_on():
    @dispatch.chained
    def f(x):
        return x + weft.rand(3)

    x = weft.zeros(3)
    for _ in range(OFTEN):
        f(x)
    assert f(x).tolist() != f(x).tolist()


FILLS = {
    "fill_": lambda x: x.fill_(0.1),
    "clamp_": lambda x: x.clamp_(-0.5, 0.5),
    "relu_": lambda x: x.relu_(),
    "div_": lambda x: x.div_(3),
    "masked_fill_": lambda x: x.masked_fill_(Y > 0, 0.5),
    "copy_": lambda x: x.copy_(weft.arange(32).reshape(4, 8)),
    "normal_": lambda x: x.normal_(1.0, 2.0),
    "uniform_": lambda x: x.uniform_(-1.0, 1.0),
    "rand_like": lambda x: x.copy_(weft.rand_like(x)),
    "randn_like": lambda x: x.copy_(weft.randn_like(x)),
}


@pytest.mark.parametrize("name", FILLS)
def test_fills_stay(name):
    def once():
        weft.manual_seed(3)
        x = Y.clone()
        version = x._version
        assert FILLS[name](x) is x
        assert x._version > version
        return bits(x), FILLS[name](x.t().contiguous().t() if "masked" not in name else x).stride()

    first = once()
    for _ in range(OFTEN // 2):
        once()
    assert once() == first


def test_fills_say_what_is_wrong():
    leaf = weft.rand(4, 8, requires_grad=True)
    for name, fill in FILLS.items():
        with pytest.raises(RuntimeError, match="leaf"):
            fill(leaf)
        with pytest.raises(RuntimeError, match="single memory location"):
            fill(weft.rand(1, 8).expand(4, 8))
        assert name


def test_a_chain_writes_what_the_function_gave():
    op, a = VectorNorm(2.0, (1,), False), Y._a
    y = Y.norm(dim=1)._a
    assert formula.plan_body(op, [a], y) is not None
    for other in (y[:3], y[:, None], y.astype(np.float64)):
        assert formula.plan_body(op, [a], other) is None
