"""Calls of torch.nn.functional's names that mean the same in torch and in Weft.

A case is (name, function of (W, F, *tensors), arrays, order).  W is torch or weft, F its
nn.functional; floating arrays become leaves that want a gradient.  order: how often torch
differentiates the case (0: no gradient).  tests/fixtures/make_functional.py records torch's
answers, tests/nn/test_functional.py compares Weft's.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

CASES: list[tuple[str, Callable, list[np.ndarray], int]] = []


def case(name: str, fn: Callable, *shapes: Any, order: int = 2, low: float = 0.0) -> None:
    """Shapes are drawn as float32 normals (|x| + low where low > 0); arrays are taken as given."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    arrays = []
    for s in shapes:
        if isinstance(s, tuple):
            a = rng.standard_normal(s).astype(np.float32)
            arrays.append(np.abs(a) + np.float32(low) if low else a)
        else:
            arrays.append(np.asarray(s))
    CASES.append((name, fn, arrays, order))


def leaves(W: Any, arrays: list[np.ndarray]) -> list:
    """Tensors over copies; floating ones want a gradient."""
    out = []
    for a in arrays:
        t = W.from_numpy(a.copy())
        out.append(t.requires_grad_() if a.dtype.kind == "f" else t)
    return out


def answers(W: Any, F: Any, fn: Callable, arrays: list[np.ndarray], order: int) -> list:
    """[result, gradients..., second gradients...] as digests; None where there is no gradient."""
    W.manual_seed(0)
    ts = leaves(W, arrays)
    y = fn(W, F, *ts)
    out = [y]
    wanted = [t for t in ts if t.requires_grad]
    if order and wanted:
        weights = W.from_numpy(np.cos(np.arange(y.numel(), dtype=np.float32)).reshape(y.shape))
        first = W.autograd.grad(
            (y * weights).sum(), wanted, create_graph=order > 1, allow_unused=True
        )
        out += list(first)
        if order > 1:
            square = sum((g * g).sum() for g in first if g is not None)
            linear = not square.requires_grad
            out += [None] * len(wanted) if linear else list(
                W.autograd.grad(square, wanted, allow_unused=True)
            )  # fmt: skip
    return [None if t is None else digest(t.detach().numpy(force=True)) for t in out]


def digest(a: np.ndarray) -> dict:
    """Shape, the first values, and sums that every element enters with a weight of its own."""
    wide = np.asarray(a, np.float64).ravel()
    return {
        "shape": list(a.shape),
        "head": [float(f"{v:.7g}") for v in wide[:3]],
        "mixed": float(f"{wide @ np.sin(1 + np.arange(wide.size)):.9g}"),
        "size": float(f"{np.abs(wide).sum():.6g}"),
    }


# ------------------------------------------------------------------------------- activations

X = (3, 5)
ACTIVATIONS = (
    "gelu silu softplus elu selu celu leaky_relu hardtanh relu6 hardswish hardshrink softshrink "
    "tanhshrink mish softsign logsigmoid relu sigmoid tanh"
)
for _name in ACTIVATIONS.split():
    case(_name, lambda W, F, x, n=_name: getattr(F, n)(x * 2), X)
case("hardsigmoid", lambda W, F, x: F.hardsigmoid(x * 3), X, order=1)
case("gelu_tanh", lambda W, F, x: F.gelu(x, approximate="tanh"), X)
case("softplus_beta", lambda W, F, x: F.softplus(x, 3.0, 2.0), X)
case("celu_alpha", lambda W, F, x: F.celu(x, 0.4), X)
case("elu_inplace", lambda W, F, x: F.elu(x * 2, 0.4, inplace=True), X, order=1)
case("silu_inplace", lambda W, F, x: F.silu(x * 2, inplace=True), X, order=1)
case("threshold", lambda W, F, x: F.threshold(x, 0.1, 20.0), X)
case("prelu", lambda W, F, x, w: F.prelu(x, w), (2, 3, 4), (3,))
case("prelu_one", lambda W, F, x, w: F.prelu(x, w), X, (1,))
case("glu", lambda W, F, x: F.glu(x, 1), (3, 4, 2))
case("rrelu", lambda W, F, x: F.rrelu(x, training=True), X, order=1)
case("rrelu_eval", lambda W, F, x: F.rrelu(x), X, order=1)
case("softmax", lambda W, F, x: F.softmax(x, 1), (2, 5, 3))
case("softmax_double", lambda W, F, x: F.softmax(x, 0, dtype=W.float64).float(), (2, 5))
case("log_softmax", lambda W, F, x: F.log_softmax(x, -1), (2, 5))
case("softmin", lambda W, F, x: F.softmin(x, 0), (2, 5))
case("gumbel", lambda W, F, x: F.gumbel_softmax(x, 0.7), X, order=1)
case("gumbel_hard", lambda W, F, x: F.gumbel_softmax(x, 0.7, hard=True), X, order=1)

# ------------------------------------------------------------------------------- losses

T1 = np.array([1, 4, 0, 3])
T3 = np.array([[0, 2, 1, -100], [1, 1, 2, 0]])
PM = np.array([1.0, -1.0, 1.0, -1.0], np.float32)
SIGNS = np.where(np.arange(20).reshape(4, 5) % 3 == 0, -1.0, 1.0)
for _r in ("none", "mean", "sum"):
    case(f"ce_{_r}", lambda W, F, x, t, r=_r: F.cross_entropy(x, t, reduction=r), (4, 5), T1)
    case(
        f"ce_weight_{_r}",
        lambda W, F, x, t, w, r=_r: F.cross_entropy(
            x, t, w.detach(), ignore_index=4, label_smoothing=0.2, reduction=r
        ),
        (4, 5), T1, (5,), low=0.1,
    )  # fmt: skip
    case(f"ce_3d_{_r}", lambda W, F, x, t, r=_r: F.cross_entropy(
        x, t, label_smoothing=0.1, reduction=r), (2, 3, 4), T3)  # fmt: skip
    case(f"ce_prob_{_r}", lambda W, F, x, p, r=_r: F.cross_entropy(
        x, p, label_smoothing=0.1, reduction=r), (4, 5), (4, 5))  # fmt: skip
    case(f"nll_{_r}", lambda W, F, x, t, r=_r: F.nll_loss(x, t, reduction=r), (2, 3, 4), T3)
    case(f"mse_{_r}", lambda W, F, x, t, r=_r: F.mse_loss(x, t, reduction=r), X, X)
    case(f"l1_{_r}", lambda W, F, x, t, r=_r: F.l1_loss(x, t, reduction=r), X, X)
    case(f"smooth_{_r}", lambda W, F, x, t, r=_r: F.smooth_l1_loss(
        x, t, beta=0.5, reduction=r), X, X)  # fmt: skip
    case(f"huber_{_r}", lambda W, F, x, t, r=_r: F.huber_loss(
        x, t, delta=0.7, reduction=r), X, X)  # fmt: skip
    case(f"bce_{_r}", lambda W, F, x, t, r=_r: F.binary_cross_entropy(
        W.sigmoid(x), W.sigmoid(t), reduction=r), X, X)  # fmt: skip
    case(f"bcel_{_r}", lambda W, F, x, t, p, r=_r: F.binary_cross_entropy_with_logits(
        x, t, pos_weight=p.detach(), reduction=r), X, X, (5,))  # fmt: skip
    case(f"kl_log_{_r}", lambda W, F, x, t, r=_r: F.kl_div(
        x, t, log_target=True, reduction=r), X, X)  # fmt: skip
    case(f"hinge_{_r}", lambda W, F, x, r=_r: F.hinge_embedding_loss(
        x, W.from_numpy(SIGNS), reduction=r), (4, 5))  # fmt: skip
    case(f"rank_{_r}", lambda W, F, x, y, r=_r: F.margin_ranking_loss(
        x, y, W.from_numpy(SIGNS), 0.3, reduction=r), (4, 5), (4, 5))  # fmt: skip
    case(f"cosine_{_r}", lambda W, F, x, y, r=_r: F.cosine_embedding_loss(
        x, y, W.from_numpy(PM), 0.1, reduction=r), (4, 5), (4, 5))  # fmt: skip
    case(f"triplet_{_r}", lambda W, F, a, p, n, r=_r: F.triplet_margin_loss(
        a, p, n, swap=True, reduction=r), (4, 5), (4, 5), (4, 5))  # fmt: skip
    case(f"poisson_{_r}", lambda W, F, x, t, r=_r: F.poisson_nll_loss(
        x, t.detach(), full=True, reduction=r), X, X, low=0.5)  # fmt: skip
    case(f"gaussian_{_r}", lambda W, F, x, t, v, r=_r: F.gaussian_nll_loss(
        x, t, v, full=True, reduction=r), X, X, X, low=0.2)  # fmt: skip
    case(f"soft_margin_{_r}", lambda W, F, x, r=_r: F.soft_margin_loss(
        x, W.from_numpy(SIGNS), reduction=r), (4, 5))  # fmt: skip
    case(f"multilabel_soft_{_r}", lambda W, F, x, t, r=_r: F.multilabel_soft_margin_loss(
        x, t, reduction=r), X, X)  # fmt: skip
    case(f"multi_margin_{_r}", lambda W, F, x, t, w, r=_r: F.multi_margin_loss(
        x, t, p=2, weight=w.detach(), reduction=r), (4, 5), T1, (5,), order=1)  # fmt: skip
case("kl", lambda W, F, x, t: F.kl_div(x, t, reduction="batchmean"), X, X, low=0.1)
case("ce_one", lambda W, F, x: F.cross_entropy(x, W.tensor(2)), (5,))
case("ce_all_ignored", lambda W, F, x: F.cross_entropy(x, W.tensor([-100, -100])), (2, 5), order=0)
case("gaussian_short_var", lambda W, F, x, t, v: F.gaussian_nll_loss(x, t, v), X, X, (3,), low=0.2)
case("multilabel_margin", lambda W, F, x: F.multilabel_margin_loss(
    x, W.tensor([[1, 3, -1, 0], [-1, 2, 0, 0], [2, 1, 0, 3]])), (3, 4), order=1)  # fmt: skip
case("pairwise", lambda W, F, x, y: F.pairwise_distance(x, y, 3.0), X, X)
case("cosine_similarity", lambda W, F, x, y: F.cosine_similarity(x, y), X, (1, 5))
case("normalize", lambda W, F, x: F.normalize(x, p=1.5, dim=0), X)

# ------------------------------------------------------------------------------- convolutions

I = (2, 4, 7, 6)
case("conv2d", lambda W, F, x, w, b: F.conv2d(x, w, b, padding=1), I, (6, 4, 3, 3), (6,))
case("conv2d_all", lambda W, F, x, w, b: F.conv2d(x, w, b, (2, 1), (0, 2), (1, 2), 2),
     I, (6, 2, 3, 2), (6,))  # fmt: skip
case("conv2d_same", lambda W, F, x, w: F.conv2d(x, w, padding="same", dilation=(1, 2)),
     I, (3, 4, 4, 2))  # fmt: skip
case("conv2d_single", lambda W, F, x, w: F.conv2d(x, w, padding="valid"), I[1:], (3, 4, 2, 2))
case("conv2d_strided", lambda W, F, x, w: F.conv2d(x.transpose(2, 3), w.transpose(2, 3)),
     I, (3, 4, 2, 3))  # fmt: skip
case("conv1d", lambda W, F, x, w, b: F.conv1d(x, w, b, 2, 1), (2, 4, 9), (6, 4, 3), (6,))
case("conv1d_single", lambda W, F, x, w: F.conv1d(x, w), (4, 9), (6, 4, 3))
case("conv3d", lambda W, F, x, w, b: F.conv3d(x, w, b, (2, 1, 1), (1, 2, 0), (2, 1, 1)),
     (1, 2, 5, 4, 3), (3, 2, 2, 3, 2), (3,))  # fmt: skip
case("transpose2d", lambda W, F, x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1),
     (2, 4, 4, 3), (4, 3, 3, 3), (3,))  # fmt: skip
case("transpose2d_dilated", lambda W, F, x, w: F.conv_transpose2d(
    x, w, groups=2, dilation=3, output_padding=1), (2, 4, 4, 3), (4, 3, 3, 3))  # fmt: skip
case("transpose1d", lambda W, F, x, w: F.conv_transpose1d(x, w, stride=3, output_padding=2),
     (2, 4, 5), (4, 3, 3))  # fmt: skip

# ------------------------------------------------------------------------------- pools

case("max2d", lambda W, F, x: F.max_pool2d(x, 2), I)
case("max2d_all", lambda W, F, x: F.max_pool2d(x, (3, 2), (2, 1), (1, 1), ceil_mode=True), I)
case("max2d_dilated", lambda W, F, x: F.max_pool2d(x, 3, 1, dilation=2), I)
case("max2d_places", lambda W, F, x: F.max_pool2d(x, 2, return_indices=True)[1], I, order=0)
case("max1d", lambda W, F, x: F.max_pool1d(x, 3, 2, 1), (2, 3, 9))
case("max3d", lambda W, F, x: F.max_pool3d(x, (2, 3, 2), 2, (1, 1, 0), ceil_mode=True),
     (1, 2, 5, 6, 4))  # fmt: skip
case("avg2d", lambda W, F, x: F.avg_pool2d(x, (3, 2), (2, 1), (1, 1), ceil_mode=True), I)
case("avg2d_inside", lambda W, F, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), I)
case("avg2d_divisor", lambda W, F, x: F.avg_pool2d(x, 3, divisor_override=5), I)
case("avg1d", lambda W, F, x: F.avg_pool1d(x, 3, 2, 1), (2, 3, 9))
case("avg3d", lambda W, F, x: F.avg_pool3d(x, (2, 3, 2), 2, (1, 1, 0), count_include_pad=False),
     (1, 2, 5, 6, 4))  # fmt: skip
case("adaptive_avg2d", lambda W, F, x: F.adaptive_avg_pool2d(x, (4, None)), I)
case("adaptive_avg1d", lambda W, F, x: F.adaptive_avg_pool1d(x, 4), (3, 9))
case("adaptive_avg3d", lambda W, F, x: F.adaptive_avg_pool3d(x, (3, None, 2)), (1, 2, 5, 3, 4))
case("adaptive_max2d", lambda W, F, x: F.adaptive_max_pool2d(x, (4, 3)), I)
case("adaptive_max_places", lambda W, F, x: F.adaptive_max_pool2d(x, 3, True)[1], I, order=0)
case("lp2d", lambda W, F, x: F.lp_pool2d(x, 2, (2, 3)), I)
case("unpool", lambda W, F, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2,
     output_size=(7, 6)), I, order=1)  # fmt: skip

# ------------------------------------------------------------------------------- norms

C = ((6,), (6,))
N = (4, 6, 3, 2)


def _moved(W: Any, F: Any, x: Any, w: Any, b: Any) -> Any:
    """The running statistics beside the result."""
    mean, var = W.zeros(6), W.ones(6)
    y = F.batch_norm(x, mean, var, w, b, True, 0.3, 1e-3)
    return W.cat([y.reshape(-1), mean, var])


case("batch_norm", _moved, N, *C)
case("batch_norm_2d", lambda W, F, x, w, b: F.batch_norm(x, None, None, w, b, True), (5, 6), *C)
case("batch_norm_plain", lambda W, F, x: F.batch_norm(x, None, None, training=True), N)
case("batch_norm_eval", lambda W, F, x, w, b: F.batch_norm(
    x, W.arange(6.0), W.arange(6.0) + 0.5, w, b), N, *C)  # fmt: skip
case("instance_norm", lambda W, F, x, w, b: F.instance_norm(x, weight=w, bias=b), N, *C)
case("group_norm", lambda W, F, x, w, b: F.group_norm(x, 3, w, b), N, *C)
case("layer_norm", lambda W, F, x, w, b: F.layer_norm(x, (3, 5), w, b), (2, 3, 5), (3, 5), (3, 5))
case("layer_norm_last", lambda W, F, x, w, b: F.layer_norm(x, (5,), w, b), (2, 3, 5), (5,), (5,))
case("layer_norm_strided", lambda W, F, x: F.layer_norm(x.transpose(1, 2), (5, 3)), (2, 3, 5))
case("rms_norm", lambda W, F, x, w: F.rms_norm(x, (5,), w), (2, 3, 5), (5,))
case("response", lambda W, F, x: F.local_response_norm(x, 3, 0.1, 0.7, 2.0), N)
case("response_even", lambda W, F, x: F.local_response_norm(x, 4, 0.1, 0.7, 2.0), N)

# ------------------------------------------------------------------------------- draws

for _d in ("dropout", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"):
    case(_d, lambda W, F, x, n=_d: getattr(F, n)(x, 0.3, True), (2, 6, 3, 2), order=1)
case("dropout1d", lambda W, F, x: F.dropout1d(x, 0.3), (2, 6, 5), order=1)
case("dropout_eval", lambda W, F, x: F.dropout(x, 0.3, False) * 1, X, order=1)
case("dropout_all", lambda W, F, x: F.dropout(x, 1.0), X, order=1)
case("draws", lambda W, F: W.cat([
    W.rand(5), W.randn(20), W.randint(3, 9, (4,)).float(), W.randperm(6).float(),
    W.bernoulli(W.full((5,), 0.4)), W.zeros(4, 3).t().uniform_(-1, 1).reshape(-1),
    W.zeros(5).exponential_(), W.normal(W.arange(3.0), 2.0), W.zeros(4).random_(),
    W.multinomial(W.tensor([0.1, 0.2, 0.7]), 2).float()]), order=0)  # fmt: skip

# ------------------------------------------------------------------------------- attention

Q, K, V = (2, 2, 4, 6), (2, 2, 5, 6), (2, 2, 5, 3)
SEEN = np.arange(40).reshape(2, 1, 4, 5) % 3 != 0
case("attention", lambda W, F, q, k, v: F.scaled_dot_product_attention(q, k, v), Q, K, V, order=1)
case("attention_causal", lambda W, F, q, k, v: F.scaled_dot_product_attention(
    q, k, v, is_causal=True, scale=0.3), Q, K, V, order=1)  # fmt: skip
case("attention_mask", lambda W, F, q, k, v, m: F.scaled_dot_product_attention(q, k, v, m),
     Q, K, V, SEEN, order=1)  # fmt: skip
case("attention_bias", lambda W, F, q, k, v, m: F.scaled_dot_product_attention(q, k, v, m),
     Q, K, V, (4, 5), order=1)  # fmt: skip
case("attention_groups", lambda W, F, q, k, v: F.scaled_dot_product_attention(
    q, k, v, is_causal=True, enable_gqa=True), (2, 6, 4, 6), (2, 2, 5, 6), (2, 2, 5, 6),
    order=1)  # fmt: skip
case("attention_3d", lambda W, F, q, k, v: F.scaled_dot_product_attention(q, k, v),
     Q[1:], K[1:], V[1:], order=1)  # fmt: skip
case("attention_dropout", lambda W, F, q, k, v: F.scaled_dot_product_attention(
    q, k, v, dropout_p=0.3), Q, K, V, order=1)  # fmt: skip
HIDDEN = np.triu(np.ones((4, 5), bool), 2)
PADDED = np.arange(15).reshape(3, 5) % 5 == 4


def _heads(need_weights: bool, **options: Any) -> Callable:
    def call(W: Any, F: Any, q: Any, k: Any, *rest: Any) -> Any:
        wi, bi, wo, bo, *extra = rest
        given = {n: W.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in options.items()}
        bias = extra or (None, None)
        y, w = F.multi_head_attention_forward(
            q, k, k, 8, 2, wi, bi, *bias, bool(extra), 0.0, wo, bo, need_weights=need_weights,
            **given,
        )  # fmt: skip
        return y if w is None else W.cat([y.reshape(-1), w.reshape(-1)])

    return call


MHA = ((4, 3, 8), (5, 3, 8), (24, 8), (24,), (8, 8), (8,))
for _w in (False, True):
    case(f"heads_{_w}", _heads(_w), *MHA, order=1)
    case(f"heads_masks_{_w}", _heads(_w, attn_mask=HIDDEN, key_padding_mask=PADDED), *MHA, order=1)
    case(f"heads_bias_{_w}", _heads(_w, attn_mask=HIDDEN), *MHA, (1, 1, 8), (1, 1, 8), order=1)

# ------------------------------------------------------------------------------- images and more

for _m in ("nearest", "nearest-exact", "area", "bilinear", "bicubic"):
    case(f"resize_{_m}", lambda W, F, x, m=_m: F.interpolate(x, (9, 4), mode=m), I)
    case(f"scale_{_m}", lambda W, F, x, m=_m: F.interpolate(x, scale_factor=(1.7, 0.7), mode=m), I)
for _m in ("bilinear", "bicubic"):
    case(f"corners_{_m}", lambda W, F, x, m=_m: F.interpolate(
        x, (9, 4), mode=m, align_corners=True), I)  # fmt: skip
case("resize_linear", lambda W, F, x: F.interpolate(x, scale_factor=2, mode="linear"), (2, 3, 5))
case("resize_trilinear", lambda W, F, x: F.interpolate(x, (3, 4, 5), mode="trilinear"),
     (1, 2, 3, 4, 3))  # fmt: skip
case("unfold", lambda W, F, x: F.unfold(x, (2, 3), (2, 1), (1, 0), 2), I)
case("fold", lambda W, F, x: F.fold(x, (5, 6), 2, (2, 1), (1, 0), (2, 3)), (4, 6))
case("pixel_shuffle", lambda W, F, x: F.pixel_shuffle(x, 2), (2, 8, 3, 2))
case("pixel_unshuffle", lambda W, F, x: F.pixel_unshuffle(x, 2), (2, 4, 6))
for _m in ("reflect", "replicate", "circular"):
    case(f"pad_{_m}", lambda W, F, x, m=_m: F.pad(x, (1, 2, 2, 0), m), (1, 2, 4, 3))
case("pad_constant", lambda W, F, x: F.pad(x, (-1, 2, 0, 1), value=3.0), (1, 2, 4, 3))
case("bilinear_form", lambda W, F, a, b, w, c: F.bilinear(a, b, w, c),
     (4, 2, 3), (4, 2, 5), (6, 3, 5), (6,))  # fmt: skip
case("linear", lambda W, F, x, w, b: F.linear(x, w, b), (2, 3, 4), (5, 4), (5,))
BAG = np.array([0, 3, 1, 4, 4, 2, 0, 1, 3])
for _m in ("sum", "mean", "max"):
    case(f"bag_{_m}", lambda W, F, i, w, m=_m: F.embedding_bag(
        i, w, W.tensor([0, 3, 3, 7]), mode=m, padding_idx=2), BAG, (5, 4), order=1)  # fmt: skip
    case(f"bags_{_m}", lambda W, F, i, w, m=_m: F.embedding_bag(i, w, mode=m),
         BAG.reshape(3, 3), (5, 4), order=1)  # fmt: skip
case("embedding", lambda W, F, i, w: F.embedding(i, w, padding_idx=1), BAG, (5, 4), order=1)

for _m in ("bilinear", "nearest", "bicubic"):
    for _p in ("zeros", "border", "reflection"):
        for _c in (True, False):
            case(f"grid_{_m}_{_p}_{_c}", lambda W, F, x, g, m=_m, p=_p, c=_c: F.grid_sample(
                x, g, m, p, align_corners=c), (2, 2, 5, 4), (2, 3, 4, 2), order=1)  # fmt: skip
for _c in (True, False):
    case(f"affine_{_c}", lambda W, F, t, c=_c: F.affine_grid(t, (2, 1, 3, 4), align_corners=c),
         (2, 2, 3), order=1)  # fmt: skip
    case(f"affine_3d_{_c}", lambda W, F, t, c=_c: F.affine_grid(
        t, (2, 1, 2, 3, 4), align_corners=c), (2, 3, 4), order=1)  # fmt: skip

LABELS = np.array([[1, 2, 2, 3], [3, 1, 0, 0], [2, 2, 2, 2]])
for _r in ("none", "mean", "sum"):
    case(f"ctc_{_r}", lambda W, F, x, t, r=_r: F.ctc_loss(
        W.log_softmax(x, 2), t, W.tensor([8, 6, 7]), W.tensor([4, 2, 0]), reduction=r),
        (8, 3, 5), LABELS, order=1)  # fmt: skip
case("ctc_impossible", lambda W, F, x, t: F.ctc_loss(
    W.log_softmax(x, 2), t, W.tensor([8, 6, 5]), W.tensor([4, 2, 4]), reduction="none",
    zero_infinity=True), (8, 3, 5), LABELS, order=1)  # fmt: skip
case("ctc_infinite", lambda W, F, x, t: F.ctc_loss(
    W.log_softmax(x, 2), t, W.tensor([8, 6, 5]), W.tensor([4, 2, 4]), reduction="none"),
    (8, 3, 5), LABELS, order=0)  # fmt: skip
case("ctc_in_a_row", lambda W, F, x: F.ctc_loss(
    W.log_softmax(x, 2), W.tensor([1, 2, 2, 3, 3, 1]), (8, 6), (4, 2), blank=4),
    (8, 2, 5), order=1)  # fmt: skip
