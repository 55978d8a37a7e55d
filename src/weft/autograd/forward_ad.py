"""Forward mode by dual numbers, as torch.autograd.forward_ad.

A dual number is a leaf of the tape that remembers its tangent; the tangent of a result is J t, made
when `unpack_dual` asks for it (a jvp by two vjps, `func.jvp`).  So whatever has a gradient has a
tangent, the forward pass must run with gradients enabled, and it costs what a backward pass costs.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from weft.autograd.func import push
from weft.core.handle import Handle
from weft.ops.dispatch import alias, dtype_of, shape_of

__all__ = ["UnpackedDualTensor", "dual_level", "enter_dual_level", "exit_dual_level", "make_dual",
           "unpack_dual"]  # fmt: skip


class UnpackedDualTensor(NamedTuple):
    """A dual number's parts; `tangent` is None where there is none."""

    primal: Any
    tangent: Any


class _Levels(threading.local):
    def __init__(self) -> None:
        self.duals: list[tuple[list, list]] = []  # of each level, the leaves and their tangents


_levels = _Levels()


def enter_dual_level() -> int:
    """Open a level; RuntimeError where one is open, as in torch."""
    if _levels.duals:
        raise RuntimeError("Nested forward mode AD is not supported at the moment")
    _levels.duals.append(([], []))
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """Forget the level's tangents."""
    if not _levels.duals:
        raise RuntimeError("Trying to exit a forward AD level but none is open")
    _levels.duals.pop()


class dual_level:
    """`with dual_level():` dual numbers live in the block."""

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(self, *exc: object) -> None:
        exit_dual_level()


def make_dual(tensor: Any, tangent: Any, *, level: int | None = None) -> Any:
    """tensor with a tangent of its shape and dtype."""
    if not _levels.duals:
        raise RuntimeError(
            "Trying to create a dual Tensor for forward AD but no level exists, make sure to "
            "enter_dual_level() first."
        )
    if not tensor.is_floating_point():
        raise ValueError(
            f"Expected primal to be floating point or complex, but got: {tensor.dtype}"
        )
    if not tangent.is_floating_point():
        raise ValueError(
            f"Expected tangent to be floating point or complex, but got: {tangent.dtype}"
        )
    if shape_of(tensor) != shape_of(tangent) or dtype_of(tensor) is not dtype_of(tangent):
        raise RuntimeError(
            f"make_dual: the tangent, {dtype_of(tangent)} of shape {list(shape_of(tangent))}, must "
            f"have the primal's dtype and shape, {dtype_of(tensor)} {list(shape_of(tensor))}"
        )
    leaf = alias(tensor).requires_grad_()
    leaves, tangents = _levels.duals[-1]
    leaves.append(leaf)
    tangents.append(tangent)
    return leaf


def unpack_dual(tensor: Any, *, level: int | None = None) -> UnpackedDualTensor:
    """(primal, tangent) of a tensor; a tangent that no dual number reaches is None."""
    if not _levels.duals or not isinstance(tensor, Handle) or not tensor._rg:
        return UnpackedDualTensor(tensor, None)
    leaves, tangents = _levels.duals[-1]
    got = push(tensor, leaves, tangents) if leaves else None
    return UnpackedDualTensor(alias(tensor), None if got is None else alias(got))
