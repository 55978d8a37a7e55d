"""gradcheck: derivatives on the tape against finite differences, element by element."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from weft.autograd.engine import grad
from weft.autograd.func import jvp
from weft.core import dtype as dt
from weft.core.handle import Handle
from weft.ops.creation import zeros_like
from weft.ops.dispatch import dtype_of, wrap


class GradcheckError(RuntimeError):
    """Derivatives that disagree, with the place and both numbers."""


def gradcheck(
    func: Callable,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Whether the tape's Jacobian of func is the central difference's, within atol and rtol.

    inputs        tensors; those that require grad are checked (float64, or eps drowns)
    nondet_tol    how far two backward runs may differ
    fast_mode     random directions instead of single elements
    raise_exception  GradcheckError on a difference; else False
    check_undefined_grad, check_grad_dtypes, check_batched_forward_grad and masked are accepted
    without effect.
    """
    xs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    try:
        _check(func, xs, eps, atol, rtol, nondet_tol, check_batched_grad, check_forward_ad,
               check_backward_ad, fast_mode)  # fmt: skip
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """gradcheck of the function's own vjp: second derivatives.

    check_rev_over_rev, check_fwd_over_rev: by the tape, by jvp.  gen_non_contig_grad_outputs,
    check_undefined_grad, check_grad_dtypes and masked are accepted without effect.
    """
    xs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    outs = _outputs(func, xs)
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        gs = tuple(wrap(_normal(rng, o._a)).requires_grad_() for o in outs)
    else:
        gs = tuple(grad_outputs) if isinstance(grad_outputs, (tuple, list)) else (grad_outputs,)
    n = len(xs)
    where = [i for i, x in enumerate(xs) if _checked(x)]

    def pulled(*args: Any) -> tuple:
        ins, cotangents = args[:n], args[n:]
        ys = _outputs(func, ins)
        return grad(ys, [ins[i] for i in where], cotangents, create_graph=True, allow_unused=True,
                    materialize_grads=True)  # fmt: skip

    return gradcheck(pulled, (*xs, *gs), eps=eps, atol=atol, rtol=rtol, nondet_tol=nondet_tol,
                     raise_exception=raise_exception, check_batched_grad=check_batched_grad,
                     check_forward_ad=check_fwd_over_rev, check_backward_ad=check_rev_over_rev,
                     fast_mode=fast_mode)  # fmt: skip


def _checked(x: Any) -> bool:
    return isinstance(x, Handle) and x._rg


def _outputs(func: Callable, xs: tuple) -> tuple:
    """The differentiable results."""
    got = func(*xs)
    got = got if isinstance(got, (tuple, list)) else (got,)
    return tuple(y for y in got if isinstance(y, Handle) and y._rg)


def _check(
    func: Callable, xs: tuple, eps: float, atol: float, rtol: float, nondet_tol: float,
    batched: bool, forward: bool, reverse: bool, fast: bool,
) -> None:  # fmt: skip
    where = [i for i, x in enumerate(xs) if _checked(x)]
    if not where:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of the them "
            "have requires_grad=True."
        )
    for i in where:
        if dtype_of(xs[i]) not in (dt.float64, dt.complex128):
            warnings.warn(
                f"Input #{i} requires gradient and is not a double precision floating point. This "
                "check will likely fail if all the inputs are not of double precision floating "
                "point. ",
                stacklevel=3,
            )
    outs = _outputs(func, xs)
    if not outs:
        raise GradcheckError("Numerical gradient for function expected to be zero: no output requires grad")  # fmt: skip  # noqa: E501
    for k in range(len(outs)):
        for i in where:
            directions = _directions(xs[i]._a, fast)
            slopes = [_slope(func, xs, k, i, v, eps) for v in directions]
            if reverse:
                rows = _rows(outs[k], xs[i])
                again = _rows(outs[k], xs[i])
                gap = float(np.max(np.abs(rows - again), initial=0.0))
                if gap > nondet_tol:
                    raise GradcheckError(f"Backward is not reentrant, i.e., running backward with same input and grad_output multiple times gives different values: {gap} > {nondet_tol}")  # fmt: skip  # noqa: E501
                for v, slope in zip(directions, slopes, strict=True):
                    _compare(rows @ _reals(v), slope, k, i, "analytical", atol, rtol)
                if batched:
                    _compare(_rows_at_once(outs[k], xs[i]), rows, k, i, "batched", atol, rtol)
            if forward:
                for v, slope in zip(directions, slopes, strict=True):
                    _compare(_forward(func, xs, k, i, v), slope, k, i, "forward", atol, rtol)


def _normal(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    y = np.asarray(rng.standard_normal(like.shape))
    y = y + 1j * rng.standard_normal(like.shape) if like.dtype.kind == "c" else y
    return np.asarray(y).astype(like.dtype)


def _reals(a: np.ndarray) -> np.ndarray:
    """The numbers of an array as float64 in one row: of complex ones, both parts in turn."""
    if a.dtype.kind == "c":
        return np.ascontiguousarray(a).astype(np.complex128).view(np.float64).ravel()
    return a.astype(np.float64).ravel()


def _from_reals(row: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The array of `like`'s shape and kind whose `_reals` are the row."""
    row = row.view(np.complex128) if like.dtype.kind == "c" else row
    return row.reshape(like.shape)


def _directions(a: np.ndarray, fast: bool) -> list[np.ndarray]:
    """Single elements (and of complex numbers each part), or two random directions."""
    if fast:
        rng = np.random.default_rng(0)
        return [_normal(rng, a) for _ in range(2)]
    return [_from_reals(row, a) for row in np.eye(a.size * (1 + (a.dtype.kind == "c")))]


def _slope(func: Callable, xs: tuple, k: int, i: int, v: np.ndarray, eps: float) -> np.ndarray:
    """(f(x + eps v) - f(x - eps v)) / (2 eps) of output k, as reals in one row."""
    ends = []
    for t in (eps, -eps):
        moved = list(xs)
        a = xs[i]._a
        moved[i] = wrap(np.asarray(a + (t * v).astype(a.dtype))).requires_grad_()
        ends.append(_reals(_outputs(func, tuple(moved))[k]._a))
    return (ends[0] - ends[1]) / (2 * eps)


def _rows(y: Any, x: Any) -> np.ndarray:
    """The Jacobian by one vjp an element of y (and part of it), over reals on both sides."""
    basis = _directions(y._a, False)
    out = np.zeros((len(basis), _reals(x._a).size))
    for j, g in enumerate(basis):
        g = wrap(np.asarray(g).astype(y._a.dtype))
        got = grad(y, [x], g, retain_graph=True, allow_unused=True)[0]
        if got is not None:
            out[j] = _reals(got._a)
    return out


def _rows_at_once(y: Any, x: Any) -> np.ndarray:
    each = _directions(y._a, False)
    size = _reals(x._a).size
    basis = np.asarray(each).astype(y._a.dtype).reshape(len(each), *y._a.shape)
    got = grad(y, [x], wrap(basis), retain_graph=True, allow_unused=True, is_grads_batched=True)[0]
    return np.zeros((len(each), size)) if got is None else _reals(got._a).reshape(-1, size)


def _forward(func: Callable, xs: tuple, k: int, i: int, v: np.ndarray) -> np.ndarray:
    tangents = tuple(
        wrap(v.astype(x._a.dtype)) if j == i else zeros_like(x) for j, x in enumerate(xs)
    )
    _, out = jvp(lambda *a: _outputs(func, a)[k], xs, tangents)
    return _reals(out.detach()._a)


def _compare(
    got: np.ndarray, want: np.ndarray, k: int, i: int, which: str, atol: float, rtol: float
) -> None:
    if not np.allclose(got, want, rtol, atol):
        raise GradcheckError(
            f"Jacobian mismatch for output {k} with respect to input {i},\nnumerical:{want}\n"
            f"{which}:{got}\n"
        )
