"""The kinds: what families of ops have in common.  "Is it pointwise?" is answered here only.

Elementwise   one scalar expression, broadcast over the operands
Reduce        combine the elements along some dims
View          the same memory seen with another shape, strides or offset
Create        a value from attributes alone
Summing       sums of products, whose kernel can go on with each element
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import scalar as S
from weft.core.op import REGISTRY, Op
from weft.core.types import Type, broadcast_shapes, need_dims
from weft.kernels.layout import Layout
from weft.ops.dispatch import NUMBERS, apply, execute, wrap
from weft.runtime.native import Launch


class Elementwise(Op, abstract=True):
    """y[i] = scalar(a[i], b[i], ...), operands broadcast against each other.

    `scalar(*exprs) -> Expr` is the whole meaning (a method when it reads the op's attributes).
    Operands have one dtype (rooms cast before); a Python number counts as a 0-dim operand.
    `host` may be a NumPy ufunc where IEEE fixes every bit of the answer: it serves small tensors.
    """

    broadcasts: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True
    scalar: ClassVar[Callable[..., S.Expr]]

    def expr(self, *dtypes: dt.dtype) -> S.Expr:
        """The scalar expression on operands of these dtypes."""
        return self.scalar(*(S.Arg(i, d) for i, d in enumerate(dtypes)))

    def type(self, *types: Type) -> Type:
        shape = broadcast_shapes(*(t.shape for t in types), op=self.name.lower())
        return Type(shape, self.expr(*(t.dtype for t in types)).dtype)

    def oracle(self, *xs: np.ndarray) -> np.ndarray:
        expr = self.expr(*(dt.from_np(np.asarray(x).dtype) for x in xs))
        shape = np.broadcast_shapes(*(np.shape(x) for x in xs))
        return np.broadcast_to(S.evaluate(expr, xs), shape)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_elementwise(self.expr(*(dt.from_np(x.dtype) for x in ins)), ins, out)

    def by_sample(self, y: Type, *types: Type) -> tuple[int, ...]:
        dims = [(t.ndim, t.shape[:1]) for t in types]
        return tuple(k for k, d in enumerate(dims) if d == (y.ndim, y.shape[:1]))

    def complex_host(self, *xs: np.ndarray) -> np.ndarray:
        return np.array(self.oracle(*xs), order="C")

    def vmap(self, size: int, dims: tuple, *xs: Any) -> tuple[Any, int]:
        ranks = [0 if d is None and x.__class__ in NUMBERS else x.ndim - (d is not None)
                 for x, d in zip(xs, dims, strict=True)]  # fmt: skip
        aligned = []
        for x, d in zip(xs, dims, strict=True):
            if d is not None:
                x = x.movedim(d, 0)
                x = x.reshape(x.shape[0], *(1,) * (max(ranks) - x.ndim + 1), *x.shape[1:])
            aligned.append(x)
        return apply(self, *aligned), 0


class Reduce(Op, abstract=True):
    """y = the combination of x's elements along `dims`, in the strict order (kernels/reduce).

    `dims` are sorted and counted from 0; with `keepdim` they stay as size 1.
    """

    dims: tuple[int, ...] = ()
    keepdim: bool = False
    combine: ClassVar[str]  # sum prod max min argmax argmin any all

    def result_dtype(self, d: dt.dtype) -> dt.dtype:
        return d

    def type(self, x: Type) -> Type:
        dims = self.dims
        need_dims(self, x, dims)
        if self.keepdim:
            shape = tuple(1 if i in dims else n for i, n in enumerate(x.shape))
        else:
            shape = tuple(n for i, n in enumerate(x.shape) if i not in dims)
        return Type(shape, self.result_dtype(x.dtype))

    def terms(self, *xs: S.Expr) -> tuple[S.Expr, ...]:
        """What is combined, of the operands' expressions: each gives a plane of the result."""
        return xs

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        expr = S.Arg(0, dt.from_np(ins[0].dtype))
        return kernels.plan_reduce(self.combine, expr, self.dims, self.keepdim, ins, out)

    def takes_channels_last(self, *types: Type) -> bool:
        return True

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        return by_batch(self, size, dims, x)


class View(Op, abstract=True):
    """The same elements in the same memory under another shape, strides and offset."""

    is_view: ClassVar[bool] = True

    def layout(self, x: Layout) -> tuple[Layout, int] | None:
        """Where the view lies: its layout and offset in x's memory; None when it must copy."""
        return None


class Create(Op, abstract=True):
    """A value made from attributes alone: no operands, no gradient."""

    nondiff: ClassVar[str | None] = "it has no operands"

    def vmap(self, size: int, dims: tuple) -> tuple[Any, None]:
        return apply(self), None


class Summing(Op, abstract=True):
    """Each element is a sum of products of the first two operands, then + bias.

    A compiled program lets the kernel compute what follows on each element: an epilogue.
    """

    def ending(self, result: S.Expr, *bias: S.Expr) -> S.Expr:
        """The value of an element whose sum is `result`; `bias` are the operands after the two."""
        return S.Scalar("add", (result, *bias)) if bias else result

    def beside(self, bias: Layout) -> Layout:
        """An operand after the two, as it broadcasts to the result."""
        return bias

    def plan_sums(
        self, ins: list[Layout], out: Layout, epilogue: kernels.Epilogue | None = None
    ) -> Launch:
        """The sums alone, or with an epilogue; ValueError where there is no kernel for it."""
        raise NotImplementedError

    def goes_on(self, *types: Type) -> bool:
        """Whether the kernel may compute an epilogue (`types`: the operands)."""
        return types[0].dtype in (dt.float32, dt.float64)

    def sums_apart(self, *types: Type) -> bool:
        """Whether sums lie in the result's memory only once the epilogue has read its operands
        there, so that it may be an operand's own memory (`types`: the operands of the sums).
        """
        return False

    def packed(
        self, ins: list[Layout], out: Layout, epilogue: kernels.Epilogue | None = None
    ) -> kernels.Packed | None:
        """How `plan` (or `plan_sums`, with an epilogue) reads its second operand where that was
        packed before: asked by a compiled program once the operand is known not to change.
        """
        return None


def in_parts(self: Op, *xs: np.ndarray) -> np.ndarray:
    """complex_host of an op that moves and adds numbers: it runs on real, then imaginary parts."""

    def run(part: Any) -> np.ndarray:
        reals = (np.array(part(x), order="C") if x.dtype.kind == "c" else x for x in xs)
        return execute(self, tuple(map(wrap, reals)))

    real = run(np.real)
    y = np.empty(real.shape, next(x.dtype for x in xs if x.dtype.kind == "c"))
    y.real, y.imag = real, run(np.imag)
    return y


def by_parts(self: Op, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """complex_host of an op that is linear in each of two operands: four products of real parts."""

    def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return execute(self, (wrap(np.ascontiguousarray(x)), wrap(np.ascontiguousarray(y))))

    (ar, ai), (br, bi) = ((np.real(x), np.imag(x)) for x in (a, b))
    real = product(ar, br)
    y = np.empty(real.shape, a.dtype)
    y.real = real - product(ai, bi)
    y.imag = product(ar, bi) + product(ai, br)
    return y


def by_loop(self: Op, size: int, dims: tuple, *xs: Any) -> tuple[Any, int]:
    """The vmap rule of last resort: one call a row, stacked.  Written, never assumed."""
    rows = []
    for i in range(size):
        rows.append(apply(self, *(x if d is None else x.select(d, i) for x, d in zip(xs, dims, strict=True))))  # fmt: skip  # noqa: E501
    return apply(_join(), *(r.unsqueeze(0) for r in rows)), 0


def batch_first(size: int, dims: tuple, xs: tuple) -> list:
    """The operands with their batch in dim 0, expanded where they have none."""
    return [
        x.expand(size, *x.shape) if d is None else x.movedim(d, 0)
        for x, d in zip(xs, dims, strict=True)
    ]


def by_batch(self: Op, size: int, dims: tuple, *xs: Any) -> tuple[Any, int]:
    """The vmap rule of ops that leave the dims alone which they do not name: `dim`, `dims` and
    the like count one more, a `shape` begins with the batch.
    """
    values = []
    for name in self.__match_args__:
        value = getattr(self, name)
        if name == "shape":
            value = (size, *value)
        elif name == "dims":
            value = tuple(d + 1 for d in value)
        elif name in ("dim", "dim1", "dim2"):
            value += 1
        values.append(value)
    return apply(type(self)(*values), *batch_first(size, dims, xs)), 0


def by_folding(self: Op, size: int, dims: tuple, *xs: Any) -> tuple[Any, int]:
    """The vmap rule of ops over a batch in dim 0 of every operand: both batches become one."""
    moved = batch_first(size, dims, xs)
    n = moved[0].shape[1]
    y = apply(self, *(x.reshape(size * n, *x.shape[2:]) for x in moved))
    return y.reshape(size, n, *y.shape[1:]), 0


def _join() -> Op:
    return REGISTRY["Concat"](0)  # the room of Concat builds on this module
