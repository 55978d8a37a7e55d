"""torch.ao.quantization, torch.nn.quantized: the parts that float models are written with."""

from __future__ import annotations

from typing import Any

import weft
from weft import nn


class QuantStub(nn.Module):
    """Identity, where a quantizer would enter."""

    def __init__(self, qconfig: Any = None) -> None:
        super().__init__()

    def forward(self, x: Any) -> Any:
        return x


class DeQuantStub(QuantStub):
    """Identity, where a quantizer would leave."""


class FloatFunctional(nn.Module):
    """Arithmetic as a module, so that a quantizer could observe it."""

    def add(self, x: Any, y: Any) -> Any:
        return weft.add(x, y)

    def mul(self, x: Any, y: Any) -> Any:
        return weft.mul(x, y)

    def cat(self, x: Any, dim: int = 0) -> Any:
        return weft.cat(x, dim=dim)

    def add_relu(self, x: Any, y: Any) -> Any:
        return nn.functional.relu(weft.add(x, y))

    def add_scalar(self, x: Any, y: float) -> Any:
        return weft.add(x, y)

    def mul_scalar(self, x: Any, y: float) -> Any:
        return weft.mul(x, y)


def _refuse(*args: Any, **kw: Any) -> Any:
    raise NotImplementedError("torch.ao.quantization: Weft does not quantize torch's way yet")


convert = prepare = prepare_qat = fuse_modules = fuse_modules_qat = quantize_dynamic = _refuse
QConfig = default_observer = default_weight_observer = _refuse
