"""Convolution and its input gradient: the kernels that `conv` plans. See there for the method.

The ints are HEAD, then PART for each part, then the taps' offsets in the slab, then in w.
"""

from weft.core.dtype import BY_NAME, dtype
from weft.kernels.schedule.conv_pack import emit_pack, emit_plane, emit_thin, emit_unpack
from weft.kernels.schedule.micro import emit_multiply
from weft.kernels.schedule.tile import KC, Tile, tile_for
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import Function, Module, Operand, Value, const

HEAD = (
    "groups", "rows", "row_chunk", "row_chunks", "channels", "images", "unit_images",
    "band", "bands", "direct", "thin",
    "source_n", "source_c", "source_h", "source_w", "height", "width",
    "plane", "row_pitch", "phase_pitch", "phases", "slab_rows", "top", "left",
    "image_pitch", "row_step", "band_step", "out_n", "out_m",
    "gathered", "w_group", "w_row", "w_channel", "a_group", "work", "work_size",
    "panel_at", "c_at", "table_at", "items", "unit_items", "parts", "taps",
)  # fmt: skip
PART = (
    "k", "part_taps", "first_tap", "grid_h", "grid_w", "source_at", "out_at", "out_h", "out_w",
    "flat", "a_at", "first_item", "end_item",
)  # fmt: skip
_DEPTH_ROWS = 4  # rows of a depthwise convolution that are computed together


def conv_ir(name: str, kernel: str, *, biased: bool) -> str:
    """The LLVM IR of `kernel` (conv or depthwise) and of `gather` for one dtype, for the host."""
    d = BY_NAME[name]
    tile = tile_for(register(d))
    m = Module()
    emit_plane(m, tile, d)
    _emit_gather(m, tile, d, biased)
    if kernel == "depthwise":
        _emit_depthwise(m, tile, d, biased)
        return m.text()
    emit_multiply(m, tile)
    emit_pack(m, tile)
    emit_thin(m, tile)
    emit_unpack(m, tile, d)
    _emit_conv(m, tile, d, biased)
    return m.text()


def unit_of(f: Function, h: dict[str, Value], unit: Operand) -> tuple[Operand, ...]:
    """A unit's band of rows, first image, how many images, group, and where in the source it is."""
    band = f.rem(unit, h["bands"])
    rest = f.div(unit, h["bands"])
    chunks = f.div(f.add(h["images"], f.sub(h["unit_images"], 1)), h["unit_images"])
    image = f.mul(f.rem(rest, chunks), h["unit_images"])
    group = f.div(rest, chunks)
    images = f.min(f.sub(h["images"], image), h["unit_images"])
    at = f.add(f.mul(image, h["source_n"]), f.mul(f.mul(group, h["channels"]), h["source_c"]))
    return band, image, images, group, at


def _emit_conv(m: Module, tile: Tile, d: dtype, biased: bool) -> None:
    f = m.kernel("conv")
    el = tile.element
    pointers, scratch, h, ints = f.given(3 if biased else 2, HEAD)
    out, source, w = pointers[:3]
    bias = pointers[3] if biased else Value("null", "ptr")
    weights = f.select(f.icmp("ne", h["gathered"], 0), scratch, w)
    taps = f.gep(ints, f.mul(h["parts"], len(PART)), "i64")
    tid = f.thread()
    slab = f.gep(scratch, f.add(h["work"], f.mul(tid, h["work_size"])))
    panel, c, table = (f.gep(slab, h[n]) for n in ("panel_at", "c_at", "table_at"))
    rows = f.gep(table, 2, "i64")
    offsets = f.gep(rows, h["row_chunk"], "i64")
    low, high = f.split(h["items"])
    units = f.div(f.add(high, f.sub(h["unit_items"], 1)), h["unit_items"])
    with f.loop(f.div(low, h["unit_items"]), units) as U:
        band, image, images, group, at = unit_of(f, h, U.i)
        origin = f.gep(source, at, memory(d))
        with f.iff(f.icmp("eq", h["direct"], 0)):
            top = f.sub(h["top"], f.mul(band, h["band_step"]))
            _fill_slab(f, tile, d, h, slab, origin, images, top)
        base = f.select(f.icmp("ne", h["direct"], 0), origin, slab)
        skip = f.mul(U.i, h["unit_items"])
        with f.loop(0, h["parts"]) as P:
            part = read_part(f, ints, P.i)
            begin = f.max(f.sub(low, skip), part["first_item"])
            end = f.min(f.sub(high, skip), part["end_item"])
            with f.iff(f.icmp("slt", begin, end)):
                _fill_tables(f, h, part, taps, rows, offsets)
                y = f.mul(band, h["band"])
                grid_h = f.max(f.min(f.sub(part["grid_h"], y), h["band"]), 0)
                area = f.mul(grid_h, part["grid_w"])
                grid = (grid_h, part["grid_w"])
                flat = f.icmp("ne", part["flat"], 0)
                out_grid = (
                    f.select(flat, f.typed(1, "i64"), grid_h),
                    f.select(flat, area, part["grid_w"]),
                )
                start = f.gep(base, part["source_at"], el)
                with f.loop(begin, end) as I:
                    item = f.sub(I.i, part["first_item"])
                    column = f.mul(f.div(item, h["row_chunks"]), tile.columns)
                    columns = f.min(f.sub(f.mul(images, area), column), tile.columns)
                    row = f.mul(f.rem(item, h["row_chunks"]), h["row_chunk"])
                    count = f.min(f.sub(h["rows"], row), h["row_chunk"])
                    a = f.add(f.mul(group, h["a_group"]), part["a_at"])
                    a = f.gep(weights, f.add(a, f.mul(row, part["k"])), el)
                    with f.iff(f.icmp("sgt", columns, 0)):
                        # a sum without terms still runs once, and gives zeros
                        with f.loop(0, f.max(part["k"], 1), KC) as K:
                            kc = f.min(f.sub(part["k"], K.i), KC)
                            first = f.cast("zext", f.icmp("eq", K.i, 0), "i64")
                            window = (
                                f.gep(offsets, K.i, "i64"), kc, column, columns, *grid,
                                h["image_pitch"], h["row_step"],
                            )  # fmt: skip
                            with f.if_else(f.icmp("ne", h["thin"], 0)) as b:
                                at = f.gep(a, K.i, el)
                                f.call(
                                    "thin", "void", c, at, count, part["k"], first, start, *window
                                )
                                b.otherwise()
                                f.call("pack", "void", panel, start, *window)
                                f.store(K.i, table)
                                f.store(f.typed(kc, "i64"), f.gep(table, 1, "i64"))
                                f.call(
                                    "multiply", "void",
                                    a, rows, count, table, 1, panel, c, columns, first,
                                )  # fmt: skip
                        row = f.add(f.mul(group, h["rows"]), row)
                        to = f.add(f.mul(image, h["out_n"]), f.mul(row, h["out_m"]))
                        to = f.add(f.add(to, part["out_at"]), f.mul(y, part["out_h"]))
                        f.call(
                            "unpack", "void", f.gep(out, to, memory(d)), c,
                            f.gep(bias, row, memory(d)) if biased else bias, count, column, columns,
                            *out_grid, h["out_n"], part["out_h"], part["out_w"], h["out_m"],
                        )  # fmt: skip
    f.ret()


def _emit_depthwise(m: Module, tile: Tile, d: dtype, biased: bool) -> None:
    """One channel a group: a plane at a time, sums kept in registers, no panels.

    Needs parts of at most KC taps, units of one image and one band.
    """
    f = m.kernel("depthwise")
    el, type, lanes = tile.element, tile.type, tile.lanes
    pointers, scratch, h, ints = f.given(3 if biased else 2, HEAD)
    weights = f.select(f.icmp("ne", h["gathered"], 0), scratch, pointers[2])
    taps = f.gep(ints, f.mul(h["parts"], len(PART)), "i64")
    tid = f.thread()
    slab = f.gep(scratch, f.add(h["work"], f.mul(tid, h["work_size"])))
    room = f.alloca(type)
    one, wide = Element(f, 1), Element(f, lanes)

    def store(value: Value, at: Value, count: Operand, part: dict[str, Value]) -> None:
        value = wide.rounded(value, d)
        with f.if_else(f.icmp("eq", part["out_w"], 1)) as b:
            f.masked_store(wide.to_memory(value, d), at, f.lane_mask(count, lanes))
            b.otherwise()
            f.store(value, room)
            with f.loop(0, f.min(count, lanes)) as L:
                to = f.gep(at, f.mul(L.i, part["out_w"]), memory(d))
                one.store(f.load(el, f.gep(room, L.i, el)), to, d)

    low, high = f.split(f.mul(h["images"], h["groups"]))
    with f.loop(low, high) as U:
        image, group = f.div(U.i, h["groups"]), f.rem(U.i, h["groups"])
        at = f.add(f.mul(image, h["source_n"]), f.mul(group, h["source_c"]))
        origin = f.gep(pointers[1], at, memory(d))
        direct = f.icmp("ne", h["direct"], 0)
        with f.iff(f.icmp("eq", h["direct"], 0)):
            _fill_slab(f, tile, d, h, slab, origin, 1, h["top"])
        base = f.select(direct, origin, slab)
        out_at = f.add(f.mul(image, h["out_n"]), f.mul(group, h["out_m"]))
        # -0.0 leaves every sum as it is
        shift = const(el, -0.0)
        if biased:
            shift = one.load(f.gep(pointers[3], group, memory(d)), d)
        shift = f.splat(shift, type)
        with f.loop(0, h["parts"]) as P:
            part = read_part(f, ints, P.i)
            first_tap = f.gep(taps, part["first_tap"], "i64")
            w = f.gep(weights, f.add(f.mul(group, h["a_group"]), part["a_at"]), el)
            whole = f.op("and", part["grid_h"], -_DEPTH_ROWS)
            for first, end, rows in ((0, whole, _DEPTH_ROWS), (whole, part["grid_h"], 1)):
                with f.loop(first, end, rows) as Y, f.loop(0, part["grid_w"], 2 * lanes) as X:
                    length = f.sub(part["grid_w"], X.i)
                    place = f.add(part["source_at"], f.add(f.mul(Y.i, h["row_step"]), X.i))
                    start = f.gep(base, place, el)
                    to = f.add(f.mul(Y.i, part["out_h"]), f.mul(X.i, part["out_w"]))
                    to = f.gep(pointers[0], f.add(f.add(out_at, part["out_at"]), to), memory(d))
                    many = f.cast("zext", f.icmp("sgt", length, lanes), "i64")
                    for more in f.switch(many, (0,), 1):
                        n = more + 1
                        mask = f.lane_mask(f.sub(length, more * lanes), lanes)
                        zeros = [(type, const(type, 0.0))] * (rows * n)
                        with f.loop(0, part["part_taps"], carry=zeros) as T:
                            weight = f.splat(f.load(el, f.gep(w, T.i, el)), type)
                            tap = f.gep(start, f.load("i64", f.gep(first_tap, T.i, "i64")), el)
                            for i in range(rows * n):
                                v = f.gep(tap, f.mul(h["row_step"], i // n), el)
                                v = f.gep(v, i % n * lanes, el)
                                last = i % n == n - 1
                                v = f.masked_load(type, v, mask) if last else f.load(type, v)
                                T.next[i] = f.fma(weight, v, T.carry[i])
                        for i, value in enumerate(T.carry):
                            at = f.add(
                                f.mul(part["out_h"], i // n), f.mul(part["out_w"], i % n * lanes)
                            )
                            at = f.gep(to, at, memory(d))
                            left = f.sub(length, i % n * lanes)
                            store(f.op("fadd", value, shift), at, left, part)
    f.ret()


def _fill_slab(
    f: Function, tile: Tile, d: dtype, h: dict[str, Value], slab: Value, origin: Value,
    images: Operand, top: Operand,
) -> None:  # fmt: skip
    with f.loop(0, images) as N, f.loop(0, h["channels"]) as C:
        to = f.add(f.mul(N.i, h["image_pitch"]), f.mul(C.i, h["plane"]))
        at = f.add(f.mul(N.i, h["source_n"]), f.mul(C.i, h["source_c"]))
        f.call(
            "plane", "void", f.gep(slab, to, tile.element), f.gep(origin, at, memory(d)),
            h["slab_rows"], top, h["height"], h["source_h"], h["source_w"], h["row_pitch"],
            h["phase_pitch"], h["phases"], h["left"], h["width"],
        )  # fmt: skip


def _fill_tables(
    f: Function, h: dict[str, Value], part: dict[str, Value], taps: Value, rows: Value,
    offsets: Value,
) -> None:  # fmt: skip
    """Where k = (channel, tap) lies in the slab, and where the rows of A start."""
    first_tap = f.gep(taps, part["first_tap"], "i64")
    with f.loop(0, h["channels"]) as C, f.loop(0, part["part_taps"]) as T:
        value = f.add(f.mul(C.i, h["plane"]), f.load("i64", f.gep(first_tap, T.i, "i64")))
        place = f.add(f.mul(C.i, part["part_taps"]), T.i)
        f.store(f.typed(value, "i64"), f.gep(offsets, place, "i64"))
    with f.loop(0, h["row_chunk"]) as R:
        f.store(f.typed(f.mul(R.i, part["k"]), "i64"), f.gep(rows, R.i, "i64"))


def read_part(
    f: Function, ints: Value, part: Operand, names: tuple[str, ...] = PART
) -> dict[str, Value]:
    """The named ints of a part."""
    return f.named(f.gep(ints, f.mul(part, len(names)), "i64"), names)


def _emit_gather(m: Module, tile: Tile, d: dtype, biased: bool) -> None:
    """A[group][part][row][channel][tap] from w, into scratch: the stage before."""
    f = m.kernel("gather")
    el, one = tile.element, Element(f, 1)
    pointers, scratch, h, ints = f.given(3 if biased else 2, HEAD)
    taps = f.gep(ints, f.add(f.mul(h["parts"], len(PART)), h["taps"]), "i64")
    low, high = f.split(f.mul(h["groups"], h["rows"]))
    with f.loop(low, high) as R:
        group, row = f.div(R.i, h["rows"]), f.rem(R.i, h["rows"])
        at = f.add(f.mul(group, h["w_group"]), f.mul(row, h["w_row"]))
        source = f.gep(pointers[2], at, memory(d))
        with f.loop(0, h["parts"]) as P:
            part = read_part(f, ints, P.i)
            place = f.add(f.mul(group, h["a_group"]), part["a_at"])
            to = f.gep(scratch, f.add(place, f.mul(row, part["k"])), el)
            first_tap = f.gep(taps, part["first_tap"], "i64")
            with f.loop(0, h["channels"]) as C, f.loop(0, part["part_taps"]) as T:
                tap = f.load("i64", f.gep(first_tap, T.i, "i64"))
                value = one.load(
                    f.gep(source, f.add(f.mul(C.i, h["w_channel"]), tap), memory(d)), d
                )
                f.store(value, f.gep(to, f.add(f.mul(C.i, part["part_taps"]), T.i), el))
    f.ret()
