"""Tensor types: `torch.LongTensor([1, 2])`, `torch.sparse.FloatTensor(indices, values, size)`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import weft


class _Type(type):
    """A class that tensors of one dtype are instances of."""

    dtype: Any

    def __str__(cls) -> str:
        return f"{cls.__module__}.{cls.__name__}"


class TensorType(_Type):
    """The type of torch.FloatTensor and its like."""

    def __call__(cls, *args: Any, device: Any = None) -> Any:
        """An uninitialised tensor of the sizes given, or the data given as this dtype."""
        if not args:
            return weft.empty(0, dtype=cls.dtype)
        first = args[0]
        if len(args) == 1 and isinstance(first, weft.Tensor):
            if first.dtype is not cls.dtype:
                raise TypeError(f"expected {cls.__name__} (got {first.type()})")
            return first.detach()
        if weft.is_storage(first):
            return weft.empty(0, dtype=cls.dtype).set_(first)
        if isinstance(first, weft.Size):
            return weft.empty(first, dtype=cls.dtype)
        if all(isinstance(a, int) for a in args):
            return weft.empty(args, dtype=cls.dtype)
        return weft.tensor(first, dtype=cls.dtype)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, weft.Tensor) and instance.dtype is cls.dtype


class SparseType(_Type):
    """The type of torch.sparse.FloatTensor and its like."""

    def __call__(cls, *args: Any, device: Any = None) -> Any:
        """(indices, values[, size]), or the sizes of a tensor that keeps no place."""
        if not args or isinstance(args[0], (int, weft.Size)):
            size = args[0] if args and not isinstance(args[0], int) else args or (0,)
            return weft.sparse_coo_tensor(tuple(size), dtype=cls.dtype)
        values = args[1]
        if isinstance(values, weft.Tensor) and values.dtype is not cls.dtype:
            raise TypeError(f"expected {cls.__name__} values (got {values.type()})")
        return weft.sparse_coo_tensor(*args, dtype=cls.dtype)

    def __instancecheck__(cls, instance: object) -> bool:
        sparse = isinstance(instance, weft.Tensor) and instance.is_sparse
        return sparse and getattr(instance, "dtype", None) is cls.dtype


_DTYPES = {
    "FloatTensor": weft.float32, "DoubleTensor": weft.float64, "HalfTensor": weft.float16,
    "BFloat16Tensor": weft.bfloat16, "LongTensor": weft.int64, "IntTensor": weft.int32,
    "ShortTensor": weft.int16, "CharTensor": weft.int8, "ByteTensor": weft.uint8,
    "BoolTensor": weft.bool,
}  # fmt: skip


def _types(kind: type, module: str) -> dict[str, Any]:
    return {n: kind(n, (), {"dtype": d, "__module__": module}) for n, d in _DTYPES.items()}


(
    FloatTensor, DoubleTensor, HalfTensor, BFloat16Tensor, LongTensor, IntTensor, ShortTensor,
    CharTensor, ByteTensor, BoolTensor,
) = _types(TensorType, "torch").values()  # fmt: skip
sparse_types = SimpleNamespace(**_types(SparseType, "torch.sparse"))
del sparse_types.BoolTensor


def set_default_tensor_type(t: Any) -> None:
    """The default dtype becomes that of a floating tensor type (or of its name)."""
    if isinstance(t, str):
        t = globals().get(t.rpartition(".")[2], t)
    if not isinstance(t, TensorType):
        raise TypeError(f"invalid type object: {t}")
    weft.set_default_dtype(t.dtype)
