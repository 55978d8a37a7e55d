"""Reading and writing at computed places: gather, advanced indexing, scatter.

    take      y[i] = x[base(i) + sum_k index_k[i] * step_k]
    put       y[base(i) + sum_k index_k[i] * step_k]  op=  src[i]      op: set add mul min max

Every index is checked against [-n, n) and wraps once (against [0, n) without `wrap`); one outside
stores status 1 and its value as the detail, and neither reads nor writes.  The index `skip`, where
one is named, may be anything: take gives 0 there, put does nothing.  `put` goes through the
source in its logical order for each destination: several writes to one place happen in that order
whatever the threads (they share only dims along which places differ).  In place it is behind a
stage that looks at every index, so that one outside leaves the tensor as it was.

Launch inputs: take (x, index_0, ...); put (src, index_0, ...), behind the old value x if given.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

from weft.core import dtype as D
from weft.core.dtype import dtype
from weft.core.scalar import Arg, Const
from weft.kernels.layout import Layout
from weft.kernels.schedule.nest import (
    EMPTY,
    PARALLEL_WORK,
    QUICK_WORK,
    broadcast_strides,
    fold,
    plan_nest,
    stride_class,
)
from weft.kernels.target.element import Element, memory
from weft.kernels.target.llvm import Module, Operand, Reader, Value, const, vector, zero
from weft.runtime.native import Launch, Stage, host, load

MODES = ("set", "add", "mul", "min", "max")

Strides = tuple[int, ...]


# ---------------------------------------------------------------------------------- planning


def plan_gather(
    x: Layout, dim: int, index: Layout, out: Layout, wrap: bool = True, skip: int | None = None
) -> Launch:
    """out[i, j, k] = x[i, index[i, j, k], k] for dim 1 (torch.gather); inputs (x, index)."""
    _need_within("gather", dim, index.shape, out.shape, x.shape)
    strides = tuple(0 if d == dim else s for d, s in enumerate(x.strides))
    return _plan_take(
        out, strides, (index,), (index.strides,), (x.shape[dim],), (x.strides[dim],), wrap, skip
    )


def plan_index(
    x: Layout, dims: tuple[int, ...], at: int, indices: tuple[Layout, ...], out: Layout,
    wrap: bool = True,
) -> Launch:  # fmt: skip
    """x indexed along `dims` by index tensors; inputs (x, *indices).

    The indices broadcast to one shape, which stands at position `at` among x's other dims in the
    result: index_select(dim) is dims=(dim,), at=dim; an embedding is dims=(0,), at=0.
    """
    strides, per_index = _spread(x, dims, at, indices)
    sizes, steps = tuple(x.shape[d] for d in dims), tuple(x.strides[d] for d in dims)
    return _plan_take(out, strides, indices, per_index, sizes, steps, wrap)


def plan_scatter(
    mode: str, dim: int, x: Layout | None, index: Layout, src: Layout, out: Layout,
    wrap: bool = True, skip: int | None = None, *, in_place: bool = False,
) -> Launch:  # fmt: skip
    """out = x; out[i, index[i, j, k], k] op= src[i, j, k] for dim 1, over the index's shape.

    Inputs (x, src, index); without x (None) out starts from zero and the inputs are (src, index).
    `in_place`: as `plan_index_put`.
    """
    _need_within("scatter", dim, index.shape, src.shape, out.shape)
    strides = tuple(0 if d == dim else s for d, s in enumerate(out.strides))
    shared = tuple(d != dim for d in range(len(index.shape)))
    return _plan_put(
        mode, x, out, src.dtype, index.shape, strides, src.strides, (index,), (index.strides,),
        (out.shape[dim],), (out.strides[dim],), shared, wrap, skip, in_place=in_place,
    )  # fmt: skip


def plan_index_put(
    mode: str, dims: tuple[int, ...], at: int, x: Layout | None, indices: tuple[Layout, ...],
    src: Layout, out: Layout, wrap: bool = True, *, in_place: bool = False,
) -> Launch:  # fmt: skip
    """out = x; out[indices] op= src, src laid out as plan_index's result (it may broadcast).

    Inputs (x, src, *indices); without x (None) out starts from zero: (src, *indices). `in_place`:
    out is x, which is not copied.
    """
    strides, per_index = _spread(out, dims, at, indices)
    count = len(_common(indices))
    rest = [n for d, n in enumerate(out.shape) if d not in dims]
    shape = (*rest[:at], *_common(indices), *rest[at:])
    shared = tuple(not at <= d < at + count for d in range(len(shape)))
    sizes, steps = tuple(out.shape[d] for d in dims), tuple(out.strides[d] for d in dims)
    return _plan_put(
        mode, x, out, src.dtype, shape, strides, broadcast_strides(src, shape), indices, per_index,
        sizes, steps, shared, wrap, in_place=in_place,
    )  # fmt: skip


def _need_within(name: str, dim: int, index: tuple, whole: tuple, picked: tuple) -> None:
    """A kernel checks what the indices hold; here, that places beside them are there as well."""
    far = any(n > whole[d] or (d != dim and n > picked[d]) for d, n in enumerate(index))
    if len({len(index), len(whole), len(picked)}) > 1 or far:
        raise ValueError(f"{name}: indices {index} along dim {dim} of {picked}, beside {whole}")


def _common(indices: tuple[Layout, ...]) -> tuple[int, ...]:
    rank = max(len(i.shape) for i in indices)
    out = [1] * rank
    for i in indices:
        for d, n in enumerate(i.shape, rank - len(i.shape)):
            out[d] = n if out[d] == 1 else out[d]
    return tuple(out)


def _spread(
    x: Layout, dims: tuple[int, ...], at: int, indices: tuple[Layout, ...]
) -> tuple[Strides, tuple[Strides, ...]]:
    """Strides of x and of each index over the result's dims."""
    shape = _common(indices)
    rest = [s for d, s in enumerate(x.strides) if d not in dims]
    strides = (*rest[:at], *(0,) * len(shape), *rest[at:])
    per_index = tuple(
        (*(0,) * at, *broadcast_strides(i, shape), *(0,) * (len(rest) - at)) for i in indices
    )
    return strides, per_index


@dataclass(frozen=True)
class Structure:
    """What a take kernel (mode "take"), or a put or a look at its indices, is made from."""

    mode: str
    dtype: dtype
    index_dtypes: tuple[dtype, ...]
    rank: int
    classes: tuple[int, ...]  # innermost stride of the result or source, of x or out, of indices
    outer: int  # put: dims shared by threads; the rest is gone through in order
    first: int  # the block's word of the first pointer behind out (1 more when x comes first)
    along: bool  # put: threads share the innermost dim, all else is in order
    wrap: bool  # a negative index counts from the end
    skip: int | None  # the index that is passed over


def _plan_take(
    out: Layout, strides: Strides, indices: tuple[Layout, ...], per_index: tuple[Strides, ...],
    sizes: tuple[int, ...], steps: tuple[int, ...], wrap: bool, skip: int | None = None,
) -> Launch:  # fmt: skip
    if 0 in out.shape:
        return EMPTY
    space = fold(out.shape, (out.strides, strides, *per_index))
    s = Structure(
        "take", D.from_np(out.dtype), tuple(D.from_np(i.dtype) for i in indices),
        len(space.sizes), tuple(stride_class(x[-1]) for x in space.strides), 0, 3, False, wrap,
        skip,
    )  # fmt: skip
    ints = [*space.sizes, space.size // space.sizes[-1], *sizes, *steps]
    for x in space.strides:
        ints.extend(x)
    parallel = space.size * 8 >= PARALLEL_WORK
    return Launch((Stage(_kernel(s), parallel),), tuple(ints), quick=space.size * 8 < QUICK_WORK)


def _plan_put(
    mode: str, x: Layout | None, out: Layout, src_dtype: object, shape: tuple[int, ...],
    out_strides: Strides, src_strides: Strides, indices: tuple[Layout, ...],
    per_index: tuple[Strides, ...], sizes: tuple[int, ...], steps: tuple[int, ...],
    shared: tuple[bool, ...], wrap: bool, skip: int | None = None, *, in_place: bool = False,
) -> Launch:  # fmt: skip
    if mode not in MODES:
        raise ValueError(f"scatter: mode must be one of {MODES}, not {mode!r}")
    if src_dtype != out.dtype:
        raise TypeError(f"scatter: the source is {src_dtype}, the destination {out.dtype}")
    if 0 in out.shape:
        return EMPTY
    d = D.from_np(out.dtype)
    stages: list[Stage] = []
    ints: list[int] = []
    n_in = (x is not None) + 1 + len(indices)
    base = 4 + n_in
    if x is None:
        fill = plan_nest((Const(0, d),), (), (out,), (2,), base)
    else:
        fill = plan_nest((Arg(0, D.from_np(x.dtype)),), (x,), (out,), (2, 3), base)
    ints.extend(fill.launch.ints)
    kinds = tuple(D.from_np(i.dtype) for i in indices)
    if not in_place:
        stages.extend(fill.launch.stages)
    elif 0 not in shape:
        repeated = [all(p[k] == 0 for p in per_index) for k in range(len(shape))]
        each = tuple(1 if again else n for n, again in zip(shape, repeated, strict=True))
        look = fold(each, per_index)
        n = len(look.sizes)
        s = Structure(
            "look", d, kinds, n, (0, 0, *(stride_class(x[-1]) for x in look.strides)), n - 1,
            3 + (x is not None), False, wrap, skip,
        )  # fmt: skip
        stages.append(Stage(_put_kernel(s, base + len(ints)), look.size * 8 >= PARALLEL_WORK))
        ints += [*look.sizes, math.prod(look.sizes[:-1]), *sizes, *steps, *(0,) * (2 * n)]
        ints += itertools.chain(*look.strides)
    if 0 not in shape:
        strides = (src_strides, out_strides, *per_index)
        # Threads share `shared` dims; the dims along which places may coincide stay in order.
        share = [k for k, free in enumerate(shared) if free and shape[k] != 1]
        order = [k for k, free in enumerate(shared) if not free]
        along = bool(share) and all(p[share[-1]] == 0 for p in per_index) and share[-1] == max(
            k for k, n in enumerate(shape) if n != 1)  # fmt: skip
        dims = [*share[:-1], *order, share[-1]] if along else [*share, *order]
        dims = dims or [0] if shape else []
        sizes_of = tuple(shape[k] for k in dims) or (1,)
        picked = tuple(tuple(p[k] for k in dims) or (1,) for p in strides)
        outer = len(share)
        s = Structure(
            mode, d, kinds, len(sizes_of),
            tuple(stride_class(p[-1]) for p in picked), outer, 3 + (x is not None), along, wrap,
            skip,
        )  # fmt: skip
        size = math.prod(sizes_of)
        lines = math.prod(sizes_of[:-1] if along else sizes_of[:outer])
        before = len(ints)
        ints = [*ints, *sizes_of, lines, *sizes, *steps]
        for p in picked:
            ints.extend(p)
        parallel = bool(share) and size * 8 >= PARALLEL_WORK
        start = base + before
        stages.append(Stage(_put_kernel(s, start), parallel))
    copied = 0 if in_place else math.prod(out.shape)
    quick = (copied + math.prod(shape)) * 8 < QUICK_WORK
    return Launch(tuple(stages), tuple(ints), quick=quick)


# ---------------------------------------------------------------------------------- code


@lru_cache(maxsize=4096)
def _kernel(s: Structure) -> int:
    return load(source(s, 4 + 1 + len(s.index_dtypes)), ["index"])["index"]


@lru_cache(maxsize=4096)
def _put_kernel(s: Structure, base: int) -> int:
    return load(source(s, base), ["index"])["index"]


def source(s: Structure, base: int) -> str:
    """The LLVM IR of a structure's kernel; `base` is the block's word of its first int."""
    module = Module()
    made = _Index(module, s, base)
    if s.mode == "take":
        made.take()
    else:
        made.put()
    return module.text()


class _Index:
    def __init__(self, module: Module, s: Structure, base: int) -> None:
        self.s = s
        self.f = f = module.kernel("index")
        m = len(s.index_dtypes)
        out = f.words("%args", 2, ["ptr"])[0]
        other = f.words("%args", s.first, ["ptr"])[0]
        indices = f.words("%args", s.first + 1, ["ptr"] * m)
        # operand 0 is walked in step with the iteration, operand 1 is reached through indices
        self.pointers = [out, other, *indices] if s.mode == "take" else [other, out, *indices]
        self.types = [memory(s.dtype), memory(s.dtype), *(memory(d) for d in s.index_dtypes)]
        take = Reader(f, "%args", base).take
        self.sizes = take(s.rank)
        self.rows = take(1)[0]
        self.limits, self.steps = take(m), take(m)
        self.strides = [take(s.rank) for _ in self.pointers]

    def moved(self, rows: list[Value], coords: list[Operand], first: int) -> list[Value]:
        """The operands' addresses moved along dims first, first + 1, ..."""
        f = self.f
        out = []
        for k, p in enumerate(rows):
            offset: Operand = 0
            for j, c in enumerate(coords):
                offset = f.add(offset, f.mul(c, self.strides[k][first + j]))
            out.append(f.gep(p, offset, self.types[k]))
        return out

    def place(self, rows: list[Value], i: Operand) -> tuple[Value, Value, Value]:
        """(every index is inside, address, one is passed over) for the indices at i along the
        innermost dim.
        """
        f, s = self.f, self.s
        offset: Operand = 0
        ok: Value | None = None
        skipped = const("i1", False)
        for k, d in enumerate(s.index_dtypes):
            at = f.mul(i, self.strides[2 + k][-1]) if s.classes[2 + k] else 0
            element = Element(f, 1)
            index = element.cast(
                f.load(memory(d), f.gep(rows[2 + k], at, memory(d))), d, D.int64
            )  # fmt: skip
            n = self.limits[k]
            wrapped = index
            if s.wrap:
                wrapped = f.select(f.icmp("slt", index, 0), f.op("add", index, n), index)
            inside = f.icmp("ult", wrapped, n)
            outside = f.op("xor", inside, const("i1", True))
            if s.skip is not None:
                passed = f.icmp("eq", index, s.skip)
                goes_on = f.op("xor", passed, const("i1", True))
                inside, outside = f.op("and", inside, goes_on), f.op("and", outside, goes_on)
                skipped = f.op("or", skipped, passed)
            ok = inside if ok is None else f.op("and", ok, inside)
            with f.iff(outside):
                f.store(const("i64", 1), Value("%args", "ptr"))
                f.store(index, f.gep("%args", 1, "i64"))
            offset = f.add(offset, f.mul(wrapped, self.steps[k]))
        assert ok is not None
        return ok, f.gep(rows[1], offset, self.types[1]), skipped

    def take(self) -> None:
        f, s = self.f, self.s
        lo, hi = f.split(self.rows) if s.rank > 1 else (0, 1)
        inner = self.sizes[-1]
        first, last = (0, inner) if s.rank > 1 else f.split(inner, 16)
        with f.loop(lo, hi) as lines:
            rows = self.moved(self.pointers, f.coordinates(lines.i, self.sizes[:-1]), 0)
            if any(s.classes[2:]):
                start = self._take_vectors(rows, first, last) if self._is_wide() else first
                self._take_each(rows, start, last)
            else:
                ok, address, skipped = self.place(rows, 0)
                with f.iff(ok):
                    self._copy(address, rows[0], first, last)
                if s.skip is not None:
                    with f.loop(first, last) as loop:
                        self._clear(
                            skipped,
                            f.gep(rows[0], f.mul(loop.i, self.strides[0][-1]), self.types[0]),
                        )
        f.ret()

    def _take_each(self, rows: list[Value], first: Operand, last: Operand) -> None:
        f = self.f
        with f.loop(first, last) as loop:
            ok, address, skipped = self.place(rows, loop.i)
            to = f.gep(rows[0], f.mul(loop.i, self.strides[0][-1]), self.types[0])
            with f.iff(ok):
                at = f.gep(address, f.mul(loop.i, self.strides[1][-1]), self.types[1])
                f.store(f.load(self.types[0], at), to)
            self._clear(skipped, to)

    def _is_wide(self) -> bool:
        """Whether indices are taken eight at a time: they and the results are adjacent, and what
        they pick lies in one line.
        """
        s = self.s
        plain = s.skip is None and s.classes == (1, 0, 1)
        return plain and s.index_dtypes[0] in (D.int32, D.int64) and s.dtype.itemsize in (4, 8)

    def _take_vectors(self, rows: list[Value], first: Operand, last: Operand) -> Operand:
        """Whole vectors; behind which places the rest begins. One with an index outside is taken
        index by index.
        """
        f, s = self.f, self.s
        d, type, lanes = s.index_dtypes[0], f"<8 x {self.types[0]}>", vector(8, "i64")
        whole = f.add(first, f.mul(f.div(f.sub(last, first), 8), 8))
        limit, step = f.splat(self.limits[0], lanes), f.splat(self.steps[0], lanes)
        with f.loop(first, whole, 8) as loop:
            index = f.load(vector(8, memory(d)), f.gep(rows[2], loop.i, memory(d)))
            at = index = Element(f, 8).cast(index, d, D.int64)
            if s.wrap:
                at = f.select(f.icmp("slt", index, 0), f.op("add", index, limit), index)
            inside = f.icmp("ult", at, limit)
            every = f.intrinsic("vector.reduce.and", "i1", inside, overload=["<8 x i1>"])
            with f.if_else(every) as way:
                offsets = f.op("mul", at, step)
                text = f"getelementptr {self.types[0]}, ptr {rows[1]}, {lanes} {offsets}"
                places = f.emit("<8 x ptr>", text)
                align = Value(str(s.dtype.itemsize), "i32")
                v = f.intrinsic(
                    "masked.gather", type, places, align, inside, zero(type),
                    overload=[type, "<8 x ptr>"],
                )  # fmt: skip
                f.store(v, f.gep(rows[0], loop.i, self.types[0]))
                way.otherwise()
                self._take_each(rows, loop.i, f.add(loop.i, 8))
        return whole

    def _clear(self, skipped: Value, to: Value) -> None:
        if self.s.skip is not None:
            with self.f.iff(skipped):
                self.f.store(Value("zeroinitializer", self.types[0]), to)

    def _copy(self, source: Value, to: Value, first: Operand, last: Operand) -> None:
        """A row of one index."""
        f, s = self.f, self.s
        type = self.types[0]
        if s.classes[0] == 1 and s.classes[1] == 1:
            lanes = host().lanes(s.dtype.itemsize)
            wide = f"<{lanes} x {type}>"
            whole = f.add(first, f.mul(f.div(f.sub(last, first), lanes), lanes))
            with f.loop(first, whole, lanes) as loop:
                f.store(f.load(wide, f.gep(source, loop.i, type)), f.gep(to, loop.i, type))
            first = whole
        with f.loop(first, last) as loop:
            at = f.gep(source, f.mul(loop.i, self.strides[1][-1]), type)
            f.store(f.load(type, at), f.gep(to, f.mul(loop.i, self.strides[0][-1]), type))

    def put(self) -> None:
        f, s = self.f, self.s
        if s.along:
            lanes = host().lanes(max(4, s.dtype.itemsize))
            first, last = f.split(self.sizes[-1], lanes)
            with f.loop(0, self.rows) as lines:
                rows = self.moved(self.pointers, f.coordinates(lines.i, self.sizes[:-1]), 0)
                ok, address, _ = self.place(rows, 0)
                with f.iff(ok):
                    self._add_row(rows[0], address, first, last, lanes)
            f.ret()
            return
        lo, hi = f.split(self.rows) if s.outer else (0, 1)
        with f.loop(lo, hi) as lines:
            coords = f.coordinates(lines.i, self.sizes[: s.outer])
            self._in_order(self.moved(self.pointers, coords, 0), s.outer)
        f.ret()

    def _in_order(self, rows: list[Value], dim: int) -> None:
        """The dims from `dim` on, one loop each, in their logical order."""
        f, s = self.f, self.s
        if dim < s.rank - 1:
            with f.loop(0, self.sizes[dim]) as loop:
                self._in_order(self.moved(rows, [loop.i], dim), dim + 1)
            return
        if dim >= s.rank:
            self._one(rows, 0)
            return
        with f.loop(0, self.sizes[-1]) as loop:
            self._one(rows, loop.i)

    def _one(self, rows: list[Value], i: Operand) -> None:
        f = self.f
        ok, address, _ = self.place(rows, i)
        if self.s.mode == "look":
            return
        with f.iff(ok):
            at = f.gep(address, f.mul(i, self.strides[1][-1]), self.types[1])
            source = f.gep(rows[0], f.mul(i, self.strides[0][-1]), self.types[0])
            self._combine(Element(f, 1), source, at)

    def _combine(self, element: Element, source: Value, at: Value) -> None:
        s = self.s
        v = element.load(source, s.dtype)
        if s.mode != "set":
            v = self._op(element, element.load(at, s.dtype), v)
        element.store(v, at, s.dtype)

    def _op(self, element: Element, old: Value, new: Value) -> Value:
        if self.s.dtype is D.bool:
            both = "and" if self.s.mode in ("mul", "min") else "or"
            return element.scalar(both, D.bool, old, new)
        return element.scalar(self.s.mode, self.s.dtype, old, new)

    def _add_row(self, source: Value, at: Value, first: Operand, last: Operand, lanes: int) -> None:
        f, s = self.f, self.s
        type = self.types[0]
        if s.classes[0] in (0, 1) and s.classes[1] == 1:
            element = Element(f, lanes)
            whole = f.add(first, f.mul(f.div(f.sub(last, first), lanes), lanes))
            with f.loop(first, whole, lanes) as loop:
                to = f.gep(at, loop.i, type)
                if s.classes[0] == 1:
                    v = element.load(f.gep(source, loop.i, type), s.dtype)
                else:
                    one = Element(f, 1).load(source, s.dtype)
                    v = f.splat(one, element.type(s.dtype))
                if s.mode != "set":
                    v = self._op(element, element.load(to, s.dtype), v)
                element.store(v, to, s.dtype)
            first = whole
        with f.loop(first, last) as loop:
            where = f.gep(at, f.mul(loop.i, self.strides[1][-1]), type)
            src = f.gep(source, f.mul(loop.i, self.strides[0][-1]), type)
            self._combine(Element(f, 1), src, where)
