"""The register tile of matrix products, as LLVM IR: functions that `gemm_code` calls in its loops.

A tile of MR rows goes through a block of k at once, or in pieces: a group of tiles meets one piece
of B, which so stays in the first cache, then all of them meet the next. The second cache, which a
neighbour on the core may share, then delivers B once a group, not once a tile. Sums wait in between
in the thread's own memory; each element's chain of sums is the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from weft.kernels.schedule.tile import Tile, multiplies_pairs
from weft.kernels.target.llvm import BYTES, Function, Module, Operand, Value, vector, zero

UNROLL = 4
PACKED_UNROLL = 8  # steps of k where B's rows lie side by side
SLICE = 48  # rows of an A that lies across, in a slice: whole tiles, and whole vectors
_SLICE_AHEAD = 8  # steps of k at which they are asked for
NONE = Value("null", "ptr")
_A_AHEAD = 12  # steps of k at which an A that lies across is prefetched: each is in another page


def multiply_add(f: Function, tile: Tile, a: Operand, b: Operand, c: Operand) -> Value:
    """a * b + c: one rounding, or two on hosts without fma. With `tile.pairs` a lane of a and of b
    holds two bfloat16, whose products are added to c one after the other, the second first.
    """
    if tile.pairs:
        a, b = (f.typed(x, tile.type) for x in (a, b))
        if multiplies_pairs():
            halves = vector(2 * tile.lanes, "bfloat")
            a, b = (f.cast("bitcast", x, halves) for x in (a, b))
            return f.intrinsic("x86.avx512bf16.dpbf16ps.512", tile.type, c, a, b)
        single, bits = replace(tile, pairs=False), vector(tile.lanes, "i32")
        a, b = (f.cast("bitcast", x, bits) for x in (a, b))
        for op, by in (("and", -1 << 16), ("shl", 16)):
            one, two = (f.cast("bitcast", f.op(op, x, by), tile.type) for x in (a, b))
            c = multiply_add(f, single, one, two, c)
        return f.typed(c, tile.type)
    return f.fma(a, b, c) if tile.fma else f.op("fadd", f.op("fmul", a, b), c)


def multiply_units(f: Function, tile: Tile, left: Operand, right: Operand, total: Operand) -> Value:
    """left * right + total as `multiply_add`, but that numbers are fused on every host."""
    if tile.pairs:
        return multiply_add(f, tile, right, left, total)
    return f.fma(left, right, total)


_TARGET = [
    ("ptr noalias", "c"),
    ("i64", "ldc"),
    ("i64", "first"),
    ("ptr", "soon"),
    ("i64", "soon_step"),
    ("i64", "soon_far"),
    ("ptr", "near"),
    ("i64", "near_count"),
    ("i64", "near_writes"),
]


Finish = Callable[[list[Value]], None]
ENDING = [("ptr", "args"), ("ptr", "ints"), ("i64", "row"), ("i64", "n0")]


_Ask = Callable[[int, list[Value]], Sequence[Operand]]


def _steps(
    f: Function, tile: Tile, vectors: int, rows_of_a: tuple[Sequence[Value], Sequence[Operand]],
    span: tuple[Operand, Operand, int], values: Sequence[Operand],
    strides: tuple[Operand, Operand], ask: _Ask,
) -> list[Value]:  # fmt: skip
    """`count` steps of k at a time, from start to stop (`span`); `values` are the pointers into a
    and b, those that `ask` moves on by `count` steps, then the sums, and so is what it gives. A row
    of A begins at its pointer, which k indexes, or so far behind the pointer into a.
    """
    (row_at, row_offset), (start, stop, count), (cs, bs) = rows_of_a, span, strides
    element, type = tile.element, tile.type
    along = bool(row_at)
    across = not (along or tile.a_class == "sliced")
    rows = len(row_offset)
    asked = len(values) - 2 - rows * vectors

    def step(sums: Sequence[Operand], a: Sequence[Value], b: Operand) -> list[Operand]:
        """`a` is where the element of each row lies."""
        b_row = [f.load(type, f.gep(b, v * tile.lanes, element)) for v in range(vectors)]
        new: list[Operand] = []
        for i in range(rows):
            one = f.splat(f.load(element, a[i]), type)
            old = sums[i * vectors : (i + 1) * vectors]
            new += [multiply_add(f, tile, one, b, c) for b, c in zip(b_row, old, strict=True)]
        return new

    # a pointer for each step where A lies across, for two where rows of B are far apart: computed
    # on the way, they come so late that loads of B move ahead of them, and the sums spill
    heads = count if across else 1
    pairs = 1 if isinstance(bs, int) else max(1, count // 2)
    first = [f.frozen(f.gep(values[0], f.mul(cs, u), element)) for u in range(heads)]
    first += [f.frozen(f.gep(values[1], f.mul(bs, 2 * u), element)) for u in range(pairs)]
    own = heads + pairs
    types = ["ptr"] * (own + asked) + [type] * (rows * vectors)
    with f.loop(start, stop, count, list(zip(types, [*first, *values[2:]], strict=True))) as L:
        a, b, sums = L.carry[:heads], L.carry[heads:own], L.carry[own + asked :]
        asking = ask(count, L.carry[own : own + asked])
        for head in a if count > 1 and heads > 1 else ():
            f.touch(f.gep(head, f.mul(cs, _A_AHEAD), element))
        for u in range(count):
            if along:
                a_at = [f.gep(row, f.add(L.i, u), element) for row in row_at]
            else:
                at = f.gep(a[0], f.mul(cs, u), element) if heads == 1 else a[u]
                a_at = [f.gep(at, offset, element) for offset in row_offset]
            at = f.gep(b[0], f.mul(bs, u), element)
            if pairs > 1:
                at = f.gep(b[u // 2], f.mul(bs, u % 2), element)
            sums = step(sums, a_at, at)
        a_next = [f.gep(head, f.mul(cs, count), element) for head in a]
        b_next = [f.gep(head, f.mul(bs, count), element) for head in b]
        L.next = [*a_next, *b_next, *asking, *sums]
    return [L.carry[0], L.carry[heads], *L.carry[own:]]


def micro_kernel(
    module: Module, tile: Tile, rows: int, vectors: int, *,
    ending: Callable[[Function], Finish] | None = None, usual: bool = False, held: bool = False,
) -> str:  # fmt: skip
    """c[rows, vectors * lanes] = (first ? 0 : c) + a[rows, kc] @ b[kc, ...]; returns the function's
    name.

    With `ending` the function is an export, `finish`, has the further arguments `ENDING`, and the
    sums, row by row, go to what `ending` gives instead of c.
    `bs` is the distance of B's rows in elements.
    `held`: a function with the argument of that name, the sums that it begins with if not null.
    Meanwhile lines from `soon` on, `soon_step` elements apart, are brought to the second cache, and
    those `soon_far` elements behind each. A whole tile asks, one after the other, for the pieces of
    `near`, addresses of as many bytes as a row of it has; it will write the first `near_writes`.
    With a `near_count` of 0 it asks for its rows of c at once, with -1 for nothing. One of fewer
    rows is as quick, and asks, if it is `usual`.
    """
    name = f"tile_{rows}x{vectors}" if ending is None else "finish"
    pointer = "ptr noalias readonly"
    signature = [("i64", "kc"), (pointer, "a"), ("i64", "rs"), ("i64", "cs"), (pointer, "b")]
    signature.append(("i64", "bs"))
    if held:
        signature.append(("ptr", "held"))
    f = module.function(
        name,
        [*signature, *_TARGET, *(ENDING if ending else [])],
        internal=ending is None,
    )
    element, lanes, type = tile.element, tile.lanes, tile.type
    along = tile.a_class == "rows"
    sliced = tile.a_class == "sliced"
    across = not (along or sliced)
    cs: Operand = 1 if along else SLICE if sliced else f.arg("cs")
    rs: Operand = 1 if sliced or tile.a_class == "columns" else f.arg("rs")
    # LLVM would make one pointer of them and compute the others in each step: beside a program
    # that shares the core, each instruction of the loop counts
    row_at = [f.frozen(f.gep("%a", f.mul(rs, i), element)) for i in range(rows if along else 0)]
    row_offset = [f.mul(rs, i) for i in range(rows)]
    c_row = [f.gep("%c", f.mul(f.arg("ldc"), i), element) for i in range(rows)]
    line = max(1, 64 // BYTES[element])
    finish = ending(f) if ending else None
    whole_tile = rows == tile.rows or usual

    def ask(place: Value, *, write: bool) -> None:
        for at in range(0, vectors * lanes, line):
            f.touch(f.gep(place, at, element), write=write)

    with f.iff(f.icmp("eq", f.arg("near_count"), 0) if whole_tile else Value("true", "i1")):
        for pointer_ in () if ending else c_row:
            ask(pointer_, write=True)

    def ask_soon(count: int, at: list[Value]) -> Sequence[Operand]:
        if count == 1:
            return at
        for u in range(count // UNROLL):
            place = f.gep(at[0], f.mul(f.arg("soon_step"), u), element)
            f.touch(place, level=2)
            for run in range(1, tile.runs):
                f.touch(f.gep(place, f.mul(f.arg("soon_far"), run), element), level=2)
        return [f.gep(at[0], f.mul(f.arg("soon_step"), count // UNROLL), element)]

    def steps(
        start: Operand, stop: Operand, count: int, values: Sequence[Operand], bs: Operand
    ) -> list[Value]:
        span, rows_of_a = (start, stop, count), (row_at, row_offset)
        return _steps(f, tile, vectors, rows_of_a, span, values, (cs, bs), ask_soon)

    none = [zero(type)] * (rows * vectors)
    if held:
        with f.if_else(f.icmp("ne", f.arg("held"), NONE)) as way:
            places = [f.gep("%held", i * lanes, element) for i in range(rows * vectors)]
            begun = [f.load(type, place) for place in places]
            way.otherwise()
        none = [way.merge(type, value, zero(type)) for value in begun]
    values: Sequence[Operand] = ["%a", "%b", "%soon", *none]
    whole: Operand = 0
    if whole_tile:  # tiles of fewer rows are rare: not worth the time to compile more code
        whole = f.mul(f.div(f.arg("kc"), UNROLL), UNROLL)
        # a piece at a time: a core waits for some 24 lines, then loads of B wait, too
        pieces = f.max(f.arg("near_count"), 1)
        rounds = f.div(f.add(whole, PACKED_UNROLL - 1), PACKED_UNROLL)
        part = f.mul(f.div(f.add(rounds, f.sub(pieces, 1)), pieces), PACKED_UNROLL)
        packed = f.icmp("eq", f.arg("bs"), tile.columns)
        types = ["i64", "ptr", "ptr", "ptr", *[type] * (rows * vectors)]
        with f.loop(0, pieces, 1, list(zip(types, [0, *values], strict=True))) as piece:
            start, *moved = piece.carry
            with f.iff(f.icmp("slt", piece.i, f.arg("near_count"))):
                place = f.load("ptr", f.gep("%near", piece.i, "ptr"))
                with f.if_else(f.icmp("slt", piece.i, f.arg("near_writes"))) as way:
                    ask(place, write=True)
                    way.otherwise()
                    ask(place, write=False)
            stop = f.min(f.add(start, part), whole)
            if not across and vectors == tile.vectors:
                many = f.mul(f.div(f.sub(stop, start), PACKED_UNROLL), PACKED_UNROLL)
                middle = f.add(start, f.select(packed, many, 0))
                moved = steps(start, middle, PACKED_UNROLL, moved, tile.columns)
                start = middle
            piece.next = [stop, *steps(start, stop, UNROLL, moved, f.arg("bs"))]
        values = piece.carry[1:]
    sums = steps(whole, f.arg("kc"), 1, values, f.arg("bs"))[3:]
    places = [f.gep(c_row[i], v * lanes, element) for i in range(rows) for v in range(vectors)]
    with f.if_else(f.icmp("ne", f.arg("first"), 0)) as way:
        if finish is None:
            for value, place in zip(sums, places, strict=True):
                f.store(f.typed(value, type), place)
        way.otherwise()
        total = [f.op("fadd", f.load(type, p), v) for v, p in zip(sums, places, strict=True)]
        if finish is None:
            for value, place in zip(total, places, strict=True):
                f.store(value, place)
    if finish is not None:
        finish([way.merge(type, a, b) for a, b in zip(sums, total, strict=True)])
    f.ret()
    return name


def piece_kernel(module: Module, tile: Tile) -> None:
    """A piece of k, whole unrolled steps, of whole tiles one after the other, whose sums lie in
    `holds`. A tile's A begins at its pointer of `starts`, and `at` elements behind.

    A tile asks for the piece of A that the next one needs, for the hardware does not follow short
    runs in many rows, and for two rows of out, from `c` on: the last piece will write to them.
    """
    sizes = ("tiles", "kc", "at", "rs", "first", "ldc")
    args = [*(("ptr", n) for n in ("starts", "b", "holds", "c")), *(("i64", n) for n in sizes)]
    f = module.function("piece", args, internal=True)
    element, rows, along = tile.element, tile.rows, tile.a_class == "rows"
    line, size = 64 // tile.itemsize, tile.rows * tile.columns
    row_offset = [f.mul(1 if tile.a_class == "sliced" else f.arg("rs"), i) for i in range(rows)]

    def ask(_: int, at: list[Value]) -> Sequence[Operand]:
        """A line of half the rows in 8 steps, then of the others."""
        if not at:
            return ()
        for offset in row_offset[: rows // 2]:
            f.touch(f.gep(at[0], offset, element))
        return at[1], f.gep(at[0], line, element)

    with f.loop(0, f.arg("tiles"), 1, [("ptr", "%holds"), ("ptr", "%c")]) as L:
        holds, c_rows = L.carry
        start, soon = (
            f.gep(f.load("ptr", f.gep("%starts", f.add(L.i, i), "ptr")), f.arg("at"), element)
            for i in range(2)
        )
        row_at = [f.frozen(f.gep(start, o, element)) for o in (row_offset if along else ())]
        for r in range(2):
            for at in range(0, tile.columns, line):
                f.touch(f.gep(c_rows, f.add(f.mul(f.arg("ldc"), r), at), element), write=True)
        places = [f.gep(holds, i, element) for i in range(0, size, tile.lanes)]
        with f.if_else(f.icmp("ne", f.arg("first"), 0)) as way:
            way.otherwise()
            begun = [f.load(tile.type, place) for place in places]
        sums = [way.merge(tile.type, zero(tile.type), value) for value in begun]
        asked = [soon, f.gep(soon, row_offset[rows // 2], element)] if along else []
        values = [start, Value("%b", "ptr"), *asked, *sums]
        strides = (1 if along else SLICE, tile.columns)
        span = (0, f.arg("kc"), PACKED_UNROLL)
        rows_of_a = (row_at, row_offset)
        ends = _steps(f, tile, tile.vectors, rows_of_a, span, values, strides, ask)
        sums = ends[2 + len(asked) :]
        for value, place in zip(sums, places, strict=True):
            f.store(value, place)
        L.next = [f.gep(holds, size, element), f.gep(c_rows, f.mul(f.arg("ldc"), rows), element)]
    f.ret()


def slice_kernel(module: Module, tile: Tile) -> None:
    """Copy `rows` rows of an A whose columns' elements are adjacent to slices, one after the other:
    [k][SLICE] each. Read as it lies, each step of k of a tile is a line of another page.
    """
    element, lanes, wide = tile.element, tile.lanes, SLICE // tile.lanes
    f = module.function(
        "slice", [("ptr", "to"), ("ptr", "a"), ("i64", "cs"), ("i64", "k"), ("i64", "rows")],
        internal=True,
    )  # fmt: skip
    whole = f.mul(f.div(f.arg("rows"), SLICE), SLICE)
    left = f.sub(f.arg("rows"), whole)
    masks = [f.lane_mask(f.sub(left, v * lanes), lanes) for v in range(wide)]
    with f.loop(0, f.arg("k"), 1, [("ptr", "%a"), ("ptr", "%to")]) as step:
        source, target = step.carry
        with f.loop(0, whole, SLICE, [("ptr", target)]) as L:
            at, to = f.gep(source, L.i, element), L.carry[0]
            for v in range(wide):
                place = f.gep(at, v * lanes, element)
                f.touch(f.gep(place, f.mul(f.arg("cs"), _SLICE_AHEAD), element), level=2)
                f.store(
                    f.load(tile.type, place, align=tile.itemsize), f.gep(to, v * lanes, element)
                )
            L.next = [f.gep(to, f.mul(f.arg("k"), SLICE), element)]
        with f.iff(f.icmp("sgt", left, 0)):
            at, to = f.gep(source, whole, element), L.carry[0]
            for v, mask in enumerate(masks):
                value = f.masked_load(tile.type, f.gep(at, v * lanes, element), mask)
                f.store(value, f.gep(to, v * lanes, element))
        step.next = [f.gep(source, f.arg("cs"), element), f.gep(target, SLICE, element)]
    f.ret()


def merge_kernel(module: Module, tile: Tile) -> None:
    """c[rows, n] = (first ? 0 : c) + tile[rows, NR], for a panel that ends inside a vector."""
    args = [("ptr", "tile"), ("ptr", "c"), *(("i64", n) for n in ("ldc", "rows", "n", "first"))]
    f = module.function("merge", args, internal=True)
    first = f.icmp("ne", f.arg("first"), 0)
    with f.loop(0, f.arg("n"), tile.lanes) as column:
        mask = f.lane_mask(f.sub(f.arg("n"), column.i), tile.lanes)
        with f.loop(0, f.arg("rows")) as row:
            source = f.gep("%tile", f.add(f.mul(row.i, tile.columns), column.i), tile.element)
            target = f.gep("%c", f.add(f.mul(row.i, f.arg("ldc")), column.i), tile.element)
            value = f.load(tile.type, source)
            old = f.masked_load(tile.type, target, mask)
            f.masked_store(f.select(first, value, f.op("fadd", old, value)), target, mask)
    f.ret()
