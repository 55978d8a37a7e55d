"""How results of convolutions with channels across the vector (`conv_wide_code`) go to memory.

As they lie there: rows of channels, or squares transposed.
"""

from weft.core.dtype import dtype
from weft.kernels.schedule.conv_pack import step_masks, store_step
from weft.kernels.schedule.conv_wide_pieces import Piece
from weft.kernels.schedule.tile import Tile
from weft.kernels.schedule.words import sums_to
from weft.kernels.target.element import Element, memory
from weft.kernels.target.llvm import Function, Module, Operand, Value, const


def store_planes(
    f: Function, d: dtype, h: dict[str, Value], memories: tuple[Value, Value, Value, Value],
    sizes: tuple[Operand, Operand, Operand], steps: tuple[Operand, Operand], columns: Operand,
) -> None:  # fmt: skip
    """The panel's results to images that lie channel by channel: `sizes` are images, rows and their
    pixels, `steps` those of a row and of a pixel.
    """
    (start, c, order, shift), (images, rows, length) = memories, sizes
    with f.loop(0, images) as N, f.loop(0, rows) as Y:
        to = f.add(f.mul(N.i, h["out_n"]), f.mul(Y.i, steps[0]))
        at = f.mul(f.add(f.mul(N.i, rows), Y.i), length)
        f.call(
            "planes", "void", f.gep(start, to, memory(d)), c, f.gep(order, at, "i64"), shift,
            f.typed(length, "i64"), columns, h["out_c"], f.typed(steps[1], "i64"),
        )  # fmt: skip


def as_one_row(f: Function, part: dict[str, Value], rows: Operand) -> tuple[Operand, Operand]:
    """A part's rows and their pixels: rows of outputs that follow on one another are one."""
    width = part["grid_w"]
    whole = f.icmp("eq", part["out_h"], f.mul(width, part["out_w"]))
    return f.select(whole, f.typed(1, "i64"), rows), f.select(whole, f.mul(rows, width), width)


def ask_along(
    f: Function, tile: Tile, d: dtype, piece: Piece, row: Operand, count: Operand, out_c: Operand
) -> None:
    """For `count` lines of planes, while sums of a tile from `row` on are made: as many as they
    fill, but channel by channel, each of which is the line of several pixels.
    """
    pixels, per = 64 // d.itemsize, -(-tile.columns * d.itemsize // 64)
    number = f.mul(row, per)
    first, channel = f.mul(f.div(number, tile.columns), pixels), f.rem(number, tile.columns)
    here, there = (
        f.load("i64", f.gep(piece.outs, f.min(at, f.sub(piece.pixels, 1)), "i64"))
        for at in (first, f.add(first, pixels))
    )
    there = f.sub(there, f.mul(out_c, tile.columns))
    with f.loop(channel, f.add(channel, count)) as L:
        start = f.select(f.icmp("slt", L.i, tile.columns), here, there)
        place = f.gep(piece.start, f.add(start, f.mul(L.i, out_c)), memory(d))
        f.touch(place, level=2)  # read: to be written they would come to few sets of the first one


def emit_rows(m: Module, tile: Tile, d: dtype) -> None:
    """`rows(out, c, bias, count, columns, out_w)`: out[pixel][channel], channels adjacent."""
    names = [("i64", n) for n in ("count", "columns", "out_w")]
    pointers = [
        ("ptr noalias", "out"), ("ptr noalias readonly", "c"), ("ptr noalias readonly", "bias")
    ]  # fmt: skip
    f = m.function("rows", [*pointers, *names], internal=True)
    out, c, bias, count, columns, out_w = (f.arg(n) for _, n in [*pointers, *names])
    el, lanes = tile.element, tile.lanes
    places = range(0, tile.columns, lanes)
    masks = [f.lane_mask(f.sub(columns, j), lanes) for j in places]
    shifts = [
        _bias(f, tile, d, f.gep(bias, j, memory(d)), bias, mask)
        for j, mask in zip(places, masks, strict=True)
    ]
    with f.if_else(f.icmp("eq", columns, tile.columns)) as way:
        for whole in (True, False):
            with f.loop(0, count) as P:
                row = f.gep(c, f.mul(P.i, tile.columns), el)
                to = f.gep(out, f.mul(P.i, out_w), memory(d))
                for j, mask, shift in zip(places, masks, shifts, strict=True):
                    v = f.op("fadd", f.load(tile.type, f.gep(row, j, el)), shift)
                    v = sums_to(f, v, d, lanes)
                    at = f.gep(to, j, memory(d))
                    f.store(v, at) if whole else f.masked_store(v, at, mask)
            if whole:
                way.otherwise()
    f.ret()


def _bias(f: Function, tile: Tile, d: dtype, at: Value, bias: Value, mask: Value) -> Value:
    """A vector of the bias; -0.0, which leaves every sum as it is, where there is none."""
    wide = Element(f, tile.lanes)
    with f.if_else(f.icmp("ne", bias, Value("null", "ptr"))) as b:
        loaded = wide.from_memory(f.masked_load(wide.memory_type(d), at, mask), d)
        b.otherwise()
    return b.merge(tile.type, loaded, const(tile.type, -0.0))


def emit_planes(m: Module, tile: Tile, d: dtype) -> None:
    """`planes(out, c, order, bias, count, columns, out_c, out_w)`: out[channel][pixel] of one row,
    whose sums are those rows of c.
    """
    names = [("i64", n) for n in ("count", "columns", "out_c", "out_w")]
    pointers = [
        ("ptr noalias", "out"), *(("ptr noalias readonly", n) for n in ("c", "order", "bias"))
    ]  # fmt: skip
    f = m.function("planes", [*pointers, *names], internal=True, driver=True)
    out, c, order, bias, count, columns, out_c, out_w = (f.arg(n) for _, n in [*pointers, *names])
    el, lanes = tile.element, tile.lanes
    one, wide = Element(f, 1), Element(f, lanes)
    room = f.alloca(tile.type, lanes)
    with f.loop(0, columns, lanes) as J:
        left = f.min(f.sub(columns, J.i), lanes)
        mask = f.lane_mask(left, lanes)
        shift = _bias(f, tile, d, f.gep(bias, J.i, memory(d)), bias, mask)
        to = f.gep(out, f.mul(J.i, out_c), memory(d))
        with f.loop(0, count, lanes) as P:
            # a missing pixel repeats the last one: it is not stored
            v = []
            for i in range(lanes):
                at = f.gep(order, f.min(f.add(P.i, i), f.sub(count, 1)), "i64")
                at = f.mul(f.load("i64", at), tile.columns)
                value = f.load(tile.type, f.gep(f.gep(c, at, el), J.i, el))
                value = sums_to(f, f.op("fadd", value, shift), d, lanes)
                v.append(wide.from_memory(value, d))
            there = f.min(f.sub(count, P.i), lanes)
            start = f.gep(to, f.mul(P.i, out_w), memory(d))
            square = f.transpose(v)
            for case in f.switch(out_w, (1, 2), 0):
                if case:
                    masks = step_masks(f, there, lanes, case)
                    for j, value in enumerate(square):
                        with f.iff(f.icmp("slt", f.typed(j, "i64"), left)):
                            at = f.gep(start, f.mul(out_c, j), memory(d))
                            store_step(f, wide.to_memory(value, d), at, masks, d)
                    continue
                for i, value in enumerate(square):
                    f.store(value, f.gep(room, i, tile.type), tile.align)
                with f.loop(0, left) as C, f.loop(0, there) as X:
                    value = f.load(el, f.gep(f.gep(room, C.i, tile.type), X.i, el))
                    at = f.add(f.mul(out_c, C.i), f.mul(X.i, out_w))
                    one.store(value, f.gep(start, at, memory(d)), d)
    f.ret()
