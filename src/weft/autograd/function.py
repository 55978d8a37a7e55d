"""Function: an operation whose forward and backward the user writes.

class Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g

y = Square.apply(x)
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from weft.autograd.cotangents import Cotangents, CustomOp, nothing
from weft.autograd.graph import Packed, packed
from weft.core import dtype as dt
from weft.core.handle import Handle, TapeNode, state
from weft.core.op import Meta
from weft.ops.creation import zeros
from weft.ops.dispatch import alias, dtype_of, shape_of
from weft.ops.write import check_writable


class FunctionCtx:
    """What forward hands to backward."""

    def __init__(self) -> None:
        self.needs_input_grad: tuple[bool, ...] = ()
        self._saved: tuple | None = ()  # tensors, as (tensor, version, place among the results)
        self._results: tuple = ()  # weak references to the results' tape nodes
        self._nondiff: tuple = ()
        self._dirty: tuple = ()
        self._materialize = True

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors for backward, which reads them as `ctx.saved_tensors`."""
        for t in tensors:
            if t is not None and not isinstance(t, Handle):
                raise TypeError(
                    "save_for_backward can only save variables, but argument is of type "
                    f"{type(t).__name__}"
                )
        self._saved = tuple((t, 0 if t is None else t._version, None) for t in tensors)

    def save_for_forward(self, *tensors: Any) -> None:
        """Accepted for torch's sake: forward-mode derivatives are made of vjps here."""

    @property
    def saved_tensors(self) -> tuple:
        """The tensors given to save_for_backward; RuntimeError when changed since, or freed."""
        if self._saved is None:
            raise RuntimeError(
                "Trying to backward through the graph a second time (or directly access saved "
                "tensors after they have already been freed). Specify retain_graph=True if you "
                "need to backward through the graph a second time or if you need to access saved "
                "tensors after calling backward."
            )
        return tuple(self._restored(*entry) for entry in self._saved)

    def _restored(self, t: Any, then: int, place: int | None) -> Any:
        if t is None:
            return None
        if isinstance(t, Packed):
            return t.value()
        if t._version != then:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: [{t.type()} {list(t.shape)}] is at version {t._version}; "
                f"expected version {then} instead."
            )
        if place is None or not state.grad:
            return t
        node = self._results[place]()  # a result: off the tape while stored, on it again now
        if node is None:
            return t
        y = alias(t)
        y._fn, y._rg = node, True
        return y

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """These results get no gradient."""
        self._nondiff = tensors

    def mark_dirty(self, *tensors: Any) -> None:
        """These operands were changed in place, and are results."""
        self._dirty = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward gets zeros (the default) or None where no gradient came."""
        self._materialize = value


class Function:
    """Base of user-written operations; see the module's docstring."""

    @staticmethod
    def forward(ctx: Any, *args: Any, **kw: Any) -> Any:
        raise NotImplementedError(
            "You must implement the forward function for custom autograd.Function."
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom "
            "autograd.Function to use it with backward mode AD."
        )

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run forward off the tape and record one node whose vjp is `backward`."""
        ctx = FunctionCtx()
        ctx.needs_input_grad = tuple(isinstance(a, Handle) and a._rg for a in args)
        tracked = state.grad and any(ctx.needs_input_grad)
        before, state.grad = state.grad, False
        try:
            if cls.setup_context is not Function.setup_context:
                out = cls.forward(*args)
                cls.setup_context(ctx, args, out)
            else:
                out = cls.forward(ctx, *args)
        finally:
            state.grad = before
        many = isinstance(out, (tuple, list))
        outs = [_fresh(o, args, ctx) for o in (out if many else (out,))]
        if tracked:
            _record(cls, ctx, args, outs)
        return tuple(outs) if many else outs[0]


def once_differentiable(fn: Callable) -> Callable:
    """A backward that is not itself differentiable: differentiating its results raises."""

    @functools.wraps(fn)
    def wrapper(ctx: Any, *grads: Any) -> Any:
        tracked = state.grad and any(isinstance(g, Handle) and g._rg for g in grads)
        tracked = tracked or (state.grad and any(ctx.needs_input_grad))
        before, state.grad = state.grad, False
        try:
            got = fn(ctx, *grads)
        finally:
            state.grad = before
        if tracked:
            for g in got if isinstance(got, tuple) else (got,):
                if isinstance(g, Handle):
                    g._fn = TapeNode(CustomOp("Error", _refuse, nothing), (), (), (), None)  # type: ignore[arg-type]
                    g._rg = True
        return got

    return wrapper


def _refuse(g: Any, y: Any, *xs: Any) -> tuple:
    raise RuntimeError(
        "trying to differentiate twice a function that was marked with @once_differentiable"
    )


def _fresh(o: Any, args: tuple, ctx: FunctionCtx) -> Any:
    """A result that is also an operand needs a handle of its own (unless changed in place)."""
    if isinstance(o, Handle) and any(o is a for a in args) and not any(o is d for d in ctx._dirty):
        return alias(o)
    return o


def _record(cls: type[Function], ctx: FunctionCtx, args: tuple, outs: list) -> None:
    name = cls.__name__
    edges = tuple((a._fn or a) if isinstance(a, Handle) and a._rg else None for a in args)
    metas = tuple(
        Meta(shape_of(a), dtype_of(a).np) if isinstance(a, Handle) else None for a in args
    )
    places = [i for i, o in enumerate(outs) if _gets_gradient(o, ctx)]
    given_types = {i: (shape_of(outs[i]), dtype_of(outs[i])) for i in places}
    count, n_args, materialize = len(outs), len(args), ctx._materialize

    def vjp(g: Any, result: Any, *xs: Any) -> tuple:
        given: list = [None] * count
        values = g.values if isinstance(g, Cotangents) else [g]
        for place, value in zip(places, values, strict=True):
            if value is None and materialize:
                shape, d = given_types[place]
                value = zeros(shape, dtype=d)
            given[place] = value
        if materialize:  # results without a gradient get zeros too, as in torch
            for i, t in rest:
                given[i] = zeros(t[0], dtype=t[1])
        return _checked(name, cls.backward(ctx, *given), n_args, metas)

    rest = [
        (i, (shape_of(o), dtype_of(o)))
        for i, o in enumerate(outs)
        if isinstance(o, Handle) and i not in places
    ]
    for d in ctx._dirty:
        if d._base is not None:
            raise RuntimeError(f"{name}: mark_dirty on a view is not supported; clone() it before")
        if edges and d._rg:
            check_writable(d)

    def free() -> None:
        ctx._saved = None

    node = TapeNode(CustomOp(name, vjp, free), edges, metas, (), None)  # type: ignore[arg-type]
    nodes: dict[int, TapeNode] = {}
    for k, i in enumerate(places):
        nodes[i] = node if len(places) == 1 else _output_node(node, k, len(places))
    _keep_saved(ctx, args, outs, nodes)
    for i, made in nodes.items():
        outs[i]._fn = made
        outs[i]._rg = True


def _gets_gradient(o: Any, ctx: FunctionCtx) -> bool:
    return (
        isinstance(o, Handle)
        and dtype_of(o).category >= dt.FLOAT
        and not any(o is n for n in ctx._nondiff)
    )


def _keep_saved(ctx: FunctionCtx, args: tuple, outs: list, nodes: dict[int, TapeNode]) -> None:
    """Results among the saved tensors are stored off the tape: it would be a cycle else."""
    order = list(nodes)
    ctx._results = tuple(weakref.ref(nodes[i]) for i in order)
    kept = []
    for t, version, _ in ctx._saved or ():
        place = next((k for k, i in enumerate(order) if outs[i] is t), None)
        if place is not None:
            t = alias(t)
            t._base = None
        if state.saved_hooks and t is not None:
            t = packed(t, None if place is not None or not t._rg else (t._fn or t))
        kept.append((t, version, place))
    ctx._saved = tuple(kept)
    ctx._dirty = ctx._nondiff = ()


def _checked(name: str, got: Any, n_args: int, metas: tuple) -> tuple:
    """backward's results: one an operand, tensors or None."""
    got = tuple(got) if isinstance(got, (tuple, list)) else (got,)
    if len(got) < n_args or any(x is not None for x in got[n_args:]):
        raise RuntimeError(
            f"function {name}Backward returned an incorrect number of gradients "
            f"(expected {n_args}, got {len(got)})"
        )
    for i, (g, meta) in enumerate(zip(got, metas, strict=False)):
        if g is None:
            continue
        if not isinstance(g, Handle):
            raise TypeError(f"function {name}Backward: expected Variable or None (got {type(g).__name__})")  # fmt: skip  # noqa: E501
        if meta is None:
            raise RuntimeError(
                f"function {name}Backward returned a gradient different from None at position "
                f"{i + 1}, but the corresponding forward input was not a Variable"
            )
        g._held = True  # the user's code may keep it
    return got


def _output_node(node: TapeNode, index: int, count: int) -> TapeNode:
    """A node of its own for result `index`: passes its cotangent to the call's node, in place."""

    def vjp(g: Any, result: Any, *xs: Any) -> tuple:
        values: list = [None] * count
        values[index] = g
        return (Cotangents(values),)

    return TapeNode(CustomOp(node.op.name, vjp, nothing), (node,), (None,), (), None)  # type: ignore[arg-type]
