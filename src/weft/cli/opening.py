"""Opening a model file for a verb: errors become one line, not a traceback."""

from __future__ import annotations

import click

from weft import io


def open_model(path: str) -> io.ModelFile:
    """The file, or a click error that says what is wrong with it."""
    try:
        return io.load(path)
    except FileNotFoundError:
        raise click.ClickException(f"{path}: no such file") from None
    except (io.BadFile, OSError) as e:
        raise click.ClickException(str(e)) from None
