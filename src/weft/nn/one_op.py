"""Layers that are one op of their input and of what they own: native code may run them at once
(`ops/module_calls.py`), where no hook, override or patched function has a say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import weft
from weft.nn import functional as F
from weft.nn.activation import ReLU
from weft.nn.conv import Conv2d
from weft.nn.hooks import Everywhere
from weft.nn.linear import Linear
from weft.nn.module import Module
from weft.nn.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, LayerNorm
from weft.ops import contract, conv, module_calls, norm, unary

Call = tuple[Any, tuple]  # the op, its operands behind the input


def _linear(m: Linear) -> Call:
    own = m._parameters
    return contract.linear_op(), (own["weight"], own["bias"])


def _conv2d(m: Conv2d) -> Call:
    own = m._parameters
    # by groups a convolution may want its images in another order first
    known = m.padding_mode == "zeros" and m.groups == 1
    op = conv.known_conv2d(m.stride, m.padding, m.dilation, m.groups) if known else None
    return op, (own["weight"], own["bias"])


def _batch_norm(m: Any) -> Call:
    own, seen = m._parameters, m._buffers
    op = norm.eval_op(m.eps) if not m.training and m.eps.__class__ is float else None
    return op, (own["weight"], own["bias"], seen["running_mean"], seen["running_var"])


def _layer_norm(m: LayerNorm) -> Call:
    own, size = m._parameters, m.normalized_shape
    fits = size.__class__ is tuple and [n.__class__ for n in size] == [int]
    known = fits and m.eps.__class__ is float and own["weight"].shape == size
    return norm.rows_op(m.eps) if known else None, (own["weight"], own["bias"])


def _relu(m: ReLU) -> Call:
    return None if m.inplace else unary.Relu(), ()


_KINDS: dict[type, tuple[Callable[[Any], Call], tuple[int, ...]]] = {  # and the input's ranks
    Linear: (_linear, (2,)), Conv2d: (_conv2d, (4,)), ReLU: (_relu, ()),
    BatchNorm1d: (_batch_norm, (2, 3)), BatchNorm2d: (_batch_norm, (4,)),
    BatchNorm3d: (_batch_norm, (5,)), LayerNorm: (_layer_norm, ()),
}  # fmt: skip
_METHODS = ("forward", "_conv_forward", "convolve")


def _ways(kind: type) -> list:
    """What the layers' own calls go through."""
    own = [getattr(kind, name, None) for name in _METHODS]
    return [F.linear, F.batch_norm, F.layer_norm, F.relu, *own]


_FIRST = {kind: _ways(kind) for kind in _KINDS}  # before anyone patched them


def _tell(module: Any, args: tuple) -> None:
    """A module was called in Python with these arguments."""
    kind, own = type(module), module.__dict__
    if kind not in _KINDS or len(args) != 1 or not isinstance(args[0], weft.Tensor):
        return
    (call, ranks), rank = _KINDS[kind], args[0].dim()
    if (ranks and rank not in ranks) or module._hooked or Everywhere.active:
        return
    if not own.keys().isdisjoint(_METHODS) or _ways(kind) != _FIRST[kind]:
        return
    try:
        op, operands = call(module)
    except (AttributeError, KeyError):  # whoever took it away knows what forward does then
        return
    if kind in (Linear, Conv2d) and operands[1] is None:  # no bias
        operands = operands[:-1]
    if op is not None and all(isinstance(x, weft.Tensor) for x in operands):
        module_calls.know(
            module, op, rank if ranks else 0, operands,
            within=(module._parameters, module._buffers), also=(Everywhere, vars(F)),
            shaped=kind is LayerNorm,
        )  # fmt: skip


module_calls.install(Module, _tell)
