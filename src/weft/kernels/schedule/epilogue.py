"""What follows a product on each of its elements, computed while a tile is in the first cache.

    out_j[m, n] = exprs[j](product[m, n], operand_1[m, n], ...)

An epilogue is a function of its own, called by the kernels of products with a tile:

    void epilogue(ptr args, ptr ints, ptr product, i64 ldp, i64 row, i64 rows, i64 n0, i64 n)

`args` is the launch's block (pointers: out 2, a 3, b 4, further outputs, operands), `ints` the row
strides of all of these, `product` the tile at (row, n0). The product may lie in the first output's
own memory: an element is read before it is written. Its code is that of `nest`, lane by lane, so
the bits are those of a loop that would follow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from weft.core import dtype as D
from weft.core.scalar import Arg, Cast, Const, Coord, Expr, Param, may_fail, postorder
from weft.kernels.layout import Layout
from weft.kernels.schedule.gemm_code import MAX_NEAR, Finish, Near, micro_kernel
from weft.kernels.schedule.nest import broadcast_strides, load_part, store_part, stride_class
from weft.kernels.schedule.tile import tile_for
from weft.kernels.schedule.words import halves_of_two
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import Function, Module, Operand, Value, vector
from weft.runtime.native import host, load

FIRST = 5  # the block's word of the first pointer that is the epilogue's own


@dataclass(frozen=True)
class Epilogue:
    """`exprs[j]` of the product, Arg(0), and of the operands, Arg(1)..., into `outs[j]`.

    `ins` are the operands' layouts; they broadcast to the shape of the outputs, which are
    contiguous. The first output has the product's dtype: sums lie in its memory meanwhile, but for
    halves, whose sums are float32 in memory of their own, and are rounded first.
    """

    exprs: tuple[Expr, ...]
    ins: tuple[Layout, ...]
    outs: tuple[Layout, ...]


def epilogue_ints(e: Epilogue, rows: int, columns: int, *, finish: bool = False) -> tuple[int, ...]:
    """The address of the epilogue's function and its ints, over a product of rows x columns.

    `finish`: of a micro-kernel instead that ends with the epilogue (`gemm_code.micro_kernel`).
    Raises ValueError where an operand's rows are not evenly spaced, or an expression is not one of
    the element alone.
    """
    shape = e.outs[0].shape
    if not shape or shape[-1] != columns or any(o.shape != shape for o in e.outs):
        raise ValueError(f"epilogue: outputs of shape {shape} over {rows} rows of {columns}")
    for n in postorder(e.exprs):
        if isinstance(n, Param | Coord):
            raise ValueError("epilogue: an expression reads more than elements")
    if may_fail(*e.exprs):
        raise ValueError("epilogue: an expression divides integers")
    steps = [row_step(broadcast_strides(x, shape), shape) for x in e.ins]
    classes = tuple(stride_class(c) for _, c in steps)
    if 2 in classes:
        raise ValueError("epilogue: an operand's columns are not adjacent")
    address = _function(
        e.exprs,
        tuple(D.from_np(o.dtype) for o in e.outs),
        tuple(D.from_np(x.dtype) for x in e.ins),
        classes,
        tuple(r == 0 for r, _ in steps),
        finish,
    )
    return (address, *[columns] * len(e.outs), *(r for r, _ in steps))


def near_arrays(e: Epilogue) -> Near:
    """Of the arrays that lie beside the product, results first: the block's word of the pointer
    and the bytes from row to row; and how many are results.
    """
    shape, used = e.outs[0].shape, {x.index for x in postorder(e.exprs) if isinstance(x, Arg)}
    size = e.outs[0].dtype.itemsize
    steps = [(shape[-1], 1)] * (len(e.outs) - 1)
    steps += [row_step(broadcast_strides(x, shape), shape) for x in e.ins]
    wanted = [True] * (len(e.outs) - 1) + [k + 1 in used for k in range(len(e.ins))]
    found = [
        (FIRST + k, step * size)
        for k, (x, (step, column)) in enumerate(zip((*e.outs[1:], *e.ins), steps, strict=True))
        if wanted[k] and step and column == 1 and x.dtype.itemsize == size
    ][:MAX_NEAR]
    return found, sum(word < FIRST + len(e.outs) - 1 for word, _ in found)


def ends_in_registers(e: Epilogue) -> bool:
    """Whether the expressions are short enough to be repeated for each vector of a tile."""
    nodes = [n for n in postorder(e.exprs) if not isinstance(n, Arg | Const)]
    plain = all(isinstance(n, Cast) or getattr(n, "name", "") in _PLAIN for n in nodes)
    return plain and len(nodes) <= _SHORT


_SHORT = 12
_PLAIN = ("add", "sub", "mul", "max", "min", "neg", "abs")


def row_step(strides: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, int]:
    """(stride of rows, stride of columns) of an operand, all dims but the last taken as rows.

    ValueError where the rows are not evenly spaced.
    """
    step, reach = 0, None
    for size, stride in zip(reversed(shape[:-1]), reversed(strides[:-1]), strict=True):
        if size == 1:
            continue
        if reach is None:
            step = stride
        elif stride != reach:
            raise ValueError("epilogue: an operand's rows are not evenly spaced")
        reach = size * stride
    return step, strides[-1]


@lru_cache(maxsize=4096)
def _function(
    exprs: tuple[Expr, ...],
    out_dtypes: tuple[D.dtype, ...],
    in_dtypes: tuple[D.dtype, ...],
    classes: tuple[int, ...],
    fixed: tuple[bool, ...],
    finish: bool,
) -> int:
    module = Module(vector_bits=host().vector_bits)
    if finish:
        _emit_finish(module, exprs, out_dtypes, in_dtypes, classes, fixed)
        return load(module.text(), ["finish"])["finish"]
    args = [("ptr", "args"), ("ptr", "ints"), ("ptr", "product"), ("i64", "ldp"), ("i64", "row")]
    f = module.function("epilogue", [*args, *(("i64", n) for n in ("rows", "n0", "n"))])
    _emit(f, exprs, out_dtypes, in_dtypes, classes, fixed)
    return load(module.text(), ["epilogue"])["epilogue"]


def _places(f: Function, count: int) -> tuple[list[Value], list[Value]]:
    """Where each result and operand begins, and the distance of its rows."""
    pointers = [*f.words("%args", 2, ["ptr"]), *f.words("%args", FIRST, ["ptr"] * (count - 1))]
    return pointers, f.words("%ints", 0, ["i64"] * count)


def _emit(
    f: Function,
    exprs: tuple[Expr, ...],
    out_dtypes: Sequence[D.dtype],
    in_dtypes: Sequence[D.dtype],
    classes: Sequence[int],
    fixed: Sequence[bool],
) -> None:
    product = out_dtypes[0]
    narrow = product.itemsize < D.float32.itemsize
    sums = D.float32 if narrow else product
    lanes = host().lanes(sums.itemsize)
    n_out, n_in = len(out_dtypes), len(in_dtypes)
    types = [*out_dtypes, *in_dtypes]
    used = {x.index for x in postorder(exprs) if isinstance(x, Arg)}
    kept_from = [
        k for k in range(n_out, n_out + n_in) if fixed[k - n_out] and k - n_out + 1 in used
    ]
    tame = narrow and _is_tame(exprs, types, {k - n_out + 1 for k in kept_from})
    element = Element(f, lanes, tame=tame)
    pointers, steps = _places(f, n_out + n_in)
    row, n0, n = f.arg("row"), f.arg("n0"), f.arg("n")
    # halves two vectors at a time, of every second column each: 16 bits of a word in memory
    parts = 2 if narrow else 1
    width = parts * lanes
    whole = f.mul(f.div(n, width), width)

    def apart(v: Value, d: D.dtype) -> list[Value]:
        if parts == 1:
            return [element.from_memory(v, d)]
        if d is D.bfloat16:
            words = f.cast("bitcast", v, vector(lanes, "i32"))
            both = f.op("shl", words, 16), f.op("and", words, -1 << 16)
            return [f.cast("bitcast", x, vector(lanes, "float")) for x in both]
        halves = (f.shuffle(v, v, range(i, width, 2)) for i in range(2))
        return [element.from_memory(x, d) for x in halves]

    def together(values: list[Value], d: D.dtype) -> Value:
        if parts == 1:
            return element.to_memory(values[0], d)
        if d is D.bfloat16:
            low, high = (element.math.bits(v) for v in values)
            return f.cast("bitcast", f.op("or", f.op("lshr", low, 16), high), vector(width, "i16"))
        low, high = (element.to_memory(v, d) for v in values)
        return f.shuffle(low, high, [i % 2 * lanes + i // 2 for i in range(width)])

    def strip(column: Operand, mask: Value | None) -> None:
        """`width` columns of all rows: what is the same in each row is read once."""
        count = f.sub(n, column)
        at = f.add(n0, column)

        def read(place: Value, k: int, d: D.dtype) -> list[Value]:
            if k >= n_out and classes[k - n_out] == 0:
                return [f.splat(Element(f, 1).load(place, d), vector(lanes, register(d)))] * parts
            type = vector(width, memory(d))
            v = f.load(type, place) if mask is None else load_part(f, type, place, mask, count)
            return apart(v, d)

        def read_sums(place: Value) -> list[Value]:
            if product is not D.bfloat16:
                return [element.rounded(v, product) for v in read(place, 0, sums)]
            low, high = (
                f.load(vector(lanes, "float"), f.gep(place, i, "float")) for i in (0, lanes)
            )
            return apart(halves_of_two(f, low, high, lanes), product)

        starts = []
        for k, (p, d) in enumerate(zip(pointers, types, strict=True)):
            along = k < n_out or classes[k - n_out] == 1
            start = f.mul(row, steps[k])
            starts.append(f.gep(p, f.add(start, at) if along else start, memory(d)))
        kept = {k: read(starts[k], k, types[k]) for k in kept_from}
        for k, values in kept.items() if tame else ():
            if types[k] is D.float32:
                kept[k] = [element.tamed(v) for v in values]
        source = f.gep("%product", column, memory(sums))
        moving = [k for k in range(n_out + n_in) if k not in kept]
        carry = [("ptr", source), *(("ptr", starts[k]) for k in moving)]
        with f.loop(0, f.arg("rows"), carry=carry) as rows:
            here, places = rows.carry[0], dict(zip(moving, rows.carry[1:], strict=True))
            leaves = {0: read_sums(here)}
            for k in range(n_out, n_out + n_in):
                if k - n_out + 1 in used:
                    leaves[k - n_out + 1] = kept[k] if k in kept else read(places[k], k, types[k])
            found = [element.expressions(exprs, _leaf(leaves, part)) for part in range(parts)]
            for k, d in enumerate(out_dtypes):
                out = together([values[k] for values in found], d)
                if mask is None:
                    f.store(out, places[k])
                else:
                    store_part(f, out, places[k], mask, count)
            rows.next = [
                f.gep(here, f.arg("ldp"), memory(sums)),
                *(f.gep(places[k], steps[k], memory(types[k])) for k in moving),
            ]

    with f.loop(0, whole, width) as columns:
        strip(columns.i, None)
    with f.iff(f.icmp("slt", whole, n)):
        strip(whole, f.lane_mask(f.sub(n, whole), width))
    f.ret()


def _leaf(leaves: dict[int, list[Value]], part: int) -> Callable[[Expr], Value]:
    def leaf(x: Expr) -> Value:
        assert isinstance(x, Arg)
        return leaves[x.index][part]

    return leaf


def _is_tame(exprs: tuple[Expr, ...], types: Sequence[D.dtype], kept: set[int]) -> bool:
    """Whether every result is bfloat16, and a NaN of 16 low bits can come from float32 operands
    that are `kept` alone: cleared there (`Element.tamed`) it is what rounding would make of it.
    """
    if any(d is not D.bfloat16 for d in types[: len(exprs)]):
        return False
    for n in postorder(exprs):
        if n.dtype not in (D.bfloat16, D.float32):
            return False
        if isinstance(n, Arg):
            if n.dtype is D.float32 and n.index not in kept:
                return False
        elif not (isinstance(n, Cast | Const) or getattr(n, "name", "") in _PLAIN):
            return False
    return True


def _emit_finish(
    module: Module,
    exprs: tuple[Expr, ...],
    out_dtypes: Sequence[D.dtype],
    in_dtypes: Sequence[D.dtype],
    classes: Sequence[int],
    fixed: Sequence[bool],
) -> None:
    """The micro-kernel of a whole tile, whose sums go through the expressions in registers."""
    tile = tile_for(register(out_dtypes[0]))
    n_out, types = len(out_dtypes), [*out_dtypes, *in_dtypes]
    used = {x.index + n_out - 1 for x in postorder(exprs) if isinstance(x, Arg) and x.index}
    along = [k < n_out or classes[k - n_out] == 1 for k in range(len(types))]
    operands = [k for k in sorted(used) if not fixed[k - n_out]]

    def ending(f: Function) -> Finish:
        pointers, steps = _places(f, len(types))
        element = Element(f, tile.lanes)
        starts = []
        for k, (p, d) in enumerate(zip(pointers, types, strict=True)):
            at = f.mul(f.arg("row"), steps[k])
            starts.append(f.gep(p, f.add(at, f.arg("n0")) if along[k] else at, memory(d)))

        def place(k: int, row: int, column: int) -> Value:
            at = f.add(f.mul(steps[k], row), column if along[k] else 0)
            return f.gep(starts[k], at, memory(types[k]))

        def read(k: int, row: int, column: int) -> Value:
            at, d = place(k, row, column), types[k]
            if not along[k]:
                return f.splat(Element(f, 1).load(at, d), vector(tile.lanes, register(d)))
            return element.from_memory(f.load(element.memory_type(d), at), d)

        def finish(sums: list[Value]) -> None:
            def one(row: int, v: int, kept: dict[int, Value]) -> None:
                column = v * tile.lanes
                leaves = {0: sums[row * tile.vectors + v]}
                leaves |= {k - n_out + 1: x for k, x in kept.items()}
                leaves |= {k - n_out + 1: read(k, row, column) for k in operands}

                def leaf(x: Expr) -> Value:
                    assert isinstance(x, Arg)
                    return leaves[x.index]

                values = element.expressions(exprs, leaf)
                for k, (value, d) in enumerate(zip(values, out_dtypes, strict=True)):
                    f.store(element.to_memory(value, d), place(k, row, column))

            for v in range(tile.vectors):
                kept = {k: read(k, 0, v * tile.lanes) for k in sorted(used - {*operands})}
                for row in range(tile.rows):
                    one(row, v, kept)

        return finish

    micro_kernel(module, tile, tile.rows, tile.vectors, ending=ending)
