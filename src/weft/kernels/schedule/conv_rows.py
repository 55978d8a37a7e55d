"""Depthwise convolutions of step one, and their input gradients, over rows of adjacent elements.

The numbers are those of `conv`: an accumulator an output, fma in increasing (p, q), zeros around.
Nothing is copied: a row of the image is read where it lies, under masks where its borders are, once
for each column of the kernel, and goes to the sums of all the rows of outputs that it is part of.
Those sums stay in registers, for some vectors of columns side by side, while the rows go by. The
input's gradient is such a convolution of g with both turned upside down, planes from the last to
the first: memory is read in one direction. Threads take planes.
"""

from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.conv_code import open_block
from weft.kernels.schedule.nest import PARALLEL_WORK, QUICK_WORK
from weft.kernels.schedule.tile import up
from weft.kernels.target.llvm import (
    BYTES,
    Module,
    Operand,
    Value,
    lane_numbers,
    vector,
    zero,
)
from weft.runtime import native
from weft.runtime.native import Launch, Stage

Pair = tuple[int, int]
_LARGEST = 8  # rows or columns of a kernel: all are code
_HEAD = (
    "planes", "channels", "height", "width", "out_h", "out_w", "x_n", "x_c", "x_h", "x_at",
    "out_n", "out_c", "out_row", "out_at", "w_c", "w_p", "w_q", "top", "pitch",
)  # fmt: skip


def by_rows(x: Layout, w: Layout, out: Layout, stride: Pair, dilation: Pair, groups: int) -> bool:
    """Whether this kernel serves."""
    host = native.host()
    masks = host.has_fma and (host.has_avx512 or host.vector_bits == 256)
    single = groups == x.shape[1] == out.shape[1] and w.shape[1] == 1
    plain = x.strides[3] == 1 and out.strides[3] == 1 and x.dtype.itemsize >= 4
    steps = stride == (1, 1) and dilation[0] == 1
    return masks and single and plain and steps and max(w.shape[2:]) <= _LARGEST and out.size > 0


def plan_by_rows(
    x: Layout, w: Layout, out: Layout, padding: Pair, dilation: int, *, biased: bool, back: bool
) -> Launch:
    """As `plan_conv2d`, or (`back`) as `plan_conv2d_dx`, which have checked the layouts."""
    channels, height, width = x.shape[1:]
    kh, kw = w.shape[2:]
    lanes = native.host().lanes(x.dtype.itemsize)
    pitch = up((width + lanes) * x.dtype.itemsize)
    across = [q * dilation - padding[1] for q in range(kw)]
    ends, sign, top = (0, 0), 1, padding[0]
    if back:
        across = [-a for a in across]
        ends = (height - 1) * x.strides[2], (out.shape[2] - 1) * out.strides[2]
        sign, top = -1, padding[0] + out.shape[2] - height
    head = (
        x.shape[0] * channels, channels, height, width, *out.shape[2:],
        *x.strides[:2], sign * x.strides[2], ends[0],
        *out.strides[:2], sign * out.strides[2], ends[1],
        w.strides[0], *w.strides[2:], top, pitch,
    )  # fmt: skip
    work = 2 * out.size * kh * kw
    code = _kernel(D.from_np(x.dtype).name, kh, kw, biased)
    stage = Stage(code, work >= PARALLEL_WORK)
    return Launch((stage,), (*head, *across), 0, pitch, work < QUICK_WORK)


@cache
def _kernel(name: str, kh: int, kw: int, biased: bool) -> int:
    return native.load(conv_rows_ir(name, kh, kw, biased=biased), ["by_rows"])["by_rows"]


def conv_rows_ir(name: str, kh: int, kw: int, *, biased: bool) -> str:
    """The LLVM IR of the kernel of one dtype and kernel size, for the host."""
    m = Module(native.host().vector_bits)
    _emit(m, {"float32": "float", "float64": "double"}[name], kh, kw, biased=biased)
    return m.text()


def _emit(m: Module, element: str, kh: int, kw: int, *, biased: bool) -> None:
    host = native.host()
    lanes = host.lanes(BYTES[element])
    type, index = vector(lanes, element), vector(lanes, "i32")
    # vectors side by side: a sum waits for its last product, and half the registers hold sums
    widths = [n for n in (4, 2, 1) if n * kh <= host.registers // 2] or [1]
    f = m.kernel("by_rows")
    (out, x, w, *bias), scratch, h, ints = open_block(f, 3 if biased else 2, _HEAD)
    across = f.words(ints, 0, ["i64"] * kw)
    nothing = f.gep(scratch, f.mul(f.cast("sext", f.arg("tid"), "i64"), h["pitch"]))
    with f.loop(0, h["pitch"], lanes * BYTES[element]) as Z:
        f.store(zero(type), f.gep(nothing, Z.i))

    def inside(at: Operand, end: Operand) -> Value:
        """The lanes of a vector at `at` that lie from 0 to `end`."""
        first, last = (f.cast("trunc", f.typed(v, "i64"), "i32") for v in (at, end))
        places = f.op("add", lane_numbers(index), f.splat(first, index))
        return f.icmp("ult", places, f.splat(last, index))

    def strip(at: Operand, count: int, source: Value, target: Value, weights: list[Value],
              more: Value | None) -> None:  # fmt: skip
        """`count` vectors of columns from `at` on, all rows."""
        starts = [f.add(at, s * lanes) for s in range(count)]
        places = [[f.add(s, a) for s in starts] for a in across]
        masks = [[inside(p, h["width"]) for p in row] for row in places]
        stored = [inside(s, h["out_w"]) for s in starts]
        carry = [(type, zero(type))] * ((kh - 1) * count)
        with f.loop(0, f.add(h["out_h"], kh - 1), carry=carry) as R:
            r = f.sub(R.i, h["top"])
            there = f.gep(source, f.mul(r, h["x_h"]), element)
            row = f.select(f.icmp("ult", r, h["height"]), there, nothing)
            sums = [zero(type)] * count + list(R.carry)  # of the outputs at R.i, R.i - 1, ...
            for q in range(kw):
                for s in range(count):
                    v = f.masked_load(type, f.gep(row, places[q][s], element), masks[q][s])
                    for p in range(kh):
                        k = p * count + s
                        sums[k] = f.fma(v, weights[p * kw + q], sums[k])
            y = f.sub(R.i, kh - 1)
            with f.iff(f.icmp("sge", y, 0)):
                line = f.gep(target, f.mul(y, h["out_row"]), element)
                for s in range(count):
                    v = sums[(kh - 1) * count + s]
                    v = v if more is None else f.op("fadd", v, more)
                    f.masked_store(v, f.gep(line, starts[s], element), stored[s])
            R.next[:] = sums[: (kh - 1) * count]

    low, high = f.split(h["planes"])
    with f.loop(low, high) as P:
        here = f.select(f.icmp("slt", h["x_h"], 0), f.sub(f.add(low, f.sub(high, 1)), P.i), P.i)
        n, c = f.div(here, h["channels"]), f.rem(here, h["channels"])

        def plane(base: Value, name: str, n: Operand = n, c: Operand = c) -> Value:
            at = f.add(f.mul(n, h[f"{name}_n"]), f.mul(c, h[f"{name}_c"]))
            return f.gep(base, f.add(at, h[f"{name}_at"]), element)

        source, target = plane(x, "x"), plane(out, "out")
        taps = f.gep(w, f.mul(c, h["w_c"]), element)
        weights = []
        for p in range(kh):
            for q in range(kw):
                at = f.add(f.mul(h["w_p"], p), f.mul(h["w_q"], q))
                weights.append(f.splat(f.load(element, f.gep(taps, at, element)), type))
        more = f.splat(f.load(element, f.gep(bias[0], c, element)), type) if biased else None
        vectors = f.div(f.add(h["out_w"], lanes - 1), lanes)
        done: Operand = 0
        for count in widths:
            end = f.mul(f.div(vectors, count), count)
            with f.loop(done, end, count) as V:
                strip(f.mul(V.i, lanes), count, source, target, weights, more)
            done = end
    f.ret()
