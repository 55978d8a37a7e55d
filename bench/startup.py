"""How long a program waits for Weft: the import, and the first eager op with a cold kernel cache.

    python bench/startup.py [--runs 7]

Each run is a process of its own. The import is timed inside it, so Python's own start is not
counted. Targets: import under 0.35 s, first op under 0.5 s.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

IMPORT = """
import time
start = time.perf_counter()
import weft
print(time.perf_counter() - start)
"""

FIRST_OP = """
import time, weft
start = time.perf_counter()
x, y = weft.ones(10), weft.ones(10)
z = x{op}
z.tolist()
print(time.perf_counter() - start)
"""


def seconds(program: str, runs: int, cold: bool) -> list[float]:
    """What `program` prints, in `runs` fresh processes; with `cold` each has an empty cache."""
    out = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as empty:
            env = {**os.environ, **({"WEFT_CACHE_DIR": empty} if cold else {})}
            run = [sys.executable, "-c", program]
            done = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
            out.append(float(done.stdout))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    cases = [
        ("import weft", IMPORT, False, 0.35),
        ("first x + y, cold cache", FIRST_OP.format(op=" + y"), True, 0.5),
        ("first x.exp(), cold cache", FIRST_OP.format(op=".exp()"), True, 0.5),
    ]
    slow = 0
    for name, program, cold, target in cases:
        times = seconds(program, runs, cold)
        middle = statistics.median(times)
        slow += middle >= target
        verdict = "ok" if middle < target else "TOO SLOW"
        print(
            f"{name:<26} median {middle * 1e3:6.0f} ms, min {min(times) * 1e3:6.0f} ms, "
            f"target {target * 1e3:.0f} ms: {verdict}"
        )
    return slow


if __name__ == "__main__":
    sys.exit(main())
