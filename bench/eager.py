"""Eager overhead beside PyTorch: small ops in one process, interleaved, medians of ratios.

    python bench/eager.py [--rounds 41] [--threads 1] [--only add]

Each round times a block of calls in Weft and the same block in torch, one right after the other and
in turning order, so that a busy or throttled machine hits both. With one thread the clock is the
thread's own processor time: what other processes take of the machine does not count. The ratio is
taken within a round; the table shows the medians and the quartiles of the ratio. Below 1 Weft is
faster. Without torch (`make bench` installs it into bench/.venv) only Weft's times are printed.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from types import ModuleType

import weft

try:
    import torch
except ImportError:
    torch = None

BLOCK_S = 2e-3  # one block of calls; long against the clock, short against a scheduler's slice


def add(lib: ModuleType, grad: bool) -> Callable[[], object]:
    x, y = lib.rand(10, requires_grad=grad), lib.rand(10, requires_grad=grad)
    return lambda: x + y


def add_scalar(lib: ModuleType, grad: bool) -> Callable[[], object]:
    x = lib.rand(10, requires_grad=grad)
    return lambda: x + 1.5


def relu(lib: ModuleType, grad: bool) -> Callable[[], object]:
    x = lib.randn(10, requires_grad=grad)
    return lambda: lib.relu(x)


def total(lib: ModuleType, grad: bool) -> Callable[[], object]:
    x = lib.rand(10, requires_grad=grad)
    return lambda: x.sum(0)


def transpose(lib: ModuleType, grad: bool) -> Callable[[], object]:
    x = lib.rand(4, 5, requires_grad=grad)
    return lambda: x.transpose(0, 1)


def matmul(lib: ModuleType, grad: bool) -> Callable[[], object]:
    a, b = (lib.rand(16, 16, requires_grad=grad) for _ in range(2))
    return lambda: a @ b


def add_backward(lib: ModuleType) -> Callable[[], object]:
    x, y = lib.rand(10, requires_grad=True), lib.rand(10, requires_grad=True)

    def run() -> None:
        x.grad = y.grad = None
        (x + y).sum().backward()

    return run


def _mlp(lib: ModuleType) -> tuple:
    lib.manual_seed(0)
    nn = lib.nn
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    return model, lib.randn(32, 64), lib.randint(0, 10, (32,))


def mlp_forward(lib: ModuleType) -> Callable[[], object]:
    model, x, _ = _mlp(lib)

    def run() -> None:
        with lib.no_grad():
            model(x)

    return run


def mlp_forward_backward(lib: ModuleType) -> Callable[[], object]:
    model, x, target = _mlp(lib)

    def run() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        lib.nn.functional.cross_entropy(model(x), target).backward()

    return run


def _small_mlp(lib: ModuleType) -> tuple:
    """Three layers of width 16, a batch of 1: next to no arithmetic."""
    lib.manual_seed(0)
    nn = lib.nn
    model = nn.Sequential(
        nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)
    )
    return model, lib.randn(1, 16)


def small_mlp_forward(lib: ModuleType) -> Callable[[], object]:
    model, x = _small_mlp(lib)
    return lambda: model(x)


def small_mlp_forward_backward(lib: ModuleType) -> Callable[[], object]:
    model, x = _small_mlp(lib)

    def run() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        model(x).sum().backward()

    return run


def mlp_step(lib: ModuleType) -> Callable[[], object]:
    model, x, target = _mlp(lib)
    optimizer = lib.optim.SGD(model.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad()
        lib.nn.functional.cross_entropy(model(x), target).backward()
        optimizer.step()

    return run


CASES: dict[str, Callable[[ModuleType], Callable[[], object]]] = {
    "add 10": lambda lib: add(lib, False),
    "add 10, grad": lambda lib: add(lib, True),
    "add 10, scalar": lambda lib: add_scalar(lib, False),
    "add 10, scalar, grad": lambda lib: add_scalar(lib, True),
    "add 10, sum, backward": add_backward,
    "relu 10": lambda lib: relu(lib, False),
    "relu 10, grad": lambda lib: relu(lib, True),
    "sum 10": lambda lib: total(lib, False),
    "transpose 4x5": lambda lib: transpose(lib, False),
    "matmul 16x16": lambda lib: matmul(lib, False),
    "matmul 16x16, grad": lambda lib: matmul(lib, True),
    "mlp 32x64-128-128-10": mlp_forward,
    "mlp forward, backward": mlp_forward_backward,
    "mlp step (SGD)": mlp_step,
    "mlp 1x16, grad": small_mlp_forward,
    "mlp 1x16, backward": small_mlp_forward_backward,
}


clock: Callable[[], float] = time.perf_counter


def block(call: Callable[[], object], times: int) -> float:
    """Seconds a call, over `times` calls."""
    start = clock()
    for _ in range(times):
        call()
    return (clock() - start) / times


def calls_for(call: Callable[[], object]) -> int:
    """How many calls fill a block; also warms caches and makes kernels."""
    call()
    times = 1
    while (spent := block(call, times) * times) < BLOCK_S:
        times = max(times + 1, int(times * min(10.0, 1.2 * BLOCK_S / max(spent, 1e-7))))
    return times


def compare(calls: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds a call, `rounds` of them for each entry of `calls`, taken in turns."""
    times = [calls_for(call) for call in calls]
    seconds: list[list[float]] = [[] for _ in calls]
    gc.collect()
    gc.disable()
    try:
        for r in range(rounds):
            order = range(len(calls)) if r % 2 == 0 else reversed(range(len(calls)))
            for i in order:
                seconds[i].append(block(calls[i], times[i]))
    finally:
        gc.enable()
    return seconds


def row(name: str, make: Callable[[ModuleType], Callable[[], object]], rounds: int) -> str:
    if torch is None:
        (ours,) = compare([make(weft)], rounds)
        return f"{name:<24} {statistics.median(ours) * 1e6:>9.2f}"
    ours, theirs = compare([make(weft), make(torch)], rounds)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return (
        f"{name:<24} {statistics.median(ours) * 1e6:>9.2f} {statistics.median(theirs) * 1e6:>9.2f} "
        f"{middle:>7.2f}  {low:.2f}-{high:.2f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41, help="rounds of each case, 3 or more")
    parser.add_argument("--threads", type=int, default=1, help="threads of both libraries")
    parser.add_argument("--only", default="", help="run the cases whose name has this in it")
    args = parser.parse_args()
    if args.rounds < 3:
        parser.error("--rounds must be 3 or more")
    if args.threads == 1:
        global clock
        clock = time.thread_time
    for lib in [weft] if torch is None else [weft, torch]:
        lib.set_num_threads(args.threads)
    version = "not installed" if torch is None else torch.__version__
    print(f"weft {weft.__version__}, torch {version}, {args.threads} thread(s), us a call")
    head = f"{'case':<24} {'weft':>9}"
    print(head if torch is None else f"{head} {'torch':>9} {'ratio':>7}  quartiles")
    failed = 0
    for name, make in CASES.items():
        if args.only in name:
            try:
                print(row(name, make, args.rounds), flush=True)
            except Exception as error:  # one broken case must not hide the others
                failed += 1
                print(f"{name:<24} {type(error).__name__}: {error}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
