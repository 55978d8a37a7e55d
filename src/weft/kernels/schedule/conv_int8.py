"""Unsigned by signed bytes, exact in int32: convolutions of images channels last, and products.

    sum[n, y, x, o] = sum over (p, q, c) of x[n, y s + p d - pad, x s + q d - pad, c] w[o, p, q, c]
    int32    sum
    float32  sum * scale[o] + shift[o] (+ other * other_scale), each operation rounded, clamped
    uint8    the same, rounded to the nearest whole number, clamped to [low, high] within 0 ... 255

Images are never unrolled: a unit of work is some rows of output pixels, whose inputs are read where
they lie, or, with a border, from a copy of the rows that they need (a slab).  Four bytes of pixel i
and step k lie at `rows[i] + offsets[k]`.  The weight comes packed, once for all calls: panels of 64
output channels, in each for every four k the four bytes of channel 0, of channel 1, ...
(`pack_int8`).  One instruction (vpdpbusd) multiplies four bytes of a pixel by four of each of 16
channels and adds them up; other hosts take more.  Integer sums are exact in any order, and the rest
is done to each element alone, so tiles and threads change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from weft.kernels.layout import Layout
from weft.kernels.schedule.conv_code import open_block
from weft.kernels.schedule.nest import QUICK_WORK
from weft.kernels.schedule.tile import up
from weft.kernels.target.llvm import (
    Function,
    Module,
    Operand,
    Value,
    const,
    vector,
    with_element,
    zero,
)
from weft.runtime import native, threads
from weft.runtime.native import Launch, Stage, double_bits

Pair = tuple[int, int]
COLUMNS = 64  # of a panel: part of the packed weights' format
FOUR = 4  # bytes that are multiplied and added at once
LONGEST = 65_535  # k: beyond it (255 * 128 a product) a sum may not fit in int32
_PARALLEL_FROM = 1 << 19
_SLAB = 384 << 10  # bytes that a unit of work reads, to stay below: half of L2
_PIXELS = 1024  # of a unit, to stay below
_MAGIC = 1.5 * 2**23  # added to a number of [0, 255] it leaves the rounded number in the last bits
_PAIRS = {128: "x86.sse2.pmadd.wd", 256: "x86.avx2.pmadd.wd", 512: "x86.avx512.pmaddw.d.512"}
_SIZES = {"int32": 4, "float32": 4, "uint8": 1}
_HEAD = (
    "images", "height", "width", "channels", "group_channels", "columns", "panels", "groups",
    "fours", "depth", "out_h", "out_w", "kernel_h", "kernel_w", "step_h", "step_w", "gap_h",
    "gap_w", "top", "left", "border", "direct", "band", "bands", "unit_images", "slab_rows",
    "slab_columns", "pitch", "pieces", "unit_pieces", "work_size", "rows_at", "table_at",
    "low", "high", "other_scale",
)  # fmt: skip


@dataclass(frozen=True)
class Ending:
    """What becomes of the sums beside scale and shift: `border` is the byte around the image."""

    border: int = 0
    low: float = 0.0
    high: float = 255.0
    other_scale: float = 0.0


def pack_int8(weight: np.ndarray, groups: int = 1) -> np.ndarray:
    """int8 (N, ..., C) as panels (groups * ceil(N / groups / 64), K / 4, 64, 4), C filled up to a
    multiple of 4, zeros where there is nothing.
    """
    n, channels = weight.shape[0], weight.shape[-1]
    rows, more = n // max(groups, 1), -channels % FOUR
    weight = np.pad(weight, [(0, 0)] * (weight.ndim - 1) + [(0, more)])
    k, panels = int(np.prod(weight.shape[1:])), -(-rows // COLUMNS)
    whole = np.zeros((groups, panels * COLUMNS, k), np.int8)
    whole[:, :rows] = weight.reshape(groups, rows, k)
    split = whole.reshape(groups * panels, COLUMNS, k // FOUR, FOUR)
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3))


def plan_conv_int8(
    ins: list[Layout], out: Layout, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair,
    groups: int, ending: Ending,
) -> Launch:  # fmt: skip
    """out (N, OH, OW, O) of images (N, H, W, C); ins are (image, panels), then scale and shift
    where out is not int32, then another image like out, in uint8.  All contiguous.

    ValueError: a layout or size that the kernel does not read.
    """
    image, panels = ins[:2]
    n, height, width, channels = image.shape
    _, out_h, out_w, total = out.shape
    columns, depth = total // groups, channels // groups
    count, fours = -(-columns // COLUMNS), kernel[0] * kernel[1] * depth // FOUR
    kind = out.dtype.name
    want = ["uint8", "int8", *["float32"] * 2, "uint8"][: len(ins)]
    if [x.dtype.name for x in ins] != want or kind not in _SIZES or len(ins) == 3:
        raise ValueError(f"conv_int8: dtypes {[str(x.dtype) for x in ins]} to {out.dtype}")
    if len(ins) == (2 if kind != "int32" else 4) or not all(x.is_contiguous for x in (*ins, out)):
        raise ValueError("conv_int8: operands must be contiguous, and as many as the result takes")
    sizes = [panels.shape, *(x.shape for x in ins[2:4]), *(x.shape for x in ins[4:])]
    wanted = [(groups * count, fours, COLUMNS, FOUR), *[(groups * count * COLUMNS,)] * 2, out.shape]
    reach = [
        (o - 1) * s + (k - 1) * d + 1 - 2 * p <= size
        for o, s, k, d, p, size in zip(
            (out_h, out_w), stride, kernel, dilation, padding, (height, width), strict=True
        )
    ]
    fits = sizes == wanted[: len(sizes)] and depth % FOUR == 0 and fours * FOUR <= LONGEST
    if not fits or out.shape[0] != n or total % groups or channels % groups or not all(reach):
        raise ValueError(f"conv_int8: {image.shape} and {sizes} do not give {out.shape}")
    if not out.size:
        return Launch(())
    work = out.size * fours * FOUR
    parallel = work >= _PARALLEL_FROM
    dense = kernel == stride == (1, 1) and padding == (0, 0)
    if dense:  # pixels are rows of a matrix
        n, height, width, out_h, out_w = 1, n * height * width, 1, n * height * width, 1
    direct = padding == (0, 0)
    halo = (kernel[0] - 1) * dilation[0] + 1
    slab_columns = width if direct else (out_w - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1
    # pixels a power of two apart would share few sets of the first cache
    pitch = channels if direct or channels <= 64 else up(channels) | 64
    row_bytes = slab_columns * pitch
    wanted_pieces = 4 * threads.get_num_threads() if parallel else 1
    items = groups * count
    rows = max(min((_SLAB // max(row_bytes, 1) - halo) // stride[0] + 1, _PIXELS // out_w), 1)
    per_image = -(-wanted_pieces // (n * items))
    rows = min(rows, max(-(-out_h // per_image), 1))
    if dense and rows < out_h:
        rows = up(rows, _tile()[0])
    bands = -(-out_h // rows)
    band = rows if dense else -(-out_h // bands)
    unit_images = 1
    if bands == 1:
        together = min(_SLAB // max(height * row_bytes, 1), _PIXELS // (out_h * out_w))
        unit_images = max(min(together, n, n * items // wanted_pieces), 1)
    units = -(-n // unit_images) * bands
    pieces = max(min(-(-wanted_pieces // units), items), 1)
    slab_rows = height if direct else (band - 1) * stride[0] + halo
    rows_at = 0 if direct else up(unit_images * slab_rows * row_bytes)
    table_at = rows_at + up(8 * unit_images * band * out_w)
    head = {
        "images": n, "height": height, "width": width, "channels": channels,
        "group_channels": depth, "columns": columns, "panels": count, "groups": groups,
        "fours": fours, "depth": depth // FOUR, "out_h": out_h, "out_w": out_w,
        "kernel_h": kernel[0], "kernel_w": kernel[1], "step_h": stride[0], "step_w": stride[1],
        "gap_h": dilation[0], "gap_w": dilation[1], "top": padding[0], "left": padding[1],
        "border": ending.border, "direct": int(direct), "band": band, "bands": bands,
        "unit_images": unit_images, "slab_rows": slab_rows, "slab_columns": slab_columns,
        "pitch": pitch, "pieces": units * pieces, "unit_pieces": pieces,
        "work_size": up(table_at + 8 * fours), "rows_at": rows_at, "table_at": table_at,
        "low": double_bits(ending.low), "high": double_bits(ending.high),
        "other_scale": double_bits(ending.other_scale),
    }  # fmt: skip
    stage = Stage(_kernel(kind, len(ins)), parallel)
    return Launch((stage,), tuple(head[h] for h in _HEAD), 0, head["work_size"], work < QUICK_WORK)


def _tile() -> Pair:
    """Rows and vectors of the register tile."""
    return (6, 4) if native.host().registers >= 32 else (3, 2)


@cache
def _kernel(kind: str, inputs: int) -> int:
    module = Module(native.host().vector_bits)
    (rows, vectors), element = _tile(), f"[{_SIZES[kind]} x i8]"
    for height in range(1, rows + 1):
        _emit_tile(module, height, vectors, kind, inputs)
    _emit_slab(module)
    f = module.kernel("conv_int8")
    pointers, scratch, h, _ = open_block(f, inputs, _HEAD)
    out, image, panels = pointers[:3]
    scale, shift, other = (*pointers[3:], *[Value("null", "ptr")] * 3)[:3]
    tid = f.cast("sext", f.arg("tid"), "i64")
    work = f.gep(scratch, f.mul(tid, h["work_size"]))
    rows_table, offsets = (f.gep(work, h[n]) for n in ("rows_at", "table_at"))
    direct = f.icmp("ne", h["direct"], 0)
    row_pitch = f.mul(h["slab_columns"], h["pitch"])
    image_pitch = f.mul(h["slab_rows"], row_pitch)
    image_bytes = f.mul(f.mul(h["height"], h["width"]), h["channels"])
    total = f.mul(h["groups"], h["columns"])
    items = f.mul(h["groups"], h["panels"])
    limits = [f.cast("fptrunc", f.cast("bitcast", h[n], "double"), "float")
              for n in ("low", "high", "other_scale")]  # fmt: skip
    _fill_offsets(f, h, offsets, row_pitch)
    with f.units(h["pieces"]) as piece:
        unit, place = f.div(piece, h["unit_pieces"]), f.rem(piece, h["unit_pieces"])
        low, high = (f.div(f.mul(f.add(place, i), items), h["unit_pieces"]) for i in (0, 1))
        first = f.mul(f.div(unit, h["bands"]), h["unit_images"])
        count = f.min(f.sub(h["images"], first), h["unit_images"])
        y = f.mul(f.rem(unit, h["bands"]), h["band"])
        grid_h = f.max(f.min(f.sub(h["out_h"], y), h["band"]), 0)
        pixels = f.mul(f.mul(count, grid_h), h["out_w"])
        start = f.gep(image, f.mul(first, image_bytes))
        with f.if_else(direct) as way:
            here = f.gep(start, f.mul(f.mul(y, h["step_h"]), row_pitch))
            way.otherwise()
            top = f.sub(f.mul(y, h["step_h"]), h["top"])
            needed = f.sub(h["slab_rows"], f.mul(f.sub(h["band"], grid_h), h["step_h"]))
            with f.loop(0, count) as N:
                f.call(
                    "slab", "void", f.gep(work, f.mul(N.i, image_pitch)),
                    f.gep(start, f.mul(N.i, image_bytes)), needed, h["slab_columns"],
                    h["channels"], h["pitch"], top, h["left"], h["height"], h["width"],
                    h["border"],
                )  # fmt: skip
        source = way.merge("ptr", here, work)
        with f.loop(0, count) as N, f.loop(0, grid_h) as Y:
            at = f.add(f.mul(N.i, image_pitch), f.mul(f.mul(Y.i, h["step_h"]), row_pitch))
            to = f.gep(rows_table, f.mul(f.add(f.mul(N.i, grid_h), Y.i), h["out_w"]), "i64")
            step = f.mul(h["step_w"], h["pitch"])
            with f.loop(0, h["out_w"]) as X:
                f.store(f.typed(f.add(at, f.mul(X.i, step)), "i64"), f.gep(to, X.i, "i64"))
        pixel = f.mul(f.add(f.mul(first, h["out_h"]), y), h["out_w"])
        with f.loop(low, high) as item:
            group, panel = f.div(item.i, h["panels"]), f.rem(item.i, h["panels"])
            left = f.sub(h["columns"], f.mul(panel, COLUMNS))
            column = f.add(f.mul(group, h["columns"]), f.mul(panel, COLUMNS))
            a = f.gep(source, f.mul(group, h["group_channels"]))
            b = f.gep(panels, f.mul(f.mul(item.i, h["fours"]), COLUMNS * FOUR))
            wide = vectors * native.host().lanes(4)
            with f.loop(0, COLUMNS, wide) as J, f.iff(f.icmp("slt", J.i, left)):
                factors = f.add(f.mul(item.i, COLUMNS), J.i)
                at = f.add(f.mul(pixel, total), f.add(column, J.i))

                with f.loop(0, pixels, rows) as L:
                    here = f.add(at, f.mul(L.i, total))
                    rest = f.min(f.sub(pixels, L.i), rows)
                    for height in f.switch(rest, range(1, rows), rows):
                        f.call(
                            f"tile{height}", "void", a, f.gep(rows_table, L.i, "i64"), offsets,
                            h["fours"], f.gep(b, f.mul(J.i, FOUR)), f.gep(out, here, element),
                            total, f.sub(left, J.i), f.gep(scale, factors, "float"),
                            f.gep(shift, factors, "float"), f.gep(other, here), *limits,
                        )  # fmt: skip
    f.ret()
    return native.load(module.text(), ["conv_int8"])["conv_int8"]


def _fill_offsets(f: Function, h: dict[str, Value], offsets: Value, row_pitch: Operand) -> None:
    """Where the four bytes of each step lie, from a pixel's first."""
    with f.loop(0, h["kernel_h"]) as P, f.loop(0, h["kernel_w"]) as Q:
        down = f.mul(f.mul(P.i, h["gap_h"]), row_pitch)
        tap = f.add(down, f.mul(f.mul(Q.i, h["gap_w"]), h["pitch"]))
        number = f.add(f.mul(P.i, h["kernel_w"]), Q.i)
        to = f.gep(offsets, f.mul(number, h["depth"]), "i64")
        with f.loop(0, h["depth"]) as C:
            f.store(f.typed(f.add(tap, f.mul(C.i, FOUR)), "i64"), f.gep(to, C.i, "i64"))


def _emit_slab(module: Module) -> None:
    """`slab(to, from, rows, ...)`: rows of an image from `top` on, `border` where it has none."""
    names = ("rows", "columns", "channels", "pitch", "top", "left", "height", "width", "border")
    pointers = [("ptr noalias", "to"), ("ptr noalias readonly", "from")]
    f = module.function("slab", [*pointers, *(("i64", n) for n in names)], internal=True)
    to, source = f.arg("to"), f.arg("from")
    rows, columns, channels, pitch, top, left, height, width, border = (f.arg(n) for n in names)
    byte, calm = f.cast("trunc", border, "i8"), Value("false", "i1")
    end = f.min(f.add(left, width), columns)
    line = f.mul(width, channels)
    with f.loop(0, rows) as R:
        y = f.add(R.i, top)
        row = f.gep(to, f.mul(R.i, f.mul(columns, pitch)))
        inside = f.icmp("ult", y, height)
        low, high = (f.select(inside, x, columns) for x in (f.min(left, columns), end))
        for start, stop in ((0, low), (high, columns)):
            size = f.mul(f.sub(stop, start), pitch)
            f.intrinsic("memset", "void", f.gep(row, f.mul(start, pitch)), byte, size, calm)
        here = f.gep(source, f.mul(y, line))
        with f.if_else(f.icmp("eq", pitch, channels)) as way:
            size = f.mul(f.sub(high, low), channels)
            f.intrinsic("memcpy", "void", f.gep(row, f.mul(low, pitch)), here, size, calm)
            way.otherwise()
            with f.loop(low, high) as X:
                pixel = f.gep(here, f.mul(f.sub(X.i, low), channels))
                f.intrinsic("memcpy", "void", f.gep(row, f.mul(X.i, pitch)), pixel, channels, calm)
    f.ret()


def _emit_tile(module: Module, height: int, vectors: int, kind: str, inputs: int) -> None:
    """`height` pixels by some vectors of channels, from the first product to the stored result."""
    arguments = [
        ("ptr noalias readonly", "a"), ("ptr noalias readonly", "rows"),
        ("ptr noalias readonly", "offsets"), ("i64", "fours"), ("ptr noalias readonly", "b"),
        ("ptr noalias", "out"), ("i64", "total"), ("i64", "left"),
        ("ptr noalias readonly", "scale"), ("ptr noalias readonly", "shift"),
        ("ptr noalias readonly", "other"), ("float", "low"), ("float", "high"),
        ("float", "other_scale"),
    ]  # fmt: skip
    f = module.function(f"tile{height}", arguments, internal=True)
    lanes = native.host().lanes(4)
    sums, whole = vector(lanes, "i32"), lanes * FOUR
    rows = f.arg("rows")
    base = [f.gep(f.arg("a"), f.load("i64", f.gep(rows, r, "i64"))) for r in range(height)]
    carry: list[tuple[str, Operand]] = [(sums, zero(sums))] * (height * vectors)
    with f.loop(0, f.arg("fours"), 1, carry) as step:
        b = f.gep(f.arg("b"), f.mul(step.i, COLUMNS * FOUR))
        at = f.load("i64", f.gep(f.arg("offsets"), step.i, "i64"))
        columns = [f.load(sums, f.gep(b, v * whole), 1) for v in range(vectors)]
        done: list[Operand] = []
        for r in range(height):
            four = f.splat(f.load("i32", f.gep(base[r], at), 1), sums)
            done += [_dot(f, step.carry[r * vectors + v], four, columns[v]) for v in range(vectors)]
        step.next = done
    _emit_ending(f, step.carry, height, vectors, kind, with_other=inputs == 5)
    f.ret()


def _emit_ending(
    f: Function, sums: list[Value], height: int, vectors: int, kind: str, *, with_other: bool
) -> None:
    """A tile's sums to results: the rest of `tile`."""
    lanes, bytes_of = native.host().lanes(4), vector(native.host().lanes(4), "i8")
    words, floats, size = vector(lanes, "i32"), vector(lanes, "float"), _SIZES[kind]
    stored = {"int32": words, "float32": floats, "uint8": bytes_of}[kind]
    out, total, left, other = (f.arg(n) for n in ("out", "total", "left", "other"))
    few = f.icmp("slt", left, vectors * lanes)
    room, spare = f.alloca(bytes_of, vectors), f.alloca(stored)
    scale, shift = (
        [f.load(floats, f.gep(f.arg(n), v * lanes, "float")) for v in range(vectors)]
        if kind != "int32" else [] for n in ("scale", "shift")
    )  # fmt: skip
    low, high, other_scale = (f.splat(f.arg(n), floats) for n in ("low", "high", "other_scale"))
    for r in range(height):
        values, more = sums[r * vectors : (r + 1) * vectors], []
        if with_other:
            there = f.gep(other, f.mul(total, r))
            with f.if_else(few) as way:
                _copy(f, there, room, left, 1)
                way.otherwise()
            there = way.merge("ptr", room, there)
            more = [f.load(bytes_of, f.gep(there, v * lanes), 1) for v in range(vectors)]
        if kind != "int32":
            values = [f.cast("sitofp", v, floats) for v in values]
            values = finished(f, values, (scale, shift, more), (low, high, other_scale), kind)
        to = f.gep(out, f.mul(f.mul(total, r), size))
        with f.if_else(few) as way:
            for v, value in enumerate(values):
                rest, start = f.sub(left, v * lanes), f.gep(to, v * lanes * size)
                with f.if_else(f.icmp("sge", rest, lanes)) as whole:
                    f.store(value, start, 1)
                    whole.otherwise()
                    f.store(value, spare)
                    _copy(f, spare, start, rest, size)
            way.otherwise()
            for v, value in enumerate(values):
                f.store(value, f.gep(to, v * lanes * size), 1)


def finished(
    f: Function, sums: list[Value], factors: tuple[list, list, list], limits: tuple, kind: str
) -> list[Value]:
    """Vectors of sums as floats or bytes; factors are (scale, shift, bytes of another image)."""
    (scale, shift, more), (low, high, other_scale), floats = factors, limits, sums[0].type
    values = [f.op("fadd", f.op("fmul", v, s), t)
              for v, s, t in zip(sums, scale, shift, strict=True)]  # fmt: skip
    if more:
        words = [f.cast("zext", m, with_element(floats, "i32")) for m in more]
        values = [f.op("fadd", v, f.op("fmul", f.cast("uitofp", m, floats), other_scale))
                  for v, m in zip(values, words, strict=True)]  # fmt: skip
    values = [f.select(f.fcmp("ogt", low, v), low, v) for v in values]  # keeps NaN
    values = [f.select(f.fcmp("olt", high, v), high, v) for v in values]
    if kind == "float32":
        return values
    values = [f.op("fadd", v, const(floats, _MAGIC)) for v in values]
    values = [f.cast("bitcast", v, with_element(floats, "i32")) for v in values]
    return [f.cast("trunc", v, with_element(floats, "i8")) for v in values]


def _copy(f: Function, source: Value, to: Value, count: Operand, size: int) -> None:
    """`count` elements, one by one: the last panel's, where it is not full."""
    with f.loop(0, f.mul(count, size)) as i:
        f.store(f.load("i8", f.gep(source, i.i), 1), f.gep(to, i.i), 1)


def _dot(f: Function, total: Value, four: Value, columns: Value) -> Value:
    """total + the products of a pixel's four unsigned bytes with each column's four signed ones."""
    host = native.host()
    if host.vector_bits == 512 and host.has("avx512vnni"):
        return f.intrinsic("x86.avx512.vpdpbusd.512", total.type, total, four, columns)
    pairs = _PAIRS.get(host.vector_bits) if host.arch == "x86_64" else None
    if pairs is not None:  # bytes 0 and 2, then 1 and 3, as 16 bits: two products and their sum
        halves = vector(2 * native.host().lanes(4), "i16")
        u, s = (f.cast("bitcast", v, halves) for v in (four, columns))
        for x, y in (
            (f.op("and", u, 255), f.op("ashr", f.op("shl", s, 8), 8)),
            (f.op("lshr", u, 8), f.op("ashr", s, 8)),
        ):
            total = f.op("add", total, f.intrinsic(pairs, total.type, x, y))
        return total
    for byte in range(FOUR):
        u = f.op("and", f.op("lshr", four, 8 * byte), 255)
        s = f.op("ashr", f.op("shl", columns, 24 - 8 * byte), 24)
        total = f.op("add", total, f.op("mul", u, s))
    return total
