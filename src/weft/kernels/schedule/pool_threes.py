"""Maximum pools of 3x3 windows two apart with a padding of one, over rows of adjacent elements.

The numbers are those of `pool`: a NaN wins, the last of several; of equal elements the first wins;
gradients are added window after window. Nothing is copied: of a row, 2X and 2X+1 are shuffled out
of two vectors, 2X-1 is the latter moved by a lane. "Last NaN, else first maximum" is associative,
so a row's three columns are joined once for the two rows of windows that share it. The gradient
asks of each window which of nine places is its own, and a row between two rows of windows waits,
half added up, in scratch. Planes without a NaN, which is looked for first, need half the
comparisons. Threads take planes.
"""

from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.conv_code import open_block
from weft.kernels.schedule.nest import PARALLEL_WORK, QUICK_WORK
from weft.kernels.schedule.tile import up
from weft.kernels.target.llvm import BYTES, Function, Module, Operand, Value, const, vector, zero
from weft.runtime import native
from weft.runtime.native import Launch, Stage

Pair = tuple[int, int]
_HEAD = (
    "planes", "channels", "height", "width", "out_h", "out_w", "x_n", "x_c", "x_h",
    "g_n", "g_c", "g_h", "pitch",
)  # fmt: skip
_HELD = 4  # arrays in scratch: maximum and column of the row above, its sums at 2X and 2X+1


def are_threes(
    x: Layout, grid: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> bool:
    """Whether these kernels serve: such windows, each with its middle inside, adjacent elements."""
    plain = (kernel, stride, padding, dilation) == ((3, 3), (2, 2), (1, 1), (1, 1))
    inside = all(o == (n + 1) // 2 for o, n in zip(grid, x.shape[2:], strict=True))
    return plain and inside and x.strides[3] == 1 and x.dtype.itemsize >= 4


def plan_threes(kind: str, x: Layout, grid: Pair, g: Layout | None = None) -> Launch:
    """`max`: out = the maximum of each window of x; `back`: out = zeros like x with g there."""
    pitch = up((grid[1] + native.host().lanes(4)) * 8)
    head = (
        x.shape[0] * x.shape[1], *x.shape[1:], *grid, *x.strides[:3],
        *((0, 0, 0) if g is None else g.strides[:3]), pitch,
    )  # fmt: skip
    stage = Stage(_kernels(D.from_np(x.dtype).name)[kind], x.size >= PARALLEL_WORK)
    return Launch((stage,), head, 0, _HELD * pitch if g else 0, x.size < QUICK_WORK)


@cache
def _kernels(name: str) -> dict[str, int]:
    return native.load(pool_threes_ir(name), ("max", "back"))


def pool_threes_ir(name: str) -> str:
    """The LLVM IR of the kernels of one dtype, for the host."""
    m = Module(native.host().vector_bits)
    element = {"float32": "float", "float64": "double"}[name]
    _emit_max(m, element)
    _emit_back(m, element)
    return m.text()


class _Part:
    """A vector of windows from window x of a row on, or (`tail`) the last ones."""

    def __init__(
        self, f: Function, h: dict[str, Value], element: str, x: Operand, *, tail: bool
    ) -> None:
        self.f, self.x, self.element, self.tail = f, x, element, tail
        self.lanes = lanes = native.host().lanes(BYTES[element])
        self.type, self.index = vector(lanes, element), vector(lanes, "i32")
        self.wide = f.mul(x, 2)
        left = f.sub(h["width"], self.wide)
        self.halves = [f.lane_mask(f.sub(left, k * lanes), lanes) for k in (0, 1)] if tail else []
        self.some = f.lane_mask(f.sub(h["out_w"], x), lanes) if tail else None
        self.begins = f.icmp("eq", x, 0)
        # the first window has no column at its left
        ahead = Value("<" + ", ".join(f"i32 {int(i == 0)}" for i in range(lanes)) + ">", self.index)
        self.first = f.select(self.begins, ahead, zero(self.index))

    def columns(self, row: Value) -> list[Value]:
        """A row's elements 2X-1, 2X, 2X+1; those outside are the lowest number."""
        f, lanes, low = self.f, self.lanes, const(self.element, float("-inf"))
        halves: list[Value] = []
        for k in (0, 1):
            place = f.gep(row, f.add(self.wide, k * lanes), self.element)
            if self.tail:
                rest = const(self.type, float("-inf"))
                halves.append(f.masked_load(self.type, place, self.halves[k], rest))
            else:
                halves.append(f.load(self.type, place))
        near, far = halves
        even, odd = (f.shuffle(near, far, range(k, 2 * lanes, 2)) for k in (0, 1))
        before = f.load(self.element, f.gep(row, f.max(f.sub(self.wide, 1), 0), self.element))
        before = f.splat(f.select(self.begins, low, before), self.type)
        return [f.shuffle(before, odd, [0, *range(lanes, 2 * lanes - 1)]), even, odd]

    def put(self, v: Value, place: Value) -> None:
        """Store an element a window."""
        self.f.store(v, place) if self.some is None else self.f.masked_store(v, place, self.some)

    def put_row(self, sums: tuple[Value, Value], row: Value) -> None:
        """Store a row's elements 2X and 2X+1."""
        f, lanes = self.f, self.lanes
        for k in (0, 1):
            half = range(k * lanes // 2, (k + 1) * lanes // 2)
            v = f.shuffle(*sums, [i + side * lanes for i in half for side in (0, 1)])
            place = f.gep(row, f.add(self.wide, k * lanes), self.element)
            f.masked_store(v, place, self.halves[k]) if self.tail else f.store(v, place)


def _better(f: Function, v: Value, best: Value, *, nan: bool = True) -> Value:
    more = f.fcmp("ogt", v, best)
    return f.op("or", more, f.fcmp("uno", v, v)) if nan else more


def _largest(f: Function, values: list[Value]) -> Value:
    best = values[0]
    for v in values[1:]:
        best = f.select(_better(f, v, best), v, best)
    return best


def _whole(f: Function, h: dict[str, Value], lanes: int) -> Operand:
    """Windows in vectors that need no mask."""
    return f.mul(f.div(h["width"], 2 * lanes), lanes)


def _emit_max(m: Module, element: str) -> None:
    f = m.kernel("max")
    (out, x), _, h, _ = open_block(f, 1, _HEAD)
    lanes = native.host().lanes(BYTES[element])
    type = vector(lanes, element)
    lowest = const(type, float("-inf"))
    whole = _whole(f, h, lanes)
    low, high = f.split(h["planes"])

    def strip(at: Operand, source: Value, target: Value, *, tail: bool) -> None:
        part = _Part(f, h, element, at, tail=tail)
        with f.loop(0, h["out_h"], carry=[(type, lowest)]) as Y:
            middle = f.mul(Y.i, 2)
            below = f.add(middle, 1)
            inside = f.icmp("slt", below, h["height"])
            rows = [
                _largest(f, part.columns(f.gep(source, f.mul(r, h["x_h"]), element)))
                for r in (middle, f.select(inside, below, middle))
            ]
            rows[1] = f.select(inside, rows[1], lowest)
            place = f.gep(target, f.add(f.mul(Y.i, h["out_w"]), at), element)
            part.put(_largest(f, [Y.carry[0], *rows]), place)
            Y.next = [rows[1]]

    with f.loop(low, high) as P:
        n, c = f.div(P.i, h["channels"]), f.rem(P.i, h["channels"])
        source = f.gep(x, f.add(f.mul(n, h["x_n"]), f.mul(c, h["x_c"])), element)
        target = f.gep(out, f.mul(P.i, f.mul(h["out_h"], h["out_w"])), element)
        with f.loop(0, whole, lanes) as X:
            strip(X.i, source, target, tail=False)
        with f.iff(f.icmp("slt", whole, h["out_w"])):
            strip(whole, source, target, tail=True)
    f.ret()


def _emit_back(m: Module, element: str) -> None:
    for nan in (False, True):
        _emit_back_plane(m, element, nan=nan)
    _emit_any_nan(m, element)
    f = m.kernel("back")
    (out, g, x), scratch, h, ints = open_block(f, 2, _HEAD)
    head = f.gep(ints, -len(_HEAD), "i64")
    mine = f.mul(f.cast("sext", f.arg("tid"), "i64"), f.mul(h["pitch"], _HELD))
    held = f.gep(scratch, mine)
    low, high = f.split(h["planes"])
    with f.loop(low, high) as P:
        n, c = f.div(P.i, h["channels"]), f.rem(P.i, h["channels"])
        source = f.gep(x, f.add(f.mul(n, h["x_n"]), f.mul(c, h["x_c"])), element)
        gradient = f.gep(g, f.add(f.mul(n, h["g_n"]), f.mul(c, h["g_c"])), element)
        target = f.gep(out, f.mul(P.i, f.mul(h["height"], h["width"])), element)
        found = f.call("any_nan", "i64", source, h["height"], h["width"], h["x_h"])
        with f.if_else(f.icmp("eq", found, 0)) as sides:
            f.call("plane", "void", target, gradient, source, held, head)
            sides.otherwise()
            f.call("plane_nan", "void", target, gradient, source, held, head)
    f.ret()


def _emit_any_nan(m: Module, element: str) -> None:
    """`any_nan(x, height, width, step)`: 1 where an element is a NaN, else 0."""
    sizes = [("i64", n) for n in ("height", "width", "step")]
    f = m.function("any_nan", [("ptr noalias readonly", "x"), *sizes], "i64", internal=True)
    lanes = native.host().lanes(BYTES[element])
    type = vector(lanes, element)
    width = f.arg("width")
    whole = f.mul(f.div(width, lanes), lanes)
    mask = f.lane_mask(f.sub(width, whole), lanes)
    number = f"i{8 * BYTES[element]}"
    kind, bits = vector(lanes, number), 8 * BYTES[element]
    # without its sign a NaN is a larger integer than infinity
    infinity = 0x7F800000 if bits == 32 else 0x7FF << 52
    size = const(kind, (1 << (bits - 1)) - 1)

    def larger(old: Value, v: Value) -> Value:
        return f.intrinsic("umax", kind, old, f.op("and", f.cast("bitcast", v, kind), size))

    with f.loop(0, f.arg("height"), carry=[(kind, zero(kind))]) as Y:
        row = f.gep(f.arg("x"), f.mul(Y.i, f.arg("step")), element)
        with f.loop(0, whole, lanes, [(kind, Y.carry[0])]) as X:
            X.next[0] = larger(X.carry[0], f.load(type, f.gep(row, X.i, element)))
        with f.loop(whole, width, lanes, [(kind, X.carry[0])]) as T:  # once or never
            T.next[0] = larger(T.carry[0], f.masked_load(type, f.gep(row, T.i, element), mask))
        Y.next[0] = T.carry[0]
    most = f.intrinsic("vector.reduce.umax", number, Y.carry[0])
    found = f.icmp("ugt", most, infinity)
    f.ret(f.cast("zext", found, "i64"))


def _emit_back_plane(m: Module, element: str, *, nan: bool) -> None:
    """`plane(target, gradient, source, held, head)`, or `plane_nan` where there may be a NaN."""
    args = [
        ("ptr noalias", "target"), ("ptr noalias readonly", "gradient"),
        ("ptr noalias readonly", "source"), ("ptr noalias", "held"),
        ("ptr noalias readonly", "head"),
    ]  # fmt: skip
    f = m.function("plane_nan" if nan else "plane", args, internal=True)
    target, gradient, source, room = (f.arg(n) for _, n in args[:4])
    sizes = f.words(f.arg("head"), 0, ["i64"] * len(_HEAD))
    h: dict[str, Value] = dict(zip(_HEAD, sizes, strict=True))
    lanes = native.host().lanes(BYTES[element])
    type, index = vector(lanes, element), vector(lanes, "i32")
    whole = _whole(f, h, lanes)
    held = [f.gep(room, f.mul(h["pitch"], k)) for k in range(_HELD)]

    def row(r: Operand) -> Value:
        return f.gep(source, f.mul(r, h["x_h"]), element)

    def to(r: Operand) -> Value:
        return f.gep(target, f.mul(r, h["width"]), element)

    def best_of(part: _Part, row: Value, number: int) -> list[Value]:
        """A row's maxima, and their places among the windows' nine."""
        columns = part.columns(row)
        best, where = columns[0], f.op("add", part.first, const(index, 3 * number))
        for q, v in enumerate(columns[1:], 1):
            better = _better(f, v, best, nan=nan)
            best = f.select(better, v, best)
            where = f.select(better, const(index, 3 * number + q), where)
        return [best, where]

    def windows(
        at: Operand, y: Operand, slopes: Value, after: list[Value], *, tail: bool
    ) -> list[Value]:  # fmt: skip
        """One vector of windows; `after` is what those at its right give to their left columns."""
        part = _Part(f, h, element, at, tail=tail)
        maxima, columns, evens, odds = (f.gep(p, f.mul(at, 8)) for p in held)
        middle = f.mul(y, 2)
        below = f.add(middle, 1)
        inside, top = f.icmp("slt", below, h["height"]), f.icmp("eq", y, 0)
        second = best_of(part, row(middle), 1)
        third = best_of(part, row(f.select(inside, below, middle)), 2)
        third[0] = f.select(inside, third[0], const(type, float("-inf")))
        above = [f.load(type, maxima), f.load(index, columns)]
        best, where = (f.select(top, b, a) for a, b in zip(above, second, strict=True))
        for v, place in (second, third):
            better = _better(f, v, best, nan=nan)
            best, where = f.select(better, v, best), f.select(better, place, where)
        f.store(third[0], maxima)
        f.store(f.op("sub", third[1], const(index, 6)), columns)
        place = f.gep(slopes, at, element)
        some = part.some
        slope = f.load(type, place) if some is None else f.masked_load(type, place, some)
        slope = f.op("fadd", slope, zero(type))  # no -0: it is added to zero

        def share(number: int) -> Value:
            return f.select(f.icmp("eq", where, const(index, number)), slope, zero(type))

        given: list[Value] = []
        sums: list[tuple[Value, Value]] = []
        old = [f.load(type, evens), f.load(type, odds)]
        for p in range(3):
            left, even, odd = (share(3 * p + q) for q in range(3))
            given.append(left)
            left = f.shuffle(left, after[p], range(1, lanes + 1))
            if p == 0:
                even, odd = f.op("fadd", old[0], even), f.op("fadd", old[1], odd)
            sums.append((even, f.op("fadd", odd, left)))
        # above the first row of windows lies nothing: what is stored there is stored over
        part.put_row(sums[0], to(f.max(f.sub(middle, 1), 0)))
        part.put_row(sums[1], to(middle))
        f.store(sums[2][0], evens)
        f.store(sums[2][1], odds)
        with f.iff(f.icmp("eq", below, f.sub(h["height"], 1))):
            part.put_row(sums[2], to(below))
        return given

    with f.loop(0, h["out_h"]) as Y:
        slopes = f.gep(gradient, f.mul(Y.i, h["g_h"]), element)
        nothing = [(type, zero(type))] * 3
        with f.loop(whole, h["out_w"], lanes, nothing) as T:  # once or never
            T.next[:] = windows(T.i, Y.i, slopes, T.carry, tail=True)
        carry = [(type, v) for v in T.carry]
        with f.loop(0, whole, lanes, carry) as X:  # from the right
            at = f.sub(f.sub(whole, lanes), X.i)
            X.next[:] = windows(at, Y.i, slopes, X.carry, tail=False)
    f.ret()
