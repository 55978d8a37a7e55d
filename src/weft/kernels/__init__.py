"""Loops to native code, for eager and compiled programs alike.

`layout` says where a kernel's operands lie, `schedule` plans launches (tiles, packing, vectors),
`target` writes code.  The planners that op rooms call are names of this package (`kernels.plan_x`),
and their modules are loaded when one is first called: importing them all takes as long as importing
all the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weft.kernels.eager import (
        plan_copy,
        plan_elementwise,
        plan_gather,
        plan_index,
        plan_index_put,
        plan_reduce,
        plan_scatter,
    )
    from weft.kernels.packed import Packed
    from weft.kernels.schedule.attention import (
        FEW_QUERIES,
        plan_attention,
        run_size,
    )
    from weft.kernels.schedule.attention_grad import plan_attention_grad
    from weft.kernels.schedule.class_loss import plan_cross_entropy, plan_cross_entropy_grad
    from weft.kernels.schedule.conv import plan_conv2d, plan_conv2d_dx, plan_conv2d_packed
    from weft.kernels.schedule.conv_int8 import Ending, pack_int8, plan_conv_int8
    from weft.kernels.schedule.conv_weight import plan_conv2d_dw
    from weft.kernels.schedule.conv_wide import fills_vectors
    from weft.kernels.schedule.epilogue import Epilogue
    from weft.kernels.schedule.gemm import (
        PAIRS_FROM,
        is_one_block,
        plan_matmul,
        plan_matmul_packed,
    )
    from weft.kernels.schedule.image_int8 import (
        plan_depthwise_int8,
        plan_max_pool_bytes,
        plan_to_bytes,
    )
    from weft.kernels.schedule.order import (
        MOST_COUNTED,
        MOST_PLACES,
        plan_choice,
        plan_search,
        plan_topk,
    )
    from weft.kernels.schedule.pool import (
        Window,
        fits_byte,
        plan_adaptive_avg_pool2d,
        plan_adaptive_avg_pool2d_dx,
        plan_adaptive_max_pool2d,
        plan_adaptive_max_pool2d_indices,
        plan_avg_pool2d,
        plan_avg_pool2d_dx,
        plan_max_pool2d,
        plan_max_pool2d_back,
        plan_max_pool2d_dx,
        plan_max_pool2d_indices,
    )
    from weft.kernels.schedule.recurrent import plan_recurrent, plan_recurrent_grad
    from weft.kernels.schedule.rows import (
        PARTS,
        plan_layer_norm,
        plan_norm_grad,
        plan_rms_norm,
        plan_softmax,
        plan_softmax_grad,
    )
    from weft.kernels.schedule.scan import plan_cumulative
    from weft.kernels.schedule.tile import multiplies_pairs
    from weft.kernels.schedule.words import in_pairs

_HOMES = {
    "eager": "plan_copy plan_elementwise plan_gather plan_index plan_index_put plan_reduce "
    "plan_scatter",
    "packed": "Packed",
    "schedule.attention": "FEW_QUERIES plan_attention run_size",
    "schedule.attention_grad": "plan_attention_grad",
    "schedule.class_loss": "plan_cross_entropy plan_cross_entropy_grad",
    "schedule.conv": "plan_conv2d plan_conv2d_dx plan_conv2d_packed",
    "schedule.conv_weight": "plan_conv2d_dw",
    "schedule.conv_wide": "fills_vectors",
    "schedule.epilogue": "Epilogue",
    "schedule.gemm": "PAIRS_FROM is_one_block plan_matmul plan_matmul_packed",
    "schedule.conv_int8": "Ending pack_int8 plan_conv_int8",
    "schedule.image_int8": "plan_depthwise_int8 plan_max_pool_bytes plan_to_bytes",
    "schedule.order": "MOST_COUNTED MOST_PLACES plan_choice plan_search plan_topk",
    "schedule.pool": "Window fits_byte plan_adaptive_avg_pool2d plan_adaptive_avg_pool2d_dx "
    "plan_adaptive_max_pool2d plan_adaptive_max_pool2d_indices plan_avg_pool2d plan_avg_pool2d_dx "
    "plan_max_pool2d plan_max_pool2d_back plan_max_pool2d_dx plan_max_pool2d_indices",
    "schedule.recurrent": "plan_recurrent plan_recurrent_grad",
    "schedule.rows": "PARTS plan_layer_norm plan_norm_grad plan_rms_norm plan_softmax "
    "plan_softmax_grad",
    "schedule.scan": "plan_cumulative",
    "schedule.tile": "multiplies_pairs",
    "schedule.words": "in_pairs",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'weft.kernels' has no attribute {name!r}")
    found = getattr(import_module(f"weft.kernels.{_HOME_OF[name]}"), name)
    globals()[name] = found  # from now on without this detour
    return found
