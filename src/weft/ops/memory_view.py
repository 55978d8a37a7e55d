"""What is asked of tensors of other kinds: sparse, quantized, pinned; and old ways to make one."""

from __future__ import annotations

from typing import Any


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
