"""Maximum pools of images that lie channels last: a vector holds neighbouring channels.

The numbers are those of `pool`: a NaN wins, the last of several; of equal elements the first wins;
gradients are added window after window. Here a window's taps outside the image are left out.
Threads take rows of outputs; of a gradient, images and blocks of channels.
"""

from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.conv_code import open_block
from weft.kernels.schedule.nest import PARALLEL_WORK, QUICK_WORK
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import Function, Module, Operand, Value, const, vector, zero
from weft.runtime import native
from weft.runtime.native import Launch, Stage

Pair = tuple[int, int]
_BLOCK = 64  # channels of a gradient that a thread takes at once
_HEAD = (
    "images", "channels", "height", "width", "out_h", "out_w", "kernel_h", "kernel_w",
    "step_h", "step_w", "pad_h", "pad_w", "gap_h", "gap_w",
    "x_n", "x_c", "x_h", "x_w", "out_n", "out_h_step", "out_w_step",
    "at_n", "at_c", "at_h", "at_w",
)  # fmt: skip


def lies_wide(out: Layout, *others: Layout) -> bool:
    """Whether these kernels serve: the channels of the images are adjacent."""
    return out.shape[1] > 1 and not out.is_contiguous and all(
        a.strides[1] == 1 for a in (out, *others)
    )  # fmt: skip


def plan_wide_max(
    kind: str, x: Layout, out: Layout, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Launch:
    """out = the maximum of each window (`max`), or where it lies in its plane (`argmax`)."""
    values = (
        x.shape[0], *x.shape[1:], *out.shape[2:], *kernel, *stride, *padding, *dilation,
        *x.strides, out.strides[0], *out.strides[2:], 0, 0, 0, 0,
    )  # fmt: skip
    work = out.size * kernel[0] * kernel[1]
    stage = Stage(_kernels(D.from_np(x.dtype).name)[kind], work >= PARALLEL_WORK)
    return Launch((stage,), values, quick=work < QUICK_WORK)


def plan_wide_put(g: Layout, places: Layout, out: Layout) -> Launch:
    """out = zeros with g added at its flat places, in order; a place outside gives status 1."""
    values = (
        out.shape[0], *out.shape[1:], *g.shape[2:], 0, 0, 0, 0, 0, 0, 0, 0,
        *g.strides, out.strides[0], *out.strides[2:], *places.strides,
    )  # fmt: skip
    work = 4 * g.size + out.size
    stage = Stage(_kernels(D.from_np(g.dtype).name)["put"], work >= PARALLEL_WORK)
    return Launch((stage,), values, quick=work < QUICK_WORK)


@cache
def _kernels(name: str) -> dict[str, int]:
    return native.load(pool_wide_ir(name), ("max", "argmax", "put"))


def pool_wide_ir(name: str) -> str:
    """The LLVM IR of the kernels of one dtype, for the host."""
    d = D.BY_NAME[name]
    m = Module(native.host().vector_bits)
    _emit_max(m, d, places=False)
    _emit_max(m, d, places=True)
    _emit_put(m, d)
    return m.text()


def _taps(f: Function, start: Operand, gap: Operand, size: Operand, kernel: Operand) -> tuple:
    """The taps [first, end) of a window at `start` that lie in [0, size)."""
    up = f.sub(gap, 1)
    first = f.div(f.add(f.max(f.sub(0, start), 0), up), gap)
    end = f.div(f.add(f.max(f.sub(size, start), 0), up), gap)
    return first, f.min(end, kernel)


def _emit_max(m: Module, d: D.dtype, *, places: bool) -> None:
    f = m.kernel("argmax" if places else "max")
    (out, x), _, h, _ = open_block(f, 1, _HEAD)
    lanes = native.host().lanes(4 if register(d) == "float" else 8)
    element = Element(f, lanes)
    type, index_type = vector(lanes, register(d)), vector(lanes, "i32")
    out_memory = "i64" if places else memory(d)
    low, high = f.split(f.mul(h["images"], h["out_h"]))
    with f.loop(low, high) as R, f.loop(0, h["out_w"]) as X:
        image, row = f.div(R.i, h["out_h"]), f.rem(R.i, h["out_h"])
        y = f.sub(f.mul(row, h["step_h"]), h["pad_h"])
        column = f.sub(f.mul(X.i, h["step_w"]), h["pad_w"])
        p_low, p_high = _taps(f, y, h["gap_h"], h["height"], h["kernel_h"])
        q_low, q_high = _taps(f, column, h["gap_w"], h["width"], h["kernel_w"])
        at = f.add(f.mul(image, h["out_n"]), f.mul(row, h["out_h_step"]))
        to = f.gep(out, f.add(at, f.mul(X.i, h["out_w_step"])), out_memory)
        source = f.gep(x, f.mul(image, h["x_n"]), memory(d))
        with f.loop(0, h["channels"], lanes) as C:
            mask = f.lane_mask(f.sub(h["channels"], C.i), lanes)
            carry: list[tuple[str, Operand]] = [(type, const(type, float("-inf")))]
            if places:
                top = f.add(y, f.mul(p_low, h["gap_h"]))
                left = f.add(column, f.mul(q_low, h["gap_w"]))
                carry.append((index_type, _number(f, top, left, h, index_type)))
            with f.loop(p_low, p_high, carry=carry) as P:
                down = f.add(y, f.mul(P.i, h["gap_h"]))
                line = f.gep(source, f.add(f.mul(down, h["x_h"]), C.i), memory(d))
                inner = [(t, v) for (t, _), v in zip(carry, P.carry, strict=True)]
                with f.loop(q_low, q_high, carry=inner) as Q:
                    across = f.add(column, f.mul(Q.i, h["gap_w"]))
                    pixel = f.gep(line, f.mul(across, h["x_w"]), memory(d))
                    loaded = f.masked_load(element.memory_type(d), pixel, mask)
                    v, best = element.from_memory(loaded, d), Q.carry[0]
                    better = f.op("or", f.fcmp("ogt", v, best), f.fcmp("uno", v, v))
                    Q.next[0] = f.select(better, v, best)
                    if places:
                        number = _number(f, down, across, h, index_type)
                        Q.next[1] = f.select(better, number, Q.carry[1])
                P.next = list(Q.carry)
            if places:
                result = f.cast("sext", P.carry[1], vector(lanes, "i64"))
            else:
                result = element.to_memory(P.carry[0], d)
            f.masked_store(result, f.gep(to, C.i, out_memory), mask)
    f.ret()


def _number(f: Function, row: Operand, column: Operand, h: dict[str, Value], type: str) -> Value:
    """The flat index of a place in its plane, in every lane."""
    flat = f.add(f.mul(row, h["width"]), column)
    return f.splat(f.cast("trunc", f.typed(flat, "i64"), "i32"), type)


def _emit_put(m: Module, d: D.dtype) -> None:
    f = m.kernel("put")
    (out, g, places), _, h, _ = open_block(f, 2, _HEAD)
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
