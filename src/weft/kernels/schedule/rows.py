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

A pass has the last of one row, the sums of the next and those before, of the one after: memory and
the core's units are at work all the time, and the end of a row is waited for by nobody.  Softmax's
exponentials wait in scratch meanwhile, one row of them (very long rows: in the output).

Pointer order: out; then inputs: saved statistics (mean, then rstd, float32 for halves) if wanted,
x, weight, bias, those that are given.

Long because the kernels share how a row is read, summed, written and asked for ahead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import NamedTuple, TypeVar

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
_WOVEN_FROM = 256, 1 << 15  # a row's elements, all elements
_SOON_BYTES = 4096  # from what is read to what is asked for
_LONG_BYTES = 4096  # from here on two rows and their next ones share too many sets of the cache
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
    far: bool = False  # rows come from memory: what follows is asked for
    pairs: bool = False  # norms' gradients: two rows at a time, for which sums are read once
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
        far=(far := 2 * size >= STREAM_BYTES),
        pairs=kind.endswith("norm_grad")
        and space.size > 2 * PARTS
        and not (far and count * width >= _LONG_BYTES),
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


T = TypeVar("T")
Body = Callable[[Operand, Value | None], Value]
Pass = Callable[[Operand, Value | None], None]  # of the vector at i, under a mask
Bodies = Callable[[Operand, Value | None], list[Value]]
Places = dict[str, Value]  # where the operands' parts of a row start


class Sums(NamedTuple):
    """What a pass sums of a row, and the numbers that these totals give."""

    ops: list[Combine]
    terms: Bodies
    then: Callable[[list[Value]], list[Value]]


Step = Callable[[Places, list[Value]], Sums]  # of a row, from what the step before gave
Last = Callable[[list[Places], list[list[Value]]], Pass | None]  # of rows, from their numbers


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
        if s.stream:
            address = f.cast("ptrtoint", pointers[0], "i64")
            self.lined = f.icmp("eq", f.op("and", address, LINE - 1), 0)
            # what lies where x does was just read: past the caches it goes slower
            apart = f.icmp("ne", pointers[0], self.operands["x"][0])
            self.lined = f.op("and", self.lined, apart)

    def emit(self) -> None:
        f = self.f
        if self.s.kind.endswith("norm_grad"):
            self._norm_grads()
        else:
            lo, hi = f.split(self.rows)
            if self.s.kind in ("softmax", "log_softmax"):
                self.softmaxes(lo, hi)
            elif "grad" in self.s.kind:
                self.passes(lo, hi, [self._products], self._softmax_grad)
            else:
                self.passes(lo, hi, self._statistics(), self._norm)
        self.fence()
        f.ret()

    def fence(self) -> None:
        """What was written past the caches is there for everybody."""
        if self.s.stream and host().arch in ("x86_64", "amd64"):
            self.f.intrinsic("x86.sse.sfence", "void")

    def passes(
        self, lo: Operand, hi: Operand, steps: Sequence[Step], last: Last, side: int = 1
    ) -> None:
        """`last` of the rows from lo to hi, whose numbers `steps` give, `side` (1 or 2) at a time.

        A pass has the last of some rows, the last step of the next ones, the step before of those
        after, ...: memory is read and written evenly, and what ends a row (folds, roots,
        quotients) waits for nothing else.
        """
        f, depth = self.f, len(steps)
        final = f.sub(hi, 1)
        end = f.sub(final, f.op("and", f.sub(final, lo), f.typed(side - 1, "i64")))

        def some(first: Operand) -> list[Places]:
            return [self.places(f.min(f.add(first, k), final)) for k in range(side)]

        def advance(
            first: Operand, state: list[list[list[Value]]], finish: Pass | None, known: int
        ) -> list[list[list[Value]]]:
            """Each step's numbers behind a pass, which has the first `known` of them."""
            taken: list[Sums] = []
            for j, step in enumerate(steps[:known]):  # beyond the end: once more the last rows
                rows = some(f.min(f.add(first, side * (depth - j)), end))
                taken += [step(at, state[j - 1][k] if j else []) for k, at in enumerate(rows)]

            def bodies(i: Operand, mask: Value | None) -> list[Value]:
                if finish is not None:
                    finish(i, mask)
                return [v for one in taken for v in one.terms(i, mask)]

            totals = iter(self.reductions([op for one in taken for op in one.ops], bodies))
            found = iter([one.then([next(totals) for _ in one.ops]) for one in taken])
            return [[next(found) for _ in range(side)] for _ in steps[:known]]

        def flat(state: list[list[list[Value]]]) -> list[Value]:
            return [v for rows in state for row in rows for v in row]

        def shaped(carry: Sequence[Value]) -> list[list[list[Value]]]:
            old = iter(carry)
            return [[[next(old) for _ in row] for row in rows] for rows in state]

        with f.iff(f.icmp("slt", lo, hi)):
            state: list[list[list[Value]]] = []
            for known in range(1, depth + 1):
                state = advance(f.add(lo, side * (known - 1 - depth)), state, None, known)
            with f.loop(lo, end, side, [(v.type, v) for v in flat(state)]) as loop:
                now = shaped(loop.carry)
                finish = last(some(loop.i), now[-1])
                loop.next[:] = flat(advance(loop.i, now, finish, depth))
            now, count = shaped(loop.carry), f.sub(hi, end)
            for k in range(1, side + 1):
                with f.iff(f.icmp("eq", count, k)):
                    finish = last(some(end)[:k], now[-1][:k])
                    if finish is not None:
                        self.each(finish)

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

    def ask(self, at: Places, name: str, i: Operand) -> None:
        """Ask for what lies some lines behind an operand's i, where rows come from memory."""
        f, (_, d, kind, _, _) = self.f, self.operands[name]
        if kind == 1 and self.s.far:
            f.touch(f.gep(at[name], f.add(i, _SOON_BYTES // d.itemsize), memory(d)), level=2)

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

    def totals(self, count: int) -> list[Combine]:
        return [Combine(self.f, "sum", self.acc)] * count

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
            # of largest numbers alone, which wait for nothing but one another, four at a time
            n, chains = len(ops), WOVEN if all(isinstance(op, _Largest) for op in ops) else 1
            with f.loop(start, many, width, [(self.type, s) for s in sums * chains]) as loop:
                points = [f.add(loop.i, k * LANES) for k in range(WOVEN)]
                parts = [list(loop.carry[k * n : k * n + n]) for k in range(chains)]
                found = self.together([partial(bodies, i, None) for i in points])
                for k, terms in enumerate(found):
                    parts[k % chains] = _joined(ops, parts[k % chains], terms, LANES)
                loop.next[:] = itertools.chain(*parts)
            start, sums = many, list(loop.carry[:n])
            for k in range(1, chains):
                sums = _joined(ops, sums, loop.carry[k * n : k * n + n], LANES)
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

    def softmaxes(self, lo: Operand, hi: Operand) -> None:
        """Rows whose last pass takes what maximum and exponentials gave."""
        self.passes(lo, hi, [self.largest, self.exponentials], lambda rows, numbers: (
            self.last_pass(rows[0], numbers[0])))  # fmt: skip

    def largest(self, at: Places, _: list[Value]) -> Sums:
        """The row's maximum, but for NaN."""

        def terms(i: Operand, mask: Value | None) -> list[Value]:
            self.ask(at, "x", i)
            return [self.read(at, "x", i, mask)]

        return Sums([_Largest(self.f, "max", self.acc)], terms, list)

    def further(self) -> tuple[Callable[..., list[Value]] | None, int]:
        """What else is summed beside the exponentials, and how many sums that is."""
        return None, 0

    def exponentials(self, at: Places, numbers: list[Value]) -> Sums:
        """(maximum, the row's sum of exponentials of x - maximum, what `further` sums)."""
        m, (more, extra) = self.element.math, self.further()
        wide = self.f.splat(numbers[0], self.type)

        def terms(i: Operand, mask: Value | None) -> list[Value]:
            d = m.sub(self.read(at, "x", i, mask), wide)
            e = exp_below(m, d)
            if "held" in at:  # where the last pass has taken those of the row before
                self._put(at["held"], i, e, mask)
            return [e] if more is None else [e, *more(at, i, mask, d)]

        return Sums(self.totals(1 + extra), terms, lambda sums: [*numbers, *sums])

    def last_pass(self, at: Places, numbers: list[Value]) -> Pass:
        """A row's results from what its exponentials gave."""
        f, m = self.f, self.element.math
        log = self.s.kind == "log_softmax"
        top, total = numbers[:2]
        total = self.one.scalar("log", self.acc, total) if log else total
        top, total = f.splat(top, self.type), f.splat(total, self.type)

        def finish(i: Operand, mask: Value | None) -> None:
            if log:
                y = m.sub(m.sub(self.read(at, "x", i, mask), top), total)
            else:
                y = m.div(self.waiting(at, i, mask), total)
            self.write(at, i, y, mask)

        return finish

    def _products(self, at: Places, _: list[Value]) -> Sums:
        """sum g y, or of log_softmax sum g."""
        log = self.s.kind == "log_softmax_grad"

        def terms(i: Operand, mask: Value | None) -> list[Value]:
            g = self.read(at, "g", i, mask)
            self.ask(at, "g", i)
            if log:
                return [g]
            self.ask(at, "x", i)
            return [self.element.math.mul(g, self.read(at, "x", i, mask))]

        return Sums(self.totals(1), terms, list)

    def _softmax_grad(self, rows: list[Places], numbers: list[list[Value]]) -> Pass:
        m, log, (at,) = self.element.math, self.s.kind == "log_softmax_grad", rows
        total = self.f.splat(numbers[0][0], self.type)

        def finish(i: Operand, mask: Value | None) -> None:
            g, y = self.read(at, "g", i, mask), self.read(at, "x", i, mask)
            if log:
                y = m.sub(g, m.mul(self.element.scalar("exp", self.acc, y), total))
            else:
                y = m.mul(y, m.sub(g, total))
            self.write(at, i, y, mask)

        return finish

    def _norm_grads(self) -> None:
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
            lo, hi = f.min(first, self.rows), f.min(f.add(first, block), self.rows)
            steps, last = self._statistics(slopes=True), partial(self._norm_grad, sums=sums)
            self.passes(lo, hi, steps, last, 1 + self.s.pairs)

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

    def _norm_grad(
        self, rows: list[Places], numbers: list[list[Value]], *, sums: list[Value]
    ) -> Pass:
        f, m = self.f, self.element.math
        wide = [[f.splat(v, self.type) for v in row] for row in numbers]

        def finish(i: Operand, mask: Value | None) -> None:
            weight = self.read(rows[0], "weight", i, mask)
            totals = [self._get(start, i, mask) for start in sums]
            for at, (scale, slope, *centre) in zip(rows, wide, strict=True):
                g, d = self.read(at, "g", i, mask), self.read(at, "x", i, mask)
                inner = m.mul(g, weight)
                if centre:
                    d, inner = m.sub(d, centre[0]), m.sub(inner, centre[1])
                self.write(at, i, m.mul(scale, m.sub(inner, m.mul(d, slope))), mask)
                terms = m.mul(g, m.mul(d, scale)), g
                totals = [m.add(v, term) for v, term in zip(totals, terms, strict=True)]
            for start, v in zip(sums, totals, strict=True):
                self._put(start, i, v, mask)

        return finish

    def _statistics(self, *, slopes: bool = False) -> list[Step]:
        """The steps that give (1 / deviation, [mean]) of each row; with `slopes` (1 / deviation,
        the factor of d, [mean, sum h / n])."""
        f, m, one = self.f, self.element.math, self.one.math
        n = self.one.cast(self.count, D.int64, self.acc)
        eps = self.one.cast(self.eps, D.float64, self.acc)
        centred = self.s.kind.startswith("layer_norm")

        def mean(at: Places, _: list[Value]) -> Sums:
            def terms(i: Operand, mask: Value | None) -> list[Value]:
                self.ask(at, "x", i)
                return [self.read(at, "x", i, mask)]

            return Sums(self.totals(1), terms, lambda sums: [one.div(sums[0], n)])

        def squares(at: Places, means: list[Value]) -> Sums:
            centres = [f.splat(v, self.type) for v in means]

            def terms(i: Operand, mask: Value | None) -> list[Value]:
                d = self.read(at, "x", i, mask)
                if not centred:
                    self.ask(at, "x", i)
                d = m.sub(d, centres[0]) if centred else d
                if not slopes:
                    return [m.mul(d, d)]
                h = m.mul(self.read(at, "g", i, mask), self.read(at, "weight", i, mask))
                self.ask(at, "g", i)
                return [m.mul(d, d), m.mul(h, d), *([h] if centred else [])]

            def then(sums: list[Value]) -> list[Value]:
                rstd = self.one.scalar("rsqrt", self.acc, one.add(one.div(sums[0], n), eps))
                if not slopes:
                    return [rstd, *means]
                slope = one.div(one.mul(sums[1], one.mul(rstd, rstd)), n)
                return [rstd, slope, *means, *(one.div(v, n) for v in sums[2:])]

            return Sums(self.totals(2 + centred if slopes else 1), terms, then)

        return [mean, squares] if centred else [squares]

    def _norm(self, rows: list[Places], numbers: list[list[Value]]) -> Pass:
        f, m, (at,), (row,) = self.f, self.element.math, rows, numbers
        for name, v in zip(("rstd", "mean"), row, strict=False):
            self._stat(at, name, v)
        scale, *mean = [f.splat(v, self.type) for v in row]

        def finish(i: Operand, mask: Value | None) -> None:
            weight, bias = (
                self.read(at, name, i, mask) if name in at else None for name in ("weight", "bias")
            )
            y = self.read(at, "x", i, mask)
            y = m.mul(m.sub(y, mean[0]) if mean else y, scale)
            y = y if weight is None else m.mul(y, weight)
            self.write(at, i, y if bias is None else m.add(y, bias), mask)

        return finish

    def _stat(self, at: dict[str, Value], name: str, v: Value) -> None:
        if name in at:
            d = self.operands[name][1]
            self.one.store(self.one.cast(v, self.acc, d), at[name], d)
