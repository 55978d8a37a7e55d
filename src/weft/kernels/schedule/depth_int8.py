"""Depthwise convolutions of bytes, channels last: a vector holds neighbouring channels.

    sum[n, y, x, c] = sum over the taps (p, q) inside the image of (x[n, ...] - border) w[p, q, c]

What becomes of the sums is as in `conv_int8`.  They are taken in float32, where they are whole
numbers below 2^24, so exact in any order.
"""

from __future__ import annotations

from functools import cache

from weft.kernels.layout import Layout
from weft.kernels.schedule.conv_code import open_block
from weft.kernels.schedule.conv_int8 import Ending, finished
from weft.kernels.schedule.image_int8 import windows
from weft.kernels.schedule.nest import PARALLEL_WORK, QUICK_WORK
from weft.kernels.target.llvm import Module, Operand, vector, zero
from weft.runtime import native
from weft.runtime.native import Launch, Stage, double_bits

Pair = tuple[int, int]
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
    stage = Stage(_kernel(out.dtype.name, len(ins)), work >= PARALLEL_WORK)
    return Launch((stage,), values, quick=work < QUICK_WORK)


@cache
def _kernel(kind: str, inputs: int) -> int:
    m = Module(native.host().vector_bits)
    f = m.kernel("depthwise_int8")
    pointers, _, h, _ = open_block(f, inputs, _HEAD)
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
    return native.load(m.text(), ["depthwise_int8"])["depthwise_int8"]
