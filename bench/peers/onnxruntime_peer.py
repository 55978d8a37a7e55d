"""ONNX Runtime on what torch exports, and on what it makes of that in int8."""

from __future__ import annotations

from collections.abc import Callable

import onnxruntime
from peers.onnx_inputs import check, draw, path_of

VARIANTS = ["float32", "int8"]
_threads = 1


def start(threads: int) -> str:
    global _threads
    _threads = threads
    return onnxruntime.__version__


def make(work: str, variant: str) -> Callable[[], float]:
    check(work, variant)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path_of(work), options, ["CPUExecutionProvider"])
    inputs = {x.name: draw(x.shape, "int" in x.type) for x in session.get_inputs()}
    return lambda: float(session.run(None, inputs)[0].flat[0])  # type: ignore[union-attr]
