"""Cross entropy of rows of logits x and one class t a row: the row kernels of softmax, ended so.

    d = x - max x,  L = log(sum exp d),  loss = a (L - d[t]) + b (C L - sum d)
    its gradient:  exp(d) (g / sum exp d) - b g,  less a g at t
    of probabilities p a row:  q = a p + b,  Q = sum q,  loss = L Q - sum q d
    its gradient:  exp(d) (g Q / sum exp d) - g q

a = 1 - smoothing and b = smoothing / C; without smoothing the terms of b are left out.  A row whose
t is `ignore` has loss 0 and a cotangent g of 0.  "sum" and "mean" add the rows' losses, of each
group where there are such, one after another in float64.

Pointer order: out, [g], x, target (int64, or p).  Status 1: a target outside [0, C).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from weft.core import dtype as D
from weft.core.dtype import dtype
from weft.kernels.layout import Layout
from weft.kernels.schedule.columns import Columns, Lines, lines_of
from weft.kernels.schedule.nest import (
    EMPTY,
    PARALLEL_WORK,
    QUICK_WORK,
    Space,
    load_part,
    scatter,
)
from weft.kernels.schedule.reduce import LANES
from weft.kernels.schedule.rows import LINE, Pass, Places, Rows, Structure, Sums, structure_of
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import (
    Function,
    Module,
    Operand,
    Reader,
    Value,
    const,
    lane_numbers,
    vector,
    with_element,
    zero,
)
from weft.kernels.target.vector import Math
from weft.runtime.native import Launch, Stage, double_bits, load_made


def plan_cross_entropy(
    x: Layout, target: Layout, out: Layout, *, ignore: int, reduction: str, smoothing: float,
    logits: bool = True,
) -> Launch:  # fmt: skip
    """out (..., N), or (...) of a reduction = cross entropy of x (..., N, C) and target (..., N) or
    (..., N, C), of at most one dim before; inputs (x, target).  Without `logits` x has their
    log-probabilities, and smoothing is 0."""
    arrays = {"out": out, "x": x, "target": target}
    return _plan("cross_entropy", arrays, ignore, reduction, smoothing, logits=logits)


def plan_cross_entropy_grad(
    g: Layout, x: Layout, target: Layout, out: Layout, *, ignore: int, reduction: str,
    smoothing: float,
) -> Launch:  # fmt: skip
    """out = the cotangent of x for g, of the loss's shape; inputs (g, x, target)."""
    arrays = {"out": out, "g": g, "x": x, "target": target}
    return _plan("cross_entropy_grad", arrays, ignore, reduction, smoothing)


def _plan(
    kind: str, arrays: dict[str, Layout], ignore: int, reduction: str, smoothing: float, *,
    logits: bool = True,
) -> Launch:  # fmt: skip
    *rows, classes = arrays["x"].shape
    if 0 in arrays["out"].shape:
        return EMPTY
    # a stride for each dim of the rows: of a reduction's result and cotangent the last is 0
    steps = [(*v.strides, 0)[: len(rows)] for v in arrays.values()]
    along = {k: v.strides[-1] if len(v.shape) > len(rows) else 0 for k, v in arrays.items()}
    space = Space(tuple(rows), tuple(steps))
    s, ints, per_thread = structure_of(kind, arrays, space, classes, along)
    spread = smoothing / classes if classes else 0.0
    amount = space.size * (classes * 16 if logits else 1)
    parts, scratch = ["rows"], 0
    if reduction != "none" and kind == "cross_entropy":
        parts, scratch = ["rows", "groups"], space.size * 8
    elif reduction == "mean":
        parts, scratch = ["groups", "rows"], -(-space.size * 8 // LINE) * LINE
    ints += [ignore, scratch, double_bits(1.0 - smoothing), double_bits(spread)]
    made: Structure | Lines = s
    wide = [v for v in arrays.values() if len(v.shape) > len(rows)]
    apart = classes and rows[-1] > 1 and all(v.strides[-2] == 1 for v in wide)
    if apart and logits and not _soft(arrays):
        types, steps = dict(s.dtypes), (along["out"], along["x"])
        made, more, per_thread = lines_of(types, space, classes, steps, len(ints))
        ints += more
    stages = tuple(
        Stage(
            _kernel(s if part == "groups" else made, kind, reduction, smoothing > 0, part, logits),
            part == "rows" and amount >= PARALLEL_WORK,
        )
        for part in parts
    )
    return Launch(stages, tuple(ints), scratch, per_thread, quick=amount < QUICK_WORK)


def _soft(arrays: dict[str, Layout]) -> bool:
    return arrays["target"].shape == arrays["x"].shape


@lru_cache(maxsize=256)
def _kernel(
    s: Structure | Lines, kind: str, reduction: str, smooth: bool, part: str, logits: bool
) -> int:
    return load_made(["rows"], _source, s, kind, reduction, smooth, part, logits)["rows"]


def _source(
    s: Structure | Lines, kind: str, reduction: str, smooth: bool, part: str, logits: bool
) -> str:
    module = Module()
    if isinstance(s, Lines):
        _LineLoss(module, s, kind, reduction, smooth).emit()
    else:
        made = _ClassLoss(module, s, reduction, smooth)
        made.logits = logits
        made.emit() if part == "rows" else made.groups()
    return module.text()


class _Classes:
    """What both kernels do with a row's class."""

    f: Function
    one: Element
    acc: dtype
    count: Value
    smooth: bool

    def settings(self, take: Callable[..., list[Value]]) -> None:
        self.ignore, self.shared = take(2)
        self.mine, self.spread = (self.one.cast(v, D.float64, self.acc) for v in take(2, "double"))

    def checked(self, t: Value) -> Value:
        """Whether rows of class t count; a class outside is reported, and does not."""
        f = self.f
        kept = f.icmp("ne", t, f.splat(self.ignore, t.type))
        inside = f.icmp("ult", t, f.splat(self.count, t.type))
        outside = f.op("and", kept, f.op("xor", inside, const(inside.type, True)))
        with f.iff(self.one.math.any(outside)):
            f.store(f.typed(1, "i64"), f.arg("args"))
        return f.op("and", kept, inside)

    def loss(self, m: Math, own: Value, log: Value, total: Value | None) -> Value:
        """The loss of rows whose classes' x - max x is `own`; `total`: the sum of x - max x."""
        loss = m.sub(log, own)
        if total is None:
            return loss
        n = self.one.cast(self.count, D.int64, self.acc)
        n, mine, spread = (self.f.splat(v, log.type) for v in (n, self.mine, self.spread))
        rest = m.mul(spread, m.sub(m.mul(n, log), total))
        return m.add(m.mul(mine, loss), rest)


class _LineLoss(_Classes, Columns):
    """Rows that lie side by side, a vector of them at a time."""

    def __init__(
        self, module: Module, s: Lines, kind: str, reduction: str, smooth: bool
    ) -> None:  # fmt: skip
        super().__init__(module, s)
        self.kind, self.reduction, self.smooth = kind, reduction, smooth
        self.settings(Reader(self.f, "%args", 3 + len(s.operands) + s.skip - 4).take)
        self.kinds = dict(zip(self.operands, s.kinds, strict=True))

    def emit(self, before: Operand = 0) -> None:
        super().emit(self.shared)

    def lines(self, at: dict[str, Value], mask: Value | None, n: Operand) -> None:
        if self.kind == "cross_entropy":
            self._losses(at, mask, n)
        else:
            self._gradients(at, mask, n)

    def _given(self, at: dict[str, Value], name: str, mask: Value | None, n: Operand) -> Value:
        """What an operand has for each line."""
        f, (_, d, strides) = self.f, self.operands[name]
        type, one = self.element.memory_type(d), memory(d)
        if self.kinds[name] == 0:
            v = f.splat(f.load(one, at[name]), type)
        elif self.kinds[name] == 1:
            v = f.load(type, at[name]) if mask is None else load_part(f, type, at[name], mask, n)
        else:
            room = f.alloca(type)
            f.store(zero(type), room)
            with f.loop(0, n) as lane:
                v = f.load(one, f.gep(at[name], f.mul(strides[-1], lane.i), one))
                f.store(v, f.gep(room, lane.i, one))
            v = f.load(type, room)
        return self.element.from_memory(v, d)

    def _is(self, t: Value, r: Operand) -> Value:
        """Which lines are of class r."""
        return self.f.icmp("eq", t, self.f.splat(self.f.cast("trunc", r, "i32"), t.type))

    def _classes(self, at: dict[str, Value], mask: Value | None, n: Operand) -> tuple[Value, Value]:
        """The lines' classes, and which lines count."""
        t = self._given(at, "target", mask, n)
        return self.f.cast("trunc", t, with_element(t.type, "i32")), self.checked(t)

    def _losses(self, at: dict[str, Value], mask: Value | None, n: Operand) -> None:
        f, element = self.f, self.element
        t, counts = self._classes(at, mask, n)
        own = f.alloca(self.type)
        f.store(zero(self.type), own)

        def pick(r: Operand, d: Value) -> None:
            f.store(f.select(self._is(t, r), d, f.load(self.type, own)), own)

        _, total, distance, _ = self.exponentials(at, mask, n, last=False, also=pick)
        log = element.scalar("log", self.acc, total)
        rest = self.total(distance) if self.smooth else None
        loss = f.select(counts, self.loss(element.math, f.load(self.type, own), log, rest), 0.0)
        if self.reduction == "none":
            d, strides = self.operands["out"][1:]
            loss = element.to_memory(element.cast(loss, self.acc, d), d)
            if self.kinds["out"] != 1:
                scatter(f, loss, at["out"], 0, strides[-1], n)
                return
            place = at["out"]
        else:
            place = f.gep(self.scratch, self.row, register(self.acc))
        self.store(loss, place, mask, n)

    def _gradients(self, at: dict[str, Value], mask: Value | None, n: Operand) -> None:
        f, m = self.f, self.element.math
        t, counts = self._classes(at, mask, n)
        if self.reduction == "mean":
            one = register(self.acc)
            g = f.splat(f.load(one, f.gep(self.scratch, self.group, one)), self.type)
        else:
            g = self._given(at, "g", mask, n)
            g = self.element.cast(g, self.operands["g"][1], self.acc)
        g = f.select(counts, g, 0.0)
        _, total, _, exponential = self.exponentials(at, mask, n, last=True)
        factor, (own, rest) = (
            m.div(g, total),
            (
                m.mul(g, f.splat(v, self.type)) if self.smooth else g
                for v in (self.mine, self.spread)
            ),
        )
        with f.loop(0, self.count) as loop:
            y = m.mul(exponential(loop.i), factor)
            y = m.sub(y, rest) if self.smooth else y
            self.put(at, loop.i, f.select(self._is(t, loop.i), m.sub(y, own), y), mask, n)


class _ClassLoss(_Classes, Rows):
    logits = True  # else x has log-probabilities

    def __init__(self, module: Module, s: Structure, reduction: str, smooth: bool) -> None:
        super().__init__(module, s)
        self.reduction, self.smooth = reduction, smooth
        self.soft = self.operands["target"][1] is not D.int64
        self.settings(self.take)

    def emit(self) -> None:
        f = self.f
        lo, hi = f.split(self.rows)
        if self.s.kind == "cross_entropy":
            if self.logits:
                self.passes(lo, hi, [self.largest, self._losses], lambda rows, numbers: None)
            else:
                with f.loop(lo, hi) as rows:
                    self._loss(self.places(rows.i), [])
        else:
            self.softmaxes(lo, hi)
            self.fence()
        f.ret()

    def places(self, row: Operand) -> Places:
        f = self.f
        at = super().places(row)
        if self.s.kind == "cross_entropy":
            at["loss"] = f.gep(self.scratch, row, register(self.acc))
        elif self.reduction == "mean":
            group = f.div(row, self.sizes[1]) if self.s.rank == 2 else 0
            at["g"] = f.gep(self.scratch, group, register(self.acc))
            at["held"] = f.gep(at["held"], self.shared) if self.s.held else at["held"]
        return at

    def groups(self) -> None:
        """Of each group of rows the sum or mean of its losses, or a row's share of g."""
        f, m, acc = self.f, self.one.math, self.acc
        groups, n = (1, self.sizes[0]) if self.s.rank == 1 else self.sizes
        name = "out" if self.s.kind == "cross_entropy" else "g"
        pointer, d, _, _, strides = self.operands[name]
        with f.loop(0, groups) as group:
            first = f.mul(group.i, n)
            place = f.gep(pointer, f.mul(group.i, strides[0]) if self.s.rank == 2 else 0, memory(d))
            with f.loop(0, n, 1, [("double", 0.0), ("i64", 0)]) as rows:
                at = self.places(f.add(first, rows.i))
                kept = f.typed(1, "i1")
                if not self.soft:
                    kept = f.icmp("ne", f.load("i64", at["target"]), self.ignore)
                y = rows.carry[0]
                if name == "out":
                    y = m.add(y, self.one.cast(f.load(register(acc), at["loss"]), acc, D.float64))
                rows.next[:] = [y, f.add(rows.carry[1], f.cast("zext", kept, "i64"))]
            y, count = rows.carry
            if name == "g":
                y = self.one.cast(self.one.load(place, d), d, D.float64)
            y = (
                m.div(y, self.one.cast(count, D.int64, D.float64))
                if self.reduction == "mean"
                else y
            )
            if name == "out":
                self.one.store(self.one.cast(y, D.float64, d), place, d)
            else:
                share = f.gep(self.scratch, group.i, register(acc))
                f.store(self.one.cast(y, D.float64, acc), share)
        f.ret()

    def further(self) -> tuple[Callable[..., list[Value]] | None, int]:
        m, loss = self.element.math, self.s.kind == "cross_entropy"
        if self.soft and loss:

            def expected(at: Places, i: Operand, mask: Value | None, d: Value) -> list[Value]:
                q = self._probabilities(at, i, mask)
                return [m.mul(q, d), q]

            return expected, 2
        if self.soft:
            return lambda at, i, mask, d: [self._probabilities(at, i, mask)], 1
        return (lambda at, i, mask, d: [d], 1) if self.smooth and loss else (None, 0)

    def _probabilities(self, at: Places, i: Operand, mask: Value | None) -> Value:
        """a p + b"""
        m, f = self.element.math, self.f
        p = self.read(at, "target", i, mask)
        if not self.smooth:
            return p
        own, rest = (f.splat(v, self.type) for v in (self.mine, self.spread))
        return m.add(m.mul(p, own), rest)

    def _losses(self, at: Places, numbers: list[Value]) -> Sums:
        def then(sums: list[Value]) -> list[Value]:
            self._loss(at, made := step.then(sums))
            return made

        step = self.exponentials(at, numbers)
        return step._replace(then=then)

    def _loss(self, at: Places, numbers: list[Value]) -> None:
        """A row's loss from (maximum, sum of exponentials, further sums), if it has logits."""
        f, m, acc = self.f, self.one.math, self.acc
        top, total, *sums = numbers or [f.typed(0.0, register(acc))] * 2
        log = self.one.scalar("log", acc, total) if numbers else total
        if self.soft:
            loss = m.sub(m.mul(log, sums[1]), sums[0])
        else:
            t = f.load("i64", at["target"])
            with f.if_else(self.checked(t)) as sides:
                _, d, _, stride, _ = self.operands["x"]
                own = self.one.load(f.gep(at["x"], f.mul(t, stride), memory(d)), d)
                own = self.one.cast(own, d, acc)
                own = m.sub(own, top) if self.logits else own
                loss = self.loss(m, own, log, sums[0] if self.smooth else None)
                sides.otherwise()
            loss = sides.merge(loss.type, loss, 0.0)
        if self.reduction == "none":
            d = self.operands["out"][1]
            self.one.store(self.one.cast(loss, acc, d), at["out"], d)
        else:
            f.store(loss, at["loss"])

    def last_pass(self, at: Places, numbers: list[Value]) -> Pass:
        f, m, one = self.f, self.element.math, self.one.math
        d = self.acc if self.reduction == "mean" else self.operands["g"][1]
        g = self.one.cast(self.one.load(at["g"], d), d, self.acc)
        if self.soft:
            factor = f.splat(one.div(one.mul(g, numbers[2]), numbers[1]), self.type)
            each = f.splat(g, self.type)

            def distances(i: Operand, mask: Value | None) -> None:
                y = m.mul(self.waiting(at, i, mask), factor)
                y = m.sub(y, m.mul(each, self._probabilities(at, i, mask)))
                self.write(at, i, y, mask)

            return distances
        t = f.load("i64", at["target"])
        g = f.select(self.checked(t), g, 0.0)
        factor = f.splat(one.div(g, numbers[1]), self.type)
        own = f.splat(one.mul(g, self.mine) if self.smooth else g, self.type)
        rest = f.splat(one.mul(g, self.spread), self.type)
        lanes = lane_numbers(vector(LANES, "i32"))

        def finish(i: Operand, mask: Value | None) -> None:
            y = m.mul(self.waiting(at, i, mask), factor)
            y = m.sub(y, rest) if self.smooth else y
            here = f.splat(f.cast("trunc", f.typed(f.sub(t, i), "i64"), "i32"), lanes.type)
            self.write(at, i, f.select(f.icmp("eq", lanes, here), m.sub(y, own), y), mask)

        return finish
