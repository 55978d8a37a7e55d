"""What is asked of tensors of other kinds: sparse, quantized, pinned; and old ways to make one."""

from __future__ import annotations

import warnings
from typing import Any

from weft.core.types import numel
from weft.ops.dispatch import shape_of
from weft.ops.view import shape_args


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
    def refuse(input: Any, *args: Any, **kw: Any) -> Any:
        raise NotImplementedError(
            f"Could not run 'aten::{name}' with arguments from the 'CPU' backend: the tensor is "
            "dense"
        )

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = "NotImplementedError: the tensor is dense."
    return refuse


_nnz, _indices, _values, to_padded_tensor = (
    _of_sparse(name) for name in ("_nnz", "_indices", "_values", "to_padded_tensor")
)


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
    return input.resize_(shape_of(tensor))


def resize(input: Any, *sizes: Any) -> Any:
    """view of the sizes given; deprecated, as in torch."""
    warnings.warn("non-inplace resize is deprecated", stacklevel=2)
    shape = shape_args(sizes, "resize")
    if numel(shape) != input.numel():
        asked, has = "x".join(map(str, shape)), "x".join(map(str, input.shape))
        raise RuntimeError(
            f"requested resize to {asked} ({numel(shape)} elements in total), but the given tensor "
            f"has a size of {has} ({input.numel()} elements). autograd's resize can only change "
            "the shape of a given tensor, while preserving the number of elements"
        )
    return input.contiguous().view(shape)


def resize_as(input: Any, tensor: Any) -> Any:
    """resize to the shape of another tensor."""
    return resize(input, shape_of(tensor))


def record_stream(input: Any, stream: Any) -> None:
    """NotImplementedError: the CPU has no streams whose work a tensor could wait for."""
    raise NotImplementedError(
        "Could not run 'aten::record_stream' with arguments from the 'CPU' backend."
    )


def _removed(name: str, why: str) -> Any:
    def raises(*args: Any, **kw: Any) -> Any:
        raise RuntimeError(
            f"This function was deprecated since version 1.9 and is now removed. {why}"
        )

    raises.__name__ = raises.__qualname__ = name
    raises.__doc__ = f"RuntimeError: torch removed it. {why}"
    return raises


symeig = _removed(
    "symeig",
    "The default behavior has changed from using the upper triangular portion of the matrix by "
    "default to using the lower triangular portion: use torch.linalg.eigh or eigvalsh.",
)
eig = _removed(
    "eig",
    "`torch.linalg.eig` returns complex tensors of dtype `cfloat` or `cdouble` rather than real "
    "tensors mimicking complex tensors.",
)
lstsq = _removed("lstsq", "`torch.lstsq` is deprecated in favor of `torch.linalg.lstsq`.")
solve = _removed(
    "solve",
    "`torch.solve` is deprecated in favor of `torch.linalg.solve`. `torch.linalg.solve` has its "
    "arguments reversed and does not return the LU factorization.",
)
matrix_rank = _removed("matrix_rank", "Please use the `torch.linalg.matrix_rank` function instead.")
