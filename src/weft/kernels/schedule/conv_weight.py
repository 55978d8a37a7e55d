"""The weight gradient of a convolution.

    out[co, ci, p, q] = sum over n, oy, ox of
                        g[n, co, oy, ox] * x[n, ci, oy*sh - ph + p*dh, ox*sw - pw + q*dw]

Shapes and dtypes as in `conv`; g and x may have any strides. Numbers: one accumulator an output,
fma in increasing k = (n, oy, ox) in blocks of 384 (a block may go on in the next image), blocks
added in order.

How: transposed, rows (ci, p, q) times columns co. A block of g is packed into a panel of co
columns; the rows are read in the slab, or in x itself, as segments that follow the rows of
outputs, so x is never unrolled. Images pass through a ring of slabs. Threads take (group, panel,
chunk of rows); each has the whole sum over k.
"""

from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.conv import Pair, check, image_slab, need, tap_offsets
from weft.kernels.schedule.conv_code import open_block
from weft.kernels.schedule.conv_depth import plan_depthwise_dw
from weft.kernels.schedule.conv_pack import emit_plane, runs, transpose
from weft.kernels.schedule.micro import emit_multiply
from weft.kernels.schedule.nest import PARALLEL_WORK, QUICK_WORK
from weft.kernels.schedule.tile import KC, Tile, tile_for, up
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import Module
from weft.runtime import native, threads
from weft.runtime.native import Launch, Stage

_SLAB = 400 << 10  # bytes of a thread's ring of slabs to stay below
_ROWS = 768  # rows of a chunk, whose sums stay in L2
_HEAD = (
    "groups", "rows", "row_chunk", "row_chunks", "part_taps", "columns", "panels", "channels",
    "k", "area", "grid_h", "grid_w", "run_h", "run_w", "ring",
    "source_n", "source_c", "source_h", "source_w", "direct", "height", "width",
    "plane", "row_pitch", "phase_pitch", "phases", "slab_rows", "top", "left",
    "image_pitch", "row_step", "g_n", "g_c", "g_h", "g_w",
    "panel_at", "c_at", "table_at", "work_size",
)  # fmt: skip
_PACK = ("k", "kc", "columns", "grid_h", "grid_w", "stride_n", "stride_c", "stride_h", "stride_w")


def plan_conv2d_dw(
    g: Layout, x: Layout, out: Layout, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Launch:
    """out = the gradient of conv2d for its weight, g that for its output; ins = (g, x)."""
    check("conv2d_dw", x, out, g, stride, padding, dilation, groups)
    need("conv2d_dw", out=out)
    if out.size == 0:
        return Launch(())
    d = D.from_np(out.dtype)
    tile = tile_for(register(d))
    size = tile.itemsize
    images, co, oh, ow = g.shape
    kernel = (out.shape[2], out.shape[3])
    if groups == co == x.shape[1] and groups > 1 and g.size:
        return plan_depthwise_dw(g, x, out, stride, padding, dilation)
    taps, channels, columns = kernel[0] * kernel[1], out.shape[1], co // groups
    slab, row_step, _, _ = image_slab(x, kernel, (oh, ow), stride, padding, dilation)
    offsets = tap_offsets(slab, kernel, stride, dilation)
    area = max(oh * ow, 1)
    grid = (
        (1, area) if slab.direct and kernel == (1, 1) and (row_step == ow or oh == 1) else (oh, ow)
    )
    run = (1, area) if g.strides[2] == ow * g.strides[3] or oh == 1 else (oh, ow)
    ring = KC // area + 2
    rows, panels = channels * taps, -(-columns // tile.columns)
    fit = max(_SLAB // max(ring * slab.plane * size, 1), 1) * taps
    work = 2 * g.size * rows + x.size + out.size
    parallel = work >= PARALLEL_WORK
    workers = threads.get_num_threads() if parallel else 1
    share = -(-rows // -(-2 * workers // (groups * panels)))
    row_chunk = min(_ROWS, rows if slab.direct else fit, share)
    row_chunk = min(-(-row_chunk // tile.rows) * tile.rows, rows)
    image_pitch = (
        x.strides[0] if slab.direct else min((row_chunk - 2) // taps + 2, channels) * slab.plane
    )
    panel_at = 0 if slab.direct else up(ring * image_pitch * size)
    c_at = panel_at + up((KC + tile.lanes) * tile.columns * size)
    table_at = c_at + up(row_chunk * tile.columns * size)
    head = {
        "groups": groups, "rows": rows, "row_chunk": row_chunk, "row_chunks": -(-rows // row_chunk),
        "part_taps": taps, "columns": columns, "panels": panels, "channels": channels,
        "k": images * oh * ow, "area": area, "grid_h": max(grid[0], 1), "grid_w": max(grid[1], 1),
        "run_h": max(run[0], 1), "run_w": max(run[1], 1), "ring": ring,
        "source_n": x.strides[0], "source_c": x.strides[1], "source_h": x.strides[2],
        "source_w": x.strides[3], "direct": int(slab.direct),
        "height": x.shape[2], "width": x.shape[3],
        "plane": slab.plane, "row_pitch": slab.row_pitch, "phase_pitch": slab.phase_pitch,
        "phases": slab.phases, "slab_rows": slab.rows, "top": slab.top, "left": slab.left,
        "image_pitch": image_pitch, "row_step": row_step,
        "g_n": g.strides[0], "g_c": g.strides[1], "g_h": g.strides[2], "g_w": g.strides[3],
        "panel_at": panel_at, "c_at": c_at, "table_at": table_at,
        "work_size": up(table_at + 8 * (2 * KC + row_chunk)),
    }  # fmt: skip
    code = _kernels(d.name)
    ints = (*(head[n] for n in _HEAD), *offsets)
    stage = Stage(code["conv_dw"], parallel)
    return Launch((stage,), ints, 0, head["work_size"], work < QUICK_WORK)


@cache
def _kernels(dtype: str) -> dict[str, int]:
    return native.load(conv_dw_ir(dtype), ["conv_dw"])


def conv_dw_ir(name: str) -> str:
    """The LLVM IR of the kernel of one dtype, for the host."""
    d = D.BY_NAME[name]
    tile = tile_for(register(d))
    m = Module(native.host().vector_bits)
    emit_multiply(m, tile)
    emit_plane(m, tile, d)
    _emit_pack(m, tile, d)
    _emit_kernel(m, tile, d)
    return m.text()


def _emit_kernel(m: Module, tile: Tile, d: D.dtype) -> None:
    f = m.kernel("conv_dw")
    el, one = tile.element, Element(f, 1)
    (out, g, x), scratch, h, taps = open_block(f, 2, _HEAD)
    work = f.gep(scratch, f.mul(f.cast("sext", f.arg("tid"), "i64"), h["work_size"]))
    panel, c, segments = (f.gep(work, h[n]) for n in ("panel_at", "c_at", "table_at"))
    rows = f.gep(segments, 2 * KC, "i64")
    direct = f.icmp("ne", h["direct"], 0)
    low, high = f.split(f.mul(f.mul(h["groups"], h["panels"]), h["row_chunks"]))
    with f.loop(low, high) as I:
        row = f.mul(f.rem(I.i, h["row_chunks"]), h["row_chunk"])
        count = f.min(f.sub(h["rows"], row), h["row_chunk"])
        rest = f.div(I.i, h["row_chunks"])
        column = f.mul(f.rem(rest, h["panels"]), tile.columns)
        columns = f.min(f.sub(h["columns"], column), tile.columns)
        group = f.div(rest, h["panels"])
        channel = f.div(row, h["part_taps"])
        channels = f.sub(f.add(f.div(f.add(row, f.sub(count, 1)), h["part_taps"]), 1), channel)
        with f.loop(0, count) as R:
            r = f.add(row, R.i)
            at = f.mul(f.sub(f.div(r, h["part_taps"]), channel), h["plane"])
            at = f.add(at, f.load("i64", f.gep(taps, f.rem(r, h["part_taps"]), "i64")))
            f.store(f.typed(at, "i64"), f.gep(rows, R.i, "i64"))
        first_channel = f.add(f.mul(group, h["channels"]), channel)
        origin = f.gep(x, f.mul(first_channel, h["source_c"]), memory(d))
        base = f.select(direct, origin, work)
        co = f.add(f.mul(group, h["columns"]), column)
        # a sum without terms still runs once, and gives zeros
        with f.loop(0, f.max(h["k"], 1), KC, carry=[("i64", 0)]) as K:
            kc = f.min(f.sub(h["k"], K.i), KC)
            end = f.div(f.add(f.add(K.i, kc), f.sub(h["area"], 1)), h["area"])
            with (
                f.iff(f.icmp("eq", h["direct"], 0)),
                f.loop(K.carry[0], end) as N,
                f.loop(0, channels) as C,
            ):
                place = f.add(
                    f.mul(f.rem(N.i, h["ring"]), h["image_pitch"]), f.mul(C.i, h["plane"])
                )
                at = f.add(f.mul(N.i, h["source_n"]), f.mul(C.i, h["source_c"]))
                f.call(
                    "plane", "void", f.gep(work, place, el), f.gep(origin, at, memory(d)),
                    h["slab_rows"], h["top"], h["height"], h["source_h"], h["source_w"],
                    h["row_pitch"],
                    h["phase_pitch"], h["phases"], h["left"], h["width"],
                )  # fmt: skip
            f.call(
                "pack", "void", panel, f.gep(g, f.mul(co, h["g_c"]), memory(d)), K.i, kc, columns,
                h["run_h"], h["run_w"], h["g_n"], h["g_c"], h["g_h"], h["g_w"],
            )  # fmt: skip
            start = f.div(K.i, h["grid_w"])
            for image, y, across, _, length in runs(f, K.i, kc, h["grid_h"], h["grid_w"]):
                slot = f.select(direct, image, f.rem(image, h["ring"]))
                at = f.add(f.add(f.mul(slot, h["image_pitch"]), f.mul(y, h["row_step"])), across)
                number = f.sub(f.add(f.mul(image, h["grid_h"]), y), start)
                segment = f.gep(segments, f.mul(number, 2), "i64")
                f.store(f.typed(at, "i64"), segment)
                f.store(f.typed(length, "i64"), f.gep(segment, 1, "i64"))
            nseg = f.sub(f.div(f.add(f.add(K.i, kc), f.sub(h["grid_w"], 1)), h["grid_w"]), start)
            first = f.cast("zext", f.icmp("eq", K.i, 0), "i64")
            f.call("multiply", "void", base, rows, count, segments, nseg, panel, c, columns, first)
            K.next = [end]
        with f.loop(0, columns) as J, f.loop(0, count) as R:
            value = f.load(el, f.gep(c, f.add(f.mul(R.i, tile.columns), J.i), el))
            at = f.add(f.mul(f.add(co, J.i), h["rows"]), f.add(row, R.i))
            one.store(one.rounded(value, d), f.gep(out, at, memory(d)), d)
    f.ret()


def _emit_pack(m: Module, tile: Tile, d: D.dtype) -> None:
    """`pack(panel, g, ...)`: panel[i][j] = g[image, co j, y, x] of the grid's element k + i.

    Writes up to `lanes` rows past the block, which later rows or nobody use.
    """
    f = m.function(
        "pack",
        [("ptr noalias", "panel"), ("ptr noalias readonly", "g"), *(("i64", n) for n in _PACK)],
        internal=True,
    )
    panel, g = f.arg("panel"), f.arg("g")
    k, kc, columns, grid_h, grid_w, stride_n, stride_c, stride_h, stride_w = (
        f.arg(n) for n in _PACK
    )
    el, lanes = tile.element, tile.lanes
    one, wide = Element(f, 1), Element(f, lanes)
    dense = f.icmp("eq", stride_w, 1)
    for image, y, x, at, length in runs(f, k, kc, grid_h, grid_w):
        place = f.add(f.add(f.mul(image, stride_n), f.mul(y, stride_h)), f.mul(x, stride_w))
        source = f.gep(g, place, memory(d))
        target = f.gep(panel, f.mul(at, tile.columns), el)
        with f.if_else(dense) as b:
            with f.loop(0, columns, lanes) as J:
                # a missing column repeats the last one: its sums are thrown away
                places = [
                    f.mul(f.min(f.add(J.i, j), f.sub(columns, 1)), stride_c) for j in range(lanes)
                ]
                starts = [f.gep(source, p, memory(d)) for p in places]
                with f.loop(0, length, lanes) as L:
                    mask = f.lane_mask(f.sub(length, L.i), lanes)
                    ats = [f.gep(s, L.i, memory(d)) for s in starts]
                    v = [f.masked_load(wide.memory_type(d), at, mask) for at in ats]
                    v = [wide.from_memory(x, d) for x in v]
                    to = f.gep(target, f.add(f.mul(L.i, tile.columns), J.i), el)
                    for i, row in enumerate(transpose(f, v)):
                        f.store(row, f.gep(to, i * tile.columns, el), tile.align)
            b.otherwise()
            with f.loop(0, columns) as J, f.loop(0, length) as L:
                at = f.add(f.mul(J.i, stride_c), f.mul(L.i, stride_w))
                value = one.load(f.gep(source, at, memory(d)), d)
                f.store(value, f.gep(target, f.add(f.mul(L.i, tile.columns), J.i), el))
    f.ret()
