"""Scaled dot product attention in one kernel: the L x S scores never reach memory.

    s = scale * q k^T + mask;  out = softmax(s over keys) v;  lse = log(sum over keys of exp(s))

q (N, H, L, E), k (N, H, S, E), v (N, H, S, Ev), out (N, H, L, Ev), lse (N, H, L) of the register
dtype (float32 for the halves). float64, float32, float16, bfloat16; the halves compute in float32.
Inputs may have any strides (0 too: shared heads) but a last one of 1. The mask has out's dtype
(added) or bool (False hides), shape (N, H, L, S), any strides but a last one of 1. `causal` hides
keys after the query, counted from the first of both. A row with nothing to see gives 0 and lse
-inf, as torch.

Numbers: scores are fma chains over e; keys go in blocks of 64 with a running maximum (Milakov and
Gimelshein 2018; Dao et al. 2022): after a block out = out * exp(m_old - m_new) + p v, p v one fma
chain over the block; sums of p by lanes, then halving. A query's bits depend on its own row, k, v
and the mask alone: not on threads or the batch.

How: a thread packs the keys (transposed) and values of a head once, then takes blocks of 48
queries. Scores and sums stay in L1.
"""

from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.conv_weight import transpose
from weft.kernels.schedule.micro import Tile, emit_multiply, tile_for
from weft.kernels.target import math as vmath
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import BYTES, Function, Module, Operand, Value, const, zero
from weft.kernels.target.llvm import lane_numbers, vector
from weft.kernels.target.math import Math
from weft.runtime import native
from weft.runtime.native import Launch, Stage, double_bits

BLOCK = 64  # keys (columns) a step, part of the numbers' definition
ROWS = 48  # rows a block
MASKS = ("none", "bool", "float")
_HEAD = (
    "batch", "heads", "queries", "keys", "width", "value_width", "causal",
    "q_n", "q_h", "q_l", "k_n", "k_h", "k_l", "v_n", "v_h", "v_l", "m_n", "m_h", "m_l",
    "blocks", "x_at", "scores_at", "sums_at", "stats_at", "table_at", "values_at", "work_size",
)  # fmt: skip


def plan_attention(
    q: Layout, k: Layout, v: Layout, out: Layout, mask: Layout | None, *, causal: bool, scale: float
) -> Launch:
    """out = attention; ins = (q, k, v) or (q, k, v, mask). Raises ValueError for other layouts."""
    check(q, k, v, mask, values=out)
    return _plan("attention", q, k, v, out, mask, causal, scale)


def plan_attention_lse(
    q: Layout, k: Layout, out: Layout, mask: Layout | None, *, causal: bool, scale: float
) -> Launch:
    """out = lse, which the gradients need; ins = (q, k) or (q, k, mask)."""
    check(q, k, k, mask, sums=out)
    return _plan("lse", q, k, k, out, mask, causal, scale)


def check(
    q: Layout,
    k: Layout,
    v: Layout,
    mask: Layout | None,
    *,
    values: Layout | None = None,
    sums: Layout | None = None,
) -> None:
    """Raise ValueError unless the layouts are those of one attention."""
    if any(len(a.shape) != 4 for a in (q, k, v)):
        raise ValueError(f"attention: q, k, v must have 4 dims: {q.shape}, {k.shape}, {v.shape}")
    (n, h, length, width), (s, ev) = q.shape, v.shape[2:]
    if k.shape != (n, h, s, width) or v.shape[:2] != (n, h):
        raise ValueError(f"attention: q {q.shape}, k {k.shape} and v {v.shape} do not fit")
    if D.from_np(q.dtype) not in D.FLOATS or not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"attention: q, k, v have dtypes {q.dtype}, {k.dtype}, {v.dtype}")
    for name, a in (("q", q), ("k", k), ("v", v), ("mask", mask)):
        if a is not None and a.strides[-1] != 1 and a.shape[-1] > 1 and a.size:
            raise ValueError(f"attention: the last stride of {name} must be 1, is {a.strides[-1]}")
    if mask is not None and (
        mask.shape != (n, h, length, s) or mask.dtype not in (q.dtype, D.bool.np)
    ):
        raise ValueError(
            f"attention: mask {mask.shape} {mask.dtype} does not fit {(n, h, length, s)} {q.dtype}"
        )
    if values is not None and (
        values.shape != (n, h, length, ev) or values.dtype != q.dtype or not values.is_contiguous
    ):
        raise ValueError(f"attention: out {values} must be a contiguous {(n, h, length, ev)}")
    wide = sums_dtype(q)
    if sums is not None and (
        sums.shape != (n, h, length) or sums.dtype != wide.np or not sums.is_contiguous
    ):
        raise ValueError(f"attention: lse {sums} must be a contiguous {wide} {(n, h, length)}")


def sums_dtype(q: Layout) -> D.dtype:
    """The dtype of lse: float64 for float64, else float32."""
    return D.float64 if q.dtype == D.float64.np else D.float32


def mask_kind(q: Layout, mask: Layout | None) -> str:
    """Which kernel reads this mask."""
    return "none" if mask is None else "bool" if mask.dtype == D.bool.np else "float"


def up(value: int, unit: int = 64) -> int:
    """`value` rounded up to a multiple of `unit`."""
    return -(-value // unit) * unit


def strides3(layout: Layout | None) -> tuple[int, ...]:
    """The strides of (batch, head, row)."""
    return (0, 0, 0) if layout is None else layout.strides[:3]


def _plan(
    kind: str,
    q: Layout,
    k: Layout,
    v: Layout,
    out: Layout,
    mask: Layout | None,
    causal: bool,
    scale: float,
) -> Launch:
    if out.size == 0:
        return Launch(())
    n, h, length, width = q.shape
    s, ev = v.shape[2:]
    d = D.from_np(q.dtype)
    tile = tile_for(register(d))
    size, columns = tile.itemsize, tile.columns
    x_at = up(-(-s // columns) * (width + tile.lanes) * columns * size)
    values_at = x_at + up(ROWS * width * size)
    scores_at = values_at + (up(-(-ev // columns) * s * columns * size) if kind != "lse" else 0)
    sums_at = scores_at + ROWS * BLOCK * size
    stats_at = sums_at + (up(ev, columns) * ROWS * size if kind != "lse" else 0)
    table_at = stats_at + up(2 * ROWS * size)
    values = (
        n, h, length, s, width, ev, int(causal),
        *strides3(q), *strides3(k), *strides3(v), *strides3(mask),
        -(-length // ROWS), x_at, scores_at, sums_at, stats_at, table_at, values_at,
        table_at + up(8 * (2 * ROWS + 2 * BLOCK + 2)),
    )  # fmt: skip
    masks = mask_kind(q, mask)
    function = kernels(d.name)[f"{kind}_{masks}"]
    return Launch((Stage(function, parallel=True),), (*values, double_bits(scale)), 0, values[-1])


@cache
def kernels(name: str) -> dict[str, int]:
    """The addresses of the forward kernels of one dtype."""
    names = [f"{kind}_{mask}" for kind in ("attention", "lse") for mask in MASKS]
    return native.load(attention_ir(name), names)


def attention_ir(name: str) -> str:
    """The LLVM IR of the forward kernels of one dtype, for the host."""
    d = D.BY_NAME[name]
    tile = tile_for(register(d))
    m = Module(native.host().vector_bits)
    emit_multiply(m, tile)
    emit_copy(m, tile, d)
    emit_transpose(m, tile, d)
    for mask in MASKS:
        _emit_forward(m, tile, d, "attention", mask)
        _emit_forward(m, tile, d, "lse", mask)
    return m.text()


# -- moving rows


def emit_copy(m: Module, tile: Tile, d: D.dtype) -> None:
    """`copy(dst, dst_step, src, src_step, rows, columns)`: rows of the dtype as register elements."""
    names = ("dst_step", "src_step", "rows", "columns")
    f = m.function(
        "copy",
        [("ptr noalias", "dst"), ("ptr noalias readonly", "src"), *(("i64", n) for n in names)],
        internal=True,
    )
    dst_step, src_step, rows, columns = (f.arg(n) for n in names)
    e = Element(f, tile.lanes)
    with f.loop(0, rows) as R, f.loop(0, columns, tile.lanes) as C:
        mask = f.lane_mask(f.sub(columns, C.i), tile.lanes)
        at = f.gep(f.arg("src"), f.add(f.mul(R.i, src_step), C.i), memory(d))
        v = e.from_memory(f.masked_load(e.memory_type(d), at, mask), d)
        to = f.gep(f.arg("dst"), f.add(f.mul(R.i, dst_step), C.i), tile.element)
        f.masked_store(v, to, mask)
    f.ret()


def emit_transpose(m: Module, tile: Tile, d: D.dtype) -> None:
    """`transpose(panels, src, src_step, rows, width)`: panel[row / columns][e][row % columns].

    A panel has width + lanes rows: whole squares are written.
    """
    names = ("src_step", "rows", "width")
    f = m.function(
        "transpose",
        [("ptr noalias", "dst"), ("ptr noalias readonly", "src"), *(("i64", n) for n in names)],
        internal=True,
    )
    src_step, rows, width = (f.arg(n) for n in names)
    e, lanes = Element(f, tile.lanes), tile.lanes
    panel_size = f.mul(f.add(width, lanes), tile.columns)
    with f.loop(0, rows, lanes) as J:
        # a missing row repeats the last one: its scores are hidden
        starts = [
            f.gep(
                f.arg("src"),
                f.mul(f.min(f.add(J.i, j), f.sub(rows, 1)), src_step),
                memory(d),
            )
            for j in range(lanes)
        ]
        panel = f.mul(f.div(J.i, tile.columns), panel_size)
        to = f.gep(f.arg("dst"), f.add(panel, f.rem(J.i, tile.columns)), tile.element)
        with f.loop(0, width, lanes) as L:
            mask = f.lane_mask(f.sub(width, L.i), lanes)
            v = [
                e.from_memory(f.masked_load(e.memory_type(d), f.gep(s, L.i, memory(d)), mask), d)
                for s in starts
            ]
            for i, row in enumerate(transpose(f, v)):
                place = f.mul(f.add(L.i, i), tile.columns)
                f.store(row, f.gep(to, place, tile.element), tile.align)
    f.ret()


def pack_values(
    f: Function,
    tile: Tile,
    d: D.dtype,
    dst: Value,
    src: Value,
    step: Value,
    rows: Operand,
    width: Operand,
) -> None:
    """Panels of columns: dst[c / columns][row][c % columns]."""
    with f.loop(0, width, tile.columns) as C:
        columns = f.min(f.sub(width, C.i), tile.columns)
        to = f.gep(dst, f.mul(C.i, rows), tile.element)
        f.call(
            "copy", "void", to, f.gep(src, C.i, memory(d)), f.typed(tile.columns, "i64"), step,
            rows, columns,
        )  # fmt: skip


class Scores:
    """Tables that `multiply` needs, and the scores' place: [panel][ROWS][columns]."""

    def __init__(self, f: Function, tile: Tile, table: Value, scores: Value, width: Operand):
        self.f, self.tile, self.scores = f, tile, scores
        self.operand = table  # rows of x: one segment of `width`
        self.rows = f.gep(table, 2, "i64")
        self.score_rows = f.gep(self.rows, ROWS, "i64")
        self.segments = f.gep(self.score_rows, ROWS, "i64")
        self.store_rows(self.rows, width)
        self.store_rows(self.score_rows, tile.columns)
        f.store(const("i64", 0), table)
        f.store(f.typed(width, "i64"), f.gep(table, 1, "i64"))

    def store_rows(self, to: Value, step: Operand) -> None:
        with self.f.loop(0, ROWS) as R:
            self.f.store(self.f.typed(self.f.mul(R.i, step), "i64"), self.f.gep(to, R.i, "i64"))

    def product(
        self, x: Value, count: Operand, panels: Value, first: Operand, columns: Operand,
        width: Operand, to: Value,
    ) -> None:  # fmt: skip
        """to = x[count rows, width] times columns [first, first + columns) of transposed panels."""
        f, tile = self.f, self.tile
        with f.loop(0, columns, tile.columns) as P:
            panel = f.mul(f.add(first, P.i), f.add(width, tile.lanes))
            f.call(
                "multiply", "void", x, self.rows, count, self.operand, f.typed(1, "i64"),
                f.gep(panels, panel, tile.element), f.gep(to, f.mul(P.i, ROWS), tile.element),
                f.min(f.sub(columns, P.i), tile.columns), f.typed(1, "i64"),
            )  # fmt: skip

    def spread(
        self, count: Operand, values: Value, total: Operand, first: Operand, columns: Operand,
        width: Operand, sums: Value, fresh: Operand,
    ) -> None:  # fmt: skip
        """sums (+)= scores[count, columns] times rows [first, first + columns) of value panels."""
        f, tile = self.f, self.tile
        with f.loop(0, columns, tile.columns) as P:
            pair = f.gep(self.segments, f.mul(f.div(P.i, tile.columns), 2), "i64")
            f.store(f.typed(f.mul(P.i, ROWS), "i64"), pair)
            f.store(f.typed(f.min(f.sub(columns, P.i), tile.columns), "i64"), f.gep(pair, 1, "i64"))
        nseg = f.div(f.add(columns, tile.columns - 1), tile.columns)
        with f.loop(0, width, tile.columns) as C:
            place = f.add(f.mul(C.i, total), f.mul(first, tile.columns))
            f.call(
                "multiply", "void", self.scores, self.score_rows, count, self.segments, nseg,
                f.gep(values, place, tile.element), f.gep(sums, f.mul(C.i, ROWS), tile.element),
                f.min(f.sub(width, C.i), tile.columns), fresh,
            )  # fmt: skip

    def vectors(self, base: Value, row: Operand) -> list[Value]:
        """Where the vectors of one row of a BLOCK of scores lie."""
        f, tile = self.f, self.tile
        start = f.gep(base, f.mul(row, tile.columns), tile.element)
        return [
            f.gep(
                start,
                column // tile.columns * ROWS * tile.columns + column % tile.columns,
                tile.element,
            )
            for column in range(0, BLOCK, tile.lanes)
        ]


def hide(
    f: Function, e: Element, d: D.dtype, kind: str, score: Value, mask_at: Value, seen: Value
) -> Value:
    """The score with the mask, -inf where not seen; the mask's vector starts at `mask_at`."""
    if kind == "float":
        add = e.from_memory(f.masked_load(e.memory_type(d), mask_at, seen), d)
        score = f.op("fadd", score, add)
    elif kind == "bool":
        byte = f.masked_load(vector(e.lanes, "i8"), mask_at, seen)
        seen = f.op("and", seen, f.icmp("ne", byte, zero(byte.type)))
    return f.select(seen, score, const(score.type, float("-inf")))


def combine(f: Function, values: list[Value], join: str) -> Value:
    """One scalar of all lanes of all vectors: vectors in order, then lanes by halving."""
    total = values[0]
    for v in values[1:]:
        total = _join(f, total, v, join)
    lanes = len(values) and _lanes(total)
    half = lanes // 2
    while half:
        total = _join(
            f, total, f.shuffle(total, total, [*range(half, 2 * half)] * (lanes // half)), join
        )
        half //= 2
    return f.extract(total, 0)


def _lanes(v: Value) -> int:
    return int(v.type[1:].split(" ")[0])


def _join(f: Function, a: Value, b: Value, join: str) -> Value:
    return f.op("fadd", a, b) if join == "sum" else f.select(f.fcmp("ogt", a, b), a, b)


def _emit_forward(m: Module, tile: Tile, d: D.dtype, kind: str, masks: str) -> None:
    f = m.kernel(f"{kind}_{masks}")
    el, type, lanes = tile.element, tile.type, tile.lanes
    names = ["q", "k", *(["v"] if kind == "attention" else []), *(["m"] if masks != "none" else [])]
    pointers = f.words(f.arg("args"), 2, ["ptr"] * (2 + len(names)))
    source = dict(zip(names, pointers[1:-1], strict=True))
    ints = f.gep(f.arg("args"), 4 + len(names), "i64")
    h = dict(zip(_HEAD, f.words(ints, 0, ["i64"] * len(_HEAD)), strict=True))
    scale = f.load("double", f.gep(ints, len(_HEAD), "i64"), 8)
    scale = f.splat(scale if el == "double" else f.cast("fptrunc", scale, "float"), type)
    tid = f.cast("sext", f.arg("tid"), "i64")
    work = f.gep(pointers[-1], f.mul(tid, h["work_size"]))
    x, values, scores, sums, stats, table = (
        f.gep(work, h[n])
        for n in ("x_at", "values_at", "scores_at", "sums_at", "stats_at", "table_at")
    )
    total = f.gep(stats, ROWS, el)
    s = Scores(f, tile, table, scores, h["width"])
    wide, math = Element(f, lanes), Math(f, has_fma=native.host().has_fma)
    mask_type = "i8" if masks == "bool" else memory(d)
    exp = lambda v: vmath.call(math, "exp", v)  # noqa: E731
    low, high = f.split(f.mul(f.mul(h["batch"], h["heads"]), h["blocks"]))
    heads = f.div(f.add(high, f.sub(h["blocks"], 1)), h["blocks"])
    with f.loop(f.div(low, h["blocks"]), heads) as U:
        n, head = f.div(U.i, h["heads"]), f.rem(U.i, h["heads"])

        def at(name: str, row: Operand, element: str) -> Value:
            place = f.add(f.mul(n, h[name + "_n"]), f.mul(head, h[name + "_h"]))
            return f.gep(source[name], f.add(place, f.mul(row, h[name + "_l"])), element)

        keys = at("k", 0, memory(d))
        f.call("transpose", "void", work, keys, h["k_l"], h["keys"], h["width"])
        if kind == "attention":
            v = at("v", 0, memory(d))
            pack_values(f, tile, d, values, v, h["v_l"], h["keys"], h["value_width"])
        first = f.max(f.sub(low, f.mul(U.i, h["blocks"])), 0)
        last = f.min(f.sub(high, f.mul(U.i, h["blocks"])), h["blocks"])
        with f.loop(first, last) as B:
            query = f.mul(B.i, ROWS)
            count = f.min(f.sub(h["queries"], query), ROWS)
            f.call(
                "copy",
                "void",
                x,
                at("q", query, memory(d)),
                h["width"],
                h["q_l"],
                count,
                h["width"],
            )
            with f.loop(0, count) as R:
                f.store(const(el, float("-inf")), f.gep(stats, R.i, el))
                f.store(const(el, 0.0), f.gep(total, R.i, el))
            causal = f.icmp("ne", h["causal"], 0)
            end = f.select(causal, f.min(h["keys"], f.add(query, count)), h["keys"])
            # without keys one round still runs, and gives zeros
            with f.loop(0, f.max(end, 1), BLOCK) as K:
                columns = f.min(f.sub(h["keys"], K.i), BLOCK)
                s.product(x, count, work, K.i, columns, h["width"], scores)
                with f.loop(0, count) as R:
                    row = f.add(query, R.i)
                    limit = f.sub(f.add(row, 1), K.i)
                    limit = f.select(causal, f.min(limit, columns), columns)
                    places = s.vectors(scores, R.i)
                    best, found = f.gep(stats, R.i, el), []
                    for j, place in enumerate(places):
                        seen = f.lane_mask(f.sub(limit, j * lanes), lanes)
                        score = f.op("fmul", f.load(type, place, tile.align), scale)
                        where = place
                        if masks != "none":
                            where = at("m", row, mask_type)
                            where = f.gep(where, f.add(K.i, j * lanes), mask_type)
                        found.append(hide(f, wide, d, masks, score, where, seen))
                    old = f.load(el, best)
                    new = f.intrinsic("maxnum", el, combine(f, found, "max"), old)
                    f.store(new, best)
                    # all hidden so far: subtract 0, so that exp(-inf - 0) = 0
                    shift = f.select(f.fcmp("oeq", new, float("-inf")), const(el, 0.0), new)
                    shift = f.splat(shift, type)
                    fade = exp(f.op("fsub", f.splat(old, type), shift))
                    ps = [exp(f.op("fsub", score, shift)) for score in found]
                    for p, place in zip(ps, places, strict=True):
                        f.store(p, place, tile.align)
                    here = f.gep(total, R.i, el)
                    faded = f.op("fmul", f.load(el, here), f.extract(fade, 0))
                    f.store(f.op("fadd", faded, combine(f, ps, "sum")), here)
                    if kind == "attention":
                        with f.iff(f.icmp("sgt", K.i, 0)):
                            with f.loop(0, h["value_width"], tile.columns) as C:
                                place = f.add(f.mul(C.i, ROWS), f.mul(R.i, tile.columns))
                                for j in range(0, tile.columns, lanes):
                                    to = f.gep(sums, f.add(place, j), el)
                                    v = f.load(type, to, tile.align)
                                    f.store(f.op("fmul", v, fade), to, tile.align)
                if kind == "attention":
                    fresh = f.cast("zext", f.icmp("eq", K.i, 0), "i64")
                    s.spread(count, values, h["keys"], K.i, columns, h["value_width"], sums, fresh)
            with f.loop(0, count) as R:
                row = f.add(f.mul(U.i, h["queries"]), f.add(query, R.i))
                here = f.load(el, f.gep(total, R.i, el))
                if kind == "lse":
                    one = vmath.call(math, "log", f.splat(here, type))
                    best = f.load(el, f.gep(stats, R.i, el))
                    f.store(f.op("fadd", best, f.extract(one, 0)), f.gep(pointers[0], row, el))
                else:
                    _store_row(
                        f, tile, wide, d, h["value_width"], sums, R.i, here, pointers[0], row
                    )
    f.ret()


def _store_row(
    f: Function, tile: Tile, wide: Element, d: D.dtype, width: Value, sums: Value, r: Operand,
    total: Value, out: Value, row: Operand,
) -> None:  # fmt: skip
    """out[row] = sums[r] / total, 0 when the total is 0."""
    empty = f.fcmp("oeq", total, 0.0)
    divisor = f.splat(f.select(empty, const(tile.element, 1.0), total), tile.type)
    with f.loop(0, width, tile.lanes) as C:
        panel = f.div(C.i, tile.columns)
        place = f.add(f.mul(f.add(f.mul(panel, ROWS), r), tile.columns), f.rem(C.i, tile.columns))
        v = f.load(tile.type, f.gep(sums, place, tile.element), tile.align)
        v = wide.to_memory(wide.rounded(f.op("fdiv", v, divisor), d), d)
        to = f.gep(out, f.add(f.mul(row, width), C.i), memory(d))
        f.masked_store(v, to, f.lane_mask(f.sub(width, C.i), tile.lanes))
