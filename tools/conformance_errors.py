"""Arguments of a wrong kind, one at a time, in torch's samples: who raises what, who hangs.

    python -m tools.conformance_errors [--op NAME] [--json FILE]

Needs what `tools.conformance_ops` needs. Of each operator's first samples one argument after the
other is exchanged for a string, a list, None, an object, a number out of range and so on; torch's
exception class is the right one. A call that takes longer than its time, or ends its process, is
reported as such. Prints a line a difference and counts by kind.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]  beside Weft here only
from torch.testing._internal.common_methods_invocations import (  # type: ignore[import-not-found]
    op_db,
)

from tools.conformance_compare import Missing, TimeUp, again, line_of, short, to_weft
from tools.conformance_ops import ROOT, label, on_weft

SECONDS = 4.0  # for one call
SAMPLES = 1  # of an operator
WRONG: dict[str, Callable[[], Any]] = {
    "'x'": lambda: "x",
    "[1, 2]": lambda: [1, 2],
    "None": lambda: None,
    "object()": object,
    "1.5": lambda: 1.5,
    "-7": lambda: -7,
    "2**31": lambda: 2**31,
    "2**63": lambda: 2**63,
    "nan": lambda: float("nan"),
    "True": lambda: True,
    "1j": lambda: 1j,
    "np.ones(2)": lambda: np.ones(2),
    "int64[]": lambda: torch.tensor(1),
    "float32[2]": lambda: torch.ones(2),
    "bool[3]": lambda: torch.ones(3, dtype=torch.bool),
    "float32": lambda: torch.float32,
}


def cases(wanted: str, start: int) -> Iterator[tuple[int, str, Any, Callable, Any, Any, str]]:
    """(number, name, torch's function, Weft's, sample, place of an argument, the wrong one)"""
    for position, op in enumerate(op_db):
        number = position * 10_000
        if number + 10_000 <= start or not re.search(wanted, label(op)):
            continue
        try:
            ours = on_weft(op)
        except Missing:
            continue
        kinds = op.supported_dtypes("cpu")
        kind = next((k for k in (torch.float32, torch.int64, torch.bool) if k in kinds), None)
        if kind is None:
            continue
        torch.manual_seed(1)
        seen: set[tuple] = set()
        try:
            samples = list(op.sample_inputs("cpu", kind))
        except Exception:
            continue
        samples.sort(key=lambda s: -len(s.args) - len(s.kwargs))
        for sample in samples:
            shape = (len(sample.args), tuple(sample.kwargs))
            if shape in seen or len(seen) == SAMPLES:
                continue
            seen.add(shape)
            places = [*range(1 + len(sample.args)), *sample.kwargs]
            for place in places:
                for wrong in WRONG:
                    if number >= start:
                        yield number, label(op), op.op, ours, sample, place, wrong
                    number += 1


def exchanged(sample: Any, place: Any, value: Any) -> tuple[list, dict]:
    args = again([sample.input, *sample.args])
    kwargs = again(sample.kwargs)
    if isinstance(place, int):
        args[place] = value
    else:
        kwargs[place] = value
    return args, kwargs


def outcome(call: Callable[[], Any]) -> tuple[str, str]:
    """(class of the exception, its line); ("", "") where there is none."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of its own time: the machine may be loaded
    signal.setitimer(signal.ITIMER_VIRTUAL, 5 * SECONDS)  # ends the process where C does not return
    try:
        call()
        return "", ""
    except TimeUp:
        return "HANG", f"more than {SECONDS} s"
    except Exception as e:
        classes = "|".join(c.__name__.lstrip("_") for c in type(e).__mro__[:-2])
        return classes, line_of(e)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def one(theirs: Callable, ours: Callable, sample: Any, place: Any, wrong: str) -> tuple | None:
    """What differs; None where nothing does."""
    value = WRONG[wrong]()
    args, kwargs = exchanged(sample, place, value)
    mine = to_weft(args), to_weft(kwargs)
    torch.manual_seed(0)
    right, said = outcome(lambda: theirs(*args, **kwargs))
    if right == "HANG":
        return None
    found, text = outcome(lambda: ours(*mine[0], **mine[1]))
    first = right.partition("|")[0]
    if first in found.split("|") or (not first and not found):
        return None
    return found.partition("|")[0] or "no error", first or "no error", text, said


def work(start: int, wanted: str, log: Path) -> None:
    import resource

    def on_alarm(*_: Any) -> None:
        raise TimeUp

    signal.signal(signal.SIGPROF, on_alarm)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    warnings.simplefilter("ignore")
    with open(log, "a") as out:
        for number, name, theirs, ours, sample, place, wrong in cases(wanted, start):
            last = f"{name}({short(sample)}) [{place}] = {wrong}"
            out.write(json.dumps({"at": number, "call": last}) + "\n")
            out.flush()
            try:
                differs = one(theirs, ours, sample, place, wrong)
            except Missing:
                continue
            if differs:
                out.write(json.dumps({"op": name, "call": last, "differs": differs}) + "\n")
        out.write('{"done": 1}\n')


def run(wanted: str, log: Path) -> list[dict]:
    start = 0
    while True:
        command = [sys.executable, "-m", "tools.conformance_errors", "--work", str(start)]
        subprocess.run([*command, "--op", wanted, "--json", str(log)], cwd=ROOT,
                       stderr=subprocess.DEVNULL)  # fmt: skip
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        if "done" in lines[-1]:
            return [line for line in lines if "op" in line]
        at = next(line for line in reversed(lines) if "at" in line)
        with open(log, "a") as out:
            name = at["call"].partition("(")[0]
            out.write(json.dumps({"op": name, "call": at["call"],
                                  "differs": ["CRASH", "?", "", ""]}) + "\n")  # fmt: skip
        start = at["at"] + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--op", default="")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=int, default=-1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work >= 0:
        work(args.work, args.op, args.json)
        return
    log = args.json or Path(tempfile.mkstemp(suffix=".jsonl")[1])
    log.unlink(missing_ok=True)
    found = run(args.op, log)
    for line in found:
        mine, right, text, said = line["differs"]
        print(f"{mine} for {right}: {line['call']}\n    {text}\n    torch: {said}")
    kinds = collections.Counter(tuple(line["differs"][:2]) for line in found)
    for (mine, right), n in kinds.most_common():
        print(f"{n:5} {mine} for {right}")


if __name__ == "__main__":
    main()
