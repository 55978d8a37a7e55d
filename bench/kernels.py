"""Single operations beside torch (and NumPy for products), interleaved in one process.

    python bench/kernels.py [--only REGEX] [--threads 1 2] [--seconds 1] [--list]

Needs torch beside Weft (`make bench` makes such an environment).  A row gives what Weft reaches,
eager and compiled, in GFLOP/s or GB/s (bytes that must be moved, once each), and torch's time by
Weft's: above 1 Weft is faster.  All ratios are medians over rounds, each of calls that follow on
one another (`turns.py`).  "limit" is the better of the two as a share of what the machine does in
the same round: fused multiply-adds in registers; for bytes a loop that does nothing but read and
write as many arrays of that size (`limits.mix`: the faster of writing past the caches and through).
"inside" is the same share of the rate that the kernel itself has on a 32nd of the data, which the
caches hold: near 100 % where a row waits for its own arithmetic rather than for memory.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import limits
import numpy as np
import torch
import turns

import weft

Make = Callable[[Any], Callable[[], Any]]
PART = 32
_OPENBLAS = "OPENBLAS_NUM_THREADS"


@dataclass(frozen=True)
class Case:
    """`make(t)` gives the call for library `t`; `amount` is operations or bytes."""

    name: str
    amount: float
    mix: tuple[int, int] | None  # arrays read and written, which share the bytes; None for flop
    make: Make
    numpy: Callable[[], Callable[[], Any]] | None = None
    inside: Make | None = None  # the same on a PART of the data
    in_place: bool = False  # what is written was read


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
        return Case(name, 4.0 * (np.prod(b) + a[-1] + b[-1]), (1, 0), make, plain)
    return Case(name, flops, None, make, plain)


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

    return Case(name, 2.0 * m * k * n, None, make)


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

    return Case(name, 6.0 * m * k * n, None, make)


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
        return Case(name, 8.0 * b * h * m * d, (2, 0), make)
    share = 0.5 if n == m else 1.0
    return Case(name, share * (14.0 if grad else 4.0) * b * h * n * m * d, None, make)


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

    def rows(part: int, *names: str) -> Callable[[Any], list[Any]]:
        """Operands that want gradients: x of 4096/part rows of 1024, weight and bias."""
        shapes = {"x": (4096 // part, 1024), "w": (1024,), "b": (1024,)}
        return lambda t: [_normal(t, *shapes[k], grad=True) for k in names]

    def quietly(t: Any, fn: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            with t.no_grad():
                return fn()

        return call

    def softmax(part: int, t: Any) -> Callable[[], Any]:
        (x,) = rows(part, "x")(t)
        return quietly(t, lambda: t.softmax(x, -1))

    def softmax_grad(part: int, t: Any) -> Callable[[], Any]:
        return _with_grad(t, lambda x: t.softmax(x, -1), rows(part, "x")(t), (4096 // part, 1024))

    def norm(part: int, t: Any) -> Callable[[], Any]:
        x, w, b = rows(part, "x", "w", "b")(t)
        return quietly(t, lambda: t.nn.functional.layer_norm(x, (1024,), w, b))

    def norm_grad(part: int, t: Any) -> Callable[[], Any]:
        norm = t.nn.functional.layer_norm
        xs = rows(part, "x", "w", "b")(t)
        return _with_grad(t, lambda x, w, b: norm(x, (1024,), w, b), xs, (4096 // part, 1024))

    def gelu(part: int, t: Any) -> Callable[[], Any]:
        x = _normal(t, big // part)
        return lambda: t.nn.functional.gelu(x)

    def gelu_grad(part: int, t: Any) -> Callable[[], Any]:
        shape = ((1 << 22) // part,)
        return _with_grad(t, t.nn.functional.gelu, [_normal(t, *shape, grad=True)], shape)

    def triad(part: int, t: Any) -> Callable[[], Any]:
        x, y, z = (_normal(t, big // part) for _ in range(3))
        return lambda: x * y + z

    def total(part: int, t: Any) -> Callable[[], Any]:
        return _normal(t, big // part).sum

    def embedding(t: Any) -> Callable[[], Any]:
        table = _normal(t, 32000, 384, grad=True)
        at = t.from_numpy(np.random.default_rng(0).integers(0, 32000, 1024))
        g = _normal(t, 1024, 384)

        def call() -> Any:
            table.grad = None
            t.nn.functional.embedding(at, table).backward(g)
            return table.grad

        return call

    def cross(
        part: int, t: Any, *, grad: bool, shape: tuple[int, ...] = (1024, 4096)
    ) -> Callable[[], Any]:
        x = _normal(t, shape[0] // part, *shape[1:], grad=grad)
        rows = (shape[0] // part, *shape[2:])
        y = t.from_numpy(np.random.default_rng(0).integers(0, shape[1], rows))

        def call() -> Any:
            loss = t.nn.functional.cross_entropy(x, y)
            if grad:
                x.grad = None
                loss.backward()
            return loss

        return call

    def dropout(part: int, t: Any) -> Callable[[], Any]:
        x = _normal(t, (1 << 22) // part)
        return lambda: t.nn.functional.dropout(x, 0.1)

    def adam(t: Any) -> Callable[[], Any]:
        shapes = [(384, 384), (384,), (1536, 384), (1536,), (384, 1536), (384,)] * 6
        ps = [_normal(t, *s, grad=True) for s in shapes]
        optimizer = t.optim.Adam(ps)
        for p in ps:
            p.grad = _normal(t, *p.shape)
        return lambda: (optimizer.step(), ps[0].detach())[1]

    def row(
        name: str, amount: float, mix: tuple[int, int], make: Callable[..., Any], **how: Any
    ) -> Case:
        whole, part = (partial(make, p, **how) for p in (1, PART))
        return Case(name, amount, mix, whole, None, part)

    moved = 6 * (384 * 384 + 384 + 1536 * 384 + 1536 + 384 * 1536 + 384)
    return [
        row("softmax 4096x1024", 8.0 * n, (1, 1), softmax),
        row("softmax 4096x1024, backward", 20.0 * n, (3, 2), softmax_grad),
        row("layer norm 4096x1024", 8.0 * n, (1, 1), norm),
        row("layer norm 4096x1024, backward", 20.0 * n, (3, 2), norm_grad),
        row("gelu 16M", 8.0 * big, (1, 1), gelu),
        row("gelu 4M, backward", 20.0 * (1 << 22), (3, 2), gelu_grad),
        row("x*y+z 16M", 16.0 * big, (3, 1), triad),
        row("sum 16M", 4.0 * big, (1, 0), total),
        # and the forward pass's rows, read and written, and their cotangents
        Case("embedding gradient 32000x384", 4.0 * (32000 + 3 * 1024) * 384, (0, 1), embedding),
        row("cross entropy 1024x4096", 4.0 * n, (1, 0), cross, grad=False),
        row("cross entropy 1024x4096, backward", 12.0 * n, (2, 1), cross, grad=True),
        *(
            Case(
                f"cross entropy {'x'.join(map(str, shape))}{', backward' if grad else ''}",
                (12.0 if grad else 4.0) * np.prod(shape),
                (2, 1) if grad else (1, 0),
                partial(cross, 1, grad=grad, shape=shape),
            )
            for shape in ((8, 21, 128, 128), (8, 2, 128, 128))
            for grad in (False, True)
        ),
        row("dropout 4M", 8.0 * (1 << 22), (1, 1), dropout),
        Case("Adam 8 M parameters", 28.0 * moved, (4, 3), adam, in_place=True),
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


def measure(case: Case, seconds: float, threads: int) -> turns.Times:
    """Seconds of a call of each peer, one number a round, and of loops that do nothing else."""
    peers: dict[str, Callable[[], Any]] = {
        "eager": case.make(weft),
        "compiled": weft.compile(case.make(weft)),
        "torch": case.make(torch),
    }
    share = 1.0
    if case.numpy is not None:
        peers["numpy"] = case.numpy()
    if case.mix is None:
        peers["floor"], share = turns.peak(threads, case.amount)
    else:
        size = int(case.amount / sum(case.mix)) // 4096 * 4096
        ways = limits.mix(*case.mix, size, in_place=case.in_place)
        peers.update(zip(("floor", "streamed floor"), ways, strict=False))
    if case.inside is not None:
        peers["inside"] = case.inside(weft)
        peers["inside compiled"] = weft.compile(case.inside(weft))
    times = turns.take(peers, seconds=seconds, threads=threads)
    times["floor"] = [t / share for t in times["floor"]]
    return times


def _row(case: Case, times: turns.Times) -> str:
    rate = {k: case.amount / turns.middle(times, k) / 1e9 for k in times}
    best = "eager" if turns.ratio(times, "eager", "compiled") < 1 else "compiled"
    floors = [k for k in ("floor", "streamed floor") if k in times]
    floor = min(floors, key=lambda k: turns.middle(times, k))
    inside = f"{'':>9s}"
    if case.inside is not None:
        own = min(turns.ratio(times, k, best) for k in ("inside", "inside compiled"))
        inside = f"{100 * PART * own:7.0f} %"

    def ratio(peer: str, own: str) -> str:
        return f"{turns.ratio(times, peer, own):8.2f}" if peer in times else f"{'':>8s}"

    unit = "GFLOP/s" if case.mix is None else "GB/s"
    return (
        f"{case.name:36s}{rate['eager']:9.1f}{rate['compiled']:9.1f}{rate['torch']:9.1f}"
        f"{rate[floor]:9.1f} {unit:8s}{100 * turns.ratio(times, floor, best):5.0f} %{inside}"
        f"{ratio('torch', 'eager')}{ratio('torch', 'compiled')}{ratio('numpy', 'eager')}"
    )


def main() -> None:
    """Print a table a number of threads."""
    parser = argparse.ArgumentParser(description="Single operations beside torch.")
    parser.add_argument("--only", default="", help="a regular expression that names must match")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.0, help="a row")
    parser.add_argument("--list", action="store_true", help="print the names only")
    args = parser.parse_args()
    chosen = [c for c in cases() if re.search(args.only, c.name)]
    if args.list:
        print("\n".join(c.name for c in chosen))
        return
    if _OPENBLAS not in os.environ:  # it takes these at the start of a process
        for threads in args.threads:
            again = ["--only", args.only, "--seconds", str(args.seconds), "--threads", str(threads)]
            # its threads would spin for 70 ms after a product, on the cores others are timed on
            env = {**os.environ, _OPENBLAS: str(threads), "OPENBLAS_THREAD_TIMEOUT": "20"}
            subprocess.run([sys.executable, __file__, *again], env=env, check=True)
        return
    threads = args.threads[0]
    weft.set_num_threads(threads)
    torch.set_num_threads(threads)
    print(f"\nweft {weft.__version__}, torch {torch.__version__}, {threads} threads")
    print(
        f"{'case':36s}{'eager':>9s}{'compiled':>9s}{'torch':>9s}{'floor':>9s} {'':8s}{'limit':>7s}"
        f"{'inside':>9s}{'t/eager':>8s}{'t/comp':>8s}{'np/eag':>8s}"
    )
    for case in chosen:
        print(_row(case, measure(case, args.seconds, threads)), flush=True)


if __name__ == "__main__":
    main()
