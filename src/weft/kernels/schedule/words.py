"""What a slab and a packed weight are made of: numbers, or words of two bfloat16.

Convolutions with channels across the vector (`conv_wide`) multiply *units*. A unit is a number of a
channel; where a tile has `pairs`, the numbers of two neighbouring channels, rounded to bfloat16, in
32 bits, a last odd one beside a zero. Then hosts with AVX512-BF16 do twice the work an instruction.

The numbers: sums are float32, k = (pair of channels, row, column of the kernel) in blocks of KC
words; each word adds the product of the second channel, then that of the first, one rounding each
(the product itself is exact); results of bfloat16 are rounded once more. Other hosts do the same by
two fused multiply-adds; there alone subnormal numbers are not taken for zero. Which convolutions go
so depends on their sizes alone. In tile registers k has another order (`conv_wide_tiles`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from weft.core import dtype as D
from weft.kernels.schedule.tile import multiplies_pairs
from weft.kernels.target.element import Element, memory
from weft.kernels.target.llvm import Function, Operand, Value, vector, zero

PAIRS_FROM = 9  # output channels of a group
_ROUNDS = 16  # float32 that the rounding instruction takes


def in_pairs(columns: int, d: D.dtype, *, fast: bool = False) -> bool:
    """Whether a group of so many output channels is summed by pairs; `fast`: float32 may be."""
    return columns >= PAIRS_FROM and (
        d is D.bfloat16 or (fast and d is D.float32 and multiplies_pairs())
    )


def halves(f: Function, v: Value, d: D.dtype, width: int) -> Value:
    """`width` numbers as the bits of bfloat16; float32 is rounded to nearest even."""
    if d is D.bfloat16:
        return v
    if not multiplies_pairs():
        element = Element(f, width)
        return element.stored(v, D.bfloat16)
    lanes = max(width, _ROUNDS)
    v = f.splat(v, vector(lanes, "float")) if width == 1 else v
    rounded = f.intrinsic("x86.avx512bf16.cvtneps2bf16.512", vector(lanes, "bfloat"), v)
    bits = f.cast("bitcast", rounded, vector(lanes, "i16"))
    return f.extract(bits, 0) if width == 1 else bits


def halves_of_two(f: Function, low: Value, high: Value, lanes: int) -> Value:
    """`halves` of one vector of float32, then of another."""
    if not multiplies_pairs():
        low, high = (halves(f, v, D.float32, lanes) for v in (low, high))
        return f.shuffle(low, high, range(2 * lanes))
    type = vector(2 * lanes, "bfloat")
    rounded = f.intrinsic("x86.avx512bf16.cvtne2ps2bf16.512", type, high, low)
    return f.cast("bitcast", rounded, vector(2 * lanes, "i16"))


def sums_to(f: Function, v: Value, d: D.dtype, lanes: int) -> Value:
    """Sums of products, in registers, as they lie in memory of dtype `d`."""
    if d is D.bfloat16:
        return halves(f, v, D.float32, lanes)
    element = Element(f, lanes)
    return element.stored(v, d)


def woven(f: Function, low: Value, high: Value, width: int) -> Value:
    """Words of two bfloat16 each, from their bits, as `width` float32."""
    wide = vector(width, "i32")
    low, high = (f.cast("zext", x, wide) for x in (low, high))
    word = f.op("or", low, f.op("shl", high, f.typed(16, wide)))
    return f.cast("bitcast", word, vector(width, "float"))


Load = Callable[[Value], Value]  # numbers at a place, in the form that they have in memory


@dataclass(frozen=True)
class Numbers:
    """Units are numbers: in memory of dtype `d`, in the slab as in registers."""

    f: Function
    d: D.dtype
    lanes: int
    per: int = 1  # channels of a unit

    def units(self, channels: Operand) -> Operand:
        """Of so many channels."""
        return channels

    def masks(self, count: Operand) -> list[Value]:
        """Of the first `count` numbers of a vector of units."""
        return [self.f.lane_mask(count, self.lanes)]

    def adjacent(self, at: Value, masks: list[Value] | None = None) -> Value:
        """A vector of units whose numbers follow on one another."""
        return Element(self.f, self.lanes).from_memory(self._read(at, masks, self.lanes), self.d)

    def unit(self, load: Load, at: Value, step: Operand, more: Operand, width: int = 0) -> Value:
        """Units of the numbers that `load` finds at `at`, and those `step` farther on if `more`."""
        return self.of([load(at)], width or self.lanes)

    def of(self, parts: Sequence[Value], width: int) -> Value:
        """Units of `per` numbers each, in the form that they have in memory."""
        return Element(self.f, width).from_memory(parts[0], self.d)

    def _read(self, at: Value, masks: list[Value] | None, lanes: int, part: int = 0) -> Value:
        f, type = self.f, vector(lanes, memory(self.d))
        return f.load(type, at) if masks is None else f.masked_load(type, at, masks[part])


@dataclass(frozen=True)
class Words(Numbers):
    """Units are words of two channels."""

    per: int = 2

    def units(self, channels: Operand) -> Operand:
        return self.f.div(self.f.add(channels, 1), 2)

    def masks(self, count: Operand) -> list[Value]:
        f, lanes = self.f, self.lanes
        if self.d is D.bfloat16:
            return [f.lane_mask(count, 2 * lanes)]
        return [f.lane_mask(count, lanes), f.lane_mask(f.sub(count, lanes), lanes)]

    def adjacent(self, at: Value, masks: list[Value] | None = None) -> Value:
        f, lanes = self.f, self.lanes
        if self.d is D.bfloat16:
            both = self._read(at, masks, 2 * lanes)
        else:
            second = f.gep(at, lanes, memory(self.d))
            low, high = (self._read(p, masks, lanes, i) for i, p in enumerate((at, second)))
            both = halves_of_two(f, low, high, lanes)
        return f.cast("bitcast", both, vector(lanes, "float"))

    def unit(self, load: Load, at: Value, step: Operand, more: Operand, width: int = 0) -> Value:
        f, width = self.f, width or self.lanes
        far = f.gep(at, f.select(more, step, 0), memory(self.d))
        low, high = (load(p) for p in (at, far))
        return self.of([low, f.select(more, high, zero(high.type))], width)

    def of(self, parts: Sequence[Value], width: int) -> Value:
        low, high = (halves(self.f, p, self.d, width) for p in parts)
        return woven(self.f, low, high, width)


def units_of(f: Function, d: D.dtype, lanes: int, *, pairs: bool) -> Numbers:
    """How units are made of numbers of dtype `d`."""
    return (Words if pairs else Numbers)(f, d, lanes)
