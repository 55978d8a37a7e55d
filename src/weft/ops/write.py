"""In-place: a tensor's memory gets a new value.

An in-place op is the op, then a write: `x.add_(y)` is `write(x, x + y)`.  The tape sees the
functional form: x's new value is the sum; and if x is a view, its base's new value is the base
with that region replaced (WriteStrided), of which x is then a view again.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import Handle, state, storage_of
from weft.core.op import Op
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.ops.cast import cast
from weft.ops.creation import Clone
from weft.ops.dispatch import (
    NUMBERS,
    alias,
    apply,
    dtype_of,
    learn_write,
    no_tensor,
    put,
    quietly,
    record,
    run_in_place,
    shape_of,
    wrap,
    wrote,
)
from weft.ops.index import Index, IndexPut
from weft.ops.strided import AsStrided, WriteStrided
from weft.ops.view import Reshape, expand, reshape


def need_no_leaf(t: Handle) -> None:
    """RuntimeError for a write to what the tape collects a gradient of."""
    if t._rg and t._fn is None and state.grad:
        raise RuntimeError(
            "a leaf Variable that requires grad is being used in an in-place operation."
        )


def check_writable(t: Handle) -> None:
    """Raise as torch does for a write that the tape or the memory forbids."""
    try:
        wanted = t._rg
    except AttributeError:
        raise no_tensor(t) from None
    if wanted and state.grad:
        need_no_leaf(t)
        if t._base is not None and t._base._rg and t._base._fn is None:
            raise RuntimeError(
                "a view of a leaf Variable that requires grad is being used in an in-place "
                "operation."
            )
    ghost = t._ghost
    shape, strides = (t._a.shape, t._a.strides) if ghost is None else (ghost.shape, ghost.strides)
    if (
        0 in strides
        and 0 not in shape
        and any(n > 1 and s == 0 for n, s in zip(shape, strides, strict=True))
    ):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to "
            "a single memory location. Please clone() the tensor before performing the "
            "operation."
        )
    memory = t if ghost is None else ghost.outer  # a promised value's memory is ours
    if memory is not None and memory._ghost is None and not memory._a.flags.writeable:
        raise RuntimeError("the tensor's memory is read-only (it came from a read-only array)")


def inplace(op: Op, t: Any, *rest: Any) -> Any:
    """t's memory gets op(t, *rest).  Returns t."""
    if op.plan_in_place is not None:
        check_writable(t)
        every = (t, *rest)
        now = state.recorder is None and not (state.grad and any(x._rg for x in every))
        if now and all(x._ghost is None for x in every):
            try:
                done = run_in_place(op, every)
            finally:
                wrote(t)
            if done:
                return t
        return store(t, apply(op, *every))
    if op.into(t, *rest):
        wrote(t)
        return t
    check_writable(t)
    host = op.host
    if (
        isinstance(host, np.ufunc)
        and dtype_of(t).category < dt.COMPLEX  # whose products are not NumPy's
        and state.recorder is None
        and not t._rg
        and all(r.__class__ in NUMBERS or not (r._rg and state.grad) for r in rest)
        and all(r.__class__ in NUMBERS or _fits(t, r) for r in rest)
    ):
        arrays = [r if r.__class__ in NUMBERS else r._a for r in rest]
        quietly(functools.partial(host, out=t._a), [t._a, *arrays])
        wrote(t)
        learn_write(op, t, *rest)
        return t
    return write(t, apply(op, t, *rest))


def _fits(t: Handle, r: Handle) -> bool:
    if r._ghost is not None or r._a.dtype is not t._a.dtype:
        return False
    a, b = t._a.shape, r._a.shape
    if a == b:
        return True
    fits = all(n in (1, m) for m, n in zip(a[::-1], b[::-1], strict=False))
    return fits and len(b) <= len(a)


def write(t: Any, value: Any) -> Any:
    """t's memory gets `value`, cast to t's dtype and broadcast to t's shape.  Returns t."""
    if dispatch.overwrite(t, value):
        return t
    check_writable(t)
    return assign(t, value)


def assign(t: Any, value: Any) -> Any:
    """`write` to a tensor that `check_writable` has seen."""
    shape, d = shape_of(t), dtype_of(t)
    if dtype_of(value) is not d:
        if dtype_of(value).category > d.category:
            raise RuntimeError(
                f"result type {dtype_of(value).spelled} can't be cast to the desired output type "
                f"{d.spelled}"
            )
        value = cast(value, d)
    if shape_of(value) != shape:
        try:
            value = expand(value, shape)
        except RuntimeError:
            raise RuntimeError(
                f"output with shape {list(shape)} doesn't match the broadcast shape "
                f"{list(shape_of(value))}"
            ) from None
    return store(t, value)


def store(t: Any, value: Any) -> Any:
    """The write itself; value has t's shape and dtype already (a cast to t's dtype is done)."""
    track = (t._rg or value._rg) and state.grad
    if track and t._base is not None and dtype_of(t._base) is not dtype_of(t):
        raise RuntimeError(
            f"in-place write through a {dtype_of(t).name} view of a {dtype_of(t._base).name} "
            "tensor cannot be tracked for gradients: build the tensor from its parts instead"
        )
    before = None
    if track:
        owner = t._base if t._base is not None else t
        before = alias(owner)
        before._rg, before._fn = owner._rg, owner._fn
    if track and value._fn is not None:
        _keep_old(t, value._fn)
    if state.recorder is not None:
        state.recorder.write(t, value)
    else:
        put(t._a, value._a)
    storage_of(t).version += 1
    if track:
        _rebase(t, value, before)
    return t


def _keep_old(t: Any, made: Any) -> None:
    """The op that computed t's new value may need the old one in backward: it gets a copy.

    Nor may a node hold its own result: that would be a cycle.
    """
    if not made.saved or not any(s is t for s in made.saved):
        return
    old = apply(Clone(), alias(t))
    old._fn, old._rg = t._fn, t._rg
    made.saved = tuple(old if s is t else s for s in made.saved)


def _rebase(t: Any, value: Any, before: Any) -> None:
    """Tell the tape: t is `value` now; so is that region of the memory t is a view of."""
    hooks = t._fn.hooks if t._retain and t._fn is not None else None
    made = value._fn
    base = t._base
    if base is None:
        t._fn, t._rg = made, value._rg
        if made is None and value._rg:  # a leaf copied in: put a node between
            record(Reshape(shape_of(t)), (value,), t)
        elif made is None and before._rg:  # a constant: t still needs a gradient, one of zero
            dense = Layout.contiguous(shape_of(t), dtype_of(t).np).strides
            record(WriteStrided(dense, 0), (before, value), t)
        base = t
    else:
        base._fn, base._rg = None, False
        if base.is_contiguous():
            record(WriteStrided(t.stride(), t.storage_offset()), (before, value), base)
        else:
            _write_scattered(t, value, before, base)
        _reread(t, base)
    if hooks:  # retain_grad goes on with the new value
        t._fn.hooks = {-1: hooks.pop(-1)}  # pyright: ignore[reportOptionalMemberAccess]
    for r in storage_of(t).views or ():
        v = r()
        if v is not None and v is not t and v._base is base:
            _reread(v, base)


def _reread(v: Any, base: Any) -> None:
    """v as a view of what base is now."""
    if base.is_contiguous():
        record(AsStrided(shape_of(v), v.stride(), v.storage_offset()), (base,), v)
    else:
        read = apply(Index((0,), 0), reshape(base, (base.numel(),)), _places(v, base))
        record(Reshape(shape_of(v)), (read,), v)


def _write_scattered(t: Any, value: Any, before: Any, base: Any) -> None:
    """base, not contiguous, is `before` with `value` at the places of t."""
    flat = reshape(before, (before.numel(),))
    put = IndexPut((0,), 0, False, "set")
    new = apply(put, flat, reshape(value, (value.numel(),)), _places(t, base))
    record(Reshape(shape_of(base)), (new,), base)


def _places(v: Any, base: Any) -> Any:
    """Which elements of base, in C order, the elements of v are: a vector."""
    mine, whole = (_memory_places(x).reshape(-1) for x in (v, base))
    mine = mine + v.storage_offset()
    order = np.argsort(whole, kind="stable")
    found = np.searchsorted(whole[order], mine)
    at = order[np.minimum(found, max(whole.size - 1, 0))] if whole.size else found
    if not np.array_equal(whole[at], mine):
        raise RuntimeError(
            f"in-place write through a view of shape {list(v.shape)} and strides "
            f"{list(v.stride())} that reaches between the elements of its base (shape "
            f"{list(base.shape)}, strides {list(base.stride())}) cannot be tracked for gradients: "
            "clone() the base first"
        )
    return wrap(np.ascontiguousarray(at, np.int64))


def _memory_places(x: Any) -> np.ndarray:
    """Where each element lies, counted in elements from the first."""
    at = np.zeros((), np.int64)
    for n, s in zip(x.shape, x.stride(), strict=True):
        at = at[..., None] + np.arange(n) * s
    return at
