"""Jacobians and products of tensors' functions, with torch.autograd.functional's signatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft.autograd import func as F
from weft.autograd.engine import grad
from weft.autograd.modes import enable_grad
from weft.core.handle import Handle
from weft.ops.creation import eye, ones_like, zeros, zeros_like
from weft.ops.dispatch import alias, dtype_of, record, shape_of
from weft.ops.join import stack
from weft.ops.view import Reshape, reshape


def _tuple(x: Any) -> tuple[tuple, bool]:
    return (tuple(x), True) if isinstance(x, (tuple, list)) else ((x,), False)


def _leaves(xs: tuple, create_graph: bool) -> tuple:
    """Inputs of the function's own: on the caller's tape with create_graph, else off it."""
    out = []
    for x in xs:
        y = alias(x)
        if create_graph and x._rg:
            record(Reshape(shape_of(x)), (x,), y)
        else:
            y.requires_grad_()
        out.append(y)
    return tuple(out)


def _run(func: Callable, xs: tuple, name: str) -> tuple[tuple, bool]:
    ys, many = _tuple(func(*xs))
    for y in ys:
        if not isinstance(y, Handle):
            raise TypeError(f"{name}: the function must return Tensors, got {type(y).__name__}")
    return ys, many


def _finish(t: Any, create_graph: bool) -> Any:
    return t if create_graph else alias(t)


def jacobian(
    func: Callable, inputs: Any, create_graph: bool = False, strict: bool = False,
    vectorize: bool = False, strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """J[i][j]: the derivative of output i by input j, of shape (*output, *input)."""
    if strategy not in ("reverse-mode", "forward-mode"):
        raise AssertionError('Expected strategy to be either "forward-mode" or "reverse-mode".')
    xs, many_in = _tuple(inputs)
    if strategy == "forward-mode":
        if create_graph:
            raise NotImplementedError(
                "jacobian: create_graph=True with forward-mode is not supported"
            )
        got = F.jacfwd(func, tuple(range(len(xs))))(*xs)
        rows = got if isinstance(got, tuple) and isinstance(got[0], tuple) else (got,)
        picked = tuple(r if many_in else r[0] for r in rows)
        return picked if rows is got else picked[0]
    with enable_grad():
        leaves = _leaves(xs, create_graph)
        ys, many_out = _run(func, leaves, "jacobian")
        rows = tuple(_row(y, leaves, create_graph, strict, vectorize) for y in ys)
    rows = tuple(tuple(_finish(c, create_graph) for c in row) for row in rows)
    picked = tuple(row if many_in else row[0] for row in rows)
    return picked if many_out else picked[0]


def _row(y: Any, leaves: tuple, create_graph: bool, strict: bool, vectorize: bool) -> tuple:
    shape, n = shape_of(y), y.numel()
    if not y._rg:
        if strict:
            raise RuntimeError("Output 0 of the user-provided function does not require gradients. The outputs must be computed in a differentiable manner from the input when running in strict mode.")  # fmt: skip  # noqa: E501
        return tuple(zeros((*shape, *shape_of(x)), dtype=dtype_of(x)) for x in leaves)
    units = eye(n, dtype=dtype_of(y))
    options: dict = {"retain_graph": True, "create_graph": create_graph, "allow_unused": True}
    if vectorize and n:
        got = grad(y, leaves, reshape(units, (n, *shape)), is_grads_batched=True, **options)
        per_input = list(got)
    else:
        rows = [grad(y, leaves, reshape(u, shape), **options) for u in units]
        per_input = []
        for j in range(len(leaves)):
            column = [r[j] for r in rows]
            per_input.append(stack(column) if column and column[0] is not None else None)
    out = []
    for x, g in zip(leaves, per_input, strict=True):
        if g is None and strict:
            raise RuntimeError("jacobian: an output is independent of an input (strict mode)")
        full = (*shape, *shape_of(x))
        out.append(zeros(full, dtype=dtype_of(x)) if g is None else reshape(g, full))
    return tuple(out)


def hessian(
    func: Callable, inputs: Any, create_graph: bool = False, strict: bool = False,
    vectorize: bool = False, outer_jacobian_strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """H[i][j]: the second derivative of a 0-dim result by inputs i and j."""
    xs, many = _tuple(inputs)

    def gradient(*args: Any) -> tuple:
        y = func(*args)
        if not isinstance(y, Handle) or y.numel() != 1:
            raise RuntimeError("The Tensor returned by the function given to hessian should contain a single element")  # fmt: skip  # noqa: E501
        if not y._rg:
            return tuple(zeros_like(a) for a in args)
        return grad(reshape(y, ()), args, create_graph=True, materialize_grads=True)

    got = jacobian(gradient, xs, create_graph, strict, vectorize, outer_jacobian_strategy)
    return got if many else got[0][0]


def vjp(
    func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple:
    """(func(inputs), v^T J)"""
    xs, many = _tuple(inputs)
    with enable_grad():
        leaves = _leaves(xs, create_graph)
        ys, many_out = _run(func, leaves, "vjp")
        if v is None and (many_out or ys[0].numel() != 1):
            raise RuntimeError(
                "The vector v can only be None if the user-provided function returns a single "
                "Tensor with a single element."
            )
        vs = tuple(ones_like(y) for y in ys) if v is None else _tuple(v)[0]
        got = grad(ys, leaves, vs, create_graph=create_graph, allow_unused=not strict,
                   materialize_grads=not strict)  # fmt: skip
    ys = tuple(_finish(y, create_graph) for y in ys)
    got = tuple(_finish(g, create_graph) for g in got)
    return ys if many_out else ys[0], got if many else got[0]


def jvp(
    func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple:
    """(func(inputs), J v)"""
    xs, many_in = _tuple(inputs)
    if v is None and (many_in or xs[0].numel() != 1):
        raise RuntimeError(
            "The vector v can only be None if the input to the user-provided function is a single "
            "Tensor with a single element."
        )
    vs = tuple(ones_like(x) for x in xs) if v is None else _tuple(v)[0]
    out, pushed = F.jvp(func, xs, vs, strict=strict)
    ys, many = _tuple(out)
    ps, _ = _tuple(pushed)
    ys = tuple(_finish(y, create_graph) for y in ys)
    ps = tuple(_finish(p, create_graph) for p in ps)
    return (ys, ps) if many else (ys[0], ps[0])


def vhp(
    func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple:
    """(func(inputs), v^T H)"""
    xs, many = _tuple(inputs)
    with enable_grad():
        leaves = _leaves(xs, create_graph)
        (y, *more), _ = _run(func, leaves, "vhp")
        if more or y.numel() != 1:
            raise RuntimeError(
                "The Tensor returned by the function given to vhp should contain a single element"
            )
        vs = tuple(ones_like(x) for x in leaves) if v is None else _tuple(v)[0]
        first = grad(y, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
        pairs = [(f, u) for f, u in zip(first, vs, strict=True) if f._rg]
        if pairs:
            got = grad(
                [f for f, _ in pairs], leaves, [u for _, u in pairs],
                create_graph=create_graph, allow_unused=True, materialize_grads=True,
            )  # fmt: skip
        else:
            got = tuple(zeros_like(x) for x in leaves)
    got = tuple(_finish(g, create_graph) for g in got)
    return _finish(y, create_graph), got if many else got[0]


hvp = vhp  # the Hessian is symmetric
