"""Attention of one query at a time, without packing: keys and values are read where they lie.

The numbers are those of `attention`: a decoder's query has the bits that it has among others. A
score's products are one fma chain, so sixteen keys (as many as a vector has lanes) are turned in
registers. Memory bounds this kernel: it asks for keys and values a block ahead, as if rows and
heads followed on each other, which a cache of keys does. In tile registers sixteen keys, read where
they lie, are the left operand of their scores, and nothing is turned.

Keys and values may come in two pieces, one after the other along S: a cache, and what is new. Then
nobody need copy them together.
"""

from functools import cache

from weft.core import dtype as D
from weft.kernels.schedule import amx
from weft.kernels.schedule.attention_tiles import (
    BLOCK,
    RESULT,
    close_kernel,
    deep,
    emit_copy,
    open_kernel,
    operand_row,
    result_row,
    store_rows,
    tile_of,
    weigh,
)
from weft.kernels.schedule.gemm_micro import multiply_units
from weft.kernels.schedule.tile import Tile
from weft.kernels.schedule.words import units_of
from weft.kernels.target.element import memory
from weft.kernels.target.llvm import Function, Module, Operand, Value, const, vector, zero
from weft.runtime import native

HEAD: tuple[str, ...] = (
    "batch", "heads", "queries", "keys", "width", "value_width", "causal",
    *RESULT, "q_n", "q_h", "q_l", "k_n", "k_h", "k_l", "v_n", "v_h", "v_l", "m_n", "m_h", "m_l",
    "first_keys", "k2_n", "k2_h", "k2_l", "v2_n", "v2_h", "v2_l",
    "scores_at", "sums_at", "stats_at", "square_at", "work_size",
)  # fmt: skip
_LINE = amx.CELL * amx.DEPTH
# sixteen scores, keys or values, a query, then sums of four vectors and the weights
_REGISTERS = [(amx.ROWS, amx.CELL), (amx.ROWS, _LINE), (amx.DEPTH, amx.CELL), *[(1, _LINE)] * 5]
_SCORES, _RIGHT, _QUERY, _SUMS, _WEIGHTS = 0, 1, 2, 3, 7


@cache
def kernel(name: str, masks: str, *, joined: bool) -> int:
    """The address of the kernel of one dtype and kind of mask; `joined`: of two pieces."""
    found = native.load_made(["attention_row"], row_ir, name, masks, joined=joined)
    return found["attention_row"]


def row_ir(name: str, masks: str, *, joined: bool) -> str:
    """Its LLVM IR, for the host."""
    d = D.BY_NAME[name]
    tile = tile_of(d)
    m = Module()
    emit_copy(m, tile, d)
    _emit(m, tile, d, masks, joined)
    return m.text()


class _Rows:
    """Keys or values of a head: where row j lies, in one piece or two."""

    def __init__(self, f: Function, d: D.dtype, pieces: list[tuple[Value, Value]], first: Value):
        self.f, self.element, self.pieces, self.first = f, memory(d), pieces, first

    def at(self, row: Operand) -> Value:
        (base, step), *later = self.pieces
        place = self.f.gep(base, self.f.mul(row, step), self.element)
        for base2, step2 in later:
            row2 = self.f.sub(row, self.first)
            other = self.f.gep(base2, self.f.mul(row2, step2), self.element)
            place = self.f.select(self.f.icmp("slt", row, self.first), place, other)
        return place

    def ask(self, place: Value) -> None:
        """Bring the line that lies BLOCK rows after `place` to the second cache."""
        ahead = self.f.gep(place, self.f.mul(self.pieces[0][1], BLOCK), self.element)
        self.f.touch(ahead, level=2)


def _emit(m: Module, tile: Tile, d: D.dtype, masks: str, joined: bool) -> None:
    f = m.kernel("attention_row")
    el, lanes = tile.element, tile.lanes
    names = ["q", "k", *["k2"] * joined, "v", *["v2"] * joined, *["m"] * (masks != "none")]
    out, source, h, scale, work = open_kernel(f, tile, names, HEAD, _REGISTERS)
    scores, sums, stats, square = (
        f.gep(work, h[n]) for n in ("scores_at", "sums_at", "stats_at", "square_at")
    )
    total = f.gep(stats, 1, el)
    places = [f.gep(scores, j, el) for j in range(0, BLOCK, lanes)]
    mask_type = "i8" if masks == "bool" else memory(d)
    low, high = f.split(f.mul(f.mul(h["batch"], h["heads"]), h["queries"]))
    with f.loop(low, high) as U:
        of, query = f.div(U.i, h["queries"]), f.rem(U.i, h["queries"])
        n, head = f.div(of, h["heads"]), f.rem(of, h["heads"])

        def at(name: str, row: Operand, element: str) -> Value:
            return operand_row(f, h, name, source[name], (n, head), row, element)

        def rows(name: str) -> _Rows:
            pieces = [name, *[name + "2"] * joined]
            starts = [(at(p, 0, memory(d)), h[p + "_l"]) for p in pieces]
            return _Rows(f, d, starts, h["first_keys"])

        keys, values = rows("k"), rows("v")
        q = at("q", query, memory(d))
        f.call("copy", "void", work, q, h["width"], h["width"], f.typed(1, "i64"), h["width"])
        f.store(const(el, float("-inf")), stats)
        f.store(const(el, 0.0), total)
        causal = f.icmp("ne", h["causal"], 0)
        end = f.select(causal, f.min(h["keys"], f.add(query, 1)), h["keys"])
        # without keys one round still runs, and gives zeros
        with f.loop(0, f.max(end, 1), BLOCK) as K:
            columns = f.min(f.sub(end, K.i), BLOCK)
            with f.loop(0, columns, lanes) as J:
                last = f.sub(h["keys"], 1)
                # a missing row repeats the last one: its scores are hidden
                each = [keys.at(f.min(f.add(f.add(K.i, J.i), j), last)) for j in range(lanes)]
                to = f.gep(scores, J.i, el)
                if amx.in_tiles(tile):
                    begin = f.add(K.i, J.i)
                    one = f.icmp("sle", f.add(begin, lanes), keys.first if joined else h["keys"])
                    _products_in_tiles(
                        f, tile, d, keys, (work, square, to), (begin, one), each, h["width"]
                    )
                else:
                    f.store(_products(f, tile, d, keys, work, each, h["width"]), to, tile.align)
            limit = f.sub(f.add(query, 1), K.i)
            limit = f.select(causal, f.min(limit, columns), columns)
            mask = None
            if masks != "none":
                mask = f.gep(at("m", query, mask_type), K.i, mask_type)

            def spread(_: Operand, fade: Value, start=K.i, count=columns) -> None:
                with f.loop(0, h["value_width"], tile.columns) as C:
                    add = _spread_in_tiles if amx.in_tiles(tile) else _spread
                    places = (scores, sums, square)
                    add(
                        f, tile, d, values, (start, count), C.i, h["value_width"], places, fade,
                    )  # fmt: skip

            weigh(
                f, tile, d, masks, 1, 1, lambda _, m=mask, n=limit: (m, n),
                lambda _: (places, places[: len(places) // tile.per]), scale, stats, total, spread,
            )  # fmt: skip
        to = result_row(f, d, h, out, (n, head, query))
        store_rows(
            f, tile, d, h["value_width"], (sums, 1, 0), 1, 1, total, stats, lambda _, to=to: to
        )
    close_kernel(f, tile)


def _products(
    f: Function, tile: Tile, d: D.dtype, keys: _Rows, x: Value, each: list[Value], width: Operand
) -> Value:
    """x times the keys that start at `each`, one a lane: an fma chain over the width."""
    u = units_of(f, d, tile.lanes, pairs=tile.pairs)
    step = tile.lanes * u.per
    whole = f.mul(f.div(width, step), step)

    def add(at: Operand, column: Value, score: Operand) -> Value:
        place = f.gep(x, f.div(at, u.per), tile.element)
        one = f.splat(f.load(tile.element, place), tile.type)
        return multiply_units(f, tile, one, column, score)

    with f.loop(0, whole, step, [(tile.type, zero(tile.type))]) as L:
        score: Operand = L.carry[0]
        parts = [f.gep(row, L.i, memory(d)) for row in each]
        for part in parts:
            keys.ask(part)
        square = [u.adjacent(part) for part in parts]
        for i, column in enumerate(f.transpose(square)):
            score = add(f.add(L.i, i * u.per), column, score)
        L.next = [score]
    with f.loop(whole, width, u.per, [(tile.type, L.carry[0])]) as rest:
        column, more = Value("poison", tile.type), f.icmp("slt", f.add(rest.i, 1), width)
        for j, row in enumerate(each):
            at = f.gep(row, rest.i, memory(d))
            value = u.unit(lambda place: f.load(memory(d), place), at, 1, more, 1)
            column = f.insert(column, value, j)
        rest.next = [add(rest.i, column, rest.carry[0])]
    return rest.carry[0]


def _spread(
    f: Function, tile: Tile, d: D.dtype, values: _Rows, block: tuple[Value, Operand],
    column: Value, width: Value, places: tuple[Value, Value, Value], fade: Value,
) -> None:  # fmt: skip
    """One panel of sums = sums * fade + weights times values of a block; the first has no sums.

    `places`: of the weights, of the sums, of a panel of 16 units.
    """
    u, (weights, sums, _), vectors = (
        units_of(f, d, tile.lanes, pairs=tile.pairs),
        places,
        tile.vectors,
    )
    with f.loop(0, block[1], u.per, [(tile.type, zero(tile.type))] * vectors) as L:
        place = f.gep(weights, f.div(L.i, u.per), tile.element)
        weight = f.splat(f.load(tile.element, place), tile.type)
        for v, value in enumerate(_row_of_units(f, tile, d, values, block, L.i, column, width)):
            L.next[v] = multiply_units(f, tile, weight, value, L.carry[v])
    first, lanes = f.icmp("eq", block[0], 0), tile.lanes
    for v in range(vectors):
        to = f.gep(sums, f.add(column, v * lanes), tile.element)
        before = f.op("fmul", f.load(tile.type, to, tile.align), fade)
        sum = f.op("fadd", before, L.carry[v])
        f.store(f.select(first, L.carry[v], sum), to, tile.align)


def _row_of_units(
    f: Function, tile: Tile, d: D.dtype, values: _Rows, block: tuple[Value, Operand], at: Operand,
    column: Value, width: Value,
) -> list[Value]:  # fmt: skip
    """The units of a panel's columns that begin at row `at` of a block; rows past it are zeros."""
    u, lanes, (start, count), vectors = (
        units_of(f, d, tile.lanes, pairs=tile.pairs), tile.lanes, block, []
    )  # fmt: skip
    for v in range(tile.vectors):
        mask, parts = f.lane_mask(f.sub(width, f.add(column, v * lanes)), lanes), []
        for i in range(u.per):
            there = f.add(at, i)
            row = values.at(f.add(start, f.min(there, f.sub(count, 1))))
            part = f.gep(row, f.add(column, v * lanes), memory(d))
            values.ask(part)
            number = f.masked_load(vector(lanes, memory(d)), part, mask)
            parts.append(f.select(f.icmp("sge", there, count), zero(number.type), number))
        vectors.append(u.of(parts, lanes))
    return vectors


def _products_in_tiles(
    f: Function, tile: Tile, d: D.dtype, keys: _Rows, places: tuple[Value, Value, Value],
    begin: tuple[Operand, Value], each: list[Value], width: Operand,
) -> None:  # fmt: skip
    """As `_products`; `begin`: the first key, and whether sixteen from there lie at one pitch.

    `places`: of the query, of a square, of the scores.
    """
    u, (x, square, to), (first, alike) = units_of(f, d, tile.lanes, pairs=True), places, begin
    base, pitch = keys.pieces[0]
    amx.zero(f, _SCORES)
    with f.loop(0, width, u.per * amx.DEPTH) as L:
        left = f.sub(width, L.i)
        with f.if_else(f.op("and", alike, f.icmp("sge", left, u.per * amx.DEPTH))) as way:
            start = f.gep(base, f.add(f.mul(first, pitch), L.i), keys.element)
            with f.loop(0, amx.ROWS) as row:
                keys.ask(f.gep(start, f.mul(row.i, pitch), keys.element))
            amx.load(f, _RIGHT, start, f.mul(pitch, d.itemsize))
            way.otherwise()
            for j, place in enumerate(each):
                words = u.adjacent(f.gep(place, L.i, memory(d)), u.masks(left))
                f.store(words, f.gep(square, _LINE * j), tile.align)
            amx.load(f, _RIGHT, square, _LINE)
        amx.load(f, _QUERY, f.gep(x, f.div(L.i, u.per), tile.element), amx.CELL)
        amx.multiply_pairs(f, _SCORES, _RIGHT, _QUERY)
    amx.store(f, _SCORES, to, amx.CELL)


def _spread_in_tiles(
    f: Function, tile: Tile, d: D.dtype, values: _Rows, block: tuple[Value, Operand],
    column: Value, width: Value, places: tuple[Value, Value, Value], fade: Value,
) -> None:  # fmt: skip
    """As `_spread`."""
    weights, sums, panel = places
    step, vectors, first = tile.columns * amx.CELL, range(tile.vectors), f.icmp("eq", block[0], 0)
    each = [f.gep(sums, f.add(column, v * tile.lanes), tile.element) for v in vectors]
    for v, place in enumerate(each):
        faded = f.op("fmul", f.load(tile.type, place, tile.align), fade)
        f.store(f.select(first, zero(tile.type), faded), place, tile.align)
        amx.load(f, _SUMS + v, place, _LINE)
    with f.loop(0, deep(f, tile, block[1]), amx.DEPTH) as chunk:
        with f.loop(0, amx.DEPTH) as row:
            at = f.mul(f.add(chunk.i, row.i), tile.per)
            for v, value in enumerate(_row_of_units(f, tile, d, values, block, at, column, width)):
                to = f.gep(panel, f.add(f.mul(row.i, tile.columns), v * tile.lanes), tile.element)
                f.store(value, to, tile.align)
        amx.load(f, _WEIGHTS, f.gep(weights, chunk.i, tile.element), _LINE)
        for v in vectors:
            amx.load(f, _RIGHT, f.gep(panel, v * tile.lanes, tile.element), step)
            amx.multiply_pairs(f, _SUMS + v, _WEIGHTS, _RIGHT)
    for v, place in enumerate(each):
        amx.store(f, _SUMS + v, place, _LINE)
