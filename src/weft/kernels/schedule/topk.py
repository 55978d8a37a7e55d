"""The places of the k largest (or smallest) numbers of each row, best first; of equal ones the
first place first, NaN the largest.

A row's best so far lie sorted in scratch memory. Numbers are compared as ints of their order,
sixteen with the worst of these at once: few of a row get past that, and are sorted in, vector by
vector.
"""

from functools import cache

from weft.kernels.schedule.nest import one_stage
from weft.kernels.schedule.tile import up
from weft.kernels.target.llvm import Function, Module, Value, const, vector
from weft.runtime import native
from weft.runtime.native import Launch

MOST_PLACES = 64  # places of a row: more are sorted faster otherwise
_LANES = 16
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
    order = f.select(f.fcmp("uno", v, v), const(type, 0x7FFFFFFE), order)  # never the least int
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
