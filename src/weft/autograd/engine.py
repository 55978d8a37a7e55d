"""The engine: walk the tape backwards, latest call first, and add up cotangents.

Each op's vjp is written in ops, so with `create_graph` the walk itself is recorded and can be
differentiated again.  A cotangent's shape is checked against its operand's before it is added to
anything: an addition broadcasts, and would hide a missing un-broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from types import FunctionType
from typing import Any

import numpy as np

from weft.autograd import anomaly, hooks
from weft.autograd.batching import vmap
from weft.autograd.cotangents import Cotangents, CustomOp, Parts
from weft.autograd.graph import saved_values
from weft.core import layouts, overrides
from weft.core.handle import Handle, TapeNode, state
from weft.core.op import Meta
from weft.ops.arithmetic import add
from weft.ops.cast import cast
from weft.ops.creation import clone, ones_like, zeros_like
from weft.ops.dispatch import alias, dtype_of, shape_of, wrap
from weft.ops.reduce import sum_to
from weft.ops.view import Part


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Any = None,
) -> None:
    """Add d(sum of tensors . grad_tensors)/d(leaf) to the `.grad` of every leaf they depend on.

    `grad_tensors` (`grad_variables` of old) may be left out for one-element tensors.  `inputs`
    restricts the leaves.
    RuntimeError: no graph, a graph already freed, a saved operand changed in place since.
    """
    if grad_variables is not None:
        if grad_tensors is not None:
            raise RuntimeError(
                "`grad_tensors` and `grad_variables` (deprecated) arguments both passed to "
                "`backward()`. Please only use `grad_tensors`."
            )
        grad_tensors = grad_variables
    roots = _as_tuple(tensors)
    if state.recorder is not None and inputs is None and not create_graph and len(roots) == 1:
        matched = getattr(state.recorder, "backward", None)  # of a compiled function
        if matched is not None and grad_tensors is None and isinstance(roots[0], Handle):
            keep = bool(retain_graph)
            matched(roots[0], keep, lambda: _backward(roots, None, keep, create_graph, None))
            return
    keep = create_graph if retain_graph is None else retain_graph
    _backward(roots, grad_tensors, keep, create_graph, inputs)


def _backward(roots: tuple, grad_tensors: Any, keep: bool, create_graph: bool, inputs: Any) -> None:
    only = None if inputs is None else _as_tuple(inputs)
    if only is not None and not only:
        raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
    grads = _root_grads(roots, grad_tensors)
    if only is None:
        _walk(roots, grads, keep, create_graph, None, accumulate=True)
        return
    _need_grad(only)
    _walk(roots, grads, keep, create_graph, only, accumulate=True)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple:
    """The cotangents of `inputs`, as a tuple; no `.grad` is touched.

    only_inputs        must be True: a word of old, when False also filled the leaves' `.grad`
    materialize_grads  zeros instead of None for an input that was not used
    is_grads_batched   dim 0 of each grad_output counts independent cotangents; the results get
                       the same dim 0
    RuntimeError when an input was not used in the graph, unless `allow_unused` (then None).
    """
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "Expected allow_unused to be True or not passed when materialize_grads=True, but got: "
            "allow_unused=False."
        )
    if not only_inputs:
        raise NotImplementedError("grad: only_inputs=False is not supported, use backward()")
    outs, ins = _as_tuple(outputs), _as_tuple(inputs)
    if is_grads_batched:
        return _grad_of_batch(outs, ins, grad_outputs, retain_graph, create_graph, allow_unused,
                              materialize_grads)  # fmt: skip
    _need_grad(ins)
    grads = _root_grads(outs, grad_outputs)
    keep = create_graph if retain_graph is None else retain_graph
    found = _walk(outs, grads, keep, create_graph, ins, accumulate=False)
    result = []
    for i, t in enumerate(ins):
        g = found.get(id(t._fn if t._fn is not None else t))
        if g is None and materialize_grads:
            g = zeros_like(t)
        elif g is None and not allow_unused:
            raise RuntimeError(
                f"The differentiated Tensor at index {i} appears to not have been used in the "
                "graph. Set allow_unused=True if this is the desired behavior."
            )
        result.append(g)
    return tuple(result)


def _grad_of_batch(
    outs: tuple, ins: tuple, grad_outputs: Any, retain_graph: bool | None, create_graph: bool,
    allow_unused: bool | None, materialize_grads: bool,
) -> tuple:  # fmt: skip
    """One walk for all rows of the cotangents: the vjp rules run under the ops' vmap rules."""
    given = _as_tuple(grad_outputs)
    unused: list[bool] = []

    def one(*gs: Any) -> tuple:
        got = grad(outs, ins, gs, retain_graph, create_graph, allow_unused=allow_unused,
                   materialize_grads=materialize_grads)  # fmt: skip
        unused[:] = [g is None for g in got]
        return tuple(g for g in got if g is not None)

    rows = iter(vmap(one)(*given))
    return tuple(None if none else next(rows) for none in unused)


def _as_tuple(x: Any) -> tuple:
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def _need_grad(inputs: tuple) -> None:
    for t in inputs:
        if not isinstance(t, Handle):
            raise TypeError(f"expected a Tensor to differentiate by, got {type(t).__name__}")
        if not t._rg:
            raise RuntimeError("One of the differentiated Tensors does not require grad")


def _root_grads(roots: Sequence[Any], given: Any) -> list:
    given = (None,) * len(roots) if given is None else _as_tuple(given)
    if len(given) != len(roots):
        raise RuntimeError(f"got {len(roots)} tensors and {len(given)} gradients")
    out = []
    for i, (t, g) in enumerate(zip(roots, given, strict=True)):
        if not t._rg:
            raise RuntimeError(
                f"element {i} of tensors does not require grad and does not have a grad_fn"
            )
        if g is None:
            if t.numel() != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
            if dtype_of(t).is_complex:
                raise RuntimeError(
                    "grad can be implicitly created only for real scalar outputs but got "
                    f"torch.{dtype_of(t).name}"
                )
            g = _one(t)
        elif not isinstance(g, Handle):
            raise TypeError(f"gradients can be either Tensors or None, but got {type(g).__name__}")
        else:
            if shape_of(g) != shape_of(t):
                raise RuntimeError(
                    f"Mismatch in shape: grad_output[{i}] has a shape of {g.shape} and output[{i}] "
                    f"has a shape of {t.shape}."
                )
            g = cast(g, dtype_of(t))
            g._held = True  # the caller's own
        out.append(g)
    return out


def _one(t: Any) -> Any:
    """ones_like of a tensor of one element, in fewer steps: every backward begins here."""
    if state.recorder is not None or t._ghost is not None or t.__class__ in overrides.layouts:
        return ones_like(t)
    a = np.empty(t._a.shape, t._a.dtype)
    a.fill(1)
    return wrap(a)


def _walk(
    roots: Sequence[Any],
    grads: Sequence[Any],
    keep: bool,
    create_graph: bool,
    inputs: tuple | None,
    *,
    accumulate: bool,
) -> dict[int, Any]:
    """Propagate; returns the cotangents of `inputs` by id of their tape end.

    One loop, written out: its cost per node is the cost of backward on small models.
    """
    ends: dict[int, Any] = {}  # id -> the input whose tape end it is
    wanted: set[int] | None = None  # ids of the nodes and leaves on the way to an input
    if inputs is not None:
        ends = {id(t._fn if t._fn is not None else t): t for t in inputs}
        wanted = _leading_to(roots, ends)
        wanted.update(ends)
    found: dict[int, Any] = {}
    pending: dict[TapeNode, Any] = {}  # cotangents that wait for their node's turn
    leaves: dict[int, tuple[Any, Any]] = {}  # id -> the leaf and its cotangent
    heap: list[tuple[int, TapeNode]] = []  # latest call first
    before, state.grad = state.grad, create_graph
    asked, state.overrides = state.overrides, overrides.NONE  # the vjp rules are not public calls
    watched = anomaly.enabled()
    try:
        for t, g in zip(roots, grads, strict=True):
            _send(t._fn if t._fn is not None else t, g, pending, leaves, heap)
        while heap:
            node = heappop(heap)[1]
            g = pending.pop(node)
            if g.__class__ is Parts:
                g = g.whole()
            if node.hooks:
                g = hooks.call(node.hooks, g)
            if wanted is not None:
                if id(node) in ends:
                    found[id(node)] = g
                    if accumulate and not ends[id(node)]._retain:
                        _accumulate(ends[id(node)], g)
                if id(node) not in wanted or not _has_wanted(node, wanted):
                    continue
            op = node.op
            saved = node.saved
            result = node.result
            if saved is None:
                raise RuntimeError(_FREED)
            if node.versions:
                saved, result = saved_values(node)
            if result is None:
                if op.sees_result and g.__class__ is not Cotangents:
                    result = Meta(g._a.shape, g._a.dtype) if g._ghost is None else _meta(g)
            elif create_graph:
                result = alias(result)
                result._fn = node
                result._rg = True
            if watched:
                cotangents = anomaly.run(node, g, result, saved)
            else:
                cotangents = op.vjp(g, result, *saved)
            if node.post:
                cotangents = _post_hooks(node, cotangents, g)
            last = g
            i = -1
            for edge in node.edges:
                i += 1
                if edge is None or (wanted is not None and id(edge) not in wanted):
                    continue
                c = cotangents[i]
                if c is None:
                    continue
                if c.__class__ is FunctionType:
                    c = c()  # a thunk: wanted after all
                elif not isinstance(c, Handle):
                    if c.__class__ is Cotangents:
                        old = pending.get(edge)
                        pending[edge] = c if old is None else old.merge(c)
                        if old is None:
                            heappush(heap, (-edge.seq, edge))
                        continue
                    if c.__class__ is Part:
                        _send_part(edge, c, pending, leaves, heap)
                        continue
                    c = c()
                s = saved[i]
                if c._ghost is None:
                    a = c._a
                    if s.__class__ is Meta:
                        if a.shape != s.shape or a.dtype is not s.np_dtype:
                            c = _fit(c, s.shape, s.dtype, node, i)
                    elif isinstance(s, Handle) and s._ghost is None:
                        if a.shape != s._a.shape or a.dtype is not s._a.dtype:
                            c = _fit(c, s.shape, s.dtype, node, i)
                    elif a.shape != tuple(s.shape) or dtype_of(c) is not s.dtype:
                        c = _fit(c, s.shape, s.dtype, node, i)
                elif shape_of(c) != s.shape or dtype_of(c) is not s.dtype:
                    c = _fit(c, s.shape, s.dtype, node, i)
                if c is last or c._base is not None:
                    c._held = True  # this memory goes to more than one place
                else:
                    last = c
                if edge.__class__ is TapeNode:
                    old = pending.get(edge)
                    if old is None:
                        pending[edge] = c
                        heappush(heap, (-edge.seq, edge))
                    else:
                        pending[edge] = _sum(old, c)
                else:
                    key = id(edge)
                    old = leaves.get(key)
                    leaves[key] = (edge, c if old is None else _sum(old[1], c))
            if not keep:
                if node.versions:
                    node.saved = None
                    node.result = None
                elif isinstance(op, CustomOp):
                    op.free()
        for key, (leaf, g) in leaves.items():
            if wanted is None and not leaf._rg:  # told so after it was used
                continue
            if g.__class__ is Parts:
                g = g.whole()
            if leaf._hooks:
                g = hooks.call(leaf._hooks, g)
            if wanted is None:
                if leaf._grad is None and not g._held and leaf._post_accumulate is None:
                    leaf._grad = g
                else:
                    _accumulate(leaf, g)
            elif key in ends:
                found[key] = g
                if accumulate:
                    _accumulate(leaf, g)
    finally:
        state.grad = before
        state.overrides = asked
    return found


_FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after "
    "they have already been freed). Saved intermediate values of the graph are freed when you call "
    ".backward() or autograd.grad(). Specify retain_graph=True if you need to backward through the "
    "graph a second time or if you need to access saved tensors after calling backward."
)


def _send(target: Any, g: Any, pending: dict, leaves: dict, heap: list) -> None:
    """A root's cotangent to the node (or leaf) it starts from."""
    if target.__class__ is not TapeNode:
        old = leaves.get(id(target))
        leaves[id(target)] = (target, g if old is None else add(old[1], g))
    elif target in pending:
        pending[target] = add(pending[target], g)
    else:
        pending[target] = g
        heappush(heap, (-target.seq, target))


def _send_part(edge: Any, part: Part, pending: dict, leaves: dict, heap: list) -> None:
    """A slice's cotangent: kept as a piece until all that comes for the tensor has come."""
    if edge.__class__ is TapeNode:
        old = pending.get(edge)
        if old is None:
            heappush(heap, (-edge.seq, edge))
        pending[edge] = _sum(old, part)
    else:
        old = leaves.get(id(edge))
        leaves[id(edge)] = (edge, _sum(None if old is None else old[1], part))


def _sum(old: Any, c: Any) -> Any:
    """What has come so far and one cotangent more; either may be pieces."""
    if old.__class__ is Parts:
        old.add(c)
        return old
    return Parts(c, old) if c.__class__ is Part else add(old, c)


def _meta(g: Any) -> Meta:
    return Meta(shape_of(g), dtype_of(g).np)


def _fit(c: Any, shape: Any, d: Any, node: TapeNode, i: int) -> Any:
    """The cotangent in its operand's shape (summed over broadcast dims) and dtype."""
    shape = tuple(shape)
    if shape_of(c) != shape:
        if not node.op.broadcasts:
            raise RuntimeError(
                f"{node.op}: vjp gave a cotangent of shape {shape_of(c)} for operand {i} of shape "
                f"{shape}"
            )
        try:
            c = sum_to(c, shape)
        except RuntimeError:
            raise RuntimeError(
                f"Function {node.name()} returned an invalid gradient at index {i} - got "
                f"{list(shape_of(c))} but expected shape compatible with {list(shape)}"
            ) from None
    return cast(c, d)


def _leading_to(roots: Sequence[Any], ends: dict[int, Any]) -> set[int]:
    """Ids of the tape nodes from which one of `ends` is reached, `ends` left out."""
    leading: set[int] = set()
    done: set[int] = set()
    stack: list[tuple[Any, bool]] = [(t._fn, False) for t in roots if t._fn is not None]
    while stack:
        node, leaving = stack.pop()
        if leaving:
            if any(e is not None and (id(e) in ends or id(e) in leading) for e in node.edges):
                leading.add(id(node))
            continue
        if id(node) in done:
            continue
        done.add(id(node))
        stack.append((node, True))
        stack.extend((e, False) for e in node.edges if e.__class__ is TapeNode)
    return leading


def _has_wanted(node: TapeNode, wanted: set[int]) -> bool:
    return any(e is not None and id(e) in wanted for e in node.edges)


def _post_hooks(node: TapeNode, cotangents: tuple, g: Any) -> tuple:
    """The cotangents after the node's own hooks, which see them all computed."""
    out = tuple(
        None if e is None else c() if callable(c) and not isinstance(c, Handle) else c
        for c, e in zip(cotangents, node.edges, strict=False)
    )
    assert node.post is not None
    given = tuple(g.values) if isinstance(g, Cotangents) else (g,)
    for hook in list(node.post.values()):
        got = hook(out, given)
        if got is not None:
            out = got if isinstance(got, tuple) else (got,)
            if len(out) != len(cotangents):
                raise RuntimeError(
                    f"hook has returned an incorrect number of values (got {len(out)}, but "
                    f"expected {len(cotangents)})"
                )
    for c in out:
        if isinstance(c, Handle):
            c._held = True
    return out


def _accumulate(t: Any, g: Any) -> None:
    """t.grad += g.  Without a recorded graph the sum goes into the old memory, as torch's does."""
    old = t._grad
    if old is None:
        t._grad = clone(g, memory_format=layouts.contiguous_format) if g._held else g
    elif state.grad or old.__class__ in overrides.layouts:
        t._grad = add(old, g) if g.__class__ in overrides.layouts else add(g, old)
    else:
        old.add_(g)
    if t._post_accumulate:
        for hook in list(t._post_accumulate.values()):
            hook(t)
