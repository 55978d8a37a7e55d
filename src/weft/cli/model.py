"""weft info, verify, export, serve, bench: the verbs about a model file.

Mistakes are told in one line instead of a traceback.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

import weft
from weft import io, profiler
from weft import serve as serving
from weft.core.types import Dim
from weft.io import onnx as weft_onnx
from weft.io.model_file import RESERVED


@contextmanager
def one_line() -> Iterator[None]:
    """Errors of the user's making end the command with one line and exit status 1."""
    try:
        yield
    except FileNotFoundError as e:
        raise click.ClickException(f"{e.filename}: no such file or folder") from None
    except (OSError, ValueError, RuntimeError, ImportError) as e:  # BadFile is a ValueError
        raise click.ClickException(str(e)) from None
    except KeyError as e:
        raise click.ClickException(str(e.args[0])) from None


def open_model(path: str) -> io.ModelFile:
    """The file, or a click error that says what is wrong with it."""
    with one_line():
        return io.load(path)


@click.command()
@click.argument("model", type=click.Path())
@click.option("--graph", "with_graph", is_flag=True, help="Print the graph too.")
@click.option("--tensors", "with_tensors", is_flag=True, help="List every tensor.")
def info(model: str, with_graph: bool, with_tensors: bool) -> None:
    """Print what MODEL holds: signature, size, lineage, verification."""
    file = open_model(model)
    with one_line():
        lines = _lines(file, with_graph, with_tensors)
    click.echo("\n".join(lines))


def _lines(file: io.ModelFile, with_graph: bool, with_tensors: bool) -> list[str]:
    weights = {k: a for k, a in file.arrays.items() if not k.startswith(RESERVED)}
    count = sum(a.size for a in weights.values())
    size = sum(a.nbytes for a in weights.values())
    lines = [f"{file.path}: {len(weights)} tensors, {count:,} numbers, {size / 1e6:.2f} MB"]
    for k, v in file.lineage.items():
        lines.append(f"  {k}: {v}")
    has_graph = "weft.graph.forward" in file.metadata
    if has_graph:
        graph = file.graph()
        inputs = [f"{n.name}: {n.type}" for n in graph.inputs if not file.is_weight(n.name)]
        outputs = [f"{k}: {n.type}" for k, n in graph.outputs.items()]
        lines.append(f"  signature ({', '.join(inputs)}) -> {', '.join(outputs)}")
        lines.append(f"  graph of {len(graph.nodes())} ops, {len(file.records())} recorded calls")
    for target in ("compiled", "onnx"):
        report = file.report(target)
        if report is not None:
            worst = max((c["largest"] for c in report["checks"]), default=0.0)
            verdict = "ok" if report["ok"] else "FAILED"
            lines.append(f"  {report['target']}: {verdict}, largest difference {worst:.3g}")
    if file.training is not None:
        lines.append(f"  training state: {', '.join(map(str, file.training))}")
    if file.labels:
        more = " ..." if len(file.labels) > 12 else ""
        lines.append(f"  labels: {', '.join(file.labels[:12])}{more}")
    if file.metadata.get("weft.card"):
        lines.append("\n" + file.metadata["weft.card"])
    if with_tensors:
        for k, a in sorted(file.arrays.items()):
            lines.append(f"  {k:50s} {a.dtype!s:9s} {list(a.shape)}")
    if with_graph and has_graph:
        lines.append(str(file.graph()))
    return lines


@click.command()
@click.argument("model", type=click.Path())
@click.option("--onnx", "onnx_path", type=click.Path(), help="Check this ONNX file instead.")
def verify(model: str, onnx_path: str | None) -> None:
    """Replay MODEL's recorded inputs; exit status 1 when an answer differs too much."""
    file = open_model(model)
    with one_line():
        report = io.verify(file) if onnx_path is None else weft_onnx.verify(file, onnx_path)
    click.echo(str(report))
    if not report.ok:
        raise SystemExit(1)


@click.command()
@click.argument("model", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="Where to write (MODEL with .onnx).")
@click.option("--opset", default=18, show_default=True)
@click.option("--check/--no-check", default=True, help="Replay the recorded inputs on the export.")
@click.option("--keep", is_flag=True, help="Put the report of the check into MODEL.")
def export(model: str, output: str | None, opset: int, check: bool, keep: bool) -> None:
    """Write MODEL as ONNX and prove it; exit status 1 when an answer differs too much."""
    file = open_model(model)
    target = output or str(Path(model).with_suffix(".onnx"))
    with one_line():
        weft_onnx.export(file, target, opset=opset)
        click.echo(f"wrote {target} ({Path(target).stat().st_size / 1e6:.2f} MB)")
        if not check:
            return
        report = weft_onnx.verify(file, target, keep=keep)
        if keep:
            file.write()
    click.echo(str(report))
    if not report.ok:
        raise SystemExit(1)


@click.command()
@click.argument("model", type=click.Path())
@click.option("--name", help="The model's name in the URLs (the file's name without .weft).")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
def serve(model: str, name: str | None, host: str, port: int) -> None:
    """Serve MODEL: /v2/models/NAME/infer, /v1/models/NAME:predict, and a page at /."""
    file = open_model(model)
    label = name or Path(model).stem
    with one_line():
        file.graph()  # says what is wrong before anything listens
        serving.serve(
            {label: file.path},
            host=host,
            port=port,
            announce=lambda url: click.echo(
                f"serving {model} as {label!r} at {url}/  (Ctrl-C stops)"
            ),
        )


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
        inputs = _rows(file, batch)
        run = file.program(inputs)
        run(inputs)
    whole = _median(lambda: run(inputs), runs)
    click.echo(
        f"{model}, batch {batch}, {weft.get_num_threads()} threads: {1e3 * whole:.3f} ms "
        f"(median of {runs}), {batch / whole:.0f} rows/s"
    )
    (program,) = file.programs()
    click.echo(profiler.steps_of(program, runs).table(row_limit=top))


def _rows(file: io.ModelFile, batch: int) -> dict[str, np.ndarray]:
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
