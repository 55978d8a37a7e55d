"""The `weft` command: one file a verb."""

from __future__ import annotations

import click

import weft
from weft.cli.bench import bench
from weft.cli.demo import demo
from weft.cli.doctor import doctor
from weft.cli.export import export
from weft.cli.info import info
from weft.cli.run import run
from weft.cli.serve import serve
from weft.cli.train import train
from weft.cli.verify import verify


@click.group()
@click.version_option(weft.__version__, prog_name="weft")
def main() -> None:
    """Write it as you write PyTorch, ship it as TensorFlow ships."""


for _verb in (demo, train, run, serve, export, verify, info, bench, doctor):
    main.add_command(_verb)
