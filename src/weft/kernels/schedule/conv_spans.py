"""Register tiles of pixels that follow on one another in a row of outputs, for kernels three wide.

C[pixel][column] (+)= A B as in `conv_micro`, for three k at a time that are neighbours in a row of
the kernel. Where outputs lie one pixel of the image apart, n of them meet n + 2 numbers of A in
these k, not 3 n. So A costs a third of the loads, and a tile of 12 pixels by 2 vectors reads half
of the bytes of B that 6 by 4 reads for a multiply-add. Each element still has one accumulator and
takes its k in order.

A *span* is such a run of pixels, of one of the lengths SPANS; a panel meets it two vectors at a
time.
"""

from collections.abc import Sequence
from itertools import pairwise

from weft.kernels.schedule.conv_micro import NEXT
from weft.kernels.schedule.gemm_micro import multiply_units
from weft.kernels.schedule.tile import Tile
from weft.kernels.target.llvm import Function, Module, Operand, Value, zero

TAPS = 3  # k of a step
SPANS = (12, 11, 10, 9, 8, 7)  # shorter ones leave too few multiply-adds beside B's loads
_VECTORS = 2
_SLACK = 10  # up to so many pixels there are registers to let a sum rest longer between two k
# pixel p of a span and its border: from pixel 4 or 9 so many pixels on, which an address multiplies
_REACH = {
    0: (0, -4), 1: (1, -8), 2: (0, -2), 3: (0, -1), 4: (0, 0), 5: (0, 1), 6: (0, 2), 7: (1, -2),
    8: (1, -1), 9: (1, 0), 10: (1, 1), 11: (1, 2), 12: (0, 8), 13: (1, 4),
}  # fmt: skip
_ARGS = [
    ("ptr noalias readonly", "a"),
    ("i64", "step"),
    ("i64", "groups"),
    ("ptr noalias readonly", "offsets"),
    ("ptr noalias readonly", "b"),
    ("ptr noalias", "c"),
    ("i64", "c_step"),
    ("i64", "first"),
    ("ptr", "soon"),
    ("i64", "soons"),
]


def spans_of(width: int) -> int:
    """In how many spans a row of so many outputs is cut, as even as can be; 0 if they are short."""
    count = -(-width // SPANS[0])
    return count if count and width // count >= SPANS[-1] else 0


def way_along(taps: Sequence[int], numbers: Sequence[int], whole: int, move: int) -> int:
    """1 or -1 if three by three the taps are neighbours in a row, so many pixels apart as the
    outputs, from left to right or from right to left; else 0. `numbers`: theirs among the `whole`.
    """
    threes = [(taps[i : i + TAPS], numbers[i : i + TAPS]) for i in range(0, len(taps), TAPS)]
    if not taps or len(taps) % TAPS or whole % TAPS:
        return 0
    steps = {b - a for own, _ in threes for a, b in pairwise(own)}
    kept = all(n[0] % TAPS == 0 and n[-1] - n[0] == TAPS - 1 for _, n in threes)
    ways = [way for way in (1, -1) if steps == {way * move}]
    return ways[0] if kept and ways else 0


def span_of(f: Function, width: Operand, spans: Operand, number: Operand) -> tuple[Value, Value]:
    """Of a row's spans the first pixel of one, and its length."""
    short, more = f.div(width, spans), f.rem(width, spans)
    first = f.add(f.mul(number, short), f.min(number, more))
    length = f.add(short, f.cast("zext", f.icmp("slt", number, more), "i64"))
    return f.typed(first, "i64"), f.typed(length, "i64")


def emit_spans(m: Module, tile: Tile) -> None:
    """`spans(a, rows, count, along, step, offsets, kc, b, c, columns, first, soon, soons)`, with
    `tiles`' arguments: `step` bytes lie between the pixels, and taps go `along` them, 1 or -1. Of
    `soon` the first is asked for on from where it is, the second is bytes from step to step.
    """
    for length in SPANS:
        _emit_span(m, tile, length)
    names = "along step kc columns first soons count"
    args = [("ptr" if n not in names.split() else "i64", n) for n in (
        "a", "rows", "count", "along", "step", "offsets", "kc", "b", "c", "columns", "first",
        "soon", "soons",
    )]  # fmt: skip
    f = m.function("spans", args, internal=True)
    a, rows, count, along, step, offsets, kc, b, c, columns, first, soon, soons = (
        f.arg(n) for _, n in args
    )
    line = tile.columns * tile.itemsize
    back = f.icmp("slt", along, 0)
    last = f.sub(count, 1)
    # taps from right to left are a span from right to left
    start = f.load("i64", f.gep(rows, f.select(back, last, 0), "i64"))
    place = f.gep(c, f.select(back, f.mul(last, line), 0))
    a = f.gep(a, start, tile.element)
    groups = f.div(kc, TAPS)
    asked = f.mul(groups, f.load("i64", f.gep(soon, 1, "i64")))
    for length in f.switch(count, SPANS[:-1], SPANS[-1]):
        for half in range(tile.vectors // _VECTORS):
            column = half * _VECTORS * tile.lanes
            with f.iff(f.icmp("sgt", columns, column)):
                f.call(
                    f"span{length}", "void", a, f.mul(step, along), groups, offsets,
                    f.gep(b, column, tile.element), f.gep(place, column, tile.element),
                    f.mul(along, line), first, soon, f.typed(0, "i64") if half else soons,
                )  # fmt: skip
                f.store(f.gep(f.load("ptr", soon), asked), soon)
    f.ret()


def _emit_span(m: Module, tile: Tile, length: int) -> None:
    """Of so many pixels. `step` and `c_step` are bytes from one to the next, `groups` of k come."""
    f = m.function(f"span{length}", _ARGS, internal=True)
    a, step, groups, offsets, b, c, c_step, first, soon, soons = (f.arg(n) for _, n in _ARGS)
    type, element = tile.type, tile.element
    back = f.sub(0, step)
    # two pointers, that no address is made from another's
    bases = [f.frozen(f.gep(a, f.mul(step, n))) for n in (4, 9)]
    types = ["ptr", "ptr", "i64"] + [type] * (length * _VECTORS)
    next_step = f.load("i64", f.gep(soon, 1, "i64"))
    lag = int(length <= _SLACK)

    def steps(low: Operand, high: Operand, state: list[Value], *, asks: bool) -> list[Value]:
        with f.loop(low, high, carry=list(zip(types, state, strict=True))) as L:
            (panel, near, at), sums = L.carry[:3], L.carry[3:]
            words = f.gep(offsets, f.mul(L.i, 2 * TAPS), "i64")
            over, later = f.words(words, 2 * TAPS - 1, ["i64"] * 2)
            if asks:
                line = f.load("ptr", f.gep(soon, f.add(L.i, NEXT), "ptr"))
                f.touch(line, level=2, write=True)
            f.touch(near, level=2)
            places = [f.gep(base, at, element) for base in bases]

            def number(pixel: int) -> Value:
                base, far = _REACH[pixel]
                way = f.mul(step if far > 0 else back, abs(far))
                place = f.gep(places[base], way) if far else places[base]
                return f.splat(f.load(element, place), type)

            def columns(tap: int) -> list[Value]:
                row = f.gep(panel, tap * tile.columns, element)
                return [
                    f.load(type, f.gep(row, j * tile.lanes, element), tile.align)
                    for j in range(_VECTORS)
                ]

            right, left = [columns(t) for t in range(TAPS)], dict[int, Value]()
            border = TAPS - 1
            for i in range(length + border + border * lag):
                if i < length + border:
                    left[i] = number(i)
                for tap in range(TAPS):
                    pixel = i - lag * tap
                    row = pixel - tap
                    if 0 <= row < length:
                        for j in range(_VECTORS):
                            n = row * _VECTORS + j
                            sums[n] = multiply_units(f, tile, left[pixel], right[tap][j], sums[n])
            panel = f.gep(f.gep(panel, (TAPS - 1) * tile.columns, element), over)
            L.next = [panel, f.gep(near, next_step), later, *sums]
        return L.carry

    # as in `conv_micro` the next k are looked up before their time
    state: list[Value] = [b, f.load("ptr", soon), f.load("i64", offsets)]
    state += [zero(type)] * (length * _VECTORS)
    start = f.min(soons, groups)
    state = steps(0, start, state, asks=True)
    sums = steps(start, groups, state, asks=False)[3:]
    with f.if_else(f.icmp("ne", first, 0)) as way:
        for n, value in enumerate(sums):
            f.store(value, _place(f, tile, c, c_step, n), tile.align)
        way.otherwise()
        for n, value in enumerate(sums):
            place = _place(f, tile, c, c_step, n)
            f.store(f.op("fadd", f.load(type, place, tile.align), value), place, tile.align)
    f.ret()


def _place(f: Function, tile: Tile, c: Value, c_step: Value, n: int) -> Value:
    row, vector = divmod(n, _VECTORS)
    return f.gep(f.gep(c, f.mul(c_step, row)), vector * tile.lanes, tile.element)
