"""The gradients of attention, from out and lse; the scores are computed again, never stored.

    p = exp(scale * q k^T + mask - lse);  ds = p * (g v^T - delta), delta = sum over e of g * out
    dv = p^T g;  dq = scale * ds k;  dk = scale * ds^T q

Both kernels take ins = (g, q, k, v, out, lse) or (..., mask). g and out are
(N, H, L, Ev), lse (N, H, L); shapes, dtypes and masks as in `attention`. All but lse may have any
strides with a last one of 1, so out and lse may be views of `plan_attention`'s `with_lse` output;
lse may have any strides.

Numbers: chains of fma over e and over blocks of 64 of the other side, blocks in order; delta by
lanes, then halving. The gradient of a row does not depend on threads or the batch.

How: dq goes over blocks of 48 queries, dk and dv (one kernel, side by side) over blocks of 48 keys
with the transposed scores; the other side is packed once a head.
"""

from collections.abc import Callable
from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.attention import check, mask_kind, strides3, sums_dtype
from weft.kernels.schedule.attention_tiles import (
    BLOCK,
    MASKS,
    ROWS,
    Scores,
    combine,
    emit_copy,
    emit_transpose,
    hide,
    pack_values,
)
from weft.kernels.schedule.micro import emit_multiply
from weft.kernels.schedule.nest import PARALLEL_WORK, QUICK_WORK
from weft.kernels.schedule.tile import Tile, tile_for, up
from weft.kernels.target import math as vmath
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import Function, Module, Operand, Value, const
from weft.kernels.target.math import Math
from weft.runtime import native
from weft.runtime.native import Launch, Stage, double_bits

_OPERANDS = ("g", "q", "k", "v", "out", "lse", "m")
_HEAD: tuple[str, ...] = (
    "batch", "heads", "own", "other", "width", "value_width", "result_width", "causal", "queries",
    *(f"{name}_{dim}" for name in _OPERANDS for dim in ("n", "h", "l")),
    "blocks", "panels_y_at", "ds_values_at", "p_values_at", "x_at", "y_at", "scores_at",
    "products_at", "ds_sums_at", "p_sums_at", "lse_at", "delta_at", "table_at", "work_size",
)  # fmt: skip
# The rows x and y that are blocked, those of the other side, and what the products ds and the
# weights p are multiplied with.
_SIDES = {
    "dq": {"x": "q", "y": "g", "other_x": "k", "other_y": "v", "ds": "k"},
    "dkv": {"x": "k", "y": "v", "other_x": "q", "other_y": "g", "ds": "q", "p": "g"},
}


def plan_attention_dq(
    g: Layout, q: Layout, k: Layout, v: Layout, out: Layout, lse: Layout, dq: Layout,
    mask: Layout | None, *, causal: bool, scale: float,
) -> Launch:  # fmt: skip
    """dq (N, H, L, E), contiguous."""
    return _plan("dq", g, q, k, v, out, lse, dq, mask, causal, scale)


def plan_attention_dkv(
    g: Layout, q: Layout, k: Layout, v: Layout, out: Layout, lse: Layout, dkv: Layout,
    mask: Layout | None, *, causal: bool, scale: float,
) -> Launch:  # fmt: skip
    """dkv (N, H, S, E + Ev), contiguous: dk is dkv[..., :E], dv is dkv[..., E:]."""
    return _plan("dkv", g, q, k, v, out, lse, dkv, mask, causal, scale)


def _plan(
    kind: str, g: Layout, q: Layout, k: Layout, v: Layout, out: Layout, lse: Layout,
    result: Layout, mask: Layout | None, causal: bool, scale: float,
) -> Launch:  # fmt: skip
    check(q, k, v, mask)
    n, h, length, width = q.shape
    s, ev = v.shape[2:]
    for name, a in (("g", g), ("out", out)):
        if a.shape != (n, h, length, ev) or a.dtype != q.dtype:
            raise ValueError(f"attention_{kind}: {name} {a} is not a {(n, h, length, ev)}")
        if a.strides[-1] != 1 and a.shape[-1] > 1 and a.size:
            raise ValueError(f"attention_{kind}: the last stride of {name} must be 1")
    if lse.shape != (n, h, length) or lse.dtype != sums_dtype(q).np:
        raise ValueError(f"attention_{kind}: lse {lse} is not a {(n, h, length)}")
    own, other = (length, s) if kind == "dq" else (s, length)
    want = (n, h, own, width + ev * (kind == "dkv"))
    if result.shape != want or result.dtype != q.dtype or not result.is_contiguous:
        raise ValueError(f"attention_{kind}: the result {result} must be a contiguous {want}")
    if result.size == 0:
        return Launch(())
    d = D.from_np(q.dtype)
    tile = tile_for(register(d))
    size, columns = tile.itemsize, tile.columns
    p_width = ev if kind == "dkv" else 0
    sizes = {
        "panels_x": -(-other // columns) * (width + tile.lanes) * columns,
        "panels_y": -(-other // columns) * (ev + tile.lanes) * columns,
        "ds_values": -(-width // columns) * other * columns,
        "p_values": -(-p_width // columns) * other * columns,
        "x": ROWS * width,
        "y": ROWS * ev,
        "scores": ROWS * BLOCK,
        "products": ROWS * BLOCK,
        "ds_sums": up(width, columns) * ROWS,
        "p_sums": up(p_width, columns) * ROWS,
        "lse": length + BLOCK,
        "delta": length + BLOCK,
    }
    at, places = 0, {}
    for name, count in sizes.items():
        places[name] = at
        at += up(count * size)
    table_words = 2 * (2 * ROWS + 2 * BLOCK + 2)
    strides = [s for a in (g, q, k, v, out, lse, mask) for s in strides3(a)]
    values = (
        n, h, own, other, width, ev, result.shape[3], int(causal), length, *strides,
        -(-own // ROWS), *list(places.values())[1:], at, at + up(8 * table_words),
    )  # fmt: skip
    function = kernels(d.name, mask_kind(mask))[kind]
    work = 4 * n * h * length * s * (width + ev)
    stage = Stage(function, work >= PARALLEL_WORK)
    ints = (*values, double_bits(scale))
    return Launch((stage,), ints, 0, values[-1], work + v.size < QUICK_WORK)


@cache
def kernels(name: str, mask: str) -> dict[str, int]:
    """The addresses of the gradients' kernels of one dtype and kind of mask."""
    return native.load(attention_grad_ir(name, mask), list(_SIDES))


def attention_grad_ir(name: str, mask: str) -> str:
    """The LLVM IR of the gradients' kernels of one dtype and kind of mask, for the host."""
    if mask not in MASKS:
        raise ValueError(f"attention: mask {mask!r} is none of {MASKS}")
    d = D.BY_NAME[name]
    tile = tile_for(register(d))
    m = Module(native.host().vector_bits)
    emit_multiply(m, tile)
    emit_copy(m, tile, d)
    emit_transpose(m, tile, d)
    _emit_sums(m, tile, d)
    for kind in _SIDES:
        _emit_gradient(m, tile, d, kind, mask)
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
        f.store(combine(f, [C.carry[0]], "sum"), f.gep(f.arg("delta_to"), R.i, el))
    f.ret()


def _emit_gradient(m: Module, tile: Tile, d: D.dtype, kind: str, masks: str) -> None:
    f = m.kernel(kind)
    el, type, lanes = tile.element, tile.type, tile.lanes
    names = [n for n in _OPERANDS if n != "m" or masks != "none"]
    pointers = f.words(f.arg("args"), 2, ["ptr"] * (2 + len(names)))
    source = dict(zip(names, pointers[1:-1], strict=True))
    ints = f.gep(f.arg("args"), 4 + len(names), "i64")
    h = dict(zip(_HEAD, f.words(ints, 0, ["i64"] * len(_HEAD)), strict=True))
    scale = f.load("double", f.gep(ints, len(_HEAD), "i64"), 8)
    scale = f.splat(scale if el == "double" else f.cast("fptrunc", scale, "float"), type)
    work = f.gep(pointers[-1], f.mul(f.cast("sext", f.arg("tid"), "i64"), h["work_size"]))
    at_names = [n for n in _HEAD if n.endswith("_at")]
    place = {n[:-3]: f.gep(work, h[n]) for n in at_names}
    side = _SIDES[kind]
    s = Scores(f, tile, place["table"], place["scores"], h["width"])
    table = f.gep(place["table"], 2 * ROWS + 2 * BLOCK + 2, "i64")
    t = Scores(f, tile, table, place["products"], h["value_width"])
    # (name, scores that weigh the sums, width, first column of the result)
    results = [("ds", t, h["width"], 0), ("p", s, h["value_width"], h["width"])]
    results = [r for r in results if r[0] in side]
    wide, math = Element(f, lanes), Math(f, has_fma=native.host().has_fma)
    causal = f.icmp("ne", h["causal"], 0)
    low, high = f.split(f.mul(f.mul(h["batch"], h["heads"]), h["blocks"]))
    heads = f.div(f.add(high, f.sub(h["blocks"], 1)), h["blocks"])
    with f.loop(f.div(low, h["blocks"]), heads) as U:
        n, head = f.div(U.i, h["heads"]), f.rem(U.i, h["heads"])

        def at(name: str, row: Operand, element: str) -> Value:
            start = f.add(f.mul(n, h[name + "_n"]), f.mul(head, h[name + "_h"]))
            return f.gep(source[name], f.add(start, f.mul(row, h[name + "_l"])), element)

        def head_of(name: str) -> tuple[Value, Value]:
            return at(name, 0, memory(d)), h[name + "_l"]

        f.call("transpose", "void", work, *head_of(side["other_x"]), h["other"], h["width"])
        panels, rows = place["panels_y"], head_of(side["other_y"])
        f.call("transpose", "void", panels, *rows, h["other"], h["value_width"])
        for name, _, width, _ in results:
            values = place[name + "_values"]
            pack_values(f, tile, d, values, *head_of(side[name]), h["other"], width)
        f.call(
            "sums", "void", place["lse"], place["delta"], at("lse", 0, el), at("g", 0, memory(d)),
            at("out", 0, memory(d)), h["queries"], h["value_width"], h["lse_l"], h["g_l"],
            h["out_l"],
        )  # fmt: skip
        first = f.max(f.sub(low, f.mul(U.i, h["blocks"])), 0)
        last = f.min(f.sub(high, f.mul(U.i, h["blocks"])), h["blocks"])
        with f.loop(first, last) as B:
            begin = f.mul(B.i, ROWS)
            count = f.min(f.sub(h["own"], begin), ROWS)
            for to, width in (("x", h["width"]), ("y", h["value_width"])):
                rows, step = at(side[to], begin, memory(d)), h[side[to] + "_l"]
                f.call("copy", "void", place[to], rows, width, step, count, width)
            # causal: the blocks of the other side that any of these rows can see
            start, end = f.typed(0, "i64"), h["other"]
            if kind == "dq":
                end = f.select(causal, f.min(end, f.add(begin, count)), end)
            else:
                start = f.select(causal, f.mul(f.div(begin, BLOCK), BLOCK), start)
            # with nothing to see one round still runs, and gives zeros
            with f.loop(start, f.max(end, f.add(start, 1)), BLOCK) as K:
                columns = f.max(f.min(f.sub(h["other"], K.i), BLOCK), 0)
                s.product(place["x"], count, work, K.i, columns, h["width"], place["scores"])
                t.product(
                    place["y"], count, place["panels_y"], K.i, columns, h["value_width"],
                    place["products"],
                )  # fmt: skip
                with f.loop(0, count) as R:
                    row = f.add(begin, R.i)
                    vectors = zip(
                        s.vectors(place["scores"], R.i), s.vectors(place["products"], R.i),
                        range(0, BLOCK, lanes), strict=True,
                    )  # fmt: skip
                    for score_at, product_at, j in vectors:
                        column = f.add(K.i, j)
                        left = f.sub(columns, j)
                        if kind == "dq":
                            limit = f.min(left, f.sub(f.add(row, 1), column))
                            seen = f.lane_mask(f.select(causal, limit, left), lanes)
                            query, spread = row, True
                        else:
                            before = f.lane_mask(f.select(causal, f.sub(row, column), 0), lanes)
                            seen = f.lane_mask(left, lanes)
                            seen = f.op("and", seen, f.op("xor", before, const(seen.type, True)))
                            query, spread = column, False
                        score = f.op("fmul", f.load(type, score_at, tile.align), scale)
                        if masks != "none":
                            score = _mask(
                                f, wide, d, masks, kind, score, at, row, column, left, seen
                            )
                        else:
                            score = hide(f, wide, d, masks, score, score, seen)
                        lse, delta = (
                            f.splat(f.load(el, f.gep(p, query, el)), type)
                            if spread
                            else f.load(type, f.gep(p, query, el))
                            for p in (place["lse"], place["delta"])
                        )
                        p = vmath.call(math, "exp", f.op("fsub", score, lse))
                        if kind == "dkv":
                            f.store(p, score_at, tile.align)
                        product = f.load(type, product_at, tile.align)
                        ds = f.op("fmul", p, f.op("fsub", product, delta))
                        f.store(ds, product_at, tile.align)
                fresh = f.cast("zext", f.icmp("eq", K.i, start), "i64")
                for name, weights, width, _ in results:
                    weights.spread(
                        count, place[name + "_values"], h["other"], K.i, columns, width,
                        place[name + "_sums"], fresh,
                    )  # fmt: skip
            for name, _, width, first_column in results:
                with f.loop(0, count) as R, f.loop(0, width, lanes) as C:
                    panel = f.mul(f.div(C.i, tile.columns), ROWS * tile.columns)
                    inside = f.add(f.mul(R.i, tile.columns), f.rem(C.i, tile.columns))
                    at_sum = f.gep(place[name + "_sums"], f.add(panel, inside), el)
                    v = f.load(type, at_sum, tile.align)
                    if name == "ds":
                        v = f.op("fmul", v, scale)
                    v = wide.to_memory(wide.rounded(v, d), d)
                    row = f.add(f.mul(U.i, h["own"]), f.add(begin, R.i))
                    to = f.add(f.mul(row, h["result_width"]), f.add(first_column, C.i))
                    mask = f.lane_mask(f.sub(width, C.i), lanes)
                    f.masked_store(v, f.gep(pointers[0], to, memory(d)), mask)
    f.ret()


def _mask(
    f: Function, wide: Element, d: D.dtype, masks: str, kind: str, score: Value,
    at: Callable[..., Value], row: Operand, column: Operand, left: Operand, seen: Value,
) -> Value:  # fmt: skip
    """The score with the mask; of the transposed scores, the mask is read lane by lane."""
    element = "i8" if masks == "bool" else memory(d)
    if kind == "dq":
        where = f.gep(at("m", row, element), column, element)
        return hide(f, wide, d, masks, score, where, seen)
    room = f.alloca(wide.memory_type(d) if masks == "float" else f"<{wide.lanes} x i8>")
    with f.loop(0, f.min(left, wide.lanes)) as L:
        where = f.gep(at("m", f.add(column, L.i), element), row, element)
        f.store(f.load(element, where), f.gep(room, L.i, element))
    return hide(f, wide, d, masks, score, room, seen)
