"""weft verify: replay a model's recorded inputs and compare the answers."""

from __future__ import annotations

import click

from weft import io
from weft.cli.opening import one_line, open_model
from weft.io import onnx as weft_onnx


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
