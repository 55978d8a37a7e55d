"""The register tile of the convolutions whose vectors hold channels: C[pixel][column] (+)= A B.

B is a packed panel, `Tile.columns` columns a k. A comes one number at a time and is broadcast: that
of row i and k lies at `a + rows[i] + offsets[k]`, so neither rows nor k need to be adjacent, and an
image is never unrolled. `offsets` are pairs, with the bytes to the next k's columns of B: what is
zero in all rows of a tile can be left out. Each element of C has one accumulator, fma in increasing
k; a block of k that is not the first is added to what C holds.

Where two multiply-adds start in a cycle (`is_brief`) the instructions beside them count. The tile
is a product's then, the rows' addresses stay in registers, and B is left to the hardware but for
lines of memory: the tiles that meet a block ask for the next one, all at one pace.

For kernels three wide whose outputs lie a pixel apart there are tiles of pixels that follow on one
another in a row of outputs: in three k at a time, neighbours in a row of the kernel, n of them meet
n + 2 numbers of A, not 3 n. So A costs a third of the loads, and a tile of 12 pixels by 2 vectors
reads half of the bytes of B that 6 by 4 reads for a multiply-add. Such pixels are a *span*, of one
of the lengths SPANS, which a panel meets two vectors at a time, or four. In a weight's gradient
they are k, a *run*, and the three taps rows: of two channels each k brings two numbers of A, so a
panel's tile has 6 loads for 24 multiply-adds, and no table's words, in place of 10. A pixel at an
end of a row may leave out the tap that sees the border.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from weft.kernels.schedule.gemm_micro import ENDING, Finish, multiply_units
from weft.kernels.schedule.micro import store_sums
from weft.kernels.schedule.tile import Tile, tile_for
from weft.kernels.target.llvm import Function, Module, Operand, Value, zero
from weft.runtime import native

UNROLL = 2
_AHEAD = 16  # k at which B is prefetched: the hardware stops at the end of each page
_ARGS = [
    ("ptr noalias readonly", "a"),
    ("ptr noalias readonly", "rows"),
    ("i64", "count"),
    ("ptr noalias readonly", "offsets"),
    ("i64", "kc"),
    ("ptr noalias readonly", "b"),
    ("ptr noalias", "c"),
    ("i64", "columns"),
    ("i64", "first"),
]
# words in front of `soon`: where lines of the next block begin, bytes from step to step, and one of
# EVEN, if no k is left out
NEXT = 3
EVEN = {1: 2 * UNROLL, UNROLL: UNROLL}  # lines that a step asks for, and its k
_SOON = [("ptr noalias readonly", "soon"), ("i64", "soons")]
_APART = [("i64", "row")]

TAPS = 3  # k of a step
SPANS = (12, 11, 10, 9, 8, 7, 6, 5)  # shorter ones leave too few multiply-adds beside B's loads
_WIDE = 6  # of up to so many pixels there are sums of four vectors, of others of two
_SLACK = 10  # up to so many pixels there are registers to let a sum rest longer between two k
# pixel p of a span and its border: from pixel 4 or 9 so many pixels on, which an address multiplies
_REACH = {
    0: (0, -4), 1: (1, -8), 2: (0, -2), 3: (0, -1), 4: (0, 0), 5: (0, 1), 6: (0, 2), 7: (1, -2),
    8: (1, -1), 9: (1, 0), 10: (1, 1), 11: (1, 2), 12: (0, 8), 13: (1, 4),
}  # fmt: skip
CHANNELS = 2  # of a run
# where its first pixel lies, and its bytes of B; whether that leaves out the first tap, how many
# pixels by threes and in all have every tap, whether one more leaves out the last
RUN = ("at", "b_at", "left", "threes", "count", "right")
_RUN_ARGS = [
    *(("ptr noalias readonly", n) for n in ("a", "runs", "b")),
    ("ptr noalias", "c"),
    *(("i64", n) for n in ("pixel", "b_row", "c_tap", "first")),
]
_SPAN_ARGS = [
    ("ptr noalias readonly", "a"),
    ("i64", "step"),
    ("i64", "groups"),
    ("ptr noalias readonly", "offsets"),
    ("ptr noalias readonly", "b"),
    ("ptr noalias", "c"),
    ("i64", "c_step"),
    ("i64", "first"),
    ("ptr", "soon"),
    ("i64", "soons"),
]


def pixel_tile(element: str, columns: int, *, pairs: bool = False) -> Tile:
    """Of a group of so many columns. Tall and narrow: a panel of B streams from L2, and rows cost a
    broadcast each.
    """
    tile = replace(tile_for(element), pairs=pairs)
    tall = replace(tile, rows=14, vectors=2)
    if pairs or native.host().registers < 32:
        return tile
    return tile if is_brief(tile) and columns > tall.columns else tall


def is_brief(tile: Tile) -> bool:
    """Whether a step of the tile has to have few instructions."""
    return native.host().multiplies_twice and not tile.pairs and tile.rows < 14


def heights(tile: Tile) -> list[int]:
    """Rows that have a micro-kernel, tallest first; the rest after whole tiles takes each once."""
    if is_brief(tile):
        return [6, 5, 4, 3, 2, 1]
    return {14: [14, 7, 5, 4, 2, 1], 6: [6, 3, 2, 1], 4: [4, 2, 1]}[tile.rows]


def emit_tiles(m: Module, tile: Tile, *, writes: bool = False) -> None:
    """`tiles(a, rows, count, offsets, kc, b, c, columns, first)`: c[i][j] (+)= sum over k.

    `rows` has `count` offsets, `offsets` has `kc` pairs; c has rows of `tile.columns`; `first`
    nonzero overwrites c. One argument more, `row`: the elements from the columns of one k to
    the next's; of words they are packed: a pitch known now leaves registers, and time (1.6 times
    as fast). If it `writes` all are packed, and there are `soon, soons`: the lines of so many
    addresses are asked for meanwhile, to be written, one each step of the first whole tile: a core
    waits for some 24 at a time, and more at once keep it from the panel's. The words `NEXT` come
    before them where `is_brief`.
    """
    widths = tile.widths
    for vectors in widths:
        for height in heights(tile):
            pixels_kernel(m, tile, height, vectors, writes=writes)
    whole = (heights(tile)[0], tile.vectors)
    even = EVEN if is_brief(tile) and writes else {}
    for lines in even:
        pixels_kernel(m, tile, *whole, writes=True, even=lines)
    args = _ARGS + (_SOON if writes else _APART)
    f = m.function("tiles", args, internal=True)
    a, rows, count, offsets, kc, b, c, columns, first, *soon = (f.arg(n) for _, n in args)
    vectors = f.div(f.add(columns, tile.lanes - 1), tile.lanes)
    tallest, *rest = heights(tile)
    full = f.mul(f.div(count, tallest), tallest)
    for width in f.switch(vectors, sorted(widths)[:-1], widths[0]):

        def call(height: int, row: Operand, width: int = width) -> None:
            at = f.gep(c, f.mul(row, tile.columns), tile.element)
            name = f"pixels{height}x{width}"
            more = list(soon) if height == tallest or not writes or is_brief(tile) else []
            if more and writes:
                more[1] = f.select(f.icmp("eq", row, 0), soon[1], f.typed(0, "i64"))
            given = (a, f.gep(rows, row, "i64"), offsets, kc, b, at, first, *more)
            if not even or (height, width) != whole:
                f.call(name, "void", *given)
                return
            for lines in f.switch(f.load("i64", f.gep(soon[0], 2, "i64")), [*even], 0):
                f.call(f"even{lines}" if lines else name, "void", *given)

        with f.loop(0, full, tallest) as L:
            call(tallest, L.i)
        if writes:
            with f.iff(f.icmp("eq", full, 0)), f.loop(0, soon[1]) as S:
                _ask(f, tile, soon[0], S.i)
        row: Operand = full
        for height in rest:
            fits = f.icmp("sge", f.sub(count, row), height)
            with f.iff(fits):
                call(height, row)
            row = f.select(fits, f.add(row, height), row)
    f.ret()


def _ask(f: Function, tile: Tile, soon: Value, i: Operand) -> None:
    place = f.add(i, NEXT) if is_brief(tile) else i
    f.touch(f.load("ptr", f.gep(soon, place, "ptr")), level=2, write=True)


def pixels_kernel(
    m: Module, tile: Tile, height: int, vectors: int, *, writes: bool, even: int = 0,
    ending: Callable[[Function], Finish] | None = None,
) -> None:  # fmt: skip
    """The tile of so many rows and vectors. `even`, one of EVEN: the columns of all k follow on one
    another, and nobody looks up their distance. With `ending` it is an export, `finish`, has the
    further arguments `ENDING`, and its sums go to what `ending` gives instead of c.
    """
    whole = height == tile.rows
    args = [_ARGS[i] for i in (0, 1, 3, 4, 5, 6, 8)]
    brief = is_brief(tile)
    args += (_SOON if whole or brief else []) if writes else _APART
    name = f"pixels{height}x{vectors}" if ending is None else "finish"
    name = f"even{even}" if even else name
    most, lines = EVEN.get(even, UNROLL), even or UNROLL
    f = m.function(name, [*args, *(ENDING if ending else [])], internal=ending is None)
    a, rows, offsets, kc, b, c, first, *soon = (f.arg(n) for _, n in args)
    type, element = tile.type, tile.element
    base = [f.gep(a, f.load("i64", f.gep(rows, i, "i64")), element) for i in range(height)]
    pointers = 1 + (brief and writes)  # the panel's, the next block's
    # where the next k lies is looked up a k before: no broadcast waits for its address then
    early = ["i64"] * brief
    types = ["ptr"] * pointers + early + [type] * (height * vectors)
    lead = pointers + len(early)
    next_step: Operand = f.load("i64", f.gep(soon[0], 1, "i64")) if pointers > 1 else 0

    row: Operand = tile.columns
    if not writes:
        given = soon.pop()
        row = row if tile.pairs else given
    block, align = f.mul(kc, row), tile.align if writes else tile.itemsize

    def steps(
        low: Operand, high: Operand, unroll: int, state: list[Value], *, asks: bool = False
    ) -> list[Value]:
        with f.loop(low, high, unroll, carry=list(zip(types, state, strict=True))) as L:
            (panel, *near), sums = L.carry[:pointers], L.carry[lead:]
            places = L.carry[pointers:lead]
            pairs = f.gep(offsets, f.mul(L.i, 2), "i64")
            if asks:
                _ask(f, tile, soon[0], f.div(L.i, unroll))
            if near and unroll > 1:
                for line in range(lines):  # at a slow pace the second is what the first will be
                    f.touch(f.gep(near[0], 64 * line), level=2)
                near = [f.gep(near[0], next_step)]
            if unroll > 1 and whole and not brief:
                for u in range(unroll):
                    soon_at = f.gep(panel, f.mul(row, _AHEAD + u), element)
                    for line in range(0, vectors * tile.align, 64):
                        f.touch(f.gep(soon_at, line))
            # the next block's, half by each height: it comes from memory evenly then; of words all
            # by the tallest, which leaves one of 49 rows
            apart, asks_next = (64, whole) if tile.pairs else (128, height > 1)
            if unroll > 1 and asks_next and not brief:
                for line in range(0 if whole else 64, unroll * vectors * tile.align, apart):
                    place = f.gep(f.gep(panel, block, element), line)
                    f.touch(place, level=2)
            for u in range(unroll):
                at, step = f.words(pairs, 2 * u, ["i64", "i64"])
                if early:
                    at, places = places[0], f.words(pairs, 2 * u + 2, early)
                step = f.typed(tile.columns * tile.itemsize, "i64") if even else step
                right = [
                    f.load(type, f.gep(panel, j * tile.lanes, element), align)
                    for j in range(vectors)
                ]
                panel = f.gep(panel, step)
                for i in range(height):
                    left = f.splat(f.load(element, f.gep(base[i], at, element)), type)
                    for j in range(vectors):
                        total = sums[i * vectors + j]
                        sums[i * vectors + j] = multiply_units(f, tile, left, right[j], total)
            L.next = [panel, *near, *places, *sums]
        return L.carry

    middle = f.op("and", kc, -most)
    near = [f.load("ptr", soon[0])] if pointers > 1 else []
    state: list[Value] = [b, *near, *f.words(offsets, 0, early), *[zero(type)] * (height * vectors)]
    start: Operand = 0
    if soon and whole:
        start = f.min(f.mul(soon[1], most), middle)
        state = steps(0, start, most, state, asks=True)
    state = steps(start, middle, most, state)
    sums = steps(middle, kc, 1, state)[lead:]
    store_sums(f, tile, c, sums, vectors, first, ending)
    f.ret()


def spans_of(width: int) -> int:
    """In how many spans a row of so many outputs is cut, as even as can be; 0 if they are short."""
    count = -(-width // SPANS[0])
    return count if count and width // count >= SPANS[-1] else 0


def way_along(taps: Sequence[int], numbers: Sequence[int], whole: int, move: int) -> int:
    """1 or -1 if three by three the taps are neighbours in a row, so many pixels apart as the
    outputs, from left to right or from right to left; else 0. `numbers`: theirs among the `whole`.
    """
    threes = [(taps[i : i + TAPS], numbers[i : i + TAPS]) for i in range(0, len(taps), TAPS)]
    if not taps or len(taps) % TAPS or whole % TAPS:
        return 0
    steps = {b - a for own, _ in threes for a, b in itertools.pairwise(own)}
    kept = all(n[0] % TAPS == 0 and n[-1] - n[0] == TAPS - 1 for _, n in threes)
    ways = [way for way in (1, -1) if steps == {way * move}]
    return ways[0] if kept and ways else 0


def span_of(f: Function, width: Operand, spans: Operand, number: Operand) -> tuple[Value, Value]:
    """Of a row's spans the first pixel of one, and its length."""
    short, more = f.div(width, spans), f.rem(width, spans)
    first = f.add(f.mul(number, short), f.min(number, more))
    length = f.add(short, f.cast("zext", f.icmp("slt", number, more), "i64"))
    return f.typed(first, "i64"), f.typed(length, "i64")


def emit_spans(m: Module, tile: Tile) -> None:
    """`spans(a, rows, count, along, step, offsets, kc, b, c, columns, first, soon, soons)`, with
    `tiles`' arguments: `step` bytes lie between the pixels, and taps go `along` them, 1 or -1. Of
    `soon` the first is asked for on from where it is, the second is bytes from step to step.
    """
    for length in SPANS:
        for vectors in (2, 4)[: 1 + (length <= _WIDE)]:
            _emit_span(m, tile, length, vectors)
    names = "along step kc columns first soons count"
    args = [("ptr" if n not in names.split() else "i64", n) for n in (
        "a", "rows", "count", "along", "step", "offsets", "kc", "b", "c", "columns", "first",
        "soon", "soons",
    )]  # fmt: skip
    f = m.function("spans", args, internal=True)
    a, rows, count, along, step, offsets, kc, b, c, columns, first, soon, soons = (
        f.arg(n) for _, n in args
    )
    line = tile.columns * tile.itemsize
    back = f.icmp("slt", along, 0)
    last = f.sub(count, 1)
    # taps from right to left are a span from right to left
    start = f.load("i64", f.gep(rows, f.select(back, last, 0), "i64"))
    place = f.gep(c, f.select(back, f.mul(last, line), 0))
    a = f.gep(a, start, tile.element)
    groups = f.div(kc, TAPS)
    asked = f.mul(groups, f.load("i64", f.gep(soon, 1, "i64")))
    for length in f.switch(count, SPANS[:-1], SPANS[-1]):

        def call(column: int, vectors: int, length: int = length) -> None:
            f.call(
                f"span{length}x{vectors}", "void", a, f.mul(step, along), groups, offsets,
                f.gep(b, column, tile.element), f.gep(place, column, tile.element),
                f.mul(along, line), first, soon, f.typed(0, "i64") if column else soons,
            )  # fmt: skip
            f.store(f.gep(f.load("ptr", soon), f.mul(asked, vectors // 2)), soon)

        half = 2 * tile.lanes
        more = f.icmp("sgt", columns, half)
        if length <= _WIDE:
            with f.if_else(more) as way:
                call(0, 4)
                way.otherwise()
                call(0, 2)
        else:
            call(0, 2)
            with f.iff(more):
                call(half, 2)
    f.ret()


def _emit_span(m: Module, tile: Tile, length: int, vectors: int) -> None:
    """Of so many pixels. `step` and `c_step` are bytes from one to the next, `groups` of k come."""
    f = m.function(f"span{length}x{vectors}", _SPAN_ARGS, internal=True)
    a, step, groups, offsets, b, c, c_step, first, soon, soons = (f.arg(n) for _, n in _SPAN_ARGS)
    type, element = tile.type, tile.element
    back = f.sub(0, step)
    # two pointers, that no address is made from another's
    bases = [f.frozen(f.gep(a, f.mul(step, n))) for n in (4, 9)]
    types = ["ptr", "ptr", "i64"] + [type] * (length * vectors)
    next_step = f.load("i64", f.gep(soon, 1, "i64"))
    lag = int(length <= _SLACK)

    def steps(low: Operand, high: Operand, state: list[Value], *, asks: bool) -> list[Value]:
        with f.loop(low, high, carry=list(zip(types, state, strict=True))) as L:
            (panel, near, at), sums = L.carry[:3], L.carry[3:]
            words = f.gep(offsets, f.mul(L.i, 2 * TAPS), "i64")
            over, later = f.words(words, 2 * TAPS - 1, ["i64"] * 2)
            for _ in range(vectors // 2):
                f.touch(near, level=2)
                near = f.gep(near, next_step)
            places = [f.gep(base, at, element) for base in bases]

            def number(pixel: int) -> Value:
                base, far = _REACH[pixel]
                way = f.mul(step if far > 0 else back, abs(far))
                place = f.gep(places[base], way) if far else places[base]
                return f.splat(f.load(element, place), type)

            def column(tap: int, j: int) -> Value:
                place = f.gep(panel, tap * tile.columns + j * tile.lanes, element)
                return f.load(type, place, tile.align)

            def multiply(pixel: int, tap: int, j: int, right: Value) -> None:
                n = (pixel - tap) * vectors + j
                sums[n] = multiply_units(f, tile, left[pixel], right, sums[n])

            left, border = dict[int, Value](), TAPS - 1
            if vectors > 2:  # there is room for one vector of B
                for tap in range(TAPS):
                    pixels = range(tap, tap + length)
                    left |= {i: number(i) for i in pixels if i not in left}
                    for j in range(vectors):
                        right = column(tap, j)
                        for pixel in pixels:
                            multiply(pixel, tap, j, right)
            else:
                every = [[column(tap, j) for j in range(vectors)] for tap in range(TAPS)]
                for i in range(length + border + border * lag):
                    if i < length + border:
                        left[i] = number(i)
                    for tap in range(TAPS):
                        if 0 <= i - lag * tap - tap < length:
                            for j in range(vectors):
                                multiply(i - lag * tap, tap, j, every[tap][j])
            if asks:  # before the products LLVM moved all loads in front of it, and sums spilled
                line = f.load("ptr", f.gep(soon, f.add(L.i, NEXT), "ptr"))
                f.touch(line, level=2, write=True)
            panel = f.gep(f.gep(panel, (TAPS - 1) * tile.columns, element), over)
            L.next = [panel, near, later, *sums]
        return L.carry

    # as in `conv_micro` the next k are looked up before their time
    state: list[Value] = [b, f.load("ptr", soon), f.load("i64", offsets)]
    state += [zero(type)] * (length * vectors)
    start = f.min(soons, groups)
    state = steps(0, start, state, asks=True)
    sums = steps(start, groups, state, asks=False)[3:]
    with f.if_else(f.icmp("ne", first, 0)) as way:
        for n, value in enumerate(sums):
            f.store(value, _place(f, tile, c, c_step, *divmod(n, vectors)), tile.align)
        way.otherwise()
        for n, value in enumerate(sums):
            place = _place(f, tile, c, c_step, *divmod(n, vectors))
            f.store(f.op("fadd", f.load(type, place, tile.align), value), place, tile.align)
    f.ret()


def _place(f: Function, tile: Tile, c: Value, c_step: Value, row: int, vector: int) -> Value:
    return f.gep(f.gep(c, f.mul(c_step, row)), vector * tile.lanes, tile.element)


def emit_runs(m: Module, tile: Tile) -> None:
    """`runs(a, runs, b, c, pixel, b_row, c_tap, first, channels, columns)`: of so many channels, up
    to CHANNELS. Elements: `pixel` from one to the next in A, `b_row` from the columns of a k to the
    next's, `c_tap` between the sums of two taps. `runs` are their number, then each.
    """
    for vectors in tile.widths:
        for channels in range(1, CHANNELS + 1):
            _emit_run(m, tile, channels, vectors)
    f = m.function("runs", [*_RUN_ARGS, ("i64", "channels"), ("i64", "columns")], internal=True)
    given = [f.arg(n) for _, n in _RUN_ARGS]
    vectors = f.div(f.add(f.arg("columns"), tile.lanes - 1), tile.lanes)
    for width in f.switch(vectors, sorted(tile.widths)[:-1], tile.widths[0]):
        for channels in f.switch(f.arg("channels"), range(1, CHANNELS), CHANNELS):
            f.call(f"run{channels}x{width}", "void", *given)
    f.ret()


def _emit_run(m: Module, tile: Tile, channels: int, vectors: int) -> None:
    f = m.function(f"run{channels}x{vectors}", _RUN_ARGS, internal=True)
    a, runs, b, c, pixel, b_row, c_tap, first = (f.arg(n) for _, n in _RUN_ARGS)
    type, element = tile.type, tile.element
    each, border = channels * vectors, TAPS - 1
    ways = [f.mul(n, tile.itemsize) for n in (pixel, b_row)]
    far = {1: ways, TAPS: [f.frozen(f.typed(f.mul(n, TAPS), "i64")) for n in ways]}
    types = ["ptr", "ptr", *[type] * (channels * border + TAPS * each)]

    def numbers(place: Value) -> list[Value]:
        return [f.splat(f.load(element, f.gep(place, i, element)), type) for i in range(channels)]

    def steps(
        low: Operand, high: Operand, unroll: int, state: list[Value], taps: Sequence[int]
    ) -> list[Value]:
        """The state: where the next numbers lie, and B's columns; numbers that are met; sums."""
        with f.loop(low, high, unroll, carry=list(zip(types, state, strict=True))) as L:
            (place, panel), left = L.carry[:2], L.carry[2 : -TAPS * each]
            sums = L.carry[-TAPS * each :]
            for u in range(unroll):
                there, row = (f.gep(p, f.mul(w, u)) for p, w in zip((place, panel), ways))
                left = [*left, *(numbers(there) if border in taps else left[-channels:])]
                for j in range(vectors):
                    right = f.load(type, f.gep(row, j * tile.lanes, element), tile.itemsize)
                    for t, i in itertools.product(taps, range(channels)):
                        n = t * each + i * vectors + j
                        sums[n] = multiply_units(f, tile, left[t * channels + i], right, sums[n])
                left = left[channels:]
            place, panel = (f.gep(p, w) for p, w in zip((place, panel), far[unroll]))
            L.next = [place, panel, *left, *sums]
        return L.carry

    with f.loop(0, f.load("i64", runs), carry=[(type, zero(type))] * (TAPS * each)) as R:
        run = f.named(f.gep(runs, f.add(f.mul(R.i, len(RUN)), 1), "i64"), RUN)
        places = [f.gep(a, run["at"], element)]
        for _ in range(border):
            places.append(f.gep(places[-1], ways[0]))
        state = [places[-1], f.gep(b, run["b_at"]), *(n for p in places[:-1] for n in numbers(p))]
        state = steps(0, run["left"], 1, [*state, *R.carry], range(1, TAPS))
        state = steps(0, run["threes"], TAPS, state, range(TAPS))
        state = steps(run["threes"], run["count"], 1, state, range(TAPS))
        R.next = [*steps(0, run["right"], 1, state, range(border))[-TAPS * each :]]
    for t in range(TAPS):
        to = f.gep(c, f.mul(c_tap, t), element)
        store_sums(f, tile, to, R.carry[t * each : (t + 1) * each], vectors, first)
    f.ret()
