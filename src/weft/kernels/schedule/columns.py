"""Softmax along a dim whose lines lie side by side in memory (the channels of an image, say).

The formulas and the order of sums are those of rows.py; here a vector holds neighbouring lines, and
the 16 virtual lanes of each sum are 16 vectors in memory, as in the columns of reduce.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from weft.core.dtype import dtype
from weft.kernels.schedule.combine import Combine, accumulator
from weft.kernels.schedule.nest import PARALLEL_WORK, QUICK_WORK, Space, load_part, store_part
from weft.kernels.schedule.reduce import CHUNK, LANES
from weft.kernels.target.element import Element, memory, register, width
from weft.kernels.target.llvm import Module, Operand, Reader, Value, vector
from weft.runtime.native import Launch, Stage, host, load


@dataclass(frozen=True)
class Structure:
    """What a kernel is made from."""

    log: bool
    in_dtype: dtype
    out_dtype: dtype
    rank: int
    chunked: bool


def plan_columns(
    in_dtype: dtype, out_dtype: dtype, space: Space, count: int, steps: tuple[int, int], *,
    log: bool,
) -> Launch:  # fmt: skip
    """Lines of `count` elements over `space` (strides of out, then x, the last ones 1); `steps` are
    the strides of out and x along a line."""
    s = Structure(log, in_dtype, out_dtype, len(space.sizes), count > CHUNK)
    ints = [*space.sizes, space.size, count, *steps]
    for v in space.strides:
        ints.extend(v)
    amount = space.size * count * 16
    stage = Stage(_kernel(s), amount >= PARALLEL_WORK)
    return Launch((stage,), tuple(ints), quick=amount < QUICK_WORK)


@lru_cache(maxsize=256)
def _kernel(s: Structure) -> int:
    return load(source(s), ["columns"])["columns"]


def source(s: Structure) -> str:
    """The LLVM IR of a structure's kernel."""
    module = Module(vector_bits=host().vector_bits)
    _Columns(module, s).emit()
    return module.text()


class _Columns:
    def __init__(self, module: Module, s: Structure) -> None:
        self.s = s
        self.f = f = module.kernel("columns")
        self.acc = accumulator("sum", s.in_dtype)
        self.lanes = host().lanes(width(self.acc))
        self.element = Element(f, self.lanes)
        self.type = vector(self.lanes, register(self.acc))
        self.pointers = f.words("%args", 2, ["ptr"] * 2)
        take = Reader(f, "%args", 5).take
        self.sizes = take(s.rank)
        self.lines, self.count = take(2)
        self.steps = take(2)
        self.strides = [take(s.rank), take(s.rank)]
        self.room = f.alloca(self.type, LANES)

    def emit(self) -> None:
        f, s, lanes = self.f, self.s, self.lanes
        inner = self.sizes[-1]
        blocks = f.div(f.add(inner, lanes - 1), lanes)
        lo, hi = f.split(f.mul(f.div(self.lines, inner), blocks))
        with f.loop(lo, hi) as units:
            first = f.mul(f.rem(units.i, blocks), lanes)
            coords = [*f.coordinates(f.div(units.i, blocks), self.sizes[:-1]), first]
            rows = []
            for k, d in enumerate((s.out_dtype, s.in_dtype)):
                offset: Operand = 0
                for c, stride in zip(coords, self.strides[k], strict=True):
                    offset = f.add(offset, f.mul(c, stride))
                rows.append(f.gep(self.pointers[k], offset, memory(d)))
            left = f.sub(inner, first)
            with f.if_else(f.icmp("sge", left, lanes)) as sides:
                self._lines(rows[0], rows[1], None, lanes)
                sides.otherwise()
                self._lines(rows[0], rows[1], f.lane_mask(left, lanes), left)
        f.ret()

    def _get(
        self, row: Value, k: int, d: dtype, r: Operand, mask: Value | None, n: Operand
    ) -> Value:
        """Element r of each line, in the accumulator's dtype."""
        f, element = self.f, self.element
        at = f.gep(row, f.mul(r, self.steps[k]), memory(d))
        type = element.memory_type(d)
        v = f.load(type, at) if mask is None else load_part(f, type, at, mask, n)
        return element.cast(element.from_memory(v, d), d, self.acc)

    def _put(self, row: Value, r: Operand, v: Value, mask: Value | None, n: Operand) -> None:
        f, element, d = self.f, self.element, self.s.out_dtype
        v = element.to_memory(element.cast(v, self.acc, d), d)
        at = f.gep(row, f.mul(r, self.steps[0]), memory(d))
        if mask is None:
            f.store(v, at)
        else:
            store_part(f, v, at, mask, n)

    def _lines(self, out: Value, x: Value, mask: Value | None, n: Operand) -> None:
        f, s, m = self.f, self.s, self.element.math
        waits = s.out_dtype is self.acc and not s.log  # the exponentials, in the output

        def read(r: Operand) -> Value:
            return self._get(x, 1, s.in_dtype, r, mask, n)

        top = self._reduced("max", read)

        def exponential(r: Operand) -> Value:
            return self.element.scalar("exp", self.acc, m.sub(read(r), top))

        def kept(r: Operand) -> Value:
            e = exponential(r)
            if waits:
                self._put(out, r, e, mask, n)
            return e

        total = self._reduced("sum", kept)
        if s.log:
            total = self.element.scalar("log", self.acc, total)
        with f.loop(0, self.count) as loop:
            if s.log:
                y = m.sub(m.sub(read(loop.i), top), total)
            elif waits:
                y = m.div(self._get(out, 0, s.out_dtype, loop.i, mask, n), total)
            else:
                y = m.div(exponential(loop.i), total)
            self._put(out, loop.i, y, mask, n)

    def _reduced(self, kind: str, body: Callable[[Operand], Value]) -> Value:
        """The strict reduction of each line: a vector of results."""
        f = self.f
        op = Combine(f, kind, self.acc)
        if not self.s.chunked:
            return self._run(op, 0, self.count, body)
        start = op.start(self.lanes)[0]
        with f.loop(0, self.count, CHUNK, [(self.type, start)]) as chunks:
            stop = f.min(f.add(chunks.i, CHUNK), self.count)
            part = self._run(op, chunks.i, stop, body)
            chunks.next[0] = op.step([chunks.carry[0]], [part], self.lanes)[0]
        return chunks.carry[0]

    def _run(
        self, op: Combine, start: Operand, stop: Operand, body: Callable[[Operand], Value]
    ) -> Value:
        f = self.f
        used = f.min(f.sub(stop, start), LANES)

        def cell(lane: Operand) -> Value:
            return f.gep(self.room, lane, self.type)

        def join(at: Value, v: Value) -> None:
            f.store(op.step([f.load(self.type, at)], [v], self.lanes)[0], at)

        with f.loop(0, used) as loop:
            f.store(op.start(self.lanes)[0], cell(loop.i))
        with f.loop(start, stop) as loop:
            join(cell(f.op("and", loop.i, LANES - 1)), body(loop.i))
        half = LANES // 2
        while half:
            with f.loop(0, f.min(f.sub(used, half), half)) as loop:
                join(cell(loop.i), f.load(self.type, cell(f.add(loop.i, half))))
            half //= 2
        return f.load(self.type, cell(0))
