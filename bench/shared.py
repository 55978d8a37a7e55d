"""Checkouts of Weft in turns, alone on the machine and beside a program that takes a core.

    python bench/shared.py [--only mlp,resnet50_b1] [--beside alone,bursts,always] OLD NEW

OLD and NEW are folders of Python sources (a checkout's `src`). Each runs in a process of its own,
stopped while the other works. A row has each one's mean of a round's calls (the median over rounds)
and its ratio to the first, round by round: median and quartiles. "bursts" computes for 2 ms and
sleeps for 3; "always" never sleeps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from suite import Peer
from works import WORKS

if TYPE_CHECKING:
    from collections.abc import Iterator

REST = {"alone": None, "bursts": 0.003, "always": 0.0}
COMPETITOR = """
import sys, time
rest = float(sys.argv[1])
while True:
    end = time.perf_counter() + 0.002
    while time.perf_counter() < end:
        pass
    if rest:
        time.sleep(rest)
"""


@contextmanager
def beside(what: str) -> Iterator[None]:
    """With that program running."""
    rest = REST[what]
    if rest is None:
        yield
        return
    command = [sys.executable, "-c", COMPETITOR, str(rest)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def peers_of(sources: list[str], work: str, threads: int) -> list[Peer]:
    """Each checkout's process, with the workload ready."""
    peers = []
    for source in sources:
        os.environ["PYTHONPATH"] = source
        peers.append(Peer("weft", sys.executable, threads))
    for peer in peers:
        for order in ({"make": work, "variant": "replayed"}, {"time": 5}):
            answer = peer.ask(**order)
            if "error" in answer:
                raise RuntimeError(f"{work}: {answer['error']}")
    return peers


def row(peers: list[Peer], calls: int, rounds: int) -> str:
    """Means and ratios."""
    means: list[list[float]] = [[] for _ in peers]
    for turn in range(rounds):
        for i in range(len(peers)):
            k = (i + turn) % len(peers)
            means[k].append(statistics.mean(peers[k].ask(time=calls)["times"]))
    cells = [f"{1e3 * statistics.median(means[0]):9.3f} ms"]
    for other in means[1:]:
        low, middle, high = statistics.quantiles(
            [b / a for a, b in zip(means[0], other, strict=True)], n=4
        )
        cell = f"{1e3 * statistics.median(other):9.3f} ms, {middle:.2f} ({low:.2f}-{high:.2f})"
        cells.append(cell)
    return " ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--only", default="mlp_b32,mlp,gpt2_decode,resnet50_b1")
    parser.add_argument("--beside", default=",".join(REST))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    calls = {w.name: w.calls for w in WORKS}
    for work in options.only.split(","):
        peers = peers_of(options.sources, work, options.threads)
        for what in options.beside.split(","):
            with beside(what):
                print(f"{work:14s} {what:7s}", row(peers, 2 * calls[work], options.rounds))
        for peer in peers:
            peer.close()


if __name__ == "__main__":
    main()
