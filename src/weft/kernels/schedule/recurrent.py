"""The recurrence of an LSTM, a GRU or a plain RNN over a whole sequence, and its gradient: one
launch each.

    forward   s = h[t-1] w^T; the cell makes its new states of s and x[t]
    gradient  from dh[t] (and the final c's cotangent) down to the cotangents of s and x[t]

Rows of a batch do not meet, so each thread takes some rows through all steps and none waits for
another.  w is packed once.  A panel of the forward product holds all gates of one vector of units:
what leaves the registers is complete, and the cell is computed on it while it lies in L1. A cell
that `reads` takes the inputs' product too, step by step: their gates never go to memory.

Numbers: every product is one fma chain over increasing k; a row's bits depend on the row alone.
float32 and float64. With `pairs` operands of the products are rounded to bfloat16, and a chain is
one of words (see `words`): w and what a step hands to the next lie in scratch memory as words.
Where the host has tile registers (`amx`) these chains are theirs, of operands filled up with zeros.

Long because the four kernels of a cell agree on one form of planes, panels and words.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule import amx
from weft.kernels.schedule.gemm import PARALLEL_FROM
from weft.kernels.schedule.gemm_micro import UNROLL, micro_kernel
from weft.kernels.schedule.tile import Tile, tile_for, up
from weft.kernels.schedule.words import Numbers, halves, units_of
from weft.kernels.target import math as vmath
from weft.kernels.target.llvm import FLOAT_TYPES, Module, Operand, Value, zero
from weft.kernels.target.math import Math
from weft.runtime import native
from weft.runtime.native import Launch, Stage

_HEAD = (
    "steps", "rows", "width", "panels", "plane", "rest_at", "padded", "more", "inputs", "every",
    "words_at", "pitch",
)  # fmt: skip


class Cell:
    """What one step computes; vectors are of one row's units."""

    name: str
    gates: int  # parts of s, and of w's rows
    states = 1  # planes of y that are states: h, and c
    kept = 0  # further planes that the gradient reads
    columns: int  # parts of the gradient's rows, those of s first
    bias = False  # an input (H,) that is added to the last part of s
    reads = False  # x are inputs, with a weight (gates * H, I) and a bias: the last two operands
    direct = False  # h[t] depends on h[t-1] beside the product
    sums = False  # the gradient ends with each row's sums over the steps

    def step(
        self, k: "_Kernel", s: list[Value], x: list[Value], old: list[Value], bias: Value | None
    ) -> list[Value]:
        """The new states, then what is kept."""
        raise NotImplementedError

    def back(
        self, k: "_Kernel", dh: Value, dc: Value | None, y: list[Value], old: list[Value]
    ) -> tuple[list[Value], Value | None]:
        """The columns of the gradient; then what goes on to c[t-1], or to h[t-1] directly."""
        raise NotImplementedError


class _Lstm(Cell):
    """i, f, o = sigmoid, g = tanh of x + s;  c = f c + i g;  h = o tanh(c)"""

    name, gates, states, kept, columns, sums = "lstm", 4, 2, 4, 4, True

    def step(self, k, s, x, old, bias):
        m = k.math
        a = [m.add(v, w) for v, w in zip(x, s, strict=True)]
        i, fade, o = (k.sigmoid(a[n]) for n in (0, 1, 3))
        g = k.tanh(a[2])
        c = m.add(m.mul(fade, old[1]), m.mul(i, g))
        return [m.mul(o, k.tanh(c)), c, i, fade, g, o]

    def back(self, k, dh, dc, y, old):
        m = k.math
        assert dc is not None
        _, c, i, fade, g, o = y
        t = k.tanh(c)
        dc = m.add(dc, m.mul(m.mul(dh, o), m.sub(1.0, m.mul(t, t))))
        columns = [
            m.mul(m.mul(dc, g), m.mul(i, m.sub(1.0, i))),
            m.mul(m.mul(dc, old[1]), m.mul(fade, m.sub(1.0, fade))),
            m.mul(m.mul(dc, i), m.sub(1.0, m.mul(g, g))),
            m.mul(m.mul(dh, t), m.mul(o, m.sub(1.0, o))),
        ]
        return columns, m.mul(dc, fade)


class _LstmOverInputs(_Lstm):
    name, reads = "lstm over inputs", True


class _Gru(Cell):
    """r, z = sigmoid of x + s;  n = tanh(x_n + r (s_n + b));  h = (h - n) z + n"""

    name, gates, kept, columns, bias, direct = "gru", 3, 4, 4, True, True

    def step(self, k, s, x, old, bias):
        m = k.math
        r, z = (k.sigmoid(m.add(v, w)) for v, w in zip(x[:2], s[:2], strict=True))
        assert bias is not None
        inner = m.add(s[2], bias)
        n = k.tanh(m.add(x[2], m.mul(r, inner)))
        return [m.add(m.mul(m.sub(old[0], n), z), n), r, z, n, inner]

    def back(self, k, dh, dc, y, old):
        m = k.math
        _, r, z, n, inner = y
        dn = m.mul(m.mul(dh, m.sub(1.0, z)), m.sub(1.0, m.mul(n, n)))
        dz = m.mul(m.mul(dh, m.sub(old[0], n)), m.mul(z, m.sub(1.0, z)))
        dr = m.mul(m.mul(dn, inner), m.mul(r, m.sub(1.0, r)))
        return [dr, dz, m.mul(dn, r), dn], m.mul(dh, z)


class _Rnn(Cell):
    """h = tanh or relu of x + s"""

    gates, columns = 1, 1

    def __init__(self, name: str) -> None:
        self.name = name

    def step(self, k, s, x, old, bias):
        a = k.math.add(x[0], s[0])
        if self.name == "tanh":
            return [k.tanh(a)]
        above = k.f.fcmp("ogt", a, 0.0)
        # not a number stays one
        return [k.f.select(k.f.op("or", above, k.f.fcmp("uno", a, a)), a, zero(a.type))]

    def back(self, k, dh, dc, y, old):
        m = k.math
        if self.name == "tanh":
            return [m.mul(dh, m.sub(1.0, m.mul(y[0], y[0])))], None
        return [k.f.select(k.f.fcmp("ogt", y[0], 0.0), dh, zero(dh.type))], None


CELLS: dict[str, Cell] = {
    c.name: c for c in (_Lstm(), _LstmOverInputs(), _Gru(), _Rnn("tanh"), _Rnn("relu"))
}


def plan_recurrent(cell: str, ins: Sequence[Layout], out: Layout, *, pairs: bool = False) -> Launch:
    """out[p, t]: the states after step t (h, or h and c), and what the gradient reads if out has
    planes for it; t = 0 holds the initial states, and zeros.

    ins: x (T, N, gates * H), h and for an LSTM c (N, H), w (gates * H, H), for a GRU the bias (H,)
    of its last gate; out (planes, T + 1, N, H).  All contiguous (ValueError).  A cell that reads:
    x (T, N, I), and after w the inputs' weight (gates * H, I) and bias (gates * H,).
    `pairs` (float32): products of bfloat16.
    """
    kind = CELLS[cell]
    x, *states, w = ins[: 2 + kind.states]
    steps, rows, width = _sizes(kind, out, w)
    deep, every = x.shape[-1] if kind.reads else 0, kind.gates * width
    layouts = [*ins[2 + kind.states :], *states]
    shapes: list[tuple[int, ...]] = [(width,)] * kind.bias
    shapes += [(every, deep), (every,)] * kind.reads + [(rows, width)] * kind.states
    planes = kind.states, kind.states + kind.kept
    if [a.shape for a in layouts] != shapes or out.shape[0] not in planes:
        raise ValueError(f"{cell}: {[a.shape for a in ins]} do not give {out.shape}")
    if x.shape != (steps, rows, deep if kind.reads else every):
        raise ValueError(f"{cell}: {x.shape} does not give {out.shape}")
    _check(cell, [*ins, out])
    if out.size == 0:
        return Launch(())
    tile = _tile(x.dtype.name, pairs=pairs)
    panels = -(-width // tile.lanes)
    per = 1 + pairs
    words_at = panels * kind.gates * (_square(width, tile) + _square(deep, tile)) * tile.align
    pitch, own = amx.depth(tile, panels * tile.lanes // per), _square(deep, tile)
    plane = (steps + 1) * rows * width
    ints = (
        steps, rows, width, panels, plane, 0, own, out.shape[0] > kind.states, deep, 1, words_at,
        pitch,
    )  # fmt: skip
    scratch = words_at + pairs * rows * (2 * pitch + own) * tile.itemsize
    scratch += _behind(tile) * max(pitch, own) * tile.itemsize
    return _launch(kind, "forward", steps * rows * every * (width + deep), ints, scratch, tile)


def plan_recurrent_grad(
    cell: str, ins: Sequence[Layout], out: Layout, *, pairs: bool = False
) -> Launch:
    """out[t + 1]: the cotangents of step t's s, and of x where they differ; out[0]: those of the
    initial states, then zeros; for an LSTM out[T + 1]: the sums over all t.

    ins: dh (T, N, H); for an LSTM dc (T, N, H), and each of the two may be (1, N, H): that of the
    last step alone; y as `plan_recurrent` gives it, with all planes; w.
    out (T + 1, N, columns * H), for an LSTM (T + 2, ...).  All contiguous (ValueError).
    """
    kind = CELLS[cell]
    *given, y, w = ins
    steps, rows, width = _sizes(kind, y, w)
    shape = (steps, rows, width)
    some = {shape, (1, rows, width)} if kind.states > 1 else {shape}
    fits = len(given) == kind.states and all(a.shape in some for a in given)
    fits &= all(a.shape[0] for a in given[1:])
    fits &= out.shape == (steps + 1 + kind.sums, rows, kind.columns * width)
    if not fits or y.shape[0] != kind.states + kind.kept:
        raise ValueError(f"{cell}: cotangents {[a.shape for a in given]} do not fit {y.shape}")
    _check(cell, [*ins, out])
    if out.size == 0:
        return Launch(())
    tile = _tile(y.dtype.name, pairs=pairs)
    panels = -(-width // tile.columns)
    padded, deep = panels * tile.columns, kind.gates * width
    rest_at = up(amx.depth(tile, (deep + pairs) // (1 + pairs)) * padded * tile.itemsize)
    words_at, pitch = rest_at + 2 * rows * padded * tile.itemsize, amx.depth(tile, deep // 2 + 1)
    more = kind.states > 1 and given[1].shape[0] > 1
    plane, every = (steps + 1) * rows * width, given[0].shape == shape
    ints = (
        steps, rows, width, panels, plane, rest_at, padded, more, 0, every, words_at, pitch,
    )  # fmt: skip
    scratch = words_at + (pairs * rows + _behind(tile)) * pitch * tile.itemsize
    return _launch(kind, "gradient", steps * rows * deep * width, ints, scratch, tile)


def _tile(dtype: str, *, pairs: bool) -> Tile:
    if pairs and dtype != "float32":
        raise ValueError(f"recurrent: pairs are made of float32, not {dtype}")
    return replace(tile_for(FLOAT_TYPES[dtype]), pairs=pairs)


def _behind(tile: Tile) -> int:
    """Rows behind the last one that may be read: two tile registers have 32."""
    return 2 * amx.ROWS - 1 if amx.in_tiles(tile) else 0


def _square(count: int, tile: Tile) -> int:
    """The rows of a packed weight of `count` columns: whole squares of vectors."""
    return up(-(-count // 2) if tile.pairs else count, tile.lanes)


def _launch(
    kind: Cell, name: str, work: int, ints: tuple[int, ...], scratch: int, tile: Tile
) -> Launch:
    parallel = work >= PARALLEL_FROM
    found = _kernels(kind.name, tile)
    stages = (Stage(found[f"pack_{name}"], parallel), Stage(found[name], parallel))
    return Launch(stages, tuple(int(i) for i in ints), up(scratch))


def _sizes(kind: Cell, y: Layout, w: Layout) -> tuple[int, int, int]:
    """(steps, rows, width) of states y."""
    if len(y.shape) != 4 or y.shape[1] < 1:
        raise ValueError(
            f"{kind.name}: states of shape {y.shape}, not (planes, steps + 1, rows, H)"
        )
    _, after, rows, width = y.shape
    if w.shape != (kind.gates * width, width):
        raise ValueError(f"{kind.name}: a weight of shape {w.shape} for {y.shape}")
    return after - 1, rows, width


def _check(cell: str, layouts: Sequence[Layout]) -> None:
    for a in layouts:
        if a.dtype != layouts[0].dtype or a.dtype.name not in ("float32", "float64"):
            raise ValueError(f"{cell}: dtypes {layouts[0].dtype} and {a.dtype}")
        if not a.is_contiguous:
            raise ValueError(f"{cell}: {a} must be contiguous")


@cache
def _kernels(cell: str, tile: Tile) -> dict[str, int]:
    names = ["pack_forward", "forward", "pack_gradient", "gradient"]
    return native.load_made(names, recurrent_ir, cell, tile)


def recurrent_ir(cell: str, tile: Tile) -> str:
    """The LLVM IR of a cell's four kernels, for the host."""
    kind = CELLS[cell]
    m = Module()
    widths = {tile.vectors, *(width for _, width in _parts(kind, tile))}
    for width in sorted(widths):
        for rows in range(1, tile.rows + 1):
            micro_kernel(m, tile, rows, width, usual=2 * rows > tile.rows)
    _emit_pack_forward(m, tile, kind)
    _emit_forward(m, tile, kind)
    _emit_pack_gradient(m, tile, kind)
    _emit_gradient(m, tile, kind)
    return m.text()


def _parts(kind: Cell, tile: Tile) -> list[tuple[int, int]]:
    """(first gate, gates) of the micro-kernels that make a panel's gates."""
    return [(g, min(tile.vectors, kind.gates - g)) for g in range(0, kind.gates, tile.vectors)]


class _Kernel:
    """A kernel's function with its sizes and pointers."""

    def __init__(self, m: Module, name: str, tile: Tile, inputs: int) -> None:
        self.f = f = m.kernel(name)
        self.tile = tile
        self.out, *self.ins, self.scratch = f.words("%args", 2, ["ptr"] * (inputs + 2))
        words = f.words("%args", 4 + inputs, ["i64"] * len(_HEAD))
        for name_, value in zip(_HEAD, words, strict=True):
            setattr(self, name_, value)
        self.math = Math(f, has_fma=native.host().has_fma)
        dtype = D.float64 if tile.element == "double" else D.float32
        self.parts: Numbers = units_of(f, dtype, tile.lanes, pairs=tile.pairs)
        self.in_tiles = amx.in_tiles(tile)
        self.block = (
            2 * amx.ROWS if self.in_tiles else tile.rows
        )  # rows that are multiplied together

    steps: Value
    rows: Value
    width: Value
    panels: Value
    plane: Value
    rest_at: Value
    padded: Value
    more: Value
    inputs: Value
    every: Value
    words_at: Value
    pitch: Value

    def at(self, pointer: Operand, *terms: Operand) -> Value:
        """pointer + the sum of terms, in elements."""
        offset: Operand = 0
        for term in terms:
            offset = self.f.add(offset, term)
        return self.f.gep(pointer, offset, self.tile.element)

    def square(self, count: Operand) -> Operand:
        """As `_square`."""
        lanes = self.tile.lanes
        return self.f.mul(self.f.div(self.f.add(self.parts.units(count), lanes - 1), lanes), lanes)

    def open(self) -> None:
        """The beginning of a kernel that multiplies."""
        if self.in_tiles:
            amx.configure(self.f, [(amx.ROWS, amx.CELL * amx.DEPTH)] * 8)

    def clear(self, row: Operand) -> None:
        """Zeros for a row of words, to be filled up in tile registers."""
        if self.in_tiles:
            with self.f.loop(0, self.pitch, self.tile.lanes) as W:
                self.f.store(zero(self.tile.type), self.f.gep(self.words(row), W.i, "float"))

    def close(self) -> None:
        if self.in_tiles:
            amx.release(self.f)
        self.f.ret()

    def units(self, count: Operand) -> Operand:
        """Elements along k of so many numbers, as `amx.depth`."""
        return amx.deep(self.f, self.tile, self.parts.units(count))

    def deep(self) -> Operand:
        """The rows of a panel of the forward product."""
        return self.f.add(self.square(self.width), self.padded)

    def words(self, row: Operand) -> Value:
        """A row's words: of the states (two steps of all rows), or of the gradient."""
        return self.at(self.f.gep(self.scratch, self.words_at), self.f.mul(row, self.pitch))

    def round(self, value: Value, words: Value, unit: Operand, mask: Value | None = None) -> None:
        """Numbers to the halves of a row's words."""
        f, bits = self.f, halves(self.f, value, D.float32, self.tile.lanes)
        place = f.gep(words, unit, "i16")
        if mask is None:
            f.store(bits, place)
        else:
            f.masked_store(bits, place, mask)

    def row(self, step: Operand, row: Operand) -> Operand:
        """The offset of a row of a plane."""
        f = self.f
        return f.mul(f.add(f.mul(step, self.rows), row), self.width)

    def load(self, pointer: Value, mask: Value) -> Value:
        return self.f.masked_load(self.tile.type, pointer, mask)

    def store(self, value: Value, pointer: Value, mask: Value) -> None:
        self.f.masked_store(value, pointer, mask)

    def mask(self, unit: Operand) -> Value:
        """The lanes of a vector of units that exist."""
        return self.f.lane_mask(self.f.sub(self.width, unit), self.tile.lanes)

    def sigmoid(self, x: Value) -> Value:
        m = self.math
        return m.div(1.0, m.add(1.0, vmath.call(m, "exp", self.f.neg(x))))

    def tanh(self, x: Value) -> Value:
        return vmath.call(self.math, "tanh", x)

    def multiply(
        self, rows: Operand, k: Operand, a: Value, lda: Operand, b: Value, ldb: int, c: Value,
        ldc: Operand, vectors: int, *, add: bool = False, soon: Sequence[Operand] = (),
    ) -> None:  # fmt: skip
        """c = a b, or c += a b, for a tile of up to `tile.rows` rows and `vectors` vectors, which
        asks for the lines `soon`: see `micro_kernel`. In tile registers: of up
        to 32 rows; all of 16 or 32 are read, and written.
        """
        f, soon = self.f, soon or (c, 0, 0)
        if self.in_tiles:
            self._multiply_in_tiles(rows, k, a, lda, b, ldb, c, ldc, vectors)
            return
        for case in f.switch(rows, range(1, self.tile.rows), self.tile.rows):
            name = f"tile_{case}x{vectors}"
            f.call(name, "void", k, a, lda, 1, b, ldb, c, ldc, int(not add), *soon, c, 0, 0)

    @contextmanager
    def blocks(self, low: Operand, high: Operand) -> Iterator[tuple[Operand, Operand, Operand]]:
        """Rows from `low` to `high` in blocks that are multiplied together: the number of each,
        its first row and how many it has. Tiles are as even as may be: one of few rows reads as
        many weights as another.
        """
        f = self.f
        rows = f.sub(high, low)
        count = f.div(f.add(rows, self.block - 1), self.block)
        if self.in_tiles:
            least, longer = f.typed(self.block, "i64"), f.typed(0, "i64")
        else:
            least = f.div(rows, f.max(count, 1))
            longer = f.sub(rows, f.mul(least, count))
        with f.loop(0, count) as number:
            start = f.add(low, f.add(f.mul(number.i, least), f.min(number.i, longer)))
            size = f.add(least, f.select(f.icmp("slt", number.i, longer), 1, 0))
            yield number.i, start, f.min(f.sub(high, start), size)

    def _multiply_in_tiles(
        self, rows: Operand, k: Operand, a: Value, lda: Operand, b: Value, ldb: int, c: Value,
        ldc: Operand, vectors: int,
    ) -> None:  # fmt: skip
        """More than sixteen rows: two registers of rows by two of columns, which read half of b."""
        f, lanes = self.f, self.tile.lanes

        def multiply(heights: int, columns: Sequence[int]) -> None:
            cells = [(h, v) for h in range(heights) for v in columns]
            places = [self.at(c, f.mul(ldc, h * amx.ROWS), v * lanes) for h, v in cells]
            for i in range(len(cells)):
                amx.zero(f, i)
            with f.loop(0, k, amx.DEPTH) as K:
                for h in range(heights):
                    row = self.at(a, K.i, f.mul(lda, h * amx.ROWS))
                    amx.load(f, 4 + h, row, f.mul(lda, amx.CELL))
                for i, v in enumerate(columns):
                    right = 6 + i % 2
                    amx.load(f, right, self.at(b, f.mul(K.i, ldb), v * lanes), ldb * amx.CELL)
                    for h in range(heights):
                        amx.multiply_pairs(f, cells.index((h, v)), 4 + h, right)
            for i, place in enumerate(places):
                amx.store(f, i, place, f.mul(ldc, amx.CELL))

        with f.if_else(f.icmp("sgt", rows, amx.ROWS)) as way:
            for v in range(0, vectors, 2):
                multiply(2, range(v, min(v + 2, vectors)))
            way.otherwise()
            multiply(1, range(vectors))


class _Next:
    """What the tiles of a step ask for: what the next one reads and writes, a thread's rows of some
    planes. Those of tile registers ask for nothing. A plane is some runs, of as many lines as a
    tile asks for one after the other; a tile takes two. The last tiles do so: weights that pass
    later would drive the lines out again. Tiles of few k are `short` of time for all.
    """

    def __init__(
        self, kernel: _Kernel, low: Operand, high: Operand, k: Operand,
        planes: Sequence[tuple[Value, int]], count: Operand,
    ) -> None:  # fmt: skip
        """The thread's rows; the depth of a tile's product; the planes (where step 0 is, how many a
        step has) and how many of them are wanted.
        """
        self.kernel, f = kernel, kernel.f
        self.starts, self.steps = (f.alloca(t, len(planes)) for t in ("ptr", "i64"))
        for i, (start, step) in enumerate(planes):
            f.store(start, f.gep(self.starts, i, "ptr"))
            f.store(f.typed(kernel.row(step, 0), "i64"), f.gep(self.steps, i, "i64"))
        size = f.mul(f.sub(high, low), kernel.width)
        self.run = f.mul(f.max(f.div(k, UNROLL), 1), 64 // kernel.tile.itemsize)
        self.runs = f.div(f.add(size, f.sub(self.run, 1)), self.run)  # of a plane
        self.end = f.mul(self.runs, count)
        rows = f.add(f.sub(high, low), kernel.tile.rows - 1)
        self.tiles = f.div(rows, kernel.tile.rows)  # of a panel
        every = f.mul(self.tiles, kernel.panels)
        spare = f.sub(every, f.div(f.add(self.end, 1), 2))
        self.short, self.skipped = f.icmp("slt", spare, 0), f.max(spare, 0)
        if kernel.in_tiles:
            self.short = Value("true", "i1")

    def soon(self, step: Operand, panel: Operand, block: Operand) -> list[Value]:
        """What a block of a panel asks for: see `micro_kernel`."""
        kernel, f = self.kernel, self.kernel.f
        tile = f.add(f.mul(panel, self.tiles), block)
        number = f.mul(f.sub(tile, self.skipped), 2)
        asks = f.op("and", f.icmp("sge", number, 0), f.icmp("slt", number, self.end))

        def place(plane: Operand, run: Operand) -> Value:
            start = f.load("ptr", f.gep(self.starts, plane, "ptr"))
            pitch = f.load("i64", f.gep(self.steps, plane, "i64"))
            return kernel.at(start, f.mul(step, pitch), f.mul(run, self.run))

        with f.if_else(asks) as way:
            plane, run = f.div(number, self.runs), f.rem(number, self.runs)
            first, last = place(plane, run), f.sub(self.end, f.add(number, 1))
            over = f.icmp("eq", f.add(run, 1), self.runs)
            other = f.add(plane, f.select(f.op("and", over, f.icmp("ne", last, 0)), 1, 0))
            second = place(other, f.select(over, 0, f.add(run, 1)))
            places = (f.cast("ptrtoint", p, "i64") for p in (second, first))
            far = f.div(f.sub(*places), kernel.tile.itemsize)
            way.otherwise()
        types, none = ("ptr", "i64", "i64"), (kernel.out, 0, 0)
        given = (first, 64 // kernel.tile.itemsize, far)
        return [way.merge(t, a, b) for t, a, b in zip(types, given, none, strict=True)]


def _emit_pack_forward(m: Module, tile: Tile, kind: Cell) -> None:
    """Panel p, row k: w's column k for the units of vector p, gate after gate; then the same of
    the inputs' weight, each filled up to whole squares of vectors."""
    kernel = _Kernel(m, "pack_forward", tile, 2 + kind.states + kind.bias + 2 * kind.reads)
    f, wide, parts = kernel.f, kind.gates * tile.lanes, kernel.parts
    weights = [(kernel.ins[1 + kind.states], kernel.width)]
    weights += [(kernel.ins[-2], kernel.inputs)] * kind.reads
    first, last = f.split(kernel.panels)
    with f.loop(0, kind.gates) as G, f.loop(first, last) as P:
        at = f.add(f.mul(f.mul(P.i, kernel.deep()), wide), f.mul(G.i, tile.lanes))
        to, unit = kernel.at(kernel.scratch, at), f.mul(P.i, tile.lanes)
        for w, deep in weights:
            with f.loop(0, parts.units(deep), tile.lanes) as K:
                k = f.mul(K.i, parts.per)
                masks = parts.masks(f.sub(deep, k))
                read = []
                for lane in range(tile.lanes):
                    exists = f.icmp("slt", f.add(unit, lane), kernel.width)
                    row = f.add(f.mul(G.i, kernel.width), f.select(exists, f.add(unit, lane), 0))
                    place = kernel.at(w, f.mul(row, deep), k)
                    value = parts.adjacent(place, masks)
                    f.touch(kernel.at(place, f.mul(deep, tile.lanes)), level=2)
                    read.append(f.select(exists, value, zero(tile.type)))
                for i, value in enumerate(f.transpose(read)):
                    f.store(value, kernel.at(to, f.mul(f.add(K.i, i), wide)))
            to = kernel.at(to, f.mul(kernel.square(deep), wide))
    f.ret()


def _emit_forward(m: Module, tile: Tile, kind: Cell) -> None:
    kernel = _Kernel(m, "forward", tile, 2 + kind.states + kind.bias + 2 * kind.reads)
    f, out, x = kernel.f, kernel.out, kernel.ins[0]
    initial = kernel.ins[1 : 1 + kind.states]
    wide = kind.gates * tile.lanes
    corner = f.alloca(tile.element, kernel.block * wide)
    own = f.alloca(tile.element, kernel.block * wide) if kind.reads else x  # the inputs' product
    kernel.open()
    low, high = f.split(kernel.rows)
    more = f.icmp("ne", kernel.more, 0)

    def plane(p: int, *terms: Operand) -> Value:
        return kernel.at(out, f.mul(kernel.plane, p), *terms)

    def given_row(step: Operand, row: Operand) -> Operand:
        return f.add(f.mul(step, kernel.rows), row)

    def turn(step: Operand) -> Operand:
        """Where the words of the states before a step begin: those after it are the others."""
        return f.mul(f.rem(step, 2), kernel.rows)

    with f.loop(low, high) as R:  # the planes' first rows
        here = kernel.row(0, R.i)
        for half in (0, kernel.rows):
            kernel.clear(f.add(half, R.i))
        with f.loop(0, kernel.width, tile.lanes) as U:
            mask = kernel.mask(U.i)
            for p, source in enumerate(initial):
                value = kernel.load(kernel.at(source, here, U.i), mask)
                kernel.store(value, plane(p, here, U.i), mask)
                if tile.pairs and p == 0:
                    kernel.round(value, kernel.words(R.i), U.i)
            with f.iff(more):
                for p in range(kind.states, kind.states + kind.kept):
                    kernel.store(zero(tile.type), plane(p, here, U.i), mask)
    places = [(plane(p, kernel.row(2, low)), 1) for p in range(kind.states + kind.kept)]
    size, gates = f.mul(f.sub(high, low), kernel.width), 0 if kind.reads else kind.gates
    start = kernel.at(x, f.mul(kernel.row(1, low), gates))
    given = [(kernel.at(start, f.mul(size, g)), gates) for g in range(gates)]
    wanted = f.add(gates, f.select(more, len(places), kind.states))
    units = kernel.units
    following = _Next(kernel, low, high, units(kernel.width), [*given, *places], wanted)
    with f.loop(0, kernel.steps) as T, f.loop(0, kernel.panels) as P:
        panel = kernel.at(kernel.scratch, f.mul(f.mul(P.i, kernel.deep()), wide))
        unit = f.mul(P.i, tile.lanes)
        mask = kernel.mask(unit)
        bias = kernel.load(kernel.at(kernel.ins[-1], unit), mask) if kind.bias else None
        shifts = [
            kernel.load(kernel.at(kernel.ins[-1], unit, f.mul(kernel.width, g)), mask)
            for g in range(kind.gates * kind.reads)
        ]
        # where the next panel, or the next step's first, reads and writes
        done = f.icmp("eq", f.add(P.i, 1), kernel.panels)
        whole = f.mul(kernel.rows, kernel.width)
        y_next, x_next = (
            f.select(done, f.sub(f.mul(whole, parts), unit), f.typed(tile.lanes, "i64"))
            for parts in (1, kind.gates)
        )
        given_words = kernel.words(f.mul(kernel.rows, 2))
        if tile.pairs and kind.reads:
            with f.iff(f.icmp("eq", P.i, 0)), f.loop(low, high) as R:
                to = kernel.at(given_words, f.mul(R.i, kernel.padded))
                every = f.mul(kernel.padded, 2) if kernel.in_tiles else kernel.inputs
                with f.loop(0, every, tile.lanes) as I:
                    exists = f.lane_mask(f.sub(kernel.inputs, I.i), tile.lanes)
                    place = kernel.at(x, f.mul(given_row(T.i, R.i), kernel.inputs), I.i)
                    kernel.round(kernel.load(place, exists), to, I.i)
        with kernel.blocks(low, high) as (block, start, count):
            for gate, width in _parts(kind, tile):
                b, c = (kernel.at(z, gate * tile.lanes) for z in (panel, corner))
                a, step = kernel.at(out, kernel.row(T.i, start)), kernel.width
                if tile.pairs:
                    a, step = kernel.words(f.add(turn(T.i), start)), kernel.pitch
                ask = gate == 0 and not kernel.in_tiles
                soon = following.soon(T.i, P.i, block) if ask else ()
                kernel.multiply(
                    count, units(kernel.width), a, step, b, wide, c, wide, width, soon=soon
                )
                if kind.reads:
                    b = kernel.at(b, f.mul(kernel.square(kernel.width), wide))
                    c, step = kernel.at(own, gate * tile.lanes), kernel.inputs
                    a = kernel.at(x, f.mul(given_row(T.i, start), step))
                    if tile.pairs:
                        a, step = kernel.at(given_words, f.mul(start, kernel.padded)), kernel.padded
                    kernel.multiply(count, units(kernel.inputs), a, step, b, wide, c, wide, width)
            with f.loop(0, count) as Q:
                row = f.add(start, Q.i)
                gates = kernel.at(x, f.mul(kernel.row(T.i, row), kind.gates), unit)
                sums = kernel.at(corner, f.mul(Q.i, wide))
                here = f.add(kernel.row(f.add(T.i, 1), row), unit)

                def vectors(tiles: Value) -> list[Value]:
                    return [
                        f.load(tile.type, kernel.at(tiles, g * tile.lanes))
                        for g in range(kind.gates)
                    ]

                products = vectors(sums)
                if kind.reads:
                    inputs = vectors(kernel.at(own, f.mul(Q.i, wide)))
                    given = [kernel.math.add(v, b) for v, b in zip(inputs, shifts, strict=True)]
                else:
                    given = [
                        kernel.load(kernel.at(gates, f.mul(kernel.width, g)), mask)
                        for g in range(kind.gates)
                    ]
                old = [
                    kernel.load(plane(p, kernel.row(T.i, row), unit), mask)
                    for p in range(kind.states)
                ]
                with f.iff(following.short):
                    for g in range(0 if kind.reads else kind.gates):
                        f.touch(kernel.at(gates, f.mul(kernel.width, g), x_next), level=2)
                    for p in range(kind.states):
                        f.touch(plane(p, here, y_next), level=2, write=True)
                    with f.iff(more):
                        for p in range(kind.states, kind.states + kind.kept):
                            f.touch(plane(p, here, y_next), level=2, write=True)
                new = kind.step(kernel, products, given, old, bias)
                if tile.pairs:
                    kernel.round(new[0], kernel.words(f.add(turn(f.add(T.i, 1)), row)), unit)
                for p, value in enumerate(new[: kind.states]):
                    kernel.store(value, plane(p, here), mask)
                with f.iff(more):
                    for p, value in enumerate(new[kind.states :], start=kind.states):
                        kernel.store(value, plane(p, here), mask)
    kernel.close()


def _emit_pack_gradient(m: Module, tile: Tile, kind: Cell) -> None:
    """Panel p, row k: w's row k, of the units of panel p."""
    kernel = _Kernel(m, "pack_gradient", tile, 2 + kind.states)
    f, w, parts = kernel.f, kernel.ins[-1], kernel.parts
    every = f.mul(kernel.width, kind.gates)
    deep = kernel.units(every)
    first, last = f.split(f.mul(kernel.panels, deep))
    with f.loop(first, last) as I:
        panel, k = f.div(I.i, deep), f.mul(f.rem(I.i, deep), parts.per)
        unit = f.mul(panel, tile.columns)
        to = kernel.at(kernel.scratch, f.mul(I.i, tile.columns))
        more = f.icmp("slt", f.add(k, 1), every)
        for v in range(0, tile.columns, tile.lanes):
            mask = kernel.mask(f.add(unit, v))
            if kernel.in_tiles:  # rows that fill a depth up are zeros
                none = f.lane_mask(0, tile.lanes)
                mask = f.select(f.icmp("slt", k, every), mask, none)
            at = kernel.at(w, f.mul(k, kernel.width), unit, v)
            f.touch(kernel.at(at, f.mul(kernel.width, 16)), level=2)
            value = parts.unit(lambda p, m=mask: kernel.load(p, m), at, kernel.width, more)
            f.store(value, kernel.at(to, v))
    f.ret()


def _emit_gradient(m: Module, tile: Tile, kind: Cell) -> None:
    kernel = _Kernel(m, "gradient", tile, 2 + kind.states)
    f, out, width = kernel.f, kernel.out, kernel.width
    (dh, *given_c), y = kernel.ins[:-2], kernel.ins[-2]
    every_gate, wide = f.mul(width, kind.gates), f.mul(width, kind.columns)
    deep = kernel.units(every_gate)
    corner = f.alloca(tile.element, kernel.block * tile.columns) if kernel.in_tiles else y
    kernel.open()
    dh_later = f.gep(kernel.scratch, kernel.rest_at)  # from the step after
    dc_later = kernel.at(dh_later, f.mul(kernel.rows, kernel.padded))
    low, high = f.split(kernel.rows)
    more, every = (f.icmp("ne", v, 0) for v in (kernel.more, kernel.every))

    def spare(base: Value, row: Operand, unit: Operand) -> Value:
        return kernel.at(base, f.mul(row, kernel.padded), unit)

    def sums(row: Operand, unit: Operand) -> list[Value]:
        """Where a row's sums over the steps are, a column each."""
        end = f.mul(kernel.row(f.add(kernel.steps, 1), row), kind.columns)
        return [kernel.at(out, end, unit, f.mul(width, c)) for c in range(kind.columns * kind.sums)]

    if tile.pairs:  # beside a last odd one
        with f.loop(low, high) as R:
            kernel.clear(R.i)
            f.store(f.typed(0, "i16"), f.gep(kernel.words(R.i), every_gate, "i16"))
    with f.loop(low, high) as R, f.loop(0, width, tile.lanes) as U:
        mask = kernel.mask(U.i)
        for dc in given_c:  # of the last step: the only one, unless there is one a step
            last = f.select(more, f.sub(kernel.steps, 1), 0)
            value = kernel.load(kernel.at(dc, kernel.row(last, R.i), U.i), mask)
            f.store(value, spare(dc_later, R.i, U.i))
        f.store(zero(tile.type), spare(dh_later, R.i, U.i))
        for place in sums(R.i, U.i):
            kernel.store(zero(tile.type), place, mask)
    start, before = kernel.row(0, low), kernel.row(-1, low)
    kept = range(kind.states, kind.states + kind.kept)
    places = [(kernel.at(y, f.mul(kernel.plane, p), start), 1) for p in kept]
    places.append((kernel.at(y, f.mul(kernel.plane, kind.states - 1), before), 1))
    size, to = f.mul(f.sub(high, low), width), kernel.at(out, f.mul(start, kind.columns))
    places += [(kernel.at(to, f.mul(size, c)), kind.columns) for c in range(kind.columns)]
    places.append((kernel.at(dh, before), 1))
    wanted = f.sub(len(places), f.select(every, 0, 1))
    following = _Next(kernel, low, high, deep, places, wanted)
    with f.loop(0, kernel.steps) as back:
        step = f.sub(f.sub(kernel.steps, 1), back.i)
        after = f.add(step, 1)
        comes = f.op("or", every, f.icmp("eq", back.i, 0))  # a cotangent of h
        with f.loop(low, high) as R, f.loop(0, width, tile.lanes) as U:
            mask = kernel.mask(U.i)

            def planes(count: int, at: Operand, U=U, R=R, mask=mask) -> list[Value]:
                place = f.add(kernel.row(at, R.i), U.i)
                return [
                    kernel.load(kernel.at(y, f.mul(kernel.plane, p), place), mask)
                    for p in range(count)
                ]

            now, old = planes(kind.states + kind.kept, after), planes(kind.states, step)
            read = kernel.row(f.select(every, step, 0), R.i)
            given = kernel.load(kernel.at(dh, read, U.i), mask)
            given = f.select(comes, given, zero(tile.type))
            dh_at, dc_at = spare(dh_later, R.i, U.i), spare(dc_later, R.i, U.i)
            total = kernel.math.add(given, f.load(tile.type, dh_at))
            carry = f.load(tile.type, dc_at) if given_c else None
            columns, rest = kind.back(kernel, total, carry, now, old)
            if kind.direct:
                f.store(f.typed(rest, tile.type), dh_at)  # type: ignore[arg-type]
            for dc in given_c:
                f.store(f.typed(rest, tile.type), dc_at)  # type: ignore[arg-type]
                with f.iff(f.op("and", more, f.icmp("sgt", step, 0))):
                    place = kernel.at(dc, kernel.row(f.sub(step, 1), R.i), U.i)
                    both = kernel.math.add(f.load(tile.type, dc_at), kernel.load(place, mask))
                    f.store(both, dc_at)
            to = kernel.at(out, f.mul(kernel.row(after, R.i), kind.columns), U.i)
            for column, value in enumerate(columns):
                kernel.store(value, kernel.at(to, f.mul(width, column)), mask)
                if tile.pairs and column < kind.gates:
                    at = f.add(f.mul(width, column), U.i)
                    kernel.round(value, kernel.words(R.i), at, mask)
            for value, place in zip(columns, sums(R.i, U.i), strict=False):
                kernel.store(kernel.math.add(kernel.load(place, mask), value), place, mask)
        with f.loop(0, kernel.panels) as P:
            panel = kernel.at(kernel.scratch, f.mul(f.mul(P.i, deep), tile.columns))
            unit = f.mul(P.i, tile.columns)
            with kernel.blocks(low, high) as (block, first_row, count):
                a, pitch = kernel.at(out, f.mul(kernel.row(after, first_row), kind.columns)), wide
                if tile.pairs:
                    a, pitch = kernel.words(first_row), kernel.pitch
                c = spare(dh_later, first_row, unit)
                if not kernel.in_tiles:
                    kernel.multiply(
                        count, deep, a, pitch, panel, tile.columns, c, kernel.padded, tile.vectors,
                        add=kind.direct, soon=following.soon(step, P.i, block),
                    )  # fmt: skip
                else:  # rows behind the last are another thread's
                    kernel.multiply(
                        count, deep, a, pitch, panel, tile.columns, corner, tile.columns,
                        tile.vectors,
                    )  # fmt: skip
                    with f.loop(0, count) as Q:
                        for v in range(0, tile.columns, tile.lanes):
                            place = kernel.at(c, f.mul(Q.i, kernel.padded), v)
                            row = kernel.at(corner, f.mul(Q.i, tile.columns), v)
                            product = f.load(tile.type, row)
                            if kind.direct:
                                product = kernel.math.add(f.load(tile.type, place), product)
                            f.store(product, place)
    with f.loop(low, high) as R, f.loop(0, width, tile.lanes) as U:
        mask = kernel.mask(U.i)
        to = kernel.at(out, f.mul(kernel.row(0, R.i), kind.columns), U.i)
        for column in range(kind.columns):
            value = zero(tile.type)
            if column < kind.states:
                source = (dh_later, dc_later)[column]
                value = f.load(tile.type, spare(source, R.i, U.i))
            kernel.store(value, kernel.at(to, f.mul(width, column)), mask)
    kernel.close()
