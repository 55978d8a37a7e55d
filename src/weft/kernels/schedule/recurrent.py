"""The recurrence of an LSTM over a whole sequence, and its gradient: one launch each.

    forward   a = x[t] + h[t-1] w^T;  i, f, o = sigmoid, g = tanh of a's quarters
              c[t] = f c[t-1] + i g;  h[t] = o tanh(c[t])
    gradient  from dh[t] and the final state's cotangent down to da[t], the cotangent of a

Rows of a batch do not meet, so each thread takes some rows through all steps and none waits for
another.  w is packed once.  A panel of the forward product holds the four gates of one vector of
units: what leaves the registers is complete, and the cell is computed on it while it lies in L1.

Numbers: every product is one fma chain over increasing k; a row's bits depend on the row alone.
float32 and float64.
"""

from collections.abc import Sequence
from functools import cache

from weft.kernels.layout import Layout
from weft.kernels.schedule.gemm import PARALLEL_FROM
from weft.kernels.schedule.gemm_code import micro_kernel
from weft.kernels.schedule.tile import Tile, tile_for, up
from weft.kernels.target import math as vmath
from weft.kernels.target.llvm import FLOAT_TYPES, Module, Operand, Value, zero
from weft.kernels.target.math import Math
from weft.runtime import native
from weft.runtime.native import Launch, Stage

GATES = 4  # input, forget, cell, output
PLANES = 2 + GATES  # h, c and the gates after their functions
_HEAD = ("steps", "rows", "width", "panels", "plane", "rest_at", "padded", "more")


def plan_lstm(x: Layout, h: Layout, c: Layout, w: Layout, out: Layout) -> Launch:
    """out[p, t]: h, c after step t, and if out has 6 planes i, f, g, o; t = 0 holds the initial
    h and c, and zeros.

    x (T, N, 4H), h and c (N, H), w (4H, H), out (2 or 6, T + 1, N, H), all contiguous (ValueError).
    """
    steps, rows, width = _sizes(out, x, h, w)
    if c != h or x.shape[0] != steps or out.shape[0] not in (2, PLANES):
        raise ValueError(f"lstm: {x.shape}, {h.shape} and {c.shape} do not give {out.shape}")
    if out.size == 0:
        return Launch(())
    tile = tile_for(FLOAT_TYPES[x.dtype.name])
    panels = -(-width // tile.lanes)
    packed = panels * width * GATES * tile.lanes * tile.itemsize
    work = steps * rows * GATES * width * width
    ints = (steps, rows, width, panels, (steps + 1) * rows * width, 0, 0, out.shape[0] > 2)
    return _launch("forward", work, ints, packed, tile)


def plan_lstm_grad(dh: Layout, dc: Layout, y: Layout, w: Layout, out: Layout) -> Launch:
    """out[t + 1]: the cotangent of step t's a; out[0]: those of the initial h and c, then zeros.

    dh (T, N, H), dc (T, N, H) or (1, N, H) of the last c alone, y (6, T + 1, N, H) as `plan_lstm`
    gives it, w (4H, H), out (T + 1, N, 4H), all contiguous (ValueError).
    """
    initial = Layout.contiguous(dc.shape[1:], dc.dtype)
    steps, rows, width = _sizes(y, out, initial, w)
    fits = (
        dh.shape == (steps, rows, width) and dc.shape[0] in (1, steps or 1) and y.shape[0] == PLANES
    )
    if not fits or out.shape[0] != steps + 1 or not (dh.is_contiguous and dc.is_contiguous):
        raise ValueError(f"lstm: cotangents {dh} and {dc} do not fit states {y}")
    if dh.dtype != y.dtype:
        raise ValueError(f"lstm: dtypes {dh.dtype} and {y.dtype}")
    if out.size == 0:
        return Launch(())
    tile = tile_for(FLOAT_TYPES[y.dtype.name])
    panels = -(-width // tile.columns)
    padded = panels * tile.columns
    packed = up(GATES * width * padded * tile.itemsize)
    work = steps * rows * GATES * width * width
    ints = (steps, rows, width, panels, (steps + 1) * rows * width, packed, padded, dc.shape[0] > 1)
    return _launch("gradient", work, ints, packed + 2 * rows * padded * tile.itemsize, tile)


def _launch(name: str, work: int, ints: tuple[int, ...], scratch: int, tile: Tile) -> Launch:
    parallel = work >= PARALLEL_FROM
    found = _kernels(tile.element)
    stages = (Stage(found[f"pack_{name}"], parallel), Stage(found[name], parallel))
    return Launch(stages, tuple(int(i) for i in ints), up(scratch))


def _sizes(y: Layout, x: Layout, h: Layout, w: Layout) -> tuple[int, int, int]:
    """(steps, rows, width) of states y, checked against the other layouts."""
    if len(y.shape) != 4 or y.shape[1] < 1:
        raise ValueError(f"lstm: states of shape {y.shape}, expected (planes, steps + 1, rows, H)")
    _, after, rows, width = y.shape
    fits = h.shape == (rows, width) and x.shape[1:] == (rows, GATES * width)
    if not fits or w.shape != (GATES * width, width):
        raise ValueError(f"lstm: {x.shape}, {h.shape}, {w.shape} and {y.shape} do not fit")
    for layout in (y, x, h, w):
        if layout.dtype != y.dtype or y.dtype.name not in ("float32", "float64"):
            raise ValueError(f"lstm: dtypes {layout.dtype} and {y.dtype}")
        if not layout.is_contiguous:
            raise ValueError(f"lstm: {layout} must be contiguous")
    return after - 1, rows, width


@cache
def _kernels(element: str) -> dict[str, int]:
    return native.load(lstm_ir(element), ["pack_forward", "forward", "pack_gradient", "gradient"])


def lstm_ir(element: str) -> str:
    """The LLVM IR of the four kernels, for the host."""
    tile = tile_for(element)
    m = Module(native.host().vector_bits)
    for rows in range(1, tile.rows + 1):
        micro_kernel(m, tile, rows, tile.vectors, a_unit=True)
    _emit_pack_forward(m, tile)
    _emit_forward(m, tile)
    _emit_pack_gradient(m, tile)
    _emit_gradient(m, tile)
    return m.text()


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

    steps: Value
    rows: Value
    width: Value
    panels: Value
    plane: Value
    rest_at: Value
    padded: Value
    more: Value

    def at(self, pointer: Operand, *terms: Operand) -> Value:
        """pointer + the sum of terms, in elements."""
        offset: Operand = 0
        for term in terms:
            offset = self.f.add(offset, term)
        return self.f.gep(pointer, offset, self.tile.element)

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
        ldc: Operand,
    ) -> None:  # fmt: skip
        """c = a b for a tile of up to `tile.rows` rows and one width of micro-kernel."""
        f = self.f
        for case in f.switch(rows, range(1, self.tile.rows), self.tile.rows):
            name = f"tile_{case}x{self.tile.vectors}"
            f.call(name, "void", k, a, lda, 1, b, ldb, c, ldc, 1)


def _emit_pack_forward(m: Module, tile: Tile) -> None:
    """Panel p, row k: w's column k for the units of vector p, gate after gate."""
    kernel = _Kernel(m, "pack_forward", tile, 4)
    f, w, el, wide = kernel.f, kernel.ins[3], tile.element, GATES * tile.lanes
    first, last = f.split(kernel.panels)
    with f.loop(first, last) as P:
        panel = kernel.at(kernel.scratch, f.mul(f.mul(P.i, kernel.width), wide))
        with f.loop(0, wide) as J:
            gate, lane = f.div(J.i, tile.lanes), f.rem(J.i, tile.lanes)
            unit = f.add(f.mul(P.i, tile.lanes), lane)
            exists = f.icmp("slt", unit, kernel.width)
            row = f.add(f.mul(gate, kernel.width), f.select(exists, unit, 0))
            source = kernel.at(w, f.mul(row, kernel.width))
            with f.loop(0, kernel.width) as K:
                value = f.select(exists, f.load(el, kernel.at(source, K.i)), f.typed(0.0, el))
                f.store(value, kernel.at(panel, f.mul(K.i, wide), J.i))
    f.ret()


def _emit_forward(m: Module, tile: Tile) -> None:
    kernel = _Kernel(m, "forward", tile, 4)
    f, (x, h0, c0, _), out = kernel.f, kernel.ins, kernel.out
    wide = GATES * tile.lanes
    corner = f.alloca(tile.element, tile.rows * wide)
    low, high = f.split(kernel.rows)
    more = f.icmp("ne", kernel.more, 0)

    def plane(p: int, *terms: Operand) -> Value:
        return kernel.at(out, f.mul(kernel.plane, p), *terms)

    with f.loop(low, high) as R:  # the planes' first rows
        here = kernel.row(0, R.i)
        with f.loop(0, kernel.width, tile.lanes) as U:
            mask = kernel.mask(U.i)
            for p, initial in enumerate((h0, c0)):
                value = kernel.load(kernel.at(initial, here, U.i), mask)
                kernel.store(value, plane(p, here, U.i), mask)
            with f.iff(more):
                for p in range(2, PLANES):
                    kernel.store(zero(tile.type), plane(p, here, U.i), mask)
    with f.loop(0, kernel.steps) as T, f.loop(0, kernel.panels) as P:
        panel = kernel.at(kernel.scratch, f.mul(f.mul(P.i, kernel.width), wide))
        unit = f.mul(P.i, tile.lanes)
        mask = kernel.mask(unit)
        with f.loop(low, high, tile.rows) as R:
            count = f.min(f.sub(high, R.i), tile.rows)
            before = kernel.at(out, kernel.row(T.i, R.i))
            for part in range(0, GATES, tile.vectors):
                b, c = (kernel.at(z, part * tile.lanes) for z in (panel, corner))
                kernel.multiply(count, kernel.width, before, kernel.width, b, wide, c, wide)
            with f.loop(0, count) as Q:
                row = f.add(R.i, Q.i)
                gates = kernel.at(x, f.mul(kernel.row(T.i, row), GATES), unit)
                sums = kernel.at(corner, f.mul(Q.i, wide))
                here = f.add(kernel.row(f.add(T.i, 1), row), unit)
                old = plane(1, kernel.row(T.i, row), unit)
                a = []
                for g in range(GATES):
                    given = kernel.load(kernel.at(gates, f.mul(kernel.width, g)), mask)
                    product = f.load(tile.type, kernel.at(sums, g * tile.lanes))
                    a.append(f.op("fadd", given, product))
                i, fade, g, o = (kernel.tanh(v) if n == 2 else kernel.sigmoid(v)
                                 for n, v in enumerate(a))  # fmt: skip
                kept = f.op("fmul", fade, kernel.load(old, mask))
                c = f.op("fadd", kept, f.op("fmul", i, g))
                h = f.op("fmul", o, kernel.tanh(c))
                kernel.store(h, plane(0, here), mask)
                kernel.store(c, plane(1, here), mask)
                with f.iff(more):
                    for p, value in enumerate((i, fade, g, o), start=2):
                        kernel.store(value, plane(p, here), mask)
    f.ret()


def _emit_pack_gradient(m: Module, tile: Tile) -> None:
    """Panel p, row k: w's row k, of the units of panel p."""
    kernel = _Kernel(m, "pack_gradient", tile, 4)
    f, w = kernel.f, kernel.ins[3]
    deep = f.mul(kernel.width, GATES)
    first, last = f.split(f.mul(kernel.panels, deep))
    with f.loop(first, last) as I:
        panel, k = f.div(I.i, deep), f.rem(I.i, deep)
        unit = f.mul(panel, tile.columns)
        to = kernel.at(kernel.scratch, f.mul(I.i, tile.columns))
        for v in range(0, tile.columns, tile.lanes):
            mask = kernel.mask(f.add(unit, v))
            value = kernel.load(kernel.at(w, f.mul(k, kernel.width), unit, v), mask)
            f.store(value, kernel.at(to, v))
    f.ret()


def _emit_gradient(m: Module, tile: Tile) -> None:
    kernel = _Kernel(m, "gradient", tile, 4)
    f, (dh, dc_given, y, _), out = kernel.f, kernel.ins, kernel.out
    math, width = kernel.math, kernel.width
    deep = f.mul(width, GATES)
    dh_later = f.gep(kernel.scratch, kernel.rest_at)  # from the step after
    dc_later = kernel.at(dh_later, f.mul(kernel.rows, kernel.padded))
    low, high = f.split(kernel.rows)

    every = f.icmp("ne", kernel.more, 0)

    def spare(base: Value, row: Operand, unit: Operand) -> Value:
        return kernel.at(base, f.mul(row, kernel.padded), unit)

    with f.loop(low, high) as R, f.loop(0, width, tile.lanes) as U:
        mask = kernel.mask(U.i)
        # of the last step: the only one, unless there is one a step
        last = f.select(every, f.sub(kernel.steps, 1), 0)
        value = kernel.load(kernel.at(dc_given, kernel.row(last, R.i), U.i), mask)
        f.store(value, spare(dc_later, R.i, U.i))
        f.store(zero(tile.type), spare(dh_later, R.i, U.i))
    with f.loop(0, kernel.steps) as back:
        step = f.sub(f.sub(kernel.steps, 1), back.i)
        after = f.add(step, 1)
        with f.loop(low, high) as R, f.loop(0, width, tile.lanes) as U:
            mask = kernel.mask(U.i)
            here = f.add(kernel.row(after, R.i), U.i)
            c, i, fade, g, o = (
                kernel.load(kernel.at(y, f.mul(kernel.plane, p), here), mask)
                for p in range(1, PLANES)
            )
            old = kernel.load(kernel.at(y, kernel.plane, kernel.row(step, R.i), U.i), mask)
            given = kernel.load(kernel.at(dh, kernel.row(step, R.i), U.i), mask)
            dh_at, dc_at = spare(dh_later, R.i, U.i), spare(dc_later, R.i, U.i)
            t = kernel.tanh(c)
            dh_ = math.add(given, f.load(tile.type, dh_at))
            through = math.mul(math.mul(dh_, o), math.sub(1.0, math.mul(t, t)))
            dc = math.add(f.load(tile.type, dc_at), through)
            da = (
                math.mul(math.mul(dc, g), math.mul(i, math.sub(1.0, i))),
                math.mul(math.mul(dc, old), math.mul(fade, math.sub(1.0, fade))),
                math.mul(math.mul(dc, i), math.sub(1.0, math.mul(g, g))),
                math.mul(math.mul(dh_, t), math.mul(o, math.sub(1.0, o))),
            )
            f.store(math.mul(dc, fade), dc_at)
            with f.iff(f.op("and", every, f.icmp("sgt", step, 0))):
                place = kernel.at(dc_given, kernel.row(f.sub(step, 1), R.i), U.i)
                more = math.add(f.load(tile.type, dc_at), kernel.load(place, mask))
                f.store(more, dc_at)
            to = kernel.at(out, f.mul(kernel.row(after, R.i), GATES), U.i)
            for gate, value in enumerate(da):
                kernel.store(value, kernel.at(to, f.mul(width, gate)), mask)
        with f.loop(0, kernel.panels) as P:
            panel = kernel.at(kernel.scratch, f.mul(f.mul(P.i, deep), tile.columns))
            unit = f.mul(P.i, tile.columns)
            with f.loop(low, high, tile.rows) as R:
                count = f.min(f.sub(high, R.i), tile.rows)
                a = kernel.at(out, f.mul(kernel.row(after, R.i), GATES))
                c = spare(dh_later, R.i, unit)
                kernel.multiply(count, deep, a, deep, panel, tile.columns, c, kernel.padded)
    with f.loop(low, high) as R, f.loop(0, width, tile.lanes) as U:
        mask = kernel.mask(U.i)
        to = kernel.at(out, f.mul(kernel.row(0, R.i), GATES), U.i)
        sources: Sequence[Value | None] = (dh_later, dc_later, None, None)
        for gate, source in enumerate(sources):
            value = zero(tile.type)
            if source is not None:
                value = f.load(tile.type, spare(source, R.i, U.i))
            kernel.store(f.typed(value, tile.type), kernel.at(to, f.mul(width, gate)), mask)
    f.ret()
