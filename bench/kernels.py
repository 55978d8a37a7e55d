"""Single operations beside torch (and NumPy for products), interleaved in one process.

    python bench/kernels.py [--only REGEX] [--threads 1 2] [--rounds 9] [--list]

Needs torch beside Weft (`make bench` makes such an environment).  A row gives what Weft reaches,
eager and compiled, in GFLOP/s or GB/s (bytes that must be moved, once each), the larger of the two
as a fraction of what this machine was measured to do in the same run (fused multiply-adds in
registers; reading or copying 256 MB), and the median over the rounds of torch's time divided by
Weft's: above 1 Weft is faster.  Cases in bytes whose arrays fit a cache may pass 100 %.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import weft
from weft.kernels.limits import peak_flops, read_bandwidth
from weft.kernels.target.llvm import Module
from weft.runtime import memory, native

Make = Callable[[Any], Callable[[], Any]]
QUIET = 0.02  # seconds between peers: their idle threads spin for some ms and would take a core
_OPENBLAS = "OPENBLAS_NUM_THREADS"


@dataclass(frozen=True)
class Case:
    """`make(t)` gives the call for library `t`; `amount` is operations ("flop") or bytes."""

    name: str
    amount: float
    limit: str  # "flop", "read" or "copy"
    make: Make
    numpy: Callable[[], Callable[[], Any]] | None = None


# ------------------------------------------------------------------ the machine's limits


def limits() -> dict[str, float]:
    """What the cores reach together: flop/s in registers, bytes/s read and copied in memory."""
    host = native.host()
    lanes = host.lanes(4)
    kind = f"<{lanes} x float>"
    m = Module(host.vector_bits)
    f = m.kernel("copy")
    out, source = f.words("%args", 2, ["ptr", "ptr"])
    (n,) = f.words("%args", 5, ["i64"])
    first, last = f.split(n, 8 * lanes)
    with f.loop(first, last, 8 * lanes) as loop:
        for u in range(8):
            at = f.add(loop.i, u * lanes)
            v = f.load(kind, f.gep(source, at, "float"))
            f.store(v, f.gep(out, at, "float"), 4 * lanes, stream=True)
    f.ret()
    big, other = (memory.empty((1 << 26,), np.dtype(np.float32)) for _ in range(2))
    big[:] = 1
    other[:] = 0
    stage = native.Stage(native.load(m.text(), ["copy"])["copy"], True)
    launch = native.Launch((stage,), (big.size,))
    times = []
    for _ in range(7):
        start = time.perf_counter()
        native.launch(launch, other, [big])
        times.append(time.perf_counter() - start)
    return {
        "flop": peak_flops(weft.get_num_threads()),
        "read": read_bandwidth(weft.get_num_threads()),
        "copy": 2 * big.nbytes / min(times),
    }


# ------------------------------------------------------------------ the cases


def _normal(t: Any, *shape: int, grad: bool = False) -> Any:
    rng = np.random.default_rng(sum(shape))
    x = t.from_numpy(rng.standard_normal(shape).astype(np.float32))
    y = t.empty(shape)
    y.copy_(x)
    return y.requires_grad_() if grad else y


def _product(name: str, a: tuple[int, ...], b: tuple[int, ...], turned: str = "") -> Case:
    """a @ b; `turned` names the operands stored across ("a", "b", "ab")."""

    def arrays(make: Callable[..., Any]) -> tuple[Any, Any]:
        def one(shape: tuple[int, ...], across: bool) -> Any:
            return (
                make(*shape[:-2], shape[-1], shape[-2]).swapaxes(-1, -2) if across else make(*shape)
            )

        return one(a, "a" in turned), one(b, "b" in turned)

    def make(t: Any) -> Callable[[], Any]:
        x, y = arrays(lambda *s: _normal(t, *s))
        return lambda: t.matmul(x, y)

    def plain() -> Callable[[], Any]:
        x, y = arrays(lambda *s: np.random.default_rng(0).standard_normal(s, np.float32))
        return lambda: x @ y

    flops = 2.0 * np.prod(a[:-2], dtype=float) * a[-2] * a[-1] * b[-1]
    if a[-2] == 1:
        return Case(name, 4.0 * (np.prod(b) + a[-1] + b[-1]), "read", make, plain)
    return Case(name, flops, "flop", make, plain)


def _products() -> list[Case]:
    cases = [_product(f"matmul {n}^3", (n, n), (n, n)) for n in (64, 128, 256, 512, 1024, 2048)]
    for m, k, n in [
        (128, 768, 3072), (1024, 384, 1536), (1024, 1536, 384), (1024, 384, 384), (128, 784, 512),
        (32, 512, 512), (8, 768, 768), (4096, 64, 64), (64, 4096, 64), (4096, 4096, 16),
        (100, 100, 100), (333, 777, 555),
    ]:  # fmt: skip
        cases.append(_product(f"matmul {m}x{k}x{n}", (m, k), (k, n)))
    for m, k, n in [(512, 512, 512), (1024, 384, 1536), (384, 1024, 1536), (128, 768, 3072)]:
        cases += [
            _product(f"matmul {m}x{k}x{n} {name}", (m, k), (k, n), turned)
            for name, turned in (("NT", "b"), ("TN", "a"), ("TT", "ab"))
        ]
    for k, n in [(768, 3072), (4096, 4096)]:
        cases.append(_product(f"gemv 1x{k}x{n}", (1, k), (k, n)))
        cases.append(_product(f"gemv 1x{k}x{n} NT", (1, k), (k, n), "b"))
    for g, m, k, n in [(96, 128, 64, 128), (96, 128, 128, 64), (1000, 8, 8, 8), (256, 32, 32, 32)]:
        cases.append(_product(f"batch {g} {m}x{k}x{n}", (g, m, k), (g, k, n)))
    cases.append(_product("batch 96 128x64x128 NT", (96, 128, 64), (96, 64, 128), "b"))
    return cases


def _linear(name: str, m: int, k: int, n: int, activation: str) -> Case:
    def make(t: Any) -> Callable[[], Any]:
        f = t.nn.functional
        x, w, b = _normal(t, m, k), _normal(t, n, k), _normal(t, n)
        act = getattr(f, activation) if activation else lambda y: y

        def call() -> Any:
            with t.no_grad():
                return act(f.linear(x, w, b))

        return call

    return Case(name, 2.0 * m * k * n, "flop", make)


def _linear_grad(name: str, m: int, k: int, n: int) -> Case:
    def make(t: Any) -> Callable[[], Any]:
        f = t.nn.functional
        x, w, b = _normal(t, m, k, grad=True), _normal(t, n, k, grad=True), _normal(t, n, grad=True)
        g = _normal(t, m, n)

        def call() -> Any:
            x.grad = w.grad = b.grad = None
            f.gelu(f.linear(x, w, b)).backward(g)
            return w.grad

        return call

    return Case(name, 6.0 * m * k * n, "flop", make)


def _attention(name: str, b: int, h: int, n: int, m: int, d: int, grad: bool) -> Case:
    def make(t: Any) -> Callable[[], Any]:
        q = _normal(t, b, h, n, d, grad=grad)
        k, v = _normal(t, b, h, m, d, grad=grad), _normal(t, b, h, m, d, grad=grad)
        g = _normal(t, b, h, n, d)

        def call() -> Any:
            y = t.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=n == m)
            if grad:
                q.grad = k.grad = v.grad = None
                y.backward(g)
            return y

        return call

    if n == 1:
        return Case(name, 8.0 * b * h * m * d, "read", make)
    share = 0.5 if n == m else 1.0
    return Case(name, share * (14.0 if grad else 4.0) * b * h * n * m * d, "flop", make)


def _with_grad(t: Any, fn: Callable[..., Any], xs: list[Any], shape: tuple[int, ...]) -> Callable:
    g = _normal(t, *shape)

    def call() -> Any:
        for x in xs:
            x.grad = None
        fn(*xs).backward(g)
        return xs[0].grad

    return call


def _rows() -> list[Case]:
    n, big = 4096 * 1024, 1 << 24

    def softmax(t: Any) -> Callable[[], Any]:
        x = _normal(t, 4096, 1024)
        return lambda: t.softmax(x, -1)

    def norm(t: Any) -> Callable[[], Any]:
        x, w, b = _normal(t, 4096, 1024), _normal(t, 1024), _normal(t, 1024)
        return lambda: t.nn.functional.layer_norm(x, (1024,), w, b)

    def norm_grad(t: Any) -> Callable[[], Any]:
        xs = [
            _normal(t, 4096, 1024, grad=True),
            _normal(t, 1024, grad=True),
            _normal(t, 1024, grad=True),
        ]
        norm = t.nn.functional.layer_norm
        return _with_grad(t, lambda x, w, b: norm(x, (1024,), w, b), xs, (4096, 1024))

    def softmax_grad(t: Any) -> Callable[[], Any]:
        return _with_grad(
            t, lambda x: t.softmax(x, -1), [_normal(t, 4096, 1024, grad=True)], (4096, 1024)
        )

    def gelu(t: Any) -> Callable[[], Any]:
        x = _normal(t, big)
        return lambda: t.nn.functional.gelu(x)

    def gelu_grad(t: Any) -> Callable[[], Any]:
        return _with_grad(t, t.nn.functional.gelu, [_normal(t, 1 << 22, grad=True)], (1 << 22,))

    def triad(t: Any) -> Callable[[], Any]:
        x, y, z = (_normal(t, big) for _ in range(3))
        return lambda: x * y + z

    def total(t: Any) -> Callable[[], Any]:
        x = _normal(t, big)
        return x.sum

    def embedding(t: Any) -> Callable[[], Any]:
        table = _normal(t, 32000, 384, grad=True)
        at = t.from_numpy(np.random.default_rng(0).integers(0, 32000, 1024))
        g = _normal(t, 1024, 384)

        def call() -> Any:
            table.grad = None
            t.nn.functional.embedding(at, table).backward(g)
            return table.grad

        return call

    def cross(grad: bool) -> Make:
        def make(t: Any) -> Callable[[], Any]:
            x = _normal(t, 1024, 4096, grad=grad)
            y = t.from_numpy(np.random.default_rng(0).integers(0, 4096, 1024))

            def call() -> Any:
                loss = t.nn.functional.cross_entropy(x, y)
                if grad:
                    x.grad = None
                    loss.backward()
                return loss

            return call

        return make

    def dropout(t: Any) -> Callable[[], Any]:
        x = _normal(t, 1 << 22)
        return lambda: t.nn.functional.dropout(x, 0.1)

    def adam(t: Any) -> Callable[[], Any]:
        shapes = [(384, 384), (384,), (1536, 384), (1536,), (384, 1536), (384,)] * 6
        ps = [_normal(t, *s, grad=True) for s in shapes]
        optimizer = t.optim.Adam(ps)
        for p in ps:
            p.grad = _normal(t, *p.shape)
        return lambda: (optimizer.step(), ps[0].detach())[1]

    moved = 6 * (384 * 384 + 384 + 1536 * 384 + 1536 + 384 * 1536 + 384)
    return [
        Case("softmax 4096x1024", 8.0 * n, "copy", softmax),
        Case("softmax 4096x1024, backward", 16.0 * n, "copy", softmax_grad),
        Case("layer norm 4096x1024", 8.0 * n, "copy", norm),
        Case("layer norm 4096x1024, backward", 20.0 * n, "copy", norm_grad),
        Case("gelu 16M", 8.0 * big, "copy", gelu),
        Case("gelu 4M, backward", 20.0 * (1 << 22), "copy", gelu_grad),
        Case("x*y+z 16M", 16.0 * big, "copy", triad),
        Case("sum 16M", 4.0 * big, "read", total),
        Case("embedding gradient 32000x384", 4.0 * 32000 * 384, "copy", embedding),
        Case("cross entropy 1024x4096", 4.0 * n, "read", cross(False)),
        Case("cross entropy 1024x4096, backward", 12.0 * n, "copy", cross(True)),
        Case("dropout 4M", 8.0 * (1 << 22), "copy", dropout),
        Case("Adam 8 M parameters", 28.0 * moved, "copy", adam),
    ]


def cases() -> list[Case]:
    """Every case, in the table's order."""
    fused = [
        _linear(f"linear {m}x{k}x{n} {act or 'bias'}", m, k, n, act)
        for m, k, n in [(128, 768, 3072), (1024, 384, 1536), (32, 784, 512)]
        for act in ("", "relu", "gelu")
    ]
    fused.append(_linear_grad("linear+gelu 1024x384x1536, backward", 1024, 384, 1536))
    attention = [
        _attention("attention b8 h6 n128 d64", 8, 6, 128, 128, 64, False),
        _attention("attention b8 h6 n128 d64, backward", 8, 6, 128, 128, 64, True),
        _attention("attention b1 h12 n128 of 256 d64", 1, 12, 128, 256, 64, False),
        _attention("attention b1 h12 n512 d64", 1, 12, 512, 512, 64, False),
        _attention("attention b1 h12 n1 of 256 d64", 1, 12, 1, 256, 64, False),
    ]
    return [*_products(), *fused, *attention, *_rows()]


# ------------------------------------------------------------------ timing


def _time(call: Callable[[], Any], repeat: int) -> float:
    time.sleep(QUIET)
    call()
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


def measure(case: Case, rounds: int) -> dict[str, list[float]]:
    """Seconds a call of each peer, one number a round, peers in turn."""
    peers: dict[str, Callable[[], Any]] = {
        "eager": case.make(weft),
        "compiled": weft.compile(case.make(weft)),
        "torch": case.make(torch),
    }
    if case.numpy is not None:
        peers["numpy"] = case.numpy()
    repeat = {}
    for name, call in peers.items():
        for _ in range(3):
            call()
        repeat[name] = max(1, min(2000, int(0.02 / max(_time(call, 1), 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, call in peers.items():
            times[name].append(_time(call, repeat[name]))
    return times


def _row(case: Case, times: dict[str, list[float]], limit: dict[str, float]) -> str:
    rate = {k: case.amount / statistics.median(v) / 1e9 for k, v in times.items()}
    share = max(rate["eager"], rate["compiled"]) * 1e9 / limit[case.limit]

    def ratio(peer: str, own: str) -> str:
        if peer not in times:
            return f"{'':>8s}"
        pairs = zip(times[peer], times[own], strict=True)
        return f"{statistics.median(p / o for p, o in pairs):8.2f}"

    unit = "GFLOP/s" if case.limit == "flop" else "GB/s"
    return (
        f"{case.name:36s}{rate['eager']:9.1f}{rate['compiled']:9.1f}{rate['torch']:9.1f} {unit:8s}"
        f"{100 * share:5.0f} %{ratio('torch', 'eager')}{ratio('torch', 'compiled')}"
        f"{ratio('numpy', 'eager')}"
    )


def main() -> None:
    """Print a table a number of threads."""
    parser = argparse.ArgumentParser(description="Single operations beside torch.")
    parser.add_argument("--only", default="", help="a regular expression that names must match")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--list", action="store_true", help="print the names only")
    args = parser.parse_args()
    chosen = [c for c in cases() if re.search(args.only, c.name)]
    if args.list:
        print("\n".join(c.name for c in chosen))
        return
    if _OPENBLAS not in os.environ:  # it takes these at the start of a process
        for threads in args.threads:
            again = ["--only", args.only, "--rounds", str(args.rounds), "--threads", str(threads)]
            # its threads would spin for 70 ms after a product, on the cores others are timed on
            env = {**os.environ, _OPENBLAS: str(threads), "OPENBLAS_THREAD_TIMEOUT": "20"}
            subprocess.run([sys.executable, __file__, *again], env=env, check=True)
        return
    threads = args.threads[0]
    weft.set_num_threads(threads)
    torch.set_num_threads(threads)
    limit = limits()
    print(
        f"\nweft {weft.__version__}, torch {torch.__version__}, {threads} threads: "
        f"{limit['flop'] / 1e9:.0f} GFLOP/s, read {limit['read'] / 1e9:.1f} GB/s, "
        f"copy {limit['copy'] / 1e9:.1f} GB/s"
    )
    print(
        f"{'case':36s}{'eager':>9s}{'compiled':>9s}{'torch':>9s} {'':8s}{'limit':>7s}"
        f"{'t/eager':>8s}{'t/comp':>8s}{'np/eag':>8s}"
    )
    for case in chosen:
        print(_row(case, measure(case, args.rounds), limit), flush=True)


if __name__ == "__main__":
    main()
