"""PyTorch: eager, with the fused Adam, and through torch.compile (which needs a C++ compiler).

Under autocast to bfloat16 it has the fused Adam; channels last for images of inference.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import models
import torch
import works

VARIANTS = ["eager", "fused Adam", "compile", "channels_last", "autocast", "autocast compile"]
KINDS = {w.name: w.kind for w in works.WORKS}
_IMAGES = ("cnn", "resnet18", "resnet50_b1", "resnet50_b8")
_SLOW = (*_IMAGES, "mlp_b1", "mlp_b32", "gpt2_decode")  # to compile, or of few rows


def start(threads: int) -> str:
    torch.set_num_threads(threads)
    return torch.__version__


def make(work: str, variant: str) -> Callable[[], float]:
    if KINDS[work] == "int8":
        raise NotImplementedError("torch's quantization needs a package of its own")
    training = KINDS[work] == "training"
    if (
        (variant == "fused Adam" and not training)
        or (variant == "channels_last" and work not in _IMAGES[2:])
        or (variant == "autocast compile" and work in _SLOW)
    ):
        raise NotImplementedError(f"{variant} says nothing about {work}")
    narrow, compiled = "autocast" in variant, "compile" in variant
    if training:
        fused = {"fused": True} if narrow or variant == "fused Adam" else {}
        step = models.training_step(torch, work, narrow=narrow, **fused)
        if compiled:
            step = torch.compile(step)
        return lambda: step().item()
    model, inputs = models.inference(torch, work)
    if variant == "channels_last" or (narrow and work in _IMAGES):
        model = model.to(memory_format=torch.channels_last)
        inputs = tuple(x.to(memory_format=torch.channels_last) for x in inputs)
    if compiled:
        torch._inductor.config.freezing = True  # weights are constants, as in the other runtimes
        model = torch.compile(model)

    def run() -> float:
        with torch.no_grad(), models.autocast(torch) if narrow else nullcontext():
            y = model(*inputs)
        return float((y[0] if isinstance(y, tuple) else y).float().numpy().flat[0])

    return run


def export(work: str, path: str) -> None:
    """The model as ONNX, for the runtimes that read it."""
    model, inputs = models.inference(torch, work)
    names = [f"x{i}" for i in range(len(inputs))]
    torch.onnx.export(
        model, inputs, path, input_names=names, opset_version=18, dynamo=True,
        external_data=False, verbose=False,
    )  # fmt: skip
