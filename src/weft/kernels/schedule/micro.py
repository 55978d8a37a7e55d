"""The register tile of the convolutions: C[rows, columns] (+)= A[rows, k] B[k, columns].

B is a packed panel of `Tile.columns` columns, one row a k. A is read where it lies: row i starts at
`a + rows[i]`, and its k runs through *segments* (offset, length) of consecutive elements. One
segment is a plain matrix; the weight gradient walks the rows of an image as segments, so no copy of
the image is made. Each element of C has one accumulator, fma in increasing k; a block that is not
the first is added to what C holds. So bits depend on the blocks of k alone.
"""

from collections.abc import Callable

from weft.kernels.schedule.gemm_micro import Finish, multiply_units
from weft.kernels.schedule.tile import Tile
from weft.kernels.target.llvm import Function, Module, Operand, Value, zero

UNROLL = 2


def emit_multiply(m: Module, tile: Tile, *, across: bool = False) -> None:
    """`multiply(a, rows, count, segments, nseg, b, c, columns, first)`: the row tiles of a panel.

    `across`: `multiply_across`, whose A lies across: its k are `tile.columns` elements apart.

    `rows` has `count` i64 offsets, `segments` has `nseg` pairs of i64; c has `count` rows of
    `tile.columns` elements; only the vectors that `columns` needs are computed. `first` nonzero
    overwrites c.
    """
    widths = sorted({1, 2, tile.vectors})
    # of the rows past the last whole tile: half the code of all heights
    rest_heights = [h for h in (4, 2, 1) if h < tile.rows]
    for vectors in widths:
        for height in (tile.rows, *rest_heights):
            _emit_micro(m, tile, height, vectors, across)
    f = m.function(_name("multiply", across), MULTIPLY, internal=True)
    a, rows, count, segments, nseg, b, c, columns, first = (f.arg(n) for _, n in MULTIPLY)
    vectors = f.div(f.add(columns, tile.lanes - 1), tile.lanes)
    full = f.mul(f.div(count, tile.rows), tile.rows)
    for width in f.switch(vectors, widths[:-1], widths[-1]):

        def call(height: int, row: Operand, width: int = width) -> None:
            at = f.gep(c, f.mul(row, tile.columns), tile.element)
            row_offsets = f.gep(rows, row, "i64")
            name = _name(f"micro{height}x{width}", across)
            f.call(name, "void", a, row_offsets, segments, nseg, b, at, first)

        with f.loop(0, full, tile.rows) as L:
            call(tile.rows, L.i)
        for height in rest_heights:
            done = f.op("and", f.sub(count, full), -2 * height)
            with f.iff(f.icmp("ne", f.op("and", f.sub(count, full), height), 0)):
                call(height, f.add(full, done))
    f.ret()


_MICRO = [
    ("ptr noalias readonly", "a"),
    ("ptr noalias readonly", "rows"),
    ("ptr noalias readonly", "segments"),
    ("i64", "nseg"),
    ("ptr noalias readonly", "b"),
    ("ptr noalias", "c"),
    ("i64", "first"),
]
MULTIPLY = [
    *_MICRO[:2],
    ("i64", "count"),
    *_MICRO[2:6],
    ("i64", "columns"),
    ("i64", "first"),
]


def _name(name: str, across: bool) -> str:
    return f"{name}_across" if across else name


def _emit_micro(m: Module, tile: Tile, rows: int, vectors: int, across: bool) -> None:
    f = m.function(_name(f"micro{rows}x{vectors}", across), _MICRO, internal=True)
    step_a = tile.columns if across else 1
    a, offsets, segments, nseg, b, c, first = (f.arg(n) for _, n in _MICRO)
    type, element = tile.type, tile.element
    base = [f.gep(a, f.load("i64", f.gep(offsets, i, "i64")), element) for i in range(rows)]
    types = ["ptr", *[type] * (rows * vectors)]

    def step(state: list[Value], at: Operand, u: int) -> list[Value]:
        panel = f.gep(state[0], u * tile.columns, element)
        right = [
            f.load(type, f.gep(panel, j * tile.lanes, element), tile.align) for j in range(vectors)
        ]
        out = [state[0]]
        for i in range(rows):
            place = f.gep(f.gep(base[i], f.mul(at, step_a), element), u * step_a, element)
            left = f.splat(f.load(element, place), type)
            for j in range(vectors):
                total = state[1 + i * vectors + j]
                out.append(multiply_units(f, tile, left, right[j], total))
        return out

    with f.loop(0, nseg, carry=[("ptr", b), *[(t, zero(t)) for t in types[1:]]]) as S:
        start, length = f.words(f.gep(segments, f.mul(S.i, 2), "i64"), 0, ("i64", "i64"))
        middle = f.add(start, f.op("and", length, -UNROLL))
        state = S.carry
        for low, high, unroll in (
            (start, middle, UNROLL),
            (middle, f.add(start, length), 1),
        ):
            with f.loop(low, high, unroll, carry=list(zip(types, state, strict=True))) as L:
                state = L.carry
                for u in range(unroll):
                    state = step(state, L.i, u)
                L.next = [f.gep(L.carry[0], unroll * tile.columns, element), *state[1:]]
            state = L.carry
        S.next = list(state)
    store_sums(f, tile, c, S.carry[1:], vectors, first)
    f.ret()


def store_sums(
    f: Function, tile: Tile, c: Value, acc: list[Value], vectors: int, first: Value,
    ending: Callable[[Function], Finish] | None = None,
) -> None:  # fmt: skip
    """A tile's sums, so many vectors a row, to c, or with `ending` to what that gives; added to
    c's if not `first`.
    """
    places = [
        f.gep(c, (k // vectors) * tile.columns + (k % vectors) * tile.lanes, tile.element)
        for k in range(len(acc))
    ]
    if ending is not None:
        finish = ending(f)
        with f.if_else(f.icmp("ne", first, 0)) as way:
            way.otherwise()
            total = [f.op("fadd", f.load(tile.type, p, tile.align), v) for v, p in zip(acc, places)]
        finish([way.merge(tile.type, a, b) for a, b in zip(acc, total, strict=True)])
        return
    with f.if_else(f.icmp("ne", first, 0)) as way:
        for value, place in zip(acc, places, strict=True):
            f.store(value, place, tile.align)
        way.otherwise()
        for value, place in zip(acc, places, strict=True):
            f.store(f.op("fadd", f.load(tile.type, place, tile.align), value), place, tile.align)
