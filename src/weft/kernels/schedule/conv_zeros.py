"""Weight gradients of a convolution whose cotangents are mostly zeros, as a maximum pool's are.

Products with zeros are left out and the others added in the order they had: the same bits. For that
x must be finite, and no sum may end as -0.0, which a further zero might make 0.0; else nothing is
written, and the tiles do it. Channels of x lie across the vector, so that a sum's cotangent is one
number: for each column of the panel, a list of the cotangents and of where their pixels lie.
"""

from collections.abc import Callable
from dataclasses import dataclass

from weft.kernels.schedule.conv_pack import transpose
from weft.kernels.schedule.tile import Tile, up
from weft.kernels.target.llvm import Function, Module, Operand, Value, lanes_of, vector, zero
from weft.runtime import native

_TAPS = 9  # whose sums, of two vectors of channels, stay in registers
_EVERY = 7  # of so many pixels one is looked at first: it meets all places of a pool's windows
SHARE = 16  # what `zeros_worth` is a share of
_PART = 192  # k whose pixels stay in the first cache, a vector of channels of each
_LEAST = 96  # rows for which lists are worth making


def _serves(tile: Tile) -> bool:
    """Whether there are instructions that make lists, and registers for the sums."""
    return native.host().vector_bits == 512 and tile.element == "float" and not tile.pairs


def zeros_worth(tile: Tile, channels: int, taps: int) -> int:
    """At how many cotangents of SHARE that are not zero it gains to leave the zeros out."""
    if not _serves(tile) or channels < tile.lanes or channels * taps < _LEAST:
        return 0
    sums = -(-channels // tile.lanes) * tile.lanes * -(-taps // _TAPS) * _TAPS
    return SHARE * 2 * channels * taps // (3 * sums)


def zeros_room(tile: Tile, channels: int, taps: int) -> int:
    """Bytes of the lists of a vector of columns, and of a panel's sums."""
    lists = tile.lanes * (_PART + tile.lanes) * 2
    sums = up(channels, tile.lanes) * taps * tile.columns
    return up((lists + sums) * tile.itemsize)


def emit_zeros(m: Module, tile: Tile) -> None:
    """What `without_zeros` calls."""
    if _serves(tile):
        _emit_lists(m, tile)
        _emit_picks(m, tile)


@dataclass
class Block:
    """A block of k: the slab's elements that are used, those of a pixel and their channels; where
    the taps are in it, and each k."""

    slab: Value
    used: Operand
    pitch: Operand
    channels: Operand
    taps: Value
    tap_count: Operand
    table: Value
    kc: Operand


def without_zeros(
    f: Function, tile: Tile, block: Block, panel: tuple[Value, Value, Operand], room: Value,
    worth: Operand, first: Operand, meanwhile: Callable[[Operand], None],
) -> Value:  # fmt: skip
    """What `tiles` does with a panel (b, c, columns) and all rows, if that is worth it: whether it
    was done. `meanwhile(column)` is emitted once a column."""
    if not _serves(tile):
        return Value("false", "i1")
    b, c, columns = panel
    slab, channels, kc, taps = block.slab, block.channels, block.kc, block.tap_count
    el, lanes, nr = tile.element, tile.lanes, tile.columns
    with f.loop(0, kc, _EVERY, [("i64", 0)] * 2) as K:
        some, all = K.carry
        for j in range(0, nr, lanes):
            v = f.load(tile.type, f.gep(b, f.add(f.mul(K.i, nr), j), el))
            some = f.add(some, _count(f, f.fcmp("une", v, zero(tile.type))))
        K.next = [some, f.add(all, nr)]
    some, all = K.carry
    with f.if_else(f.icmp("slt", f.mul(some, SHARE), f.mul(all, worth))) as way:
        bits = vector(lanes, "i32")
        with f.loop(0, block.used, block.pitch, [(bits, zero(bits))]) as P:
            with f.loop(0, channels, lanes, [(bits, P.carry[0])]) as C:
                x = f.load(bits, f.gep(slab, f.add(P.i, C.i), el))
                x = f.op("and", x, f.splat(f.typed(0x7FFFFFFF, "i32"), bits))
                C.next = [f.intrinsic("umax", bits, C.carry[0], x)]
            P.next = [C.carry[0]]
        wild = f.icmp("uge", P.carry[0], f.splat(f.typed(0x7F800000, "i32"), bits))
        finite = f.icmp("eq", _count(f, wild), 0)
        lists, stride = room, _PART + lanes
        places = f.gep(lists, lanes * stride, el)
        sums = f.gep(places, lanes * stride, el)
        counts = f.alloca("i64", lanes)
        vectors = f.div(f.add(channels, lanes - 1), lanes)
        every = f.mul(vectors, taps)
        bad = f.alloca("i64")  # whether a sum is -0.0
        f.store(f.typed(0, "i64"), bad)
        with (
            f.loop(0, f.select(finite, columns, f.typed(0, "i64")), lanes) as J,
            f.loop(0, kc, _PART) as K,
        ):
            rows = f.gep(b, f.add(f.mul(K.i, nr), J.i), el)
            part = f.min(f.sub(kc, K.i), _PART)
            pairs = f.gep(block.table, f.mul(K.i, 2), "i64")
            f.call("lists", "void", rows, pairs, part, lists, places, counts)
            left = f.min(f.sub(columns, J.i), lanes)
            with f.loop(0, vectors) as V, f.loop(0, left) as L:
                with f.iff(f.icmp("eq", f.add(K.i, V.i), 0)):
                    meanwhile(f.add(J.i, L.i))
                own = f.gep(lists, f.mul(L.i, stride), el)
                where = f.gep(places, f.mul(L.i, stride), "i32")
                count = f.load("i64", f.gep(counts, L.i, "i64"))
                start = f.gep(slab, f.mul(V.i, lanes), el)
                with f.loop(0, taps, _TAPS) as T:
                    at = f.add(f.mul(f.add(J.i, L.i), every), f.add(f.mul(T.i, vectors), V.i))
                    found = f.call(
                        "picks", "i64", start, f.gep(block.taps, T.i, "i64"), own, where,
                        f.gep(sums, f.mul(at, lanes), el), count, f.sub(taps, T.i),
                        f.mul(vectors, lanes), K.i,
                    )  # fmt: skip
                    f.store(f.op("or", f.load("i64", bad), found), bad)
        good = f.op("and", finite, f.icmp("eq", f.load("i64", bad), 0))
        with f.iff(good):
            _write(f, tile, c, sums, taps, channels, vectors, first)
        way.otherwise()
    return way.merge("i1", good, "false")


def _write(
    f: Function, tile: Tile, c: Value, sums: Value, taps: Operand, channels: Operand,
    vectors: Operand, first: Operand,
) -> None:  # fmt: skip
    """c[tap][channel][column] (+)= sums[column][tap][vector of channels]."""
    el, lanes, nr = tile.element, tile.lanes, tile.columns
    with f.loop(0, taps) as T, f.loop(0, vectors) as V, f.loop(0, nr, lanes) as J:
        every = f.mul(f.mul(taps, vectors), lanes)
        at = f.mul(f.add(f.mul(T.i, vectors), V.i), lanes)
        source = f.gep(sums, f.add(at, f.mul(J.i, every)), el)
        square = [f.load(tile.type, f.gep(source, f.mul(every, i), el)) for i in range(lanes)]
        channel = f.mul(V.i, lanes)
        row = f.add(f.mul(T.i, channels), channel)
        to = f.gep(c, f.add(f.mul(row, nr), J.i), el)
        left = f.sub(channels, channel)
        for i, v in enumerate(transpose(f, square)):
            place = f.gep(to, i * nr, el)
            here = f.icmp("slt", f.typed(i, "i64"), left)
            with f.iff(here), f.if_else(f.icmp("ne", first, 0)) as way:
                f.store(v, place)
                way.otherwise()
                f.store(f.op("fadd", f.load(tile.type, place), v), place)


def _count(f: Function, mask: Value) -> Value:
    lanes = lanes_of(mask.type)
    bits = f.cast("zext", f.cast("bitcast", mask, f"i{lanes}"), "i64")
    return f.intrinsic("ctpop", "i64", bits, overload=["i64"])


def _emit_lists(m: Module, tile: Tile) -> None:
    """`lists(b, table, kc, lists, places, counts)`: of each of a vector of columns the numbers that
    are not zero, and the bytes at which their pixels lie."""
    pointers = ("b", "table", "lists", "places", "counts")
    args = [(f"ptr {'noalias' if n != 'b' else ''}".strip(), n) for n in pointers]
    f = m.function("lists", [*args[:2], ("i64", "kc"), *args[2:]], internal=True)
    b, table, lists, places, counts = (f.arg(n) for n in pointers)
    el, lanes, stride = tile.element, tile.lanes, _PART + tile.lanes
    ints = vector(lanes, "i32")
    for j in range(lanes):
        f.store(f.typed(0, "i64"), f.gep(counts, j, "i64"))
    with f.loop(0, f.arg("kc"), lanes) as K:
        row = f.gep(b, f.mul(K.i, tile.columns), el)
        square = [f.load(tile.type, f.gep(row, i * tile.columns, el)) for i in range(lanes)]
        pairs = f.load(vector(2 * lanes, "i64"), f.gep(table, f.mul(K.i, 2), "i64"))
        at = f.cast("trunc", f.shuffle(pairs, pairs, range(0, 2 * lanes, 2)), ints)
        at = f.op("mul", at, f.splat(f.typed(tile.itemsize, "i32"), ints))
        here = f.lane_mask(f.sub(f.arg("kc"), K.i), lanes)
        for j, v in enumerate(transpose(f, square)):
            some = f.op("and", here, f.fcmp("une", v, zero(tile.type)))
            n = f.load("i64", f.gep(counts, j, "i64"))
            to = f.add(n, j * stride)
            f.store(_compress(f, v, some), f.gep(lists, to, el))
            f.store(_compress(f, at, some), f.gep(places, to, "i32"))
            f.store(f.typed(f.add(n, _count(f, some)), "i64"), f.gep(counts, j, "i64"))
    f.ret()


def _compress(f: Function, v: Value, mask: Value) -> Value:
    name = "experimental.vector.compress"
    return f.intrinsic(name, v.type, v, mask, zero(v.type), overload=[v.type])


def _emit_picks(m: Module, tile: Tile) -> None:
    """`picks(slab, taps, list, places, to, count, more, row, first)`: of up to _TAPS taps the sums
    of the list's numbers times the pixel's channels, `first` 0, or those with what lies at `to`;
    whether one is -0.0."""
    pointers = ("slab", "taps", "list", "places", "to")
    ints = ("count", "more", "row", "first")
    args = [*(("ptr", n) for n in pointers), *(("i64", n) for n in ints)]
    f = m.function("picks", args, "i64", internal=True)
    slab, taps, list, places, to = (f.arg(n) for n in pointers)
    el, type = tile.element, tile.type
    last = f.sub(f.arg("more"), 1)
    # a missing tap repeats the last one
    numbers = [f.min(last, t) for t in range(_TAPS)]
    starts = [f.gep(slab, f.load("i64", f.gep(taps, t, "i64")), el) for t in numbers]
    sums = [f.gep(to, f.mul(f.arg("row"), t), el) for t in numbers]
    with f.if_else(f.icmp("eq", f.arg("first"), 0)) as way:
        way.otherwise()
        before = [f.load(type, place) for place in sums]
    carry = [(type, way.merge(type, zero(type), value)) for value in before]
    with f.loop(0, f.arg("count"), 1, carry) as K:
        place = f.cast("zext", f.load("i32", f.gep(places, K.i, "i32")), "i64")
        factor = f.splat(f.load(el, f.gep(list, K.i, el)), type)
        for t, start in enumerate(starts):
            x = f.load(type, f.gep(start, place))
            K.next[t] = f.fma(x, factor, K.carry[t])
    bits = vector(tile.lanes, "i32")
    bad = zero(vector(tile.lanes, "i1"))
    for sum, place in zip(K.carry, sums, strict=True):
        f.store(sum, place)
        minus = f.icmp("eq", f.cast("bitcast", sum, bits), f.splat(f.typed(-(2**31), "i32"), bits))
        bad = f.op("or", bad, minus)
    f.ret(_count(f, bad))
