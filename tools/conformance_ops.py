"""torch's own samples of its operators (OpInfo), run on Weft and on torch in one process.

    python tools/conformance_ops.py [--op NAME ...] [--dtype float32 ...] [--write]

Needs torch 2.13, expecttest and hypothesis beside Weft (`make conformance` makes that environment).
A sample passes when value, dtype, shape, aliasing and the strides of views equal torch's; with
float64 also the gradient to a random cotangent and, for the first samples, the second gradient.
An error input passes when the exception is of torch's class.  Worker processes hold chunks of ops,
so that a crash costs one op and is reported as one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import re
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "docs/conformance.md"
DTYPES = ("float32", "float64", "int64", "bool")
SECONDS = 60.0  # for one op, all dtypes; what is left then counts as failed
SECOND_GRADIENTS = 3  # samples of an op

# (relative, absolute) by the dtype of a result.  Sums are ordered otherwise than torch's, so
# float32 may differ in its last digits; torch.testing's own defaults are 1.3e-6 and 1e-5.
TOLERANCE = {
    "float64": (1e-7, 1e-7),
    "float32": (2e-5, 2e-5),
    "float16": (2e-3, 2e-3),
    "bfloat16": (1.6e-2, 1.6e-2),
}
# Ops whose values are not determined, and why: dtype, shape and flags are still compared.
UNDETERMINED = {
    r"(new_)?empty(_like|_strided|_permuted)?$": "memory as it was found",
    r"resize_(as_)?$": "memory as it was found past the old elements",
    r"(svd|pca)_lowrank$": "built on random projections and on singular vectors' signs",
    r"geqrf$": "reflectors: signs are free",
}
# Ops with results of free sign, and why: what torch's samples make of them is compared instead,
# and its gradients.
FREE_SIGNS = {
    r"(linalg\.)?svd$": "singular vectors",
    r"linalg\.(eigh|eig)$": "eigenvectors",
}
# Ops that choose places: of equal elements any may be named.  Compared instead: what lies there.
TIES = {
    r"(topk|kthvalue|mode)$": "places among equal elements are as torch's quickselect leaves them",
    r"(sort|argsort)$": "not stable unless asked: torch's order of equal elements varies with size",
}
# Samples where Weft differs and keeps to it: (operator, kind or dtype, sample), pattern each, why.
ON_PURPOSE = (
    (r"(special\.)?polygamma", "float32", r", [01]$",
     "torch's trigamma sums few terms: 2.0e-5 from SciPy's, Weft's 4.5e-8"),
    (r"special\.bessel_(j0|y1)$", "float64", "",
     "torch's is 1.9e-7 (j0) and 3.2e-7 (y1) from SciPy's, Weft's 6e-16"),
    (r"as_strided_scatter$", "float64", "",
     "torch's gradient of the base is the cotangent where it was overwritten and 0 where it was"
     " kept; finite differences say the reverse"),
    (r"masked\.logaddexp$", "float64", "",
     "torch's second gradient is NaN at places that the mask hides, Weft's 0"),
    (r"as_strided \(partial_views\)$", "float64", r"\], \(2, 2\), \(1, 2\), storage_offset=0",
     "a leaf that is a view of more than itself, read before its start: Weft refuses"),
    (r"(aminmax|amax|amin)$", "error", r"1, 1, 1, 1, 1, 1, 1, 1, 1",
     "a tensor of 65 dims cannot be made in Weft at all (NumPy's 64)"),
    (r"gradient$", "error", r"int64\[3, 3\], spacing=\[int64\[3\], int64\[3\]",
     "a spacing on the meta device, which Weft has not"),
)  # fmt: skip
# Why an op is missing: the first pattern that matches its name.
MISSING = (
    (r"fft\.|stft|istft|complex|polar|conj|imag|angle|^real$|chalf|cfloat|cdouble|view_as_(real|com)",
     "no complex dtypes yet"),
    (r"sparse|to_dense", "no sparse tensors yet"),
    (r"jiterator", "CUDA only"),
    (r"_flash_|_efficient_|aten|_softmax_backward|_batch_norm_with|_upsample_|native_|_native"
     r"|_with_indices_b|_segment_reduce|_unsafe_masked|_chunk_cat", "an inner operator of torch"),
)  # fmt: skip

torch: Any = None  # filled in by `load`: the parent process needs none of the three
weft: Any = None
alias: Any = None


def load() -> None:
    global torch, weft, alias
    import torch as torch_module  # type: ignore[import-not-found]  beside Weft here only

    import weft as weft_module
    from weft.compat import alias as alias_module

    torch, weft, alias = torch_module, weft_module, alias_module
    torch.set_num_threads(1)
    weft.set_num_threads(1)


class Missing(AttributeError):
    """Weft has no such name."""


class Stand:
    """A module of torch whose names are Weft's: what `import torch` is under weft.compat."""

    def __init__(self, face: str):
        self._face = face

    def __getattr__(self, name: str) -> Any:
        known = alias.is_face(self._face)
        found = alias.look_up(self._face, name) if known else alias._MISSING
        if found is not alias._MISSING:
            return found
        dotted = f"{self._face}.{name}"
        if alias.is_face(dotted):
            return Stand(dotted)
        raise Missing(f"Weft has no {dotted}")


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


# ------------------------------------------------------------------------------------- translation
def to_weft(x: Any) -> Any:
    """torch's argument as Weft's: tensors keep dtype, strides and offset; nothing is shared."""
    if isinstance(x, torch.Tensor):
        return tensor_to_weft(x)
    if isinstance(x, torch.dtype | torch.layout | torch.memory_format):
        name = str(x).removeprefix("torch.")
        found = alias.look_up("torch", name)
        if found is alias._MISSING:
            raise Missing(f"Weft has no {name}")
        return found
    if isinstance(x, torch.device):
        return weft.device(str(x))
    if isinstance(x, torch.nn.Module):  # a distance among the arguments
        return getattr(weft.nn, type(x).__name__)()
    if callable(x) and x is getattr(torch.nn.functional, getattr(x, "__name__", ""), None):
        return getattr(weft.nn.functional, x.__name__)
    if isinstance(x, dict):
        return {k: to_weft(v) for k, v in x.items()}
    if isinstance(x, tuple):
        return tuple(to_weft(v) for v in x)
    if isinstance(x, list):
        return [to_weft(v) for v in x]
    return x


def numpy_of(x: Any) -> np.ndarray:
    """A torch tensor's elements over its whole storage's order, as a new array."""
    return x.float().numpy().copy() if x.dtype is torch.bfloat16 else x.numpy(force=True).copy()


def tensor_to_weft(x: Any) -> Any:
    if x.layout is not torch.strided or x.is_complex() or x.is_quantized:
        raise Missing(f"no {x.dtype} {x.layout} tensors")
    bare = x.detach()
    alone = bare.untyped_storage().nbytes() == bare.numel() * bare.element_size()
    if bare.is_contiguous() and alone:
        out = weft.from_numpy(numpy_of(bare))
    else:
        size = bare.untyped_storage().nbytes() // bare.element_size()
        whole = numpy_of(bare.as_strided((size,), (1,), 0))
        out = weft.from_numpy(whole).as_strided(
            tuple(bare.shape), bare.stride(), bare.storage_offset()
        )
    if bare.dtype is torch.bfloat16:
        out = out.to(weft.bfloat16)
    out = out.detach()
    if x.requires_grad:
        out.requires_grad_(True)
    return out


def leaves(x: Any, kind: type) -> list[Any]:
    """The tensors of a library inside nested arguments or results."""
    if isinstance(x, kind):
        return [x]
    if isinstance(x, dict):
        return [t for v in x.values() for t in leaves(v, kind)]
    if isinstance(x, list | tuple):
        return [t for v in x for t in leaves(v, kind)]
    return []


def again(x: Any) -> Any:
    """A copy of torch's arguments with their strides: ops that write must not spoil the sample."""
    if isinstance(x, torch.Tensor):
        copy = x.detach()
        if copy.layout is torch.strided and not copy.is_quantized:
            size = copy.untyped_storage().nbytes() // copy.element_size()
            flat = copy.as_strided((size,), (1,), 0).clone()
            copy = flat.as_strided(copy.shape, copy.stride(), copy.storage_offset()).detach()
            copy = copy.conj() if x.is_conj() else copy
        else:
            copy = copy.clone()
        return copy.requires_grad_(x.requires_grad)
    if isinstance(x, dict):
        return {k: again(v) for k, v in x.items()}
    if isinstance(x, list):
        return [again(v) for v in x]
    if type(x) is tuple:
        return tuple(again(v) for v in x)
    return x


# -------------------------------------------------------------------------------------- comparison
class Differs(Exception):
    """What of a result is not torch's."""


def compare(ours: Any, theirs: Any, values: bool, path: str = "") -> None:
    where = f" of result{path}" if path else ""
    if isinstance(theirs, torch.Tensor):
        if not isinstance(ours, weft.Tensor):
            raise Differs(f"{type(ours).__name__} for a tensor{where}")
        compare_tensors(ours, theirs, values, where)
    elif isinstance(theirs, list | tuple):
        if not isinstance(ours, list | tuple) or len(ours) != len(theirs):
            n = len(ours) if isinstance(ours, list | tuple) else type(ours).__name__
            raise Differs(f"{n} results for {len(theirs)}{where}")
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            compare(a, b, values, f"{path}[{i}]")
    elif isinstance(theirs, bool | int | float | complex):
        same = isinstance(ours, type(theirs))
        if not same or not np.allclose(ours, theirs, rtol=1e-5, equal_nan=True):
            raise Differs(f"{ours!r} for {theirs!r}{where}")
    elif isinstance(theirs, torch.dtype) and str(ours).rpartition(".")[2] != str(theirs)[6:]:
        raise Differs(f"{ours} for {theirs}{where}")


def compare_tensors(ours: Any, theirs: Any, values: bool, where: str) -> None:
    name = str(ours.dtype).rpartition(".")[2]
    if name != str(theirs.dtype).removeprefix("torch."):
        raise Differs(f"dtype {ours.dtype} for {theirs.dtype}{where}")
    if tuple(ours.shape) != tuple(theirs.shape):
        raise Differs(f"shape {tuple(ours.shape)} for {tuple(theirs.shape)}{where}")
    if not values or theirs.numel() == 0:
        return
    a = ours.detach().to(weft.float32) if name == "bfloat16" else ours.detach()
    compare_values(a.numpy(), numpy_of(theirs.detach().resolve_conj()), name, where)


def compare_values(a: np.ndarray, b: np.ndarray, name: str, where: str) -> None:
    if name not in TOLERANCE:
        bad = a != b
    else:
        rtol, atol = TOLERANCE[name]
        with np.errstate(all="ignore"):
            bad = ~np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    if bad.any():
        i = tuple(int(k[0]) for k in np.nonzero(bad)) if a.ndim else ()
        raise Differs(f"{a[i]!r} for {b[i]!r} at {i}, {int(bad.sum())} of {a.size} differ{where}")


def compare_aliasing(ours: Any, theirs: Any, args: Any, weft_args: Any) -> None:
    """Where torch's results share memory with an argument, Weft's do, with the same strides."""
    outs, wanted = leaves(ours, weft.Tensor), leaves(theirs, torch.Tensor)
    given, given_weft = leaves(args, torch.Tensor), leaves(weft_args, weft.Tensor)
    for a, b in zip(outs, wanted, strict=False):
        if b.layout is not torch.strided or b.numel() == 0:
            continue
        place = b.untyped_storage().data_ptr()
        mine = a.detach().numpy()
        for x, y in zip(given, given_weft, strict=False):
            if x.layout is not torch.strided or x.numel() == 0 or x.is_quantized:
                continue
            theirs_shared = place == x.untyped_storage().data_ptr()
            shared = shares(mine, y.detach().numpy())
            if theirs_shared and not shared:
                # two windows of one storage need not overlap: then nothing can be told
                if overlapping(b, x):
                    raise Differs("a copy where torch gives a view")
            elif shared and not theirs_shared:
                raise Differs("a view where torch gives a copy")
            if theirs_shared and b._is_view():
                strides = [(s, t) for s, t, n in zip(a.stride(), b.stride(), b.shape) if n > 1]
                if any(s != t for s, t in strides):
                    raise Differs(f"strides {a.stride()} for {b.stride()}")


def shares(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the bytes from first to last element overlap: arguments were allocated apart."""
    (p, q), (r, s) = np.lib.array_utils.byte_bounds(a), np.lib.array_utils.byte_bounds(b)
    return p < s and r < q


def overlapping(a: Any, b: Any) -> bool:
    def span(t: Any) -> tuple[int, int]:
        first = t.storage_offset()
        return first, first + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))

    (p, q), (r, s) = span(a), span(b)
    return p <= s and r <= q


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
    """Whether Weft's float results are no farther than torch's from torch's in float64."""
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
        if not np.max(mine_off, initial=0.0) <= np.max(torch_off, initial=0.0):
            return False
    return True


def compare_gradients(ours: Any, theirs: Any, pairs: list, order: int, name: str) -> None:
    wanted = leaves(theirs, torch.Tensor)
    mine = leaves(ours, weft.Tensor)
    for a, b in zip(mine, wanted, strict=True):
        if a.requires_grad != b.requires_grad:
            raise Differs(f"{name}: requires_grad {a.requires_grad} for {b.requires_grad}")
    both = [(a, b) for a, b in zip(mine, wanted, strict=True)
            if b.requires_grad and not b.is_complex()]  # fmt: skip
    if not both or not pairs:
        return
    torch.manual_seed(7)
    cotangents = [torch.randn(b.shape, dtype=b.dtype) for _, b in both]
    try:
        g = torch.autograd.grad(
            [b for _, b in both], [a for a, _ in pairs], cotangents,
            create_graph=order > 1, allow_unused=True,
        )  # fmt: skip
    except TimeUp:
        raise
    except Exception:
        return  # torch has no gradient here
    w = weft.autograd.grad(
        [a for a, _ in both], [b for _, b in pairs], [to_weft(c) for c in cotangents],
        create_graph=order > 1, allow_unused=True,
    )  # fmt: skip
    kept = []
    for i, (a, b) in enumerate(zip(w, g, strict=True)):
        if b is None or a is None:
            rest = a if b is None else b
            if rest is not None and bool((rest != 0).any()):
                raise Differs(f"{name} {i}: {'one' if b is None else 'none'} where torch has not")
            continue
        try:
            compare(a, b, True)
        except Differs as e:
            raise Differs(f"{name} {i}: {e}") from None
        if b.requires_grad and a.requires_grad:
            kept.append((a, b))
        elif b.requires_grad and not flat(b, pairs):
            raise Differs(f"{name} {i} has no graph")
    if order > 1 and kept:
        compare_gradients(
            [a for a, _ in kept], [b for _, b in kept], pairs, order - 1, "second " + name
        )


def flat(gradient: Any, pairs: list) -> bool:
    """Whether the graph that torch keeps of a gradient leads to zeros only."""
    found = torch.autograd.grad(
        gradient.sum(), [a for a, _ in pairs], allow_unused=True, retain_graph=True
    )
    return not any(g is not None and bool((g.abs() > 1e-12).any()) for g in found)


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
    weft_args = to_weft((sample.input, *sample.args))
    weft_kwargs = to_weft(sample.kwargs)
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
class TimeUp(BaseException):
    """The op has had its time."""


def _on_alarm(*_: Any) -> None:
    raise TimeUp


def label(op: Any) -> str:
    return f"{op.name} ({op.variant_test_name})" if op.variant_test_name else op.name


def short(sample: Any, limit: int = 150) -> str:
    """The arguments in a line: tensors as their dtype, shape, and strides where these are odd."""

    def say(x: Any) -> str:
        if isinstance(x, torch.Tensor):
            odd = "" if x.is_contiguous() else f", strides {list(x.stride())}"
            return f"{str(x.dtype)[6:]}{list(x.shape)}{odd}"
        if isinstance(x, list | tuple):
            return f"{'[' if isinstance(x, list) else '('}{', '.join(map(say, x))})"
        return repr(x) if not callable(x) else getattr(x, "__name__", "?")

    parts = [say(a) for a in (sample.input, *sample.args)]
    parts += [f"{k}={say(v)}" for k, v in sample.kwargs.items()]
    text = ", ".join(parts)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def line_of(e: BaseException, limit: int = 170) -> str:
    text = str(e).split("\n")[0] if isinstance(e, Differs) else f"{type(e).__name__}: {e}"
    text = re.sub(r"0x[0-9a-f]+", "0x...", " ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 3] + "..."


def run_op(op: Any, dtypes: tuple[str, ...]) -> dict[str, Any]:
    """{'op', 'state', 'passed', 'samples', 'failures': [[dtype, sample, what], ...], 'why'}"""
    result: dict[str, Any] = {
        "op": label(op), "state": "pass", "passed": 0, "samples": 0, "failures": [],
        "explained": {},
    }  # fmt: skip
    try:
        ours = on_weft(op)
    except Missing as e:
        return {**result, "state": "missing", "why": str(e)}
    values = not any(re.match(p, op.name) for p in UNDETERMINED)
    lacking = 0

    def judge(dtype: str, sample: Any, check: Callable[[], Any]) -> None:
        nonlocal lacking
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if check() is False:
                    return
            result["passed"] += 1
        except TimeUp:
            raise
        except BaseException as e:
            if isinstance(e, KeyboardInterrupt):
                raise
            lacking += isinstance(e, AttributeError) and (
                str(e).startswith("Weft has no ") or isinstance(getattr(e, "obj", 0), weft.Tensor)
            )
            why = next((w for p, d, s, w in ON_PURPOSE if d == dtype and re.match(p, label(op))
                        and re.search(s, short(sample, 10_000))), None)  # fmt: skip
            if why is not None:
                result["explained"][why] = result["explained"].get(why, 0) + 1
                return
            result["failures"].append([dtype, short(sample), line_of(e)])
        result["samples"] += 1

    signal.signal(signal.SIGALRM, _on_alarm)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
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
                judge(dtype, sample, lambda s=sample, o=order: run_sample(op, ours, s, values, o))
        if op.error_inputs_func is not None:
            for error in op.error_inputs("cpu"):
                judge("error", error.sample_input, lambda e=error: run_error(op, ours, e))
    except TimeUp:
        result["samples"] += 1
        result["failures"].append(["", "", f"more than {SECONDS:.0f} s"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if result["samples"] and lacking == result["samples"]:
        return {**result, "state": "missing", "why": result["failures"][0][2], "failures": []}
    if result["failures"]:
        result["state"] = "fail"
    return result


def samples_of(op: Any, dtype: Any, graph: bool) -> Iterator[Any]:
    """torch's samples; what its generator itself cannot make ends them."""
    try:
        yield from op.sample_inputs("cpu", dtype, requires_grad=graph)
    except (TimeUp, GeneratorExit):
        raise
    except Exception as e:
        print(f"{label(op)}: torch makes no sample: {e}", file=sys.stderr)


# ---------------------------------------------------------------------------------------- the whole
def work(connection: Any, dtypes: tuple[str, ...]) -> None:
    """A worker: gets labels of ops, sends results."""
    load()
    from torch.testing._internal.common_methods_invocations import (  # type: ignore[import-not-found]
        op_db,
    )

    ops = {label(op): op for op in op_db}
    connection.send(sorted(ops))
    while (name := connection.recv()) is not None:
        connection.send(run_op(ops[name], dtypes))


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
            if name is not None and time.monotonic() - since > 3 * SECONDS:
                process.kill()  # its end of the pipe closes: the loop above sees a crash
    return sorted(results, key=lambda r: r["op"].lower())


def totals(results: list[dict[str, Any]]) -> tuple[int, int, int]:
    present = [r for r in results if r["state"] != "missing"]
    return len(present), sum(r["passed"] for r in present), sum(r["samples"] for r in present)


def why_missing(r: dict[str, Any]) -> str:
    return next((text for p, text in MISSING if re.search(p, r["op"])), r["why"])


def report(results: list[dict[str, Any]]) -> str:
    """The text of docs/conformance.md."""
    present, passed, samples = totals(results)
    n = len(results)
    clean = sum(r["state"] == "pass" for r in results)
    out = [
        "# Conformance with torch's operator samples",
        "",
        "Written by `make conformance`: each operator of torch 2.13's `op_db`, with torch's own",
        f"samples for {', '.join(DTYPES)}, run on Weft and on torch. A sample passes when value,",
        "dtype, shape, aliasing and strides of views agree, with float64 also the gradient and for",
        f"{SECOND_GRADIENTS} samples an operator the second gradient. An error input passes when",
        "the exception is of torch's class. Missing operators' samples are not counted.",
        "",
        f"- operators present: **{present} of {n}** ({present / n:.1%});"
        f" without a failure: {clean}",
        f"- samples passed: **{passed:,} of {samples:,}** of the present ones"
        f" ({passed / max(samples, 1):.1%})",
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
        "result in float64 than torch's float32 result is.",
        "",
        "Tolerances (relative, absolute): "
        + ", ".join(f"{d} {r:g}, {a:g}" for d, (r, a) in TOLERANCE.items())
        + "; others exactly.",
        "",
        "## Failing",
        "",
        "| operator | passed | first failing sample | what |",
        "|---|---|---|---|",
    ]

    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("<", "&lt;")

    for r in sorted(results, key=lambda r: (r["state"] != "crash", r["passed"] - r["samples"])):
        if r["state"] in ("fail", "crash"):
            dtype, sample, what = r["failures"][0]
            given = f"{dtype}: `{cell(sample)}`" if sample else dtype
            out.append(f"| {r['op']} | {r['passed']}/{r['samples']} | {given} | {cell(what)} |")
    out += ["", "## Differs on purpose", "", "Samples not counted above.", ""]
    out += ["| operator | samples | why |", "|---|---|---|"]
    for r in results:
        out += [f"| {r['op']} | {n} | {cell(why)} |" for why, n in r.get("explained", {}).items()]
    out += ["", "## Missing", "", "| operator | why |", "|---|---|"]
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
    present, passed, samples = totals(results)
    print(f"operators present: {present} of {len(results)} ({present / max(len(results), 1):.1%})")
    print(f"samples passed: {passed} of {samples} ({passed / max(samples, 1):.1%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
