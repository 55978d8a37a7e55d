"""Places in order: of the best of a row, of its k-th or most frequent number, and where numbers go
in a sorted row. NaN is the largest.

The k largest (or smallest), best first, of equal ones the first place first: a row's best so far
lie sorted in scratch memory. Numbers are compared as ints of their order, sixteen with the worst of
these at once: few of a row get past that, and are sorted in, vector by vector.

One place of a short row: each number is compared with all, sixteen at once, which counts how many
are less and how many equal.  Of a long row: how many begin with each of 2,048 heads (11 bits of
their order) says which head the k-th has, then the same of its middle and its last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.nest import one_stage
from weft.kernels.schedule.tile import up
from weft.kernels.target.element import Element, memory
from weft.kernels.target.llvm import Function, Module, Operand, Value, const, vector, zero
from weft.runtime import native
from weft.runtime.native import Launch

MOST_PLACES = 64  # places of a row: more are sorted faster otherwise
MOST_COUNTED = 128  # numbers of a row of which one place is looked for by counting
_LANES = 16
_NAN = 0x7FFFFFFE  # every NaN's order; never the least int
_HEAD = ("rows", "size", "k", "blocks", "places_at", "work_size")


def plan_topk(rows: int, size: int, k: int, *, largest: bool) -> Launch:
    """out (rows, k) int64 of x (rows, size) float32, both contiguous; 0 < k <= size < 2**31."""
    blocks = -(-k // _LANES)
    room = up(4 * _LANES * blocks) + 64  # a number stands before the first
    values = (rows, size, k, blocks, room, 2 * room)
    return one_stage(_kernel(largest), values, rows * size, values[-1])


@cache
def _kernel(largest: bool) -> int:
    return native.load_made(["topk"], topk_ir, largest)["topk"]


def topk_ir(largest: bool) -> str:
    """The LLVM IR of the kernel."""
    m = Module()
    f = m.kernel("topk")
    (out, x), scratch, h, _ = f.given(1, _HEAD)
    tid = f.thread()
    keys = f.gep(scratch, f.add(f.mul(tid, h["work_size"]), 64))
    places, k = f.gep(keys, h["places_at"]), h["k"]
    worst = f.gep(keys, f.sub(k, 1), "i32")
    wide = vector(_LANES, "i32")
    room = f.alloca(wide)
    low, high = f.split(h["rows"])
    with f.loop(low, high) as R:
        row = f.gep(x, f.mul(R.i, h["size"]), "float")
        f.store(const("i32", 0x7FFFFFFF), f.gep(keys, -1, "i32"))
        with f.loop(0, h["blocks"]) as B:
            f.store(const(wide, -(2**31)), f.gep(keys, f.mul(B.i, _LANES), "i32"))
        with f.loop(0, h["size"], _LANES) as I:
            mask = f.lane_mask(f.sub(h["size"], I.i), _LANES)
            line = f.masked_load(vector(_LANES, "float"), f.gep(row, I.i, "float"), mask)
            order = _order(f, line, wide, largest)
            bound = f.splat(f.load("i32", worst), wide)
            better = f.op("and", mask, f.icmp("sgt", order, bound))
            bits = f.cast("zext", f.cast("bitcast", better, "i16"), "i64")
            with f.iff(f.icmp("ne", bits, 0)):
                f.store(order, room)
                count = f.intrinsic("ctpop", "i64", bits)
                with f.loop(0, count, carry=[("i64", bits)]) as B:
                    (left,) = B.carry
                    lane = f.intrinsic("cttz", "i64", left, Value("true", "i1"))
                    B.next = [f.op("and", left, f.op("sub", left, const("i64", 1)))]
                    one = f.load("i32", f.gep(room, lane, "i32"))
                    place = f.cast("trunc", f.typed(f.add(I.i, lane), "i64"), "i32")
                    with f.iff(f.icmp("sgt", one, f.load("i32", worst))):
                        _sort_in(f, keys, places, one, place, h["blocks"])
        with f.loop(0, k) as J:
            to = f.gep(out, f.add(f.mul(R.i, k), J.i), "i64")
            f.store(f.cast("sext", f.load("i32", f.gep(places, J.i, "i32")), "i64"), to)
    f.ret()
    return m.text()


def _order(f: Function, v: Value, type: str, largest: bool) -> Value:
    """Ints in the order of the floats: -0 is 0, every NaN above infinity; turned for the least."""
    floats = v.type
    bits = f.cast("bitcast", f.op("fadd", v, const(floats, 0.0)), type)
    sign = f.op("ashr", bits, const(type, 31))
    order = f.op("xor", bits, f.op("and", sign, const(type, 0x7FFFFFFF)))
    order = f.select(f.fcmp("uno", v, v), const(type, _NAN), order)
    return order if largest else f.op("xor", order, const(type, -1))


def _sort_in(
    f: Function, keys: Value, places: Value, key: Value, place: Value, blocks: Value
) -> None:
    """A number behind those that are as good; the others move on by one, the last vector first."""
    wide = vector(_LANES, "i32")
    mine, where = f.splat(key, wide), f.splat(place, wide)
    with f.loop(0, blocks) as B:
        at = f.mul(f.sub(f.sub(blocks, 1), B.i), _LANES)
        before = f.sub(at, 1)
        old, above = (f.load(wide, f.gep(keys, i, "i32")) for i in (at, before))
        stays, moves = f.icmp("sge", old, mine), f.icmp("slt", above, mine)
        for own, new in (keys, mine), (places, where):
            now, last = (f.load(wide, f.gep(own, i, "i32")) for i in (at, before))
            f.store(f.select(stays, now, f.select(moves, last, new)), f.gep(own, at, "i32"))


def plan_choice(kind: str, rows: int, size: int, k: int) -> Launch:
    """out (rows) int64, a place of each row of x (rows, size) float32, both contiguous, 0 < size <
    2**31: of the k-th in ascending order (`kthvalue`, from 0), `median` (NaN where there is any),
    `nanmedian` (of the others), all the first of equal ones; of the `mode` (size <= MOST_COUNTED)
    the last.
    """
    if size > MOST_COUNTED:
        return one_stage(_choosing("select", kind), (rows, size, k), rows * size * 8)
    return one_stage(_choosing("choice", kind), (rows, size, k), rows * size * -(-size // 4))


@cache
def _choosing(name: str, kind: str) -> int:
    return native.load_made([name], _select_ir if name == "select" else _choice_ir, kind)[name]


def _choice_ir(kind: str) -> str:
    m = Module()
    f = m.kernel("choice")
    (out, x), _, h, _ = f.given(1, ("rows", "size", "k"))
    wide = vector(_LANES, "i32")
    keys, below, upto = (f.alloca(wide, MOST_COUNTED // _LANES) for _ in range(3))
    size = h["size"]
    low, high = f.split(h["rows"])
    with f.loop(low, high) as R:
        row = f.gep(x, f.mul(R.i, size), "float")
        with f.loop(0, size, _LANES, carry=[("i64", 0)]) as I:
            mask = f.lane_mask(f.sub(size, I.i), _LANES)
            line = f.masked_load(vector(_LANES, "float"), f.gep(row, I.i, "float"), mask)
            order = _order(f, line, wide, True)
            f.store(order, f.gep(keys, I.i, "i32"))
            nan = f.op("and", mask, f.icmp("eq", order, const(wide, _NAN)))
            bits = f.cast("zext", f.cast("bitcast", nan, "i16"), "i64")
            I.next = [f.add(I.carry[0], f.intrinsic("ctpop", "i64", bits))]
        (nans,) = I.carry
        with f.loop(0, size, _LANES) as I:
            mine = f.load(wide, f.gep(keys, I.i, "i32"))
            with f.loop(0, size, carry=[(wide, zero(wide))] * 2) as J:
                other = f.splat(f.load("i32", f.gep(keys, J.i, "i32")), wide)
                J.next = [
                    f.op("add", n, f.cast("zext", f.icmp(than, other, mine), wide))
                    for n, than in zip(J.carry, ("slt", "sle"), strict=True)
                ]
            for to, n in zip((below, upto), J.carry, strict=True):
                f.store(n, f.gep(to, I.i, "i32"))
        k = _rank(f, kind, h["k"], size, nans)
        with f.loop(0, size, carry=[("i64", -(2**63)), ("i64", 0)]) as I:
            less, most, key = (
                f.cast("sext", f.load("i32", f.gep(p, I.i, "i32")), "i64")
                for p in (below, upto, keys)
            )
            if kind == "mode":
                score = f.sub(f.op("shl", f.sub(most, less), const("i64", 32)), key)
            else:
                is_it = f.op("and", f.icmp("sle", less, k), f.icmp("sgt", most, k))
                score = f.select(is_it, f.sub(size, I.i), -1)
            better = f.icmp("sge", score, I.carry[0])
            I.next = [f.select(better, a, b) for a, b in zip((score, I.i), I.carry, strict=True)]
        f.store(I.carry[1], f.gep(out, R.i, "i64"))
    f.ret()
    return m.text()


def _rank(f: Function, kind: str, k: Operand, size: Operand, nans: Value) -> Operand:
    """Which one in ascending order, from 0, is asked for."""
    if kind == "median":
        return f.select(f.icmp("ne", nans, 0), f.sub(size, 1), k)
    if kind == "nanmedian":
        return f.op("lshr", f.max(f.sub(f.sub(size, nans), 1), 0), const("i64", 1))
    return k


_DIGITS = ((21, 11), (10, 11), (0, 10))  # of the order: the lowest bit and how many bits


def _select_ir(kind: str) -> str:
    m = Module()
    f = m.kernel("select")
    (out, x), _, h, _ = f.given(1, ("rows", "size", "k"))
    wide = vector(_LANES, "i32")
    room, counts = f.alloca(wide), f.alloca(wide, 2**11 // _LANES + 1)  # and one for no lane's
    size, lowest = h["size"], const(wide, -(2**31))
    low, high = f.split(h["rows"])

    def line(row: Value, i: Operand) -> tuple[Value, Value]:
        """The orders of sixteen, unsigned, and which of them there are."""
        mask = f.lane_mask(f.sub(size, i), _LANES)
        found = f.masked_load(vector(_LANES, "float"), f.gep(row, i, "float"), mask)
        return f.op("xor", _order(f, found, wide, True), lowest), mask

    def bits(mask: Value) -> Value:
        return f.cast("zext", f.cast("bitcast", mask, "i16"), "i64")

    def count(digit: Value) -> None:
        at = f.gep(counts, f.cast("zext", digit, "i64"), "i32")
        f.store(f.op("add", f.load("i32", at), const("i32", 1)), at)

    with f.loop(low, high) as R:
        row = f.gep(x, f.mul(R.i, size), "float")
        k: Operand = h["k"]
        prefix = const("i32", 0)
        for shift, width in _DIGITS:
            with f.loop(0, 2**width // _LANES) as B:
                f.store(zero(wide), f.gep(counts, f.mul(B.i, _LANES), "i32"))
            with f.loop(0, size, _LANES, carry=[("i64", 0)]) as I:
                order, mask = line(row, I.i)
                digit = f.op("lshr", order, const(wide, shift))
                nan = f.icmp("eq", order, const(wide, _NAN - 2**31))
                I.next = [
                    f.add(I.carry[0], f.intrinsic("ctpop", "i64", bits(f.op("and", mask, nan))))
                ]
                if shift == _DIGITS[0][0]:
                    f.store(f.select(mask, digit, const(wide, 2**width)), room)
                    for lane in range(_LANES):
                        count(f.load("i32", f.gep(room, lane, "i32")))
                else:
                    head = f.op("lshr", order, const(wide, shift + width))
                    mine = bits(f.op("and", mask, f.icmp("eq", head, f.splat(prefix, wide))))
                    with f.iff(f.icmp("ne", mine, 0)):
                        f.store(f.op("and", digit, const(wide, 2**width - 1)), room)
                        with f.loop(
                            0, f.intrinsic("ctpop", "i64", mine), carry=[("i64", mine)]
                        ) as L:
                            (left,) = L.carry
                            lane = f.intrinsic("cttz", "i64", left, Value("true", "i1"))
                            L.next = [f.op("and", left, f.op("sub", left, const("i64", 1)))]
                            count(f.load("i32", f.gep(room, lane, "i32")))
            if shift == _DIGITS[0][0]:
                k = _rank(f, kind, k, size, I.carry[0])
            block, k = _holds(f, k, 2**width // _LANES, lambda i: f.intrinsic(
                "vector.reduce.add", "i32", f.load(wide, f.gep(counts, f.mul(i, _LANES), "i32"))
            ))  # fmt: skip
            first = f.mul(block, _LANES)
            lane, k = _holds(
                f,
                k,
                _LANES,
                lambda i, first=first: f.load("i32", f.gep(counts, f.add(first, i), "i32")),
            )
            found = f.cast("trunc", f.typed(f.add(first, lane), "i64"), "i32")
            prefix = f.op("or", f.op("shl", prefix, const("i32", width)), found)
        with f.loop(0, size, _LANES, carry=[("i64", -1)]) as I:
            order, mask = line(row, I.i)
            mine = bits(f.op("and", mask, f.icmp("eq", order, f.splat(prefix, wide))))
            place = f.add(I.i, f.intrinsic("cttz", "i64", mine, Value("false", "i1")))
            new = f.op("and", f.icmp("ne", mine, 0), f.icmp("slt", I.carry[0], 0))
            I.next = [f.select(new, place, I.carry[0])]
        f.store(I.carry[0], f.gep(out, R.i, "i64"))
    f.ret()
    return m.text()


def _holds(f: Function, k: Operand, n: int, count: Callable) -> tuple[Value, Value]:
    """(which of n parts the k-th lies in, its rank there); count(i) says how many part i holds."""
    with f.loop(0, n, carry=[("i64", 0), ("i64", 0), ("i64", 0)]) as I:
        before, part, rank = I.carry
        after = f.add(before, f.cast("zext", count(I.i), "i64"))
        here = f.op("and", f.icmp("sle", before, k), f.icmp("sgt", after, k))
        I.next = [after, f.select(here, I.i, part), f.select(here, f.sub(k, before), rank)]
    return I.carry[1], I.carry[2]


def plan_search(edges: Layout, values: Layout, *, right: bool) -> Launch:
    """out, like values, int64: how many of the ascending edges are < each value (<= if `right`).

    Edges are one row, or a row for each of values', of the same dtype; all contiguous.
    """
    n, by_row = edges.shape[-1], len(edges.shape) > 1
    fits = edges.is_contiguous and values.is_contiguous and edges.dtype == values.dtype
    if not fits or (by_row and edges.shape[:-1] != values.shape[:-1]):
        raise ValueError(f"search: {values} in {edges}")
    name, across = edges.dtype.name, values.shape[-1] if by_row else 1
    found = native.load_made(["search"], _search_ir, name, right=right, by_row=by_row)["search"]
    bits = n.bit_length()
    return one_stage(found, (values.size, n, across, bits), values.size * (4 * bits + 1))


def _search_ir(name: str, *, right: bool, by_row: bool) -> str:
    m = Module()
    f = m.kernel("search")
    d, element = D.BY_NAME[name], Element(f, 1)
    (out, edges, values), _, h, _ = f.given(2, ("total", "edges", "across", "bits"))

    def less(a: Value, b: Value) -> Value:
        under = element.scalar("lt", d, a, b)
        if d.category != D.FLOAT:
            return under
        return f.op("or", under, f.op("and", f.fcmp("ord", a, a), f.fcmp("uno", b, b)))

    one, low, high = const("i64", 1), *f.split(h["total"])
    with f.loop(low, high) as I:
        row = edges
        if by_row:
            row = f.gep(edges, f.mul(f.div(I.i, h["across"]), h["edges"]), memory(d))
        value = element.load(f.gep(values, I.i, memory(d)), d)
        with f.loop(0, h["bits"], carry=[("i64", 0)]) as S:
            step = f.op("shl", one, f.sub(f.sub(h["bits"], 1), S.i))
            next = f.add(S.carry[0], step)
            edge = element.load(f.gep(row, f.sub(f.min(next, h["edges"]), 1), memory(d)), d)
            goes = f.op("xor", less(value, edge), const("i1", 1)) if right else less(edge, value)
            goes = f.op("and", goes, f.icmp("sle", next, h["edges"]))
            S.next = [f.select(goes, next, S.carry[0])]
        f.store(S.carry[0], f.gep(out, I.i, "i64"))
    f.ret()
    return m.text()
