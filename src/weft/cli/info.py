"""weft info: what a model file holds."""

from __future__ import annotations

import click

from weft import io
from weft.cli.opening import one_line, open_model
from weft.io.model_file import RESERVED


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
