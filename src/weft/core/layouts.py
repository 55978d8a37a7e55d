"""Markers for how a tensor lies in memory: layouts, and orders of dims.

Weft's tensors are all `strided`.  `contiguous`, `clone`, `to` and its kin (`float`, `half`, ...)
and the `*_like` functions give the memory format that is asked for, or keep their operand's order
of dims, as torch's do.  Other operations give C-contiguous results, whatever they read: what comes
next has one layout to be fast for, and a compiled program chooses freely what lies between.
"""

from __future__ import annotations


class _Marker:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str:
        return self.name

    def __deepcopy__(self, memo: dict) -> _Marker:
        return self


class memory_format(_Marker):
    """An order of dims in memory."""

    __slots__ = ()


class layout(_Marker):
    """Dense (`strided`), or a sparse form, which Weft lacks."""

    __slots__ = ()


contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last, channels_last_3d = memory_format("channels_last"), memory_format("channels_last_3d")
strided, jagged = layout("strided"), layout("jagged")
sparse_coo, sparse_csr, sparse_csc = (
    layout("sparse_coo"),
    layout("sparse_csr"),
    layout("sparse_csc"),
)
sparse_bsr, sparse_bsc = layout("sparse_bsr"), layout("sparse_bsc")
