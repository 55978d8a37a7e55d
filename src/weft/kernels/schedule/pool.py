"""Pooling windows: maximum (values or indices), average, and their gradients.

    max:    out[n, c, oy, ox] = max of x[n, c, oy*sh - ph + p*dh, ox*sw - pw + q*dw] over p, q
    argmax: the flat index y * W + x of that element, int64, as torch's return_indices
    taps:   max, and the number p * kw + q of that element beside it, a byte
    avg:    the sum over the window (rows, then columns) / its size

x (N, C, H, W) and g may have any strides; dtypes float64, float32, float16, bfloat16, the halves
computed in float32. Outputs are C-contiguous, index arrays too; a 1-d pool is one with H = 1 and
kernel 1. Layouts are checked (ValueError); out's size says ceil_mode. As torch: a NaN wins, the
last of several; of equal elements the first wins. The type rule has checked that padding is at
most half the kernel and that every window starts inside the image or its padding.

`adaptive` windows are [oy*H // OH, -(-(oy+1)*H // OH)), likewise columns.

How: a plane is copied into a slab with its border (see `conv_pack`), so that one vector holds the
same tap of adjacent windows. Gradients go plane by plane over the windows in order: deterministic,
a plane has one thread.

Long because the kernels share a head of ints, a slab and what a window is.
"""

from dataclasses import dataclass
from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.conv_pack import emit_plane
from weft.kernels.schedule.nest import one_stage
from weft.kernels.schedule.pool_twos import are_twos, plan_twos
from weft.kernels.schedule.pool_wide import (
    lies_wide,
    plan_wide_average,
    plan_wide_back,
    plan_wide_put,
    plan_wide_windows,
    turns,
)
from weft.kernels.schedule.tile import Tile, up
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import (
    BYTES,
    Function,
    Module,
    Operand,
    Value,
    const,
    lane_numbers,
    vector,
    zero,
)
from weft.runtime import native
from weft.runtime.native import Launch

Pair = tuple[int, int]
_HEAD: tuple[str, ...] = (
    "planes", "channels", "stride_n", "stride_c", "stride_h", "stride_w", "height", "width",
    "out_h", "out_w", "step_h", "step_w", "kernel_h", "kernel_w", "gap_h", "gap_w",
    "pad_h", "pad_w", "divisor", "with_pad",
    "slab_rows", "row_pitch", "phase_pitch", "table_at", "work_size",
    "taps_n", "taps_c", "taps_h", "taps_w",
)  # fmt: skip
_INDEX_OUT_OF_RANGE = 1
_TOGETHER = 8  # planes whose adaptive windows are computed side by side


@dataclass(frozen=True)
class Window:
    """kernel, stride, padding (top and left) and dilation, each (rows, columns)."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @property
    def apart(self) -> bool:
        """Whether no element lies in two windows."""
        reach = zip(self.kernel, self.stride, self.dilation, strict=True)
        return all((k - 1) * d < s for k, s, d in reach)


def plan_max_pool2d(x: Layout, out: Layout, window: Window, taps: Layout | None = None) -> Launch:
    """out = the maximum of each window; ins = (x,), or (taps, x): bytes that get the numbers of the
    windows' taps where the maxima lie. They lie like out, or channel by channel where x does.
    """
    if taps is None:
        return _plan_windows("max_pool2d", "max", x, out, window)
    if taps.shape != out.shape or taps.dtype != D.uint8.np or not fits_byte(window.kernel):
        raise ValueError(f"max_pool2d: taps {taps} of windows {window.kernel} for {out}")
    return _plan_windows("max_pool2d", "taps", x, out, window, taps=taps)


def fits_byte(kernel: Pair) -> bool:
    """Whether a byte numbers a window's taps."""
    return kernel[0] * kernel[1] <= 256


def plan_max_pool2d_indices(x: Layout, out: Layout, window: Window) -> Launch:
    """out (int64) = where each window's maximum lies in its plane; ins = (x,)."""
    return _plan_windows("max_pool2d_indices", "argmax", x, out, window)


def plan_avg_pool2d(
    x: Layout,
    out: Layout,
    window: Window,
    *,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Launch:
    """out = the average of each window; ins = (x,). Padding counts as elements unless told."""
    flags = (divisor_override or 0, int(count_include_pad))
    return _plan_windows("avg_pool2d", "avg", x, out, window, flags)


def plan_adaptive_avg_pool2d(x: Layout, out: Layout) -> Launch:
    """out = the average of each adaptive window; ins = (x,)."""
    if out.size and x.size and x.shape[1] > 1 and x.strides[1] == out.strides[1] == 1:
        _check("adaptive_avg_pool2d", x, out, "adaptive_avg")
        return plan_wide_average(x, out)
    return _plan_planes("adaptive_avg_pool2d", "adaptive_avg", x, x, out, None, _plane(out))


def plan_adaptive_max_pool2d(x: Layout, out: Layout) -> Launch:
    """out = the maximum of each adaptive window; ins = (x,)."""
    return _plan_planes("adaptive_max_pool2d", "adaptive_max", x, x, out, None, _plane(out))


def plan_adaptive_max_pool2d_indices(x: Layout, out: Layout) -> Launch:
    """out (int64) = where the maximum of each adaptive window lies in its plane; ins = (x,)."""
    name = "adaptive_max_pool2d_indices"
    return _plan_planes(name, "adaptive_argmax", x, x, out, None, _plane(out))


def plan_max_pool2d_back(g: Layout, taps: Layout, out: Layout, window: Window) -> Launch:
    """out = zeros with each window's g added at its tap of that number, in order; ins = (g, taps).

    A number that is none of a tap in the image adds nothing.
    """
    name = "max_pool2d_back"
    if taps.shape != g.shape or taps.dtype != D.uint8.np:
        raise ValueError(f"{name}: {taps} do not fit {g}")
    _check(name, g, out, "max_dx")
    geometry = window.kernel, window.stride, window.padding, window.dilation
    # halves would have to be summed in float32 where windows overlap
    if out.size and lies_wide(out) and (g.dtype.itemsize >= 4 or window.apart):
        return plan_wide_back(g, taps, out, *geometry)
    rows = out.size and g.size and g.strides[3] == taps.strides[3] == 1
    if rows and are_twos(out, _plane(g), *geometry):
        return plan_twos("back", out, g, window.kernel[0], taps)
    return _plan_planes(name, "max_back", g, out, out, window, _plane(g), taps=taps)


def plan_max_pool2d_dx(g: Layout, indices: Layout, out: Layout) -> Launch:
    """out[plane, i] = sum of g where indices = i, in order; ins = (g, indices).

    Serves every maximum pool, the adaptive ones too. An index outside the plane gives status 1
    with the index as detail.
    """
    name = "max_pool2d_dx"
    wide = out.size and lies_wide(out) and g.dtype.itemsize >= 4
    if indices.shape != g.shape or indices.dtype != D.int64.np:
        raise ValueError(f"{name}: indices {indices} must be int64 like g {g.shape}")
    if not (indices.is_contiguous or wide):
        raise ValueError(f"{name}: indices {indices} must be contiguous")
    if wide:
        _check(name, g, out, "max_dx")
        return plan_wide_put(g, indices, out)
    return _plan_planes(name, "max_dx", g, out, out, None, _plane(g))


def plan_avg_pool2d_dx(
    g: Layout,
    out: Layout,
    window: Window,
    *,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Launch:
    """The gradient of `plan_avg_pool2d` for x; ins = (g,)."""
    flags = (divisor_override or 0, int(count_include_pad))
    return _plan_planes("avg_pool2d_dx", "avg_dx", g, out, out, window, _plane(g), flags)


def plan_adaptive_avg_pool2d_dx(g: Layout, out: Layout) -> Launch:
    """The gradient of `plan_adaptive_avg_pool2d` for x; ins = (g,)."""
    name = "adaptive_avg_pool2d_dx"
    return _plan_planes(name, "adaptive_avg_dx", g, out, out, None, _plane(g))


def _check(name: str, read: Layout, out: Layout, kernel: str) -> None:
    if len(read.shape) != 4 or len(out.shape) != 4 or read.shape[:2] != out.shape[:2]:
        raise ValueError(f"{name}: {read.shape} and {out.shape} do not fit")
    want = D.int64.np if kernel.endswith("argmax") else read.dtype
    if D.from_np(read.dtype) not in D.FLOATS or out.dtype != want:
        raise D.from_np(read.dtype).lacks(name)
    wide = kernel in ("max", "argmax", "taps", "avg", "adaptive_avg") and lies_wide(out, read)
    if not (out.is_contiguous or wide or (kernel == "max_dx" and lies_wide(out))):
        raise ValueError(f"{name}: the output must be contiguous, has strides {out.strides}")


def _head(
    read: Layout, image: Pair, grid: Pair, window: Window | None, flags: Pair
) -> dict[str, int]:
    """The ints all kernels share; `read` is the input, `image` the pooled plane's size."""
    w = window or Window((1, 1), (1, 1))
    if min(*w.kernel, *w.stride, *w.dilation) < 1 or min(w.padding) < 0 or flags[0] < 0:
        raise ValueError(f"pool: {w}, divisor_override {flags[0]}: sizes must be positive")
    if image[0] * image[1] >= 1 << 31:
        raise ValueError(f"pool: a plane of {image} has more elements than an int32 can number")
    values = (
        read.shape[0] * read.shape[1], read.shape[1], *read.strides, *image,
        *grid, *w.stride, *w.kernel, *w.dilation, *w.padding, *flags, *(0,) * 9,
    )  # fmt: skip
    return dict(zip(_HEAD, values, strict=True))


def _plan_windows(
    name: str, kernel: str, x: Layout, out: Layout, window: Window, flags: Pair = (0, 0),
    taps: Layout | None = None,
) -> Launch:  # fmt: skip
    _check(name, x, out, kernel)
    if out.size == 0:
        return Launch(())
    w, wide = window, taps is None or taps.strides[1] == 1
    geometry = w.kernel, w.stride, w.padding, w.dilation
    if wide and (lies_wide(out, x) or (kernel != "argmax" and turns(x, out))):
        return plan_wide_windows(kernel, x, out, *geometry, taps, flags)
    if not (out.is_contiguous and (taps is None or taps.is_contiguous)):
        raise ValueError(f"{name}: {taps} and {out} do not lie alike")
    if kernel in ("max", "taps") and are_twos(x, _plane(out), *geometry):
        return plan_twos(kernel, x, out, w.kernel[0], taps)
    grid = _plane(out)
    head = _head(x, _plane(x), grid, window, flags)
    tile = _tile(D.from_np(x.dtype))
    oh, ow = grid
    reach = [(k - 1) * d for k, d in zip(window.kernel, window.dilation, strict=True)]
    step = window.stride[1]
    # whole vectors are read at every tap: leave room after the last window
    length = -(-((ow - 1) * step + reach[1] + 1) // step) + tile.lanes
    head["slab_rows"] = (oh - 1) * window.stride[0] + reach[0] + 1
    head["phase_pitch"], head["row_pitch"] = length, length * step
    head["table_at"] = up(head["slab_rows"] * head["row_pitch"] * tile.itemsize)
    head["work_size"] = head["table_at"] + up((ow + tile.lanes) * 8)
    columns = [q * window.dilation[1] for q in range(window.kernel[1])]
    offsets = [c % step * length + c // step for c in columns]
    windows = x.shape[0] * x.shape[1] * oh * ow
    work = windows * window.kernel[0] * window.kernel[1] + x.size
    ints = (*(head[n] for n in _HEAD), *offsets)
    return one_stage(_kernel(D.from_np(x.dtype).name, kernel), ints, work, head["work_size"])


def _plan_planes(
    name: str,
    kernel: str,
    read: Layout,
    image: Layout,
    out: Layout,
    window: Window | None,
    grid: Pair,
    flags: Pair = (0, 0),
    taps: Layout | None = None,
) -> Launch:
    _check(name, read, out, kernel)
    if out.size == 0:
        return Launch(())
    if image is not out and 0 in image.shape[2:]:
        raise ValueError(f"{name}: an image of {image.shape} has no element to pool")
    head = _head(read, _plane(image), grid, window, flags)
    d = D.from_np(read.dtype)
    # halves are summed in a float32 plane
    wide = image is out and d in (D.float16, D.bfloat16)
    head["work_size"] = up(4 * image.shape[2] * image.shape[3]) if wide else 0
    head |= _strides_of(taps)
    work = 4 * (read.size + image.size)
    ints = tuple(head[n] for n in _HEAD)
    return one_stage(_kernel(d.name, kernel), ints, work, head["work_size"])


def _strides_of(taps: Layout | None) -> dict[str, int]:
    steps = (0,) * 4 if taps is None else taps.strides
    return dict(zip(("taps_n", "taps_c", "taps_h", "taps_w"), steps, strict=True))


def _plane(a: Layout) -> Pair:
    return a.shape[2], a.shape[3]


@cache
def _kernel(name: str, kernel: str) -> int:
    return native.load_made([kernel], pool_ir, name, kernel)[kernel]


def _tile(d: D.dtype) -> Tile:
    element = register(d)
    return Tile(element, native.host().lanes(BYTES[element]), 1, 1)


def pool_ir(name: str, kernel: str) -> str:
    """The LLVM IR of one kernel for one dtype, for the host: a program rarely needs a second."""
    d = D.BY_NAME[name]
    tile = _tile(d)
    m = Module()
    if kernel in ("max_dx", "max_back"):
        _emit_max_dx(m, tile, d, by_tap=kernel == "max_back")
    elif kernel.endswith("avg_dx"):
        _emit_avg_dx(m, tile, d, adaptive=kernel.startswith("adaptive_"))
    elif kernel.startswith("adaptive_"):
        _emit_adaptive(m, d, kernel.removeprefix("adaptive_"))
    else:
        _emit_windows(m, tile, d, kernel)
        if kernel == "avg":
            emit_plane(m, tile, d, 0.0, "plane_zero")
        else:
            emit_plane(m, tile, d, float("-inf"), "plane_low")
    return m.text()


class _Kernel:
    """A kernel under construction: its function, pointers and named ints."""

    def __init__(self, m: Module, name: str, inputs: int) -> None:
        self.f = f = m.kernel(name)
        (self.out, *self.ins), self.scratch, self.h, self.more = f.given(inputs, _HEAD)
        self.tid = f.thread()
        self.area = f.mul(self.h["out_h"], self.h["out_w"])

    def source(self, plane: Operand, image: str = "stride_n", channel: str = "stride_c") -> Operand:
        """The offset of a plane of an input with these strides."""
        f, h = self.f, self.h
        n, c = f.div(plane, h["channels"]), f.rem(plane, h["channels"])
        return f.add(f.mul(n, h[image]), f.mul(c, h[channel]))

    def span(self, i: Operand, dim: str, *, adaptive: bool) -> tuple[Operand, Operand, Operand]:
        """Window i of a dim (h or w): its first and end position inside the image, its count."""
        f, h = self.f, self.h
        size = h["height" if dim == "h" else "width"]
        if adaptive:
            grid = h["out_" + dim]
            start = f.div(f.mul(i, size), grid)
            end = f.div(f.add(f.mul(f.add(i, 1), size), f.sub(grid, 1)), grid)
            return start, end, f.sub(end, start)
        start = f.sub(f.mul(i, h["step_" + dim]), h["pad_" + dim])
        end = f.min(f.add(start, h["kernel_" + dim]), f.add(size, h["pad_" + dim]))
        low, high = f.max(start, 0), f.min(end, size)
        with_pad = f.icmp("ne", h["with_pad"], 0)
        count = f.select(with_pad, f.sub(end, start), f.sub(high, low))
        return low, high, f.max(count, 1)

    def first_inside(self, i: Operand, dim: str) -> tuple[Operand, Operand]:
        """Where the first tap of window i of a dim lies that is in the image, and its number."""
        f, h = self.f, self.h
        start = f.sub(f.mul(i, h["step_" + dim]), h["pad_" + dim])
        gap = h["gap_" + dim]
        missing = f.max(f.sub(0, start), 0)
        tap = f.div(f.add(missing, f.sub(gap, 1)), gap)
        return f.add(start, f.mul(tap, gap)), tap


def _better(f: Function, v: Value, best: Value) -> Value:
    """Whether v replaces the best so far: greater, or NaN (torch's rule)."""
    return f.op("or", f.fcmp("ogt", v, best), f.fcmp("uno", v, v))


def _emit_windows(m: Module, tile: Tile, d: D.dtype, kind: str) -> None:
    k = _Kernel(m, kind, 2 if kind == "taps" else 1)
    f, h, type, lanes = k.f, k.h, tile.type, tile.lanes
    numbered = kind in ("argmax", "taps")
    index_type = vector(lanes, "i32")
    element = Element(f, lanes)
    slab = f.gep(k.scratch, f.mul(k.tid, h["work_size"]))
    table = f.gep(slab, h["table_at"])
    with f.loop(0, h["out_w"]) as X:
        if numbered:
            place, tap = k.first_inside(X.i, "w")
            start = f.cast("trunc", f.typed(tap if kind == "taps" else place, "i64"), "i32")
            f.store(start, f.gep(table, X.i, "i32"))
        elif kind == "avg":
            _, _, count = k.span(X.i, "w", adaptive=False)
            f.store(f.cast("sitofp", count, tile.element), f.gep(table, X.i, tile.element))
    low, high = f.split(h["planes"])
    with f.loop(low, high) as P:
        source = f.gep(k.ins[-1], k.source(P.i), memory(d))
        f.call(
            "plane_zero" if kind == "avg" else "plane_low", "void", slab, source,
            h["slab_rows"], h["pad_h"], h["height"], h["stride_h"], h["stride_w"], h["row_pitch"],
            h["phase_pitch"], h["step_w"], h["pad_w"], h["width"],
        )  # fmt: skip
        with f.loop(0, h["out_h"]) as Y:
            corner = f.gep(slab, f.mul(f.mul(Y.i, h["step_h"]), h["row_pitch"]), tile.element)
            place = f.add(f.mul(P.i, k.area), f.mul(Y.i, h["out_w"]))
            top = f.sub(f.mul(Y.i, h["step_h"]), h["pad_h"])
            _, _, rows = k.span(Y.i, "h", adaptive=False)
            first_row, tap = k.first_inside(Y.i, "h")
            first_row = f.mul(first_row, h["width"])
            if kind == "taps":
                first_row = f.mul(tap, h["kernel_w"])
            with f.loop(0, h["out_w"], lanes) as X:
                here = f.gep(corner, X.i, tile.element)
                mask = f.lane_mask(f.sub(h["out_w"], X.i), lanes)
                carry: list[tuple[str, Operand]] = [
                    (type, const(type, 0.0 if kind == "avg" else float("-inf")))
                ]
                origin = zero(index_type)
                if numbered:
                    start = f.load(index_type, f.gep(table, X.i, "i32"))
                    carry.append((index_type, f.op("add", start, _splat32(f, first_row, lanes))))
                if kind == "argmax":  # the flat index of the tap (0, 0) of each lane's window
                    column = f.sub(f.mul(X.i, h["step_w"]), h["pad_w"])
                    origin = f.op(
                        "add",
                        _splat32(f, f.add(f.mul(top, h["width"]), column), lanes),
                        f.op("mul", lane_numbers(index_type), _splat32(f, h["step_w"], lanes)),
                    )
                with f.loop(0, h["kernel_h"], carry=carry) as R:
                    down = f.mul(R.i, h["gap_h"])
                    row = f.gep(here, f.mul(down, h["row_pitch"]), tile.element)
                    inner = [(t, v) for (t, _), v in zip(carry, R.carry, strict=True)]
                    with f.loop(0, h["kernel_w"], carry=inner) as C:
                        at = f.load("i64", f.gep(k.more, C.i, "i64"))
                        v = f.load(type, f.gep(row, at, tile.element))
                        if kind == "avg":
                            C.next = [f.op("fadd", C.carry[0], v)]
                        else:
                            better = _better(f, v, C.carry[0])
                            C.next[0] = f.select(better, v, C.carry[0])
                            if numbered:
                                step = f.add(f.mul(down, h["width"]), f.mul(C.i, h["gap_w"]))
                                if kind == "taps":
                                    step = f.add(f.mul(R.i, h["kernel_w"]), C.i)
                                index = f.op("add", origin, _splat32(f, step, lanes))
                                C.next[1] = f.select(better, index, C.carry[1])
                    R.next = list(C.carry)
                at = f.add(place, X.i)
                result = R.carry[0]
                if kind == "avg":
                    columns = f.load(type, f.gep(table, X.i, tile.element))
                    count = f.op("fmul", columns, _splat_count(f, rows, tile))
                    given = _splat_count(f, h["divisor"], tile)
                    count = f.select(f.icmp("ne", h["divisor"], 0), given, count)
                    result = element.rounded(f.op("fdiv", result, count), d)
                if kind == "argmax":
                    wide = f.cast("sext", R.carry[1], vector(lanes, "i64"))
                    f.masked_store(wide, f.gep(k.out, at, "i64"), mask)
                else:
                    memory_value = element.to_memory(result, d)
                    f.masked_store(memory_value, f.gep(k.out, at, memory(d)), mask)
                if kind == "taps":
                    narrow = f.cast("trunc", R.carry[1], vector(lanes, "i8"))
                    f.masked_store(narrow, f.gep(k.ins[0], at, "i8"), mask)
    f.ret()


def _splat32(f: Function, value: Operand, lanes: int) -> Value:
    return f.splat(f.cast("trunc", f.typed(value, "i64"), "i32"), vector(lanes, "i32"))


def _splat_count(f: Function, value: Operand, tile: Tile) -> Value:
    return f.splat(f.cast("sitofp", f.typed(value, "i64"), tile.element), tile.type)


def _emit_adaptive(m: Module, d: D.dtype, kind: str) -> None:
    k = _Kernel(m, "adaptive_" + kind, 1)
    f = k.f
    low, high = f.split(k.h["planes"])
    together = 1 if kind == "argmax" else _TOGETHER
    whole = f.add(low, f.mul(f.div(f.sub(high, low), together), together))
    for start, stop, count in ((low, whole, together), (whole, high, 1)):
        with f.loop(start, stop, count) as P:
            _adaptive_planes(k, d, kind, [f.add(P.i, i) for i in range(count)])
    f.ret()


def _adaptive_planes(k: _Kernel, d: D.dtype, kind: str, planes: list[Operand]) -> None:
    """The windows of some planes, side by side: an addition waits for the one before."""
    f, h, type = k.f, k.h, register(d)
    one = Element(f, 1)
    sources = [f.gep(k.ins[0], k.source(plane), memory(d)) for plane in planes]
    with f.loop(0, h["out_h"]) as Y:
        top, bottom, rows = k.span(Y.i, "h", adaptive=True)
        with f.loop(0, h["out_w"]) as X:
            left, right, columns = k.span(X.i, "w", adaptive=True)
            corner = f.add(f.mul(top, h["width"]), left)
            start = const(type, 0.0 if kind == "avg" else float("-inf"))
            carry: list[tuple[str, Operand]] = [(type, start)] * len(planes)
            with f.loop(top, bottom, carry=[*carry, ("i64", corner)]) as R:
                row = f.mul(R.i, h["stride_h"])
                inner = [(v.type, v) for v in R.carry]
                with f.loop(left, right, carry=inner) as C:
                    at = f.add(row, f.mul(C.i, h["stride_w"]))
                    for i, source in enumerate(sources):
                        v = one.load(f.gep(source, at, memory(d)), d)
                        if kind == "avg":
                            C.next[i] = f.op("fadd", C.carry[i], v)
                            continue
                        better = _better(f, v, C.carry[i])
                        C.next[i] = f.select(better, v, C.carry[i])
                        if kind == "argmax":
                            index = f.add(f.mul(R.i, h["width"]), C.i)
                            C.next[-1] = f.select(better, index, C.carry[-1])
                R.next = list(C.carry)
            window = f.add(f.mul(Y.i, h["out_w"]), X.i)
            for plane, result in zip(planes, R.carry, strict=False):
                at = f.add(f.mul(plane, k.area), window)
                if kind == "argmax":
                    f.store(R.carry[-1], f.gep(k.out, at, "i64"))
                    continue
                if kind == "avg":
                    for count in (rows, columns):  # as torch: / rows / columns
                        result = f.op("fdiv", result, f.cast("sitofp", count, type))
                    result = one.rounded(result, d)
                one.store(result, f.gep(k.out, at, memory(d)), d)


def _gradient_plane(k: _Kernel, tile: Tile, d: D.dtype, plane: Operand) -> tuple[Value, Value]:
    """(where the plane's sums are made, the plane's output): zeroed, of register elements."""
    f, h = k.f, k.h
    size = f.mul(h["height"], h["width"])
    out = f.gep(k.out, f.mul(plane, size), memory(d))
    sums = out
    if d in (D.float16, D.bfloat16):
        sums = f.gep(k.scratch, f.mul(k.tid, h["work_size"]))
    bytes = f.mul(size, tile.itemsize)
    f.intrinsic("memset", "void", sums, Value("0", "i8"), bytes, Value("false", "i1"))
    return sums, out


def _narrow_plane(k: _Kernel, d: D.dtype, sums: Value, out: Value) -> None:
    if sums is out:
        return
    f, one = k.f, Element(k.f, 1)
    with f.loop(0, f.mul(k.h["height"], k.h["width"])) as L:
        v = one.rounded(f.load(register(d), f.gep(sums, L.i, register(d))), d)
        one.store(v, f.gep(out, L.i, memory(d)), d)


def _emit_max_dx(m: Module, tile: Tile, d: D.dtype, *, by_tap: bool) -> None:
    k = _Kernel(m, "max_back" if by_tap else "max_dx", 2)
    f, h, type = k.f, k.h, register(d)
    one = Element(f, 1)
    size = f.mul(h["height"], h["width"])
    low, high = f.split(h["planes"])
    with f.loop(low, high) as P:
        sums, out = _gradient_plane(k, tile, d, P.i)
        source = f.gep(k.ins[0], k.source(P.i), memory(d))
        indices = f.gep(k.ins[1], f.mul(P.i, k.area), "i64")
        numbers = f.gep(k.ins[1], k.source(P.i, "taps_n", "taps_c"), "i8")
        with f.loop(0, h["out_h"]) as Y, f.loop(0, h["out_w"]) as X:
            at = f.add(f.mul(Y.i, h["stride_h"]), f.mul(X.i, h["stride_w"]))
            g = one.load(f.gep(source, at, memory(d)), d)
            if by_tap:
                at = f.add(f.mul(Y.i, h["taps_h"]), f.mul(X.i, h["taps_w"]))
                tap = f.cast("zext", f.load("i8", f.gep(numbers, at, "i8")), "i64")
                y, x = (
                    f.add(f.sub(f.mul(i, h["step_" + n]), h["pad_" + n]), f.mul(t, h["gap_" + n]))
                    for i, t, n in (
                        (Y.i, f.div(tap, h["kernel_w"]), "h"), (X.i, f.rem(tap, h["kernel_w"]), "w")
                    )
                )  # fmt: skip
                index = f.add(f.mul(y, h["width"]), x)
                inside = f.icmp("slt", tap, f.mul(h["kernel_h"], h["kernel_w"]))
                for i, n in ((y, "height"), (x, "width")):
                    inside = f.op("and", inside, f.icmp("ult", i, h[n]))
            else:
                index = f.load("i64", f.gep(indices, f.add(f.mul(Y.i, h["out_w"]), X.i), "i64"))
                inside = f.icmp("ult", index, size)
            with f.if_else(inside) as b:
                place = f.gep(sums, index, type)
                f.store(f.op("fadd", f.load(type, place), g), place)
                b.otherwise()
                if not by_tap:
                    f.store(f.typed(index, "i64"), f.gep(f.arg("args"), 1, "i64"))
                    f.store(const("i64", _INDEX_OUT_OF_RANGE), f.arg("args"))
        _narrow_plane(k, d, sums, out)
    f.ret()


def _emit_avg_dx(m: Module, tile: Tile, d: D.dtype, *, adaptive: bool) -> None:
    k = _Kernel(m, "adaptive_avg_dx" if adaptive else "avg_dx", 1)
    f, h, type, lanes = k.f, k.h, register(d), tile.lanes
    one = Element(f, 1)
    low, high = f.split(h["planes"])
    with f.loop(low, high) as P:
        sums, out = _gradient_plane(k, tile, d, P.i)
        source = f.gep(k.ins[0], k.source(P.i), memory(d))
        with f.loop(0, h["out_h"]) as Y:
            top, bottom, rows = k.span(Y.i, "h", adaptive=adaptive)
            with f.loop(0, h["out_w"]) as X:
                left, right, columns = k.span(X.i, "w", adaptive=adaptive)
                at = f.add(f.mul(Y.i, h["stride_h"]), f.mul(X.i, h["stride_w"]))
                g = one.load(f.gep(source, at, memory(d)), d)
                if adaptive:
                    for count in (rows, columns):
                        g = f.op("fdiv", g, f.cast("sitofp", count, type))
                else:
                    count = f.mul(rows, columns)
                    count = f.select(f.icmp("ne", h["divisor"], 0), h["divisor"], count)
                    g = f.op("fdiv", g, f.cast("sitofp", count, type))
                share = f.splat(g, tile.type)
                with f.loop(top, bottom) as R:
                    row = f.gep(sums, f.mul(R.i, h["width"]), type)
                    with f.loop(left, right, lanes) as C:
                        mask = f.lane_mask(f.sub(right, C.i), lanes)
                        place = f.gep(row, C.i, type)
                        old = f.masked_load(tile.type, place, mask)
                        f.masked_store(f.op("fadd", old, share), place, mask)
        _narrow_plane(k, d, sums, out)
    f.ret()
