"""The Loop IR's interpreter: slow, plain, and the oracle of every target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from weft.core import dtype as D
from weft.core.loop import (
    Accumulate,
    Alloc,
    Buffer,
    For,
    Index,
    Load,
    Program,
    Store,
    verify,
)
from weft.core.scalar import (
    TABLE,
    Cast,
    Const,
    Expr,
    Scalar,
    Select,
    postorder,
    round_to,
)


def run(p: Program, values: Mapping[str, Any]) -> None:
    """Run a program on NumPy arrays (written in place) and numbers, by parameter name.

    Raises ValueError for an array that is not what the program declares, IndexError for an index
    outside its buffer (negative ones too).
    """
    verify(p)
    state = dict(values)
    for x in p.params:
        if x.name not in state:
            raise ValueError(f"{p.name}: no value for {x.name}")
    for x in p.params:
        if isinstance(x, Buffer):
            a = state[x.name]
            shape = tuple(state[n] if isinstance(n, str) else n for n in x.shape)
            if a.shape != shape or a.dtype != x.dtype.np:
                raise ValueError(
                    f"{p.name}: {x.name} is {a.dtype}{list(a.shape)}, not {x.dtype.np}{list(shape)}"
                )
    with np.errstate(all="ignore"):
        _block(p.body, state)


def _block(body: tuple[Any, ...], state: dict[str, Any]) -> None:
    for s in body:
        if isinstance(s, For):
            for i in range(int(_value(s.size, state))):
                state[s.var] = i
                _block(s.body, state)
            state.pop(s.var, None)
        elif isinstance(s, Alloc):
            state[s.buffer] = np.zeros(s.size, s.dtype.np)
        else:
            a, at = _cell(s.buffer, s.indices, state)
            v = _value(s.value, state)
            if isinstance(s, Accumulate):
                v = _scalar(s.op, a.dtype, [a[at], v])
            assert isinstance(s, Accumulate | Store)
            a[at] = v


def _cell(buffer: str, indices: tuple[Expr, ...], state: dict[str, Any]) -> tuple[Any, tuple]:
    a = state[buffer]
    at = tuple(int(_value(i, state)) for i in indices)
    if any(i < 0 or i >= n for i, n in zip(at, a.shape, strict=True)):
        raise IndexError(f"{buffer}{list(at)} is outside shape {list(a.shape)}")
    return a, at


def _scalar(name: str, np_dtype: np.dtype, xs: list[Any]) -> Any:
    d = D.from_np(np_dtype)
    if d in (D.float16, D.bfloat16) and name != "nextafter":
        xs = [np.asarray(x).astype(np.float32) for x in xs]
    out = D.bool if TABLE[name].result == "bool" else d
    return round_to(TABLE[name].numpy(*xs), out)[()]


def _value(e: Expr, state: dict[str, Any]) -> Any:
    got: dict[int, Any] = {}
    for n in postorder((e,)):
        if isinstance(n, Const):
            v: Any = np.asarray(n.value).astype(n.dtype.np)[()]
        elif isinstance(n, Index):
            v = np.asarray(state[n.name]).astype(n.dtype.np)[()]
        elif isinstance(n, Load):
            a = state[n.buffer]
            at = tuple(int(got[id(i)]) for i in n.indices)
            if any(i < 0 or i >= m for i, m in zip(at, a.shape, strict=True)):
                raise IndexError(f"{n.buffer}{list(at)} is outside shape {list(a.shape)}")
            v = a[at]
        elif isinstance(n, Select):
            c, yes, no = (got[id(a)] for a in n.args)
            v = yes if c else no
        elif isinstance(n, Cast):
            v = round_to(got[id(n.operand)], n.dtype)[()]
        else:
            assert isinstance(n, Scalar)
            xs = [got[id(a)] for a in n.args]
            v = _scalar(n.name, n.operands[0].dtype.np, xs)
        got[id(n)] = v
    return got[id(e)]
