"""weft info: what a model file holds."""

from __future__ import annotations

import json

import click

from weft.cli.opening import open_model
from weft.io.model_file import RESERVED


@click.command()
@click.argument("model", type=click.Path())
@click.option("--graph", "with_graph", is_flag=True, help="Print the graph too.")
@click.option("--tensors", "with_tensors", is_flag=True, help="List every tensor.")
def info(model: str, with_graph: bool, with_tensors: bool) -> None:
    """Print what MODEL holds: signature, size, lineage, verification."""
    file = open_model(model)
    weights = {k: a for k, a in file.arrays.items() if not k.startswith(RESERVED)}
    count = sum(a.size for a in weights.values())
    size = sum(a.nbytes for a in weights.values())
    click.echo(f"{model}: {len(weights)} tensors, {count:,} numbers, {size / 1e6:.2f} MB")
    for k, v in file.lineage.items():
        click.echo(f"  {k}: {v}")
    if "weft.graph.forward" in file.metadata:
        graph = file.graph()
        inputs = [f"{n.name}: {n.type}" for n in graph.inputs if not file.is_weight(n.name)]
        outputs = [f"{k}: {n.type}" for k, n in graph.outputs.items()]
        click.echo(f"  signature ({', '.join(inputs)}) -> {', '.join(outputs)}")
        click.echo(f"  graph of {len(graph.nodes())} ops, {len(file.records())} recorded calls")
    report = json.loads(file.metadata.get("weft.report", "null"))
    if report is not None:
        worst = max((c["largest"] for c in report["checks"]), default=0.0)
        click.echo(f"  verified when saved: {report['ok']}, largest difference {worst:.3g}")
    if file.labels:
        click.echo(f"  labels: {', '.join(file.labels[:12])}{' ...' if len(file.labels) > 12 else ''}")  # noqa: E501
    if file.metadata.get("weft.card"):
        click.echo("\n" + file.metadata["weft.card"])
    if with_tensors:
        for k, a in sorted(file.arrays.items()):
            click.echo(f"  {k:50s} {a.dtype!s:9s} {list(a.shape)}")
    if with_graph and "weft.graph.forward" in file.metadata:
        click.echo(str(file.graph()))
