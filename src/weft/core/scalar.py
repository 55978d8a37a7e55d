"""Scalar expressions: what one element of a pointwise operation is.

    y = S.mul(x, S.div(1.0, S.add(1.0, S.exp(S.neg(x)))))        # or  x * S.sigmoid(x)

Nodes apply rows of the scalar table (scalar_table.py) to operands, constants and run-time scalars.
Expressions are interned: structure is identity, so they compare and hash at pointer speed and a
repeated subexpression is computed once.  Each scalar rounds once to its own dtype; float16 and
bfloat16 compute in float32 and round once.  Operands of a row have one dtype: casts are written.
"""

from __future__ import annotations

import builtins
import functools
import math
import struct
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from weft.core import dtype as D
from weft.core.scalar_table import BOOL, TABLE

Number = builtins.int | builtins.float | builtins.bool | builtins.complex

# ---------------------------------------------------------------------------------- expressions

_TABLE_OF_EXPRS: weakref.WeakValueDictionary[tuple, Any] = weakref.WeakValueDictionary()


class _Interned(type):
    """`Scalar("exp", (x,)) is Scalar("exp", (x,))`: one object a structure."""

    def __call__(cls, *args: Any, **kw: Any) -> Any:
        if cls is not Const and not kw:  # a Const's value is normalised first
            found = _TABLE_OF_EXPRS.get((cls, *args))
            if found is not None:
                return found
        made = super().__call__(*args, **kw)
        return _TABLE_OF_EXPRS.setdefault((cls, *made.key()), made)


class Expr(metaclass=_Interned):
    """Base of the expression nodes; arithmetic operators build `Scalar` nodes."""

    __slots__ = ("__weakref__",)
    dtype: D.dtype

    def key(self) -> tuple:
        raise NotImplementedError

    @property
    def args(self) -> tuple[Expr, ...]:
        return ()

    def label(self) -> str:
        """The text of a kind of node that another module adds."""
        raise NotImplementedError

    def __add__(self, o: Any) -> Expr:
        return add(self, o)

    def __radd__(self, o: Any) -> Expr:
        return add(o, self)

    def __sub__(self, o: Any) -> Expr:
        return sub(self, o)

    def __rsub__(self, o: Any) -> Expr:
        return sub(o, self)

    def __mul__(self, o: Any) -> Expr:
        return mul(self, o)

    def __rmul__(self, o: Any) -> Expr:
        return mul(o, self)

    def __truediv__(self, o: Any) -> Expr:
        return div(self, o)

    def __rtruediv__(self, o: Any) -> Expr:
        return div(o, self)

    def __floordiv__(self, o: Any) -> Expr:
        return floordiv(self, o)

    def __mod__(self, o: Any) -> Expr:
        return rem(self, o)

    def __neg__(self) -> Expr:
        return neg(self)

    def __lt__(self, o: Any) -> Expr:
        return lt(self, o)

    def __le__(self, o: Any) -> Expr:
        return le(self, o)

    def __gt__(self, o: Any) -> Expr:
        return gt(self, o)

    def __ge__(self, o: Any) -> Expr:
        return ge(self, o)

    def __and__(self, o: Any) -> Expr:
        return and_(self, o)

    def __or__(self, o: Any) -> Expr:
        return or_(self, o)

    def __repr__(self) -> str:
        return show(self)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Const(Expr):
    """A literal."""

    value: Number
    dtype: D.dtype

    def __post_init__(self) -> None:
        kind: Any = (builtins.bool, builtins.int, builtins.float, builtins.complex)[
            self.dtype.category
        ]
        object.__setattr__(self, "value", kind(self.value))

    def key(self) -> tuple:
        v = self.value
        if type(v) is builtins.complex:
            return (struct.pack("<dd", v.real, v.imag), self.dtype)
        return (struct.pack("<d", v) if type(v) is builtins.float else v, self.dtype)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Arg(Expr):
    """Operand `index` at this point of the iteration space."""

    index: builtins.int
    dtype: D.dtype

    def key(self) -> tuple:
        return (self.index, self.dtype)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Param(Expr):
    """Run-time scalar `index` (a Python number that may differ from call to call)."""

    index: builtins.int
    dtype: D.dtype

    def key(self) -> tuple:
        return (self.index, self.dtype)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Coord(Expr):
    """The coordinate of this point along dim `dim` of the iteration space, as int64."""

    dim: builtins.int

    @property
    def dtype(self) -> D.dtype:
        return D.int64

    def key(self) -> tuple:
        return (self.dim,)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Scalar(Expr):
    """A row of the table applied to operands of one dtype."""

    name: str
    operands: tuple[Expr, ...]

    def __post_init__(self) -> None:
        r = TABLE.get(self.name)
        if r is None:
            raise KeyError(f"no scalar named {self.name!r} in the table")
        if len(self.operands) != r.arity:
            raise TypeError(f"{self.name}: {r.arity} operands wanted, got {len(self.operands)}")
        d = self.operands[0].dtype
        if any(a.dtype is not d for a in self.operands):
            names = ", ".join(a.dtype.name for a in self.operands)
            raise TypeError(f"{self.name}: operands have dtypes {names}; cast them to one")
        if "bifc"[d.category] not in r.kinds:
            raise d.lacks(f"{self.name}_cpu")

    @property
    def args(self) -> tuple[Expr, ...]:
        return self.operands

    @property
    def dtype(self) -> D.dtype:
        return D.bool if TABLE[self.name].result == BOOL else self.operands[0].dtype

    def key(self) -> tuple:
        return (self.name, self.operands)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Select(Expr):
    """`yes` where cond, else `no`; both are computed."""

    cond: Expr
    yes: Expr
    no: Expr

    def __post_init__(self) -> None:
        if self.cond.dtype is not D.bool:
            raise TypeError(f"where: the condition is {self.cond.dtype.name}, not bool")
        if self.yes.dtype is not self.no.dtype:
            raise TypeError(f"where: {self.yes.dtype.name} and {self.no.dtype.name} differ")

    @property
    def args(self) -> tuple[Expr, ...]:
        return (self.cond, self.yes, self.no)

    @property
    def dtype(self) -> D.dtype:
        return self.yes.dtype

    def key(self) -> tuple:
        return (self.cond, self.yes, self.no)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cast(Expr):
    """Conversion as torch: float to int truncates, to bool is `!= 0`, NaN to int does not trap."""

    operand: Expr
    dtype: D.dtype

    @property
    def args(self) -> tuple[Expr, ...]:
        return (self.operand,)

    def key(self) -> tuple:
        return (self.operand, self.dtype)


def rebuild(e: Expr, args: tuple[Expr, ...]) -> Expr:
    """`e` with other operands."""
    if isinstance(e, Scalar):
        return Scalar(e.name, args)
    if isinstance(e, Select):
        return Select(*args)
    if isinstance(e, Cast):
        return cast(args[0], e.dtype)
    return e


def may_fail(*roots: Expr) -> builtins.bool:
    """Whether a kernel of these can find an integer divided by zero."""
    return any(
        isinstance(n, Scalar)
        and n.name in ("div", "rem", "floordiv", "fmod")
        and n.dtype.category != D.FLOAT
        for n in postorder(roots)
    )


@functools.lru_cache(maxsize=1024)
def postorder(roots: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Every node once, operands first."""
    out: list[Expr] = []
    seen: set[builtins.int] = set()
    stack: list[tuple[Expr, builtins.bool]] = [(r, False) for r in reversed(roots)]
    while stack:
        e, ready = stack.pop()
        if ready:
            out.append(e)
        elif id(e) not in seen:
            seen.add(id(e))
            stack.append((e, True))
            stack.extend((a, False) for a in reversed(e.args) if id(a) not in seen)
    return tuple(out)


def spelled(roots: tuple[Expr, ...]) -> str:
    """Text that is another for other expressions, to the bit of a literal; each node once."""
    places: dict[Expr, builtins.int] = {}
    words: list[tuple] = []
    for n in postorder(roots):
        own = [w for w in n.key() if not isinstance(w, Expr | tuple)]
        words.append((type(n).__name__, *own, [places[a] for a in n.args]))
        places[n] = len(places)
    return repr((words, [places[e] for e in roots]))


def substitute(e: Expr, leaf: Callable[[Expr], Expr]) -> Expr:
    """`e` with every leaf replaced by `leaf(it)`."""
    new: dict[builtins.int, Expr] = {}
    for n in postorder((e,)):
        new[id(n)] = rebuild(n, tuple(new[id(a)] for a in n.args)) if n.args else leaf(n)
    return new[id(e)]


def show(e: Expr) -> str:
    """Python-looking text of an expression, as the Loop IR prints it."""
    if isinstance(e, Const):
        return f"{e.dtype.short}({e.value!r})"
    if isinstance(e, Arg):
        return f"arg({e.index}, {e.dtype.short})"
    if isinstance(e, Param):
        return f"param({e.index}, {e.dtype.short})"
    if isinstance(e, Coord):
        return f"coord({e.dim})"
    if isinstance(e, Cast):
        return f"{e.dtype.short}({show(e.operand)})"
    if isinstance(e, Scalar | Select):
        name = e.name if isinstance(e, Scalar) else "where"
        return f"{name}({', '.join(map(show, e.args))})"
    return e.label()


_IN_FLOAT32 = (D.float16, D.bfloat16)


def round_to(v: Any, d: D.dtype) -> Any:
    """An array rounded to `d` once (casts as torch: see Cast)."""
    v = np.asarray(v)
    if v.dtype == d.np:
        return v
    if d is D.bool:
        return v != 0
    with np.errstate(all="ignore"):
        if v.dtype.kind == "c" and d.category != D.COMPLEX:
            return round_to(v.real, d)
        if d.category == D.INT and v.dtype.kind not in "iub":
            wide = np.int64 if d.itemsize == 8 or d is D.uint8 else np.int32
            return v.astype(np.float64).astype(wide).astype(d.np)
        if d in _IN_FLOAT32:  # by way of float32, as torch: two roundings from float64
            v = v.astype(np.float32)
        return v.astype(d.np)


def evaluate(e: Expr, args: tuple[Any, ...], params: tuple[Any, ...] = (),
             coords: tuple[Any, ...] = ()) -> Any:  # fmt: skip
    """The expression's value over NumPy arrays: what every target must compute."""
    val: dict[builtins.int, Any] = {}
    with np.errstate(all="ignore"):
        for n in postorder((e,)):
            xs = [val[id(a)] for a in n.args]
            if isinstance(n, Const):
                v: Any = np.asarray(n.value).astype(n.dtype.np)
            elif isinstance(n, Arg):
                v = np.asarray(args[n.index])
                if v.dtype != n.dtype.np:
                    raise TypeError(f"operand {n.index} is {v.dtype}, not {n.dtype.name}")
            elif isinstance(n, Param):
                v = np.asarray(params[n.index]).astype(n.dtype.np)
            elif isinstance(n, Coord):
                v = np.asarray(coords[n.dim], np.int64)
            elif isinstance(n, Select):
                v = np.where(xs[0], xs[1], xs[2])
            elif isinstance(n, Cast):
                v = round_to(xs[0], n.dtype)
            else:
                assert isinstance(n, Scalar)
                if n.operands[0].dtype in _IN_FLOAT32 and n.name != "nextafter":
                    xs = [x.astype(np.float32) for x in xs]
                r = TABLE[n.name]
                meaning = r.complex if n.operands[0].dtype.category == D.COMPLEX else None
                v = round_to((meaning or r.numpy)(*xs), n.dtype)
            val[id(n)] = v
    return val[id(e)]


# ---------------------------------------------------------------------------------- building


def const(v: Number, d: D.dtype) -> Expr:
    return Const(v, d)


def cast(x: Expr, d: D.dtype) -> Expr:
    """x as dtype d; nothing when it already is."""
    if x.dtype is d:
        return x
    if isinstance(x, Const) and not (x.dtype.is_floating_point and not d.is_floating_point):
        return Const(x.value, d)
    return Cast(x, d)


def apply(name: str, *xs: Any) -> Expr:
    """Row `name` on expressions; Python numbers take the dtype of the expressions beside them."""
    d = next((x.dtype for x in xs if isinstance(x, Expr)), None)
    if d is None:
        raise TypeError(f"{name}: at least one operand must be an expression")
    return Scalar(name, tuple(x if isinstance(x, Expr) else Const(x, d) for x in xs))


def where(c: Expr, a: Any, b: Any) -> Expr:
    d = a.dtype if isinstance(a, Expr) else b.dtype
    yes, no = (x if isinstance(x, Expr) else Const(x, d) for x in (a, b))
    return Select(c, yes, no)


def clamp(x: Expr, low: Any, high: Any) -> Expr:
    """min(max(x, low), high); NaN stays NaN."""
    return min(max(x, low), high)


def _unary(name: str) -> Callable[[Expr], Expr]:
    def build(x: Expr) -> Expr:
        return Scalar(name, (x,))

    build.__name__ = build.__qualname__ = name
    return build


def _binary(name: str) -> Callable[[Any, Any], Expr]:
    def build(x: Any, y: Any) -> Expr:
        return apply(name, x, y)

    build.__name__ = build.__qualname__ = name
    return build


def fma(a: Any, b: Any, c: Any) -> Expr:
    return apply("fma", a, b, c)


neg, abs, sign, floor, ceil = map(_unary, ("neg", "abs", "sign", "floor", "ceil"))
trunc, round, sqrt, rsqrt, exp = map(_unary, ("trunc", "round", "sqrt", "rsqrt", "exp"))
exp2, expm1, log, log1p, log2 = map(_unary, ("exp2", "expm1", "log", "log1p", "log2"))
log10, sin, cos, tan, tanh = map(_unary, ("log10", "sin", "cos", "tan", "tanh"))
asin, acos, atan, sinh, cosh = map(_unary, ("asin", "acos", "atan", "sinh", "cosh"))
asinh, acosh, atanh, erf, erfc = map(_unary, ("asinh", "acosh", "atanh", "erf", "erfc"))
conj, area, lift = map(_unary, ("conj", "area", "lift"))
erfinv, lgamma, digamma, not_ = map(_unary, ("erfinv", "lgamma", "digamma", "not"))
add, sub, mul, div, pow = map(_binary, ("add", "sub", "mul", "div", "pow"))
min, max, rem, fmod, floordiv = map(_binary, ("min", "max", "rem", "fmod", "floordiv"))
atan2, nextafter, and_, or_, xor = map(_binary, ("atan2", "nextafter", "and", "or", "xor"))
shl, shr, eq, ne, lt = map(_binary, ("shl", "shr", "eq", "ne", "lt"))
le, gt, ge = map(_binary, ("le", "gt", "ge"))


# ---------------------------------------------------------------------------------- composites


def composite(fn: Callable[..., Expr]) -> Callable[..., Expr]:
    """A scalar made of several rows: float16 and bfloat16 go through float32 and round once."""

    @functools.wraps(fn)
    def build(x: Expr, *rest: Any) -> Expr:
        d = x.dtype
        if d not in _IN_FLOAT32:
            return fn(x, *rest)
        wide = [cast(r, D.float32) if isinstance(r, Expr) else r for r in rest]
        return cast(fn(cast(x, D.float32), *wide), d)

    return build


@composite
def reciprocal(x: Expr) -> Expr:
    return div(1.0, x)


@composite
def square(x: Expr) -> Expr:
    return mul(x, x)


@composite
def relu(x: Expr) -> Expr:
    """max(x, 0)"""
    return max(x, 0)


@composite
def sigmoid(x: Expr) -> Expr:
    """1 / (1 + exp(-x))"""
    return div(1.0, add(1.0, exp(neg(x))))


@composite
def silu(x: Expr) -> Expr:
    """x / (1 + exp(-x))"""
    return div(x, add(1.0, exp(neg(x))))


@composite
def gelu(x: Expr) -> Expr:
    """x/2 (1 + erf(x / sqrt 2))"""
    return mul(x, add(0.5, area(x)))


@composite
def gelu_tanh(x: Expr) -> Expr:
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))"""
    inner = mul(math.sqrt(2 / math.pi), add(x, mul(0.044715, mul(mul(x, x), x))))
    return mul(mul(x, 0.5), add(1.0, tanh(inner)))


@composite
def softplus(x: Expr, beta: Any = 1.0, threshold: Any = 20.0) -> Expr:
    """log(1 + exp(beta x)) / beta, and x itself where beta x > threshold."""
    z = x if beta == 1 else mul(x, beta)
    y = log1p(exp(z))
    return where(gt(z, threshold), x, y if beta == 1 else div(y, beta))


@composite
def log_sigmoid(x: Expr) -> Expr:
    """min(x, 0) - log(1 + exp(-|x|))"""
    return sub(min(x, 0.0), log1p(exp(neg(abs(x)))))


@composite
def mish(x: Expr) -> Expr:
    """x tanh(log(1 + exp(x)))"""
    return mul(x, tanh(softplus(x)))


@composite
def elu(x: Expr, alpha: Any = 1.0) -> Expr:
    """x where x > 0, else alpha (exp(x) - 1)"""
    return where(gt(x, 0.0), x, mul(alpha, expm1(x)))


@composite
def leaky_relu(x: Expr, slope: Any = 0.01) -> Expr:
    """x where x > 0, else slope x"""
    return where(gt(x, 0.0), x, mul(x, slope))


@composite
def isnan(x: Expr) -> Expr:
    return ne(x, x)
