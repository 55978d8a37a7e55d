"""Tensor types: `torch.LongTensor([1, 2])`, `torch.FloatTensor(3, 4)`, `isinstance` by dtype."""

from __future__ import annotations

from typing import Any

import weft


class TensorType(type):
    """The type of torch.FloatTensor and its like: tensors of one dtype."""

    dtype: Any

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

    def __str__(cls) -> str:
        return f"torch.{cls.__name__}"


def _type(name: str, dtype: Any) -> Any:
    return TensorType(name, (), {"dtype": dtype, "__module__": "torch"})


FloatTensor = _type("FloatTensor", weft.float32)
DoubleTensor = _type("DoubleTensor", weft.float64)
HalfTensor = _type("HalfTensor", weft.float16)
BFloat16Tensor = _type("BFloat16Tensor", weft.bfloat16)
LongTensor = _type("LongTensor", weft.int64)
IntTensor = _type("IntTensor", weft.int32)
ShortTensor = _type("ShortTensor", weft.int16)
CharTensor = _type("CharTensor", weft.int8)
ByteTensor = _type("ByteTensor", weft.uint8)
BoolTensor = _type("BoolTensor", weft.bool)


def set_default_tensor_type(t: Any) -> None:
    """The default dtype becomes that of a floating tensor type (or of its name)."""
    if isinstance(t, str):
        t = globals().get(t.rpartition(".")[2], t)
    if not isinstance(t, TensorType):
        raise TypeError(f"invalid type object: {t}")
    weft.set_default_dtype(t.dtype)
