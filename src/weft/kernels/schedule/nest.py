"""One loop nest for every fused pointwise program.

    out_j[i] = expr_j(in_0[i], in_1[i], ..., params)        for every i of the iteration space

`plan_nest` folds the space to as few dims as the strides allow, makes (or finds) the kernel of that
structure, and returns a launch whose sizes and strides are run-time ints.  A kernel is made once a
structure: expressions, number of dims, and per operand whether its innermost stride is 0 (splat), 1
(vector) or other (gather).  Every element goes through the same vector instructions, in the tail
under a mask, so a result depends neither on its position nor on the thread.

Pointer order: out is the first output; the launch's inputs are the further outputs, then the
operands.  An output may be an operand's own memory when both lie the same way.

Long because every way through a row (whole, in tiles, past the caches) reads and writes alike.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial

from weft.core import dtype as D
from weft.core.dtype import dtype
from weft.core.scalar import Arg, Coord, Expr, Param, Scalar, postorder, spelled
from weft.kernels.layout import Layout
from weft.kernels.target.element import Element, memory, register, width
from weft.kernels.target.llvm import Function, Module, Operand, Value, const, lane_numbers, vector
from weft.kernels.target.llvm_types import lanes_of
from weft.runtime.native import Launch, Stage, host, load_made

STREAM_BYTES = 16 << 20  # outputs from this size on bypass the caches
PARALLEL_WORK = 1 << 18  # scalar operations below which threads cost more than they give
AWAKE_WORK = 1 << 15  # the same of threads that are awake
QUICK_WORK = 1 << 15  # below it a launch takes some microseconds and keeps Python's lock
CHUNK = 16384  # elements of one row that a thread takes at once
TILE = 64  # columns of a tile, where an operand lies across: its cache lines serve many rows
EMPTY = Launch(())


def one_stage(code: int, ints: Iterable[int], work: int, per_thread: int = 0) -> Launch:
    """A launch of one stage: so many scalar operations tell whether threads share it, and whether
    it keeps Python's lock.
    """
    stage = Stage(code, work >= PARALLEL_WORK)
    return Launch((stage,), tuple(ints), 0, per_thread, work < QUICK_WORK)


@dataclass(frozen=True)
class Planned:
    """A launch, and the places in its ints where the run-time scalars go (one a Param index)."""

    launch: Launch
    params: tuple[int, ...]
    dtypes: tuple[dtype, ...] = ()

    def with_scalars(self, values: tuple[float | int, ...]) -> Launch:
        """The launch with the run-time scalars' values in place."""
        if len(values) != len(self.params):
            raise ValueError(f"{len(self.params)} run-time scalars wanted, got {len(values)}")
        ints = list(self.launch.ints)
        for place, value, d in zip(self.params, values, self.dtypes, strict=True):
            ints[place] = encode(value, d)
        return replace(self.launch, ints=tuple(ints))


def encode(value: float | int, d: dtype) -> int:
    """A run-time scalar as its 64-bit word: a float's double bits, or the int."""
    if d.category == D.FLOAT:
        return struct.unpack("<q", struct.pack("<d", float(value)))[0]
    value = int(value) & ((1 << 64) - 1)
    return value - (1 << 64) if value >> 63 else value


# ---------------------------------------------------------------------------------- planning


@dataclass(frozen=True)
class Space:
    """A folded iteration space: sizes outermost first, and each operand's strides over it."""

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        return math.prod(self.sizes)


def broadcast_strides(layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The layout's strides over `shape`: 0 along dims where it repeats."""
    lead = len(shape) - len(layout.shape)
    if lead < 0:
        raise ValueError(f"an operand of shape {layout.shape} does not fit in {shape}")
    out = [0] * lead
    for size, stride, want in zip(layout.shape, layout.strides, shape[lead:], strict=True):
        if size not in (1, want):
            raise ValueError(f"an operand of shape {layout.shape} does not broadcast to {shape}")
        out.append(0 if size == 1 else stride)
    return tuple(out)


def joined(dims: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Dims (size, stride of each operand...) in order, without those of size 1, neighbours joined
    where every stride allows.
    """
    out: list[tuple[int, ...]] = []
    for size, *steps in dims:
        if size == 1:
            continue
        outer = out.pop()[0] if out and [*out[-1][1:]] == [size * step for step in steps] else 1
        out.append((outer * size, *steps))
    return out


def space(dims: Iterable[tuple[int, ...]], operands: int) -> Space:
    """`joined` dims of so many operands; at least one stays."""
    sizes, *strides = zip(*(joined(dims) or [(1,) * (1 + operands)]), strict=True)
    return Space(sizes, tuple(strides))


def fold(shape: tuple[int, ...], strides: tuple[tuple[int, ...], ...]) -> Space:
    """The space of dims ordered by the first operand's strides."""
    dims = sorted(zip(shape, *strides, strict=True), key=lambda dim: -abs(dim[1]))
    return space(dims, len(strides))


def _tiles(space: Space, outs: int) -> tuple[Space, bool]:
    """Whether to walk in tiles, and the space with the dim along which an operand is dense last
    but one.  Only where outputs are dense along the last dim and an operand is not."""
    last = len(space.sizes) - 1
    if last < 1 or space.sizes[-1] < 8 or any(s[-1] != 1 for s in space.strides[:outs]):
        return space, False
    for s in space.strides[outs:]:
        if abs(s[-1]) > 1:
            near = min(range(last), key=lambda d: abs(s[d]) or 1 << 62)
            if 0 < abs(s[near]) < abs(s[-1]) and space.sizes[near] > 1:
                order = [*(d for d in range(last) if d != near), near, last]
                sizes = tuple(space.sizes[d] for d in order)
                return Space(sizes, tuple(tuple(t[d] for d in order) for t in space.strides)), True
    return space, False


@dataclass(frozen=True)
class Structure:
    """What a kernel is made from; sizes, outer strides and scalars are not part of it."""

    exprs: tuple[Expr, ...]
    out_dtypes: tuple[dtype, ...]
    in_dtypes: tuple[dtype, ...]
    rank: int
    classes: tuple[int, ...]  # innermost strides, outputs' then operands': 0, 1, -1 (operands'), 2
    stream: bool
    params: tuple[dtype, ...]
    slots: tuple[int, ...] = ()  # the block's word of each pointer: 2, 3, ... by default
    base: int = 0  # the block's word of the first int: behind the scratch pointer by default
    tiled: bool = False  # the last two dims are walked in tiles of `lanes` rows
    across: tuple[int, ...] = ()  # operands with stride 1 along the last dim but one: transposed
    far: bool = False  # operands come from memory and are asked for

    def __repr__(self) -> str:  # exact, by which the disk knows the kernel
        rest = [getattr(self, f.name) for f in fields(self)[1:]]
        return f"{spelled(self.exprs)}{rest}"

    @property
    def lanes(self) -> int:
        """Elements a vector: one register of the widest type met, fewer when lanes are gathered."""
        every = (*self.out_dtypes, *self.in_dtypes, *(n.dtype for n in postorder(self.exprs)))
        lanes = host().lanes(max(width(d) for d in every))
        return min(lanes, 16 if 2 in self.classes else 32)


def stride_class(stride: int) -> int:
    return stride if stride in (0, 1) else 2


def used_params(exprs: tuple[Expr, ...]) -> tuple[dtype, ...]:
    """The dtype of each Param index (float64 for an index that no expression uses)."""
    found = {n.index: n.dtype for n in postorder(exprs) if isinstance(n, Param)}
    return tuple(found.get(i, D.float64) for i in range(max(found, default=-1) + 1))


def work(exprs: tuple[Expr, ...]) -> int:
    """Scalar operations an element, a library function counted as ten."""
    total = len(exprs) + 1
    for n in postorder(exprs):
        if isinstance(n, Scalar):
            total += 1 if n.name in _CHEAP else 10
    return total


def _straight(exprs: tuple[Expr, ...]) -> bool:
    """Whether a loop has one long formula a vector, of float32, without branches."""
    scalars = [n for n in postorder(exprs) if isinstance(n, Scalar)]
    hard = [n for n in scalars if n.name not in _CHEAP]
    return (
        len(hard) <= 2
        and len(scalars) <= 24
        and all(n.name in _STRAIGHT for n in hard)
        and all(n.dtype in (D.float32, D.bool) for n in scalars)
    )


_STRAIGHT = frozenset({"exp", "log", "tanh", "erf", "area", "lift"})
_HEAVY = 8  # operations an element from which a loop may wait for them, not for memory
_FAR_BYTES = 4 << 20  # of all operands
_AHEAD = 2048  # bytes at which they are asked for
_CHEAP = frozenset({
    "neg", "abs", "sign", "floor", "ceil", "trunc", "round", "add", "sub", "mul", "min", "max",
    "and", "or", "xor", "not", "eq", "ne", "lt", "le", "gt", "ge", "shl", "shr", "fma", "sqrt",
    "div", "rsqrt",
})  # fmt: skip


@lru_cache(maxsize=8192)
def plan_nest(
    exprs: tuple[Expr, ...],
    in_layouts: tuple[Layout, ...],
    out_layouts: tuple[Layout, ...],
    slots: tuple[int, ...] = (),
    base: int = 0,
) -> Planned:
    """The launch of `out_j = exprs[j](in_0, ...)` over the first output's shape.

    Operands broadcast.  Outputs must not overlap operands but at equal index.  `slots` and `base`
    place the operands when the launch is a stage of a larger one (see `Structure`).
    """
    shape = out_layouts[0].shape
    if any(o.shape != shape for o in out_layouts):
        raise ValueError(
            f"outputs of one nest have one shape, got {[o.shape for o in out_layouts]}"
        )
    params = used_params(exprs)
    if 0 in shape:
        return Planned(EMPTY, ())
    layouts = (*out_layouts, *in_layouts)
    strides = tuple(broadcast_strides(x, shape) for x in layouts)
    if any(isinstance(n, Coord) for n in postorder(exprs)):
        space = Space(shape or (1,), strides if shape else tuple((1,) for _ in layouts))
        tiled = False
    else:
        space, tiled = _tiles(fold(shape, strides), len(out_layouts))
    rank, size = len(space.sizes), space.size
    inner = space.sizes[-1]
    classes = tuple(
        -1 if s[-1] == -1 and k >= len(out_layouts) else stride_class(s[-1])
        for k, s in enumerate(space.strides)
    )
    outs = tuple(zip(out_layouts, space.strides, strict=False))
    stream = (
        not tiled
        and all(c == 1 for c in classes[: len(outs)])
        # what only writes is soon done with what the last cache holds: its reader is not
        and size * min(o.dtype.itemsize for o in out_layouts)
        >= (STREAM_BYTES if any(classes[len(outs) :]) else 2 * STREAM_BYTES)
        # rows start with a cache line, for what is left of one is written through the caches
        and all(s * o.dtype.itemsize % 64 == 0 for o, steps in outs for s in steps[:-1])
    )
    structure = Structure(
        exprs,
        tuple(D.from_np(o.dtype) for o in out_layouts),
        tuple(D.from_np(x.dtype) for x in in_layouts),
        rank,
        classes,
        stream,
        params,
        slots,
        base,
        tiled,
        tuple(k for k, c in enumerate(classes) if tiled and c == 2 and space.strides[k][-2] == 1),
        # arithmetic fills the window in which a core looks ahead, and the hardware's prefetcher
        # alone is late: 1.3 to 1.5 times as fast there, on other hosts not tried
        host().multiplies_twice
        and work(exprs) >= _HEAVY
        and size * sum(x.dtype.itemsize for x, c in zip(layouts, classes, strict=True) if c == 1)
        >= _FAR_BYTES,
    )
    address = _kernel(structure)
    if tiled:
        chunks, blocks = -(-inner // TILE), -(-space.sizes[-2] // structure.lanes)
        units = size // inner // space.sizes[-2] * blocks * chunks
    else:
        chunks, blocks = -(-inner // CHUNK), 1
        units = size // inner * chunks
    ints = [*space.sizes, chunks, blocks, units]
    for s in space.strides:
        ints.extend(s)
    first = len(ints)
    ints.extend([0] * len(params))
    amount = size * work(exprs)
    stage = Stage(address, amount >= PARALLEL_WORK, awake=amount >= AWAKE_WORK)
    launch = Launch((stage,), tuple(ints), quick=amount < QUICK_WORK)
    return Planned(launch, tuple(range(first, first + len(params))), params)


# ---------------------------------------------------------------------------------- code


@lru_cache(maxsize=8192)
def _kernel(s: Structure) -> int:
    return load_made(["nest"], source, s)["nest"]


@lru_cache(maxsize=64)  # asked again when it was compiled
def source(s: Structure) -> str:
    """The LLVM IR of a structure's kernel."""
    module = Module()
    _Nest(module, s).emit()
    return module.text()


class _Nest:
    def __init__(self, module: Module, s: Structure) -> None:
        self.s = s
        self.f = f = module.kernel("nest")
        self.n_out = len(s.exprs)
        self.dtypes = (*s.out_dtypes, *s.in_dtypes)
        self.lanes = s.lanes
        heavy = work(s.exprs)
        dense = all(c in (0, 1) for c in s.classes)
        self.woven = host().multiplies_twice and dense and heavy > 6 and _straight(s.exprs)
        self.unroll = 4 if heavy <= 6 or self.woven else 2 if heavy <= 12 else 1
        n = len(self.dtypes)
        slots = s.slots or tuple(range(2, 2 + n))
        self.pointers = [f.words("%args", slot, ["ptr"])[0] for slot in slots]
        at = s.base or 2 + n + 1
        self.sizes = f.words("%args", at, ["i64"] * s.rank)
        at += s.rank
        self.chunks, self.blocks, self.units = f.words("%args", at, ["i64"] * 3)
        at += 3
        self.strides = []
        for _ in range(n):
            self.strides.append(f.words("%args", at, ["i64"] * s.rank))
            at += s.rank
        self.params: dict[int, Value] = {}
        for i, d in enumerate(s.params):
            self.params[i] = self._param(at + i, d)
        self.used = {x.index for x in postorder(s.exprs) if isinstance(x, Arg)}

    def _param(self, at: int, d: dtype) -> Value:
        f = self.f
        e = Element(f, 1)
        if d.category == D.FLOAT:
            v = f.words("%args", at, ["double"])[0]
            v = e.cast(v, D.float64, d)
        else:
            v = e.cast(f.words("%args", at, ["i64"])[0], D.int64, d)
        return f.splat(v, vector(self.lanes, register(d)))

    def emit(self) -> None:
        f, s = self.f, self.s
        if s.rank == 1:
            lo, hi = f.split(self.sizes[0], self.lanes * self.unroll)
            self._row(self.pointers, [], lo, hi)
        else:
            lo, hi = f.split(self.units)
            with f.loop(lo, hi) as units:
                outer, chunk = f.div(units.i, self.chunks), f.rem(units.i, self.chunks)
                width = TILE if s.tiled else CHUNK
                start = f.mul(chunk, width)
                stop = f.min(f.add(start, width), self.sizes[-1])
                if s.tiled:
                    outer, block = f.div(outer, self.blocks), f.rem(outer, self.blocks)
                    coords = f.coordinates(outer, self.sizes[:-2])
                    first = f.mul(block, self.lanes)
                    last = f.min(f.add(first, self.lanes), self.sizes[-2])
                    self._tile(coords, first, last, start, stop)
                else:
                    self._line(f.coordinates(outer, self.sizes[:-1]), start, stop)
        if s.stream and host().arch in ("x86_64", "amd64"):
            f.intrinsic("x86.sse.sfence", "void")
        f.ret()

    def _tile(
        self, coords: list[Operand], first: Operand, last: Operand, start: Operand, stop: Operand
    ) -> None:
        """Rows first to last of columns start to stop; operands that lie across are turned first
        when the tile is full."""
        f = self.f
        if not self.s.across:
            with f.loop(first, last) as rows:
                self._line([*coords, rows.i], start, stop)
            return
        full_rows = f.icmp("eq", f.sub(last, first), self.lanes)
        full = f.op("and", full_rows, f.icmp("eq", f.sub(stop, start), TILE))
        with f.if_else(full) as sides:
            rooms = {k: self._turned(k, [*coords, first], start) for k in self.s.across}
            with f.loop(0, self.lanes) as rows:
                here = [*coords, f.add(first, rows.i)]
                at = [self._at(k, here) for k in range(len(self.dtypes))]
                for k, room in rooms.items():
                    shift = f.sub(f.mul(rows.i, TILE), start)
                    at[k] = f.gep(room, shift, memory(self.dtypes[k]))
                row = _Row(self, at, here, stop, self.s.across)
                row.loop(start, stop, 1)
            sides.otherwise()
            with f.loop(first, last) as rows:
                self._line([*coords, rows.i], start, stop)

    def _turned(self, k: int, coords: list[Operand], start: Operand) -> Value:
        """Operand k's tile, rows and columns exchanged, in a stack buffer of TILE columns."""
        f, n, cell = self.f, self.lanes, memory(self.dtypes[k])
        type, stride = vector(n, cell), self.strides[k][-1]
        room = f.alloca(cell, n * TILE)
        corner = f.gep(self._at(k, coords), f.mul(start, stride), cell)
        with f.loop(0, TILE, n) as columns:
            v = []
            for j in range(n):
                at = f.mul(f.add(columns.i, j), stride)
                v.append(f.load(type, f.gep(corner, at, cell)))
            for j, row in enumerate(f.transpose(v)):
                f.store(row, f.gep(room, f.add(columns.i, j * TILE), cell))
        return room

    def _line(self, coords: list[Operand], lo: Operand, hi: Operand) -> None:
        self._row([self._at(k, coords) for k in range(len(self.dtypes))], coords, lo, hi)

    def _at(self, k: int, coords: list[Operand]) -> Value:
        """Operand k's address at the outer coordinates."""
        f = self.f
        offset: Operand = 0
        for c, stride in zip(coords, self.strides[k][:-1], strict=True):
            offset = f.add(offset, f.mul(c, stride))
        return f.gep(self.pointers[k], offset, memory(self.dtypes[k]))

    def _row(self, rows: list[Value], coords: list[Operand], lo: Operand, hi: Operand) -> None:
        f, lanes = self.f, self.lanes
        row = _Row(self, rows, coords, hi)
        step = lanes * self.unroll
        span = f.sub(hi, lo)
        whole = f.add(lo, f.mul(f.div(span, step), step))
        if self.s.stream:
            low: Operand = 0
            for k in range(self.n_out):
                vec = lanes * self.dtypes[k].itemsize
                address = f.cast("ptrtoint", rows[k], "i64")
                low = f.op("or", low, f.op("and", address, vec - 1))
                # lines of an operand's own memory were just read: past the caches they go slower
                for j in range(self.n_out, len(rows)):
                    if self.s.classes[j] == 1:
                        same = f.icmp("eq", rows[k], rows[j])
                        low = f.op("or", low, f.cast("zext", same, "i64"))
            with f.if_else(f.icmp("eq", low, 0)) as sides:
                row.loop(lo, whole, self.unroll, stream=True)
                sides.otherwise()
                row.loop(lo, whole, self.unroll)
        else:
            row.loop(lo, whole, self.unroll)
        if self.unroll > 1:
            vectors = f.add(lo, f.mul(f.div(span, lanes), lanes))
            row.loop(whole, vectors, 1)
            whole = vectors
        with f.iff(f.icmp("slt", whole, hi)):
            row.point(whole, tail=True)


class _Row:
    """The innermost loop: `rows` are the operands' addresses at its start."""

    def __init__(
        self, nest: _Nest, rows: list[Value], coords: list[Operand], stop: Operand,
        dense: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        self.dense = dense  # operands that lie densely here although their stride is another
        self.nest, self.f, self.rows, self.coords, self.stop = nest, nest.f, rows, coords, stop
        self.splats: dict[int, Value] = {}
        element = Element(nest.f, 1)
        for k in range(nest.n_out, len(rows)):
            if nest.s.classes[k] == 0 and k - nest.n_out in nest.used:
                d = nest.dtypes[k]
                one = element.load(rows[k], d)
                self.splats[k] = nest.f.splat(one, vector(nest.lanes, register(d)))

    def loop(self, lo: Operand, hi: Operand, unroll: int, *, stream: bool = False) -> None:
        with self.f.loop(lo, hi, self.nest.lanes * unroll) as loop:
            points = [self.f.add(loop.i, u * self.nest.lanes) for u in range(unroll)]
            for i in points if self.nest.s.far else ():
                self.ask(i)
            bodies = [partial(self.values, i, None) for i in points]
            found = self.f.woven(bodies) if self.nest.woven else [body() for body in bodies]
            for i, values in zip(points, found, strict=True):
                self.write(i, values, None, stream=stream)

    def ask(self, i: Operand) -> None:
        """For what comes later of the operands that lie densely."""
        nest, f = self.nest, self.f
        for k in range(nest.n_out, len(self.rows)):
            if nest.s.classes[k] == 1 and k - nest.n_out in nest.used:
                d = nest.dtypes[k]
                f.touch(f.gep(self.rows[k], f.add(i, _AHEAD // d.itemsize), memory(d)))

    def point(self, i: Operand, *, tail: bool) -> None:
        mask = self.f.lane_mask(self.f.sub(self.stop, i), self.nest.lanes) if tail else None
        self.write(i, self.values(i, mask), mask)

    def values(self, i: Operand, mask: Value | None) -> list[Value]:
        nest = self.nest
        element = Element(self.f, nest.lanes, lambda bad: self._fail(bad, mask))

        def leaf(n: Expr) -> Value:
            if isinstance(n, Arg):
                return self.read(n.index + nest.n_out, i, mask)
            if isinstance(n, Param):
                return nest.params[n.index]
            assert isinstance(n, Coord)
            type = vector(nest.lanes, "i64")
            if n.dim == nest.s.rank - 1:
                start = self.f.splat(self.f.typed(i, "i64"), type)
                return self.f.op("add", start, lane_numbers(type))
            return self.f.splat(self.f.typed(self.coords[n.dim], "i64"), type)

        return element.expressions(nest.s.exprs, leaf)

    def read(self, k: int, i: Operand, mask: Value | None) -> Value:
        nest, f = self.nest, self.f
        if k in self.splats:
            return self.splats[k]
        d = nest.dtypes[k]
        element = Element(f, nest.lanes)
        type = element.memory_type(d)
        if nest.s.classes[k] == -1 and mask is None:
            start = f.sub(1 - nest.lanes, f.typed(i, "i64"))
            v = f.load(type, f.gep(self.rows[k], start, memory(d)))
            v = f.shuffle(v, v, range(nest.lanes)[::-1])
        elif nest.s.classes[k] not in (0, 1) and k not in self.dense:
            last = f.sub(self.stop, 1) if mask is not None else None
            v = gather(f, type, self.rows[k], i, nest.strides[k][-1], last)
        else:
            pointer = f.gep(self.rows[k], i, memory(d))
            v = f.load(type, pointer) if mask is None else load_part(
                f, type, pointer, mask, f.sub(self.stop, i))  # fmt: skip
        return element.from_memory(v, d)

    def write(self, i: Operand, values: list[Value], mask: Value | None, *,
              stream: bool = False) -> None:  # fmt: skip
        nest, f = self.nest, self.f
        element = Element(f, nest.lanes)
        for k, v in enumerate(values):
            d = nest.dtypes[k]
            out = element.to_memory(v, d)
            count: Operand = nest.lanes if mask is None else f.sub(self.stop, i)
            if nest.s.classes[k] != 1:
                scatter(f, out, self.rows[k], i, nest.strides[k][-1], count)
                continue
            pointer = f.gep(self.rows[k], i, memory(d))
            if mask is not None:
                store_part(f, out, pointer, mask, count)
            else:
                align = nest.lanes * d.itemsize if stream else None
                f.store(out, pointer, align, stream=stream)

    def _fail(self, bad: Value, mask: Value | None) -> None:
        f = self.f
        bad = bad if mask is None else f.op("and", bad, mask)
        with f.iff(Element(f, self.nest.lanes).math.any(bad)):
            f.store(const("i64", 1), Value("%args", "ptr"))


# ---------------------------------------------------------------------------------- memory


def _maskable(type: str) -> bool:
    """Whether the host loads and stores such a vector under a mask in one instruction."""
    if host().has_avx512:
        return True
    return host().vector_bits == 256 and type.split()[-1][:-1] in ("float", "double", "i32", "i64")


def load_part(f: Function, type: str, pointer: Value, mask: Value, count: Operand) -> Value:
    """The first `count` lanes from memory (all, if it is more), the rest zero."""
    if _maskable(type):
        return f.masked_load(type, pointer, mask)
    element = type.split()[-1][:-1]
    room = f.alloca(type)
    f.store(Value("zeroinitializer", type), room)
    with f.loop(0, f.min(count, lanes_of(type))) as loop:
        f.store(f.load(element, f.gep(pointer, loop.i, element)), f.gep(room, loop.i, element))
    return f.load(type, room)


def store_part(f: Function, v: Value, pointer: Value, mask: Value, count: Operand) -> None:
    """The first `count` lanes to memory."""
    if _maskable(v.type):
        f.masked_store(v, pointer, mask)
    else:
        scatter(f, v, pointer, 0, 1, count)


def gather(f: Function, type: str, row: Value, i: Operand, stride: Operand,
           last: Operand | None) -> Value:  # fmt: skip
    """Lanes at row[(i + lane) * stride]; indices past `last` read `last` again."""
    element = type.split()[-1][:-1]
    v = Value("poison", type)
    for lane in range(lanes_of(type)):
        at = f.add(i, lane)
        at = at if last is None else f.min(at, last)
        v = f.insert(v, f.load(element, f.gep(row, f.mul(at, stride), element)), lane)
    return v


def scatter(f: Function, v: Value, row: Value, i: Operand, stride: Operand,
            count: Operand) -> None:  # fmt: skip
    """The first `count` lanes (all, if it is more) to row[(i + lane) * stride], one by one."""
    element = v.type.split()[-1][:-1]
    room = f.alloca(v.type)
    f.store(v, room)
    with f.loop(0, f.min(count, lanes_of(v.type))) as loop:
        at = f.mul(f.add(i, loop.i), stride)
        f.store(f.load(element, f.gep(room, loop.i, element)), f.gep(row, at, element))
