"""Gradients of a convolution whose cotangents are mostly zeros, as a maximum pool's are.

Products with zeros are left out and the others added in the order they had: the same bits, if what
they are multiplied by is finite; else the tiles do it. Channels of the image lie across the vector,
so that a product's cotangent is one number: of each channel of cotangents there is a list of these
and of where their pixels lie. In a weight's gradient a sum gathers its pixels; in an input's each
cotangent goes to the sums that it is part of.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from weft.kernels.schedule.tile import KC, Tile, up
from weft.kernels.target.llvm import Function, Module, Operand, Value, lanes_of, vector, zero
from weft.runtime import native

_TAPS = 9  # whose sums, of two vectors of channels, stay in registers
_EVERY = 7  # of so many pixels one is looked at first: it meets all places of a pool's windows
SHARE = 16  # what `zeros_worth` is a share of
_PART = 192  # k whose pixels stay in the first cache, a vector of channels of each
_SUMS = 512  # pixels whose sums, a vector of channels, stay in the first cache
_ROOM = 1 << 20  # bytes of lists to stay below
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
    f: Function, tile: Tile, block: Block, panel: tuple[Value, Operand, Value, Operand],
    room: Value, worth: Operand, later: Operand, meanwhile: Callable[[Operand], None],
) -> Value:  # fmt: skip
    """What `tiles` does with a panel (b, its pitch, c, columns) and all rows, if that is worth it:
    whether it was done. `meanwhile(column)` is emitted once a column."""
    if not _serves(tile):
        return Value("false", "i1")
    b, pitch, c, columns = panel
    slab, channels, kc, taps = block.slab, block.channels, block.kc, block.tap_count
    el, lanes, nr = tile.element, tile.lanes, tile.columns
    seen = f.select(f.icmp("eq", worth, 0), f.typed(0, "i64"), kc)
    with f.loop(0, seen, _EVERY, [("i64", 0)] * 2) as K:
        some, all = K.carry
        for j in range(0, nr, lanes):
            v = f.load(tile.type, f.gep(b, f.add(f.mul(K.i, pitch), j), el))
            some = f.add(some, _count(f, f.fcmp("une", v, zero(tile.type))))
        K.next = [some, f.add(all, nr)]
    some, all = K.carry
    with f.if_else(f.icmp("slt", f.mul(some, SHARE), f.mul(all, worth))) as way:
        finite = _finite(f, tile, slab, block.used, block.pitch, channels)
        # the border takes part here
        finite = f.op("and", finite, _finite(f, tile, b, f.mul(kc, pitch), pitch, nr))
        lists, stride = room, _PART + lanes
        places = f.gep(lists, lanes * stride, el)
        sums = f.gep(places, lanes * stride, el)
        counts = f.alloca("i64", lanes)
        vectors = f.div(f.add(channels, lanes - 1), lanes)
        every = f.mul(vectors, taps)
        with (
            f.loop(0, f.select(finite, columns, f.typed(0, "i64")), lanes) as J,
            f.loop(0, kc, _PART) as K,
        ):
            rows = f.gep(b, f.add(f.mul(K.i, pitch), J.i), el)
            part = f.min(f.sub(kc, K.i), _PART)
            pairs = f.gep(block.table, f.mul(K.i, 2), "i64")
            f.call("lists", "void", rows, pitch, pairs, part, lists, places, counts, stride)
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
                    f.call(
                        "picks", "void", start, f.gep(block.taps, T.i, "i64"), own, where,
                        f.gep(sums, f.mul(at, lanes), el), count, f.sub(taps, T.i),
                        f.mul(vectors, lanes), K.i,
                    )  # fmt: skip
        with f.iff(finite):
            _write(f, tile, c, sums, taps, channels, vectors, later)
        way.otherwise()
    return way.merge("i1", finite, "false")


def _write(
    f: Function, tile: Tile, c: Value, sums: Value, taps: Operand, channels: Operand,
    vectors: Operand, later: Operand,
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
        # what is missing goes to the last row, which is stored after it
        last = f.sub(f.sub(channels, channel), 1)
        places = [f.gep(to, f.mul(f.min(last, i), nr), el) for i in range(lanes)]
        rows = [_plus(f, *row, later) for row in zip(f.transpose(square), places, strict=True)]
        for v, place in zip(reversed(rows), reversed(places), strict=True):
            f.store(v, place)


def _finite(
    f: Function, tile: Tile, start: Value, size: Operand, pitch: Operand, channels: Operand
) -> Value:
    """Whether the first channels of each `pitch` elements are neither infinite nor NaN."""
    bits = vector(tile.lanes, "i32")
    with f.loop(0, size, pitch, [(bits, zero(bits))]) as P:
        with f.loop(0, channels, tile.lanes, [(bits, P.carry[0])]) as C:
            x = f.load(bits, f.gep(start, f.add(P.i, C.i), tile.element))
            x = f.op("and", x, f.splat(f.typed(0x7FFFFFFF, "i32"), bits))
            C.next = [f.intrinsic("umax", bits, C.carry[0], x)]
        P.next = [C.carry[0]]
    wild = f.icmp("uge", P.carry[0], f.splat(f.typed(0x7F800000, "i32"), bits))
    return f.icmp("eq", _count(f, wild), 0)


def _plus(f: Function, v: Value, place: Value, later: Operand) -> Value:
    """A vector, and what lies at a place where it comes later than that."""
    old = f.select(f.icmp("eq", later, 0), zero(v.type), f.load(v.type, place))
    return f.op("fadd", v, old)


def _count(f: Function, mask: Value) -> Value:
    lanes = lanes_of(mask.type)
    bits = f.cast("zext", f.cast("bitcast", mask, f"i{lanes}"), "i64")
    return f.intrinsic("ctpop", "i64", bits, overload=["i64"])


def _emit_lists(m: Module, tile: Tile) -> None:
    """`lists(b, pitch, table, kc, lists, places, counts, stride)`: of each of a vector of columns
    the numbers that are not zero, and the bytes at which their pixels lie."""
    args = [("ptr", "b"), ("i64", "pitch"), ("ptr noalias", "table"), ("i64", "kc")]
    args += [("ptr noalias", n) for n in ("lists", "places", "counts")]
    f = m.function("lists", [*args, ("i64", "stride")], internal=True, driver=True)
    b, pitch, table, kc, lists, places, counts, stride = (
        f.arg(n) for n in ("b", "pitch", "table", "kc", "lists", "places", "counts", "stride")
    )
    el, lanes = tile.element, tile.lanes
    ints = vector(lanes, "i32")
    for j in range(lanes):
        f.store(f.typed(0, "i64"), f.gep(counts, j, "i64"))
    with f.loop(0, kc, lanes) as K:
        # what is missing is the last one again
        last = f.sub(f.sub(kc, K.i), 1)
        rows = (f.mul(f.add(K.i, f.min(last, i)), pitch) for i in range(lanes))
        square = [f.load(tile.type, f.gep(b, row, el)) for row in rows]
        pairs = f.load(vector(2 * lanes, "i64"), f.gep(table, f.mul(K.i, 2), "i64"))
        at = f.cast("trunc", f.shuffle(pairs, pairs, range(0, 2 * lanes, 2)), ints)
        at = f.op("mul", at, f.splat(f.typed(tile.itemsize, "i32"), ints))
        here = f.lane_mask(f.add(last, 1), lanes)
        for j, v in enumerate(f.transpose(square)):
            some = f.op("and", here, f.fcmp("une", v, zero(tile.type)))
            n = f.load("i64", f.gep(counts, j, "i64"))
            to = f.add(n, f.mul(stride, j))
            f.store(_compress(f, v, some), f.gep(lists, to, el))
            f.store(_compress(f, at, some), f.gep(places, to, "i32"))
            f.store(f.typed(f.add(n, _count(f, some)), "i64"), f.gep(counts, j, "i64"))
    f.ret()


def _compress(f: Function, v: Value, mask: Value) -> Value:
    name = "experimental.vector.compress"
    return f.intrinsic(name, v.type, v, mask, zero(v.type), overload=[v.type])


def _emit_picks(m: Module, tile: Tile) -> None:
    """`picks(slab, taps, list, places, to, count, more, row, first)`: of up to _TAPS taps the sums
    of the list's numbers times the pixel's channels, `first` 0, or those with what lies at `to`."""
    pointers = ("slab", "taps", "list", "places", "to")
    ints = ("count", "more", "row", "first")
    args = [*(("ptr", n) for n in pointers), *(("i64", n) for n in ints)]
    f = m.function("picks", args, internal=True)
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
    for sum, place in zip(K.carry, sums, strict=True):
        f.store(sum, place)
    f.ret()


@dataclass
class Unit:
    """A unit of an input's gradient: its slab of cotangents, the elements of an image's and of a
    pixel, their channels; the results' grid and where the first lies; the slab's columns; the taps'
    places in the slab, which fall."""

    slab: Value
    images: Operand
    image: Operand
    pitch: Operand
    channels: Operand
    grid_h: Operand
    grid_w: Operand
    start: Operand
    slab_columns: Operand
    taps: Value
    tap_count: Operand


def strips(
    tile: Tile, channels: int, taps: list[int], grid: tuple[int, int], slab_columns: int
) -> tuple[int, int, int]:
    """(cotangents of SHARE at which it gains to leave zeros out, rows of outputs whose sums stay in
    the first cache, bytes of room) of an input's gradient."""
    falls = all(a > b for a, b in itertools.pairwise(taps))
    if not _serves(tile) or channels % tile.lanes or not falls or len(taps) % _TAPS:
        return 0, 1, 0
    span, (height, width) = taps[0] - taps[-1], grid
    fit = (_SUMS - width - 2 * span) // slab_columns + 1
    if fit < 1:
        return 0, 1, 0
    rows = -(-height // -(-height // fit))
    worth = int(SHARE * 0.35 * rows * slab_columns / (rows * slab_columns + span))
    count = (rows - 1) * slab_columns + width + span
    stride = up(count, tile.lanes) + tile.lanes
    lists = channels * (2 * stride * tile.itemsize + 8) + 16 * stride
    room = up(lists + (count + span) * tile.lanes * tile.itemsize)
    return (worth, rows, room) if room < _ROOM else (0, 1, 0)


def emit_spread(m: Module, tile: Tile) -> None:
    """What `spread_without_zeros` calls."""
    if _serves(tile):
        _emit_lists(m, tile)
        for taps in (1, _TAPS):
            _emit_add(m, tile, taps)


def spread_without_zeros(
    f: Function, tile: Tile, unit: Unit, panel: tuple[Value, Value, Operand], room: Value,
    worth: Operand, strip: Operand, meanwhile: Callable[[], None],
) -> Value:  # fmt: skip
    """What `tiles` does with a panel (b, c, columns) and all k, if that is worth it: whether it was
    done. Each cotangent goes to the sums that it is part of, channel by channel, the last pixel
    first: to each sum they come in the order of its k."""
    if not _serves(tile):
        return Value("false", "i1")
    b, c, columns = panel
    el, lanes, nr = tile.element, tile.lanes, tile.columns
    pitch, taps, channels, across = unit.pitch, unit.tap_count, unit.channels, unit.slab_columns
    size = f.select(f.icmp("eq", worth, 0), f.typed(0, "i64"), f.mul(unit.images, unit.image))
    with f.loop(0, size, f.mul(pitch, _EVERY), [("i64", 0)]) as P:
        with f.loop(0, channels, lanes, [("i64", P.carry[0])]) as C:
            v = f.load(tile.type, f.gep(unit.slab, f.add(P.i, C.i), el))
            C.next = [f.add(C.carry[0], _count(f, f.fcmp("une", v, zero(tile.type))))]
        P.next = [C.carry[0]]
    pixels = f.mul(f.mul(unit.images, unit.grid_h), unit.grid_w)
    all = f.mul(f.mul(pixels, channels), worth)
    with f.if_else(f.icmp("slt", f.mul(P.carry[0], _EVERY * SHARE), all)) as way:
        k = f.mul(channels, taps)
        finite = _finite(f, tile, b, f.mul(k, nr), nr, nr)
        first, final = (f.load("i64", f.gep(unit.taps, t, "i64")) for t in (0, f.sub(taps, 1)))
        span = f.div(f.sub(first, final), pitch)
        most = f.add(f.add(f.mul(f.sub(strip, 1), across), unit.grid_w), span)
        stride = f.add(f.mul(f.div(f.add(most, lanes - 1), lanes), lanes), lanes)
        lists = room
        places = f.gep(lists, f.mul(channels, stride), el)
        counts = f.gep(places, f.mul(channels, stride), el)
        table = f.gep(counts, channels, "i64")
        sums = f.gep(table, f.mul(stride, 2), "i64")
        with f.loop(0, most) as I:
            place = f.mul(f.sub(f.sub(most, 1), I.i), lanes)
            f.store(f.typed(place, "i64"), f.gep(table, f.mul(I.i, 2), "i64"))
        flags, bits = vector(lanes, "i1"), vector(lanes, "i32")
        sign = f.splat(f.typed(-(2**31), "i32"), bits)
        bad = f.alloca(flags)  # lanes with a sum of -0.0, which a zero might have made 0.0
        f.store(zero(flags), bad)
        images = f.select(finite, unit.images, f.typed(0, "i64"))
        with f.loop(0, images) as N, f.loop(0, unit.grid_h, strip) as Y:
            height = f.min(strip, f.sub(unit.grid_h, Y.i))
            row = f.mul(f.add(f.mul(N.i, unit.grid_h), Y.i), unit.grid_w)
            start = f.add(unit.start, f.mul(N.i, unit.image))
            start = f.add(start, f.mul(f.mul(Y.i, across), pitch))
            reach = f.add(f.mul(f.sub(height, 1), across), unit.grid_w)
            count = f.add(reach, span)
            last = f.add(f.add(start, first), f.mul(f.sub(reach, 1), pitch))
            pairs = f.gep(table, f.mul(f.sub(most, count), 2), "i64")
            with f.loop(0, channels, lanes) as C:
                at = f.mul(C.i, stride)
                f.call(
                    "lists", "void", f.gep(unit.slab, f.add(last, C.i), el), f.sub(0, pitch), pairs,
                    count, f.gep(lists, at, el), f.gep(places, at, "i32"),
                    f.gep(counts, C.i, "i64"), stride,
                )  # fmt: skip
            with f.loop(0, columns, lanes) as J, f.loop(0, k, KC) as K:
                stop = f.min(f.add(K.i, KC), k)
                with f.loop(0, f.add(count, span)) as S:
                    f.store(zero(tile.type), f.gep(sums, S.i, tile.type))
                with f.loop(f.div(K.i, taps), f.div(f.add(stop, f.sub(taps, 1)), taps)) as C:
                    meanwhile()
                    before = f.mul(C.i, taps)
                    low = f.max(f.sub(K.i, before), 0)
                    high = f.min(f.sub(stop, before), taps)
                    middle = f.add(low, f.mul(f.div(f.sub(high, low), _TAPS), _TAPS))
                    at = f.mul(C.i, stride)
                    own, where = f.gep(lists, at, el), f.gep(places, at, "i32")
                    number = f.load("i64", f.gep(counts, C.i, "i64"))
                    for step, begin, end in ((_TAPS, low, middle), (1, middle, high)):
                        with f.loop(begin, end, step) as T:
                            w = f.gep(b, f.add(f.mul(f.add(before, T.i), nr), J.i), el)
                            f.call(
                                f"add{step}", "void", sums, f.gep(unit.taps, T.i, "i64"), first,
                                pitch, own, where, number, w,
                            )  # fmt: skip
                with f.loop(0, height) as R, f.loop(0, unit.grid_w) as X:
                    at = f.add(f.add(f.mul(R.i, across), X.i), span)
                    v = f.load(tile.type, f.gep(sums, at, tile.type))
                    minus = f.icmp("eq", f.cast("bitcast", v, bits), sign)
                    f.store(f.op("or", f.load(flags, bad, 1), minus), bad, 1)
                    at = f.add(f.add(row, f.mul(R.i, unit.grid_w)), X.i)
                    place = f.gep(c, f.add(f.mul(at, nr), J.i), el)
                    f.store(_plus(f, v, place, K.i), place)
        good = f.icmp("eq", _count(f, f.load(flags, bad, 1)), 0)
        good = f.op("and", finite, good)
        way.otherwise()
    return way.merge("i1", good, "false")


def _emit_add(m: Module, tile: Tile, taps: int) -> None:
    """`add{taps}(sums, taps, first, pitch, list, places, count, w)`: each of the list's numbers
    times w to the sums of so many taps."""
    names = ("sums", "taps", "first", "pitch", "list", "places", "count", "w")
    wholes = ("first", "pitch", "count")
    args = [("i64" if n in wholes else "ptr", n) for n in names]
    f = m.function(f"add{taps}", args, internal=True)
    sums, offsets, first, pitch, list, places, count, w = (f.arg(n) for n in names)
    el, type = tile.element, tile.type
    offset = (f.load("i64", f.gep(offsets, t, "i64")) for t in range(taps))
    starts = [f.gep(sums, f.div(f.sub(first, o), pitch), type) for o in offset]
    weights = [f.load(type, f.gep(w, t * tile.columns, el)) for t in range(taps)]
    with f.loop(0, count) as K:
        place = f.cast("zext", f.load("i32", f.gep(places, K.i, "i32")), "i64")
        factor = f.splat(f.load(el, f.gep(list, K.i, el)), type)
        for start, weight in zip(starts, weights, strict=True):
            at = f.gep(start, place)
            f.store(f.fma(factor, weight, f.load(type, at)), at)
    f.ret()
