"""Depthwise convolutions of steps of one or two, and their input gradients, over adjacent elements.

The numbers are those of `conv`: an accumulator an output, fma in increasing (p, q), zeros around.
A row of the image is read where it lies, under masks at its borders, once for each column of the
kernel, and goes to the sums of all rows of outputs that it is part of, which stay in registers, for
some vectors of columns side by side, while the rows go by. The input's gradient is such a
convolution of g with both upside down, planes from the last to the first: memory is read in one
direction; with a step of two, one for each residue (a *part*). Threads take planes.
"""

import itertools
from dataclasses import dataclass
from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.conv_pack import step_masks, store_step
from weft.kernels.schedule.nest import one_stage
from weft.kernels.schedule.tile import up
from weft.kernels.target.element import memory
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
from weft.runtime.native import Launch

Pair = tuple[int, int]
_LARGEST = 8  # rows or columns of a kernel: all are code
_HEAD = (
    "planes", "channels", "height", "width", "x_n", "x_c", "x_h", "x_at", "out_n", "out_c",
    "out_row", "w_c", "w_p", "w_q", "pitch", "room",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """The rows and columns of the kernel that some outputs meet.

    `rows[j][m]`: what takes the j-th row of x of a row of outputs to the m-th outputs before it.
    """

    rows: tuple[tuple[int | None, ...], ...]
    columns: tuple[int, ...]


def by_rows(x: Layout, w: Layout, out: Layout, stride: Pair, dilation: Pair, groups: int) -> bool:
    """Whether this kernel serves."""
    host = native.host()
    masks = host.has_fma and (host.has_avx512 or host.vector_bits == 256)
    single = groups == x.shape[1] == out.shape[1] and w.shape[1] == 1
    plain = x.strides[3] == 1 and out.strides[3] == 1 and x.dtype.itemsize >= 4
    near = dilation[0] == 1 if stride == (1, 1) else dilation == (1, 1) and stride == (2, 2)
    return masks and single and plain and near and max(w.shape[2:]) <= _LARGEST and out.size > 0


def plan_by_rows(
    x: Layout, w: Layout, out: Layout, stride: int, padding: Pair, dilation: int,
    *, biased: bool, back: bool,
) -> Launch:  # fmt: skip
    """As `plan_conv2d`, or (`back`) `plan_conv2d_dx`, which have checked the layouts."""
    channels, height, width = x.shape[1:]
    kernel = (w.shape[2], w.shape[3])
    lanes = native.host().lanes(x.dtype.itemsize)
    # masked lanes that reach into a page that is not there cost 1,000 cycles a load: room around
    room = up(min(max(padding[1], (kernel[1] - 1) * dilation), width) * x.dtype.itemsize)
    pitch = up((width + 2 * lanes) * x.dtype.itemsize) + 2 * room
    sign, last = (-1, (height - 1) * x.strides[2]) if back else (1, 0)
    ints = [
        x.shape[0] * channels, channels, height, width, *x.strides[:2], sign * x.strides[2], last,
        *out.strides[:2], (sign * stride if back else 1) * out.strides[2],
        w.strides[0], *w.strides[2:], pitch, room,
    ]  # fmt: skip
    if back:
        down, along = (
            [residues(i, out.shape[2 + d], padding[d], stride) for i in range(stride)]
            for d in (0, 1)
        )
        for i, (a, rows) in enumerate(down):
            for j, (b, columns) in enumerate(along):
                y, z = stride * (a + rows - 1) + i - padding[0], stride * b + j - padding[1]
                ints += (rows, columns, y * out.strides[2] + z, a + rows - height)
                ints += (b - q * dilation // stride for q in range(j, kernel[1], stride))
    else:
        ints += (*out.shape[2:], 0, padding[0])
        ints += (q * dilation - padding[1] for q in range(kernel[1]))
    work = 2 * (x if back else out).size * kernel[0] * kernel[1]
    code = _kernel(D.from_np(x.dtype).name, *kernel, stride, biased, back)
    return one_stage(code, ints, work, pitch)


def residues(residue: int, size: int, padding: int, stride: int) -> Pair:
    """The first a and the number of a with 0 <= stride*a + residue - padding < size."""
    first = max(-((residue - padding) // stride), 0) if residue < padding else 0
    end = -((residue - padding - size) // stride)
    return first, max(end - first, 0)


@cache
def _kernel(name: str, kh: int, kw: int, stride: int, biased: bool, back: bool) -> int:
    sizes, ways = (kh, kw, stride), {"biased": biased, "back": back}
    return native.load_made(["by_rows"], conv_rows_ir, name, *sizes, **ways)["by_rows"]


def conv_rows_ir(name: str, kh: int, kw: int, stride: int, *, biased: bool, back: bool) -> str:
    """The LLVM IR of the kernel of one dtype and kernel size, for the host."""
    m = Module()
    every = range(stride)
    if back:
        rows = [(tuple(range(i, kh, stride)),) for i in every]
        parts = [Part(p, tuple(range(j, kw, stride))) for p in rows for j in every]
    else:
        deep = range(0, kh, stride)
        found = tuple(tuple(p + j if p + j < kh else None for p in deep) for j in every)
        parts = [Part(found, tuple(range(kw)))]
    steps = (1, stride) if back else (stride, 1)
    _emit(m, D.BY_NAME[name], parts, steps, biased=biased)
    return m.text()


def _emit(m: Module, d: D.dtype, parts: list[Part], steps: Pair, *, biased: bool) -> None:
    """`steps` are those of the columns of x and of the outputs."""
    host = native.host()
    element, lanes = memory(d), host.lanes(d.itemsize)
    type, index = vector(lanes, element), vector(lanes, "i32")
    f = m.kernel("by_rows")
    (out, x, w, *bias), scratch, h, ints = f.given(3 if biased else 2, _HEAD)
    nothing = f.gep(scratch, f.mul(f.thread(), h["pitch"]))
    with f.loop(0, h["pitch"], lanes * BYTES[element]) as Z:
        f.store(zero(type), f.gep(nothing, Z.i))
    nothing = f.gep(nothing, h["room"])

    def inside(at: Operand, end: Operand) -> Value:
        """The lanes of a vector at `at` that lie from 0 to `end`."""
        first, last = (f.cast("trunc", f.typed(v, "i64"), "i32") for v in (at, end))
        places = f.op("add", lane_numbers(index), f.splat(first, index))
        return f.icmp("ult", places, f.splat(last, index))

    def strip(
        part: Part, size: tuple[Value, Value, Value], across: list[Value], at: Operand, count: int,
        source: Value, target: Value, weights: dict[Pair, Value], more: Value | None,
    ) -> None:  # fmt: skip
        """`count` vectors of columns from `at` on, all rows."""
        rows, columns, top = size
        older = max(len(part.rows[0]) - 1, 0)
        starts = [f.add(at, s * lanes) for s in range(count)]
        places = [[f.add(f.mul(s, steps[0]), a) for s in starts] for a in across]
        masks = {
            (k, s): [inside(f.add(place, i * lanes), h["width"]) for i in range(steps[0])]
            for k, row in enumerate(places)
            for s, place in enumerate(row)
        }
        stored = [step_masks(f, f.sub(columns, s), lanes, steps[1]) for s in starts]

        def read(row: Value, k: int, s: int) -> Value:
            v = [
                f.masked_load(type, f.gep(row, f.add(places[k][s], i * lanes), element), mask)
                for i, mask in enumerate(masks[k, s])
            ]
            return v[0] if len(v) == 1 else f.shuffle(v[0], v[1], range(0, 2 * lanes, 2))

        with f.loop(0, f.add(rows, older), carry=[(type, zero(type))] * (older * count)) as R:
            sums = [zero(type)] * count + list(R.carry)  # of the outputs at R.i, R.i - 1, ...
            for j, meets in enumerate(part.rows):
                r = f.sub(f.add(f.mul(R.i, len(part.rows)), j), top)
                there = f.gep(source, f.mul(r, h["x_h"]), element)
                row = f.select(f.icmp("ult", r, h["height"]), there, nothing)
                for k, q in enumerate(part.columns):
                    for s in range(count):
                        v = read(row, k, s)
                        for m, tap in enumerate(meets):
                            if tap is not None:
                                place = m * count + s
                                sums[place] = f.fma(v, weights[tap, q], sums[place])
            y = f.sub(R.i, older)
            with f.iff(f.icmp("sge", y, 0)):
                line = f.gep(target, f.mul(y, h["out_row"]), element)
                for s, v in enumerate(sums[older * count :]):
                    v = v if more is None else f.op("fadd", v, more)
                    to = f.gep(line, f.mul(starts[s], steps[1]), element)
                    store_step(f, v, to, stored[s], d)
            R.next[:] = sums[: older * count]

    low, high = f.split(h["planes"])
    with f.loop(low, high) as P:
        here = f.select(f.icmp("slt", h["x_h"], 0), f.sub(f.add(low, f.sub(high, 1)), P.i), P.i)
        n, c = f.div(here, h["channels"]), f.rem(here, h["channels"])
        source = f.gep(x, f.add(f.add(f.mul(n, h["x_n"]), f.mul(c, h["x_c"])), h["x_at"]), element)
        plane = f.gep(out, f.add(f.mul(n, h["out_n"]), f.mul(c, h["out_c"])), element)
        taps = f.gep(w, f.mul(c, h["w_c"]), element)
        more = f.splat(f.load(element, f.gep(bias[0], c, element)), type) if biased else None
        word = 0
        for part in parts:
            rows, columns, at, top, *across = f.words(ints, word, ["i64"] * (4 + len(part.columns)))
            word += 4 + len(across)
            weights = {}
            for k, q in itertools.product(sum(part.rows, ()), part.columns):
                if k is not None:
                    tap = f.add(f.mul(h["w_p"], k), f.mul(h["w_q"], q))
                    weights[k, q] = f.splat(f.load(element, f.gep(taps, tap, element)), type)
            target = f.gep(plane, at, element)
            deep = max(len(part.rows[0]), 1)
            # a sum waits for its last product, and half the registers hold sums
            widths = [n for n in (4, 2, 1) if n * deep <= host.registers // 2] or [1]
            vectors = f.div(f.add(columns, lanes - 1), lanes)
            done: Operand = 0
            for count in widths:
                end = f.mul(f.div(vectors, count), count)
                with f.loop(done, end, count) as V:
                    at = f.mul(V.i, lanes)
                    size = (rows, columns, top)
                    strip(part, size, across, at, count, source, target, weights, more)
                done = end
    f.ret()
