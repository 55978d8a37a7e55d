"""Strided views of a whole memory, and the write through one: what an in-place write is."""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core import onnx_rules
from weft.core.handle import owner_of
from weft.core.op import Onnx, sample
from weft.core.types import Type, numel, one_type, wholes
from weft.kernels.layout import Layout
from weft.ops.dispatch import apply
from weft.ops.kinds import View
from weft.ops.view import expand, permute

__all__ = ["as_strided"]


class AsStrided(View):
    """y[i, j, ...] = memory[offset + i * strides[0] + j * strides[1] + ...], in elements"""

    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    offset: int = 0

    def type(self, x: Type) -> Type:
        steps = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        first = self.offset + sum(min(0, s) for s in steps)
        last = self.offset + sum(max(0, s) for s in steps)
        if min(self.shape, default=0) < 0:
            raise RuntimeError(f"as_strided: negative size in {list(self.shape)}")
        if numel(self.shape) and (last >= numel(x.shape) or first < 0):
            raise RuntimeError(
                f"as_strided: sizes {list(self.shape)}, strides {list(self.strides)}, storage "
                f"offset {self.offset} need {last + 1} elements, out of bounds for storage of "
                f"size {numel(x.shape)}"
            )
        return Type(self.shape, x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        self.type(Type(x.shape, None))  # type: ignore[arg-type]  bounds only
        flat = np.ascontiguousarray(x).reshape(-1) if not x.flags.c_contiguous else x.reshape(-1)
        start = self.offset * x.itemsize if numel(self.shape) else 0
        byte_strides = tuple(s * x.itemsize for s in self.strides)
        return np.ndarray(self.shape, flat.dtype, flat, start, byte_strides)

    oracle = host

    def layout(self, x: Layout) -> tuple[Layout, int] | None:
        if not x.is_contiguous:
            return None
        return Layout(self.shape, self.strides, x.dtype), self.offset

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(AsStridedBack(self.strides, self.offset, tuple(x.shape)), g),)

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        moved = x.movedim(dims[0], 0).contiguous()
        step = numel(moved.shape[1:])
        op = AsStrided((size, *self.shape), (step, *self.strides), self.offset)
        return apply(op, moved), 0

    onnx = Onnx("Gather", 13, build=onnx_rules.as_strided)
    samples = (
        sample((12,), shape=(3, 2), strides=(3, 1), offset=1),
        sample((3, 4), shape=(2, 2, 2), strides=(1, 2, 1)),
    )


class AsStridedBack(View):
    """The adjoint of AsStrided: x's elements added into zeros of `shape` where they came from"""

    is_view = False
    strides: tuple[int, ...] = ()
    offset: int = 0
    shape: tuple[int, ...] = ()

    def type(self, x: Type) -> Type:
        return Type(self.shape, x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        y = np.zeros(numel(self.shape), x.dtype)
        np.add.at(y, self._places(x.shape), x.reshape(-1))
        return y.reshape(self.shape)

    oracle = host

    def _places(self, shape: tuple[int, ...]) -> np.ndarray:
        at = np.full((), self.offset, np.int64)
        for n, s in zip(shape, self.strides, strict=True):
            at = at[..., None] + np.arange(n) * s
        return at.reshape(-1)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(AsStrided(tuple(x.shape), self.strides, self.offset), g.contiguous()),)

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        step = numel(self.shape)
        op = AsStridedBack((step, *self.strides), self.offset, (size, *self.shape))
        return apply(op, x.movedim(dims[0], 0)), 0

    samples = (sample((3, 2), strides=(3, 1), offset=1, shape=(12,)),)


class WriteStrided(View):
    """base with `src` written at the places that AsStrided would read; what an in-place write is"""

    is_view = False
    strides: tuple[int, ...] = ()
    offset: int = 0

    def type(self, base: Type, src: Type) -> Type:
        AsStrided(src.shape, self.strides, self.offset).type(base)  # refuses what lies outside
        return one_type(self, base, Type(base.shape, src.dtype))

    def host(self, base: np.ndarray, src: np.ndarray) -> np.ndarray:
        if src.dtype != base.dtype:
            raise TypeError  # `type` says it in words
        y = np.array(base, order="C")
        AsStrided(src.shape, self.strides, self.offset).host(y)[...] = src
        return y

    oracle = host

    def vjp(self, g: Any, y: Any, base: Any, src: Any) -> tuple:
        def kept() -> Any:
            zeros = src_zeros(g, tuple(src.shape))
            return apply(WriteStrided(self.strides, self.offset), g, zeros)

        read = AsStrided(tuple(src.shape), self.strides, self.offset)
        return kept, lambda: apply(read, g.contiguous())

    def vmap(self, size: int, dims: tuple, base: Any, src: Any) -> tuple[Any, int]:
        base = _batched(base, dims[0], size).contiguous()
        op = WriteStrided((numel(base.shape[1:]), *self.strides), self.offset)
        return apply(op, base, _batched(src, dims[1], size)), 0

    onnx = Onnx("ScatterElements", 16, build=onnx_rules.write_strided)
    samples = (sample((12,), (3, 2), strides=(3, 1), offset=1),)


def src_zeros(g: Any, shape: tuple[int, ...]) -> Any:
    return g.new_zeros(shape)


def _batched(x: Any, dim: int | None, size: int) -> Any:
    return expand(x, (size, *x.shape)) if dim is None else x.movedim(dim, 0)


def as_strided(input: Any, size: Any, stride: Any, storage_offset: int | None = None) -> Any:
    """A view of the whole memory behind `input`, in elements; bounds are checked."""
    size, stride = wholes(size, "as_strided", "size"), wholes(stride, "as_strided", "stride")
    base = owner_of(input)
    offset = input.storage_offset() if storage_offset is None else storage_offset
    if base is not input and input.is_leaf and input.requires_grad and input.is_contiguous():
        base, offset = input, offset - input.storage_offset()  # the gradient is its own
    if len(size) != len(stride):
        raise RuntimeError("mismatch in length of strides and shape")
    if any(s < 0 for s in stride):
        raise RuntimeError(
            "as_strided: Negative strides are not supported at the moment, got strides: "
            f"{list(stride)}"
        )
    if not base.is_contiguous():  # as it lies
        steps = base.stride()
        base = permute(base, tuple(sorted(range(len(steps)), key=lambda d: -steps[d])))
    return apply(AsStrided(size, stride, offset), base)
