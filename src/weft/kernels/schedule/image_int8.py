"""Images of bytes, channels last: made of floats, their maximum pools, depthwise convolutions.

    sum[n, y, x, c] = sum over the taps (p, q) inside the image of (x[n, ...] - border) w[p, q, c]

A vector holds neighbouring channels.  What becomes of the sums is as in `conv_int8`.  They are
taken in float32, where they are whole numbers below 2^24, so exact in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

from weft.kernels.layout import Layout
from weft.kernels.schedule.ending_int8 import FOUR, Ending, finished
from weft.kernels.schedule.nest import PARALLEL_WORK, QUICK_WORK, one_stage
from weft.kernels.schedule.pool_wide import taps
from weft.kernels.target.llvm import Function, Module, Operand, Value, const, vector, zero
from weft.runtime import native
from weft.runtime.native import Launch, Stage, double_bits

Pair = tuple[int, int]
_TO_HEAD = (
    "images", "channels", "height", "width", "x_n", "x_c", "x_h", "x_w", "pitch", "scale", "zero",
)  # fmt: skip
_POOL_HEAD = (
    "images", "height", "width", "channels", "out_h", "out_w", "kernel_h", "kernel_w", "step_h",
    "step_w", "pad_h", "pad_w", "gap_h", "gap_w",
)  # fmt: skip


def plan_to_bytes(x: Layout, out: Layout, scale: float, zero_byte: int) -> Launch:
    """out (N, H, W, P) uint8 = clamp(round(x / scale) + zero, 0, 255) of x (N, C, H, W) float32.

    P is C up to a whole four; channels that x lacks are anything.  ValueError: other operands.
    """
    n, c, h, w = x.shape
    pitch = -(-c // FOUR) * FOUR
    if out.shape != (n, h, w, pitch) or (x.dtype.name, out.dtype.name) != ("float32", "uint8"):
        raise ValueError(f"to_bytes: {x.dtype} {x.shape} does not give {out.dtype} {out.shape}")
    if not out.is_contiguous:
        raise ValueError("to_bytes: the result must be contiguous")
    values = (n, c, h, w, *x.strides, pitch, double_bits(scale), zero_byte)
    stage = Stage(_to_bytes(x.strides[3] == 1), 2 * out.size >= PARALLEL_WORK)
    return Launch((stage,), values, quick=out.size < QUICK_WORK)


def plan_max_pool_bytes(
    x: Layout, out: Layout, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Launch:
    """out (N, OH, OW, C) = the maximum of each window of x (N, H, W, C), uint8, contiguous.

    ValueError: other operands.
    """
    if x.shape[0] != out.shape[0] or x.shape[3] != out.shape[3]:
        raise ValueError(f"max_pool_bytes: {x.shape} does not give {out.shape}")
    if not (x.is_contiguous and out.is_contiguous and x.dtype == out.dtype == "uint8"):
        raise ValueError("max_pool_bytes: operands must be contiguous bytes")
    values = (*x.shape, *out.shape[1:3], *kernel, *stride, *padding, *dilation)
    work = out.size * kernel[0] * kernel[1] // 4
    return one_stage(_pool(), values, work)


@cache
def _to_bytes(dense: bool) -> int:
    return native.load_made(["to_bytes"], _to_bytes_ir, dense)["to_bytes"]


def _to_bytes_ir(dense: bool) -> str:
    """Vectors hold neighbouring columns: four channels make a whole number of 32 bits."""
    m = Module()
    f = m.kernel("to_bytes")
    (out, x), _, h, _ = f.given(1, _TO_HEAD)
    lanes = native.host().lanes(4)
    floats, words = vector(lanes, "float"), vector(lanes, "i32")
    scale = f.cast("fptrunc", f.cast("bitcast", h["scale"], "double"), "float")
    scale, shift = (f.splat(v, floats) for v in (scale, f.cast("sitofp", h["zero"], "float")))
    low, high = f.split(f.mul(h["images"], h["height"]))
    with f.loop(low, high) as R:
        image, row = f.div(R.i, h["height"]), f.rem(R.i, h["height"])
        start = f.add(f.mul(image, h["x_n"]), f.mul(row, h["x_h"]))
        to = f.gep(out, f.mul(f.mul(R.i, h["width"]), h["pitch"]))
        with f.loop(0, h["channels"], FOUR) as C, f.loop(0, h["width"], lanes) as X:
            left = f.min(f.sub(h["width"], X.i), lanes)
            at = f.add(start, f.add(f.mul(C.i, h["x_c"]), f.mul(X.i, h["x_w"])))
            whole: Value = zero(words)
            for i in range(FOUR):
                # a channel that is not there repeats the last one: its weights are 0
                more = f.min(f.sub(f.sub(h["channels"], 1), C.i), i)
                source = f.gep(x, f.add(at, f.mul(more, h["x_c"])), "float")
                if dense:
                    v = f.masked_load(floats, source, f.lane_mask(left, lanes))
                else:
                    v = zero(floats)
                    for lane in range(lanes):
                        column = f.mul(f.min(f.sub(left, 1), lane), h["x_w"])
                        v = f.insert(v, f.load("float", f.gep(source, column, "float")), lane)
                byte = _byte(f, v, scale, shift)
                whole = f.op("or", whole, f.op("shl", byte, 8 * i))
            place = f.gep(to, f.add(f.mul(X.i, h["pitch"]), C.i))
            together = f.op(
                "and", f.icmp("eq", h["pitch"], FOUR), f.icmp("eq", left, f.typed(lanes, "i64"))
            )
            with f.if_else(together) as way:
                f.store(whole, place, 1)
                way.otherwise()
                room = f.alloca(words)
                f.store(whole, room, 64)
                with f.loop(0, left) as L:
                    word = f.load("i32", f.gep(room, L.i, "i32"))
                    f.store(word, f.gep(place, f.mul(L.i, h["pitch"])), 1)
    f.ret()
    return m.text()


def _byte(f: Function, v: Value, scale: Value, shift: Value) -> Value:
    """clamp(round(v / scale) + zero, 0, 255) as i32; a NaN is 0."""
    floats, words = v.type, vector(native.host().lanes(4), "i32")
    v = f.intrinsic("rint", floats, f.op("fdiv", v, scale))
    v = f.op("fadd", v, shift)
    for bound, worse in ((0.0, "ogt"), (255.0, "olt")):
        v = f.select(f.fcmp(worse, v, const(floats, bound)), v, const(floats, bound))
    return f.cast("fptosi", v, words)


class Window(NamedTuple):
    """Where an output over an image of bytes, channels last, reads and writes."""

    y: Operand  # its first row, maybe above the image
    column: Operand
    down: tuple[Operand, Operand]  # its taps inside the image
    across: tuple[Operand, Operand]
    source: Value  # the image
    line: Operand  # bytes a row
    place: Operand  # where the output's channels begin


@contextmanager
def windows(f: Function, h: dict[str, Value], x: Value) -> Iterator[Window]:
    """Each of this thread's outputs."""
    line = f.mul(h["width"], h["channels"])
    low, high = f.split(f.mul(h["images"], h["out_h"]))
    with f.loop(low, high) as R:
        image, row = f.div(R.i, h["out_h"]), f.rem(R.i, h["out_h"])
        y = f.sub(f.mul(row, h["step_h"]), h["pad_h"])
        down = taps(f, y, h["gap_h"], h["height"], h["kernel_h"])
        source = f.gep(x, f.mul(f.mul(image, h["height"]), line))
        with f.loop(0, h["out_w"]) as X:
            column = f.sub(f.mul(X.i, h["step_w"]), h["pad_w"])
            across = taps(f, column, h["gap_w"], h["width"], h["kernel_w"])
            place = f.mul(f.add(f.mul(R.i, h["out_w"]), X.i), h["channels"])
            yield Window(y, column, down, across, source, line, place)


@cache
def _pool() -> int:
    return native.load_made(["max_pool_bytes"], _pool_ir)["max_pool_bytes"]


def _pool_ir() -> str:
    m = Module()
    f = m.kernel("max_pool_bytes")
    (out, x), _, h, _ = f.given(1, _POOL_HEAD)
    lanes = native.host().lanes(1)
    whole = f.mul(f.div(h["channels"], lanes), lanes)
    with windows(f, h, x) as (y, column, down, across, source, line, place):
        to = f.gep(out, place)

        def largest(type: str, at: Operand) -> None:
            with f.loop(*down, carry=[(type, zero(type))]) as P:
                there = f.add(y, f.mul(P.i, h["gap_h"]))
                start = f.gep(source, f.add(f.mul(there, line), at))
                with f.loop(*across, carry=[(type, P.carry[0])]) as Q:
                    there = f.add(column, f.mul(Q.i, h["gap_w"]))
                    v = f.load(type, f.gep(start, f.mul(there, h["channels"])), 1)
                    Q.next[0] = f.intrinsic("umax", type, Q.carry[0], v)
                P.next[0] = Q.carry[0]
            f.store(P.carry[0], f.gep(to, at), 1)

        with f.loop(0, whole, lanes) as C:
            largest(vector(lanes, "i8"), C.i)
        with f.loop(whole, h["channels"]) as C:
            largest("i8", C.i)
    f.ret()
    return m.text()


MOST_TAPS = 512  # 255 * 128 a tap, below 2^24
_HEAD = (
    "images", "height", "width", "channels", "out_h", "out_w", "kernel_h", "kernel_w", "step_h",
    "step_w", "pad_h", "pad_w", "gap_h", "gap_w", "border", "low", "high", "other_scale",
)  # fmt: skip


def plan_depthwise_int8(
    ins: list[Layout], out: Layout, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair,
    ending: Ending,
) -> Launch:  # fmt: skip
    """out (N, OH, OW, C) float32 or uint8; ins are image (N, H, W, C) uint8, w (taps, C), scale,
    shift (C,) float32, and another image like out in uint8.  All contiguous.

    ValueError: a layout or size that the kernel does not read.
    """
    (n, h, w, c), area = ins[0].shape, kernel[0] * kernel[1]
    shapes = [(n, h, w, c), (area, c), (c,), (c,), out.shape][: len(ins)]
    names = ["uint8", *["float32"] * 3, "uint8"][: len(ins)]
    if [a.shape for a in ins] != shapes or [a.dtype.name for a in ins] != names or len(ins) < 4:
        raise ValueError(f"depthwise_int8: operands {[(a.shape, a.dtype.name) for a in ins]}")
    if out.shape[::3] != (n, c) or out.dtype.name not in ("float32", "uint8") or area > MOST_TAPS:
        raise ValueError(f"depthwise_int8: {area} taps to {out.dtype} {out.shape}")
    if not all(a.is_contiguous for a in (*ins, out)):
        raise ValueError("depthwise_int8: operands must be contiguous")
    limits = (double_bits(v) for v in (ending.low, ending.high, ending.other_scale))
    values = (
        n, h, w, c, *out.shape[1:3], *kernel, *stride, *padding, *dilation, ending.border, *limits
    )  # fmt: skip
    work = out.size * area
    return one_stage(_kernel(out.dtype.name, len(ins)), values, work)


@cache
def _kernel(kind: str, inputs: int) -> int:
    return native.load_made(["depthwise_int8"], _depthwise_ir, kind, inputs)["depthwise_int8"]


def _depthwise_ir(kind: str, inputs: int) -> str:
    m = Module()
    f = m.kernel("depthwise_int8")
    pointers, _, h, _ = f.given(inputs, _HEAD)
    out, x, w, scale, shift = pointers[:5]
    lanes, size = native.host().lanes(4), 4 if kind == "float32" else 1
    border = f.cast("sitofp", h["border"], "float")
    limits = [f.cast("fptrunc", f.cast("bitcast", h[n], "double"), "float")
              for n in ("low", "high", "other_scale")]  # fmt: skip
    with windows(f, h, x) as (y, column, down, across, source, line, place):

        def channels(floats: str, at: Operand) -> None:
            bytes_of = floats.replace("float", "i8")
            words = floats.replace("float", "i32")
            less = f.splat(border, floats)
            with f.loop(*down, carry=[(floats, zero(floats))]) as P:
                there = f.mul(f.add(y, f.mul(P.i, h["gap_h"])), line)
                number = f.mul(P.i, h["kernel_w"])
                with f.loop(*across, carry=[(floats, P.carry[0])]) as Q:
                    pixel = f.mul(f.add(column, f.mul(Q.i, h["gap_w"])), h["channels"])
                    v = f.load(bytes_of, f.gep(source, f.add(f.add(there, pixel), at)), 1)
                    v = f.cast("sitofp", f.cast("zext", v, words), floats)
                    tap = f.add(f.mul(f.add(number, Q.i), h["channels"]), at)
                    product = f.op(
                        "fmul", f.op("fsub", v, less), f.load(floats, f.gep(w, tap, "float"))
                    )
                    Q.next[0] = f.op("fadd", Q.carry[0], product)
                P.next[0] = Q.carry[0]
            to = f.add(place, at)
            factor, addend = ([f.load(floats, f.gep(p, at, "float"))] for p in (scale, shift))
            more = [f.load(bytes_of, f.gep(pointers[5], to), 1)] if inputs == 5 else []
            (done,) = finished(f, P.carry, (factor, addend, more), tuple(limits), kind)
            f.store(done, f.gep(out, to, f"[{size} x i8]"), 1)

        with f.if_else(f.icmp("sge", h["channels"], lanes)) as way:
            last = f.sub(h["channels"], lanes)
            with f.loop(0, h["channels"], lanes) as C:  # the last vector may do some again
                channels(vector(lanes, "float"), f.min(C.i, last))
            way.otherwise()
            with f.loop(0, h["channels"]) as C:
                channels("float", C.i)
    f.ret()
    return m.text()
