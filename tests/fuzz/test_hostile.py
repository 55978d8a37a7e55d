"""Nothing done to tensors, arrays, classes or namespaces from outside crashes the interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.hostile import CASES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", list(CASES))
def test_the_interpreter_survives(name):
    path = os.pathsep.join(["src", ".", os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.hostile", name],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "PYTHONMALLOC": "debug"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout) == (0, "whole\n"), run.stderr[-3000:]
