"""Questions about tensors and dtypes that have a Python answer."""

from __future__ import annotations

from typing import Any

from weft.core import dtype as dt
from weft.core.handle import Handle
from weft.ops.dispatch import dtype_of, shape_of

__all__ = [
    "can_cast", "get_device", "is_complex", "is_conj", "is_floating_point", "is_nonzero",
    "is_same_size", "is_signed", "is_tensor", "numel", "typename",
]  # fmt: skip


def is_tensor(obj: Any) -> bool:
    """Whether the object is a Tensor."""
    return isinstance(obj, Handle)


def _tensor(input: Any, name: str) -> Handle:
    if not isinstance(input, Handle):
        raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}")
    return input


def is_floating_point(input: Any) -> bool:
    """Whether the tensor's dtype is a floating one."""
    return dtype_of(_tensor(input, "is_floating_point")).category == dt.FLOAT


def is_complex(input: Any) -> bool:
    """Whether the tensor's dtype is complex."""
    return dtype_of(_tensor(input, "is_complex")).is_complex


def is_signed(input: Any) -> bool:
    """Whether the tensor's dtype has a sign."""
    return dtype_of(_tensor(input, "is_signed")).is_signed


def is_nonzero(input: Any) -> bool:
    """Whether the one element is not zero; RuntimeError when there are more or none."""
    n = _tensor(input, "is_nonzero").numel()
    if n != 1:
        many = "more than one value" if n else "no values"
        raise RuntimeError(f"Boolean value of Tensor with {many} is ambiguous")
    return bool(input)


def is_same_size(input: Any, other: Any) -> bool:
    """Whether two tensors have one shape."""
    return shape_of(_tensor(input, "is_same_size")) == shape_of(_tensor(other, "is_same_size"))


def is_conj(input: Any) -> bool:
    """Whether the tensor is a lazy complex conjugate: none is."""
    _tensor(input, "is_conj")
    return False


def can_cast(from_: dt.dtype, to: dt.dtype) -> bool:
    """Whether promotion may turn one dtype into the other: not to a lower category."""
    return dt.asked(from_).category <= dt.asked(to).category


def numel(input: Any) -> int:
    """How many elements the tensor has."""
    return _tensor(input, "numel").numel()


def typename(obj: Any) -> str:
    """`torch.FloatTensor` for a tensor, else the name of the object's type with its module."""
    if isinstance(obj, Handle):
        return obj.type()
    kind = obj if hasattr(obj, "__qualname__") else type(obj)
    module = getattr(kind, "__module__", "") or ""
    return kind.__qualname__ if module in ("", "builtins") else f"{module}.{kind.__qualname__}"


def get_device(input: Any) -> int:
    """The tensor's device number; -1 for the CPU."""
    _tensor(input, "get_device")
    return -1
