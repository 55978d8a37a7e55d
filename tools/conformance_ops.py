"""torch's own samples of its operators (OpInfo), run on Weft and on torch in one process.

    python -m tools.conformance_ops [--op NAME ...] [--dtype float32 ...] [--write]

Needs torch 2.13, expecttest and hypothesis beside Weft (`make conformance` makes that environment).
A sample passes when value, dtype, shape, aliasing and the strides of views equal torch's; with
float64 also the gradient to a random cotangent and, for the first samples, the second gradient.
An error input passes when the exception is of torch's class.  Worker processes hold chunks of ops,
so that a crash costs one op and is reported as one.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing as mp
import os
import re
import sys
import time
import types
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]  beside Weft here only
from torch.testing._internal.common_methods_invocations import (  # type: ignore[import-not-found]
    op_db,
)

import weft
from tools import conformance_array_api, conformance_modules
from tools.conformance_compare import (
    Differs,
    Missing,
    Stand,
    Tally,
    TimeUp,
    again,
    compare,
    compare_aliasing,
    compare_gradients,
    leaves,
    numpy_of,
    short,
    to_weft,
)
from tools.conformance_rules import FREE_SIGNS, MISSING, TIES, TOLERANCE, UNDETERMINED

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "docs/conformance.md"
DTYPES = ("float32", "float64", "int64", "bool")
SECONDS = 60.0  # for one op, all dtypes; what is left then counts as failed
SECOND_GRADIENTS = 3  # samples of an op


# ------------------------------------------------------------------------------ torch's op on Weft
def on_weft(op: Any) -> Callable:
    """Weft's function for an OpInfo.  A lambda of torch's tests runs with Weft under `torch`."""
    f = op.op
    home, name = dotted_name(op)
    if home is not None:
        where = weft.Tensor if home == "torch.Tensor" else Stand(home)
        try:
            return getattr(where, name)
        except AttributeError as e:
            raise Missing(str(e)) from None
    if isinstance(f, types.FunctionType):
        return moved(f)
    raise Missing(f"{f!r} is an inner operator")


def dotted_name(op: Any) -> tuple[str | None, str]:
    homes = ("torch", "torch.nn.functional", "torch.linalg", "torch.fft", "torch.special",
             "torch.Tensor", "torch.signal.windows", "torch.masked")  # fmt: skip
    name = op.name.rpartition(".")[2]
    spelled = "torch." + op.name.rpartition(".")[0] if "." in op.name else "torch"
    for home in (spelled, *homes):
        place: Any = torch
        for part in home.split(".")[1:]:
            place = getattr(place, part, None)
        for candidate in (name, getattr(op.op, "__name__", name)):
            if getattr(place, candidate, None) is op.op:
                return home, candidate
    return None, name


def moved(f: types.FunctionType) -> Callable:
    """A function of torch's tests whose `torch` is Weft."""
    names = dict(f.__globals__)
    names.update(torch=Stand("torch"), wrapper_set_seed=seeded, F=Stand("torch.nn.functional"))
    closure = f.__closure__
    if closure:
        cells = (c.cell_contents for c in closure)
        closure = tuple(types.CellType(to_weft(c)) for c in cells)
    return types.FunctionType(f.__code__, names, f.__name__, f.__defaults__, closure)


def seeded(op: Callable, *args: Any, **kwargs: Any) -> Any:
    weft.manual_seed(42)
    return op(*args, **kwargs)


# ------------------------------------------------------------------------------------- one sample
def run_sample(op: Any, ours: Callable, sample: Any, values: bool, order: int) -> bool:
    """Whether torch takes the sample itself.  Differs or Weft's exception when Weft falls short."""
    args = again((sample.input, *sample.args))
    kwargs = again(sample.kwargs)
    weft_error, weft_args, weft_kwargs = None, (), {}
    try:
        weft_args, weft_kwargs = to_weft(args), to_weft(kwargs)
    except Missing as e:
        weft_error = e
    try:
        theirs = op.op(*args, **kwargs)
    except TimeUp:
        raise
    except Exception:
        return False
    if weft_error:
        raise weft_error
    mine = ours(*weft_args, **weft_kwargs)
    finish = sample.output_process_fn_grad
    if any(re.match(p, op.name) for p in TIES):
        mine = settled(op, sample, mine, theirs, weft_args[0])
    free = any(re.match(p, op.name) for p in FREE_SIGNS)
    try:
        compare(mine, theirs, values and not free)
    except Differs as e:
        if not nearer(op, sample, mine, theirs):
            raise e from None
    if free:
        compare(finish(mine), finish(theirs), True)
    compare_aliasing(mine, theirs, (args, kwargs), (weft_args, weft_kwargs))
    if order:
        one = leaves((args, kwargs), torch.Tensor)
        two = leaves((weft_args, weft_kwargs), weft.Tensor)
        pairs = [(a, b) for a, b in zip(one, two, strict=True) if a.requires_grad and a.is_leaf]
        compare_gradients(finish(mine), finish(theirs), pairs, order, "gradient")
    return True


def settled(op: Any, sample: Any, mine: Any, theirs: Any, x: Any) -> Any:
    """Weft's result with torch's places where both name equal elements of the input."""
    dim = sample.kwargs.get("dim", next((a for a in sample.args if type(a) is int), -1))
    if op.name in ("topk", "kthvalue"):  # k comes first
        dim = sample.kwargs.get("dim", [*sample.args, -1][1])
    alone = isinstance(theirs, torch.Tensor)
    at, wanted = (mine, theirs) if alone else (mine[1], theirs[1])
    if tuple(at.shape) != tuple(wanted.shape) or not x.ndim:
        return mine
    place, other = at, to_weft(wanted)
    if at.ndim < x.ndim:
        place, other = place.unsqueeze(dim), other.unsqueeze(dim)
    x = x.detach()
    if not weft.allclose(x.gather(dim, place), x.gather(dim, other), equal_nan=True):
        return mine
    if op.name in ("sort", "argsort", "topk") and (place.sort(dim)[0].diff(dim=dim) == 0).any():
        return mine  # the same place twice
    fixed = to_weft(wanted)
    return fixed if alone else (mine[0], fixed)


def nearer(op: Any, sample: Any, mine: Any, theirs: Any) -> bool:
    """Whether Weft's float results are about as near as torch's to torch's in float64."""
    ours, wanted = leaves(mine, weft.Tensor), leaves(theirs, torch.Tensor)
    if len(ours) != len(wanted) or any(
        tuple(a.shape) != tuple(b.shape) or str(a.dtype)[5:] != str(b.dtype)[6:]
        for a, b in zip(ours, wanted, strict=True)
    ):
        return False

    def widened(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return x.detach().double() if x.dtype is torch.float32 else x
        if isinstance(x, list | tuple):
            return type(x)(widened(v) for v in x)
        return x

    try:
        args = again((sample.input, *sample.args))
        kwargs = again(sample.kwargs)
        exact = leaves(
            op.op(*widened(args), **{k: widened(v) for k, v in kwargs.items()}), torch.Tensor
        )
    except TimeUp:
        raise
    except Exception:
        return False
    for a, b, c in zip(ours, wanted, exact, strict=True):
        if not b.is_floating_point():
            if not np.array_equal(a.detach().numpy(), numpy_of(b)):
                return False
            continue
        right = numpy_of(c).astype(np.float64)
        with np.errstate(all="ignore"):
            mine_off, torch_off = (
                np.abs(v.astype(np.float64) - right) for v in (a.detach().numpy(), numpy_of(b))
            )
        if not np.max(mine_off, initial=0.0) <= 2 * np.max(torch_off, initial=0.0):
            return False
    return True


def run_error(op: Any, ours: Callable, error: Any) -> bool:
    """Whether torch itself raises; its own tests expect more errors than its functions raise."""
    sample = error.sample_input
    try:
        op.op(*again((sample.input, *sample.args)), **again(sample.kwargs))
        return False
    except TimeUp:
        raise
    except Exception:
        pass
    known: dict[int, Any] = {}
    weft_args = to_weft((sample.input, *sample.args), known)
    weft_kwargs = to_weft(sample.kwargs, known)
    try:
        ours(*weft_args, **weft_kwargs)
    except error.error_type:
        return True
    except TimeUp:
        raise
    except Exception as e:
        raise Differs(f"{type(e).__name__} for {error.error_type.__name__}: {e}") from None
    raise Differs(f"no error for {error.error_type.__name__}")


# ----------------------------------------------------------------------------------------- one op
def label(op: Any) -> str:
    return f"{op.name} ({op.variant_test_name})" if op.variant_test_name else op.name


def run_op(op: Any, dtypes: tuple[str, ...]) -> dict[str, Any]:
    """{'op', 'state', 'passed', 'samples', 'failures': [[dtype, sample, what], ...], 'why'}"""
    tally = Tally(label(op))
    try:
        ours = on_weft(op)
    except Missing as e:
        return {**tally.result, "state": "missing", "why": str(e)}
    values = not any(re.match(p, op.name) for p in UNDETERMINED)

    def judge_all() -> None:
        for dtype in dtypes:
            kind = getattr(torch, dtype)
            if kind not in op.supported_dtypes("cpu"):
                continue
            graph = (
                dtype == "float64"
                and op.supports_autograd
                and kind in op.supported_backward_dtypes("cpu")
            )
            torch.manual_seed(1)
            for i, sample in enumerate(samples_of(op, kind, graph)):
                second = graph and op.supports_gradgrad and i < SECOND_GRADIENTS
                order = 0 if not (graph and values) else 2 if second else 1
                tally.judge(
                    dtype, short(sample),
                    lambda s=sample, o=order: run_sample(op, ours, s, values, o),
                )  # fmt: skip
        if op.error_inputs_func is not None:
            for error in op.error_inputs("cpu"):
                tally.judge(
                    "error", short(error.sample_input), lambda e=error: run_error(op, ours, e)
                )

    return tally.finish(judge_all, SECONDS)


def samples_of(op: Any, dtype: Any, graph: bool) -> Iterator[Any]:
    """torch's samples; what its generator itself cannot make ends them."""
    try:
        yield from op.sample_inputs("cpu", dtype, requires_grad=graph)
    except (TimeUp, GeneratorExit):
        raise
    except Exception as e:
        print(f"{label(op)}: torch makes no sample: {e}", file=sys.stderr)


# ---------------------------------------------------------------------------------------- the whole
def jobs() -> dict[str, Callable[[tuple[str, ...]], dict[str, Any]]]:
    """What there is to run, by name: operators, modules, optimizers."""
    found: dict[str, Any] = {label(op): functools.partial(run_op, op) for op in op_db}
    return {**found, **conformance_modules.jobs()}


def work(connection: Any, dtypes: tuple[str, ...]) -> None:
    """A worker: gets names, sends results."""
    known = jobs()
    connection.send(sorted(known))
    while (name := connection.recv()) is not None:
        connection.send(known[name](dtypes))


def crash(name: str, what: str) -> dict[str, Any]:
    return {
        "op": name, "state": "crash", "passed": 0, "samples": 1, "failures": [["", "", what]],
    }  # fmt: skip


def run_all(wanted: str, dtypes: tuple[str, ...], jobs: int) -> list[dict[str, Any]]:
    """Every op's result; a worker that dies or hangs costs the op that it was at."""
    context = mp.get_context("spawn")
    results: list[dict[str, Any]] = []
    todo: list[str] | None = None
    workers: dict[Any, list[Any]] = {}  # connection -> [process, name of its op, since]

    def start() -> None:
        here, there = context.Pipe()
        process = context.Process(target=work, args=(there, dtypes), daemon=True)
        process.start()
        there.close()
        workers[here] = [process, None, time.monotonic()]

    def give(connection: Any) -> None:
        name = todo.pop(0) if todo else None
        workers[connection][1:] = [name, time.monotonic()]
        connection.send(name)
        if name is None:
            workers.pop(connection)[0].join(5)

    for _ in range(jobs):
        start()
    while workers:
        ready: list[Any] = list(wait(list(workers), timeout=1.0))
        for connection in ready:
            try:
                message = connection.recv()
            except EOFError:
                process, name, _ = workers.pop(connection)
                process.join()
                if name is None:
                    raise SystemExit("a worker died before its first operator") from None
                results.append(crash(name, f"the process died with {process.exitcode}"))
                print(f"CRASH {name}: {process.exitcode}", file=sys.stderr)
                start()
                continue
            if isinstance(message, list):
                if todo is None:
                    todo = [n for n in message if re.search(wanted, n)]
            else:
                results.append(message)
            give(connection)
        for process, name, since in list(workers.values()):
            if name is not None and time.monotonic() - since > 10 * SECONDS:
                process.kill()  # its end of the pipe closes: the loop above sees a crash
    return sorted(results, key=lambda r: r["op"].lower())


def totals(results: list[dict[str, Any]]) -> tuple[int, int, int]:
    present = [r for r in results if r["state"] != "missing"]
    return len(present), sum(r["passed"] for r in present), sum(r["samples"] for r in present)


def why_missing(r: dict[str, Any]) -> str:
    return next((text for p, text in MISSING if re.search(p, r["op"])), r["why"])


def kinds(results: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(operators | modules | optimizers, their results)"""
    kind_of = {"nn module": "modules", "optimizer": "optimizers"}
    for kind in ("operators", "modules", "optimizers"):
        pattern = re.compile("(nn module|optimizer) ")
        found = [(pattern.match(r["op"]), r) for r in results]
        yield kind, [r for m, r in found if kind_of.get(m[1] if m else "", "operators") == kind]


def counts(results: list[dict[str, Any]]) -> Iterator[str]:
    for kind, some in kinds(results):
        present, passed, samples = totals(some)
        n, clean = len(some), sum(r["state"] == "pass" for r in some)
        if n:
            yield (
                f"{kind}: {present} of {n} present ({present / n:.1%}), {clean} without a failure;"
                f" {passed:,} of {samples:,} samples pass ({passed / max(samples, 1):.2%})"
            )


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def report(results: list[dict[str, Any]]) -> str:
    """The text of docs/conformance.md."""
    out = [
        "# Conformance with torch's own samples",
        "",
        "Written by `make conformance`: each operator of torch 2.13's `op_db`, with torch's own",
        f"samples for {', '.join(DTYPES)}, run on Weft and on torch. A sample passes when value,",
        "dtype, shape, aliasing and strides of views agree, with float64 also the gradient and for",
        f"{SECOND_GRADIENTS} samples an operator the second gradient. An error input passes when",
        "torch raises too and the exception is of torch's class. Missing operators' samples are",
        "not counted. Then each module of torch's `module_db` with torch's parameters loaded",
        "(float32, float64; in training and not: results, gradients of inputs and parameters,",
        "buffers), and each optimizer of `optim_db` over 20 steps.",
        "",
        *(f"- {line}" for line in counts(results)),
        "",
        "Values that nothing determines are not compared:",
        "",
        *(f"- `{p}`: {text}" for p, text in UNDETERMINED.items()),
        "",
        "Values of free sign: what torch's samples make of them is compared.",
        "",
        *(f"- `{p}`: {text}" for p, text in FREE_SIGNS.items()),
        "",
        "Places among equal elements are free: what lies at them is compared.",
        "",
        *(f"- `{p}`: {text}" for p, text in TIES.items()),
        "",
        "A float32 result outside the tolerance passes when it is no farther from torch's own",
        "result in float64 than twice as far as torch's float32 result is.",
        "",
        "Tolerances (relative, absolute): "
        + ", ".join(f"{d} {r:g}, {a:g}" for d, (r, a) in TOLERANCE.items())
        + "; others exactly.",
        "",
        "## Failing",
        "",
        "| name | passed | first failing sample | what |",
        "|---|---|---|---|",
    ]
    for r in sorted(results, key=lambda r: (r["state"] != "crash", r["passed"] - r["samples"])):
        if r["state"] in ("fail", "crash"):
            dtype, sample, what = r["failures"][0]
            given = f"{dtype}: `{cell(sample)}`" if sample else dtype
            out.append(f"| {r['op']} | {r['passed']}/{r['samples']} | {given} | {cell(what)} |")
    out += ["", "## Differs on purpose", "", "Samples not counted above.", ""]
    out += ["| name | samples | why |", "|---|---|---|"]
    for r in results:
        out += [f"| {r['op']} | {n} | {cell(why)} |" for why, n in r.get("explained", {}).items()]
    out += ["", *conformance_array_api.report()]
    out += ["## Missing", "", "| name | why |", "|---|---|"]
    out += [f"| {r['op']} | {cell(why_missing(r))} |" for r in results if r["state"] == "missing"]
    out += ["", "## Passing", ""]
    out += [", ".join(f"{r['op']} {r['samples']}" for r in results if r["state"] == "pass")]
    return "\n".join(out) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--op", default="", help="a pattern: only operators whose name it finds")
    parser.add_argument("--dtype", nargs="*", default=DTYPES)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", action="store_true", help=f"write {REPORT.name}")
    parser.add_argument("--json", type=Path, help="write every failure here")
    args = parser.parse_args()
    results = run_all(args.op, tuple(args.dtype), args.jobs)
    if args.json:
        args.json.write_text(json.dumps(results), encoding="utf-8")
    if args.write:
        REPORT.write_text(report(results), encoding="utf-8")
    for r in results:
        if r["state"] == "missing":
            print(f"missing {r['op']}: {why_missing(r)}")
        elif r["state"] != "pass":
            dtype, sample, what = r["failures"][0]
            print(f"{r['state']} {r['op']} {r['passed']}/{r['samples']}: {dtype} {sample}: {what}")
    print(*counts(results), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
