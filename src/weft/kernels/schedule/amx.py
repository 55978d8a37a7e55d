"""Products in tile registers (Intel AMX): sixteen rows times sixteen columns an instruction.

    C[i][j] += sum over q < 16 of A[i][q] . B[q][j]

A cell is 32 bits. Of A and B it holds two bfloat16 or four bytes along k; C is float32 or int32.
A register is up to 16 rows of up to 64 bytes; those of A and C are rows of results, those of B lie
as packed panels have them: a row for each step of k, in it the cells of 16 neighbouring columns.

The numbers: bytes are exact. Of bfloat16 one instruction adds up the products of each cell's
first numbers by rising q, apart from those of the second ones, one rounding each, from zero; their
sum, rounded, is added to C. Too small for a normal float32 is zero, in and out. So the bits of an
element depend on which steps of k share an instruction, never on its row's place or neighbours.

Sixteen rows take sixteen cycles, whatever the depth; fewer rows fewer, while the loads of B (eight
cycles each) keep up. A thread configures before it multiplies and releases when it is done: what
the registers hold makes every switch of threads dearer.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2 (TDPBF16PS, TDPBUSD).
"""

from collections.abc import Sequence

from weft.kernels.schedule.tile import Tile, up
from weft.kernels.target.llvm import Function, Operand, Value
from weft.runtime import native

ROWS = 16  # of a register, at most
DEPTH = 16  # cells of a row of A, rows of B, at most
CELL = 4  # bytes
_REGISTERS = 8


def multiplies_bytes_in_tiles() -> bool:
    """Whether the host multiplies unsigned by signed bytes so."""
    return native.host().has("amx-int8")


def multiplies_pairs_in_tiles() -> bool:
    """Whether the host multiplies pairs of bfloat16 so."""
    return native.host().has("amx-bf16")


def in_tiles(tile: Tile) -> bool:
    """Whether an attention's or a recurrence's products, by such a tile, are those of registers."""
    return tile.pairs and multiplies_pairs_in_tiles()


def depth(tile: Tile, units: int) -> int:
    """What so many units along k take: whole depths of a register, of products in these."""
    return up(units, DEPTH) if in_tiles(tile) else units


def deep(f: Function, tile: Tile, units: Operand) -> Operand:
    """As `depth`."""
    return f.op("and", f.add(units, DEPTH - 1), -DEPTH) if in_tiles(tile) else units


def configure(f: Function, shapes: Sequence[tuple[int, int]]) -> None:
    """Registers 0, 1, ... have these (rows, bytes of a row) from here on, in this thread; they are
    zero then. Slow (about 60 ns): once a kernel, or a few times, never a tile.
    """
    assert len(shapes) <= _REGISTERS
    assert all(0 < r <= ROWS and 0 < b <= CELL * DEPTH and b % CELL == 0 for r, b in shapes)
    more = [(0, 0)] * (16 - len(shapes))
    table = [1, 0, *[0] * 14]
    table += [byte for _, b in (*shapes, *more) for byte in (b, 0)]
    table += [r for r, _ in (*shapes, *more)]
    name = "tiles_" + "_".join(f"{r}x{b}" for r, b in shapes)
    cells = ", ".join(f"i8 {byte}" for byte in table)
    line = f"@{name} = internal constant [64 x i8] [{cells}], align 64"
    if line not in f.module.globals:
        f.module.globals.append(line)
    f.intrinsic("x86.ldtilecfg", "void", Value(f"@{name}", "ptr"))


def configure_now(f: Function, shapes: Sequence[tuple[Operand, Operand]]) -> None:
    """`configure` of shapes that only the running kernel knows."""
    assert len(shapes) <= _REGISTERS
    room = f.alloca("i8", 64)
    f.store(Value("zeroinitializer", "<64 x i8>"), room, 64)
    f.store(Value("1", "i8"), room)
    for i, (rows, wide) in enumerate(shapes):
        f.store(f.cast("trunc", f.typed(wide, "i64"), "i16"), f.gep(room, 16 + 2 * i))
        f.store(f.cast("trunc", f.typed(rows, "i64"), "i8"), f.gep(room, 48 + i))
    f.intrinsic("x86.ldtilecfg", "void", room)


def configure_blocks(f: Function, height: Operand, cells: Operand) -> None:
    """Two tiles of `height` rows by two of columns, steps of `cells` deep: four registers of sums,
    then two of A, then two of B.
    """
    wide, deep = f.typed(CELL * DEPTH, "i64"), f.mul(cells, CELL)
    configure_now(f, [(height, wide)] * 4 + [(height, deep)] * 2 + [(cells, wide)] * 2)


def release(f: Function) -> None:
    """The end of this thread's use of the registers."""
    f.intrinsic("x86.tilerelease", "void")


def zero(f: Function, register: int) -> None:
    f.intrinsic("x86.tilezero", "void", _number(register))


def load(f: Function, register: int, at: Operand, pitch: Operand) -> None:
    """Its rows from memory, `pitch` bytes apart."""
    place, step = f.typed(at, "ptr"), f.typed(pitch, "i64")
    f.intrinsic("x86.tileloadd64", "void", _number(register), place, step)


def store(f: Function, register: int, at: Operand, pitch: Operand) -> None:
    """Its rows to memory, `pitch` bytes apart."""
    place, step = f.typed(at, "ptr"), f.typed(pitch, "i64")
    f.intrinsic("x86.tilestored64", "void", _number(register), place, step)


def begin(f: Function, sums: Sequence[tuple[int, Value]], pitch: Operand, first: Operand) -> None:
    """Registers of sums, each with its place: zero if `first`, else what lies there."""
    with f.if_else(f.icmp("ne", first, 0)) as way:
        for register, _ in sums:
            zero(f, register)
        way.otherwise()
        for register, place in sums:
            load(f, register, place, pitch)


def multiply_pairs(f: Function, c: int, a: int, b: int) -> None:
    """c += a . b of two bfloat16 a cell."""
    f.intrinsic("x86.tdpbf16ps", "void", *map(_number, (c, a, b)))


def multiply_bytes(f: Function, c: int, a: int, b: int) -> None:
    """c += a . b of four bytes a cell: a's without sign, b's with one."""
    f.intrinsic("x86.tdpbusd", "void", *map(_number, (c, a, b)))


def _number(register: int) -> Value:
    return Value(str(register), "i8")
