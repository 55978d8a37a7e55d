"""The register tile of the convolutions whose vectors hold channels: C[pixel][column] (+)= A B.

B is a packed panel, `Tile.columns` columns a k. A comes one number at a time and is broadcast: that
of row i and k lies at `a + rows[i] + offsets[k]`, so neither rows nor k need to be adjacent, and an
image is never unrolled. `offsets` are pairs, with the bytes to the next k's columns of B: what is
zero in all rows of a tile can be left out. Each element of C has one accumulator, fma in increasing
k; a block of k that is not the first is added to what C holds.

Where two multiply-adds start in a cycle (`is_brief`) the instructions beside them count. The tile
is a product's then, the rows' addresses stay in registers, and B is left to the hardware but for
lines of memory: the tiles that meet a block ask for the next one, all at one pace.
"""

from collections.abc import Callable
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
