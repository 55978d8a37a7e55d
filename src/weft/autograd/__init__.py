"""Automatic differentiation: the tape's engine, grad modes, Function, checkpoint, gradcheck."""

from weft.autograd import hooks
from weft.autograd.engine import backward, grad
from weft.autograd.function import Function
from weft.autograd.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)

__all__ = [
    "Function",
    "backward",
    "enable_grad",
    "grad",
    "hooks",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "set_grad_enabled",
]
