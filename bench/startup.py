"""How long a program waits for Weft: the import, and its first eager ops.

    python bench/startup.py [--runs 9]

Each run is a process of its own; the programs take turns, so that a busy machine hits all alike.
`import` is timed inside the process; `process` is the whole of it, Python's own start and exit
included, `computing` the processor time of that. `cold` has an empty kernel cache (WEFT_CACHE_DIR),
`warm` has one that the same program filled. Modules come with their byte code, as pip installs
them; the last row has none.
Targets: import under 0.35 s, a cold first op under 0.5 s.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

OPS = {
    "import": "pass",
    "matmul": "(weft.randn(3, 3) @ weft.randn(3, 3)).tolist()",
    "add": "(weft.randn(3, 3) + weft.randn(3, 3)).tolist()",
    "exp": "weft.randn(3, 3).exp().tolist()",
    "softmax": "weft.softmax(weft.randn(3, 3), -1).tolist()",
}
PROGRAM = """
import time
start = time.perf_counter()
import weft
done = time.perf_counter()
{op}
print(done - start, time.perf_counter() - start)
"""


@dataclass
class Case:
    """One program and what it runs on; its times in seconds."""

    name: str
    op: str
    cold: bool
    byte_code: bool = True
    imports: list[float] = field(default_factory=list)
    ops: list[float] = field(default_factory=list)
    wholes: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def run(self, warm_cache: Path, byte_code: Path) -> None:
        with tempfile.TemporaryDirectory() as empty:
            env = dict(os.environ, WEFT_CACHE_DIR=empty if self.cold else str(warm_cache))
            env.pop("PYTHONDONTWRITEBYTECODE", None)
            env["PYTHONPYCACHEPREFIX"] = str(byte_code)
            if not self.byte_code:
                env["PYTHONPYCACHEPREFIX"] = empty
                env["PYTHONDONTWRITEBYTECODE"] = "1"
            before, start = _processor_time(), time.perf_counter()
            run = [sys.executable, "-c", PROGRAM.format(op=self.op)]
            done = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
            self.wholes.append(time.perf_counter() - start)
            self.processor.append(_processor_time() - before)
        imported, finished = map(float, done.stdout.split())
        self.imports.append(imported)
        self.ops.append(finished)

    def row(self) -> str:
        columns = (self.imports, self.ops, self.wholes, self.processor)
        shown = (statistics.median(times) * 1e3 for times in columns)
        return f"{self.name:<28}" + "".join(f"{ms:>10.0f}" for ms in shown)


def _processor_time() -> float:
    """Seconds that child processes have computed: on a busy machine, less than they took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    cases = [
        Case("import" if op == "import" else f"{op}, {how}", code, how == "cold")
        for op, code in OPS.items()
        for how in (("warm",) if op == "import" else ("cold", "warm"))
    ]
    cases.append(Case("import, no byte code at all", "pass", cold=False, byte_code=False))
    with tempfile.TemporaryDirectory() as kept:
        for case in cases:  # fills the caches
            case.run(Path(kept) / "kernels", Path(kept) / "code")
        for case in cases:
            case.imports, case.ops, case.wholes, case.processor = [], [], [], []
        for _ in range(runs):
            for case in cases:
                case.run(Path(kept) / "kernels", Path(kept) / "code")
    print(f"medians of {runs} processes, ms")
    print(f"{'':<28}{'import':>10}{'import+op':>10}{'process':>10}{'computing':>10}")
    for case in cases:
        print(case.row())
    imported = statistics.median(cases[0].imports)
    slowest = max(statistics.median(case.wholes) for case in cases if case.cold)
    print(
        f"import {imported:.3f} s (target 0.35), slowest cold first op {slowest:.3f} s (target 0.5)"
    )
    return int(imported >= 0.35 or slowest >= 0.5)


if __name__ == "__main__":
    sys.exit(main())
