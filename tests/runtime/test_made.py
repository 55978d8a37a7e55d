"""Small constants and draws that native code makes: what Python makes, draw for draw."""

import gc
import random
import sys
import threading

import numpy as np
import pytest

import weft
from weft.nn import functional as F
from weft.ops import dispatch, sort
from weft.runtime import native
from weft.runtime import random as rng

if not native.tensor_builtins():
    pytest.skip("this interpreter's structs are not known", allow_module_level=True)

SIZES = (1, 2, 3, 7, 15, 16, 17, 40)
_p = np.random.default_rng(0).uniform(0.05, 0.95, (max(SIZES), 6)).astype(np.float32)
P = {n: weft.tensor(_p[:n]) for n in SIZES}
DRAWS = {
    "rand": lambda n: weft.rand(n, 3),
    "randn": lambda n: weft.randn(n),
    "normal": lambda n: weft.normal(0.0, 2.5, (n,)),
    "moved": lambda n: weft.normal(-3.0, 1.0, (n,)),
    "normal of a tensor": lambda n: weft.normal(P[n], 0.3),
    "randint": lambda n: weft.randint(-3, 10, (n,)),
    "randperm": lambda n: weft.randperm(n),
    "bernoulli": lambda n: weft.bernoulli(P[n]),
    "bernoulli of p": lambda n: weft.bernoulli(P[n], 0.7),
    "multinomial": lambda n: weft.multinomial(P[n], 1),
    "dropout": lambda n: F.dropout(P[n], 0.3),
    "many": lambda n: weft.rand(6000),
    "double": lambda n: weft.rand(n, dtype=weft.float64),
}


def often(make, *given):
    for _ in range(dispatch._OFTEN + 2):
        make(*given)
    return make(*given)


def by_native(make, *given):
    """Whether the call makes its tensor natively: Python then wraps no array."""
    seen = []
    wrap = dispatch.wrap
    for module in (sys.modules["weft.ops.creation"], sys.modules["weft.ops.random"]):
        vars(module)["wrap"] = lambda a: seen.append(a) or wrap(a)
    try:
        make(*given)
    finally:
        for module in (sys.modules["weft.ops.creation"], sys.modules["weft.ops.random"]):
            vars(module)["wrap"] = wrap
    return not seen


def test_draws_are_those_of_python():
    order = random.Random(5)
    calls = [(order.choice(list(DRAWS)), order.choice(SIZES)) for _ in range(4000)]
    for name in DRAWS:
        for n in SIZES:
            often(DRAWS[name], n)
    weft.manual_seed(11)
    natives = [DRAWS[name](n) for name, n in calls]
    state = weft.get_rng_state()
    native.stand_aside(on=True)
    try:
        weft.manual_seed(11)
        python_ones = [DRAWS[name](n) for name, n in calls]
    finally:
        native.stand_aside(on=False)
    for call, a, b in zip(calls, natives, python_ones, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), call
        assert a.numpy().tobytes() == b.numpy().tobytes(), call
    assert weft.equal(state, weft.get_rng_state())
    for name in ("rand", "randn", "normal", "randint", "randperm"):
        assert by_native(DRAWS[name], 7), name


@pytest.mark.parametrize("bad", [1.5, -0.1, float("nan"), float("inf")])
def test_bad_probabilities_draw_nothing(bad):
    p = weft.full((4, 6), 0.5)
    often(weft.bernoulli, p)
    often(weft.multinomial, p, 1)
    p[3, 5] = bad
    state = weft.get_rng_state()
    with pytest.raises(RuntimeError, match="bernoulli_ expects"):
        weft.bernoulli(p)
    if bad != 1.5:
        with pytest.raises(RuntimeError, match="probability tensor contains"):
            weft.multinomial(p, 1)
        with pytest.raises(RuntimeError, match="invalid multinomial"):
            weft.multinomial(p * 0 if bad == -0.1 else weft.zeros(4, 6), 1)
    assert weft.equal(state, weft.get_rng_state())


def test_constants_are_new_each_time():
    makes = {
        "zeros": lambda: weft.zeros(3, 4, device="cpu"),
        "ones": lambda: weft.ones((2,), dtype=weft.int32),
        "full": lambda: weft.full((2, 3), 1.5),
        "arange": lambda: weft.arange(2, 11, 3),
        "zeros_like": lambda: weft.zeros_like(P[3]),
        "full_like": lambda: weft.full_like(P[3], 7, dtype=weft.int64),
    }
    for name, make in makes.items():
        first = make().clone()
        a = often(make)
        assert by_native(make), name
        a += 1
        assert make().dtype is first.dtype and weft.equal(make(), first), name
    assert often(weft.empty, 3, 4).shape == (3, 4) and by_native(weft.empty, 3, 4)


def test_what_a_wish_depends_on():
    assert often(weft.full, (2,), 1).dtype is weft.int64
    assert weft.full((2,), 1, dtype=weft.float32).dtype is weft.float32
    assert weft.full((2,), True).dtype is weft.bool
    assert weft.full((2,), 0.0)[0].signbit().item() is False
    assert often(weft.full, (2,), -0.0)[0].signbit().item() is True
    often(weft.zeros, 5)
    weft.set_default_dtype(weft.float64)
    try:
        assert weft.zeros(5).dtype is weft.float64 and weft.rand(3).dtype is weft.float64
        assert weft.full((2, 3), 1.5).dtype is weft.float64
    finally:
        weft.set_default_dtype(weft.float32)
    assert weft.zeros(5, requires_grad=True).requires_grad
    assert not weft.zeros(5).requires_grad
    with weft.device("meta"), pytest.raises(RuntimeError, match="not available"):
        weft.zeros(5)
    x = often(weft.zeros_like, P[3].T)
    assert x.shape == (6, 3) and x.stride() == weft.zeros_like(P[3].T).stride() == (1, 6)
    assert weft.zeros([5]).shape == (5,) and often(weft.zeros, [5]).shape == (5,)


def test_recorders_see_them():
    often(weft.rand, 3)
    often(weft.zeros, 3)

    @weft.compile
    def f(x):
        return x + weft.rand(3) + weft.zeros(3)

    for _ in range(4):
        weft.manual_seed(1)
        y = f(weft.ones(3))
        weft.manual_seed(1)
        assert weft.equal(y, weft.rand(3) + 1)
    with pytest.raises(RuntimeError, match="randomness"):
        weft.func.vmap(lambda t: t + weft.rand(3))(weft.ones(2, 3))


def test_streams_of_threads():
    often(weft.rand, 3)
    weft.manual_seed(0)
    expected = weft.Generator().manual_seed(0)
    given = weft.Generator().manual_seed(9)
    with rng.default_generator.bound(given):
        inside = weft.rand(3)
    assert weft.equal(inside, weft.rand(3, generator=weft.Generator().manual_seed(9)))
    assert weft.equal(weft.rand(3), weft.rand(3, generator=expected))

    drawn = []
    with rng.default_generator.current._lock:  # others wait meanwhile
        other = threading.Thread(target=lambda: drawn.append(weft.rand(3)))
        other.start()
        other.join(0.05)
        assert not drawn
        assert weft.equal(weft.rand(3), weft.rand(3, generator=expected))  # it may be taken twice
    other.join()
    assert weft.equal(drawn[0], weft.rand(3, generator=expected))


def test_threads_at_once_take_each_number_once():
    often(weft.rand, 5)
    weft.manual_seed(4)
    expected = weft.rand(4 * 400 * 5 + 4 * 20 * 6000, generator=weft.Generator().manual_seed(4))
    found = []

    def work():
        mine = [weft.rand(5) for _ in range(400)]
        mine += [weft.rand(6000) for _ in range(20)]
        found.extend(mine)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert np.array_equal(
        np.sort(np.concatenate([t.numpy() for t in found])), np.sort(expected.numpy())
    )


def test_nothing_leaks():
    calls = [
        lambda: weft.zeros(3, 4),
        lambda: weft.randn(3),
        lambda: weft.zeros_like(P[3]),
        lambda: weft.bernoulli(P[3]),
        lambda: F.dropout(P[3], 0.3),
    ]
    for call in calls:
        often(call)
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(2000):
            call()
        gc.collect()
        assert sys.getallocatedblocks() - before < 200


def orders(x):
    found = [x.sort(), x.sort(1, True), x.topk(2), x.topk(3, 1, False), weft.sort(x, 0)]
    return [t for pair in found for t in pair]


def layers(x):
    image = x.reshape(1, 2, x.shape[0], -1)
    return [
        F.layer_norm(x, (x.shape[1],)),
        F.max_pool2d(image, 2),
        F.avg_pool2d(image, (2, 1), padding=(1, 0)),
        F.adaptive_avg_pool2d(image, 2),
        weft.einsum("ij,kj->ik", x, x),
    ]


@pytest.mark.parametrize("calls", [orders, layers])
@pytest.mark.parametrize("grad", [False, True])
def test_known_by_shape(calls, grad):
    a = np.random.default_rng(1).integers(-3, 3, (6, 8)).astype(np.float32)
    if calls is orders:
        a[2, 3] = a[4, 0] = a[4, 1] = np.nan
        a[0, :4] = [-0.0, 0.0, np.inf, -np.inf]

    def run(a):
        x = weft.tensor(a, requires_grad=grad and a.dtype.kind == "f")
        ys = calls(x)
        if x.requires_grad:
            parts = [y.nan_to_num(0, 0, 0).sum() for y in ys if y.requires_grad]
            weft.stack(parts).sum().backward()
            ys.append(x.grad)
        return [y.detach().numpy() for y in ys]

    turned = np.asfortranarray(a)
    whole = np.nan_to_num(a, posinf=9, neginf=-9).astype(np.int64)
    others = [turned, a.astype(np.float64), *([] if calls is layers else [whole]), a[::2]]
    before = [run(b) for b in (a, *others)]
    for _ in range(2 * dispatch._OFTEN + 4):
        run(a)
    for b, expected in zip((a, *others), before, strict=True):
        for y, wanted in zip(run(b), expected, strict=True):
            assert y.dtype == wanted.dtype and y.tobytes() == wanted.tobytes()
    if calls is orders:
        for kind in (sort.ArgSort, sort.TopKIndex):
            assert any(op._calls is not None for op in kind._interned.values())


def test_writes_over_tensors_alike():
    a, b = weft.rand(4, 8), weft.rand(4, 8)
    often(weft.add, a, b)
    version = a._version
    assert a.copy_(b) is a and weft.equal(a, b) and a._version == version + 1
    assert not a.zero_().any() and a._version == version + 2
    row = b[1:3]
    row.zero_()
    assert not b[1:3].any() and b[0].all() and b._version == row._version == 1
    assert weft.zeros(3).copy_(weft.rand(3, requires_grad=True)).requires_grad
    leaf = weft.rand(3, requires_grad=True)
    for write in (leaf.zero_, lambda: leaf.copy_(weft.ones(3))):
        with pytest.raises(RuntimeError, match="leaf Variable"):
            write()
    fixed = np.arange(4.0)
    fixed.flags.writeable = False
    with pytest.raises(RuntimeError, match="read-only"):
        weft.from_numpy(fixed).zero_()
    h = leaf * 2
    y = (h * h).sum()
    with weft.no_grad():
        h.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()
    assert weft.zeros(3).copy_(weft.arange(3)).tolist() == [0, 1, 2]
    assert weft.zeros(2, 3).copy_(weft.ones(3)).sum() == 6
    assert weft.rand(2, 3).T.zero_().sum() == 0 and weft.ones(0, 3).zero_().shape == (0, 3)
    a.masked_fill_(a == a, -0.0)
    assert a.signbit().all()
    a[a == 0] = 0.0
    assert not a.signbit().any()
