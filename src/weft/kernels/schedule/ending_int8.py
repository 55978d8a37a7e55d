"""Sums of products of bytes to results: scaled, shifted, clamped floats, or bytes of them."""

from dataclasses import dataclass

from weft.kernels.target.llvm import Function, Value, const, with_element, zero
from weft.kernels.target.vector import Math
from weft.runtime import native

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
    (scale, shift, more), floats = factors, sums[0].type
    low, high, other_scale = (f.splat(v, floats) for v in limits)
    math = Math(f, has_fma=native.host().has_fma)
    values = [math.mad(v, s, t) for v, s, t in zip(sums, scale, shift, strict=True)]
    if more:
        words = [f.cast("zext", m, with_element(floats, "i32")) for m in more]
        others = [f.cast("uitofp", m, floats) for m in words]
        values = [math.mad(m, other_scale, v) for v, m in zip(values, others, strict=True)]
    values = [f.select(f.fcmp("olt", high, v), high, v) for v in values]  # keeps NaN
    if kind == "float32":
        return [f.select(f.fcmp("ogt", low, v), low, v) for v in values]
    host = native.host()
    if len(values) == 4 and host.arch == "x86_64" and host.vector_bits == 512:
        return [_packed(f, values, limits[0])]
    values = [f.select(f.fcmp("ogt", v, low), v, low) for v in values]  # so that NaN is `low`
    values = [f.op("fadd", v, const(floats, _MAGIC)) for v in values]
    values = [f.cast("bitcast", v, with_element(floats, "i32")) for v in values]
    return [f.cast("trunc", v, with_element(floats, "i8")) for v in values]


def _packed(f: Function, values: list[Value], low: Value) -> Value:
    """Four vectors of 16 floats up to 255 as one of bytes, from `low` on: packing saturates."""
    words, halves, whole = "<16 x i32>", "<32 x i16>", "<64 x i8>"
    every, as_set = Value("-1", "i16"), Value("4", "i32")  # lanes; the rounding in force
    rounded = [
        f.intrinsic(
            "x86.avx512.mask.cvtps2dq.512", words, v, zero(words), every, as_set, overload=()
        ) for v in values
    ]  # fmt: skip
    pairs = [
        f.intrinsic("x86.avx512.packusdw.512", halves, *rounded[i : i + 2], overload=())
        for i in (0, 2)
    ]
    lanes = f.intrinsic("x86.avx512.packuswb.512", whole, *pairs, overload=())
    fours = f.cast("bitcast", lanes, words)  # of a lane of 128 bits: four of each vector
    fours = f.shuffle(fours, fours, [4 * (i % 4) + i // 4 for i in range(16)])
    least = f.splat(f.cast("fptoui", low, "i8"), whole)
    return f.intrinsic("umax", whole, f.cast("bitcast", fours, whole), least)
