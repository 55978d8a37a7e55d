"""Sums of products of bytes to results: scaled, shifted, clamped floats, or bytes of them.

Panels of packed weights, which make the sums, have `COLUMNS` columns, `FOUR` bytes of each a step.
"""

from dataclasses import dataclass
from functools import partial, reduce

from weft.kernels.target.llvm import Function, Operand, Value, const, with_element, zero
from weft.kernels.target.vector import Math
from weft.runtime import native

COLUMNS = 64
FOUR = 4  # bytes that are multiplied and added at once
_MAGIC = 1.5 * 2**23  # added to a number of [0, 255] it leaves the rounded number in the last bits
SIZES = {"int32": 4, "float32": 4, "uint8": 1}  # bytes of a result


@dataclass(frozen=True)
class Ending:
    """What becomes of the sums beside scale and shift: `border` is the byte around the image."""

    border: int = 0
    low: float = 0.0
    high: float = 255.0
    other_scale: float = 0.0


def finished(
    f: Function, sums: list[Value], factors: tuple[list, list, list], limits: tuple, kind: str
) -> list[Value]:
    """Vectors of sums as floats or bytes, fewer then; factors are (scale, shift, bytes of another
    image), limits low, high and the other's scale.
    """
    floats = sums[0].type
    low, high, other_scale = (f.splat(v, floats) for v in limits)
    values = _scaled(f, sums, factors, other_scale)
    values = [f.select(f.fcmp("olt", high, v), high, v) for v in values]  # keeps NaN
    if kind == "float32":
        return [f.select(f.fcmp("ogt", low, v), low, v) for v in values]
    host = native.host()
    if len(values) == 4 and host.arch == "x86_64" and host.vector_bits == 512:
        packed = _joined(f, values, "packusdw")
        return [f.intrinsic("umax", packed.type, packed, byte_limits(f, limits)[0])]
    values = [f.select(f.fcmp("ogt", v, low), v, low) for v in values]  # so that NaN is `low`
    values = [f.op("fadd", v, const(floats, _MAGIC)) for v in values]
    values = [f.cast("bitcast", v, with_element(floats, "i32")) for v in values]
    return [f.cast("trunc", v, with_element(floats, "i8")) for v in values]


def _scaled(
    f: Function, sums: list[Value], factors: tuple[list, list, list], other_scale: Value
) -> list[Value]:
    (scale, shift, more), floats = factors, sums[0].type
    math = Math(f, has_fma=native.host().has_fma)
    values = [math.mad(v, s, t) for v, s, t in zip(sums, scale, shift, strict=True)]
    if more:
        words = [f.cast("zext", m, with_element(floats, "i32")) for m in more]
        others = [f.cast("uitofp", m, floats) for m in words]
        values = [math.mad(m, other_scale, v) for v, m in zip(values, others, strict=True)]
    return values


def calm(
    f: Function, scale: list[Value], shift: list[Value], limits: tuple, most: Operand
) -> Value:
    """Whether sums up to `most` and these factors' results fit in int32 by far: then numbers that
    the host rounds there and packs by saturating need no limit before.  Of NaN: no.
    """
    floats = scale[0].type
    beside = f.op("fmul", f.intrinsic("fabs", "float", limits[2]), 255.0)
    largest = f.splat(f.cast("sitofp", most, "float"), floats)
    fits = []
    for s, t in zip(scale, shift, strict=True):
        s, t = (f.intrinsic("fabs", floats, v) for v in (s, t))
        reached = f.op("fadd", f.op("fadd", f.op("fmul", s, largest), t), f.splat(beside, floats))
        fits.append(f.fcmp("olt", reached, const(floats, 2.0**30)))
    every = reduce(partial(f.op, "and"), fits)
    return f.icmp("eq", f.cast("bitcast", every, "i16"), Value("-1", "i16"))


def byte_limits(f: Function, limits: tuple) -> tuple[Value, Value]:
    """The limits low and high as vectors of bytes."""
    whole = "<64 x i8>"
    low, high = (
        f.intrinsic("rint", "float", f.intrinsic("minnum", "float", v, 255.0)) for v in limits[:2]
    )
    return f.splat(f.cast("fptoui", low, "i8"), whole), f.splat(f.cast("fptoui", high, "i8"), whole)


def bytes_of_calm(
    f: Function, sums: list[Value], factors: tuple[list, list, list], other_scale: Value,
    limits: tuple[Value, Value],
) -> Value:  # fmt: skip
    """Four vectors of 16 sums as 64 bytes, the same as `finished`'s, where they are `calm`: limits
    are met by the bytes then, a quarter as many instructions.
    """
    values = _scaled(f, sums, factors, other_scale)
    least, most = limits
    found = f.intrinsic("umax", least.type, _joined(f, values, "packssdw"), least)
    return f.intrinsic("umin", least.type, found, most)


def _joined(f: Function, values: list[Value], pack: str) -> Value:
    """Four vectors of 16 floats, rounded to int32, as one of bytes: packed twice, each time the
    nearest number that is there.
    """
    words, halves, whole = "<16 x i32>", "<32 x i16>", "<64 x i8>"
    every, as_set = Value("-1", "i16"), Value("4", "i32")  # lanes; the rounding in force
    rounded = [
        f.intrinsic(
            "x86.avx512.mask.cvtps2dq.512", words, v, zero(words), every, as_set, overload=()
        ) for v in values
    ]  # fmt: skip
    pairs = [
        f.intrinsic(f"x86.avx512.{pack}.512", halves, *rounded[i : i + 2], overload=())
        for i in (0, 2)
    ]
    lanes = f.intrinsic("x86.avx512.packuswb.512", whole, *pairs, overload=())
    fours = f.cast("bitcast", lanes, words)  # of a lane of 128 bits: four of each vector
    fours = f.shuffle(fours, fours, [4 * (i % 4) + i // 4 for i in range(16)])
    return f.cast("bitcast", fours, whole)
