"""Multi-head attention as a function: projections in, heads, attention, projection out."""

from __future__ import annotations

import math
from typing import Any

from weft.core import dtype as dt
from weft.ops.attention import scaled_dot_product_attention
from weft.ops.contract import bmm, linear
from weft.ops.creation import zeros
from weft.ops.dispatch import dtype_of, shape_of
from weft.ops.dropout import dropout
from weft.ops.join import cat, chunk
from weft.ops.pad import pad
from weft.ops.reduce import mean
from weft.ops.softmax import softmax
from weft.ops.view import expand, permute, reshape, transpose, unsqueeze


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _added(mask: Any, name: str, d: dt.dtype) -> Any:
    """A mask as numbers to add: a bool one hides where True."""
    if mask is None:
        return None
    if dtype_of(mask) is dt.bool:
        return zeros(*shape_of(mask), dtype=d).masked_fill(mask, -math.inf)
    if dtype_of(mask).category != dt.FLOAT:
        raise AssertionError(f"only bool and floating types of {name} are supported")
    return mask


def _check_ranks(q: Any, k: Any, v: Any, padding: Any, mask: Any, heads: int) -> bool:
    """Whether the operands have a batch; AssertionError in torch's words."""
    rank = len(shape_of(q))
    if rank not in (2, 3):
        raise AssertionError(
            f"query should be unbatched 2D or batched 3D tensor but received {rank}-D query tensor"
        )
    kind = "batched (3-D)" if rank == 3 else "unbatched (2-D)"
    kr, vr = len(shape_of(k)), len(shape_of(v))
    _need(
        kr == vr == rank,
        f"For {kind} `query`, expected `key` and `value` to be {rank}-D but found {kr}-D and "
        f"{vr}-D tensors respectively",
    )
    pr = rank - 1 if padding is None else len(shape_of(padding))
    _need(
        pr == rank - 1,
        f"For {kind} `query`, expected `key_padding_mask` to be `None` or {rank - 1}-D but found "
        f"{pr}-D tensor instead",
    )
    mr = 2 if mask is None else len(shape_of(mask))
    _need(
        mr in (2, 3),
        f"For {kind} `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found {mr}-D "
        "tensor instead",
    )
    if rank == 2 and mr == 3:
        want = (heads, shape_of(q)[0], shape_of(k)[0])
        _need(
            shape_of(mask) == want,  # pyright: ignore[reportArgumentType]
            f"Expected `attn_mask` shape to be {want} but got {shape_of(mask)}",  # pyright: ignore[reportArgumentType]
        )
    return rank == 3


def _projected(
    q: Any, k: Any, v: Any, weight: Any, bias: Any, apart: tuple | None
) -> tuple[Any, Any, Any]:
    """q, k, v through their input projections, packed in one weight or apart."""
    biases = (None,) * 3 if bias is None else chunk(bias, 3)
    if apart is not None:
        for name, w in zip("qkv", apart, strict=True):
            _need(w is not None, f"use_separate_proj_weight is True but {name}_proj_weight is None")
        weights = apart
    else:
        _need(weight is not None, "use_separate_proj_weight is False but in_proj_weight is None")
        if q is k and k is v:  # one product for all three
            return tuple(chunk(linear(q, weight, bias), 3, -1))
        weights = chunk(weight, 3)
    return tuple(linear(x, w, b) for x, w, b in zip((q, k, v), weights, biases, strict=True))


def _mask_of_heads(mask: Any, batch: int, heads: int, queries: int, keys: int) -> Any:
    """The mask as (1 or N heads, L, S)."""
    if mask is None:
        return None
    shape = shape_of(mask)
    want = (queries, keys) if len(shape) == 2 else (batch * heads, queries, keys)
    if shape != want:
        raise RuntimeError(
            f"The shape of the {len(shape)}D attn_mask is torch.Size({list(shape)}), but should be "
            f"{want}."
        )
    return unsqueeze(mask, 0) if len(shape) == 2 else mask


def multi_head_attention_forward(
    query: Any,
    key: Any,
    value: Any,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Any,
    training: bool = True,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Any, Any]:
    """(attention's output (L, N, E), its weights (N, L, S) or None).

    query (L, N, E), key and value (S, N, E), all without N too.  key_padding_mask (N, S) and
    attn_mask (L, S) or (N heads, L, S): bool ones hide where True, floating ones are added.
    need_weights: the weights, averaged over heads by default; without them one kernel serves.
    """
    batched = _check_ranks(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not batched:
        same = key is query, value is key
        query = unsqueeze(query, 1)
        key = query if same[0] else unsqueeze(key, 1)
        value = key if same[1] else unsqueeze(value, 1)
        if key_padding_mask is not None:
            key_padding_mask = unsqueeze(key_padding_mask, 0)
    queries, n, embed = shape_of(query)
    keys = shape_of(key)[0]
    d = dtype_of(query)
    key_padding_mask = _added(key_padding_mask, "key_padding_mask", d)
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module "
            "method `generate_square_subsequent_mask` to create this mask."
        )
    if is_causal and key_padding_mask is None and not need_weights:
        attn_mask = None  # the hint says it all
    else:
        attn_mask = _added(attn_mask, "attn_mask", d)
        is_causal = is_causal and key_padding_mask is None and attn_mask is None
    _need(
        embed == embed_dim_to_check,
        f"was expecting embedding dimension of {embed_dim_to_check}, but got {embed}",
    )
    width = embed // num_heads
    _need(width * num_heads == embed, f"embed_dim {embed} not divisible by num_heads {num_heads}")
    ks, vs = shape_of(key), shape_of(value)
    if use_separate_proj_weight:
        _need(
            ks[:2] == vs[:2],
            f"key's sequence and batch dims {ks[:2]} do not match value's {vs[:2]}",
        )
    else:
        _need(ks == vs, f"key shape {ks} does not match value shape {vs}")
    apart = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    q, k, v = _projected(query, key, value, in_proj_weight, in_proj_bias, apart)
    attn_mask = _mask_of_heads(attn_mask, n, num_heads, queries, keys)
    _need((bias_k is None) == (bias_v is None), "bias_k and bias_v must be given together")
    grown = 0
    if bias_k is not None:
        _need(static_k is None, "bias cannot be added to static key.")
        _need(static_v is None, "bias cannot be added to static value.")
        k = cat([k, expand(bias_k, (1, n, embed))])
        v = cat([v, expand(bias_v, (1, n, embed))])
        grown += 1

    def by_head(x: Any) -> Any:
        return transpose(reshape(x, (shape_of(x)[0], n * num_heads, width)), 0, 1)

    q = by_head(q)
    k = by_head(k) if static_k is None else static_k
    v = by_head(v) if static_v is None else static_v
    for name, x in (("static_k", k), ("static_v", v)):
        got = shape_of(x)
        _need(
            got[0] == n * num_heads and got[2] == width,
            f"expecting {name} of ({n * num_heads}, S, {width}), but got {tuple(got)}",
        )
    if add_zero_attn:
        nothing = zeros(n * num_heads, 1, width, dtype=d)
        k, v = cat([k, nothing], 1), cat([v, nothing], 1)
        grown += 1
    if grown and attn_mask is not None:
        attn_mask = pad(attn_mask, (0, grown))
    if grown and key_padding_mask is not None:
        key_padding_mask = pad(key_padding_mask, (0, grown))
    keys = shape_of(k)[1]
    if key_padding_mask is not None:
        _need(
            shape_of(key_padding_mask) == (n, keys),
            f"key_padding_mask.shape is {shape_of(key_padding_mask)}, expected {(n, keys)}",
        )
        spread = expand(reshape(key_padding_mask, (n, 1, 1, keys)), (n, num_heads, 1, keys))
        spread = reshape(spread, (n * num_heads, 1, keys))
        attn_mask = spread if attn_mask is None else attn_mask + spread
    p = float(dropout_p) if training else 0.0
    if not need_weights:
        shape = (n, num_heads, -1, width)
        if attn_mask is not None:
            one = shape_of(attn_mask)[0] == 1
            attn_mask = (
                unsqueeze(attn_mask, 0)
                if one
                else reshape(attn_mask, (n, num_heads, shape_of(attn_mask)[1], keys))
            )
        heads = (reshape(x, shape) for x in (q, k, v))
        y = scaled_dot_product_attention(*heads, attn_mask, p, is_causal)  # pyright: ignore[reportCallIssue]
        y = reshape(permute(y, (2, 0, 1, 3)), (queries * n, embed))
        weights = None
    else:
        scores = bmm(q * math.sqrt(1.0 / width), transpose(k, -2, -1))
        weights = softmax(scores if attn_mask is None else attn_mask + scores, -1)
        if p > 0.0:
            weights = dropout(weights, p)
        y = reshape(transpose(bmm(weights, v), 0, 1), (queries * n, embed))
        weights = reshape(weights, (n, num_heads, queries, keys))
        weights = mean(weights, 1) if average_attn_weights else weights
        weights = weights if batched else reshape(weights, shape_of(weights)[1:])
    y = linear(y, out_proj_weight, out_proj_bias)
    return reshape(y, (queries, n, -1) if batched else (queries, -1)), weights
