"""Products of bfloat16 in tile registers (`amx`): words of two neighbours along k, rows by columns.

A is rows of words, `ROWS` of them a tile: as it lies where its k is adjacent and fills whole
chunks, else copied to scratch memory first. B is packed, from its own memory, as panels of 64
columns. Both end with zeros that fill a chunk, so no instruction reads beyond them.

The numbers: words in chunks of 16 from k = 0 on, each chunk one instruction (`amx` says what it
adds), all chunks in order to one sum. Nothing else changes them: sums that leave the registers
between blocks of a long k come back as they were.

A tile of up to 16 rows is one register of A by four of B; of more, two of A by two of B, twice.
An epilogue waits for the next tile's products and runs among them (`ending_tiles`).
Products are as fast as the second cache delivers their operands, so a panel is done with before
the next, which is asked for meanwhile.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from weft.core import dtype as D
from weft.kernels.layout import Layout
from weft.kernels.schedule import amx
from weft.kernels.schedule.ending_tiles import Ending, Pending, Shares
from weft.kernels.schedule.gemm_code import (
    BODY,
    MAX_INPUTS,
    PACK,
    Unit,
    batch_offsets,
    emit_entries,
    extra_word,
    head_of,
    units_of_rows,
)
from weft.kernels.schedule.gemm_micro import ENDING
from weft.kernels.schedule.gemm_plain import described, outer_offset
from weft.kernels.schedule.tile import Tile, tile_for
from weft.kernels.schedule.words import Words, halves_of_two, sums_to
from weft.kernels.target.element import memory
from weft.kernels.target.llvm import BYTES, Function, Module, Operand, Value, vector, zero
from weft.runtime import native

ROWS = 2 * amx.ROWS
WORDS = amx.DEPTH  # of a chunk
CHUNK = 2 * WORDS  # numbers
_BLOCK = 1536  # words of a panel that stay in the second cache
COLUMNS = 64
_LINE = 4 * COLUMNS  # bytes of a row of a panel
_PACKING = 96  # rows whose product takes as long as to pack a panel
_PART_ROWS = 96  # of packed panels: products take so little time that to fetch one counts

# The extra words of a product's ints: the word of A's descriptor (0: A lies as it must), where the
# sums of a long k lie in scratch, and the bytes of scratch before the threads' rooms.
N_EXTRA = 3


def chunks_of(k: int) -> int:
    return max(-(-k // CHUNK), 1)


def lines_of(k: int) -> int:
    """From row to row of words: an odd number, so that neighbours' lines lie in other sets of the
    first cache.
    """
    return chunks_of(k) | 1


def scratch_per_thread(k: int, *, packed: bool) -> int:
    """The sums of two tiles, and a panel where b is not packed before."""
    return (2 * ROWS + (0 if packed else min(chunks_of(k) * WORDS, _BLOCK))) * _LINE


def is_one_block(k: int) -> bool:
    """Whether sums never leave the registers before they are whole."""
    return chunks_of(k) * WORDS <= _BLOCK


def packed_size(k: int, n: int) -> int:
    return -(-n // COLUMNS) * chunks_of(k) * WORDS * _LINE


def panel_rows(k: int) -> int:
    """Words from one packed panel to the next, for each of its columns."""
    return chunks_of(k) * WORDS


def descriptor(layout: Layout, offset: int) -> tuple[list[int], Layout]:
    """Where an A (..., m, k) lies and where its words go: offset in scratch, sizes, strides, count
    of matrices and of dims, (size, stride) of each; and the layout of the words, as 16-bit cells.
    """
    (m, k), pitch = layout.shape[-2:], CHUNK * lines_of(layout.shape[-1])
    kept = [
        (n, s) for n, s in zip(layout.shape[:-2], layout.strides[:-2], strict=True) if s and n != 1
    ]
    strides, step, count = [1, pitch], pitch * m, 1
    for n, s in zip(reversed(layout.shape[:-2]), reversed(layout.strides[:-2]), strict=True):
        repeated = s == 0 or n == 1
        strides.append(0 if repeated else step)
        step *= 1 if repeated else n
        count *= 1 if repeated else n
    words = Layout(layout.shape, tuple(reversed(strides)), layout.dtype)
    table = [offset, m, k, *layout.strides[-2:], count, len(kept)]
    return [*table, *(x for pair in kept for x in pair)], words


def size_of(table: list[int]) -> int:
    """Bytes of the words that a descriptor describes, whole lines."""
    return max(table[5] * table[1], 1) * lines_of(table[2]) * WORDS * amx.CELL


@cache
def products(b_class: str, source: str, out: str, *, packed: bool) -> list[int]:
    """The loops for 2, 3, ... inputs; `source` and `out` are how b and the result lie."""
    names = _names()
    found = native.load_made(names, _products_ir, b_class, source, out, packed=packed)
    return [found[name] for name in names]


def _names() -> list[str]:
    return [f"gemm{n_in}" for n_in in range(2, MAX_INPUTS + 1)]


def _products_ir(b_class: str, source: str, out: str, *, packed: bool) -> str:
    module = Module()
    tile = _tile()
    if not packed:
        _emit_pack(module, b_class, source)
    _tile_code(module)
    _ending(module, out)
    _emit_products(module.function("products", BODY, internal=True), tile, source, out, packed)
    emit_entries(module, _names())
    return module.text()


@cache
def packer(b_class: str, source: str) -> int:
    """All of b to panels."""
    return native.load_made(["pack_all"], _packer_ir, b_class, source)["pack_all"]


def _packer_ir(b_class: str, source: str) -> str:
    module = Module()
    _emit_pack(module, b_class, source)
    f = module.kernel("pack_all")
    out, b = f.words("%args", 2, ["ptr"] * 2)
    head = f.gep("%args", 5, "i64")
    h = head_of(f, head)
    words = _words(f, h["K"])
    chunks = f.div(words, WORDS)
    panels = f.div(f.add(h["N"], COLUMNS - 1), COLUMNS)
    # a panel in pieces of k that lie in the first cache
    pieces = f.div(f.add(chunks, _PIECE - 1), _PIECE)
    with f.units(f.mul(panels, pieces)) as unit:
        n0 = f.mul(f.div(unit, pieces), COLUMNS)
        k0 = f.mul(f.rem(unit, pieces), _PIECE * WORDS)
        place = f.gep(out, f.add(f.mul(n0, f.mul(words, 4)), f.mul(k0, _LINE)))
        kc, n = f.min(f.sub(words, k0), _PIECE * WORDS), f.min(f.sub(h["N"], n0), COLUMNS)
        f.call("pack", "void", place, b, head, k0, kc, n0, n)
    f.ret()
    return module.text()


_PIECE = 24  # chunks


@cache
def stage(n_in: int, a_class: str, source: str) -> int:
    """Of a launch with so many inputs: a to its words."""
    return native.load_made(["stage"], _stage_ir, n_in, a_class, source)["stage"]


def _stage_ir(n_in: int, a_class: str, source: str) -> str:
    module = Module()
    f = module.kernel("stage")
    u = _units(f, source)
    array, scratch, table = described(f, 0, n_in)
    offset, m, k, m_step, k_step, count, dims = f.words(table, 0, ["i64"] * 7)
    # where rows of a lie across, a line of memory has the numbers of 32
    step = ROWS if a_class == "columns" else amx.ROWS
    groups = f.div(f.add(m, step - 1), step)
    pitch = f.mul(f.op("or", f.div(_words(f, k), WORDS), 1), WORDS * amx.CELL)
    first, last = f.split(f.mul(count, groups))
    with f.loop(first, last) as unit:
        matrix, top = f.div(unit.i, groups), f.mul(f.rem(unit.i, groups), step)
        outer = outer_offset(f, f.gep(table, 7, "i64"), dims, matrix)
        end = f.min(f.add(top, step), m)
        with f.loop(0, f.max(k, 1), CHUNK) as at, f.loop(top, end, amx.ROWS) as row:
            to = f.gep(scratch, f.add(offset, f.mul(f.add(f.mul(matrix, m), row.i), pitch)))
            rows = f.sub(m, row.i)

            def put(square: list[Value], whole: bool, at=at, to=to, rows=rows) -> None:
                for i, v in enumerate(square):
                    place = f.gep(to, f.add(f.mul(pitch, i), f.mul(at.i, 2)))
                    if whole:
                        f.store(v, place)
                    else:
                        with f.iff(f.icmp("slt", i, rows)):
                            f.store(v, place)

            here = f.add(f.add(outer, f.mul(row.i, m_step)), f.mul(at.i, k_step))
            steps, left = (m_step, k_step), (rows, f.sub(k, at.i))
            here = f.gep(array, here, source)
            _square(f, u, here, steps, left, a_class, put, across=False)
    f.ret()
    return module.text()


def _tile() -> Tile:
    return replace(tile_for("float"), pairs=True, rows=ROWS)


def _units(f: Function, source: str) -> Words:
    return Words(f, D.bfloat16 if source == "i16" else D.float32, WORDS)


def _words(f: Function, k: Operand) -> Operand:
    """Of so many numbers, whole chunks."""
    return f.mul(f.max(f.div(f.add(k, CHUNK - 1), CHUNK), 1), WORDS)


# -- squares of 16 by 16 words


def _square(
    f: Function, u: Words, at: Value, steps: tuple[Operand, Operand],
    left: tuple[Operand, Operand], along: str, put: Callable[[list[Value], bool], None], *,
    across: bool,
) -> None:  # fmt: skip
    """Hand to `put` 16 vectors of words, those of a line of the operand each (`across`: of a step
    of k each), and whether all lines exist. `steps` are the distances of lines and of numbers
    along k, `left` how many there are from `at` on; what is beyond is zero.

    `along` "rows": the numbers along k are adjacent; "columns": lines are; or "any".
    """
    lines, numbers = left
    enough = f.icmp("sge", lines, WORDS), f.icmp("sge", numbers, CHUNK)
    if along == "any":
        put(_turned(f, _apart(f, u, at, steps, left), turn=across), False)
        return
    turn = across == (along == "rows")
    with f.if_else(f.op("and", *enough)) as way:
        put(_turned(f, _read(f, u, at, steps, None, along), turn=turn), True)
        way.otherwise()
        put(_turned(f, _read(f, u, at, steps, left, along), turn=turn), False)


def _turned(f: Function, square: list[Value], *, turn: bool) -> list[Value]:
    return f.transpose(square) if turn else square


def _read(
    f: Function, u: Words, at: Value, steps: tuple[Operand, Operand],
    left: tuple[Operand, Operand] | None, along: str,
) -> list[Value]:  # fmt: skip
    """A vector for each line, or for each step of k: what lies in memory so."""
    source, (line, step) = memory(u.d), steps

    def some(masks: list[Value], exists: Value) -> list[Value]:
        return [f.select(f.splat(exists, m.type), m, zero(m.type)) for m in masks]

    out = []
    for i in range(WORDS):
        if along == "rows":
            place = f.gep(at, f.mul(line, i), source)
            masks = None if left is None else some(u.masks(left[1]), f.icmp("slt", i, left[0]))
            out.append(u.adjacent(place, masks))
            continue
        parts = []
        for k in (2 * i, 2 * i + 1):
            place, type = f.gep(at, f.mul(step, k), source), vector(WORDS, source)
            if left is None:
                parts.append(f.load(type, place))
                continue
            (mask,) = some([f.lane_mask(left[0], WORDS)], f.icmp("slt", k, left[1]))
            parts.append(f.masked_load(type, place, mask))
        out.append(u.of(parts, WORDS))
    return out


def _apart(
    f: Function, u: Words, at: Value, steps: tuple[Operand, Operand], left: tuple[Operand, Operand]
) -> list[Value]:
    """A vector for each line, whose numbers lie anywhere."""
    room, type = f.alloca("float", WORDS * WORDS), vector(WORDS, "float")
    for i in range(WORDS):
        f.store(zero(type), f.gep(room, WORDS * i, "float"))
    source = memory(u.d)
    with f.loop(0, f.min(left[0], WORDS)) as i, f.loop(0, f.min(left[1], CHUNK), 2) as k:
        place = f.gep(at, f.add(f.mul(i.i, steps[0]), f.mul(k.i, steps[1])), source)
        more = f.icmp("slt", f.add(k.i, 1), left[1])
        word = u.unit(lambda p: f.load(source, p), place, steps[1], more, 1)
        f.store(word, f.gep(room, f.add(f.mul(i.i, WORDS), f.div(k.i, 2)), "float"))
    return [f.load(type, f.gep(room, WORDS * i, "float")) for i in range(WORDS)]


def _emit_pack(module: Module, b_class: str, source: str) -> None:
    """panel[kc words][64] from a b of strides (b_rs, b_cs), columns from n0 on, n of them."""
    f = module.function("pack", PACK, internal=True)
    u, h = _units(f, source), head_of(f, f.arg("head"))
    along = {"rows": "columns", "columns": "rows", "any": "any"}[b_class]

    def squares(column: Operand, k: Operand) -> None:
        number, line = f.mul(f.add(f.arg("k0"), k), 2), f.add(f.arg("n0"), column)
        at = f.add(f.mul(number, h["b_rs"]), f.mul(line, h["b_cs"]))
        to = f.gep("%panel", f.add(f.mul(k, _LINE), f.mul(column, 4)))

        def put(square: list[Value], _whole: bool) -> None:
            for i, v in enumerate(square):
                f.store(v, f.gep(to, _LINE * i))

        left = f.sub(f.arg("n"), column), f.sub(h["K"], number)
        here = f.gep(f.arg("b"), at, source)
        _square(f, u, here, (h["b_cs"], h["b_rs"]), left, along, put, across=True)

    if b_class == "rows":  # neighbours of a row of b lie in the same lines
        with f.loop(0, f.arg("kc"), WORDS) as k:
            number = f.mul(f.add(f.add(f.arg("k0"), k.i), WORDS), 2)
            at = f.add(f.mul(number, h["b_rs"]), f.arg("n0"))
            for row in range(CHUNK):  # of the next chunk: each in another page
                line = f.gep(f.arg("b"), f.add(at, f.mul(h["b_rs"], row)), source)
                for byte in range(0, COLUMNS * BYTES[source], 64):
                    f.touch(f.gep(line, byte))
            with f.loop(0, f.arg("n"), WORDS) as column:
                squares(column.i, k.i)
    else:
        with f.loop(0, f.arg("n"), WORDS) as column, f.loop(0, f.arg("kc"), WORDS) as k:
            squares(column.i, k.i)
    f.ret()


# -- a tile

_TILE = [
    ("i64", "chunks"), ("ptr", "a"), ("i64", "pitch"), ("ptr", "b"), ("ptr", "c"),
    ("i64", "c_pitch"), ("i64", "first"), ("ptr", "soon"), ("i64", "lines"),
]  # fmt: skip
_SHAPES = {"two": (2, 2), "four": (1, 4), "pair": (1, 2)}  # registers of A, of B


def _tile_code(module: Module) -> None:
    for name, (down, across) in _SHAPES.items():
        _emit_tile(module.function(name, _TILE, internal=True), down, across)


def emit_finish(module: Module, ending: Ending) -> None:
    """`finish`: two registers of A by two of B, among their products the `ending` of `rows` rows
    and 32 columns of earlier `sums`.
    """
    f = module.function("finish", [*_TILE, *ENDING, ("ptr", "sums"), ("i64", "rows")])
    _emit_tile(f, *_SHAPES["two"], ending)


def _emit_tile(f: Function, down: int, across: int, ending: Ending | None = None) -> None:
    """c = (first ? 0 : c) + a . b, of registers whose rows are configured.

    Meanwhile `lines` lines, a multiple of 4, from `soon` on are brought to the second cache, for
    each chunk those that are a chunk's bytes farther on, and the next chunk of b to the first.
    """
    cells = {(i, j): i * across + j for i in range(down) for j in range(across)}
    place = {
        (i, j): f.gep("%c", f.add(f.mul(f.arg("c_pitch"), amx.ROWS * i), 64 * j)) for i, j in cells
    }
    amx.begin(f, [(c, place[at]) for at, c in cells.items()], f.arg("c_pitch"), f.arg("first"))
    a_rows = [f.mul(f.arg("pitch"), amx.ROWS * i) for i in range(down)]
    shares = Shares(f, ending, f.mul(f.arg("chunks"), down * across))
    carry: list[tuple[str, Operand]] = [("ptr", "%a"), ("ptr", "%b"), ("ptr", "%soon")]
    with f.loop(0, f.arg("chunks"), 1, [*carry, *shares.start]) as L:
        a, b, soon, *state = L.carry
        for i in range(down):
            amx.load(f, 4 + i, f.gep(a, a_rows[i]), f.arg("pitch"))
        for j in range(across):
            register = (6, 7, 5, 6)[j]
            amx.load(f, register, f.gep(b, 64 * j), _LINE)
            for i in range(down):
                amx.multiply_pairs(f, cells[i, j], 4 + i, register)
                state = shares.behind(state)
        for row in range(WORDS):
            for j in range(across):
                f.touch(f.gep(b, (WORDS + row) * _LINE + 64 * j))
        with f.loop(0, f.arg("lines"), 4) as line:
            for more in range(4):
                f.touch(f.gep(soon, f.mul(f.add(line.i, more), 64)), level=2)
        L.next = [
            f.gep(a, 64),
            f.gep(b, WORDS * _LINE),
            f.gep(soon, WORDS * _LINE),
            *state,
        ]
    for at, c in cells.items():
        amx.store(f, c, place[at], f.arg("c_pitch"))
    f.ret()


def _ending(module: Module, out: str) -> None:
    """`fetch`: sums from memory to a tile; `put`: back; `end`: to the result."""
    d = D.bfloat16 if out == "i16" else D.float32
    for name, dtype in (("fetch", D.float32), ("put", D.float32), ("end", d)):
        args = [("ptr", "tile"), ("ptr", "c"), ("i64", "ldc"), ("i64", "rows"), ("i64", "n")]
        f = module.function(name, args, internal=True)
        _emit_copy(f, dtype, back=name == "fetch")


def _emit_copy(f: Function, d: D.dtype, *, back: bool) -> None:
    n, type, lanes = f.arg("n"), vector(WORDS, "float"), WORDS

    def strip(row: Operand, column: Operand, mask: Value | None, vectors: int = 1) -> None:
        tile = f.gep("%tile", f.add(f.mul(row, COLUMNS), column), "float")
        c = f.gep("%c", f.add(f.mul(row, f.arg("ldc")), column), memory(d))
        if back:
            f.store(f.load(type, c) if mask is None else f.masked_load(type, c, mask), tile)
            return
        values = [f.load(type, f.gep(tile, lanes * v, "float")) for v in range(vectors)]
        if d is D.bfloat16 and vectors > 1:
            pairs = zip(values[::2], values[1::2], strict=True)
            values = [halves_of_two(f, *pair, lanes) for pair in pairs]
        elif d is D.bfloat16:
            values = [sums_to(f, values[0], d, lanes)]
        for v, value in enumerate(values):
            if mask is None:
                f.store(value, f.gep(c, 64 * v))
            else:
                f.masked_store(value, c, mask)

    # a whole panel is usual
    wide = 0 if back else f.select(f.icmp("eq", n, COLUMNS), COLUMNS, 0)
    whole = f.mul(f.div(n, lanes), lanes)
    with f.loop(0, f.arg("rows")) as row:
        with f.loop(0, wide, COLUMNS):
            strip(row.i, 0, None, COLUMNS // lanes)
        with f.loop(wide, whole, lanes) as column:
            strip(row.i, column.i, None)
        with f.iff(f.icmp("slt", whole, n)):
            strip(row.i, whole, f.lane_mask(f.sub(n, whole), lanes))
    f.ret()


# -- the loops


def _emit_products(f: Function, tile: Tile, source: str, out_type: str, packed: bool) -> None:
    """Those of one thread."""
    out, given, b = f.words("%args", 2, ["ptr"] * 3)
    h = head_of(f, f.arg("head"))
    scratch = f.arg("scratch")
    extra = extra_word(0) - 4
    table, sums_at, shared = f.words("%head", extra, ["i64"] * N_EXTRA)
    copied = f.icmp("ne", table, 0)
    a_offset = f.load("i64", f.gep("%args", table, "i64"))
    a = f.select(copied, f.gep(scratch, f.select(copied, a_offset, 0)), given)
    dims = f.gep("%head", extra + N_EXTRA, "i64")
    words = _words(f, h["K"])
    room_words = 0 if packed else f.min(words, _BLOCK)
    tid = f.thread()
    room = f.gep(scratch, f.add(shared, f.mul(tid, f.mul(f.add(room_words, 2 * ROWS), _LINE))))
    corners = [f.gep(room, f.mul(f.add(room_words, i * ROWS), _LINE)) for i in range(2)]
    turn = f.alloca("i64", 1)  # which corner has the next sums: the other's may wait
    f.store(f.typed(0, "i64"), turn)
    one_block = f.icmp("sle", words, _BLOCK)
    kept = f.alloca("i64", 1)  # the panel that lies packed
    f.store(f.typed(-1, "i64"), kept)
    configured = f.alloca("i64", 1)
    f.store(f.typed(-1, "i64"), configured)
    ends, pending = f.icmp("ne", h["epilogue"], 0), Pending(f, h, COLUMNS)
    pitch = f.mul(h["a_rs"], 2)
    with units_of_rows(f, tile, h, packing=_PACKING, packed_part=_PART_ROWS) as unit:
        a_batch, b_batch, c_batch = batch_offsets(f, dims, h["dims"], unit.batch)
        a_base, b_base = f.gep(a, a_batch, "i16"), f.gep(b, b_batch, "float" if packed else source)
        c_base = f.gep(out, f.add(c_batch, unit.n0), out_type)
        sums, ldc = c_base, h["ldc"]
        if out_type == "i16":
            at = f.add(f.mul(f.mul(unit.batch, h["M"]), h["N"]), unit.n0)
            sums, ldc = f.gep(f.gep(scratch, sums_at), at, "float"), h["N"]
        deep = f.select(f.icmp("slt", unit.m_from, unit.m_to), words, 0)
        with f.loop(0, deep, _BLOCK) as block:
            kc = f.min(f.sub(words, block.i), _BLOCK)
            first = f.icmp("eq", block.i, 0)
            last = f.icmp("sge", f.add(block.i, _BLOCK), words)
            if packed:
                panel = f.gep(b_base, f.mul(f.add(f.mul(unit.n0, words), f.mul(block.i, 64)), 4))
            else:
                panel = room
                new = f.icmp("ne", f.load("i64", kept), unit.column)
                with f.iff(new):
                    places = block.i, kc, unit.n0, unit.n
                    f.call("pack", "void", panel, b_base, f.arg("head"), *places)
                    f.store(f.typed(f.select(one_block, unit.column, -1), "i64"), kept)
            soon = _Soon(f, unit, packed, f.gep(panel, f.mul(words, _LINE)))
            a_block = f.gep(a_base, f.mul(block.i, 2), "i16")
            with f.loop(unit.m_from, unit.m_to, ROWS) as row:
                rows = f.min(f.sub(unit.m_to, row.i), ROWS)
                with f.iff(f.icmp("ne", rows, f.load("i64", configured))):
                    _configure(f, rows)
                    f.store(f.typed(rows, "i64"), configured)
                other = f.select(ends, f.op("xor", f.load("i64", turn), 1), 0)
                f.store(other, turn)
                corner = f.select(f.icmp("eq", other, 0), *corners)
                place = f.gep(sums, f.mul(row.i, ldc), "float")
                with f.iff(f.op("xor", first, True)):
                    f.call("fetch", "void", corner, place, ldc, rows, unit.n)
                a_rows = f.gep(a_block, f.mul(row.i, h["a_rs"]), "i16")
                fresh = f.cast("zext", first, "i64")
                chunks = f.div(kc, WORDS)

                def tile_at(
                    column: int, passes: int, chunks=chunks, a_rows=a_rows, panel=panel,
                    corner=corner, fresh=fresh, soon=soon, row=row,
                ) -> tuple[Operand, ...]:  # fmt: skip
                    b_at, c_at = f.gep(panel, 4 * column), f.gep(corner, 4 * column)
                    ask = soon.lines(row.i, column // 32, passes)
                    return (chunks, a_rows, pitch, b_at, c_at, _LINE, fresh, *ask)

                wide = f.icmp("sgt", unit.n, 32)
                whole = f.op("and", f.icmp("eq", rows, ROWS), f.icmp("eq", unit.n, COLUMNS))
                with f.if_else(f.op("and", whole, pending.whole())) as way:
                    for column in (0, 32):
                        pending.among(tile_at(column, 2), column)
                    way.otherwise()
                    pending.end()
                    with f.if_else(f.icmp("sgt", rows, amx.ROWS)) as tall:
                        f.call("two", "void", *tile_at(0, 2))
                        with f.iff(wide):
                            f.call("two", "void", *tile_at(32, 2))
                        tall.otherwise()
                        with f.if_else(wide) as narrow:
                            f.call("four", "void", *tile_at(0, 1))
                            narrow.otherwise()
                            f.call("pair", "void", *tile_at(0, 1))
                pending.none()
                with f.if_else(last) as way:
                    with f.if_else(ends) as end:
                        pending.wait(corner, row.i, rows, unit.n0, unit.n)
                        end.otherwise()
                        result = f.gep(c_base, f.mul(row.i, h["ldc"]), out_type)
                        f.call("end", "void", corner, result, h["ldc"], rows, unit.n)
                    way.otherwise()
                    f.call("put", "void", corner, place, ldc, rows, unit.n)
    pending.end()
    amx.release(f)
    f.ret()


class _Soon:
    """How the tiles of a packed panel share the lines of the next one."""

    def __init__(self, f: Function, unit: Unit, packed: bool, start: Value):
        self.f, self.unit, self.packed, self.start = f, unit, packed, start
        tiles = f.div(f.add(f.sub(unit.m_to, unit.m_from), ROWS - 1), ROWS)
        self.tiles = f.max(tiles, 1)

    def lines(self, row: Operand, number: int, passes: int) -> tuple[Operand, Operand]:
        """Where a tile's pass begins to ask, and for how many lines a chunk."""
        f = self.f
        if not self.packed:
            return self.start, 0
        shares = f.mul(self.tiles, passes)
        each = f.div(f.add(shares, 15), shares)  # by four lines, of the 64 of a chunk
        nth = f.add(f.mul(f.div(f.sub(row, self.unit.m_from), ROWS), passes), number)
        begin = f.mul(nth, each)
        some = f.icmp("slt", begin, 16)
        return f.gep(self.start, f.mul(begin, 256)), f.select(some, f.mul(each, 4), 0)


def _configure(f: Function, rows: Operand) -> None:
    """For a tile of so many rows: registers 0 to 3 of C, 4 (and 5, beyond 16 rows) of A, the others
    of B.
    """
    upper = f.min(rows, amx.ROWS)
    two = f.icmp("sgt", rows, amx.ROWS)
    lower = f.select(two, f.sub(rows, amx.ROWS), upper)
    a = f.select(two, lower, amx.ROWS)
    rows_of = (upper, upper, lower, lower, upper, a, amx.ROWS, amx.ROWS)
    amx.configure_now(f, [(r, amx.CELL * WORDS) for r in rows_of])
