"""weft doctor: is this machine fit, and does Weft compute correctly on it?"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import time

import click
import numpy as np

import weft
from weft.core import dtype as dt
from weft.core import sampling
from weft.core.graph import meaning
from weft.kernels.limits import PRODUCTS, peak_flops, read_bandwidth
from weft.ops.dispatch import apply
from weft.runtime import native


@click.command()
def doctor() -> None:
    """Print versions, CPU, threads, kernel cache; run a self-test of about 5 seconds."""
    click.echo(f"weft {weft.__version__}, Python {platform.python_version()}, {sys.platform}")
    for name in ("numpy", "llvmlite", "safetensors", "ml_dtypes", "onnx", "onnxruntime",
                 "starlette", "uvicorn", "tensorboard", "mlxtend", "matplotlib"):  # fmt: skip
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        click.echo(f"  {name:12s} {version}")
    host = native.host()
    click.echo(f"CPU {host.cpu}: vectors of {host.vector_bits} bits, fma {host.has_fma}")
    why = native.why_no_tiles()
    tiles = [kind for kind in ("bf16", "int8") if host.has(f"amx-{kind}")]
    click.echo(f"tile registers (AMX): {f'not used: {why}' if why else ', '.join(tiles)}")
    click.echo(f"threads {weft.get_num_threads()}")
    rates = (f"{peak_flops(of=of) / 1e9:.0f} GOP/s of {of}" for of in PRODUCTS)
    click.echo(f"limits measured: {', '.join(rates)}, {read_bandwidth() / 1e9:.0f} GB/s read")
    click.echo(f"kernel cache {native.cache_dir()}")
    failed = [name for name, ok in self_test() if not ok]
    if failed:
        click.echo(f"FAILED: {', '.join(failed)}")
        raise SystemExit(1)
    click.echo("all well")


def self_test() -> list[tuple[str, bool]]:
    """(check, whether it holds), printed as they run."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((257, 131)).astype(np.float32)
    w = rng.standard_normal((131, 67)).astype(np.float32)
    wide = x.astype(np.float64)
    exact = wide @ w
    results = []

    def check(name: str, ok: bool, start: float) -> None:
        ms = 1e3 * (time.perf_counter() - start)
        click.echo(f"  {'ok  ' if ok else 'FAIL'} {name} ({ms:.0f} ms)")
        results.append((name, bool(ok)))

    start = time.perf_counter()
    got = (weft.from_numpy(x) @ weft.from_numpy(w)).numpy()
    check("matmul against NumPy in float64", np.abs(got - exact).max() < 1e-4, start)
    start = time.perf_counter()
    got = weft.from_numpy(x).exp().numpy()
    check("exp against NumPy in float64", np.allclose(got, np.exp(wide), rtol=3e-7, atol=0), start)
    start = time.perf_counter()
    got = weft.from_numpy(x).sum().item()
    check("sum against NumPy in float64", abs(got - wide.sum()) < 1e-2, start)
    start = time.perf_counter()
    check("1 and all threads give the same bits", _threads_agree(x, w), start)
    start = time.perf_counter()
    check("compiled equals eager to the bit", _compiled_agrees(x, w), start)
    start = time.perf_counter()
    check("gradient against finite differences", _gradient_agrees(), start)
    start = time.perf_counter()
    count, wrong = _ops_against_oracles(seconds=4.0)
    named = f": {', '.join(wrong)}" if wrong else ""
    check(f"{count} uses of ops against their NumPy meaning{named}", not wrong, start)
    return results


def _ops_against_oracles(seconds: float) -> tuple[int, list[str]]:
    """Each op's samples, as far as the time goes: how many ran, and the ops that differ."""
    end = time.perf_counter() + seconds
    count, wrong = 0, []
    for name, index in sampling.cases():
        if time.perf_counter() > end:
            break
        op = sampling.op_of(name, index)
        if op.effect or op.oracle is None:
            continue
        operands = sampling.draw(name, index)
        tensors = [weft.tensor(a) if isinstance(a, np.ndarray) else a for a in operands]
        got = apply(op, *tensors).numpy()
        meant = meaning(op, operands)
        close = np.allclose(got, meant, rtol=1e-4, atol=1e-5, equal_nan=True)
        if got.shape != meant.shape or not close:
            wrong.append(f"{op}")
        count += 1
    return count, wrong


def _step(x: weft.Tensor, w: weft.Tensor) -> weft.Tensor:
    w.grad = None
    ((x @ w).tanh() ** 2).mean().backward()
    assert w.grad is not None
    return w.grad


def _threads_agree(x: np.ndarray, w: np.ndarray) -> bool:
    before = weft.get_num_threads()
    try:
        weft.set_num_threads(1)
        one = _step(weft.from_numpy(x), weft.tensor(w, requires_grad=True)).numpy().tobytes()
    finally:
        weft.set_num_threads(before)
    return one == _step(weft.from_numpy(x), weft.tensor(w, requires_grad=True)).numpy().tobytes()


def _compiled_agrees(x: np.ndarray, w: np.ndarray) -> bool:
    compiled = weft.compile(_step)
    given, weight = weft.from_numpy(x), weft.tensor(w, requires_grad=True)
    eager = _step(given, weight).numpy().tobytes()
    return all(compiled(given, weight).numpy().tobytes() == eager for _ in range(3))


def _gradient_agrees() -> bool:
    x = weft.tensor([0.3, -1.2, 2.0], dtype=dt.float64, requires_grad=True)
    (x.sin() * x.exp()).sum().backward()
    v = x.detach().numpy()
    step = 1e-6
    above, below = (np.sin(u) * np.exp(u) for u in (v + step, v - step))
    numeric = (above - below) / (2 * step)
    assert x.grad is not None
    return np.allclose(x.grad.numpy(), numeric, rtol=1e-6)
