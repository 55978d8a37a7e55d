"""torch.nn.attention.flex_attention: not available; scaled_dot_product_attention takes any mask."""

from __future__ import annotations

from typing import Any

from weft.compat.torch_.absent import Absent

_DEFAULT_SPARSE_BLOCK_SIZE = 128


class BlockMask(Absent):
    why = "flex_attention is not available; use scaled_dot_product_attention"


class AuxRequest(Absent):
    why = "flex_attention is not available; use scaled_dot_product_attention"


def _refuse(*args: Any, **kw: Any) -> Any:
    raise NotImplementedError(
        "flex_attention is not available under Weft: use scaled_dot_product_attention with a mask"
    )


flex_attention = create_block_mask = create_mask = and_masks = or_masks = _refuse
create_nested_block_mask = noop_mask = _refuse
