"""Every test of this folder again, with the code that lesser machines get: without tile registers,
with narrower vectors.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from weft.runtime.native import host

_WIDTHS = {"avx512": 512, "avx2": 256, "sse": 128}
# what tile registers serve: all else is the same code without them
_TILED = ("attention", "conv_int8", "conv_pairs", "gemm", "recurrent_pairs")


def lesser() -> list[str]:
    """The values of WEFT_TARGET that take something from this machine."""
    if host().arch not in ("x86_64", "amd64"):
        return []
    bits = 1024 if host().has("amx-tile") else host().vector_bits
    return [name for name, width in _WIDTHS.items() if width < bits]


def test_lesser_targets():
    """All at once: each uses one core most of the time."""
    if "WEFT_TARGET" in os.environ:
        pytest.skip("already inside such a run")
    targets = lesser()
    if not targets:
        pytest.skip("this machine has no lesser target")
    here = Path(__file__)
    command = [
        sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--ignore={here}",
    ]  # fmt: skip
    some = [here.with_name(f"test_{name}.py") for name in _TILED]
    runs = [
        subprocess.Popen(
            [*command, *(some if target == "avx512" else [here.parent])],
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
