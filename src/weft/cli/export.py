"""weft export: a model for another runtime, proved on its recorded inputs."""

from __future__ import annotations

from pathlib import Path

import click

from weft.cli.opening import one_line, open_model
from weft.io import onnx as weft_onnx


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
