"""Attention: softmax(scale q k^T + mask) v, in one kernel where no probability is dropped.

Gradients compute the scores again from q and k (kernels/schedule/attention_grad.py), so nothing of
size L x S is kept.  The composition of products and softmax serves dropout, masks that want a
gradient, and gradients of gradients.   Source: Vaswani et al. 2017; Dao et al. 2022.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core.handle import Handle, state
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type, broadcast_shapes, numel
from weft.kernels.layout import Layout
from weft.ops.cast import cast, lowered
from weft.ops.contract import matmul
from weft.ops.creation import arange
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.dropout import dropout
from weft.ops.join import cat
from weft.ops.kinds import by_folding
from weft.ops.pad import pad
from weft.ops.reduce import amax, sum
from weft.ops.softmax import softmax
from weft.ops.view import expand, movedim, narrow, permute, reshape, select, transpose, unsqueeze
from weft.runtime.native import Launch

WITH_MASK = {"of": ("float32", "float32", "float32", "bool")}


class AttentionOp(Op, abstract=True):
    """q (N, H, L, E), k (N, H, S, E), v (N, H, S, Ev), mask (N, H, L, S): added, or False hides."""

    causal: bool = False
    scale: float = 1.0

    def scores(self, q: np.ndarray, k: np.ndarray, *mask: np.ndarray) -> np.ndarray:
        """scale q k^T + mask in NumPy, -inf where hidden."""
        s = self.scale * (q @ np.swapaxes(k, -1, -2))
        if mask:
            s = np.where(mask[0], s, -np.inf) if mask[0].dtype == bool else s + mask[0]
        if self.causal:
            s = np.where(np.tri(*s.shape[-2:], dtype=bool), s, -np.inf)
        return s

    def product_flops(self, q: Type, k: Type) -> float:
        """Arithmetic of one product of all queries with all keys."""
        return 2.0 * numel(q.shape) * k.shape[2] * (0.5 if self.causal else 1.0)

    vmap = by_folding


def _need_fit(q: Type, k: Type, v: Type, mask: tuple[Type, ...]) -> None:
    """The kernels read what q's shape says: RuntimeError unless k, v and the mask agree with it."""
    if not q.ndim == k.ndim == v.ndim == 4 or not q.dtype is k.dtype is v.dtype:
        raise RuntimeError(f"attention: {q}, {k}, {v}: wanted 4 dims and one dtype")
    fits = q.shape[:2] == k.shape[:2] == v.shape[:2] and k.shape[2] == v.shape[2]
    if not fits or q.shape[3] != k.shape[3] or len(mask) > 1:
        raise RuntimeError(f"attention: query {q}, key {k}, value {v} do not fit")
    for m in mask:
        scores = (*q.shape[:3], k.shape[2])
        if m.ndim > 4 or broadcast_shapes(m.shape, scores, op="attention") != scores:
            raise RuntimeError(f"attention: mask {m} does not fit scores of shape {scores}")


class Attention(AttentionOp):
    """y = softmax(scale q k^T + mask over the keys) v; 0 where a query sees nothing

    y is (N, H, L, Ev). `with_sums`: one run of numbers, y as (N, L, H, Ev), then log(sum exp) of
    each row of scores, (N, H, L), which the gradient reads: in halves a float32, two elements. No
    cotangent may come in through them.
    """

    def flops(self, q: Type, k: Type, *rest: Type) -> float:
        return 2 * self.product_flops(q, k)

    with_sums: bool = False

    def type(self, q: Type, k: Type, v: Type, *mask: Type) -> Type:
        _need_fit(q, k, v, mask)
        if self.with_sums:
            return Type((kernels.run_size(numel(q.shape[:3]), v.shape[3], q.dtype.np),), q.dtype)
        return Type((*q.shape[:3], v.shape[3]), q.dtype)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        q, k, v = ins[:3]
        mask = ins[3] if ins[3:] else None
        return kernels.plan_attention(
            q, k, v, out, mask, causal=self.causal, scale=self.scale, with_lse=self.with_sums
        )

    def reads_pieces(self, q: Type, keys: Sequence[Type], values: Sequence[Type]) -> bool:
        """Whether `plan_pieces` has a kernel for keys and values that are joined of these."""
        two = len(keys) == len(values) == 2 and keys[0].shape[2] == values[0].shape[2]
        return two and q.shape[2] <= kernels.FEW_QUERIES

    def plan_pieces(self, ins: list[Layout], out: Layout) -> Launch:
        """As `plan`, for q, two pieces of k, two of v, which follow along S, and a mask."""
        q, k, k2, v, v2 = ins[:5]
        return kernels.plan_attention(
            q, k, v, out, ins[5] if ins[5:] else None,
            causal=self.causal, scale=self.scale, with_lse=self.with_sums, later=(k2, v2),
        )  # fmt: skip

    def oracle(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, *mask: np.ndarray) -> np.ndarray:
        s = self.scores(q, k, *mask)
        top = np.max(s, -1, keepdims=True, initial=-np.inf)
        p = np.exp(s - np.where(np.isinf(top), 0, top))
        total = p.sum(-1, keepdims=True)
        y = (p / np.where(total == 0, 1, total)) @ v
        if not self.with_sums:
            return y
        with np.errstate(divide="ignore"):
            sums = np.where(np.isinf(top), 0, top) + np.log(total)
        return np.concatenate([np.swapaxes(y, 1, 2).ravel(), sums.ravel()])

    def vjp(self, g: Any, y: Any, q: Any, k: Any, v: Any, mask: Any = None) -> tuple:
        width = q.shape[3]
        extra = () if mask is None else (mask,)
        if self.with_sums:
            g = _values(g, q, v)
        if state.grad:
            return (*_composed_vjp(self, g, q, k, v, mask), None)
        if not self.with_sums:
            y = apply(Attention(self.causal, self.scale, True), q, k, v, *extra)
        operands = (_rows(g), q, k, v, _values(y, q, v), _sums(y, q), *extra)
        queries, keys = q.shape[2] * width, k.shape[2] * width
        all_three: list = []

        def part(
            index: int, start: int, like: Any
        ) -> Any:  # one kernel gives them, one after the other
            if not all_three:
                all_three.append(apply(AttentionGrad(self.causal, self.scale), *operands))
            if len(shape_of(all_three[0])) == 5:
                return permute(select(all_three[0], 2, index), (0, 2, 1, 3))
            count = like.shape[2] * like.shape[3]
            return reshape(narrow(all_three[0], 2, start, count), like.shape)

        return (
            lambda: part(0, 0, q),
            lambda: part(1, queries, k),
            lambda: part(2, queries + keys, v),
            None,
        )

    def vmap(self, size: int, dims: tuple, *xs: Any) -> tuple[Any, int]:
        if not self.with_sums or any(d is None for d in dims):
            return by_folding(self, size, dims, *xs)
        flat = [
            reshape(movedim(x, d, 0), (-1, *shape_of(x)[2:])) for x, d in zip(xs, dims, strict=True)
        ]
        y = apply(self, *flat)
        values, sums = _values(y, flat[0], flat[2]), _sums(y, flat[0])
        both = [reshape(x, (size, -1)) for x in (transpose(values, 1, 2), sums)]
        odd = dtype_of(y).itemsize == 2 and shape_of(both[0])[1] % 2
        return cat([pad(both[0], (0, 1)) if odd else both[0], both[1]], 1), 0

    onnx = Onnx("Softmax", 13, build=onnx_rules.attention)
    samples = (
        sample((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 3), scale=0.5),
        sample((1, 2, 4, 4), (1, 2, 4, 4), (1, 2, 4, 4), causal=True, scale=0.5),
        sample((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4), (1, 2, 3, 5), scale=0.5, **WITH_MASK),  # pyright: ignore[reportArgumentType]
    )


class AttentionGrad(AttentionOp):
    """y = the cotangents of q, k, v side by side, (N, L, 3, H, E), as a projection to all three
    reads them; where sizes differ one after the other, a row a head: (N, H, L E + S E + S Ev)
    """

    nondiff = "it serves the gradient of Attention, whose own gradient is composed"

    def type(self, g: Type, q: Type, k: Type, v: Type, out: Type, lse: Type, *mask: Type) -> Type:
        _need_fit(q, k, v, mask)
        rows = (*q.shape[:3], v.shape[3])
        sums = (
            (*q.shape[:3], 2) if lse.dtype.itemsize == 2 else q.shape[:3]
        )  # as `with_sums` has them
        if (g.shape, out.shape, lse.shape) != (rows, rows, sums) or g.dtype is not q.dtype:
            raise RuntimeError(f"attention: cotangent {g}, result {out}, sums {lse} do not fit {q}")
        if q.shape == k.shape == v.shape:
            n, h, length, width = q.shape
            return Type((n, length, 3, h, width), q.dtype)
        sizes = [x.shape[2] * x.shape[3] for x in (q, k, v)]
        return Type((*q.shape[:2], sizes[0] + sizes[1] + sizes[2]), q.dtype)

    def flops(self, g: Type, q: Type, k: Type, *rest: Type) -> float:
        return 5 * self.product_flops(q, k)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        g, q, k, v, y, lse, *mask = ins
        if lse.dtype.itemsize == 2:
            lse = Layout(lse.shape[:3], tuple(s // 2 for s in lse.strides[:3]), dt.float32.np)
        return kernels.plan_attention_grad(
            g, q, k, v, y, lse, out, mask[0] if mask else None, causal=self.causal, scale=self.scale
        )

    def oracle(self, *xs: np.ndarray) -> np.ndarray:
        g, q, k, v, out, lse, *mask = xs
        p = np.exp(self.scores(q, k, *mask) - lse[..., None])
        ds = p * (g @ np.swapaxes(v, -1, -2) - (g * out).sum(-1, keepdims=True))
        dk, dv = self.scale * (np.swapaxes(ds, -1, -2) @ q), np.swapaxes(p, -1, -2) @ g
        all_three = (self.scale * (ds @ k), dk, dv)
        if q.shape == k.shape == v.shape:
            return np.stack([np.swapaxes(x, 1, 2) for x in all_three], 2)
        return np.concatenate([x.reshape(*q.shape[:2], -1) for x in all_three], -1)

    samples = (
        sample((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4), (1, 2, 3, 4), (1, 2, 3)),
        sample((1, 2, 3, 3), (1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 3), (1, 2, 3, 3), (1, 2, 3)),
        sample(*[(2, 2, 3, 4)] * 5, (2, 2, 3)),
    )  # fmt: skip


def _values(y: Any, q: Any, v: Any) -> Any:
    """The view (N, H, L, Ev) of what `with_sums` makes."""
    (n, h, length, _), width = shape_of(q), shape_of(v)[3]
    out = reshape(narrow(y, 0, 0, n * h * length * width), (n, length, h, width))
    return permute(out, (0, 2, 1, 3))


def _sums(y: Any, q: Any) -> Any:
    """The view of its sums, (N, H, L); of halves (N, H, L, 2)."""
    each = (2,) if dtype_of(y).itemsize == 2 else ()
    shape = (*shape_of(q)[:3], *each)
    count = numel(shape)
    return reshape(narrow(y, 0, shape_of(y)[0] - count, count), shape)


def _rows(x: Any) -> Any:
    """x with its last dim at stride 1, as the kernels read it."""
    return x if x.stride()[-1] == 1 or x.shape[-1] <= 1 else x.contiguous()


def _hidden(op: AttentionOp, s: Any, mask: Any) -> Any:
    """Scores with the mask added, -inf where a key is hidden."""
    if mask is not None:
        s = s.where(mask, -math.inf) if dtype_of(mask) is dt.bool else s + mask
    if op.causal:
        queries, keys = shape_of(s)[-2:]
        s = s.where(unsqueeze(arange(queries), 1) >= arange(keys), -math.inf)
    return s


def _probabilities(op: AttentionOp, q: Any, k: Any, mask: Any) -> Any:
    """softmax(scale q k^T + mask); 0 in a row that sees nothing."""
    s = _hidden(op, matmul(q, transpose(k, -2, -1)) * op.scale, mask)
    p = softmax(s, -1)
    if mask is None:
        return p
    return p.where(amax(s.detach(), -1, keepdim=True) != -math.inf, 0.0)


def _composed_vjp(op: AttentionOp, g: Any, q: Any, k: Any, v: Any, mask: Any) -> tuple:
    p = _probabilities(op, q, k, mask)
    dp = matmul(g, transpose(v, -2, -1))
    ds = p * (dp - sum(dp * p, -1, keepdim=True)) * op.scale
    return (
        lambda: matmul(ds, k),
        lambda: matmul(transpose(ds, -2, -1), q),
        lambda: matmul(transpose(p, -2, -1), g),
    )


# ------------------------------------------------------------------------------- functions


def _check(q: Any, k: Any, v: Any, mask: Any) -> None:
    if not dtype_of(q) is dtype_of(k) is dtype_of(v):
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{dtype_of(q).name} key.dtype: {dtype_of(k).name} and value.dtype: "
            f"{dtype_of(v).name} instead."
        )
    if min(len(shape_of(x)) for x in (q, k, v)) < 2:
        raise RuntimeError(
            "Expected query, key, and value to all be at least 2 dimensional, but got query.dim: "
            f"{len(shape_of(q))}, key.dim: {len(shape_of(k))} and value.dim: "
            f"{len(shape_of(v))} instead."
        )
    if mask is not None and dtype_of(mask) not in (dt.bool, dtype_of(q)):
        raise RuntimeError(
            "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
            f"attn_mask.dtype: {dtype_of(mask).name} and query.dtype: {dtype_of(q).name} instead."
        )
    if shape_of(q)[-1] != shape_of(k)[-1] or shape_of(k)[-2] != shape_of(v)[-2]:
        raise RuntimeError(
            f"scaled_dot_product_attention: query {list(shape_of(q))}, key {list(shape_of(k))} and "
            f"value {list(shape_of(v))} do not fit"
        )


def _repeat_heads(q: Any, kv: Any) -> Any:
    """Each key head beside the query heads that share it."""
    heads, own = shape_of(q)[-3], shape_of(kv)[-3]
    if heads == own:
        return kv
    if not own or heads % own:
        raise RuntimeError(
            "Number of heads in key and value must divide the number of heads in query, got "
            f"{own} and {heads}"
        )
    shape = shape_of(kv)
    wide = expand(unsqueeze(kv, -3), (*shape[:-2], heads // own, *shape[-2:]))
    return reshape(wide, (*shape[:-3], heads, *shape[-2:]))


@lru_cache(256)
def _usual(causal: bool, width: int, with_sums: bool) -> Attention:
    return Attention(causal, 1.0 / math.sqrt(width or 1), with_sums)


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """y = dropout(softmax(scale q k^T + mask)) v.

    query (..., L, E), key (..., S, E), value (..., S, Ev), result (..., L, Ev); leading dims
    broadcast.  attn_mask (..., L, S): a bool one hides keys where False, a float one is added.
    is_causal hides keys after the query, also beside a mask.  scale: 1 / sqrt(E) by default.
    enable_gqa: dim -3 of key and value divides the query's.  RuntimeError: shapes or dtypes that do
    not fit.
    """
    if state.autocast is not None:
        query, key, value, attn_mask = lowered(query, key, value, attn_mask)
    if dtype_of(query).category != dt.FLOAT:
        raise RuntimeError("Expected query, key, and value to have a floating dtype")
    alike = query.__class__ is key.__class__ is value.__class__
    if alike and attn_mask is scale is None and not (dropout_p or enable_gqa) and shape_of(query):
        tracked = state.grad and (query._rg or key._rg or value._rg)
        op = _usual(bool(is_causal), shape_of(query)[-1], tracked)
        if (y := op.quick(query, key, value)) is not None:
            return _values(y, query, value) if tracked else y
    if attn_mask is not None and dtype_of(attn_mask) is dt.float32:
        attn_mask = cast(attn_mask, dtype_of(query))
    _check(query, key, value, attn_mask)
    if enable_gqa:
        key, value = _repeat_heads(query, key), _repeat_heads(query, value)
    qs, ks, vs = shape_of(query), shape_of(key), shape_of(value)
    batch = broadcast_shapes(qs[:-2], ks[:-2], vs[:-2], op="scaled_dot_product_attention")
    lead = (1,) * (2 - len(batch)) + batch if len(batch) < 3 else (numel(batch[:-1]), batch[-1])

    def spread(x: Any) -> Any:
        shape = shape_of(x)
        x = x if shape[:-2] == batch else expand(x, (*batch, *shape[-2:]))
        return x if len(shape) == 4 and shape[:-2] == batch else reshape(x, (*lead, *shape[-2:]))

    q, k, v = spread(query), spread(key), spread(value)
    mask = None
    if attn_mask is not None:
        full = (*batch, qs[-2], ks[-2])
        mask = expand(attn_mask, full)
        mask = mask if len(batch) == 2 else reshape(mask, (*lead, *full[-2:]))
    factor = 1.0 / math.sqrt(qs[-1]) if scale is None and qs[-1] else scale
    op = Attention(bool(is_causal), float(1.0 if factor is None else factor))
    if dropout_p > 0.0 or (isinstance(mask, Handle) and mask._rg and state.grad):
        p = dropout(_probabilities(op, q, k, mask), dropout_p, True)
        y = matmul(p, v)
    else:
        operands = (q, k, v) if mask is None else (q, k, v, mask)
        tracked = state.grad and (query._rg or key._rg or value._rg)
        op = Attention(op.causal, op.scale, True) if tracked else op
        y = apply(op, *map(_rows, operands))
        y = _values(y, q, v) if op.with_sums else y
    return y if len(batch) == 2 else reshape(y, (*batch, qs[-2], vs[-1]))
