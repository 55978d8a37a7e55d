"""Names that torch keeps in the files of torch.nn.modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

from weft import nn
from weft.nn.state import IncompatibleKeys as _IncompatibleKeys

_ConvNd = nn.Conv2d.__mro__[1]
_BatchNorm = nn.BatchNorm2d.__mro__[1]
_InstanceNorm = nn.InstanceNorm2d.__mro__[1]
_Loss = nn.MSELoss.__mro__[1]
_WeightedLoss = nn.CrossEntropyLoss.__mro__[1]
_NormBase = _BatchNorm.__mro__[1]

__all__ = ["_IncompatibleKeys"]


class NonDynamicallyQuantizableLinear(nn.Linear):
    """Linear, marked for torch's quantizer."""


def _get_activation_fn(activation: str) -> Callable:
    """relu or gelu by name."""
    if activation not in ("relu", "gelu"):
        raise RuntimeError(f"activation should be relu/gelu, not {activation}")
    return getattr(nn.functional, activation)


def _ntuple(n: int, name: str = "parse") -> Callable:
    """A function that makes an n-tuple of a number, and a tuple of anything iterable."""

    def parse(x: Any) -> tuple:
        return tuple(x) if isinstance(x, Iterable) else tuple(repeat(x, n))

    parse.__name__ = name
    return parse


_single, _pair = _ntuple(1, "_single"), _ntuple(2, "_pair")
_triple, _quadruple = _ntuple(3, "_triple"), _ntuple(4, "_quadruple")
