"""Multi-head attention as a function: projections in, heads, attention, projection out."""

from __future__ import annotations

import math
from typing import Any

from weft.core import dtype as dt
from weft.ops.attention import scaled_dot_product_attention
from weft.ops.contract import linear
from weft.ops.creation import zeros
from weft.ops.dispatch import dtype_of, shape_of
from weft.ops.dropout import dropout
from weft.ops.join import cat, chunk, split
from weft.ops.pad import pad
from weft.ops.reduce import mean
from weft.ops.softmax import softmax
from weft.ops.view import expand, permute, reshape, squeeze, transpose, unsqueeze


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
    kind = f"For {'batched (3-D)' if rank == 3 else 'unbatched (2-D)'} `query`, expected"
    kr, vr = len(shape_of(k)), len(shape_of(v))
    if not kr == vr == rank:
        raise AssertionError(
            f"{kind} `key` and `value` to be {rank}-D but found {kr}-D and {vr}-D tensors "
            "respectively"
        )
    pr = rank - 1 if padding is None else len(shape_of(padding))
    if pr != rank - 1:
        raise AssertionError(
            f"{kind} `key_padding_mask` to be `None` or {rank - 1}-D but found {pr}-D tensor "
            "instead"
        )
    shape = (1, 1) if mask is None else shape_of(mask)
    mr = len(shape)
    if mr not in (2, 3):
        raise AssertionError(
            f"{kind} `attn_mask` to be `None`, 2-D or 3-D but found {mr}-D tensor instead"
        )
    if rank == 2 and mr == 3:
        want = (heads, shape_of(q)[0], shape_of(k)[0])
        if shape != want:
            raise AssertionError(f"Expected `attn_mask` shape to be {want} but got {shape}")
    return rank == 3


def _check_sizes(q: Any, k: Any, v: Any, embed: int, heads: int, *, apart: bool) -> None:
    """Query, key and value against each other and the layer; AssertionError in torch's words."""
    ks, vs = shape_of(k), shape_of(v)
    if shape_of(q)[-1] != embed:
        raise AssertionError(
            f"was expecting embedding dimension of {embed}, but got {shape_of(q)[-1]}"
        )
    if embed % heads:
        raise AssertionError(f"embed_dim {embed} not divisible by num_heads {heads}")
    if apart and ks[:2] != vs[:2]:
        raise AssertionError(
            f"key's sequence and batch dims {ks[:2]} do not match value's {vs[:2]}"
        )
    if not apart and ks != vs:
        raise AssertionError(f"key shape {ks} does not match value shape {vs}")


def _projected(q: Any, k: Any, v: Any, weight: Any, bias: Any, apart: tuple | None) -> tuple:
    """q, k, v through their input projections, packed in one weight or apart.

    One matrix product where one operand serves several.
    """
    biases = (None,) * 3 if bias is None else chunk(bias, 3)
    if apart is not None:
        for name, w in zip("qkv", apart, strict=True):
            if w is None:
                raise AssertionError(
                    f"use_separate_proj_weight is True but {name}_proj_weight is None"
                )
        return tuple(linear(x, w, b) for x, w, b in zip((q, k, v), apart, biases, strict=True))
    if weight is None:
        raise AssertionError("use_separate_proj_weight is False but in_proj_weight is None")
    if q is k and k is v:
        return tuple(chunk(linear(q, weight, bias), 3, -1))
    if k is v:
        e = shape_of(weight)[0] // 3
        w_q, w_kv = split(weight, [e, 2 * e])
        b_q, b_kv = (None, None) if bias is None else split(bias, [e, 2 * e])
        return (linear(q, w_q, b_q), *chunk(linear(k, w_kv, b_kv), 2, -1))
    parts = zip((q, k, v), chunk(weight, 3), biases, strict=True)
    return tuple(linear(x, w, b) for x, w, b in parts)


def _mask_of_heads(mask: Any, batch: int, heads: int, queries: int, keys: int) -> Any:
    """The mask as (L, S) or (N, heads, L, S)."""
    if mask is None:
        return None
    shape = shape_of(mask)
    want = (queries, keys) if len(shape) == 2 else (batch * heads, queries, keys)
    if shape != want:
        raise RuntimeError(
            f"The shape of the {len(shape)}D attn_mask is torch.Size({list(shape)}), but should be "
            f"{want}."
        )
    return mask if len(shape) == 2 else reshape(mask, (batch, heads, queries, keys))


def _given(name: str, x: Any, batch: int, heads: int, width: int) -> Any:
    """static_k or static_v (N heads, S, width) as (N, heads, S, width)."""
    got = shape_of(x)
    if len(got) != 3 or got[0] != batch * heads or got[2] != width:
        raise AssertionError(f"expecting {name} of ({batch * heads}, S, {width}), but got {got}")
    return reshape(x, (batch, heads, got[1], width))


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
    *,
    batch_first: bool = False,
) -> tuple[Any, Any]:
    """(attention's output like query, its weights (N, L, S) or (N, heads, L, S) or None).

    query (L, N, E), key and value (S, N, E), with N first for `batch_first` (not in torch), all
    without N too.  key_padding_mask (N, S) and attn_mask (L, S) or (N heads, L, S): bool ones hide
    where True, floating ones are added.  need_weights: the weights, averaged over heads by default;
    without them one kernel serves.
    """
    batched = _check_ranks(query, key, value, key_padding_mask, attn_mask, num_heads)
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module "
            "method `generate_square_subsequent_mask` to create this mask."
        )
    _check_sizes(query, key, value, embed_dim_to_check, num_heads, apart=use_separate_proj_weight)
    d, width = dtype_of(query), embed_dim_to_check // num_heads
    padding = _added(key_padding_mask, "key_padding_mask", d)
    mask = _added(attn_mask, "attn_mask", d)
    causal = is_causal and padding is None and not need_weights  # then the hint says it all
    apart = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    q, k, v = _projected(query, key, value, in_proj_weight, in_proj_bias, apart)
    if not batched:
        q, k, v = unsqueeze(q, 1), unsqueeze(k, 1), unsqueeze(v, 1)
        padding = None if padding is None else unsqueeze(padding, 0)
    along = 1 if batch_first and batched else 0  # the dim of the positions
    length, n, keys = shape_of(q)[along], shape_of(q)[1 - along], shape_of(k)[along]
    mask = None if causal else _mask_of_heads(mask, n, num_heads, length, keys)
    if (bias_k is None) != (bias_v is None):
        raise AssertionError("bias_k and bias_v must be given together")
    grown = 0
    if bias_k is not None:
        if static_k is not None or static_v is not None:
            raise AssertionError("bias cannot be added to static key or value.")
        one = (n, 1, embed_dim_to_check) if along else (1, n, embed_dim_to_check)
        k, v = cat([k, expand(bias_k, one)], along), cat([v, expand(bias_v, one)], along)
        grown += 1

    def by_head(x: Any) -> Any:
        parts = reshape(x, (*shape_of(x)[:2], num_heads, width))
        return permute(parts, (0, 2, 1, 3) if along else (1, 2, 0, 3))

    q = by_head(q)
    k = by_head(k) if static_k is None else _given("static_k", static_k, n, num_heads, width)
    v = by_head(v) if static_v is None else _given("static_v", static_v, n, num_heads, width)
    if add_zero_attn:
        nothing = zeros(n, num_heads, 1, width, dtype=d)
        k, v = cat([k, nothing], 2), cat([v, nothing], 2)
        grown += 1
    if grown:
        mask = None if mask is None else pad(mask, (0, grown))
        padding = None if padding is None else pad(padding, (0, grown))
    if padding is not None:
        keys = shape_of(k)[2]
        if shape_of(padding) != (n, keys):
            raise AssertionError(
                f"expecting key_padding_mask shape of {(n, keys)}, but got {shape_of(padding)}"
            )
        padding = reshape(padding, (n, 1, 1, keys))
        mask = padding if mask is None else mask + padding
    p = float(dropout_p) if training else 0.0
    weights = None
    if need_weights:
        scores = (q * math.sqrt(1.0 / width)) @ transpose(k, -2, -1)
        weights = softmax(scores if mask is None else mask + scores, -1)
        weights = dropout(weights, p) if p > 0.0 else weights
        y = weights @ v
        weights = mean(weights, 1) if average_attn_weights else weights
        weights = weights if batched else squeeze(weights, 0)
    else:
        y = scaled_dot_product_attention(q, k, v, mask, p, causal)
    y = reshape(permute(y, (2, 0, 1, 3)), (length, n, embed_dim_to_check))
    y = linear(y, out_proj_weight, out_proj_bias)
    if along:
        y = transpose(y, 0, 1)  # a view as torch's: a dropout behind it draws in memory order
    return y if batched else squeeze(y, 1), weights
