"""The weight gradient of groups of few channels: the sums of `conv_weight`, bit for bit.

A vector holds a tap of adjacent channels of g, each with one of x of its group, so both are turned
to [position][channel] first: rows of adjacent elements from where they lie, others from a copy. An
output is one chain over k = (n, oy, ox): the only independent sums are taps and channels. Threads
take (block of channels, chunk of taps).
"""

from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.conv import Pair
from weft.kernels.schedule.conv_pack import emit_plane, runs
from weft.kernels.schedule.conv_wide import reach
from weft.kernels.schedule.nest import one_stage
from weft.kernels.schedule.tile import KC, Tile, tile_for, up
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import Function, Module, Operand, Value, const, zero
from weft.runtime import native
from weft.runtime.native import Launch

_TAPS = 9  # taps a chunk: as many sums as sixteen registers hold
_HEAD = (
    "channels", "blocks", "taps", "chunks", "images", "area", "grid_h", "grid_w",
    "x_n", "x_c", "x_h", "x_w", "height", "width", "g_n", "g_c", "g_h", "g_w",
    "slab_rows", "top", "left", "row_pitch", "step_h", "step_w",
    "x_pitch", "g_pitch", "xt_at", "g_at", "gt_at", "sums_at", "work_size",
)  # fmt: skip


def is_narrow(out: Layout, groups: int, x: Layout) -> bool:
    """Whether the kernel serves."""
    co, width = out.shape[:2]
    lanes = tile_for(register(D.from_np(out.dtype))).lanes
    same = co == x.shape[1] and co == groups * width
    return same and groups > 1 and width in (1, 2, 4) and lanes % width == 0


def plan_narrow_dw(
    g: Layout, x: Layout, out: Layout, stride: Pair, padding: Pair, dilation: Pair
) -> Launch:
    """As `plan_conv2d_dw`, which has checked the layouts; nothing empty."""
    d = D.from_np(out.dtype)
    tile = tile_for(register(d))
    size, lanes = tile.itemsize, tile.lanes
    images, channels, oh, ow = g.shape
    width, kernel = out.shape[1], (out.shape[2], out.shape[3])
    rows, columns, offsets = reach(kernel, (oh, ow), stride, dilation)
    x_pitch, g_pitch = rows * columns + lanes, oh * ow + lanes
    xt_at = up(lanes * x_pitch * size)
    g_at = xt_at * 2
    gt_at = g_at + up(lanes * g_pitch * size)
    sums_at = 2 * gt_at - g_at
    most = min(_TAPS, 3 * native.host().registers // 4 // width)
    blocks, chunks = -(-channels // lanes), -(-len(offsets) // most)
    each = most if width == 1 else -(-len(offsets) // chunks)
    values = (
        channels, blocks, len(offsets), chunks, images, oh * ow, oh, ow,
        *x.strides, *x.shape[2:], *g.strides, rows, *padding, columns, *stride,
        x_pitch, g_pitch, xt_at, g_at, gt_at, sums_at,
        sums_at + up(2 * each * width * lanes * size),
    )  # fmt: skip
    # a last chunk repeats the last tap
    offsets += offsets[-1:] * (chunks * each - len(offsets))
    work = 2 * g.size * width * len(offsets)
    return one_stage(_kernel(d.name, width, each), (*values, *offsets), work, values[-1])


@cache
def _kernel(name: str, width: int, taps: int) -> int:
    return native.load_made(["narrow_dw"], narrow_dw_ir, name, width, taps)["narrow_dw"]


def narrow_dw_ir(name: str, width: int, taps: int) -> str:
    """The LLVM IR of the kernel of one dtype, groups of `width` channels, chunks of `taps`."""
    d = D.BY_NAME[name]
    tile = tile_for(register(d))
    m = Module()
    emit_plane(m, tile, d)
    _emit_turn(m, tile)
    if d.itemsize >= 4:
        _emit_turn_rows(m, tile)
    _emit_kernel(m, tile, d, width, taps)
    return m.text()


def _emit_turn(m: Module, tile: Tile) -> None:
    """`turn(to, from, pitch)`: to[position][lane] = from[lane][position], pitch positions."""
    f = m.function(
        "turn",
        [("ptr noalias", "to"), ("ptr noalias readonly", "from"), ("i64", "pitch")],
        internal=True,
    )
    el, pitch = tile.element, f.arg("pitch")
    starts = [f.gep(f.arg("from"), f.mul(pitch, i), el) for i in range(tile.lanes)]
    # a pitch has room for one vector more than there are positions
    with f.loop(0, f.sub(pitch, tile.lanes), tile.lanes) as P:
        rows = f.transpose([f.load(tile.type, f.gep(s, P.i, el)) for s in starts])
        to = f.gep(f.arg("to"), f.mul(P.i, tile.lanes), el)
        for i, row in enumerate(rows):
            f.store(row, f.gep(to, i * tile.lanes, el), tile.align)
    f.ret()


def _emit_turn_rows(m: Module, tile: Tile) -> None:
    """`turn_rows(to, from, lanes, step, rows, row_step, width, pitch)`: to[row * pitch + x][lane] =
    from[lane * step][row * row_step + x], the last of `lanes` repeated; zeros where a vector of
    positions passes the row's end, which the next row writes over."""
    names = ("lanes", "step", "rows", "row_step", "width", "pitch")
    f = m.function(
        "turn_rows",
        [("ptr noalias", "to"), ("ptr noalias readonly", "from"), *(("i64", n) for n in names)],
        internal=True,
    )
    el = tile.element
    to, source = f.arg("to"), f.arg("from")
    count, step, rows, row_step, width, pitch = (f.arg(n) for n in names)
    starts = [f.gep(source, f.mul(f.min(f.sub(count, 1), i), step), el) for i in range(tile.lanes)]
    with f.loop(0, rows) as R:
        at, line = f.mul(R.i, row_step), f.mul(R.i, pitch)
        with f.loop(0, width, tile.lanes) as X:
            mask = f.lane_mask(f.sub(width, X.i), tile.lanes)
            here = f.add(at, X.i)
            turned = f.transpose(
                [f.masked_load(tile.type, f.gep(s, here, el), mask) for s in starts]
            )
            place = f.gep(to, f.mul(f.add(line, X.i), tile.lanes), el)
            for i, row in enumerate(turned):
                f.store(row, f.gep(place, i * tile.lanes, el), tile.align)
    f.ret()


def _emit_kernel(m: Module, tile: Tile, d: D.dtype, members: int, each: int) -> None:
    f, rooms = m.kernel("narrow_dw"), range(each * members)
    el, type, lanes, one = tile.element, tile.type, tile.lanes, Element(f, 1)
    (out, g, x), scratch, h, offsets = f.given(2, _HEAD)
    planes = f.gep(scratch, f.mul(f.thread(), h["work_size"]))
    turned, g_planes, g_turned, block_sums = (
        f.gep(planes, h[n]) for n in ("xt_at", "g_at", "gt_at", "sums_at")
    )
    sums = f.gep(block_sums, len(rooms) * lanes, el)
    wide = f.typed(int(d.itemsize >= 4), "i64")
    plain_x = f.icmp("eq", f.mul(h["x_w"], wide), 1)
    plain_g = f.icmp("eq", f.mul(h["g_w"], wide), 1)
    with f.iff(plain_x), f.loop(0, f.mul(h["x_pitch"], lanes), lanes) as Z:  # the border
        f.store(zero(type), f.gep(turned, Z.i, el), tile.align)
    low, high = f.split(f.mul(h["blocks"], h["chunks"]))
    with f.loop(low, high) as I:
        channel = f.mul(f.div(I.i, h["chunks"]), lanes)
        tap = f.mul(f.rem(I.i, h["chunks"]), each)
        few = f.min(f.sub(h["channels"], channel), lanes)
        places = f.words(f.gep(offsets, tap, "i64"), 0, ["i64"] * each)
        places = [f.mul(p, lanes) for p in places]
        total = f.mul(h["images"], h["area"])
        with f.loop(0, h["images"]) as N:
            here = f.add(f.mul(N.i, h["x_n"]), f.mul(channel, h["x_c"]))
            with f.if_else(plain_x) as sides:
                if d.itemsize >= 4:
                    to = f.add(f.mul(h["top"], h["row_pitch"]), h["left"])
                    rows = f.min(h["height"], f.sub(h["slab_rows"], h["top"]))
                    width = f.min(h["width"], f.sub(h["row_pitch"], h["left"]))
                    f.call(
                        "turn_rows", "void", f.gep(turned, f.mul(to, lanes), el),
                        f.gep(x, here, el), few, h["x_c"], rows, h["x_h"], width, h["row_pitch"],
                    )  # fmt: skip
                sides.otherwise()
                with f.loop(0, lanes) as L:
                    # a missing channel repeats the last one: its sums are thrown away
                    at = f.add(here, f.mul(f.min(L.i, f.sub(few, 1)), h["x_c"]))
                    f.call(
                        "plane", "void", f.gep(planes, f.mul(L.i, h["x_pitch"]), el),
                        f.gep(x, at, memory(d)), h["slab_rows"], h["top"], h["height"], h["x_h"],
                        h["x_w"], h["row_pitch"], h["row_pitch"], 1, h["left"], h["width"],
                    )  # fmt: skip
                f.call("turn", "void", turned, planes, h["x_pitch"])
            here = f.add(f.mul(N.i, h["g_n"]), f.mul(channel, h["g_c"]))
            with f.if_else(plain_g) as sides:
                if d.itemsize >= 4:
                    f.call(
                        "turn_rows", "void", g_turned, f.gep(g, here, el), few, h["g_c"],
                        h["grid_h"], h["g_h"], h["grid_w"], h["grid_w"],
                    )  # fmt: skip
                sides.otherwise()
                with f.loop(0, lanes) as L:
                    at = f.add(here, f.mul(f.min(L.i, f.sub(few, 1)), h["g_c"]))
                    f.call(
                        "plane", "void", f.gep(g_planes, f.mul(L.i, h["g_pitch"]), el),
                        f.gep(g, at, memory(d)), h["grid_h"], 0, h["grid_h"], h["g_h"], h["g_w"],
                        h["grid_w"], h["grid_w"], 1, 0, h["grid_w"],
                    )  # fmt: skip
                f.call("turn", "void", g_turned, g_planes, h["g_pitch"])
            # the blocks of k that this image has a part in
            begin = f.mul(N.i, h["area"])
            end = f.add(begin, h["area"])
            with f.loop(f.mul(f.div(begin, KC), KC), end, KC) as B:
                start, stop = f.max(B.i, begin), f.min(f.add(B.i, KC), end)
                with f.iff(f.icmp("eq", start, B.i)):
                    for t in rooms:
                        f.store(const(type, 0.0), f.gep(block_sums, t * lanes, el), tile.align)
                _block(
                    f, tile, h, f.sub(start, begin), f.sub(stop, start), turned, g_turned,
                    places, block_sums, members,
                )  # fmt: skip
                whole = f.icmp("eq", stop, f.min(f.add(B.i, KC), total))
                with f.iff(whole):
                    first = f.icmp("eq", B.i, 0)
                    for t in rooms:
                        block = f.load(type, f.gep(block_sums, t * lanes, el), tile.align)
                        place = f.gep(sums, t * lanes, el)
                        added = f.op("fadd", f.load(type, place, tile.align), block)
                        f.store(f.select(first, block, added), place, tile.align)
        taps_left = f.min(f.sub(h["taps"], tap), each)
        with f.loop(0, few) as L, f.loop(0, taps_left) as T:
            for i in range(members):
                at = f.mul(f.add(f.mul(T.i, members), i), lanes)
                value = f.load(el, f.gep(sums, f.add(at, L.i), el))
                at = f.add(f.mul(f.add(channel, L.i), members), i)
                at = f.add(f.mul(at, h["taps"]), f.add(tap, T.i))
                one.store(one.rounded(value, d), f.gep(out, at, memory(d)), d)
    f.ret()


def _block(
    f: Function, tile: Tile, h: dict[str, Value], start: Operand, count: Operand, turned: Value,
    g_turned: Value, places: list[Operand], sums: Value, width: int,
) -> None:  # fmt: skip
    """sums[tap][i] += g * x's i-th channel of the group, over `count` positions from `start`."""
    el, type, lanes = tile.element, tile.type, tile.lanes
    for _, y, x, at, length in runs(f, start, count, h["grid_h"], h["grid_w"]):
        source = f.add(f.mul(f.mul(y, h["step_h"]), h["row_pitch"]), f.mul(x, h["step_w"]))
        source = f.gep(turned, f.mul(source, lanes), el)
        factor = f.gep(g_turned, f.mul(f.add(start, at), lanes), el)
        rooms = [f.gep(sums, t * lanes, el) for t in range(len(places) * width)]
        taps = [f.gep(source, p, el) for p in places]
        old = [(type, f.load(type, room, tile.align)) for room in rooms]
        with f.loop(0, length, carry=old) as L:
            step = f.mul(L.i, lanes)
            v = f.load(type, f.gep(factor, step, el), tile.align)
            across = f.mul(step, h["step_w"])
            for t, tap in enumerate(taps):
                u = f.load(type, f.gep(tap, across, el), tile.align)
                for i in range(width):
                    place = t * width + i
                    spread = [k // width * width + i for k in range(lanes)]
                    one = u if width == 1 else f.shuffle(u, u, spread)
                    L.next[place] = f.fma(v, one, L.carry[place])
        for room, value in zip(rooms, L.carry, strict=True):
            f.store(value, room, tile.align)
