"""What follows a product on each of its elements, computed while a tile is in the first cache.

    out_j[m, n] = exprs[j](product[m, n], operand_1[m, n], ...)

An epilogue is a function of its own, called by the kernels of products with a tile:

    void epilogue(ptr args, ptr ints, ptr product, i64 ldp, i64 row, i64 rows, i64 n0, i64 n)

`args` is the launch's block (pointers: out 2, a 3, b 4, further outputs, operands), `ints` the row
strides of all of these, `product` the tile at (row, n0). The product may lie in the first output's
own memory: an element is read before it is written. Its code is that of `nest`, lane by lane, so
the bits are those of a loop that would follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from weft.core import dtype as D
from weft.core.scalar import Arg, Coord, Expr, Param, Scalar, postorder
from weft.kernels.layout import Layout
from weft.kernels.schedule.nest import broadcast_strides, load_part, store_part, stride_class
from weft.kernels.target.element import Element, memory, register
from weft.kernels.target.llvm import Function, Module, Operand, Value, vector
from weft.runtime.native import host, load

FIRST = 5  # the block's word of the first pointer that is the epilogue's own


@dataclass(frozen=True)
class Epilogue:
    """`exprs[j]` of the product, Arg(0), and of the operands, Arg(1)..., into `outs[j]`.

    `ins` are the operands' layouts; they broadcast to the shape of the outputs, which are
    contiguous. The first output has the product's dtype: sums lie in its memory meanwhile.
    """

    exprs: tuple[Expr, ...]
    ins: tuple[Layout, ...]
    outs: tuple[Layout, ...]


def epilogue_ints(e: Epilogue, rows: int, columns: int) -> tuple[int, ...]:
    """The address of the epilogue's function and its ints, over a product of rows x columns.

    Raises ValueError where an operand's rows are not evenly spaced, or an expression is not one of
    the element alone.
    """
    shape = e.outs[0].shape
    if not shape or shape[-1] != columns or any(o.shape != shape for o in e.outs):
        raise ValueError(f"epilogue: outputs of shape {shape} over {rows} rows of {columns}")
    for n in postorder(e.exprs):
        if isinstance(n, Param | Coord):
            raise ValueError("epilogue: an expression reads more than elements")
        if isinstance(n, Scalar) and n.name in _MAY_FAIL and n.dtype.category != D.FLOAT:
            raise ValueError("epilogue: an expression divides integers")
    steps = [_row_step(broadcast_strides(x, shape), shape) for x in e.ins]
    classes = tuple(stride_class(c) for _, c in steps)
    if 2 in classes:
        raise ValueError("epilogue: an operand's columns are not adjacent")
    address = _function(
        e.exprs,
        tuple(D.from_np(o.dtype) for o in e.outs),
        tuple(D.from_np(x.dtype) for x in e.ins),
        classes,
    )
    return (address, *[columns] * len(e.outs), *(r for r, _ in steps))


_MAY_FAIL = ("div", "rem", "floordiv", "fmod")


def _row_step(strides: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, int]:
    """(stride of rows, stride of columns) of an operand, all dims but the last taken as rows."""
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
) -> int:
    module = Module(vector_bits=host().vector_bits)
    args = [("ptr", "args"), ("ptr", "ints"), ("ptr", "product"), ("i64", "ldp"), ("i64", "row")]
    f = module.function("epilogue", [*args, *(("i64", n) for n in ("rows", "n0", "n"))])
    _emit(f, exprs, out_dtypes, in_dtypes, classes)
    return load(module.text(), ["epilogue"])["epilogue"]


def _emit(
    f: Function,
    exprs: tuple[Expr, ...],
    out_dtypes: Sequence[D.dtype],
    in_dtypes: Sequence[D.dtype],
    classes: Sequence[int],
) -> None:
    product = out_dtypes[0]
    lanes = host().lanes(product.itemsize)
    n_out, n_in = len(out_dtypes), len(in_dtypes)
    element = Element(f, lanes)
    steps = f.words("%ints", 0, ["i64"] * (n_out + n_in))
    pointers = [
        *f.words("%args", 2, ["ptr"]),
        *f.words("%args", FIRST, ["ptr"] * (n_out - 1 + n_in)),
    ]
    used = {x.index for x in postorder(exprs) if isinstance(x, Arg)}
    row, n0, n = f.arg("row"), f.arg("n0"), f.arg("n")
    whole = f.mul(f.div(n, lanes), lanes)

    with f.loop(0, f.arg("rows")) as rows:
        source = f.gep("%product", f.mul(rows.i, f.arg("ldp")), memory(product))
        at = f.add(row, rows.i)
        starts = []
        for k, (p, d) in enumerate(zip(pointers, [*out_dtypes, *in_dtypes], strict=True)):
            splat = k >= n_out and classes[k - n_out] == 0
            start = f.mul(at, steps[k])
            starts.append(f.gep(p, start if splat else f.add(start, n0), memory(d)))
        splats: dict[int, Value] = {}
        for k, d in enumerate(in_dtypes):
            if classes[k] == 0 and k + 1 in used:
                one = Element(f, 1).load(starts[n_out + k], d)
                splats[k] = f.splat(one, vector(lanes, register(d)))

        def point(column: Operand, mask: Value | None) -> None:
            count = f.sub(n, column)

            def read(start: Value, d: D.dtype) -> Value:
                type, place = element.memory_type(d), f.gep(start, column, memory(d))
                if mask is None:
                    return element.from_memory(f.load(type, place), d)
                return element.from_memory(load_part(f, type, place, mask, count), d)

            def leaf(x: Expr) -> Value:
                assert isinstance(x, Arg)
                if x.index == 0:
                    return read(source, product)
                k = x.index - 1
                return splats[k] if k in splats else read(starts[n_out + k], in_dtypes[k])

            values = element.expressions(exprs, leaf)
            for value, start, d in zip(values, starts[:n_out], out_dtypes, strict=True):
                place, out = f.gep(start, column, memory(d)), element.to_memory(value, d)
                if mask is None:
                    f.store(out, place)
                else:
                    store_part(f, out, place, mask, count)

        with f.loop(0, whole, lanes) as columns:
            point(columns.i, None)
        with f.iff(f.icmp("slt", whole, n)):
            point(whole, f.lane_mask(f.sub(n, whole), lanes))
    f.ret()
