"""Batches of products so small that each is a few tiles: nothing is packed, merged or asked for.

    out[g, m, n] = sum over k of a[g, m, k] * b[g, k, n], n at most two vectors, k at most KC

The columns of b are adjacent; the last vector goes under a mask. A tile's rows beyond the last one
are the last one again, with the same sums. The bits are those of `gemm_code`: one accumulator an
element, in increasing k.
"""

from collections.abc import Sequence
from functools import cache

from weft.kernels.schedule.gemm_code import batch_offsets, multiply_add
from weft.kernels.schedule.tile import KC, Tile, tile_for
from weft.kernels.target.llvm import Function, Module, Operand, zero
from weft.runtime import native
from weft.runtime.native import Launch, Stage

_HEAD = ("m", "n", "k", "a_rs", "a_cs", "b_rs", "ldc", "batches", "group", "dims")
_TILES = ((1, 4), (1, 8), (2, 6))  # vectors and rows: eight sums keep both multipliers busy
_GROUP_WORK = 1 << 16  # multiplications of a unit


def fits(sizes: tuple[int, int, int], b_class: str, element: str) -> bool:
    """Whether products of this size (m, n, k) go so: where masks cost nothing."""
    _, n, k = sizes
    wide = native.host().vector_bits == 512
    return wide and b_class == "rows" and n <= 2 * tile_for(element).lanes and 0 < k <= KC


def plan_batch(
    sizes: tuple[int, int, int], a_strides: tuple[int, int], b_step: int, ldc: int, element: str,
    batch: Sequence[tuple[int, int, int, int]], *, parallel: bool, awake: bool, quick: bool,
) -> Launch:  # fmt: skip
    """The products; numbers as of `gemm_code.gemm_ints`."""
    m, n, k = sizes
    batches = 1
    for size, *_ in batch:
        batches *= size
    group = max(_GROUP_WORK // (m * n * k), 1)
    head = (m, n, k, *a_strides, b_step, ldc, batches, group, len(batch))
    ints = (*head, *(word for row in batch for word in row))
    return Launch((Stage(_kernel(element), parallel, awake=awake),), ints, quick=quick)


@cache
def _kernel(element: str) -> int:
    module = Module(native.host().vector_bits)
    f = module.kernel("batch")
    _emit(f, tile_for(element))
    return native.load(module.text(), ["batch"])["batch"]


def _emit(f: Function, tile: Tile) -> None:
    element, lanes, type = tile.element, tile.lanes, tile.type
    out, a, b = f.words("%args", 2, ["ptr"] * 3)
    h = dict(zip(_HEAD, f.words("%args", 6, ["i64"] * len(_HEAD)), strict=True))
    dims = f.gep("%args", 6 + len(_HEAD), "i64")
    one = f.icmp("sle", h["n"], lanes)
    kind = f.select(one, f.select(f.icmp("sle", h["m"], 4), 0, 1), 2)
    last = f.lane_mask(f.sub(h["n"], f.select(one, 0, lanes)), lanes)
    with f.units(f.div(f.add(h["batches"], f.sub(h["group"], 1)), h["group"])) as unit:
        start = f.mul(unit, h["group"])
        with f.loop(start, f.min(f.add(start, h["group"]), h["batches"])) as item:
            offsets = batch_offsets(f, dims, h["dims"], item.i)
            places = [f.gep(p, at, element) for p, at in zip((a, b, out), offsets, strict=True)]
            for case in f.switch(kind, range(len(_TILES) - 1), len(_TILES) - 1):
                vectors, rows = _TILES[case]
                with f.loop(0, h["m"], rows) as L:
                    own = [f.min(f.add(L.i, r), f.sub(h["m"], 1)) for r in range(rows)]
                    at = [f.mul(h["a_rs"], r) for r in own]
                    carry = [("ptr", places[0]), ("ptr", places[1])]
                    carry += [(type, zero(type))] * (rows * vectors)
                    with f.loop(0, h["k"], 1, carry) as K:
                        left, right, *sums = K.carry
                        whole = [f.load(type, right)] * (vectors - 1)
                        end = f.gep(right, (vectors - 1) * lanes, element)
                        columns = [*whole, f.masked_load(type, end, last)]
                        new: list[Operand] = []
                        for r in range(rows):
                            x = f.splat(f.load(element, f.gep(left, at[r], element)), type)
                            old = sums[r * vectors : (r + 1) * vectors]
                            new += [
                                multiply_add(f, tile, x, y, s)
                                for y, s in zip(columns, old, strict=True)
                            ]
                        left, right = (
                            f.gep(p, h[by], element) for p, by in ((left, "a_cs"), (right, "b_rs"))
                        )
                        K.next = [left, right, *new]
                    for r in range(rows):
                        row = f.gep(places[2], f.mul(own[r], h["ldc"]), element)
                        *most, rest = K.carry[2 + r * vectors : 2 + (r + 1) * vectors]
                        for value in most:
                            f.store(value, row)
                        f.masked_store(rest, f.gep(row, (vectors - 1) * lanes, element), last)
    f.ret()
