"""Reductions as Loop IR, in the strict order of reduce.py: the oracle of the native ones."""

from __future__ import annotations

import math
from collections.abc import Callable

from weft.core import dtype as D
from weft.core.loop import Accumulate, Alloc, For, Index, Load, Program, Stmt, Store, i64, verify
from weft.core.scalar import Const, Expr, Scalar, cast, postorder, substitute
from weft.kernels.layout import Layout
from weft.kernels.schedule.combine import ROW, accumulator, identity
from weft.kernels.schedule.lower import buffer, leaves, operands
from weft.kernels.schedule.reduce import CHUNK, LANES, in_chunks


def lower_reduction(
    kind: str, pre: Expr, dims: tuple[int, ...], keepdim: bool, ins: tuple[Layout, ...],
    out: Layout, shape: tuple[int, ...],
) -> Program:  # fmt: skip
    """The strict order of reduce.py as loops (kinds sum prod max min any all)."""
    acc = accumulator(kind, pre.dtype)
    pre = cast(cast(pre, D.bool) if kind in ("any", "all") else pre, acc)
    rank = len(shape)
    reduced = sorted({d % rank for d in dims})
    group = [reduced[-1]]
    while group[0] - 1 in reduced:
        group.insert(0, group[0] - 1)
    count = math.prod(shape[d] for d in group)
    at: list[Expr] = [Index(f"i{d}") for d in range(rank)]
    flat: Expr = Index("r")
    for d in reversed(group):
        at[d] = Scalar("rem", (flat, i64(shape[d]))) if d != group[0] else flat
        flat = Scalar("floordiv", (flat, i64(shape[d])))
    value = substitute(pre, leaves(ins, tuple(at)))
    outer_dims = [d for d in reduced if d < group[0]]
    chunked = in_chunks(count, math.prod(shape[d] for d in outer_dims))
    r = Index("r")

    def lanes(outer: Callable[[tuple[Stmt, ...]], tuple[Stmt, ...]], size: Expr,
              start: Expr | None, to: Callable[[Expr], Stmt]) -> tuple[Stmt, ...]:  # fmt: skip
        first = Const(identity(kind, acc), acc)
        l = Index("l")
        body = value
        lane: Expr = r
        if start is not None:
            place = Scalar("add", (start, r))
            body = _renamed(value, place)
        step = Accumulate("acc", (Scalar("rem", (lane, i64(LANES))),), ROW[kind], body)
        out_stmts: list[Stmt] = [
            Alloc("acc", acc, LANES),
            For("l", i64(LANES), (Store("acc", (l,), first),)),
            *outer((For("r", size, (step,)),)),
        ]
        half = LANES // 2
        while half:
            high = Load("acc", acc, (Scalar("add", (l, i64(half))),))
            out_stmts.append(For("l", i64(half), (Accumulate("acc", (l,), ROW[kind], high),)))
            half //= 2
        out_stmts.append(to(Load("acc", acc, (i64(0),))))
        return tuple(out_stmts)

    def around(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        for d in reversed(outer_dims):
            body = (For(f"i{d}", i64(shape[d]), body),)
        return body

    kept = [d for d in range(rank) if d not in reduced]
    index = tuple(at[d] if d in kept else i64(0) for d in range(rank)) if keepdim else tuple(
        at[d] for d in kept)  # fmt: skip
    out_dtype = D.from_np(out.dtype)
    index = index or (i64(0),)

    def finish(v: Expr) -> Stmt:
        return Store("out0", index, cast(v, out_dtype))

    if not chunked:
        body = lanes(around, i64(count), None, finish)
    else:
        start = Scalar("mul", (Index("c"), i64(CHUNK)))
        size = Scalar("min", (i64(CHUNK), Scalar("sub", (i64(count), start))))
        part = lanes(lambda b: b, size, start, lambda v: Accumulate("sum", (i64(0),), ROW[kind], v))
        chunks = (For("c", i64(-(-count // CHUNK)), part),)
        body = (
            Alloc("sum", acc, 1),
            Store("sum", (i64(0),), Const(identity(kind, acc), acc)),
            *around(chunks),
            finish(Load("sum", acc, (i64(0),))),
        )
    for d in reversed(kept):
        body = (For(f"i{d}", i64(shape[d]), body),)
    params = (buffer("out0", out), *operands((pre,), ins))
    return verify(Program("reduce", params, body))


def _renamed(e: Expr, r: Expr) -> Expr:
    """e with the index `r` replaced inside loads."""
    made: dict[int, Expr] = {}
    for n in postorder((e,)):
        if n is Index("r"):
            made[id(n)] = r
        elif isinstance(n, Load):
            made[id(n)] = Load(n.buffer, n.dtype, tuple(made[id(i)] for i in n.indices))
        elif isinstance(n, Scalar):
            made[id(n)] = Scalar(n.name, tuple(made[id(a)] for a in n.operands))
        else:
            made[id(n)] = n if not n.args else _rebuilt(n, tuple(made[id(a)] for a in n.args))
    return made[id(e)]


def _rebuilt(n: Expr, args: tuple[Expr, ...]) -> Expr:
    if len(args) == 1:
        return cast(args[0], n.dtype)
    return type(n)(*args)
