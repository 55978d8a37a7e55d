"""Loop IR: what a kernel computes, as loops over buffers; every target is checked against it.

    def scaled_sum(out: f32[rows], x: f32[rows:step, n], rows: i64, step: i64, n: i64, a: f32):
        for i in range(rows):
            acc = alloc(f32, 16)
            for l in range(16):
                acc[l] = f32(0.0)
            for j in range(n):
                acc[j % 16] = add(acc[j % 16], a * x[i, j])
            out[i] = acc[0]

Grammar (the text is Python's, so `ast` reads it):

    program  = "def" name "(" {parameter} ")" ":" block
    parameter= name ":" dtype "[" dim {"," dim} "]"           a buffer
             | name ":" dtype                                  a run-time number (sizes are i64)
    dim      = size [":" stride]                               ints or names of i64 parameters
    block    = {stmt}
    stmt     = For         "for" name "in" "range" "(" expr ")" ":" block
             | Alloc       name "=" "alloc" "(" dtype "," int ")"
             | Store       name "[" expr {"," expr} "]" "=" expr
             | Accumulate  cell "=" op "(" cell "," expr ")"   the same cell on both sides
    expr     = Load        name "[" expr {"," expr} "]"
             | Index       name                                a loop variable or a parameter
             | Const       int (i64)  |  dtype "(" literal ")"
             | Scalar      row "(" expr {"," expr} ")"  |  expr infix expr  |  "-" expr
             | Select      "where" "(" expr "," expr "," expr ")"
             | Cast        dtype "(" expr ")"
    dtype    = f64 f32 f16 bf16 i64 i32 i16 i8 u8 b1;  infix = + - * / // % < <= > >= == != & | ^

Scalars mean what core/scalar.py says; a loop's body runs in order; a buffer without strides is in
C order.  Nodes are frozen; expressions are interned.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import dataclass

from weft.core import dtype as D
from weft.core.scalar import Cast, Const, Expr, Scalar, Select, postorder

Size = builtins.int | str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Index(Expr):
    """A loop variable or a run-time parameter, by name."""

    name: str
    dtype: D.dtype = D.int64

    def key(self) -> tuple:
        return (self.name, self.dtype)

    def label(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Load(Expr):
    """buffer[indices]"""

    buffer: str
    dtype: D.dtype
    indices: tuple[Expr, ...]

    @property
    def args(self) -> tuple[Expr, ...]:
        return self.indices

    def key(self) -> tuple:
        return (self.buffer, self.dtype, self.indices)

    def label(self) -> str:
        return show(self)


@dataclass(frozen=True)
class Store:
    """buffer[indices] = value"""

    buffer: str
    indices: tuple[Expr, ...]
    value: Expr


@dataclass(frozen=True)
class Accumulate:
    """buffer[indices] = op(buffer[indices], value)"""

    buffer: str
    indices: tuple[Expr, ...]
    op: str
    value: Expr


@dataclass(frozen=True)
class Alloc:
    """A local buffer of `size` elements, not cleared; it lives to the end of the block."""

    buffer: str
    dtype: D.dtype
    size: builtins.int


@dataclass(frozen=True)
class For:
    """for var in range(size): body"""

    var: str
    size: Expr
    body: tuple[Stmt, ...]


Stmt = For | Store | Accumulate | Alloc


@dataclass(frozen=True)
class Buffer:
    """A buffer parameter; strides in elements, None for C order."""

    name: str
    dtype: D.dtype
    shape: tuple[Size, ...]
    strides: tuple[Size, ...] | None = None


@dataclass(frozen=True)
class Number:
    """A run-time number parameter."""

    name: str
    dtype: D.dtype = D.int64


@dataclass(frozen=True)
class Program:
    """One kernel."""

    name: str
    params: tuple[Buffer | Number, ...]
    body: tuple[Stmt, ...]

    def __str__(self) -> str:
        return show_program(self)


def i64(value: Size | Expr) -> Expr:
    """A size as an expression."""
    if isinstance(value, Expr):
        return value
    return Const(value, D.int64) if isinstance(value, builtins.int) else Index(value)


# ---------------------------------------------------------------------------------- text out

INFIX = {
    "mul": "*", "div": "/", "floordiv": "//", "rem": "%", "add": "+", "sub": "-", "lt": "<",
    "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=", "and": "&", "xor": "^", "or": "|",
}  # fmt: skip
_TIGHT = {"*": 7, "/": 7, "//": 7, "%": 7, "+": 6, "-": 6, "&": 5, "^": 4, "|": 3}


def show(e: Expr) -> str:
    """An expression as text."""
    return _show(e)[0]


def _show(e: Expr) -> tuple[str, builtins.int]:
    """(text, how tightly it binds)"""
    if isinstance(e, Const):
        assert not isinstance(e.value, complex)  # no loop computes with complex numbers
        if e.dtype is D.int64:
            return (str(e.value), 9 if e.value >= 0 else 8)
        text = repr(e.value)
        if text in ("inf", "-inf", "nan"):
            text = f"'{text}'"
        return (f"{e.dtype.short}({text})", 9)
    if isinstance(e, Index):
        return (e.name, 9)
    if isinstance(e, Load):
        return (f"{e.buffer}[{', '.join(map(show, e.indices))}]", 9)
    if isinstance(e, Cast):
        return (f"{e.dtype.short}({show(e.operand)})", 9)
    if isinstance(e, Select):
        return (f"where({', '.join(map(show, e.args))})", 9)
    if not isinstance(e, Scalar):
        raise TypeError(
            f"{type(e).__name__} has no place in the Loop IR: replace it by a Load or Index"
        )
    sign = INFIX.get(e.name)
    if sign is None:
        return (f"{e.name}({', '.join(map(show, e.args))})", 9)
    bind = _TIGHT.get(sign, 2)
    (a, left), (b, right) = map(_show, e.args)
    a = a if left >= bind and bind > 2 else f"({a})" if left < 9 else a
    b = b if right > bind else f"({b})"
    return (f"{a} {sign} {b}", bind)


def show_program(p: Program) -> str:
    """The program as text that `loop_text.parse` reads back."""
    params = ", ".join(f"{x.name}: {_show_param(x)}" for x in p.params)
    return "\n".join([f"def {p.name}({params}):", *_show_block(p.body, 1)]) + "\n"


def _show_param(x: Buffer | Number) -> str:
    if isinstance(x, Number):
        return x.dtype.short
    if x.strides is None:
        dims = [str(n) for n in x.shape]
    else:
        dims = [f"{n}:{s}" for n, s in zip(x.shape, x.strides, strict=True)]
    return f"{x.dtype.short}[{', '.join(dims) or '()'}]"


def _show_block(body: tuple[Stmt, ...], depth: builtins.int) -> Iterator[str]:
    pad = "    " * depth
    if not body:
        yield pad + "pass"
    for s in body:
        if isinstance(s, For):
            yield f"{pad}for {s.var} in range({show(s.size)}):"
            yield from _show_block(s.body, depth + 1)
        elif isinstance(s, Alloc):
            yield f"{pad}{s.buffer} = alloc({s.dtype.short}, {s.size})"
        else:
            cell = f"{s.buffer}[{', '.join(map(show, s.indices)) or '()'}]"
            if isinstance(s, Store):
                yield f"{pad}{cell} = {show(s.value)}"
            else:
                yield f"{pad}{cell} = {s.op}({cell}, {show(s.value)})"


# ---------------------------------------------------------------------------------- the verifier


class LoopError(ValueError):
    """A program that breaks a rule of the IR."""


@dataclass
class _Scope:
    buffers: dict[str, tuple[D.dtype, builtins.int]]  # dtype, number of dims
    names: dict[str, D.dtype]


def verify(p: Program) -> Program:
    """Check names, dtypes and numbers of dims; returns the program.  Raises LoopError.

    Every name is bound once on any path to its use; indices and loop sizes are i64; a stored value
    has its buffer's dtype; an Accumulate's op is a two-operand row that keeps the dtype.
    """
    scope = _Scope({}, {})
    for x in p.params:
        _fresh(scope, x.name)
        if isinstance(x, Number):
            scope.names[x.name] = x.dtype
        else:
            scope.buffers[x.name] = (x.dtype, len(x.shape))
    for x in p.params:
        if isinstance(x, Buffer):
            for n in (*x.shape, *(x.strides or ())):
                if isinstance(n, str) and scope.names.get(n) is not D.int64:
                    raise LoopError(f"{p.name}: {x.name}'s dim {n} is not an i64 parameter")
            if x.strides is not None and len(x.strides) != len(x.shape):
                raise LoopError(f"{p.name}: {x.name} has {len(x.shape)} dims and other strides")
    _verify_block(p.body, scope)
    return p


def _fresh(scope: _Scope, name: str) -> None:
    if name in scope.buffers or name in scope.names:
        raise LoopError(f"{name} is bound twice")


def _verify_block(body: tuple[Stmt, ...], scope: _Scope) -> None:
    inner = _Scope(dict(scope.buffers), dict(scope.names))
    for s in body:
        if isinstance(s, For):
            _verify_expr(s.size, inner)
            if s.size.dtype is not D.int64:
                raise LoopError(f"for {s.var}: the size is {s.size.dtype.name}, not int64")
            _fresh(inner, s.var)
            inner.names[s.var] = D.int64
            _verify_block(s.body, inner)
            del inner.names[s.var]
        elif isinstance(s, Alloc):
            _fresh(inner, s.buffer)
            if s.size < 1:
                raise LoopError(f"{s.buffer}: alloc of {s.size} elements")
            inner.buffers[s.buffer] = (s.dtype, 1)
        else:
            d = _verify_cell(s.buffer, s.indices, inner)
            _verify_expr(s.value, inner)
            if s.value.dtype is not d:
                raise LoopError(f"{s.buffer} holds {d.name}, the value is {s.value.dtype.name}")
            if isinstance(s, Accumulate):
                one = Load(s.buffer, d, s.indices)
                if Scalar(s.op, (one, s.value)).dtype is not d:
                    raise LoopError(f"{s.buffer}: {s.op} does not keep {d.name}")
            elif _is_update(s):
                raise LoopError(f"{s.buffer}: write {show(s.value)} as an Accumulate")


def _is_update(s: Store) -> bool:
    e = s.value
    return (
        isinstance(e, Scalar)
        and len(e.operands) == 2
        and e.operands[0] is Load(s.buffer, e.operands[0].dtype, s.indices)
        and e.dtype is e.operands[0].dtype
    )


def _verify_cell(buffer: str, indices: tuple[Expr, ...], scope: _Scope) -> D.dtype:
    found = scope.buffers.get(buffer)
    if found is None:
        raise LoopError(f"no buffer is named {buffer}")
    d, rank = found
    if len(indices) != rank:
        raise LoopError(f"{buffer} has {rank} dims, got {len(indices)} indices")
    for i in indices:
        _verify_expr(i, scope)
        if i.dtype is not D.int64:
            raise LoopError(f"{buffer}: index {show(i)} is {i.dtype.name}, not int64")
    return d


def _verify_expr(e: Expr, scope: _Scope) -> None:
    for n in postorder((e,)):
        if isinstance(n, Index):
            if scope.names.get(n.name) is not n.dtype:
                raise LoopError(f"{n.name} is not bound here as {n.dtype.name}")
        elif isinstance(n, Load):
            d, rank = scope.buffers.get(n.buffer, (None, 0))
            if d is not n.dtype or rank != len(n.indices):
                raise LoopError(
                    f"no buffer {n.buffer} of {n.dtype.name} with {len(n.indices)} dims"
                )
            for i in n.indices:
                if i.dtype is not D.int64:
                    raise LoopError(f"{n.buffer}: index {show(i)} is {i.dtype.name}, not int64")
        elif not isinstance(n, Const | Scalar | Select | Cast):
            raise LoopError(f"{type(n).__name__} has no place in the Loop IR")
