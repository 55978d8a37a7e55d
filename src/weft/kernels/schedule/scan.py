"""Cumulative sum, prod, max and min along one dim, strictly one element after the other.

    y[0] = x[0]        y[r] = op(y[r - 1], x[r])

float16 and bfloat16 accumulate in float32 and round at each store; ints in int64 for sum and prod.
cummax and cummin may also give the index of the element taken: the latest of equal ones, as torch;
NaN stays from where it occurs.  A vector holds neighbouring lines where the strides allow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from weft.core import dtype as D
from weft.core.dtype import dtype
from weft.core.scalar import Arg, cast
from weft.kernels.layout import Layout
from weft.kernels.schedule.combine import ROW, accumulator
from weft.kernels.schedule.nest import (
    EMPTY,
    fold,
    load_part,
    one_stage,
    store_part,
    stride_class,
)
from weft.kernels.target.element import Element, memory, register, width
from weft.kernels.target.llvm import Module, Operand, Reader, Value, const, vector
from weft.runtime.native import Launch, host, load

KINDS = ("sum", "prod", "max", "min")


@dataclass(frozen=True)
class Structure:
    """What a scan kernel is made from."""

    kind: str
    in_dtype: dtype
    out_dtype: dtype
    acc: dtype
    indices: bool
    rank: int
    vectors: bool


def plan_cumulative(
    kind: str, dim: int, x: Layout, out: Layout, indices: Layout | None = None
) -> Launch:
    """out = the running `kind` of x along `dim`; inputs (x,), or (indices, x), indices int64."""
    if kind not in KINDS:
        raise ValueError(f"cumulative: kind must be one of {KINDS}, not {kind!r}")
    if 0 in out.shape:
        return EMPTY
    in_dtype, out_dtype = D.from_np(x.dtype), D.from_np(out.dtype)
    shape = out.shape or (1,)
    arrays = (out, x) if indices is None else (out, indices, x)
    strides = [a.strides or (1,) for a in arrays]
    dim %= len(shape)
    rest = tuple(n for d, n in enumerate(shape) if d != dim)
    space = fold(rest, tuple(tuple(v for d, v in enumerate(s) if d != dim) for s in strides))
    vectors = all(stride_class(s[-1]) == 1 for s in space.strides) and space.sizes[-1] > 1
    vectors = vectors and len(shape) > 1
    s = Structure(
        kind, in_dtype, out_dtype, accumulator(kind, in_dtype), indices is not None,
        len(space.sizes), vectors,
    )  # fmt: skip
    ints = [*space.sizes, space.size, shape[dim], *(v[dim] for v in strides)]
    for v in space.strides:
        ints.extend(v)
    amount = space.size * shape[dim] * 4
    return one_stage(_kernel(s), ints, amount)


@lru_cache(maxsize=1024)
def _kernel(s: Structure) -> int:
    return load(source(s), ["scan"])["scan"]


def source(s: Structure) -> str:
    """The LLVM IR of a structure's kernel."""
    module = Module()
    _Scan(module, s).emit()
    return module.text()


class _Scan:
    def __init__(self, module: Module, s: Structure) -> None:
        self.s = s
        self.f = f = module.kernel("scan")
        n = 2 + s.indices
        self.types = [s.out_dtype, D.int64, s.in_dtype] if s.indices else [s.out_dtype, s.in_dtype]
        self.pointers = f.words("%args", 2, ["ptr"] * n)
        take = Reader(f, "%args", 3 + n).take
        self.sizes = take(s.rank)
        self.lines, self.count = take(2)
        self.steps = take(n)
        self.strides = [take(s.rank) for _ in range(n)]
        self.lanes = 1
        if s.vectors:
            self.lanes = host().lanes(max(width(d) for d in (s.acc, *self.types)))

    def emit(self) -> None:
        f, s, lanes = self.f, self.s, self.lanes
        if not s.vectors:
            lo, hi = f.split(self.lines)
            with f.loop(lo, hi) as lines:
                self._line(self._moved(lines.i, list(self.sizes)), None, 1)
            f.ret()
            return
        inner = self.sizes[-1]
        blocks = f.div(f.add(inner, lanes - 1), lanes)
        lo, hi = f.split(f.mul(f.div(self.lines, inner), blocks))
        with f.loop(lo, hi) as units:
            block = f.mul(f.rem(units.i, blocks), lanes)
            rows = self._moved(f.div(units.i, blocks), list(self.sizes[:-1]))
            rows = [f.gep(p, block, memory(d)) for p, d in zip(rows, self.types, strict=True)]
            left = f.sub(inner, block)
            with f.if_else(f.icmp("sge", left, lanes)) as sides:
                self._line(rows, None, lanes)
                sides.otherwise()
                self._line(rows, f.lane_mask(left, lanes), left)
        f.ret()

    def _moved(self, flat: Operand, sizes: list[Value]) -> list[Value]:
        f = self.f
        offsets: list[Operand] = [0] * len(self.pointers)
        for d in reversed(range(len(sizes))):
            c = f.rem(flat, sizes[d]) if d else flat
            flat = f.div(flat, sizes[d]) if d else flat
            for k in range(len(offsets)):
                offsets[k] = f.add(offsets[k], f.mul(c, self.strides[k][d]))
        return [
            f.gep(p, o, memory(d))
            for p, o, d in zip(self.pointers, offsets, self.types, strict=True)
        ]

    def _line(self, rows: list[Value], mask: Value | None, count: Operand) -> None:
        f, s, lanes = self.f, self.s, self.lanes
        element = Element(f, lanes)
        a = Arg(0, s.in_dtype)

        def read(i: Operand) -> Value:
            at = f.gep(rows[-1], f.mul(i, self.steps[-1]), memory(s.in_dtype))
            type = element.memory_type(s.in_dtype)
            v = f.load(type, at) if mask is None else load_part(f, type, at, mask, count)
            v = element.from_memory(v, s.in_dtype)
            return element.expressions((cast(a, s.acc),), lambda _: v)[0]

        def write(i: Operand, v: Value, index: Value | None) -> None:
            out = element.expressions((cast(Arg(0, s.acc), s.out_dtype),), lambda _: v)[0]
            values = [element.to_memory(out, s.out_dtype)] + ([index] if index is not None else [])
            for k, value in enumerate(values):
                at = f.gep(rows[k], f.mul(i, self.steps[k]), memory(self.types[k]))
                if mask is None:
                    f.store(value, at)
                else:
                    store_part(f, value, at, mask, count)

        wide = vector(lanes, "i64")
        first = read(0)
        zero = const(wide, 0) if s.indices else None
        write(0, first, zero)
        carry: list[tuple[str, Operand]] = [(vector(lanes, register(s.acc)), first)]
        if zero is not None:
            carry.append((wide, zero))
        with f.loop(1, self.count, 1, carry) as loop:
            v, old = read(loop.i), loop.carry[0]
            new = element.scalar(ROW[s.kind], s.acc, old, v)
            index = None
            if s.indices:
                later = element.scalar("ge" if s.kind == "max" else "le", s.acc, v, old)
                if s.acc.category == D.FLOAT:
                    later = f.op("or", later, f.fcmp("uno", v, v))
                index = f.select(later, f.splat(loop.i, wide), loop.carry[1])
                loop.next[1] = index
            loop.next[0] = new
            write(loop.i, new, index)
