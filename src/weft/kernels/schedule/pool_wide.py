"""Pools of images that lie channels last: a vector holds neighbouring channels.

The numbers are those of `pool`: a NaN wins, the last of several; of equal elements the first wins;
an average adds rows, then columns; gradients are added window after window. Here a window's taps
outside the image are left out. Threads take rows of outputs; of an average, or a gradient whose
rows of windows overlap, images and blocks of channels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.nest import gather, one_stage
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import Function, Module, Operand, Value, const, vector, zero
from weft.runtime import native
from weft.runtime.native import Launch

Pair = tuple[int, int]
_TAPS = 9  # of windows that code is made for
_BLOCK = 64  # channels of an average or a gradient that a thread takes at once
_HEAD = (
    "images", "channels", "height", "width", "out_h", "out_w", "kernel_h", "kernel_w",
    "step_h", "step_w", "pad_h", "pad_w", "gap_h", "gap_w",
    "x_n", "x_c", "x_h", "x_w", "out_n", "out_h_step", "out_w_step",
    "at_n", "at_c", "at_h", "at_w", "exact", "divisor", "with_pad",
)  # fmt: skip


def lies_wide(out: Layout, *others: Layout) -> bool:
    """Whether these kernels serve: the channels of the images are adjacent."""
    return out.shape[1] > 1 and not out.is_contiguous and all(
        a.strides[1] == 1 for a in (out, *others)
    )  # fmt: skip


def turns(x: Layout, out: Layout) -> bool:
    """Whether `turned` serves: images channels last to planes."""
    wide = x.shape[1] > 1 and x.strides[1] == 1 and not x.is_contiguous
    return wide and out.is_contiguous


def plan_wide_windows(
    kind: str, x: Layout, out: Layout, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair,
    taps: Layout | None = None, flags: Pair = (0, 0),
) -> Launch:  # fmt: skip
    """out = the maximum of each window (`max`; `taps`, and taps = the numbers of their taps), or
    where it lies in its plane (`argmax`), or the average (`avg`; flags: what it is divided by, or
    0, and whether padding counts). All but places may go to planes."""
    kind = f"turned_{kind}" if turns(x, out) else kind
    n, _, h, w = (0,) * 4 if taps is None else taps.strides
    values = (
        x.shape[0], *x.shape[1:], *out.shape[2:], *kernel, *stride, *padding, *dilation,
        *x.strides, out.strides[0], *out.strides[2:], n, out.strides[1], h, w, 0, *flags,
    )  # fmt: skip
    work = out.size * kernel[0] * kernel[1]
    whole = _whole(x, out, kernel, stride, padding, dilation)
    return one_stage(_kernel(D.from_np(x.dtype).name, kind, whole), values, work)


def plan_wide_back(
    g: Layout, taps: Layout, out: Layout, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Launch:
    """out = zeros with each window's g added at its tap of that number."""
    grid = tuple(n * s for n, s in zip(g.shape[2:], stride, strict=True))
    exact = kernel == stride and grid == out.shape[2:] and (padding, dilation) == ((0, 0), (1, 1))
    values = (
        out.shape[0], *out.shape[1:], *g.shape[2:], *kernel, *stride, *padding, *dilation,
        *taps.strides, out.strides[0], *out.strides[2:], *g.strides, int(exact), 0, 0,
    )  # fmt: skip
    work = g.size * kernel[0] * kernel[1] + out.size
    whole = _whole(out, g, kernel, stride, padding, dilation)
    return one_stage(_kernel(D.from_np(g.dtype).name, "back", whole), values, work)


def plan_wide_average(x: Layout, out: Layout) -> Launch:
    """out = the average of each adaptive window."""
    values = (
        x.shape[0], *x.shape[1:], *out.shape[2:], 0, 0, 0, 0, 0, 0, 0, 0,
        *x.strides, out.strides[0], *out.strides[2:], *(0,) * 7,
    )  # fmt: skip
    return one_stage(_kernel(D.from_np(x.dtype).name, "average"), values, x.size)


def plan_wide_put(g: Layout, places: Layout, out: Layout) -> Launch:
    """out = zeros with g added at its flat places, in order; a place outside gives status 1."""
    values = (
        out.shape[0], *out.shape[1:], *g.shape[2:], 0, 0, 0, 0, 0, 0, 0, 0,
        *g.strides, out.strides[0], *out.strides[2:], *places.strides, 0, 0, 0,
    )  # fmt: skip
    work = 4 * g.size + out.size
    return one_stage(_kernel(D.from_np(g.dtype).name, "put"), values, work)


def _whole(
    x: Layout, grid: Layout, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Pair:
    """The kernel's size where code may know it: few taps, adjacent, all in the image."""
    inside = all(
        (o - 1) * s + k <= n
        for o, s, k, n in zip(grid.shape[2:], stride, kernel, x.shape[2:], strict=True)
    )
    plain = (padding, dilation) == ((0, 0), (1, 1)) and kernel[0] * kernel[1] <= _TAPS
    return kernel if inside and plain else (0, 0)


@cache
def _kernel(name: str, kind: str, whole: Pair = (0, 0)) -> int:
    return native.load_made([kind], pool_wide_ir, name, kind, whole)[kind]


def pool_wide_ir(name: str, kind: str, whole: Pair = (0, 0)) -> str:
    """The LLVM IR of a kernel for one dtype, and one size of windows unless it is (0, 0), for the
    host."""
    d = D.BY_NAME[name]
    m = Module()
    if kind == "average":
        _emit_average(m, d)
    elif kind == "put":
        _emit_put(m, d)
    elif kind == "back":
        _emit_back(m, d, whole)
    else:
        _emit_windows(m, d, kind, whole)
    return m.text()


def taps(f: Function, start: Operand, gap: Operand, size: Operand, kernel: Operand) -> tuple:
    """The taps [first, end) of a window at `start` that lie in [0, size)."""
    up = f.sub(gap, 1)
    first = f.div(f.add(f.max(f.sub(0, start), 0), up), gap)
    end = f.div(f.add(f.max(f.sub(size, start), 0), up), gap)
    return first, f.min(end, kernel)


@dataclass
class _Step:
    """A tap, what the ones before it left, and what the next one gets."""

    p: Operand
    q: Operand
    state: list
    next: list = field(default_factory=list)


class _Window:
    """A window of taps [p_low, p_high) x [q_low, q_high) inside the image; `whole` is its size
    where that is known."""

    def __init__(
        self, f: Function, h: dict[str, Value], row: Operand, column: Operand, whole: Pair
    ) -> None:
        self.f, self.h, self.whole = f, h, whole
        self.y = f.sub(f.mul(row, h["step_h"]), h["pad_h"])
        self.x = f.sub(f.mul(column, h["step_w"]), h["pad_w"])
        self.rows: tuple = (0, whole[0])
        self.columns: tuple = (0, whole[1])
        if whole == (0, 0):
            self.rows = taps(f, self.y, h["gap_h"], h["height"], h["kernel_h"])
            self.columns = taps(f, self.x, h["gap_w"], h["width"], h["kernel_w"])

    def each(self, state: list[tuple[str, Operand]]) -> Iterator[_Step]:
        """For each tap in order; `state` is carried from one to the next, and is the last's."""
        f = self.f
        if self.whole != (0, 0):
            for p in range(self.whole[0]):
                for q in range(self.whole[1]):
                    step = _Step(p, q, [v for _, v in state])
                    yield step
                    state[:] = [(t, v) for (t, _), v in zip(state, step.next, strict=True)]
            return
        with f.loop(*self.rows, carry=state) as P:
            inner = [(t, v) for (t, _), v in zip(state, P.carry, strict=True)]
            with f.loop(*self.columns, carry=inner) as Q:
                step = _Step(P.i, Q.i, list(Q.carry))
                yield step
                Q.next = step.next
            P.next = list(Q.carry)
        state[:] = [(t, v) for (t, _), v in zip(state, P.carry, strict=True)]

    def place(self, p: Operand, q: Operand) -> tuple[Operand, Operand]:
        """The pixel of a tap."""
        f, h = self.f, self.h
        return f.add(self.y, f.mul(p, h["gap_h"])), f.add(self.x, f.mul(q, h["gap_w"]))

    def number(self, p: Operand, q: Operand, type: str, *, taps: bool) -> Value:
        """A tap's number in its window, or its pixel's flat index in its plane, in every lane."""
        f, h = self.f, self.h
        width = (self.whole[1] or h["kernel_w"]) if taps else h["width"]
        p, q = (p, q) if taps else self.place(p, q)
        flat = f.add(f.mul(p, width), q)
        return f.splat(f.cast("trunc", f.typed(flat, "i64"), type.split()[-1][:-1]), type)

    def average(self, read: Callable[[Operand], Value], type: str) -> Value:
        """The sum of the taps / how many they are; read(offset in x)."""
        f, h = self.f, self.h
        state: list[tuple[str, Operand]] = [(type, const(type, 0.0))]
        for tap in self.each(state):
            y, x = self.place(tap.p, tap.q)
            v = read(f.add(f.mul(y, h["x_h"]), f.mul(x, h["x_w"])))
            tap.next = [f.op("fadd", f.typed(tap.state[0], type), v)]
        bare = f.icmp("eq", h["with_pad"], 0)
        counts: list[Value] = []
        for low, size, n in ((self.y, "height", "h"), (self.x, "width", "w")):
            high = f.add(low, h[f"kernel_{n}"])
            whole = f.sub(f.min(high, f.add(h[size], h[f"pad_{n}"])), low)
            inside = f.sub(f.min(high, h[size]), f.max(low, 0))
            count = f.select(bare, f.typed(inside, "i64"), f.typed(whole, "i64"))
            counts.append(f.cast("sitofp", count, type.split()[-1][:-1]))
        given = f.cast("sitofp", h["divisor"], type.split()[-1][:-1])
        own = f.op("fmul", *counts)
        divisor = f.select(f.icmp("ne", h["divisor"], 0), given, own)
        return f.op("fdiv", f.typed(state[0][1], type), f.splat(divisor, type))

    def best(
        self, read: Callable[[Operand], Value], type: str, index_type: str | None, *, taps: bool
    ) -> list[Value]:
        """The largest of the taps, and where it lies if that is wanted; read(offset in x)."""
        f, h = self.f, self.h
        state: list[tuple[str, Operand]] = [(type, const(type, float("-inf")))]
        if index_type:
            first = self.number(self.rows[0], self.columns[0], index_type, taps=taps)
            state.append((index_type, first))
        for tap in self.each(state):
            y, x = self.place(tap.p, tap.q)
            v = read(f.add(f.mul(y, h["x_h"]), f.mul(x, h["x_w"])))
            better = f.op("or", f.fcmp("ogt", v, tap.state[0]), f.fcmp("uno", v, v))
            tap.next = [f.select(better, v, tap.state[0])]
            if index_type:
                number = self.number(tap.p, tap.q, index_type, taps=taps)
                tap.next.append(f.select(better, number, tap.state[1]))
        return [f.typed(v, t) for t, v in state]


def _channels(f: Function, count: Operand, lanes: int) -> Iterator[tuple[Operand, Value | None]]:
    """`for channel, mask in ...`: vectors of `count` channels; the mask of the last, if any."""
    whole = f.mul(f.div(count, lanes), lanes)
    with f.loop(0, whole, lanes) as C:
        yield C.i, None
    with f.iff(f.icmp("slt", whole, count)):
        yield whole, f.lane_mask(f.sub(count, whole), lanes)


def _get(f: Function, type: str, pointer: Value, mask: Value | None) -> Value:
    return f.load(type, pointer) if mask is None else f.masked_load(type, pointer, mask)


def _put(f: Function, v: Value, pointer: Value, mask: Value | None) -> None:
    f.store(v, pointer) if mask is None else f.masked_store(v, pointer, mask)


def _emit_windows(m: Module, d: D.dtype, name: str, whole: Pair) -> None:
    f = m.kernel(name)
    places, taps, turned = name == "argmax", name.endswith("taps"), name.startswith("turned")
    average = name.endswith("avg")
    (out, *marks, x), _, h, _ = f.given(2 if taps else 1, _HEAD)
    lanes = native.host().lanes(4 if register(d) == "float" else 8)
    element = Element(f, lanes)
    type, index_type = vector(lanes, register(d)), vector(lanes, "i32")
    out_memory = "i64" if places else memory(d)
    # a block of channels of some windows, turned together
    room = f.alloca(type, _BLOCK)
    block = const("i64", _BLOCK) if turned else h["channels"]
    low, high = f.split(f.mul(h["images"], h["out_h"]))
    with f.loop(low, high) as R:
        image, row = f.div(R.i, h["out_h"]), f.rem(R.i, h["out_h"])
        at = f.add(f.mul(image, h["out_n"]), f.mul(row, h["out_h_step"]))
        line = f.gep(out, at, out_memory)
        source = f.gep(x, f.mul(image, h["x_n"]), memory(d))
        with f.loop(0, h["channels"], block) as B, f.loop(0, h["out_w"], lanes) as W:
            channels = f.min(f.sub(h["channels"], B.i), block)
            count = f.min(f.sub(h["out_w"], W.i), lanes)
            with f.loop(0, count) as X:
                window = _Window(f, h, row, f.add(W.i, X.i), whole)
                to = f.gep(line, f.mul(f.add(W.i, X.i), h["out_w_step"]), out_memory)
                at = f.add(f.mul(image, h["at_n"]), f.mul(row, h["at_h"]))
                at = f.add(at, f.mul(f.add(W.i, X.i), h["at_w"]))
                for start, mask in _channels(f, channels, lanes):
                    channel = f.add(B.i, start)

                    def read(
                        at: Operand, channel: Operand = channel, mask: Value | None = mask
                    ) -> Value:
                        pixel = f.gep(source, f.add(at, channel), memory(d))
                        return element.from_memory(_get(f, element.memory_type(d), pixel, mask), d)

                    wanted = index_type if places or taps else None
                    if average:
                        best = [element.rounded(window.average(read, type), d)]
                    else:
                        best = window.best(read, type, wanted, taps=taps)
                    if taps:
                        number = f.cast("trunc", best[1], vector(lanes, "i8"))
                        _put(f, number, f.gep(marks[0], f.add(at, channel), "i8"), mask)
                    if turned:
                        f.store(best[0], f.gep(room, f.add(start, X.i), type))
                    elif places:
                        result = f.cast("sext", best[1], vector(lanes, "i64"))
                        _put(f, result, f.gep(to, channel, out_memory), mask)
                    else:
                        result = element.to_memory(best[0], d)
                        _put(f, result, f.gep(to, channel, out_memory), mask)
            if turned:
                some = f.lane_mask(count, lanes)
                start = f.gep(line, f.mul(W.i, h["out_w_step"]), memory(d))
                with f.loop(0, channels, lanes) as C:
                    square = [f.load(type, f.gep(room, f.add(C.i, i), type)) for i in range(lanes)]
                    for j, v in enumerate(f.transpose(square)):
                        channel = f.add(C.i, j)
                        with f.iff(f.icmp("slt", channel, channels)):
                            at = f.mul(f.add(B.i, channel), h["at_c"])
                            v = element.to_memory(v, d)
                            f.masked_store(v, f.gep(start, at, memory(d)), some)
    f.ret()


def _emit_back(m: Module, d: D.dtype, whole: Pair) -> None:
    f = m.kernel("back")
    (out, g, taps), _, h, _ = f.given(2, _HEAD)
    lanes = native.host().lanes(4 if register(d) == "float" else 8)
    element = Element(f, lanes)
    held, bytes, nothing = (
        element.memory_type(d),
        vector(lanes, "i8"),
        zero(vector(lanes, register(d))),
    )

    def read(type: str, pointer: Value, stride: Value, mask: Value | None, last: Operand) -> Value:
        """Neighbouring channels, adjacent or not."""
        with f.if_else(f.icmp("eq", stride, 1)) as way:
            near = _get(f, type, pointer, mask)
            way.otherwise()
            far = gather(f, type, pointer, 0, stride, None if mask is None else last)
        return way.merge(type, near, far)

    apart = f.icmp("sge", h["step_h"], f.add(f.mul(f.sub(h["kernel_h"], 1), h["gap_h"]), 1))
    groups = f.select(apart, h["out_h"], const("i64", 1))  # rows of windows that share no element
    per = f.div(h["out_h"], groups)
    room = f.select(apart, h["channels"], const("i64", _BLOCK))
    blocks = f.div(f.add(h["channels"], f.sub(room, 1)), room)
    low, high = f.split(f.mul(f.mul(h["images"], groups), blocks))
    with f.loop(low, high) as U:
        line, channel = f.div(U.i, blocks), f.mul(f.rem(U.i, blocks), room)
        image, group = f.div(line, groups), f.rem(line, groups)
        count = f.min(f.sub(h["channels"], channel), room)
        first, after = f.mul(group, per), f.mul(f.add(group, 1), per)
        target = f.gep(out, f.add(f.mul(image, h["out_n"]), channel), memory(d))
        at = f.add(f.mul(image, h["x_n"]), f.mul(channel, h["x_c"]))
        numbers = f.gep(taps, at, "i8")
        at = f.add(f.mul(image, h["at_n"]), f.mul(channel, h["at_c"]))
        slopes = f.gep(g, at, memory(d))
        begin = f.max(f.sub(f.mul(first, h["step_h"]), h["pad_h"]), 0)
        end = f.min(f.sub(f.mul(after, h["step_h"]), h["pad_h"]), h["height"])
        begin = f.select(f.icmp("eq", first, 0), const("i64", 0), begin)
        end = f.select(f.icmp("eq", after, h["out_h"]), h["height"], end)
        end = f.select(f.icmp("ne", h["exact"], 0), begin, end)
        with f.loop(begin, end) as Y, f.loop(0, h["width"]) as X:
            at = f.add(f.mul(Y.i, h["out_h_step"]), f.mul(X.i, h["out_w_step"]))
            to = f.gep(target, at, memory(d))
            for start, mask in _channels(f, count, lanes):
                _put(f, zero(held), f.gep(to, start, memory(d)), mask)
        with f.loop(first, after) as Y, f.loop(0, h["out_w"]) as X:
            window = _Window(f, h, Y.i, X.i, whole)
            for start, mask in _channels(f, count, lanes):
                last = f.sub(f.sub(count, start), 1)
                x, y = (
                    f.add(f.add(f.mul(Y.i, h[n + "_h"]), f.mul(X.i, h[n + "_w"])),
                          f.mul(start, h[n + "_c"]))
                    for n in ("x", "at")
                )  # fmt: skip
                where = read(bytes, f.gep(numbers, x, "i8"), h["x_c"], mask, last)
                slope = read(held, f.gep(slopes, y, memory(d)), h["at_c"], mask, last)
                slope = element.from_memory(slope, d)
                for step in window.each([]):
                    pixel = window.place(step.p, step.q)
                    mine = f.icmp("eq", where, window.number(step.p, step.q, bytes, taps=True))
                    at = f.add(f.mul(pixel[0], h["out_h_step"]), f.mul(pixel[1], h["out_w_step"]))
                    to = f.gep(target, f.add(at, start), memory(d))
                    old = element.from_memory(_get(f, held, to, mask), d)
                    old = f.select(f.icmp("ne", h["exact"], 0), nothing, old)
                    total = f.op("fadd", old, f.select(mine, slope, nothing))
                    _put(f, element.to_memory(total, d), to, mask)
    f.ret()


def _emit_average(m: Module, d: D.dtype) -> None:
    f = m.kernel("average")
    (out, x), _, h, _ = f.given(1, _HEAD)
    lanes = native.host().lanes(4 if register(d) == "float" else 8)
    element, type = Element(f, lanes), vector(lanes, register(d))

    def span(i: Operand, size: Operand, grid: Operand) -> tuple[Value, Value]:
        end = f.div(f.add(f.mul(f.add(i, 1), size), f.sub(grid, 1)), grid)
        return f.typed(f.div(f.mul(i, size), grid), "i64"), f.typed(end, "i64")

    blocks = f.div(f.add(h["channels"], _BLOCK - 1), _BLOCK)
    low, high = f.split(f.mul(h["images"], blocks))
    with f.loop(low, high) as U, f.loop(0, h["out_h"]) as Y, f.loop(0, h["out_w"]) as X:
        image, channel = f.div(U.i, blocks), f.mul(f.rem(U.i, blocks), _BLOCK)
        count = f.min(f.sub(h["channels"], channel), _BLOCK)
        source = f.gep(x, f.add(f.mul(image, h["x_n"]), channel), memory(d))
        at = f.add(f.mul(image, h["out_n"]), f.mul(Y.i, h["out_h_step"]))
        at = f.add(f.add(at, f.mul(X.i, h["out_w_step"])), channel)
        to = f.gep(out, at, memory(d))
        top, bottom = span(Y.i, h["height"], h["out_h"])
        left, right = span(X.i, h["width"], h["out_w"])
        with f.loop(0, count, lanes) as C:
            mask = f.lane_mask(f.sub(count, C.i), lanes)
            with f.loop(top, bottom, carry=[(type, zero(type))]) as R:
                line = f.gep(source, f.add(f.mul(R.i, h["x_h"]), C.i), memory(d))
                with f.loop(left, right, carry=[(type, R.carry[0])]) as Q:
                    pixel = f.gep(line, f.mul(Q.i, h["x_w"]), memory(d))
                    v = element.from_memory(f.masked_load(element.memory_type(d), pixel, mask), d)
                    Q.next[0] = f.op("fadd", Q.carry[0], v)
                R.next = list(Q.carry)
            result = R.carry[0]
            for n in (f.sub(bottom, top), f.sub(right, left)):  # as torch: / rows / columns
                result = f.op("fdiv", result, f.splat(f.cast("sitofp", n, register(d)), type))
            result = element.stored(result, d)
            f.masked_store(result, f.gep(to, C.i, memory(d)), mask)
    f.ret()


def _emit_put(m: Module, d: D.dtype) -> None:
    f = m.kernel("put")
    (out, g, places), _, h, _ = f.given(2, _HEAD)
    lanes = native.host().lanes(4 if register(d) == "float" else 8)
    wide, one = Element(f, lanes), Element(f, 1)
    size = f.mul(h["height"], h["width"])
    blocks = f.div(f.add(h["channels"], _BLOCK - 1), _BLOCK)
    low, high = f.split(f.mul(h["images"], blocks))
    with f.loop(low, high) as U:
        image, channel = f.div(U.i, blocks), f.mul(f.rem(U.i, blocks), _BLOCK)
        count = f.min(f.sub(h["channels"], channel), _BLOCK)
        target = f.gep(out, f.add(f.mul(image, h["out_n"]), channel), memory(d))
        with f.loop(0, h["height"]) as Y, f.loop(0, h["width"]) as X:
            at = f.add(f.mul(Y.i, h["out_h_step"]), f.mul(X.i, h["out_w_step"]))
            to = f.gep(target, at, memory(d))
            with f.loop(0, count, lanes) as C:
                mask = f.lane_mask(f.sub(count, C.i), lanes)
                f.masked_store(zero(wide.memory_type(d)), f.gep(to, C.i, memory(d)), mask)
        at = f.add(f.mul(image, h["x_n"]), f.mul(channel, h["x_c"]))
        source = f.gep(g, at, memory(d))
        at = f.add(f.mul(image, h["at_n"]), f.mul(channel, h["at_c"]))
        numbers = f.gep(places, at, "i64")
        with f.loop(0, h["out_h"]) as Y, f.loop(0, h["out_w"]) as X, f.loop(0, count) as C:
            at = f.add(f.mul(Y.i, h["x_h"]), f.mul(X.i, h["x_w"]))
            value = one.load(f.gep(source, f.add(at, f.mul(C.i, h["x_c"])), memory(d)), d)
            at = f.add(f.mul(Y.i, h["at_h"]), f.mul(X.i, h["at_w"]))
            number = f.load("i64", f.gep(numbers, f.add(at, f.mul(C.i, h["at_c"])), "i64"))
            with f.if_else(f.icmp("ult", number, size)) as way:
                # images have no gaps: the rows follow on one another
                place = f.gep(target, f.add(f.mul(number, h["out_w_step"]), C.i), memory(d))
                total = f.op("fadd", one.load(place, d), value)
                one.store(one.rounded(total, d), place, d)
                way.otherwise()
                f.store(number, f.gep(f.arg("args"), 1, "i64"))
                f.store(const("i64", 1), f.arg("args"))
    f.ret()
