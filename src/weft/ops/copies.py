"""Views as copies under torch's `*_copy` and `unsafe_*` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft.ops.creation import clone
from weft.ops.join import chunk, split, unbind
from weft.ops.shape import diagonal, unfold
from weft.ops.strided import as_strided
from weft.ops.view import expand, permute, reshape, squeeze, t, transpose, unsqueeze


def _copied(name: str, view: Callable[..., Any]) -> Callable[..., Any]:
    def copied(input: Any, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        y = view(input, *args, **kwargs).clone()
        return y if out is None else out.copy_result(y)

    copied.__name__ = copied.__qualname__ = name
    copied.__doc__ = f"A copy of what {view.__name__} sees."
    return copied


def _each(name: str, parts: Callable[..., tuple]) -> Callable[..., Any]:
    def copied(input: Any, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        y = tuple(p.clone() for p in parts(input, *args, **kwargs))
        return y if out is None else tuple(o.copy_result(p) for o, p in zip(out, y, strict=True))

    copied.__name__ = copied.__qualname__ = name
    copied.__doc__ = f"Copies of what {parts.__name__} sees."
    return copied


def _view(input: Any, size: Any) -> Any:
    return reshape(input, size) if isinstance(size, (tuple, list)) else input.view(size)


def split_with_sizes(input: Any, split_sizes: Any, dim: int = 0) -> tuple:
    """Views of parts of the sizes given along dim."""
    return split(input, list(split_sizes), dim)


def alias_copy(input: Any, *, out: Any = None) -> Any:
    """A copy."""
    return clone(input) if out is None else out.copy_result(input)


expand_copy, permute_copy = _copied("expand_copy", expand), _copied("permute_copy", permute)
squeeze_copy, unsqueeze_copy = (
    _copied("squeeze_copy", squeeze),
    _copied("unsqueeze_copy", unsqueeze),
)
transpose_copy, t_copy = _copied("transpose_copy", transpose), _copied("t_copy", t)
diagonal_copy, view_copy = _copied("diagonal_copy", diagonal), _copied("view_copy", _view)
as_strided_copy = _copied("as_strided_copy", as_strided)
unfold_copy = _copied("unfold_copy", unfold)
unbind_copy = _each("unbind_copy", unbind)
split_with_sizes_copy = _each("split_with_sizes_copy", split_with_sizes)
unsafe_split, unsafe_chunk = split, chunk  # safe here
