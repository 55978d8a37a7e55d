"""OpenVINO on what torch exports: held to float32, in bfloat16 (its default here), or int8."""

from __future__ import annotations

from collections.abc import Callable

import openvino
from peers.onnx_inputs import check, draw, path_of

VARIANTS = ["float32", "bfloat16", "int8"]
_threads = 1


def start(threads: int) -> str:
    global _threads
    _threads = threads
    return openvino.__version__


def make(work: str, variant: str) -> Callable[[], float]:
    check(work, variant)
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if variant == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": _threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(path_of(work), "CPU", settings)
    request = model.create_infer_request()
    inputs = {
        i: draw(list(x.shape), x.element_type.get_type_name().startswith("i"))
        for i, x in enumerate(model.inputs)
    }
    for i, x in inputs.items():
        request.set_input_tensor(i, openvino.Tensor(x))

    def run() -> float:
        request.infer()
        return float(request.get_output_tensor(0).data.flat[0])

    return run
