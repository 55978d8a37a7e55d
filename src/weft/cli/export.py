"""weft export: a model for another runtime, proved on its recorded inputs."""

from __future__ import annotations

from pathlib import Path

import click

from weft.cli.opening import open_model


@click.command()
@click.argument("model", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="Where to write (MODEL with .onnx).")
@click.option("--opset", default=18, show_default=True)
@click.option("--check/--no-check", default=True, help="Replay the recorded inputs on the export.")
def export(model: str, output: str | None, opset: int, check: bool) -> None:
    """Write MODEL as ONNX and prove it."""
    file = open_model(model)
    try:
        from weft.io import onnx as weft_onnx  # needs the optional package
    except ImportError as e:
        raise click.ClickException(str(e)) from None
    target = output or str(Path(model).with_suffix(".onnx"))
    try:
        weft_onnx.export(file, target, opset=opset)
    except (ValueError, KeyError) as e:
        raise click.ClickException(str(e)) from None
    click.echo(f"wrote {target} ({Path(target).stat().st_size / 1e6:.2f} MB)")
    if check:
        report = weft_onnx.verify(file, target)
        click.echo(str(report))
        if not report.ok:
            raise SystemExit(1)
