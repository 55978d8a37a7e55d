"""The `weft` command and its verbs."""

from __future__ import annotations

import click

import weft
from weft.cli.demo import demo
from weft.cli.doctor import doctor
from weft.cli.model import bench, export, info, serve, verify
from weft.cli.run import run
from weft.cli.train import train


@click.group()
@click.version_option(weft.__version__, prog_name="weft")
def main() -> None:
    """Write it as you write PyTorch, ship it as TensorFlow ships."""


for _verb in (demo, train, run, serve, export, verify, info, bench, doctor):
    main.add_command(_verb)
