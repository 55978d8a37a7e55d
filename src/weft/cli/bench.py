"""weft bench: where a model's time goes."""

from __future__ import annotations

import statistics
import time

import click
import numpy as np

import weft
from weft.cli.opening import open_model


@click.command()
@click.argument("model", type=click.Path())
@click.option("--batch", default=1, show_default=True)
@click.option("--runs", default=50, show_default=True)
@click.option("--top", default=15, show_default=True, help="Steps to show.")
def bench(model: str, batch: int, runs: int, top: int) -> None:
    """Time MODEL's compiled graph, as a whole and step by step."""
    file = open_model(model)
    graph = file.graph()
    rng = np.random.default_rng(0)
    inputs = {}
    for n in graph.inputs:
        if not file.is_weight(n.name):
            shape = tuple(d if isinstance(d, int) else d.at(batch) for d in n.type.shape)
            inputs[n.name] = rng.standard_normal(shape).astype(n.type.dtype.np)
    run = file.program(inputs)
    run(inputs)
    whole = _median(lambda: run(inputs), runs)
    click.echo(
        f"{model}, batch {batch}, {weft.get_num_threads()} threads: {1e3 * whole:.3f} ms "
        f"(median of {runs}), {batch / whole:.0f} rows/s"
    )
    (program,) = file.programs()
    rows = program.time_steps(runs)
    total = sum(seconds for _, seconds in rows) or 1.0
    for label, seconds in sorted(rows, key=lambda r: -r[1])[:top]:
        click.echo(f"  {1e3 * seconds:9.3f} ms {100 * seconds / total:5.1f} %  {label}")


def _median(call, runs: int) -> float:  # noqa: ANN001
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
