"""Bare `make` lists the commands, and each listed command exists."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (
    "setup", "demo", "test", "check", "laws", "golden", "bench", "conformance", "docs", "clean",
)  # fmt: skip


def make(*args: str) -> str:
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}  # no outer make
    run = subprocess.run(
        ["make", "--no-print-directory", *args], cwd=ROOT, capture_output=True, text=True, env=env
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_bare_make_lists_the_commands():
    listed = re.findall(r"^  (\w+) {2,}\S", make(), flags=re.M)
    assert set(COMMANDS) <= set(listed)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_recipe(command):
    assert make("-n", command).strip()  # -n prints the recipe and runs nothing


def test_ci_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "\nmake test\n" in script.read_text()
