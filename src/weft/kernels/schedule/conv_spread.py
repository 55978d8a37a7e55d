"""A kernel of one tap and a step: a product of the pixels that count.

    out[n, co, y, x] = sum over ci of w[co, ci] x[n, ci, y sh, x sw]

Of planes a stage before gathers these pixels, in panels as the product packs them: in a slab
(`conv_wide`) they would be transposed, and results once more. By pixels that gains nothing.

The input's gradient has zeros between its sums:

    out[n, ci, y, x] = sum over co of g[n, co, y/sh, x/sw] w[co, ci]  where the steps divide, else 0

The product lies in scratch as out does, by pixels or by planes; a second stage reads it from a near
cache and writes each line of out once. As parts of a convolution the zeros would be tiles without
terms, and lines of planes written for each column's residue.
"""

from collections.abc import Sequence
from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.conv_pack import load_step
from weft.kernels.schedule.conv_wide import wastes
from weft.kernels.schedule.gemm import plan_beside
from weft.kernels.schedule.gemm_code import extra_word
from weft.kernels.schedule.tile import Tile, tile_for
from weft.kernels.target.element import Element, register
from weft.kernels.target.llvm import Function, Module, Operand, Value, zero
from weft.runtime import native
from weft.runtime.native import Launch

Pair = tuple[int, int]
_TABLE = (
    "product_at", "images", "channels", "height", "width", "grid_h", "grid_w", "step_h", "step_w",
    "out_n", "out_c", "out_h", "out_w",
)  # fmt: skip
_GATHERED = (
    "panels_at", "images", "channels", "grid_h", "grid_w", "step_h", "step_w", "x_n", "x_c", "x_h",
    "image",
)  # fmt: skip
_ROWS_AHEAD = 16  # the image comes from the last cache
_MOST_APART = 2  # columns: two loads and a shuffle take them


def plan_gathered(x: Layout, w: Layout, out: Layout, stride: Pair) -> Launch | None:
    """The forward one; ins (x, w), w (Co, Ci). None where images lie otherwise than by planes of
    some pixels."""
    images, channels = x.shape[:2]
    grid, d = out.shape[2:], D.from_np(out.dtype)
    pixels, tile = grid[0] * grid[1], tile_for(register(d))
    by_planes = out.strides[3] == 1 == x.strides[3] and _is_even(out, 0) and channels > 1
    if not by_planes or stride[1] > _MOST_APART or pixels < tile.columns or wastes(pixels, out):
        return None
    image = -(-pixels // tile.columns) * tile.columns * channels
    a = Layout((images, *w.shape), (0, *w.strides), w.dtype)
    b = Layout((images, channels, pixels), (image, pixels, 1), x.dtype)
    to = Layout((images, w.shape[0], pixels), (*out.strides[:2], 1), out.dtype)
    table = (images, channels, *grid, *stride, *x.strides[:3], image)
    return plan_beside(a, b, to, _kernel(d.name, "gather"), table, swapped=True)


def plan_spread(g: Layout, w: Layout, out: Layout, stride: Pair) -> Launch | None:
    """ins (g, w), w (Co, Ci). None where images lie otherwise than by pixels or by
    planes of some pixels."""
    images, channels, *size = out.shape
    grid = g.shape[2:]
    pixels, terms = grid[0] * grid[1], g.shape[1]
    by_pixels = out.strides[1] == 1 == g.strides[1] and _is_even(g, 1)
    by_planes = out.strides[3] == 1 == g.strides[3] and _is_even(g, 0) and stride[1] <= 2
    few = pixels < tile_for(register(D.from_np(out.dtype))).columns  # w is read for each image
    by_planes = by_planes and not few and not wastes(pixels, out)
    table = (images, channels, *size, *grid, *stride, *out.strides)
    code = _kernel(D.from_np(out.dtype).name, "pixels" if by_pixels else "planes")
    if by_pixels:
        a = Layout((images * pixels, terms), (g.strides[3], 1), g.dtype)
        return plan_beside(a, w, None, code, table, swapped=False)
    if by_planes:
        a = Layout((images, channels, terms), (0, *w.strides[::-1]), w.dtype)
        b = Layout((images, terms, pixels), (*g.strides[:2], 1), g.dtype)
        return plan_beside(a, b, None, code, table, swapped=True)
    return None


def _is_even(g: Layout, first: int) -> bool:
    """Whether pixels, of all images or of each, follow at even distances."""
    (_, _, height, width), (step_n, _, step_h, step) = g.shape, g.strides
    plane = step_h == width * step or height == 1
    return plane and (not first or step_n == height * width * step or g.shape[0] == 1)


@cache
def _kernel(name: str, what: str) -> int:
    return native.load_made([what], _ir, name, what)[what]


def _ir(name: str, what: str) -> str:
    m = Module()
    emit = {"gather": _emit_gather, "pixels": _emit_pixels, "planes": _emit_planes}[what]
    emit(m.kernel(what), tile_for(register(D.BY_NAME[name])))
    return m.text()


def _table(f: Function, number: int, names: Sequence[str]) -> tuple[Value, dict[str, Value]]:
    """Scratch, and the ints where the word of such a number of the extra ones says."""
    scratch = f.load("ptr", f.gep("%args", 5, "i64"))
    word = f.load("i64", f.gep("%args", extra_word(2) + number, "i64"))
    return scratch, f.named(f.gep("%args", word, "i64"), names)


def _given(f: Function, tile: Tile) -> tuple[Value, Value, dict[str, Value]]:
    out = f.load("ptr", f.gep("%args", 2, "i64"))
    scratch, h = _table(f, 2, _TABLE)
    return out, f.gep(scratch, h["product_at"]), h


def _emit_gather(f: Function, tile: Tile) -> None:
    """Panels [image][panel][channel][pixel] of every step's pixels. A vector of a row may belong to
    two panels."""
    el, lanes, columns, size = tile.element, tile.lanes, tile.columns, tile.itemsize
    wide, d = Element(f, lanes), D.float32 if size == 4 else D.float64
    x = f.load("ptr", f.gep("%args", 3, "i64"))
    scratch, h = _table(f, 1, _GATHERED)
    channels, grid_w, panels = h["channels"], h["grid_w"], f.gep(scratch, h["panels_at"])
    panel = f.mul(channels, columns)
    last = f.op("and", f.sub(f.mul(h["grid_h"], grid_w), 1), -lanes)
    low, high = f.split(f.mul(h["images"], channels))

    def place(to: Value, pixel: Operand) -> Value:
        at = f.add(f.mul(f.div(pixel, columns), panel), f.rem(pixel, columns))
        return f.gep(to, at, el)

    with f.loop(low, high) as P:
        image, channel = f.div(P.i, channels), f.rem(P.i, channels)
        plane = f.gep(x, f.add(f.mul(image, h["x_n"]), f.mul(channel, h["x_c"])), el)
        to = f.gep(panels, f.add(f.mul(image, h["image"]), f.mul(channel, columns)), el)
        f.store(zero(tile.type), place(to, last))  # columns behind the last pixel are multiplied
        with f.loop(0, h["grid_h"]) as Y:
            row = f.gep(plane, f.mul(f.mul(Y.i, h["step_h"]), h["x_h"]), el)
            first = f.mul(Y.i, grid_w)
            ahead = f.mul(f.mul(h["step_h"], h["x_h"]), _ROWS_AHEAD * size)
            for step in f.switch(h["step_w"], (1,), _MOST_APART):
                with f.loop(0, grid_w, lanes) as X:
                    count = f.min(f.sub(grid_w, X.i), lanes)
                    at = f.gep(row, f.mul(X.i, step), el)
                    for line in range(0, step * lanes * size, 64):
                        f.touch(f.gep(f.gep(at, ahead), line))
                    v = load_step(f, wide, at, d, count, step)
                    pixel = f.add(first, X.i)
                    room = f.sub(columns, f.rem(pixel, columns))
                    here = place(to, pixel)
                    f.masked_store(v, here, f.lane_mask(f.min(count, room), lanes))
                    with f.iff(f.icmp("sgt", count, room)):
                        some, before = f.lane_mask(count, lanes), f.lane_mask(room, lanes)
                        rest = f.op("xor", some, before)
                        f.masked_store(v, f.gep(here, f.sub(panel, columns), el), rest)
    f.ret()


def _row_of(f: Function, h: dict[str, Value], y: Operand) -> tuple[Operand, Operand]:
    """The row of sums that goes to row y, and how many columns of it: none where there is none."""
    row = f.div(y, h["step_h"])
    there = f.icmp("eq", f.mul(row, h["step_h"]), y)
    there = f.op("and", there, f.icmp("slt", row, h["grid_h"]))
    return row, f.select(there, h["grid_w"], f.typed(0, "i64"))


def _emit_pixels(f: Function, tile: Tile) -> None:
    el, lanes = tile.element, tile.lanes
    out, product, h = _given(f, tile)
    channels = h["channels"]
    whole = f.op("and", channels, -lanes)
    rest = f.lane_mask(f.sub(channels, whole), lanes)

    def pixel(to: Value, source: Value | None) -> None:
        with f.loop(0, whole, lanes) as C:
            v = zero(tile.type) if source is None else f.load(tile.type, f.gep(source, C.i, el))
            f.store(v, f.gep(to, C.i, el))
        with f.iff(f.icmp("slt", whole, channels)):
            v = zero(tile.type)
            if source is not None:
                v = f.masked_load(tile.type, f.gep(source, whole, el), rest)
            f.masked_store(v, f.gep(to, whole, el), rest)

    low, high = f.split(f.mul(h["images"], h["height"]))
    with f.loop(low, high) as R:
        image, y = f.div(R.i, h["height"]), f.rem(R.i, h["height"])
        to = f.gep(out, f.add(f.mul(image, h["out_n"]), f.mul(y, h["out_h"])), el)
        row, columns = _row_of(f, h, y)
        row = f.add(f.mul(image, h["grid_h"]), row)
        source = f.gep(product, f.mul(f.mul(row, h["grid_w"]), channels), el)
        with f.loop(0, columns) as X:
            at = f.mul(X.i, h["step_w"])
            pixel(f.gep(to, f.mul(at, h["out_w"]), el), f.gep(source, f.mul(X.i, channels), el))
            end = f.min(f.add(at, h["step_w"]), h["width"])
            with f.loop(f.add(at, 1), end) as Z:
                pixel(f.gep(to, f.mul(Z.i, h["out_w"]), el), None)
        with f.loop(f.min(f.mul(columns, h["step_w"]), h["width"]), h["width"]) as Z:
            pixel(f.gep(to, f.mul(Z.i, h["out_w"]), el), None)
    f.ret()


def _emit_planes(f: Function, tile: Tile) -> None:
    el, lanes = tile.element, tile.lanes
    out, product, h = _given(f, tile)
    width, grid_w = h["width"], h["grid_w"]
    nothing = zero(tile.type)
    low, high = f.split(f.mul(h["images"], h["channels"]))
    with f.loop(low, high) as P:
        image, channel = f.div(P.i, h["channels"]), f.rem(P.i, h["channels"])
        plane = f.gep(out, f.add(f.mul(image, h["out_n"]), f.mul(channel, h["out_c"])), el)
        sums = f.gep(product, f.mul(P.i, f.mul(h["grid_h"], grid_w)), el)
        with f.loop(0, h["height"]) as Y:
            to = f.gep(plane, f.mul(Y.i, h["out_h"]), el)
            row, columns = _row_of(f, h, Y.i)
            source = f.gep(sums, f.mul(row, grid_w), el)
            with f.loop(0, columns, lanes) as X:
                there = f.lane_mask(f.sub(columns, X.i), lanes)
                v = f.masked_load(tile.type, f.gep(source, X.i, el), there)
                for step in f.switch(h["step_w"], (1,), 2):
                    for half in range(step):
                        at = f.add(f.mul(X.i, step), half * lanes)
                        # element i of two halves is sum i / 2, or one of the zeros
                        places = [
                            (i + half * lanes) // step + (lanes if i % step else 0)
                            for i in range(lanes)
                        ]
                        some = f.lane_mask(f.sub(width, at), lanes)
                        value = f.shuffle(v, nothing, places)
                        f.masked_store(value, f.gep(to, at, el), some)
            # a last vector of sums may have written more zeros
            done = f.min(f.mul(columns, h["step_w"]), width)
            with f.loop(done, width, lanes) as X:
                some = f.lane_mask(f.sub(width, X.i), lanes)
                f.masked_store(nothing, f.gep(to, X.i, el), some)
    f.ret()
