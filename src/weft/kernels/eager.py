"""One launch for one op: the planners that op rooms and the executor call.

Every function depends on layouts only, never on values; equal arguments give the same `Launch`.
Operands broadcast as in NumPy.  No launch is returned for outputs without elements: it has no
stages.  Reductions: see schedule/reduce.py for the order of their sums.
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.core import dtype as D
from weft.core.scalar import Arg, Expr, cast
from weft.core.types import broadcast_shapes
from weft.kernels.layout import Layout
from weft.kernels.schedule.index import plan_gather, plan_index, plan_index_put, plan_scatter
from weft.kernels.schedule.nest import Planned, plan_nest
from weft.kernels.schedule.reduce import plan_reduction
from weft.kernels.schedule.rows import plan_layer_norm, plan_rms_norm, plan_softmax
from weft.kernels.schedule.scan import plan_cumulative
from weft.runtime.native import Launch

__all__ = [
    "plan_copy", "plan_cumulative", "plan_elementwise", "plan_fused", "plan_gather",
    "plan_index", "plan_index_put", "plan_layer_norm", "plan_reduce", "plan_rms_norm",
    "plan_scatter", "plan_softmax",
]  # fmt: skip


def plan_elementwise(
    expr: Expr,
    in_layouts: Sequence[Layout],
    out_layout: Layout,
    scalars: Sequence[float | int] = (),
) -> Launch:
    """out = expr(in_0, in_1, ...); `scalars` are the values of its Param nodes."""
    planned = plan_nest((expr,), tuple(in_layouts), (out_layout,))
    return _given(planned, scalars)


def plan_fused(
    exprs: Sequence[Expr], in_layouts: Sequence[Layout], out_layouts: Sequence[Layout]
) -> Planned:
    """out_j = exprs[j](in_0, ...) in one loop (an optimizer's step, several siblings).

    Run it with `native.launch(planned.launch, out_0, (*further outputs, *operands))`; patch the
    run-time scalars with `planned.with_scalars`.  An output may be an operand's own memory.
    """
    return plan_nest(tuple(exprs), tuple(in_layouts), tuple(out_layouts))


def plan_reduce(
    kind: str,
    pre: Expr,
    dims: Sequence[int] | None,
    keepdim: bool,
    in_layouts: Sequence[Layout],
    out_layout: Layout,
    *,
    post: Expr | None = None,
    scalars: Sequence[float | int] = (),
    others: Sequence[Expr] = (),
) -> Launch:
    """out = post(kind of pre(in_0, ...) over dims); kinds: sum prod max min argmax argmin any all.

    `dims` None (or none at all) reduces every dim.  `post` reads the result as Arg(0) in the
    accumulator's dtype.  With `others`, out[0] is that and out[1 + j] the same of others[j].
    """
    shape = broadcast_shapes(*(x.shape for x in in_layouts))
    wanted = None if dims is None or not len(dims) else tuple(dims)
    planned = plan_reduction(
        kind, pre, wanted, keepdim, tuple(in_layouts), out_layout, shape, post, tuple(others)
    )  # fmt: skip
    return _given(planned, scalars)


def plan_copy(in_layout: Layout, out_layout: Layout) -> Launch:
    """out = in, broadcast, as out's dtype: float to int truncates, to bool is `!= 0`."""
    if in_layout.dtype.kind == "c" and in_layout.dtype == out_layout.dtype:
        in_layout, out_layout = in_layout.pairs(), out_layout.pairs()
    expr = cast(Arg(0, D.from_np(in_layout.dtype)), D.from_np(out_layout.dtype))
    return plan_nest((expr,), (in_layout,), (out_layout,)).launch


def _given(planned: Planned, scalars: Sequence[float | int]) -> Launch:
    if not planned.params:
        return planned.launch
    return planned.with_scalars(tuple(scalars))
