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

Pointer order: out; then inputs: saved statistics (mean, then rstd, float32 for halves) if wanted,
x, weight, bias, those that are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from weft.core import dtype as D
from weft.core.dtype import dtype
from weft.kernels.layout import Layout
from weft.kernels.schedule.columns import plan_columns
from weft.kernels.schedule.combine import Combine, accumulator
from weft.kernels.schedule.nest import (
    EMPTY,
    PARALLEL_WORK,
    QUICK_WORK,
    fold,
    gather,
    load_part,
    scatter,
    store_part,
    stride_class,
)
from weft.kernels.schedule.reduce import CHUNK, LANES
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import Module, Operand, Reader, Value, vector, zero
from weft.runtime.native import Launch, Stage, double_bits, host, load

# ---------------------------------------------------------------------------------- planning


PARTS = 16  # of the rows, for the gradients of weight and bias: they depend on no thread


@dataclass(frozen=True)
class Structure:
    """What a row kernel is made from; operands are out, mean, rstd, x, weight, bias if present."""

    kind: str
    dtypes: tuple[tuple[str, dtype], ...]  # (operand, dtype) in pointer order
    classes: tuple[int, ...]  # stride along the row
    rank: int
    chunked: bool

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.dtypes)


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
    names = list(arrays)
    space = fold(rows, tuple(per_row[k] for k in names))
    s = Structure(
        kind,
        tuple((k, D.from_np(arrays[k].dtype)) for k in names),
        tuple(stride_class(along[k]) for k in names),
        len(space.sizes),
        count > CHUNK,
    )
    width = accumulator("sum", D.from_np(arrays["x"].dtype)).itemsize
    own = -(-count * width // 64) * 64 if kind == "softmax" and not _in_place(s) else 0
    ints = [*space.sizes, space.size, count, double_bits(eps), own, *(along[k] for k in names)]
    for v in space.strides:
        ints.extend(v)
    amount = space.size * count * 16
    stage = Stage(_kernel(s), amount >= PARALLEL_WORK)
    return Launch((stage,), tuple(ints), scratch_per_thread=own, quick=amount < QUICK_WORK)


def _in_place(s: Structure) -> bool:
    """Whether the row of exponentials may wait in the output itself."""
    d = dict(s.dtypes)
    return d["out"] is accumulator("sum", d["x"]) and s.classes[0] == 1


# ---------------------------------------------------------------------------------- code


@lru_cache(maxsize=1024)
def _kernel(s: Structure) -> int:
    return load(source(s), ["rows"])["rows"]


def source(s: Structure) -> str:
    """The LLVM IR of a structure's kernel."""
    module = Module(vector_bits=host().vector_bits)
    _Rows(module, s).emit()
    return module.text()


Body = Callable[[Operand, Value | None], Value]
Bodies = Callable[[Operand, Value | None], list[Value]]


class _Rows:
    def __init__(self, module: Module, s: Structure) -> None:
        self.s = s
        self.f = f = module.kernel("rows")
        n = len(s.dtypes)
        self.acc = accumulator("sum", dict(s.dtypes)["x"])
        self.type = vector(LANES, register(self.acc))
        pointers = f.words("%args", 2, ["ptr"] * n)
        self.scratch = f.words("%args", 2 + n, ["ptr"])[0]
        take = Reader(f, "%args", 3 + n).take
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

    def emit(self) -> None:
        f = self.f
        n = self.one.cast(self.count, D.int64, self.acc)
        eps = self.one.cast(self.eps, D.float64, self.acc)
        if self.s.kind.endswith("norm_grad"):
            self._norm_grads(n, eps)
            f.ret()
            return
        lo, hi = f.split(self.rows)
        with f.loop(lo, hi) as rows:
            at = self.places(rows.i)
            if self.s.kind in ("softmax", "log_softmax"):
                self._softmax(at)
            elif "grad" in self.s.kind:
                self._softmax_grad(at)
            else:
                self._norm(at, n, eps)
        f.ret()

    def places(self, row: Value) -> dict[str, Value]:
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
        return at

    # -- a row's elements

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
        elif mask is None:
            f.store(v, f.gep(at["out"], i, memory(d)))
        else:
            store_part(f, v, f.gep(at["out"], i, memory(d)), mask, count)

    def each(self, body: Callable[[Operand, Value | None], None]) -> None:
        """body at every vector of the row, the rest under a mask."""
        f = self.f
        whole = f.mul(f.div(self.count, LANES), LANES)
        with f.loop(0, whole, LANES) as loop:
            body(loop.i, None)
        with f.iff(f.icmp("slt", whole, self.count)):
            body(whole, f.lane_mask(f.sub(self.count, whole), LANES))

    def reduced(self, kind: str, body: Body) -> Value:
        """The strict reduction of body over the row: a scalar."""
        return self.reductions(kind, lambda i, mask: [body(i, mask)], 1)[0]

    def reductions(self, kind: str, bodies: Bodies, count: int) -> list[Value]:
        """The strict reductions of what `bodies` gives for each vector of the row, in one pass."""
        f = self.f
        op = Combine(f, kind, self.acc)
        if not self.s.chunked:
            return self._run(op, 0, self.count, bodies, count)
        first = op.start(1)[0]
        with f.loop(0, self.count, CHUNK, [(first.type, first)] * count) as chunks:
            stop = f.min(f.add(chunks.i, CHUNK), self.count)
            parts = self._run(op, chunks.i, stop, bodies, count)
            for k, (c, p) in enumerate(zip(chunks.carry, parts, strict=True)):
                chunks.next[k] = op.step([c], [p], 1)[0]
        return list(chunks.carry)

    def _run(
        self, op: Combine, start: Operand, stop: Operand, bodies: Bodies, count: int
    ) -> list[Value]:
        f = self.f

        def step(sums: list[Value], i: Operand, mask: Value | None) -> list[Value]:
            terms = bodies(i, mask)
            return [op.step([s], [t], LANES)[0] for s, t in zip(sums, terms, strict=True)]

        whole = f.add(start, f.mul(f.div(f.sub(stop, start), LANES), LANES))
        with f.loop(start, whole, LANES, [(self.type, op.start(LANES)[0])] * count) as loop:
            loop.next[:] = step(loop.carry, loop.i, None)
        sums = loop.carry
        with f.if_else(f.icmp("slt", whole, stop)) as sides:
            mask = f.lane_mask(f.sub(stop, whole), LANES)
            more = [
                f.select(mask, m, s) for m, s in zip(step(sums, whole, mask), sums, strict=True)
            ]
            sides.otherwise()
        merged = [sides.merge(self.type, m, s) for m, s in zip(more, sums, strict=True)]
        return [self._folded(op, acc) for acc in merged]

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

    def _softmax(self, at: dict[str, Value]) -> None:
        f, m, log = self.f, self.element.math, self.s.kind == "log_softmax"
        top = f.splat(self.reduced("max", lambda i, mask: self.read(at, "x", i, mask)), self.type)
        word = register(self.acc)
        if log:
            buffer = None
        elif _in_place(self.s):
            buffer = at["out"]
        else:
            tid = f.cast("sext", f.arg("tid"), "i64")
            buffer = f.gep(self.scratch, f.mul(tid, self.own))

        def exponential(i: Operand, mask: Value | None) -> Value:
            e = self.element.scalar("exp", self.acc, m.sub(self.read(at, "x", i, mask), top))
            if buffer is not None and mask is None:
                f.store(e, f.gep(buffer, i, word))
            elif buffer is not None and mask is not None:
                store_part(f, e, f.gep(buffer, i, word), mask, f.sub(self.count, i))
            return e

        total = self.reduced("sum", exponential)
        if log:
            total = self.one.scalar("log", self.acc, total)
        total = f.splat(total, self.type)

        def finish(i: Operand, mask: Value | None) -> None:
            if buffer is None:
                y = m.sub(m.sub(self.read(at, "x", i, mask), top), total)
            else:
                p = f.gep(buffer, i, word)
                e = f.load(self.type, p) if mask is None else load_part(
                    f, self.type, p, mask, f.sub(self.count, i))  # fmt: skip
                y = m.div(e, total)
            self.write(at, i, y, mask)

        self.each(finish)

    def _softmax_grad(self, at: dict[str, Value]) -> None:
        m, log = self.element.math, self.s.kind == "log_softmax_grad"

        def term(i: Operand, mask: Value | None) -> Value:
            g = self.read(at, "g", i, mask)
            return g if log else m.mul(g, self.read(at, "x", i, mask))

        total = self.f.splat(self.reduced("sum", term), self.type)

        def finish(i: Operand, mask: Value | None) -> None:
            g, y = self.read(at, "g", i, mask), self.read(at, "x", i, mask)
            if log:
                y = m.sub(g, m.mul(self.element.scalar("exp", self.acc, y), total))
            else:
                y = m.mul(y, m.sub(g, total))
            self.write(at, i, y, mask)

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
            with f.loop(f.min(first, self.rows), f.min(f.add(first, block), self.rows)) as rows:
                self._norm_grad(self.places(rows.i), n, eps, sums)

    def _put(self, start: Value, i: Operand, v: Value, mask: Value | None) -> None:
        """A vector of sums, in the accumulator's dtype."""
        f = self.f
        p = f.gep(start, i, register(self.acc))
        if mask is None:
            f.store(v, p)
        else:
            store_part(f, v, p, mask, f.sub(self.count, i))

    def _get(self, start: Value, i: Operand, mask: Value | None) -> Value:
        f = self.f
        p = f.gep(start, i, register(self.acc))
        if mask is None:
            return f.load(self.type, p)
        return load_part(f, self.type, p, mask, f.sub(self.count, i))

    def _norm_grad(self, at: dict[str, Value], n: Value, eps: Value, sums: list[Value]) -> None:
        f, m, one = self.f, self.element.math, self.one.math
        centre, rstd, centred = self._statistics(at, n, eps)

        def weighed(i: Operand, mask: Value | None) -> Value:
            return m.mul(self.read(at, "g", i, mask), self.read(at, "weight", i, mask))

        def terms(i: Operand, mask: Value | None) -> list[Value]:
            h = weighed(i, mask)
            t = m.mul(h, centred(i, mask))
            return [t] if centre is None else [t, h]

        t, *s = self.reductions("sum", terms, 1 if centre is None else 2)
        slope = f.splat(one.div(one.mul(t, one.mul(rstd, rstd)), n), self.type)
        scale = f.splat(rstd, self.type)
        level = f.splat(one.div(s[0], n), self.type) if s else None

        def finish(i: Operand, mask: Value | None) -> None:
            g, d = self.read(at, "g", i, mask), centred(i, mask)
            inner = m.mul(g, self.read(at, "weight", i, mask))
            inner = inner if level is None else m.sub(inner, level)
            self.write(at, i, m.mul(scale, m.sub(inner, m.mul(d, slope))), mask)
            for start, term in zip(sums, (m.mul(g, m.mul(d, scale)), g), strict=True):
                self._put(start, i, m.add(self._get(start, i, mask), term), mask)

        self.each(finish)

    def _statistics(self, at: dict[str, Value], n: Value, eps: Value) -> tuple:
        """(mean or None, 1 / deviation, what reads an element less the mean) of a row."""
        f, m, one = self.f, self.element.math, self.one.math
        mean = None
        if self.s.kind.startswith("layer_norm"):
            mean = one.div(self.reduced("sum", lambda i, mask: self.read(at, "x", i, mask)), n)
        centre = None if mean is None else f.splat(mean, self.type)

        def centred(i: Operand, mask: Value | None) -> Value:
            x = self.read(at, "x", i, mask)
            return x if centre is None else m.sub(x, centre)

        def squared(i: Operand, mask: Value | None) -> Value:
            d = centred(i, mask)
            return m.mul(d, d)

        variance = one.div(self.reduced("sum", squared), n)
        return mean, self.one.scalar("rsqrt", self.acc, one.add(variance, eps)), centred

    def _norm(self, at: dict[str, Value], n: Value, eps: Value) -> None:
        f, m = self.f, self.element.math
        mean, rstd, centred = self._statistics(at, n, eps)
        if mean is not None:
            self._stat(at, "mean", mean)
        self._stat(at, "rstd", rstd)
        scale = f.splat(rstd, self.type)

        def finish(i: Operand, mask: Value | None) -> None:
            y = m.mul(centred(i, mask), scale)
            if "weight" in at:
                y = m.mul(y, self.read(at, "weight", i, mask))
            if "bias" in at:
                y = m.add(y, self.read(at, "bias", i, mask))
            self.write(at, i, y, mask)

        self.each(finish)

    def _stat(self, at: dict[str, Value], name: str, v: Value) -> None:
        if name in at:
            d = self.operands[name][1]
            self.one.store(self.one.cast(v, self.acc, d), at[name], d)
