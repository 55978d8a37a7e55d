"""Element types: torch's names over NumPy's storage, and torch's promotion rules.

`result_type` follows torch: operands fall into three classes (tensors with dims, 0-dim tensors,
Python numbers); a class decides the dtype only when its category (bool < int < float < complex) is
higher than that of the classes before it.  Source: torch.result_type's documentation.
"""

from __future__ import annotations

import builtins
from typing import Any

import ml_dtypes
import numpy as np

__all__ = [
    "bfloat16", "bool", "cdouble", "cfloat", "complex128", "complex64", "double", "dtype", "float",
    "float16", "float32", "float64", "get_default_dtype", "half", "int", "int16", "int32", "int64",
    "int8", "long", "promote_types", "set_default_dtype", "short", "uint8",
]  # fmt: skip

BOOL, INT, FLOAT, COMPLEX = 0, 1, 2, 3  # categories, in promotion order


class dtype:
    """One element type.  Singletons: compare with `is`."""

    __slots__ = ("name", "np", "itemsize", "category", "is_signed", "short", "spelled")
    tensors: type | None = None  # the class of its tensors, where that is not Tensor

    def __init__(
        self, name: str, np_dtype: object, category: builtins.int, short: str, spelled: str
    ) -> None:
        self.name = name
        self.np = np.dtype(np_dtype)  # type: ignore[call-overload]
        self.itemsize = self.np.itemsize
        self.category = category
        self.is_signed = not name.startswith("uint") and name != "bool"
        self.short = short  # as the graph's text prints it: f32, i64, b1
        self.spelled = spelled  # as torch's messages spell it

    @property
    def is_floating_point(self) -> builtins.bool:
        return self.category == FLOAT

    @property
    def is_complex(self) -> builtins.bool:
        return self.category == COMPLEX

    def to_complex(self) -> dtype:
        """The complex dtype whose parts hold this one's numbers."""
        return self if self.category == COMPLEX else complex128 if self is float64 else complex64

    def to_real(self) -> dtype:
        """The dtype of a complex dtype's parts; a real one's own."""
        return self if self.category != COMPLEX else float64 if self is complex128 else float32

    def __repr__(self) -> str:
        return f"weft.{self.name}"

    def __reduce__(self) -> tuple:
        return _by_name, (self.name,)

    def __deepcopy__(self, memo: dict) -> dtype:
        return self

    def __copy__(self) -> dtype:
        return self

    def lacks(self, name: str) -> NotImplementedError:
        """What is said where a function has no form for this dtype, in torch's words."""
        return NotImplementedError(f"\"{name}\" not implemented for '{self.spelled}'")


float64 = double = dtype("float64", np.float64, FLOAT, "f64", "Double")
float32 = float = dtype("float32", np.float32, FLOAT, "f32", "Float")
float16 = half = dtype("float16", np.float16, FLOAT, "f16", "Half")
bfloat16 = dtype("bfloat16", ml_dtypes.bfloat16, FLOAT, "bf16", "BFloat16")
int64 = long = dtype("int64", np.int64, INT, "i64", "Long")
int32 = int = dtype("int32", np.int32, INT, "i32", "Int")
int16 = short = dtype("int16", np.int16, INT, "i16", "Short")
int8 = dtype("int8", np.int8, INT, "i8", "Char")
uint8 = dtype("uint8", np.uint8, INT, "u8", "Byte")
bool = dtype("bool", np.bool_, BOOL, "b1", "Bool")
complex128 = cdouble = dtype("complex128", np.complex128, COMPLEX, "c128", "ComplexDouble")
complex64 = cfloat = dtype("complex64", np.complex64, COMPLEX, "c64", "ComplexFloat")

ALL = (float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8, bool)  # of kernels
FLOATS = (float64, float32, float16, bfloat16)
COMPLEXES = (complex128, complex64)  # which NumPy computes, or kernels by their parts
BY_NAME = {d.name: d for d in (*ALL, *COMPLEXES)}
BY_SHORT = {d.short: d for d in BY_NAME.values()}
BY_NP = {d.np: d for d in BY_NAME.values()}


_KEPT: dict[str, dtype] = {}


def keep(*stored: dtype) -> None:
    """Dtypes in which nothing computes (stored.py): NumPy's arrays of them are known."""
    for d in stored:
        _KEPT[d.name] = d
        BY_NP[d.np] = d


def _by_name(name: str) -> dtype:
    return BY_NAME.get(name) or _KEPT[name]


def from_np(np_dtype: np.dtype) -> dtype:
    """The Weft dtype of a NumPy dtype; TypeError for one Weft lacks."""
    d = BY_NP.get(np_dtype)
    if d is None:
        native = np_dtype.newbyteorder("=") if np_dtype.byteorder == ">" else np_dtype
        d = BY_NP.get(native)
    if d is None:
        raise TypeError(
            f"can't convert a NumPy array of dtype {np_dtype}: Weft has " + ", ".join(BY_NAME)
        )
    return d


def _promote_pair(a: dtype, b: dtype) -> dtype:
    if a is b:
        return a
    if COMPLEX in (a.category, b.category):  # wide enough for the parts of both
        return complex128 if float64 in (a.to_real(), b.to_real()) else complex64
    if a.category != b.category:
        return a if a.category > b.category else b
    if a.category == FLOAT:
        if {a.name, b.name} == {"float16", "bfloat16"}:
            return float32
        return a if a.itemsize >= b.itemsize else b
    if a.is_signed == b.is_signed:
        return a if a.itemsize >= b.itemsize else b
    signed, unsigned = (a, b) if a.is_signed else (b, a)
    return signed if signed.itemsize > unsigned.itemsize else int16


_PROMOTED = {(a, b): _promote_pair(a, b) for a in BY_NAME.values() for b in BY_NAME.values()}


def promote_types(a: dtype, b: dtype) -> dtype:
    """The smallest dtype to which both can be cast, as torch.promote_types."""
    try:
        return _PROMOTED[a, b]
    except KeyError:
        raise TypeError(
            f"promote_types(): arguments must be torch.dtype, not {a} and {b}"
        ) from None


class _Default:
    dtype = float32


def get_default_dtype() -> dtype:
    return _Default.dtype


def set_default_dtype(d: dtype) -> None:
    if not isinstance(d, dtype) or d.category != FLOAT:
        raise TypeError(f"set_default_dtype: only floating-point types are supported, got {d}")
    _Default.dtype = d


def asked(d: Any) -> Any:
    """What a `dtype` argument means: Python's float, int, bool and complex are the widest kinds."""
    if d is None or d.__class__ is dtype:
        return d
    d = _PYTHON.get(d, d) if isinstance(d, type) else d
    if not isinstance(d, dtype):
        raise TypeError(f"argument 'dtype' must be torch.dtype, not {type(d).__name__}")
    return d


_PYTHON = {
    builtins.float: float64,
    builtins.int: int64,
    builtins.bool: bool,
    builtins.complex: complex128,
}


def of_number(x: object) -> dtype:
    """The dtype a Python number gets as a tensor: bool, int64, the default float or complex."""
    if isinstance(x, (np.bool_, type(True))):
        return bool
    if isinstance(x, (type(1), np.integer)):
        return int64
    if isinstance(x, (type(1j), np.complexfloating)):
        return _Default.dtype.to_complex()
    if isinstance(x, (builtins.float, np.floating)):
        return _Default.dtype
    raise TypeError(f"must be Number, not {type(x).__name__}")


def result_type_of(dims: dtype | None, zero: dtype | None, number: dtype | None) -> dtype:
    """Promotion over the three operand classes (dtype of each class, None where absent)."""
    out = dims
    for d in (zero, number):
        if d is None:
            continue
        if out is None or d.category > out.category:
            if out is not None and d.category == COMPLEX and out.category == FLOAT:
                out = out.to_complex()  # as wide as the floats that are there
            else:
                out = d if d is not number or d.category != FLOAT else _Default.dtype
    if out is None:
        raise TypeError("result_type(): expected a tensor or a number, got none")
    return out


class finfo:
    """bits, eps, max, min, tiny, smallest_normal, resolution of a floating dtype."""

    def __init__(self, type: dtype | None = None) -> None:
        d = get_default_dtype() if type is None else type
        d = d.to_real() if isinstance(d, dtype) else d
        if not isinstance(d, dtype) or d.category != FLOAT:
            raise TypeError(
                f"torch.finfo() requires a floating point input type. Use torch.iinfo to handle "
                f"'{d}'"
            )
        own = d.np.num < 256  # numbers from there on are types that others registered
        facts = (np.finfo if own else ml_dtypes.finfo)(d.np)
        self.dtype = d.name
        self.bits = 8 * d.itemsize
        self.eps = builtins.float(facts.eps)
        self.max = builtins.float(facts.max)
        self.min = builtins.float(facts.min)
        self.tiny = self.smallest_normal = builtins.float(facts.tiny)
        self.resolution = builtins.float(facts.resolution)

    def __eq__(self, other: object) -> builtins.bool:
        return isinstance(other, finfo) and self.dtype == other.dtype

    def __hash__(self) -> builtins.int:
        return hash(self.dtype)

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, "
            f"eps={self.eps:g}, smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, "
            f"dtype={self.dtype})"
        )


class iinfo:
    """bits, max, min of an integer dtype."""

    def __init__(self, type: dtype) -> None:
        if not isinstance(type, dtype) or type.category != INT:
            raise TypeError(
                f"torch.iinfo() requires an integer input type. Use torch.finfo to handle '{type}'"
            )
        facts = np.iinfo(type.np)
        self.dtype = type.name
        self.bits = facts.bits
        self.max = builtins.int(facts.max)
        self.min = builtins.int(facts.min)

    def __eq__(self, other: object) -> builtins.bool:
        return isinstance(other, iinfo) and self.dtype == other.dtype

    def __hash__(self) -> builtins.int:
        return hash(self.dtype)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"
