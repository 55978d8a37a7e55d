"""`one_op.py` in a process of its own: once anything in a process overrides functions, native code
knows no layer any more, and other tests do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.nn import one_op

HERE = Path(one_op.__file__)


def test_layers_that_native_code_knows():
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE],
        cwd=HERE.parents[2], env={**os.environ, "PYTEST_ADDOPTS": ""}, timeout=300,
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout
