"""The weight gradient of a convolution.

    out[co, ci, p, q] = sum over n, oy, ox of
                        g[n, co, oy, ox] * x[n, ci, oy*sh - ph + p*dh, ox*sw - pw + q*dw]

Shapes and dtypes as in `conv`; g and x may have any strides. Numbers: one accumulator an output,
fma in increasing k = (n, oy, ox) in blocks of 384 (a block may go on in the next image), blocks
added in order. Where outputs go by pairs of channels (`words`), k are words of two pixels of a row
of g, the second one's product added first; a last odd one is alone.

How: transposed, rows (p, q, ci) times columns co, by the tiles of `conv_micro` or its runs of k:
the number of a row and a k lies in a slab at the sum of two offsets. A thread takes (group, chunk
of channels, some panels of columns) and has the whole sum over k: block after block it copies the
rows of x that the block meets into its slab, packs the block of g a panel at a time (g that lies
channels last is read in place), and multiplies. Where there are fewer of these than threads they
share the blocks, whose sums a second stage adds. Where much of what a tap sees is border, each tap
has a table of the k at which it lies in the image. What the next block needs of images that lie
channels last is prefetched between the tiles. Words of x are made in the slab, in place: of each
number and the one a step beside it; those of a last odd pixel, beside zeros, lie behind the row.
Where the host has tile registers for words, `conv_weight_tiles` has another order of them.

Long because every choice here is about one loop over k: who has it, what lies where meanwhile.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from weft.core import dtype as D
from weft.kernels.choices import choose
from weft.kernels.layout import Layout
from weft.kernels.schedule.amx import multiplies_pairs_in_tiles
from weft.kernels.schedule.conv import Pair, check, need
from weft.kernels.schedule.conv_depth import is_narrow, plan_narrow_dw
from weft.kernels.schedule.conv_micro import (
    CHANNELS,
    RUN,
    TAPS,
    emit_runs,
    emit_tiles,
    heights,
    is_brief,
    pixel_tile,
)
from weft.kernels.schedule.conv_pack import FEW, emit_grid, emit_slab
from weft.kernels.schedule.conv_weight_tiles import met, plan_tiles_dw
from weft.kernels.schedule.conv_wide import pixel_pitch, window
from weft.kernels.schedule.conv_zeros import (
    Block,
    emit_zeros,
    without_zeros,
    zeros_room,
    zeros_worth,
)
from weft.kernels.schedule.nest import PARALLEL_WORK, QUICK_WORK
from weft.kernels.schedule.tile import KC, Tile, up
from weft.kernels.schedule.words import halves, in_pairs, woven
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import BYTES, Function, Module, Operand, Value, vector, zero
from weft.runtime import native, threads
from weft.runtime.native import Launch, Stage

_SLAB = 384 << 10  # bytes of a thread's slab to stay below
_SUMS = 160 << 10  # and of its sums, for each MB of the second cache, of up to two
_APART = 4 << 20  # bytes of the sums of all blocks, where threads share them
_HEAD = (
    "columns", "panels", "item_panels", "panel_chunks", "channels", "chunk", "chunks", "taps",
    "items", "k", "area", "grid_h", "grid_w", "run_h", "run_w",
    "source_n", "source_c", "source_h", "source_w", "height", "width",
    "slab_columns", "row", "pitch", "row_pitch", "halo", "step_y", "step_x", "top", "left",
    "grid_step", "pixel_h", "pixel_w", "last_at", "g_n", "g_c", "g_h", "g_w",
    "b_at", "c_at", "rows_at", "table_at", "work_size", "tables",
    "parts", "blocks", "block_sums", "work", "run_pixels", "move", "singles", "single_at",
    "filled", "zeros", "zeros_at", "b_row", "in_place", "read_in_place", "turned",
)  # fmt: skip
_TAP = ("y_low", "y_high", "x_low", "x_high")  # the grid's rows and columns whose pixel is inside
_FEW = 8  # sums that a tile of fewer costs: it waits for them
_TURNED = 64  # channels that x has at least where it is packed in place of g
_NEAR = 1 << 10  # bytes from pixel to pixel of an operand that is read where it lies
_LONG = 6  # pixels of rows of g that go by runs: of shorter ones the ends are most
_WORTH = 0.03  # the share of products with the border that is worth leaving out
_WEAVE = ("rows", "columns", "pitch", "row_pitch", "move", "singles", "single_at")


def plan_conv2d_dw(
    g: Layout, x: Layout, out: Layout, stride: Pair, padding: Pair, dilation: Pair, groups: int,
    *, fast: bool = False,
) -> Launch:  # fmt: skip
    """out = the gradient of conv2d for its weight, g that for its output; ins = (g, x). `fast` as
    in `plan_conv2d`.
    """
    check("conv2d_dw", x, out, g, stride, padding, dilation, groups)
    need("conv2d_dw", out=out)
    if out.size == 0:
        return Launch(())
    d = D.from_np(out.dtype)
    _, co, oh, ow = g.shape
    kernel = (out.shape[2], out.shape[3])
    if is_narrow(out, groups, x) and g.size:
        return plan_narrow_dw(g, x, out, stride, padding, dilation)
    channels, columns = out.shape[1], co // groups
    pairs = in_pairs(columns, d, fast=fast)
    if pairs and multiplies_pairs_in_tiles():
        plan = plan_tiles_dw(g, x, out, stride, padding, dilation, groups)
        if plan is not None:
            return plan
    # whether the pixels of x are those of g, and read where they lie
    read_in_place = not pairs and d.itemsize >= 4 and (kernel, stride) == ((1, 1), (1, 1))
    read_in_place = read_in_place and (oh, ow) == x.shape[2:] and not any(padding)
    # then x may be packed in place of g, which has more channels: the sums are the same
    turned = read_in_place and g.strides[1] != 1 and _TURNED <= channels < columns
    # pixels far apart share sets of the first cache: 0.6 of a copy's speed with 4 KB between them
    read_in_place = read_in_place and 0 <= (g if turned else x).strides[3] * d.itemsize <= _NEAR
    turned = turned and read_in_place
    if turned:
        g, x, channels, columns = x, g, columns, channels
    images, per = g.shape[0], 2 if pairs else 1
    grid_w = -(-ow // per)
    area, odd = max(oh * grid_w, 1), ow % per
    view = window(kernel, (oh, ow), stride, dilation)
    taps = len(view.taps)
    flops = 2 * g.size * channels * taps + x.size + out.size
    parallel = flops >= PARALLEL_WORK
    workers = threads.get_num_threads() if parallel else 1
    tile = pixel_tile(register(d), columns, pairs=pairs)
    blocks, parts = -(-images * oh * grid_w // KC), 1
    chunks = groups * -(-channels // tile.lanes)
    if chunks * -(-columns // tile.columns) < workers:
        if blocks >= 2 * workers and 2 * blocks * out.size * tile.itemsize <= _APART:
            parts, workers = 2 * workers, 1
        else:
            # narrow panels, so that more threads have one
            some = (v for v in tile.widths if chunks * -(-columns // (v * tile.lanes)) >= workers)
            tile = _tile(d, next(some, 1), pairs=pairs)
    size, nr = tile.itemsize, tile.columns
    # whether g lies as packed panels, but for the step from k to k
    pixel = g.strides[3]
    in_place = not pairs and d.itemsize >= 4 and columns % nr == 0 and pixel >= nr
    in_place = in_place and g.strides == (oh * ow * pixel, 1, ow * pixel, pixel)
    spans = _spans(
        kernel, (oh, ow), (x.shape[2], x.shape[3]), stride, padding, dilation, channels, tile
    )
    # three taps of a row at once: the k are runs of pixels then
    runs = is_brief(tile) and (kernel[1], stride[1], dilation[1]) == (TAPS, 1, 1)
    runs = runs and ow >= _LONG and padding[1] <= 1
    if runs and len(spans) > 1:  # where the first tap begins and the last one ends
        spans = [(*s[:3], ow - padding[1]) for s in spans[::TAPS]]
    # of the slab: the pieces of images that a block of k meets
    halo = view.rows - (max(oh, 1) - 1) * view.move[0]
    pieces = min(met(area, KC), max(images, 1))
    lines = min(met(max(grid_w, 1), KC), pieces * max(oh, 1))
    singles = (kernel[1] - 1) * dilation[1] + 1 if odd else 0
    row_columns = view.columns + singles
    slab_pixels = (lines * view.move[0] + pieces * (halo - view.move[0])) * row_columns
    if read_in_place:
        slab_pixels = 0
    panels = -(-columns // nr)
    room = _SUMS * min(max(native.second_cache() >> 20, 1), 2)
    chunk, item_panels = _share(
        channels, panels, groups, workers,
        (
            choose("slab", _SLAB, _SLAB // 2, _SLAB * 2) // size,
            choose("sums", room, room // 2, room * 2) // (taps * nr * size),
        ),
        slab_pixels, (taps, len(spans)), tile, 9 if in_place else 20,
    )  # fmt: skip
    chunks, panel_chunks = -(-channels // chunk), -(-panels // item_panels)
    pitch = FEW if chunk <= FEW <= tile.lanes and not pairs else pixel_pitch(chunk, tile)
    row_pitch, pixel_w = row_columns * pitch, per * view.move[1] * pitch
    rows, row = chunk * taps, 1
    pixel_h = view.move[0] * row_pitch
    last_at = view.columns * pitch if odd else (grid_w - 1) * pixel_w
    if read_in_place:
        row, (pixel_h, pixel_w) = x.strides[1], x.strides[2:]
        last_at = (grid_w - 1) * pixel_w
    merged = oh == 1 or (not odd and g.strides[2] == ow * g.strides[3])
    run = (1, area) if merged else (oh, grid_w)
    b_at = up((slab_pixels * pitch + tile.lanes) * size)  # pixels are written by vectors
    c_at = b_at + up((KC + tile.lanes) * nr * size)
    sums = item_panels * (rows + tile.lanes) * nr
    rows_at = c_at + up(sums * size)
    items = groups * chunks * panel_chunks
    shared = up(items * blocks * sums * size) if parts > 1 else 0
    table_at = rows_at + up(8 * rows)
    zeros = 0 if read_in_place else zeros_worth(tile, chunk, taps)
    every = [(0, oh, 0, ow)] if zeros and (runs or len(spans) > 1) else []  # what lists of k go by
    filled = len(spans) + len(every)
    zeros_at = up(table_at + 16 * (KC + tile.lanes) * filled)
    head = {
        "columns": columns, "panels": panels, "item_panels": item_panels,
        "panel_chunks": panel_chunks, "channels": channels, "chunk": chunk, "chunks": chunks,
        "taps": taps, "items": items, "parts": parts, "blocks": blocks, "block_sums": sums,
        "work": shared,
        "k": images * oh * grid_w, "area": area, "grid_h": max(oh, 1), "grid_w": max(grid_w, 1),
        "run_h": max(run[0], 1), "run_w": max(run[1], 1),
        "source_n": x.strides[0], "source_c": x.strides[1], "source_h": x.strides[2],
        "source_w": x.strides[3], "height": x.shape[2], "width": x.shape[3],
        "slab_columns": view.columns, "pitch": pitch, "row_pitch": row_pitch,
        "halo": halo, "step_y": view.steps[0], "step_x": view.steps[1],
        "top": padding[0], "left": padding[1], "grid_step": view.move[0],
        "pixel_h": pixel_h, "pixel_w": pixel_w, "last_at": last_at, "row": row,
        "run_pixels": oh * ow if merged else ow,
        "move": view.move[1], "singles": singles, "single_at": (ow - 1) * view.move[1],
        "g_n": g.strides[0], "g_c": g.strides[1], "g_h": g.strides[2], "g_w": g.strides[3],
        "b_at": b_at, "c_at": c_at, "rows_at": rows_at, "table_at": table_at,
        "work_size": zeros_at + (zeros_room(tile, chunk, taps) if zeros else 0),
        "tables": len(spans), "filled": filled, "zeros": zeros, "zeros_at": zeros_at,
        "b_row": pixel if in_place else nr, "in_place": int(in_place),
        "read_in_place": int(read_in_place), "turned": int(turned),
    }  # fmt: skip
    rows_columns = (divmod(t, view.columns) for t in view.taps)
    places = (r * row_pitch + c * pitch for r, c in rows_columns)
    spans = [n for *y, low, high in (*spans, *every) for n in (*y, low // per, -(-high // per))]
    ints = (*(head[n] for n in _HEAD), *places, *spans)
    code = _kernels(d.name, tile.vectors, tile.widths_of(columns), pairs, runs)
    stages = [Stage(code[n], parallel) for n in ("conv_dw", "conv_dw_add")[: min(parts, 2)]]
    return Launch(tuple(stages), ints, shared, head["work_size"], flops < QUICK_WORK)


def _spans(
    kernel: Pair, grid: Pair, image: Pair, stride: Pair, padding: Pair, dilation: Pair,
    channels: int, tile: Tile,
) -> list[tuple[int, int, int, int]]:  # fmt: skip
    """The _TAP of each tap; one of the whole grid where there is little to leave out, or few
    channels to each tap."""
    along = [
        [
            (
                min(max(-((t * d - p) // s), 0), size),
                min(max(-((t * d - p - n) // s), 0), size),
            )
            for t in range(k)
        ]
        for k, size, n, s, p, d in zip(
            kernel, grid, image, stride, padding, dilation, strict=True
        )
    ]  # fmt: skip
    spans = [(*y, *x) for y in along[0] for x in along[1]]
    inside = sum(max(b - a, 0) * max(d - c, 0) for a, b, c, d in spans)
    apart = every = 1
    if channels < tile.rows:  # a tap's fill no tile, all together do
        apart, every = len(spans) * _rows(channels, tile), _rows(channels * len(spans), tile)
    if apart * inside < (1 - _WORTH) * every * len(spans) * grid[0] * grid[1]:
        return spans
    return [(0, grid[0], 0, grid[1])]


def _rows(count: int, tile: Tile) -> int:
    """What a table's rows cost: those that whole tiles leave over more than their share."""
    whole, rest = divmod(count, tile.rows)
    cost = whole * tile.rows
    for height in heights(tile)[1:]:
        cost += max(height, _FEW // max(tile.vectors, 2)) * (rest >= height)
        rest -= height * (rest >= height)
    return cost


def _share(
    channels: int, panels: int, groups: int, workers: int, most: Pair, slab_pixels: int,
    taps_tables: Pair, tile: Tile, panel: int,
) -> Pair:  # fmt: skip
    """(channels, panels) of an item: of those whose slab and sums fit `most`, the least work.

    It is counted in rows of a tile over a block of k. What whole tiles leave over costs more than
    its share; a panel is packed once an item, and the item's tables and slab are filled: `panel`
    (20; in place 9), 2 and 1/1000 a number, as measured.
    """
    taps, tables = taps_tables

    def parts(total: int, limit: int, steps: Iterable[int]) -> set[int]:
        """Even parts, and multiples of the steps."""
        even = (-(-total // n) for n in range(1, min(total, 64) + 1))
        every = {*even, *(m for s in steps for m in range(s, total + s, s))}
        return {min(p, total) for p in every if p <= max(limit, 1)} or {1}

    def split(total: int, part: int) -> list[Pair]:
        """How many whole parts, and the rest."""
        return [(total // part, part), (1, total % part)][: 1 + (total % part > 0)]

    def cost(pair: Pair) -> float:
        """Of the thread with the most, if each takes the next item when it is done."""
        items = [
            (groups * n * m, p * (tables * _rows(c * taps // tables, tile) + panel) + 2 * tables
             + slab_pixels * c / 1000)
            for n, c in split(channels, pair[0])
            for m, p in split(panels, pair[1])
        ]  # fmt: skip
        if sum(n for n, _ in items) > 8 * workers:
            return sum(n * each for n, each in items) / workers
        threads = [0.0] * workers
        for n, each in items:
            for _ in range(n):
                threads[threads.index(min(threads))] += each
        return max(threads)

    found = [
        (chunk, item_panels)
        for chunk in parts(channels, min(most), (tile.rows, tile.lanes))
        if slab_pixels * pixel_pitch(chunk, tile) <= most[0] or chunk <= tile.lanes
        for item_panels in parts(panels, most[1] // chunk, ())
    ]
    return min(sorted(found, reverse=True), key=cost)


def _tile(d: D.dtype, vectors: int, *, pairs: bool) -> Tile:
    """The one whose panels have so many vectors."""
    columns = vectors * native.host().lanes(BYTES[register(d)])
    return replace(pixel_tile(register(d), columns, pairs=pairs), vectors=vectors)


@cache
def _kernels(
    dtype: str, vectors: int, widths: tuple[int, ...], pairs: bool, runs: bool
) -> dict[str, int]:
    names = ("conv_dw", "conv_dw_add")
    return native.load_made(names, conv_dw_ir, dtype, vectors, widths, pairs=pairs, runs=runs)


def conv_dw_ir(
    name: str, vectors: int, widths: tuple[int, ...], *, pairs: bool = False, runs: bool = False
) -> str:
    """The LLVM IR of the kernel of one dtype and panels of so many vectors, of which there are
    such `widths`, for the host. With `runs` it goes by those.
    """
    d = D.BY_NAME[name]
    tile = replace(_tile(d, vectors, pairs=pairs), only=widths)
    m = Module()
    (emit_runs if runs else emit_tiles)(m, tile)
    emit_slab(m, replace(tile, pairs=False), d)
    emit_zeros(m, tile)
    if pairs:
        _emit_weave(m, tile, d)
    emit_grid(m, tile, d)
    _emit_kernel(m, tile, d, runs=runs)
    _emit_add(m, tile, d)
    return m.text()


@dataclass
class _Item:
    """What a thread has: where its channels and panels begin, and how many there are."""

    group: Operand
    channel: Operand
    channels: Operand
    count: Operand  # of rows: taps of channels
    panel: Operand
    last_panel: Operand
    sums: Operand  # of a panel


def _item(f: Function, tile: Tile, h: dict[str, Value], item: Operand) -> _Item:
    panel = f.mul(f.rem(item, h["panel_chunks"]), h["item_panels"])
    rest = f.div(item, h["panel_chunks"])
    channel = f.mul(f.rem(rest, h["chunks"]), h["chunk"])
    channels = f.min(f.sub(h["channels"], channel), h["chunk"])
    count = f.mul(channels, h["taps"])
    last = f.min(f.add(panel, h["item_panels"]), h["panels"])
    group = f.div(rest, h["chunks"])
    return _Item(group, channel, channels, count, panel, last, f.mul(count, tile.columns))


def _emit_kernel(m: Module, tile: Tile, d: D.dtype, *, runs: bool) -> None:
    f = m.kernel("conv_dw", driver=True)
    el = tile.element
    (out, g, x), scratch, h, taps = f.given(2, _HEAD)
    turned = f.icmp("ne", h["turned"], 0)
    g, x = f.select(turned, x, g), f.select(turned, g, x)
    mine = f.mul(f.thread(), h["work_size"])
    slab = f.gep(scratch, f.add(h["work"], mine))
    spans = f.gep(taps, h["taps"], "i64")
    room, c, rows, offsets = (f.gep(slab, h[n]) for n in ("b_at", "c_at", "rows_at", "table_at"))
    apart = f.icmp("sgt", h["parts"], 1)
    with f.units(f.mul(h["items"], h["parts"])) as unit:
        number, part = f.div(unit, h["parts"]), f.rem(unit, h["parts"])
        item = _item(f, tile, h, number)
        group, channel, channels, count = item.group, item.channel, item.channels, item.count
        panel, last_panel, sums = item.panel, item.last_panel, item.sums
        start, stop = (
            f.mul(f.div(f.mul(f.add(part, i), h["blocks"]), h["parts"]), KC) for i in (0, 1)
        )
        with f.loop(0, h["taps"]) as T:
            tap = f.load("i64", f.gep(taps, T.i, "i64"))
            to = f.gep(rows, f.mul(T.i, channels), "i64")
            with f.loop(0, channels) as C:
                at = f.add(tap, f.mul(C.i, h["row"]))
                f.store(f.typed(at, "i64"), f.gep(to, C.i, "i64"))
        first_channel = f.add(f.mul(group, h["channels"]), channel)
        origin = f.gep(x, f.mul(first_channel, h["source_c"]), memory(d))
        a = f.select(f.icmp("ne", h["read_in_place"], 0), origin, slab)
        # a sum without terms still runs once, and gives zeros
        with f.loop(start, f.max(stop, 1), KC) as K:
            kc = f.min(f.sub(h["k"], K.i), KC)
            block = f.add(f.mul(number, h["blocks"]), f.div(K.i, KC))
            block = f.gep(scratch, f.mul(block, h["block_sums"]), el)
            into = f.select(apart, block, c)
            used = _meet(f, tile, d, h, K.i, kc, (slab, origin), channels)
            singles: Operand = h["tables"] if runs else 0
            for low, high in [(0, singles)] * runs + [(singles, h["filled"])]:
                with f.loop(low, high) as T:
                    table = f.gep(offsets, f.mul(T.i, 2 * (KC + 1)), "i64")
                    span = f.named(f.gep(spans, f.mul(T.i, len(_TAP)), "i64"), _TAP)
                    _fill_table(f, tile, h, (K.i, kc), table, span, runs=high is singles)
            later = f.select(apart, f.typed(0, "i64"), K.i)
            first = f.cast("zext", f.icmp("eq", later, 0), "i64")
            following = _following(f, tile, d, h, f.add(K.i, KC), (origin, g), channels,
                                   (f.add(f.mul(group, h["columns"]), f.mul(panel, tile.columns)),
                                    f.mul(f.sub(last_panel, panel), tile.columns)))  # fmt: skip
            alike = f.div(count, h["tables"])  # rows that go by one table
            table = f.gep(offsets, f.mul(f.sub(h["filled"], 1), 2 * (KC + 1)), "i64")
            met = Block(
                slab, used, h["pitch"], channels, taps, h["taps"], f.gep(table, 2, "i64"), kc
            )
            # a row of the kernel has all channels of three taps, a table all rows that go by it
            sets = f.div(h["taps"], TAPS) if runs else h["tables"]
            many, height = (channels, CHANNELS) if runs else (alike, tile.rows)
            turns = f.div(f.add(many, height - 1), height)
            every = f.mul(f.mul(turns, sets), f.sub(last_panel, panel))
            each = f.mul(f.sub(last_panel, panel), tile.columns)
            with f.loop(panel, last_panel) as P:
                column = f.mul(P.i, tile.columns)
                columns = f.min(f.sub(h["columns"], column), tile.columns)
                co = f.add(f.mul(group, h["columns"]), column)
                own = f.gep(g, f.mul(co, h["g_c"]), memory(d))
                with f.if_else(f.icmp("ne", h["in_place"], 0)) as way:
                    lies = f.gep(own, f.mul(K.i, h["g_w"]), memory(d))
                    way.otherwise()
                    f.call(
                        "pack", "void", room, own, K.i, kc, columns, h["run_h"], h["run_w"],
                        h["g_n"], h["g_c"], h["g_h"], h["g_w"], h["run_pixels"],
                    )  # fmt: skip
                b = way.merge("ptr", lies, room)
                done = f.sub(P.i, panel)
                to = f.gep(into, f.mul(done, sums), el)
                before = f.mul(done, tile.columns)

                def meanwhile(column: Operand, before: Operand = before) -> None:
                    for memory_of in following:
                        memory_of.fetch(f.add(before, column), each)

                ready = without_zeros(
                    f, tile, met, (b, h["b_row"], to, columns), f.gep(slab, h["zeros_at"]),
                    h["zeros"], later, meanwhile,
                )  # fmt: skip
                with (
                    f.loop(0, f.select(ready, f.typed(0, "i64"), sets)) as T,
                    f.loop(0, many, height) as I,
                ):
                    table = f.min(T.i, f.sub(h["tables"], 1))
                    table = f.gep(offsets, f.mul(table, 2 * (KC + 1)), "i64")
                    row = f.add(f.mul(f.mul(T.i, TAPS if runs else 1), many), I.i)
                    own = f.gep(to, f.mul(row, tile.columns), el)
                    count = f.min(f.sub(many, I.i), height)
                    if runs:
                        at = f.add(f.load("i64", f.gep(taps, f.mul(T.i, TAPS), "i64")), I.i)
                        f.call(
                            "runs", "void", f.gep(a, at, el), table, b, own, h["pixel_w"],
                            h["b_row"], f.mul(many, tile.columns), first, count, columns,
                        )  # fmt: skip
                    else:
                        terms, first_k = f.words(table, 0, ["i64", "i64"])
                        f.call(
                            "tiles", "void", a, f.gep(rows, row, "i64"), count,
                            f.gep(table, 2, "i64"), terms,
                            f.gep(b, f.mul(first_k, h["b_row"]), el), own, columns, first,
                            h["b_row"],
                        )  # fmt: skip
                    turn = f.add(f.mul(done, sets), T.i)
                    turn = f.add(f.mul(turn, turns), f.div(I.i, height))
                    for memory_of in following:
                        memory_of.fetch(turn, every)
        with f.loop(panel, f.select(apart, panel, last_panel)) as P:
            _finish(f, tile, d, h, item, P.i, c, out)
    f.ret()


def _emit_add(m: Module, tile: Tile, d: D.dtype) -> None:
    """`conv_dw_add`: the sums of an item's blocks, one after the other, and out they go."""
    f = m.kernel("conv_dw_add")
    (out, *_), scratch, h, _ = f.given(2, _HEAD)
    low, high = f.split(f.mul(h["items"], h["item_panels"]))
    with f.loop(low, high) as I:
        number = f.div(I.i, h["item_panels"])
        item = _item(f, tile, h, number)
        panel = f.add(item.panel, f.rem(I.i, h["item_panels"]))
        blocks = f.mul(f.mul(number, h["blocks"]), h["block_sums"])
        c = f.gep(scratch, blocks, tile.element)
        with f.iff(f.icmp("slt", panel, item.last_panel)):
            own = f.gep(c, f.mul(f.sub(panel, item.panel), item.sums), tile.element)
            with f.loop(0, item.sums, tile.lanes) as S:
                place = f.gep(own, S.i, tile.element)
                sum = f.load(tile.type, place)
                with f.loop(1, h["blocks"], 1, [(tile.type, sum)]) as B:
                    more = f.gep(place, f.mul(B.i, h["block_sums"]), tile.element)
                    B.next = [f.op("fadd", B.carry[0], f.load(tile.type, more))]
                f.store(f.typed(B.carry[0], tile.type), place)
            _finish(f, tile, d, h, item, panel, c, out)
    f.ret()


def _finish(
    f: Function, tile: Tile, d: D.dtype, h: dict[str, Value], item: _Item, panel: Operand,
    c: Value, out: Value,
) -> None:  # fmt: skip
    """A panel's sums to out."""
    column = f.mul(panel, tile.columns)
    columns = f.min(f.sub(h["columns"], column), tile.columns)
    co = f.add(f.mul(item.group, h["columns"]), column)
    row = f.mul(h["channels"], h["taps"])
    source = f.gep(c, f.mul(f.sub(panel, item.panel), item.sums), tile.element)
    with f.if_else(f.icmp("ne", h["turned"], 0)) as way:
        first = f.add(f.mul(item.group, h["channels"]), item.channel)
        to = f.gep(out, f.add(f.mul(first, h["columns"]), column), memory(d))
        _write_rows(f, tile, d, to, source, h["columns"], columns, item.channels)
        way.otherwise()
        to = f.gep(out, f.add(f.mul(co, row), f.mul(item.channel, h["taps"])), memory(d))
        _write(f, tile, d, to, source, row, columns, item.channels, h["taps"])


def _meet(
    f: Function, tile: Tile, d: D.dtype, h: dict[str, Value], k: Operand, kc: Operand,
    memories: tuple[Value, Value], channels: Operand,
) -> Operand:  # fmt: skip
    """Copy what the block of k meets to the slab; its elements."""
    slab, origin = memories
    first = f.div(k, h["area"])
    end = f.div(f.add(f.add(k, kc), f.sub(h["area"], 1)), h["area"])
    end = f.select(f.icmp("ne", h["read_in_place"], 0), first, end)
    with f.loop(first, end, 1, [("i64", 0)]) as N:
        (place,) = N.carry
        start = f.mul(N.i, h["area"])
        low = f.sub(f.max(k, start), start)
        high = f.min(f.sub(f.add(k, kc), start), h["area"])
        y = f.div(low, h["grid_w"])
        lines = f.sub(f.div(f.add(high, f.sub(h["grid_w"], 1)), h["grid_w"]), y)
        slab_rows = f.add(f.mul(f.sub(lines, 1), h["grid_step"]), h["halo"])
        N.next = [f.add(place, f.mul(slab_rows, h["row_pitch"]))]
        top = f.sub(h["top"], f.mul(f.mul(y, h["grid_step"]), h["step_y"]))
        f.call(
            "slab", "void", f.gep(slab, place, tile.element),
            f.gep(origin, f.mul(N.i, h["source_n"]), memory(d)), slab_rows, h["slab_columns"],
            channels, h["pitch"], h["row_pitch"], top, h["left"], h["step_y"], h["step_x"],
            h["height"], h["width"], h["source_c"], h["source_h"], h["source_w"],
        )  # fmt: skip
        if tile.pairs:
            f.call(
                "weave", "void", f.gep(slab, place, tile.element), slab_rows, h["slab_columns"],
                *(h[n] for n in _WEAVE[2:]),
            )  # fmt: skip
    return N.carry[0]


def _emit_weave(m: Module, tile: Tile, d: D.dtype) -> None:
    """`weave(slab, ...)`: numbers of some rows to words, each beside the one `move` columns on;
    behind each row, those of `singles` columns from `single_at` on beside zeros.
    """
    f = m.function("weave", [("ptr", "slab"), *(("i64", n) for n in _WEAVE)], internal=True)
    rows, columns, pitch, row_pitch, move, singles, single_at = (f.arg(n) for n in _WEAVE)
    el, lanes = tile.element, tile.lanes
    bits = vector(lanes, "i32")

    def read(row: Value, at: Operand) -> Value:
        v = f.load(tile.type, f.gep(row, at, el))
        if d is D.bfloat16:  # widened: as it was
            return f.cast(
                "trunc", f.op("lshr", f.cast("bitcast", v, bits), 16), vector(lanes, "i16")
            )
        return halves(f, v, d, lanes)

    with f.loop(0, rows) as R:
        row = f.gep(f.arg("slab"), f.mul(R.i, row_pitch), el)
        with f.loop(0, f.mul(singles, pitch), lanes) as S:
            low = read(row, f.add(f.mul(single_at, pitch), S.i))
            to = f.add(f.mul(columns, pitch), S.i)
            f.store(woven(f, low, zero(low.type), lanes), f.gep(row, to, el))
        far = f.mul(move, pitch)
        with f.loop(0, f.sub(f.mul(columns, pitch), far), lanes) as S:
            low, high = (read(row, f.add(S.i, by)) for by in (0, far))
            f.store(woven(f, low, high, lanes), f.gep(row, S.i, el))
    f.ret()


def _fill_table(
    f: Function, tile: Tile, h: dict[str, Value], block: tuple[Operand, Operand], table: Value,
    span: dict[str, Value], *, runs: bool,
) -> None:  # fmt: skip
    """The block's k whose pixel lies in the span: their number, the first one, then for each where
    it lies in the slab and the bytes of B to the next. Or their `runs`; of a row those begin where
    the span does, or one before it, without the first tap, and end so."""
    k, kc = block
    first = f.div(k, h["area"])
    end = f.div(f.add(f.add(k, kc), f.sub(h["area"], 1)), h["area"])
    size = f.mul(h["b_row"], tile.itemsize)
    nowhere = f.alloca("i64", 1)
    f.store(f.typed(0, "i64"), f.gep(table, 1, "i64"))
    # how many, the last one's k, where the image's rows lie in the slab
    with f.loop(first, end, 1, [("i64", 0)] * 3) as N:
        start = f.mul(N.i, h["area"])
        low = f.sub(f.max(k, start), start)
        high = f.min(f.sub(f.add(k, kc), start), h["area"])
        y = f.div(low, h["grid_w"])
        stop = f.div(f.add(high, f.sub(h["grid_w"], 1)), h["grid_w"])
        lies = f.add(f.mul(N.i, h["source_n"]), f.mul(y, h["source_h"]))
        place = f.select(f.icmp("ne", h["read_in_place"], 0), lies, N.carry[2])
        slab_rows = f.add(f.mul(f.sub(f.sub(stop, y), 1), h["grid_step"]), h["halo"])
        y_low, y_high = f.max(y, span["y_low"]), f.min(stop, span["y_high"])
        with f.loop(y_low, y_high, 1, [("i64", v) for v in N.carry[:2]]) as Y:
            count, last = Y.carry
            begin = f.mul(Y.i, h["grid_w"])
            left, right = (0, h["grid_w"]) if runs else (span["x_low"], span["x_high"])
            x_low = f.max(f.sub(low, begin), left)
            x_high = f.min(f.sub(high, begin), right)
            more = f.max(f.sub(x_high, x_low), 0)
            here = f.sub(f.add(f.add(start, begin), x_low), k)
            at = f.add(place, f.mul(f.sub(Y.i, y), h["pixel_h"]))
            if runs:
                at = f.add(at, f.mul(x_low, h["pixel_w"]))
                left = f.cast("zext", f.icmp("slt", x_low, span["x_low"]), "i64")
                right = f.cast("zext", f.icmp("sgt", x_high, span["x_high"]), "i64")
                more = f.sub(more, f.add(left, right))
                threes = f.mul(f.div(more, TAPS), TAPS)
                to = f.gep(table, f.add(f.mul(count, len(RUN)), 1), "i64")
                for i, n in enumerate((at, f.mul(here, size), left, threes, more, right)):
                    f.store(f.typed(n, "i64"), f.gep(to, i, "i64"))
                Y.next = [f.add(count, 1), last]
            else:
                some = f.icmp("sgt", more, 0)
                to = f.gep(table, f.mul(f.add(count, 1), 2), "i64")
                # the step from the run before, or where the first run begins
                value = f.select(f.icmp("eq", count, 0), here, f.mul(f.sub(here, last), size))
                f.store(value, f.select(some, f.gep(to, -1, "i64"), nowhere))
                with f.loop(0, more) as X:
                    pair, x = f.gep(to, f.mul(X.i, 2), "i64"), f.add(x_low, X.i)
                    ends = f.icmp("eq", f.add(x, 1), h["grid_w"])
                    along = f.select(ends, h["last_at"], f.mul(x, h["pixel_w"]))
                    f.store(f.typed(f.add(at, along), "i64"), pair)
                    f.store(f.typed(size, "i64"), f.gep(pair, 1, "i64"))
                final = f.sub(f.add(here, more), 1)
                Y.next = [f.add(count, more), f.select(some, final, last)]
        N.next = [*Y.carry, f.add(place, f.mul(slab_rows, h["row_pitch"]))]
    f.store(N.carry[0], table)


@dataclass
class _Pixels:
    """Pixels that lie `pitch` bytes apart, whose first `size` bytes are wanted soon."""

    f: Function
    start: Value
    count: Operand
    pitch: Operand
    size: Operand

    def fetch(self, turn: Operand, turns: Operand) -> None:
        """Prefetch a turn's share of them to the second cache."""
        f = self.f
        low, high = (f.div(f.mul(self.count, t), turns) for t in (turn, f.add(turn, 1)))
        with f.loop(low, high) as P, f.loop(0, self.size, 64) as L:
            f.touch(f.gep(self.start, f.add(f.mul(P.i, self.pitch), L.i)), level=2)


def _following(
    f: Function, tile: Tile, d: D.dtype, h: dict[str, Value], k: Operand,
    memories: tuple[Value, Value], channels: Operand, columns: tuple[Operand, Operand],
) -> list[_Pixels]:  # fmt: skip
    """What the block at k reads of x, below the rows that the block before has met, and of g: a
    guess, which is right where images lie channels last."""
    x, g = memories
    size = d.itemsize
    kc = f.max(f.min(f.sub(h["k"], k), KC), 0)
    per = 2 if tile.pairs else 1
    image, at = f.div(k, h["area"]), f.rem(k, h["area"])
    y = f.div(at, h["grid_w"])
    row = f.sub(f.add(f.mul(f.sub(y, 1), h["grid_step"]), h["halo"]), h["top"])
    start = f.add(f.mul(image, h["source_n"]), f.mul(row, h["source_h"]))
    every = f.op("and", f.icmp("eq", h["step_y"], 1), f.icmp("eq", h["step_x"], 1))
    near = f.op("and", every, f.icmp("eq", h["source_c"], 1))
    pixels = f.div(f.mul(f.mul(kc, h["grid_step"]), h["width"]), h["grid_w"])
    images = _Pixels(
        f, f.gep(x, start, memory(d)), f.select(near, pixels, f.typed(0, "i64")),
        f.mul(h["source_w"], size), f.mul(channels, size),
    )  # fmt: skip
    first, count = columns
    start = f.add(f.mul(image, h["g_n"]), f.add(f.mul(f.mul(at, per), h["g_w"]), first))
    near = f.op("and", f.icmp("eq", h["g_c"], 1), f.icmp("eq", h["run_h"], 1))
    cotangents = _Pixels(
        f, f.gep(g, start, memory(d)), f.select(near, f.mul(kc, per), f.typed(0, "i64")),
        f.mul(h["g_w"], size), f.mul(count, size),
    )  # fmt: skip
    return [images, cotangents]


def _write(
    f: Function, tile: Tile, d: D.dtype, out: Value, c: Value, row: Operand, columns: Operand,
    channels: Operand, taps: Operand,
) -> None:  # fmt: skip
    """out[column][channel][tap] = c[tap][channel][column], in transposed squares; 0.0 for -0.0, so
    that zeros may be left out of sums."""
    el, lanes, wide = tile.element, tile.lanes, Element(f, tile.lanes)
    single = f.icmp("eq", taps, 1)  # then channels, not taps, are what follows on one another
    outer = f.select(single, f.typed(1, "i64"), channels)
    inner = f.select(single, channels, taps)
    step = f.select(single, f.typed(1, "i64"), channels)
    with f.loop(0, outer) as C, f.loop(0, inner, lanes) as T, f.loop(0, columns, lanes) as J:
        count = f.min(f.sub(inner, T.i), lanes)
        some = f.lane_mask(count, lanes)
        square = []
        for i in range(lanes):
            # a missing row repeats the last one: it is not stored
            at = f.min(f.add(T.i, i), f.sub(inner, 1))
            at = f.mul(f.add(C.i, f.mul(at, step)), tile.columns)
            sum = f.load(tile.type, f.gep(f.gep(c, at, el), J.i, el))
            square.append(f.op("fadd", sum, 0.0))
        at = f.add(f.mul(J.i, row), f.add(f.mul(C.i, taps), T.i))
        to = f.gep(out, at, memory(d))
        for j, value in enumerate(f.transpose(square)):
            with f.iff(f.icmp("slt", f.typed(j, "i64"), f.sub(columns, J.i))):
                v = wide.stored(value, d)
                f.masked_store(v, f.gep(to, f.mul(row, j), memory(d)), some)


def _write_rows(
    f: Function, tile: Tile, d: D.dtype, out: Value, c: Value, row: Operand, columns: Operand,
    channels: Operand,
) -> None:  # fmt: skip
    """out[channel][column] = c[channel][column]; 0.0 for -0.0 as in `_write`."""
    lanes, wide = tile.lanes, Element(f, tile.lanes)
    with f.loop(0, channels) as C, f.loop(0, columns, lanes) as J:
        at = f.add(f.mul(C.i, tile.columns), J.i)
        sum = f.op("fadd", f.load(tile.type, f.gep(c, at, tile.element)), 0.0)
        v = wide.stored(sum, d)
        to = f.gep(out, f.add(f.mul(C.i, row), J.i), memory(d))
        f.masked_store(v, to, f.lane_mask(f.sub(columns, J.i), lanes))
