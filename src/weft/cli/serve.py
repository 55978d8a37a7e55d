"""weft serve: a model behind HTTP."""

from __future__ import annotations

from pathlib import Path

import click

from weft import serve as serving
from weft.cli.opening import one_line, open_model


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
