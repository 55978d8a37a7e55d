"""torch.sparse's tensor types: `torch.sparse.FloatTensor(indices, values, size)`."""

from __future__ import annotations

from typing import Any

import weft


class SparseType(type):
    """The type of torch.sparse.FloatTensor and its like: sparse tensors of one dtype."""

    dtype: Any

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


def _type(name: str, dtype: Any) -> Any:
    return SparseType(name, (), {"dtype": dtype, "__module__": "torch.sparse"})


FloatTensor = _type("FloatTensor", weft.float32)
DoubleTensor = _type("DoubleTensor", weft.float64)
HalfTensor = _type("HalfTensor", weft.float16)
BFloat16Tensor = _type("BFloat16Tensor", weft.bfloat16)
LongTensor = _type("LongTensor", weft.int64)
IntTensor = _type("IntTensor", weft.int32)
ShortTensor = _type("ShortTensor", weft.int16)
CharTensor = _type("CharTensor", weft.int8)
ByteTensor = _type("ByteTensor", weft.uint8)
