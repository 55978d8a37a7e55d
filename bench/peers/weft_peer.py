"""Weft: compiled, compiled with replay=True (Python skipped behind guards), and line by line.

"fast math" is replayed too, with products of float32 that may round their operands to bfloat16;
"autocast" is replayed under autocast to bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import models
import works

import weft

FAST, NARROW = "fast math", "autocast"
VARIANTS = ["replayed", "compiled", "eager", FAST, NARROW]
KINDS = {w.name: w.kind for w in works.WORKS}


def start(threads: int) -> str:
    weft.set_num_threads(threads)
    return weft.__version__


def make(work: str, variant: str) -> Callable[[], float]:
    if variant in (FAST, NARROW) and KINDS[work] == "int8":
        raise NotImplementedError("bytes are no float32")
    weft.set_fast_math(variant == FAST)
    replay, narrow = variant in ("replayed", FAST, NARROW), variant == NARROW
    if KINDS[work] == "training":
        step = models.training_step(weft, work, narrow=narrow)
        if variant != "eager":
            step = weft.compile(step, replay=replay)
        return _checked(lambda: step().item(), step, replay=replay)
    model, inputs = models.inference(weft, work.removesuffix("_int8"))
    if KINDS[work] == "int8":
        model = weft.quantize(model, calibration=[inputs])
    if variant != "eager":
        model = weft.compile(model, replay=replay)

    def run() -> float:
        with weft.no_grad(), models.autocast(weft) if narrow else nullcontext():
            y = model(*inputs)
        return float(_first(y).numpy().flat[0])  # as the runtimes that give arrays are read

    return _checked(run, model, replay=replay)


def _checked(run: Any, compiled: Any, *, replay: bool) -> Callable[[], float]:
    """`run`, which tells by `refused()` why not all calls since the last question were replays."""
    if not replay:
        return run
    before: dict[str, int] = {}

    def refused() -> str:
        now = {k: compiled.stats[k] for k in ("calls", "replayed")}
        calls, replays = (now[k] - before.get(k, 0) for k in now)
        warm = not before  # the first calls are recorded
        before.update(now)
        if warm or calls == replays:
            return ""
        return f"{replays} of {calls} calls replayed, replay {compiled.stats['replay']}"

    run.refused = refused
    return run


def _first(y: object) -> weft.Tensor:
    return y[0] if isinstance(y, tuple) else y  # type: ignore[return-value]
