"""Functions of functions, as torch.func: grad vjp jvp jacrev jacfwd hessian vmap functional_call.

Each runs the function on leaves of its own and differentiates the tape it leaves behind.  A jvp is
two vjps: u -> <vjp(u), v> is linear in u, and its gradient is J v (Townsend, 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft.autograd.batching import flatten, vmap
from weft.autograd.engine import grad as tape_grad
from weft.autograd.modes import enable_grad
from weft.core.handle import Handle, TapeNode, state
from weft.ops.creation import eye, zeros, zeros_like
from weft.ops.dispatch import alias, dtype_of, record, shape_of
from weft.ops.join import split, stack
from weft.ops.view import Reshape, reshape

__all__ = [
    "functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize",
    "stack_module_state", "vjp", "vmap",
]  # fmt: skip


def grad(func: Callable, argnums: Any = 0, has_aux: bool = False) -> Callable:
    """x -> d func(x) / dx for a func with one 0-dim result."""
    both = grad_and_value(func, argnums, has_aux)

    def gradient(*args: Any, **kw: Any) -> Any:
        g, out = both(*args, **kw)
        return (g, out[1]) if has_aux else g

    return gradient


def grad_and_value(func: Callable, argnums: Any = 0, has_aux: bool = False) -> Callable:
    """x -> (d func(x) / dx, func(x)); with has_aux func gives (result, aux), both returned."""

    def gradient(*args: Any, **kw: Any) -> tuple:
        picked = _picked(args, argnums)
        xs, rebuild = flatten(picked)
        with _Inner(xs) as inner:
            out = func(*_with(args, argnums, rebuild(inner.leaves)), **kw)
            aux = None
            if has_aux:
                out, aux = out
            if not isinstance(out, Handle) or shape_of(out) != ():
                raise RuntimeError(
                    "Expected f(*args) to return a scalar tensor, got "
                    + (
                        f"tensor with {len(shape_of(out))} dims"
                        if isinstance(out, Handle)
                        else str(type(out))
                    )
                )
            gs = inner.pull((out,), (None,))
            out, aux = inner.outside((out, aux))
        return rebuild(gs), ((out, aux) if has_aux else out)

    return gradient


def vjp(func: Callable, *primals: Any, has_aux: bool = False) -> tuple:
    """(func(*primals), pull) where pull(g) = g^T J, a tuple when there are several primals."""
    xs, rebuild = flatten(primals)
    with _Inner(xs) as inner:
        out = func(*rebuild(inner.leaves))
        aux = None
        if has_aux:
            out, aux = out
        ys, rebuild_out = flatten(out)
        outside = rebuild_out(inner.outside(list(ys)))
        aux = inner.outside(aux)

    def pull(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        gs, _ = flatten(cotangents)
        got = rebuild(inner.pull(tuple(ys), tuple(gs), keep=retain_graph))
        return got[0] if len(primals) == 1 else got

    return (outside, pull, aux) if has_aux else (outside, pull)


def jvp(
    func: Callable, primals: tuple, tangents: tuple, *, strict: bool = False, has_aux: bool = False
) -> tuple:
    """(func(*primals), J tangents)"""
    xs, rebuild = flatten(tuple(primals))
    ts, _ = flatten(tuple(tangents))
    if len(xs) != len(ts):
        raise RuntimeError(f"jvp: got {len(xs)} primals and {len(ts)} tangents")
    for x, t in zip(xs, ts, strict=True):
        if shape_of(x) != shape_of(t):
            raise RuntimeError(
                f"jvp: primal of shape {list(shape_of(x))} has a tangent of shape "
                f"{list(shape_of(t))}"
            )
    with _Inner(xs) as inner:
        out = func(*rebuild(inner.leaves))
        aux = None
        if has_aux:
            out, aux = out
        ys, rebuild_out = flatten(out)
        tangents_out = []
        for y in ys:
            pushed = push(y, inner.leaves, ts)
            if pushed is None and strict:
                raise RuntimeError("jvp: the output does not depend on the inputs (strict mode)")
            tangents_out.append(zeros_like(y) if pushed is None else pushed)
        result = rebuild_out(inner.outside(list(ys)))
        pushed = rebuild_out(inner.outside(tangents_out))
        aux = inner.outside(aux)
    return (result, pushed, aux) if has_aux else (result, pushed)


def push(y: Any, leaves: list, ts: list) -> Any:
    """J t for one result y; None where y depends on no leaf."""
    if not y._rg:
        return None
    u = zeros(shape_of(y), dtype=dtype_of(y)).requires_grad_()
    gs = tape_grad(y, leaves, u, create_graph=True, allow_unused=True)
    pairs = [(g, t) for g, t in zip(gs, ts, strict=True) if g is not None and g._rg]
    if not pairs:
        return zeros_like(y) if any(g is not None for g in gs) else None
    (pushed,) = tape_grad(
        [g for g, _ in pairs], [u], [t for _, t in pairs], create_graph=True, allow_unused=True
    )
    return zeros_like(y) if pushed is None else pushed


def linearize(func: Callable, *primals: Any) -> tuple:
    """(func(*primals), push) where push(*tangents) = J tangents; func runs once."""
    xs, rebuild = flatten(primals)
    with _Inner(xs) as inner:
        out = func(*rebuild(inner.leaves))
        ys, rebuild_out = flatten(out)
        outside = rebuild_out(inner.outside(list(ys)))

    def tangents_of(*tangents: Any) -> Any:
        ts, _ = flatten(tangents)
        if [shape_of(t) for t in ts] != [shape_of(x) for x in xs]:
            raise ValueError(
                f"linearize: tangents of shapes {[list(shape_of(t)) for t in ts]} for primals of "
                f"shapes {[list(shape_of(x)) for x in xs]}"
            )
        with enable_grad():
            pushed = [push(y, inner.leaves, ts) for y in ys]
            made = [zeros_like(y) if p is None else p for y, p in zip(ys, pushed, strict=True)]
            return rebuild_out(inner.outside(made))

    return outside, tangents_of


def _units(xs: list, sizes: list[int]) -> list:
    """A row for each element of the xs: its 1 is in one of them, the others are zero."""
    rows = sum(sizes)
    basis = split(eye(rows, dtype=dtype_of(xs[0])), sizes, 1)
    return [
        reshape(part, (rows, *shape_of(x))).to(dtype_of(x))
        for part, x in zip(basis, xs, strict=True)
    ]


def jacrev(
    func: Callable, argnums: Any = 0, *, has_aux: bool = False, chunk_size: int | None = None
) -> Callable:
    """x -> J, by rows: one vjp for each element of the result, under vmap.

    Result y of shape Y and argument x of shape X give J of shape (*Y, *X).
    """

    def jacobian(*args: Any) -> Any:
        picked = _picked(args, argnums)
        multi = isinstance(argnums, tuple)

        def of_picked(*xs: Any) -> Any:
            return func(*_with(args, argnums, xs if multi else xs[0]))

        primals = picked if multi else (picked,)
        got = vjp(of_picked, *primals, has_aux=has_aux)
        out, pull = got[0], got[1]
        ys, rebuild_out = flatten(out)
        xs, rebuild_in = flatten(primals)
        sizes = [_count(shape_of(y)) for y in ys]

        def one(*gs: Any) -> list:
            return flatten(pull(rebuild_out(list(gs))))[0]

        columns = vmap(one, chunk_size=chunk_size)(*_units(ys, sizes)) if sum(sizes) else [
            zeros((0, *shape_of(x)), dtype=dtype_of(x)) for x in xs
        ]  # fmt: skip
        parts = [split(c, sizes, 0) for c in columns]
        rows = []
        for k, y in enumerate(ys):
            each = [
                reshape(p[k], (*shape_of(y), *shape_of(x))) for p, x in zip(parts, xs, strict=True)
            ]
            rebuilt = rebuild_in(each)
            rows.append(rebuilt if multi else rebuilt[0])
        result = rebuild_out(rows)
        return (result, got[2]) if has_aux else result

    return jacobian


def jacfwd(
    func: Callable, argnums: Any = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable:
    """x -> J, by columns: one jvp for each element of the argument, under vmap."""

    def jacobian(*args: Any) -> Any:
        picked = _picked(args, argnums)
        multi = isinstance(argnums, tuple)
        xs, rebuild = flatten(picked if multi else (picked,))
        sizes = [_count(shape_of(x)) for x in xs]

        def of_picked(*values: Any) -> Any:
            new = rebuild(list(values))
            return func(*_with(args, argnums, new if multi else new[0]))

        aux: list = []
        form: list = []

        def one(*ts: Any) -> list:
            got = jvp(of_picked, tuple(xs), tuple(ts), has_aux=has_aux)
            aux[:] = got[2:]
            leaves, back = flatten(got[1])
            form[:] = [back]
            return leaves

        columns = vmap(one, randomness=randomness)(*_units(xs, sizes))
        per_output = []
        for column in columns:
            shape = shape_of(column)[1:]
            moved = column.movedim(0, -1)
            parts = split(moved, sizes, -1)
            each = [reshape(p, (*shape, *shape_of(x))) for p, x in zip(parts, xs, strict=True)]
            rebuilt = rebuild(each)
            per_output.append(rebuilt if multi else rebuilt[0])
        result = form[0](per_output)
        return (result, aux[0]) if has_aux else result

    return jacobian


def hessian(func: Callable, argnums: Any = 0) -> Callable:
    """x -> d^2 func / dx^2, the jacobian forward over the jacobian backward."""
    return jacfwd(jacrev(func, argnums), argnums)


def stack_module_state(models: Any) -> tuple[dict, dict]:
    """(parameters, buffers) of modules of one class, each stacked along a new first dim: leaves
    to run under vmap, with `functional_call`.
    """
    models = list(models)
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if any(m.training != models[0].training for m in models):
        raise RuntimeError(
            "stack_module_state: Expected all models to have the same training/eval mode."
        )
    if any(type(m) is not type(models[0]) for m in models):
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")

    def stacked(each: list[dict]) -> dict:
        out = {}
        for name in each[0]:
            values = [d[name] for d in each]
            wanted = {v.requires_grad for v in values}
            if len(wanted) > 1:
                raise RuntimeError(
                    f"Expected {name} from each model to have the same .requires_grad"
                )
            out[name] = stack([v.detach() for v in values]).requires_grad_(wanted.pop())
        return out

    return (
        stacked([dict(m.named_parameters()) for m in models]),
        stacked([dict(m.named_buffers()) for m in models]),
    )


def functional_call(
    module: Any, parameter_and_buffer_dicts: Any, args: Any = None, kwargs: dict | None = None,
    *, tie_weights: bool = True, strict: bool = False,
) -> Any:  # fmt: skip
    """module(*args, **kwargs) with the named parameters and buffers in place of its own."""
    given = parameter_and_buffer_dicts
    values = dict(given) if isinstance(given, dict) else {k: v for d in given for k, v in d.items()}
    own = {**dict(module.named_parameters(remove_duplicate=False)),
           **dict(module.named_buffers(remove_duplicate=False))}  # fmt: skip
    if strict and (set(own) - set(values) or set(values) - set(own)):
        raise RuntimeError(
            f"functional_call: missing {sorted(set(own) - set(values))}, unexpected "
            f"{sorted(set(values) - set(own))}"
        )
    places = {name: value for name, value in values.items() if name in own or strict}
    if tie_weights:
        for name, value in list(places.items()):
            for other, t in own.items():
                if t is own[name] and other not in values:
                    places[other] = value
    swapped: list[tuple[dict, str, Any]] = []
    try:
        for name, value in places.items():
            path, _, leaf = name.rpartition(".")
            owner = module.get_submodule(path)
            table = owner._parameters if leaf in owner._parameters else owner._buffers
            swapped.append((table, leaf, table[leaf]))
            table[leaf] = value
        args = () if args is None else args if isinstance(args, tuple) else (args,)
        return module(*args, **(kwargs or {}))
    finally:
        for table, leaf, old in reversed(swapped):
            table[leaf] = old


# ------------------------------------------------------------------------------ inner leaves


def _count(shape: tuple[int, ...]) -> int:
    n = 1
    for s in shape:
        n *= s
    return n


def _picked(args: tuple, argnums: Any) -> Any:
    for i in argnums if isinstance(argnums, tuple) else (argnums,):
        if not -len(args) <= i < len(args):
            raise RuntimeError(f"Got argnum={i}, but only {len(args)} positional inputs")
    return tuple(args[i] for i in argnums) if isinstance(argnums, tuple) else args[argnums]


def _with(args: tuple, argnums: Any, new: Any) -> tuple:
    out = list(args)
    pairs = zip(argnums, new, strict=True) if isinstance(argnums, tuple) else [(argnums, new)]
    for i, v in pairs:
        out[i] = v
    return tuple(out)


class _Inner:
    """The leaves that a function is run on, and how its results look from outside.

    An argument that the caller tracks gets a node of its own, so that gradients flow on to the
    caller; another one becomes a leaf that nobody else sees.
    """

    def __init__(self, xs: list) -> None:
        self.outer_grad = state.grad
        self.leaves: list = []
        self.own: set[int] = set()
        for x in xs:
            if not isinstance(x, Handle):
                raise ValueError(f"expected Tensors to differentiate by, got {type(x).__name__}")
            y = alias(x)
            if x._rg and state.grad:
                record(Reshape(shape_of(x)), (x,), y)
            else:
                y = y.requires_grad_()
                self.own.add(id(y))
            self.leaves.append(y)
        self._mode = enable_grad()

    def __enter__(self) -> _Inner:
        self._mode.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._mode.__exit__(*exc)

    def pull(self, ys: tuple, gs: tuple, keep: bool = False) -> list:
        """The cotangents of the leaves; zeros where a result does not depend on one."""
        used = [(y, g) for y, g in zip(ys, gs, strict=True) if isinstance(y, Handle) and y._rg]
        if not used:
            return [zeros_like(x) for x in self.leaves]
        outs, given = tuple(y for y, _ in used), tuple(g for _, g in used)
        tracked = self.outer_grad and (
            any(self._reaches_out(y) for y in outs)
            or any(g is not None and g._rg for g in given)
        )  # fmt: skip
        got = tape_grad(
            outs, self.leaves, given, retain_graph=keep or tracked, create_graph=tracked,
            materialize_grads=True,
        )  # fmt: skip
        return [self._cut(g) for g in got]

    def outside(self, x: Any) -> Any:
        """Results as the caller sees them: off the tape, unless the caller's tensors are on it."""
        if x is None:
            return None
        leaves, rebuild = flatten(x)
        return rebuild([self._cut(y) if isinstance(y, Handle) else y for y in leaves])

    def _cut(self, y: Any) -> Any:
        if not y._rg or (self.outer_grad and self._reaches_out(y)):
            return y
        return alias(y)

    def _reaches_out(self, y: Any) -> bool:
        """Whether y depends on a leaf that is not this call's own."""
        if y._fn is None:
            return y._rg and id(y) not in self.own
        seen: set[int] = set()
        stack = [y._fn]
        while stack:
            node = stack.pop()
            for e in node.edges:
                if e is None or id(e) in seen:
                    continue
                seen.add(id(e))
                if e.__class__ is TapeNode:
                    stack.append(e)
                elif id(e) not in self.own:
                    return True
        return False
