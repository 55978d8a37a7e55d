"""What the runtimes of ONNX files share: the file that torch exported, and inputs for it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

FOLDER = Path(os.environ.get("BENCH_ONNX", "bench/.onnx"))


def path_of(work: str) -> str:
    """The exported model; NotImplementedError where there is none (training)."""
    path = FOLDER / f"{work}.onnx"
    if not path.exists():
        raise NotImplementedError(f"{work}: these runtimes serve exported models only")
    return str(path)


def draw(shape: list[int], integer: bool) -> np.ndarray:
    """Token numbers or normal draws."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 1000, shape) if integer else rng.standard_normal(shape, np.float32)
