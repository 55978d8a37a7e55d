"""torch's arguments as Weft's, and a comparison of what the two give."""

from __future__ import annotations

import re
import signal
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]  beside Weft here only

import weft
from tools.conformance_rules import ON_PURPOSE, TOLERANCE
from weft.compat import alias

torch.set_num_threads(1)
weft.set_num_threads(1)


class TimeUp(BaseException):
    """The operator has had its time."""


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


# ------------------------------------------------------------------------------------- translation
def to_weft(x: Any, known: dict[int, Any] | None = None) -> Any:
    """torch's argument as Weft's: tensors keep dtype, strides and offset; nothing is shared.

    With `known`, a tensor that occurs twice is one tensor.
    """
    if isinstance(x, torch.Tensor):
        if known is None:
            return tensor_to_weft(x)
        if id(x) not in known:
            known[id(x)] = tensor_to_weft(x)
        return known[id(x)]
    if isinstance(x, torch.dtype | torch.layout | torch.memory_format):
        name = str(x).removeprefix("torch.")
        found = alias.look_up("torch", name)
        if found is alias._MISSING:
            raise Missing(f"Weft has no {name}")
        return found
    if isinstance(x, torch.device):
        return weft.device(str(x))
    if isinstance(x, torch.nn.TransformerEncoderLayer | torch.nn.TransformerDecoderLayer):
        return getattr(weft.nn, type(x).__name__)(
            x.self_attn.embed_dim, x.self_attn.num_heads, x.linear1.out_features, x.dropout.p,
            to_weft(x.activation), x.norm1.eps, x.self_attn.batch_first, x.norm_first,
            x.linear1.bias is not None,
        )  # fmt: skip
    if isinstance(x, torch.nn.Module):  # a distance among the arguments
        return getattr(weft.nn, type(x).__name__)()
    if callable(x) and x is getattr(torch.nn.functional, getattr(x, "__name__", ""), None):
        return getattr(weft.nn.functional, x.__name__)
    if isinstance(x, dict):
        return {k: to_weft(v, known) for k, v in x.items()}
    if isinstance(x, tuple):
        return tuple(to_weft(v, known) for v in x)
    if isinstance(x, list):
        return [to_weft(v, known) for v in x]
    return x


def numpy_of(x: Any) -> np.ndarray:
    """A torch tensor's elements over its whole storage's order, as a new array."""
    x = x.resolve_conj().resolve_neg()
    return x.float().numpy().copy() if x.dtype is torch.bfloat16 else x.numpy(force=True).copy()


def tensor_to_weft(x: Any) -> Any:
    if x.layout is torch.sparse_coo:
        made = weft.sparse_coo_tensor(
            weft.from_numpy(numpy_of(x._indices())), weft.from_numpy(numpy_of(x._values())),
            tuple(x.shape),
        )  # fmt: skip
        return made.coalesce() if x.is_coalesced() else made
    if x.layout is not torch.strided or x.is_quantized or not hasattr(weft, str(x.dtype)[6:]):
        raise Missing(f"Weft has no {x.dtype} {x.layout} tensors")
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
    if theirs.layout is not torch.strided:
        if str(ours.layout)[6:] != str(theirs.layout)[6:]:
            raise Differs(f"layout {ours.layout} for {theirs.layout}{where}")
        ours, theirs = ours.to_dense(), theirs.to_dense()
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
        if not isinstance(a, weft.Tensor) or str(a.layout)[6:] != "strided":
            continue
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


# -------------------------------------------------------------------------------- counting
def shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def short(sample: Any) -> str:
    """The arguments in a line: tensors as their dtype, shape, and strides where these are odd."""

    def say(x: Any) -> str:
        if isinstance(x, torch.Tensor):
            if x.layout is not torch.strided:
                return f"{str(x.dtype)[6:]}{list(x.shape)} {str(x.layout)[6:]}"
            odd = "" if x.is_contiguous() else f", strides {list(x.stride())}"
            return f"{str(x.dtype)[6:]}{list(x.shape)}{odd}"
        if isinstance(x, list | tuple):
            return f"{'[' if isinstance(x, list) else '('}{', '.join(map(say, x))})"
        return repr(x) if not callable(x) else getattr(x, "__name__", "?")

    parts = [say(a) for a in (sample.input, *sample.args)]
    parts += [f"{k}={say(v)}" for k, v in sample.kwargs.items()]
    return ", ".join(parts)


def line_of(e: BaseException, limit: int = 170) -> str:
    text = str(e).split("\n")[0] if isinstance(e, Differs) else f"{type(e).__name__}: {e}"
    text = re.sub(r"0x[0-9a-f]+", "0x...", " ".join(text.split()))
    return shortened(text, limit)


def _on_alarm(*_: Any) -> None:
    raise TimeUp


class Tally:
    """What became of the samples of one operator, module or optimizer."""

    def __init__(self, name: str) -> None:
        self.lacking = 0
        self.result: dict[str, Any] = {
            "op": name, "state": "pass", "passed": 0, "samples": 0, "failures": [],
            "explained": {},
        }  # fmt: skip

    def judge(self, dtype: str, sample: str, check: Callable[[], Any]) -> None:
        """One sample: `check` returns False where there is nothing to compare, or raises."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if check() is False:
                    return
            self.result["passed"] += 1
        except TimeUp:
            raise
        except BaseException as e:
            if isinstance(e, KeyboardInterrupt):
                raise
            name = self.result["op"]
            reasons = (
                why for p, kind, s, why in ON_PURPOSE
                if kind == dtype and re.match(p, name) and re.search(s, sample)
            )  # fmt: skip
            why = next(reasons, None)
            if why is not None:
                self.result["explained"][why] = self.result["explained"].get(why, 0) + 1
                return
            self.lacking += isinstance(e, AttributeError) and (
                str(e).startswith("Weft has no ") or isinstance(getattr(e, "obj", 0), weft.Tensor)
            )
            self.result["failures"].append([dtype, shortened(sample, 150), line_of(e)])
        self.result["samples"] += 1

    def finish(self, judge_all: Callable[[], None], seconds: float) -> dict[str, Any]:
        """The result of `judge_all()`, which may take so long."""
        signal.signal(signal.SIGPROF, _on_alarm)  # of this process's own time
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            judge_all()
        except TimeUp:
            self.result["samples"] += 1
            self.result["failures"].append(["", "", f"more than {seconds:.0f} s"])
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        r = self.result
        if r["samples"] and self.lacking == r["samples"]:
            return {**r, "state": "missing", "why": r["failures"][0][2], "failures": []}
        return {**r, "state": "fail" if r["failures"] else "pass"}
