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
        gs = tuple(
            wrap(np.asarray(rng.standard_normal(o._a.shape)).astype(o._a.dtype)).requires_grad_()
            for o in outs
        )
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
        if dtype_of(xs[i]) is not dt.float64:
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
            directions = _directions(xs[i]._a.shape, fast)
            slopes = [_slope(func, xs, k, i, v, eps) for v in directions]
            if reverse:
                rows = _rows(outs[k], xs[i])
                again = _rows(outs[k], xs[i])
                gap = float(np.max(np.abs(rows - again), initial=0.0))
                if gap > nondet_tol:
                    raise GradcheckError(f"Backward is not reentrant, i.e., running backward with same input and grad_output multiple times gives different values: {gap} > {nondet_tol}")  # fmt: skip  # noqa: E501
                for v, slope in zip(directions, slopes, strict=True):
                    _compare(rows @ v.ravel(), slope, k, i, "analytical", atol, rtol)
                if batched:
                    _compare(_rows_at_once(outs[k], xs[i]), rows, k, i, "batched", atol, rtol)
            if forward:
                for v, slope in zip(directions, slopes, strict=True):
                    _compare(_forward(func, xs, k, i, v), slope, k, i, "forward", atol, rtol)


def _directions(shape: tuple[int, ...], fast: bool) -> list[np.ndarray]:
    n = int(np.prod(shape))
    if fast:
        rng = np.random.default_rng(0)
        return [np.asarray(rng.standard_normal(shape)) for _ in range(2)]
    out = []
    for j in range(n):
        v = np.zeros(n)
        v[j] = 1.0
        out.append(v.reshape(shape))
    return out


def _slope(func: Callable, xs: tuple, k: int, i: int, v: np.ndarray, eps: float) -> np.ndarray:
    """(f(x + eps v) - f(x - eps v)) / (2 eps) of output k, flattened."""
    ends = []
    for t in (eps, -eps):
        moved = list(xs)
        a = xs[i]._a
        moved[i] = wrap(np.asarray(a + (t * v).astype(a.dtype))).requires_grad_()
        ends.append(_outputs(func, tuple(moved))[k]._a.astype(np.float64).ravel())
    return (ends[0] - ends[1]) / (2 * eps)


def _rows(y: Any, x: Any) -> np.ndarray:
    """The Jacobian by one vjp an element of y."""
    n = y._a.size
    out = np.zeros((n, x._a.size))
    for j in range(n):
        g = np.zeros(n, y._a.dtype)
        g[j] = 1
        got = grad(y, [x], wrap(g.reshape(y._a.shape)), retain_graph=True, allow_unused=True)[0]
        if got is not None:
            out[j] = got._a.astype(np.float64).ravel()
    return out


def _rows_at_once(y: Any, x: Any) -> np.ndarray:
    n = y._a.size
    basis = wrap(np.eye(n, dtype=y._a.dtype).reshape(n, *y._a.shape))
    got = grad(y, [x], basis, retain_graph=True, allow_unused=True, is_grads_batched=True)[0]
    return np.zeros((n, x._a.size)) if got is None else got._a.astype(np.float64).reshape(n, -1)


def _forward(func: Callable, xs: tuple, k: int, i: int, v: np.ndarray) -> np.ndarray:
    tangents = tuple(
        wrap(v.astype(x._a.dtype)) if j == i else zeros_like(x) for j, x in enumerate(xs)
    )
    _, out = jvp(lambda *a: _outputs(func, a)[k], xs, tangents)
    return out.detach()._a.astype(np.float64).ravel()


def _compare(
    got: np.ndarray, want: np.ndarray, k: int, i: int, which: str, atol: float, rtol: float
) -> None:
    if not np.allclose(got, want, rtol, atol):
        raise GradcheckError(
            f"Jacobian mismatch for output {k} with respect to input {i},\nnumerical:{want}\n"
            f"{which}:{got}\n"
        )
