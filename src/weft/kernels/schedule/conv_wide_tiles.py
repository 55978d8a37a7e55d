"""How convolutions of words (`conv_wide_code`) meet tile registers (see `amx`).

k = (row and column of the kernel, pair of channels), in chunks of equally many words, 16 at most,
a tap's filled up with zeros to whole ones; of fewer than 16, taps that lie side by side in the slab
are one, if that fills chunks. Their number and depth are a function of the convolution's sizes.

Pixels come in lines, along which they lie at a constant distance in the slab: rows of outputs; all
of them, or all images, where these follow on one another; or, where rows would fill tiles badly,
all positions of an image's slab, those between its rows of outputs too, whose sums are dropped. A
line is cut into tiles of equal height. The last one begins early: what was there before is computed
again, to the same bits, and not finished again.

Sums of two tiles lie in a room of their own in the first cache. They are finished among the
products of the next two, a few rows behind each, where these are whole: tiles leave the vectors'
ports free. Meanwhile the lines of the results of the next two, and of what they meet, are asked
for in the order in which they lie.

The products themselves (`emit_tiles`) are those of `conv_micro`, of words, where rows lie at a
constant distance and chunks side by side in A. Two tiles meet 32 columns at a time: four loads for
four products, while the panel's next chunk is asked for to the first cache. An element's sum is
that of its chunks in order, in one register: all of k is one block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from weft.kernels.schedule import amx
from weft.kernels.schedule.ending_tiles import Ending, Shares
from weft.kernels.schedule.gemm_micro import ENDING
from weft.kernels.schedule.tile import Tile, tile_for
from weft.kernels.target.llvm import Function, Module, Operand, Value

HEAD = ("tap_words", "cells", "period", "room", "block", "far")
_NEAR = 32 << 10  # bytes of a panel that stays in the first cache
_PANELS = 512 << 10  # of panels that two tiles meet one after the other, to stay below
_FEW = 14  # rows of a tile below which it waits for B
_ENDLESS = 1 << 40
_A, _B = 4, 6  # registers; sums have the first four
_BYTES = amx.CELL * amx.DEPTH  # of a row of a register
_ARGS = [
    ("ptr noalias readonly", "a"),
    ("ptr noalias readonly", "starts"),
    ("i64", "count"),
    ("i64", "pitch"),
    ("ptr noalias readonly", "offsets"),
    ("i64", "chunks"),
    ("ptr noalias readonly", "b"),
    ("i64", "cells"),
    ("ptr noalias", "c"),
    ("ptr noalias readonly", "numbers"),
    ("i64", "columns"),
    ("ptr", "soon"),
    ("i64", "lines"),
]
_BLOCK = [("ptr", "a0"), ("ptr", "a1"), *_ARGS[3:8], ("ptr", "c0"), ("ptr", "c1"), *_ARGS[-2:]]


def chunks_of(depth: int, parts: Sequence[Sequence[int]]) -> tuple[int, int, bool]:
    """(words of k of a tap of so many words, words of a chunk, whether taps lie side by side) of
    parts with taps at these pixels of the slab.
    """
    taps = list(parts[0]) if len(parts) == 1 else []
    run = next((i for i, t in enumerate(taps) if t != taps[0] + i), len(taps))
    beside = run > 1 and all(t == taps[i - i % run] + i % run for i, t in enumerate(taps))
    if beside and 0 < depth < amx.DEPTH:
        count = -(-run * depth // amx.DEPTH)
        if len(taps) % run == 0 and run * depth % count == 0:
            return depth, run * depth // count, True
    count = -(-depth // amx.DEPTH)
    cells = -(-depth // max(count, 1))
    return count * cells, max(cells, 1), False


def period_of(columns: int, width: int, rows: int) -> int:
    """Positions of a slab's row, if lines are to take all of them, for rows of so many outputs; 0
    if lines are these.
    """

    def cost(length: int) -> int:
        each = -(-length // amx.ROWS)
        return each * max(-(-length // max(each, 1)), _FEW)

    return columns if cost((rows - 1) * columns + width) < rows * cost(width) else 0


def block_of(panel: int) -> int:
    """How many panels of so many bytes two tiles meet before the next two do: results are whole
    lines one after the other then.
    """
    return _PANELS // max(panel, 1) if panel <= _NEAR else 1


def room_of(period: int, width: int) -> int:
    """Rows of sums of two tiles, which may be the last of an image and the next one's first."""
    return 2 * amx.ROWS + max(period - width, 0)


@dataclass
class Lines:
    """Of a unit's part: positions of a line and their distance, lines of an image and theirs,
    images and theirs; positions of a tile, tiles of a line, positions from line to line.
    """

    length: Operand
    step: Operand
    rows: Operand
    row_step: Operand
    images: Operand
    image_step: Operand
    height: Operand
    each: Operand
    apart: Operand

    def count(self, f: Function) -> Operand:
        """Tiles."""
        return f.mul(f.mul(self.images, self.rows), self.each)


def lines_of(
    f: Function, h: dict[str, Value], width: Operand, images: Operand, grid_h: Operand
) -> Lines:
    """The lines of so many images' rows of outputs."""
    one, down, image = f.typed(1, "i64"), h["pixel_h"], h["image_pitch"]
    step = f.select(f.icmp("eq", width, 1), down, h["pixel_w"])
    whole = f.op("or", f.icmp("eq", down, f.mul(width, step)), f.icmp("eq", grid_h, 1))
    length, rows = f.select(whole, f.mul(width, grid_h), width), f.select(whole, one, grid_h)
    single = f.op("and", whole, f.icmp("eq", length, 1))
    step = f.select(single, image, step)
    whole = f.op("and", whole, f.icmp("eq", image, f.mul(length, step)))
    length, images_ = f.select(whole, f.mul(length, images), length), f.select(whole, one, images)
    between = f.icmp("ne", h["period"], 0)
    positions = f.add(f.mul(f.sub(grid_h, 1), h["period"]), width)
    length, rows = f.select(between, positions, length), f.select(between, one, rows)
    images, step = f.select(between, images, images_), f.select(between, h["pixel_w"], step)
    apart = f.select(between, f.mul(grid_h, h["period"]), length)
    each = f.div(f.add(length, amx.ROWS - 1), amx.ROWS)
    height = f.div(f.add(length, f.sub(each, 1)), f.max(each, 1))
    return Lines(length, step, rows, down, images, image, height, each, apart)


def fill_tiles(f: Function, lines: Lines, tables: tuple[Value, Value], first: Operand) -> None:
    """Where each tile begins in the slab, from the part's `first` pixel on, and its first
    position's number among the part's.
    """
    starts, numbers = tables
    with f.loop(0, lines.images) as N, f.loop(0, lines.rows) as Y:
        line = f.add(f.mul(N.i, lines.rows), Y.i)
        at = f.add(f.mul(N.i, lines.image_step), f.mul(Y.i, lines.row_step))
        with f.loop(0, lines.each) as T:
            x = f.min(f.mul(T.i, lines.height), f.sub(lines.length, lines.height))
            place = f.add(f.mul(line, lines.each), T.i)
            start = f.add(f.add(first, at), f.mul(x, lines.step))
            number = f.add(f.mul(line, lines.apart), x)
            for table, value in ((starts, start), (numbers, number)):
                f.store(f.typed(value, "i64"), f.gep(table, place, "i64"))


def fill_chunks(
    f: Function, h: dict[str, Value], part: dict[str, Value], taps: Value, table: Value
) -> None:
    """Where each chunk of k lies in the slab."""
    with f.loop(0, f.div(part["k"], h["cells"])) as K:
        word = f.mul(K.i, h["cells"])
        words = f.max(h["tap_words"], 1)
        tap = f.load("i64", f.gep(taps, f.div(word, words), "i64"))
        at = f.add(tap, f.rem(word, words))
        f.store(f.typed(at, "i64"), f.gep(table, K.i, "i64"))


@dataclass
class Shape:
    """The height of the tiles that a thread's registers are configured for; 0 at first."""

    f: Function
    place: Value

    def need(self, height: Operand, cells: Operand) -> None:
        f = self.f
        with f.iff(f.icmp("ne", f.load("i64", self.place), height)):
            amx.configure_blocks(f, height, cells)
            f.store(f.typed(height, "i64"), self.place)


@dataclass(frozen=True)
class Ends:
    """What becomes of sums, the code of it: `ahead(pixel, count, column)` asks for the lines of so
    many outputs; `alone(pixel, count, place, column)` finishes sums that lie there; `among`, where
    it `exists`, is a kernel that is given the products of two tiles first (`emit_finish`).
    """

    ahead: Callable[[Operand, Operand, Operand], None]
    alone: Callable[[Operand, Operand, Value, Operand], None]
    among: Callable[[Sequence[Operand], Operand, Operand, Value, Operand], None]
    exists: Value


def multiply(
    f: Function, tile: Tile, h: dict[str, Value], lines: Lines, tables: tuple[Value, Value],
    memories: tuple[Value, Value, Value, Value], sizes: tuple[Operand, Operand, Operand, Operand],
    linear: Value, ends: Ends,
) -> None:  # fmt: skip
    """Some panels' products with all tiles of a part, two by two.

    `memories`: slab, chunks, the first panel of B, c; `sizes`: elements of a panel, columns of all,
    chunks, outputs of a row. c has the sums of all pixels of one panel, or where these are `linear`
    of four tiles, which go to their `ends`.
    """
    starts, numbers = tables
    a, offsets, b, c = memories
    panel, columns, chunks, width = sizes
    found = lines.count(f)
    between = f.icmp("ne", h["period"], 0)
    endless = f.typed(_ENDLESS, "i64")
    fused = f.op("and", f.op("and", linear, ends.exists), f.op("xor", between, True))
    fused = f.op("and", fused, f.icmp("ne", chunks, 0))
    period, width = f.select(between, h["period"], endless), f.select(between, width, endless)

    def pixels(
        low: Operand, high: Operand, each: Callable[[Operand, Operand, Operand], None]
    ) -> None:
        """The outputs among positions: the first one's number, how many, their position."""
        with f.iff(f.icmp("slt", low, high)):
            last = f.add(f.div(f.sub(high, 1), period), 1)
            with f.loop(f.div(low, period), last) as Y:
                row = f.mul(Y.i, period)
                x = f.max(f.sub(low, row), 0)
                count = f.sub(f.min(f.sub(high, row), width), x)
                with f.iff(f.icmp("sgt", count, 0)):
                    each(f.add(f.mul(Y.i, width), x), count, f.add(row, x))

    def finish(waits: Sequence[Value]) -> None:
        low, high, column, place = waits

        def one(pixel: Operand, count: Operand, position: Operand) -> None:
            at = f.gep(place, f.mul(position, tile.columns), tile.element)
            ends.alone(pixel, count, at, column)

        with f.iff(linear):
            pixels(low, high, one)

    def pixel_of(position: Operand) -> Operand:
        """How many outputs lie before a position."""
        x = f.min(f.rem(position, period), width)
        return f.add(f.mul(f.div(position, period), width), x)

    steps = f.div(f.add(columns, tile.columns - 1), tile.columns)
    # positions, column and place of sums that are not finished; the room of the next ones
    waits: list[tuple[str, Operand]] = [("i64", 0), ("i64", 0), ("i64", 0), ("ptr", c), ("i64", 0)]
    with f.loop(0, found, 2, [("i64", 0), *waits]) as T:
        low, *waiting = T.carry
        count = f.min(f.sub(found, T.i), 2)
        own = f.gep(numbers, T.i, "i64")
        first = f.load("i64", own)
        last = f.load("i64", f.gep(own, f.sub(count, 1), "i64"))
        high = f.add(last, lines.height)
        # the next two tiles' outputs, which may be the next columns'
        more = f.icmp("slt", f.add(T.i, 2), found)
        follow = f.select(more, f.add(T.i, 2), 0)
        across = f.select(more, f.typed(0, "i64"), columns)
        end = f.min(f.add(follow, 1), f.sub(found, 1))
        end = f.add(f.load("i64", f.gep(numbers, end, "i64")), lines.height)
        next_low = pixel_of(f.select(more, high, f.typed(0, "i64")))
        next_high = pixel_of(end)
        # lines of the next panel, a share by each pair of tiles, or where these meet several: all
        # by the first
        several = f.icmp("sgt", columns, tile.columns)
        pairs = f.select(several, f.typed(1, "i64"), f.div(f.add(found, 1), 2))
        asks = f.op("and", f.add(f.div(f.add(pairs, 31), f.max(pairs, 1)), 3), -4)
        begin = f.mul(f.div(T.i, 2), asks)
        asks = f.select(f.icmp("slt", begin, 32), asks, 0)
        asks = f.select(f.icmp("ne", h["far"], 0), asks, 0)
        share = f.div(f.add(f.sub(next_high, next_low), f.sub(steps, 1)), steps)
        carry = [(type, v) for (type, _), v in zip(waits, waiting, strict=True)]
        with f.loop(0, columns, tile.columns, carry) as J:
            *earlier, half = J.carry
            row = f.sub(half, first)
            place = f.select(linear, f.gep(c, f.mul(row, tile.columns), tile.element), c)
            with f.iff(linear):
                nth = f.add(next_low, f.mul(f.div(J.i, tile.columns), share))
                ends.ahead(nth, f.min(share, f.sub(next_high, nth)), across)
            some = f.min(f.sub(columns, J.i), tile.columns)
            b_at = f.gep(b, f.mul(f.div(J.i, tile.columns), panel), tile.element)
            soon = f.gep(f.gep(b_at, panel, tile.element), f.mul(begin, 64))
            low_, high_, column, wait = earlier
            both = f.op("and", fused, f.icmp("eq", count, 2))
            both = f.op("and", both, f.icmp("slt", low_, high_))
            for wide in (some, f.sub(columns, column)):
                both = f.op("and", both, f.icmp("sge", wide, tile.columns))
            with f.if_else(both) as way:
                a_at = (f.load("i64", f.gep(starts, f.add(T.i, i), "i64")) for i in range(2))
                c_at = (f.mul(n, tile.columns) for n in (first, last))
                two = (
                    *(f.gep(a, at, tile.element) for at in a_at), lines.step, offsets, chunks,
                    b_at, h["cells"], *(f.gep(place, at, tile.element) for at in c_at),
                    soon, asks,
                )  # fmt: skip
                sums = f.gep(wait, f.mul(low_, tile.columns), tile.element)
                ends.among(two, low_, f.sub(high_, low_), sums, column)
                way.otherwise()
                f.call(
                    "tiles", "void", a, f.gep(starts, T.i, "i64"), count, lines.step, offsets,
                    chunks, b_at, h["cells"], place, own, some, soon, asks,
                )  # fmt: skip
                finish(earlier)
            J.next = [low, high, J.i, place, f.sub(h["room"], half)]
        T.next = [high, *J.carry]
    finish(T.carry[1:5])


def tile() -> Tile:
    """Two registers of rows by two of columns."""
    return replace(tile_for("float"), rows=amx.ROWS, vectors=2, pairs=True, amx=True)


def emit_tiles(m: Module, tile: Tile) -> None:
    """`tiles(a, starts, count, pitch, offsets, chunks, b, cells, c, numbers, columns, ...)`.

    `starts` has the elements of a at which `count` tiles begin, `numbers` their first rows of c,
    which has rows of `tile.columns`; rows of a tile are `pitch` elements apart; `offsets` has
    `chunks` elements. With each chunk `lines` lines (a multiple of four) from `soon` on are brought
    to the second cache, those of the next one a chunk's bytes farther on.
    """
    for rows in (1, 2):
        for across in (1, 2):
            f = m.function(f"block{rows}x{across}", _BLOCK, internal=True)
            _emit_block(f, tile, rows, across)
    f = m.function("tiles", _ARGS, internal=True)
    a, starts, count, pitch, offsets, chunks, b, cells, c, numbers, columns, soon, lines = (
        f.arg(n) for _, n in _ARGS
    )
    el = tile.element
    with f.loop(0, columns, 2 * amx.DEPTH) as J:
        few = f.icmp("sle", f.sub(columns, J.i), amx.DEPTH)
        panel = f.gep(b, J.i, el)

        def call(
            rows: int, across: int, t: Operand, panel: Operand = panel, j: Operand = J.i
        ) -> None:
            a_at, c_at = [], []
            for i in range(2):
                place = f.add(t, i % rows)
                start = f.load("i64", f.gep(starts, place, "i64"))
                number = f.load("i64", f.gep(numbers, place, "i64"))
                a_at.append(f.gep(a, start, el))
                c_at.append(f.gep(c, f.add(f.mul(number, tile.columns), j), el))
            name = f"block{rows}x{across}"
            f.call(name, "void", *a_at, pitch, offsets, chunks, panel, cells, *c_at, soon, lines)

        for across in f.switch(f.select(few, f.typed(1, "i64"), 2), (1,), 2):
            even = f.op("and", count, -2)
            with f.loop(0, even, 2) as T:
                call(2, across, T.i)
            with f.iff(f.icmp("slt", even, count)):
                call(1, across, even)
    f.ret()


def emit_finish(m: Module, ending: Ending) -> None:
    """`finish`: the products of two tiles by 32 columns, among them the `ending` of `rows` rows of
    earlier `sums`, a share behind each: vectors' ports work while registers of tiles wait.
    """
    args = [*_BLOCK, *ENDING, ("ptr", "sums"), ("i64", "rows")]
    _emit_block(m.function("finish", args), tile(), 2, 2, ending)


def _emit_block(
    f: Function, tile: Tile, rows: int, across: int,
    ending: Ending | None = None,
) -> None:  # fmt: skip
    """`block{rows}x{across}`: so many tiles by so many times sixteen columns."""
    el, line = tile.element, tile.columns * tile.itemsize
    pitch = f.mul(f.arg("pitch"), tile.itemsize)
    step = f.mul(f.arg("cells"), line)
    sums = [
        (across * i + j, f.gep(f.arg(f"c{i}"), j * amx.DEPTH, el))
        for i in range(rows)
        for j in range(across)
    ]
    for register, _ in sums:
        amx.zero(f, register)
    shares = Shares(f, ending, f.mul(f.arg("chunks"), rows * across))
    carry = [("ptr", f.arg("b")), ("ptr", f.arg("soon")), *shares.start]
    with f.loop(0, f.arg("chunks"), 1, carry) as K:
        panel, soon, *state = K.carry
        at = f.load("i64", f.gep(f.arg("offsets"), K.i, "i64"))
        for i in range(rows):
            amx.load(f, _A + i, f.gep(f.arg(f"a{i}"), at, el), pitch)
        for j in range(across):
            amx.load(f, _B + j, f.gep(panel, j * amx.DEPTH, el), line)
            for i in range(rows):
                amx.multiply_pairs(f, across * i + j, _A + i, _B + j)
                state = shares.behind(state)
        after = f.gep(panel, step)
        for number in range(amx.DEPTH):
            for j in range(across):
                f.touch(f.gep(after, number * line + j * _BYTES))
        with f.loop(0, f.arg("lines"), 4) as L:
            for more in range(4):
                f.touch(f.gep(soon, f.mul(f.add(L.i, more), 64)), level=2)
        K.next = [after, f.gep(soon, step), *state]
    for register, place in sums:
        amx.store(f, register, place, line)
    f.ret()
