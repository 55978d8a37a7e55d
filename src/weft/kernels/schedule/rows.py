"""Row kernels: softmax and the normalisations, a row read once from memory.

    softmax      m = max x,  e = exp(x - m),  s = sum e,  y = e / s
    log_softmax  y = (x - m) - log s
    their gradients from the results y:  y (g - sum g y),  g - exp(y) sum g
    layer_norm   mu = sum x / n,  d = x - mu,  r = 1 / sqrt(sum d d / n + eps),  y = d r w + b
    rms_norm     r = 1 / sqrt(sum x x / n + eps),  y = x r w
    their gradients:  h = g w,  d = x - mu,  r (h - sum h / n - d (r r sum h d / n)), without mu and
    sum h for rms_norm; and for w and b, sums over a part of the rows each, PARTS parts:
    sum g (d r)  and  sum g,  row after row

Each arrow is one rounding and the sums have the strict order of schedule/reduce.py, so the bits are
those of the same formulas composed of elementwise ops and reductions.  float16 and bfloat16 compute
in float32 and round once, at the store.  Threads share rows.

A pass of softmax has the last of one row, divisions, beside the exponentials of the next and the
maximum of the one after: memory and the core's units are at work all the time.  Exponentials wait
in scratch meanwhile, one row of them (very long rows: in the output).  The other kernels take two
rows at a time: a sum waits for its last addition, two do so together.

Pointer order: out; then inputs: saved statistics (mean, then rstd, float32 for halves) if wanted,
x, weight, bias, those that are given.

Long because the kernels share how a row is read, summed, written and asked for ahead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TypeVar

from weft.core import dtype as D
from weft.core.dtype import dtype
from weft.kernels.layout import Layout
from weft.kernels.schedule.columns import plan_columns
from weft.kernels.schedule.combine import Combine, accumulator
from weft.kernels.schedule.nest import (
    EMPTY,
    STREAM_BYTES,
    Space,
    fold,
    gather,
    load_part,
    one_stage,
    scatter,
    store_part,
    stride_class,
)
from weft.kernels.schedule.reduce import CHUNK, LANES
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import Module, Operand, Reader, Value, vector, zero
from weft.kernels.target.math import exp_below
from weft.runtime.native import Launch, double_bits, host, load_made

# ---------------------------------------------------------------------------------- planning


HELD_BYTES = 1 << 18  # of a row of exponentials
LINE = 64  # bytes of a cache line
WOVEN = 4  # vectors whose instructions come in turns
_WOVEN_FROM = 256, 1 << 16  # a row's elements, all elements
_SOON_BYTES = 4096  # from what softmax and its kin read to what they ask for
PARTS = 16  # of the rows, for the gradients of weight and bias: they depend on no thread


@dataclass(frozen=True)
class Structure:
    """What a row kernel is made from; operands are out, mean, rstd, x, weight, bias if present."""

    kind: str
    dtypes: tuple[tuple[str, dtype], ...]  # (operand, dtype) in pointer order
    classes: tuple[int, ...]  # stride along the row
    rank: int
    chunked: bool
    held: bool = False  # softmax: exponentials wait in scratch
    stream: bool = False  # the output's rows start and end with a cache line and bypass the caches
    far: bool = False  # rows come from memory: the next ones are asked for
    woven: bool = False  # the sums of softmax and its kin take WOVEN vectors side by side

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.dtypes)

    @property
    def waits(self) -> bool:
        """Whether a row's exponentials wait for its last pass."""
        return self.kind in ("softmax", "cross_entropy_grad")


def plan_softmax(x: Layout, dim: int, out: Layout, *, log: bool = False) -> Launch:
    """out = softmax (or log_softmax) of x along dim; inputs (x,)."""
    shape = x.shape or (1,)
    dim %= len(shape)
    kept = [d for d in range(len(shape)) if d != dim]
    arrays = {"out": out, "x": x}
    strides = {k: v.strides or (1,) for k, v in arrays.items()}
    per_row = {k: tuple(s[d] for d in kept) for k, s in strides.items()}
    along = {k: s[dim] for k, s in strides.items()}
    kind = "log_softmax" if log else "softmax"
    rows = tuple(shape[d] for d in kept)
    if shape[dim] and 0 not in rows and along["x"] != 1:
        space = fold(rows, (per_row["out"], per_row["x"]))
        if space.sizes[-1] > 1 and all(v[-1] == 1 for v in space.strides):
            types = D.from_np(x.dtype), D.from_np(out.dtype)
            return plan_columns(*types, space, shape[dim], (along["out"], along["x"]), log=log)
    return _plan(kind, arrays, rows, shape[dim], per_row, along, 0.0)


def plan_softmax_grad(g: Layout, y: Layout, out: Layout, *, log: bool) -> Launch:
    """out = gradient of softmax (or log_softmax) along the last dim; inputs (g, its result y)."""
    arrays = {"out": out, "g": g, "x": y}
    per_row = {k: v.strides[:-1] for k, v in arrays.items()}
    along = {k: v.strides[-1] for k, v in arrays.items()}
    kind = "log_softmax_grad" if log else "softmax_grad"
    return _plan(kind, arrays, out.shape[:-1], out.shape[-1], per_row, along, 0.0)


def plan_layer_norm(
    x: Layout, dims: int, out: Layout, eps: float, *, weight: Layout | None = None,
    bias: Layout | None = None, mean: Layout | None = None, rstd: Layout | None = None,
) -> Launch:  # fmt: skip
    """out = layer_norm of x over its last `dims` dims; inputs ([mean, rstd], x, [weight], [bias]).

    Raises ValueError when the normalised dims of an operand do not lie at one stride.
    """
    return _plan_norm("layer_norm", x, dims, out, eps, weight, bias, mean, rstd)


def plan_rms_norm(
    x: Layout, dims: int, out: Layout, eps: float, *, weight: Layout | None = None,
    rstd: Layout | None = None,
) -> Launch:  # fmt: skip
    """out = rms_norm of x over its last `dims` dims; inputs ([rstd], x, [weight])."""
    return _plan_norm("rms_norm", x, dims, out, eps, weight, None, None, rstd)


def plan_norm_grad(
    g: Layout, x: Layout, weight: Layout, dims: int, out: Layout, eps: float, *, centred: bool
) -> Launch:
    """out (rows + 2 PARTS, n) = the cotangents of layer_norm's operands (of rms_norm's unless
    `centred`): x's rows, then a sum for the weight of each part of the rows, then for the bias.
    Inputs (g, x, weight); ValueError as `plan_layer_norm`."""
    kind = "layer_norm_grad" if centred else "rms_norm_grad"
    return _plan_norm(
        kind, x, dims, Layout.contiguous(x.shape, out.dtype), eps, weight, None, None, None, g
    )


def _plan_norm(
    kind: str, x: Layout, dims: int, out: Layout, eps: float, weight: Layout | None,
    bias: Layout | None, mean: Layout | None, rstd: Layout | None, g: Layout | None = None,
) -> Launch:  # fmt: skip
    named = {"out": out, "g": g, "mean": mean, "rstd": rstd, "x": x, "weight": weight, "bias": bias}
    arrays = {k: v for k, v in named.items() if v is not None}
    lead = len(x.shape) - dims
    rows, row = x.shape[:lead], x.shape[lead:]
    per_row: dict[str, tuple[int, ...]] = {}
    along: dict[str, int] = {}
    for k, v in arrays.items():
        if k in ("weight", "bias"):
            per_row[k], along[k] = (0,) * lead, _one_stride(k, row, v.strides)
        elif k in ("mean", "rstd"):
            per_row[k], along[k] = tuple(v.strides[:lead]), 0
        else:
            per_row[k], along[k] = v.strides[:lead], _one_stride(k, row, v.strides[lead:])
    return _plan(kind, arrays, rows, math.prod(row), per_row, along, eps)


def _one_stride(name: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    stride, span = 1, None
    for n, s in zip(reversed(shape), reversed(strides), strict=True):
        if n == 1:
            continue
        if span is None:
            stride, span = s, s * n
        elif s != span:
            raise ValueError(
                f"normalised dims {shape} of {name} have strides {strides}: not one run"
            )
        else:
            span *= n
    return stride


def _plan(
    kind: str, arrays: dict[str, Layout], rows: tuple[int, ...], count: int,
    per_row: dict[str, tuple[int, ...]], along: dict[str, int], eps: float,
) -> Launch:  # fmt: skip
    if count == 0 or (0 in rows and not kind.endswith("norm_grad")):  # whose sums are zeros then
        return EMPTY
    space = fold(rows, tuple(per_row[k] for k in arrays))
    s, ints, per_thread = structure_of(kind, arrays, space, count, along, eps)
    return one_stage(_kernel(s), ints, space.size * count * 16, per_thread)


def structure_of(
    kind: str, arrays: dict[str, Layout], space: Space, count: int, along: dict[str, int],
    eps: float = 0.0,
) -> tuple[Structure, list[int], int]:  # fmt: skip
    """The structure of a kernel, its ints, the bytes of scratch that each thread needs. `space`:
    the rows, and the strides of each of the arrays there."""
    names = list(arrays)
    s = Structure(
        kind,
        tuple((k, D.from_np(arrays[k].dtype)) for k in names),
        tuple(stride_class(along[k]) for k in names),
        len(space.sizes),
        count > CHUNK,
    )
    width = accumulator("sum", D.from_np(arrays["x"].dtype)).itemsize
    held = s.waits and (count * width <= HELD_BYTES or not _same(s))
    out = arrays["out"]
    lines, size = (count, *space.strides[0]), space.size * count * out.dtype.itemsize
    s = replace(
        s,
        held=held,
        stream=(held or not s.waits)
        and s.classes[0] == 1
        and size >= STREAM_BYTES
        and all(n * out.dtype.itemsize % LINE == 0 for n in lines),
        far=2 * size >= STREAM_BYTES,
        woven=host().multiplies_twice
        and "norm" not in kind
        and count >= _WOVEN_FROM[0]
        and space.size * count >= _WOVEN_FROM[1],
    )
    own = -(-count * width // LINE) * LINE if held else 0
    ints = [*space.sizes, space.size, count, double_bits(eps), own, *(along[k] for k in names)]
    for v in space.strides:
        ints.extend(v)
    return s, ints, own


def _same(s: Structure) -> bool:
    """Whether the output has the accumulator's dtype and rows of adjacent elements."""
    d = dict(s.dtypes)
    return d["out"] is accumulator("sum", d["x"]) and s.classes[0] == 1


# ---------------------------------------------------------------------------------- code


@lru_cache(maxsize=1024)
def _kernel(s: Structure) -> int:
    return load_made(["rows"], source, s)["rows"]


@lru_cache(maxsize=64)  # asked again when it was compiled
def source(s: Structure) -> str:
    """The LLVM IR of a structure's kernel."""
    module = Module()
    Rows(module, s).emit()
    return module.text()


def _both(name: str) -> tuple[tuple[str, int], ...]:
    return (name, 0), (name, 1)


# What each pass asks for of the next two rows, found by trial
_AHEAD: dict[str, dict[str, tuple[tuple[str, int], ...]]] = {
    "layer_norm": {"squares": _both("x")},
    "rms_norm": {"last": _both("x")},
    "layer_norm_grad": {"squares": _both("x"), "last": _both("g")},
    "rms_norm_grad": {"squares": _both("x"), "last": _both("g")},
    "softmax_grad": {"squares": _both("g"), "last": _both("x")},
}
# and where two multiply-adds start in a cycle: a pass is soon over, and both rows' lines at once
# are more than a core waits for
_SPREAD: dict[str, dict[str, tuple[tuple[str, int], ...]]] = {
    "layer_norm": {"squares": (("x", 0),), "last": (("x", 1),)},
    "rms_norm": {"squares": (("x", 0),), "last": (("x", 1),)},
    "layer_norm_grad": {"mean": (("x", 0),), "squares": (("g", 0),), "last": (("x", 1), ("g", 1))},
}

T = TypeVar("T")
Body = Callable[[Operand, Value | None], Value]
Pass = Callable[[Operand, Value | None], None]  # of the vector at i, under a mask
Bodies = Callable[[Operand, Value | None], list[Value]]
Places = dict[str, Value]  # where the operands' parts of a row start


class _Largest(Combine):
    """A maximum that passes NaN by: the sum of exponentials will be one."""

    def step(self, a: list[Value], b: list[Value], lanes: int) -> list[Value]:
        return [self.f.select(self.f.fcmp("ogt", w, v), w, v) for v, w in zip(a, b, strict=True)]


def _joined(ops: list[Combine], sums: list[Value], terms: list[Value], lanes: int) -> list[Value]:
    return [op.step([s], [t], lanes)[0] for op, s, t in zip(ops, sums, terms, strict=True)]


class Rows:
    """The code of a structure; class_loss.py has rows with another end."""

    def __init__(self, module: Module, s: Structure) -> None:
        self.s = s
        self.f = f = module.kernel("rows")
        n = len(s.dtypes)
        self.acc = accumulator("sum", dict(s.dtypes)["x"])
        self.type = vector(LANES, register(self.acc))
        pointers = f.words("%args", 2, ["ptr"] * n)
        self.scratch = f.words("%args", 2 + n, ["ptr"])[0]
        self.take = take = Reader(f, "%args", 3 + n).take
        self.sizes = take(s.rank)
        self.rows, self.count = take(2)
        self.eps = take(1, "double")[0]
        self.own = take(1)[0]
        along = take(n)
        self.operands = {
            name: (pointers[k], d, s.classes[k], along[k], take(s.rank))
            for k, (name, d) in enumerate(s.dtypes)
        }
        self.element = Element(f, LANES)
        self.one = Element(f, 1)
        self.results: list[tuple[Value, Value]] = []  # that wait to be stored past the caches
        self.following: list[Places] = []  # the rows to ask for
        if s.stream:
            address = f.cast("ptrtoint", pointers[0], "i64")
            self.lined = f.icmp("eq", f.op("and", address, LINE - 1), 0)
            # what lies where x does was just read: past the caches it goes slower
            apart = f.icmp("ne", pointers[0], self.operands["x"][0])
            self.lined = f.op("and", self.lined, apart)

    def emit(self) -> None:
        f = self.f
        n = self.one.cast(self.count, D.int64, self.acc)
        eps = self.one.cast(self.eps, D.float64, self.acc)
        if self.s.kind.endswith("norm_grad"):
            self._norm_grads(n, eps)
            f.ret()
            return
        lo, hi = f.split(self.rows)
        if self.s.kind in ("softmax", "log_softmax"):
            self.softmaxes(lo, hi)
        elif "grad" in self.s.kind:
            self._rows(lo, hi, self._softmax_grad)
        else:
            self._rows(lo, hi, partial(self._norm, n=n, eps=eps))
        self.fence()
        f.ret()

    def fence(self) -> None:
        """What was written past the caches is there for everybody."""
        if self.s.stream and host().arch in ("x86_64", "amd64"):
            self.f.intrinsic("x86.sse.sfence", "void")

    def _rows(self, lo: Operand, hi: Operand, body: Callable[[list[Places]], None]) -> None:
        """body for each two rows from lo to hi, and for a last one."""
        f = self.f

        def together(*rows: Operand) -> None:
            self.following = [self.places(f.add(r, len(rows))) for r in rows]
            body([self.places(r) for r in rows])

        if self.s.kind == "log_softmax_grad":  # exponentials hide the sum; fewer lines of one set
            with f.loop(lo, hi) as single:
                together(single.i)
            return
        with f.loop(lo, f.sub(hi, 1), 2) as pairs:
            together(pairs.i, f.add(pairs.i, 1))
        odd = f.op("and", f.sub(hi, lo), f.typed(1, "i64"))
        with f.iff(f.icmp("sgt", f.select(f.icmp("slt", lo, hi), odd, f.typed(0, "i64")), 0)):
            together(f.sub(hi, 1))

    def places(self, row: Operand) -> dict[str, Value]:
        """Where the operands' parts of a row start."""
        f = self.f
        at: dict[str, Value] = {}
        flat: Operand = row
        coords: list[Operand] = []
        for size in reversed(self.sizes[1:]):
            coords.append(f.rem(flat, size))
            flat = f.div(flat, size)
        coords = [flat, *reversed(coords)]
        for name, (pointer, d, _, _, strides) in self.operands.items():
            offset: Operand = 0
            for c, stride in zip(coords, strides, strict=True):
                offset = f.add(offset, f.mul(c, stride))
            at[name] = f.gep(pointer, offset, memory(d))
        if self.s.waits:
            at["held"] = at["out"]
        if self.s.held:
            at["held"] = f.gep(self.scratch, f.mul(f.thread(), self.own))
        return at

    # -- a row's elements

    def touch(self, i: Operand, name: str, *, level: int, rows: list[Places]) -> None:
        """Ask for what these rows read at i."""
        _, d, kind, _, _ = self.operands[name]
        for at in rows if kind == 1 else ():
            self.f.touch(self.f.gep(at[name], i, memory(d)), level=level)

    def ahead(self, i: Operand, turn: str) -> None:
        """`touch`, where rows come from memory: a few lines at a time, in each pass."""
        plan = _AHEAD | (_SPREAD if host().multiplies_twice else {})
        for name, row in plan.get(self.s.kind, {}).get(turn, ()) if self.s.far else ():
            self.touch(i, name, level=2, rows=self.following[row : row + 1])

    def read(self, at: dict[str, Value], name: str, i: Operand, mask: Value | None) -> Value:
        """Operand `name` at i of its row, in the accumulator's dtype."""
        f = self.f
        _, d, kind, stride, _ = self.operands[name]
        type = self.element.memory_type(d)
        if kind == 1:
            pointer = f.gep(at[name], i, memory(d))
            v = f.load(type, pointer) if mask is None else load_part(
                f, type, pointer, mask, f.sub(self.count, i))  # fmt: skip
        else:
            last = f.sub(self.count, 1) if mask is not None else None
            v = gather(f, type, at[name], i, stride, last)
        return self.element.cast(self.element.from_memory(v, d), d, self.acc)

    def write(self, at: dict[str, Value], i: Operand, v: Value, mask: Value | None) -> None:
        f = self.f
        _, d, kind, stride, _ = self.operands["out"]
        v = self.element.to_memory(self.element.cast(v, self.acc, d), d)
        count = LANES if mask is None else f.sub(self.count, i)
        if kind != 1:
            scatter(f, v, at["out"], i, stride, count)
        elif mask is not None:
            store_part(f, v, f.gep(at["out"], i, memory(d)), mask, count)
        elif self.s.stream:
            self.results.append((v, f.gep(at["out"], i, memory(d))))
        else:
            f.store(v, f.gep(at["out"], i, memory(d)))

    def together(self, bodies: Sequence[Callable[[], T]]) -> list[T]:
        """What the bodies give, their instructions in turns, then the stores past the caches."""
        f, align = self.f, min(LANES * self.operands["out"][1].itemsize, LINE)
        found = f.woven(bodies)
        if self.results:
            with f.if_else(self.lined) as sides:
                for v, p in self.results:
                    f.store(v, p, align, stream=True)
                sides.otherwise()
                for v, p in self.results:
                    f.store(v, p)
            self.results.clear()
        return found

    def each(self, body: Pass) -> None:
        """body at every vector of the row, the rest under a mask."""
        f = self.f
        whole = f.mul(f.div(self.count, LANES), LANES)
        with f.loop(0, whole, LANES) as loop:
            self.together([partial(body, loop.i, None)])
        with f.iff(f.icmp("slt", whole, self.count)):
            body(whole, f.lane_mask(f.sub(self.count, whole), LANES))

    def sums(self, bodies: Bodies, count: int) -> list[Value]:
        """The strict sums of what `bodies` gives for each vector of the row, in one pass."""
        return self.reductions([Combine(self.f, "sum", self.acc)] * count, bodies)

    def reductions(self, ops: list[Combine], bodies: Bodies) -> list[Value]:
        """The strict reductions of what `bodies` gives for each vector of the row, in one pass."""
        f = self.f
        if not self.s.chunked:
            return self._run(ops, 0, self.count, bodies)
        first = [op.start(1)[0] for op in ops]
        with f.loop(0, self.count, CHUNK, [(v.type, v) for v in first]) as chunks:
            stop = f.min(f.add(chunks.i, CHUNK), self.count)
            parts = self._run(ops, chunks.i, stop, bodies)
            chunks.next[:] = _joined(ops, chunks.carry, parts, 1)
        return list(chunks.carry)

    def _run(
        self, ops: list[Combine], start: Operand, stop: Operand, bodies: Bodies
    ) -> list[Value]:
        f = self.f

        def step(sums: list[Value], i: Operand, mask: Value | None) -> list[Value]:
            terms = self.together([partial(bodies, i, mask)])[0]
            return _joined(ops, sums, terms, LANES)

        whole = f.add(start, f.mul(f.div(f.sub(stop, start), LANES), LANES))
        sums = [op.start(LANES)[0] for op in ops]
        if self.s.woven:
            width = WOVEN * LANES
            many = f.add(start, f.mul(f.div(f.sub(stop, start), width), width))
            with f.loop(start, many, width, [(self.type, s) for s in sums]) as loop:
                points = [f.add(loop.i, k * LANES) for k in range(WOVEN)]
                sums = list(loop.carry)
                for terms in self.together([partial(bodies, i, None) for i in points]):
                    sums = _joined(ops, sums, terms, LANES)
                loop.next[:] = sums
            start, sums = many, loop.carry
        with f.loop(start, whole, LANES, [(self.type, s) for s in sums]) as loop:
            loop.next[:] = step(loop.carry, loop.i, None)
        sums = loop.carry
        with f.if_else(f.icmp("slt", whole, stop)) as sides:
            mask = f.lane_mask(f.sub(stop, whole), LANES)
            more = [
                f.select(mask, m, s) for m, s in zip(step(sums, whole, mask), sums, strict=True)
            ]
            sides.otherwise()
        merged = [sides.merge(self.type, m, s) for m, s in zip(more, sums, strict=True)]
        return [self._folded(op, acc) for op, acc in zip(ops, merged, strict=True)]

    def _folded(self, op: Combine, acc: Value) -> Value:
        """One scalar of all lanes, by halving."""
        f = self.f
        half = LANES // 2
        while half > 1:
            low, high = (f.shuffle(acc, acc, range(b, b + half)) for b in (0, half))
            acc = op.step([low], [high], half)[0]
            half //= 2
        return op.step([f.extract(acc, 0)], [f.extract(acc, 1)], 1)[0]

    # -- the kernels

    def largest(self, row: Operand) -> Value:
        """The row's maximum, but for NaN."""
        at = self.places(row)
        op = _Largest(self.f, "max", self.acc)
        return self.reductions([op], lambda i, mask: [self.read(at, "x", i, mask)])[0]

    def softmaxes(self, lo: Operand, hi: Operand) -> None:
        """The last pass of a row runs beside the exponentials of the next, and those beside the
        maximum of the one after: one pass reads, computes and writes."""
        f = self.f
        with f.iff(f.icmp("slt", lo, hi)):
            top = self.largest(lo)
            first = self.exponentials(lo, hi, top, lambda i, mask: None, *self.further())
            with f.loop(f.add(lo, 1), hi, 1, [(v.type, v) for v in (top, *first)]) as rows:
                last = self.last_pass(self.places(f.sub(rows.i, 1)), rows.carry)
                top = rows.carry[1]
                more = self.exponentials(rows.i, hi, top, last, *self.further())
                rows.next[:] = [top, *more]
            self.each(self.last_pass(self.places(f.sub(hi, 1)), rows.carry))

    def further(self) -> tuple[Callable[..., list[Value]] | None, int]:
        """What else is summed beside the exponentials, and how many sums that is."""
        return None, 0

    def exponentials(
        self, row: Operand, hi: Operand, top: Value, also: Pass,
        more: Callable[..., list[Value]] | None = None, extra: int = 0,
    ) -> list[Value]:  # fmt: skip
        """The maximum of the next row before `hi`, this row's sum of exponentials of x - top, and
        the `extra` sums of what `more` makes of these differences. `also` runs on the way."""
        f, m = self.f, self.element.math
        wide = f.splat(top, self.type)
        at, after = self.places(row), self.places(f.min(f.add(row, 1), f.sub(hi, 1)))

        def terms(i: Operand, mask: Value | None) -> list[Value]:
            also(i, mask)  # before this row's exponentials take the place of those before
            d = m.sub(self.read(at, "x", i, mask), wide)
            e = exp_below(m, d)
            if "held" in at:
                self._put(at["held"], i, e, mask)
            coming = self.read(after, "x", i, mask)
            self.touch(f.add(i, soon), "x", level=1, rows=[after])
            return [coming, e] if more is None else [coming, e, *more(at, i, mask, d)]

        soon = _SOON_BYTES // self.operands["x"][1].itemsize
        total = Combine(f, "sum", self.acc)
        return self.reductions([_Largest(f, "max", self.acc)] + [total] * (1 + extra), terms)

    def last_pass(self, at: Places, numbers: list[Value]) -> Pass:
        """A row's results from what its exponentials gave."""
        f, m = self.f, self.element.math
        log = self.s.kind == "log_softmax"
        top, _, total = numbers[:3]
        total = self.one.scalar("log", self.acc, total) if log else total
        top, total = f.splat(top, self.type), f.splat(total, self.type)

        def finish(i: Operand, mask: Value | None) -> None:
            if log:
                y = m.sub(m.sub(self.read(at, "x", i, mask), top), total)
            else:
                y = m.div(self.waiting(at, i, mask), total)
            self.write(at, i, y, mask)

        return finish

    def _softmax_grad(self, rows: list[Places]) -> None:
        m, log = self.element.math, self.s.kind == "log_softmax_grad"

        def terms(i: Operand, mask: Value | None) -> list[Value]:
            g = [self.read(at, "g", i, mask) for at in rows]
            self.ahead(i, "squares")  # log's, one row at a time, is asked for by the hardware
            if log:
                return g
            return [m.mul(v, self.read(at, "x", i, mask)) for v, at in zip(g, rows, strict=True)]

        totals = [self.f.splat(v, self.type) for v in self.sums(terms, len(rows))]

        def finish(i: Operand, mask: Value | None) -> None:
            for at, total in zip(rows, totals, strict=True):
                g, y = self.read(at, "g", i, mask), self.read(at, "x", i, mask)
                if log:
                    y = m.sub(g, m.mul(self.element.scalar("exp", self.acc, y), total))
                else:
                    y = m.mul(y, m.sub(g, total))
                self.write(at, i, y, mask)
            self.ahead(i, "last")

        self.each(finish)

    def _norm_grads(self, n: Value, eps: Value) -> None:
        """The rows' gradients, and what each part of the rows adds to the weight's and bias's."""
        f, d = self.f, self.operands["out"][1]
        block = f.div(f.add(self.rows, PARTS - 1), PARTS)
        with f.units(f.typed(PARTS, "i64")) as part:
            sums = [
                f.gep(self.operands["out"][0], f.mul(f.add(self.rows, at), self.count), memory(d))
                for at in (part, f.add(part, PARTS))
            ]
            for start in sums:
                self.each(lambda i, mask, at=start: self._put(at, i, zero(self.type), mask))
            first = f.mul(part, block)
            self._rows(
                f.min(first, self.rows),
                f.min(f.add(first, block), self.rows),
                partial(self._norm_grad, n=n, eps=eps, sums=sums),
            )

    def _put(self, start: Value, i: Operand, v: Value, mask: Value | None) -> None:
        """A vector of sums, in the accumulator's dtype."""
        f = self.f
        p = f.gep(start, i, register(self.acc))
        if mask is None:
            f.store(v, p)
        else:
            store_part(f, v, p, mask, f.sub(self.count, i))

    def waiting(self, at: Places, i: Operand, mask: Value | None) -> Value:
        """The exponentials that were kept for the last pass."""
        return self._get(at["held"], i, mask)

    def _get(self, start: Value, i: Operand, mask: Value | None) -> Value:
        f = self.f
        p = f.gep(start, i, register(self.acc))
        if mask is None:
            return f.load(self.type, p)
        return load_part(f, self.type, p, mask, f.sub(self.count, i))

    def _norm_grad(self, rows: list[Places], *, n: Value, eps: Value, sums: list[Value]) -> None:
        f, m, one = self.f, self.element.math, self.one.math
        numbers: list[list[Value]] = []
        for mean, rstd, (t, *h) in self._statistics(rows, n, eps, slopes=True):
            slope = one.div(one.mul(t, one.mul(rstd, rstd)), n)
            centre = [] if mean is None else [mean, one.div(h[0], n)]
            numbers.append([f.splat(v, self.type) for v in (rstd, slope, *centre)])

        def finish(i: Operand, mask: Value | None) -> None:
            weight = self.read(rows[0], "weight", i, mask)
            totals = [self._get(start, i, mask) for start in sums]
            for at, (scale, slope, *centre) in zip(rows, numbers, strict=True):
                g, d = self.read(at, "g", i, mask), self.read(at, "x", i, mask)
                inner = m.mul(g, weight)
                if centre:
                    d, inner = m.sub(d, centre[0]), m.sub(inner, centre[1])
                self.write(at, i, m.mul(scale, m.sub(inner, m.mul(d, slope))), mask)
                terms = m.mul(g, m.mul(d, scale)), g
                totals = [m.add(v, term) for v, term in zip(totals, terms, strict=True)]
            for start, v in zip(sums, totals, strict=True):
                self._put(start, i, v, mask)
            self.ahead(i, "last")

        self.each(finish)

    def _statistics(
        self, rows: list[Places], n: Value, eps: Value, *, slopes: bool = False
    ) -> list[tuple[Value | None, Value, list[Value]]]:
        """(mean or None, 1 / deviation, sums of h d and h if wanted) of each row."""
        f, m, one = self.f, self.element.math, self.one.math
        means: list[Value] = []

        def numbers(i: Operand, mask: Value | None) -> list[Value]:
            self.ahead(i, "mean")
            return [self.read(at, "x", i, mask) for at in rows]

        if self.s.kind.startswith("layer_norm"):
            means = [one.div(v, n) for v in self.sums(numbers, len(rows))]
        centres = [f.splat(v, self.type) for v in means]

        def terms(i: Operand, mask: Value | None) -> list[Value]:
            found: list[Value] = []
            weight = self.read(rows[0], "weight", i, mask) if slopes else None
            for k, at in enumerate(rows):
                d = self.read(at, "x", i, mask)
                d = m.sub(d, centres[k]) if centres else d
                found.append(m.mul(d, d))
                if weight is not None:
                    h = m.mul(self.read(at, "g", i, mask), weight)
                    found += [m.mul(h, d), h] if centres else [m.mul(h, d)]
            self.ahead(i, "squares")
            return found

        each = 1 + slopes * (2 if centres else 1)
        sums = self.sums(terms, len(rows) * each)
        out: list[tuple[Value | None, Value, list[Value]]] = []
        for k in range(len(rows)):
            squares, *more = sums[k * each : (k + 1) * each]
            rstd = self.one.scalar("rsqrt", self.acc, one.add(one.div(squares, n), eps))
            out.append((means[k] if means else None, rstd, more))
        return out

    def _norm(self, rows: list[Places], *, n: Value, eps: Value) -> None:
        f, m = self.f, self.element.math
        numbers: list[list[Value]] = []
        for at, (mean, rstd, _) in zip(rows, self._statistics(rows, n, eps), strict=True):
            self._stat(at, "rstd", rstd)
            numbers.append([f.splat(rstd, self.type)])
            if mean is not None:
                self._stat(at, "mean", mean)
                numbers[-1].append(f.splat(mean, self.type))

        def finish(i: Operand, mask: Value | None) -> None:
            weight, bias = (
                self.read(rows[0], name, i, mask) if name in rows[0] else None
                for name in ("weight", "bias")
            )
            for at, (scale, *mean) in zip(rows, numbers, strict=True):
                y = self.read(at, "x", i, mask)
                y = m.mul(m.sub(y, mean[0]) if mean else y, scale)
                y = y if weight is None else m.mul(y, weight)
                self.write(at, i, y if bias is None else m.add(y, bias), mask)
            self.ahead(i, "last")

        self.each(finish)

    def _stat(self, at: dict[str, Value], name: str, v: Value) -> None:
        if name in at:
            d = self.operands[name][1]
            self.one.store(self.one.cast(v, self.acc, d), at[name], d)
