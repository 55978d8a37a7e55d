"""Every test of this folder again, with the code that machines of narrower vectors get."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from weft.runtime.native import host

_WIDTHS = {"avx2": 256, "sse": 128}


def test_narrower_targets():
    """All at once: each uses one core most of the time."""
    if "WEFT_TARGET" in os.environ:
        pytest.skip("already inside such a run")
    targets = [name for name, bits in _WIDTHS.items() if bits < host().vector_bits]
    if host().arch not in ("x86_64", "amd64") or not targets:
        pytest.skip("this machine has no narrower target")
    here = Path(__file__)
    command = [
        sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", here.parent,
        f"--ignore={here}",
    ]  # fmt: skip
    runs = [
        subprocess.Popen(
            command,
            cwd=here.parents[2],
            env={**os.environ, "WEFT_TARGET": target},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for target in targets
    ]
    said = [run.communicate()[0] for run in runs]
    for target, run, text in zip(targets, runs, said, strict=True):
        assert run.returncode == 0, f"WEFT_TARGET={target}\n{text[-6000:]}"
