"""Plans of matrix products; `gemm_code` makes the code and says what the numbers are.

Long because products of floats, pairs and halves share one form of a problem.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from math import prod

import numpy as np

from weft.core import dtype as D
from weft.core import scalar as S
from weft.kernels.choices import choose
from weft.kernels.layout import Layout
from weft.kernels.packed import Packed
from weft.kernels.schedule import gemm_bf16, gemm_code, gemm_plain, gemm_tiles, gemv
from weft.kernels.schedule.amx import multiplies_pairs_in_tiles
from weft.kernels.schedule.epilogue import (
    Epilogue,
    ends_among,
    ends_in_registers,
    epilogue_ints,
    near_arrays,
)
from weft.kernels.schedule.gemm_code import Near
from weft.kernels.schedule.gemm_micro import SLICE
from weft.kernels.schedule.nest import joined
from weft.kernels.schedule.tile import KC, Tile, multiplies_pairs, tile_for, up
from weft.kernels.target.llvm import FLOAT_TYPES, INT_TYPES, Module
from weft.runtime import native
from weft.runtime.native import Launch, Stage

# In multiplications. Below about 10 us of one core, waking workers costs more than it saves;
# those that are awake share what takes 1 us.
PARALLEL_FROM = 1 << 19
_AWAKE_FROM = 1 << 17
_ROW_PARALLEL_FROM = 1 << 17  # of one row: bytes bound it, 4 a multiplication
_WORDS_PARALLEL_FROM = 1 << 18  # of few rows in tile registers, 2 bytes a multiplication of one
_WORDS_AWAKE_FROM = 1 << 16
_QUICK_BELOW = 1 << 15
PAIRS_FROM = 8  # rows
_SUMS = np.dtype(np.float32)
_MOST_FINISHED = 512  # terms: beyond, storing sums to read them again is 3 % at most
_FEW_PANELS = 8  # of a product whose last panel is worth code of its own width
_IN_PLACE = 22  # tiles of rows: up to then packing b costs more than its rows, apart as they lie
# where a core that multiplies twice a cycle has them from the last cache, or more bytes apart than
_IN_PLACE_FAR, _FAR_APART = 4, 8192
_SLICED_FROM, _SLICED_TO = 1, 2048  # panels; terms
_SLICES_FAR, _PANELS = 4 << 20, 8  # bytes of an A; panels of B that its slices then meet
_SAME_SETS = 4096  # bytes: rows so far apart share a few sets of each cache
_MOST_PACKED = 2048  # rows beside which packing b is below 1 %
_TILES = 8  # of rows, which ask for a panel with two runs of lines
_MOST_RUNS = 6
_FAR_WEIGHTS = 1 << 20  # bytes of them that the second cache holds from call to call
_FEW_COLUMNS = 256  # beside which a copy of a, whose rows' lines share sets of a cache, costs more
_PACKERS = {
    "rows": gemm_code.pack_rows,
    "columns": gemm_code.pack_columns,
    "any": gemm_code.pack_any,
}


def plan_matmul(
    a: Layout, b: Layout, out: Layout, epilogue: Epilogue | None = None, *, swapped: bool = False,
    fast: bool = False,
) -> Launch:  # fmt: skip
    """out[..., m, n] = sum over k of a[..., m, k] * b[..., k, n]; launch it with ins (a, b).

    `swapped` (float32 and float64 only): with ins (b, a). `fast`: float32 may be rounded to
    bfloat16 before it is multiplied. With an epilogue its first result goes to
    `out`, its inputs follow: (a, b, *further outputs, *operands).

    Shapes: a (*batch, M, K), b (*batch, K, N), out (*batch, M, N) with the same batch dims (expand
    them: stride 0), any strides of a and b; out's columns adjacent. One dtype: float32 and float64
    are fast; float16 and bfloat16 accumulate in float32; integers wrap; bool is not a number here.
    K = 0 gives zeros. Raises ValueError when shapes or dtypes differ, or the epilogue does not fit
    (it wants float32 or float64, and one matrix: no batch dims but those that are more rows).
    """
    _check(a, b, out)
    if out.size == 0:
        return Launch(())
    work = out.size * max(a.shape[-1], 1)
    parallel = _shared(work, PARALLEL_FROM)
    name = a.dtype.name
    if (name == "bfloat16" and multiplies_pairs()) or (fast and _pairs(a)):
        return _plan_words(a, b, out, parallel, epilogue)
    if epilogue is not None and name not in ("float32", "float64"):
        raise ValueError(f"matmul: no epilogue on products of {name}")
    if name in gemm_plain.HALVES:
        return _plan_halves(a, b, out, parallel)
    if name not in FLOAT_TYPES:
        return gemm_plain.plan_integers(a, b, out, parallel=parallel)
    problem = _normalise(a, b, out)
    element, quick = FLOAT_TYPES[name], work < _QUICK_BELOW
    rows, n, k = problem.sizes
    own, more = _ending(problem, out, epilogue)
    if rows == 1 and not swapped and gemv.gemv_fits(n, problem.b_class, element):
        b_step = problem.b_strides[0 if problem.b_class == "rows" else 1]
        return gemv.plan_gemv(
            (n, k), problem.a_strides[1], b_step, problem.b_class, element, problem.batch,
            parallel=_shared(work, _ROW_PARALLEL_FROM), quick=quick, epilogue=own, more=more,
        )  # fmt: skip
    a_class = problem.slices or problem.a_class
    kernels, tile = _kernels(element, a_class, problem.b_class, _widths(n, element))
    awake = _is_light(problem, tile)
    if problem.batch and not swapped and gemv.batch_fits(problem.sizes, problem.b_class, element):
        return gemv.plan_batch(
            problem.sizes, problem.a_strides, problem.b_strides[0], problem.ldc, element,
            problem.batch, parallel=parallel, awake=awake, quick=quick,
        )  # fmt: skip
    finish = _finish(problem, tile, epilogue)
    return Launch(
        (Stage(kernels[more], parallel, awake=awake),),
        problem.ints(tile, epilogue=own, near=_near(epilogue), finish=finish, swapped=swapped),
        scratch_per_thread=problem.scratch_per_thread(tile),
        quick=quick,
    )


def plan_matmul_packed(
    a: Layout, b: Layout, out: Layout, epilogue: Epilogue | None = None, *, fast: bool = False
) -> Packed | None:
    """`plan_matmul` of a b that was packed before; None where that would gain nothing: beside many
    rows packing is nothing.
    """
    if not out.size:
        return None
    if a.dtype.name == "bfloat16" and multiplies_pairs():
        return _pack_words(a, b, out, epilogue)
    if a.dtype.name in gemm_plain.HALVES:
        return _pack_halves(a, b, out)
    if a.dtype.name not in ("float32", "float64"):
        return None
    if fast and _pairs(a):
        return _pack_words(a, b, out, epilogue)
    problem, element = _normalise(a, b, out), FLOAT_TYPES[a.dtype.name]
    rows, n, k = problem.sizes
    if rows > _MOST_PACKED or k < 2 or any(step for _, _, step, _ in problem.batch):
        return None
    own, more = _ending(problem, out, epilogue)
    if rows == 1 and not problem.batch:
        return _packed_row(problem, element, own, more)
    a_class = problem.slices or problem.a_class
    runs = _runs(rows, n * k * a.dtype.itemsize, tile_for(element))
    kernels, tile = _kernels(element, a_class, "rows", _widths(n, element), runs=runs)
    work = out.size * k
    finish = _finish(problem, tile, epilogue)
    launch = Launch(
        (Stage(kernels[more], work >= PARALLEL_FROM, awake=_is_light(problem, tile)),),
        problem.packed(tile).ints(tile, epilogue=own, near=_near(epilogue), finish=finish),
        scratch_per_thread=problem.scratch_per_thread(tile),
        quick=work < _QUICK_BELOW,
    )
    pack = Launch((Stage(_packer(element, problem.b_class), parallel=True),), problem.ints(tile))
    size = up(n, tile.columns) * k * tile.itemsize
    return Packed(pack, size, launch, ("gemm", element))


def plan_beside(
    a: Layout, b: Layout, out: Layout | None, code: int, table: Sequence[int], *, swapped: bool
) -> Launch:
    """a b of float32 or float64 in scratch, rows and matrices one after another, and a stage that
    goes on with it; or to `out`, behind a stage that makes b's matrices, as packed panels. Its
    table, where word 2 (1) of the `extra` ones says, begins with their offset in scratch.
    """
    what = "c" if out is None else "b"
    out = out or Layout.contiguous((*a.shape[:-1], b.shape[-1]), a.dtype)
    problem, element, numbers = _normalise(a, b, out), FLOAT_TYPES[a.dtype.name], out.size
    widths, a_class = _widths(out.shape[-1], element), problem.slices or problem.a_class
    b_class = "rows" if what == "b" else problem.b_class
    (kernel,), tile = _kernels(element, a_class, b_class, widths, what)
    stages = [Stage(c, _shared(out.size * a.shape[-1], PARALLEL_FROM)) for c in (kernel, code)]
    if what == "b":
        problem, stages = problem.packed(tile), stages[::-1]
        numbers = prod(b.shape[:-1]) * up(b.shape[-1], tile.columns)
    shared = up(numbers * tile.itemsize)
    word = 4 + 2 + len(problem.ints(tile, (0, 0, 0, 0)))
    extra = [word if n == what else 0 for n in "abc"]
    ints = (*problem.ints(tile, (*extra, shared), swapped=swapped), 0, *table)
    return Launch(tuple(stages), ints, shared, problem.scratch_per_thread(tile))


def _packed_row(
    problem: "_Problem", element: str, own: tuple[int, ...], more: int, form: str = "panels"
) -> Packed:
    """One row times panels, as they are or `short`."""
    _, n, k = problem.sizes
    tile = tile_for(element)
    launch = gemv.plan_gemv_panels(
        (n, k), problem.a_strides[1], element, parallel=n * k >= _ROW_PARALLEL_FROM,
        epilogue=own, more=more, form=form,
    )  # fmt: skip
    codes = [_packer(element, problem.b_class)]
    size = up(n, tile.columns) * k * tile.itemsize
    kind, shorter = ("gemm", element), None
    if form == "short":
        codes.append(gemv.shorten())
        size += up(n, tile.columns) // tile.columns * (k // gemv.group_rows(tile))
        kind = (*kind, form)
    elif element == "float" and k % gemv.group_rows(tile) == 0:
        shorter = partial(_packed_row, problem, element, own, more, "short")
    pack = Launch(tuple(Stage(c, parallel=True) for c in codes), problem.ints(tile))
    return Packed(pack, size, launch, kind, spare=True, shorter=shorter)


def is_one_block(k: int) -> bool:
    """Whether sums over so many products are one block: with an epilogue, none of them then lies in
    the result's memory, which may be an operand's of the epilogue.
    """
    return k <= KC


def _shared(work: int, least: int) -> bool:
    """Whether threads share a product of so many multiplications."""
    model = int(work >= least)
    return bool(choose("share", model, 1 - model) if least // 8 <= work < 8 * least else model)


def _is_light(problem: "_Problem", tile: Tile) -> bool:
    """Whether threads that are awake share a product that none is woken for."""
    rows, n, k = problem.sizes
    batches = prod(size for size, *_ in problem.batch)
    return batches * rows * up(n, tile.lanes) * k >= _AWAKE_FROM


def _ending(
    problem: "_Problem", out: Layout, epilogue: Epilogue | None
) -> tuple[tuple[int, ...], int]:
    """An epilogue's address and ints, and the number of its own pointers."""
    if epilogue is None:
        return (), 0
    rows, n, _ = problem.sizes
    more = len(epilogue.ins) + len(epilogue.outs) - 1
    if problem.batch or more > gemm_code.MAX_INPUTS - 2 or rows * n != out.size:
        raise ValueError("matmul: an epilogue over a batch, or with too many operands")
    return epilogue_ints(epilogue, rows, n), more


def _runs(rows: int, size: int, tile: Tile) -> int:
    """The runs in which few tiles of rows ask for all lines of the next packed panel, where weights
    of so many bytes come from memory.
    """
    few = 2 * tile.rows <= rows < _TILES * tile.rows  # tiles of four rows and fewer ask for nothing
    if not few or size <= _FAR_WEIGHTS or not native.host().multiplies_twice:
        return 2
    tiles = -(-rows // tile.rows)
    return min(max(2, -(-2 * _TILES // tiles)), _MOST_RUNS)


def _near(epilogue: Epilogue | None) -> Near:
    return near_arrays(epilogue) if epilogue is not None else ((), 0)


def _finish(problem: "_Problem", tile: Tile, epilogue: Epilogue | None) -> int:
    """The address of the micro-kernel that ends with the epilogue, where sums of few terms make
    storing them and reading them again dear; else 0.
    """
    rows, n, k = problem.sizes
    fits = (
        problem.a_class == "rows"
        and rows >= tile.rows
        and n >= tile.columns
        and k <= _MOST_FINISHED
    )
    if epilogue is None or not fits or not ends_in_registers(epilogue):
        return 0
    return epilogue_ints(epilogue, rows, n, finish="registers")[0]


@dataclass(frozen=True)
class _Problem:
    """A product in the kernel's form: sizes (M, N, K), batch dims (size, strides of a, b, out)."""

    sizes: tuple[int, int, int]
    a_strides: tuple[int, int]
    b_strides: tuple[int, int]
    ldc: int
    batch: list[tuple[int, ...]]
    direct: int = 0  # K where B lies in packed panels

    @property
    def a_class(self) -> str:
        return _adjacent(self.a_strides)

    @property
    def b_class(self) -> str:
        return _adjacent(self.b_strides)

    @property
    def slices(self) -> str:
        """The class of an a that is copied to slices, else "": it lies across, so that each step of
        a tile's k is a line of another page.
        """
        (m, n, k), panel = self.sizes, tile_for("float").columns
        many = m >= SLICE and n >= _SLICED_FROM * panel and k <= _SLICED_TO
        fits = many and not self.batch and self.a_class == "columns"
        return "sliced" if fits and native.host().multiplies_twice else ""

    def scratch_per_thread(self, tile: Tile) -> int:
        return tile.scratch_per_thread + self._room(tile)[-1]

    def _room(self, tile: Tile) -> tuple[int, int, int, int]:
        """A group of tiles meets several panels of B where an A that is sliced is large."""
        m, n, k = self.sizes
        far = m * k * tile.itemsize > _SLICES_FAR or n <= tile.columns
        most = _PANELS if tile.a_class == "sliced" and far else 1
        return gemm_code.rooms(tile, self.sizes, most)

    def packed(self, tile: Tile) -> "_Problem":
        """The same, where B lies in packed panels."""
        m, _, k = self.sizes
        return replace(self, b_strides=(tile.columns, k), direct=k)

    def _in_place(self, tile: Tile) -> int:
        """Tiles of rows that read B's rows as they lie."""
        if not native.host().multiplies_twice:
            return _IN_PLACE
        pitch = self.b_strides[0] * tile.itemsize
        if pitch % _SAME_SETS == 0:
            return 1
        far = pitch > _FAR_APART or self.sizes[2] * pitch > gemm_code.NEAR
        return _IN_PLACE_FAR if far else _IN_PLACE

    def ints(
        self, tile: Tile, extra: Sequence[int] = (), epilogue: Sequence[int] = (), *,
        near: Near = ((), 0), finish: int = 0, swapped: bool = False,
    ) -> tuple[int, ...]:  # fmt: skip
        """Rows that are not many read B in place: packing it would cost more than it saves. So do
        all where it lies as a panel.
        """
        direct, (rows, n, _) = self.direct, self.sizes
        if self.b_class == "rows" and not direct:
            few = int(rows <= self._in_place(tile) * tile.rows)
            direct = choose("in place", few, 1 - few) if rows <= 2 * _IN_PLACE * tile.rows else few
            direct |= int(self.b_strides[0] == n <= tile.columns)
        return gemm_code.gemm_ints(
            self.sizes, self.a_strides, self.b_strides, self.ldc, self.batch, extra, direct=direct,
            epilogue=epilogue, near=near, finish=finish, swapped=swapped, room=self._room(tile),
        )  # fmt: skip


def _adjacent(strides: tuple[int, int]) -> str:
    """Whether the elements of rows, of columns, or of neither are adjacent."""
    row, column = strides
    return "rows" if column == 1 else "columns" if row == 1 else "any"


def _normalise(a: Layout, b: Layout, out: Layout) -> _Problem:
    (m, k), n = a.shape[-2:], b.shape[-1]
    strides = zip(a.shape[:-2], a.strides[:-2], b.strides[:-2], out.strides[:-2], strict=True)
    batch = joined(strides)
    a_rs, a_cs = _matrix_strides(a) if k > 1 else (a.strides[-2], 1)
    ldc = out.strides[-2] if m > 1 else n
    # One B for a whole batch: its rows are more rows of one product.
    while batch and batch[-1][2] == 0:
        size, a_stride, _, c_stride = batch[-1]
        if m == 1:
            a_rs, ldc = a_stride, c_stride
        elif a_stride != m * a_rs or c_stride != m * ldc:
            break
        batch.pop()
        m *= size
    return _Problem((m, n, k), (a_rs, a_cs), _matrix_strides(b), ldc, batch)


def _pairs(a: Layout) -> bool:
    """Whether a product of float32 gains by rounding its operands: a few rows are bound by the
    bytes of b. It depends on the shape of a alone: the columns of b do not change a row's bits.
    """
    many = a.dtype.name == "float32" and a.shape[-2] >= PAIRS_FROM and a.shape[-1] > 1
    return many and multiplies_pairs()


def _plan_words(
    a: Layout, b: Layout, out: Layout, parallel: bool, epilogue: Epilogue | None = None
) -> Launch:
    """A product of words of two bfloat16; its sums go to out as they are, or are narrowed."""
    if multiplies_pairs_in_tiles():
        return _tiles(a, b, out, parallel, epilogue)
    narrow = out.dtype != _SUMS
    source = "i16" if narrow else "float"
    (wide_a, weave_a), (wide_b, weave_b) = gemm_bf16.words_of(a, -1), gemm_bf16.words_of(b, -2)
    problem = _normalise(wide_a, wide_b, Layout.contiguous(out.shape, _SUMS) if narrow else out)
    if narrow:
        epilogue = epilogue or _rounding(problem, out)
    own, more = _ending(problem, out, epilogue)
    places = "abc" if narrow else "ab"
    found, tile = gemm_bf16.products(problem.a_class, problem.b_class, places)
    size_a, size_b = (gemm_bf16.size_of(words) for words in (wide_a, wide_b))
    tables = [
        gemm_bf16.descriptor(a, -1, wide_a, 0),
        gemm_bf16.descriptor(b, -2, wide_b, size_a),
    ]
    codes = [
        gemm_bf16.stage(0, 2 + more, source, woven=weave_a),
        gemm_bf16.stage(1, 2 + more, source, woven=weave_b),
        found[more],
    ]
    shared = size_a + size_b
    if narrow:
        tables.append(gemm_plain.descriptor(out, shared))
        codes += [gemm_bf16.stage(2, 2, source, woven=False)] if epilogue is None else []
        shared += up(out.size * 4)
    ints = _with_tables(problem, tile, 2 + more, tables, shared, own)
    return Launch(
        tuple(Stage(c, parallel) for c in codes), ints, shared, problem.scratch_per_thread(tile)
    )


def _pack_words(a: Layout, b: Layout, out: Layout, epilogue: Epilogue | None) -> Packed | None:
    """`_plan_words` whose b was made words, in panels, before."""
    if multiplies_pairs_in_tiles():
        return _pack_tiles(a, b, out, epilogue)
    narrow = out.dtype != _SUMS
    source, sums = ("i16", Layout.contiguous(out.shape, _SUMS)) if narrow else ("float", out)
    (wide_a, weave_a), (wide_b, weave_b) = gemm_bf16.words_of(a, -1), gemm_bf16.words_of(b, -2)
    problem = _normalise(wide_a, wide_b, sums)
    _, n, k = problem.sizes
    if any(step for _, _, step, _ in problem.batch):
        return None
    if narrow:
        epilogue = epilogue or _rounding(problem, out)
    own, more = _ending(problem, out, epilogue)
    found, tile = gemm_bf16.products(problem.a_class, "rows", "ac" if narrow else "a")
    shared, bytes_b = gemm_bf16.size_of(wide_a), gemm_bf16.size_of(wide_b)
    tables = [gemm_bf16.descriptor(a, -1, wide_a, 0)]
    codes = [gemm_bf16.stage(0, 2 + more, source, woven=weave_a), found[more]]
    if narrow:
        tables += [[], gemm_plain.descriptor(out, shared)]
        codes += [gemm_bf16.stage(2, 2, source, woven=False)] if epilogue is None else []
        shared += up(out.size * 4)
    ints = _with_tables(problem.packed(tile), tile, 2 + more, tables, shared, own)
    parallel = out.size * a.shape[-1] >= PARALLEL_FROM
    launch = Launch(
        tuple(Stage(c, parallel) for c in codes), ints, shared, problem.scratch_per_thread(tile)
    )
    table = [gemm_bf16.descriptor(b, -2, wide_b, 0)]
    pack_codes = gemm_bf16.stage(0, 1, source, woven=weave_b), gemm_bf16.packer(problem.b_class)
    pack = Launch(
        tuple(Stage(c, parallel=True) for c in pack_codes),
        _with_tables(problem, tile, 1, table, bytes_b), bytes_b,
    )  # fmt: skip
    return Packed(pack, up(n, tile.columns) * k * tile.itemsize, launch, ("gemm", "pairs", source))


def _tiles(
    a: Layout, b: Layout, out: Layout, parallel: bool, epilogue: Epilogue | None, *,
    packed: bool = False,
) -> Launch:  # fmt: skip
    """`_plan_words` in tile registers (`gemm_tiles`)."""
    problem, k = _normalise(a, b, out), a.shape[-1]
    source, result = ("float" if x.dtype == _SUMS else "i16" for x in (b, out))
    shared, table, a_class = 0, [], "rows"
    lies = source == "i16" and k and not k % gemm_tiles.CHUNK and problem.a_strides[1] == 1
    near = problem.sizes[0] <= gemm_tiles.ROWS or problem.sizes[1] <= _FEW_COLUMNS
    lies = lies and (near or problem.a_strides[0] // gemm_tiles.CHUNK % 2)
    if not lies or any(not step for _, _, step, _ in problem.batch):
        strides = _matrix_strides(a) if k > 1 else (a.strides[-2], 1)
        a = replace(a, strides=(*a.strides[:-2], *strides))
        a_class = _adjacent(strides)
        table, words = gemm_tiles.descriptor(a, 0)
        shared, problem = gemm_tiles.size_of(table), _normalise(words, b, out)
    rows, n, _ = problem.sizes
    finish, several = 0, rows > gemm_tiles.ROWS and n >= gemm_tiles.COLUMNS
    plain = epilogue is None and several and not problem.batch and out.is_contiguous
    if plain and result == "i16" and out.shape[-1] == n and rows * n == out.size:
        epilogue = Epilogue((S.Arg(0, D.bfloat16),), (), (out,))  # rounding is one, too
    own, more = _ending(problem, out, epilogue)
    if epilogue is not None and several and ends_among(epilogue):
        finish = epilogue_ints(epilogue, rows, n, finish="panels")[0]
    sums_at = shared
    if result == "i16" and not gemm_tiles.is_one_block(k):
        shared += up(out.size * 4)
    codes = [gemm_tiles.stage(2 + more, a_class, source)] if table else []
    codes.append(gemm_tiles.products(problem.b_class, source, result, packed=packed)[more])

    def ints(word: int) -> tuple[int, ...]:
        return gemm_code.gemm_ints(
            problem.sizes, problem.a_strides, problem.b_strides, problem.ldc, problem.batch,
            (word, sums_at, shared), direct=gemm_tiles.panel_rows(k) if packed else 0, epilogue=own,
            finish=finish,
        )  # fmt: skip

    word = 4 + 2 + more + len(ints(0)) if table else 0
    room = gemm_tiles.scratch_per_thread(k, packed=packed)
    weights = prod(b.shape)  # few rows take what reading these takes
    parallel = parallel or weights >= _WORDS_PARALLEL_FROM
    stages = tuple(Stage(c, parallel, awake=weights >= _WORDS_AWAKE_FROM) for c in codes)
    return Launch(stages, (*ints(word), *table), shared, room)


def _pack_tiles(a: Layout, b: Layout, out: Layout, epilogue: Epilogue | None) -> Packed | None:
    problem, k = _normalise(a, b, out), a.shape[-1]
    if any(step for _, _, step, _ in problem.batch):
        return None
    launch = _tiles(a, b, out, out.size * k >= PARALLEL_FROM, epilogue, packed=True)
    source = "float" if b.dtype == _SUMS else "i16"
    code = gemm_tiles.packer(problem.b_class, source)
    ints = gemm_code.gemm_ints(problem.sizes, (0, 0), problem.b_strides, 0, ())
    pack = Launch((Stage(code, parallel=True),), ints)
    size = gemm_tiles.packed_size(k, b.shape[-1])
    return Packed(pack, size, launch, ("gemm", "tiles", source))


def _rounding(problem: _Problem, out: Layout) -> Epilogue | None:
    """What rounds the sums of a tile while it is near; None where a stage of its own has to."""
    if problem.batch or not out.is_contiguous:
        return None
    return Epilogue((S.Arg(0, D.from_np(out.dtype)),), (), (out,))


def _with_tables(
    problem: _Problem, tile: Tile, n_in: int, tables: list[list[int]], shared: int,
    own: Sequence[int] = (),
) -> tuple[int, ...]:  # fmt: skip
    """The ints of a product with operands in scratch, whose extra words say where their
    descriptors begin: behind all else.
    """
    word = 4 + n_in + len(problem.ints(tile, [0] * gemm_plain.N_EXTRA, own))
    words = [word + sum(map(len, tables[:i])) for i in range(len(tables))]
    extra = [*words, *[0] * (gemm_plain.N_EXTRA - 1 - len(words)), shared]
    return (*problem.ints(tile, extra, own), *(x for table in tables for x in table))


def _plan_halves(a: Layout, b: Layout, out: Layout, parallel: bool) -> Launch:
    wide_a, wide_b = gemm_plain.dense(a), gemm_plain.dense(b)
    problem = _normalise(wide_a, wide_b, Layout.contiguous(out.shape, _SUMS))
    found, tile = gemm_plain.half_kernels(a.dtype.name, problem.a_class, problem.b_class)
    tables, shared = [], 0
    for operand in (a, b, out):
        tables.append(gemm_plain.descriptor(operand, shared))
        shared += up(tables[-1][1] * tables[-1][2] * 4)
    stages = tuple(Stage(found[n], parallel) for n in ("widen_a", "widen_b", "gemm2", "narrow"))
    ints = _with_tables(problem, tile, 2, tables, shared)
    return Launch(stages, ints, shared, problem.scratch_per_thread(tile))


def _pack_halves(a: Layout, b: Layout, out: Layout) -> Packed | None:
    """`_plan_halves` whose b was widened, to panels, before."""
    wide_a, wide_b = gemm_plain.dense(a), gemm_plain.dense(b)
    problem = _normalise(wide_a, wide_b, Layout.contiguous(out.shape, _SUMS))
    _, n, k = problem.sizes
    if any(step for _, _, step, _ in problem.batch):
        return None
    found, tile = gemm_plain.half_kernels(a.dtype.name, problem.a_class, "rows", "ac")
    tables, shared = [gemm_plain.descriptor(a, 0), []], gemm_bf16.size_of(wide_a)
    tables.append(gemm_plain.descriptor(out, shared))
    shared += up(out.size * 4)
    parallel = out.size * k >= PARALLEL_FROM
    stages = tuple(Stage(found[n], parallel) for n in ("widen_a", "gemm2", "narrow"))
    ints = _with_tables(problem.packed(tile), tile, 2, tables, shared)
    codes = gemm_plain.widener(a.dtype.name), gemm_bf16.packer(problem.b_class)
    size = gemm_bf16.size_of(wide_b)
    table = _with_tables(problem, tile, 1, [gemm_plain.descriptor(b, 0)], size)
    return Packed(
        Launch(tuple(Stage(c, parallel=True) for c in codes), table, size),
        up(n, tile.columns) * k * tile.itemsize,
        Launch(stages, ints, shared, problem.scratch_per_thread(tile)),
        ("gemm", a.dtype.name),
    )


def _widths(n: int, element: str) -> tuple[int, ...]:
    """`Tile.only` for a product of n columns: the last panel of few may have a width of its own."""
    tile = tile_for(element)
    left = up(n % tile.columns, tile.lanes) // tile.lanes
    if left and left not in tile.widths and n < _FEW_PANELS * tile.columns:
        return (*tile.widths_of(n - n % tile.columns), left)
    return tile.widths_of(n)


@cache
def _kernels(
    element: str, a_class: str, b_class: str, widths: tuple[int, ...], in_scratch: str = "",
    runs: int = 2,
) -> tuple[list[int], Tile]:  # fmt: skip
    """The kernels for 2, 3, ... inputs."""
    tile = replace(tile_for(element), a_class=a_class, only=widths, runs=runs)
    names = gemm_code.kernel_names("gemm", tile, in_scratch)
    found = native.load_made(names, _gemm_ir, tile, b_class, in_scratch)
    return [found[name] for name in names], tile


def _gemm_ir(tile: Tile, b_class: str, in_scratch: str) -> str:
    module, pack = Module(), _PACKERS[b_class]
    gemm_code.gemm_kernel(module, "gemm", tile, pack=pack, in_scratch=in_scratch)
    return module.text()


@cache
def _packer(element: str, b_class: str) -> int:
    return native.load_made(["pack_all"], _pack_ir, tile_for(element), b_class)["pack_all"]


def _pack_ir(tile: Tile, b_class: str) -> str:
    module = Module()
    gemm_code.pack_kernel(module, "pack_all", tile, pack=_PACKERS[b_class])
    return module.text()


def _matrix_strides(x: Layout) -> tuple[int, int]:
    """The strides of the last two dims. That of a dim of size 1 is free: it is chosen so that one
    of the two is 1.
    """
    (rows, columns), (row, column) = x.shape[-2:], x.strides[-2:]
    if columns == 1:
        column = 1 if row != 1 or rows == 1 else rows
    elif rows == 1:
        row = 1 if column != 1 else columns
    return row, column


def _check(a: Layout, b: Layout, out: Layout) -> None:
    if not a.dtype == b.dtype == out.dtype:
        raise ValueError(f"matmul: dtypes differ: {a.dtype}, {b.dtype}, out {out.dtype}")
    if a.dtype.name not in (FLOAT_TYPES | INT_TYPES) or a.dtype.name == "bool":
        raise ValueError(f"matmul: no product of {a.dtype}")
    if len(a.shape) < 2 or len(b.shape) < 2:
        raise ValueError(f"matmul: expected matrices, got shapes {a.shape} and {b.shape}")
    expected = (*a.shape[:-1], b.shape[-1])
    if a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2] or out.shape != expected:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not give {out.shape}")
    if out.size and out.shape[-1] > 1 and out.strides[-1] != 1:
        raise ValueError(f"matmul: out's columns must be adjacent, its strides are {out.strides}")
