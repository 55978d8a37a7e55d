"""Moving images for the convolutions: image -> slab -> packed panel, and computed panel -> image.

Where vectors hold channels a *slab* is some rows of an image with their zero border, the channels
of a pixel adjacent (`emit_slab`).  Elsewhere it is a copy of a few channels of an image with its
zero border: [channel][row][phase][position], where a column c of the padded image lies at phase
c % stride, position c // stride. So whatever the stride, padding and dilation, the values that one
tap of the kernel needs for one row of outputs are consecutive, and a panel is packed by plain
vector copies. Outputs are columns of a grid [image][row][column]; a *run* is the part of one grid
row inside a panel.
"""

from collections.abc import Iterator
from functools import partial

from weft.core.dtype import dtype
from weft.kernels.schedule.tile import Tile
from weft.kernels.schedule.words import units_of
from weft.kernels.target.element import Element, memory
from weft.kernels.target.llvm import (
    BYTES,
    Function,
    Module,
    Operand,
    Value,
    const,
    lane_numbers,
    lanes_of,
    vector,
    zero,
)

THIN = 4  # rows that meet the slab where it lies: packing it would cost as much
_PLANE = ("row_count", "top", "height", "stride_h", "stride_w", "row_pitch", "phase_pitch")
_PLANE += ("phases", "left", "width")
_WINDOW = [
    ("ptr noalias readonly", "offsets"),
    *(("i64", n) for n in ("kc", "column", "columns", "grid_h", "grid_w")),
    *(("i64", n) for n in ("image_pitch", "row_step")),
]
_GRID = ("k", "kc", "columns", "grid_h", "grid_w", "stride_n", "stride_c", "stride_h", "stride_w")
_GRID += ("pixels",)
_UNPACK = ("rows", "column", "columns", "grid_h", "grid_w")
_UNPACK += ("stride_n", "stride_h", "stride_w", "stride_m")


def emit_plane(
    m: Module, tile: Tile, source: dtype, fill: float = 0.0, name: str = "plane"
) -> None:
    """`name(dst, src, ...)`: one channel of an image into its slab.

    Slab row r is image row r - top; `fill` outside the image. `source` is the image's dtype; the
    slab holds `tile.element`.
    """
    f = m.function(
        name,
        [("ptr noalias", "dst"), ("ptr noalias", "src"), *(("i64", n) for n in _PLANE)],
        internal=True,
    )
    dst, src = f.arg("dst"), f.arg("src")
    count, top, height, stride_h, stride_w, pitch, length, phases, left, width = (
        f.arg(n) for n in _PLANE
    )
    step = f.mul(phases, stride_w)
    memory_type = memory(source)
    wide, one = Element(f, tile.lanes), Element(f, 1)
    with f.loop(0, phases) as P:
        # position p holds image column p * phases + phase - left
        first = f.div(f.sub(f.add(f.add(left, phases), -1), P.i), phases)
        end = f.div(f.sub(f.add(f.add(f.add(left, width), phases), -1), P.i), phases)
        end = f.min(end, length)
        first = f.min(first, end)
        with f.loop(0, count) as R:
            y = f.sub(R.i, top)
            inside = f.icmp("ult", y, height)
            row_source = f.gep(src, f.mul(y, stride_h), memory_type)
            row = f.gep(dst, f.mul(R.i, pitch), tile.element)
            low, high = f.select(inside, first, length), f.select(inside, end, length)
            to = f.gep(row, f.mul(P.i, length), tile.element)
            _fill(f, tile, to, 0, low, fill)
            _fill(f, tile, to, high, length, fill)
            origin = f.gep(row_source, f.mul(f.sub(P.i, left), stride_w), memory_type)
            for case in f.switch(step, (1, 2), 0):
                if case == 0:
                    with f.loop(low, high) as L:
                        v = one.load(f.gep(origin, f.mul(L.i, step), memory_type), source)
                        f.store(v, f.gep(to, L.i, tile.element))
                    continue
                with f.loop(low, high, tile.lanes) as L:
                    left_over = f.sub(high, L.i)
                    at = f.gep(origin, f.mul(L.i, case), memory_type)
                    v = wide.from_memory(load_step(f, wide, at, source, left_over, case), source)
                    mask = f.lane_mask(left_over, tile.lanes)
                    f.masked_store(v, f.gep(to, L.i, tile.element), mask)
    f.ret()


def load_step(
    f: Function, wide: Element, at: Value, source: dtype, count: Operand, step: int
) -> Value:
    """`count` (at most the lanes) elements, every one or second; nothing past them is read."""
    type, lanes = wide.memory_type(source), wide.lanes
    if step == 1:
        return f.masked_load(type, at, f.lane_mask(count, lanes))
    span = f.sub(f.mul(count, 2), 1)
    a = f.masked_load(type, at, f.lane_mask(span, lanes))
    b = f.masked_load(
        type, f.gep(at, lanes, memory(source)), f.lane_mask(f.sub(span, lanes), lanes)
    )
    return f.shuffle(a, b, range(0, 2 * lanes, 2))


def _fill(f: Function, tile: Tile, to: Value, low: Operand, high: Operand, fill: float) -> None:
    with f.loop(low, high, tile.lanes) as L:
        mask = f.lane_mask(f.sub(high, L.i), tile.lanes)
        f.masked_store(const(tile.type, fill), f.gep(to, L.i, tile.element), mask)


def runs(
    f: Function, column: Operand, columns: Operand, grid_h: Operand, grid_w: Operand
) -> Iterator[tuple[Operand, Operand, Operand, Operand, Operand]]:
    """The runs of grid columns [column, column + columns).

    Gives (image, row, column in the row, place in the panel, length). A generator of one loop: use
    it as `for image, y, x, at, length in runs(...)`.
    """
    end = f.add(column, columns)
    first = f.div(column, grid_w)
    # the first run's image and row are divided out, the next ones counted: a division is slow
    start = [("i64", f.div(first, grid_h)), ("i64", f.rem(first, grid_h))]
    origin = f.mul(first, grid_w)
    with f.loop(origin, end, grid_w, carry=start) as R:
        image, y = R.carry
        low = f.max(column, R.i)
        high = f.min(end, f.add(R.i, grid_w))
        yield image, y, f.sub(low, R.i), f.sub(low, column), f.sub(high, low)
        below = f.add(y, 1)
        wrap = f.icmp("eq", below, grid_h)
        R.next = [
            f.add(image, f.cast("zext", wrap, "i64")),
            f.select(wrap, f.typed(0, "i64"), below),
        ]


def emit_pack(m: Module, tile: Tile) -> None:
    """`pack(panel, slab, offsets, ...)`: panel[k][j] = slab[place of column j + offsets[k]]."""
    pointers = [("ptr noalias", "panel"), ("ptr noalias readonly", "slab")]
    f = m.function("pack", [*pointers, *_WINDOW], internal=True, driver=True)
    panel, element, lanes = f.arg("panel"), tile.element, tile.lanes
    for source, at, length in _sources(f, tile):
        target = f.gep(panel, at, element)
        vectors = f.div(f.add(length, lanes - 1), lanes)
        for n in f.switch(vectors, range(1, tile.vectors), tile.vectors):
            mask = f.lane_mask(f.sub(length, (n - 1) * lanes), lanes)
            with f.loop(0, f.arg("kc")) as K:
                s = f.gep(source, f.load("i64", f.gep(f.arg("offsets"), K.i, "i64")), element)
                t = f.gep(target, f.mul(K.i, tile.columns), element)
                for j in range(n):
                    s1, t1 = f.gep(s, j * lanes, element), f.gep(t, j * lanes, element)
                    if j < n - 1:
                        f.store(f.load(tile.type, s1), t1)
                    else:
                        f.masked_store(f.masked_load(tile.type, s1, mask), t1, mask)
    f.ret()


def emit_thin(m: Module, tile: Tile) -> None:
    """`thin(c, a, rows, a_step, first, slab, ...)`: pack and multiply up to THIN rows in place.

    c[m][j] (+)= sum over k of a[m * a_step + k] * slab[place of column j + offsets[k]].
    """
    names = [("i64", "rows"), ("i64", "a_step"), ("i64", "first")]
    pointers = [("ptr noalias", "c"), ("ptr noalias readonly", "a")]
    f = m.function(
        "thin", [*pointers, *names, ("ptr noalias readonly", "slab"), *_WINDOW], internal=True
    )
    c, a, rows, a_step, first = (f.arg(n) for n in ("c", "a", "rows", "a_step", "first"))
    type, element, lanes = tile.type, tile.element, tile.lanes
    later = f.icmp("eq", first, 0)
    for source, at, length in _sources(f, tile):
        vectors = f.div(f.add(length, lanes - 1), lanes)
        for height in f.switch(rows, range(1, THIN), THIN):
            for n in f.switch(vectors, range(1, tile.vectors), tile.vectors):
                mask = f.lane_mask(f.sub(length, (n - 1) * lanes), lanes)
                with f.loop(0, f.arg("kc"), carry=[(type, const(type, 0.0))] * (height * n)) as K:
                    s = f.gep(source, f.load("i64", f.gep(f.arg("offsets"), K.i, "i64")), element)
                    right = [f.load(type, f.gep(s, j * lanes, element)) for j in range(n - 1)]
                    last = f.gep(s, (n - 1) * lanes, element)
                    right.append(f.masked_load(type, last, mask))
                    for i in range(height):
                        place = f.add(f.mul(a_step, i), K.i)
                        left = f.splat(f.load(element, f.gep(a, place, element)), type)
                        for j in range(n):
                            K.next[i * n + j] = f.fma(left, right[j], K.carry[i * n + j])
                for k, value in enumerate(K.carry):
                    i, j = divmod(k, n)
                    to = f.gep(c, f.add(at, i * tile.columns + j * lanes), element)
                    every = const(mask.type, True)
                    where = mask if j == n - 1 else every
                    old = f.masked_load(type, to, f.select(later, where, const(mask.type, False)))
                    value = f.select(later, f.op("fadd", old, value), value)
                    f.masked_store(value, to, where)
    f.ret()


def _sources(f: Function, tile: Tile) -> Iterator[tuple[Value, Operand, Operand]]:
    """For each run of the window: (where it lies in the slab, its place in the panel, length)."""
    column, columns, grid_h, grid_w, image_pitch, row_step = (f.arg(n) for _, n in _WINDOW[2:])
    for image, y, x, at, length in runs(f, column, columns, grid_h, grid_w):
        place = f.add(f.add(f.mul(image, image_pitch), f.mul(y, row_step)), x)
        yield f.gep(f.arg("slab"), place, tile.element), at, length


def emit_unpack(m: Module, tile: Tile, d: dtype) -> None:
    """`unpack(out, c, bias, ...)`: out[image, m, y, x] = c[m][j] (+ bias[m] unless it is null)."""
    pointers = [
        ("ptr noalias", "out"), ("ptr noalias readonly", "c"), ("ptr noalias readonly", "bias")
    ]  # fmt: skip
    f = m.function("unpack", [*pointers, *(("i64", n) for n in _UNPACK)], internal=True)
    out, c, bias = (f.arg(n) for _, n in pointers)
    rows, column, columns, grid_h, grid_w, stride_n, stride_h, stride_w, stride_m = (
        f.arg(n) for n in _UNPACK
    )
    element, lanes = tile.element, tile.lanes
    one, wide = Element(f, 1), Element(f, lanes)
    biased = f.icmp("ne", bias, Value("null", "ptr"))
    for image, y, x, at, length in runs(f, column, columns, grid_h, grid_w):
        place = f.add(f.add(f.mul(image, stride_n), f.mul(y, stride_h)), f.mul(x, stride_w))
        target, source = f.gep(out, place, memory(d)), f.gep(c, at, element)
        with f.loop(0, rows) as M:
            s = f.gep(source, f.mul(M.i, tile.columns), element)
            t = f.gep(target, f.mul(M.i, stride_m), memory(d))
            with f.if_else(biased) as b:
                loaded = one.load(f.gep(bias, M.i, memory(d)), d)
                b.otherwise()
            # -0.0 is what leaves every sum as it is, a zero's sign included
            shift = b.merge(element, loaded, const(element, -0.0))
            for step in f.switch(stride_w, (1, 2), 0):
                if step:
                    shifts = f.splat(shift, tile.type)
                    with f.loop(0, length, lanes) as L:
                        left = f.sub(length, L.i)
                        mask = f.lane_mask(left, lanes)
                        v = f.masked_load(tile.type, f.gep(s, L.i, element), mask)
                        v = wide.stored(f.op("fadd", v, shifts), d)
                        to = f.gep(t, f.mul(L.i, step), memory(d))
                        store_step(f, v, to, step_masks(f, left, lanes, step), d)
                    continue
                with f.loop(0, length) as L:
                    v = f.op("fadd", f.load(element, f.gep(s, L.i, element)), shift)
                    one.store(one.rounded(v, d), f.gep(t, f.mul(L.i, stride_w), memory(d)), d)
    f.ret()


def step_masks(f: Function, count: Operand, lanes: int, step: int) -> list[Value]:
    """For `store_step` of the first `count` elements."""
    if step == 1:
        return [f.lane_mask(count, lanes)]
    numbers = lane_numbers(vector(lanes, "i32"))
    even = f.icmp("eq", f.op("and", numbers, 1), 0)
    reach = f.mul(count, 2)
    return [f.op("and", f.lane_mask(f.sub(reach, half * lanes), lanes), even) for half in (0, 1)]


def store_step(f: Function, v: Value, at: Value, masks: list[Value], d: dtype) -> None:
    """Elements of a vector, to every place or (two masks) every second; others are left."""
    if len(masks) == 1:
        f.masked_store(v, at, masks[0])
        return
    lanes = lanes_of(v.type)
    for half, mask in enumerate(masks):
        apart = f.shuffle(v, v, [(i + half * lanes) // 2 for i in range(lanes)])
        f.masked_store(apart, f.gep(at, half * lanes, memory(d)), mask)


FEW = 4  # so many channels or fewer have no more room a pixel, if a vector holds them
_SLAB = ("rows", "columns", "channels", "pitch", "row_pitch", "top", "left", "step_y", "step_x")
_SLAB += ("height", "width", "source_c", "source_h", "source_w")


def emit_slab(m: Module, tile: Tile, d: dtype) -> None:
    """`slab(to, from, ...)`: one image as [row][column][unit of channels], zeros around it.

    Row r, column c of the slab are row r step_y - top, column c step_x - left of the image. A pixel
    has room for `pitch` units, whole vectors or `FEW`; what follows the last one, and up to a
    vector behind the slab, is any number.
    """
    for apart in (1, 2):
        _emit_square(m, tile, d, apart)
    pointers = [("ptr noalias", "to"), ("ptr noalias readonly", "from")]
    f = m.function("slab", [*pointers, *(("i64", n) for n in _SLAB)], internal=True)
    to, source = f.arg("to"), f.arg("from")
    rows, columns, channels, pitch, row_pitch, top, left, step_y, step_x = (
        f.arg(n) for n in _SLAB[:9]
    )
    height, width, source_c, source_h, source_w = (f.arg(n) for n in _SLAB[9:])
    el, lanes, type = tile.element, tile.lanes, tile.type
    reads = units_of(f, d, lanes, pairs=tile.pairs)
    one, units = Element(f, 1).memory_type(d), reads.units(channels)
    step = f.mul(step_x, source_w)
    near = f.op("or", f.icmp("eq", step, 1), f.icmp("eq", step, 2))
    kind = f.select(near, f.typed(1, "i64"), f.typed(2, "i64"))
    kind = f.select(f.icmp("eq", source_c, 1), f.typed(0, "i64"), kind)
    first = f.min(f.div(f.add(left, f.sub(step_x, 1)), step_x), columns)
    end = f.div(f.add(f.add(left, width), f.sub(step_x, 1)), step_x)
    end = f.max(f.min(end, columns), first)
    full = channels if reads.per == 1 else f.div(channels, reads.per)  # an odd one is masked
    whole = f.op("and", full, -lanes)
    numbers = f.mul(whole, reads.per)
    rest = reads.masks(f.sub(channels, numbers))
    with f.loop(0, rows) as R:
        y = f.sub(f.mul(R.i, step_y), top)
        inside = f.icmp("ult", y, height)
        low, high = f.select(inside, first, columns), f.select(inside, end, columns)
        row = f.gep(to, f.mul(R.i, row_pitch), el)

        def border(start: Operand, stop: Operand, row: Value = row) -> None:
            with f.loop(f.mul(start, pitch), f.mul(stop, pitch), lanes) as Z:
                f.store(zero(type), f.gep(row, Z.i, el))

        border(0, low)  # what a vector writes too far is written again
        at = f.sub(f.mul(y, source_h), f.mul(left, source_w))
        origin = f.gep(source, at, memory(d))
        for case in f.switch(kind, (0, 1), 2):
            if case == 0:
                with f.loop(low, high) as X:
                    pixel = f.gep(origin, f.mul(X.i, step), memory(d))
                    target = f.gep(row, f.mul(X.i, pitch), el)
                    with f.loop(0, whole, lanes) as C:
                        v = reads.adjacent(f.gep(pixel, f.mul(C.i, reads.per), memory(d)))
                        f.store(v, f.gep(target, C.i, el))
                    with f.iff(f.icmp("slt", whole, units)):
                        v = reads.adjacent(f.gep(pixel, numbers, memory(d)), rest)
                        f.store(v, f.gep(target, whole, el))
            elif case == 1:
                with f.loop(0, units, lanes) as C, f.loop(low, high, lanes) as X:
                    count = f.min(f.sub(high, X.i), lanes)
                    channel = f.mul(C.i, reads.per)
                    at = f.add(f.mul(channel, source_c), f.mul(X.i, step))
                    target = f.gep(f.gep(row, C.i, el), f.mul(X.i, pitch), el)
                    for apart in f.switch(step, (1,), 2):
                        f.call(
                            f"square{apart}", "void", target, f.gep(origin, at, memory(d)), pitch,
                            source_c, f.sub(channels, channel), count,
                            f.mul(f.mul(step_y, source_h), d.itemsize),
                        )  # fmt: skip
            else:
                if tile.amx:  # the rest of a pixel's last vector is read
                    at = f.op("and", f.max(f.sub(units, 1), 0), -lanes)
                    with f.loop(low, high) as X:
                        place = f.gep(row, f.add(f.mul(X.i, pitch), at), el)
                        f.store(zero(type), place)
                with f.loop(low, high) as X, f.loop(0, units) as C:
                    channel = f.mul(C.i, reads.per)
                    at = f.add(f.mul(X.i, step), f.mul(channel, source_c))
                    more = f.icmp("slt", f.add(channel, 1), channels)
                    load = partial(f.load, one)
                    v = reads.unit(load, f.gep(origin, at, memory(d)), source_c, more, width=1)
                    f.store(v, f.gep(f.gep(row, f.mul(X.i, pitch), el), C.i, el))
        border(high, columns)
    f.ret()


def _emit_square(m: Module, tile: Tile, d: dtype, apart: int) -> None:
    """`count` pixels, `apart` elements apart in each channel's plane, of a vector of units: a
    function, for loops around so many addresses take the compiler long. Of adjacent ones those of
    the next row, `below` bytes on, are asked for: the hardware does not follow so many planes.
    """
    args = [("ptr noalias", "to"), ("ptr noalias readonly", "from")]
    ints = [("i64", n) for n in ("pitch", "source_c", "channels", "count", "below")]
    f = m.function(f"square{apart}", [*args, *ints], internal=True)
    wide, count, channels = Element(f, tile.lanes), f.arg("count"), f.arg("channels")
    reads = units_of(f, d, tile.lanes, pairs=tile.pairs)
    last = f.sub(reads.units(channels), 1)

    def plane(j: int) -> Value:
        v = given(j)
        if not tile.amx:
            return v
        return f.select(f.icmp("sge", last, j), v, zero(tile.type))

    def given(j: int) -> Value:
        # a missing unit repeats the last one: nobody reads it
        channel = f.mul(f.min(last, j), reads.per)
        at = f.gep(f.arg("from"), f.mul(channel, f.arg("source_c")), memory(d))
        more = f.icmp("slt", f.add(channel, 1), channels)
        if apart == 1:
            f.touch(f.gep(at, f.arg("below")), level=2)
        load = lambda at: load_step(f, wide, at, d, count, apart)
        return reads.unit(load, at, f.arg("source_c"), more)

    few = (1, 2, FEW) if tile.amx else (FEW,)
    for case in f.switch(f.arg("pitch"), few, 0):
        if not case:
            square = f.transpose([plane(j) for j in range(tile.lanes)])
            store_some(f, square, f.arg("to"), f.arg("pitch"), count, tile.element)
            continue
        for i, v in enumerate(_beside(f, [plane(j) for j in range(case)])):
            with f.iff(f.icmp("slt", f.typed(i * tile.lanes // case, "i64"), count)):
                f.store(v, f.gep(f.arg("to"), i * tile.lanes, tile.element))
    f.ret()


def _beside(f: Function, planes: list[Value]) -> list[Value]:
    """One, two or four vectors, an element of each after the other."""
    lanes = lanes_of(planes[0].type)
    if len(planes) < FEW:
        every = range(lanes * len(planes))
        order = [q // len(planes) + q % len(planes) * lanes for q in every]
        parts = [order[i : i + lanes] for i in range(0, len(order), lanes)]
        return [f.shuffle(planes[0], planes[-1], part) for part in parts]
    half = lanes // 2
    pairs = [
        [f.shuffle(a, b, [lanes * (q % 2) + at + q // 2 for q in range(lanes)]) for at in (0, half)]
        for a, b in (planes[:2], planes[2:])
    ]
    found = []
    for i in range(FEW):
        places = [divmod(i * lanes + q, FEW) for q in range(lanes)]
        side = places[0][0] // half
        found.append(
            f.shuffle(
                pairs[0][side], pairs[1][side],
                [lanes * (c // 2) + 2 * (p - half * side) + c % 2 for p, c in places],
            )
        )  # fmt: skip
    return found


def emit_grid(m: Module, tile: Tile, d: dtype) -> None:
    """`pack(panel, g, ...)`: panel[i][j] = g[image, co j, y, x] of the grid's element k + i; in
    words of two neighbours of a run of `pixels`.

    Writes up to `lanes` rows past the block, which later rows or nobody use.
    """
    f = m.function(
        "pack",
        [("ptr noalias", "panel"), ("ptr noalias readonly", "g"), *(("i64", n) for n in _GRID)],
        internal=True,
    )
    panel, g = f.arg("panel"), f.arg("g")
    k, kc, columns, grid_h, grid_w, stride_n, stride_c, stride_h, stride_w, pixels = (
        f.arg(n) for n in _GRID
    )
    el, lanes = tile.element, tile.lanes
    reads = units_of(f, d, lanes, pairs=tile.pairs)
    dense, near = f.icmp("eq", stride_w, 1), f.icmp("eq", stride_c, 1)
    kind = f.select(dense, f.typed(1, "i64"), f.typed(2, "i64"))
    kind = f.select(near, f.typed(0, "i64"), kind)
    for image, y, x, at, length in runs(f, k, kc, grid_h, grid_w):
        first = f.mul(x, reads.per)
        place = f.add(f.add(f.mul(image, stride_n), f.mul(y, stride_h)), f.mul(first, stride_w))
        left = f.sub(pixels, first)
        source = f.gep(g, place, memory(d))
        target = f.gep(panel, f.mul(at, tile.columns), el)
        for case in f.switch(kind, (0, 1), 2):
            if case == 0:
                with f.loop(0, columns, lanes) as J:
                    mask = f.lane_mask(f.sub(columns, J.i), lanes)
                    load = partial(f.masked_load, vector(lanes, memory(d)), mask=mask)
                    with f.loop(0, length) as L:
                        pixel = f.mul(L.i, reads.per)
                        at = f.gep(source, f.add(f.mul(pixel, stride_w), J.i), memory(d))
                        more = f.icmp("slt", f.add(pixel, 1), left)
                        v = reads.unit(load, at, stride_w, more)
                        to = f.gep(target, f.add(f.mul(L.i, tile.columns), J.i), el)
                        f.store(v, to, tile.align)
            elif case == 1:
                with f.loop(0, columns, lanes) as J:
                    # a missing column repeats the last one: its sums are thrown away
                    places = [
                        f.mul(f.min(f.add(J.i, j), f.sub(columns, 1)), stride_c)
                        for j in range(lanes)
                    ]
                    starts = [f.gep(source, p, memory(d)) for p in places]
                    with f.loop(0, length, lanes) as L:
                        pixel = f.mul(L.i, reads.per)
                        count = f.min(f.sub(f.mul(length, reads.per), pixel), f.sub(left, pixel))
                        masks = reads.masks(count)
                        v = [reads.adjacent(f.gep(s, pixel, memory(d)), masks) for s in starts]
                        to = f.gep(target, f.add(f.mul(L.i, tile.columns), J.i), el)
                        for i, row in enumerate(f.transpose(v)):
                            f.store(row, f.gep(to, i * tile.columns, el), tile.align)
            else:
                load = partial(f.load, memory(d))
                with f.loop(0, columns) as J, f.loop(0, length) as L:
                    pixel = f.mul(L.i, reads.per)
                    at = f.gep(
                        source, f.add(f.mul(J.i, stride_c), f.mul(pixel, stride_w)), memory(d)
                    )
                    more = f.icmp("slt", f.add(pixel, 1), left)
                    to = f.add(f.mul(L.i, tile.columns), J.i)
                    f.store(reads.unit(load, at, stride_w, more, width=1), f.gep(target, to, el))
    f.ret()


def store_some(
    f: Function, square: list[Value], to: Value, pitch: Operand, count: Operand, element: str, *,
    stream: bool = False,
) -> None:  # fmt: skip
    """The first `count` of the vectors, each whole, `pitch` elements apart; those of a whole square
    may `stream` past the caches, to places of whole vectors.
    """
    every = f.icmp("sge", count, len(square))
    align = len(square) * BYTES[element] if stream else None
    with f.if_else(every) as way:
        for i, v in enumerate(square):
            f.store(v, f.gep(to, f.mul(pitch, i), element), align, stream=stream)
        way.otherwise()
        for i, v in enumerate(square[:-1]):
            with f.iff(f.icmp("slt", f.typed(i, "i64"), count)):
                f.store(v, f.gep(to, f.mul(pitch, i), element))
