"""Unsigned by signed bytes, exact in int32: convolutions of images channels last, and products.

    sum[n, y, x, o] = sum over (p, q, c) of x[n, y s + p d - pad, x s + q d - pad, c] w[o, p, q, c]
    int32    sum
    float32  sum * scale[o] + shift[o] (+ other * other_scale), clamped; a product and its sum are
             rounded once, or each where the host has no fused operation
    uint8    the same, rounded to the nearest whole number, clamped to [low, high] within 0 ... 255

Images are never unrolled: a unit of work is some rows of output pixels, whose inputs are read where
they lie, or, with a border, from a copy of the rows that they need (a slab).  Four bytes of pixel i
and step k lie at `rows[i] + offsets[k]`.  The weight comes packed, once for all calls: panels of 64
output channels, in each for every four k the four bytes of channel 0, of channel 1, ...
(`pack_int8`).  One instruction (vpdpbusd) multiplies four bytes of a pixel by four of each of 16
channels and adds them up; other hosts take more, and those with tile registers less: there steps
are up to 16 fours deep, and pixels come in tiles (`conv_int8_tiles`).  Integer sums are exact in
any order, and the rest is done to each element alone, so tiles and threads change nothing.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from weft.kernels.layout import Layout
from weft.kernels.schedule import amx
from weft.kernels.schedule import conv_int8_tiles as in_tiles
from weft.kernels.schedule.conv_int8_tiles import Panel
from weft.kernels.schedule.ending_int8 import COLUMNS, FOUR, SIZES, Ending, finished
from weft.kernels.schedule.nest import QUICK_WORK
from weft.kernels.schedule.pool_wide import taps
from weft.kernels.schedule.tile import up
from weft.kernels.target.llvm import (
    Function,
    Module,
    Operand,
    Slice,
    Value,
    vector,
    zero,
)
from weft.runtime import memory, native, threads
from weft.runtime.native import Launch, Stage, double_bits

Pair = tuple[int, int]
LONGEST = 65_535  # k: beyond it (255 * 128 a product) a sum may not fit in int32
_PARALLEL_FROM = 1 << 19
_SLAB = 384 << 10  # bytes that a unit of work reads, to stay below: half of L2
_PIXELS = 1024  # of a unit, to stay below
_SLICES = 8  # of the last pieces
_PAIRS = {128: "x86.sse2.pmadd.wd", 256: "x86.avx2.pmadd.wd", 512: "x86.avx512.pmaddw.d.512"}
_HEAD = (
    "images", "height", "width", "channels", "group_channels", "columns", "panels", "groups",
    "fours", "depth", "out_h", "out_w", "kernel_h", "kernel_w", "step_h", "step_w", "gap_h",
    "gap_w", "top", "left", "border", "direct", "band", "bands", "unit_images", "slab_rows",
    "slab_columns", "pitch", "pieces", "unit_pieces", "work_size", "rows_at", "table_at",
    "runs_at", "alike", "low", "high", "other_scale", "across", "steps", *in_tiles.HEAD,
)  # fmt: skip

_RUN = ("first", "pixels", "step", "steps")  # of a unit's rows of pixels whose taps are alike


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
    split = whole.reshape(groups * panels, COLUMNS, k // FOUR, FOUR).transpose(0, 2, 1, 3)
    # from the start of a line of memory on: a tile's rows that straddle two take twice the time
    packed = memory.empty((max(whole.size, memory.SMALL),), whole.dtype)[: whole.size]
    packed = packed.reshape(split.shape)
    packed[:] = split
    return packed


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
    if [x.dtype.name for x in ins] != want or kind not in SIZES or len(ins) == 3:
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
    items = groups * count
    # channels of taps that lie side by side are one tap
    merged = groups == dilation[1] == 1 and pitch == channels
    across, tap = (1, kernel[1] * depth) if merged else (kernel[1], depth)
    cells = in_tiles.cells_of(tap // FOUR)
    step_cells = max(cells, 1)
    steps = kernel[0] * across * tap // FOUR // step_cells
    # every unit reads all weights: beside quick products that is what takes time
    wanted_pieces = (2 if cells else 4) * threads.get_num_threads() if parallel else 1
    rows = max(min((_SLAB // max(row_bytes, 1) - halo) // stride[0] + 1, _PIXELS // out_w), 1)
    per_image = -(-wanted_pieces // (n * items))
    rows = min(rows, max(-(-out_h // per_image), 1))
    if dense and rows < out_h:
        rows = up(rows, 2 * amx.ROWS if cells else _tile()[0])
    bands = -(-out_h // rows)
    band = rows if dense else -(-out_h // bands)
    unit_images = 1
    if bands == 1:
        together = min(_SLAB // max(height * row_bytes, 1), _PIXELS // (out_h * out_w))
        unit_images = max(min(together, n, n * items // wanted_pieces), 1)
    units = -(-n // unit_images) * bands
    pieces = max(min(-(-wanted_pieces // units), items), 1)
    slab_rows = height if direct else (band - 1) * stride[0] + halo
    way = in_tiles.lines(band, out_w, stride, slab_columns, pitch)
    tables = (8 * unit_images * band * out_w, 8 * len(_RUN) * unit_images * band)
    if cells:
        tables = in_tiles.tables(unit_images, band, out_w, way)
    rows_at = 0 if direct else up(unit_images * slab_rows * row_bytes)
    table_at = rows_at + up(tables[0])
    runs_at = table_at + up(8 * steps)
    head = {
        "images": n, "height": height, "width": width, "channels": channels,
        "group_channels": depth, "columns": columns, "panels": count, "groups": groups,
        "fours": fours, "depth": tap // FOUR // step_cells, "out_h": out_h, "out_w": out_w,
        "kernel_h": kernel[0], "kernel_w": kernel[1], "step_h": stride[0], "step_w": stride[1],
        "gap_h": dilation[0], "gap_w": dilation[1], "top": padding[0], "left": padding[1],
        "border": ending.border, "direct": int(direct), "band": band, "bands": bands,
        "unit_images": unit_images, "slab_rows": slab_rows, "slab_columns": slab_columns,
        "pitch": pitch, "pieces": units * pieces, "unit_pieces": pieces,
        "work_size": runs_at + up(tables[1]), "rows_at": rows_at,
        "table_at": table_at, "runs_at": runs_at,
        "alike": int(ending.border != 0 or kernel[0] == 1),
        "low": double_bits(ending.low), "high": double_bits(ending.high),
        "other_scale": double_bits(ending.other_scale), "across": across, "steps": steps,
        "cells": step_cells, **way,
    }  # fmt: skip
    stage = Stage(_kernel(kind, len(ins), cells > 0), parallel)
    return Launch((stage,), tuple(head[h] for h in _HEAD), 0, head["work_size"], work < QUICK_WORK)


def _tile() -> Pair:
    """Rows and vectors of the register tile."""
    return (6, 4) if native.host().registers >= 32 else (3, 2)


@cache
def _kernel(kind: str, inputs: int, tiles: bool) -> int:
    return native.load_made(["conv_int8"], _conv_int8_ir, kind, inputs, tiles)["conv_int8"]


def _conv_int8_ir(kind: str, inputs: int, tiles: bool) -> str:
    module = Module()
    if tiles:
        for height in (1, 2):
            in_tiles.emit_block(module, height, kind, with_other=inputs == 5)
    else:
        for height in range(1, _tile()[0] + 1):
            _emit_tile(module, height, _tile()[1], kind, inputs)
    _emit_slab(module)
    f = module.kernel("conv_int8")
    pointers, scratch, h, _ = f.given(inputs, _HEAD)
    out, image, panels = pointers[:3]
    scale, shift, other = (*pointers[3:], *[Value("null", "ptr")] * 3)[:3]
    tid = f.thread()
    work = f.gep(scratch, f.mul(tid, h["work_size"]))
    rows_table, offsets, runs = (f.gep(work, h[n]) for n in ("rows_at", "table_at", "runs_at"))
    direct = f.icmp("ne", h["direct"], 0)
    row_pitch = f.mul(h["slab_columns"], h["pitch"])
    image_pitch = f.mul(h["slab_rows"], row_pitch)
    image_bytes = f.mul(f.mul(h["height"], h["width"]), h["channels"])
    total = f.mul(h["groups"], h["columns"])
    items = f.mul(h["groups"], h["panels"])
    limits = [f.cast("fptrunc", f.cast("bitcast", h[n], "double"), "float")
              for n in ("low", "high", "other_scale")]  # fmt: skip
    _fill_offsets(f, h, offsets, row_pitch)
    known = f.alloca("i64", 2)  # the unit whose slab and tables are there, and its runs or tiles
    f.store(f.typed(-1, "i64"), known)
    with f.slices(h["pieces"], _SLICES) as piece:
        unit, place = f.div(piece.unit, h["unit_pieces"]), f.rem(piece.unit, h["unit_pieces"])
        low, high = (f.div(f.mul(f.add(place, i), items), h["unit_pieces"]) for i in (0, 1))
        first = f.mul(f.div(unit, h["bands"]), h["unit_images"])
        count = f.min(f.sub(h["images"], first), h["unit_images"])
        y = f.mul(f.rem(unit, h["bands"]), h["band"])
        grid_h = f.max(f.min(f.sub(h["out_h"], y), h["band"]), 0)
        start = f.gep(image, f.mul(first, image_bytes))
        here = f.gep(start, f.mul(f.mul(y, h["step_h"]), row_pitch))
        source = f.select(direct, here, work)
        with f.iff(f.icmp("ne", unit, f.load("i64", known))):
            top = f.sub(f.mul(y, h["step_h"]), h["top"])
            needed = f.sub(h["slab_rows"], f.mul(f.sub(h["band"], grid_h), h["step_h"]))
            with f.loop(0, f.select(direct, 0, count)) as N:
                f.call(
                    "slab", "void", f.gep(work, f.mul(N.i, image_pitch)),
                    f.gep(start, f.mul(N.i, image_bytes)), needed, h["slab_columns"],
                    h["channels"], h["pitch"], top, h["left"], h["height"], h["width"],
                    h["border"],
                )  # fmt: skip
            if tiles:
                pitches = image_pitch, row_pitch
                found = in_tiles.fill(f, h, rows_table, runs, count, grid_h, *pitches)
            else:
                _fill_rows(f, h, rows_table, count, grid_h, image_pitch, row_pitch)
                found = _fill_runs(f, h, runs, count, y, grid_h)
            f.store(f.typed(found, "i64"), f.gep(known, 1, "i64"))
        f.store(f.typed(unit, "i64"), known)
        found = f.load("i64", f.gep(known, 1, "i64"))
        pixel = f.mul(f.add(f.mul(first, h["out_h"]), y), h["out_w"])
        after = f.rem(piece.after, h["unit_pieces"])
        next_low = f.div(f.mul(after, items), h["unit_pieces"])
        with f.loop(low, high) as item:
            group, panel = f.div(item.i, h["panels"]), f.rem(item.i, h["panels"])
            left = f.sub(h["columns"], f.mul(panel, COLUMNS))
            column = f.add(f.mul(group, h["columns"]), f.mul(panel, COLUMNS))
            following = f.add(item.i, 1)
            following = f.select(f.icmp("slt", following, high), following, next_low)
            size, factors = f.mul(h["fours"], COLUMNS * FOUR), f.mul(item.i, COLUMNS)
            at = f.add(f.mul(pixel, total), column)
            given = Panel(
                f.gep(source, f.mul(group, h["group_channels"])),
                f.gep(panels, f.mul(item.i, size)), f.gep(panels, f.mul(following, size)),
                f.gep(out, f.mul(at, SIZES[kind])), f.gep(other, at), total,
                f.gep(scale, factors, "float"), f.gep(shift, factors, "float"),
                f.min(left, COLUMNS), limits,
            )  # fmt: skip
            if tiles:
                blocks = piece.of(f, f.div(f.add(found, 1), 2))
                in_tiles.multiply(f, h, given, blocks, found, rows_table, runs, offsets)
            else:
                _multiply(f, h, given, piece, kind, inputs, found, rows_table, runs, offsets)
    if tiles:
        amx.release(f)
    f.ret()
    return module.text()


def _multiply(
    f: Function, h: dict[str, Value], given: Panel, piece: Slice, kind: str, inputs: int,
    found: Value, rows_table: Value, runs: Value, offsets: Value,
) -> None:  # fmt: skip
    """This piece's share of each run of the unit, by a panel."""
    (rows, vectors), element = _tile(), f"[{SIZES[kind]} x i8]"
    wide, part = vectors * native.host().lanes(4), f.mul(h["fours"], COLUMNS)
    room, room_beside = (f.alloca(t, rows * wide) for t in (element, "i8"))  # of a panel's rest
    total, calm = given.total, Value("false", "i1")
    with f.loop(0, given.width, wide) as J:
        width = f.min(f.sub(given.width, J.i), wide)
        few = f.icmp("slt", width, wide)
        pitch = f.select(few, wide, total)
        scale, shift = (f.gep(v, J.i, "float") for v in (given.scale, given.shift))
        with f.loop(0, found) as run:
            each = f.gep(runs, f.mul(run.i, len(_RUN)), "i64")
            begin, pixels, skipped, steps = f.words(each, 0, ["i64"] * len(_RUN))
            tiles = f.div(f.add(pixels, rows - 1), rows)
            least, longer = f.div(pixels, tiles), f.rem(pixels, tiles)
            b = f.gep(given.b, f.mul(f.add(f.mul(skipped, COLUMNS), J.i), FOUR))
            many = f.icmp("sge", tiles, FOUR)
            with f.loop(*piece.of(f, tiles)) as T:
                # four tiles ask for the panel to come, as far as the second cache
                asks = f.op("and", many, f.icmp("slt", T.i, f.typed(FOUR, "i64")))
                start = f.add(begin, f.add(f.mul(T.i, least), f.min(T.i, longer)))
                count = f.add(least, f.cast("zext", f.icmp("slt", T.i, longer), "i64"))
                here = f.add(J.i, f.mul(start, total))
                to, beside = f.gep(given.out, here, element), f.gep(given.other, here)
                if inputs == 5:
                    with f.iff(few), f.loop(0, count) as R:
                        row = f.gep(room_beside, f.mul(R.i, wide))
                        source_row = f.gep(beside, f.mul(R.i, total))
                        f.intrinsic("memcpy", "void", row, source_row, width, calm)
                for height in f.switch(count, range(1, rows), rows):
                    f.call(
                        f"tile{height}", "void", given.a, f.gep(rows_table, start, "i64"),
                        f.gep(offsets, skipped, "i64"), steps, b, f.select(few, room, to), pitch,
                        scale, shift, f.select(few, room_beside, beside), *given.limits,
                        f.select(asks, f.gep(given.soon, f.mul(T.i, part)), b),
                    )  # fmt: skip
                with f.iff(few), f.loop(0, count) as R:
                    row = f.gep(room, f.mul(R.i, wide), element)
                    there = f.gep(to, f.mul(R.i, total), element)
                    size = f.mul(width, SIZES[kind])
                    f.intrinsic("memcpy", "void", there, row, size, calm)


def _fill_offsets(f: Function, h: dict[str, Value], offsets: Value, row_pitch: Operand) -> None:
    """Where the bytes of each step lie, from a pixel's first."""
    with f.loop(0, h["kernel_h"]) as P, f.loop(0, h["across"]) as Q:
        down = f.mul(f.mul(P.i, h["gap_h"]), row_pitch)
        tap = f.add(down, f.mul(f.mul(Q.i, h["gap_w"]), h["pitch"]))
        number = f.add(f.mul(P.i, h["across"]), Q.i)
        to = f.gep(offsets, f.mul(number, h["depth"]), "i64")
        with f.loop(0, h["depth"]) as C:
            at = f.add(tap, f.mul(C.i, f.mul(h["cells"], FOUR)))
            f.store(f.typed(at, "i64"), f.gep(to, C.i, "i64"))


def _fill_rows(
    f: Function, h: dict[str, Value], rows_table: Value, images: Operand, grid_h: Operand,
    image_pitch: Operand, row_pitch: Operand,
) -> None:  # fmt: skip
    """Where each pixel of a unit begins."""
    with f.loop(0, images) as N, f.loop(0, grid_h) as Y:
        at = f.add(f.mul(N.i, image_pitch), f.mul(f.mul(Y.i, h["step_h"]), row_pitch))
        to = f.gep(rows_table, f.mul(f.add(f.mul(N.i, grid_h), Y.i), h["out_w"]), "i64")
        step = f.mul(h["step_w"], h["pitch"])
        with f.loop(0, h["out_w"]) as X:
            f.store(f.typed(f.add(at, f.mul(X.i, step)), "i64"), f.gep(to, X.i, "i64"))


def _fill_runs(
    f: Function, h: dict[str, Value], runs: Value, images: Operand, y: Operand, grid_h: Operand
) -> Value:
    """A unit's rows of outputs, those in one whose taps meet the same rows of the kernel: where
    bytes around the image are 0, taps that see nothing else are left out.  How many there are.
    """
    size = f.mul(h["across"], h["depth"])

    def put(at: Value, *values: Operand) -> None:
        for i, v in enumerate(values):
            f.store(f.typed(v, "i64"), f.gep(at, i, "i64"))

    with f.if_else(f.icmp("ne", h["alike"], 0)) as way:
        put(runs, 0, f.mul(f.mul(images, grid_h), h["out_w"]), 0, f.mul(h["kernel_h"], size))
        way.otherwise()
        carry = [("i64", f.typed(v, "i64")) for v in (0, -1, -1)]
        with f.loop(0, images, 1, carry) as N:
            with f.loop(0, grid_h, 1, [("i64", v) for v in N.carry]) as Y:
                found, *before = Y.carry
                top = f.sub(f.mul(f.add(y, Y.i), h["step_h"]), h["top"])
                now = taps(f, top, h["gap_h"], h["height"], h["kernel_h"])
                same = f.op("and", *(f.icmp("eq", *pair) for pair in zip(now, before, strict=True)))
                run = f.gep(runs, f.mul(f.sub(found, 1), len(_RUN)), "i64")
                longer = f.gep(run, _RUN.index("pixels"), "i64")
                with f.if_else(same) as again:
                    f.store(f.op("add", f.load("i64", longer), h["out_w"]), longer)
                    again.otherwise()
                    first = f.mul(f.add(f.mul(N.i, grid_h), Y.i), h["out_w"])
                    steps = f.mul(f.max(f.sub(now[1], now[0]), 0), size)
                    put(f.gep(run, len(_RUN), "i64"), first, h["out_w"], f.mul(now[0], size), steps)
                    more = f.add(found, 1)
                Y.next = [again.merge("i64", found, more), *now]
            N.next = [*Y.carry]
    return way.merge("i64", 1, N.carry[0])


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
        ("ptr noalias", "out"), ("i64", "total"),
        ("ptr noalias readonly", "scale"), ("ptr noalias readonly", "shift"),
        ("ptr noalias readonly", "other"), ("float", "low"), ("float", "high"),
        ("float", "other_scale"), ("ptr", "soon"),
    ]  # fmt: skip
    f = module.function(f"tile{height}", arguments, internal=True)
    lanes = native.host().lanes(4)
    sums, whole = vector(lanes, "i32"), lanes * FOUR
    rows = f.arg("rows")
    base = [f.gep(f.arg("a"), f.load("i64", f.gep(rows, r, "i64"))) for r in range(height)]
    carry: list[tuple[str, Operand]] = [(sums, zero(sums))] * (height * vectors)
    with f.loop(0, f.arg("fours"), 1, carry) as step:
        b = f.gep(f.arg("b"), f.mul(step.i, COLUMNS * FOUR))
        f.touch(f.gep(f.arg("soon"), f.mul(step.i, 64)), level=2)
        at = f.load("i64", f.gep(f.arg("offsets"), step.i, "i64"))
        columns = [f.load(sums, f.gep(b, v * whole), 1) for v in range(vectors)]
        done: list[Operand] = []
        for r in range(height):
            four = f.splat(f.load("i32", f.gep(base[r], at), 1), sums)
            done += [dot(f, step.carry[r * vectors + v], four, columns[v]) for v in range(vectors)]
        step.next = done
    _emit_ending(f, step.carry, height, vectors, kind, with_other=inputs == 5)
    f.ret()


def _emit_ending(
    f: Function, sums: list[Value], height: int, vectors: int, kind: str, *, with_other: bool
) -> None:
    """A tile's sums to results: the rest of `tile`."""
    lanes, bytes_of = native.host().lanes(4), vector(native.host().lanes(4), "i8")
    out, total, other, floats = f.arg("out"), f.arg("total"), f.arg("other"), vector(lanes, "float")
    scale, shift = (
        [f.load(floats, f.gep(f.arg(n), v * lanes, "float")) for v in range(vectors)]
        if kind != "int32" else [] for n in ("scale", "shift")
    )  # fmt: skip
    limits = tuple(f.arg(n) for n in ("low", "high", "other_scale"))
    for r in range(height):
        row, values, more = f.mul(total, r), sums[r * vectors : (r + 1) * vectors], []
        if with_other:
            more = [
                f.load(bytes_of, f.gep(other, f.add(row, v * lanes)), 1) for v in range(vectors)
            ]
        if kind != "int32":
            values = [f.cast("sitofp", v, floats) for v in values]
            values = finished(f, values, (scale, shift, more), limits, kind)
        to = f.gep(out, f.mul(row, SIZES[kind]))
        for i, v in enumerate(values):
            f.store(v, f.gep(to, i, v.type), 1)


def dot(f: Function, total: Value, four: Value, columns: Value) -> Value:
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
