"""Every workload on every peer, interleaved, beside the machine's limits.

    python bench/suite.py [--only gpt,mlp] [--peers weft,torch] [--rounds 7] [--seconds 20]
                          [--write] [--also X]

Each peer runs in a process of its own, in its own environment (bench/.venv-PEER), and is stopped
(SIGSTOP) while another one works, so that no pool of spinning threads takes part in another's time.
A round times every variant of every peer once, in turning order, behind a call that is not timed
(caches and threads were another's).  A variant of Weft that is to be replayed and was not has
failed, and the exit status is 1.  After --rounds rounds those go on for --seconds that are near
the fastest of their kind.
A figure in ms is the median over all rounds.  The ratio is of the best peer and Weft compiled with
replay=True, above 1 Weft is faster: of each round the ratio of both medians, of all rounds the
median.  A shared machine is slow for a minute, then fast; in a round both met the same minute, in
a run they need not.
--write puts the table into bench/RESULTS.md and a chart into bench/results.png, with what the
scripts named by --also print behind it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm
from works import WORKS, Work

from weft.kernels.limits import peaks, read_bandwidth

HERE = Path(__file__).resolve().parent
PEERS = ("weft", "torch", "jax", "tensorflow", "onnxruntime", "openvino")
ENVIRONMENT = {
    "weft": ".venv", "torch": ".venv", "jax": ".venv-jax", "tensorflow": ".venv-tensorflow",
    "onnxruntime": ".venv-onnx", "openvino": ".venv-onnx",
}  # fmt: skip
OURS = ("weft", "replayed")
OTHERS = (("weft", "compiled"), ("weft", "eager"))
# In a table of their own: no target is judged by them.
FAST, CAST = ("weft", "fast math"), ("weft", "autocast")
_UNDONE = "NotImplementedError"  # of a variant that a peer has not for this work
NARROW = ("fast math", "autocast", "autocast compile", "bfloat16")
NEAR = 1.25  # times the fastest of its kind: what may still be the best when the run ends
_COUNTED = (
    "The share counts every multiplication and every byte of a work: behind a max pool Weft leaves "
    "out the products with zeros of a convolution's gradients, a third of the CNN's, and a token's "
    "weights lie in seven eighths of their bytes, to the bit."
)


class Peer:
    """A worker process and its answers; not running unless it is asked something."""

    def __init__(self, name: str, python: str, threads: int) -> None:
        env = dict(os.environ, BENCH_THREADS=str(threads), BENCH_ONNX=str(HERE / ".onnx"))
        self.name = name
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), name], env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        about = self._read()
        self.version, self.variants = about["version"], about["variants"]
        self._stop()

    def ask(self, **order: object) -> dict:
        """The answer to an order; the process runs only meanwhile."""
        self.process.send_signal(signal.SIGCONT)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        try:
            return self._read()
        finally:
            self._stop()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _read(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}

    def _stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)


@dataclass(frozen=True)
class Limits:
    """What this machine can do in a second: operations of each kind of numbers, bytes read."""

    peaks: dict[str, dict[str, float]]
    reads: float

    @classmethod
    def measured(cls, threads: int) -> Limits:
        kinds = ("float32", "bfloat16", "int8")
        return cls({of: peaks(of, threads) for of in kinds}, read_bandwidth(threads))

    @classmethod
    def now(cls, threads: int) -> Limits:
        """Measured by a process of its own: a process measures once."""
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            return process.submit(cls.measured, threads).result()

    def or_more(self, other: Limits) -> Limits:
        """The best of both: a limit is what was reached in the best minute."""
        better = {
            of: {way: max(rate, other.peaks[of].get(way, 0)) for way, rate in ways.items()}
            for of, ways in self.peaks.items()
        }
        return Limits(better, max(self.reads, other.reads))

    def peak(self, of: str) -> float:
        return max(self.peaks[of].values())

    def __str__(self) -> str:
        rates = ", ".join(
            f"{self.peak(of) / 1e9:.0f} GOP/s of {of} (in {max(ways, key=ways.__getitem__)})"
            for of, ways in self.peaks.items()
        )
        return f"{rates}, {self.reads / 1e9:.1f} GB/s read"


@dataclass
class Row:
    """What one workload's variants took: seconds of each round's calls, of the first call, and
    failures.
    """

    work: Work
    times: dict[tuple[str, str], dict[int, list[float]]] = field(default_factory=dict)
    first: dict[tuple[str, str], float] = field(default_factory=dict)
    peak_kb: dict[tuple[str, str], int] = field(default_factory=dict)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    rounds: int = 0

    def calls(self, who: tuple[str, str]) -> list[float]:
        return [seconds for times in self.times[who].values() for seconds in times]

    def median(self, who: tuple[str, str]) -> float:
        return statistics.median(self.calls(who))

    def ratios(self, who: tuple[str, str], ours: tuple[str, str] = OURS) -> list[float]:
        """What `who` took over what `ours` took, of each round that had both."""
        both = self.times[who].keys() & self.times[ours].keys()
        median = statistics.median
        return [median(self.times[who][i]) / median(self.times[ours][i]) for i in sorted(both)]

    def drop(self, who: tuple[str, str], why: str) -> None:
        """This variant failed: what it took meanwhile is no figure."""
        self.failed[who] = why
        self.times.pop(who, None)

    def ours_failed(self) -> bool:
        """Whether a variant of Weft failed that this work has."""
        return any(w[0] == "weft" and _UNDONE not in why for w, why in self.failed.items())

    def best_peer(self, *, narrow: bool = False) -> tuple[str, str] | None:
        """The fastest variant that is not Weft's beside Weft's of its kind: of float32 (or int8),
        or of bfloat16.
        """
        peers = [w for w in self.times if w[0] != "weft" and (w[1] in NARROW) == narrow]
        ours = CAST if narrow else OURS
        if ours not in self.times:
            return min(peers, key=self.median, default=None)
        return min(peers, key=lambda w: statistics.median(self.ratios(w, ours)), default=None)

    def ratio(self) -> float | None:
        best = self.best_peer()
        if best is None or OURS not in self.times:
            return None
        return statistics.median(self.ratios(best))

    def near(self) -> set[tuple[str, str]]:
        """The variants that go on: near the fastest of their kind (of Weft's or of peers', in
        float32 or in bfloat16), and the two of Weft that are compared with peers.
        """
        kinds: dict[tuple[bool, bool], list[tuple[str, str]]] = {}
        for who in self.times:
            kinds.setdefault((who[0] == "weft", who[1] in NARROW), []).append(who)
        near = {OURS, CAST} & self.times.keys()
        for them in kinds.values():
            most = NEAR * min(map(self.median, them))
            near |= {w for w in them if self.median(w) <= most}
        return near

    def share(self, who: tuple[str, str], limits: Limits) -> float:
        """The part of the machine's limit that this variant reaches."""
        narrow = who[1] in NARROW
        of = "int8" if self.work.kind == "int8" else "bfloat16" if narrow else "float32"
        floor = max(self.work.flop / limits.peak(of), self.work.bytes / (1 + narrow) / limits.reads)
        return floor / self.median(who)


def run_work(work: Work, python: dict[str, str], rounds: int, seconds: float, threads: int) -> Row:
    """All peers that do this work, in turns, for so many rounds, then the near ones for so many
    seconds.

    A variant is a process: memory is its own.
    """
    row = Row(work)
    ready: dict[tuple[str, str], Peer] = {}
    try:
        for name in python:
            variants = [None]
            while variants:
                variant = variants.pop(0)
                peer = Peer(name, python[name], threads)
                if variant is None:
                    variant, *variants = peer.variants
                answer = peer.ask(make=work.name, variant=variant)
                who = (name, variant)
                if "error" in answer:
                    row.failed[who] = answer["error"]
                    peer.close()
                    continue
                row.first[who] = answer["seconds"]
                ready[who] = peer
        for peer in ready.values():
            peer.ask(time=max(3, work.calls))  # warm
        end = 0.0
        while ready and (row.rounds <= rounds or time.monotonic() < end):
            order = list(ready) if row.rounds % 2 == 0 else list(reversed(ready))
            if row.rounds == rounds:
                end = time.monotonic() + seconds
            going = ready.keys() if row.rounds < rounds else row.near()
            row.rounds += 1
            for who in (w for w in order if w in going):
                answer = ready[who].ask(time=work.calls)
                if "error" in answer:
                    row.drop(who, answer["error"])
                if who in row.failed:
                    continue
                row.times.setdefault(who, {})[row.rounds] = answer["times"]
                row.peak_kb[who] = answer["peak_kb"]
    finally:
        for peer in ready.values():
            peer.close()
    return row


def table(rows: list[Row], limits: Limits) -> str:
    """Markdown: a row a workload."""
    out = [
        "| work | Weft replayed, ms | compiled, eager | best peer, ms | "
        "peer / Weft, quartiles | target | "
        "share of limit: Weft, best peer | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        best, ratio = row.best_peer(), row.ratio()
        if best is None or ratio is None:
            out.append(f"| {row.work.what} | {row.failed.get(OURS, 'not run')} | | | | | | |")
            continue
        others = (f"{1e3 * row.median(w):.3g}" if w in row.times else "failed" for w in OTHERS)
        verdict = "" if ratio >= row.work.target else "below target" if ratio >= 1 else "**lost**"
        out.append(
            f"| {row.work.what} | {1e3 * row.median(OURS):.3g} | "
            f"{', '.join(others)} | {1e3 * row.median(best):.3g} ({' '.join(best)}) | "
            f"{ratio:.2f}, {spread(row.ratios(best))} | {row.work.target} | "
            f"{row.share(OURS, limits):.0%}, "
            f"{row.share(best, limits):.0%} | {verdict} |"
        )
    return "\n".join(out)


def narrow_table(rows: list[Row], limits: Limits) -> str:
    """Markdown: products of operands rounded to bfloat16, by `weft.set_fast_math(True)` or under
    autocast, beside what peers have of it (torch under autocast, OpenVINO in bfloat16).
    """
    out = [
        "| work | Weft float32, ms | fast math, gain | autocast, gain | best peer so, ms | "
        "peer / Weft autocast, quartiles | share of limit: Weft autocast, best peer |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if not {OURS, FAST, CAST} <= row.times.keys():
            continue
        ours, best = row.median(OURS), row.best_peer(narrow=True)
        gains = (f"{1e3 * (t := row.median(w)):.3g}, {ours / t:.2f}" for w in (FAST, CAST))
        line = f"| {row.work.what} | {1e3 * ours:.3g} | {' | '.join(gains)} |"
        if best is not None:
            theirs = row.median(best)
            ratios = row.ratios(best, CAST)
            line += f" {1e3 * theirs:.3g} ({' '.join(best)}) | "
            line += f"{statistics.median(ratios):.2f}, {spread(ratios)} |"
            line += f" {row.share(CAST, limits):.0%}, {row.share(best, limits):.0%} |"
        out.append(line if best is not None else f"{line} | | {row.share(CAST, limits):.0%} |")
    return "\n".join(out)


def spread(ratios: list[float]) -> str:
    """The quartiles, where there are rounds for them."""
    if len(ratios) < 4:
        return f"{min(ratios):.2f}-{max(ratios):.2f} of {len(ratios)} rounds"
    low, high = quartiles(ratios)
    return f"{low:.2f}-{high:.2f}"


def summary(row: Row) -> str:
    """A line while the others are still to come."""
    best, ratio = row.best_peer(), row.ratio()
    if best is None or ratio is None:
        return f"{row.work.name}: {row.failed.get(OURS, 'no peer to compare with')}"
    return (
        f"{row.work.name}: {1e3 * row.median(OURS):.3g} ms, {' '.join(best)} "
        f"{1e3 * row.median(best):.3g} ms, {ratio:.2f} times as fast"
    )


def quartiles(values: list[float]) -> tuple[float, float]:
    """The first and the third; of one value the value."""
    low, _, high = statistics.quantiles(values * 2 if len(values) == 1 else values, n=4)
    return low, high


def details(rows: list[Row]) -> str:
    """Markdown: every variant's median, first call, peak memory."""
    out = ["| work | peer | median, ms | quartiles | first call, s | peak memory, MB |",
           "|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        for who in sorted(row.times, key=row.median):
            low, high = quartiles(row.calls(who))
            out.append(
                f"| {row.work.name} | {' '.join(who)} | {1e3 * row.median(who):.3g} | "
                f"{1e3 * low:.3g}-{1e3 * high:.3g} | {row.first[who]:.1f} | "
                f"{row.peak_kb[who] / 1024:.0f} |"
            )
        for who, why in row.failed.items():
            if _UNDONE not in why:
                out.append(f"| {row.work.name} | {' '.join(who)} | failed: {why[:80]} | | | |")
    return "\n".join(out)


def chart(rows: list[Row], path: Path) -> None:
    """A bar a workload: the speed relative to the best peer."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown = [r for r in rows if r.ratio() is not None]
    figure, axes = plt.subplots(figsize=(9, 0.5 * len(shown) + 1.4), layout="constrained")
    for i, row in enumerate(shown):
        best = row.best_peer()
        assert best is not None
        ours = row.ratio() or 0.0
        axes.barh(i, ours, color="#2a7f62" if ours >= 1 else "#b3452c")
        axes.text(ours + 0.02, i, f"{ours:.2f} x {' '.join(best)}", va="center", fontsize=8)
        axes.plot([row.work.target] * 2, [i - 0.4, i + 0.4], color="black", lw=1)
    axes.axvline(1.0, color="gray", lw=1)
    axes.set_yticks(range(len(shown)), [r.work.name for r in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, max(1.6, *(1.25 * (r.ratio() or 0) for r in shown)))
    axes.set_xlabel(
        "speed of Weft compiled and replayed, the best peer being 1 (black: the target)"
    )
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="names of workloads, separated by commas")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=7, help="of each work, with all its variants")
    parser.add_argument(
        "--seconds", type=float, default=20, help="of each work: the near variants go on"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write RESULTS.md and results.png")
    parser.add_argument(
        "--also", default="",
        help="scripts of bench/ to run behind, by commas, each with arguments of its own",
    )  # fmt: skip
    args = parser.parse_args()
    wanted = [w for w in args.only.split(",") if w]
    unknown = set(wanted) - {w.name for w in WORKS} | set(args.peers.split(",")) - set(PEERS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    python, absent = {}, []
    for name in args.peers.split(","):
        path = HERE / ENVIRONMENT[name] / "bin" / "python"
        if path.exists():
            python[name] = str(path)
        else:
            absent.append(name)
    if absent:
        print(f"not set up, left out (make bench sets them up): {', '.join(absent)}")
    works = [w for w in WORKS if not wanted or w.name in wanted]
    if {"onnxruntime", "openvino"} & set(python):
        export(works, python)
    rows, limits = [], Limits.now(args.threads)
    for work in tqdm(works, unit="workload"):
        rows.append(run_work(work, python, args.rounds, args.seconds, args.threads))
        limits = limits.or_more(Limits.now(args.threads))
        tqdm.write(summary(rows[-1]))
    about = (
        f"{dt.date.today()}, {platform.machine()}, {args.threads} threads, "
        f"{min(r.rounds for r in rows)} to {max(r.rounds for r in rows)} rounds. "
        f"Limits measured in this run, multiplications and additions: {limits}."
    )
    versions = ", ".join(f"{n} {version_of(n, p)}" for n, p in python.items())
    text = f"{about}\nPeers: {versions}.\n\n{table(rows, limits)}\n\n"
    text += f"{_COUNTED}\n\n"
    text += f"Where products may round to bfloat16:\n\n{narrow_table(rows, limits)}\n\n"
    text += f"{details(rows)}\n"
    print(text)
    for script in tqdm([s for s in args.also.split(",") if s], unit="script"):
        name, _, rest = script.partition(" ")
        text += f"\n## {name}.py {rest}".rstrip() + f"\n\n```text\n{printed_by(script)}```\n"
    if args.write:
        head = "# Results\n\nWritten by `make bench` (`bench/suite.py --write`).\n\n"
        picture = "![speed beside the best peer](results.png)\n\n"
        (HERE / "RESULTS.md").write_text(head + picture + text, encoding="utf-8")
        chart(rows, HERE / "results.png")
    failed = [row.work.name for row in rows if row.ours_failed()]
    if failed:
        print(f"variants of Weft failed: {', '.join(failed)}")
    return int(bool(failed))


def version_of(name: str, python: str) -> str:
    peer = Peer(name, python, 1)
    peer.close()
    return peer.version


def printed_by(script: str) -> str:
    """What a script of this folder prints, on the screen too."""
    name, *args = shlex.split(script)
    call = [sys.executable, str(HERE / f"{name}.py"), *args]
    lines = []
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            tqdm.write(line, end="")
            lines.append(line)
    if run.returncode:
        lines.append(f"failed: exit code {run.returncode}\n")
    return "".join(lines)


def export(works: list[Work], python: dict[str, str]) -> None:
    """Have torch write the ONNX files that are not there yet."""
    folder = HERE / ".onnx"
    folder.mkdir(exist_ok=True)
    names = {w.name.removesuffix("_int8"): None for w in works if w.kind != "training"}
    missing = [n for n in names if not (folder / f"{n}.onnx").exists()]
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\nfrom peers import torch_peer\n"
        f"for w in {missing!r}: torch_peer.export(w, {str(folder)!r} + '/' + w + '.onnx')"
    )
    if missing:
        start = time.perf_counter()
        call = [python.get("torch", sys.executable), "-c", code]
        subprocess.run(call, check=True, stderr=subprocess.DEVNULL)
        print(f"exported {', '.join(missing)} in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
