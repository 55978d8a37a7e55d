"""The matrix product as LLVM IR: packers of B, and the loops around a register tile.

    out[g, m, n] = sum over k of a[g, m, k] * b[g, k, n]

The numbers (strict): each out element is one accumulator, fma in increasing k inside blocks of KC,
blocks added in order. Tile shape, threads, packing and the row's neighbours change nothing.

The loops: for each panel of NR columns, for each block of KC rows of B: pack that piece of B as
[kc][NR] (it then lies in L2), then for each tile of MR rows run the micro-kernel, which reads A in
place. A piece of A is read once a panel: 4 bytes for 2 * NR operations, which L3 and even memory
deliver.

Plug in a packer to compute products whose B is never stored (convolution: B is the im2col matrix).
The packer is a function that emits the body of

    void pack(ptr panel, ptr b, ptr head, i64 k0, i64 kc, i64 n0, i64 n)

It stores B[k0 + i, n0 + j] at panel[i * NR + j] for i < kc, j < n, and zeros for n <= j < n rounded
up to whole vectors. `panel` is 64-byte aligned and so is each of its vectors.

An A that lies across is copied to slices first where `Tile.a_class` is "sliced": those of a chunk
of rows, in the second cache, which serve all panels that a thread multiplies with. Where A is large
a unit has several panels of B, and slices are of a group of tiles and a block of k each: all of the
panels lie packed in the second cache, and each group meets them before the next one is copied.

Threads take units (a panel, or some rows of one where panels are few) from a counter, the block's
word 1: a thread that other programs slow down takes fewer. A launch may carry the address of an
`epilogue`, called on each tile after its last block of k, while the tile is in the first cache.
Where there is one block only, sums go from the thread's own memory to the epilogue: out may then be
the memory of one of its operands.

Long because the packers and the loops around them agree on one form of a panel.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from weft.kernels.schedule.gemm_micro import (
    NONE,
    PACKED_UNROLL,
    SLICE,
    UNROLL,
    merge_kernel,
    micro_kernel,
    piece_kernel,
    slice_kernel,
)
from weft.kernels.schedule.tile import HELD, KC, KEPT, Tile, up
from weft.kernels.target.llvm import BYTES, Function, Module, Operand, Value, vector, zero
from weft.runtime import native

NEAR = 6 << 20  # bytes of A that stay in the last cache while panel after panel reads them
_SLICES = 1 << 20  # bytes of slices that the second cache holds beside panels of B
_LIGHT = 256 << 10  # bytes of A and the result that a second cache holds beside panels of B
_CLOSE = 1 << 20  # of a thread's rows of them, where a core multiplies twice a cycle
_SMALL = 150 << 10  # bytes of a packed panel that lies in the second cache beside its next one
_OWN = 1 << 20  # bytes of a B of which each thread reads all
_TALL, _TALL_PACKING = 96, 1024  # rows of a thread for that: beside those packing it is nothing
_TALL_TWICE = 64  # where a core multiplies twice a cycle, beside any packed B
_TALL_NEAR, _NEAR_B = 16, 600 << 10  # there, beside one that a second cache keeps with others
_FEW_ROWS = 192  # of a result that the last cache does not hold
_PACK_ROWS = 8  # of a panel's product take as long as to pack it
MAX_NEAR = 6  # arrays of an epilogue whose lines a tile asks for
_PART_ROWS = 24  # at least, of the parts in which the last units are done
_HALVINGS = 5
_PART_PANELS = 3  # of a part that has not all panels of its unit
_HELD_FROM = 32  # tiles
_HEAD = (
    "M", "N", "K", "a_rs", "a_cs", "b_rs", "b_cs", "ldc", "direct", "epilogue", "epilogue_at",
    "batches", "dims", "swapped", "finish", "near", "near_writes", "most",
    "kept", "slices", "room",
)  # fmt: skip
MAX_INPUTS = 16  # operands of a launch, those of its epilogue included

Packer = Callable[[Function, Tile], None]
Near = tuple[Sequence[tuple[int, int]], int]  # (pointer's word, bytes a row), how many are results


def extra_word(n_in: int) -> int:
    """The word of the block at which the ints given as `extra` start."""
    return 4 + n_in + len(_HEAD)


def gemm_ints(
    sizes: tuple[int, int, int],
    a_strides: tuple[int, int],
    b_strides: tuple[int, int],
    ldc: int,
    batch: Sequence[tuple[int, ...]],
    extra: Sequence[int] = (),
    *,
    direct: int = 0,
    epilogue: Sequence[int] = (),
    finish: int = 0,
    near: Near = ((), 0),
    swapped: bool = False,
    room: tuple[int, int, int, int] = (1, 0, 0, 0),
) -> tuple[int, ...]:
    """The ints of a launch of `gemm_kernel`, strides in elements.

    `sizes` (M, N, K); `batch` is outermost first (size, stride of a, of b, of out); `direct` reads
    B in place: 1 where a panel has a tile's width (its columns must be adjacent), K where B lies in
    packed panels (`pack_kernel`), which begin K elements a column apart; `epilogue` is its address
    and its own ints; `finish` the address of a micro-kernel of a whole tile that ends with the
    epilogue, or 0; `near` says where the epilogue's arrays lie (`near_arrays`); `swapped`: inputs
    are (b, a); `room`: what `rooms` gives.
    """
    batches = 1
    for size, *_ in batch:
        batches *= size
    address, *own = epilogue or (0,)
    arrays, writes = near
    own_at = len(_HEAD) + len(extra) + 4 * len(batch) + 2 * len(arrays)
    head = (
        *sizes, *a_strides, *b_strides, ldc, direct, address, own_at, batches, len(batch),
        int(swapped), finish, len(arrays), writes, *room,
    )  # fmt: skip
    tables = (word for row in (*batch, *arrays) for word in row)
    return (*head, *extra, *tables, *own)


# -- packers of a stored B


def _whole_or_masked(
    f: Function, tile: Tile, emit: Callable[[Operand, Value | None], None]
) -> None:
    """`emit(column, mask)` for each vector of the panel; no mask where the vector is whole."""
    n = f.arg("n")
    whole = f.mul(f.div(n, tile.lanes), tile.lanes)
    with f.loop(0, whole, tile.lanes) as column:
        emit(column.i, None)
    with f.iff(f.icmp("slt", whole, n)):
        emit(whole, f.lane_mask(f.sub(n, whole), tile.lanes))


def pack_rows(f: Function, tile: Tile) -> None:
    """B whose columns are adjacent (stride b_rs between rows): copy vectors."""
    ldb = head_of(f)["b_rs"]
    source = f.gep("%b", f.add(f.mul(f.arg("k0"), ldb), f.arg("n0")), tile.element)
    full = f.icmp("eq", f.arg("n"), tile.columns)

    def copy(column: Operand, mask: Value | None) -> None:
        start = [
            ("ptr", f.gep(source, column, tile.element)),
            ("ptr", f.gep("%panel", column, tile.element)),
        ]
        with f.loop(0, f.arg("kc"), 1, start) as k:
            at, to = k.carry
            value = f.load(tile.type, at) if mask is None else f.masked_load(tile.type, at, mask)
            f.store(value, to)
            k.next = [f.gep(at, ldb, tile.element), f.gep(to, tile.columns, tile.element)]

    with f.if_else(full) as way:
        with f.loop(0, f.arg("kc"), 1, [("ptr", source), ("ptr", "%panel")]) as k:
            at, to = k.carry
            row = [
                f.load(tile.type, f.gep(at, v * tile.lanes, tile.element))
                for v in range(tile.vectors)
            ]
            for v, value in enumerate(row):
                f.store(value, f.gep(to, v * tile.lanes, tile.element))
            k.next = [f.gep(at, ldb, tile.element), f.gep(to, tile.columns, tile.element)]
        way.otherwise()
        _whole_or_masked(f, tile, copy)
    f.ret()


def pack_columns(f: Function, tile: Tile) -> None:
    """B whose rows are adjacent (stride b_cs between columns, as in x @ w.T): transpose squares."""
    element, lanes = tile.element, tile.lanes
    ldb = head_of(f)["b_cs"]
    source = f.gep("%b", f.add(f.mul(f.arg("n0"), ldb), f.arg("k0")), element)
    whole = f.mul(f.div(f.arg("kc"), lanes), lanes)

    def square(column: Operand, k: Operand, columns: Operand | None, rows: Operand | None) -> None:
        """lanes x lanes elements at (k, column), of which `columns` columns and `rows` rows of B
        exist.
        """
        first = f.gep(source, f.add(f.mul(column, ldb), k), element)
        mask = None if rows is None else f.lane_mask(rows, lanes)
        read: list[Value] = []
        for j in range(lanes):
            at = f.gep(first, f.mul(ldb, j), element)
            if columns is None and mask is None:
                read.append(f.load(tile.type, at))
                continue
            all_rows = mask if mask is not None else f.lane_mask(lanes, lanes)
            if columns is None:
                read.append(f.masked_load(tile.type, at, all_rows))
                continue
            none = zero(all_rows.type)
            exists = f.splat(f.icmp("slt", j, columns), all_rows.type)
            read.append(f.masked_load(tile.type, at, f.select(exists, all_rows, none)))
        turned = f.transpose(read)
        to = f.gep("%panel", f.add(f.mul(k, tile.columns), column), element)
        for i, value in enumerate(turned):
            place = f.gep(to, i * tile.columns, element)
            if rows is None:
                f.store(value, place)
            else:
                with f.iff(f.icmp("slt", i, rows)):
                    f.store(value, place)

    whole_columns = f.mul(f.div(f.arg("n"), lanes), lanes)
    with f.loop(0, whole_columns, lanes) as column, f.loop(0, whole, lanes) as k:
        square(column.i, k.i, None, None)
    with f.loop(0, f.arg("n"), lanes) as column:
        columns = f.sub(f.arg("n"), column.i)
        # ragged squares: the last columns over all k, the last k over all columns
        from_k = f.select(f.icmp("slt", columns, lanes), 0, whole)
        with f.loop(from_k, f.arg("kc"), lanes) as k:
            square(column.i, k.i, columns, f.sub(f.arg("kc"), k.i))
    f.ret()


def pack_any(f: Function, tile: Tile) -> None:
    """B of any strides: element by element."""
    head = head_of(f)
    n = f.arg("n")
    padded = f.mul(f.div(f.add(n, tile.lanes - 1), tile.lanes), tile.lanes)
    with f.loop(0, f.arg("kc")) as k:
        row = f.gep("%b", f.mul(f.add(f.arg("k0"), k.i), head["b_rs"]), tile.element)
        to = f.gep("%panel", f.mul(k.i, tile.columns), tile.element)
        with f.loop(0, n) as j:
            value = f.load(
                tile.element, f.gep(row, f.mul(f.add(f.arg("n0"), j.i), head["b_cs"]), tile.element)
            )
            f.store(value, f.gep(to, j.i, tile.element))
        with f.loop(n, padded) as j:
            f.store(zero(tile.element), f.gep(to, j.i, tile.element))
    f.ret()


# -- scratch memory of a thread


def rooms(tile: Tile, sizes: tuple[int, int, int], most: int) -> tuple[int, int, int, int]:
    """The last ints of a head: `most` panels of B lie packed beside one another, how many rows each
    has, and the bytes of slices and of all: slices of a group of tiles, or of a chunk of rows
    (`_row_chunks`), some of whose last are no rows.
    """
    m, n, k = sizes
    size, slices = tile.itemsize, 0
    if tile.a_class == "sliced":
        chunk = min(m * k * size, _SLICES) + k * (SLICE + 2 * tile.rows + 4) * size
        slices = up(chunk if most == 1 else KC * (HELD * tile.rows + SLICE) * size)
    kept = k if most > 1 or k <= KEPT else KC
    panels = min(-(-n // tile.columns), most) * kept * tile.columns * size
    return most, kept, slices, up(slices + panels)


# -- the loops


def head_of(f: Function, head: Operand = "%head") -> dict[str, Value]:
    return f.named(head, _HEAD)


def kernel_names(name: str, tile: Tile, in_scratch: str = "") -> list[str]:
    """What `gemm_kernel` calls those for 2 inputs, 3, ..."""
    most = 2 if in_scratch and not tile.pairs else MAX_INPUTS
    return [f"{name}{n_in}" for n_in in range(2, most + 1)]


def gemm_kernel(
    module: Module,
    name: str,
    tile: Tile,
    *,
    pack: Packer,
    in_scratch: str = "",
) -> list[str]:
    """Emit the kernels `name` + the number of inputs, from 2 to MAX_INPUTS, and all they call;
    returns their names. Launch one with `gemm_ints` and `tile.scratch_per_thread`.

    `in_scratch`: those of a, b and c (out) that are in scratch memory, for which there are four
    extra ints: the words of the block that hold the byte offsets of a, b and out, and the bytes of
    scratch before the threads' panels.
    """
    most = tile.rows - 1  # of many rows, tiles have these or one more
    kernels = {
        (rows, vectors): micro_kernel(
            module, tile, rows, vectors, held=tile.is_held(rows, vectors),
            usual=_is_level(tile) and rows == most and vectors == tile.vectors,
        )
        for vectors in tile.widths
        for rows in range(1, tile.rows + 1)
    }  # fmt: skip
    merge_kernel(module, tile)
    if tile.piece:
        piece_kernel(module, tile)
    if tile.a_class == "sliced":
        slice_kernel(module, tile)
    pack(module.function("pack", PACK, internal=True, driver=True), tile)
    _products(
        module.function("products", BODY, internal=True, driver=True),
        tile,
        kernels,
        in_scratch=in_scratch,
        b_rows=pack is pack_rows,
    )
    names = kernel_names(name, tile, in_scratch)
    emit_entries(module, names)
    return names


PACK = [
    *[("ptr", n) for n in ("panel", "b", "head")], *[("i64", n) for n in ("k0", "kc", "n0", "n")]
]  # fmt: skip
BODY = [("ptr", "args"), ("ptr", "head"), ("ptr", "scratch"), ("i32", "tid"), ("i32", "nth")]


def emit_entries(module: Module, names: list[str]) -> None:
    """The kernels of launches with 2, 3, ... inputs: `products`, whose arguments are `BODY`."""
    for n_in, name in enumerate(names, 2):
        f = module.kernel(name, driver=True)
        scratch = f.load("ptr", f.gep("%args", 3 + n_in, "i64"))
        head = f.gep("%args", 4 + n_in, "i64")
        f.call("products", "void", f.arg("args"), head, scratch, f.arg("tid"), f.arg("nth"))
        f.ret()


def pack_kernel(
    module: Module, name: str, tile: Tile, *, pack: Packer, in_scratch: bool = False
) -> str:
    """Emit the kernel that packs all of a stored B, with the ints of `gemm_ints`: panels of the
    tile's columns, in each the rows one after another. `in_scratch`: B is where scratch begins.
    """
    pack(module.function("pack", PACK, internal=True), tile)
    f = module.kernel(name)
    out, b, scratch = f.words("%args", 2, ["ptr"] * 3)
    b = scratch if in_scratch else b
    head = f.gep("%args", 5, "i64")
    _, n, k = f.words(head, 0, ["i64"] * 3)
    panels = f.div(f.add(n, tile.columns - 1), tile.columns)
    blocks = f.div(f.add(k, KC - 1), KC)
    with f.units(f.mul(panels, blocks)) as unit:
        n0, k0 = f.mul(f.div(unit, blocks), tile.columns), f.mul(f.rem(unit, blocks), KC)
        panel = f.gep(out, f.add(f.mul(n0, k), f.mul(k0, tile.columns)), tile.element)
        kc, width = f.min(f.sub(k, k0), KC), f.min(f.sub(n, n0), tile.columns)
        f.call("pack", "void", panel, b, head, k0, kc, n0, width)
    f.ret()
    return name


def _products(
    f: Function,
    tile: Tile,
    kernels: dict[tuple[int, int], str],
    *,
    in_scratch: str,
    b_rows: bool,
) -> None:
    """The loops of one thread."""
    element, size = tile.element, BYTES[tile.element]
    out, *given = f.words("%args", 2, ["ptr"] * 3)
    h = head_of(f)
    swapped = f.icmp("ne", h["swapped"], 0)
    a, b = f.select(swapped, given[1], given[0]), f.select(swapped, given[0], given[1])
    tid = f.thread()
    scratch = own = f.arg("scratch")
    extra = len(_HEAD)
    if in_scratch:
        *words, shared = f.words("%head", extra, ["i64"] * 4)
        a, b, out = (
            f.gep(scratch, f.load("i64", f.gep("%args", word, "i64"))) if n in in_scratch else usual
            for n, word, usual in zip("abc", words, (a, b, out), strict=True)
        )
        own = f.gep(scratch, shared)
        extra += 4
    lines = f.alloca("ptr", (MAX_NEAR + 2 + KC // tile.columns) * tile.rows)
    met = f.alloca("i64", 1)  # where the rows of A begin that the thread has read
    f.store(f.typed(-1, "i64"), met)
    near_table = f.gep("%head", f.sub(h["epilogue_at"], f.mul(h["near"], 2)), "i64")
    sliced = tile.a_class == "sliced"
    slices = f.gep(own, f.mul(tid, f.add(h["room"], tile.scratch_per_thread)))
    panel = f.gep(slices, h["slices"])
    corner = f.gep(slices, h["room"])
    grouped = f.icmp("sgt", h["most"], 1)  # slices are of a group of tiles
    starts = f.alloca("ptr", HELD + 1)
    holds = f.gep(corner, tile.rows * tile.columns * size)
    keeps = f.icmp("sle", h["K"], h["kept"])
    kept = f.alloca("i64", 2)  # the unit's panels of B, and which of them lie packed: bits
    f.store(f.typed(-1, "i64"), kept)
    kept_panels = f.gep(kept, 1, "i64")
    dims = f.gep("%head", extra, "i64")
    epilogue_ints = f.gep("%head", h["epilogue_at"], "i64")
    ends = f.icmp("ne", h["epilogue"], 0)
    epilogue, finish = (f.cast("inttoptr", h[n], "ptr") for n in ("epilogue", "finish"))
    finishes = f.icmp("ne", h["finish"], 0)
    light = f.mul(f.mul(h["M"], f.add(h["K"], h["N"])), size)
    single = f.icmp("eq", h["batches"], 1)
    light = f.op("and", f.icmp("sle", light, _LIGHT), single)
    apart = f.op("and", ends, f.icmp("sle", h["K"], KC))

    # of the innermost dim; or anything
    inner = f.gep(dims, f.mul(h["dims"], 4), "i64")
    a_inner, inner_step = f.words(inner, -3, ["i64"] * 2)

    others = _Soon.of_a(f, tile, h, a)
    packed = f.icmp("sgt", h["direct"], 1)
    with units_of_rows(f, tile, h, several=sliced) as unit:
        panels, wide = unit.panels, unit.wide
        columns = f.mul(h["batches"], panels)
        column, batch = unit.column, unit.batch
        m_start, m_from, m_to = unit.m_start, unit.m_from, unit.m_to
        a_batch, b_batch, c_batch = batch_offsets(f, dims, h["dims"], batch)
        a_base = f.gep(a, a_batch, element)
        b_base = f.gep(b, b_batch, element)
        c_batch = f.gep(out, c_batch, element)
        # the unit that this thread probably takes next, along the innermost dim: to ask for a wrong
        # line does no harm
        next_column = f.add(column, 1)
        next_column = f.sub(next_column, f.select(f.icmp("slt", next_column, columns), 0, columns))
        next_batch, next_panel = f.div(next_column, panels), f.rem(next_column, panels)
        further = f.mul(f.sub(next_batch, batch), inner_step)
        next_base = f.gep(b_base, further, element)
        # K = 0 stores zeros; a part may have no rows
        deep = f.select(f.icmp("slt", m_from, m_to), f.max(h["K"], 1), 0)
        same = f.icmp("eq", f.load("i64", kept), column)
        lie = f.select(same, f.load("i64", kept_panels), 0)
        f.store(f.typed(column, "i64"), kept)
        # all of them the first time: they come from memory, or from another core
        pieces = f.div(f.add(f.min(h["K"], KC), tile.columns - 1), tile.columns)
        before = f.load("i64", met)
        unmet = f.op("and", f.icmp("ne", before, m_start), f.icmp("slt", m_from, m_to))
        ahead = f.select(unmet, pieces, 1)
        f.store(f.select(unmet, m_start, before), met)
        if tile.a_class == "rows":
            # what another thread wrote just before lies in the caches of its core
            shared = f.op("and", f.icmp("sgt", f.arg("nth"), 1), f.op("and", light, unmet))
            with f.iff(shared), f.loop(m_from, m_to) as row, f.loop(0, h["K"], 64 // size) as k:
                f.touch(f.gep(a_base, f.add(f.mul(row.i, h["a_rs"]), k.i), element))
        close: Operand = Value("false", "i1")
        if native.host().multiplies_twice:
            close = f.mul(f.mul(f.sub(unit.m_stop, m_start), f.add(h["K"], h["N"])), size)
            close = f.op("and", f.icmp("sle", close, _CLOSE), f.op("and", packed, single))
        span_rows: Operand = f.max(f.sub(m_to, m_from), 1)
        if sliced:
            span_rows = f.select(grouped, HELD * tile.rows, span_rows)
        last_panel = f.add(unit.panel, unit.count)
        with f.loop(0, deep, KC) as block:
            kc = f.min(f.sub(h["K"], block.i), KC)
            first = f.cast("zext", f.icmp("eq", block.i, 0), "i64")
            more = f.icmp("slt", f.add(block.i, KC), h["K"])
            ending = f.op("and", ends, f.op("xor", more, True))
            a_block = f.gep(a_base, f.mul(block.i, h["a_cs"]), element)
            slices_k = f.select(grouped, kc, h["K"])
            loops = f.loop(m_from, m_to, span_rows), f.loop(unit.panel, last_panel)
            with loops[0] as span, loops[1] as at_panel:
                span_to = f.min(f.add(span.i, span_rows), m_to)
                n0 = f.mul(f.add(unit.panel0, at_panel.i), tile.columns)
                n = f.min(f.sub(h["N"], n0), tile.columns)
                c_base = f.gep(c_batch, n0, element)
                full = f.icmp("eq", n, tile.columns)
                width = _width_index(f, tile, n)
                exact = _is_width(f, tile, n)
                usable = f.op("or", exact, f.icmp("sgt", h["direct"], 1))
                direct = f.op("and", usable, f.icmp("ne", h["direct"], 0))
                at_once = f.op("and", exact, f.op("xor", apart, True))
                bit = f.op("and", f.op("lshr", lie, at_panel.i), 1)
                new = f.icmp("eq", f.typed(bit, "i64"), 0)
                with f.if_else(direct) as way:
                    column_at = f.mul(n0, h["direct"])
                    in_place = f.gep(b_base, f.add(f.mul(block.i, h["b_rs"]), column_at), element)
                    way.otherwise()
                    at = f.mul(at_panel.i, h["kept"])
                    at = f.add(at, f.select(keeps, block.i, 0))
                    to = f.gep(panel, f.mul(at, tile.columns), element)
                    with f.iff(f.op("and", new, f.icmp("eq", span.i, m_from))):
                        f.call("pack", "void", to, b_base, f.arg("head"), block.i, kc, n0, n)
                b_panel = way.merge("ptr", in_place, to)
                b_step = f.select(direct, h["b_rs"], tile.columns)
                slices_from = f.select(grouped, span.i, m_start)
                if sliced:
                    begins = f.op("and", unmet, f.icmp("eq", block.i, 0))
                    group_begins = f.icmp("eq", at_panel.i, unit.panel)
                    with f.iff(f.select(grouped, group_begins, begins)):
                        source = f.gep(a_block, slices_from, element)
                        rows_ = f.sub(f.select(grouped, span_to, unit.m_stop), slices_from)
                        f.call("slice", "void", slices, source, h["a_cs"], slices_k, rows_)
                # packed panels follow on one another: as many rows as the block has, so far ahead
                # as a block has, or a panel that the second cache holds; others: the next block, if
                # long; where that lies packed, in its panel
                small = f.icmp("slt", f.mul(h["K"], tile.columns * size), _SMALL)
                lead = f.add(block.i, f.select(small, h["K"], KC))
                long = f.icmp("sle", f.add(block.i, KC + KC // 4), h["K"])
                inside = f.op("or", long, packed)
                soon_k = f.select(packed, lead, f.select(long, f.add(block.i, KC), 0))
                soon_n = f.mul(f.add(f.mul(next_panel, wide), at_panel.i), tile.columns)
                soon_n = f.select(inside, n0, soon_n)
                soon_kc = f.select(packed, kc, f.min(f.sub(h["K"], soon_k), KC))
                corner_of_b = f.add(f.mul(soon_k, h["b_rs"]), f.mul(soon_n, h["b_cs"]))
                soon_panel = f.gep(f.select(inside, b_base, next_base), corner_of_b, element)
                line_after_line = packed
                if b_rows:
                    again = f.op("and", keeps, f.op("xor", f.op("or", new, direct), True))
                    next_k = f.select(more, f.add(block.i, KC), 0)
                    ahead_k = f.mul(f.sub(next_k, block.i), tile.columns)
                    soon_panel = f.select(again, f.gep(b_panel, ahead_k, element), soon_panel)
                    soon_kc = f.select(again, f.min(f.sub(h["K"], next_k), KC), soon_kc)
                    line_after_line = f.op("or", packed, again)
                fits = f.op("and", full, f.icmp("eq", b_step, tile.columns))
                held = _Held.of(f, tile, (m_from, m_to), (span.i, span_to), kc, fits)
                before = f.div(f.sub(span.i, m_from), tile.rows)
                step = (held.length, held.exists)
                asks = _Soon.of(
                    f, tile, h, step, soon_kc, soon_panel, line_after_line, b_rows=b_rows
                )
                a_tiles = f.select(f.icmp("ne", next_batch, batch), others.tiles, 0)
                next_a = f.gep(a_base, f.mul(f.sub(next_batch, batch), a_inner), element)
                then = replace(others, start=next_a, tiles=a_tiles)

                def a_at(row: Operand) -> Value:
                    if not sliced:
                        return f.gep(a_block, f.mul(row, h["a_rs"]), element)
                    nth_row = f.sub(row, slices_from)
                    steps_before = f.select(grouped, 0, f.mul(block.i, SLICE))
                    in_slice = f.add(f.rem(nth_row, SLICE), steps_before)
                    slice_at = f.mul(f.mul(f.div(nth_row, SLICE), SLICE), slices_k)
                    return f.gep(slices, f.add(slice_at, in_slice), element)

                def end(row: Operand, rows: Operand, c_rows: Value) -> None:
                    with f.iff(ending):
                        product = f.select(apart, corner, c_rows)
                        pitch = f.select(apart, tile.columns, h["ldc"])
                        place = (row, rows, n0, n)
                        f.call_at(epilogue, f.arg("args"), epilogue_ints, product, pitch, *place)

                if tile.piece:
                    a_step = SLICE if sliced else 1
                    last_k = f.mul(f.sub(held.count, 1), held.length)
                    b_last = f.gep(b_panel, f.mul(last_k, tile.columns), element)
                    with f.loop(0, held.tiles, HELD) as group:
                        tiles = f.min(f.sub(held.tiles, group.i), HELD)
                        row0 = f.add(span.i, f.mul(group.i, tile.rows))
                        with f.loop(0, tiles) as nth:
                            start = a_at(f.add(row0, f.mul(nth.i, tile.rows)))
                            f.store(start, f.gep(starts, nth.i, "ptr"))
                        start = f.gep(f.load("ptr", starts), f.mul(held.length, a_step), element)
                        f.store(start, f.gep(starts, tiles, "ptr"))
                        with f.loop(0, last_k, held.length) as part:
                            b_part = f.gep(b_panel, f.mul(part.i, tile.columns), element)
                            asked = f.min(f.mul(f.div(part.i, held.length), 2), tile.rows - 2)
                            c_rows = f.gep(c_base, f.mul(f.add(row0, asked), h["ldc"]), element)
                            begins = f.cast("zext", f.icmp("eq", part.i, 0), "i64")
                            sizes = (tiles, held.length, f.mul(part.i, a_step), h["a_rs"], begins)
                            f.call("piece", "void", starts, b_part, holds, c_rows, *sizes, h["ldc"])
                        with f.loop(0, tiles) as nth:
                            row = f.add(row0, f.mul(nth.i, tile.rows))
                            start = f.load("ptr", f.gep(starts, nth.i, "ptr"))
                            a_rows = f.gep(start, f.mul(last_k, a_step), element)
                            c_rows = f.gep(c_base, f.mul(row, h["ldc"]), element)
                            soon = asks.tile(f, element, f.add(before, f.add(group.i, nth.i)), then)
                            hold = f.gep(holds, f.mul(nth.i, tile.rows * tile.columns), element)
                            next_rows = f.gep(a_rows, f.mul(h["a_rs"], tile.rows), element)
                            places = (next_rows, None, 2)
                            near = _near(f, tile, h, ending, near_table, lines, places, row, n0)
                            left, strides = f.sub(kc, last_k), (h["a_rs"], h["a_cs"])
                            operands = (left, a_rows, *strides, b_last, tile.columns, hold)
                            with f.if_else(f.op("and", finishes, ending)) as way:
                                product = (c_rows, h["ldc"], first)
                                ends_at = (f.arg("args"), epilogue_ints, row, n0)
                                f.call_at(finish, *operands, *product, *soon, *near, *ends_at)
                                way.otherwise()
                                product = (
                                    f.select(apart, corner, c_rows),
                                    f.select(apart, tile.columns, h["ldc"]),
                                    f.select(apart, 1, first),
                                )
                                micro = kernels[tile.rows, tile.vectors]
                                f.call(micro, "void", *operands, *product, *soon, *near)
                                end(row, tile.rows, c_rows)
                done = f.add(span.i, f.mul(held.tiles, tile.rows))
                length = f.sub(span_to, done)  # in tiles of `short` rows, or one more
                count = f.div(f.add(length, tile.rows - 1), tile.rows)
                short, tall = (op(length, f.max(count, 1)) for op in (f.div, f.rem))
                with f.loop(0, count, 1, [("i64", done)]) as L:
                    row = L.carry[0]
                    soon = asks.tile(f, element, f.add(before, f.add(held.tiles, L.i)), then)
                    rows: Operand = f.min(f.sub(span_to, row), tile.rows)
                    if _is_level(tile):
                        rows = f.add(short, f.cast("zext", f.icmp("slt", L.i, tall), "i64"))
                    L.next = [f.add(row, rows)]
                    a_rows = a_at(row)
                    c_rows = f.gep(c_base, f.mul(row, h["ldc"]), element)
                    next_rows = f.gep(a_rows, f.mul(rows, h["a_rs"]), element)
                    places = (next_rows, c_rows, ahead)
                    none = f.select(close, -1, 0)
                    with f.if_else(f.op("or", light, close)) as way:  # a list takes longer than it
                        way.otherwise()  # brings, and so does asking where rows are as close
                        near = _near(f, tile, h, ending, near_table, lines, places, row, n0)
                    near = (lines, *(way.merge("i64", none, count) for count in near[1:]))
                    operands = (kc, a_rows, h["a_rs"], h["a_cs"], b_panel, b_step)
                    from_zero = (NONE,) if tile.piece else ()
                    whole = f.op("and", full, f.icmp("eq", rows, tile.rows))
                    with f.if_else(f.op("and", whole, f.op("and", finishes, ending))) as way:
                        product = (*from_zero, c_rows, h["ldc"], first)
                        ends_at = (f.arg("args"), epilogue_ints, row, n0)
                        f.call_at(finish, *operands, *product, *soon, *near, *ends_at)
                        way.otherwise()
                        target = f.select(at_once, c_rows, corner)
                        step = f.select(at_once, h["ldc"], tile.columns)
                        fresh = f.select(at_once, first, 1)
                        ragged = f.icmp("slt", rows, tile.rows)
                        with f.iff(f.op("and", apart, ragged)), f.loop(0, rows) as each:
                            line = f.gep(c_rows, f.mul(each.i, h["ldc"]), element)
                            for byte in range(0, tile.columns * size, 64):
                                f.touch(f.gep(line, byte), write=True)
                        for rows_, vectors in _cases(f, tile, width, rows):
                            micro = kernels[rows_, vectors]
                            start = from_zero if tile.is_held(rows_, vectors) else ()
                            product = (*start, target, step, fresh)
                            f.call(micro, "void", *operands, *product, *soon, *near)
                        with f.iff(f.op("xor", f.op("or", exact, apart), True)):
                            f.call("merge", "void", corner, c_rows, h["ldc"], rows, n, first)
                        end(row, rows, c_rows)
        there = f.sub(f.typed(f.op("shl", 1, unit.count), "i64"), 1)
        there = f.typed(f.op("shl", there, unit.panel), "i64")
        there = f.select(f.op("and", keeps, f.icmp("sgt", deep, 0)), there, 0)
        f.store(f.typed(f.op("or", lie, there), "i64"), kept_panels)
    f.ret()


@dataclass(frozen=True)
class _Held:
    """The whole tiles of rows that go through a block in pieces of k (`gemm_micro`): how many, and
    in how many pieces of which length.
    """

    tiles: Operand
    count: Operand
    length: Operand
    exists: Value

    @staticmethod
    def of(
        f: Function, tile: Tile, rows: tuple[Operand, Operand], span: tuple[Operand, Operand],
        kc: Operand, fits: Value,
    ) -> "_Held":  # fmt: skip
        """Of a unit's rows those in the span."""
        if not tile.piece:
            return _Held(0, 1, kc, Value("false", "i1"))
        fits = f.op("and", fits, f.icmp("sge", kc, 2 * tile.piece))
        least = HELD if tile.a_class == "sliced" else _HELD_FROM
        fits = f.op("and", fits, f.icmp("sge", f.sub(rows[1], rows[0]), least * tile.rows))
        tiles = f.div(f.sub(span[1], span[0]), tile.rows)
        count = f.select(fits, f.div(f.add(kc, tile.piece - 1), tile.piece), 1)
        # equal pieces of whole unrolled steps, but for the last
        length = f.div(f.add(kc, f.sub(count, 1)), count)
        length = f.mul(f.div(f.add(length, PACKED_UNROLL - 1), PACKED_UNROLL), PACKED_UNROLL)
        length = f.select(fits, length, kc)
        return _Held(f.select(fits, tiles, 0), count, length, fits)


def _near(
    f: Function, tile: Tile, h: dict[str, Value], ending: Value, table: Value, lines: Value,
    places: tuple[Value, Value | None, Operand], row: Operand, n0: Operand,
) -> tuple[Value, Operand, Operand]:  # fmt: skip
    """What a tile asks for (`micro_kernel`): its rows of out and of the epilogue's arrays, then
    those of A, `ahead` pieces each, that the next one begins with.
    """
    element, rows, size = tile.element, tile.rows, tile.itemsize
    next_rows, c_rows, ahead = places

    def put(at: Operand, start: Value, step: Operand, unit: str) -> None:
        for r in range(rows):
            f.store(f.gep(start, f.mul(step, r), unit), f.gep(lines, f.add(at, r), "ptr"))

    own = 0 if c_rows is None else 1
    if c_rows is not None:
        put(0, c_rows, h["ldc"], element)
    with f.loop(0, f.select(ending, h["near"], 0), 1, [("i64", own * rows)]) as array:
        word, step = f.words(f.gep(table, f.mul(array.i, 2), "i64"), 0, ["i64"] * 2)
        start = f.load("ptr", f.gep("%args", word, "i64"))
        here = f.gep(start, f.add(f.mul(row, step), f.mul(n0, size)))
        put(array.carry[0], here, step, "i8")
        # an operand in whose place the result goes has the lines asked for already
        count = rows if c_rows is None else f.select(f.icmp("eq", here, c_rows), 0, rows)
        array.next = [f.add(array.carry[0], count)]
    count = array.carry[0]
    if tile.a_class == "rows":
        with f.loop(0, ahead) as run:
            start = f.gep(next_rows, f.mul(run.i, tile.columns), element)
            put(f.add(count, f.mul(run.i, rows)), start, h["a_rs"], element)
        count = f.add(count, f.mul(ahead, rows))
    writes = f.select(ending, h["near_writes"], 0)
    return lines, count, f.mul(f.add(writes, own), rows)


def _is_level(tile: Tile) -> bool:
    """Whether tiles are as even as may be: one of two rows reads as many weights as one of six. Not
    so where A lies across, or in slices, which end where a whole tile does.
    """
    return tile.a_class == "rows"


@dataclass(frozen=True)
class Unit:
    """Rows of one panel or several: those from `m_from` to `m_to`, of the share from `m_start` to
    `m_stop`.
    """

    column: Operand  # number of the panels, over all matrices
    panels: Operand  # how many such a matrix has
    wide: Operand  # panels of each, but that the last may have fewer
    panel0: Operand
    panel: Operand  # where the unit begins, and how many panels it has, behind `panel0`
    count: Operand
    batch: Operand
    n0: Operand
    n: Operand  # of the panel that it begins with
    m_start: Operand
    m_stop: Operand
    m_from: Operand
    m_to: Operand


def panels_of(f: Function, tile: Tile, h: dict[str, Value]) -> Operand:
    return f.div(f.add(h["N"], tile.columns - 1), tile.columns)


@contextmanager
def units_of_rows(
    f: Function, tile: Tile, h: dict[str, Value], *, packing: int = _PACK_ROWS,
    packed_part: int = 0, several: bool = False,
) -> Iterator[Unit]:  # fmt: skip
    """The units that this thread gets, of one panel, or of `several`, up to what the head says. To
    pack a panel takes as long as the product of `packing` rows. Parts have `packed_part` rows or
    more where another thread has to fetch a packed panel; 0: as many as others, or a quarter of a
    unit of few rows, of which a thread has but two or four.
    """
    nth = f.cast("sext", f.arg("nth"), "i64")
    each = panels = panels_of(f, tile, h)
    wide: Operand = 1
    if several:
        panels = f.div(f.add(each, f.sub(h["most"], 1)), h["most"])
        wide = f.div(f.add(each, f.sub(panels, 1)), panels)
        panels = f.div(f.add(each, f.sub(wide, 1)), wide)
    columns = f.mul(h["batches"], panels)
    chunk, chunks, own = _row_chunks(f, tile, h, columns, nth, packing)
    # the last unit of each thread in parts, each half of what is left, so that none waits long for
    # another
    every = f.mul(columns, chunks)
    packed = f.icmp("sgt", h["direct"], 1)
    few = f.icmp("slt", chunk, 2 * _PART_ROWS)
    shared = f.op("and", packed, f.op("or", few, f.op("xor", own, True)))
    quarter = f.max(f.min(f.div(chunk, 4), _PART_ROWS), tile.rows)
    least = f.select(shared, packed_part or quarter, _PART_ROWS)
    if several:  # each reads all of their panels
        least = f.select(f.icmp("sgt", wide, 1), HELD * tile.rows, least)
    parts: Operand = 1
    for halvings in range(1, _HALVINGS + 1):
        divisible = f.icmp("sge", chunk, f.mul(least, 1 << halvings))
        parts = f.select(f.op("and", divisible, f.icmp("sgt", nth, 1)), halvings + 1, parts)
    early = f.max(f.sub(every, nth), 0)
    last_units = f.sub(every, early)
    # the last part of several panels, some at a time
    pieces: Operand = 1
    if several:
        pieces = f.div(f.add(wide, _PART_PANELS - 1), _PART_PANELS)
        pieces = f.select(f.icmp("sgt", parts, 1), pieces, 1)

    def part_from(part: Operand) -> Operand:
        rows = f.sub(chunk, f.typed(f.op("lshr", chunk, part), "i64"))
        return f.select(f.icmp("slt", part, parts), f.mul(f.div(rows, tile.rows), tile.rows), chunk)

    in_parts = f.mul(last_units, f.add(parts, f.sub(pieces, 1)))
    counts = f.alloca("i64", 2)  # units that this thread took, and parts
    f.store(zero(vector(2, "i64")), counts, 8)
    with f.units(f.add(early, in_parts)) as drawn:
        late = f.sub(drawn, early)
        entire = f.icmp("slt", late, 0)
        count = f.gep(counts, f.cast("zext", f.op("xor", entire, True), "i64"), "i64")
        mine = f.load("i64", count)
        f.store(f.typed(f.add(mine, 1), "i64"), count)
        number, total = f.select(entire, drawn, late), f.select(entire, early, in_parts)
        number = f.own_first(number, mine, total)
        part, piece = f.div(number, last_units), 0
        if several:
            piece = f.max(f.sub(part, f.sub(parts, 1)), 0)
            part = f.sub(part, piece)
        unit = f.select(entire, number, f.add(early, f.rem(number, last_units)))
        unit = f.apart(unit, every)
        column = f.rem(unit, columns)
        m_start = f.mul(f.div(unit, columns), chunk)
        m_from = f.add(m_start, f.select(entire, 0, part_from(part)))
        m_end = f.select(entire, chunk, part_from(f.add(part, 1)))
        m_to = f.min(f.add(m_start, m_end), h["M"])
        batch, panel0 = f.div(column, panels), f.mul(f.rem(column, panels), wide)
        panel: Operand = 0
        count_: Operand = 1
        if several:
            there = f.min(f.sub(each, panel0), wide)
            split = f.op("and", f.icmp("eq", part, f.sub(parts, 1)), f.icmp("sgt", pieces, 1))
            split = f.op("and", split, f.op("xor", entire, True))
            panel = f.min(f.select(split, f.mul(piece, _PART_PANELS), 0), there)
            count_ = f.sub(there, panel)
            count_ = f.select(split, f.min(count_, _PART_PANELS), count_)
        n0 = f.mul(f.add(panel0, panel), tile.columns)
        n = f.min(f.sub(h["N"], n0), tile.columns)
        m_stop = f.min(f.add(m_start, chunk), h["M"])
        yield Unit(
            column, panels, wide, panel0, panel, count_, batch, n0, n, m_start, m_stop, m_from, m_to
        )


def _row_chunks(
    f: Function, tile: Tile, h: dict[str, Value], columns: Operand, nth: Operand, packing_rows: int
) -> tuple[Value, Operand, Value]:
    """How many rows of a panel are one unit, how many such there are, and whether a thread has all
    panels of its rows. All rows where panels alone keep the threads busy (then each is packed
    once), but no more than the last cache holds of A, which every panel reads, and few where a
    short k makes a result that it does not hold: panel after panel then completes rows that are
    near. Else as many as let the thread with the most be done first, packing included.
    """
    m, k = h["M"], h["K"]
    even = f.icmp("eq", f.rem(columns, nth), 0)
    many = f.icmp("sge", columns, f.mul(nth, 6))
    whole = f.op("or", even, many)
    near: Operand = NEAR
    if tile.a_class == "sliced":
        near = f.select(f.icmp("eq", h["most"], 1), _SLICES, NEAR)
    fewest = f.div(f.add(f.mul(f.mul(m, k), tile.itemsize), f.sub(near, 1)), near)
    size = f.mul(f.mul(m, h["N"]), tile.itemsize)
    far = f.op("and", f.icmp("sgt", size, 2 * NEAR), f.icmp("sle", k, KC))
    fewest = f.max(fewest, f.select(far, f.div(m, _FEW_ROWS), 1))
    # each thread its own rows, of which it wrote what the operands hold: where B is small
    packed, twice = f.icmp("sgt", h["direct"], 1), native.host().multiplies_twice
    twice = twice and not tile.pairs
    bytes_of_b = f.mul(f.mul(k, h["N"]), tile.itemsize)
    tall = f.select(f.icmp("sle", bytes_of_b, _NEAR_B), _TALL_NEAR, _TALL_TWICE) if twice else _TALL
    least = f.select(packed, tall, _TALL_PACKING)
    own = f.icmp("sle", bytes_of_b, _OWN)
    own = f.op("or", own, packed) if twice else own
    own = f.op("and", own, f.icmp("sge", m, f.mul(nth, least)))
    own = f.op("and", own, f.icmp("eq", h["batches"], 1))
    tiles = f.div(f.add(m, tile.rows - 1), tile.rows)
    packing = f.select(f.icmp("eq", h["direct"], 0), packing_rows, 1)
    trials = f.min(tiles, f.select(whole, 1, f.mul(nth, 2)))
    with f.loop(0, trials, 1, [("i64", 1 << 62), ("i64", tile.rows)]) as L:
        wanted = f.add(fewest, L.i)
        chunk = f.max(f.mul(f.div(f.add(tiles, f.sub(wanted, 1)), wanted), tile.rows), tile.rows)
        count = f.div(f.add(m, f.sub(chunk, 1)), chunk)
        turns = f.div(f.add(f.mul(columns, count), f.sub(nth, 1)), nth)
        cost = f.mul(turns, f.add(f.div(m, count), packing))
        better = f.icmp("slt", cost, L.carry[0])
        L.next = [f.select(better, cost, L.carry[0]), f.select(better, chunk, L.carry[1])]
    wanted = f.mul(f.div(f.add(fewest, f.sub(nth, 1)), nth), nth)
    chunk = f.div(f.add(m, f.sub(wanted, 1)), wanted)
    one = f.icmp("eq", wanted, nth)  # even shares then, not whole tiles
    tiles = f.mul(f.div(f.add(chunk, tile.rows - 1), tile.rows), tile.rows)
    chunk = f.select(own, f.select(one, chunk, tiles), L.carry[1])
    return chunk, f.div(f.add(m, f.sub(chunk, 1)), chunk), own


@dataclass(frozen=True)
class _Soon:
    """How the tiles of a panel ask for the lines of what comes next.

    A micro-kernel asks for k / UNROLL lines, `step` elements apart, and for those `far` elements
    behind each. Tile number q * across + r, if below `tiles`, begins at `start` + q * outer +
    r * inner; later ones ask for one line again and again.
    """

    start: Value
    across: Operand
    outer: Operand
    inner: Operand
    step: Operand
    far: Operand
    tiles: Operand

    @staticmethod
    def of(
        f: Function, tile: Tile, h: dict[str, Value], step_k: tuple[Operand, Value],
        soon_kc: Operand, start: Value, packed: Value, *, b_rows: bool,
    ) -> "_Soon":  # fmt: skip
        """Of B, where `soon_kc` rows of it come next, perhaps packed. Tiles ask in so many steps of
        k, and whether that is a piece.
        """
        line = 64 // tile.itemsize
        kc, pieces = step_k
        asked = f.max(f.div(kc, UNROLL), 1)
        # two runs of lines where few rows have few tiles, or where A's lines are asked for too
        two = f.op("or", f.op("or", packed, pieces), f.icmp("sgt", h["batches"], 1))
        far = f.select(two, asked, 0)
        twice = f.add(asked, f.mul(far, tile.runs - 1))
        if not b_rows:  # a line of every column, where k is short of some of them
            across = f.div(f.add(tile.columns - 1, twice), twice)
            tiles = f.mul(f.div(f.add(soon_kc, line - 1), line), across)
            step = h["b_cs"]
            return _Soon(start, across, line, f.mul(twice, step), step, f.mul(far, step), tiles)
        lines = -(-tile.columns // line)
        across = f.select(packed, 1, lines)  # packed: line after line
        step = f.select(packed, line, h["b_rs"])
        wanted = f.mul(soon_kc, f.select(packed, lines, 1))
        runs = f.div(f.add(wanted, f.sub(twice, 1)), twice)
        outer, tiles = f.mul(twice, step), f.mul(runs, across)
        return _Soon(start, across, outer, line, step, f.mul(far, step), tiles)

    @staticmethod
    def of_a(f: Function, tile: Tile, h: dict[str, Value], start: Value) -> "_Soon":
        """Of an A of one block."""
        line = 64 // tile.itemsize
        count, width, pitch = h["M"], h["K"], h["a_rs"]
        if tile.a_class == "columns":
            count, width, pitch = width, count, h["a_cs"]
        asked = f.max(f.div(h["K"], UNROLL), 1)
        twice = f.mul(asked, 2)
        lines = f.max(f.div(f.add(width, line - 1), line), 1)
        flat = f.icmp("eq", pitch, width)  # line after line
        pitch = f.select(flat, line, pitch)
        across = f.select(flat, 1, lines)
        runs = f.div(f.add(f.mul(count, f.select(flat, lines, 1)), f.sub(twice, 1)), twice)
        tiles = f.select(f.icmp("sle", h["K"], KC), f.mul(runs, across), 0)
        return _Soon(start, across, f.mul(twice, pitch), line, pitch, f.mul(asked, pitch), tiles)

    def tile(
        self, f: Function, element: str, number: Operand, then: "_Soon"
    ) -> tuple[Value, Operand, Operand]:
        """Where a tile begins to ask, and its two distances."""
        late = f.icmp("sge", number, self.tiles)
        number = f.sub(number, f.select(late, self.tiles, 0))
        start, across, outer, inner, step, far, tiles = (
            f.select(late, getattr(then, n), getattr(self, n)) for n in _FIELDS
        )
        at = f.add(f.mul(f.div(number, across), outer), f.mul(f.rem(number, across), inner))
        here = f.icmp("slt", number, tiles)
        start = f.gep(start, f.select(here, at, 0), element)
        return start, f.select(here, step, 0), f.select(here, far, 0)


_FIELDS = ("start", "across", "outer", "inner", "step", "far", "tiles")


def _width_index(f: Function, tile: Tile, n: Operand) -> Value:
    """Which of `tile.widths` holds n columns: 0 is the widest."""
    index: Operand = 0
    for i, vectors in enumerate(tile.widths[1:], start=1):
        index = f.select(f.icmp("sle", n, vectors * tile.lanes), i, index)
    return f.typed(index, "i64")


def _is_width(f: Function, tile: Tile, n: Operand) -> Value:
    """Whether some micro-kernel is exactly n columns wide."""
    found: Operand = Value("false", "i1")
    for vectors in tile.widths:
        found = f.op("or", found, f.icmp("eq", n, vectors * tile.lanes))
    return f.typed(found, "i1")


def _cases(f: Function, tile: Tile, width: Operand, rows: Operand):
    """Emit a switch over (width, rows); yields (rows, vectors) of each case."""
    pitch = tile.rows + 1
    key = f.add(f.mul(width, pitch), rows)
    table = {
        i * pitch + r: (r, vectors)
        for i, vectors in enumerate(tile.widths)
        for r in range(1, tile.rows + 1)
    }
    for case in f.switch(key, table, default=tile.rows):
        yield table[case]


def batch_offsets(
    f: Function, dims: Value, count: Value, batch: Operand
) -> tuple[Value, Value, Value]:
    """The element offsets of a, b and out of the flat batch index; dims are (size, a, b, out),
    outermost first.
    """
    start = [("i64", batch), ("i64", 0), ("i64", 0), ("i64", 0)]
    with f.loop(0, count, 1, start) as d:
        last = f.sub(f.sub(count, 1), d.i)
        dim = f.gep(dims, f.mul(last, 4), "i64")
        size, *strides = f.words(dim, 0, ["i64"] * 4)
        rest, *offsets = d.carry
        with f.if_else(f.icmp("slt", rest, size)) as way:  # no division for a single dim
            way.otherwise()
            above, at = f.div(rest, size), f.rem(rest, size)
        at, above = way.merge("i64", rest, at), way.merge("i64", 0, above)
        d.next = [
            above,
            *(f.add(o, f.mul(at, s)) for o, s in zip(offsets, strides, strict=True)),
        ]
    return d.carry[1], d.carry[2], d.carry[3]


__all__ = [
    "MAX_INPUTS", "NEAR", "Packer", "Unit", "batch_offsets", "extra_word", "gemm_ints",
    "gemm_kernel", "head_of", "kernel_names", "pack_any", "pack_columns", "pack_kernel",
    "pack_rows", "rooms", "units_of_rows",
]  # fmt: skip
