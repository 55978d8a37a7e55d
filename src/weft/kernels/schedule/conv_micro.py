"""The register tile of the convolutions whose vectors hold channels: C[pixel][column] (+)= A B.

B is a packed panel, `Tile.columns` columns a k. A comes one number at a time and is broadcast: that
of row i and k lies at `a + rows[i] + offsets[k]`, so neither rows nor k need to be adjacent, and an
image is never unrolled. `offsets` are pairs, with the bytes to the next k's columns of B: what is
zero in all rows of a tile can be left out. Each element of C has one accumulator, fma in increasing
k; a block of k that is not the first is added to what C holds.
"""

from dataclasses import replace

from weft.kernels.schedule.gemm_code import touch
from weft.kernels.schedule.tile import Tile, tile_for
from weft.kernels.target.llvm import Module, Operand, Value, zero
from weft.runtime import native

_UNROLL = 2
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


def pixel_tile(element: str) -> Tile:
    """Tall and narrow: a panel of B streams from L2, and rows cost a broadcast each."""
    tile = tile_for(element)
    return replace(tile, rows=14, vectors=2) if native.host().registers >= 32 else tile


def heights(tile: Tile) -> list[int]:
    """Rows that have a micro-kernel, tallest first; the rest after whole tiles takes each once."""
    return {14: [14, 7, 4, 2, 1], 6: [6, 3, 2, 1], 4: [4, 2, 1]}[tile.rows]


def emit_tiles(m: Module, tile: Tile) -> None:
    """`tiles(a, rows, count, offsets, kc, b, c, columns, first)`: c[i][j] (+)= sum over k.

    `rows` has `count` offsets, `offsets` has `kc` pairs; c has rows of `tile.columns`; `first`
    nonzero overwrites c.
    """
    widths = tile.widths
    for vectors in widths:
        for height in heights(tile):
            _emit_micro(m, tile, height, vectors)
    f = m.function("tiles", _ARGS, internal=True)
    a, rows, count, offsets, kc, b, c, columns, first = (f.arg(n) for _, n in _ARGS)
    vectors = f.div(f.add(columns, tile.lanes - 1), tile.lanes)
    for width in f.switch(vectors, sorted(widths)[:-1], widths[0]):

        def call(height: int, row: Operand, width: int = width) -> None:
            at = f.gep(c, f.mul(row, tile.columns), tile.element)
            name = f"pixels{height}x{width}"
            f.call(name, "void", a, f.gep(rows, row, "i64"), offsets, kc, b, at, first)

        tallest, *rest = heights(tile)
        full = f.mul(f.div(count, tallest), tallest)
        with f.loop(0, full, tallest) as L:
            call(tallest, L.i)
        row: Operand = full
        for height in rest:
            fits = f.icmp("sge", f.sub(count, row), height)
            with f.iff(fits):
                call(height, row)
            row = f.select(fits, f.add(row, height), row)
    f.ret()


def _emit_micro(m: Module, tile: Tile, height: int, vectors: int) -> None:
    args = [_ARGS[i] for i in (0, 1, 3, 4, 5, 6, 8)]
    f = m.function(f"pixels{height}x{vectors}", args, internal=True)
    a, rows, offsets, kc, b, c, first = (f.arg(n) for _, n in args)
    type, element = tile.type, tile.element
    base = [f.gep(a, f.load("i64", f.gep(rows, i, "i64")), element) for i in range(height)]
    types = ["ptr", *[type] * (height * vectors)]

    def steps(low: Operand, high: Operand, unroll: int, state: list[Value]) -> list[Value]:
        with f.loop(low, high, unroll, carry=list(zip(types, state, strict=True))) as L:
            panel, *sums = L.carry
            pairs = f.gep(offsets, f.mul(L.i, 2), "i64")
            if unroll == _UNROLL and height == tile.rows:
                for line in range(0, unroll * vectors * tile.align, 64):
                    place = f.gep(f.gep(panel, _AHEAD * tile.columns, element), line)
                    touch(f, place)
            for u in range(unroll):
                at, step = f.words(pairs, 2 * u, ["i64", "i64"])
                right = [
                    f.load(type, f.gep(panel, j * tile.lanes, element), tile.align)
                    for j in range(vectors)
                ]
                panel = f.gep(panel, step)
                for i in range(height):
                    left = f.splat(f.load(element, f.gep(base[i], at, element)), type)
                    for j in range(vectors):
                        sums[i * vectors + j] = f.fma(left, right[j], sums[i * vectors + j])
            L.next = [panel, *sums]
        return L.carry

    middle = f.op("and", kc, -_UNROLL)
    state = steps(0, middle, _UNROLL, [b, *[zero(type)] * (height * vectors)])
    sums = steps(middle, kc, 1, state)[1:]
    places = [
        f.gep(c, k // vectors * tile.columns + k % vectors * tile.lanes, element)
        for k in range(len(sums))
    ]
    with f.if_else(f.icmp("ne", first, 0)) as way:
        for value, place in zip(sums, places, strict=True):
            f.store(value, place, tile.align)
        way.otherwise()
        for value, place in zip(sums, places, strict=True):
            f.store(f.op("fadd", f.load(type, place, tile.align), value), place, tile.align)
    f.ret()
