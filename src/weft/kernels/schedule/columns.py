"""Softmax along a dim whose lines lie side by side in memory (the channels of an image, say).

The formulas and the order of sums are those of rows.py; here a vector holds neighbouring lines, and
the 16 virtual lanes of each sum are 16 vectors in memory, as in the columns of reduce.py. A vector
of lines is read from memory once, to a room of its own: the elements of a line may lie as far apart
as those that share a set of a cache. Of short lines a vector is SIDE registers, since the numbers
of one (largest, sum, logarithm) wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from weft.core.dtype import dtype
from weft.kernels.schedule.combine import Combine, accumulator
from weft.kernels.schedule.nest import (
    STREAM_BYTES,
    Space,
    load_part,
    one_stage,
    store_part,
    stride_class,
)
from weft.kernels.schedule.reduce import CHUNK, LANES
from weft.kernels.schedule.tile import up
from weft.kernels.target.element import Element, memory, register, width
from weft.kernels.target.llvm import Module, Operand, Reader, Value, const, vector
from weft.kernels.target.math import exp_below
from weft.runtime.native import Launch, host, load_made

SIDE = 4  # registers side by side
_HELD_BYTES = 1 << 15  # what the first cache holds
_SIDE_BYTES = (
    _HELD_BYTES,
    1 << 11,
)  # of a room that SIDE registers share; of arrays from memory, whose
# lines come while a register's numbers wait


@dataclass(frozen=True)
class Lines:
    """What a kernel is made from; `operands` are their names and dtypes in pointer order."""

    operands: tuple[tuple[str, dtype], ...]
    rank: int
    chunked: bool
    held: bool  # the room is scratch memory; else exponentials wait in the output, if they can
    side: int  # registers a vector of lines
    kinds: tuple[int, ...]  # strides from line to line: 0, 1, or 2 for other
    skip: int = 0  # words before its ints

    @property
    def acc(self) -> dtype:
        return accumulator("sum", dict(self.operands)["x"])


def lines_of(
    operands: dict[str, dtype], space: Space, count: int, steps: Sequence[int], skip: int = 0
) -> tuple[Lines, list[int], int]:
    """The structure for lines of `count` elements over `space` (strides of each operand), the ints,
    and the scratch of a thread. `steps`: those of out and x along a line.
    """
    acc = accumulator("sum", operands["x"])
    lanes, inner = host().lanes(width(acc)), space.sizes[-1]
    room, wide = up(count * lanes * width(acc)), up(inner, SIDE * lanes)
    far = space.size * count * width(acc) * (1 + (steps[0] != 0)) > STREAM_BYTES
    side = SIDE if SIDE * room <= _SIDE_BYTES[far] and 8 * wide <= 9 * inner else 1
    room *= side
    held = room <= _HELD_BYTES
    kinds = tuple(stride_class(v[-1]) for v in space.strides)
    s = Lines(tuple(operands.items()), len(space.sizes), count > CHUNK, held, side, kinds, skip)
    ints = [*space.sizes, space.size, count, *steps, room]
    for v in space.strides:
        ints.extend(v)
    return s, ints, room if held else 0


def plan_columns(
    in_dtype: dtype, out_dtype: dtype, space: Space, count: int, steps: tuple[int, int], *,
    log: bool,
) -> Launch:  # fmt: skip
    """Lines of `count` elements over `space` (strides of out, then x, the last ones 1); `steps` are
    the strides of out and x along a line."""
    s, ints, each = lines_of({"out": out_dtype, "x": in_dtype}, space, count, steps)
    amount = space.size * count * 16
    return one_stage(_kernel(s, log=log), ints, amount, each)


@lru_cache(maxsize=256)
def _kernel(s: Lines, *, log: bool) -> int:
    return load_made(["rows"], _softmax_ir, s, log=log)["rows"]


def _softmax_ir(s: Lines, *, log: bool) -> str:
    module = Module()
    _Softmax(module, s, log=log).emit()
    return module.text()


class Columns:
    """A kernel over vectors of lines; `lines` says what becomes of one."""

    def __init__(self, module: Module, s: Lines) -> None:
        self.s, self.acc = s, s.acc
        self.f = f = module.kernel("rows")
        self.width = host().lanes(width(self.acc)) * s.side
        self.element, self.one = Element(f, self.width), Element(f, 1)
        self.type = vector(self.width, register(self.acc))
        n = len(s.operands)
        *pointers, self.scratch = f.words("%args", 2, ["ptr"] * (n + 1))
        self.take = Reader(f, "%args", 3 + n + s.skip).take
        self.sizes = self.take(s.rank)
        self.rows, self.count = self.take(2)
        steps, (self.own,) = self.take(2), self.take(1)
        self.steps: dict[str, Operand] = dict(zip(("out", "x"), steps, strict=True))
        self.operands = {
            name: (p, d, self.take(s.rank))
            for p, (name, d) in zip(pointers, s.operands, strict=True)
        }
        self.room = f.alloca(self.type, LANES)

    def emit(self, before: Operand = 0) -> None:
        """The kernel; bytes of scratch `before` the threads' rooms."""
        f, lanes = self.f, self.width
        inner = self.sizes[-1]
        tid = f.thread()
        self.held = f.gep(self.scratch, f.add(before, f.mul(tid, self.own)))
        blocks = f.div(f.add(inner, lanes - 1), lanes)
        lo, hi = f.split(f.mul(f.div(self.rows, inner), blocks))
        with f.loop(lo, hi) as units:
            first = f.mul(f.rem(units.i, blocks), lanes)
            outer = f.div(units.i, blocks)
            coords = [*f.coordinates(outer, self.sizes[:-1]), first]
            at = {}
            for name, (pointer, d, strides) in self.operands.items():
                offset: Operand = 0
                for c, stride in zip(coords, strides, strict=True):
                    offset = f.add(offset, f.mul(c, stride))
                at[name] = f.gep(pointer, offset, memory(d))
            self.row, self.group = f.add(f.mul(outer, inner), first), outer
            left = f.sub(inner, first)
            with f.if_else(f.icmp("sge", left, lanes)) as sides:
                self.lines(at, None, lanes)
                sides.otherwise()
                self.lines(at, f.lane_mask(left, lanes), left)
        f.ret()

    def lines(self, at: dict[str, Value], mask: Value | None, n: Operand) -> None:
        """What becomes of `n` lines, which begin at `at`."""
        raise NotImplementedError

    def get(
        self, at: dict[str, Value], name: str, r: Operand, mask: Value | None, n: Operand
    ) -> Value:
        """Element r of each line, in the accumulator's dtype."""
        f, element, d = self.f, self.element, self.operands[name][1]
        place = f.gep(at[name], f.mul(r, self.steps[name]), memory(d))
        type = element.memory_type(d)
        v = f.load(type, place) if mask is None else load_part(f, type, place, mask, n)
        return element.cast(element.from_memory(v, d), d, self.acc)

    def put(
        self, at: dict[str, Value], r: Operand, v: Value, mask: Value | None, n: Operand
    ) -> None:
        """Element r of each line of the result."""
        f, element, d = self.f, self.element, self.operands["out"][1]
        v = element.to_memory(element.cast(v, self.acc, d), d)
        self.store(v, f.gep(at["out"], f.mul(r, self.steps["out"]), memory(d)), mask, n)

    def store(self, v: Value, place: Value, mask: Value | None, n: Operand) -> None:
        if mask is None:
            self.f.store(v, place)
        else:
            store_part(self.f, v, place, mask, n)

    def exponentials(
        self, at: dict[str, Value], mask: Value | None, n: Operand, *, last: bool,
        also: Callable[[Operand, Value], None] | None = None,
    ) -> tuple[Value, Value, Callable[[Operand], Value], Callable[[Operand], Value]]:  # fmt: skip
        """max x and sum exp(x - max x) of each line; what gives x - max x of an element, and its
        exponential, which is the one `last` asked for. `also` sees all x - max x on the way.
        """
        f, m = self.f, self.element.math

        def cell(r: Operand) -> Value:
            return f.gep(self.held, r, self.type)

        def read(r: Operand) -> Value:
            v = self.get(at, "x", r, mask, n)
            if self.s.held:
                f.store(v, cell(r))
            return v

        def again(r: Operand) -> Value:
            return f.load(self.type, cell(r)) if self.s.held else self.get(at, "x", r, mask, n)

        with f.loop(0, self.count, 1, [(self.type, const(self.type, -math.inf))]) as largest:
            v, old = read(largest.i), largest.carry[0]
            largest.next[0] = f.select(f.fcmp("ogt", v, old), v, old)  # the sum will show a NaN
        top = largest.carry[0]

        def distance(r: Operand) -> Value:
            return m.sub(again(r), top)

        def exponential(r: Operand) -> Value:
            return exp_below(m, distance(r))

        def kept(r: Operand) -> Value:
            d = distance(r)
            e = exp_below(m, d)
            if also is not None:
                also(r, d)
            if last and self.s.held:
                f.store(e, cell(r))
            elif waits:
                self.put(at, r, e, mask, n)
            return e

        def waiting(r: Operand) -> Value:
            return self.get(at, "out", r, mask, n)

        waits = last and self.operands["out"][1] is self.acc
        total = self.total(kept)
        if self.s.held:
            return top, total, distance, again if last else exponential
        return top, total, distance, waiting if waits else exponential

    def total(self, body: Callable[[Operand], Value]) -> Value:
        """The strict sum of each line: a vector of results."""
        f = self.f
        op = Combine(f, "sum", self.acc)
        if not self.s.chunked:
            return self._run(op, 0, self.count, body)
        start = op.start(self.width)[0]
        with f.loop(0, self.count, CHUNK, [(self.type, start)]) as chunks:
            stop = f.min(f.add(chunks.i, CHUNK), self.count)
            part = self._run(op, chunks.i, stop, body)
            chunks.next[0] = op.step([chunks.carry[0]], [part], self.width)[0]
        return chunks.carry[0]

    def _run(
        self, op: Combine, start: Operand, stop: Operand, body: Callable[[Operand], Value]
    ) -> Value:
        f = self.f
        used = f.min(f.sub(stop, start), LANES)

        def cell(lane: Operand) -> Value:
            return f.gep(self.room, lane, self.type)

        def join(at: Value, v: Value) -> None:
            f.store(op.step([f.load(self.type, at)], [v], self.width)[0], at)

        first = f.add(start, used)
        with f.loop(start, first) as loop:
            v = op.step(op.start(self.width), [body(loop.i)], self.width)[0]
            f.store(v, cell(f.sub(loop.i, start)))
        with f.loop(first, stop) as loop:
            join(cell(f.op("and", loop.i, LANES - 1)), body(loop.i))
        half = LANES // 2
        while half:
            with f.loop(0, f.min(f.sub(used, half), half)) as loop:
                join(cell(loop.i), f.load(self.type, cell(f.add(loop.i, half))))
            half //= 2
        return f.load(self.type, cell(0))


class _Softmax(Columns):
    def __init__(self, module: Module, s: Lines, *, log: bool) -> None:
        super().__init__(module, s)
        self.log = log

    def lines(self, at: dict[str, Value], mask: Value | None, n: Operand) -> None:
        f, m = self.f, self.element.math
        _, total, distance, exponential = self.exponentials(at, mask, n, last=not self.log)
        if self.log:
            total = self.element.scalar("log", self.acc, total)
        with f.loop(0, self.count) as loop:
            y = m.sub(distance(loop.i), total) if self.log else m.div(exponential(loop.i), total)
            self.put(at, loop.i, y, mask, n)
