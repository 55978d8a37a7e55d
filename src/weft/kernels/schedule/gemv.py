"""One row times a matrix, without packing: out[g, n] = sum over k of a[g, k] * b[g, k, n].

The numbers are those of `gemm_code`: lanes are columns of out, k runs in order inside blocks of KC.
A unit of columns that would end beyond the last column starts earlier instead: some columns are
then computed twice, to the same bits.
"""

from functools import cache

from weft.kernels.schedule.gemm_code import (
    batch_offsets,
    multiply_add,
    transpose,
)
from weft.kernels.schedule.tile import KC, Tile, tile_for
from weft.kernels.target.llvm import BYTES, Function, Module, Operand, Value, vector, zero
from weft.runtime import native
from weft.runtime.native import Launch, Stage

_HEAD = 7
_LINES = 4  # cache lines to prefetch along a column: more streams than the hardware follows
_AHEAD = 4  # rows of B to prefetch: the hardware does not follow rows that lie pages apart


def vectors_of(b_class: str, tile: Tile) -> int:
    """Vectors of out in a unit. Columns: one, since those of a large B often fall into the same
    cache sets, and two vectors' worth would push each other out.
    """
    return 4 * tile.vectors if b_class == "rows" else 1


def gemv_fits(n: int, b_class: str, element: str) -> bool:
    """Whether there are enough columns for a unit, and B's strides suit."""
    tile = tile_for(element)
    return b_class != "any" and n >= vectors_of(b_class, tile) * tile.lanes


def plan_gemv(
    sizes: tuple[int, int],
    a_step: int,
    b_step: int,
    b_class: str,
    element: str,
    batch: list[tuple[int, int, int, int]],
    *,
    parallel: bool,
    quick: bool,
) -> Launch:
    """The launch for sizes (N, K); `b_step` is the stride of B that is not 1."""
    batches = 1
    for size, *_ in batch:
        batches *= size
    dims = [word for dim in batch for word in dim]
    ints = (*sizes, a_step, b_step, batches, len(batch), 0, *dims)
    return Launch((Stage(_kernel(element, b_class), parallel),), ints, quick=quick)


@cache
def _kernel(element: str, b_class: str) -> int:
    host = native.host()
    tile = tile_for(element)
    module = Module(host.vector_bits)
    _emit(module, tile, vectors_of(b_class, tile), b_class)
    return native.load(module.text(), ["gemv"])["gemv"]


def _emit(module: Module, tile: Tile, vectors: int, b_class: str) -> None:
    element, width = tile.element, vectors * tile.lanes
    f = module.kernel("gemv")
    out, a, b = f.words("%args", 2, ["ptr"] * 3)
    n, k, a_step, b_step, batches, count, _ = f.words("%args", 6, ["i64"] * _HEAD)
    dims = f.gep("%args", 6 + _HEAD, "i64")
    totals = f.alloca(tile.type, vectors)
    units = f.div(f.add(n, width - 1), width)
    first, last = f.split(f.mul(batches, units))
    with f.loop(first, last) as unit:
        a_at, b_at, out_at = batch_offsets(f, dims, count, f.div(unit.i, units))
        n0 = f.min(f.mul(f.rem(unit.i, units), width), f.sub(n, width))
        a_row = f.gep(a, a_at, element)
        b_batch = f.gep(b, b_at, element)
        for v in range(vectors):
            f.store(zero(tile.type), f.gep(totals, v, tile.type))
        with f.loop(0, k, KC) as block:
            stop = f.min(f.add(block.i, KC), k)
            body = _rows if b_class == "rows" else _columns
            sums = body(f, tile, vectors, (a_row, a_step), (b_batch, b_step), (block.i, stop), n0)
            fresh = f.icmp("eq", block.i, 0)
            for v, value in enumerate(sums):
                place = f.gep(totals, v, tile.type)
                total = f.op("fadd", f.load(tile.type, place), value)
                f.store(f.select(fresh, value, total), place)
        target = f.gep(out, f.add(out_at, n0), element)
        for v in range(vectors):
            value = f.load(tile.type, f.gep(totals, v, tile.type))
            f.store(value, f.gep(target, v * tile.lanes, element))
    f.ret()


def _prefetch(f: Function, place: Value) -> None:
    f.intrinsic("prefetch", "void", place, *(Value(t, "i32") for t in ("0", "2", "1")))


_Strided = tuple[Operand, Operand]


def _rows(
    f: Function, tile: Tile, vectors: int, a: _Strided, b: _Strided, k: _Strided, n0: Operand
) -> list[Value]:
    """Sums over k of one block, B's columns adjacent: a wide piece of a row of B for each k."""
    element = tile.element
    start = f.gep(b[0], f.add(f.mul(k[0], b[1]), n0), element)
    ahead = f.mul(b[1], _AHEAD)
    carry = [("ptr", start), *[(tile.type, zero(tile.type))] * vectors]
    line = 64 // BYTES[element]
    with f.loop(*k, 1, carry) as L:
        row, *sums = L.carry
        for at in range(0, vectors * tile.lanes, line):
            place = f.gep(row, f.add(ahead, at), element)
            _prefetch(f, place)
        one = f.splat(f.load(element, f.gep(a[0], f.mul(L.i, a[1]), element)), tile.type)
        for v in range(vectors):
            value = f.load(tile.type, f.gep(row, v * tile.lanes, element))
            sums[v] = multiply_add(f, tile, one, value, sums[v])
        L.next = [f.gep(row, b[1], element), *sums]
    return L.carry[1:]


def _columns(
    f: Function, tile: Tile, vectors: int, a: _Strided, b: _Strided, k: _Strided, n0: Operand
) -> list[Value]:
    """Sums over k of one block, B's rows adjacent: squares are turned in registers."""
    element, lanes, half = tile.element, tile.lanes, tile.lanes // 2
    whole = f.add(k[0], f.mul(f.div(f.sub(k[1], k[0]), lanes), lanes))
    starts = [f.gep(b[0], f.mul(f.add(n0, v * lanes), b[1]), element) for v in range(vectors)]
    part = vector(half, element)
    column = [f.mul(b[1], j) for j in range(lanes)]

    def scalar(at: Operand) -> Value:
        return f.splat(f.load(element, f.gep(a[0], f.mul(at, a[1]), element)), tile.type)

    with f.loop(k[0], whole, lanes, [(tile.type, zero(tile.type))] * vectors) as L:
        sums = list(L.carry)
        for v, start in enumerate(starts):
            at = [f.gep(f.gep(start, c, element), L.i, element) for c in column]
            for place in at:
                _prefetch(f, f.gep(place, _LINES * 64 // BYTES[element], element))
            if half == 1:
                turned = transpose(f, [f.load(tile.type, place) for place in at])
            else:  # the round that swaps halves is done by loads of halves
                rows = [
                    f.shuffle(f.load(part, f.gep(at[i], s, element)),
                              f.load(part, f.gep(at[i + half], s, element)), range(lanes))
                    for s in (0, half) for i in range(half)
                ]  # fmt: skip
                turned = transpose(f, rows, rounds_to=half)
            for i, value in enumerate(turned):
                sums[v] = multiply_add(f, tile, scalar(f.add(L.i, i)), value, sums[v])
        L.next = list(sums)
    # The last columns of a block that is not whole: one lane at a time.
    with f.loop(whole, k[1], 1, [(tile.type, s) for s in L.carry]) as rest:
        one = scalar(rest.i)
        for v, start in enumerate(starts):
            value = Value("poison", tile.type)
            for j in range(lanes):
                place = f.gep(f.gep(start, column[j], element), rest.i, element)
                value = f.insert(value, f.load(element, place), j)
            rest.next[v] = multiply_add(f, tile, one, value, rest.carry[v])
    return rest.carry
