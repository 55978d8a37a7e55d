"""weft train: run the Trainer that a file describes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import click

from weft.train import Progress


@click.command()
@click.argument("target")
@click.option("--epochs", default=1, show_default=True)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint, if there is one.")
def train(target: str, epochs: int, resume: bool) -> None:
    """Train what TARGET makes: `file.py` or `file.py:function`.

    The function (`make` by default) returns (trainer, training loader[, validation loader]).
    """
    path, name = (target, "make") if target.endswith(".py") else target.rpartition(":")[::2]
    make = _function(Path(path or target), name)
    made = make()
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise click.ClickException(f"{target}: wanted (trainer, loader[, validation loader])")
    trainer, loader = made[0], made[1]
    history = trainer.fit(loader, made[2] if len(made) == 3 else None, epochs, resume=resume)
    if any(isinstance(c, Progress) for c in trainer.callbacks):
        return  # it has shown them
    for i, results in enumerate(history):
        shown = ", ".join(f"{k} {v:.4f}" for k, v in results.items())
        click.echo(f"epoch {i + 1}: {shown}")


def _function(path: Path, name: str) -> Any:
    if not path.is_file():
        raise click.ClickException(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise click.ClickException(f"{path}: not a Python file")
    sys.path.insert(0, str(path.resolve().parent))  # its own imports, as under plain Python
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        raise click.ClickException(f"{path}: no function {name!r}")
    return found
