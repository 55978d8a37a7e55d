"""The gradients of attention, from out and lse; the scores are computed again, never stored.

    p = exp(scale * q k^T + mask - lse);  ds = p * (g v^T - delta), delta = sum over e of g * out
    dv = p^T g;  dq = scale * ds k;  dk = scale * ds^T q

ins = (g, q, k, v, out, lse) or (..., mask). g and out are (N, H, L, Ev), lse (N, H, L); shapes,
dtypes and masks as in `attention`. All but lse may have any strides with a last one of 1, so out
and lse may be views of `plan_attention`'s `with_lse` output; lse may have any strides. The result
is one row a head (dq, then dk, then dv), or for each query all heads of dq, of dk, of dv.

Numbers: dq is chains of fma over blocks of 64 keys, dk and dv over blocks of 48 queries (24
where causal, 32 in tile registers), blocks in order; delta by lanes, then halving. The gradient of
a row does not depend on threads or the batch.

How: a thread takes whole heads. Blocks of queries by 64 keys: p and ds stay in the first cache,
read along for dq and across for dk and dv, whose sums stay in the second. In tile registers what
is read across is the right operand: the sums lie across, too, and are turned at the end.
"""

from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule import amx
from weft.kernels.schedule.attention import check, mask_kind, strides3, sums_dtype
from weft.kernels.schedule.attention_tiles import (
    BLOCK,
    MASKS,
    ROWS,
    Head,
    Scores,
    ask,
    before,
    block_rows,
    close_kernel,
    combine,
    deep,
    depth,
    emit_copy,
    emit_products,
    emit_transpose,
    head_and_next,
    hide,
    open_kernel,
    operand_row,
    pack_values,
    store_weights,
    tile_of,
    units,
    weight_places,
)
from weft.kernels.schedule.micro import emit_multiply
from weft.kernels.schedule.nest import one_stage
from weft.kernels.schedule.tile import Tile, up
from weft.kernels.schedule.words import units_of
from weft.kernels.target import math as vmath
from weft.kernels.target.element import Element, memory
from weft.kernels.target.llvm import Function, Module, Operand, Value, const, vector, zero
from weft.kernels.target.math import Math
from weft.runtime import native
from weft.runtime.native import Launch, double_bits

_OPERANDS = ("g", "q", "k", "v", "out", "lse", "m")
_HEAD: tuple[str, ...] = (
    "batch", "heads", "queries", "keys", "width", "value_width", "block", "causal",
    *(f"{name}_{dim}" for name in ("to_q", "to_k", "to_v") for dim in ("from", "n", "h", "l")),
    *(f"{name}_{dim}" for name in _OPERANDS for dim in ("n", "h", "l")),
    "panels_y_at", "values_at", "x_at", "y_at", "x_panels_at", "y_panels_at", "scores_at",
    "products_at", "woven_at", "dq_at", "dk_at", "dv_at", "lse_at", "delta_at", "table_at",
    "work_size",
)  # fmt: skip


def plan_attention_grad(
    g: Layout, q: Layout, k: Layout, v: Layout, out: Layout, lse: Layout, result: Layout,
    mask: Layout | None, *, causal: bool, scale: float,
) -> Launch:  # fmt: skip
    """result (N, H, L * E + S * (E + Ev)) or, of q, k, v alike, (N, L, 3, H, E)."""
    check(q, k, v, mask)
    n, h, length, width = q.shape
    s, ev = v.shape[2:]
    for name, a in (("g", g), ("out", out)):
        if a.shape != (n, h, length, ev) or a.dtype != q.dtype:
            raise ValueError(f"attention_grad: {name} {a} is not a {(n, h, length, ev)}")
        if a.strides[-1] != 1 and a.shape[-1] > 1 and a.size:
            raise ValueError(f"attention_grad: the last stride of {name} must be 1")
    if lse.shape != (n, h, length) or lse.dtype != sums_dtype(q).np:
        raise ValueError(f"attention_grad: lse {lse} is not a {(n, h, length)}")
    total = length * width + s * (width + ev)
    alike = (length, width) == (s, ev)
    want = (n, length, 3, h, width) if alike and len(result.shape) == 5 else (n, h, total)
    steps = result.strides
    if result.shape != want or result.dtype != q.dtype:
        raise ValueError(f"attention_grad: the result {result} must be a {want}")
    if steps[-1] != 1 and want[-1] > 1 and result.size:
        raise ValueError(f"attention_grad: the last stride of the result {result} must be 1")
    if result.size == 0:
        return Launch(())
    if len(want) == 5:
        places = [(i * steps[2], steps[0], steps[3], steps[1]) for i in range(3)]
    else:
        starts = ((0, width), (length * width, width), ((length + s) * width, ev))
        places = [(start, *steps[:2], step) for start, step in starts]
    d = D.from_np(q.dtype)
    tile = tile_of(d)
    size, columns = tile.itemsize, tile.columns
    deep_x, deep_y, keys = (depth(tile, count) for count in (width, ev, s))
    every = up(s, BLOCK) if amx.in_tiles(tile) else s
    sizes = {
        "panels_x": -(-s // columns) * (deep_x + tile.lanes) * columns,
        "panels_y": -(-s // columns) * (deep_y + tile.lanes) * columns,
        "values": up(width, columns) * keys,
        "x": ROWS * deep_x,
        "y": ROWS * deep_y,
        "x_panels": up(width, columns) * ROWS,
        "y_panels": up(ev, columns) * ROWS,
        "scores": ROWS * BLOCK,
        "products": ROWS * BLOCK,
        "woven": ROWS * BLOCK if tile.pairs else 0,
        "dq": up(width, columns) * ROWS,
        "dk": up(width, columns) * every,
        "dv": up(ev, columns) * every,
        "lse": length,
        "delta": length,
    }
    at, rooms = 0, []
    for count in sizes.values():
        rooms.append(at)
        at += up(count * size)
    strides = [s for a in (g, q, k, v, out, lse, mask) for s in strides3(a)]
    values = (
        n, h, length, s, width, ev, block_rows(tile, causal=causal), int(causal),
        *(word for place in places for word in place), *strides,
        *rooms[1:], at, at + up(8 * (2 * _TABLE + BLOCK + 2)),
    )  # fmt: skip
    function = kernels(d.name, mask_kind(mask))
    work = 5 * n * h * length * s * (width + ev)
    return one_stage(function, (*values, double_bits(scale)), work + v.size, values[-1])


_TABLE = 2 * ROWS + 2 * BLOCK + 2  # words that `Scores` wants


@cache
def kernels(name: str, mask: str) -> int:
    """The address of the gradients' kernel of one dtype and kind of mask."""
    return native.load_made(["gradient"], attention_grad_ir, name, mask)["gradient"]


def attention_grad_ir(name: str, mask: str) -> str:
    """The LLVM IR of the gradients' kernel of one dtype and kind of mask, for the host."""
    if mask not in MASKS:
        raise ValueError(f"attention: mask {mask!r} is none of {MASKS}")
    d = D.BY_NAME[name]
    tile = tile_of(d)
    m = Module()
    emit_products(m, tile)
    if amx.in_tiles(tile):
        _emit_turn(m, tile, d)
    else:
        emit_multiply(m, tile, across=True)
    emit_copy(m, tile, d)
    emit_transpose(m, tile, d)
    _emit_sums(m, tile, d)
    _emit_gradient(m, tile, d, mask)
    return m.text()


def _emit_sums(m: Module, tile: Tile, d: D.dtype) -> None:
    """`sums(lse_to, delta_to, lse, g, out, ...)`: per query lse (0 for -inf) and sum of g * out."""
    names = ("queries", "width", "lse_l", "g_l", "out_l")
    pointers = ("lse_to", "delta_to", "lse", "g", "out")
    f = m.function(
        "sums", [*(("ptr", n) for n in pointers), *(("i64", n) for n in names)], internal=True
    )
    queries, width, lse_l, g_l, out_l = (f.arg(n) for n in names)
    el, e = tile.element, Element(f, tile.lanes)
    with f.loop(0, queries) as R:
        value = f.load(el, f.gep(f.arg("lse"), f.mul(R.i, lse_l), el))
        # a query that saw nothing: exp(-inf - 0) = 0
        value = f.select(f.fcmp("oeq", value, float("-inf")), const(el, 0.0), value)
        f.store(value, f.gep(f.arg("lse_to"), R.i, el))
        a = f.gep(f.arg("g"), f.mul(R.i, g_l), memory(d))
        b = f.gep(f.arg("out"), f.mul(R.i, out_l), memory(d))
        with f.loop(0, width, tile.lanes, carry=[(tile.type, const(tile.type, 0.0))]) as C:
            mask = f.lane_mask(f.sub(width, C.i), tile.lanes)
            x, y = (
                e.from_memory(f.masked_load(e.memory_type(d), f.gep(p, C.i, memory(d)), mask), d)
                for p in (a, b)
            )
            C.next = [f.op("fadd", C.carry[0], f.op("fmul", x, y))]
        f.store(f.extract(combine(f, [C.carry[0]], "sum"), 0), f.gep(f.arg("delta_to"), R.i, el))
    f.ret()


def _emit_gradient(m: Module, tile: Tile, d: D.dtype, masks: str) -> None:
    f = m.kernel("gradient")
    el, type, lanes = tile.element, tile.type, tile.lanes
    names = [n for n in _OPERANDS if n != "m" or masks != "none"]
    out, source, h, scale, work = open_kernel(f, tile, names, _HEAD)
    place = {n[:-3]: f.gep(work, h[n]) for n in _HEAD if n.endswith("_at")}
    width, value_width = h["width"], h["value_width"]
    deep_x, deep_y = (deep(f, tile, n) for n in (width, value_width))
    s = Scores(f, tile, place["table"], place["scores"], deep_x)
    t = Scores(f, tile, f.gep(place["table"], _TABLE, "i64"), place["products"], deep_y)
    # (p or ds in units of queries, read across; queries' panels that they multiply; sums; width)
    ds_across = place["woven" if tile.pairs else "products"]
    others = [
        (ds_across, place["x_panels"], place["dk"], width),
        (place["scores"], place["y_panels"], place["dv"], value_width),
    ]
    across = _Across(f, tile, f.gep(place["table"], 2 * _TABLE, "i64"))
    wide, math = Element(f, lanes), Math(f, has_fma=native.host().has_fma)
    mask_type = "i8" if masks == "bool" else memory(d)
    causal = f.icmp("ne", h["causal"], 0)
    heads = f.mul(h["batch"], h["heads"])
    with f.units(heads) as unit:
        (n, head), then = head_and_next(f, h, f.apart(unit, heads), heads)

        def at(name: str, row: Operand, element: str, unit: Head = (n, head)) -> Value:
            return operand_row(f, h, name, source[name], unit, row, element)

        def head_of(name: str) -> tuple[Value, Value]:
            return at(name, 0, memory(d)), h[name + "_l"]

        def to_row(name: str, row: Operand) -> Value:
            """A row of a part of the result."""
            part = f.gep(out, h[f"to_{name}_from"], memory(d))
            return operand_row(f, h, f"to_{name}", part, (n, head), row, memory(d))

        def ask_rows(row: Operand) -> None:
            """What the next head reads of this row."""
            key = f.min(row, f.sub(h["keys"], 1))
            for name, at_row, columns in (
                ("q", row, width), ("g", row, value_width), ("out", row, value_width),
                ("k", key, width), ("v", key, value_width),
            ):  # fmt: skip
                ask(f, d, at(name, at_row, memory(d), then), columns)

        def ask_results(row: Operand) -> None:
            key = f.min(row, f.sub(h["keys"], 1))
            for name, at_row, columns in (
                ("q", row, width), ("k", key, width), ("v", key, value_width)
            ):  # fmt: skip
                ask(f, d, to_row(name, at_row), columns, write=True)

        def store(sums: Value, rows: Operand, count: Operand, wanted: Value, name: str,
                  first: Operand, factor: Value | None) -> None:  # fmt: skip
            """Panels of `rows` rows, times the factor, as rows from `first` on of the result."""
            to, step = to_row(name, first), h[f"to_{name}_l"]
            with f.loop(0, count) as R, f.loop(0, wanted, lanes) as C:
                panel = f.mul(f.mul(f.div(C.i, tile.columns), rows), tile.columns)
                inside = f.add(f.mul(R.i, tile.columns), f.rem(C.i, tile.columns))
                v = f.load(type, f.gep(sums, f.add(panel, inside), el), tile.align)
                v = v if factor is None else f.op("fmul", v, factor)
                v = wide.stored(v, d)
                here = f.gep(to, f.add(f.mul(R.i, step), C.i), memory(d))
                f.masked_store(v, here, f.lane_mask(f.sub(wanted, C.i), lanes))

        f.call("transpose", "void", work, *head_of("k"), h["keys"], width)
        f.call("transpose", "void", place["panels_y"], *head_of("v"), h["keys"], value_width)
        pack_values(f, tile, d, place["values"], *head_of("k"), h["keys"], width)
        f.call(
            "sums", "void", place["lse"], place["delta"], at("lse", 0, el), at("g", 0, memory(d)),
            at("out", 0, memory(d)), h["queries"], value_width, h["lse_l"], h["g_l"], h["out_l"],
        )  # fmt: skip
        for _, _, sums, wanted in others:
            with f.loop(0, across.size(h["keys"], wanted), lanes) as C:
                f.store(const(type, 0.0), f.gep(sums, C.i, el), tile.align)
        with f.loop(0, h["queries"], h["block"]) as B:
            count = f.min(f.sub(h["queries"], B.i), h["block"])
            for name, rows, panels, wanted, deep_row in (
                ("q", place["x"], place["x_panels"], width, deep_x),
                ("g", place["y"], place["y_panels"], value_width, deep_y),
            ):
                here, step = at(name, B.i, memory(d)), h[name + "_l"]
                f.call("copy", "void", rows, here, deep_row, step, count, wanted)
                across.pack(d, panels, here, step, count, wanted)
            # causal: the keys that any of these rows can see
            end = f.select(causal, f.min(h["keys"], f.add(B.i, count)), h["keys"])
            # without keys one round still runs, and gives zeros
            with f.loop(0, f.max(end, 1), BLOCK) as K:
                columns = f.max(f.min(f.sub(end, K.i), BLOCK), 0)
                s.product(place["x"], count, work, K.i, columns, deep_x, place["scores"])
                t.product(
                    place["y"], count, place["panels_y"], K.i, columns, deep_y, place["products"]
                )

                def weights(
                    row: Operand, places: list[Value], products: list[Value], first: Operand,
                    columns: Operand,
                ) -> list[tuple[Value, Value]]:  # fmt: skip
                    """p and ds of a row, vector by vector."""
                    lse, delta = (
                        f.splat(f.load(el, f.gep(p, row, el)), type)
                        for p in (place["lse"], place["delta"])
                    )
                    found = []
                    limit = f.min(columns, f.sub(f.add(row, 1), first))
                    every = before(f, f.select(causal, limit, columns), lanes)
                    for j, (score_at, product_at, seen) in enumerate(
                        zip(places, products, every, strict=True)
                    ):
                        column = f.add(first, j * lanes)
                        score = f.op("fmul", f.load(type, score_at, tile.align), scale)
                        where = score_at
                        if masks != "none":
                            where = f.gep(at("m", row, mask_type), column, mask_type)
                        score = hide(f, wide, d, masks, score, where, seen)
                        p = vmath.call(math, "exp", f.op("fsub", score, lse))
                        product = f.load(type, product_at, tile.align)
                        ds = f.op("fmul", p, f.op("fsub", product, delta))
                        found.append(
                            (p, f.select(seen, ds, zero(type)))
                        )  # no product was made there
                    return found

                with f.loop(0, count, tile.per) as R:
                    both = []
                    for i in range(tile.per):
                        here = f.min(f.add(R.i, i), f.sub(count, 1)) if i else R.i
                        row = f.add(B.i, here)
                        with f.iff(f.icmp("eq", K.i, 0)):
                            ask_rows(row)
                        with f.iff(f.icmp("sge", f.add(K.i, BLOCK), end)):  # not all at once
                            ask_results(row)
                        places, products = (
                            s.vectors(place[name], here) for name in ("scores", "products")
                        )
                        both.append((weights(row, places, products, K.i, columns), products))
                    if tile.pairs:  # along the keys, too
                        for found, products in both:
                            ds = [ds for _, ds in found]
                            store_weights(f, tile, ds, weight_places(tile, products))
                    more, unit = f.icmp("slt", f.add(R.i, 1), count), f.div(R.i, tile.per)
                    for which, to in enumerate((place["scores"], ds_across)):
                        rows = [[pair[which] for pair in found] for found, _ in both]
                        _store_across(f, tile, rows, more, s.vectors(to, unit))
                if amx.in_tiles(tile):
                    for to in (place["scores"], ds_across):
                        ends = [f.mul(n(f, tile, count), tile.columns) for n in (units, deep)]
                        with f.loop(ends[0], ends[1], lanes) as Z:
                            f.store(zero(type), f.gep(to, Z.i, el), tile.align)
                fresh = f.cast("zext", f.icmp("eq", K.i, 0), "i64")
                t.spread(count, place["values"], h["keys"], K.i, columns, width, place["dq"], fresh)
                for block, panels, sums, wanted in others:
                    across.add(block, columns, panels, count, wanted, sums, h["keys"], K.i)
            store(place["dq"], ROWS, count, width, "q", B.i, scale)
        for name, wanted, factor in (("k", width, scale), ("v", value_width, None)):
            sums = place["d" + name]
            if amx.in_tiles(tile):
                to, step = to_row(name, 0), h[f"to_{name}_l"]
                _store_turned(f, tile, d, sums, h["keys"], wanted, to, step, factor)
            else:
                store(sums, h["keys"], h["keys"], wanted, name, 0, factor)
    close_kernel(f, tile)


def _emit_turn(m: Module, tile: Tile, d: D.dtype) -> None:
    """`turn(dst, src, src_step, rows, columns)`: dst[column][units of rows], whole squares, of a
    pitch that ROWS have.
    """
    names, lanes = ("src_step", "rows", "columns"), tile.lanes
    pointers = [("ptr noalias", "dst"), ("ptr noalias readonly", "src")]
    f = m.function("turn", [*pointers, *(("i64", n) for n in names)], internal=True)
    step, rows, columns = (f.arg(n) for n in names)
    u, pitch = units_of(f, d, lanes, pairs=True), depth(tile, ROWS)
    with f.loop(0, rows, lanes * u.per) as R, f.loop(0, columns, lanes) as C:
        square = []
        for i in range(lanes):
            row = f.add(R.i, i * u.per)
            exists = f.select(f.icmp("slt", row, rows), f.sub(columns, C.i), 0)
            mask = f.lane_mask(exists, lanes)
            at = f.gep(f.arg("src"), f.add(f.mul(row, step), C.i), memory(d))
            more = f.icmp("slt", f.add(row, 1), rows)
            square.append(
                u.unit(
                    lambda p, m=mask: f.masked_load(vector(lanes, memory(d)), p, m), at, step, more
                )
            )
        for j, turned in enumerate(f.transpose(square)):
            place = f.add(f.mul(f.add(C.i, j), pitch), f.div(R.i, u.per))
            f.store(turned, f.gep(f.arg("dst"), place, tile.element), tile.align)
    f.ret()


def _store_turned(
    f: Function, tile: Tile, d: D.dtype, sums: Value, keys: Value, width: Value, to: Value,
    step: Value, factor: Value | None,
) -> None:  # fmt: skip
    """Sums [key / BLOCK][column][key % BLOCK], times the factor, as rows of the result."""
    wide, lanes, every = Element(f, tile.lanes), tile.lanes, _whole(f, width)
    with f.loop(0, keys, lanes) as K, f.loop(0, width, lanes) as C:
        block = f.mul(f.mul(f.div(K.i, BLOCK), every), BLOCK)
        start = f.add(block, f.add(f.mul(C.i, BLOCK), f.rem(K.i, BLOCK)))
        square = [
            f.load(tile.type, f.gep(sums, f.add(start, i * BLOCK), tile.element), tile.align)
            for i in range(lanes)
        ]
        for j, v in enumerate(f.transpose(square)):
            v = v if factor is None else f.op("fmul", v, factor)
            v = wide.stored(v, d)
            key = f.add(K.i, j)
            exists = f.select(f.icmp("slt", key, keys), f.sub(width, C.i), 0)
            here = f.gep(to, f.add(f.mul(key, step), C.i), memory(d))
            f.masked_store(v, here, f.lane_mask(exists, lanes))


def _whole(f: Function, width: Operand) -> Operand:
    """Rows of a result in tile registers, one for each column."""
    return f.op("and", f.add(width, amx.ROWS - 1), -amx.ROWS)


def _store_across(
    f: Function, tile: Tile, rows: list[list[Value]], more: Value, places: list[Value]
) -> None:
    """Numbers of a row; or words of two rows', the second's if there is one (`more`)."""
    u = units_of(f, D.float32, tile.lanes, pairs=tile.pairs)
    for parts, to in zip(zip(*rows, strict=True), places, strict=True):
        first, *second = parts
        f.store(
            u.of([first, *(f.select(more, v, zero(v.type)) for v in second)], tile.lanes),
            to, tile.align,
        )  # fmt: skip


class _Across:
    """Sums over the rows of a block, weighed by its columns: the transpose times a panel; in tile
    registers the turned panel times the block, whose sums lie [key / BLOCK][column][key % BLOCK].
    """

    def __init__(self, f: Function, tile: Tile, table: Value) -> None:
        self.f, self.tile = f, tile
        self.rows, self.segment = table, f.gep(table, BLOCK, "i64")
        if amx.in_tiles(tile):
            f.store(const("i64", 0), self.rows)
            f.store(const("i64", depth(tile, ROWS)), f.gep(self.rows, 1, "i64"))
        with f.loop(0, 0 if amx.in_tiles(tile) else BLOCK) as J:
            panel = f.mul(f.div(J.i, tile.columns), ROWS * tile.columns)
            place = f.add(panel, f.rem(J.i, tile.columns))
            f.store(f.typed(place, "i64"), f.gep(self.rows, J.i, "i64"))
        f.store(const("i64", 0), self.segment)

    def size(self, keys: Operand, width: Operand) -> Operand:
        """Elements of the sums."""
        f, columns = self.f, self.tile.columns
        if amx.in_tiles(self.tile):
            blocks = f.div(f.add(keys, BLOCK - 1), BLOCK)
            return f.mul(f.mul(blocks, BLOCK), _whole(f, width))
        return f.mul(f.mul(f.div(f.add(width, columns - 1), columns), keys), columns)

    def pack(
        self, d: D.dtype, panels: Value, src: Value, step: Value, count: Operand, width: Operand
    ) -> None:
        """The rows that a block's are multiplied with."""
        if amx.in_tiles(self.tile):
            self.f.call("turn", "void", panels, src, step, count, width)
        else:
            pack_values(self.f, self.tile, d, panels, src, step, count, width)

    def add(
        self, block: Value, columns: Operand, panels: Value, count: Operand, width: Operand,
        sums: Value, total: Operand, first: Operand,
    ) -> None:  # fmt: skip
        """sums[first + columns, width] += block[count, columns]^T times panels of count rows."""
        f, tile = self.f, self.tile
        count = deep(f, tile, count)
        f.store(f.typed(count, "i64"), f.gep(self.segment, 1, "i64"))
        if amx.in_tiles(tile):
            f.call(
                "multiply", "void", panels, self.rows, width, self.segment, f.typed(1, "i64"),
                block, f.gep(sums, f.mul(first, _whole(f, width)), tile.element), columns,
                f.typed(0, "i64"),
            )  # fmt: skip
            return
        with f.loop(0, width, tile.columns) as C:
            place = f.add(f.mul(C.i, total), f.mul(first, tile.columns))
            f.call(
                "multiply_across", "void", block, self.rows, columns, self.segment,
                f.typed(1, "i64"), f.gep(panels, f.mul(C.i, count), tile.element),
                f.gep(sums, place, tile.element), f.min(f.sub(width, C.i), tile.columns),
                f.typed(0, "i64"),
            )  # fmt: skip
