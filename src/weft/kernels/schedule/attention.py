"""Scaled dot product attention in one kernel: the L x S scores never reach memory.

    s = scale * q k^T + mask;  out = softmax(s over keys) v;  lse = log(sum over keys of exp(s))

q (N, H, L, E), k (N, H, S, E), v (N, H, S, Ev), out (N, H, L, Ev), lse (N, H, L) of the register
dtype (float32 for the halves). float64, float32, float16, bfloat16; float16 computes in float32.
Inputs may have any strides (0 too: shared heads) but a last one of 1. The mask has out's dtype
(added) or bool (False hides), shape (N, H, L, S), any strides but a last one of 1. `causal` hides
keys after the query, counted from the first of both. A row with nothing to see gives 0 and lse
-inf, as torch.

Numbers: scores are fma chains over e; keys go in blocks of 64 with a running maximum (Milakov and
Gimelshein 2018; Dao et al. 2022): after a block out = out * exp(m_old - m_new) + p v, p v one fma
chain over the block; sums of p by lanes, then halving. A query's bits depend on its own row, k, v
and the mask alone: not on threads or the batch. bfloat16 is multiplied by pairs (`words`), and p
is rounded for p v, not for its sum; all else is float32.

`with_lse` of `plan_attention` serves training: lse behind out in one pass, a query's heads side by
side, as the projection that follows reads them.

How: a thread packs the keys (transposed) and values of a head once, then takes blocks of 48
queries (24 where causal, of which few see much that is hidden). Scores and sums stay in L1. Few
queries are not worth that: see `attention_row`.
"""

from functools import cache

import numpy as np

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule import amx, attention_row
from weft.kernels.schedule.attention_tiles import (
    BLOCK,
    MASKS,
    RESULT,
    ROWS,
    Head,
    Places,
    Row,
    Scores,
    ask,
    block_rows,
    close_kernel,
    deep,
    depth,
    emit_copy,
    emit_products,
    emit_transpose,
    head_and_next,
    open_kernel,
    operand_row,
    pack_values,
    result_row,
    store_rows,
    tile_of,
    weigh,
    weight_places,
)
from weft.kernels.schedule.nest import one_stage
from weft.kernels.schedule.tile import Tile, up
from weft.kernels.target.element import memory
from weft.kernels.target.llvm import Module, Operand, Value, const
from weft.runtime import native
from weft.runtime.native import Launch, double_bits

FEW_QUERIES = 2  # of a head that read keys and values where they lie: more pay for packing

_HEAD: tuple[str, ...] = (
    "batch", "heads", "queries", "keys", "width", "value_width", "causal",
    *RESULT, "q_n", "q_h", "q_l", "k_n", "k_h", "k_l", "v_n", "v_h", "v_l", "m_n", "m_h", "m_l",
    "blocks", "block", "x_at", "scores_at", "sums_at", "stats_at", "table_at", "values_at",
    "work_size",
)  # fmt: skip


def plan_attention(
    q: Layout,
    k: Layout,
    v: Layout,
    out: Layout,
    mask: Layout | None,
    *,
    causal: bool,
    scale: float,
    with_lse: bool = False,
    later: tuple[Layout, Layout] | None = None,
) -> Launch:
    """out = attention; ins = (q, k, v) or (q, k, v, mask). Raises ValueError for other layouts.

    `with_lse` makes out one run of memory: (N, L, H, Ev), then lse (N, H, L), for free.
    `later`: further keys and values, which follow along S; ins = (q, k, k2, v, v2[, mask]). For
    FEW_QUERIES at most.
    """
    if later is None:
        check(q, k, v, mask, values=out, with_lse=with_lse)
    else:
        keys, values = (_joined(*pair) for pair in zip((k, v), later, strict=True))
        check(q, keys, values, mask, values=out, with_lse=with_lse)
    if q.shape[2] <= FEW_QUERIES:
        return _plan_rows(q, k, v, out, mask, causal, scale, later, with_lse=with_lse)
    if later is not None:
        raise ValueError(
            f"attention: keys in two pieces for {q.shape[2]} queries, more than {FEW_QUERIES}"
        )
    return _plan(q, k, v, out, mask, causal, scale, with_lse=with_lse)


def _joined(x: Layout, more: Layout) -> Layout:
    """What both are one after the other along S, as far as `check` looks."""
    apart = len(x.shape) != 4 or len(more.shape) != 4 or x.dtype != more.dtype
    if apart or (x.shape[:2], x.shape[3]) != (more.shape[:2], more.shape[3]):
        raise ValueError(f"attention: pieces {x} and {more} do not fit")
    if any(a.shape[-1] > 1 and a.strides[-1] != 1 for a in (x, more)):
        raise ValueError(f"attention: the last strides of {x} and {more} must be 1")
    n, h, s, width = x.shape
    return Layout.contiguous((n, h, s + more.shape[2], width), x.dtype)


def check(
    q: Layout,
    k: Layout,
    v: Layout,
    mask: Layout | None,
    *,
    values: Layout | None = None,
    with_lse: bool = False,
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
    full = (run_size(n * h * length, ev, q.dtype),) if with_lse else (n, h, length, ev)
    if values is not None and (
        values.shape != full
        or values.dtype != q.dtype
        or (values.strides[-1] != 1 and values.shape[-1] > 1 and values.size)
    ):
        raise ValueError(f"attention: out {values} must be a {full} whose last stride is 1")


def sums_dtype(q: Layout) -> D.dtype:
    """The dtype of lse: float64 for float64, else float32."""
    return D.float64 if q.dtype == D.float64.np else D.float32


def run_size(rows: int, width: int, d: np.dtype) -> int:
    """Elements of so many rows of values, then their lse: of halves two each, aligned."""
    step = 2 if d.itemsize == 2 else 1
    return up(rows * width, step) + rows * step


def mask_kind(mask: Layout | None) -> str:
    """Which kernel reads this mask."""
    return "none" if mask is None else "bool" if mask.dtype == D.bool.np else "float"


def strides3(layout: Layout | None) -> tuple[int, ...]:
    """The strides of (batch, head, row)."""
    return (0, 0, 0) if layout is None else layout.strides[:3]


def _result(q: Layout, v: Layout, out: Layout, *, with_lse: bool) -> tuple[int, ...]:
    """The words of RESULT."""
    (n, h, length, _), ev = q.shape, v.shape[3]
    if with_lse:
        size = q.dtype.itemsize
        return (length * h * ev, ev, h * ev, -(-n * length * h * ev * size // max(size, 4)))
    return (*strides3(out), -1)


def _plan(
    q: Layout,
    k: Layout,
    v: Layout,
    out: Layout,
    mask: Layout | None,
    causal: bool,
    scale: float,
    *,
    with_lse: bool = False,
) -> Launch:
    if out.size == 0:
        return Launch(())
    n, h, length, width = q.shape
    s, ev = v.shape[2:]
    d = D.from_np(q.dtype)
    tile = tile_of(d)
    size, columns = tile.itemsize, tile.columns
    deep_x, rows = (depth(tile, count) for count in (width, s))
    x_at = up(-(-s // columns) * (deep_x + tile.lanes) * columns * size)
    values_at = x_at + up(ROWS * deep_x * size)
    scores_at = values_at + up(up(ev, columns) * rows * size)
    sums_at = scores_at + ROWS * BLOCK * size
    stats_at = sums_at + up(ev, columns) * ROWS * size
    table_at = stats_at + up(2 * ROWS * size)
    block = block_rows(tile, causal=causal)
    values = (
        n, h, length, s, width, ev, int(causal), *_result(q, v, out, with_lse=with_lse),
        *strides3(q), *strides3(k), *strides3(v), *strides3(mask),
        -(-length // block), block, x_at, scores_at, sums_at, stats_at, table_at, values_at,
        table_at + up(8 * (2 * ROWS + 2 * BLOCK + 2)),
    )  # fmt: skip
    function = kernel(d.name, mask_kind(mask))
    work = 2 * n * h * length * s * (width + ev)
    return one_stage(function, (*values, double_bits(scale)), work + v.size, values[-1])


def _plan_rows(
    q: Layout,
    k: Layout,
    v: Layout,
    out: Layout,
    mask: Layout | None,
    causal: bool,
    scale: float,
    later: tuple[Layout, Layout] | None,
    *,
    with_lse: bool,
) -> Launch:
    """Few queries: `attention_row`."""
    if out.size == 0:
        return Launch(())
    (n, h, length, width), ev = q.shape, v.shape[3]
    d = D.from_np(q.dtype)
    tile = tile_of(d)
    first, rest = k.shape[2], later or (k, v)
    keys = first + (rest[0].shape[2] if later else 0)
    scores_at = up(width * tile.itemsize)
    sums_at = scores_at + up(BLOCK * tile.itemsize)
    stats_at = sums_at + up(up(ev, tile.columns) * tile.itemsize)
    square_at = stats_at + up(2 * tile.itemsize)
    square = amx.DEPTH * tile.columns * tile.itemsize if amx.in_tiles(tile) else 0
    values = (
        n, h, length, keys, width, ev, int(causal), *_result(q, v, out, with_lse=with_lse),
        *strides3(q), *strides3(k), *strides3(v), *strides3(mask),
        first, *strides3(rest[0]), *strides3(rest[1]),
        scores_at, sums_at, stats_at, square_at, square_at + square,
    )  # fmt: skip
    function = attention_row.kernel(d.name, mask_kind(mask), joined=later is not None)
    work = 2 * n * h * length * keys * (width + ev)
    return one_stage(function, (*values, double_bits(scale)), work, values[-1])


@cache
def kernel(name: str, mask: str) -> int:
    """The address of the forward kernel of one dtype and kind of mask."""
    return native.load_made(["attention"], attention_ir, name, mask)["attention"]


def attention_ir(name: str, mask: str) -> str:
    """The LLVM IR of the forward kernel of one dtype and kind of mask, for the host."""
    if mask not in MASKS:
        raise ValueError(f"attention: mask {mask!r} is none of {MASKS}")
    d = D.BY_NAME[name]
    tile = tile_of(d)
    m = Module()
    emit_products(m, tile)
    emit_copy(m, tile, d)
    emit_transpose(m, tile, d)
    _emit_forward(m, tile, d, mask)
    return m.text()


def _emit_forward(m: Module, tile: Tile, d: D.dtype, masks: str) -> None:
    f = m.kernel("attention")
    el, type, lanes = tile.element, tile.type, tile.lanes
    names = ["q", "k", "v", *(["m"] if masks != "none" else [])]
    out, source, h, scale, work = open_kernel(f, tile, names, _HEAD)
    x, values, scores, sums, stats, table = (
        f.gep(work, h[n])
        for n in ("x_at", "values_at", "scores_at", "sums_at", "stats_at", "table_at")
    )
    total = f.gep(stats, ROWS, el)
    deep_x = deep(f, tile, h["width"])
    s = Scores(f, tile, table, scores, deep_x)
    mask_type = "i8" if masks == "bool" else memory(d)
    heads = f.mul(h["batch"], h["heads"])
    packed = f.alloca("i64", 1)  # the head whose keys and values are
    f.store(f.typed(-1, "i64"), packed)
    with f.slices(heads, h["blocks"]) as part:
        unit = f.apart(part.unit, heads)
        (n, head), then = head_and_next(f, h, unit, heads)

        def at(name: str, row: Operand, element: str, unit: Head = (n, head)) -> Value:
            return operand_row(f, h, name, source[name], unit, row, element)

        with f.iff(f.icmp("ne", unit, f.load("i64", packed))):
            keys = at("k", 0, memory(d))
            f.call("transpose", "void", work, keys, h["k_l"], h["keys"], h["width"])
            v = at("v", 0, memory(d))
            pack_values(f, tile, d, values, v, h["v_l"], h["keys"], h["value_width"])
            f.store(unit, packed)
        with f.loop(*part.of(f, h["blocks"])) as B:
            query = f.mul(B.i, h["block"])
            count = f.min(f.sub(h["queries"], query), h["block"])
            q_rows = at("q", query, memory(d))
            f.call("copy", "void", x, q_rows, deep_x, h["q_l"], count, h["width"])
            for start, value in ((stats, float("-inf")), (total, 0.0)):
                for r in range(0, ROWS, lanes):
                    f.store(const(type, value), f.gep(start, r, el), tile.align)
            causal = f.icmp("ne", h["causal"], 0)
            end = f.select(causal, f.min(h["keys"], f.add(query, count)), h["keys"])
            # without keys one round still runs, and gives zeros
            with f.loop(0, f.max(end, 1), BLOCK) as K:
                columns = f.min(f.sub(end, K.i), BLOCK)
                s.product(x, count, work, K.i, columns, deep_x, scores)

                def row_of(at_row: Operand) -> Row:
                    row = f.add(query, at_row)
                    with f.iff(f.icmp("eq", K.i, 0)):  # the next head's row, meanwhile
                        for name in ("q", "k", "v"):
                            last = f.sub(h["queries" if name == "q" else "keys"], 1)
                            there = at(name, f.min(row, last), memory(d), then)
                            ask(f, d, there, h["value_width" if name == "v" else "width"])
                    with f.iff(f.icmp("sge", f.add(K.i, BLOCK), end)):
                        to, *_ = result_row(f, d, h, out, (n, head, row))
                        ask(f, d, to, h["value_width"], write=True)
                    limit = f.sub(f.add(row, 1), K.i)
                    limit = f.select(causal, f.min(limit, columns), columns)
                    mask = None
                    if masks != "none":
                        mask = f.gep(at("m", row, mask_type), K.i, mask_type)
                    return mask, limit

                def places_of(at_row: Operand) -> Places:
                    places = s.vectors(scores, at_row)
                    return places, weight_places(tile, places)

                def fade_sums(at_row: Operand, fade: Value) -> None:
                    later = f.select(f.icmp("sgt", K.i, 0), h["value_width"], 0)
                    with f.loop(0, later, tile.columns) as C:
                        place = f.add(f.mul(C.i, ROWS), f.mul(at_row, tile.columns))
                        for j in range(0, tile.columns, lanes):
                            to = f.gep(sums, f.add(place, j), el)
                            v = f.load(type, to, tile.align)
                            f.store(f.op("fmul", v, fade), to, tile.align)

                with f.loop(0, count, lanes) as G:
                    weigh(
                        f, tile, d, masks, f.min(f.sub(count, G.i), lanes), lanes,
                        lambda r, first=G.i: row_of(f.add(first, r)),
                        lambda r, first=G.i: places_of(f.add(first, r)),
                        scale, f.gep(stats, G.i, el), f.gep(total, G.i, el),
                        lambda r, fade, first=G.i: fade_sums(f.add(first, r), fade),
                    )  # fmt: skip
                fresh = f.cast("zext", f.icmp("eq", K.i, 0), "i64")
                s.spread(count, values, h["keys"], K.i, columns, h["value_width"], sums, fresh)
            with f.loop(0, count, lanes) as G:
                store_rows(
                    f, tile, d, h["value_width"], (sums, ROWS, G.i),
                    f.min(f.sub(count, G.i), lanes), lanes, f.gep(total, G.i, el),
                    f.gep(stats, G.i, el),
                    lambda r, first=G.i: result_row(
                        f, d, h, out, (n, head, f.add(query, f.add(first, r)))
                    ),
                )  # fmt: skip
    close_kernel(f, tile)
