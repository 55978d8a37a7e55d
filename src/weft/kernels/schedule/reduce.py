"""Reductions in one fixed order, with their pointwise producers fused.

    y[k] = post( op over r of pre(in_0[k, r], in_1[k, r], ...) )

The order (core law: eager, compiled, one or many threads give the same bits).  Let the reduced dims
be taken in the logical order of the shape; the last maximal run of adjacent reduced dims is the
inner group, of R elements.  There are 16 virtual lanes, started at the identity; element r of the
inner group goes to lane r mod 16, outer reduced indices slowest; at the end the lanes are combined
by halving: l with l + 8, then + 4, + 2, + 1.  When R > 8192, or R >= 64 and there are outer reduced
indices, the group is cut into chunks of 8192 (or less), each reduced so from the identity, and the
chunks' results are combined one after the other (outer reduced index slowest): threads share the
chunks of a sum over images, reading whole runs of memory.  Several expressions are reduced in one
pass, each as it would be alone.  float16 and bfloat16 accumulate in float32; bool any/all as bytes.

NaN: sum, prod, max, min give NaN; argmax and argmin give the first NaN's index.  Ties: the first.

Three loops realise it.  `rows`: the inner group is one run of memory (or one stride), 16 lanes are
one vector.  `columns`: a vector holds neighbouring outputs and the 16 lanes are 16 vectors in
memory; with one-element vectors it serves every other layout.  Where there are many such vectors
and rows, `streams`: long runs of four rows at once, all rows of a lane before those of the next.
A few rows are added in registers.
Long because planning, both loops and the chunks' join read one Structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

from weft.core import dtype as D
from weft.core.dtype import dtype
from weft.core.scalar import Arg, Expr, Param, cast, postorder, spelled
from weft.kernels.layout import Layout
from weft.kernels.schedule.combine import Acc, Combine, accumulator
from weft.kernels.schedule.nest import (
    AWAKE_WORK,
    EMPTY,
    PARALLEL_WORK,
    QUICK_WORK,
    Planned,
    broadcast_strides,
    fold,
    gather,
    load_part,
    scatter,
    space,
    store_part,
    stride_class,
    used_params,
    work,
)
from weft.kernels.target.element import Element, memory, width
from weft.kernels.target.llvm import (
    Module,
    Operand,
    Reader,
    Value,
    const,
    lane_numbers,
    vector,
)
from weft.kernels.target.llvm_types import lanes_of
from weft.runtime.native import Launch, Stage, host, load_made

LANES = 16
CHUNK = 8192
OWN_CHUNK = 64  # an inner group of so many elements is a chunk for each outer index
BLOCK = 16  # most vectors of neighbouring outputs that columns accumulate together
LONGEST = 1024  # vectors of a run at most: the sums of _HELD lanes stay in the second cache
_TOGETHER = 4  # rows at once: streams that the hardware's prefetcher follows
_NARROW = 4  # vectors of outputs below which it follows rows as they lie
_FAR_BYTES = 1 << 23  # operands from which on lines come from memory
_AHEAD = 1 << 15  # bytes that these are asked for before they are read
_WORTH = 4096  # vectors from which on so many rows have a kernel of their own
_RUN = 256  # vectors at most that a thread takes of a few rows
_HELD = 5  # lanes whose sums wait for one another: a tree's height, one more


def in_chunks(count: int, total: int) -> bool:
    """Whether inner groups of `count` elements, `total` of them, are reduced in chunks."""
    return count > CHUNK or (total > 1 and count >= OWN_CHUNK)


# ---------------------------------------------------------------------------------- planning


@dataclass(frozen=True)
class Structure:
    """What a reduction kernel is made from."""

    kind: str
    pres: tuple[Expr, ...]  # of the accumulator's dtype; results of several lie one after another
    post: Expr  # of Arg(0, accumulator's or index's dtype), of the output's dtype
    acc: dtype
    in_dtypes: tuple[dtype, ...]
    out_dtype: dtype
    ranks: tuple[int, int, int]  # kept, outer reduced, inner group
    classes: tuple[int, ...]  # operands' stride along the vectorised dim
    columns: bool
    vectors: bool  # columns only: whether a vector of outputs is taken
    chunked: bool
    # columns only: how rows are taken: "streams", all of a lane before the next; "four" of a lane,
    # "far" of which lines are asked for ahead; "one" by one; or so many in registers
    rows: str | int
    whole: bool  # rows only, in chunks: all outputs' before those of the next outer index
    params: tuple[dtype, ...]

    def __repr__(self) -> str:  # exact, by which the disk knows the kernels
        rest = [getattr(self, f.name) for f in fields(self) if f.name not in ("pres", "post")]
        return f"{spelled((*self.pres, self.post))}{rest}"

    @property
    def lanes(self) -> int:
        """Elements a vector: 16 of a row, a register's worth of neighbouring outputs, or one."""
        if not self.columns:
            return LANES
        every = (*self.in_dtypes, *(x.dtype for x in postorder(self.pres)))
        return min(host().lanes(max(width(d) for d in every)), 32) if self.vectors else 1


@lru_cache(maxsize=8192)
def plan_reduction(
    kind: str,
    pre: Expr,
    dims: tuple[int, ...] | None,
    keepdim: bool,
    in_layouts: tuple[Layout, ...],
    out_layout: Layout,
    shape: tuple[int, ...],
    post: Expr | None = None,
    others: tuple[Expr, ...] = (),
) -> Planned:
    """The launch of `out = post(kind of pre over dims)`; operands broadcast to `shape`.

    With `others`, out[0] is that and out[1 + j] the same of others[j].  `dims` None reduces all.
    `post` reads the result as Arg(0) of the accumulator's dtype (int64 for argmax and argmin); by
    default it is cast to the output's dtype.
    """
    acc = accumulator(kind, pre.dtype)
    out_dtype = D.from_np(out_layout.dtype)
    result = D.int64 if kind in ("argmax", "argmin") else acc
    pres = tuple(
        cast(cast(e, D.bool) if kind in ("any", "all") else e, acc) for e in (pre, *others)
    )
    plane = 0
    if others:
        plane = out_layout.strides[0]
        out_layout = Layout(out_layout.shape[1:], out_layout.strides[1:], out_layout.dtype)
    post = cast(Arg(0, result) if post is None else post, out_dtype)
    strides = tuple(broadcast_strides(x, shape) for x in in_layouts)
    if not shape:
        shape, strides, dims = (1,), tuple((1,) for _ in strides), (0,)
        out_layout = Layout((1,), (1,), out_layout.dtype)
        keepdim = True
    rank = len(shape)
    reduced = sorted(range(rank) if dims is None else {d % rank for d in dims})
    if not reduced:
        raise ValueError("a reduction needs at least one dim")
    kept = [d for d in range(rank) if d not in reduced]
    out_strides = [out_layout.strides[d] for d in kept] if keepdim else list(out_layout.strides)
    if any(shape[d] == 0 for d in kept):
        return Planned(EMPTY, ())
    group = [reduced[-1]]
    while group[0] - 1 in reduced:
        group.insert(0, group[0] - 1)
    outer = [d for d in reduced if d < group[0]]

    def pick(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(values[d] for d in kept)

    kept_space = fold(pick(shape), (tuple(out_strides), *map(pick, strides)))
    each = [*zip(shape, *strides, strict=True)]
    rest, run = (space([each[d] for d in ds], len(strides)) for ds in (outer, group))
    count, total, outputs = run.size, rest.size, kept_space.size
    used = {n.index for n in postorder(pres) if isinstance(n, Arg)}
    columns, vectors, classes = _choose(kept_space.strides, run.strides, used)
    chunked = in_chunks(count, total)
    params = used_params((*pres, post))
    outside = [rest.strides[k][0] > abs(kept_space.strides[1 + k][0]) for k in used]
    whole = chunked and not columns and total > 1 and any(outside)
    structure = Structure(
        kind, pres, post, acc, tuple(D.from_np(x.dtype) for x in in_layouts), out_dtype,
        (len(kept_space.sizes), len(rest.sizes), len(run.sizes)), classes, columns, vectors,
        chunked, "one", whole, params,
    )  # fmt: skip
    across = -(-kept_space.sizes[-1] // structure.lanes) if vectors else 0
    if across:
        structure = replace(structure, rows=_way(across, count, total, chunked, used, in_layouts))
    names = ["reduce", "finish"] if chunked else ["reduce"]
    address = _kernels(structure)
    chunks = -(-count // CHUNK)
    block = BLOCK
    if vectors:  # enough blocks for some threads, else as wide as memory likes
        lines = outputs // kept_space.sizes[-1] * (total * chunks if chunked else 1)
        most = _RUN if structure.rows.__class__ is int else BLOCK
        block = min(most, max(2, across * lines // 8))
    states = max(len(pres), 2)
    scratch = outputs * total * chunks * 8 * states + 128 if chunked else 0
    scratch, held = -(-scratch // 64) * 64, 0
    if structure.rows == "streams":
        block = min(LONGEST, across)
        held = _HELD * block * structure.lanes * 8
    ints = [*kept_space.sizes, *rest.sizes, *run.sizes, outputs, total, count, chunks, block, plane]
    ints += [scratch, held]
    ints.extend(kept_space.strides[0])
    for k in range(len(in_layouts)):
        ints.extend((*kept_space.strides[1 + k], *rest.strides[k], *run.strides[k]))
    first = len(ints)
    ints.extend([0] * len(params))
    amount = outputs * total * count * work(pres)
    shared = amount >= PARALLEL_WORK, amount >= AWAKE_WORK
    stages = tuple(Stage(address[n], *shared) for n in names)
    launch = Launch(stages, tuple(ints), scratch, held * states, quick=amount < QUICK_WORK)
    return Planned(launch, tuple(range(first, first + len(params))), params)


def _way(
    across: int, count: int, total: int, chunked: bool, used: set[int], ins: tuple[Layout, ...]
) -> str | int:
    """How rows of so many vectors are taken: see Structure.rows."""
    if across > BLOCK and (chunked or total == 1):
        if total == 1 and count <= 2 * LANES and across * count >= _WORTH:
            return count
        if count >= 2 * LANES:
            return "streams"
    far = max(ins[k].size * ins[k].dtype.itemsize for k in used) >= _FAR_BYTES
    return ("one" if across < _NARROW else "far") if far else "four"


def _choose(
    kept: tuple[tuple[int, ...], ...], group: tuple[tuple[int, ...], ...], used: set[int]
) -> tuple[bool, bool, tuple[int, ...]]:
    """(columns, vectors of outputs, stride classes along the vector dim)."""
    along = tuple(stride_class(s[-1]) for s in group)
    across = tuple(stride_class(s[-1]) for s in kept[1:])
    one = all(len(s) == 1 for s in group)
    if one and all(along[k] in (0, 1) for k in used):
        return False, False, along
    if all(across[k] in (0, 1) for k in used) and any(across[k] == 1 for k in used):
        return True, True, across
    if one:
        return False, False, along
    return True, False, across


# ---------------------------------------------------------------------------------- code


@lru_cache(maxsize=8192)
def _kernels(s: Structure) -> dict[str, int]:
    return load_made(["reduce", "finish"] if s.chunked else ["reduce"], source, s)


@lru_cache(maxsize=64)  # asked again when it was compiled
def source(s: Structure) -> str:
    """The LLVM IR of a structure's kernels."""
    module = Module()
    _Reduce(module, s, "reduce").emit()
    if s.chunked:
        _Reduce(module, s, "finish").finish()
    return module.text()


class _Reduce:
    def __init__(self, module: Module, s: Structure, name: str) -> None:
        self.s = s
        self.f = f = module.kernel(name)
        self.op = Combine(f, s.kind, s.acc, len(s.pres))
        n = len(s.in_dtypes)
        self.out = f.words("%args", 2, ["ptr"])[0]
        self.ins = f.words("%args", 3, ["ptr"] * n)
        self.scratch = f.words("%args", 3 + n, ["ptr"])[0]
        take = Reader(f, "%args", 4 + n).take
        kept, outer, inner = s.ranks
        self.kept, self.outer, self.inner = take(kept), take(outer), take(inner)
        self.outputs, self.total, self.count, self.chunks, self.block, self.plane = take(6)
        self.shared, self.held = take(2)
        self.out_strides = take(kept)
        self.strides = [(take(kept), take(outer), take(inner)) for _ in range(n)]
        self.lanes = s.lanes
        one = Element(f, 1)
        self.params = {
            i: one.cast(take(1, "double")[0], D.float64, d)
            if d.category == D.FLOAT
            else one.cast(take(1)[0], D.int64, d)
            for i, d in enumerate(s.params)
        }

    # -- addresses

    def dot(self, coords: list[Operand], strides: list[Value]) -> Operand:
        total: Operand = 0
        for c, s in zip(coords, strides, strict=True):
            total = self.f.add(total, self.f.mul(c, s))
        return total

    def shifted(self, rows: list[Value], coords: list[Operand], part: int) -> list[Value]:
        """The operands' addresses moved by coordinates of part 0 kept, 1 outer, 2 inner."""
        return [
            self.f.gep(p, self.dot(coords, self.strides[k][part]), memory(self.s.in_dtypes[k]))
            for k, p in enumerate(rows)
        ]

    # -- values

    def values(
        self, rows: list[Value], i: Operand, mask: Value | None, stop: Operand, stride_of: int
    ) -> list[Value]:
        """Each pre at `lanes` places from i along the vector dim (the last of part `stride_of`)."""
        f, s = self.f, self.s
        element = Element(f, self.lanes, lambda bad: self._fail(bad, mask))

        def leaf(n: Expr) -> Value:
            if isinstance(n, Param):
                return f.splat(self.params[n.index], element.type(n.dtype))
            assert isinstance(n, Arg)
            d, k = s.in_dtypes[n.index], n.index
            type, row = element.memory_type(d), rows[k]
            if self.lanes == 1 or s.classes[k] == 0:
                return f.splat(Element(f, 1).load(row, d), element.type(d))
            if s.classes[k] == 1:
                pointer = f.gep(row, i, memory(d))
                v = f.load(type, pointer) if mask is None else load_part(
                    f, type, pointer, mask, f.sub(stop, i))  # fmt: skip
            else:
                last = f.sub(stop, 1) if mask is not None else None
                v = gather(f, type, row, i, self.strides[k][stride_of][-1], last)
            return element.from_memory(v, d)

        return element.expressions(s.pres, leaf)

    def _fail(self, bad: Value, mask: Value | None) -> None:
        f = self.f
        bad = bad if mask is None else f.op("and", bad, mask)
        with f.iff(Element(f, self.lanes).math.any(bad)):
            f.store(const("i64", 1), Value("%args", "ptr"))

    def write(self, acc: Acc, pointer: Value, mask: Value | None, count: Operand,
              stride: Operand = 1) -> None:  # fmt: skip
        """post(result) to the output, each to its own."""
        f, s = self.f, self.s
        for j, result in enumerate(self.op.results(acc)):
            lanes = lanes_of(result.type)
            element = Element(f, lanes)

            def leaf(n: Expr, result: Value = result, element: Element = element) -> Value:
                if isinstance(n, Param):
                    return f.splat(self.params[n.index], element.type(n.dtype))
                return result

            to = f.gep(pointer, f.mul(self.plane, j), memory(s.out_dtype)) if j else pointer
            v = element.to_memory(element.expressions((s.post,), leaf)[0], s.out_dtype)
            if lanes == 1 or (stride == 1 and mask is None):
                f.store(v, to)
            elif stride == 1:
                store_part(f, v, to, mask, count)  # type: ignore[arg-type]
            else:
                scatter(f, v, to, 0, stride, count)

    # -- the two loops

    def emit(self) -> None:
        if self.s.columns:
            self._columns()
        else:
            self._rows()
        self.f.ret()

    def _units(self) -> Operand:
        """What threads share: outputs, or chunks of them."""
        f = self.f
        return (
            f.mul(f.mul(self.outputs, self.total), self.chunks) if self.s.chunked else self.outputs
        )

    def _rows(self) -> None:
        f, s = self.f, self.s
        lo, hi = f.split(self._units())
        # a unit's output, outer index and chunk: counted up, for a division takes as long as a row
        state: list[tuple[str, Operand]] = []
        if s.chunked:
            per = f.mul(self.outputs if s.whole else self.total, self.chunks)
            part = f.rem(lo, per)
            begin = f.div(lo, per), f.div(part, self.chunks), f.rem(part, self.chunks)
            state = [("i64", v) for v in begin]
        with f.loop(lo, hi, 1, state) as units:
            start, stop = 0, self.count
            index: Operand = units.i
            o: Operand = 0
            part: Operand = 0
            if s.chunked:
                slow, fast, c = units.carry
                index, o = (fast, slow) if s.whole else (slow, fast)
                part = f.add(f.mul(o, self.chunks), c)
                start = f.mul(c, CHUNK)
                stop = f.min(f.add(start, CHUNK), self.count)
                above = self._counted(c, self.chunks)
                size = self.outputs if s.whole else self.total
                further = self._counted(fast, size, above[1])
                units.next = [f.add(slow, further[1]), further[0], above[0]]
            coords = f.coordinates(index, self.kept)
            rows = self.shifted(self.ins, coords, 0)
            first = self.op.start(LANES)
            if s.chunked:
                acc = self._run(
                    self.shifted(rows, f.coordinates(o, self.outer), 1), start, stop, first
                )
            else:
                carry = list(zip(self.op.types(LANES), first, strict=True))
                with f.loop(0, self.total, 1, carry) as outer:
                    here = self.shifted(rows, f.coordinates(outer.i, self.outer), 1)
                    outer.next = list(self._run(here, start, stop, list(outer.carry)))
                acc = outer.carry
            acc = self._halved(acc)
            if s.chunked:
                for a, (_, p) in zip(acc, self._kept(part, index), strict=True):
                    f.store(a, p)
            else:
                offset = self.dot(coords, self.out_strides)
                self.write(acc, f.gep(self.out, offset, memory(s.out_dtype)), None, 1)

    def _counted(
        self, i: Operand, size: Operand, step: Operand = 1
    ) -> tuple[Operand, Operand]:  # fmt: skip
        """(i + step, or 0 where that is the size; 1 there and 0 elsewhere)"""
        f = self.f
        following = f.add(i, step)
        over = f.icmp("eq", following, size)
        return f.select(over, f.typed(0, "i64"), following), f.cast("zext", over, "i64")

    def _run(self, rows: list[Value], start: Operand, stop: Operand, acc: Acc) -> Acc:
        """All of one inner group (or chunk) into the 16 lanes."""
        f, op = self.f, self.op
        whole = f.add(start, f.mul(f.div(f.sub(stop, start), LANES), LANES))
        with f.loop(start, whole, LANES, list(zip(op.types(LANES), acc, strict=True))) as loop:
            v = self.values(rows, loop.i, None, stop, 2)
            loop.next = list(op.step(list(loop.carry), self._item(v, loop.i), LANES))
        acc = loop.carry
        with f.if_else(f.icmp("slt", whole, stop)) as sides:
            mask = f.lane_mask(f.sub(stop, whole), LANES)
            v = self.values(rows, whole, mask, stop, 2)
            new = op.step(acc, self._item(v, whole), LANES)
            new = [f.select(mask, a, b) for a, b in zip(new, acc, strict=True)]
            sides.otherwise()
        return [sides.merge(t, a, b) for t, a, b in zip(op.types(LANES), new, acc, strict=True)]

    def _item(self, v: list[Value], i: Operand) -> Acc:
        """An element as an accumulator: with its index for argmax and argmin."""
        if not self.op.arg:
            return v
        f = self.f
        type = vector(LANES, "i64")
        return [*v, f.op("add", f.splat(f.typed(i, "i64"), type), lane_numbers(type))]

    def _halved(self, acc: Acc) -> Acc:
        """16 lanes to one: l with l + 8, + 4, + 2, + 1."""
        f, half = self.f, LANES // 2
        while half > 1:
            low = [f.shuffle(a, a, range(half)) for a in acc]
            high = [f.shuffle(a, a, range(half, 2 * half)) for a in acc]
            acc = self.op.step(low, high, half)
            half //= 2
        return self.op.step([f.extract(a, 0) for a in acc], [f.extract(a, 1) for a in acc], 1)

    def _kept(self, part: Operand, index: Operand) -> list[tuple[str, Value]]:
        """Type and place in scratch of a chunk's result, outputs side by side."""
        f = self.f
        per = f.mul(self.total, self.chunks)
        at = f.add(f.mul(part, self.outputs), index)
        plane = f.mul(f.mul(self.outputs, per), 8)
        return [
            (t, f.gep(f.gep(self.scratch, f.mul(plane, k)), at, t))
            for k, t in enumerate(self.op.types(1))
        ]

    def finish(self) -> None:
        """The second stage of a chunked reduction: each output's chunks in order."""
        f, s = self.f, self.s
        lanes = s.lanes
        types = self.op.types(lanes)
        width = self.kept[-1] if s.ranks[0] else 1
        across = f.div(f.add(width, lanes - 1), lanes)
        lo, hi = f.split(f.mul(f.div(self.outputs, width), across))
        with f.loop(lo, hi) as units:
            line, first = f.div(units.i, across), f.mul(f.rem(units.i, across), lanes)
            index = f.add(f.mul(line, width), first)
            carry = list(zip(types, self.op.start(lanes), strict=True))
            with f.loop(0, f.mul(self.total, self.chunks), 1, carry) as parts:
                cells = self._kept(parts.i, index)
                item = [f.load(t, p) for t, (_, p) in zip(types, cells, strict=True)]
                parts.next = list(self.op.step(list(parts.carry), item, lanes))
            coords = [*f.coordinates(line, self.kept[:-1]), first] if s.ranks[0] else []
            pointer = f.gep(self.out, self.dot(coords, self.out_strides), memory(s.out_dtype))
            few = f.min(f.sub(width, first), lanes)
            stride = self.out_strides[-1] if s.ranks[0] else 1
            if lanes == 1:
                self.write(list(parts.carry), pointer, None, 1)
            else:
                self.write(list(parts.carry), pointer, f.lane_mask(few, lanes), few, stride)
        f.ret()

    def _columns(self) -> None:
        """Threads take blocks of neighbouring outputs (times chunks)."""
        f, s, lanes = self.f, self.s, self.lanes
        parts = f.mul(self.total, self.chunks) if s.chunked else 1
        types = self.op.types(lanes)
        if s.rows == "streams":
            thread = f.mul(f.thread(), max(len(s.pres), 2))
            at = [f.mul(self.held, f.add(thread, k)) for k in range(len(types))]
            room = [f.gep(self.scratch, f.add(self.shared, k)) for k in at]
        else:
            room = [f.alloca(t, LANES * BLOCK) for t in types]
        if not s.vectors:
            lo, hi = f.split(f.mul(self.outputs, parts))
            with f.loop(lo, hi) as units:
                line, part = f.div(units.i, parts), f.rem(units.i, parts)
                self._column(
                    _Place(self, f.coordinates(line, self.kept), line, part, parts, room), 1
                )
            return
        width, block = self.kept[-1], self.block
        if s.rows == "streams":  # a run for each thread, as long as may be
            across = f.div(f.add(width, lanes - 1), lanes)
            lines = f.mul(f.div(self.outputs, width), parts)
            nth = f.cast("sext", f.arg("nth"), "i64")
            share = f.div(f.add(f.mul(across, lines), f.sub(nth, 1)), nth)
            longest = f.min(f.max(share, 2), block)
            runs = f.div(f.add(across, f.sub(longest, 1)), longest)
            block = f.div(f.add(across, f.sub(runs, 1)), runs)
        step = f.mul(block, lanes)
        blocks = f.div(f.add(width, f.sub(step, 1)), step)
        lo, hi = f.split(f.mul(f.mul(f.div(self.outputs, width), parts), blocks))
        with f.loop(lo, hi) as units:
            line, block = f.div(units.i, blocks), f.rem(units.i, blocks)
            line, part = f.div(line, parts), f.rem(line, parts)
            coords = f.coordinates(line, self.kept[:-1]) if s.ranks[0] > 1 else []
            first = f.mul(block, step)
            left = f.min(f.sub(width, first), step)
            vectors = f.div(left, lanes)
            index = f.add(f.mul(line, width), first)
            place = _Place(self, [*coords, first], index, part, parts, room)
            with f.iff(f.icmp("sgt", vectors, 0)):
                self._column(place, vectors)
            done = f.mul(vectors, lanes)
            with f.iff(f.icmp("slt", done, left)):
                few = f.sub(left, done)
                rest = [*coords, f.add(first, done)]
                place = _Place(self, rest, f.add(index, done), part, parts, room)
                self._column(place, 1, f.lane_mask(few, lanes), few)

    def _ask(self, rows: list[list[Value]], at: Operand) -> None:
        """For what lies behind that place of each row, to the second cache."""
        for row in rows:
            for k, c in enumerate(self.s.classes):
                if c:
                    place = self.f.gep(row[k], at, memory(self.s.in_dtypes[k]))
                    self.f.touch(self.f.gep(place, _AHEAD, "i8"), level=2)

    def _column(
        self, place: _Place, vectors: Operand, mask: Value | None = None, few: Operand = 0
    ) -> None:
        """`vectors` vectors of neighbouring outputs, whose accumulators are kept in memory."""
        f, s, lanes, op = self.f, self.s, self.lanes, self.op
        types = op.types(lanes)
        count = lanes if mask is None else few
        start, stop = 0, self.count
        if s.chunked:
            start = f.mul(f.rem(place.part, self.chunks), CHUNK)
            stop = f.min(f.add(start, CHUNK), self.count)
        used = f.min(f.sub(stop, start), LANES)  # further lanes stay at the identity: left out
        used = f.max(used, 1)

        def cells(lane: Operand, u: Operand) -> list[Value]:
            at = f.add(f.mul(lane, vectors), u)  # side by side: sets of the cache are few
            return [f.gep(r, at, t) for r, t in zip(place.room, types, strict=True)]

        def get(at: list[Value]) -> Acc:
            return [f.load(t, p) for t, p in zip(types, at, strict=True)]

        def put(at: list[Value], acc: Acc) -> None:
            for p, a in zip(at, acc, strict=True):
                f.store(a, p)

        def clear(first: Operand, some: Operand) -> None:
            with f.loop(first, some) as loop, f.loop(0, vectors) as u:
                put(cells(loop.i, u.i), op.start(lanes))

        def take(here: list[Value], indices: list[Operand], lane: Operand) -> None:
            """Some rows into a lane."""
            rows = [self.shifted(here, f.coordinates(i, self.inner), 2) for i in indices]
            with f.loop(0, vectors) as u:
                if s.rows == "far":
                    self._ask(rows, f.mul(u.i, lanes))
                cell = cells(lane, u.i)
                acc = get(cell)
                for i, at in zip(indices, rows, strict=True):
                    item = self.values(at, f.mul(u.i, lanes), mask, count, 0)
                    if op.arg:
                        item.append(f.splat(f.typed(i, "i64"), types[1]))
                    acc = op.step(acc, item, lanes)
                put(cell, acc)

        def group(here: list[Value]) -> None:
            low = start
            if s.rows in ("four", "far"):
                some = LANES * _TOGETHER
                low = f.add(start, f.mul(f.div(f.sub(stop, start), some), some))
                with f.loop(start, low, some) as loop, f.loop(0, LANES) as lane:
                    first = f.add(loop.i, lane.i)
                    take(here, [f.add(first, LANES * k) for k in range(_TOGETHER)], lane.i)
            with f.loop(low, stop) as loop:
                take(here, [loop.i], f.op("and", loop.i, LANES - 1))

        def join(low: Operand, high: Operand) -> None:
            with f.loop(0, vectors) as u:
                at = cells(low, u.i)
                put(at, op.step(get(at), get(cells(high, u.i)), lanes))

        def streams(here: list[Value]) -> None:
            """The lanes in the order in which halving joins them: few wait at a time."""
            with f.loop(0, LANES) as leaf:
                own = f.intrinsic("ctpop", "i64", leaf.i)
                lane = f.op("lshr", f.intrinsic("bitreverse", "i64", leaf.i), 60)
                begin = f.add(start, lane)
                each = f.div(f.add(f.max(f.sub(stop, begin), 0), LANES - 1), LANES)
                whole = f.mul(f.div(each, _TOGETHER), _TOGETHER * LANES)
                clear(own, f.add(own, 1))
                for low, high, some in (
                    (begin, f.add(begin, whole), _TOGETHER),
                    (f.add(begin, whole), stop, 1),
                ):
                    with f.loop(low, high, LANES * some) as loop:
                        take(here, [f.add(loop.i, LANES * k) for k in range(some)], own)
                done = f.intrinsic("cttz", "i64", f.op("xor", leaf.i, -1), Value("false", "i1"))
                with f.loop(0, done) as up:
                    high = f.sub(own, up.i)
                    join(f.sub(high, 1), high)

        def tree(rows: list[list[Value]], at: Operand, lane: int, step: int) -> Acc:
            """What halving makes of lanes `lane`, `lane` + `step`, ..."""
            if step == LANES:
                acc = op.start(lanes)
                for i in range(lane, len(rows), LANES):
                    item = self.values(rows[i], at, mask, count, 0)
                    item += [f.splat(f.typed(i, "i64"), t) for t in types[len(item) :]]
                    acc = op.step(acc, item, lanes)
                return acc
            acc = tree(rows, at, lane, 2 * step)
            if lane + step < len(rows):
                acc = op.step(acc, tree(rows, at, lane + step, 2 * step), lanes)
            return acc

        if isinstance(s.rows, int):
            begin = [f.coordinates(r, self.inner) for r in range(s.rows)]
            few_rows = [self.shifted(place.rows, c, 2) for c in begin]
            with f.loop(0, vectors) as u:
                by = f.mul(u.i, lanes)
                acc = tree(few_rows, by, 0, 1)
                stride = self.out_strides[-1]
                to = f.gep(place.out, f.mul(by, stride), memory(s.out_dtype))
                self.write(acc, to, mask, count, stride)
            return
        if s.rows != "streams":
            clear(0, used)
        rows = streams if s.rows == "streams" else group
        if s.chunked:
            outer = f.coordinates(f.div(place.part, self.chunks), self.outer)
            rows(self.shifted(place.rows, outer, 1))
        else:
            with f.loop(0, self.total) as outside:
                rows(self.shifted(place.rows, f.coordinates(outside.i, self.outer), 1))
        half = 0 if s.rows == "streams" else LANES // 2
        while half:
            with f.loop(0, f.min(f.sub(used, half), half)) as loop:
                join(loop.i, f.add(loop.i, half))
            half //= 2
        with f.loop(0, vectors) as u:
            acc = get(cells(0, u.i))
            by = f.mul(u.i, lanes)
            if s.chunked:
                for a, (_, p) in zip(
                    acc, self._kept(place.part, f.add(place.index, by)), strict=True
                ):
                    if mask is None:
                        f.store(a, p)
                    else:
                        store_part(f, a, p, mask, count)
            elif lanes == 1:
                self.write(acc, place.out, None, 1)
            else:
                stride = self.out_strides[-1]
                pointer = f.gep(place.out, f.mul(by, stride), memory(s.out_dtype))
                self.write(acc, pointer, mask, count, stride)


class _Place:
    """Where a block of neighbouring outputs begins: operands, output, chunk, accumulators."""

    def __init__(
        self, made: _Reduce, coords: list[Operand], index: Operand, part: Operand,
        parts: Operand, room: list[Value],
    ) -> None:  # fmt: skip
        self.index, self.part, self.parts, self.room = index, part, parts, room
        self.rows = made.shifted(made.ins, coords, 0)
        offset = made.dot(coords, made.out_strides)
        self.out = made.f.gep(made.out, offset, memory(made.s.out_dtype))
