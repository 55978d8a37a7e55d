"""torch's samples of its modules (module_db) and optimizers (optim_db), run on Weft and on torch.

A module gets torch's parameters and buffers; its results, the gradients of inputs and parameters
to random cotangents, and its buffers afterwards are compared.  An optimizer makes some steps down
the same slope in both.  An error input passes when the exception is of torch's class.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch  # type: ignore[import-not-found]  beside Weft here only
from torch.testing._internal.common_modules import (  # type: ignore[import-not-found]
    ModuleErrorEnum,
    module_db,
)
from torch.testing._internal.common_optimizers import (  # type: ignore[import-not-found]
    OptimizerErrorEnum,
    optim_db,
)

import weft
from tools.conformance_compare import (
    Differs,
    Missing,
    Tally,
    again,
    compare,
    compare_gradients,
    leaves,
    short,
    to_weft,
)

SECONDS = 120.0
STEPS = 20


def jobs() -> dict[str, Callable[[tuple[str, ...]], dict[str, Any]]]:
    """name -> run(dtypes)"""
    found: dict[str, Any] = {
        f"nn module {m.name}": functools.partial(run_module, m) for m in module_db
    }
    for o in optim_db:
        found[f"optimizer {o.optim_cls.__name__}"] = functools.partial(run_optimizer, o)
    return found


def counterpart(cls: type) -> Any:
    """Weft's class of the same path."""
    place: Any = weft
    for part in (*cls.__module__.removeprefix("torch.").split(".")[:1], cls.__name__):
        place = getattr(place, part, None)
        if place is None:
            raise Missing(f"Weft has no torch.{cls.__module__.split('.')[1]}.{cls.__name__}")
    return place


# -------------------------------------------------------------------------------- modules
def run_module(info: Any, dtypes: tuple[str, ...]) -> dict[str, Any]:
    tally = Tally(f"nn module {info.name}")
    try:
        ours = counterpart(info.module_cls)
    except Missing as e:
        return {**tally.result, "state": "missing", "why": str(e)}

    def judge_inputs(dtype: str, training: bool) -> None:
        kind = getattr(torch, dtype)
        torch.manual_seed(1)
        inputs = info.module_inputs_func(
            info, device="cpu", dtype=kind, requires_grad=dtype == "float64", training=training
        )
        for given in inputs:
            if given.forward_input is None:
                continue
            text = f"({say(given.constructor_input)})({say(given.forward_input)})"
            tally.judge(
                dtype, text if training else text + " in evaluation",
                lambda g=given: compare_module(info, ours, g, training, kind),
            )  # fmt: skip

    def judge_all() -> None:
        for dtype in dtypes:
            kind = getattr(torch, dtype)
            if kind not in info.supported_dtypes("cpu"):
                continue
            for training in (True, False) if info.train_and_eval_differ else (True,):
                judge_inputs(dtype, training)
        if info.module_error_inputs_func is not None:
            errors = info.module_error_inputs_func(
                info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
            )
            for error in errors:
                given = error.module_error_input
                tally.judge(
                    "error", f"({say(given.constructor_input)})",
                    lambda e=error: refused_by_module(info, ours, e),
                )  # fmt: skip

    return tally.finish(judge_all, SECONDS)


def say(given: Any) -> str:
    class Sample:
        input = given.args[0] if given.args else None
        args = given.args[1:]
        kwargs = given.kwargs

    return short(Sample) if given.args else ", ".join(f"{k}={v!r}" for k, v in given.kwargs.items())


def build(info: Any, ours: Any, given: Any, kind: Any) -> tuple[Any, Any]:
    """The module in torch, and Weft's with its parameters and buffers."""
    made = given.constructor_input
    args, kwargs = made.args, made.kwargs
    torch.manual_seed(2)
    theirs = info.module_cls(*args, **kwargs)
    mine = ours(*to_weft(args), **to_weft(kwargs))
    return theirs.to(kind), mine.to(to_weft(kind))


def compare_module(info: Any, ours: Any, given: Any, training: bool, kind: Any) -> bool:
    theirs, mine = build(info, ours, given, kind)
    theirs.train(training)
    mine.train(training)
    sent = given.forward_input
    args, kwargs = again(sent.args), again(sent.kwargs)
    if info.is_lazy:  # the first call makes the parameters
        with torch.no_grad():
            theirs(*again(args), **again(kwargs))
        with weft.no_grad():
            mine(*to_weft(args), **to_weft(kwargs))
    state = {k: to_weft(v) for k, v in theirs.state_dict().items()}
    if list(state) != list(mine.state_dict()):
        raise Differs(f"state {list(mine.state_dict())} for {list(state)}")
    mine.load_state_dict(state)
    weft_args, weft_kwargs = to_weft(args), to_weft(kwargs)
    torch.manual_seed(3)
    try:
        wanted = theirs(*args, **kwargs)
    except Exception:
        return False
    weft.manual_seed(3)
    got = mine(*weft_args, **weft_kwargs)
    compare(got, wanted, True)
    compare([b for _, b in mine.named_buffers()], [b for _, b in theirs.named_buffers()], True)
    if kind is torch.float64:
        one = [*leaves((args, kwargs), torch.Tensor), *theirs.parameters()]
        two = [*leaves((weft_args, weft_kwargs), weft.Tensor), *mine.parameters()]
        pairs = [(a, b) for a, b in zip(one, two, strict=True) if a.requires_grad and a.is_leaf]
        compare_gradients(got, wanted, pairs, 1, "gradient")
    return True


def refused_by_module(info: Any, ours: Any, error: Any) -> bool:
    given = error.module_error_input
    made = given.constructor_input
    try:
        mine = ours(*to_weft(made.args), **to_weft(made.kwargs))
        if error.error_on is ModuleErrorEnum.FORWARD_ERROR:
            sent = given.forward_input
            mine(*to_weft(sent.args), **to_weft(sent.kwargs))
    except error.error_type:
        return True
    except Exception as e:
        raise Differs(f"{type(e).__name__} for {error.error_type.__name__}: {e}") from None
    raise Differs(f"no error for {error.error_type.__name__}")


# -------------------------------------------------------------------------------- optimizers
def run_optimizer(info: Any, dtypes: tuple[str, ...]) -> dict[str, Any]:
    tally = Tally(f"optimizer {info.optim_cls.__name__}")
    try:
        ours = counterpart(info.optim_cls)
    except Missing as e:
        return {**tally.result, "state": "missing", "why": str(e)}

    def judge_all() -> None:
        for dtype in dtypes:
            kind = getattr(torch, dtype)
            if not kind.is_floating_point:
                continue
            for given in info.optim_inputs_func(device="cpu", dtype=kind):
                tally.judge(
                    dtype, f"{given.kwargs} {given.desc}",
                    lambda g=given, k=kind: compare_steps(info, ours, g, k),
                )  # fmt: skip
        if info.optim_error_inputs_func is not None:
            for error in info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
                text = f"{error.optimizer_error_input.kwargs} {error.optimizer_error_input.desc}"
                tally.judge("error", text, lambda e=error: refused_by_optimizer(info, ours, e))

    return tally.finish(judge_all, SECONDS)


def compare_steps(info: Any, ours: Any, given: Any, kind: Any) -> bool:
    """A bowl of two matrices and a vector, descended in both libraries."""
    torch.manual_seed(4)
    params = [torch.randn(s, dtype=kind) for s in ((4, 3), (3, 5))]
    if info.optim_cls.__name__ != "Muon":  # takes matrices only
        params.append(torch.randn(5, dtype=kind))
    goals = [torch.randn_like(p) for p in params]
    two = [to_weft(p).requires_grad_() for p in params]
    weft_goals = [to_weft(g) for g in goals]
    params = [p.requires_grad_() for p in params]
    try:
        theirs = info.optim_cls(params, **given.kwargs)
    except Exception:
        return False
    mine = ours(two, **to_weft(given.kwargs))

    def slope(opt: Any, ps: list, gs: list) -> Callable[[], Any]:
        def closure() -> Any:
            opt.zero_grad()
            gaps = [p - g for p, g in zip(ps, gs, strict=True)]
            loss = sum((d * d + 1).log().sum() for d in gaps)
            loss.backward()
            if info.optim_cls.__name__ == "SparseAdam":
                for p in ps:
                    p.grad = p.grad.to_sparse()
            return loss

        return closure

    for opt, ps, gs in ((theirs, params, goals), (mine, two, weft_goals)):
        for _ in range(STEPS):
            opt.step(slope(opt, ps, gs))
    compare([p.detach() for p in two], [p.detach() for p in params], True)
    return True


def refused_by_optimizer(info: Any, ours: Any, error: Any) -> bool:
    given, known = error.optimizer_error_input, {}
    params = [torch.nn.Parameter(torch.randn(2, 3))] if given.params is None else given.params
    if issubclass(error.error_type, Warning):
        warnings.simplefilter("error")
    try:
        mine = to_weft(params, known)
        for a, b in zip(leaves(params, torch.Tensor), leaves(mine, weft.Tensor), strict=False):
            b.grad = None if a.grad is None else to_weft(a.grad)
        opt = ours(mine, **to_weft(given.kwargs))
        if error.error_on is OptimizerErrorEnum.STEP_ERROR:
            opt.step()
    except error.error_type:
        return True
    except Exception as e:
        raise Differs(f"{type(e).__name__} for {error.error_type.__name__}: {e}") from None
    raise Differs(f"no error for {error.error_type.__name__}")
