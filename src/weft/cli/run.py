"""weft run: an unmodified PyTorch script, on Weft."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import click

from weft.compat import alias, report


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--report", "only_report", is_flag=True, help="List what it uses and Weft lacks.")
@click.argument("script", type=click.Path())
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def run(only_report: bool, script: str, args: tuple[str, ...]) -> None:
    """Run SCRIPT, written for PyTorch, with ARGS: `import torch` gives Weft.

    sys.argv, exceptions and exit codes are those of plain Python.  With --report nothing runs: the
    torch names that the script and its imports (modules beside it, packages that use torch) use,
    and Weft lacks, are listed, and the exit code is 1 if there are any.
    """
    path = Path(script)
    if not path.is_file():
        raise click.ClickException(f"can't open file {script!r}: no such file")
    alias.install()
    if only_report:
        found = report.examine(path)
        click.echo(report.text(found))
        sys.exit(1 if found.missing else 0)
    sys.argv = [script, *args]
    sys.path.insert(0, str(path.resolve().parent))
    execute(path, script)


def execute(path: Path, shown: str) -> None:
    """Run a file as `__main__`; what it raises is printed without the frames of this command."""
    main = ModuleType("__main__")
    main.__file__ = shown
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    try:
        exec(compile(path.read_bytes(), shown, "exec"), main.__dict__)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as e:
        trace = e.__traceback__
        e.__traceback__ = trace.tb_next if trace else None
        sys.stdout.flush()
        sys.__excepthook__(type(e), e, e.__traceback__)  # says which name was meant, too
        sys.exit(1)
