"""Maximum pools two apart over rows of adjacent elements: 2x2 windows, or 3x3 with a padding of
one.

The numbers are those of `pool`: a NaN wins, the last of several; of equal elements the first wins;
gradients are added window after window. Nothing is copied: of a row, 2X and 2X+1 are shuffled out
of two vectors, 2X-1 is the latter moved by a lane. "Last NaN, else first maximum" is associative,
so a row's three columns are joined once for the two rows of windows that share it. The gradient
asks of each window whether it chose a place, four windows of an element at most. Threads take
planes.
"""

from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule.nest import one_stage
from weft.kernels.target.llvm import BYTES, Function, Module, Operand, Value, const, vector, zero
from weft.runtime import native
from weft.runtime.native import Launch

Pair = tuple[int, int]
_HEAD = (
    "planes", "channels", "height", "width", "out_h", "out_w", "read_n", "read_c", "read_h",
    "taps_n", "taps_c", "taps_h",
)  # fmt: skip
_Best = list[Value]  # the largest, and the number of its tap


def are_twos(
    image: Layout, grid: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> bool:
    """Whether these kernels serve: such windows (of 2x2 whole ones), adjacent elements."""
    k, n = kernel[0], image.shape[2:]
    geometry = (kernel, stride, padding, dilation)
    inside = {2: (n[0] // 2, n[1] // 2), 3: ((n[0] + 1) // 2, (n[1] + 1) // 2)}.get(k)
    plain = grid == inside and geometry == ((k, k), (2, 2), (k - 2, k - 2), (1, 1))
    return plain and image.strides[3] == 1 and image.dtype.itemsize >= 4


def plan_twos(
    kind: str, image: Layout, small: Layout, size: int, taps: Layout | None = None
) -> Launch:
    """Windows of size x size. `max`: small = the maximum of each window of the image; `taps`: and
    taps = the numbers of their taps; `back`: image = zeros with small added there.
    """
    read = small if kind == "back" else image
    head = (
        image.shape[0] * image.shape[1], *image.shape[1:], *small.shape[2:], *read.strides[:3],
        *((0, 0, 0) if taps is None else taps.strides[:3]),
    )  # fmt: skip
    code = _kernels(D.from_np(image.dtype).name, size)
    return one_stage(code[kind], head, image.size)


@cache
def _kernels(name: str, size: int) -> dict[str, int]:
    return native.load_made(("max", "taps", "back"), pool_twos_ir, name, size)


def pool_twos_ir(name: str, size: int) -> str:
    """The LLVM IR of the kernels of one dtype and size of windows, for the host."""
    m = Module()
    element = {"float32": "float", "float64": "double"}[name]
    for kind in ("max", "taps", "back"):
        _emit(m, element, size, kind)
    return m.text()


def _emit(m: Module, element: str, size: int, kind: str) -> None:
    f = m.kernel(kind)
    back = kind == "back"
    (out, *ins), _, h, _ = f.given(1 if kind == "max" else 2, _HEAD)
    read, numbers = (ins[0], ins[-1]) if back else (ins[-1], ins[0])
    lanes = native.host().lanes(BYTES[element])
    # windows in vectors that need no mask, nor does the vector one further
    room = f.max(f.sub(f.min(f.div(h["width"], 2), h["out_w"]), 1), 0)
    whole = f.mul(f.div(room, lanes), lanes)
    columns = f.div(f.add(h["width"], 1), 2) if back else h["out_w"]
    area = f.mul(h["height"], h["width"]) if back else f.mul(h["out_h"], h["out_w"])
    low, high = f.split(h["planes"])
    with f.loop(low, high) as P:
        n, c = f.div(P.i, h["channels"]), f.rem(P.i, h["channels"])
        source = f.gep(read, f.add(f.mul(n, h["read_n"]), f.mul(c, h["read_c"])), element)
        target = f.gep(out, f.mul(P.i, area), element)
        taps = f.gep(numbers, f.add(f.mul(n, h["taps_n"]), f.mul(c, h["taps_c"])), "i8")
        emit = _emit_back if back else _emit_max
        with f.loop(0, whole, lanes) as X:
            emit(_Part(f, h, element, size, X.i, tail=False), source, target, taps, kind)
        with f.loop(whole, columns, lanes) as X:
            emit(_Part(f, h, element, size, X.i, tail=True), source, target, taps, kind)
    f.ret()


class _Part:
    """A vector of windows from window x of a row on; of a `tail` some may not be there."""

    def __init__(
        self, f: Function, h: dict[str, Value], element: str, size: int, x: Operand, *, tail: bool
    ) -> None:
        self.f, self.h, self.element, self.size, self.x, self.tail = f, h, element, size, x, tail
        self.lanes = lanes = native.host().lanes(BYTES[element])
        self.type, self.index = vector(lanes, element), vector(lanes, "i32")
        self.lowest = const(self.type, float("-inf"))
        self.wide = f.mul(x, 2)
        left = f.sub(h["width"], self.wide)
        self.halves = [f.lane_mask(f.sub(left, k * lanes), lanes) for k in (0, 1)] if tail else []
        self.begins = f.icmp("eq", x, 0)
        # the first of windows of three has no column at its left
        ahead = Value("<" + ", ".join(f"i32 {int(i == 0)}" for i in range(lanes)) + ">", self.index)
        self.first = zero(self.index)
        if size == 3:
            self.first = f.select(self.begins, ahead, self.first)

    def some(self, shift: int = 0) -> Value:
        """Which of the windows from x + shift on there are."""
        return self.f.lane_mask(self.f.sub(self.f.sub(self.h["out_w"], self.x), shift), self.lanes)

    def columns(self, row: Value) -> list[Value]:
        """A row's elements (2X-1,) 2X, 2X+1; those outside are the lowest number."""
        f, lanes = self.f, self.lanes
        halves: list[Value] = []
        for k in (0, 1):
            place = f.gep(row, f.add(self.wide, k * lanes), self.element)
            if self.tail:
                halves.append(f.masked_load(self.type, place, self.halves[k], self.lowest))
            else:
                halves.append(f.load(self.type, place))
        near, far = halves
        even, odd = (f.shuffle(near, far, range(k, 2 * lanes, 2)) for k in (0, 1))
        if self.size == 2:
            return [even, odd]
        low = const(self.element, float("-inf"))
        before = f.load(self.element, f.gep(row, f.max(f.sub(self.wide, 1), 0), self.element))
        before = f.splat(f.select(self.begins, low, before), self.type)
        return [f.shuffle(before, odd, [0, *range(lanes, 2 * lanes - 1)]), even, odd]

    def best_of(self, row: Value, p: int) -> _Best:
        """The largest of a row, the windows' row p."""
        number = p * self.size
        first, *rest = self.columns(row)
        best = [first, self.f.op("add", self.first, const(self.index, number))]
        for q, v in enumerate(rest, 1):
            best = self.better([v, const(self.index, number + q)], best)
        return best

    def better(self, new: _Best, best: _Best) -> _Best:
        f = self.f
        more = f.op("or", f.fcmp("ogt", new[0], best[0]), f.fcmp("uno", new[0], new[0]))
        return [f.select(more, a, b) for a, b in zip(new, best, strict=True)]

    def put(self, v: Value, place: Value) -> None:
        """Store an element a window."""
        self.f.masked_store(v, place, self.some()) if self.tail else self.f.store(v, place)

    def put_row(self, sums: tuple[Value, Value], row: Value) -> None:
        """Store a row's elements 2X and 2X+1."""
        f, lanes = self.f, self.lanes
        for k in (0, 1):
            half = range(k * lanes // 2, (k + 1) * lanes // 2)
            v = f.shuffle(*sums, [i + side * lanes for i in half for side in (0, 1)])
            place = f.gep(row, f.add(self.wide, k * lanes), self.element)
            f.masked_store(v, place, self.halves[k]) if self.tail else f.store(v, place)


def _emit_max(part: _Part, source: Value, target: Value, taps: Value, kind: str) -> None:
    """All rows of a vector of windows; the row that two of them share is looked at once."""
    f, h, size = part.f, part.h, part.size
    above: list[tuple[str, Operand]] = []
    if size == 3:  # above the first row lies nothing: the lowest numbers, and no tap
        above = [(part.type, part.lowest)]
        above.append((part.index, f.op("add", part.first, const(part.index, size))))
    with f.loop(0, h["out_h"], carry=above) as Y:
        middle = f.mul(Y.i, 2)
        below = f.add(middle, 1)
        inside = f.icmp("slt", below, h["height"])
        places = [middle, f.select(inside, below, middle)]
        rows = [
            part.best_of(f.gep(source, f.mul(r, h["read_h"]), part.element), size - 2 + i)
            for i, r in enumerate(places)
        ]
        if size == 3:
            rows[1][0] = f.select(inside, rows[1][0], part.lowest)
            Y.next = [rows[1][0], f.op("sub", rows[1][1], const(part.index, 2 * size))]
            rows.insert(0, [f.typed(v, t) for v, (t, _) in zip(Y.carry, above, strict=True)])
        best = rows[0]
        for row in rows[1:]:
            best = part.better(row, best)
        at = f.add(f.mul(Y.i, h["out_w"]), part.x)
        part.put(best[0], f.gep(target, at, part.element))
        if kind == "taps":
            number = f.cast("trunc", best[1], vector(part.lanes, "i8"))
            part.put(number, f.gep(taps, f.add(f.mul(Y.i, h["taps_h"]), part.x), "i8"))


def _emit_back(part: _Part, source: Value, target: Value, taps: Value, kind: str) -> None:
    """All rows of a vector of windows: the image's rows 2Y and 2Y+1 at a time."""
    f, h, size, lanes = part.f, part.h, part.size, part.lanes
    bytes = vector(lanes, "i8")
    middle, last = size - 2, size - 1
    nothing = zero(part.type)

    def windows(y: Operand, shift: int) -> tuple[Value, Value]:
        """What the windows from x + shift of row y on give, and to which tap."""
        row, at = f.min(y, f.sub(h["out_h"], 1)), f.add(part.x, shift)
        slope = f.gep(source, f.add(f.mul(row, h["read_h"]), at), part.element)
        number = f.gep(taps, f.add(f.mul(row, h["taps_h"]), at), "i8")
        if part.tail:
            some = part.some(shift)
            found = (f.masked_load(part.type, slope, some), f.masked_load(bytes, number, some))
        else:
            found = (f.load(part.type, slope), f.load(bytes, number))
        given = f.op("fadd", found[0], nothing)  # no -0: it is added to zero
        return f.select(f.icmp("slt", y, h["out_h"]), given, nothing), found[1]

    def share(of: tuple[Value, Value], p: int, q: int) -> Value:
        mine = f.icmp("eq", of[1], const(bytes, p * size + q))
        return f.select(mine, of[0], nothing)

    with f.loop(0, f.div(f.add(h["height"], 1), 2)) as Y:
        rows: list[list[tuple[Value, Value]]] = [
            [windows(f.add(Y.i, down), shift) for shift in range(size - 1)]
            for down in range(size - 1)
        ]
        for i, shares in enumerate(([(0, middle)], [(0, last), (1, 0)][: size - 1])):
            even = odd = nothing
            for down, p in shares:
                even = f.op("fadd", even, share(rows[down][0], p, middle))
                odd = f.op("fadd", odd, share(rows[down][0], p, last))
                if size == 3:
                    odd = f.op("fadd", odd, share(rows[down][1], p, 0))
            at = f.add(f.mul(Y.i, 2), i)
            with f.iff(f.icmp("slt", at, h["height"])):
                part.put_row((even, odd), f.gep(target, f.mul(at, h["width"]), part.element))
