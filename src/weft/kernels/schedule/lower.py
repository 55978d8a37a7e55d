"""Pointwise nests as Loop IR: what the vector generator must compute, spelled out.

The native generator (nest.py) writes vectors straight from expressions; these programs say the same
element by element, for an interpreter (the tests' oracle), the C target, and readers.
"""

from __future__ import annotations

from collections.abc import Callable

from weft.core import dtype as D
from weft.core.loop import (
    Buffer,
    For,
    Index,
    Load,
    Number,
    Program,
    Stmt,
    Store,
    i64,
    verify,
)
from weft.core.scalar import Arg, Coord, Expr, Param, cast, substitute
from weft.kernels.layout import Layout
from weft.kernels.schedule.nest import used_params


def lower_nest(
    exprs: tuple[Expr, ...], ins: tuple[Layout, ...], outs: tuple[Layout, ...]
) -> Program:
    """out_j[i] = exprs[j] for every i; buffers out0.. and in0.., numbers p0.. for Param nodes."""
    shape = outs[0].shape
    at = tuple(Index(f"i{d}") for d in range(len(shape)))
    leaf = leaves(ins, at)
    body: tuple[Stmt, ...] = tuple(
        Store(f"out{j}", at or (i64(0),), cast(substitute(e, leaf), D.from_np(o.dtype)))
        for j, (e, o) in enumerate(zip(exprs, outs, strict=True))
    )
    for d in reversed(range(len(shape))):
        body = (For(f"i{d}", i64(shape[d]), body),)
    params = [buffer(f"out{j}", o) for j, o in enumerate(outs)]
    return verify(Program("nest", (*params, *operands(exprs, ins)), body))


def leaves(ins: tuple[Layout, ...], at: tuple[Expr, ...]) -> Callable[[Expr], Expr]:
    """What stands for an operand, a number, a coordinate of an expression at the place `at`."""

    def leaf(n: Expr) -> Expr:
        if isinstance(n, Arg):
            x = ins[n.index]
            lead = len(at) - len(x.shape)
            index = tuple(i64(0) if m == 1 else at[lead + d] for d, m in enumerate(x.shape))
            return Load(f"in{n.index}", n.dtype, index or (i64(0),))
        if isinstance(n, Param):
            return Index(f"p{n.index}", n.dtype)
        if isinstance(n, Coord):
            return at[n.dim]
        return n

    return leaf


def buffer(name: str, x: Layout) -> Buffer:
    """The parameter of an array that lies so."""
    plain = x.is_contiguous
    shape = x.shape or (1,)
    return Buffer(name, D.from_np(x.dtype), shape, None if plain else x.strides)


def operands(exprs: tuple[Expr, ...], ins: tuple[Layout, ...]) -> tuple[Buffer | Number, ...]:
    """The parameters of the operands, and of the numbers that the expressions ask for."""
    numbers = (Number(f"p{i}", d) for i, d in enumerate(used_params(exprs)))
    return (*(buffer(f"in{k}", x) for k, x in enumerate(ins)), *numbers)
