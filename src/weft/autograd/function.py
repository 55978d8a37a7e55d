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

from typing import Any

from weft.autograd.cotangents import Cotangents
from weft.core.handle import Handle, TapeNode, state
from weft.core.op import Meta
from weft.ops.creation import zeros
from weft.ops.dispatch import alias, dtype_of, shape_of


class FunctionCtx:
    """What forward hands to backward."""

    def __init__(self) -> None:
        self.needs_input_grad: tuple[bool, ...] = ()
        self._saved: tuple = ()
        self._versions: tuple = ()
        self._nondiff: tuple = ()
        self._dirty: tuple = ()
        self._materialize = True

    def save_for_backward(self, *tensors: Any) -> None:
        self._saved = tensors
        self._versions = tuple(0 if t is None else t._version for t in tensors)

    @property
    def saved_tensors(self) -> tuple:
        for t, then in zip(self._saved, self._versions, strict=True):
            if t is not None and t._version != then:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an "
                    f"inplace operation: {list(t.shape)} is at version {t._version}; expected "
                    f"version {then} instead."
                )
        return self._saved

    def mark_non_differentiable(self, *tensors: Any) -> None:
        self._nondiff = tensors

    def mark_dirty(self, *tensors: Any) -> None:
        self._dirty = tensors

    def set_materialize_grads(self, value: bool) -> None:
        self._materialize = value


class CustomOp:
    """The tape's view of one Function call: has `vjp`, as ops have."""

    broadcasts = False

    def __init__(self, name: str, vjp: Any) -> None:
        self.name = name
        self.vjp = vjp


class Function:
    """Base of user-written operations; see the module's docstring."""

    @staticmethod
    def forward(ctx: Any, *args: Any, **kw: Any) -> Any:
        raise NotImplementedError("You must implement the forward function for Function.")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError("You must implement the backward function for Function.")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run forward off the tape and record one node whose vjp is `backward`."""
        ctx = FunctionCtx()
        ctx.needs_input_grad = tuple(isinstance(a, Handle) and a._rg for a in args)
        two_part = "setup_context" in cls.__dict__
        before, state.grad = state.grad, False
        try:
            if two_part:
                out = cls.forward(*args)
                cls.setup_context(ctx, args, out)  # type: ignore[attr-defined]
            else:
                out = cls.forward(ctx, *args)
        finally:
            state.grad = before
        if not (state.grad and any(ctx.needs_input_grad)):
            return out
        many = isinstance(out, tuple)
        outs = [_fresh(o, args, ctx) for o in (out if many else (out,))]
        _record(cls, ctx, args, outs)
        return tuple(outs) if many else outs[0]


def _fresh(o: Any, args: tuple, ctx: FunctionCtx) -> Any:
    """A result that is also an operand needs a handle of its own (unless changed in place)."""
    if isinstance(o, Handle) and any(o is a for a in args) and not any(o is d for d in ctx._dirty):
        return alias(o)
    return o


def _record(cls: type, ctx: FunctionCtx, args: tuple, outs: list) -> None:
    edges = tuple((a._fn or a) if isinstance(a, Handle) and a._rg else None for a in args)
    saved = tuple(
        Meta(shape_of(a), dtype_of(a).np) if isinstance(a, Handle) else a for a in args
    )
    tensors = [
        o
        for o in outs
        if isinstance(o, Handle)
        and dtype_of(o).is_floating_point
        and not any(o is n for n in ctx._nondiff)
    ]
    metas = [(shape_of(o), dtype_of(o)) for o in tensors]
    places = [i for i, o in enumerate(outs) if any(o is t for t in tensors)]

    def vjp(g: Any, result: Any, *xs: Any) -> tuple:
        given: list = [None] * len(outs)
        values = g.values if isinstance(g, Cotangents) else [g]
        for place, value, (shape, d) in zip(places, values, metas, strict=True):
            if value is None and ctx._materialize:
                value = zeros(shape, dtype=d)
            given[place] = value
        got = cls.backward(ctx, *given)  # type: ignore[attr-defined]
        got = got if isinstance(got, tuple) else (got,)
        if len(got) < len(args) or any(x is not None for x in got[len(args) :]):
            raise RuntimeError(
                f"function {cls.__name__}Backward returned an incorrect number of gradients "
                f"(expected {len(args)}, got {len(got)})"
            )
        return got

    node = TapeNode(CustomOp(cls.__name__, vjp), edges, saved, (), None)  # type: ignore[arg-type]
    if len(tensors) == 1:
        tensors[0]._fn = node
        tensors[0]._rg = True
        return
    for i, t in enumerate(tensors):
        t._fn = _output_node(node, i, len(tensors), t)
        t._rg = True


def _output_node(node: TapeNode, index: int, count: int, t: Any) -> TapeNode:
    """A node of its own for result `index`: passes its cotangent to the call's node, in place."""

    def vjp(g: Any, result: Any, *xs: Any) -> tuple:
        values: list = [None] * count
        values[index] = g
        return (Cotangents(values),)

    out = TapeNode(CustomOp(node.op.name, vjp), (node,), (None,), (), None)  # type: ignore[arg-type]
    return out

