"""The planner of convolutions with channels across the vector (`conv_wide_code` has the method).

They serve groups with output channels enough to fill a vector; the others are planned in `conv`, on
pixels across the vector. Both have the same bits.
"""

from dataclasses import dataclass
from functools import cache

from weft.core import dtype as D
from weft.core import scalar as S
from weft.kernels.choices import choose
from weft.kernels.layout import Layout
from weft.kernels.packed import Packed
from weft.kernels.schedule import amx
from weft.kernels.schedule.conv_micro import TAPS, UNROLL, is_brief, spans_of, way_along
from weft.kernels.schedule.conv_pack import FEW
from weft.kernels.schedule.conv_wide_code import (
    HEAD,
    PACK_ANY,
    PACK_COLUMNS,
    PACK_DEPTH,
    PACK_TAPS,
    conv_wide_ir,
    inputs_of,
    wide_tile,
)
from weft.kernels.schedule.conv_wide_pieces import PART
from weft.kernels.schedule.conv_wide_tiles import block_of, chunks_of, period_of, room_of
from weft.kernels.schedule.conv_zeros import strips
from weft.kernels.schedule.epilogue import (
    Epilogue,
    ends_among,
    ends_in_registers,
    epilogue_ints,
    near_arrays,
    row_step,
)
from weft.kernels.schedule.gemm import plan_matmul, plan_matmul_packed
from weft.kernels.schedule.gemm_code import MAX_INPUTS
from weft.kernels.schedule.nest import PARALLEL_WORK, QUICK_WORK
from weft.kernels.schedule.tile import KC, Tile, tile_for, up
from weft.kernels.target.element import register
from weft.runtime import native, threads
from weft.runtime.native import Launch, Stage

Pair = tuple[int, int]
_SLAB = 384 << 10  # bytes of a thread's slab to stay below: with C and a block of B it lies in L2
_WASTE = 1.2  # times the arithmetic that a product may take, rounded up to its tiles
_PIXELS = 1024  # of a unit to stay below
# a band is one thread's where all of B takes up to so many bytes; it has so many tiles
_NEAR, _TILES = 640 << 10, 7
# the slab may be larger then, or where each band reads anew a B that the second cache does not hold
_SLAB_MORE, _DEAR = 512 << 10, 1 << 20
# when taps in the border are left out: numbers of an image, pieces of a part, pixels, from how many
# on tiles stay tall, and the shares of the work that rows apart must save, and columns too
_WHOLE, _PIECES, _LEAST, _TALL, _MOST = 300000, 9, 32, 256, 4096
_WORTH, _WORTH_TALL = (0.02, 0.03), (0.005, 0.01)
_FAR = 1 << 20  # bytes of images beyond which a unit's are asked for while the one before runs
_SOONER = 0.75  # of the tiles that meet a block of k ask for all of the next one
_TOGETHER = 640 << 10  # bytes of whole images in a slab then: each piece reads all of B
# rows of a slab beside its band's from which on (taps far apart) it may be so large: bands of few
# rows would fill it with each one's neighbours again
_HALO, _FAR_SLAB = 12, 8 << 20


@dataclass(frozen=True)
class Part:
    """A dense convolution at unit step.

    Its grid of outputs, its taps (offset in the slab, offset in w), where it reads and writes, and
    its first row in the part of which it may be a piece.
    """

    grid: Pair
    taps: tuple[Pair, ...]
    source_at: int
    out_at: int
    out_step: Pair
    first_row: int = 0


@dataclass(frozen=True)
class Window:
    """How a convolution meets a slab of pixels.

    The slab's rows and columns, the image's steps from one to the next, the slab's moves from
    output to output, and where the taps of output (0, 0) lie.
    """

    rows: int
    columns: int
    steps: Pair
    move: Pair
    taps: tuple[int, ...]


def window(kernel: Pair, grid: Pair, stride: Pair, dilation: Pair) -> Window:
    """The slab that serves a grid of outputs."""
    # a kernel of one row or column meets every stride-th of them only: the slab has no others
    steps = (stride[0] if kernel[0] == 1 else 1, stride[1] if kernel[1] == 1 else 1)
    move = (stride[0] // steps[0], stride[1] // steps[1])
    rows, columns, taps = reach(kernel, grid, move, dilation)
    return Window(rows, columns, steps, move, taps)


def reach(kernel: Pair, grid: Pair, step: Pair, dilation: Pair) -> tuple[int, int, tuple[int, ...]]:
    """The rows and columns that a grid of outputs meets, and the first one's taps there."""
    rows, columns = (
        max((o - 1) * s + (k - 1) * d + 1, 1) for o, s, k, d in zip(grid, step, kernel, dilation)
    )
    taps = [
        p * dilation[0] * columns + q * dilation[1]
        for p in range(kernel[0])
        for q in range(kernel[1])
    ]
    return rows, columns, tuple(taps)


def fills_vectors(columns: int, d: D.dtype) -> bool:
    """Whether a group of so many output channels is worth a vector of them."""
    return 2 * columns > tile_for(register(d)).lanes


def pixel_pitch(channels: int, tile: Tile) -> int:
    """Elements between the pixels of a slab: whole vectors, an odd number of them.

    A multiple of some kilobytes would put neighbouring pixels in one set of the first cache.
    """
    vectors = max(-(-channels // tile.lanes), 1)
    return (vectors | 1) * tile.lanes


def plan_wide(
    source: Layout, w: Layout, out: Layout, groups: int, parts: tuple[Part, ...],
    slab: tuple[Pair, Pair, Pair], moves: tuple[Pair, Pair], weights: tuple[int, int, int],
    *, biased: bool, epilogue: Epilogue | None = None, pairs: bool = False, cut: bool = True,
) -> Launch:  # fmt: skip
    """`parts` count places in pixels of the slab; `pairs` of channels are multiplied (`words`).
    `cut`: parts may be (`_split`).

    `slab` is its (rows, columns), (top, left) and the steps of the image from row to row and column
    to column in it; `moves` the steps in the slab, in pixels, from output to output (down, across)
    and, in rows and columns, of the grid. `weights` are w's strides of (group, column, channel).
    """
    d = D.from_np(out.dtype)
    images, columns = out.shape[0], out.shape[1] // groups
    tile = wide_tile(register(d), columns, pairs=pairs)
    size, nr = tile.itemsize, tile.columns
    (slab_rows, slab_columns), (top, left), (step_y, step_x) = slab
    (down, across), (grid_step, _) = moves
    channels = source.shape[1] // groups
    depth = -(-channels // 2) if pairs else channels
    # words of a tap, and of a chunk of k, in tile registers
    tap_words, cells, beside = depth, 1, False
    if tile.amx:
        tap_words, cells, beside = chunks_of(depth, [[t[0] for t in p.taps] for p in parts])
    direct = pairs and tap_words == depth and _in_place(source, parts, channels, slab, moves)
    grid_h, grid_w = (max(p.grid[i] for p in parts) for i in (0, 1))
    halo = max(slab_rows - (grid_h - 1) * grid_step, 1)
    whole = _WHOLE if halo < _HALO else _FAR_SLAB // 4
    split = _split(parts, source, depth, slab, moves[0], whole * (cut and not tile.amx))
    shares = [(i, p, numbers) for i, own in enumerate(split) for p, numbers in own]
    pitch = FEW if depth <= FEW <= tile.lanes and not tile.amx else pixel_pitch(tap_words, tile)
    if is_brief(tile) and pitch > FEW and moves[0] == (slab_columns, 1):
        pitch += tile.lanes // 2  # half of the pixels come to a new line at other k
    pitch = depth if beside else pitch
    row_pitch = slab_columns * pitch
    panels = -(-columns // nr)
    taps = [t for part in parts for t in part.taps]
    packed_group = panels * nr * tap_words * len(taps)
    work = 2 * out.size * channels * len(taps) // len(parts) + source.size + out.size
    parallel = work >= PARALLEL_WORK
    row_bytes = row_pitch * size
    # where all of B stays in the second cache a band is one thread's, which fills its slab alone
    near = parallel and packed_group * size <= _NEAR
    slab_bytes = choose("slab", _SLAB, _SLAB // 2, _SLAB * 2)
    if near or packed_group * size > _DEAR:
        slab_bytes = _SLAB_MORE
    if halo >= _HALO:
        slab_bytes = _FAR_SLAB
    rows_fit = max((slab_bytes // row_bytes - halo) // grid_step + 1, 1)
    planes = out.strides[1] != 1 and epilogue is None
    # of several parts they go out when all sums are done
    joined = planes and out.strides[2:] == (out.shape[3], 1) and not tile.amx
    at_once = _PIXELS // len(parts) if joined else _PIXELS
    band = max(min(rows_fit, at_once // max(grid_w, 1), grid_h), 1)
    wanted = 2 * threads.get_num_threads() if parallel else 1  # items, so that all have some
    per_image = -(-wanted // (groups * images * (1 if near else panels)))
    least = tile.rows * (_TILES if near else 1)
    band = min(band, max(-(-grid_h // per_image), -(-least // max(grid_w, 1))))
    bands = -(-grid_h // band)
    if near and groups * images * bands < 8 * wanted:
        bands = _even(groups * images, grid_h, bands)
    band = -(-grid_h // bands)
    bands = -(-grid_h // band)
    space = _TOGETHER if len(shares) > len(parts) else slab_bytes
    unit_images = 1
    if bands == 1:
        image_bytes = max(slab_rows * row_bytes, 1)
        fit = min(space // image_bytes, at_once // max(grid_h * grid_w, 1))
        unit_images = max(min(fit, images, images * groups * panels // wanted), 1)
    band_rows = (band - 1) * grid_step + halo
    image_pitch = band_rows * row_pitch
    seen = sum(len(p.taps) for _, p, _ in shares)
    units = groups * -(-images // unit_images) * bands
    # a slab serves as many panels as leave every thread its share
    shared = choose("pieces", 4, 2, 8) * wanted
    alone = not parallel or (near and 2 * units >= wanted)
    most = min(max(panels, wanted), panels * len(shares))
    pieces = 1 if alone else max(min(-(-shared // units), most), 1)
    if pieces < panels:  # of as many panels each: the last ones are waited for
        pieces = -(-panels // (panels // pieces))
    by_part = pieces <= panels  # a run is all pieces of a part; else they are dealt out
    runs = len(parts) if by_part else len(shares)
    pixels = unit_images * band * grid_w
    places = [unit_images * min(p.grid[0], band) * p.grid[1] for _, p, _ in shares]
    joined = joined and by_part and len(shares) > 1
    firsts = [sum(map(len, split[:i])) if by_part else n for n, (i, *_) in enumerate(shares)]
    firsts = [n * (not joined) for n in firsts]
    sums = [sum(places[first:n]) for n, first in enumerate(firsts)]  # pixels of the run before
    pixels = max(pixels, *(a + b for a, b in zip(sums, places, strict=True)))
    depths = [tap_words * len(p.taps) for _, p, _ in shares]
    period, block = 0, 1
    if tile.amx and len(parts) == 1:
        row, step = parts[0].out_step
        last = out.strides[1] == 1 or epilogue is not None
        follow = row == grid_w * step and (unit_images == 1 or out.strides[0] == grid_h * row)
        # only results that follow on one another go out two tiles at a time
        if last and follow:
            block = block_of(tap_words * len(taps) * nr * size)
            if moves == ((slab_columns, 1), (1, 1)) and not direct:
                period = period_of(slab_columns, grid_w, band)
    room = room_of(period, grid_w) if tile.amx else 0
    c_at = up((unit_images * image_pitch + tile.lanes) * size)  # pixels are written by vectors
    rows_at = c_at + up(max(pixels, 2 * room) * nr * size)
    outs_at = rows_at + up(8 * sum(places))
    table_at = outs_at + up(8 * sum(places))
    packed = up(groups * packed_group * size)
    zeros_at = up(table_at + 16 * (sum(depths) + 1))
    zeros, strip, lists = 0, 1, 0
    whole = len(parts) == 1 and by_part and len(shares[0][1].taps) == len(taps)
    if whole and not tile.amx:
        at = [t[0] for t in shares[0][1].taps]
        zeros, strip, lists = strips(tile, depth, at, (band, grid_w), slab_columns)
    order_at, ordered = up(zeros_at + lists), max(pixels, 2 * room) * planes
    met = sum(-(-n // tile.rows) * len(p.taps) for n, (_, p, _) in zip(places, shares, strict=True))
    met = int(met * _SOONER / max(len(taps), 1)) if by_part else 0  # tiles that meet a block of k
    pace = min(UNROLL * nr * size // max(met, 1), UNROLL * 64)  # bytes in so many k
    w_group, w_column, w_channel = weights
    head = {
        "groups": groups, "columns": columns, "panels": panels, "channels": channels,
        "depth": depth, "direct": int(direct), "images": images, "unit_images": unit_images,
        "bands": bands, "band": band,
        "source_n": source.strides[0], "source_c": source.strides[1],
        "source_h": source.strides[2], "source_w": source.strides[3],
        "height": source.shape[2], "width": source.shape[3],
        "slab_rows": band_rows, "slab_columns": slab_columns, "pitch": pitch,
        "row_pitch": row_pitch, "image_pitch": image_pitch, "step_y": step_y, "step_x": step_x,
        "top": top, "left": left, "band_step": band * grid_step * step_y,
        "pixel_h": down * pitch, "pixel_w": across * pitch,
        "out_n": out.strides[0], "out_c": out.strides[1],
        "w_group": w_group, "w_column": w_column, "w_channel": w_channel,
        "area": w.shape[2] * w.shape[3], "pack": _pack(w, parts, weights, tile),
        "packed_group": packed_group, "packed": 0, "work": packed,
        "work_size": order_at + up(8 * ordered * (1 + joined)), "order_at": order_at,
        "ordered": ordered, "joined": out.shape[2] * out.shape[3] * joined,
        "zeros": zeros, "zeros_at": zeros_at, "strip": strip, "c_at": c_at, "rows_at": rows_at,
        "outs_at": outs_at, "table_at": table_at,
        "epilogue": 0, "epilogue_at": 0, "finish": 0, "near": 0, "near_at": 0,
        "area_out": out.shape[2] * out.shape[3],
        "ahead": 0,  # lines of the next unit's image that are asked for with each tile
        "pace": pace, "even": 1 if 2 * pace <= 64 else UNROLL,
        "pieces": units * pieces, "unit_pieces": pieces, "unit_items": panels * runs,
        "together": runs if by_part else 1,
        "runs": runs, "runs_at": len(shares) if by_part and not tile.amx else 0,
        "parts": len(shares), "wholes": len(parts), "taps": seen,
        "tap_words": tap_words, "cells": cells, "period": period, "room": room,
        "block": block, "far": int(packed_group * size > _NEAR),
    }  # fmt: skip
    inputs = 3 if biased else 2
    own: tuple[int, ...] = ()
    if epilogue is not None:
        inputs += len(epilogue.ins) + len(epilogue.outs) - 1
        if out.dtype.itemsize < 4 and not pairs:
            raise ValueError(f"conv2d: no epilogue on {out.dtype}")
        own = _ending(epilogue, out, columns * groups, inputs)
        head["epilogue"], own = own[0], own[1:]
        ends = ends_among if tile.amx else ends_in_registers
        kind = "images" if tile.amx else "registers"
        registers = tile.amx or out.dtype.itemsize < 4
        if registers and columns >= nr and ends(epilogue):
            head["finish"] = _ending(epilogue, out, columns * groups, inputs, finish=kind)[0]
        head["epilogue_at"] = (len(shares) + len(parts)) * len(PART) + 3 * seen + len(taps)
        head["near_at"] = head["epilogue_at"] + len(own)
        found, _ = near_arrays(over_pixels(epilogue))
        head["near"], own = len(found), (*own, *(x for pair in found for x in pair))
    if direct:
        head["image_pitch"] = source.strides[0] // 2
        head["pixel_h"] = source.strides[2] * step_y // 2
        head["pixel_w"] = source.strides[3] * step_x // 2
    row, source_bytes = source.shape[3] * channels, source.size * source.dtype.itemsize
    follows = source.strides[1:] == (1, row, channels) or (bands == 1 and source.is_contiguous)
    every = tile.amx or (step_x, step_y) == (1, 1)  # else most lines would be asked for in vain
    if groups == 1 and follows and every and source_bytes > _FAR:
        tiles = sum(-(-p // tile.rows) * -(-k // KC) for p, k in zip(places, depths, strict=True))
        if tile.amx:
            tiles = sum(-(-p // (2 * amx.ROWS)) for p in places)
        lines = band_rows * step_y * row * unit_images * source.dtype.itemsize // 64
        head["ahead"] = -(-lines // max(panels * tiles // pieces, 1))
    ints = [head[n] for n in HEAD]
    wholes: list[dict[str, int]] = []
    packed_at = tap = 0
    for part in parts:
        k = tap_words * len(part.taps)
        wholes.append({
            "k": k, "part_taps": len(part.taps), "first_tap": tap, "packed_at": packed_at,
            **_place(part, pitch), "row_pixels": part.grid[1], "whole_k": k,
            "whole_taps": len(part.taps), "run": len(split[len(wholes)]),
            "run_at": sum(map(len, split[: len(wholes)])),
        })  # fmt: skip
        packed_at, tap = packed_at + panels * nr * k, tap + len(part.taps)
    records: list[dict[str, int]] = []
    tap = 0
    for n, (i, part, numbers) in enumerate(shares):
        whole = wholes[i]
        along = way_along([t[0] for t in part.taps], numbers, len(parts[i].taps), across)
        along *= is_brief(tile) and TAPS * pace <= 2 * UNROLL * 64
        records.append({
            "k": tap_words * len(part.taps), "part_taps": len(part.taps), "first_tap": tap,
            **_place(part, pitch), "packed_at": whole["packed_at"], "whole_k": whole["k"],
            "whole_taps": whole["part_taps"], "c_at": sums[n], "run_at": n, "run": 1,
            "pixel_at": (part.out_at - parts[i].out_at) // max(part.out_step[1], 1),
            "row_pixels": parts[i].grid[1], "along": along,
            "spans": spans_of(part.grid[1]) if along else 0,
            "rows_at": sum(places[:n]), "table_at": sum(depths[:n]),
        })  # fmt: skip
        tap += len(part.taps)
    ints += [r.get(n, 0) for r in (*records, *wholes) for n in PART]
    ints += [t[0] * pitch for _, p, _ in shares for t in p.taps]
    ints += [n for *_, numbers in shares for n in numbers]
    for i, _, numbers in shares:
        around = (*numbers[1:], *(n + len(parts[i].taps) for n in numbers[:1]))
        ints += [(b - a) * nr * size for a, b in zip(numbers, around, strict=True)]
    ints += [*(t[1] for t in taps), *own]
    code = _kernels(d.name, nr, tile.widths_of(columns), biased, pairs)
    stages = (Stage(code[f"pack{inputs}"], parallel), Stage(code[f"wide{inputs}"], parallel))
    return Launch(stages, tuple(ints), packed, head["work_size"], work + w.size < QUICK_WORK)


def _place(part: Part, pitch: int) -> dict[str, int]:
    """Where it reads and writes."""
    return {
        "grid_h": part.grid[0], "grid_w": part.grid[1], "source_at": part.source_at * pitch,
        "out_at": part.out_at, "out_h": part.out_step[0], "out_w": part.out_step[1],
        "first_row": part.first_row,
    }  # fmt: skip


def _even(images: int, rows: int, bands: int) -> int:
    """About so many bands of an image's rows, so that the busiest thread has the fewest rows."""
    count = threads.get_num_threads()
    most = lambda n: -(-images * n // count) * -(-rows // n)
    return min(range(bands + -bands % count, max(bands // 2, 1) - 1, -1), key=most)


def _in_place(
    source: Layout, parts: tuple[Part, ...], channels: int, slab: tuple[Pair, Pair, Pair],
    moves: tuple[Pair, Pair],
) -> bool:  # fmt: skip
    """Whether the words of a convolution of one tap lie in the image as they would in a slab."""
    (rows, columns), before, steps = slab
    plain = len(parts) == 1 and parts[0].source_at == 0 and [t[0] for t in parts[0].taps] == [0]
    plain = plain and before == (0, 0) and moves == ((columns, 1), (1, 1))
    whole = all((n - 1) * s < m for n, s, m in zip((rows, columns), steps, source.shape[2:]))
    even = channels % 2 == 0 and all(
        s % 2 == 0 for n, s in zip(source.shape, source.strides, strict=True) if n > 1 and s != 1
    )
    narrow = D.from_np(source.dtype) is D.bfloat16
    return narrow and plain and whole and even and source.strides[1] == 1


Split = list[tuple[Part, tuple[int, ...]]]


def _split(
    parts: tuple[Part, ...], source: Layout, depth: int, slab: tuple[Pair, Pair, Pair], move: Pair,
    whole: int,
) -> list[Split]:  # fmt: skip
    """The parts, or (of images up to `whole` numbers) pieces of each that leave out taps (see
    `_inside`), with their taps' numbers: rows apart, or columns too, if that saves work enough.
    """
    found = [[(p, tuple(range(len(p.taps))))] for p in parts]
    (rows, columns), *_ = slab
    most = max(p.grid[0] * p.grid[1] for p in parts)
    area = min(rows * columns, source.shape[2] * source.shape[3])
    if depth * area > whole or not _LEAST <= most <= _MOST:
        return found
    image = (source.shape[2], source.shape[3])
    worth = _WORTH if most < _TALL else _WORTH_TALL
    for share, across in zip(worth, (False, True), strict=True):
        pieces = [_inside(p, image, slab, move, across=across) for p in parts]
        few = sum(map(len, pieces)) <= _PIECES * len(parts)
        if few and _steps(pieces) < (1 - share) * _steps(found):
            found = pieces
    return found


def _steps(split: list[Split]) -> int:
    """What the pieces of one image cost: rows times taps; a last tile of one row takes two."""
    sizes = [(p.grid[0] * p.grid[1], len(p.taps)) for own in split for p, _ in own]
    return sum((rows + (rows % 7 in (1, 3, 6))) * taps for rows, taps in sizes)


def _inside(
    part: Part, image: Pair, slab: tuple[Pair, Pair, Pair], move: Pair, *, across: bool
) -> Split:
    """The part in pieces that leave out the taps which see the border only, by their numbers: rows
    of outputs by the rows of taps that lie in the image; of the most rows alike, columns too if
    `across`. The largest comes first.
    """
    (_, slab_columns), before, steps = slab
    down, along = move
    seen = [divmod(part.source_at + t[0], slab_columns) for t in part.taps]

    def alike(dim: int, step: int) -> list[tuple[int, int, frozenset[int]]]:
        """(first, end, places of the taps in the image) of outputs along a dim."""
        out: list[tuple[int, int, frozenset[int]]] = []
        for i in range(part.grid[dim]):
            inside = frozenset(
                s[dim]
                for s in seen
                if 0 <= (s[dim] + i * step) * steps[dim] - before[dim] < image[dim]
            )
            if out and out[-1][2] == inside:
                out[-1] = (out[-1][0], i + 1, inside)
            else:
                out.append((i, i + 1, inside))
        return out

    rows, columns = alike(0, down // slab_columns), alike(1, along)
    most = max((end - first for first, end, _ in rows), default=0)
    every = frozenset(s[1] for s in seen)
    pieces = []
    for y, y_end, in_rows in rows:
        some = columns if across and y_end - y == most else [(0, part.grid[1], every)]
        for x, x_end, in_columns in some:
            numbers = tuple(i for i, s in enumerate(seen) if s[0] in in_rows and s[1] in in_columns)
            piece = Part(
                (y_end - y, x_end - x), tuple(part.taps[i] for i in numbers),
                part.source_at + y * down + x * along,
                part.out_at + y * part.out_step[0] + x * part.out_step[1], part.out_step, y,
            )  # fmt: skip
            pieces.append((piece, numbers))
    return sorted(pieces, key=lambda p: -p[0].grid[0] * p[0].grid[1])


def with_packed(
    launch: Launch, w: Layout, out: Layout, groups: int, *, biased: bool, pairs: bool = False
) -> Packed:
    """`plan_wide`'s launch where w was packed before."""
    d = D.from_np(out.dtype)
    tile = wide_tile(register(d), out.shape[1] // groups, pairs=pairs)
    columns, widths = tile.columns, tile.widths_of(out.shape[1] // groups)
    ints = list(launch.ints)
    ints[HEAD.index("packed")], ints[HEAD.index("work")] = 1, 0
    pack, wide = launch.stages
    alone = Stage(_kernels(w.dtype.name, columns, widths, biased, pairs)["pack1"], pack.parallel)
    reads = Launch((wide,), tuple(ints), 0, launch.scratch_per_thread, launch.quick)
    form = ("conv", groups, pairs, columns, ints[HEAD.index("tap_words")])
    return Packed(Launch((alone,), launch.ints), launch.scratch, reads, form)


def plan_one_tap(
    source: Layout, w: Layout, out: Layout, *, bias: Layout | None, epilogue: Epilogue | None = None
) -> Launch | None:
    """out[image][y][x][co] = bias[co] + sum over ci of source[image][y][x][ci] w[co][ci]: a product
    of the images as they lie and `w`, which is that matrix.

    ins as of `conv.plan_conv2d`. None where the images lie neither channels last nor channel by
    channel, or the product would waste much of its tiles.
    """
    found = _by_pixels(source, w, out, bias, epilogue)
    return _by_planes(source, w, out, bias, epilogue) if found is None else plan_matmul(*found)


def plan_one_tap_packed(
    source: Layout, w: Layout, out: Layout, *, bias: Layout | None, epilogue: Epilogue | None = None
) -> Packed | None:
    """`plan_one_tap` of a w that was packed before."""
    found = _by_pixels(source, w, out, bias, epilogue)
    return None if found is None else plan_matmul_packed(*found)


def _by_pixels(
    source: Layout, w: Layout, out: Layout, bias: Layout | None, epilogue: Epilogue | None
) -> tuple[Layout, Layout, Layout, Epilogue | None] | None:
    """Pixels x channels times w, if images lie channels last."""
    try:
        a, c = (_matrix(pixels_by_channels(images)) for images in (source, out))
    except ValueError:
        return None
    if not a.strides[1] == c.strides[1] == 1 or out.dtype.itemsize < 4:
        return None
    b = Layout(w.shape[::-1], w.strides[::-1], w.dtype)
    return a, b, c, _add(bias, c) if epilogue is None else over_pixels(epilogue)


def _by_planes(
    source: Layout, w: Layout, out: Layout, bias: Layout | None, epilogue: Epilogue | None
) -> Launch | None:
    """Each image is w times a matrix of channels x pixels."""
    images, pixels = out.shape[0], out.shape[2] * out.shape[3]
    flat = all(x.strides[3] == 1 and x.strides[2] == x.shape[3] for x in (source, out))
    if out.dtype.itemsize < 4 or epilogue is not None or not flat or wastes(pixels, out):
        return None
    if bias is not None and (images > 1 or not out.is_contiguous):
        return None
    a = Layout((images, *w.shape), (0, *w.strides), w.dtype)
    b, c = (Layout((*x.shape[:2], pixels), (*x.strides[:2], 1), x.dtype) for x in (source, out))
    column = None if bias is None else Layout((w.shape[0], 1), (1, 0), bias.dtype)
    return plan_matmul(a, b, c, _add(column, c), swapped=True)


def wastes(pixels: int, out: Layout) -> bool:
    """Whether tiles that are whole vectors of so many pixels compute much that is thrown away."""
    tile = tile_for(register(D.from_np(out.dtype)))
    last = -(-(pixels % tile.columns) // tile.lanes)
    rest = min(v for v in (0, *tile.widths) if v >= last)
    return (pixels // tile.columns * tile.vectors + rest) * tile.lanes > _WASTE * pixels


def _add(bias: Layout | None, out: Layout) -> Epilogue | None:
    if bias is None:
        return None
    total, shift = (S.Arg(i, D.from_np(out.dtype)) for i in (0, 1))
    return Epilogue((S.add(total, shift),), (bias,), (out,))


def _matrix(a: Layout) -> Layout:
    """All dims but the last as one; ValueError where they are not evenly spaced."""
    channels = a.shape[-1]
    return Layout((a.size // max(channels, 1), channels), row_step(a.strides, a.shape), a.dtype)


def _ending(
    e: Epilogue, out: Layout, channels: int, inputs: int, *, finish: str = ""
) -> tuple[int, ...]:
    """The epilogue's ints over pixels x channels; ValueError where its operands do not lie so."""
    if inputs > MAX_INPUTS:
        raise ValueError(f"conv2d: no epilogue with {inputs} inputs on {out.dtype}")
    return epilogue_ints(over_pixels(e), out.size // channels, channels, finish=finish)


def over_pixels(e: Epilogue) -> Epilogue:
    outs, ins = (tuple(map(pixels_by_channels, a)) for a in (e.outs, e.ins))
    if not all(o.is_contiguous for o in outs):
        raise ValueError("conv2d: an epilogue writes images that lie channels last")
    return Epilogue(e.exprs, ins, outs)


def pixels_by_channels(a: Layout) -> Layout:
    """An operand that broadcasts to images (N, C, H, W), as one of (N, H, W, C)."""
    lead = 4 - len(a.shape)
    shape, strides = (1,) * lead + a.shape, (0,) * lead + a.strides
    order = (0, 2, 3, 1)
    return Layout(tuple(shape[i] for i in order), tuple(strides[i] for i in order), a.dtype)


def _pack(w: Layout, parts: tuple[Part, ...], weights: tuple[int, int, int], tile: Tile) -> int:
    """Which elements of w that a panel holds are adjacent."""
    area = w.shape[2] * w.shape[3]
    dense = (w.strides[3] == 1 or w.shape[3] == 1) and (
        w.strides[2] == w.shape[3] or w.shape[2] == 1
    )
    if weights[1] == 1:
        return PACK_COLUMNS
    every = len(parts) == 1 and [t[1] for t in parts[0].taps] == list(range(area))
    every = every and (area == 1 or not tile.pairs)
    if dense and weights[2] == area and every:
        return PACK_DEPTH
    return PACK_TAPS if dense and area <= tile.lanes else PACK_ANY


@cache
def _kernels(
    dtype: str, columns: int, widths: tuple[int, ...], biased: bool, pairs: bool
) -> dict[str, int]:
    names = [f"{k}{n}" for k in ("pack", "wide") for n in inputs_of(biased=biased)]
    names.append("pack1")
    return native.load_made(names, conv_wide_ir, dtype, columns, widths, biased=biased, pairs=pairs)
