"""No input crashes the interpreter: random calls return or raise what Weft itself says.

`WEFT_FUZZ=n` makes n calls (default 4,000); `WEFT_FUZZ_SEED=s` draws others.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("way, part", [("launch", 1.0), ("native", 0.2), ("compiled", 0.05)])
def test_random_calls_return_or_raise(way, part, tmp_path):
    count = int(int(os.environ.get("WEFT_FUZZ", "4000")) * part)
    seed = int(os.environ.get("WEFT_FUZZ_SEED", "0"))
    log = tmp_path / "last_call.txt"
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.calls", str(seed), str(count), way],
        cwd=ROOT,
        env={
            **os.environ,
            "WEFT_FUZZ_LOG": str(log),
            "PYTHONPATH": os.pathsep.join(["src", ".", os.environ.get("PYTHONPATH", "")]),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180 + count // 20,
    )
    last = log.read_text(encoding="utf-8") if log.exists() else "before the first call"
    assert run.returncode == 0, f"{last}\n{run.stderr[-3000:]}"
    done, raised, unclear = (int(run.stdout.split()[i]) for i in (0, 2, 4))
    assert done == count
    assert raised < 0.9 * count, "nearly all calls raise: the calls say nothing"
    # few errors may still come from the inside, of arguments of absurd kinds
    assert unclear < 0.01 * count, f"exceptions that do not name their argument:\n{run.stdout}"


_PAST = """
import numpy as np
from tests.fuzz import fence
from weft import kernels
from weft.kernels.layout import Layout
from weft.runtime import native

fence.install(native)
eight = Layout.contiguous((8,), np.dtype("float32"))
launch = kernels.plan_copy(eight, eight)
arrays = [np.zeros(n, "float32") for n in {sizes}]
native.launch(launch, arrays[0], arrays[1:])
native.launch(launch, arrays[0], arrays[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="fences are made by Linux' calls")
@pytest.mark.parametrize("sizes, fits", [((8, 8), True), ((4, 8), False), ((8, 4), False)])
def test_between_fences_a_launch_past_its_arrays_ends_the_process(sizes, fits):
    run = subprocess.run(
        [sys.executable, "-c", _PAST.format(sizes=sizes)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
        capture_output=True,
    )
    assert run.returncode == (0 if fits else -signal.SIGSEGV), run.stderr
