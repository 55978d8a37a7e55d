"""checkpoint: keep no intermediate of a stretch of the forward pass, compute it again in backward.

Two ways, as in torch.  use_reentrant=False: what the stretch saves becomes a number; the first one
asked for runs the function again, and all are found.  use_reentrant=True: one Function whose
backward runs the function again and calls backward on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from weft.autograd.engine import backward
from weft.autograd.function import Function
from weft.autograd.graph import saved_tensors_hooks
from weft.autograd.modes import enable_grad, no_grad
from weft.core.handle import Handle, state
from weft.ops.dispatch import alias
from weft.ops.random import get_rng_state, set_rng_state


class CheckpointError(RuntimeError):
    """The second run of a checkpointed function saved other tensors than the first."""


def checkpoint(
    function: Callable,
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable[[], tuple[AbstractContextManager, AbstractContextManager]] | None = None,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """function(*args, **kwargs), whose intermediates are computed again in backward.

    preserve_rng_state  the second run draws the same random numbers
    determinism_check   "default" compares shapes and dtypes of what the two runs save; "none"
    early_stop, debug   accepted without effect: the second run always goes to the end
    """
    if use_reentrant is None:
        warnings.warn(
            "checkpoint: the use_reentrant parameter should be passed explicitly. "
            "use_reentrant=False is taken.",
            stacklevel=2,
        )
        use_reentrant = False
    if use_reentrant:
        if context_fn is not None or debug:
            raise ValueError(
                "Passing `context_fn` or `debug` is only supported when use_reentrant=False."
            )
        if kwargs:
            raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
        return _Reentrant.apply(function, preserve_rng_state, *args)
    if determinism_check not in ("default", "none"):
        raise ValueError(
            f"determinism_check must be 'default' or 'none', got {determinism_check!r}"
        )
    first, again = (nullcontext(), nullcontext()) if context_fn is None else context_fn()
    frame = _Frame(function, args, kwargs, again, preserve_rng_state, determinism_check)
    if not state.grad:
        return function(*args, **kwargs)
    with first, saved_tensors_hooks(frame.pack, frame.unpack):
        return function(*args, **kwargs)


def checkpoint_sequential(
    functions: Any,
    segments: int,
    input: Any,
    use_reentrant: bool | None = None,
    *,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """The functions (or a Sequential's modules) one after the other, in `segments` checkpoints.

    The last segment is run without one: its intermediates are needed first.
    """
    if use_reentrant is None:
        warnings.warn(
            "checkpoint_sequential: the use_reentrant parameter should be passed explicitly. "
            "use_reentrant=False is taken.",
            stacklevel=2,
        )
        use_reentrant = False
    steps = list(functions.children()) if hasattr(functions, "children") else list(functions)
    if not 0 < segments <= max(len(steps), 1):
        raise ValueError(f"checkpoint_sequential: {segments} segments of {len(steps)} functions")

    def run(start: int, end: int) -> Callable:
        def forward(x: Any) -> Any:
            for step in steps[start:end]:
                x = step(x)
            return x

        return forward

    size = len(steps) // segments
    start = 0
    for _ in range(segments - 1):
        input = checkpoint(run(start, start + size), input, use_reentrant=use_reentrant,
                           preserve_rng_state=preserve_rng_state, **kwargs)  # fmt: skip
        start += size
    return run(start, len(steps))(input)


@contextmanager
def _as_then(rng: Any, autocast: Any) -> Iterator[None]:
    """The default generator (unless None) and autocast as they were, afterwards as they are now."""
    now = None if rng is None else get_rng_state(), state.autocast
    state.autocast = autocast
    if rng is not None:
        set_rng_state(rng)
    try:
        yield
    finally:
        state.autocast = now[1]
        if rng is not None:
            set_rng_state(now[0])


class _Frame:
    """One checkpointed call: what its saved tensors are, by number."""

    def __init__(
        self, function: Callable, args: tuple, kwargs: dict, context: Any, rng: bool, check: str
    ) -> None:
        self.call = (function, args, kwargs)
        self.context = context
        self.then = get_rng_state() if rng else None, state.autocast
        self.check = check
        self.seen: list[tuple] = []  # shape and dtype of each tensor the first run saved
        self.values: dict[int, Any] = {}  # of the second run

    def pack(self, t: Any) -> int:
        self.seen.append((tuple(t.shape), t.dtype))
        return len(self.seen) - 1

    def unpack(self, number: int) -> Any:
        if number not in self.values:
            self._again()
        return self.values.pop(number)

    def _again(self) -> None:
        function, args, kwargs = self.call
        saved: list = []

        def keep(t: Any) -> int:
            saved.append(alias(t))
            return len(saved) - 1

        hooks = saved_tensors_hooks(keep, saved.__getitem__)
        with _as_then(*self.then), enable_grad(), self.context, hooks:
            function(*(_leaf(a) for a in args), **{k: _leaf(v) for k, v in kwargs.items()})
        if len(saved) != len(self.seen):
            raise CheckpointError(
                "checkpoint: A different number of tensors was saved during the original forward "
                f"and recomputation. Number of tensors saved during forward: {len(self.seen)}. "
                f"Number of tensors saved during recomputation: {len(saved)}."
            )
        for i, (t, seen) in enumerate(zip(saved, self.seen, strict=True)):
            if self.check == "default" and (tuple(t.shape), t.dtype) != seen:
                raise CheckpointError(
                    "checkpoint: Recomputed values for the following tensors have different "
                    f"metadata than during the forward pass: tensor {i} was {seen}, now "
                    f"{(tuple(t.shape), t.dtype)}"
                )
        self.values = dict(enumerate(saved))


def _leaf(x: Any) -> Any:
    """The argument off the caller's tape, so that the second run's own tape ends there."""
    if not isinstance(x, Handle):
        return x
    y = alias(x)
    y._rg = x._rg
    return y


class _Reentrant(Function):
    @staticmethod
    def forward(ctx: Any, function: Callable, preserve_rng_state: bool, *args: Any) -> Any:
        ctx.function = function
        ctx.then = get_rng_state() if preserve_rng_state else None, state.autocast
        ctx.others = [None if isinstance(a, Handle) else a for a in args]
        ctx.places = [i for i, a in enumerate(args) if isinstance(a, Handle)]
        ctx.save_for_backward(*(args[i] for i in ctx.places))
        with no_grad():
            return function(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple:
        args = list(ctx.others)
        for i, t in zip(ctx.places, ctx.saved_tensors, strict=True):
            args[i] = _leaf(t)
        with _as_then(*ctx.then), enable_grad():
            outs = ctx.function(*args)
        outs = outs if isinstance(outs, (tuple, list)) else (outs,)
        pairs = [
            (o, g) for o, g in zip(outs, grads, strict=True) if isinstance(o, Handle) and o._rg
        ]
        if not pairs:
            raise RuntimeError(
                "none of output has requires_grad=True, this checkpoint() is not necessary"
            )
        backward([o for o, _ in pairs], [g for _, g in pairs])
        return (None, None, *(a._grad if isinstance(a, Handle) else None for a in args))
