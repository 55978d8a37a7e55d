"""torch.onnx: `weft export` and weft.io.onnx write ONNX; torch's exporter is not imitated yet."""

from __future__ import annotations

from typing import Any


def is_in_onnx_export() -> bool:
    return False


def register_custom_op_symbolic(*args: Any, **kw: Any) -> None:
    """Kept out: exports do not go through torch's table of symbols."""


def export(*args: Any, **kw: Any) -> None:
    raise NotImplementedError("torch.onnx.export: use weft.io.onnx.export(model, example, path)")
