"""Convolution and its input gradient with channels across the vector: the kernel.

`conv_wide` plans it; in `conv` are the definitions and the order of sums, which are the same here.
A *unit* is a band of rows of an image, or a few small images, of one group. A thread copies what
its unit needs into its slab, [image][row][column][channel] with the zero border, whatever the
strides of the source; then, for each panel of output channels, each part and each block of k, runs
the tiles of `conv_micro` over the pixels of the part's pieces in the unit. The weights are packed
first, as [group][part][panel][k][column]. Outputs go out as they lie: rows of channels, or squares
transposed.

The ints are HEAD; PART for each part, then for each whole part, as its weights are packed (a part
leaves taps out that see the border only); the taps' offsets in the slab, their numbers in the
whole part, the bytes of B from each to the next; the whole ones' offsets in w.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from weft.core.dtype import BY_NAME, dtype
from weft.kernels.schedule import amx, conv_micro, conv_wide_ends, conv_wide_tiles
from weft.kernels.schedule.conv_code import read_part, unit_of
from weft.kernels.schedule.conv_micro import NEXT, UNROLL, emit_tiles, is_brief, pixel_tile
from weft.kernels.schedule.conv_pack import emit_slab, store_some
from weft.kernels.schedule.conv_wide_pieces import (
    PART,
    Piece,
    fill_order,
    fill_rows,
    fill_tables,
    following,
    joined_pixels,
    number_of,
    place_of,
    rows_of,
    rows_of_tile,
    terms_before,
)
from weft.kernels.schedule.conv_zeros import Unit, emit_spread, spread_without_zeros
from weft.kernels.schedule.gemm_code import MAX_INPUTS
from weft.kernels.schedule.tile import KC, Tile
from weft.kernels.schedule.words import units_of
from weft.kernels.target.element import memory, register
from weft.kernels.target.llvm import Function, Module, Operand, Value, vector, zero

HEAD: tuple[str, ...] = (
    "groups", "columns", "panels", "channels", "depth", "direct", "images", "unit_images",
    "bands", "band",
    "source_n", "source_c", "source_h", "source_w", "height", "width",
    "slab_rows", "slab_columns", "pitch", "row_pitch", "image_pitch", "step_y", "step_x",
    "top", "left", "band_step", "pixel_h", "pixel_w", "out_n", "out_c",
    "w_group", "w_column", "w_channel", "area", "pack", "packed_group", "packed",
    "joined", "ordered", "order_at", "work", "work_size", "c_at", "rows_at", "outs_at", "table_at",
    "epilogue", "epilogue_at", "finish", "near", "near_at", "area_out", "ahead", "pace", "even",
    "zeros", "zeros_at", "strip", "pieces", "unit_pieces", "unit_items", "together", "runs",
    "runs_at", "parts", "wholes", "taps",
    *conv_wide_tiles.HEAD,
)  # fmt: skip
PACK_DEPTH, PACK_COLUMNS, PACK_TAPS, PACK_ANY = range(4)  # what is adjacent in w
_SAME_SETS = 16384  # bytes: planes a multiple of them apart lie in few sets of the second cache
_STREAMED = 4 << 20  # bytes of packed weights
_BESIDE = 8  # lines of a pixel's results from which asking for them gains, in tile registers


def wide_tile(element: str, columns: int, *, pairs: bool) -> Tile:
    """Of so many columns a group; in tile registers two by two of them, by a panel."""
    if pairs and amx.multiplies_pairs_in_tiles():
        return conv_wide_tiles.tile()
    return pixel_tile(element, columns, pairs=pairs)


def conv_wide_ir(
    name: str, columns: int, widths: tuple[int, ...], *, biased: bool, pairs: bool = False
) -> str:
    """`wide` and its stage before, `pack`: of panels of so many columns, of `widths`."""
    d = BY_NAME[name]
    tile = replace(wide_tile(register(d), columns, pairs=pairs), only=widths)
    m = Module()
    if tile.amx:
        conv_wide_tiles.emit_tiles(m, tile)
    else:
        emit_tiles(m, tile, writes=True)
    if is_brief(tile):
        conv_micro.emit_spans(m, tile)
    emit_slab(m, tile, d)
    if not biased and not tile.amx:
        emit_spread(m, tile)
    _emit_pack(m, tile, d, biased)
    conv_wide_ends.emit_rows(m, tile, d)
    conv_wide_ends.emit_planes(m, tile, d)
    _emit_wide(m, tile, d, biased)
    return m.text()


def _body(m: Module, name: str, *, biased: bool) -> tuple[Function, dict[str, Value], Value]:
    """What the kernels of all numbers of inputs call: its function, named ints, others.

    Its `args` are out, the source, w and a bias; an epilogue finds its own operands there.
    """
    args = [*((("ptr", n)) for n in ("args", "scratch", "ints")), ("i32", "tid"), ("i32", "nth")]
    f = m.function(f"{name}_body", args, internal=True)
    for inputs in inputs_of(biased=biased):
        k = m.kernel(f"{name}{inputs}", driver=True)
        (scratch,) = k.words(k.arg("args"), 3 + inputs, ["ptr"])
        ints = k.gep(k.arg("args"), 4 + inputs, "i64")
        k.call(f"{name}_body", "void", k.arg("args"), scratch, ints, k.arg("tid"), k.arg("nth"))
        k.ret()
    return f, *_read_head(f)


def _read_head(f: Function) -> tuple[dict[str, Value], Value]:
    head = f.named(f.arg("ints"), HEAD)
    return head, f.gep(f.arg("ints"), len(HEAD), "i64")


def inputs_of(*, biased: bool) -> range:
    """The numbers of inputs that have kernels: those of an epilogue follow the source and w."""
    return range(3, 4) if biased else range(2, MAX_INPUTS + 1)


def _emit_wide(m: Module, tile: Tile, d: dtype, biased: bool) -> None:
    f, h, ints = _body(m, "wide", biased=biased)
    f.driver = not tile.amx
    el, scratch = tile.element, f.arg("scratch")
    out, source, w, *more = f.words(f.arg("args"), 2, ["ptr"] * (4 if biased else 3))
    bias = more[0] if biased else Value("null", "ptr")
    panels = f.select(f.icmp("ne", h["packed"], 0), w, scratch)
    epilogue, finish = (f.cast("inttoptr", h[n], "ptr") for n in ("epilogue", "finish"))
    epilogue_ints = f.gep(ints, h["epilogue_at"], "i64")
    near_table = f.gep(ints, h["near_at"], "i64")
    taps = f.gep(ints, f.mul(f.add(h["parts"], h["wholes"]), len(PART)), "i64")
    numbers, steps = (f.gep(taps, f.mul(h["taps"], i), "i64") for i in (1, 2))
    tid = f.thread()
    slab = f.gep(scratch, f.add(h["work"], f.mul(tid, h["work_size"])))
    c, all_rows, all_outs, tables_at = (
        f.gep(slab, h[n]) for n in ("c_at", "rows_at", "outs_at", "table_at")
    )
    lines = -(-tile.columns * d.itemsize // 64)
    plane = f.mul(h["out_c"], d.itemsize)
    apart = f.icmp("ne", f.op("and", plane, _SAME_SETS - 1), 0)
    next_words = NEXT if is_brief(tile) else 0
    longest = conv_micro.SPANS[0] if is_brief(tile) else tile.rows
    soon = f.alloca("ptr", next_words + longest * lines)  # the lines of a tile's results
    filled = f.alloca("i64", 1)  # the unit that lies in the slab
    asked = f.alloca("i64", 1)  # lines of the next one's image that were asked for
    wanted = f.alloca("i64", 1)  # bytes of the next block of k that were asked for
    # a run: all pieces of a part, which meet a block of k one after the other, or one of them
    runs = f.gep(ints, f.mul(h["runs_at"], len(PART)), "i64")
    f.store(f.typed(-1, "i64"), filled)
    shape = conv_wide_tiles.Shape(f, f.alloca("i64", 1))
    f.store(f.typed(0, "i64"), shape.place)
    order, joined = f.gep(slab, h["order_at"]), f.icmp("ne", h["joined"], 0)
    order_of_all = f.gep(order, h["ordered"], "i64")
    fill_tables(f, tile, h, ints, (taps, steps), (tables_at, order))
    taken = f.alloca("i64", 1)  # pieces that this thread took
    f.store(f.typed(0, "i64"), taken)
    with f.units(h["pieces"]) as drawn:
        mine = f.load("i64", taken)
        f.store(f.typed(f.add(mine, 1), "i64"), taken)
        unit, place = place_of(f, h, drawn, mine)
        # of the unit's panels, each with all parts
        most = f.div(h["unit_items"], h["together"])
        low, high = (
            f.mul(f.div(f.mul(f.add(place, i), most), h["unit_pieces"]), h["together"])
            for i in (0, 1)
        )
        band, image, images, group, at = unit_of(f, h, unit)
        direct = f.icmp("ne", h["direct"], 0)  # the image itself serves as slab
        low_row = f.mul(f.mul(band, h["band_step"]), h["source_h"])
        images_at = f.select(direct, f.gep(source, f.add(at, low_row), memory(d)), slab)
        top = f.sub(h["top"], f.mul(band, h["band_step"]))
        y = f.mul(band, h["band"])
        # a thread's next piece is often one of the same unit, whose slab it has
        with f.iff(f.icmp("ne", unit, f.load("i64", filled))):
            with f.loop(0, f.select(direct, 0, images)) as N:
                to = f.gep(slab, f.mul(N.i, h["image_pitch"]), el)
                start = f.gep(source, f.add(at, f.mul(N.i, h["source_n"])), memory(d))
                f.call(
                    "slab", "void", to, start, h["slab_rows"], h["slab_columns"], h["channels"],
                    h["pitch"], h["row_pitch"], top, h["left"], h["step_y"], h["step_x"],
                    h["height"], h["width"], h["source_c"], h["source_h"], h["source_w"],
                )  # fmt: skip
            with f.loop(0, h["parts"]) as P:
                part = read_part(f, ints, P.i, PART)
                first_row, grid_h = rows_of(f, h, part, y)
                rows, outs = (f.gep(a, part["rows_at"], "i64") for a in (all_rows, all_outs))
                skipped = f.mul(f.sub(first_row, y), h["pixel_h"])
                if tile.amx:
                    found = conv_wide_tiles.lines_of(f, h, part["grid_w"], images, grid_h)
                    first = f.add(part["source_at"], skipped)
                    with f.iff(f.icmp("sgt", f.mul(grid_h, part["grid_w"]), 0)):
                        conv_wide_tiles.fill_tiles(f, found, (rows, outs), first)
                else:
                    fill_rows(f, h, part, (rows, outs), skipped, images, grid_h)
                    with f.iff(joined):
                        fill_order(f, h, part, order_of_all, images, (first_row, grid_h, y))
        f.store(f.typed(unit, "i64"), filled)
        next_source, next_lines = following(f, h, d, unit, source, f.add(mine, 1))
        f.store(f.typed(0, "i64"), asked)
        with f.loop(low, high, h["block"] if tile.amx else 1) as Item:
            run = read_part(f, runs, f.rem(Item.i, h["runs"]), PART)
            column = f.mul(f.div(Item.i, h["runs"]), tile.columns)
            columns = f.min(f.sub(h["columns"], column), tile.columns)
            b = f.add(f.mul(group, h["packed_group"]), run["packed_at"])
            b = f.gep(panels, f.add(b, f.mul(column, run["whole_k"])), el)
            planes = f.op("and", f.icmp("ne", h["out_c"], 1), f.icmp("eq", h["epilogue"], 0))
            out_column = f.add(f.mul(group, h["columns"]), column)
            shift = f.gep(bias, out_column, memory(d)) if biased else bias

            def ask() -> None:
                """For some lines of the next unit's image."""
                line = f.load("i64", asked)
                stop = f.min(f.add(line, h["ahead"]), next_lines)
                with f.loop(line, stop) as L:
                    f.touch(f.gep(next_source, f.mul(L.i, 64)), level=2)
                f.store(f.typed(f.max(line, stop), "i64"), asked)

            def piece_of(
                parts: Value, number: Operand, planes: Value = planes, column: Operand = out_column
            ) -> Piece:
                part = read_part(f, parts, number, PART)
                first_row, grid_h = rows_of(f, h, part, y)
                # whether the unit's results follow on one another
                line = f.icmp("eq", part["out_h"], f.mul(part["grid_w"], part["out_w"]))
                whole = f.icmp("eq", h["out_n"], f.mul(grid_h, part["out_h"]))
                whole = f.op("or", whole, f.icmp("eq", images, 1))
                linear = f.op("and", f.op("and", line, whole), f.icmp("eq", planes, "false"))
                to = f.add(f.mul(image, h["out_n"]), f.mul(column, h["out_c"]))
                to = f.add(f.add(to, part["out_at"]), f.mul(first_row, part["out_h"]))
                offset = f.add(f.mul(first_row, part["row_pixels"]), part["pixel_at"])
                rows, outs = (f.gep(a, part["rows_at"], "i64") for a in (all_rows, all_outs))
                return Piece(
                    part, first_row, grid_h, f.mul(f.mul(images, grid_h), part["grid_w"]), linear,
                    f.gep(out, to, memory(d)), f.add(f.mul(image, h["area_out"]), offset),
                    f.gep(c, f.mul(part["c_at"], tile.columns), el), rows, outs,
                    f.gep(tables_at, f.mul(part["table_at"], 2), "i64"),
                )  # fmt: skip

            def ending(
                at: Operand, count: Operand, place: Value, to: Operand, out_w: Operand,
                column: Operand = out_column, columns: Operand = columns, shift: Value = shift,
            ) -> None:  # fmt: skip
                """`count` pixels from `at` on, whose sums lie in `place`."""
                with f.if_else(f.icmp("ne", h["epilogue"], 0)) as way:
                    f.call_at(
                        epilogue, f.arg("args"), epilogue_ints, place, tile.columns, at,
                        count, column, columns,
                    )  # fmt: skip
                    way.otherwise()
                    f.call("rows", "void", to, place, shift, count, columns, out_w)

            done: Value | None = None
            # a sum without terms still runs once, and gives zeros
            k, pieces = f.max(run["whole_k"], 1), run["run"]
            parts = f.gep(ints, f.mul(run["run_at"], len(PART)), "i64")
            if tile.amx:
                piece = piece_of(parts, 0)
                some = f.icmp("sgt", piece.pixels, 0)
                with f.iff(some):
                    part = piece.part
                    lines_there = conv_wide_tiles.lines_of(
                        f, h, part["grid_w"], images, piece.grid_h
                    )
                    shape.need(lines_there.height, h["cells"])

                    every = f.mul(f.min(f.sub(high, Item.i), h["block"]), tile.columns)
                    every = f.min(every, f.sub(h["columns"], column))
                    every = f.select(piece.linear, every, columns)
                    beside = f.div(f.add(f.mul(every, d.itemsize), 63), 64)

                    def ahead(
                        pixel: Operand, count: Operand, more: Operand, piece: Piece = piece,
                        first: Operand = out_column, beside: Operand = beside,
                    ) -> None:  # fmt: skip
                        """Ask for the lines of so many pixels' results, and of what they meet."""
                        out_w = piece.part["out_w"]
                        line = f.gep(piece.start, f.add(f.mul(pixel, out_w), more), memory(d))
                        row = f.add(piece.offset, pixel)
                        across = f.mul(f.add(first, more), d.itemsize)
                        count = f.select(f.icmp("sge", beside, _BESIDE), count, 0)
                        with f.loop(0, count) as L:
                            here = f.gep(line, f.mul(L.i, out_w), memory(d))
                            with f.loop(0, beside) as X:
                                f.touch(f.gep(here, f.mul(X.i, 64)), level=2, write=True)
                            with f.loop(0, h["near"]) as N:
                                entry = f.gep(near_table, f.mul(N.i, 2), "i64")
                                word, step = f.words(entry, 0, ["i64"] * 2)
                                at = f.add(f.mul(f.add(row, L.i), step), across)
                                here = f.gep(f.load("ptr", f.gep("%args", word, "i64")), at)
                                with f.loop(0, beside) as X:
                                    f.touch(f.gep(here, f.mul(X.i, 64)), level=2)
                        ask()

                    def alone(
                        pixel: Operand, count: Operand, place: Value, more: Operand,
                        piece: Piece = piece, column: Operand = column,
                        first: Operand = out_column, shift: Value = shift,
                    ) -> None:  # fmt: skip
                        out_w = piece.part["out_w"]
                        to = f.gep(piece.start, f.add(f.mul(pixel, out_w), more), memory(d))
                        own = f.gep(shift, more, memory(d)) if biased else shift
                        some = f.min(f.sub(f.sub(h["columns"], column), more), tile.columns)
                        at = f.add(piece.offset, pixel)
                        ending(at, count, place, to, out_w, f.add(first, more), some, own)

                    def among(
                        products: Sequence[Operand], pixel: Operand, count: Operand, place: Value,
                        more: Operand, offset: Operand = piece.offset, first: Operand = out_column,
                    ) -> None:  # fmt: skip
                        f.call_at(
                            finish, *products, f.arg("args"), epilogue_ints, f.add(offset, pixel),
                            f.add(first, more), place, count,
                        )  # fmt: skip

                    exists = f.icmp("ne", h["finish"], 0)
                    conv_wide_tiles.multiply(
                        f, tile, h, lines_there, (piece.rows, piece.outs),
                        (images_at, piece.table, b, c),
                        (
                            f.mul(part["whole_k"], tile.columns), every,
                            f.div(part["k"], h["cells"]), part["grid_w"],
                        ),
                        piece.linear, conv_wide_tiles.Ends(ahead, alone, among, exists),
                    )  # fmt: skip
            elif not biased:  # zeros are left out
                _, grid_h = rows_of(f, h, run, y)
                met = Unit(
                    slab, images, h["image_pitch"], h["pitch"], h["depth"], grid_h,
                    run["grid_w"], run["source_at"], h["slab_columns"], taps, run["part_taps"],
                )  # fmt: skip
                done = spread_without_zeros(
                    f, tile, met, (b, c, columns), f.gep(slab, h["zeros_at"]), h["zeros"],
                    h["strip"], ask,
                )  # fmt: skip
                wholes = f.gep(ints, f.mul(h["parts"], len(PART)), "i64")
                k = f.select(done, f.typed(0, "i64"), k)
                pieces = f.select(done, f.typed(1, "i64"), pieces)
                parts = f.select(done, wholes, parts)
            with f.loop(0, f.typed(0, "i64") if tile.amx else k, KC) as K:
                f.store(f.typed(0, "i64"), wanted)
                with f.loop(0, pieces) as P:
                    piece = piece_of(parts, P.i)
                    part = piece.part
                    first_number = f.gep(numbers, part["first_tap"], "i64")
                    end = f.add(K.i, KC)
                    ends = f.icmp("sge", end, part["whole_k"])
                    low_k = terms_before(f, part, first_number, K.i)
                    end = terms_before(f, part, first_number, end)
                    kc = f.sub(f.select(ends, part["k"], end), low_k)
                    at = f.mul(number_of(f, part, first_number, low_k), tile.columns)
                    panel = f.gep(b, at, el)
                    asks = f.op("and", ends, f.icmp("eq", planes, "false"))
                    along = f.op("and", f.op("and", ends, planes), apart)
                    along = f.op("and", along, f.icmp("eq", part["out_w"], 1))
                    ends = f.op("and", ends, piece.linear)
                    by_spans = f.icmp("ne", part["spans"], 0)
                    step_k = f.select(by_spans, conv_micro.TAPS * longest, UNROLL * tile.rows)
                    few = f.icmp("slt", kc, f.mul(step_k, lines))
                    few = f.op("or", few, f.icmp("eq", asks, "false"))
                    after = f.mul(f.min(f.add(K.i, KC), part["whole_k"]), tile.columns)
                    bytes_next = f.mul(f.min(KC, f.sub(k, K.i)), tile.columns * tile.itemsize)
                    # each tile goes out when it is done; its lines are asked for meanwhile
                    tiles = f.div(f.add(piece.pixels, tile.rows - 1), tile.rows)
                    spans = f.max(part["spans"], 1)
                    across = f.mul(f.mul(images, piece.grid_h), spans)
                    tiles = f.select(by_spans, across, tiles)
                    with f.loop(0, tiles) as T:
                        row, count = rows_of_tile(f, tile, T.i, tiles, piece.pixels)
                        if next_words:
                            at, length = conv_micro.span_of(
                                f, part["grid_w"], spans, f.rem(T.i, spans)
                            )
                            at = f.add(f.mul(f.div(T.i, spans), part["grid_w"]), at)
                            row, count = (
                                f.select(by_spans, a, b) for a, b in ((at, row), (length, count))
                            )
                        place = f.gep(piece.c, f.mul(row, tile.columns), el)
                        to = f.gep(piece.start, f.mul(row, part["out_w"]), memory(d))
                        with f.iff(asks), f.loop(0, count) as L:
                            line = f.load("i64", f.gep(piece.outs, f.add(row, L.i), "i64"))
                            line = f.gep(piece.start, line, memory(d))
                            with f.if_else(few) as way:  # no steps to ask in: all at once
                                for j in range(lines):
                                    f.touch(f.gep(line, 64 * j), level=2, write=True)
                                way.otherwise()
                                for j in range(lines):
                                    at = f.add(f.mul(L.i, lines), j + next_words)
                                    f.store(f.gep(line, 64 * j), f.gep(soon, at, "ptr"))
                        with f.iff(along):
                            conv_wide_ends.ask_along(
                                f, tile, d, piece, row, f.mul(count, lines), h["out_c"]
                            )
                        ask()
                        if next_words:  # the tiles ask for the next block, all at one pace
                            so_far = f.load("i64", wanted)
                            line = f.gep(f.gep(b, after, el), so_far)
                            new = f.icmp("slt", so_far, bytes_next)
                            f.store(f.select(new, line, panel), soon)
                            pace = f.select(new, h["pace"], 0)
                            every = f.icmp("eq", part["k"], part["whole_k"])
                            even = f.select(every, h["even"], f.typed(0, "i64"))
                            step = f.select(f.icmp("eq", even, 1), f.mul(pace, 2), pace)
                            # half of the columns in all k, then the others
                            of_span = f.div(f.mul(pace, conv_micro.TAPS), 2 * UNROLL)
                            step = f.select(by_spans, of_span, step)
                            f.store(step, f.gep(soon, 1, "i64"))
                            f.store(even, f.gep(soon, 2, "i64"))
                            so_far = f.add(so_far, f.mul(f.div(kc, UNROLL), pace))
                            f.store(f.typed(so_far, "i64"), wanted)
                        a_rows = f.gep(piece.rows, row, "i64")
                        a_offsets = f.gep(piece.table, f.mul(low_k, 2), "i64")
                        new = f.cast("zext", f.icmp("eq", K.i, 0), "i64")
                        soons = f.select(few, f.typed(0, "i64"), f.mul(count, lines))
                        first = f.add(piece.offset, row)
                        full = f.op("and", ends, f.icmp("eq", count, tile.rows))
                        full = f.op("and", full, f.icmp("eq", by_spans, "false"))
                        full = f.op("and", full, f.icmp("eq", columns, tile.columns))
                        full = f.op("and", full, f.icmp("ne", h["finish"], 0))
                        with f.if_else(full) as way:
                            f.call_at(
                                finish, images_at, a_rows, a_offsets, kc, panel, place, new,
                                soon, soons, f.arg("args"), epilogue_ints, first, out_column,
                            )  # fmt: skip
                            way.otherwise()
                            with f.if_else(by_spans) as kind:
                                if next_words:
                                    f.call(
                                        "spans", "void", images_at, a_rows, count, part["along"],
                                        f.mul(h["pixel_w"], tile.itemsize), a_offsets, kc, panel,
                                        place, columns, new, soon, soons,
                                    )  # fmt: skip
                                kind.otherwise()
                                f.call(
                                    "tiles", "void", images_at, a_rows, count, a_offsets, kc,
                                    panel, place, columns, new, soon, soons,
                                )  # fmt: skip
                            with f.iff(ends):
                                ending(first, count, place, to, part["out_w"])
            all_out = joined if done is None else f.op("and", joined, f.op("xor", done, True))
            with f.iff(f.op("and", all_out, f.icmp("eq", f.rem(f.add(Item.i, 1), h["runs"]), 0))):
                part = read_part(f, runs, 0, PART)
                to = f.add(f.mul(image, h["out_n"]), f.mul(out_column, h["out_c"]))
                to = f.gep(out, f.add(to, f.mul(y, part["out_h"])), memory(d))
                each = joined_pixels(f, h, part, y)
                conv_wide_ends.store_planes(
                    f, d, h, (to, c, order_of_all, shift), (images, 1, each), (0, 1), columns
                )
            pieces = f.select(all_out, f.typed(0, "i64"), pieces)
            with f.loop(0, pieces) as P:  # what goes out when all sums are done
                piece = piece_of(parts, P.i)
                part, grid_h = piece.part, piece.grid_h
                kind = f.select(piece.linear, f.typed(0, "i64"), f.typed(1, "i64"))
                kind = f.select(planes, f.typed(2, "i64"), kind)
                kind = f.select(f.icmp("sgt", piece.pixels, 0), kind, f.typed(3, "i64"))
                for case in f.switch(kind, (0, 1, 2), 3):
                    if case == 0 and done is not None:
                        with f.iff(done):
                            ending(piece.offset, piece.pixels, piece.c, piece.start, part["out_w"])
                    elif case == 1:
                        with f.loop(0, images) as N, f.loop(0, grid_h) as Y:
                            to = f.add(f.mul(N.i, h["out_n"]), f.mul(Y.i, part["out_h"]))
                            at = f.mul(f.add(f.mul(N.i, grid_h), Y.i), part["grid_w"])
                            place = f.gep(piece.c, f.mul(at, tile.columns), el)
                            first = f.mul(f.add(image, N.i), h["area_out"])
                            first = f.add(first, part["pixel_at"])
                            row = f.mul(f.add(piece.first_row, Y.i), part["row_pixels"])
                            ending(
                                f.add(first, row), part["grid_w"], place,
                                f.gep(piece.start, to, memory(d)), part["out_w"],
                            )  # fmt: skip
                    elif case == 2:
                        conv_wide_ends.store_planes(
                            f, d, h, (piece.start, piece.c, order, shift),
                            (images, *conv_wide_ends.as_one_row(f, part, grid_h)),
                            (part["out_h"], part["out_w"]), columns,
                        )  # fmt: skip
    if tile.amx:
        amx.release(f)
    f.ret()


def _emit_pack(m: Module, tile: Tile, d: dtype, biased: bool) -> None:
    """B[group][part][panel][k][column] from w, in units (`words`): into scratch, as the stage
    before; `pack1`: to out, a launch of its own whose one input is w.
    """
    args = [*((("ptr", n)) for n in ("to", "w", "ints")), ("i32", "tid"), ("i32", "nth")]
    f = m.function("pack_body", args, internal=True, driver=True)
    for inputs in (1, *inputs_of(biased=biased)):
        k = m.kernel(f"pack{inputs}", driver=True)
        out, *ins, scratch = k.words(k.arg("args"), 2, ["ptr"] * (2 + inputs))
        ints = k.gep(k.arg("args"), 4 + inputs, "i64")
        to, w = (out, ins[0]) if inputs == 1 else (scratch, ins[1])
        k.call("pack_body", "void", to, w, ints, k.arg("tid"), k.arg("nth"))
        k.ret()
    h, ints = _read_head(f)
    el, lanes, size = tile.element, tile.lanes, memory(d)
    in_memory, reads = vector(lanes, size), units_of(f, d, lanes, pairs=tile.pairs)
    wholes = f.gep(ints, f.mul(h["parts"], len(PART)), "i64")
    places = f.gep(wholes, f.add(f.mul(h["wholes"], len(PART)), f.mul(h["taps"], 3)), "i64")
    room = f.alloca(tile.type, lanes)
    streams = is_brief(tile)  # what no second cache holds is not read to be overwritten
    far = f.cast("zext", f.icmp("sgt", h["work"], _STREAMED), "i64")
    blocks = f.div(f.add(h["depth"], lanes - 1), lanes)
    low, high = f.split(f.mul(f.mul(h["groups"], h["panels"]), blocks))
    with f.loop(low, high) as I:
        # in the order in which w is read from end to end: along k, or along the columns
        across = f.div(I.i, h["panels"])
        by_depth = f.icmp("eq", h["pack"], PACK_DEPTH)
        block = f.select(by_depth, f.rem(I.i, blocks), f.rem(across, blocks))
        along = f.div(I.i, blocks)
        panel = f.select(by_depth, f.rem(along, h["panels"]), f.rem(I.i, h["panels"]))
        group = f.div(along, h["panels"])
        channel = f.mul(block, lanes)
        last = f.min(f.add(channel, lanes), h["depth"])
        column = f.mul(panel, tile.columns)
        w = f.gep(f.arg("w"), f.mul(group, h["w_group"]), size)
        with f.loop(0, tile.columns, lanes) as J:
            # a missing column repeats the last one: its sums are thrown away
            columns = [
                f.mul(
                    f.min(f.add(f.add(column, J.i), j), f.sub(h["columns"], 1)), h["w_column"]
                )
                for j in range(lanes)
            ]  # fmt: skip
            starts = [f.gep(w, c, size) for c in columns]
            left = f.max(f.sub(f.sub(h["columns"], column), J.i), 0)
            mask = f.lane_mask(left, lanes)

            def place_of_part(number: Operand) -> tuple[dict[str, Value], Value]:
                part = read_part(f, wholes, number, PART)
                at = f.add(f.mul(group, h["packed_group"]), part["packed_at"])
                at = f.add(at, f.mul(f.mul(panel, tile.columns), part["k"]))
                return part, f.gep(f.arg("to"), f.add(at, J.i), el)

            if tile.amx:
                filled = f.icmp("eq", last, h["depth"])
                rest = f.select(filled, h["tap_words"], last)
                with f.loop(0, h["wholes"]) as P:
                    part, to = place_of_part(P.i)
                    with f.loop(0, part["part_taps"]) as T, f.loop(last, rest) as C:
                        row = f.add(f.mul(T.i, h["tap_words"]), C.i)
                        f.store(zero(tile.type), f.gep(to, f.mul(row, tile.columns), el))
            for case in f.switch(h["pack"], range(PACK_ANY), PACK_ANY):
                if case == PACK_DEPTH:  # one part, its k adjacent
                    part, to = place_of_part(0)
                    stop = f.mul(last, part["part_taps"])
                    with f.loop(f.mul(channel, part["part_taps"]), stop, lanes) as K:
                        count = f.min(f.sub(stop, K.i), lanes)
                        number = f.mul(K.i, reads.per)
                        left = f.sub(f.mul(h["channels"], part["part_taps"]), number)
                        some = reads.masks(left)
                        v = [reads.adjacent(f.gep(s, number, size), some) for s in starts]
                        square, target = f.transpose(v), f.gep(to, f.mul(K.i, tile.columns), el)
                        for way in f.switch(far, (0, 1), 0) if streams else (0,):
                            store_some(f, square, target, tile.columns, count, el, stream=way == 1)
                    continue
                with f.loop(channel, last) as C:
                    number = f.mul(C.i, reads.per)
                    across = f.mul(number, h["w_channel"])
                    more = f.icmp("slt", f.add(number, 1), h["channels"])
                    if case == PACK_TAPS:
                        ats = [f.gep(s, across, size) for s in starts]
                        # the next panel's: each of its runs begins in another page
                        soon = f.gep(ats[0], f.mul(h["w_column"], tile.columns), size)
                        with f.loop(0, f.mul(h["area"], lanes * d.itemsize), 64) as L:
                            f.touch(f.gep(soon, L.i))
                        some = f.lane_mask(h["area"], lanes)
                        load = partial(f.masked_load, in_memory, mask=some)
                        v = [reads.unit(load, at, h["w_channel"], more) for at in ats]
                        for i, x in enumerate(f.transpose(v)):
                            f.store(x, f.gep(room, i, tile.type), tile.align)
                    with f.loop(0, h["wholes"]) as P:
                        part, to = place_of_part(P.i)
                        place = f.gep(places, part["first_tap"], "i64")
                        # from one k to the next channel's, and to the next tap's
                        of_channel, of_tap = part["part_taps"], f.typed(1, "i64")
                        if tile.amx:
                            of_channel, of_tap = of_tap, h["tap_words"]
                        target = f.gep(to, f.mul(f.mul(C.i, of_channel), tile.columns), el)
                        with f.loop(0, part["part_taps"]) as T:
                            tap = f.load("i64", f.gep(place, T.i, "i64"))
                            to_row = f.gep(target, f.mul(T.i, f.mul(of_tap, tile.columns)), el)
                            if case == PACK_TAPS:
                                v = f.load(tile.type, f.gep(room, tap, tile.type), tile.align)
                                for way in f.switch(far, (0, 1), 0) if streams else (0,):
                                    f.store(v, to_row, tile.align, stream=way == 1)
                            elif case == PACK_COLUMNS:
                                at = f.gep(f.gep(w, across, size), f.add(column, J.i), size)
                                load = partial(f.masked_load, in_memory, mask=mask)
                                at = f.gep(at, tap, size)
                                f.store(reads.unit(load, at, h["w_channel"], more), to_row)
                            else:
                                load = partial(f.load, size)
                                for j in range(lanes):
                                    at = f.gep(starts[j], f.add(across, tap), size)
                                    v = reads.unit(load, at, h["w_channel"], more, width=1)
                                    f.store(v, f.gep(to_row, j, el))
    if streams:
        f.intrinsic("x86.sse.sfence", "void")
    f.ret()
