"""What weft.compile costs in Python: an op to match, a replay, a new size, memory, the first call.

    python bench/compile_cost.py [cost] [sizes] [memory] [cold] [recurrent]

cost    a training step of some models of models.py and of a tiny one: milliseconds eager,
        compiled, replayed; of the compiled step, the Python that matches and the program
sizes   200 batches of random size and length through one GPT step: recordings, planned programs,
        steps slower than eager's; eager, compiled and eager again are processes that take turns
memory  bytes of a training step: planned, measured in Weft's allocator, and (each in a process of
        its own) the peak of resident memory above what the library and a tiny model take, of
        compiled Weft and, where it is installed, torch (Linux)
cold    seconds of the first four compiled ResNet-18 training steps beside eager's, with an empty
        kernel cache and with a warm one: medians of five processes (--runs), in turns; the same
        of torch.compile, where it is installed (one process, a minute or two); of import, model and
        first steps of two small models, their kernels cached. Modules come with their byte code, as
        pip installs them
recurrent  training steps of an LSTM, a GRU and an RNN (hidden 256, input 64, length 64, batch 32):
        milliseconds eager, compiled, replayed and, where it is installed, torch's
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib.util
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np

import weft
from weft.compile import arena, record
from weft.runtime import memory

HERE = Path(__file__).parent


def tiny(t: Any) -> tuple[Any, Any, Any]:
    """20-30-30-5, batch 8: all cost is Python's."""
    nn = t.nn
    model = nn.Sequential(
        nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 5)
    )
    return model, t.randn(8, 20), t.randint(0, 5, (8,))


class Block(weft.nn.Module):
    """A pre-norm block of width 64."""

    def __init__(self) -> None:
        super().__init__()
        n = weft.nn
        self.norm1, self.norm2 = n.LayerNorm(64), n.LayerNorm(64)
        self.qkv, self.out = n.Linear(64, 192), n.Linear(64, 64)
        self.up, self.down = n.Linear(64, 256), n.Linear(256, 64)

    def forward(self, x: Any) -> Any:
        f = weft.nn.functional
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, 4, 16).permute(2, 0, 3, 1, 4).unbind(0)
        y = f.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, n, c))
        return x + self.down(f.gelu(self.up(self.norm2(x))))


def small_gpt() -> Callable[[Any, Any], Any]:
    """A training step of two blocks of width 64."""
    weft.manual_seed(0)
    nn = weft.nn
    token, place, head = nn.Embedding(65, 64), nn.Embedding(256, 64), nn.Linear(64, 65)
    blocks = nn.Sequential(Block(), Block())
    o = weft.optim.AdamW(nn.ModuleList([token, place, blocks, head]).parameters())

    def step(x: Any, y: Any) -> Any:
        o.zero_grad()
        logits = head(blocks(token(x) + place.weight[: x.shape[1]])).flatten(0, 1)
        loss = nn.functional.cross_entropy(logits, y.flatten())
        loss.backward()
        o.step()
        return loss.detach()

    return step


def seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step().item()
    return time.perf_counter() - start


def cost() -> None:
    """Where the time of a compiled step goes."""
    spent = [0.0]
    finish = record.Session.finish

    def timed(session: Any) -> None:
        start = time.perf_counter()
        finish(session)
        spent[0] += time.perf_counter() - start

    record.Session.finish = timed  # type: ignore[method-assign]
    print("ms a step (medians, interleaved); us an op matched")
    print(f"{'model':6s}{'ops':>6s}{'eager':>9s}{'compiled':>10s}{'python':>9s}{'us/op':>7s}"
          f"{'program':>9s}{'replay':>9s}  replayed")  # fmt: skip
    named = [(n, models.example(n)) for n in ("mlp", "cnn", "lstm", "gpt")]
    for label, make in [("tiny", tiny), *named]:
        steps = {
            "eager": models.step_of(weft, make),
            "compiled": weft.compile(models.step_of(weft, make)),
            "replay": weft.compile(models.step_of(weft, make), replay=True),
        }
        for step in steps.values():
            for _ in range(5):
                seconds(step)
        times: dict[str, list[float]] = {name: [] for name in (*steps, "program")}
        started = time.perf_counter()
        while time.perf_counter() - started < 5 or len(times["eager"]) < 4:
            for name, step in steps.items():
                spent[0] = 0.0
                times[name].append(seconds(step))
                if name == "compiled":
                    times["program"].append(spent[0])
        ms = {name: 1e3 * statistics.median(v) for name, v in times.items()}
        node, ops = steps["compiled"]._root, 0
        while node.children:
            node, ops = list(node.children.values())[-1], ops + 1
        python = ms["compiled"] - ms["program"]
        print(f"{label:6s}{ops:6d}{ms['eager']:9.3f}{ms['compiled']:10.3f}{python:9.3f}"
              f"{1e3 * python / ops:7.2f}{ms['program']:9.3f}{ms['replay']:9.3f}  "
              f"{steps['replay'].stats['replay']}", flush=True)  # fmt: skip
    record.Session.finish = finish


def sized(how: str) -> None:
    """Steps of the shapes that come by lines: seconds and the counters, a line each."""
    step: Any = weft.compile(small_gpt()) if how == "compiled" else small_gpt()
    for line in sys.stdin:
        shape = tuple(int(n) for n in line.split())
        x, y = weft.randint(0, 65, shape), weft.randint(0, 65, shape)
        stats = getattr(step, "stats", {})
        took = seconds(functools.partial(step, x, y))
        print(took, stats.get("recorded_ops"), stats.get("programs"), stats.get("eager_calls"),
              flush=True)  # fmt: skip


def sizes() -> None:
    """Random batches and lengths, each most likely once; three processes take turns."""
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, "sized", how],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "WEFT_NUM_THREADS": str(weft.get_num_threads())},
        )
        for how in ("eager", "compiled", "eager")
    ]  # fmt: skip
    draw = random.Random(1)
    times: list[list[float]] = [[], [], []]
    recordings, recorded, stats = 0, "0", ["0"] * 3
    for _ in range(200):
        shape = draw.randint(1, 16), draw.randint(8, 200)
        for k in range(3):  # always in this order: each is as long away from its last turn
            to, back = workers[k].stdin, workers[k].stdout
            assert to is not None and back is not None
            print(*shape, file=to, flush=True)
            took, *told = back.readline().split()
            times[k].append(float(took))
            stats = told if k == 1 else stats
        recordings += stats[0] != recorded
        recorded = stats[0]
    for worker in workers:
        worker.communicate()
    print(f"200 sizes: {recordings} recordings, {stats[1]} programs, {stats[2]} eager calls")
    for name, took in zip(("compiled", "eager again"), times[1:], strict=True):
        ratios = sorted(b / a for a, b in list(zip(times[0], took, strict=True))[4:])
        at = [ratios[int(q * (len(ratios) - 1))] for q in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)]
        print(f"  {name:11s} / eager at a size: quantiles 0 5 25 50 75 95 100 %:",
              *(f"{r:.3f}" for r in at),
              f"all steps {sum(took):.2f} / {sum(times[0]):.2f} s")  # fmt: skip


def resident(library: str, name: str) -> None:
    """Print what steps add to resident memory at its peak, in bytes: the first four, later ones."""
    t = weft if library == "weft" else importlib.import_module("torch")
    weft.set_num_threads(2)
    small = models.step_of(t, tiny)
    for _ in range(3):
        small()
    gc.collect()
    start = _status("VmRSS")
    step = models.step_of(t, models.example(name))
    step = weft.compile(step) if library == "weft" else step
    for _ in range(2):
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        for _ in range(4):
            step().item()
        print(_status("VmHWM") - start)


def _status(name: str) -> int:
    """A line of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith(name))


def memory_of_steps() -> None:
    """Planned, measured, and the growth of the process."""
    peers = ["weft", *(["torch"] if importlib.util.find_spec("torch") is not None else [])]
    print("MB of a training step: planned before any program ran, measured; peak of the process")
    for name in ("mlp", "cnn", "lstm", "gpt"):
        gc.collect()
        arena.ARENA.memory = np.empty(0, np.uint8)
        before = memory.memory_stats()["used_bytes"]
        step = weft.compile(models.step_of(weft, models.example(name)))
        step()
        step()
        planned = step.memory()
        step().item()
        gc.collect()
        memory.reset_peak()
        step().item()
        measured = memory.memory_stats()["peak_bytes"] - before
        grown = []
        for peer in peers:
            call = [sys.executable, __file__, "resident", peer, name]
            out = subprocess.run(call, capture_output=True, text=True, check=True)
            first, later = (int(n) / 1e6 for n in out.stdout.split())
            grown.append(f"{peer} {later:.1f} (first steps {first:.1f})")
        print(f"{name:5s} planned {(planned.total - planned.scratch) / 1e6:8.1f} (and kernels' "
              f"scratch {planned.scratch / 1e6:6.1f})  measured {measured / 1e6:8.1f}   process: "
              f"{', '.join(grown)}", flush=True)  # fmt: skip
        del step


COLD = """
import importlib, os, sys, time
start = time.perf_counter()
weft = importlib.import_module(sys.argv[2])
nn, optim = weft.nn, weft.optim
weft.set_num_threads(int(os.environ["WEFT_NUM_THREADS"]))
F = nn.functional
class Basic(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.a, self.b = nn.Conv2d(i, o, 3, s, 1, bias=False), nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.na, self.nb = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
        self.down = None
        if s > 1 or i != o:
            self.down = nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o))
    def forward(self, x):
        y = self.nb(self.b(F.relu(self.na(self.a(x)))))
        return F.relu(y + (x if self.down is None else self.down(x)))
blocks, i = [], 64
for o, s in ((64, 1), (128, 2), (256, 2), (512, 2)):
    blocks += [Basic(i, o, s), Basic(o, o, 1)]
    i = o
model = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), *blocks,
                      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
o = optim.Adam(model.parameters())
x, y = weft.randn(16, 3, 64, 64), weft.randint(0, 10, (16,))
def step():
    o.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    o.step()
    return loss.detach()
run = weft.compile(step) if sys.argv[1] == "compiled" else step
times = []
for _ in range(4):
    at = time.perf_counter()
    run().item()
    times.append(time.perf_counter() - at)
print(time.perf_counter() - start - sum(times), *times)
"""


SMALL = """
import sys, time
times = [time.perf_counter()]
import weft
times.append(time.perf_counter())
from weft import nn, optim
if sys.argv[1] == "mlp":
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(),
                          nn.Linear(30, 5))
    x = weft.randn(8, 20)
else:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Flatten(), nn.Linear(8 * 13 * 13, 5))
    x = weft.randn(8, 1, 28, 28)
o = optim.Adam(model.parameters())
y = weft.randint(0, 5, (8,))
@weft.compile
def step():
    o.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    o.step()
    return loss.detach()
times.append(time.perf_counter())
for _ in range(3):
    step().item()
    times.append(time.perf_counter())
print(*(b - a for a, b in zip(times, times[1:])))
"""


def cold(runs: int = 5) -> None:
    """The first steps in a new process; medians of so many."""
    with tempfile.TemporaryDirectory() as folder:

        def run(program: str, how: str, cache: str, library: str = "weft") -> list[float]:
            env = {**os.environ, "WEFT_CACHE_DIR": str(Path(folder) / cache)}
            env |= {
                "PYTHONPYCACHEPREFIX": str(Path(folder) / "code"),
                "PYTHONDONTWRITEBYTECODE": "",
                "TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / f"inductor {cache}"),
                "WEFT_NUM_THREADS": str(weft.get_num_threads()),
            }
            call = [sys.executable, "-c", program, how, library]
            out = subprocess.run(call, capture_output=True, text=True, check=True, env=env).stdout
            return [float(s) for s in out.split()]

        def show(name: str, rows: list[list[float]]) -> None:
            parts = list(zip(*rows, strict=True))
            steps = " ".join(f"{statistics.median(t):.3f}" for t in parts[1:])
            print(f"  {name:22s} to the model {statistics.median(parts[0]):.2f}, steps {steps}, "
                  f"first {min(parts[1]):.3f}-{max(parts[1]):.3f}", flush=True)  # fmt: skip

        print(f"ResNet-18, s: medians of {runs} processes that take turns")
        run(COLD, "compiled", "warm")  # fills the cache of byte code, too
        run(COLD, "eager", "warm")
        rows: dict[str, list[list[float]]] = {}
        for i in range(runs):
            for cache in (f"empty{i}", "warm"):
                for how in ("eager", "compiled"):
                    case = f"{cache.rstrip('0123456789')} cache, {how}"
                    rows.setdefault(case, []).append(
                        run(COLD, how, cache + how * (cache != "warm"))
                    )
        for case, found in rows.items():
            show(case, found)
        later = [statistics.median(r[3:]) for r in rows["empty cache, eager"]]
        ratios = [
            r[1] / eager for r, eager in zip(rows["empty cache, compiled"], later, strict=True)
        ]
        print(f"  empty cache: first compiled step / a later eager one of its turn: median "
              f"{statistics.median(ratios):.2f}, {min(ratios):.2f}-{max(ratios):.2f}")  # fmt: skip
        if importlib.util.find_spec("torch") is not None:
            show("torch, empty cache", [run(COLD, "compiled", "torch", "torch")])
            show("torch, warm cache", [run(COLD, "compiled", "torch", "torch")])
        for model in ("mlp", "cnn"):
            run(SMALL, model, model)
            found = [run(SMALL, model, model) for _ in range(2 * runs - 1)]
            parts = [statistics.median(column) for column in zip(*found, strict=True)]
            print(f"small {model}, cached: import {parts[0]:.3f}, model {parts[1]:.3f}, steps",
                  " ".join(f"{t:.3f}" for t in parts[2:]),
                  f"s; import to the first step {sum(parts[:3]):.3f} s", flush=True)  # fmt: skip


def recurrent() -> None:
    """Recurrent layers beside torch's, interleaved."""
    libraries = {"weft": weft}
    if importlib.util.find_spec("torch") is not None:
        libraries["torch"] = importlib.import_module("torch")
        libraries["torch"].set_num_threads(weft.get_num_threads())
    print("ms a step, medians")
    for kind in ("LSTM", "GRU", "RNN"):

        def make(t: Any, kind: str = kind) -> tuple[Any, Any, Any]:
            class Tagger(t.nn.Module):
                def __init__(self) -> None:
                    super().__init__()
                    self.rnn = getattr(t.nn, kind)(64, 256, batch_first=True)
                    self.out = t.nn.Linear(256, 10)

                def forward(self, x: Any) -> Any:
                    return self.out(self.rnn(x)[0][:, -1])

            return Tagger(), t.randn(32, 64, 64), t.randint(0, 10, (32,))

        steps = {
            "eager": models.step_of(weft, make),
            "compiled": weft.compile(models.step_of(weft, make)),
            "replay": weft.compile(models.step_of(weft, make), replay=True),
        }
        if "torch" in libraries:
            steps["torch"] = models.step_of(libraries["torch"], make)
        times: dict[str, list[float]] = {name: [] for name in steps}
        for step in steps.values():
            for _ in range(5):
                seconds(step)
        for _ in range(10):
            for name, step in steps.items():
                times[name] += [seconds(step) for _ in range(3)]
        ms = {name: f"{1e3 * statistics.median(v):.2f}" for name, v in times.items()}
        print(f"{kind:5s}", ms, flush=True)


def main() -> None:
    """Print what is asked for, or all."""
    if sys.argv[1:2] in (["resident"], ["sized"]):
        {"resident": resident, "sized": sized}[sys.argv[1]](*sys.argv[2:4])
        return
    parts = {"cost": cost, "sizes": sizes, "memory": memory_of_steps, "cold": cold,
             "recurrent": recurrent}  # fmt: skip
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help=", ".join(parts))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5, help="processes of each cold start")
    args = parser.parse_args()
    weft.set_num_threads(args.threads)
    print(f"weft {weft.__version__}, {args.threads} threads")
    for name in args.parts or parts:
        parts[name](*[args.runs] * (name == "cold"))


if __name__ == "__main__":
    main()
