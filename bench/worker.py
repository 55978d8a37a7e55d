"""One peer in a process of its own: makes workloads ready and times them when told to.

    python bench/worker.py torch

Reads a JSON object a line from standard input, answers with one on standard output:
{"make": "gpt", "variant": "compile"} -> {"seconds": to the end of the first call, "result": ...}
{"time": 3} -> {"times": [...], "peak_kb": ...}, behind a call that is not timed; an error where the
step's own `refused()` says that these calls were not of the variant
Whatever goes wrong is answered as {"error": "..."}.  Libraries that print do so on standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

THREADS = int(os.environ.get("BENCH_THREADS", "2"))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = importlib.import_module(f"peers.{sys.argv[1]}_peer")
    version = peer.start(THREADS)
    print(json.dumps({"version": version, "variants": peer.VARIANTS}), file=answers, flush=True)
    step = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if "make" in order:
                start = time.perf_counter()
                step = peer.make(order["make"], order["variant"])
                result = step()
                answer = {"seconds": time.perf_counter() - start, "result": result}
            else:
                assert step is not None, "time before make"
                step()
                times = []
                for _ in range(order["time"]):
                    start = time.perf_counter()
                    step()
                    times.append(time.perf_counter() - start)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                answer = {"times": times, "peak_kb": peak}
                refused = getattr(step, "refused", None)  # whether it was what its name says
                if refused is not None and (why := refused()):
                    answer = {"error": why}
        except Exception as error:  # the others go on
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
