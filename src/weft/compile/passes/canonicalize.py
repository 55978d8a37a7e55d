"""canonicalize: views of views become one view, views that change nothing disappear, a mask moves
to where there is less of it, zeros of all steps but the last are not made.

Reshape(s)(Reshape(t)(x)) -> Reshape(s)(x)      Permute(p)(Permute(q)(x)) -> Permute(q[p])(x)
Slice(..)(SliceBack(..)(x)) -> x, where both are of the same elements
Concat(0)(Select(d, i)(x), one for each i) -> Reshape(Permute(d first)(x)), of permuted selects too
Reshape(x.shape)(x) -> x     Permute(0, 1, ..)(x) -> x     Cast(x.dtype)(x) -> x
ReluBack(MaxPool2dInput(g, t), r) -> MaxPool2dInput(ReluBack(g, MaxPool2dTake(r, t)), t), t of r
LstmGrad(SliceBack(g), ...) -> LstmGrad(g, ...), where g is the last step's cotangent
Cast(SliceBack(g)) -> SliceBack(Cast(g))   Select(Cast(x)) -> Cast(Select(x)) of an eighth or less,
    with a Permute between the two as well
Cast(Concat(x, y)) -> Concat(Cast(x), Cast(y)) of narrower floats, x where Cast widened it before
"""

from __future__ import annotations

from typing import Any

from weft.core import dtype as dt
from weft.core.graph import Builder, Graph, Node, transform
from weft.ops.cast import Cast
from weft.ops.join import Concat
from weft.ops.pool import MaxPool2dInput, MaxPool2dTake
from weft.ops.recurrent import LstmGrad
from weft.ops.unary import ReluBack
from weft.ops.view import Expand, Permute, Reshape, Select, Slice, SliceBack

_MUCH = 8  # selects of a whole: more than a program takes, as it takes queries, keys and values


def canonicalize(g: Graph) -> Graph:
    """The graph with chains of views shortened; the same values."""
    if is_canonical(g):
        return g
    kept = {id(n) for n in g.outputs.values()}

    def rule(b: Builder, n: Node, args: tuple) -> Any:
        made = _simpler(b, n, args)
        if made is None or (id(n) in kept and made.op is None):
            assert n.op is not None
            return b.node(n.op, *args)
        return made

    return transform(g, rule)


def _simpler(b: Builder, n: Node, args: tuple) -> Node | None:
    op = n.op
    x = args[0] if args else None
    if not isinstance(x, Node):
        return None
    if _changes_nothing(op, x) or (isinstance(op, (Reshape, Permute)) and type(op) is type(x.op)):
        return _view(b, op, x)
    if _takes_back(n, x):
        return x.args[0]  # pyright: ignore[reportReturnType]
    if _casts_less_across(op, x):
        return _across(b, op, x.op, x.args[0])
    if _casts_less(op, x):
        assert op is not None and x.op is not None
        return b.node(x.op, *(_cast(b, op, a) for a in x.args))
    if (apart := _taken_apart(op, args)) is not None:
        whole, dims = apart
        return _view(b, Reshape(n.type.shape), _view(b, Permute(dims), whole))
    if _masks_a_pool(op, args):
        back = x.op
        assert isinstance(back, MaxPool2dInput) and op is not None
        g, taps = x.args
        pooled = b.node(MaxPool2dTake(*back.geometry), args[1], taps)
        return b.node(back, b.node(op, g, pooled), taps)
    if _of_the_last_step(op, x):
        assert op is not None
        back = x.args[0] if isinstance(x.op, Permute) else x
        last = back.args[0]  # pyright: ignore[reportAttributeAccessIssue]
        return b.node(op, b.node(x.op, last) if back is not x else last, *args[1:])  # type: ignore[arg-type]
    return None


def _taken_apart(op: Any, args: tuple) -> tuple[Node, tuple[int, ...]] | None:
    """Of a stack of all of a tensor's selects, each permuted alike: the tensor, and the permutation
    of it that the stack is.

    So the gradients of queries, keys and values lie at once as their common projection reads them.
    """
    if not isinstance(op, Concat) or op.dim != 0:
        return None
    whole, order, dim = None, (), 0
    for i, a in enumerate(args):
        if not isinstance(a, Node):
            return None
        alone = isinstance(a.op, Reshape) and a.type.shape[0] == 1
        part = a.args[0] if alone else a
        mine = part.op.dims if isinstance(part, Node) and isinstance(part.op, Permute) else None
        source = part.args[0] if mine is not None else part  # pyright: ignore[reportAttributeAccessIssue]
        if not isinstance(source, Node) or not isinstance(source.op, Select):
            return None
        shape = part.type.shape  # pyright: ignore[reportAttributeAccessIssue]
        if (alone and shape != a.type.shape[1:]) or source.op.index != i:
            return None
        if i == 0:
            whole, order, dim = source.args[0], mine, source.op.dim
        if (whole, order, dim) != (source.args[0], mine, source.op.dim):
            return None
    if not isinstance(whole, Node) or whole.type.shape[dim] != len(args):
        return None
    others = [d for d in range(whole.type.ndim) if d != dim]
    return whole, (dim, *(others[d] for d in order or range(len(others))))


def _cast(b: Builder, op: Any, x: Any) -> Node:
    """op on what was behind a view; a cast there is taken back."""
    if isinstance(op, Cast) and isinstance(x.op, Cast) and op.dtype is x.args[0].type.dtype:
        return x.args[0]
    inner = b.node(op, x)
    return _simpler(b, inner, inner.args) or inner


def _casts_less(op: Any, x: Node) -> bool:
    """Whether a part and a cast of its whole had better come the other way round."""
    if isinstance(op, Cast) and isinstance(x.op, Concat):
        narrows = op.dtype.is_floating_point and x.type.dtype is dt.float32
        return narrows and op.dtype.itemsize == 2 and all(isinstance(a, Node) for a in x.args)
    if isinstance(op, Cast):
        return isinstance(x.op, SliceBack)
    steps = x.type.shape[op.dim] if isinstance(op, Select) and isinstance(x.op, Cast) else 0
    return isinstance(steps, int) and steps >= _MUCH


def _casts_less_across(op: Any, x: Node) -> bool:
    """The same where the whole's dims are in another order between the two."""
    turn, whole = x.op, x.args[0] if x.args else None
    if not isinstance(turn, Permute) or not isinstance(whole, Node):
        return False
    if isinstance(op, Select):
        op = Select(turn.dims[op.dim], op.index)
    return not isinstance(whole.op, Concat) and _casts_less(op, whole)


def _across(b: Builder, op: Any, turn: Any, whole: Any) -> Node:
    """op behind the permutation of `whole`, before it."""
    dims: tuple[int, ...] = turn.dims
    if isinstance(op, Select):
        gone = dims[op.dim]
        dims = tuple(d - (d > gone) for d in dims if d != gone)
        op = Select(gone, op.index)
    inner = b.node(op, whole)
    return _view(b, Permute(dims), _simpler(b, inner, inner.args) or inner)


def _masks_a_pool(op: Any, args: tuple) -> bool:
    """Whether it is relu's mask on a pool's gradient: a cotangent goes where its window's maximum
    lies, so relu's result there is the pool's."""
    x = args[0]
    if not isinstance(op, ReluBack) or not isinstance(x.op, MaxPool2dInput):
        return False
    taps, pool = x.args[1], MaxPool2dTake(*x.op.geometry)
    return isinstance(taps, Node) and taps.op is pool.first and taps.args[0] is args[1]


def _of_the_last_step(op: Any, x: Node) -> bool:
    """Whether it is an LSTM's gradient and all cotangents of h but the last step's are zeros."""
    back = x.args[0] if isinstance(x.op, Permute) else x
    if not isinstance(op, LstmGrad) or not isinstance(back, Node):
        return False
    steps = x.op.dims[0] if isinstance(x.op, Permute) else 0
    put = back.op
    if not isinstance(put, SliceBack) or (put.dim, put.start) != (steps, put.size - 1):
        return False
    last = back.args[0]
    return isinstance(last, Node) and last.type.shape[steps] == 1


def _view(b: Builder, op: Any, x: Any) -> Node:
    """op on x, in one view of what x is a view of by a like op; x where that changes nothing."""
    if _changes_nothing(op, x):
        return x
    if isinstance(op, Reshape) and isinstance(x.op, Reshape):
        return _view(b, op, x.args[0])
    if isinstance(op, Permute) and isinstance(x.op, Permute):
        return _view(b, Permute(tuple(x.op.dims[d] for d in op.dims)), x.args[0])
    return b.node(op, x)


def _changes_nothing(op: Any, x: Node) -> bool:
    shape = tuple(x.type.shape)
    if isinstance(op, (Reshape, Expand)):
        return tuple(op.shape) == shape
    if isinstance(op, Permute):
        return op.dims == tuple(range(len(shape)))
    return isinstance(op, Cast) and op.dtype is x.type.dtype


def _takes_back(n: Node, x: Node) -> bool:
    """Whether a slice takes what a gradient of a slice has put among zeros."""
    op, back = n.op, x.op
    return (
        isinstance(op, Slice)
        and isinstance(back, SliceBack)
        and (op.dim, op.start, op.step) == (back.dim, back.start, back.step)
        and n.type.shape == x.args[0].type.shape  # pyright: ignore[reportAttributeAccessIssue]
    )


def is_canonical(g: Graph) -> bool:
    """Whether no rule of this pass applies (outputs that are bare inputs aside)."""
    kept = {id(n) for n in g.outputs.values()}
    for n in g.nodes():
        x = n.args[0] if n.args else None
        if not isinstance(x, Node):
            continue
        if _changes_nothing(n.op, x) and not (id(n) in kept and x.op is None):
            return False
        if _takes_back(n, x):
            return False
        if isinstance(n.op, (Reshape, Permute)) and type(n.op) is type(x.op):
            return False
        if _taken_apart(n.op, n.args) is not None:
            return False
        if _masks_a_pool(n.op, n.args) or _of_the_last_step(n.op, x) or _casts_less(n.op, x):
            return False
    return True
