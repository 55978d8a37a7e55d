"""What the runtimes of ONNX files share: the file that torch exported, and inputs for it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

FOLDER = Path(os.environ.get("BENCH_ONNX", "bench/.onnx"))


def check(work: str, variant: str) -> None:
    """NotImplementedError where a variant is not the work's."""
    if (variant == "int8") != work.endswith("_int8"):
        raise NotImplementedError(f"{variant} says nothing about {work}")


def path_of(work: str) -> str:
    """The exported model; NotImplementedError where there is none (training)."""
    path = FOLDER / f"{work}.onnx"
    source = FOLDER / f"{work.removesuffix('_int8')}.onnx"
    if not source.exists():
        raise NotImplementedError(f"{work}: these runtimes serve exported models only")
    if not path.exists():
        _quantize(source, path)
    return str(path)


def _quantize(source: Path, path: Path) -> None:
    """ONNX Runtime's int8 forms: static (QDQ) for images, dynamic for text, where it is faster."""
    from onnxruntime import InferenceSession, quantization

    before = path.with_suffix(".before")
    quantization.quant_pre_process(str(source), str(before))
    if "resnet" not in source.name:
        quantization.quantize_dynamic(before, path, per_channel=True)
    else:
        session = InferenceSession(str(source), providers=["CPUExecutionProvider"])
        batch = {x.name: draw(x.shape, "int" in x.type) for x in session.get_inputs()}

        class Reader(quantization.CalibrationDataReader):
            batches = iter([batch])

            def get_next(self) -> dict | None:
                return next(self.batches, None)

        quantization.quantize_static(
            before, path, Reader(), per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
    before.unlink()


def draw(shape: list[int], integer: bool) -> np.ndarray:
    """Token numbers or normal draws."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 1000, shape) if integer else rng.standard_normal(shape, np.float32)
