"""Op: one class holds every rule an op has.

    class Exp(Elementwise):                  # the KIND gives type, vmap, lowering, fusion class
        scalar = S.exp                       # one row of the scalar table
        def vjp(self, g, y, x): return g * y,

Rules (all methods; static attributes of the op are its dataclass fields):

type(*types) -> Type          shape and dtype of the result; raises for operands that do not fit
oracle(*arrays) -> ndarray    what the op means, in NumPy; the tests' reference (float64)
execution, one of             plan(layouts, out) -> Launch   native code
                              host(*arrays) -> ndarray       NumPy, only where IEEE fixes the answer
                              body(*tensors)                 a composition of other ops
vjp(g, y, *xs)                cotangents, one an operand (None: no gradient; a function: computed
                              only when wanted); or `nondiff = "why"`
vmap(size, dims, *xs)         (result, dim of the batch in it); derived by the kind, from the body,
                              or written as `vmap = by_loop`
plan_in_place(layouts, out)   as `plan`, where out is the first operand's memory, of which some
                              places get new values and nothing else is written
copies(layouts, out)          launches that move elements, beside `host`: for small operands
complex_host(*arrays)         NumPy for complex operands of an op that has a plan: kernels have none
onnx, samples                 the ONNX node; inputs that drive laws, goldens, benchmarks, docs

A rule that is neither written nor derivable makes importing the room fail.
Ops are interned: two calls with equal attributes give the same object, so identity is equality
on the hot path, and a program can be matched by comparing objects.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from inspect import get_annotations
from operator import index, methodcaller
from typing import Any, ClassVar, dataclass_transform

import numpy as np

from weft.core.dtype import dtype, from_np
from weft.core.types import Dim, Type

REGISTRY: dict[str, type[Op]] = {}
# a launch from an operand (None: from none) to the result; bytes behind their first elements
Copy = tuple[Any, int, int | None, int]
_INTERNED_CAP = 100_000  # an unbounded stream of attributes (slice positions) must not leak


@dataclass_transform(frozen_default=True)
class OpMeta(type):
    """Interns instances: `Softmax(dim=1) is Softmax(dim=1)`."""

    _interned: dict[tuple, Any]
    _plain: list[tuple[str, type, bool]]  # attributes that are numbers, truths, words; or None
    _exact: bool  # holds floats, of which 0.0 == -0.0 and 1.0 == 1 == True are different attributes

    def __call__(cls, *args: Any, **kw: Any) -> Any:
        if not cls._exact:
            key = (args, tuple(kw.items())) if kw else args
        elif kw:
            key = (_exactly(args), tuple(kw), _exactly(kw.values()))
        else:
            key = _exactly(args)
        try:
            return cls._interned[key]
        except KeyError:
            pass
        except TypeError:
            raise TypeError(
                f"{cls.__name__}: attributes must be hashable, got {args} {kw}"
            ) from None
        values = _bind(cls, args, kw)
        as_given = _of_declared(cls, values)
        # the same op reached by position, by keyword and by default is one object
        whole = tuple(values.values())
        if cls._exact:
            whole = _exactly(whole)
        made: Any = cls._interned.get(whole)
        if made is None:
            made = object.__new__(cls)
            made.__dict__.update(values)  # not by setattr: an op does not change
            made = cls._interned.setdefault(whole, made)
        if len(cls._interned) > _INTERNED_CAP:
            cls._interned.clear()
        if as_given:  # a tensor's number may be another one the next time
            cls._interned[key] = made
        return made


# kind -> the same from what is not of it, but says so: NumPy's numbers, tensors of one element
_MADE: dict[type, Callable] = {
    bool: np.bool_.__bool__, float: methodcaller("__float__"), int: index, str: str.__str__,
}  # fmt: skip
_KINDS = {kind.__name__: kind for kind in _MADE}


def _of_declared(cls: Any, values: dict[str, Any]) -> bool:
    """Whether plain attributes are of their declared kind, or were made so; TypeError if none."""
    as_given = True
    for name, kind, optional in cls._plain:
        v = values[name]
        if v.__class__ is kind or (v is None and optional) or isinstance(v, Dim):
            continue
        if kind is float and isinstance(v, (float, int)):
            continue
        as_given = False
        try:
            if kind is int and isinstance(v, bool):
                raise TypeError
            values[name] = _MADE[kind](v)
        except (AttributeError, TypeError, ValueError):
            raise TypeError(
                f"{cls.__name__}(): argument '{name}' must be {kind.__name__}, not "
                f"{type(v).__name__}"
            ) from None
    return as_given


def _exactly(values: Iterable) -> tuple:
    """Values that are equal only where every bit and the class are, within tuples as well."""
    return tuple([
        float.hex(v) if v.__class__ is float and (v == 0 or v != v)
        else (tuple, _exactly(v)) if v.__class__ is tuple
        else (v.__class__, v)
        for v in values
    ])  # fmt: skip


def _bind(cls: Any, args: tuple, kw: dict[str, Any]) -> dict[str, Any]:
    """The value of each attribute, in order; TypeError as a call to a function would raise."""
    names: tuple[str, ...] = cls.__match_args__  # dataclass lists the fields there
    values: dict[str, Any] = dict(zip(names, args, strict=False))
    wrong = [name for name in kw if name not in names or name in values]
    if wrong or len(args) > len(names):
        raise TypeError(f"{cls.__name__} has the attributes {names}, got {args} {kw}")
    for field in fields(cls)[len(args) :]:
        value = kw.get(field.name, field.default)
        if value is MISSING:
            raise TypeError(f"{cls.__name__}: attribute {field.name} is missing")
        values[field.name] = value
    return values


class _WhatIsSaved:
    """Reads a class's vjp rule when what it saves or sees is first asked for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, op: Op | None, cls: type[Op]) -> Any:
        _note_saved(cls)  # replaces them, so that the next look is a plain one
        return getattr(cls, self.name)


_SAVED = {
    name: _WhatIsSaved(name) for name in ("saves", "saved_args", "saves_result", "sees_result")
}


@dataclass(frozen=True)
class Onnx:
    """The ONNX node an op becomes: name, first opset, attribute renames, or a builder function."""

    name: str
    since: int = 13
    rename: tuple[tuple[str, str], ...] = ()
    build: Callable | None = None


@dataclass(frozen=True)
class Sample:
    """Operands for one use of an op: shapes (or numbers), attributes, and how to draw values."""

    args: tuple
    attrs: dict
    of: str | tuple[str, ...] = "float32"  # the operands' dtype, or one an operand
    low: float = -2.0  # values are drawn from [low, high)
    high: float = 2.0


def sample(
    *args: Any,
    of: str | tuple[str, ...] = "float32",
    low: float = -2.0,
    high: float = 2.0,
    **attrs: Any,
) -> Sample:
    """`sample((3, 4), (4,), dim=1)`: operand shapes (or Python numbers), then attributes."""
    return Sample(args, attrs, of, low, high)


class Op(metaclass=OpMeta):
    """Base of all ops.  `class Name(Op)` registers; `class Kind(Op, abstract=True)` does not."""

    name: ClassVar[str] = "Op"
    onnx: ClassVar[Onnx | None] = None
    samples: ClassVar[tuple[Sample, ...]] = ()
    nondiff: ClassVar[str | None] = None
    is_view: ClassVar[bool] = False  # the result shares its first operand's storage
    broadcasts: ClassVar[bool] = False  # cotangents are summed to the operands' shapes
    single: ClassVar[bool] = False  # its floating operands are float32, no other dtype
    effect: ClassVar[bool] = False  # draws random numbers: never merged, moved or dropped
    # the positions of the operands whose VALUES vjp reads; None: all of them
    saved_args: ClassVar[tuple[int, ...] | None] = ()
    saved_for: ClassVar[tuple[tuple[int, ...], ...] | None] = None  # per cotangent, if different
    saves_result: ClassVar[bool] = False
    sees_result: ClassVar[bool] = False  # vjp reads the result, be it only its shape
    oracle: ClassVar[Any] = None
    plan: ClassVar[Any] = None
    plan_in_place: ClassVar[Any] = None
    host: ClassVar[Any] = None
    complex_host: ClassVar[Any] = None
    # copies(layouts, layout) -> [Copy], of small operands; `host` is for all others
    copies: ClassVar[Any] = None
    # the vjp rule is torch's (the conjugate of the Jacobian) as it stands, on complex operands too
    conjugates: ClassVar[bool] = False
    body: ClassVar[Any] = None
    vjp: ClassVar[Any] = None
    vmap: ClassVar[Any] = None
    # of an instance that was called often: runs it on arrays of known layouts (ops/dispatch.py)
    call: ClassVar[Any] = None
    quick: ClassVar[Any] = staticmethod(lambda *tensors: None)  # the same on tensors
    into: ClassVar[Any] = staticmethod(lambda *tensors: None)  # the first one's memory gets it
    pointwise: ClassVar[bool] = False  # kinds.Elementwise
    _calls: ClassVar[Any] = None
    _uses: ClassVar[int] = 0  # calls that NumPy served
    _writes: ClassVar[int] = 0  # the same of writes in place

    def __init_subclass__(cls, abstract: bool = False, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        # Only the list of fields: the methods that dataclass writes take longer than all the rest
        # of an import, and interned objects need none of them (identity is equality). What names no
        # attribute of its own has its base's list.
        named = get_annotations(cls).values()
        own = not all(str(kind).startswith("ClassVar") for kind in named)
        if own or cls.__bases__ == (Op,) or len(cls.__bases__) > 1:
            dataclass(init=False, repr=False, eq=False)(cls)
        cls._interned = {}
        kinds = [str(f.type) for f in fields(cls)]
        plain = [kind.removesuffix(" | None") for kind in kinds]
        cls._plain = [
            (f.name, _KINDS[bare], bare != kind)
            for f, bare, kind in zip(fields(cls), plain, kinds, strict=True)
            if bare in _KINDS
        ]
        cls._exact = any("float" in kind or "Any" in kind for kind in kinds)
        if "vjp" in cls.__dict__:
            for name, unread in _SAVED.items():
                setattr(cls, name, unread)
        if abstract:
            return
        cls.name = cls.__name__
        missing = _missing_rules(cls)
        if missing:
            lacking = ", ".join(missing)
            raise TypeError(f"op {cls.name}: no rule for {lacking}, nor one to derive it")
        if cls.name in REGISTRY:
            raise TypeError(f"op {cls.name} is already declared in {REGISTRY[cls.name].__module__}")
        REGISTRY[cls.name] = cls

    def type(self, *types: Type) -> Type:
        return types[0]

    def flops(self, *types: Type) -> float:
        """Arithmetic of the op's products, two operations a multiply-add; 0: memory bounds it."""
        return 0.0

    @property
    def rounds(self) -> bool:
        """Whether its products' float32 operands may be rounded to bfloat16 first: `fast`, of ops
        that have it."""
        return getattr(self, "fast", False)

    def multiplies(self, *types: Type) -> str:
        """The kind of numbers (of `limits.PRODUCTS`) whose peak bounds these products."""
        kind = types[0].dtype.name
        if kind == "float32" and self.rounds:
            return "bfloat16"
        return kind if kind in ("float64", "bfloat16") else "float32"

    def takes_channels_last(self, *types: Type) -> bool:
        """Whether its plan reads images (N, C, H, W) well that lie channels last in memory."""
        return False

    def makes_channels_last(self, *types: Type) -> bool:
        """Whether its plan can write an image so, and would rather."""
        return False

    def by_sample(self, y: Type, *types: Type) -> tuple[int, ...]:
        """The operands of which result y's sample i, along dim 0, reads sample i alone: together
        with the others, whole, they make any samples by themselves. None where it is not so.
        """
        return ()

    def keeps_channels_last(self, *types: Type) -> bool:
        """Whether its plan writes an image so where it reads one so."""
        return False

    def turns_channels_last(self, *types: Type) -> bool:
        """Whether its plan reads an image so and writes planes in the same time."""
        return False

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self}: an op does not change, make another")

    def __str__(self) -> str:
        given = ", ".join(f"{f.name}={_show(getattr(self, f.name))}" for f in fields(self))
        return f"{self.name}({given})"

    __repr__ = __str__


def _show(v: Any) -> str:
    return repr(v) if not hasattr(v, "short") else v.short


def _missing_rules(cls: type[Op]) -> list[str]:
    missing = []
    if cls.oracle is None and cls.body is None:
        missing.append("oracle")
    if cls.plan is None and cls.host is None and cls.body is None:
        missing.append("execution (plan, host or body)")
    if cls.vjp is None and cls.nondiff is None and cls.body is None:
        missing.append("vjp (or nondiff = 'why')")
    if cls.vmap is None and cls.body is None:
        missing.append("vmap")
    if not cls.samples:
        missing.append("samples")
    return missing


def _note_saved(cls: type[Op]) -> None:
    """Which operands' values the vjp rule reads (not only their shape): those the tape keeps.

    Read off the rule's byte code: a parameter counts unless each load of it is followed by an
    attribute that every `Meta` has.
    """
    if cls.vjp is None:
        cls.saved_args, cls.saves_result, cls.sees_result = (), False, False
        return
    code = cls.vjp.__code__
    params = code.co_varnames[1 : code.co_argcount]  # without self
    used: set[str] = set()
    if code.co_flags & 0x04:  # *xs: the rule may read any operand
        star = code.co_varnames[code.co_argcount + code.co_kwonlyargcount]
        params = (*params, star)
    instructions = [i for i in dis.get_instructions(code) if i.opname not in ("CACHE", "NOP")]
    for i, ins in enumerate(instructions):
        if not ins.opname.startswith(("LOAD_FAST", "LOAD_CLOSURE", "LOAD_DEREF")):
            if ins.opname.startswith("STORE_FAST_LOAD_FAST"):
                used.add(ins.argval[1])
            continue
        names = ins.argval if isinstance(ins.argval, tuple) else (ins.argval,)
        following = instructions[i + 1] if i + 1 < len(instructions) else None
        meta = (
            following is not None
            and following.opname == "LOAD_ATTR"
            and following.argval in ("shape", "dtype", "ndim")
        )
        used.update(names[:-1] if meta else names)
    operands = params[2:]
    star_used = bool(code.co_flags & 0x04) and params[-1] in used
    cls.saves_result = len(params) > 1 and params[1] in used
    cls.sees_result = len(params) < 2 or any(_names(i, params[1]) for i in instructions)
    kept = tuple(i for i, p in enumerate(operands) if p in used)
    if star_used:  # those behind the star as well: more than a call can have
        kept = (*kept, *range(len(operands) - 1, 64)) if len(operands) > 1 else None
    cls.saved_args = kept


def _names(ins: dis.Instruction, variable: str) -> bool:
    return ins.argval == variable or (isinstance(ins.argval, tuple) and variable in ins.argval)


class Meta:
    """Stands for an operand whose value the tape did not keep: shape and dtype only."""

    __slots__ = ("np_dtype", "shape")

    def __init__(self, shape: tuple[int, ...], np_dtype: Any) -> None:
        self.shape = shape
        self.np_dtype = np_dtype

    @property
    def dtype(self) -> dtype:
        return from_np(self.np_dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)
