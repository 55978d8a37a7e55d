"""The memory behind a tensor, as `untyped_storage()` shows it; what is asked of sparse tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from weft.core.device import cpu
from weft.runtime import native


class UntypedStorage:
    """The bytes that a tensor and its views share.  Two of one memory are equal."""

    _item = 1

    def __init__(self, owner: Any) -> None:
        self._owner = owner  # keeps the memory alive
        self._bytes = _whole(owner)

    def data_ptr(self) -> int:
        return native.address(self._bytes)

    def nbytes(self) -> int:
        return self._bytes.nbytes

    def size(self) -> int:
        return self._bytes.nbytes // self._item

    __len__ = size

    @property
    def device(self) -> Any:
        return cpu

    @property
    def _cdata(self) -> int:
        return self.data_ptr()

    def is_shared(self) -> bool:
        return False

    def untyped(self) -> UntypedStorage:
        return UntypedStorage(self._owner)

    def tolist(self) -> list:
        return self._values().tolist()

    def _values(self) -> np.ndarray:
        return self._bytes

    def __getitem__(self, i: int) -> Any:
        return self._values()[i].item()

    def __iter__(self) -> Iterator:
        return iter(self.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntypedStorage) and self.data_ptr() == other.data_ptr()

    def __hash__(self) -> int:
        return self.data_ptr()


class TypedStorage(UntypedStorage):
    """The same memory, read as elements of the tensor's dtype."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self._item = owner._a.itemsize

    def _values(self) -> np.ndarray:
        return self._bytes.view(self._owner._a.dtype)

    @property
    def dtype(self) -> Any:
        return self._owner.dtype


def _whole(t: Any) -> np.ndarray:
    """All bytes of the memory that `t` lies in."""
    a = (t if t._base is None else t._base)._a
    while isinstance(a.base, np.ndarray) and not a.flags.c_contiguous:
        a = a.base
    flat = a.reshape(-1) if a.flags.c_contiguous else np.ascontiguousarray(a).reshape(-1)
    return flat.view(np.uint8)


def untyped_storage(input: Any) -> UntypedStorage:
    """The memory of a tensor, in bytes."""
    return UntypedStorage(input)


def storage(input: Any) -> TypedStorage:
    """The memory of a tensor, in elements."""
    return TypedStorage(input)


def _sparse_only(name: str, kind: str) -> Any:
    def refuse(input: Any) -> Any:
        raise RuntimeError(f"{name} expected {kind} tensor layout but got Strided")

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = "RuntimeError: the tensor is dense."
    return refuse


values = _sparse_only("values", "sparse")
indices = _sparse_only("indices", "sparse coordinate")
crow_indices = _sparse_only("crow_indices", "sparse row compressed")
col_indices = _sparse_only("col_indices", "sparse row compressed")
coalesce = _sparse_only("coalesce", "sparse coordinate")
is_coalesced = _sparse_only("is_coalesced", "sparse coordinate")


def _of_sparse(name: str) -> Any:
    def refuse(input: Any) -> Any:
        raise NotImplementedError(
            f"Could not run 'aten::{name}' with arguments from the 'CPU' backend: the tensor is "
            "dense"
        )

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = "NotImplementedError: the tensor is dense."
    return refuse


_nnz, _indices, _values = (_of_sparse(name) for name in ("_nnz", "_indices", "_values"))


def sparse_dim(input: Any) -> int:
    """0: no dim is kept by places."""
    return 0


def dense_dim(input: Any) -> int:
    """The number of dims: all are dense."""
    return input.ndim


def to_dense(input: Any, dtype: Any = None, *, masked_grad: Any = None) -> Any:
    """The tensor itself: it is dense."""
    return input if dtype is None else input.to(dtype)


def dequantize(input: Any) -> Any:
    """The tensor in float32: it is not quantized."""
    return input.float()


def share_memory_(input: Any) -> Any:
    """The tensor itself.  Its memory is seen by forked processes as a copy."""
    return input


def is_shared(input: Any) -> bool:
    """Whether other processes write to the same memory: never."""
    return False


def pin_memory(input: Any, device: Any = None) -> Any:
    """RuntimeError, as torch's on a machine without an accelerator."""
    raise RuntimeError("Cannot access accelerator device when none is available.")


def is_pinned(input: Any, device: Any = None) -> bool:
    return False


def new(input: Any, *args: Any) -> Any:
    """A tensor of this dtype: of the sizes given (uninitialised), or holding the data given."""
    if args and not all(isinstance(a, int) for a in args):
        first = args[0]
        is_size = type(first).__name__ == "Size"
        return input.new_empty(first) if is_size else input.new_tensor(first)
    return input.new_empty(args or (0,))


def resize_as_(input: Any, tensor: Any, *, memory_format: Any = None) -> Any:
    """resize_ to the shape of another tensor."""
    return input.resize_(tuple(tensor.shape))
