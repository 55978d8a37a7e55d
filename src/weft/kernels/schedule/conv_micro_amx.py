"""The tile of convolutions of words in tile registers (see `amx`), where the host has them.

    C[t][i][j] = sum over n, q of A[starts[t] + i pitch + offsets[n] + q] B[n][q][j]

A tile is up to sixteen rows at a constant distance; k comes in chunks of as many words as the
registers are configured for, which lie side by side in A, anywhere: an image is never unrolled. B
is a packed panel. Two tiles meet 32 columns at a time: four loads for four products, while the
panel's next chunk is asked for to the first cache. An element's sum is that of its chunks in order,
in one register: all of k is one block.
"""

from dataclasses import replace

from weft.kernels.schedule import amx
from weft.kernels.schedule.ending_tiles import Ending, Shares
from weft.kernels.schedule.gemm_micro import ENDING
from weft.kernels.schedule.tile import Tile, tile_for
from weft.kernels.target.llvm import Function, Module, Operand

_A, _B = 4, 6  # registers; sums have the first four
_BYTES = amx.CELL * amx.DEPTH  # of a row of a register
_ARGS = [
    ("ptr noalias readonly", "a"),
    ("ptr noalias readonly", "starts"),
    ("i64", "count"),
    ("i64", "pitch"),
    ("ptr noalias readonly", "offsets"),
    ("i64", "chunks"),
    ("ptr noalias readonly", "b"),
    ("i64", "cells"),
    ("ptr noalias", "c"),
    ("ptr noalias readonly", "numbers"),
    ("i64", "columns"),
    ("ptr", "soon"),
    ("i64", "lines"),
]
_BLOCK = [("ptr", "a0"), ("ptr", "a1"), *_ARGS[3:8], ("ptr", "c0"), ("ptr", "c1"), *_ARGS[-2:]]


def tile() -> Tile:
    """Two registers of rows by two of columns."""
    return replace(tile_for("float"), rows=amx.ROWS, vectors=2, pairs=True, amx=True)


def emit_tiles(m: Module, tile: Tile) -> None:
    """`tiles(a, starts, count, pitch, offsets, chunks, b, cells, c, numbers, columns, ...)`.

    `starts` has the elements of a at which `count` tiles begin, `numbers` their first rows of c,
    which has rows of `tile.columns`; rows of a tile are `pitch` elements apart; `offsets` has
    `chunks` elements. With each chunk `lines` lines (a multiple of four) from `soon` on are brought
    to the second cache, those of the next one a chunk's bytes farther on.
    """
    for rows in (1, 2):
        for across in (1, 2):
            f = m.function(f"block{rows}x{across}", _BLOCK, internal=True)
            _emit_block(f, tile, rows, across)
    f = m.function("tiles", _ARGS, internal=True)
    a, starts, count, pitch, offsets, chunks, b, cells, c, numbers, columns, soon, lines = (
        f.arg(n) for _, n in _ARGS
    )
    el = tile.element
    with f.loop(0, columns, 2 * amx.DEPTH) as J:
        few = f.icmp("sle", f.sub(columns, J.i), amx.DEPTH)
        panel = f.gep(b, J.i, el)

        def call(
            rows: int, across: int, t: Operand, panel: Operand = panel, j: Operand = J.i
        ) -> None:
            a_at, c_at = [], []
            for i in range(2):
                place = f.add(t, i % rows)
                start = f.load("i64", f.gep(starts, place, "i64"))
                number = f.load("i64", f.gep(numbers, place, "i64"))
                a_at.append(f.gep(a, start, el))
                c_at.append(f.gep(c, f.add(f.mul(number, tile.columns), j), el))
            name = f"block{rows}x{across}"
            f.call(name, "void", *a_at, pitch, offsets, chunks, panel, cells, *c_at, soon, lines)

        for across in f.switch(f.select(few, f.typed(1, "i64"), 2), (1,), 2):
            even = f.op("and", count, -2)
            with f.loop(0, even, 2) as T:
                call(2, across, T.i)
            with f.iff(f.icmp("slt", even, count)):
                call(1, across, even)
    f.ret()


def emit_finish(m: Module, ending: Ending) -> None:
    """`finish`: the products of two tiles by 32 columns, among them the `ending` of `rows` rows of
    earlier `sums`, a share behind each: vectors' ports work while registers of tiles wait.
    """
    args = [*_BLOCK, *ENDING, ("ptr", "sums"), ("i64", "rows")]
    _emit_block(m.function("finish", args), tile(), 2, 2, ending)


def _emit_block(
    f: Function, tile: Tile, rows: int, across: int,
    ending: Ending | None = None,
) -> None:  # fmt: skip
    """`block{rows}x{across}`: so many tiles by so many times sixteen columns."""
    el, line = tile.element, tile.columns * tile.itemsize
    pitch = f.mul(f.arg("pitch"), tile.itemsize)
    step = f.mul(f.arg("cells"), line)
    sums = [
        (across * i + j, f.gep(f.arg(f"c{i}"), j * amx.DEPTH, el))
        for i in range(rows)
        for j in range(across)
    ]
    for register, _ in sums:
        amx.zero(f, register)
    shares = Shares(f, ending, f.mul(f.arg("chunks"), rows * across))
    carry = [("ptr", f.arg("b")), ("ptr", f.arg("soon")), *shares.start]
    with f.loop(0, f.arg("chunks"), 1, carry) as K:
        panel, soon, *state = K.carry
        at = f.load("i64", f.gep(f.arg("offsets"), K.i, "i64"))
        for i in range(rows):
            amx.load(f, _A + i, f.gep(f.arg(f"a{i}"), at, el), pitch)
        for j in range(across):
            amx.load(f, _B + j, f.gep(panel, j * amx.DEPTH, el), line)
            for i in range(rows):
                amx.multiply_pairs(f, across * i + j, _A + i, _B + j)
                state = shares.behind(state)
        after = f.gep(panel, step)
        for number in range(amx.DEPTH):
            for j in range(across):
                f.touch(f.gep(after, number * line + j * _BYTES))
        with f.loop(0, f.arg("lines"), 4) as L:
            for more in range(4):
                f.touch(f.gep(soon, f.mul(f.add(L.i, more), 64)), level=2)
        K.next = [after, f.gep(soon, step), *state]
    for register, place in sums:
        amx.store(f, register, place, line)
    f.ret()
