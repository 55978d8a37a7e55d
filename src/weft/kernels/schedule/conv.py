"""Convolution and its input gradient as implicit matrix products: the planners.

    out[n, co, oy, ox] = bias[co] + sum over ci, p, q of
                         w[co, ci, p, q] * x[n, ci, oy*sh - ph + p*dh, ox*sw - pw + q*dw]

Shapes: x (N, Ci, H, W), w (Co, Ci/groups, kh, kw), out (N, Co, OH, OW). One dtype for all: float64,
float32, float16 or bfloat16, the halves computed in float32 and rounded once. A conv1d is one with
H = kh = 1; a transposed convolution is `plan_conv2d_dx` (its output's size says the
output_padding). Images may have any strides; the bias must be C-contiguous, else ValueError. The
caller's type rule has refused kernels larger than the padded input; the planners check that the
shapes agree.

Numbers: one accumulator an output, fma in increasing k = (ci, p, q) (the input gradient:
(co, p, q), of the taps that reach the element) in blocks of 384, blocks added in order, the bias
last. Zero padding takes part as zeros. Nothing else matters to the bits: not the batch, threads,
tiles, or the width of vectors. bfloat16, and float32 where the caller lets it be rounded (`fast`),
goes by pairs of channels where a group has outputs enough (`words` has the order).

How: with output channels enough, as `conv_wide` says. Else: C[m, column] of a grid [image][y][x],
cut in panels of columns. A thread copies what a *unit* (a band of rows of an image, or a few small
images, of one group) needs into its slab (see `conv_pack`), packs panel after panel from it,
multiplies by the weight rows, and stores. With up to four rows packing would cost more than it
saves: the slab is read in place, and a depthwise convolution has kernels of its own (with steps of
one or two: `conv_rows`). The gradient with stride s is s*s dense convolutions, one for each residue
of the input position modulo s (a *part*). Weights that are transposed, strided or halves are
gathered into scratch first.
"""

from dataclasses import dataclass
from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.packed import Packed
from weft.kernels.schedule.conv_code import HEAD, PART, conv_ir
from weft.kernels.schedule.conv_pack import THIN
from weft.kernels.schedule.conv_rows import by_rows, plan_by_rows, residues
from weft.kernels.schedule.conv_spread import plan_gathered, plan_spread
from weft.kernels.schedule.conv_wide import (
    Pair,
    Part,
    fills_vectors,
    plan_one_tap,
    plan_one_tap_packed,
    plan_wide,
    reach,
    window,
    with_packed,
)
from weft.kernels.schedule.epilogue import Epilogue
from weft.kernels.schedule.nest import PARALLEL_WORK, QUICK_WORK
from weft.kernels.schedule.tile import KC, tile_for, up
from weft.kernels.schedule.words import in_pairs
from weft.kernels.target.element import register
from weft.runtime import native, threads
from weft.runtime.native import Launch, Stage

_SLAB = 640 << 10  # bytes of a thread's slab to stay below, so that slab and panel lie in L2
_MOST_PACKED = 4096  # pixels beside which packing w is below 1 %
# terms times outputs of a pixel up to which vectors of pixels are faster than channels', which are
# turned before and after; more outputs than `_PAYS` make up for what is packed
_SHORT, _PAYS = 2048, 32


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


@dataclass(frozen=True)
class Weights:
    """How A[group][row][channel][tap] is found in w: strides in elements; `gather` copies it."""

    gather: bool
    group: int
    row: int
    channel: int


def plan_conv2d(
    x: Layout, w: Layout, out: Layout, stride: Pair, padding: Pair, dilation: Pair, groups: int,
    *, bias: Layout | None = None, epilogue: Epilogue | None = None, fast: bool = False,
) -> Launch:  # fmt: skip
    """out = conv2d(x, w) (+ bias); ins = (x, w) or (x, w, bias).

    `fast`: float32 may be rounded to bfloat16 before it is multiplied. `padding` is (top, left):
    the rest follows from out's size, so it may be uneven. An epilogue's operands broadcast to its
    results, which are images; ins (x, w, *further outputs, *operands); ValueError where there is
    none: it wants vectors of channels, and images channels last.
    """
    check("conv2d", x, w, out, stride, padding, dilation, groups)
    _check_bias("conv2d", bias, w.shape[0], w)
    kh, kw = w.shape[2:]
    oh, ow = out.shape[2:]
    wide, pairs = _is_wide(w.shape[0] // groups, out, fast=fast)
    if wide:
        if not pairs and _has_one_tap(x, w, out, stride, padding, groups):
            found = plan_one_tap(x, _one_tap(w), out, bias=bias, epilogue=epilogue)
            if found is not None:
                return found
        if bias is None and epilogue is None and not pairs and _is_one_pixel(w, padding, groups):
            found = plan_gathered(x, _one_tap(w), out, stride)
            if found is not None:
                return found
        short = not pairs and _is_short(w.size // w.shape[0], w.shape[0] // groups)
        if epilogue is not None or not (short and _in_planes(x, out)):
            return _wide(
                x, w, out, stride, padding, dilation, groups, biased=bias is not None,
                epilogue=epilogue, pairs=pairs, cut=not short,
            )  # fmt: skip
    if epilogue is not None:
        raise ValueError(f"conv2d: no epilogue on {out.shape} of {groups} groups")
    if by_rows(x, w, out, stride, dilation, groups):
        return plan_by_rows(
            x, w, out, stride[0], padding, dilation[1], biased=bias is not None, back=False
        )
    slab, row_step, step_h, top = _image_slab(x, (kh, kw), (oh, ow), stride, padding, dilation)
    offsets = _tap_offsets(slab, (kh, kw), stride, dilation)
    places = [p * w.strides[2] + q * w.strides[3] for p in range(kh) for q in range(kw)]
    grid = (oh, ow)
    out_step = (out.strides[2], out.strides[3])
    flat = out_step == (ow, 1)
    if slab.direct and (kh, kw) == (1, 1) and (row_step == ow or oh == 1) and flat:
        grid = (1, oh * ow)
    part = Part(grid, tuple(zip(offsets, places, strict=True)), 0, 0, out_step)
    gather = not w.is_contiguous or _is_half(w)
    weights = Weights(gather, w.shape[0] // groups * w.strides[0], w.strides[0], w.strides[1])
    return _plan(x, w, out, groups, slab, row_step, step_h, top, (part,), weights, bias is not None)


def plan_conv2d_packed(
    x: Layout, w: Layout, out: Layout, stride: Pair, padding: Pair, dilation: Pair, groups: int,
    *, bias: Layout | None = None, epilogue: Epilogue | None = None, fast: bool = False,
) -> Packed | None:  # fmt: skip
    """`plan_conv2d` of a w that was packed before; None where that would gain nothing."""
    wide, pairs = _is_wide(w.shape[0] // groups, out, fast=fast)
    if not wide:
        return None
    if not pairs and _has_one_tap(x, w, out, stride, padding, groups):
        found = plan_one_tap_packed(x, _one_tap(w), out, bias=bias, epilogue=epilogue)
        if found is not None:
            return found
    plain = bias is None and epilogue is None and not pairs
    if plain and _is_one_pixel(w, padding, groups) and plan_gathered(x, _one_tap(w), out, stride):
        return None  # w is read as it lies
    short = not pairs and _is_short(w.size // w.shape[0], w.shape[0] // groups)
    if epilogue is None and short and _in_planes(x, out):
        return None
    launch = plan_conv2d(
        x, w, out, stride, padding, dilation, groups, bias=bias, epilogue=epilogue, fast=fast
    )  # fmt: skip
    if len(launch.stages) < 2 or out.size // w.shape[0] > _MOST_PACKED:
        return None
    return with_packed(launch, w, out, groups, biased=bias is not None, pairs=pairs)


def plan_conv2d_dx(
    g: Layout, w: Layout, out: Layout, stride: Pair, padding: Pair, dilation: Pair, groups: int,
    *, bias: Layout | None = None, fast: bool = False,
) -> Launch:  # fmt: skip
    """out[n, ci, oy*sh - ph + p*dh, ox*sw - pw + q*dw] += w[co, ci, p, q] * g[n, co, oy, ox].

    The gradient of conv2d for its input, and conv_transpose2d; ins = (g, w) or (g, w, bias), the
    bias of size Ci. `fast` as in `plan_conv2d`.
    """
    check("conv2d_dx", out, w, g, stride, padding, dilation, groups)
    _check_bias("conv2d_dx", bias, out.shape[1], out)
    height, width = out.shape[2:]
    kh, kw = w.shape[2:]
    if by_rows(g, w, out, stride, dilation, groups):
        return plan_by_rows(
            g, w, out, stride[0], padding, dilation[1], biased=bias is not None, back=True
        )
    top, left = ((k - 1) * d // s for k, d, s in zip((kh, kw), dilation, stride))
    # padded position y + ph = s*a + residue; a tap p of that residue reads g's row
    # a - (p*d - residue) / s
    down = [residues(i, height, padding[0], stride[0]) for i in range(stride[0])]
    across = [residues(j, width, padding[1], stride[1]) for j in range(stride[1])]
    pitch = left + max(b + nb for b, nb in across)
    rows = top + max(a for a, _ in down) + max(na for _, na in down)
    slab = Slab(False, rows * pitch, pitch, pitch, 1, rows, top, left)
    # of each residue the taps: how many steps back g is read, and where w has them
    taps_down, taps_across = (
        [[((p * d - i) // s, p * step) for p in range(k) if (p * d - i) % s == 0] for i in range(s)]
        for k, d, s, step in zip((kh, kw), dilation, stride, w.strides[2:], strict=True)
    )
    parts = []
    for i, (a, na) in enumerate(down):
        for j, (b, nb) in enumerate(across):
            taps = tuple(
                (-y * pitch - x, y_at + x_at)
                for y, y_at in taps_down[i]
                for x, x_at in taps_across[j]
            )
            y, x = a * stride[0] + i - padding[0], b * stride[1] + j - padding[1]
            at = (a + top) * pitch + b + left
            _, _, out_h, out_w = out.strides
            step = (stride[0] * out_h, stride[1] * out_w)
            parts.append(Part((na, nb), taps, at, y * out_h + x * out_w, step))
    wide, pairs = _is_wide(out.shape[1] // groups, out, fast=fast)
    if wide:
        if not pairs and _has_one_tap(out, w, g, stride, padding, groups):
            across = Layout(w.shape[1::-1], w.strides[1::-1], w.dtype)
            found = plan_one_tap(g, across, out, bias=bias)
            if found is not None:
                return found
        if bias is None and not pairs and _is_one_pixel(w, padding, groups):
            found = plan_spread(g, _one_tap(w), out, stride)
            if found is not None:
                return found
        terms = 2 * len(parts) * g.shape[1] // groups * kh * kw
        short = not pairs and _is_short(terms, out.shape[1] // groups)
        if not (short and _in_planes(g, out)):
            strides = (g.shape[1] // groups * w.strides[0], w.strides[1], w.strides[0])
            return plan_wide(
                g, w, out, groups, tuple(parts), ((rows, pitch), (top, left), (1, 1)),
                ((pitch, 1), (1, 1)), strides, biased=bias is not None, pairs=pairs, cut=not short,
            )  # fmt: skip
    weights = Weights(True, g.shape[1] // groups * w.strides[0], w.strides[1], w.strides[0])
    return _plan(g, w, out, groups, slab, pitch, 1, top, tuple(parts), weights, bias is not None)


def _is_wide(columns: int, out: Layout, *, fast: bool) -> tuple[bool, bool]:
    """Whether channels lie across the vector, and whether by pairs."""
    d = D.from_np(out.dtype)
    pairs = in_pairs(columns, d, fast=fast)
    return out.size > 0 and (pairs or fills_vectors(columns, d)), pairs


def _is_short(terms: int, columns: int) -> bool:
    """Whether pixels of planes across the vector are faster. Such a convolution is not cut up in
    either form: an infinite weight meets the border's zeros wherever images lie.
    """
    return terms * min(columns, _PAYS) <= _SHORT


def _in_planes(source: Layout, out: Layout) -> bool:
    return source.strides[3] == out.strides[3] == 1 and out.dtype.itemsize >= 4


def _has_one_tap(
    x: Layout, w: Layout, out: Layout, stride: Pair, padding: Pair, groups: int
) -> bool:
    """Whether each output is a sum over the channels of one pixel: x's own. Without fma a product
    rounds twice a term, a convolution of more taps once: there none is a product.
    """
    geometry = (*w.shape[2:], *stride, *padding, groups)
    return (
        native.host().has_fma and geometry == (1, 1, 1, 1, 0, 0, 1) and x.shape[2:] == out.shape[2:]
    )


def _is_one_pixel(w: Layout, padding: Pair, groups: int) -> bool:
    """Whether each output is a sum over the channels of a pixel, one a step."""
    plain = (*w.shape[2:], *padding, groups) == (1, 1, 0, 0, 1)
    return plain and w.dtype.itemsize >= 4 and native.host().has_fma


def _one_tap(w: Layout) -> Layout:
    return Layout(w.shape[:2], w.strides[:2], w.dtype)


def _wide(
    x: Layout, w: Layout, out: Layout, stride: Pair, padding: Pair, dilation: Pair, groups: int,
    *, biased: bool, epilogue: Epilogue | None, pairs: bool, cut: bool,
) -> Launch:  # fmt: skip
    """The forward one with channels across the vector."""
    kernel, grid = (w.shape[2], w.shape[3]), (out.shape[2], out.shape[3])
    view = window(kernel, grid, stride, dilation)
    places = [
        p * w.strides[2] + q * w.strides[3] for p in range(kernel[0]) for q in range(kernel[1])
    ]
    taps = tuple(zip(view.taps, places, strict=True))
    part = Part(grid, taps, 0, 0, (out.strides[2], out.strides[3]))
    strides = (w.shape[0] // groups * w.strides[0], w.strides[0], w.strides[1])
    return plan_wide(
        x, w, out, groups, (part,), ((view.rows, view.columns), padding, view.steps),
        ((view.move[0] * view.columns, view.move[1]), view.move), strides, biased=biased,
        epilogue=epilogue, pairs=pairs, cut=cut,
    )  # fmt: skip


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
    if D.from_np(x.dtype) not in D.FLOATS or not x.dtype == w.dtype == out.dtype:
        raise ValueError(f"{name}: got dtypes {x.dtype}, {w.dtype}, {out.dtype}")
    if min(*stride, *dilation, groups) < 1 or min(padding) < 0:
        raise ValueError(
            f"{name}: stride {stride}, dilation {dilation} and groups {groups} must be positive, "
            f"padding {padding} not negative"
        )
    n, ci, co = x.shape[0], x.shape[1], w.shape[0]
    if ci % groups or co % groups or w.shape[1] != ci // groups or out.shape[:2] != (n, co):
        raise ValueError(
            f"{name}: input {x.shape}, weight {w.shape} and output {out.shape} do not fit, "
            f"groups {groups}"
        )
    for size, kernel, step, pad, gap, result in zip(
        x.shape[2:], w.shape[2:], stride, padding, dilation, out.shape[2:], strict=True
    ):
        reach = (result - 1) * step + gap * (kernel - 1) + 1
        if result and (kernel < 1 or reach > size + pad + max(pad, gap * (kernel - 1))):
            raise ValueError(
                f"{name}: input {x.shape} with padding {padding} is too small for {out.shape}"
            )


def need(name: str, **layouts: Layout) -> None:
    """Raise ValueError unless each is C-contiguous."""
    for which, layout in layouts.items():
        if not layout.is_contiguous:
            raise ValueError(
                f"{name}: {which} {layout.shape} must be contiguous, has strides {layout.strides}"
            )


def _is_half(a: Layout) -> bool:
    return a.dtype.itemsize == 2


def _check_bias(name: str, bias: Layout | None, size: int, like: Layout) -> None:
    if bias is not None:
        need(name, bias=bias)
        if bias.shape != (size,) or bias.dtype != like.dtype:
            raise ValueError(
                f"{name}: bias {bias.shape} {bias.dtype}, expected {size} {like.dtype}"
            )


def _image_slab(
    x: Layout, kernel: Pair, out: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[Slab, int, int, int]:
    """The slab of an image for the windows of a convolution; x itself if that serves.

    Returns (slab, offset of the next output row in it, slab rows an output row, top).
    """
    inside = all(o + d * (k - 1) <= s for o, d, k, s in zip(out, dilation, kernel, x.shape[2:]))
    plain = stride == (1, 1) and padding == (0, 0) and x.strides[3] == 1
    if inside and plain and not _is_half(x):
        return Slab(True, x.strides[1], x.strides[2], 0, 1, 0, 0, 0), x.strides[2], 1, 0
    rows, columns, _ = reach(kernel, out, stride, dilation)
    length = -(-columns // stride[1])
    pitch = length * stride[1]
    slab = Slab(False, rows * pitch, pitch, length, stride[1], rows, *padding)
    return slab, stride[0] * pitch, stride[0], padding[0]


def _tap_offsets(slab: Slab, kernel: Pair, stride: Pair, dilation: Pair) -> list[int]:
    """Where in the slab the taps (p, q) of output (0, 0) lie."""
    offsets = []
    for p in range(kernel[0]):
        for q in range(kernel[1]):
            c = q * dilation[1]
            across = c if slab.direct else c % stride[1] * slab.phase_pitch + c // stride[1]
            offsets.append(p * dilation[0] * slab.row_pitch + across)
    return offsets


def _plan(
    source: Layout, w: Layout, out: Layout, groups: int, slab: Slab, row_step: int, step_h: int,
    top: int, parts: tuple[Part, ...], weights: Weights, biased: bool,
) -> Launch:  # fmt: skip
    if out.size == 0:
        return Launch(())
    d = D.from_np(out.dtype)
    tile = tile_for(register(d))
    size = tile.itemsize
    images, rows, channels = out.shape[0], out.shape[1] // groups, source.shape[1] // groups
    unit_images, band, halo = _unit(parts, slab, channels, images, step_h, tile.columns, size)
    depthwise = rows == channels == 1 and max(len(p.taps) for p in parts) <= KC
    if depthwise:
        unit_images, band = 1, max(p.grid[0] for p in parts)
    bands = -(-max(p.grid[0] for p in parts) // band)
    slab_rows = (band - 1) * step_h + halo
    plane = slab.plane if slab.direct else slab_rows * slab.row_pitch
    image_pitch = source.strides[0] if slab.direct else channels * plane
    panels = [-(-min(p.grid[0], band) * p.grid[1] * unit_images // tile.columns) for p in parts]
    units = groups * -(-images // unit_images) * bands
    taps = [t for part in parts for t in part.taps]
    work = 2 * out.size * channels * len(taps) // len(parts) + source.size
    parallel = work >= PARALLEL_WORK
    # too few panels for the threads: cut the rows too
    wanted = -(-2 * (threads.get_num_threads() if parallel else 1) // (units * sum(panels)))
    row_chunk = min(rows, up(-(-rows // wanted), tile.rows))
    row_chunks = -(-rows // row_chunk)
    unit_items = sum(panels) * row_chunks
    deepest = max(channels * len(p.taps) for p in parts)
    panel_at = 0 if slab.direct else up(unit_images * image_pitch * size)
    c_at = panel_at + up(min(KC, max(deepest, 1)) * tile.columns * size)
    table_at = c_at + up(row_chunk * tile.columns * size)
    work_size = up(table_at + 8 * (deepest + row_chunk + 2))
    gathered = up(w.size * size) if weights.gather else 0
    head = {
        "groups": groups, "rows": rows, "row_chunk": row_chunk, "row_chunks": row_chunks,
        "channels": channels, "images": images, "unit_images": unit_images,
        "band": band, "bands": bands, "direct": int(slab.direct), "thin": int(rows <= THIN),
        "source_n": source.strides[0], "source_c": source.strides[1],
        "source_h": source.strides[2], "source_w": source.strides[3],
        "height": source.shape[2], "width": source.shape[3],
        "plane": plane, "row_pitch": slab.row_pitch, "phase_pitch": slab.phase_pitch,
        "phases": slab.phases, "slab_rows": slab_rows, "top": top, "left": slab.left,
        "image_pitch": image_pitch, "row_step": row_step, "band_step": band * step_h,
        "out_n": out.strides[0], "out_m": out.strides[1],
        "gathered": int(weights.gather), "w_group": weights.group, "w_row": weights.row,
        "w_channel": weights.channel, "a_group": rows * channels * len(taps),
        "work": gathered, "work_size": work_size,
        "panel_at": panel_at, "c_at": c_at, "table_at": table_at,
        "items": units * unit_items, "unit_items": unit_items, "parts": len(parts),
        "taps": len(taps),
    }  # fmt: skip
    ints = [head[n] for n in HEAD]
    a_at = tap = item = 0
    for part, count in zip(parts, panels, strict=True):
        k, flat = channels * len(part.taps), part.out_step == (part.grid[1], 1)
        record = {
            "k": k, "part_taps": len(part.taps), "first_tap": tap,
            "grid_h": part.grid[0], "grid_w": part.grid[1], "source_at": part.source_at,
            "out_at": part.out_at, "out_h": part.out_step[0], "out_w": part.out_step[1],
            "flat": int(flat), "a_at": a_at,
            "first_item": item, "end_item": item + count * row_chunks,
        }  # fmt: skip
        ints += [record[n] for n in PART]
        a_at, tap, item = a_at + rows * k, tap + len(part.taps), record["end_item"]
    ints += [t[0] for t in taps] + [t[1] for t in taps]
    kernel = "depthwise" if depthwise else "conv"
    code = _kernels(d.name, kernel, biased)
    stages = [Stage(code["gather"], parallel)] if weights.gather else []
    stages.append(Stage(code[kernel], parallel))
    quick = work + w.size < QUICK_WORK
    return Launch(tuple(stages), tuple(ints), gathered, work_size, quick)


def _unit(
    parts: tuple[Part, ...], slab: Slab, channels: int, images: int, step_h: int, columns: int,
    size: int,
) -> tuple[int, int, int]:  # fmt: skip
    """(images, rows of the grid, further slab rows) of a unit: small images together, or a band."""
    grid_h = max(p.grid[0] for p in parts)
    widest = max(p.grid[0] * p.grid[1] for p in parts)
    if slab.direct:
        return images if widest < 4 * columns else 1, grid_h, 0
    halo = slab.rows - (grid_h - 1) * step_h
    bytes = max(channels * slab.plane * size, 1)
    if widest < 4 * columns:
        together = min(images, max(_SLAB // bytes, 1), -(-4 * columns // widest))
        if together > 1:
            return together, grid_h, halo
    if bytes <= _SLAB:
        return 1, grid_h, halo
    band = (_SLAB // (channels * slab.row_pitch * size) - halo) // step_h + 1
    band = min(max(band, -(-2 * columns // max(p.grid[1] for p in parts)), 1), grid_h)
    return 1, -(-grid_h // -(-grid_h // band)), halo


@cache
def _kernels(dtype: str, kernel: str, biased: bool) -> dict[str, int]:
    return native.load_made((kernel, "gather"), conv_ir, dtype, kernel, biased=biased)
