"""What the verbs share: a model opened, and mistakes told in one line instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from weft import io


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
