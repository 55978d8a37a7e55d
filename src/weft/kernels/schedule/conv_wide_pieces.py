"""Units of convolutions with channels across the vector (`conv_wide_code`), and their pieces.

Which unit a thread takes, which rows of a piece lie in it, and the tables that say where each row
and each k lies.
"""

from dataclasses import dataclass

from weft.core.dtype import dtype
from weft.kernels.schedule import conv_wide_tiles
from weft.kernels.schedule.conv_code import read_part
from weft.kernels.schedule.conv_micro import is_brief
from weft.kernels.schedule.tile import Tile
from weft.kernels.target.element import memory
from weft.kernels.target.llvm import Function, Operand, Value

PART = (
    "k", "part_taps", "first_tap", "grid_h", "grid_w", "source_at", "out_at", "out_h", "out_w",
    "packed_at", "whole_k", "whole_taps", "pixel_at", "row_pixels", "first_row",
    "rows_at", "table_at", "c_at", "run_at", "run", "spans", "along",
)  # fmt: skip


@dataclass
class Piece:
    """A piece of a part, in a unit: its ints; of its rows the first in the unit and how many;
    pixels, and whether their results follow on one another; where these begin, the first one's
    number among all, where the sums lie; tables of pixels, of results and of k.
    """

    part: dict[str, Value]
    first_row: Operand
    grid_h: Operand
    pixels: Operand
    linear: Value
    start: Value
    offset: Operand
    c: Value
    rows: Value
    outs: Value
    table: Value


def rows_of_tile(
    f: Function, tile: Tile, number: Operand, tiles: Operand, pixels: Operand
) -> tuple[Operand, Operand]:
    """A tile's first row and how many it has: one row alone waits for its own sums, so where one is
    left the last two tiles share it.
    """
    row = f.mul(number, tile.rows)
    if not is_brief(tile):
        return row, f.min(f.sub(pixels, row), tile.rows)
    left = f.sub(f.mul(tiles, tile.rows), pixels)
    odd = f.op("and", f.icmp("eq", left, tile.rows - 1), f.icmp("sgt", tiles, 1))
    last = f.icmp("eq", number, f.sub(tiles, 1))
    half = f.icmp("eq", number, f.sub(tiles, 2))
    row = f.sub(row, f.select(f.op("and", odd, last), 2, 0))
    most = f.select(f.op("and", odd, half), tile.rows - 2, tile.rows)
    return row, f.min(f.sub(pixels, row), most)


def place_of(
    f: Function, h: dict[str, Value], drawn: Operand, mine: Operand
) -> tuple[Value, Value]:
    """The unit that a thread works at, and which of its pieces."""
    piece, pieces = f.own_first(drawn, mine, h["pieces"]), h["unit_pieces"]
    unit = f.select(f.icmp("eq", pieces, 1), f.apart(piece, h["pieces"]), f.div(piece, pieces))
    return unit, f.apart(f.rem(piece, pieces), pieces)


def following(
    f: Function, h: dict[str, Value], d: dtype, unit: Operand, source: Value, mine: Operand
) -> tuple[Value, Operand]:
    """Where the image of the unit begins that this thread probably takes next, and its lines; none
    if it is the same. They follow on one another, if any are asked for.
    """
    piece = f.unit_after()
    other, _ = place_of(f, h, piece, mine)
    band = f.mul(f.rem(other, h["bands"]), h["band_step"])
    image = f.mul(f.div(other, h["bands"]), h["unit_images"])
    images = f.min(f.sub(h["images"], image), h["unit_images"])
    top = f.max(f.sub(band, h["top"]), 0)
    end = f.add(f.sub(band, h["top"]), f.mul(h["slab_rows"], h["step_y"]))
    rows = f.mul(f.sub(f.min(end, h["height"]), top), h["source_h"])
    whole = f.icmp("eq", h["bands"], 1)
    size = f.select(whole, f.mul(images, h["source_n"]), rows)
    start = f.mul(image, h["source_n"])
    start = f.select(whole, start, f.add(start, f.mul(top, h["source_h"])))
    more = f.op("and", f.icmp("slt", piece, h["pieces"]), f.icmp("ne", other, unit))
    lines = f.select(more, f.div(f.mul(size, d.itemsize), 64), f.typed(0, "i64"))
    return f.gep(source, start, memory(d)), lines


def number_of(f: Function, part: dict[str, Value], numbers: Value, k: Operand) -> Operand:
    """The number that the part's k has in the whole part; 0 if the part has no taps."""
    taps = f.max(part["part_taps"], 1)
    number = f.load("i64", f.gep(numbers, f.rem(k, taps), "i64"))
    return f.add(f.mul(f.div(k, taps), part["whole_taps"]), number)


def terms_before(f: Function, part: dict[str, Value], numbers: Value, k: Operand) -> Operand:
    """How many of the part's k come before number k of the whole part's."""
    taps = f.max(part["whole_taps"], 1)
    number = f.rem(k, taps)
    with f.loop(0, part["part_taps"], 1, [("i64", 0)]) as T:
        at = f.load("i64", f.gep(numbers, T.i, "i64"))
        T.next = [f.add(T.carry[0], f.cast("zext", f.icmp("slt", at, number), "i64"))]
    return f.add(f.mul(f.div(k, taps), part["part_taps"]), T.carry[0])


def rows_of(
    f: Function, h: dict[str, Value], part: dict[str, Value], y: Operand
) -> tuple[Operand, Operand]:
    """(first, number) of the part's rows that lie in the band from row y of the grid on."""
    low, high = (
        f.max(f.min(f.sub(end, part["first_row"]), part["grid_h"]), 0)
        for end in (y, f.add(y, h["band"]))
    )
    return low, f.sub(high, low)


def fill_tables(
    f: Function, tile: Tile, h: dict[str, Value], ints: Value, taps: tuple[Value, Value],
    memories: tuple[Value, Value],
) -> None:  # fmt: skip
    """Of each part: where each k lies in the slab, and the bytes of B from it to the next; the
    order of sums that go out as they lie.
    """
    tables, order = memories
    with f.loop(0, h["ordered"]) as C:
        f.store(C.i, f.gep(order, C.i, "i64"))
    with f.loop(0, h["parts"]) as P:
        part = read_part(f, ints, P.i, PART)
        own = [f.gep(a, part["first_tap"], "i64") for a in taps]
        table = f.gep(tables, f.mul(part["table_at"], 2), "i64")
        if tile.amx:
            conv_wide_tiles.fill_chunks(f, h, part, own[0], table)
        by_channels = 0 if tile.amx else h["depth"]
        with f.loop(0, by_channels) as C, f.loop(0, part["part_taps"]) as T:
            tap, step = (f.load("i64", f.gep(a, T.i, "i64")) for a in own)
            place = f.add(f.mul(C.i, part["part_taps"]), T.i)
            pair = f.gep(table, f.mul(place, 2), "i64")
            f.store(f.typed(f.add(C.i, tap), "i64"), pair)
            f.store(step, f.gep(pair, 1, "i64"))


def fill_rows(
    f: Function, h: dict[str, Value], part: dict[str, Value], tables: tuple[Value, Value],
    skipped: Operand, images: Operand, grid_h: Operand,
) -> None:  # fmt: skip
    """Where each pixel of the unit's grid lies in the slab, and where its results go."""
    with f.loop(0, images) as N, f.loop(0, grid_h) as Y:
        start = f.add(f.mul(N.i, h["image_pitch"]), f.mul(Y.i, h["pixel_h"]))
        start = f.add(f.add(start, part["source_at"]), skipped)
        out = f.add(f.mul(N.i, h["out_n"]), f.mul(Y.i, part["out_h"]))
        at = f.mul(f.add(f.mul(N.i, grid_h), Y.i), part["grid_w"])
        steps = (h["pixel_w"], part["out_w"])
        for table, first, step in zip(tables, (start, out), steps, strict=True):
            with f.loop(0, part["grid_w"]) as X:
                value = f.typed(f.add(first, f.mul(X.i, step)), "i64")
                f.store(value, f.gep(table, f.add(at, X.i), "i64"))


def fill_order(
    f: Function, h: dict[str, Value], part: dict[str, Value], order: Value, images: Operand,
    rows: tuple[Operand, Operand, Operand],
) -> None:  # fmt: skip
    """Which row of c has each pixel of the unit's results, of those of a piece: its first row in
    the unit, how many; the unit's first row of the grid.
    """
    first, grid_h, y = rows
    start = f.add(part["out_at"], f.mul(f.sub(first, y), part["out_h"]))
    each = joined_pixels(f, h, part, y)
    with f.loop(0, images) as N, f.loop(0, grid_h) as Y:
        at = f.add(f.add(start, f.mul(N.i, each)), f.mul(Y.i, part["out_h"]))
        row = f.mul(f.add(f.mul(N.i, grid_h), Y.i), part["grid_w"])
        with f.loop(0, part["grid_w"]) as X:
            place = f.gep(order, f.add(at, f.mul(X.i, part["out_w"])), "i64")
            f.store(f.typed(f.add(f.add(part["c_at"], row), X.i), "i64"), place)


def joined_pixels(f: Function, h: dict[str, Value], part: dict[str, Value], y: Operand) -> Value:
    """Of a unit's image, whose first row of the grid is y, the results of all parts."""
    row = part["out_h"]
    return f.typed(f.min(f.sub(h["joined"], f.mul(y, row)), f.mul(h["band"], row)), "i64")
