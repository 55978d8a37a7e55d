"""LLVM's types and constants as text; the builder in `llvm` writes with them."""

import re
import struct
from functools import cache

INT_TYPES = {
    "int8": "i8",
    "uint8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "bool": "i8",
}
FLOAT_TYPES = {"float16": "half", "bfloat16": "bfloat", "float32": "float", "float64": "double"}
BYTES = {
    "i1": 1,
    "i8": 1,
    "i16": 2,
    "i32": 4,
    "i64": 8,
    "half": 2,
    "bfloat": 2,
    "float": 4,
    "double": 8,
    "ptr": 8,
}
_SUFFIX = {"half": "f16", "bfloat": "bf16", "float": "f32", "double": "f64", "ptr": "p0"}
_VECTOR = re.compile(r"<(\d+) x (\w+)>")


class Value(str):
    """The text of an LLVM value, with its type."""

    type: str

    def __new__(cls, text: str, type: str) -> "Value":
        value = super().__new__(cls, text)
        value.type = type
        return value


Operand = Value | str | int | float


def vector(lanes: int, element: str) -> str:
    """`vector(16, "float")` is `"<16 x float>"`; one lane is the element itself."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


@cache
def lanes_of(type: str) -> int:
    """The number of lanes of a type; 1 for a scalar."""
    match = _VECTOR.fullmatch(type)
    return int(match[1]) if match else 1


@cache
def element_of(type: str) -> str:
    """The lane type of a vector type; the type itself for a scalar."""
    match = _VECTOR.fullmatch(type)
    return match[2] if match else type


def with_element(type: str, element: str) -> str:
    """As many lanes of another element: `with_element("<8 x float>", "i32")` is `"<8 x i32>"`."""
    return vector(lanes_of(type), element)


@cache
def mangle(type: str) -> str:
    """How LLVM spells a type in an intrinsic's name: `<16 x float>` is `v16f32`."""
    element = element_of(type)
    name = _SUFFIX.get(element, element)
    return name if lanes_of(type) == 1 else f"v{lanes_of(type)}{name}"


def const(type: str, value: int | float | bool) -> Value:
    """A constant of any scalar or vector type; a float's exact bits are kept (nan, inf)."""
    element, lanes = element_of(type), lanes_of(type)
    if element in ("float", "double"):
        double = float(value)
        if element == "float":
            double = _round_to_float32(double)
        text = f"0x{struct.unpack('<Q', struct.pack('<d', double))[0]:016X}"
    elif element == "half":
        text = f"0xH{struct.unpack('<H', struct.pack('<e', float(value)))[0]:04X}"
    elif element == "bfloat":
        bits = struct.unpack("<I", struct.pack("<f", _round_to_float32(float(value))))[0]
        text = f"0xR{bits + 0x7FFF + (bits >> 16 & 1) >> 16 & 0xFFFF:04X}"
    elif element == "i1":
        text = "true" if value else "false"
    elif element == "ptr":
        text = "null"
    else:
        text = str(int(value))
    if lanes == 1:
        return Value(text, type)
    return Value("<" + ", ".join([f"{element} {text}"] * lanes) + ">", type)


def lane_numbers(type: str, start: int = 0) -> Value:
    """The integer vector constant start, start+1, ... of the given vector type."""
    element = element_of(type)
    return Value(
        "<" + ", ".join(f"{element} {start + i}" for i in range(lanes_of(type))) + ">", type
    )


def zero(type: str) -> Value:
    """All bits zero, of any type."""
    return Value(
        "null" if type == "ptr" else "zeroinitializer" if lanes_of(type) > 1 else const(type, 0),
        type,
    )


def _round_to_float32(value: float) -> float:
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
