"""The weight gradient of a convolution of words in tile registers (see `amx`).

    out[co][ci][tap] = sum over words w of g[co][w] . x[tap][w][ci]

A word is two neighbouring pixels of a row of g, beside a zero the last of an odd row. The numbers:
words in order (image, row, place), in chunks of as many as divide an image's, at most sixteen; an
instruction takes a chunk. The chunks of a *part* follow on one another in a sum, the parts' sums
are added in order; how many parts there are depends on sizes alone.

How: g is the left operand. Its words are packed as panels of 32 columns, then turned, once for all
taps and channels. x is the right one, in *planes*: all words that a column of the kernel meets, 32
channels of each side by side. Rows of a plane are as long as those of g, so taps of one column are
places in one plane. With a stride down, rows that no tap of a column meets together lie in planes
of their own. A thread takes an item, (group, some panels of channels, some panels of columns), and
a part of k: block after block it makes the planes and multiplies.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule import amx
from weft.kernels.schedule.conv import Pair
from weft.kernels.schedule.conv_pack import emit_grid, emit_slab
from weft.kernels.schedule.conv_wide import window
from weft.kernels.schedule.nest import PARALLEL_WORK, QUICK_WORK
from weft.kernels.schedule.tile import Tile, tile_for, up
from weft.kernels.schedule.words import halves, woven
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import Function, Module, Operand, Value, vector, zero
from weft.runtime import native, threads
from weft.runtime.native import Launch, Stage

_WIDE = 2 * amx.DEPTH  # columns, and channels, of a panel: two registers
_SUMS = _WIDE * _WIDE  # of a tap, a panel of columns and one of channels
_BLOCK = 24  # chunks of a block: the sums' way to memory and back costs little beside them
_PARTS = 16  # at most
_APART = 2 << 20  # bytes of the sums of all parts
_LEAST = 4  # blocks of a part
_NEAR = 640 << 10  # bytes of an item's planes, and of its sums, to stay below
_MOST = 2 << 20  # bytes of a slab and the planes of one panel: beyond, words are multiplied singly
_WORTH = 8  # words that instructions have room for, to one that they get, at most
HEAD = (
    "columns", "panels", "item_panels", "panel_items", "channels", "ranks", "item_ranks",
    "rank_items", "units", "parts", "blocks", "chunks", "cells", "words", "area", "grid_w",
    "full", "odd", "taps", "planes", "plane", "reach", "move", "step", "far", "row_pitch",
    "slab_columns", "top", "left", "step_y", "step_x", "height", "width", "source_n", "source_c",
    "source_h", "source_w", "g_n", "g_c", "g_h", "g_w", "grid_h", "pixels", "planes_at", "room_at",
    "left_at", "table_at", "c_at", "sums", "work", "work_size",
)  # fmt: skip
_WEAVE = ("rows", "planes", "plane", "grid_w", "full", "odd", "move", "step", "far", "row_pitch")
_FINISH = ("parts", "apart", "rows", "channels", "taps", "row")


def cells_of(area: int) -> int:
    """The words of a chunk: as many as divide an image's."""
    return max(n for n in range(1, amx.DEPTH + 1) if area % n == 0)


def plan_tiles_dw(
    g: Layout, x: Layout, out: Layout, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Launch | None:
    """As `plan_conv2d_dw`, of words; None where an image is too wide, or registers too empty."""
    d = D.from_np(out.dtype)
    images, co, oh, ow = g.shape
    kernel = (out.shape[2], out.shape[3])
    channels, columns = out.shape[1], co // groups
    grid_w = -(-ow // 2)
    area = oh * grid_w
    if images * area == 0:
        return None
    cells = cells_of(area)
    ranks, panels = -(-channels // _WIDE), -(-columns // _WIDE)
    room = up(channels, amx.DEPTH) * up(columns, amx.DEPTH) * amx.DEPTH
    if room > _WORTH * channels * columns * cells:
        return None
    view = window(kernel, (oh, ow), stride, dilation)
    taps = [divmod(t, view.columns) for t in view.taps]
    move, across = view.move
    planes = sorted({(c, r % move) for r, c in taps})
    reach = max(r // move for r, _ in taps)
    chunks = images * area // cells
    blocks, most = -(-chunks // _BLOCK), _BLOCK * cells
    pieces = min(met(area, most), images)
    lines = min(met(grid_w, most), pieces * oh)
    plane = (lines + pieces * reach) * grid_w * _WIDE
    row_pitch = view.columns * _WIDE
    slab = up(((min(lines, oh) + reach) * move * row_pitch + amx.DEPTH) * 4)
    if slab + len(planes) * plane * 4 > _MOST:
        return None
    parts, whole = 1, groups * ranks * panels * len(taps) * _SUMS * 4
    while parts < _PARTS and 2 * parts * whole <= _APART and 2 * parts * _LEAST <= blocks:
        parts *= 2
    flops = 2 * g.size * channels * len(taps) + x.size + out.size
    parallel = flops >= PARALLEL_WORK
    item = _share(
        ranks, panels, groups * parts, threads.get_num_threads() if parallel else 1, len(taps),
        (slab // 64 + len(planes) * plane // amx.DEPTH) * 1.5, len(planes) * plane * 4,
    )  # fmt: skip
    item_ranks, item_panels = item
    rank_items, panel_items = -(-ranks // item_ranks), -(-panels // item_panels)
    items = groups * rank_items * panel_items
    sums = item_ranks * item_panels * len(taps) * _SUMS
    planes_at = slab
    room_at = planes_at + up(item_ranks * len(planes) * plane * 4)
    left_at = room_at + (most + amx.DEPTH) * _WIDE * 4
    table_at = left_at + _BLOCK * _WIDE * amx.DEPTH * 4
    c_at = table_at + up(8 * _BLOCK)
    head = {
        "columns": columns, "panels": panels, "item_panels": item_panels,
        "panel_items": panel_items, "channels": channels, "ranks": ranks,
        "item_ranks": item_ranks, "rank_items": rank_items, "units": items * parts,
        "parts": parts, "blocks": blocks, "chunks": chunks, "cells": cells,
        "words": images * area, "area": area, "grid_w": grid_w, "full": ow // 2, "odd": ow % 2,
        "taps": len(taps), "planes": len(planes), "plane": plane, "reach": reach, "move": move,
        "step": 2 * across * _WIDE, "far": across * _WIDE, "row_pitch": row_pitch,
        "slab_columns": view.columns, "top": padding[0], "left": padding[1],
        "step_y": view.steps[0], "step_x": view.steps[1],
        "height": x.shape[2], "width": x.shape[3], "source_n": x.strides[0],
        "source_c": x.strides[1], "source_h": x.strides[2], "source_w": x.strides[3],
        "g_n": g.strides[0], "g_c": g.strides[1], "g_h": g.strides[2], "g_w": g.strides[3],
        "grid_h": oh, "pixels": ow, "planes_at": planes_at, "room_at": room_at,
        "left_at": left_at, "table_at": table_at, "c_at": c_at, "sums": sums,
        "work": items * parts * sums * 4 if parts > 1 else 0,
        "work_size": c_at + (sums * 4 if parts == 1 else 0),
    }  # fmt: skip
    ints = [head[n] for n in HEAD]
    for r, c in taps:
        ints.append(planes.index((c, r % move)) * plane + r // move * grid_w * _WIDE)
    for c, r in planes:
        ints.append(r * row_pitch + c * _WIDE)
    code = _kernels(d.name)
    stages = [Stage(code[n], parallel) for n in _NAMES[: min(parts, 2)]]
    return Launch(tuple(stages), tuple(ints), head["work"], head["work_size"], flops < QUICK_WORK)


def met(size: int, block: int) -> int:
    """How many runs of `size` k, one behind the other, a block meets at most."""
    return 1 + -(-(block - math.gcd(block, size)) // size)


def _share(
    ranks: int, panels: int, times: int, workers: int, taps: int, rank: float, near: int
) -> Pair:
    """Panels of (channels, columns) of an item, of which there are `times` as many: those that
    stay near, the least work of the busiest thread. It is counted in cycles of a block; `rank`
    those of a panel of channels."""

    def cost(pair: Pair) -> float:
        r, p = pair
        items = times * -(-ranks // r) * -(-panels // p)
        each = r * p * taps * _BLOCK * 64 + r * rank + p * _BLOCK * 180
        return -(-items // workers) * each

    found = [
        (r, p)
        for r in range(1, ranks + 1)
        for p in range(1, panels + 1)
        if r * p == 1 or max(near * r, r * p * taps * _SUMS * 4) <= _NEAR
    ]
    return min(sorted(found, reverse=True), key=cost)


_NAMES = ("conv_dw_tiles", "conv_dw_tiles_add")


@cache
def _kernels(dtype: str) -> dict[str, int]:
    return native.load_made(_NAMES, conv_dw_tiles_ir, dtype)


def conv_dw_tiles_ir(name: str) -> str:
    """The LLVM IR of the kernel of one dtype, for the host."""
    d = D.BY_NAME[name]
    m = Module()
    tile = replace(tile_for(register(d)), vectors=_WIDE // amx.DEPTH)
    emit_slab(m, tile, d)
    emit_grid(m, replace(tile, pairs=True), d)
    _emit_weave(m, tile, d)
    _emit_turn(m, tile)
    for rows in (1, 2):
        for across in (1, 2):
            _emit_products(m, rows, across)
    _emit_finish(m, tile, d)
    _emit_kernel(m, tile, d)
    _emit_add(m, tile, d)
    return m.text()


@dataclass
class _Item:
    """What a thread has of the results: a group, panels of columns, of channels; the part of k."""

    group: Operand
    panel: Operand
    last_panel: Operand
    rank: Operand
    last_rank: Operand
    part: Operand

    def sums(self, f: Function, h: dict[str, Value], panel: Operand, rank: Operand) -> Operand:
        """Where those of a panel of columns and one of channels lie among the item's."""
        ranks = f.sub(self.last_rank, self.rank)
        at = f.add(f.mul(f.sub(panel, self.panel), ranks), f.sub(rank, self.rank))
        return f.mul(f.mul(at, h["taps"]), _SUMS)


def _item(f: Function, h: dict[str, Value], unit: Operand) -> _Item:
    part, number = f.rem(unit, h["parts"]), f.div(unit, h["parts"])
    panel = f.mul(f.rem(number, h["panel_items"]), h["item_panels"])
    number = f.div(number, h["panel_items"])
    rank = f.mul(f.rem(number, h["rank_items"]), h["item_ranks"])
    last_panel = f.min(f.add(panel, h["item_panels"]), h["panels"])
    last_rank = f.min(f.add(rank, h["item_ranks"]), h["ranks"])
    return _Item(f.div(number, h["rank_items"]), panel, last_panel, rank, last_rank, part)


def _emit_kernel(m: Module, tile: Tile, d: D.dtype) -> None:
    f = m.kernel(_NAMES[0])
    el = tile.element
    (out, g, x), scratch, h, tap_at = f.given(2, HEAD)
    plane_at = f.gep(tap_at, h["taps"], "i64")
    mine = f.mul(f.thread(), h["work_size"])
    slab = f.gep(scratch, f.add(h["work"], mine))
    planes, room, left, table = (
        f.gep(slab, h[n]) for n in ("planes_at", "room_at", "left_at", "table_at")
    )
    apart = f.icmp("sgt", h["parts"], 1)
    rank_size = f.mul(h["planes"], h["plane"])
    amx.configure_blocks(f, amx.ROWS, h["cells"])
    with f.units(h["units"]) as unit:
        item = _item(f, h, unit)
        c = f.select(apart, f.gep(scratch, f.mul(unit, h["sums"]), el), f.gep(slab, h["c_at"]))
        low, high = (f.div(f.mul(f.add(item.part, i), h["blocks"]), h["parts"]) for i in (0, 1))
        with f.loop(low, high) as B:
            chunk = f.mul(B.i, _BLOCK)
            chunks = f.min(f.sub(h["chunks"], chunk), _BLOCK)
            k, kc = f.mul(chunk, h["cells"]), f.mul(chunks, h["cells"])
            first = f.cast("zext", f.icmp("eq", B.i, low), "i64")
            _fill_table(f, h, k, kc, table)
            with f.loop(item.rank, item.last_rank) as R:
                to = f.gep(planes, f.mul(f.sub(R.i, item.rank), rank_size), el)
                channel = f.mul(R.i, _WIDE)
                count = f.min(f.sub(h["channels"], channel), _WIDE)
                source = f.add(f.mul(item.group, h["channels"]), channel)
                origin = f.gep(x, f.mul(source, h["source_c"]), memory(d))
                _fill_planes(f, d, h, k, kc, (origin, slab, to, plane_at), count)
            with f.loop(item.panel, item.last_panel) as P:
                column = f.mul(P.i, _WIDE)
                columns = f.min(f.sub(h["columns"], column), _WIDE)
                co = f.add(f.mul(item.group, h["columns"]), column)
                f.call(
                    "pack", "void", room, f.gep(g, f.mul(co, h["g_c"]), memory(d)), k, kc, columns,
                    h["grid_h"], h["grid_w"], h["g_n"], h["g_c"], h["g_h"], h["g_w"], h["pixels"],
                )  # fmt: skip
                f.call("turn", "void", left, room, chunks, h["cells"])
                with f.loop(item.rank, item.last_rank) as R:
                    at = f.mul(f.sub(R.i, item.rank), rank_size)
                    b = f.gep(planes, at, el)
                    sums = f.gep(c, item.sums(f, h, P.i, R.i), el)
                    channels = f.sub(h["channels"], f.mul(R.i, _WIDE))
                    some = [
                        f.cast("zext", f.icmp("sgt", n, amx.DEPTH), "i64")
                        for n in (columns, channels)
                    ]
                    shape = f.add(f.mul(some[0], 2), some[1])
                    with f.loop(0, h["taps"]) as T:
                        here = f.gep(b, f.load("i64", f.gep(tap_at, T.i, "i64")), el)
                        to = f.gep(sums, f.mul(T.i, _SUMS), el)
                        for case in f.switch(shape, (0, 1, 2), 3):
                            f.call(
                                f"products{1 + case // 2}x{1 + case % 2}", "void", left, here,
                                table, chunks, h["cells"], to, first,
                            )  # fmt: skip
        done = f.select(apart, item.panel, item.last_panel)
        with f.loop(item.panel, done) as P, f.loop(item.rank, item.last_rank) as R:
            place = f.gep(c, item.sums(f, h, P.i, R.i), el)
            _finish(f, d, h, item, (P.i, R.i), out, place)
    amx.release(f)
    f.ret()


def _pieces(
    f: Function, h: dict[str, Value], k: Operand, kc: Operand
) -> Iterator[tuple[Operand, Operand, Operand, Operand, Operand, Operand]]:
    """Of each image that a block meets (image, its first word there and the one behind the last,
    first row, rows of a plane, rows of planes before). A generator of one loop."""
    end = f.add(k, kc)
    last = f.div(f.add(end, f.sub(h["area"], 1)), h["area"])
    with f.loop(f.div(k, h["area"]), last, 1, [("i64", 0)]) as N:
        start = f.mul(N.i, h["area"])
        low = f.sub(f.max(k, start), start)
        high = f.min(f.sub(end, start), h["area"])
        y = f.div(low, h["grid_w"])
        stop = f.div(f.add(high, f.sub(h["grid_w"], 1)), h["grid_w"])
        rows = f.add(f.sub(stop, y), h["reach"])
        yield N.i, low, high, y, rows, N.carry[0]
        N.next = [f.add(N.carry[0], rows)]


def _fill_table(f: Function, h: dict[str, Value], k: Operand, kc: Operand, table: Value) -> None:
    """Where each chunk of the block lies in a plane."""
    for image, low, high, y, _, before in _pieces(f, h, k, kc):
        shift = f.mul(f.sub(before, y), h["grid_w"])
        number = f.sub(f.add(f.mul(image, h["area"]), low), k)
        to = f.gep(table, f.div(number, h["cells"]), "i64")
        with f.loop(0, f.div(f.sub(high, low), h["cells"])) as C:
            word = f.add(f.add(low, f.mul(C.i, h["cells"])), shift)
            f.store(f.typed(f.mul(word, _WIDE), "i64"), f.gep(to, C.i, "i64"))


def _fill_planes(
    f: Function, d: D.dtype, h: dict[str, Value], k: Operand, kc: Operand,
    memories: tuple[Value, Value, Value, Value], channels: Operand,
) -> None:  # fmt: skip
    """The planes of a panel of channels: what the block meets of each image."""
    origin, slab, planes, plane_at = memories
    for image, _, _, y, rows, before in _pieces(f, h, k, kc):
        down = f.mul(f.mul(y, h["move"]), h["step_y"])
        f.call(
            "slab", "void", slab, f.gep(origin, f.mul(image, h["source_n"]), memory(d)),
            f.mul(rows, h["move"]), h["slab_columns"], channels, _WIDE, h["row_pitch"],
            f.sub(h["top"], down), h["left"], h["step_y"], h["step_x"], h["height"], h["width"],
            h["source_c"], h["source_h"], h["source_w"],
        )  # fmt: skip
        to = f.gep(planes, f.mul(f.mul(before, h["grid_w"]), _WIDE), "float")
        f.call("weave", "void", to, slab, plane_at, rows, *(h[n] for n in _WEAVE[1:]))


def _emit_weave(m: Module, tile: Tile, d: D.dtype) -> None:
    """`weave(to, slab, places, ...)`: of each plane, which begins at a place of the slab, so many
    rows of words: pixels `far` apart side by side, a last odd one beside zeros."""
    pointers = [("ptr noalias", "to"), ("ptr noalias", "slab"), ("ptr noalias", "places")]
    f = m.function("weave", [*pointers, *(("i64", n) for n in _WEAVE)], internal=True)
    rows, planes, plane, grid_w, full, odd, move, step, far, row_pitch = (f.arg(n) for n in _WEAVE)
    el, lanes = tile.element, tile.lanes
    bits = vector(lanes, "i32")

    def word(at: Value, v: int, other: Value | None) -> Value:
        low = f.load(tile.type, f.gep(at, v, el))
        high = zero(tile.type) if other is None else f.load(tile.type, f.gep(other, v, el))
        if d is D.bfloat16:  # widened: the other half of each is zero
            low, high = (f.cast("bitcast", n, bits) for n in (low, high))
            return f.cast("bitcast", f.op("or", f.op("lshr", low, 16), high), tile.type)
        low, high = (halves(f, n, d, lanes) for n in (low, high))
        return woven(f, low, high, lanes)

    with f.loop(0, planes) as P, f.loop(0, rows) as R:
        at = f.load("i64", f.gep(f.arg("places"), P.i, "i64"))
        row = f.gep(f.arg("slab"), f.add(at, f.mul(f.mul(R.i, move), row_pitch)), el)
        place = f.mul(f.mul(R.i, grid_w), _WIDE)
        to = f.gep(f.arg("to"), f.add(f.mul(P.i, plane), place), el)
        with f.loop(0, full) as W:
            here = f.gep(row, f.mul(W.i, step), el)
            there = f.gep(here, far, el)
            for v in range(0, _WIDE, lanes):
                f.store(word(here, v, there), f.gep(to, f.add(f.mul(W.i, _WIDE), v), el))
        with f.loop(0, odd):
            here = f.gep(row, f.mul(full, step), el)
            for v in range(0, _WIDE, lanes):
                f.store(word(here, v, None), f.gep(to, f.add(f.mul(full, _WIDE), v), el))
    f.ret()


def _emit_turn(m: Module, tile: Tile) -> None:
    """`turn(to, from, chunks, cells)`: from[word][column] to [chunk][column][word]."""
    args = [("ptr noalias", "to"), ("ptr noalias", "from"), ("i64", "chunks"), ("i64", "cells")]
    f = m.function("turn", args, internal=True)
    el, lanes, cells = tile.element, tile.lanes, f.arg("cells")
    with f.loop(0, f.arg("chunks")) as C, f.loop(0, _WIDE, lanes) as J:
        source = f.gep(f.arg("from"), f.add(f.mul(f.mul(C.i, cells), _WIDE), J.i), el)
        # words behind the chunk's are never multiplied
        square = [f.load(tile.type, f.gep(source, i * _WIDE, el)) for i in range(lanes)]
        to = f.gep(f.arg("to"), f.mul(f.add(f.mul(C.i, _WIDE), J.i), amx.DEPTH), el)
        for i, row in enumerate(f.transpose(square)):
            f.store(row, f.gep(to, i * amx.DEPTH, el))
    f.ret()


def _emit_products(m: Module, rows: int, across: int) -> None:
    """`products{rows}x{across}`: c (+)= so many registers of columns by so many of channels."""
    args = [("ptr noalias", n) for n in ("a", "b", "offsets")]
    args += [("i64", "chunks"), ("i64", "cells"), ("ptr noalias", "c"), ("i64", "first")]
    f = m.function(f"products{rows}x{across}", args, internal=True)
    line, a, b = amx.CELL * amx.DEPTH, 4, 6
    square = amx.ROWS * line
    sums = [
        (2 * i + j, f.gep(f.arg("c"), (2 * i + j) * square))
        for i in range(rows)
        for j in range(across)
    ]
    amx.begin(f, sums, line, f.arg("first"))
    with f.loop(0, f.arg("chunks")) as K:
        at = f.gep(f.arg("b"), f.load("i64", f.gep(f.arg("offsets"), K.i, "i64")), "float")
        left = f.gep(f.arg("a"), f.mul(K.i, 2 * square))
        for i in range(rows):
            amx.load(f, a + i, f.gep(left, i * square), line)
        for j in range(across):
            amx.load(f, b + j, f.gep(at, j * line), 2 * line)
            for i in range(rows):
                amx.multiply_pairs(f, 2 * i + j, a + i, b + j)
    for register_, place in sums:
        amx.store(f, register_, place, line)
    f.ret()


def _emit_add(m: Module, tile: Tile, d: D.dtype) -> None:
    """The sums of the parts, in order, and out they go."""
    f = m.kernel(_NAMES[1])
    (out, *_), scratch, h, _ = f.given(2, HEAD)
    each = f.mul(h["item_panels"], h["item_ranks"])
    low, high = f.split(f.mul(f.div(h["units"], h["parts"]), each))
    with f.loop(low, high) as I:
        unit = f.mul(f.div(I.i, each), h["parts"])
        item, own = _item(f, h, unit), f.rem(I.i, each)
        panel = f.add(item.panel, f.div(own, h["item_ranks"]))
        rank = f.add(item.rank, f.rem(own, h["item_ranks"]))
        some = f.icmp("slt", panel, item.last_panel)
        with f.iff(f.op("and", some, f.icmp("slt", rank, item.last_rank))):
            at = f.add(f.mul(unit, h["sums"]), item.sums(f, h, panel, rank))
            _finish(f, d, h, item, (panel, rank), out, f.gep(scratch, at, tile.element))
    f.ret()


def _finish(
    f: Function, d: D.dtype, h: dict[str, Value], item: _Item, panels: tuple[Operand, Operand],
    out: Value, sums: Value,
) -> None:  # fmt: skip
    """The sums of a panel of columns and one of channels to out."""
    column, channel = (f.mul(n, _WIDE) for n in panels)
    row = f.mul(h["channels"], h["taps"])
    co = f.add(f.mul(item.group, h["columns"]), column)
    to = f.gep(out, f.add(f.mul(co, row), f.mul(channel, h["taps"])), memory(d))
    rows, channels = f.sub(h["columns"], column), f.sub(h["channels"], channel)
    f.call("finish", "void", to, sums, h["parts"], h["sums"], rows, channels, h["taps"], row)


def _emit_finish(m: Module, tile: Tile, d: D.dtype) -> None:
    """`finish(out, c, ...)`: out[column][channel][tap] = the sum of all parts of
    c[tap][column / 16][channel / 16][column % 16][channel % 16], of a panel each; 0.0 for -0.0."""
    args = [("ptr noalias", "out"), ("ptr noalias", "c"), *(("i64", n) for n in _FINISH)]
    f = m.function("finish", args, internal=True)
    parts, apart, rows, channels, taps, row = (f.arg(n) for n in _FINISH)
    el, lanes, wide = tile.element, tile.lanes, Element(f, tile.lanes)
    square = lanes * lanes
    single = f.icmp("eq", taps, 1)  # then channels, not taps, are what follows on one another

    def sum(at: Value) -> Value:
        with f.loop(1, parts, 1, [(tile.type, f.load(tile.type, at))]) as S:
            more = f.load(tile.type, f.gep(at, f.mul(S.i, apart), el))
            S.next = [f.op("fadd", S.carry[0], more)]
        return f.op("fadd", S.carry[0], 0.0)

    def store(v: Value, at: Value, some: Value) -> None:
        f.masked_store(wide.stored(v, d), at, some)

    with f.loop(0, f.min(rows, _WIDE)) as I, f.loop(0, f.min(channels, _WIDE), lanes) as J:
        corner = f.add(f.mul(f.div(I.i, lanes), 2 * square), f.mul(f.rem(I.i, lanes), lanes))
        corner = f.gep(f.arg("c"), f.add(corner, f.mul(J.i, lanes)), el)
        to = f.gep(f.arg("out"), f.add(f.mul(I.i, row), f.mul(J.i, taps)), memory(d))
        left = f.min(f.sub(channels, J.i), lanes)
        with f.if_else(single) as way:
            store(sum(corner), to, f.lane_mask(left, lanes))
            way.otherwise()
            with f.loop(0, taps, lanes) as T:
                last = f.sub(f.sub(taps, T.i), 1)
                some = f.lane_mask(f.add(last, 1), lanes)
                # a missing tap repeats the last one: it is not stored
                places = (f.add(T.i, f.min(last, i)) for i in range(lanes))
                values = [sum(f.gep(corner, f.mul(p, _SUMS), el)) for p in places]
                for j, v in enumerate(f.transpose(values)):
                    with f.iff(f.icmp("slt", f.typed(j, "i64"), left)):
                        at = f.gep(to, f.add(f.mul(taps, j), T.i), memory(d))
                        store(v, at, some)
    f.ret()
