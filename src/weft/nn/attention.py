"""MultiheadAttention: h attentions over slices of the embedding, side by side."""

from __future__ import annotations

import math
from typing import Any

import weft
from weft import Parameter, Tensor
from weft.nn import functional as F
from weft.nn import init
from weft.nn.linear import NonDynamicallyQuantizableLinear
from weft.nn.module import Module


class MultiheadAttention(Module):
    """softmax(q k^T / sqrt(d)) v in `num_heads` heads of d = embed_dim / num_heads, then a Linear.

    query (L, N, E), key (S, N, kdim), value (S, N, vdim), or (N, L, E) ... with `batch_first`, or
    without the batch dim.  Masks: boolean (True is left out) or added to the scores.
    (Vaswani et al. 2017)
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                "embed_dim and num_heads must be greater than 0, got "
                f"embed_dim={embed_dim} and num_heads={num_heads} instead"
            )
        super().__init__()
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads, self.dropout, self.batch_first = num_heads, dropout, batch_first
        self.head_dim = embed_dim // num_heads
        if self.head_dim * num_heads != embed_dim:
            raise AssertionError("embed_dim must be divisible by num_heads")

        def made(*shape: int) -> Parameter:
            return Parameter(weft.empty(shape, device=device, dtype=dtype))

        if self._qkv_same_embed_dim:
            self.in_proj_weight = made(3 * embed_dim, embed_dim)
            for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
                self.register_parameter(name, None)
        else:
            self.q_proj_weight = made(embed_dim, embed_dim)
            self.k_proj_weight = made(embed_dim, self.kdim)
            self.v_proj_weight = made(embed_dim, self.vdim)
            self.register_parameter("in_proj_weight", None)
        self.register_parameter("in_proj_bias", made(3 * embed_dim) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(
            embed_dim, embed_dim, bias=bias, device=device, dtype=dtype
        )
        if add_bias_kv:
            self.bias_k = made(1, 1, embed_dim)
            self.bias_v = made(1, 1, embed_dim)
        else:
            self.bias_k = self.bias_v = None
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        if self._qkv_same_embed_dim:
            init.xavier_uniform_(self.in_proj_weight)
        else:
            init.xavier_uniform_(self.q_proj_weight)
            init.xavier_uniform_(self.k_proj_weight)
            init.xavier_uniform_(self.v_proj_weight)
        if self.in_proj_bias is not None:
            init.constant_(self.in_proj_bias, 0.0)
            init.constant_(self.out_proj.bias, 0.0)
        if self.bias_k is not None:
            init.xavier_normal_(self.bias_k)
        if self.bias_v is not None:
            init.xavier_normal_(self.bias_v)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(output like query, weights (N, L, S) averaged over the heads or (N, heads, L, S))."""
        batched = _is_batched(query, key, value, key_padding_mask, attn_mask)
        if is_causal and attn_mask is None:
            raise RuntimeError(
                "Need attn_mask if specifying the is_causal hint. You may use the Transformer "
                "module method `generate_square_subsequent_mask` to create this mask."
            )
        padding = additive(key_padding_mask, "key_padding_mask", query.dtype)
        mask = additive(attn_mask, "attn_mask", query.dtype)
        causal = is_causal and padding is None and not need_weights
        q, k, v = self._project(query, key, value)
        if not batched:
            q, k, v = q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)
            padding = None if padding is None else padding.unsqueeze(0)
        elif self.batch_first:
            q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
        length, batch, _ = q.shape
        mask = None if causal else self._merged(mask, padding, batch, length, k.shape[0])
        k, v, mask = self._with_extra_keys(k, v, mask, batch)
        q, k, v = self._heads(q), self._heads(k), self._heads(v)
        if self.add_zero_attn:
            zero = weft.zeros((batch, self.num_heads, 1, self.head_dim), dtype=k.dtype)
            k, v = weft.cat([k, zero], dim=2), weft.cat([v, zero], dim=2)
            mask = None if mask is None else F.pad(mask, (0, 1))
        drop = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * math.sqrt(1.0 / self.head_dim)) @ k.transpose(-2, -1)
            weights = F.softmax(scores if mask is None else mask + scores, dim=-1)
            weights = F.dropout(weights, drop) if drop > 0.0 else weights
            y = weights @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask, drop, causal)
        y = y.permute(2, 0, 1, 3).reshape(length, batch, self.embed_dim)
        y = self.out_proj(y)
        if not batched:
            y = y.squeeze(1)
        elif self.batch_first:
            y = y.transpose(0, 1)
        if weights is not None:
            weights = weights.mean(dim=1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        return y, weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple:
        """q, k, v (..., embed_dim); one matrix product where one operand serves several."""
        e, bias = self.embed_dim, self.in_proj_bias
        if not self._qkv_same_embed_dim:
            b_q, b_k, b_v = (None,) * 3 if bias is None else bias.chunk(3)
            return (
                F.linear(query, self.q_proj_weight, b_q),
                F.linear(key, self.k_proj_weight, b_k),
                F.linear(value, self.v_proj_weight, b_v),
            )
        weight = self.in_proj_weight
        if query is key and key is value:
            return F.linear(query, weight, bias).chunk(3, -1)
        if key is value:
            w_q, w_kv = weight.split([e, 2 * e])
            b_q, b_kv = (None, None) if bias is None else bias.split([e, 2 * e])
            return (F.linear(query, w_q, b_q), *F.linear(key, w_kv, b_kv).chunk(2, -1))
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        operands = zip((query, key, value), weight.chunk(3), biases, strict=True)
        return tuple(F.linear(x, w, b) for x, w, b in operands)

    def _heads(self, x: Tensor) -> Tensor:
        """(L, N, E) -> (N, heads, L, E / heads)"""
        length, batch, _ = x.shape
        return x.reshape(length, batch, self.num_heads, self.head_dim).permute(1, 2, 0, 3)

    def _merged(
        self, mask: Tensor | None, padding: Tensor | None, batch: int, length: int, source: int
    ) -> Tensor | None:
        """One mask to add, broadcastable to (N, heads, L, S)."""
        if mask is not None:
            if mask.dim() == 2:
                if tuple(mask.shape) != (length, source):
                    raise RuntimeError(
                        f"The shape of the 2D attn_mask is {mask.shape}, but should be "
                        f"{(length, source)}."
                    )
            elif tuple(mask.shape) != (batch * self.num_heads, length, source):
                raise RuntimeError(
                    f"The shape of the 3D attn_mask is {mask.shape}, but should be "
                    f"{(batch * self.num_heads, length, source)}."
                )
            else:
                mask = mask.reshape(batch, self.num_heads, length, source)
        if padding is None:
            return mask
        if tuple(padding.shape) != (batch, source):
            raise AssertionError(
                f"expecting key_padding_mask shape of {(batch, source)}, but got {padding.shape}"
            )
        padding = padding.reshape(batch, 1, 1, source)
        return padding if mask is None else mask + padding

    def _with_extra_keys(
        self, k: Tensor, v: Tensor, mask: Tensor | None, batch: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values with the learned bias_k and bias_v behind them."""
        if self.bias_k is None or self.bias_v is None:
            return k, v, mask
        shape = (1, batch, self.embed_dim)
        k = weft.cat([k, self.bias_k.expand(shape)])
        v = weft.cat([v, self.bias_v.expand(shape)])
        return k, v, None if mask is None else F.pad(mask, (0, 1))


def additive(mask: Tensor | None, name: str, dtype: Any) -> Tensor | None:
    """A mask as numbers to add to scores: True becomes -inf.  AssertionError on integers."""
    if mask is None or mask.is_floating_point():
        return mask
    if mask.dtype is not weft.bool:
        raise AssertionError(f"only bool and floating types of {name} are supported")
    return weft.where(mask, weft.tensor(-math.inf, dtype=dtype), weft.tensor(0.0, dtype=dtype))


def _is_batched(
    query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, mask: Tensor | None
) -> bool:
    n = query.dim()
    if n not in (2, 3):
        raise AssertionError(
            f"query should be unbatched 2D or batched 3D tensor but received {n}-D query tensor"
        )
    kind = f"For {'batched (3-D)' if n == 3 else 'unbatched (2-D)'} `query`, expected"
    if key.dim() != n or value.dim() != n:
        raise AssertionError(
            f"{kind} `key` and `value` to be {n}-D but found {key.dim()}-D and {value.dim()}-D "
            "tensors respectively"
        )
    if padding is not None and padding.dim() != n - 1:
        raise AssertionError(
            f"{kind} `key_padding_mask` to be `None` or {n - 1}-D but found {padding.dim()}-D "
            "tensor instead"
        )
    if mask is not None and mask.dim() not in (2, 3):
        raise AssertionError(
            f"{kind} `attn_mask` to be `None`, 2-D or 3-D but found {mask.dim()}-D tensor instead"
        )
    return n == 3
