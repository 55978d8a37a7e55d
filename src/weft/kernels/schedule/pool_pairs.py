"""Maximum pools of 2x2 windows side by side, over planes whose rows lie as they are written.

The numbers are those of `pool`: a NaN wins, the last of several; of equal elements the first wins.
Nothing is copied: two vectors of a row are its even and its odd elements after one shuffle each.
Threads take planes.
"""

from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.conv_code import open_block
from weft.kernels.schedule.nest import PARALLEL_WORK, QUICK_WORK
from weft.kernels.target.llvm import BYTES, Function, Module, Operand, Value, const, vector, zero
from weft.runtime import native
from weft.runtime.native import Launch, Stage

Pair = tuple[int, int]
_HEAD = (
    "planes", "channels", "height", "width", "out_h", "out_w", "x_n", "x_c", "x_h",
    "g_n", "g_c", "g_h",
)  # fmt: skip


def are_pairs(
    x: Layout, grid: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> bool:
    """Whether these kernels serve: whole windows of 2x2, rows of adjacent elements."""
    plain = (kernel, stride, padding, dilation) == ((2, 2), (2, 2), (0, 0), (1, 1))
    whole = all(2 * o <= n for o, n in zip(grid, x.shape[2:], strict=True))
    return plain and whole and x.strides[3] == 1 and x.dtype.itemsize >= 4


def plan_pairs(kind: str, x: Layout, grid: Pair, g: Layout | None = None) -> Launch:
    """`max`: out = the maximum of each window of x; `back`: out = zeros like x with g there."""
    head = (
        x.shape[0] * x.shape[1], *x.shape[1:], *grid, *x.strides[:3],
        *((0, 0, 0) if g is None else g.strides[:3]),
    )  # fmt: skip
    stage = Stage(_kernels(D.from_np(x.dtype).name)[kind], x.size >= PARALLEL_WORK)
    return Launch((stage,), head, quick=x.size < QUICK_WORK)


@cache
def _kernels(name: str) -> dict[str, int]:
    return native.load(pool_pairs_ir(name), ("max", "back"))


def pool_pairs_ir(name: str) -> str:
    """The LLVM IR of the kernels of one dtype, for the host."""
    m = Module(native.host().vector_bits)
    for back in (False, True):
        _emit(m, {"float32": "float", "float64": "double"}[name], back)
    return m.text()


def _emit(m: Module, element: str, back: bool) -> None:
    f = m.kernel("back" if back else "max")
    pointers, _, h, _ = open_block(f, 2 if back else 1, _HEAD)
    out, x = pointers[0], pointers[-1]
    lanes = native.host().lanes(BYTES[element])
    image = f.mul(h["height"], h["width"]) if back else f.mul(h["out_h"], h["out_w"])
    whole = f.mul(f.div(h["out_w"], lanes), lanes)
    low, high = f.split(h["planes"])
    with f.loop(low, high) as P:
        n, c = f.div(P.i, h["channels"]), f.rem(P.i, h["channels"])
        source = f.gep(x, f.add(f.mul(n, h["x_n"]), f.mul(c, h["x_c"])), element)
        target = f.gep(out, f.mul(P.i, image), element)
        with f.loop(0, h["out_h"]) as Y:
            top = f.gep(source, f.mul(f.mul(Y.i, 2), h["x_h"]), element)
            rows = [top, f.gep(top, h["x_h"], element)]
            if back:
                at = f.add(f.add(f.mul(n, h["g_n"]), f.mul(c, h["g_c"])), f.mul(Y.i, h["g_h"]))
                slopes = f.gep(pointers[1], at, element)
                to = f.gep(target, f.mul(f.mul(Y.i, 2), h["width"]), element)
                places = [to, f.gep(to, h["width"], element)]
            else:
                slopes, places = None, [f.gep(target, f.mul(Y.i, h["out_w"]), element)]
            with f.loop(0, whole, lanes) as X:
                _windows(f, element, lanes, rows, slopes, places, X.i, None)
            with f.iff(f.icmp("slt", whole, h["out_w"])):
                count = f.sub(h["out_w"], whole)
                _windows(f, element, lanes, rows, slopes, places, whole, count)
            for place in places[: 2 * back]:
                with f.loop(f.mul(h["out_w"], 2), h["width"]) as X:
                    f.store(const(element, 0.0), f.gep(place, X.i, element))
        if back:  # the row below the last windows, if any
            first = f.mul(f.mul(h["out_h"], 2), h["width"])
            with f.loop(first, image) as L:
                f.store(const(element, 0.0), f.gep(target, L.i, element))
    f.ret()


def _windows(
    f: Function, element: str, lanes: int, rows: list[Value], slopes: Value | None,
    places: list[Value], x: Operand, count: Operand | None,
) -> None:  # fmt: skip
    """A vector of windows from window x of a row on, or the first `count` of one."""
    type, index = vector(lanes, element), vector(lanes, "i32")
    wide = f.mul(x, 2)

    def mask(part: int) -> Value | None:
        """Of a vector of a row."""
        return None if count is None else f.lane_mask(f.sub(f.mul(count, 2), part * lanes), lanes)

    masks = [mask(0), mask(1)]
    some = None if count is None else f.lane_mask(count, lanes)

    def get(row: Value, at: Operand, mask: Value | None) -> Value:
        place = f.gep(row, at, element)
        return f.load(type, place) if mask is None else f.masked_load(type, place, mask)

    def put(v: Value, row: Value, at: Operand, mask: Value | None) -> None:
        place = f.gep(row, at, element)
        f.store(v, place) if mask is None else f.masked_store(v, place, mask)

    best: Value | None = None
    where, parts = zero(index), list[Value]()
    for number in range(4):
        if number % 2 == 0:
            parts = [get(rows[number // 2], f.add(wide, k * lanes), masks[k]) for k in (0, 1)]
        v = f.shuffle(parts[0], parts[1], range(number % 2, 2 * lanes, 2))
        if best is None:
            best = v
            continue
        better = f.op("or", f.fcmp("ogt", v, best), f.fcmp("uno", v, v))
        best = f.select(better, v, best)
        where = f.select(better, const(index, number), where)
    if slopes is None:
        assert best is not None
        put(best, places[0], x, some)
        return
    slope = f.op("fadd", get(slopes, x, some), zero(type))
    for row, place in enumerate(places):
        even, odd = (
            f.select(f.icmp("eq", where, const(index, 2 * row + k)), slope, zero(type))
            for k in (0, 1)
        )
        for k in (0, 1):
            half = range(k * lanes // 2, (k + 1) * lanes // 2)
            v = f.shuffle(even, odd, [i + side * lanes for i in half for side in (0, 1)])
            put(v, place, f.add(wide, k * lanes), masks[k])
