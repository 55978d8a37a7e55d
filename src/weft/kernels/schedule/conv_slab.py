"""The slab of the convolutions whose vectors hold channels: some rows of an image, copied with
their zero border, the channels of a pixel adjacent, whatever the strides of the image.
"""

from functools import partial

from weft.core.dtype import dtype
from weft.kernels.schedule.conv_pack import load_step, transpose
from weft.kernels.schedule.tile import Tile
from weft.kernels.schedule.words import units_of
from weft.kernels.target.element import Element, memory
from weft.kernels.target.llvm import Function, Module, Operand, Value, lanes_of, zero

FEW = 4  # so many channels or fewer have no more room a pixel, if a vector holds them
_SLAB = ("rows", "columns", "channels", "pitch", "row_pitch", "top", "left", "step_y", "step_x")
_SLAB += ("height", "width", "source_c", "source_h", "source_w")


def emit_slab(m: Module, tile: Tile, d: dtype) -> None:
    """`slab(to, from, ...)`: one image as [row][column][unit of channels], zeros around it.

    Row r, column c of the slab are row r step_y - top, column c step_x - left of the image. A pixel
    has room for `pitch` units, whole vectors or `FEW`; what follows the last one, and up to a
    vector behind the slab, is any number.
    """
    for apart in (1, 2):
        _emit_square(m, tile, d, apart)
    pointers = [("ptr noalias", "to"), ("ptr noalias readonly", "from")]
    f = m.function("slab", [*pointers, *(("i64", n) for n in _SLAB)], internal=True)
    to, source = f.arg("to"), f.arg("from")
    rows, columns, channels, pitch, row_pitch, top, left, step_y, step_x = (
        f.arg(n) for n in _SLAB[:9]
    )
    height, width, source_c, source_h, source_w = (f.arg(n) for n in _SLAB[9:])
    el, lanes, type = tile.element, tile.lanes, tile.type
    reads = units_of(f, d, lanes, pairs=tile.pairs)
    one, units = Element(f, 1).memory_type(d), reads.units(channels)
    step = f.mul(step_x, source_w)
    near = f.op("or", f.icmp("eq", step, 1), f.icmp("eq", step, 2))
    kind = f.select(near, f.typed(1, "i64"), f.typed(2, "i64"))
    kind = f.select(f.icmp("eq", source_c, 1), f.typed(0, "i64"), kind)
    first = f.min(f.div(f.add(left, f.sub(step_x, 1)), step_x), columns)
    end = f.div(f.add(f.add(left, width), f.sub(step_x, 1)), step_x)
    end = f.max(f.min(end, columns), first)
    whole = f.op("and", units, -lanes)
    numbers = f.mul(whole, reads.per)
    rest = reads.masks(f.sub(channels, numbers))
    with f.loop(0, rows) as R:
        y = f.sub(f.mul(R.i, step_y), top)
        inside = f.icmp("ult", y, height)
        low, high = f.select(inside, first, columns), f.select(inside, end, columns)
        row = f.gep(to, f.mul(R.i, row_pitch), el)

        def border(start: Operand, stop: Operand, row: Value = row) -> None:
            with f.loop(f.mul(start, pitch), f.mul(stop, pitch), lanes) as Z:
                f.store(zero(type), f.gep(row, Z.i, el))

        border(0, low)  # what a vector writes too far is written again
        at = f.sub(f.mul(y, source_h), f.mul(left, source_w))
        origin = f.gep(source, at, memory(d))
        for case in f.switch(kind, (0, 1), 2):
            if case == 0:
                with f.loop(low, high) as X:
                    pixel = f.gep(origin, f.mul(X.i, step), memory(d))
                    target = f.gep(row, f.mul(X.i, pitch), el)
                    with f.loop(0, whole, lanes) as C:
                        v = reads.adjacent(f.gep(pixel, f.mul(C.i, reads.per), memory(d)))
                        f.store(v, f.gep(target, C.i, el))
                    with f.iff(f.icmp("slt", whole, units)):
                        v = reads.adjacent(f.gep(pixel, numbers, memory(d)), rest)
                        f.store(v, f.gep(target, whole, el))
            elif case == 1:
                with f.loop(0, units, lanes) as C, f.loop(low, high, lanes) as X:
                    count = f.min(f.sub(high, X.i), lanes)
                    channel = f.mul(C.i, reads.per)
                    at = f.add(f.mul(channel, source_c), f.mul(X.i, step))
                    target = f.gep(f.gep(row, C.i, el), f.mul(X.i, pitch), el)
                    for apart in f.switch(step, (1,), 2):
                        f.call(
                            f"square{apart}", "void", target, f.gep(origin, at, memory(d)), pitch,
                            source_c, f.sub(channels, channel), count,
                        )  # fmt: skip
            else:
                with f.loop(low, high) as X, f.loop(0, units) as C:
                    channel = f.mul(C.i, reads.per)
                    at = f.add(f.mul(X.i, step), f.mul(channel, source_c))
                    more = f.icmp("slt", f.add(channel, 1), channels)
                    load = partial(f.load, one)
                    v = reads.unit(load, f.gep(origin, at, memory(d)), source_c, more, width=1)
                    f.store(v, f.gep(f.gep(row, f.mul(X.i, pitch), el), C.i, el))
        border(high, columns)
    f.ret()


def _emit_square(m: Module, tile: Tile, d: dtype, apart: int) -> None:
    """`count` pixels, `apart` elements apart in each channel's plane, of a vector of units: a
    function, for loops around so many addresses take the compiler long.
    """
    args = [("ptr noalias", "to"), ("ptr noalias readonly", "from")]
    ints = [("i64", n) for n in ("pitch", "source_c", "channels", "count")]
    f = m.function(f"square{apart}", [*args, *ints], internal=True)
    wide, count, channels = Element(f, tile.lanes), f.arg("count"), f.arg("channels")
    reads = units_of(f, d, tile.lanes, pairs=tile.pairs)
    last = f.sub(reads.units(channels), 1)

    def plane(j: int) -> Value:
        # a missing unit repeats the last one: nobody reads it
        channel = f.mul(f.min(last, j), reads.per)
        at = f.gep(f.arg("from"), f.mul(channel, f.arg("source_c")), memory(d))
        more = f.icmp("slt", f.add(channel, 1), channels)
        load = lambda at: load_step(f, wide, at, d, count, apart)
        return reads.unit(load, at, f.arg("source_c"), more)

    with f.if_else(f.icmp("eq", f.arg("pitch"), FEW)) as way:
        for i, v in enumerate(_fours(f, [plane(j) for j in range(FEW)])):
            with f.iff(f.icmp("slt", f.typed(i * tile.lanes // FEW, "i64"), count)):
                f.store(v, f.gep(f.arg("to"), i * tile.lanes, tile.element))
        way.otherwise()
        square = transpose(f, [plane(j) for j in range(tile.lanes)])
        store_some(f, square, f.arg("to"), f.arg("pitch"), count, tile.element)
    f.ret()


def _fours(f: Function, planes: list[Value]) -> list[Value]:
    """Four vectors, an element of each after the other."""
    lanes = lanes_of(planes[0].type)
    half = lanes // 2
    pairs = [
        [f.shuffle(a, b, [lanes * (q % 2) + at + q // 2 for q in range(lanes)]) for at in (0, half)]
        for a, b in (planes[:2], planes[2:])
    ]
    found = []
    for i in range(FEW):
        places = [divmod(i * lanes + q, FEW) for q in range(lanes)]
        side = places[0][0] // half
        found.append(
            f.shuffle(
                pairs[0][side], pairs[1][side],
                [lanes * (c // 2) + 2 * (p - half * side) + c % 2 for p, c in places],
            )
        )  # fmt: skip
    return found


def store_some(
    f: Function, square: list[Value], to: Value, pitch: Operand, count: Operand, element: str
) -> None:
    """The first `count` of the vectors, each whole, `pitch` elements apart."""
    every = f.icmp("sge", count, len(square))
    with f.if_else(every) as way:
        for i, v in enumerate(square):
            f.store(v, f.gep(to, f.mul(pitch, i), element))
        way.otherwise()
        for i, v in enumerate(square[:-1]):
            with f.iff(f.icmp("slt", f.typed(i, "i64"), count)):
                f.store(v, f.gep(to, f.mul(pitch, i), element))
