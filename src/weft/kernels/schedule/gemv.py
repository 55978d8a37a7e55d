"""Products that pack nothing: one row times a matrix, and batches of small matrices.

    out[g, n] = sum over k of a[g, k] * b[g, k, n]

The numbers are those of `gemm_code`: lanes are columns of out, k runs in order inside blocks of KC.
A unit of columns that would end beyond the last column starts earlier instead: some columns are
then computed twice, to the same bits (an epilogue, which may write where it reads, gets those that
are its unit's own). Where b was packed for products of more rows, its panels are
read as they lie, or, of float32 that no cache holds, an eighth shorter: numbers that are zero or at
least 2**-14 of their group's largest power of two take 28 bits, and seven words hold eight in each
lane. A group of another number lies as it is. A byte a group, behind the panels, says which: the
exponent of what the short ones are multiplied with, or 0. (Of normal numbers 1 % are not short.)

A batch of products of at most two vectors of columns and KC terms reads b as it lies, the last
vector under a mask. Rows of a tile beyond the last one are the last one again, with the same sums.
"""

from collections.abc import Sequence
from functools import cache

from weft.kernels.schedule.gemm_code import (
    MAX_INPUTS,
    batch_offsets,
)
from weft.kernels.schedule.gemm_micro import multiply_add
from weft.kernels.schedule.tile import KC, Tile, tile_for
from weft.kernels.target.llvm import BYTES, Function, Module, Operand, Value, vector, zero
from weft.runtime import native
from weft.runtime.native import Launch, Stage

_HEAD = ("n", "k", "a_step", "b_step", "epilogue", "epilogue_at", "batches", "dims")
_NEAR = 2  # cache lines to prefetch along a row of a square: more streams than the hardware follows
_FAR = 8192  # bytes to prefetch beyond the same place of the next unit, which is read as it lies
_WIDEST = 4096  # columns of a unit at most: its sums stay in the first cache
_TOGETHER = 4  # rows of B read at once
_FAR_FROM = 16 << 20  # bytes of a B that no cache holds: twice as many rows at once
_STEP = 4  # vectors of a row read at once
_BATCH_HEAD = ("m", "n", "k", "a_rs", "a_cs", "b_rs", "ldc", "batches", "group", "dims")
_TILES = ((1, 4), (1, 8), (2, 6))  # vectors and rows: eight sums keep both multipliers busy
_GROUP_WORK = 1 << 16  # multiplications of a unit
_GROUP = 8  # vectors
_AHEAD = 8192  # bytes to prefetch along short groups, where the hardware comes too late
_LEFT = 15 << 27  # the bits of a word that its own number leaves to the eighth


def _narrowest(b_class: str, tile: Tile) -> int:
    """Columns of the smallest unit. Rows of B adjacent: one vector, since the columns of a large B
    often fall into the same cache sets, and two vectors' worth would push each other out.
    """
    return tile.lanes * (_STEP if b_class == "rows" else 1)


def gemv_fits(n: int, b_class: str, element: str) -> bool:
    """Whether there are enough columns for a unit, and B's strides suit."""
    return b_class != "any" and n >= _narrowest(b_class, tile_for(element))


def plan_gemv(
    sizes: tuple[int, int],
    a_step: int,
    b_step: int,
    b_class: str,
    element: str,
    batch: list[tuple[int, ...]],
    *,
    parallel: bool,
    quick: bool,
    epilogue: tuple[int, ...] = (),
    more: int = 0,
) -> Launch:
    """The launch for sizes (N, K); `b_step` is the stride of B that is not 1; `epilogue` is its
    address and ints, `more` the number of its own pointers.
    """
    batches = 1
    for size, *_ in batch:
        batches *= size
    address, *own = epilogue or (0,)
    dims = [word for dim in batch for word in dim]
    at = len(_HEAD) + len(dims)
    ints = (*sizes, a_step, b_step, address, at, batches, len(batch), *dims, *own)
    return Launch((Stage(_kernels(element, b_class)[more], parallel),), ints, quick=quick)


def plan_gemv_panels(
    sizes: tuple[int, int],
    a_step: int,
    element: str,
    *,
    parallel: bool,
    epilogue: tuple[int, ...] = (),
    more: int = 0,
    form: str = "panels",
) -> Launch:
    """As `plan_gemv`, of a b in the panels of `gemm_code.pack_kernel`, as they are or short."""
    address, *own = epilogue or (0,)
    ints = (*sizes, a_step, 0, address, len(_HEAD), 1, 0, *own)
    return Launch((Stage(_kernels(element, form)[more], parallel),), ints)


@cache
def _kernels(element: str, b_class: str) -> list[int]:
    """The kernels for 2, 3, ... inputs."""
    names = [f"gemv{n_in}" for n_in in range(2, MAX_INPUTS + 1)]
    found = native.load_made(names, _gemv_ir, element, b_class)
    return [found[name] for name in names]


def _gemv_ir(element: str, b_class: str) -> str:
    module = Module()
    body = module.function(
        "product", [("ptr", "args"), ("ptr", "head"), ("i32", "tid"), ("i32", "nth")], internal=True
    )
    if b_class in ("panels", "short"):
        _emit_panels(body, tile_for(element), is_short=b_class == "short")
    else:
        _emit(body, tile_for(element), b_class)
    for n_in in range(2, MAX_INPUTS + 1):
        f = module.kernel(f"gemv{n_in}")
        head = f.gep("%args", 4 + n_in, "i64")
        f.call("product", "void", f.arg("args"), head, f.arg("tid"), f.arg("nth"))
        f.ret()
    return module.text()


def _emit(f: Function, tile: Tile, b_class: str) -> None:
    element, lanes = tile.element, tile.lanes
    out, a, b = f.words("%args", 2, ["ptr"] * 3)
    h = f.named("%head", _HEAD)
    n, k, a_step, b_step = h["n"], h["k"], h["a_step"], h["b_step"]
    dims = f.gep("%head", len(_HEAD), "i64")
    widest = _WIDEST if b_class == "rows" else _narrowest(b_class, tile)
    totals, sums = (f.alloca(element, widest) for _ in range(2))
    epilogue = f.cast("inttoptr", h["epilogue"], "ptr")
    narrow = _narrowest(b_class, tile)
    width: Operand = narrow
    if b_class == "rows":  # a unit a thread: pieces of rows as long as may be
        nth = f.cast("sext", f.arg("nth"), "i64")
        units = f.max(nth, f.div(f.add(n, _WIDEST - 1), _WIDEST))
        share = f.div(f.add(n, f.sub(units, 1)), units)
        width = f.mul(f.div(f.add(share, narrow - 1), narrow), narrow)
        width = f.min(width, f.mul(f.div(n, narrow), narrow))
    units = f.div(f.add(n, f.sub(width, 1)), width)

    def start(unit: Operand) -> tuple[Operand, Sequence[Operand]]:
        """The first column of a unit, and where its a, b and out start."""
        return (
            f.min(f.mul(f.rem(unit, units), width), f.sub(n, width)),
            batch_offsets(f, dims, h["dims"], f.div(unit, units)),
        )

    far = f.icmp("sge", f.mul(f.mul(n, k), tile.itemsize), _FAR_FROM)
    total = f.mul(h["batches"], units)
    with f.units(total) as unit:
        n0, (a_at, b_at, out_at) = start(unit)
        a_row, b_batch = f.gep(a, a_at, element), f.gep(b, b_at, element)
        later = None
        if b_class != "rows":  # the last unit looks ahead at itself: it is in the cache
            following = f.unit_after()
            n1, (_, later_at, _) = start(f.select(f.icmp("slt", following, total), following, unit))
            later = f.gep(b, f.add(later_at, f.mul(n1, b_step)), element)
        with f.loop(0, f.max(k, 1), KC) as block:
            span = (block.i, f.min(f.add(block.i, KC), k))
            first = f.icmp("eq", block.i, 0)
            if later is None:
                operands = (a_row, a_step), (b_batch, b_step), span, (n0, width), sums
                with f.if_else(far) as way:
                    _rows(f, tile, *operands, together=2 * _TOGETHER)
                    way.otherwise()
                    _rows(f, tile, *operands, together=_TOGETHER)
            else:
                _columns(f, tile, (a_row, a_step), (b_batch, b_step), span, n0, (later, k), sums)
            with f.loop(0, width, lanes) as column:
                place = f.gep(totals, column.i, element)
                value = f.load(tile.type, f.gep(sums, column.i, element))
                total = f.op("fadd", f.load(tile.type, place), value)
                f.store(f.select(first, value, total), place)
        with f.if_else(f.icmp("ne", h["epilogue"], 0)) as way:
            ints = f.gep("%head", h["epilogue_at"], "i64")
            own = f.mul(f.rem(unit, units), width)
            before = f.sub(own, n0)
            f.call_at(
                epilogue, f.arg("args"), ints, f.gep(totals, before, element), 0, 0, 1, own,
                f.sub(width, before),
            )  # fmt: skip
            way.otherwise()
            target = f.gep(out, f.add(out_at, n0), element)
            with f.loop(0, width, lanes) as column:
                value = f.load(tile.type, f.gep(totals, column.i, element))
                f.store(value, f.gep(target, column.i, element))
    f.ret()


def _emit_panels(f: Function, tile: Tile, *, is_short: bool) -> None:
    """Panels as wide as a tile, their rows one after another: a unit is a panel."""
    element, lanes, vectors, wide = tile.element, tile.lanes, tile.vectors, tile.columns
    out, a, b = f.words("%args", 2, ["ptr"] * 3)
    h = f.named("%head", _HEAD)
    n, k, a_step = h["n"], h["k"], h["a_step"]
    totals = f.alloca(element, wide)
    epilogue = f.cast("inttoptr", h["epilogue"], "ptr")
    together = group_rows(tile) if is_short else _TOGETHER
    panels = f.div(f.add(n, wide - 1), wide)
    with f.units(panels) as unit:
        n0 = f.mul(unit, wide)
        codes = _codes(f, tile, b, panels, k, unit)
        with f.loop(0, k, KC, [("ptr", f.gep(b, f.mul(n0, k), element))]) as block:
            end = f.min(f.add(block.i, KC), k)
            whole = f.add(block.i, f.mul(f.div(f.sub(end, block.i), together), together))
            at: Operand = block.carry[0]
            sums: list[Operand] = [zero(tile.type)] * vectors
            for low, high, some in ((block.i, whole, together), (whole, end, 1))[: 2 - is_short]:
                carry = [("ptr", at), *((tile.type, x) for x in sums)]
                with f.loop(low, high, some, carry) as L:
                    at, values = L.carry[0], L.carry[1:]
                    if is_short:
                        for line in (
                            range(0, 7 * lanes * 4, 64) if native.host().multiplies_twice else ()
                        ):
                            f.touch(f.gep(at, _AHEAD + line), level=2)
                        code = f.load("i8", f.gep(codes, f.div(L.i, some)))
                        columns, after = _group(f, tile, at, code)
                    else:
                        places = (f.gep(at, i * lanes, element) for i in range(some * vectors))
                        columns = [f.load(tile.type, place) for place in places]
                        after = f.gep(at, some * wide, element)
                    for i in range(some):
                        place = f.mul(f.add(L.i, i), a_step)
                        one = f.splat(f.load(element, f.gep(a, place, element)), tile.type)
                        row = columns[i * vectors : (i + 1) * vectors]
                        values = [
                            multiply_add(f, tile, one, x, total)
                            for x, total in zip(row, values, strict=True)
                        ]
                    L.next = [after, *values]
                at, sums = L.carry[0], list(L.carry[1:])
            block.next = [at]
            first = f.icmp("eq", block.i, 0)
            for v, value in enumerate(sums):
                place = f.gep(totals, v * lanes, element)
                total = f.op("fadd", f.load(tile.type, place), value)
                f.store(f.select(first, value, total), place)
        width = f.min(f.sub(n, n0), wide)
        with f.if_else(f.icmp("ne", h["epilogue"], 0)) as way:
            ints = f.gep("%head", h["epilogue_at"], "i64")
            f.call_at(epilogue, f.arg("args"), ints, totals, 0, 0, 1, n0, width)
            way.otherwise()
            target = f.gep(out, n0, element)
            with f.loop(0, width) as column:
                value = f.load(element, f.gep(totals, column.i, element))
                f.store(value, f.gep(target, column.i, element))
    f.ret()


def group_rows(tile: Tile) -> int:
    """The rows of a panel that are a group."""
    return _GROUP // tile.vectors


def _codes(f: Function, tile: Tile, b: Value, panels: Operand, k: Operand, unit: Operand) -> Value:
    """Where those of a panel begin."""
    end = f.gep(b, f.mul(f.mul(panels, tile.columns), k), tile.element)
    return f.gep(end, f.mul(unit, f.div(k, group_rows(tile))))


def _group(f: Function, tile: Tile, at: Operand, code: Value) -> tuple[list[Value], Value]:
    """The vectors of the group at an address, and where the next one lies."""
    lanes, type = tile.lanes, tile.type
    with f.if_else(f.icmp("ne", code, 0)) as way:
        words = [f.load(vector(lanes, "i32"), f.gep(at, i * lanes, "i32")) for i in range(7)]
        # by fours, the last with the sign in front
        last = f.op("and", f.op("shl", words[6], 1), -1 << 31)
        last = f.op("or", last, f.op("and", f.op("lshr", words[6], 3), 7 << 24))
        for i, word in enumerate(words[:6]):
            last = f.op("or", last, f.op("lshr", f.op("and", word, _LEFT), 27 - 4 * i))
        power = f.cast("bitcast", f.op("shl", f.cast("zext", code, "i32"), 23), "float")
        short = [
            f.op("fmul", f.cast("bitcast", x, type), f.splat(power, type))
            for x in (*(f.op("and", word, ~_LEFT) for word in words), last)
        ]
        way.otherwise()
        whole = [f.load(type, f.gep(at, i * lanes, "i32")) for i in range(_GROUP)]
    found = [way.merge(type, *pair) for pair in zip(short, whole, strict=True)]
    return found, f.gep(at, way.merge("i64", 7 * lanes, _GROUP * lanes), "i32")


@cache
def shorten() -> int:
    """The address of the kernel that makes panels (out, of a product's ints) short, in place."""
    return native.load_made(["shorten"], _shorten_ir)["shorten"]


def _shorten_ir() -> str:
    tile, module = tile_for("float"), Module()
    f = module.kernel("shorten")
    lanes, ints = tile.lanes, vector(tile.lanes, "i32")
    out = f.load("ptr", f.gep("%args", 2, "i64"), 8)
    _, n, k = f.words("%args", 5, ["i64"] * 3)
    panels = f.div(f.add(n, tile.columns - 1), tile.columns)

    def exponent(how: str, sizes: list[Value]) -> Value:
        total = sizes[0]
        for x in sizes[1:]:
            total = f.intrinsic(how, ints, total, x)
        return f.op("lshr", f.intrinsic("vector.reduce." + how, "i32", total), 23)

    with f.loop(*f.split(panels)) as P:
        panel, codes = (
            f.gep(out, f.mul(f.mul(P.i, k), tile.columns), "i32"),
            _codes(f, tile, out, panels, k, P.i),
        )
        with f.loop(0, f.div(k, group_rows(tile)), 1, [("ptr", panel)]) as G:
            start, to = f.gep(panel, f.mul(G.i, _GROUP * lanes), "i32"), G.carry[0]
            whole = [f.load(ints, f.gep(start, i * lanes, "i32")) for i in range(_GROUP)]
            sizes = [f.op("and", x, (1 << 31) - 1) for x in whole]
            some = [f.icmp("ne", x, 0) for x in sizes]
            high = exponent("umax", sizes)
            low = exponent("umin", [f.select(c, x, -1) for c, x in zip(some, sizes, strict=True)])
            base = f.op("sub", high, 15)
            fits = f.op("and", f.icmp("sle", base, f.op("sub", low, 1)), f.icmp("ult", base, 128))
            code = f.select(fits, f.op("add", base, 127), 0)
            f.store(f.cast("trunc", code, "i8"), f.gep(codes, G.i))
            less = f.splat(f.op("shl", base, 23), ints)
            *short, last = (
                f.op("sub", x, f.select(c, less, 0)) for c, x in zip(some, whole, strict=True)
            )
            parts = [f.op("shl", f.op("lshr", last, 4 * i), 27) for i in range(6)]
            sign = f.op("and", f.op("lshr", last, 1), 1 << 30)
            parts.append(f.op("or", sign, f.op("and", f.op("shl", last, 3), 7 << 27)))
            for i, x in enumerate(whole):  # the eighth is written over by the next group
                if i < 7:
                    x = f.select(fits, f.op("or", short[i], f.op("and", parts[i], _LEFT)), x)
                f.store(x, f.gep(to, i * lanes, "i32"))
            step = f.select(fits, 7 * lanes, f.typed(_GROUP * lanes, "i64"))
            G.next = [f.gep(to, step, "i32")]
    f.ret()
    return module.text()


_Strided = tuple[Operand, Operand]


def _rows(
    f: Function, tile: Tile, a: _Strided, b: _Strided, k: _Strided, columns: _Strided, sums: Value,
    *, together: int,
) -> None:  # fmt: skip
    """Sums over k of one block, B's columns adjacent: some rows of B at once, each from its first
    column to its last; the sums go through the first cache meanwhile.
    """
    element, lanes = tile.element, tile.lanes
    start = f.gep(b[0], f.add(f.mul(k[0], b[1]), columns[0]), element)
    a_start = f.gep(a[0], f.mul(k[0], a[1]), element)
    with f.loop(0, columns[1], lanes) as column:
        f.store(zero(tile.type), f.gep(sums, column.i, element))
    count = f.sub(k[1], k[0])
    whole = f.mul(f.div(count, together), together)
    ahead = f.mul(b[1], together)
    for low, high, some in ((0, whole, together), (whole, count, 1)):
        with f.loop(low, high, some) as L:
            rows, scalars = [], []
            for r in range(some):
                at = f.add(L.i, r)
                rows.append(f.gep(start, f.mul(at, b[1]), element))
                one = f.load(element, f.gep(a_start, f.mul(at, a[1]), element))
                scalars.append(f.splat(one, tile.type))
            with f.loop(0, columns[1], _STEP * lanes) as column:
                places = [f.gep(sums, f.add(column.i, v * lanes), element) for v in range(_STEP)]
                values = [f.load(tile.type, place) for place in places]
                for row, one in zip(rows, scalars, strict=True):
                    for v in range(_STEP):
                        at = f.gep(row, f.add(column.i, v * lanes), element)
                        if some > 1:
                            f.touch(f.gep(at, ahead, element), level=2)
                        values[v] = multiply_add(f, tile, one, f.load(tile.type, at), values[v])
                for value, place in zip(values, places, strict=True):
                    f.store(value, place)


def _columns(
    f: Function, tile: Tile, a: _Strided, b: _Strided, k: _Strided, first: Operand,
    later: _Strided, sums: Value,
) -> None:  # fmt: skip
    """Sums over k of one block, B's rows adjacent: squares are turned in registers.

    Meanwhile the next unit (its address, a row's length) comes into the second cache from front to
    back, which memory does faster than sixteen rows side by side.
    """
    element, lanes = tile.element, tile.lanes
    whole = f.add(k[0], f.mul(f.div(f.sub(k[1], k[0]), lanes), lanes))
    start = f.gep(b[0], f.mul(first, b[1]), element)
    column = [f.mul(b[1], j) for j in range(lanes)]

    def scalar(at: Operand) -> Value:
        return f.splat(f.load(element, f.gep(a[0], f.mul(at, a[1]), element)), tile.type)

    with f.loop(k[0], whole, lanes, [(tile.type, zero(tile.type))]) as L:
        total: Operand = L.carry[0]
        at = [f.gep(f.gep(start, c, element), L.i, element) for c in column]
        for row in at:
            f.touch(f.gep(row, _NEAR * 64 // BYTES[element], element), level=2)
        ahead = f.add(f.mul(L.i, lanes), _FAR // BYTES[element])
        line = f.div(ahead, later[1])
        far = f.gep(later[0], f.add(ahead, f.mul(line, f.sub(b[1], later[1]))), element)
        for at_line in range(0, lanes * lanes * BYTES[element], 64):
            f.touch(f.gep(far, at_line), level=2)
        turned = f.transpose([f.load(tile.type, row) for row in at])
        for i, value in enumerate(turned):
            total = multiply_add(f, tile, scalar(f.add(L.i, i)), value, total)
        L.next = [total]
    # The last columns of a block that is not whole: one lane at a time.
    with f.loop(whole, k[1], 1, [(tile.type, L.carry[0])]) as rest:
        value = Value("poison", tile.type)
        for j in range(lanes):
            place = f.gep(f.gep(start, column[j], element), rest.i, element)
            value = f.insert(value, f.load(element, place), j)
        rest.next = [multiply_add(f, tile, scalar(rest.i), value, rest.carry[0])]
    f.store(rest.carry[0], sums)


def batch_fits(sizes: tuple[int, int, int], b_class: str, element: str) -> bool:
    """Whether products of this size (m, n, k) go so: where masks cost nothing."""
    _, n, k = sizes
    wide = native.host().vector_bits == 512
    return wide and b_class == "rows" and n <= 2 * tile_for(element).lanes and 0 < k <= KC


def plan_batch(
    sizes: tuple[int, int, int], a_strides: tuple[int, int], b_step: int, ldc: int, element: str,
    batch: Sequence[tuple[int, ...]], *, parallel: bool, awake: bool, quick: bool,
) -> Launch:  # fmt: skip
    """The products; numbers as of `gemm_code.gemm_ints`."""
    m, n, k = sizes
    batches = 1
    for size, *_ in batch:
        batches *= size
    group = max(_GROUP_WORK // (m * n * k), 1)
    head = (m, n, k, *a_strides, b_step, ldc, batches, group, len(batch))
    ints = (*head, *(word for row in batch for word in row))
    return Launch((Stage(_batch_kernel(element), parallel, awake=awake),), ints, quick=quick)


@cache
def _batch_kernel(element: str) -> int:
    return native.load_made(["batch"], _batch_ir, element)["batch"]


def _batch_ir(element: str) -> str:
    module = Module()
    f = module.kernel("batch")
    _emit_batch(f, tile_for(element))
    return module.text()


def _emit_batch(f: Function, tile: Tile) -> None:
    element, lanes, type = tile.element, tile.lanes, tile.type
    out, a, b = f.words("%args", 2, ["ptr"] * 3)
    h = f.named("%args", _BATCH_HEAD, 6)
    dims = f.gep("%args", 6 + len(_BATCH_HEAD), "i64")
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
                        whole = [f.load(type, right) for _ in range(vectors - 1)]
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
