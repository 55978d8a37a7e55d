"""The layers' rooms: formulas in float64, finite differences of whole functions, what laws miss."""

import math

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from tests.ops.rules import gradients
from weft.core import dtype as dt
from weft.core import scalar as S
from weft.core.derivative import derivative
from weft.core.op import REGISTRY
from weft.core.op_text import parse_op
from weft.ops.activation import Activation, Gelu, Slope
from weft.ops.attention import Attention
from weft.ops.dispatch import apply
from weft.ops.norm import Norm

ACTIVATIONS = sorted(n for n, c in REGISTRY.items() if issubclass(c, Activation))


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# ------------------------------------------------------------------------------- activations


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_of_every_order_are_differences_of_the_order_below(name):
    op = REGISTRY[name]()
    x = np.array([0.13, 0.37, 0.81, 1.7, 2.6])
    if name not in ("LogClamped", "Xlogx"):
        x = np.concatenate([-x, x])
    ones = weft.from_numpy(np.ones_like(x))
    for order in (1, 2, 3):

        def below(v, order=order):
            t = weft.from_numpy(v)
            y = apply(op, t) if order == 1 else apply(Slope(op, order - 1), ones, t)
            return y.numpy()

        got = apply(Slope(op, order), ones, weft.from_numpy(x)).numpy()
        np.testing.assert_allclose(got, (below(x + 1e-5) - below(x - 1e-5)) / 2e-5, 1e-6, 1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_slopes_are_finite_far_out(name):
    op = REGISTRY[name]()
    x = np.array([1e-30, 50.0, 3e4], np.float32)
    if name not in ("LogClamped", "Xlogx"):
        x = np.concatenate([-x, x])
    t = weft.from_numpy(x)
    assert np.isfinite(apply(op, t).numpy()).all()
    for order in (1, 2):
        slope = apply(Slope(op, order), weft.ones_like(t), t).numpy()
        assert np.isfinite(slope[np.abs(x) > 1]).all(), (order, slope)


def test_nan_stays_nan():
    nan = weft.tensor([float("nan")])
    kept = (F.gelu, F.silu, F.softplus, F.elu, F.leaky_relu, F.hardtanh, F.hardswish,
            F.hardshrink, F.softshrink, F.mish, F.logsigmoid, F.threshold)  # fmt: skip
    for f in kept:
        y = f(nan, 0.0, 1.0) if f is F.threshold else f(nan)
        assert math.isnan(y.item()), f.__name__


def test_derivatives_of_expressions():
    x = S.Arg(0, dt.float64)
    at = np.array([0.3, 1.1, 2.5])
    for e, want in (
        (S.mul(S.sqrt(x), S.log(x)), np.log(at) / (2 * np.sqrt(at)) + 1 / np.sqrt(at)),
        (S.div(1.0, S.add(x, 1.0)), -1 / (at + 1) ** 2),
        (S.max(x, 1.0), np.array([0.0, 1.0, 1.0])),
        (S.where(S.lt(x, 1.0), S.exp(x), S.neg(x)), np.array([np.exp(0.3), -1.0, -1.0])),
    ):
        got = np.broadcast_to(S.evaluate(derivative(e, x), (at,)), at.shape)
        np.testing.assert_allclose(got, want, 1e-12)
    with pytest.raises(NotImplementedError, match="lgamma"):
        derivative(S.lgamma(x), x)


def test_in_place_activation_keeps_what_its_gradient_needs():
    x = weft.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    y = x * 2
    F.silu(y, inplace=True)
    y.sum().backward()
    s = 1 / (1 + np.exp(-2 * x.detach().numpy()))
    want = 2 * s * (1 + 2 * x.detach().numpy() * (1 - s))
    np.testing.assert_allclose(x.grad.numpy(), want, 1e-5)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        F.relu(x, inplace=True)


def test_text_of_an_op_within_an_op_parses():
    op = Slope(Gelu("tanh"), 2)
    assert parse_op(str(op)) is op


@pytest.mark.parametrize(
    "text",
    ["Slope(fn=Silu(), order=1099511627776)", "Slope(fn=Silu(), order=0)", "Slope(fn=Relu())"],
)
def test_slopes_that_nobody_can_make_are_refused(text):
    x = weft.ones(2)
    with pytest.raises(ValueError, match="of an activation are made"):
        apply(parse_op(text), x, x)


# ------------------------------------------------------------------------------- losses


def test_cross_entropy_is_its_formula():
    x, t = draw(6, 5), np.array([0, 3, 1, 4, 3, 2])
    w = np.abs(draw(5, seed=1)) + 0.1
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    per_row = -w[t] * np.log(p[np.arange(6), t])
    spread = -(np.log(p) * w).sum(1)
    args = weft.from_numpy(x), weft.from_numpy(t), weft.from_numpy(w)
    none = F.cross_entropy(*args, reduction="none").numpy()
    np.testing.assert_allclose(none, per_row, 1e-12)
    smooth = F.cross_entropy(*args, label_smoothing=0.3).item()
    want = (0.7 * per_row.sum() + 0.3 / 5 * spread.sum()) / w[t].sum()
    assert smooth == pytest.approx(want, rel=1e-12)


def test_losses_have_the_gradients_of_their_values():
    x, t = draw(3, 4), draw(3, 4, seed=1)
    signs = weft.from_numpy(np.where(draw(3, seed=2) > 0, 1.0, -1.0))
    for f in (
        lambda a, b: F.huber_loss(a, b, delta=0.7),
        lambda a, b: F.smooth_l1_loss(a, b, beta=0.6),
        lambda a, b: F.binary_cross_entropy(a.sigmoid(), b.sigmoid()),
        lambda a, b: F.kl_div(a, b.softmax(1), reduction="batchmean"),
        lambda a, b: F.cosine_embedding_loss(a, b, signs, 0.1),
        lambda a, b: F.triplet_margin_loss(a, b, a * b, margin=3.0),
        lambda a, b: F.cross_entropy(a, b.softmax(1), label_smoothing=0.1),
        lambda a, b: F.gaussian_nll_loss(a, b, a * a + 0.5, full=True),
        lambda a, b: F.normalize(a * b, p=3.0),
    ):
        gradients(f, [x, t])


# ------------------------------------------------------------------------------- norms, attention


def test_a_norm_given_its_statistics_has_the_same_value_and_gradient():
    x, w, b = (weft.from_numpy(draw(*s)) for s in ((4, 3, 5), (3, 1), (3, 1)))
    g = weft.from_numpy(draw(4, 3, 5, seed=9))
    op = Norm((0, 2), 1e-5)
    m = x.mean((0, 2), keepdim=True)
    r = 1 / (((x - m) ** 2).mean((0, 2), keepdim=True) + 1e-5).sqrt()
    found = []
    for given in ((), (m, r)):
        leaf = x.clone().requires_grad_()
        y = apply(op, leaf, w, b, *given)
        (dx,) = weft.autograd.grad(y, [leaf], g)
        found.append((y.detach().numpy(), dx.numpy()))
    for first, second in zip(*found, strict=True):
        np.testing.assert_allclose(first, second, 1e-10, 1e-12)


def test_running_statistics_follow_the_batch():
    x = draw(5, 3, 4)
    mean, var = weft.zeros(3, dtype=weft.float64), weft.ones(3, dtype=weft.float64)
    F.batch_norm(weft.from_numpy(x), mean, var, training=True, momentum=0.25)
    np.testing.assert_allclose(mean.numpy(), 0.25 * x.mean((0, 2)), 1e-12)
    np.testing.assert_allclose(var.numpy(), 0.75 + 0.25 * x.var((0, 2), ddof=1), 1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_gradients_by_kernel_are_those_by_composition(causal, masked):
    shapes = ((2, 2, 5, 8), (2, 2, 70, 8), (2, 2, 70, 8))
    q, k, v = (weft.from_numpy(draw(*s, seed=i)) for i, s in enumerate(shapes))
    mask = (weft.from_numpy(draw(2, 2, 5, 70, seed=4) > 0),) if masked else ()
    g = weft.from_numpy(draw(2, 2, 5, 8, seed=3))
    found = []
    for create in (False, True):
        leaves = [t.clone().requires_grad_() for t in (q, k, v)]
        y = F.scaled_dot_product_attention(*leaves, *mask, is_causal=causal)
        found.append(weft.autograd.grad(y, leaves, g, create_graph=create))
    plain = apply(Attention(causal, 1 / math.sqrt(8)), q, k, v, *mask)
    np.testing.assert_array_equal(y.detach().numpy(), plain.numpy())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), 1e-9, 1e-11)


def test_a_query_that_sees_nothing_gives_zero():
    q = weft.ones(1, 1, 2, 4, requires_grad=True)
    mask = weft.tensor([[True, True, False], [False, False, False]])
    kv = weft.ones(1, 1, 3, 4)
    y = F.scaled_dot_product_attention(q, kv, kv, mask)
    assert y[0, 0, 1].tolist() == [0.0] * 4 and y[0, 0, 0].tolist() == [1.0] * 4
    y.sum().backward()
    assert np.isfinite(q.grad.numpy()).all()


# ------------------------------------------------------------------------------- images


def test_convolution_is_linear_and_its_own_adjoint():
    x, w = weft.from_numpy(draw(2, 4, 7, 6)), weft.from_numpy(draw(6, 2, 3, 2))
    geometry = {"stride": (2, 1), "padding": (1, 1), "groups": 2}
    y = F.conv2d(x, w, dilation=(1, 2), **geometry)
    g = weft.from_numpy(draw(*y.shape, seed=5))
    back = F.conv_transpose2d(g, w, dilation=(1, 2), output_padding=(0, 0), **geometry)
    assert back.shape == x.shape
    assert (y * g).sum().item() == pytest.approx((back * x).sum().item(), rel=1e-12)


def test_maxima_of_ties_and_nan():
    x = weft.tensor([[[1.0, 1.0, float("nan"), 2.0]]], requires_grad=True)
    y, at = F.max_pool1d(x, 2, return_indices=True)
    assert y[0, 0, 0].item() == 1 and math.isnan(y[0, 0, 1].item())
    assert at.tolist() == [[[0, 2]]]
    y.sum().backward()
    assert x.grad.tolist() == [[[1.0, 0.0, 1.0, 0.0]]]
    with pytest.raises(RuntimeError, match="index 9 is out of bounds"):
        F.max_unpool1d(weft.ones(1, 1, 1), weft.tensor([[[9]]]), 2)


@pytest.mark.parametrize("window", [(2,), (3, 2, 1), ((3, 2), 1, (1, 0), 2), (17, 17)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_maxima_are_the_same_with_and_without_a_gradient(window, dtype):
    x = weft.from_numpy(draw(2, 3, 17, 40)).to(getattr(weft, dtype))
    x[0, 1, 2:4, 3:9], x[1, 2] = float("nan"), float("-inf")
    want, at = F.max_pool2d(x, *window, return_indices=True)
    x.requires_grad_()
    y = F.max_pool2d(x, *window)  # windows of 17x17 have more taps than a byte counts
    assert weft.equal(y.isnan(), want.isnan())
    assert weft.equal(y.nan_to_num(), want.nan_to_num())
    g = weft.from_numpy(draw(*y.shape, seed=1)).to(y.dtype).requires_grad_()
    (dx,) = weft.autograd.grad(y, x, g, create_graph=True)
    flat = np.zeros((2, 3, 17 * 40))
    for i in np.ndindex(2, 3):
        np.add.at(flat[i], at[i].numpy().ravel(), g[i].detach().double().numpy().ravel())
    close = 1e-2 if dtype == "bfloat16" else 1e-6
    np.testing.assert_allclose(
        dx.detach().double().numpy(), flat.reshape(x.shape), rtol=close, atol=2 * close
    )
    gg = weft.from_numpy(draw(*x.shape, seed=2)).to(x.dtype)
    (back,) = weft.autograd.grad(dx, g, gg)  # the adjoint picks what it had put
    assert weft.equal(back, gg.flatten(2).gather(2, at.flatten(2)).reshape(at.shape))


def test_a_step_of_training_compiles_to_the_same_bits():
    weft.manual_seed(0)
    w = weft.randn(4, 3, 3, 3, requires_grad=True)
    scale, shift = weft.ones(4, requires_grad=True), weft.zeros(4, requires_grad=True)
    x, t = weft.randn(6, 3, 8, 8), weft.randint(4, (6,))

    def step():
        y = F.relu(F.batch_norm(F.conv2d(x, w, padding=1), None, None, scale, shift, True))
        y = F.dropout(F.max_pool2d(y, 2), 0.3).mean((2, 3))
        return (*weft.autograd.grad(F.cross_entropy(y, t), [w, scale, shift]), weft.rand(2))

    weft.manual_seed(5)
    want = [[a.numpy().copy() for a in step()] for _ in range(3)]
    weft.manual_seed(5)
    program = weft.compile(step)
    for row in want:
        for a, b in zip(program(), row, strict=True):
            assert a.numpy().tobytes() == b.tobytes()


@pytest.mark.parametrize("step", [5, 2**31 - 1, 2**31, 2**62, 2**63])
def test_windows_step_past_the_end_once(step):
    """Of a step longer than the padded input the first window alone is left, as of one as long."""
    x, w = weft.tensor(draw(2, 3, 4, 4)).float(), weft.tensor(draw(2, 3, 3, 3)).float()
    runs = [
        lambda s: F.conv2d(x, w, stride=s, padding=(0, 0)),
        lambda s: F.conv1d(x[..., 0], w[..., 0], stride=s),
        lambda s: F.conv3d(x[None], w[:, :2, None], stride=s, padding=(1, 0, 0)),
        lambda s: F.max_pool2d(x, 2, s, 1),
        lambda s: F.avg_pool2d(x, 3, s, ceil_mode=True),
        lambda s: F.max_pool3d(x, 2, s),
    ]
    for run in runs:
        assert weft.equal(run(step), run(max(x.shape) + 2))
    leaf = x.clone().requires_grad_()
    runs[0](step)
    F.conv2d(leaf, w, stride=step).sum().backward()
    assert weft.equal(leaf.grad[..., :3, :3], w.sum(0).expand(2, 3, 3, 3))
    assert leaf.grad[..., 3].eq(0).all()


def test_a_window_that_reaches_past_all_of_the_input():
    """With ceil_mode one window fits where the kernel is larger than what there is (torch)."""
    x = weft.arange(7.0).reshape(1, 1, 7, 1)
    for step in (2, 3, 9):
        y = F.avg_pool2d(x, 2, (2, step), ceil_mode=True)
        assert y.flatten().tolist() == [0.5, 2.5, 4.5, 6.0]
        assert F.max_pool2d(x, 2, (2, step), ceil_mode=True).flatten().tolist() == [1, 3, 5, 6]
    with pytest.raises(RuntimeError, match="too small"):
        F.avg_pool2d(x, 2, (2, 1), ceil_mode=True)
    with pytest.raises(RuntimeError, match="too small"):
        F.avg_pool2d(x, 2)


def test_scatter_into_nothing_is_refused():
    index = weft.zeros(2, dtype=weft.int64)
    for f in (lambda x: x.scatter(0, index, 1.0), lambda x: x.scatter_add_(0, index, weft.ones(2))):
        with pytest.raises(RuntimeError, match="out of bounds for dimension 0 with size 0"):
            f(weft.zeros(0))
    assert weft.zeros(3, 0).scatter(0, weft.full((2, 0), 7), 1.0).shape == (3, 0)
