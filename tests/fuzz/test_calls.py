"""No input crashes the interpreter: random calls return or raise what Weft itself says.

`WEFT_FUZZ=n` makes n calls (default 4,000); `WEFT_FUZZ_SEED=s` draws others.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_random_calls_return_or_raise(tmp_path):
    count = int(os.environ.get("WEFT_FUZZ", "4000"))
    seed = int(os.environ.get("WEFT_FUZZ_SEED", "0"))
    log = tmp_path / "last_call.txt"
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.calls", str(seed), str(count)],
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
