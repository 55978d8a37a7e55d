"""Convolution and its input gradient as implicit matrix products.

    out[n, co, oy, ox] = sum over ci, p, q of w[co, ci, p, q] * x[n, ci, oy*sh - ph + p*dh, ox*sw - pw + q*dw]  (+ bias[co])

Shapes: x (N, Ci, H, W), w (Co, Ci/groups, kh, kw), out (N, Co, OH, OW); float32 or float64, one dtype for all. A conv1d is
one with H = kh = 1; a transposed convolution is `plan_conv2d_dx` (its output size says the output_padding). float16 and
bfloat16 are for the caller to widen. x and g may have any strides; w of the forward pass, the bias and every output must be
C-contiguous, else ValueError. The caller's type rule has checked that no output is empty because its kernel is larger than
the padded input; the planners check that shapes agree.

Numbers: one accumulator an output, fma in increasing k = (ci, p, q) (the input gradient: (co, p, q), of the taps that reach
the input element) in blocks of 384, blocks added in order, the bias last. Zero padding takes part as zeros. Nothing else
matters to the bits: not the batch, threads, tiles, or the vector width.

How: C[m, column] of a grid [image][y][x], cut in panels of columns. A thread copies what a *unit* (a band of rows of an image,
or a few small images, of one group) needs into its slab (see `conv_pack`), packs panel after panel from it, multiplies by
the weight rows where they lie, and stores. The gradient with stride s is s*s dense convolutions, one for each residue of the
input position modulo s (a *part*); its weights are gathered once, transposed, into scratch.
"""

from dataclasses import dataclass
from functools import cache

from weft.core.dtype import BY_NAME
from weft.kernels.layout import Layout
from weft.kernels.schedule.conv_pack import emit_pack, emit_plane, emit_unpack
from weft.kernels.schedule.micro import KC, Tile, emit_multiply, tile_for
from weft.kernels.target.llvm import Function, Module, Operand, Value
from weft.runtime import native, threads
from weft.runtime.native import Launch, Stage

Pair = tuple[int, int]
ELEMENTS = {"float32": "float", "float64": "double"}
_SLAB = 640 << 10  # bytes of a thread's slab to stay below, so that slab and panel lie in L2
_HEAD = (
    "groups", "rows", "row_chunk", "row_chunks", "channels", "images", "unit_images", "band", "bands",
    "source_n", "source_c", "source_h", "source_w", "direct", "height", "width",
    "plane", "row_pitch", "phase_pitch", "phases", "slab_rows", "top", "left",
    "image_pitch", "row_step", "band_step",
    "out_n", "out_m", "gathered", "a_group", "work", "work_size",
    "slab_at", "panel_at", "c_at", "table_at", "items", "unit_items", "parts", "taps",
)  # fmt: skip
_PART = (
    "k", "part_taps", "first_tap", "grid_h", "grid_w", "source_at", "out_at", "out_h", "out_w", "flat",
    "a_at", "first_item", "end_item",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A dense convolution at unit step: grid size, its taps (offset in the slab, offset in w), where it reads and writes."""

    grid: Pair
    taps: tuple[Pair, ...]
    source_at: int
    out_at: int
    out_step: Pair


@dataclass(frozen=True)
class Slab:
    """How images lie before they are packed; `direct` is the image itself."""

    direct: bool
    plane: int
    row_pitch: int
    phase_pitch: int
    phases: int
    rows: int
    top: int
    left: int


def plan_conv2d(
    x: Layout, w: Layout, out: Layout, stride: Pair, padding: Pair, dilation: Pair, groups: int,
    *, bias: Layout | None = None,
) -> Launch:  # fmt: skip
    """out = conv2d(x, w) (+ bias); ins = (x, w) or (x, w, bias). `padding` is (top, left): the rest follows from out's size."""
    check("conv2d", x, w, out, stride, padding, dilation, groups)
    need("conv2d", w=w, out=out)
    if bias is not None:
        need("conv2d", bias=bias)
        if bias.shape != (w.shape[0],) or bias.dtype != w.dtype:
            raise ValueError(
                f"conv2d: bias {bias.shape} {bias.dtype} does not fit weight {w.shape} {w.dtype}"
            )
    kh, kw = w.shape[2:]
    oh, ow = out.shape[2:]
    slab, row_step, step_h, top = image_slab(x, (kh, kw), (oh, ow), stride, padding, dilation)
    offsets = tap_offsets(slab, (kh, kw), stride, dilation)
    grid = (oh, ow)
    if slab.direct and (kh, kw) == (1, 1) and (row_step == ow or oh == 1):
        grid = (1, oh * ow)
    part = Part(grid, tuple((o, 0) for o in offsets), 0, 0, (ow, 1))
    return _plan(x, w, out, groups, slab, row_step, step_h, top, (part,), None, bias is not None)


def plan_conv2d_dx(
    g: Layout, w: Layout, out: Layout, stride: Pair, padding: Pair, dilation: Pair, groups: int,
    *, bias: Layout | None = None,
) -> Launch:  # fmt: skip
    """out[n, ci, y, x] = sum over co, p, q of w[co, ci, p, q] * g[n, co, oy, ox], y = oy*sh - ph + p*dh, likewise x.

    The gradient of conv2d for its input, and conv_transpose2d; ins = (g, w) or (g, w, bias), bias of size Ci.
    """
    check("conv2d_dx", out, w, g, stride, padding, dilation, groups)
    need("conv2d_dx", out=out)
    if bias is not None:
        need("conv2d_dx", bias=bias)
        if bias.shape != (out.shape[1],) or bias.dtype != out.dtype:
            raise ValueError(
                f"conv2d_dx: bias {bias.shape} {bias.dtype} does not fit output {out.shape} {out.dtype}"
            )
    height, width = out.shape[2:]
    kh, kw = w.shape[2:]
    top, left = ((k - 1) * d // s for k, d, s in zip((kh, kw), dilation, stride))
    # padded position Y = y + ph = s*a + residue; the tap p of that residue reads row a - (p*d - residue) / s of g
    down = [_residues(i, height, padding[0], stride[0]) for i in range(stride[0])]
    across = [_residues(j, width, padding[1], stride[1]) for j in range(stride[1])]
    pitch = left + max(b + nb for b, nb in across)
    rows = top + max(a for a, _ in down) + max(na for _, na in down)
    slab = Slab(False, rows * pitch, pitch, pitch, 1, rows, top, left)
    parts = []
    for i, (a, na) in enumerate(down):
        for j, (b, nb) in enumerate(across):
            taps = tuple(
                (
                    (p * dilation[0] - i) // stride[0] * -pitch
                    - (q * dilation[1] - j) // stride[1],
                    p * w.strides[2] + q * w.strides[3],
                )
                for p in range(kh)
                for q in range(kw)
                if (p * dilation[0] - i) % stride[0] == 0 and (q * dilation[1] - j) % stride[1] == 0
            )
            y, x = a * stride[0] + i - padding[0], b * stride[1] + j - padding[1]
            at = (a + top) * pitch + b + left
            parts.append(Part((na, nb), taps, at, y * width + x, (stride[0] * width, stride[1])))
    return _plan(g, w, out, groups, slab, pitch, 1, top, tuple(parts), w, bias is not None)


def _residues(residue: int, size: int, padding: int, stride: int) -> Pair:
    """The first a and the number of a with 0 <= stride*a + residue - padding < size."""
    first = max(-((residue - padding) // stride), 0) if residue < padding else 0
    end = -((residue - padding - size) // stride)
    return first, max(end - first, 0)


def check(
    name: str,
    x: Layout,
    w: Layout,
    out: Layout,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> None:
    """Raise ValueError unless the layouts fit together as x, weight and output of a convolution."""
    if any(len(a.shape) != 4 for a in (x, w, out)):
        raise ValueError(f"{name}: expected 4 dims, got {x.shape}, {w.shape}, {out.shape}")
    if x.dtype.name not in ELEMENTS or not x.dtype == w.dtype == out.dtype:
        raise ValueError(
            f"{name}: expected float32 or float64 throughout, got {x.dtype}, {w.dtype}, {out.dtype}"
        )
    if min(*stride, *dilation, groups) < 1 or min(padding) < 0:
        raise ValueError(
            f"{name}: stride {stride}, dilation {dilation}, groups {groups} must be positive, padding {padding} not negative"
        )
    n, ci, co = x.shape[0], x.shape[1], w.shape[0]
    if ci % groups or co % groups or w.shape[1] != ci // groups or out.shape[:2] != (n, co):
        raise ValueError(
            f"{name}: input {x.shape}, weight {w.shape}, output {out.shape} do not fit, groups {groups}"
        )
    for size, kernel, step, pad, gap, result in zip(
        x.shape[2:], w.shape[2:], stride, padding, dilation, out.shape[2:], strict=True
    ):
        reach = (result - 1) * step + gap * (kernel - 1) + 1
        if result and (kernel < 1 or reach > size + pad + max(pad, gap * (kernel - 1))):
            raise ValueError(
                f"{name}: input {x.shape} with padding {padding} is too small for output {out.shape}"
            )


def need(name: str, **layouts: Layout) -> None:
    """Raise ValueError unless each is C-contiguous."""
    for which, layout in layouts.items():
        if not layout.is_contiguous:
            raise ValueError(
                f"{name}: {which} must be contiguous, has strides {layout.strides} for {layout.shape}"
            )


def image_slab(
    x: Layout, kernel: Pair, out: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[Slab, int, int, int]:
    """The slab of an image for the forward windows: (slab, step of an output row in it, slab rows an output row, top)."""
    inside = all(o + d * (k - 1) <= s for o, d, k, s in zip(out, dilation, kernel, x.shape[2:]))
    if stride == (1, 1) and padding == (0, 0) and inside and x.strides[3] == 1:
        return Slab(True, x.strides[1], x.strides[2], 0, 1, 0, 0, 0), x.strides[2], 1, 0
    length = -(-((out[1] - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1) // stride[1])
    rows = (out[0] - 1) * stride[0] + (kernel[0] - 1) * dilation[0] + 1
    pitch = length * stride[1]
    slab = Slab(False, rows * pitch, pitch, length, stride[1], rows, *padding)
    return slab, stride[0] * pitch, stride[0], padding[0]


def tap_offsets(slab: Slab, kernel: Pair, stride: Pair, dilation: Pair) -> list[int]:
    """Where in the slab the taps (p, q) of output (0, 0) lie."""
    offsets = []
    for p in range(kernel[0]):
        for q in range(kernel[1]):
            c = q * dilation[1]
            across = c if slab.direct else c % stride[1] * slab.phase_pitch + c // stride[1]
            offsets.append(p * dilation[0] * slab.row_pitch + across)
    return offsets


def _up(value: int, unit: int = 64) -> int:
    return -(-value // unit) * unit


def _plan(
    source: Layout, w: Layout, out: Layout, groups: int, slab: Slab, row_step: int, step_h: int, top: int,
    parts: tuple[Part, ...], gather: Layout | None, biased: bool,
) -> Launch:  # fmt: skip
    tile = tile_for(ELEMENTS[out.dtype.name])
    size = tile.itemsize
    images, rows, channels = out.shape[0], out.shape[1] // groups, source.shape[1] // groups
    grid_h = max(p.grid[0] for p in parts)
    widest = max(p.grid[0] * p.grid[1] for p in parts)
    if out.size == 0:
        return Launch((), (), 0)
    # a unit: several small images, or a band of rows of a large one
    unit_images, band = 1, grid_h
    image_pitch = source.strides[0] if slab.direct else channels * slab.plane
    halo = slab.rows - (grid_h - 1) * step_h
    if slab.direct:
        unit_images = images if widest < 4 * tile.columns else 1
    elif widest < 4 * tile.columns:
        fit = max(_SLAB // max(image_pitch * size, 1), 1)
        unit_images = min(images, fit, -(-4 * tile.columns // widest))
    if unit_images == 1 and not slab.direct and image_pitch * size > _SLAB:
        fit = (_SLAB // (channels * slab.row_pitch * size) - halo) // step_h + 1
        band = min(max(fit, -(-2 * tile.columns // max(p.grid[1] for p in parts)), 1), grid_h)
        band = -(-grid_h // -(-grid_h // band))
    bands = -(-grid_h // band)
    slab_rows = 0 if slab.direct else (band - 1) * step_h + halo
    plane = slab.plane if slab.direct else slab_rows * slab.row_pitch
    if not slab.direct:
        image_pitch = channels * plane
    panels = [-(-min(p.grid[0], band) * p.grid[1] * unit_images // tile.columns) for p in parts]
    units = groups * -(-images // unit_images) * bands
    # too few panels for the threads: cut the rows too
    wanted = -(-2 * threads.get_num_threads() // (units * sum(panels)))
    row_chunk = min(rows, _up(-(-rows // wanted), tile.rows))
    row_chunks = -(-rows // row_chunk)
    unit_items = sum(panels) * row_chunks
    deepest = max(channels * len(p.taps) for p in parts)
    slab_at = 0
    panel_at = slab_at + _up(0 if slab.direct else unit_images * image_pitch * size)
    c_at = panel_at + _up(min(KC, max(deepest, 1)) * tile.columns * size)
    table_at = c_at + _up(row_chunk * tile.columns * size)
    work_size = _up(table_at + 8 * (deepest + row_chunk + 2))
    gathered = _up(w.size * size) if gather is not None else 0
    head = {
        "groups": groups, "rows": rows, "row_chunk": row_chunk, "row_chunks": row_chunks,
        "channels": channels, "images": images, "unit_images": unit_images, "band": band, "bands": bands,
        "source_n": source.strides[0], "source_c": source.strides[1],
        "source_h": source.strides[2], "source_w": source.strides[3], "direct": int(slab.direct),
        "height": source.shape[2], "width": source.shape[3],
        "plane": plane, "row_pitch": slab.row_pitch, "phase_pitch": slab.phase_pitch,
        "phases": slab.phases, "slab_rows": slab_rows, "top": top, "left": slab.left,
        "image_pitch": image_pitch, "row_step": row_step,
        "band_step": band * (row_step if slab.direct else step_h),
        "out_n": out.strides[0], "out_m": out.strides[1], "gathered": int(gather is not None),
        "a_group": rows * channels * sum(len(p.taps) for p in parts), "work": gathered, "work_size": work_size,
        "slab_at": slab_at, "panel_at": panel_at, "c_at": c_at, "table_at": table_at,
        "items": units * unit_items, "unit_items": unit_items, "parts": len(parts),
        "taps": sum(len(p.taps) for p in parts),
    }  # fmt: skip
    ints = [head[n] for n in _HEAD]
    a_at = tap = item = 0
    for part, count in zip(parts, panels, strict=True):
        k = channels * len(part.taps)
        flat = int(part.out_step == (part.grid[1], 1))
        record = (
            k, len(part.taps), tap, *part.grid, part.source_at, part.out_at, *part.out_step, flat,
            a_at, item, item + count * row_chunks,
        )  # fmt: skip
        ints += record
        a_at, tap, item = a_at + rows * k, tap + len(part.taps), item + count * row_chunks
    ints += [t[0] for part in parts for t in part.taps]
    code = _kernels(out.dtype.name)
    stages = [Stage(code["conv_bias" if biased else "conv"], parallel=True)]
    if gather is not None:
        ints += [t[1] for part in parts for t in part.taps]
        ints += [w.strides[0], w.strides[1]]
        stages.insert(0, Stage(code["gather_bias" if biased else "gather"], parallel=True))
    return Launch(tuple(stages), tuple(ints), gathered, work_size)


@cache
def _kernels(dtype: str) -> dict[str, int]:
    names = ("conv", "conv_bias", "gather", "gather_bias")
    return native.load(conv_ir(dtype), names)


def conv_ir(dtype: str) -> str:
    """The LLVM IR of the kernels of one dtype, for the host."""
    tile = tile_for(ELEMENTS[dtype])
    m = Module(native.host().vector_bits)
    emit_multiply(m, tile)
    emit_plane(m, tile, BY_NAME[dtype])
    emit_pack(m, tile)
    emit_unpack(m, tile)
    for biased in (False, True):
        _emit_conv(m, tile, biased)
        _emit_gather(m, tile, biased)
    return m.text()


def open_block(
    f: Function, inputs: int, names: tuple[str, ...]
) -> tuple[list[Value], Value, dict[str, Value], Value]:
    """The kernel's (out, inputs...), its scratch, its named ints, and where the other ints start."""
    pointers = f.words(f.arg("args"), 2, ["ptr"] * (2 + inputs))
    ints = f.gep(f.arg("args"), 4 + inputs, "i64")
    head = dict(zip(names, f.words(ints, 0, ["i64"] * len(names)), strict=True))
    return pointers[:-1], pointers[-1], head, f.gep(ints, len(names), "i64")


def _records(f: Function, h: dict[str, Value], ints: Value, part: Operand) -> dict[str, Value]:
    words = f.words(f.gep(ints, f.mul(part, len(_PART)), "i64"), 0, ["i64"] * len(_PART))
    return dict(zip(_PART, words, strict=True))


def _emit_conv(m: Module, tile: Tile, biased: bool) -> None:
    f = m.kernel("conv_bias" if biased else "conv")
    el = tile.element
    pointers, scratch, h, ints = open_block(f, 3 if biased else 2, _HEAD)
    out, source, w = pointers[:3]
    bias = pointers[3] if biased else Value("null", "ptr")
    tid = f.cast("sext", f.arg("tid"), "i64")
    weights = f.select(f.icmp("ne", h["gathered"], 0), scratch, w)
    direct = f.icmp("ne", h["direct"], 0)
    taps = f.gep(ints, f.mul(h["parts"], len(_PART)), "i64")
    work = f.gep(scratch, f.add(h["work"], f.mul(tid, h["work_size"])))
    slab, panel, c, table = (f.gep(work, h[n]) for n in ("slab_at", "panel_at", "c_at", "table_at"))
    rows = f.gep(table, 2, "i64")
    offsets = f.gep(rows, h["row_chunk"], "i64")
    low, high = f.split(h["items"])
    units = f.div(f.add(high, f.sub(h["unit_items"], 1)), h["unit_items"])
    with f.loop(f.div(low, h["unit_items"]), units) as U:
        band = f.rem(U.i, h["bands"])
        rest = f.div(U.i, h["bands"])
        chunks = f.div(f.add(h["images"], f.sub(h["unit_images"], 1)), h["unit_images"])
        image = f.mul(f.rem(rest, chunks), h["unit_images"])
        group = f.div(rest, chunks)
        images = f.min(f.sub(h["images"], image), h["unit_images"])
        at = f.add(f.mul(image, h["source_n"]), f.mul(f.mul(group, h["channels"]), h["source_c"]))
        origin = f.gep(source, at, el)
        with f.iff(f.icmp("eq", h["direct"], 0)):
            _fill_slab(
                f, tile, h, slab, origin, images, f.sub(h["top"], f.mul(band, h["band_step"]))
            )
        base = f.select(direct, origin, slab)
        skip = f.mul(U.i, h["unit_items"])
        with f.loop(0, h["parts"]) as P:
            part = _records(f, h, ints, P.i)
            begin = f.max(f.sub(low, skip), part["first_item"])
            end = f.min(f.sub(high, skip), part["end_item"])
            with f.iff(f.icmp("slt", begin, end)):
                first_tap = f.gep(taps, part["first_tap"], "i64")
                with f.loop(0, h["channels"]) as C, f.loop(0, part["part_taps"]) as T:
                    value = f.add(
                        f.mul(C.i, h["plane"]), f.load("i64", f.gep(first_tap, T.i, "i64"))
                    )
                    place = f.add(f.mul(C.i, part["part_taps"]), T.i)
                    f.store(value, f.gep(offsets, place, "i64"))
                with f.loop(0, h["row_chunk"]) as R:
                    f.store(f.mul(R.i, part["k"]), f.gep(rows, R.i, "i64"))
                y = f.mul(band, h["band"])
                grid_h = f.max(f.min(f.sub(part["grid_h"], y), h["band"]), 0)
                area = f.mul(grid_h, part["grid_w"])
                flat = f.icmp("ne", part["flat"], 0)
                out_grid = (
                    f.select(flat, f.typed(1, "i64"), grid_h),
                    f.select(flat, area, part["grid_w"]),
                )
                with f.loop(begin, end) as I:
                    item = f.sub(I.i, part["first_item"])
                    column = f.mul(f.div(item, h["row_chunks"]), tile.columns)
                    columns = f.min(f.sub(f.mul(images, area), column), tile.columns)
                    row = f.mul(f.rem(item, h["row_chunks"]), h["row_chunk"])
                    count = f.min(f.sub(h["rows"], row), h["row_chunk"])
                    a = f.gep(weights, f.add(f.mul(group, h["a_group"]), part["a_at"]), el)
                    a = f.gep(a, f.mul(row, part["k"]), el)
                    with f.iff(f.icmp("sgt", columns, 0)):
                        # a sum without terms still runs once, and gives zeros
                        with f.loop(0, f.max(part["k"], 1), KC) as K:
                            kc = f.min(f.sub(part["k"], K.i), KC)
                            f.call(
                                "pack", "void", panel, f.gep(base, part["source_at"], el),
                                f.gep(offsets, K.i, "i64"), kc, column, columns, grid_h,
                                part["grid_w"], h["image_pitch"], h["row_step"],
                            )  # fmt: skip
                            f.store(K.i, table)
                            f.store(f.typed(kc, "i64"), f.gep(table, 1, "i64"))
                            first = f.cast("zext", f.icmp("eq", K.i, 0), "i64")
                            f.call(
                                "multiply",
                                "void",
                                a,
                                rows,
                                count,
                                table,
                                1,
                                panel,
                                c,
                                columns,
                                first,
                            )
                        row = f.add(f.mul(group, h["rows"]), row)
                        to = f.add(f.mul(image, h["out_n"]), f.mul(row, h["out_m"]))
                        to = f.add(f.add(to, part["out_at"]), f.mul(y, part["out_h"]))
                        shift = f.gep(bias, row, el) if biased else bias
                        f.call(
                            "unpack", "void", f.gep(out, to, el), c, shift, count, column, columns,
                            *out_grid, h["out_n"], part["out_h"], part["out_w"], h["out_m"],
                        )  # fmt: skip
    f.ret()


def _fill_slab(
    f: Function,
    tile: Tile,
    h: dict[str, Value],
    slab: Value,
    origin: Value,
    images: Operand,
    top: Operand,
) -> None:
    with f.loop(0, images) as N, f.loop(0, h["channels"]) as C:
        to = f.add(f.mul(N.i, h["image_pitch"]), f.mul(C.i, h["plane"]))
        at = f.add(f.mul(N.i, h["source_n"]), f.mul(C.i, h["source_c"]))
        f.call(
            "plane", "void", f.gep(slab, to, tile.element), f.gep(origin, at, tile.element),
            h["slab_rows"], top, h["height"], h["source_h"], h["source_w"], h["row_pitch"],
            h["phase_pitch"], h["phases"], h["left"], h["width"],
        )  # fmt: skip


def _emit_gather(m: Module, tile: Tile, biased: bool) -> None:
    """Stage 1 of the input gradient: a[group][part][ci][co][tap] = w[group and co, ci, tap], into scratch."""
    f = m.kernel("gather_bias" if biased else "gather")
    el = tile.element
    pointers, scratch, h, ints = open_block(f, 3 if biased else 2, _HEAD)
    taps = f.gep(ints, f.add(f.mul(h["parts"], len(_PART)), h["taps"]), "i64")
    stride_co, stride_ci = f.words(f.gep(taps, h["taps"], "i64"), 0, ("i64", "i64"))
    low, high = f.split(f.mul(h["groups"], h["rows"]))
    with f.loop(low, high) as R:
        group, ci = f.div(R.i, h["rows"]), f.rem(R.i, h["rows"])
        at = f.add(f.mul(f.mul(group, h["channels"]), stride_co), f.mul(ci, stride_ci))
        source = f.gep(pointers[2], at, el)
        with f.loop(0, h["parts"]) as P:
            part = _records(f, h, ints, P.i)
            place = f.add(f.add(f.mul(group, h["a_group"]), part["a_at"]), f.mul(ci, part["k"]))
            to = f.gep(scratch, place, el)
            first_tap = f.gep(taps, part["first_tap"], "i64")
            with f.loop(0, h["channels"]) as C, f.loop(0, part["part_taps"]) as T:
                at = f.add(f.mul(C.i, stride_co), f.load("i64", f.gep(first_tap, T.i, "i64")))
                value = f.load(el, f.gep(source, at, el))
                f.store(value, f.gep(to, f.add(f.mul(C.i, part["part_taps"]), T.i), el))
    f.ret()
