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


@pytest.mark.skipif("WEFT_TARGET" in os.environ, reason="already inside such a run")
@pytest.mark.parametrize("target", lesser())
def test_lesser_target(target):
    here = Path(__file__)
    some = [here.with_name(f"test_{name}.py") for name in _TILED]
    run = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
            f"--ignore={here}", *(some if target == "avx512" else [here.parent]),
        ],
        cwd=here.parents[2],
        env={**os.environ, "WEFT_TARGET": target},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-6000:]
