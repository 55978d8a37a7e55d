"""weft bench: where a model's time goes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import click
import numpy as np

import weft
from weft import io, profiler
from weft.cli.opening import one_line, open_model
from weft.core.types import Dim


@click.command()
@click.argument("model", type=click.Path())
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--runs", default=50, show_default=True, type=click.IntRange(min=1))
@click.option("--top", default=15, show_default=True, help="Steps to show.")
def bench(model: str, batch: int, runs: int, top: int) -> None:
    """Time MODEL's compiled graph, as a whole and step by step, on rows of its recorded inputs.

    The table tells how far each kernel is from the machine's limit, which is measured first.
    """
    file = open_model(model)
    with one_line():
        inputs = _inputs(file, batch)
        run = file.program(inputs)
        run(inputs)
    whole = _median(lambda: run(inputs), runs)
    click.echo(
        f"{model}, batch {batch}, {weft.get_num_threads()} threads: {1e3 * whole:.3f} ms "
        f"(median of {runs}), {batch / whole:.0f} rows/s"
    )
    (program,) = file.programs()
    click.echo(profiler.steps_of(program, runs).table(row_limit=top))


def _inputs(file: io.ModelFile, batch: int) -> dict[str, np.ndarray]:
    """The first record's inputs, their rows repeated to the batch where its size is free."""
    records = file.records()
    if not records:
        raise ValueError(f"{file.path}: no recorded inputs to run on")
    inputs = {}
    for n in file.graph().inputs:
        if file.is_weight(n.name):
            continue
        a = records[0]["inputs"][n.name]
        for d, size in enumerate(n.type.shape):
            if isinstance(size, Dim):
                a = np.take(a, np.arange(size.at(batch)) % a.shape[d], d)
        inputs[n.name] = np.ascontiguousarray(a)
    return inputs


def _median(call: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
