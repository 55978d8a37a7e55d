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
from functools import lru_cache, partial

from weft.core import dtype as D
from weft.core.scalar import Arg, Cast, Const, Coord, Expr, Param, may_fail, postorder, spelled
from weft.kernels.layout import Layout
from weft.kernels.schedule import amx, conv_wide_tiles, gemm_tiles
from weft.kernels.schedule.conv_micro import pixel_tile, pixels_kernel
from weft.kernels.schedule.ending_tiles import Rows
from weft.kernels.schedule.gemm_code import MAX_NEAR, Near
from weft.kernels.schedule.gemm_micro import Finish, micro_kernel
from weft.kernels.schedule.nest import broadcast_strides, load_part, store_part, stride_class
from weft.kernels.schedule.tile import tile_for
from weft.kernels.schedule.words import halves_of_two
from weft.kernels.target.element import Element, memory, register, relu_of_half
from weft.kernels.target.llvm import Function, Module, Operand, Value, const, vector, zero
from weft.runtime.native import host, load_made

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


def epilogue_ints(e: Epilogue, rows: int, columns: int, *, finish: str = "") -> tuple[int, ...]:
    """The address of the epilogue's function and its ints, over a product of rows x columns.

    `finish`: of a micro-kernel instead that ends with the epilogue: "registers", whose own sums go
    through it (`gemm_micro`); or the kernel of tile registers for "images" or "panels", whose
    earlier sums do (`ending_tiles`).
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
    form = _Form(
        e.exprs,
        tuple(D.from_np(o.dtype) for o in e.outs),
        tuple(D.from_np(x.dtype) for x in e.ins),
        classes,
        tuple(r == 0 for r, _ in steps),
        finish,
    )
    address = _function(form)
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


def ends_among(e: Epilogue) -> bool:
    """Whether the expressions are short enough to be repeated for each product of a chunk."""
    return len([n for n in postorder(e.exprs) if not isinstance(n, Arg | Const)]) <= _LONG


_SHORT, _LONG = 12, 48
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


@dataclass(frozen=True)
class _Form:
    """What an ending's code is made from."""

    exprs: tuple[Expr, ...]
    out_dtypes: tuple[D.dtype, ...]
    in_dtypes: tuple[D.dtype, ...]
    classes: tuple[int, ...]
    fixed: tuple[bool, ...]
    finish: str

    def __repr__(self) -> str:  # exact, by which the disk knows the kernel
        rest = self.out_dtypes, self.in_dtypes, self.classes, self.fixed, self.finish
        return f"{spelled(self.exprs)}{rest}"


@lru_cache(maxsize=4096)
def _function(form: _Form) -> int:
    name = "finish" if form.finish else "epilogue"
    return load_made([name], _ending_ir, form)[name]


def _ending_ir(form: _Form) -> str:
    module = Module()
    code: _Code = partial(
        _Ending,
        exprs=form.exprs,
        out_dtypes=form.out_dtypes,
        in_dtypes=form.in_dtypes,
        classes=form.classes,
        fixed=form.fixed,
    )
    if form.finish:
        if form.finish == "registers":
            _emit_finish(module, form.out_dtypes[0], code)
        else:
            _emit_among(module, code, kind=form.finish)
        return module.text()
    args = [("ptr", "args"), ("ptr", "ints"), ("ptr", "product"), ("i64", "ldp"), ("i64", "row")]
    f = module.function("epilogue", [*args, *(("i64", n) for n in ("rows", "n0", "n"))])
    _emit(f, code(f))
    return module.text()


def _places(f: Function, count: int) -> tuple[list[Value], list[Value]]:
    """Where each result and operand begins, and the distance of its rows."""
    pointers = [*f.words("%args", 2, ["ptr"]), *f.words("%args", FIRST, ["ptr"] * (count - 1))]
    return pointers, f.words("%ints", 0, ["i64"] * count)


class _Ending:
    """The expressions' code: a vector of columns at a time, or of halves two vectors, each of every
    second column: the 16 bits of a word in memory.
    """

    def __init__(
        self, f: Function, exprs: tuple[Expr, ...], out_dtypes: Sequence[D.dtype],
        in_dtypes: Sequence[D.dtype], classes: Sequence[int], fixed: Sequence[bool],
    ) -> None:  # fmt: skip
        self.f, self.exprs, self.product = f, exprs, out_dtypes[0]
        self.n_out, self.types = len(out_dtypes), [*out_dtypes, *in_dtypes]
        self.narrow = self.product.itemsize < D.float32.itemsize
        self.lanes = host().lanes(D.float32.itemsize if self.narrow else self.product.itemsize)
        self.parts = 2 if self.narrow else 1
        self.width = self.parts * self.lanes
        used = {
            x.index + self.n_out - 1 for x in postorder(exprs) if isinstance(x, Arg) and x.index
        }
        self.along = [
            k < self.n_out or classes[k - self.n_out] == 1 for k in range(len(self.types))
        ]
        self.kept = [k for k in sorted(used) if fixed[k - self.n_out]]  # the same in each row
        self.operands = [k for k in sorted(used) if k not in self.kept]
        self.tame = self.narrow and _is_tame(
            exprs, self.types, {k - self.n_out + 1 for k in self.kept}
        )
        self.element = Element(f, self.lanes, tame=self.tame)
        self.relus = [(e, relu_of_half(e)) for e in exprs]
        self.pointers, self.steps = _places(f, len(self.types))

    def start(self, k: int, row: Operand, column: Operand) -> Value:
        """Where array k has the element of a row and column."""
        at = self.f.mul(row, self.steps[k])
        at = self.f.add(at, column) if self.along[k] else at
        return self.f.gep(self.pointers[k], at, memory(self.types[k]))

    def read(
        self, k: int, place: Value, mask: Value | None = None, count: Operand = 0
    ) -> list[Value]:
        f, d = self.f, self.types[k]
        if not self.along[k]:
            one = f.splat(Element(f, 1).load(place, d), vector(self.lanes, register(d)))
            return [one] * self.parts
        type = vector(self.width, memory(d))
        v = f.load(type, place) if mask is None else load_part(f, type, place, mask, count)
        values = self._apart(v, d)
        if self.tame and d is D.float32:
            return [self.element.tamed(v) for v in values]
        return values

    def sums(self, vectors: list[Value]) -> list[Value]:
        """The product, of its sums in neighbouring vectors."""
        if self.product is D.bfloat16:
            return self._apart(
                halves_of_two(self.f, vectors[0], vectors[1], self.lanes), D.bfloat16
            )
        return vectors

    def results(self, leaves: dict[int, list[Value]]) -> list[Value]:
        """As they lie in memory; the product is leaf 0, array k leaf k."""

        def leaf(x: Expr, part: int) -> Value:
            assert isinstance(x, Arg)
            return leaves[x.index + self.n_out - 1 if x.index else 0][part]

        # the last relu of bfloat16 on two vectors at once, as they lie in memory
        roots = [x if self.narrow and x is not None else e for e, x in self.relus]
        found = [
            self.element.expressions(tuple(roots), partial(leaf, part=part))
            for part in range(self.parts)
        ]
        out = []
        for k, (root, (e, _)) in enumerate(zip(roots, self.relus, strict=True)):
            v = self._together([values[k] for values in found], self.types[k])
            if root is not e:  # more than -inf, as integers: positive, or NaN
                v = self.f.select(self.f.icmp("sgt", v, const(v.type, -128)), v, zero(v.type))
            out.append(v)
        return out

    def rows(
        self, product: Value, ldp: Operand, column: Operand, mask: Value | None, count: Operand
    ) -> Rows:
        """A strip of columns, `count` if there is a `mask`, of all rows from `row` on: what is the
        same in each row is read once.
        """
        f = self.f
        sums = memory(D.float32 if self.narrow else self.product)
        here = f.add(f.arg("n0"), column)
        starts = [self.start(k, f.arg("row"), here) for k in range(len(self.types))]
        kept = {k: self.read(k, starts[k], mask, count) for k in self.kept}
        moving = [*range(self.n_out), *self.operands]

        def one(at: list[Value]) -> list[Value]:
            here, places = at[0], dict(zip(moving, at[1:], strict=True))

            def part(i: int) -> Value:
                type, place = vector(self.lanes, sums), f.gep(here, i * self.lanes, sums)
                if mask is None:
                    return f.load(type, place)
                left = f.sub(count, i * self.lanes)
                return load_part(f, type, place, f.lane_mask(left, self.lanes), left)

            leaves = kept | {k: self.read(k, places[k], mask, count) for k in self.operands}
            leaves[0] = self.sums([part(i) for i in range(self.parts)])
            for k, out in enumerate(self.results(leaves)):
                if mask is None:
                    f.store(out, places[k])
                else:
                    store_part(f, out, places[k], mask, count)
            return [
                f.gep(here, ldp, sums),
                *(f.gep(places[k], self.steps[k], memory(self.types[k])) for k in moving),
            ]

        return Rows([f.gep(product, column, sums), *(starts[k] for k in moving)], one)

    def _apart(self, v: Value, d: D.dtype) -> list[Value]:
        f = self.f
        if self.parts == 1:
            return [self.element.from_memory(v, d)]
        if d is D.bfloat16:
            words = f.cast("bitcast", v, vector(self.lanes, "i32"))
            both = f.op("shl", words, 16), f.op("and", words, -1 << 16)
            return [f.cast("bitcast", x, vector(self.lanes, "float")) for x in both]
        halves = (f.shuffle(v, v, range(i, self.width, 2)) for i in range(2))
        return [self.element.from_memory(x, d) for x in halves]

    def _together(self, values: list[Value], d: D.dtype) -> Value:
        f = self.f
        if self.parts == 1:
            return self.element.to_memory(values[0], d)
        if d is D.bfloat16:
            low, high = (self.element.math.bits(v) for v in values)
            word = f.op("or", f.op("lshr", low, 16), high)
            return f.cast("bitcast", word, vector(self.width, "i16"))
        low, high = (self.element.to_memory(v, d) for v in values)
        return f.shuffle(low, high, [i % 2 * self.lanes + i // 2 for i in range(self.width)])


_Code = Callable[[Function], _Ending]  # in that function


def _emit(f: Function, e: _Ending) -> None:
    n = f.arg("n")
    whole = f.mul(f.div(n, e.width), e.width)

    def strip(column: Operand, mask: Value | None) -> None:
        rows = e.rows(f.arg("product"), f.arg("ldp"), column, mask, f.sub(n, column))
        with f.loop(0, f.arg("rows"), carry=[("ptr", p) for p in rows.first]) as L:
            L.next = [*rows.one(L.carry)]

    with f.loop(0, whole, e.width) as columns:
        strip(columns.i, None)
    with f.iff(f.icmp("slt", whole, n)):
        strip(whole, f.lane_mask(f.sub(n, whole), e.width))
    f.ret()


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


def _emit_finish(module: Module, product: D.dtype, code: _Code) -> None:
    """The micro-kernel of a whole tile, whose sums go through the expressions in registers: a
    product's, or of halves that of convolutions.
    """
    narrow = product.itemsize < D.float32.itemsize
    element = register(product)
    tile = pixel_tile(element, 0, pairs=True) if narrow else tile_for(element)

    def ending(f: Function) -> Finish:
        e = code(f)

        def finish(sums: list[Value]) -> None:
            for v in range(0, tile.vectors, e.parts):
                column = f.add(f.arg("n0"), v * tile.lanes)
                starts = {k: e.start(k, f.arg("row"), column) for k in range(len(e.types))}
                kept = {k: e.read(k, starts[k]) for k in e.kept}
                for row in range(tile.rows):
                    places = {
                        k: f.gep(p, f.mul(e.steps[k], row), memory(e.types[k]))
                        for k, p in starts.items()
                    }
                    leaves = kept | {k: e.read(k, places[k]) for k in e.operands}
                    at = row * tile.vectors + v
                    leaves[0] = e.sums(sums[at : at + e.parts])
                    for k, out in enumerate(e.results(leaves)):
                        f.store(out, places[k])

        return finish

    if narrow:
        pixels_kernel(module, tile, tile.rows, tile.vectors, writes=True, ending=ending)
    else:
        held = bool(tile.piece)
        micro_kernel(module, tile, tile.rows, tile.vectors, ending=ending, held=held)


def _emit_among(module: Module, code: _Code, *, kind: str) -> None:
    """The kernel of two tiles by 32 columns, of images or panels, with the ending of earlier sums
    among its products.
    """
    emit, pitch = {
        "images": (conv_wide_tiles.emit_finish, conv_wide_tiles.tile().columns),
        "panels": (gemm_tiles.emit_finish, gemm_tiles.COLUMNS),
    }[kind]

    def ending(f: Function) -> Rows:
        e = code(f)
        columns = range(0, 2 * amx.DEPTH, e.width)
        strips = [e.rows(f.arg("sums"), pitch, column, None, 0) for column in columns]
        each = len(strips[0].first)

        def one(at: list[Value]) -> list[Value]:
            parts = zip(strips, [at[i : i + each] for i in range(0, len(at), each)], strict=True)
            return [place for strip, own in parts for place in strip.one([*own])]

        return Rows([place for strip in strips for place in strip.first], one)

    emit(module, ending)
