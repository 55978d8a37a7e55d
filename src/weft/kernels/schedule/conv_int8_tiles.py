"""The products of `conv_int8` in tile registers (see `amx`), where the host has them.

A register of A holds up to sixteen pixels by a step: up to 64 bytes that lie side by side, of one
tap or, where channels of neighbouring taps do, of a row of the kernel.  All steps of a kernel are
equally deep, so nothing beyond an image is read.  Pixels come in lines, along which they lie at a
constant distance:

    rows of outputs         one line each; where outputs are one column, all rows are one line
    positions of a slab     row after row, those between outputs too: their sums are dropped

A line is cut into tiles of equal height; the last one starts early and drops what was there before.
What is kept of a tile is a few segments of pixels.  Two tiles meet 32 columns of a panel at a time,
one tile all 64.  Sums go through a small room on the way to the ending.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from weft.kernels.schedule import amx
from weft.kernels.schedule.ending_int8 import (
    COLUMNS,
    FOUR,
    SIZES,
    byte_limits,
    bytes_of_calm,
    calm,
    finished,
)
from weft.kernels.target.llvm import Function, Module, Operand, Value

_SHORTEST = 4  # cells of a step, from which tiles are faster than vectors
_NEAR = 24 << 10  # bytes of a panel that stays in the first cache
_LINE = (
    COLUMNS * FOUR
)  # bytes from a step's cells of a panel to the next one's, of sums in the room
_HALF = amx.ROWS * _LINE
_TILE = ("at", "segments")  # where its first pixel lies, how many segments come before
_SEGMENT = ("room", "pixel", "count")  # bytes to its first sums; its first pixel; pixels
_A, _B = 4, 6  # registers; sums have the first four
HEAD = ("cells", "line_rows", "period", "line_pitch")


class Panel(NamedTuple):
    """A panel of weights, and what its sums become, for the pixels of a unit."""

    a: Value
    b: Value
    soon: Value  # the panel that probably comes after
    out: Value
    other: Value
    total: Operand  # columns of out
    scale: Value
    shift: Value
    width: Operand  # columns of the panel
    limits: list[Value]


def cells_of(tap: int) -> int:
    """How deep the steps of a tap of so many cells are; 0 where tiles are no gain."""
    found = max((d for d in range(1, amx.DEPTH + 1) if tap % d == 0), default=0) if tap else 0
    return found if found >= _SHORTEST and amx.multiplies_bytes_in_tiles() else 0


def lines(
    band: int, out_w: int, stride: tuple[int, int], slab_columns: int, pitch: int
) -> dict[str, int]:
    """How pixels of `band` rows of outputs come in lines."""
    if out_w == 1:
        way = (band, 0, stride[0] * slab_columns * pitch)
    else:
        way = (1, 0, stride[1] * pitch)
        rows, whole = (_cost(1, out_w) * band, _cost(1, (band - 1) * slab_columns + out_w))
        if stride == (1, 1) and whole < rows:
            way = (band, slab_columns, pitch)
    return dict(zip(HEAD[1:], way, strict=True))


def _cost(count: int, length: int) -> int:
    """Cycles of a step of so many lines, by two tiles and 32 columns: products, or loads."""
    tiles = -(-length // amx.ROWS)
    return count * tiles * max(4 * -(-length // tiles), 48)


def tables(images: int, band: int, out_w: int, head: dict[str, int]) -> tuple[int, int]:
    """Bytes of a unit's tables of tiles and of segments."""
    rows, period = head["line_rows"], head["period"]
    length = (rows - 1) * period + out_w if period else rows * out_w
    tiles = images * (band // max(rows, 1)) * -(-length // amx.ROWS)
    each = amx.ROWS // period + 2 if period else 1
    return 8 * len(_TILE) * (tiles + 1), 8 * len(_SEGMENT) * (each * tiles + 1)


def fill(
    f: Function, h: dict[str, Value], tiles: Value, segments: Value, images: Operand,
    grid_h: Operand, image_pitch: Operand, row_pitch: Operand,
) -> Operand:  # fmt: skip
    """A unit's tables, and the registers' shapes.  How many tiles there are."""
    flat = f.icmp("eq", h["period"], 0)
    rows = f.max(f.min(h["line_rows"], grid_h), 1)
    width = f.select(flat, f.mul(rows, h["out_w"]), h["out_w"])
    period = f.select(flat, width, h["period"])
    length = f.add(f.mul(f.sub(rows, 1), h["period"]), width)
    each = f.div(f.add(length, amx.ROWS - 1), amx.ROWS)
    height = f.div(f.add(length, f.sub(each, 1)), each)
    amx.configure_blocks(f, height, h["cells"])
    count = f.div(grid_h, rows)
    line_bytes = f.mul(f.mul(rows, h["step_h"]), row_pitch)
    with f.loop(0, images, 1, [("i64", 0)]) as N:
        with f.loop(0, count, 1, [("i64", N.carry[0])]) as L:
            line = f.add(f.mul(N.i, count), L.i)
            corner = f.add(f.mul(N.i, image_pitch), f.mul(L.i, line_bytes))
            pixel = f.mul(f.add(f.mul(N.i, grid_h), f.mul(L.i, rows)), h["out_w"])
            with f.loop(0, each, 1, [("i64", L.carry[0])]) as T:
                number = f.add(f.mul(line, each), T.i)
                first = f.mul(T.i, height)
                start, end = (
                    f.min(first, f.sub(length, height)),
                    f.min(f.add(first, height), length),
                )
                at = f.add(corner, f.mul(start, h["line_pitch"]))
                _put(f, f.gep(tiles, f.mul(number, len(_TILE)), "i64"), at, T.carry[0])
                base = f.mul(f.op("and", number, 1), _HALF)
                top, bottom = f.div(first, period), f.div(f.sub(end, 1), period)
                with f.loop(top, f.add(bottom, 1), 1, [("i64", T.carry[0])]) as Y:
                    row = f.mul(Y.i, period)
                    low, high = f.max(first, row), f.min(end, f.add(row, width))
                    _put(
                        f, f.gep(segments, f.mul(Y.carry[0], len(_SEGMENT)), "i64"),
                        f.add(base, f.mul(f.sub(low, start), _LINE)),
                        f.add(pixel, f.add(f.mul(Y.i, h["out_w"]), f.sub(low, row))),
                        f.sub(high, low),
                    )  # fmt: skip
                    some = f.cast("zext", f.icmp("sgt", high, low), "i64")
                    Y.next = [f.add(Y.carry[0], some)]
                T.next = [Y.carry[0]]
            L.next = [T.carry[0]]
        N.next = [L.carry[0]]
    found = f.mul(f.mul(images, count), each)
    _put(f, f.gep(tiles, f.mul(found, len(_TILE)), "i64"), 0, N.carry[0])
    return found


def _put(f: Function, at: Value, *values: Operand) -> None:
    for i, v in enumerate(values):
        f.store(f.typed(v, "i64"), f.gep(at, i, "i64"))


def multiply(
    f: Function, h: dict[str, Value], given: Panel, blocks: tuple[Operand, Operand],
    found: Operand, tiles: Value, segments: Value, offsets: Value,
) -> None:  # fmt: skip
    """The unit's blocks [low, high) of two tiles each, by a panel."""
    every = f.div(f.add(found, 1), 2)
    lines_each = f.div(f.mul(h["fours"], 4), f.max(f.min(every, 4), 1))
    halves = f.select(f.icmp("sgt", given.width, COLUMNS // 2), f.typed(2, "i64"), 1)
    ask = f.add(f.div(lines_each, f.max(f.mul(h["steps"], 2), 1)), 1)
    with f.loop(*blocks) as T:
        number = f.mul(T.i, 2)
        alone = f.icmp("eq", f.add(number, 1), found)
        following = f.min(f.add(number, 2), found)
        here, second, after = (
            f.words(f.gep(tiles, f.mul(n, len(_TILE)), "i64"), 0, ["i64"] * 2)
            for n in (number, f.add(number, 1), following)
        )
        a = [f.gep(given.a, v) for v in (here[0], f.select(alone, 0, second[0]))]
        asks = f.select(f.icmp("slt", T.i, f.typed(4, "i64")), ask, 0)
        arguments = (
            *a, offsets, h["steps"], h["line_pitch"], given.b, f.mul(h["cells"], _LINE), halves,
            f.gep(given.soon, f.mul(f.mul(T.i, lines_each), 64)), asks,
            f.gep(segments, f.mul(here[1], len(_SEGMENT)), "i64"), f.sub(after[1], here[1]),
            given.out, given.other, given.total, given.scale, given.shift, given.width,
            *given.limits,
        )  # fmt: skip
        with f.if_else(alone) as way:
            f.call("block1", "void", *arguments)
            way.otherwise()
            f.call("block2", "void", *arguments)


def emit_block(module: Module, tiles: int, kind: str, *, with_other: bool) -> None:
    """`block{tiles}`: one or two tiles of pixels by a panel, from products to stored results."""
    arguments = [
        ("ptr noalias readonly", "a0"), ("ptr noalias readonly", "a1"),
        ("ptr noalias readonly", "offsets"), ("i64", "steps"), ("i64", "pitch"),
        ("ptr noalias readonly", "b"), ("i64", "b_step"), ("i64", "halves"), ("ptr", "soon"),
        ("i64", "ask"), ("ptr noalias readonly", "segments"), ("i64", "count"),
        ("ptr", "out"), ("ptr readonly", "other"), ("i64", "total"),
        ("ptr noalias readonly", "scale"), ("ptr noalias readonly", "shift"), ("i64", "width"),
        ("float", "low"), ("float", "high"), ("float", "other_scale"),
    ]  # fmt: skip
    f = module.function(f"block{tiles}", arguments, internal=True)
    room = f.alloca("i8", tiles * _HALF)
    together = 2 if tiles == 2 else 4  # registers of columns
    far = f.icmp("sgt", f.mul(f.arg("steps"), f.arg("b_step")), _NEAR)
    if with_other:
        _ask_for_rows(f)
    with f.loop(0, f.arg("halves") if tiles == 2 else 1) as H:
        panel = f.gep(f.arg("b"), f.mul(H.i, 64 * together))
        for register in range(4):
            amx.zero(f, register)
        with f.loop(0, f.arg("steps")) as K:
            at = f.load("i64", f.gep(f.arg("offsets"), K.i, "i64"))
            b = f.gep(panel, f.mul(K.i, f.arg("b_step")))
            for t in range(tiles):
                amx.load(f, _A + t, f.gep(f.arg(f"a{t}"), at), f.arg("pitch"))
            for v in range(2):
                amx.load(f, _B + v, f.gep(b, 64 * v), _LINE)
            with f.iff(far):  # the next step's cells, while this one's are multiplied
                for row in range(amx.DEPTH):
                    for v in range(together):
                        f.touch(f.gep(b, f.add(f.arg("b_step"), row * _LINE + 64 * v)))
            for v in range(together):
                if v >= 2:
                    amx.load(f, _B + v % 2, f.gep(b, 64 * v), _LINE)
                for t in range(tiles):
                    amx.multiply_bytes(f, together * t + v, _A + t, _B + v % 2)
            swept = f.add(f.mul(H.i, f.arg("steps")), K.i)
            soon = f.gep(f.arg("soon"), f.mul(f.mul(swept, f.arg("ask")), 64))
            with f.loop(0, f.arg("ask")) as L:
                f.touch(f.gep(soon, f.mul(L.i, 64)), level=2)
        for t in range(tiles):
            for v in range(together):
                there = f.gep(room, f.add(t * _HALF + 64 * v, f.mul(H.i, 128)))
                amx.store(f, together * t + v, there, _LINE)
    _emit_rows(f, room, kind, with_other=with_other)
    f.ret()


def _ask_for_rows(f: Function) -> None:
    """Bring what the ending reads beside the sums while products run."""
    with f.loop(0, f.arg("count")) as S:
        segment = f.gep(f.arg("segments"), f.mul(S.i, len(_SEGMENT)), "i64")
        _, pixel, count = f.words(segment, 0, ["i64"] * len(_SEGMENT))
        with f.loop(0, count) as R:
            f.touch(f.gep(f.arg("other"), f.mul(f.add(pixel, R.i), f.arg("total"))))


def _emit_rows(f: Function, room: Value, kind: str, *, with_other: bool) -> None:
    """The room's sums to results, a pixel at a time."""
    floats, words, whole = "<16 x float>", "<16 x i32>", "<64 x i8>"
    size, total, width = SIZES[kind], f.arg("total"), f.arg("width")
    bits = f.op("lshr", f.typed(-1, "i64"), f.sub(COLUMNS, width))
    every = f.cast("bitcast", bits, "<64 x i1>")
    masks = [
        f.cast("bitcast", f.cast("trunc", f.op("lshr", bits, 16 * v), "i16"), "<16 x i1>")
        for v in range(4)
    ]
    scale, shift = (
        [f.load(floats, f.gep(f.arg(n), 16 * v, "float"), 4) for v in range(4)]
        if kind != "int32" else [] for n in ("scale", "shift")
    )  # fmt: skip
    limits = tuple(f.arg(n) for n in ("low", "high", "other_scale"))

    def rows(quick: Callable | None) -> None:
        with f.loop(0, f.arg("count")) as S:
            segment = f.gep(f.arg("segments"), f.mul(S.i, len(_SEGMENT)), "i64")
            start, pixel, count = f.words(segment, 0, ["i64"] * len(_SEGMENT))
            with f.loop(0, count) as R:
                sums = f.gep(room, f.add(start, f.mul(R.i, _LINE)))
                values = [f.load(words, f.gep(sums, 64 * v), 64) for v in range(4)]
                at, more = f.mul(f.add(pixel, R.i), total), []
                to, beside = f.gep(f.arg("out"), f.mul(at, size)), f.gep(f.arg("other"), at)
                if kind != "int32":
                    values = [f.cast("sitofp", v, floats) for v in values]
                if quick is not None:
                    if with_other:
                        more = [f.load("<16 x i8>", f.gep(beside, 16 * v), 1) for v in range(4)]
                    f.store(quick(values, more), to, 1)
                else:
                    if with_other:
                        row = f.masked_load(whole, beside, every)
                        more = [f.shuffle(row, row, range(16 * v, 16 * v + 16)) for v in range(4)]
                    if kind != "int32":
                        values = finished(f, values, (scale, shift, more), limits, kind)
                    for i, v in enumerate(values):
                        mask = every if len(values) == 1 else masks[i]
                        f.masked_store(v, f.gep(to, i, v.type), mask)

    if kind != "uint8":
        rows(None)
        return
    most = f.mul(f.mul(f.arg("steps"), f.arg("b_step")), 255 * 128 // COLUMNS)
    quick = f.op("and", calm(f, scale, shift, limits, most), f.icmp("eq", width, COLUMNS))
    with f.if_else(quick) as way:
        bytes_, beside = byte_limits(f, limits), f.splat(limits[2], floats)
        rows(lambda v, more: bytes_of_calm(f, v, (scale, shift, more), beside, bytes_))
        way.otherwise()
        rows(None)
