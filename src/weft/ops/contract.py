"""Contractions: MatMul and what is built on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core import scalar as S
from weft.core.handle import state
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type, broadcast_shapes, numel
from weft.kernels.layout import Layout
from weft.ops.cast import cast, lowered
from weft.ops.creation import zeros
from weft.ops.dispatch import apply, dtype_of, run, shape_of
from weft.ops.join import cat, stack
from weft.ops.kinds import Summing, by_loop, by_parts
from weft.ops.promote import number_of
from weft.ops.reduce import Sum, sum_to
from weft.ops.view import Permute, Reshape, reshape, transpose, unsqueeze
from weft.runtime.native import Launch

__all__ = [
    "addmm", "bmm", "dot", "ger", "is_fast_math", "matmul", "mm", "mv", "outer", "set_fast_math",
]  # fmt: skip


class Product(Summing, abstract=True):
    """y[..., m, n] = sum over k of a[..., m, k] b[..., k, n], k in increasing order, then + bias

    `fast`: a and b may be rounded first (`set_fast_math`); other ops for all that remembers ops.
    """

    fast: bool = False

    def __str__(self) -> str:
        return f"{self.name}({'fast=True' if self.fast else ''})"

    __repr__ = __str__

    def matrices(self, ins: list[Layout], out: Layout) -> tuple[Layout, Layout]:
        """a and b as they lie under out's batch dims."""
        raise NotImplementedError

    def plan_sums(
        self, ins: list[Layout], out: Layout, epilogue: kernels.Epilogue | None = None
    ) -> Launch:
        return kernels.plan_matmul(*self.matrices(ins, out), out, epilogue, fast=self.fast)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return self.plan_sums(ins, out, self._end(ins, out))

    def goes_on(self, *types: Type) -> bool:
        return super().goes_on(*types) or _in_words(types[0])

    def sums_apart(self, a: Type, b: Type, *bias: Type) -> bool:
        return _in_words(a) or kernels.is_one_block(a.shape[-1])

    def packed(
        self, ins: list[Layout], out: Layout, epilogue: kernels.Epilogue | None = None
    ) -> kernels.Packed | None:
        end = epilogue or self._end(ins, out)
        return kernels.plan_matmul_packed(*self.matrices(ins, out), out, end, fast=self.fast)

    def _end(self, ins: list[Layout], out: Layout) -> kernels.Epilogue | None:
        if len(ins) == 2:
            return None
        args = [S.Arg(i, dt.from_np(out.dtype)) for i in range(len(ins) - 1)]
        return kernels.Epilogue((self.ending(*args),), tuple(ins[2:]), (out,))


def _in_words(a: Type) -> bool:
    """Whether sums are float32 in memory of their own."""
    return a.dtype is dt.bfloat16 and kernels.multiplies_pairs()


class MatMul(Product):
    """y[..., m, n] = sum over k of a[..., m, k] * b[..., k, n], k in increasing order"""

    def type(self, a: Type, b: Type) -> Type:
        if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
            raise RuntimeError(
                f"matmul: mat1 and mat2 shapes cannot be multiplied ({_matrix(a)} and {_matrix(b)})"
            )
        if a.dtype is not b.dtype:
            raise RuntimeError(
                f"expected m1 and m2 to have the same dtype, but got: {_in_c(a.dtype)} != "
                f"{_in_c(b.dtype)}"
            )
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2], op="matmul")
        return Type((*batch, a.shape[-2], b.shape[-1]), a.dtype)

    def flops(self, a: Type, b: Type, *rest: Type) -> float:
        out = self.type(a, b)
        return 2.0 * numel(out.shape) * a.shape[-1]

    def oracle(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.matmul(a, b)

    complex_host = by_parts

    def matrices(self, ins: list[Layout], out: Layout) -> tuple[Layout, Layout]:
        a, b = ins
        batch = out.shape[:-2]
        return _spread(a, batch), _spread(b, batch)

    saved_for = ((1,), (0,))

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return (
            lambda: sum_to(apply(_MATMUL, g, transpose(b, -2, -1)), a.shape),
            lambda: sum_to(apply(_MATMUL, transpose(a, -2, -1), g), b.shape),
        )

    def vmap(self, size: int, dims: tuple, a: Any, b: Any) -> tuple[Any, int]:
        rank = max(x.ndim - (d is not None) for x, d in zip((a, b), dims, strict=True))
        out = []
        for x, d in zip((a, b), dims, strict=True):
            if d is not None:
                x = x.movedim(d, 0)
                x = x.reshape(size, *(1,) * (rank + 1 - x.ndim), *x.shape[1:])
            out.append(x)
        return apply(self, *out), 0

    onnx = Onnx("MatMul", 13)
    samples = (
        sample((3, 4), (4, 5)),
        sample((2, 3, 4), (2, 4, 5)),
        sample((2, 1, 3, 4), (5, 4, 2)),
        sample((3, 0), (0, 2)),
        sample((2, 3, 4), (4, 5), of="complex64"),
    )


class VectorProduct(Op):
    """y = a @ b, one of them a vector, the other a vector or a matrix"""

    def type(self, a: Type, b: Type) -> Type:
        if a.ndim + b.ndim not in (2, 3) or not a.ndim or not b.ndim or a.shape[-1] != b.shape[0]:
            rows = a if a.ndim == 2 else Type((1, *a.shape), a.dtype)
            columns = b if b.ndim == 2 else Type((*b.shape, 1), b.dtype)
            raise RuntimeError(
                f"matmul: mat1 and mat2 shapes cannot be multiplied ({_matrix(rows)} and "
                f"{_matrix(columns)})"
            )
        if a.dtype is not b.dtype:
            raise RuntimeError(
                f"expected m1 and m2 to have the same dtype, but got: {_in_c(a.dtype)} != "
                f"{_in_c(b.dtype)}"
            )
        return Type((*a.shape[:-1], *b.shape[1:]), a.dtype)

    def body(self, a: Any, b: Any) -> Any:
        rows = a if len(shape_of(a)) == 2 else unsqueeze(a, 0)
        columns = b if len(shape_of(b)) == 2 else unsqueeze(b, 1)
        return reshape(apply(_MATMUL, rows, columns), (*shape_of(a)[:-1], *shape_of(b)[1:]))

    saved_for = ((1,), (0,))

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        if a.ndim == b.ndim:
            return lambda: g * b, lambda: g * a
        if a.ndim == 2:
            return lambda: unsqueeze(g, 1) * b, lambda: apply(self, transpose(a, 0, 1), g)
        return lambda: apply(self, b, g), lambda: unsqueeze(a, 1) * g

    vmap = by_loop
    samples = (
        sample((4,), (4,)),
        sample((3, 4), (4,)),
        sample((4,), (4, 5)),
        sample((0,), (0,)),
        sample((3, 4), (4,), of="complex64"),
    )


class Linear(Product):
    """y[m, n] = sum over k of x[m, k] * w[n, k] (+ bias[n]): a layer's product

    The bits are MatMul's on w's transpose, then those of a sum with the bias; the weight's
    cotangent comes out as the weight lies. The bias is for float32 and float64 (halves round before
    a sum).
    """

    def type(self, x: Type, w: Type, *bias: Type) -> Type:
        if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
            raise RuntimeError(
                f"linear: mat1 and mat2 shapes cannot be multiplied ({_matrix(x)} and "
                f"{'x'.join(map(str, reversed(w.shape)))})"
            )
        if x.dtype is not w.dtype:
            raise RuntimeError(
                f"mat1 and mat2 must have the same dtype, but got "
                f"{x.dtype.spelled} and {w.dtype.spelled}"
            )
        for b in bias:
            if b.shape != w.shape[:1] or b.dtype is not x.dtype or x.dtype not in _BIASED:
                raise RuntimeError(
                    f"linear: expected a bias of shape {w.shape[:1]}, float32 or float64 as the "
                    f"input is, got {b.dtype.name}{list(b.shape)} beside {x.dtype.name}"
                )
        return Type((x.shape[0], w.shape[0]), x.dtype)

    def flops(self, x: Type, w: Type, *rest: Type) -> float:
        return 2.0 * x.shape[0] * x.shape[1] * w.shape[0]

    def oracle(self, x: np.ndarray, w: np.ndarray, *bias: np.ndarray) -> np.ndarray:
        return sum(bias, np.matmul(x, w.T))

    complex_host = by_parts

    def matrices(self, ins: list[Layout], out: Layout) -> tuple[Layout, Layout]:
        x, w = ins[:2]
        return x, Layout(w.shape[::-1], w.strides[::-1], w.dtype)

    saved_for = ((1,), (0,), ())

    def vjp(self, g: Any, y: Any, x: Any, w: Any, *bias: Any) -> tuple:
        dx, dw = lambda: apply(_MATMUL, g, w), lambda: apply(_MATMUL, apply(_TURN, g), x)
        return (dx, dw, lambda: apply(_ROWS, g)) if bias else (dx, dw)

    def vmap(self, size: int, dims: tuple, x: Any, w: Any, *bias: Any) -> tuple[Any, int]:
        if all(d is None for d in dims[1:]):  # one weight for all: one tall product
            rows = x.movedim(dims[0], 0)
            y = apply(self, rows.reshape(size * rows.shape[1], rows.shape[2]), w, *bias)
            return y.reshape(size, rows.shape[1], w.shape[0]), 0
        turned = transpose(w if dims[1] is None else w.movedim(dims[1], 0), -2, -1)
        y = apply(_MATMUL, x if dims[0] is None else x.movedim(dims[0], 0), turned)
        for b, d in zip(bias, dims[2:], strict=True):
            y = y + (b if d is None else unsqueeze(b.movedim(d, 0), 1))
        return y, 0

    onnx = Onnx("Gemm", 13, build=onnx_rules.linear)
    samples = (
        sample((3, 4), (5, 4)),
        sample((1, 7), (2, 7)),
        sample((2, 0), (3, 0)),
        sample((3, 4), (5, 4), of="complex64"),
        sample((3, 4), (5, 4), (5,)),
        sample((1, 9), (70, 9), (70,)),
    )


_BIASED = (dt.float32, dt.float64)


_C_NAMES = {
    "float32": "float", "float64": "double", "float16": "c10::Half", "bfloat16": "c10::BFloat16",
    "int64": "long int", "int16": "short int", "int8": "signed char", "uint8": "unsigned char",
}  # fmt: skip


def _in_c(d: dt.dtype) -> str:
    """A dtype as torch's message about matmul spells it."""
    return _C_NAMES.get(d.name, d.name)


def _matrix(t: Type) -> str:
    return "x".join(map(str, t.shape[-2:])) if t.ndim < 3 else str(list(t.shape))


def _spread(x: Layout, batch: tuple[int, ...]) -> Layout:
    """The operand under the common batch dims: stride 0 where it repeats."""
    lead = len(batch) - (len(x.shape) - 2)
    shape = (*batch, *x.shape[-2:])
    strides = (
        *(0 for _ in range(lead)),
        *(s if n != 1 else 0 for n, s in zip(x.shape[:-2], x.strides[:-2], strict=True)),
        *x.strides[-2:],
    )
    return Layout(shape, strides, x.dtype)


_MATMUL, _VECTORS, _LINEAR, _TURN, _ROWS = (
    MatMul(),
    VectorProduct(),
    Linear(),
    Permute((1, 0)),
    Sum((0,), False),
)


class FastMath:
    """The setting, where guards find it."""

    on = False


_setting = threading.RLock()


def set_fast_math(mode: bool) -> None:
    """Whether products of float32 may round their operands to bfloat16 (8 bits), for speed.

    Sums stay float32: |error| <= about 2^-8 sum_k |a[m, k]| |b[k, n]|.  For matmul, linear and what
    is built on them, their gradients too, of 8 rows or more; for convolutions, transposed ones and
    their gradients, of 9 output channels a group or more.  On hosts with AVX512-BF16: elsewhere
    they stay as they are.  Ops called from then on obey, in all threads.
    """
    global _MATMUL, _LINEAR
    with _setting:
        FastMath.on = on = bool(mode)
        _MATMUL, _LINEAR = MatMul(on), Linear(on)


def linear_op() -> Op:
    """The op of `linear`, as long as the setting stays."""
    return _LINEAR


@contextmanager
def fast_math(mode: bool) -> Iterator[None]:
    """A block under `set_fast_math(mode)`, in all threads; then as it was."""
    with _setting:
        before = FastMath.on
        set_fast_math(mode)
        try:
            yield
        finally:
            set_fast_math(before)


def is_fast_math() -> bool:
    """Whether products may be rounded (`set_fast_math`)."""
    return FastMath.on


def matmul(input: Any, other: Any, *, out: Any = None) -> Any:
    """The matrix product, batched over leading dims; vectors as in torch.matmul.

    Shapes (n,)@(n,) -> (); (m,k)@(k,) -> (m,); (k,)@(k,n) -> (n,);
    (...,m,k)@(...,k,n) -> (...,m,n).
    RuntimeError: inner sizes or dtypes differ, a 0-dim operand.
    """
    if state.autocast is not None:
        input, other = lowered(input, other)
    elif out is None and (
        (y := _MATMUL.quick(input, other)) is not None
        or (y := _VECTORS.quick(input, other)) is not None
    ):
        return y  # as the layouts of its operands were met before
    a, b = shape_of(input), shape_of(other)
    if not a or not b:
        raise RuntimeError(
            f"both arguments to matmul need to be at least 1D, but they are {len(a)}D and {len(b)}D"
        )
    if len(a) == len(b) == 2:
        y = apply(_MATMUL, input, other)
    elif len(a) == 1 and len(b) == 1:
        if a != b:
            raise RuntimeError(
                f"inconsistent tensor size, expected tensor [{a[0]}] and src [{b[0]}] to have the "
                f"same number of elements, but got {a[0]} and {b[0]} elements respectively"
            )
        y = apply(_VECTORS, input, other)
    elif len(a) + len(b) == 3:
        y = apply(_VECTORS, input, other)
    elif len(a) == 1:
        y = apply(_MATMUL, unsqueeze(input, 0), other).squeeze(-2)
    elif len(b) == 1:
        y = apply(_MATMUL, input, unsqueeze(other, 1)).squeeze(-1)
    elif len(b) == 2:  # one tall product: the weight is read once, its cotangent needs no sum
        y = apply(_MATMUL, reshape(input, (numel(a[:-1]), a[-1])), other)
        y = reshape(y, (*a[:-1], b[-1]))
    else:
        y = apply(_MATMUL, input, other)
    return y if out is None else out.copy_result(y)


def _need_rank(op: str, want: int, **operands: Any) -> None:
    for name, x in operands.items():
        if len(shape_of(x)) != want:
            raise RuntimeError(f"{op}: {name} must be a {want}D tensor, got {len(shape_of(x))}D")


def mm(input: Any, mat2: Any, *, out: Any = None) -> Any:
    """The product of two matrices."""
    _need_rank("mm", 2, self=input, mat2=mat2)
    if state.autocast is not None:
        input, mat2 = lowered(input, mat2)
    y = apply(_MATMUL, input, mat2)
    return y if out is None else out.copy_result(y)


def bmm(input: Any, mat2: Any, *, out: Any = None) -> Any:
    """The products of two batches of matrices."""
    _need_rank("bmm", 3, batch1=input, batch2=mat2)
    if state.autocast is not None:
        input, mat2 = lowered(input, mat2)
    a, b = shape_of(input), shape_of(mat2)
    if a[0] != b[0] or a[2] != b[1]:
        raise RuntimeError(
            f"Expected size for first two dimensions of batch2 tensor to be: [{a[0]}, {a[2]}] but "
            f"got: [{b[0]}, {b[1]}]."
        )
    y = apply(_MATMUL, input, mat2)
    return y if out is None else out.copy_result(y)


def mv(input: Any, vec: Any, *, out: Any = None) -> Any:
    """A matrix times a vector."""
    if (len(shape_of(input)), len(shape_of(vec))) != (2, 1):
        _need_rank("mv", 2, input=input)
        _need_rank("mv", 1, vec=vec)
    y = matmul(input, vec)
    return y if out is None else out.copy_result(y)


def dot(input: Any, tensor: Any, *, out: Any = None) -> Any:
    """The inner product of two vectors."""
    if not len(shape_of(input)) == len(shape_of(tensor)) == 1:
        _need_rank("dot", 1, input=input, tensor=tensor)
    y = matmul(input, tensor)
    return y if out is None else out.copy_result(y)


def outer(input: Any, vec2: Any, *, out: Any = None) -> Any:
    """y[i, j] = input[i] * vec2[j]"""
    _need_rank("outer", 1, input=input, vec2=vec2)
    y = unsqueeze(input, 1) * vec2
    return y if out is None else out.copy_result(y)


ger = outer


def addmm(
    input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1, out: Any = None
) -> Any:
    """beta * input + alpha * (mat1 @ mat2); 16-bit floats are rounded once, at the end."""
    _need_rank("addmm", 2, mat1=mat1, mat2=mat2)
    if state.autocast is not None:
        input, mat1, mat2 = lowered(input, mat1, mat2)
    d = dtype_of(mat1)
    if d.itemsize == 2 and d.is_floating_point and d is dtype_of(input) is dtype_of(mat2):
        wide = (cast(t, dt.float32) for t in (input, mat1, mat2))
        return cast(addmm(*wide, beta=beta, alpha=alpha), d)
    alpha, beta = number_of(alpha, "addmm", "alpha"), number_of(beta, "addmm", "beta")
    y = apply(_MATMUL, mat1, mat2)
    y = y if alpha == 1 else y * alpha
    y = y + input if beta == 1 else (y + input * beta if beta != 0 else y)
    return y if out is None else out.copy_result(y)


def grouped_mm(
    mat_a: Any, mat_b: Any, *, offs: Any = None, bias: Any = None, out_dtype: Any = None
) -> Any:
    """Products of groups: (g, m, k) @ (g, k, n), or with `offs`, the ends of the groups, along the
    rows of a 2-dim mat_a, the columns of a 2-dim mat_b, or the inner dim of both.

    Rows or columns past the last end are 0.  RuntimeError: offs with two 3-dim operands, or none
    with a 2-dim one; a bias, as in torch.
    """
    flat_a, flat_b = len(shape_of(mat_a)) == 2, len(shape_of(mat_b)) == 2
    if (flat_a or flat_b) != (offs is not None):
        raise RuntimeError(
            "Have to provide offsets if there is a 2d matrix, or no offset if both matrices are 3d"
        )
    if bias is not None:
        raise RuntimeError("grouped_mm: bias is not supported")
    if dtype_of(mat_a) is not dtype_of(mat_b):
        raise RuntimeError(
            "expected m1 and m2 to have the same dtype, but got: "
            f"{dtype_of(mat_a).spelled} != {dtype_of(mat_b).spelled}"
        )
    if offs is None:
        y = apply(_MATMUL, mat_a, mat_b)
    else:
        y = _groups(mat_a, mat_b, flat_a, flat_b, offs.tolist())
    return y if out_dtype is None else cast(y, out_dtype)


def _groups(a: Any, b: Any, flat_a: bool, flat_b: bool, ends: list[int]) -> Any:
    length = shape_of(a)[0 if not flat_b else 1] if flat_a else shape_of(b)[1]
    starts = [0, *ends[:-1]]
    if any(s > e for s, e in zip(starts, ends, strict=True)) or (ends and ends[-1] > length):
        raise RuntimeError(f"grouped_mm: offsets {ends} must increase and end at most at {length}")
    parts = list(zip(starts, ends, strict=True))
    if flat_a and flat_b:
        return stack([matmul(a[:, s:e], b[s:e]) for s, e in parts])
    if flat_a:
        rows = [matmul(a[s:e], b[i]) for i, (s, e) in enumerate(parts)]
        rest = zeros((length - (ends or [0])[-1], shape_of(b)[2]), dtype=dtype_of(a))
        return cat([*rows, rest], 0)
    columns = [matmul(a[i], b[:, s:e]) for i, (s, e) in enumerate(parts)]
    rest = zeros((shape_of(a)[1], length - (ends or [0])[-1]), dtype=dtype_of(a))
    return cat([*columns, rest], 1)


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """y = input @ weight.T + bias.   input (..., in), weight (out, in), bias (out,)."""
    if state.autocast is not None:
        input, weight, bias = lowered(input, weight, bias)
    elif bias is None:
        if (y := _LINEAR.quick(input, weight)) is not None:
            return y
    elif (y := _LINEAR.quick(input, weight, bias)) is not None:
        return y
    x, w = shape_of(input), shape_of(weight)
    rows, known = None, _AS_ROWS.get((x, w))
    if known is not None:  # a matrix of rows came of such an input before, and was of use
        rows = run(known[0], input)
        tensors = (rows, weight) if bias is None else (rows, weight, bias)
        if (y := _LINEAR.quick(*tensors)) is not None:
            return run(known[1], y)
    if not x or not w:
        raise RuntimeError(
            "linear: both arguments to linear need to be at least 1D, but they are "
            f"{len(x)}D and {len(w)}D"
        )
    if x[-1] != w[-1]:
        raise RuntimeError(
            f"linear: mat1 and mat2 shapes cannot be multiplied ({numel(x[:-1])}x"
            f"{x[-1]} and {w[-1]}x{w[0]})"
        )
    if dtype_of(input) is not dtype_of(weight):
        raise RuntimeError(
            f"mat1 and mat2 must have the same dtype, but got {dtype_of(input).spelled} and "
            f"{dtype_of(weight).spelled}"
        )
    if len(w) != 2:
        y = matmul(input, weight)
        return y if bias is None else y + bias
    inside = () if bias is None or not _fits_inside(input, weight, bias) else (bias,)
    if len(x) == 2:
        y = apply(_LINEAR, input, weight, *inside)
    else:
        flat, back = known or (Reshape((numel(x[:-1]), x[-1])), Reshape((*x[:-1], w[0])))
        y = apply(_LINEAR, apply(flat, input) if rows is None else rows, weight, *inside)
        y = apply(back, y)
        if len(_AS_ROWS) < _MOST_ROWS:
            _AS_ROWS[x, w] = flat, back
    return y if inside or bias is None else y + bias


_AS_ROWS: dict[
    tuple, tuple[Reshape, Reshape]
] = {}  # by shapes of input and weight: to rows and back
_MOST_ROWS = 10_000


def _fits_inside(input: Any, weight: Any, bias: Any) -> bool:
    """Whether the bias is added where the product's sums are still in registers or near."""
    dtype = dtype_of(input)
    return (
        dtype in _BIASED
        and dtype_of(weight) is dtype
        and dtype_of(bias) is dtype
        and shape_of(bias) == shape_of(weight)[:1]
    )
