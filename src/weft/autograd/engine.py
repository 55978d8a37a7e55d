"""The engine: walk the tape backwards, latest call first, and add up cotangents.

Each op's vjp is written in ops, so with `create_graph` the walk itself is recorded and can be
differentiated again.  A cotangent's shape and dtype are checked against its operand's before it
is added to anything: an addition broadcasts, and would hide a missing un-broadcast.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from weft.core.handle import Handle, TapeNode, state
from weft.autograd.cotangents import Cotangents
from weft.core.op import Meta
from weft.ops.creation import ones_like, zeros_like
from weft.ops.dispatch import alias
from weft.ops.arithmetic import add
from weft.ops.reduce import sum_to


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add d(sum of tensors . grad_tensors)/d(leaf) to the `.grad` of every leaf they depend on.

    `grad_tensors` may be left out for one-element tensors.  `inputs` restricts the leaves.
    RuntimeError: no graph, a graph already freed, a saved operand changed in place since.
    """
    roots = _as_tuple(tensors)
    grads = _root_grads(roots, grad_tensors)
    only = None if inputs is None else list(_as_tuple(inputs))
    if only is not None and not only:
        raise RuntimeError("'inputs' argument to backward() cannot be empty.")
    keep = create_graph if retain_graph is None else retain_graph
    _run(roots, grads, keep, create_graph, only, accumulate=True)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple:
    """The cotangents of `inputs`, as a tuple; no `.grad` is touched.

    RuntimeError when an input was not used in the graph, unless `allow_unused` (then None).
    """
    if is_grads_batched:
        raise NotImplementedError("grad: is_grads_batched=True is not supported")
    outs = _as_tuple(outputs)
    ins = list(_as_tuple(inputs))
    for i, t in enumerate(ins):
        if not t._rg:
            raise RuntimeError(
                f"One of the differentiated Tensors does not require grad (input {i})"
            )
    grads = _root_grads(outs, grad_outputs)
    keep = create_graph if retain_graph is None else retain_graph
    found = _run(outs, grads, keep, create_graph, ins, accumulate=False)
    result = []
    for i, t in enumerate(ins):
        g = found.get(id(t._fn if t._fn is not None else t))
        if g is None and materialize_grads:
            g = zeros_like(t)
        elif g is None and not allow_unused:
            raise RuntimeError(
                f"One of the differentiated Tensors (input {i}) appears to not have been used in "
                "the graph. Set allow_unused=True if this is the desired behavior."
            )
        result.append(g)
    return tuple(result)


def _as_tuple(x: Any) -> tuple:
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def _root_grads(roots: Sequence[Any], given: Any) -> list:
    if given is None:
        given = (None,) * len(roots)
    given = _as_tuple(given)
    if len(given) != len(roots):
        raise RuntimeError(f"got {len(roots)} tensors and {len(given)} gradients")
    out = []
    for t, g in zip(roots, given, strict=True):
        if not t._rg:
            raise RuntimeError(
                "element 0 of tensors does not require grad and does not have a grad_fn"
            )
        if g is None:
            if t.numel() != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
            g = ones_like(t)
        elif tuple(g.shape) != tuple(t.shape):
            raise RuntimeError(
                f"Mismatch in shape: grad_output[0] has a shape of {g.shape} and output[0] has a "
                f"shape of {t.shape}."
            )
        out.append(g)
    return out


def _run(
    roots: Sequence[Any],
    grads: Sequence[Any],
    keep: bool,
    create_graph: bool,
    inputs: list | None,
    *,
    accumulate: bool,
) -> dict[int, Any]:
    """Propagate; returns the cotangents of `inputs` by id of their tape end."""
    ends = {} if inputs is None else {id(t._fn if t._fn is not None else t): t for t in inputs}
    wanted = None if inputs is None else _leading_to(roots, ends) | ends.keys()
    walk = _Walk()
    before, state.grad = state.grad, create_graph
    try:
        for t, g in zip(roots, grads, strict=True):
            walk.shared[id(g)] = g  # the caller's own
            walk.send(t._fn if t._fn is not None else t, g)
        while walk.heap:
            _, key, node = heapq.heappop(walk.heap)
            g = walk.pending.pop(key)
            leaf = isinstance(node, Handle)
            g = _call_hooks(node._hooks if leaf else node.hooks, g)
            if key in ends or (leaf and inputs is None):
                walk.found[key] = g
                if accumulate:
                    _accumulate(ends.get(key, node), g, walk.shared)
            if leaf or (wanted is not None and not _any_wanted(node, wanted)):
                continue
            _step(node, g, wanted, walk)
            if not keep:
                node.saved = None
                node.result = None
    finally:
        state.grad = before
    return walk.found


class _Walk:
    """The state of one backward walk."""

    def __init__(self) -> None:
        self.pending: dict[int, Any] = {}  # cotangents that wait for their node's turn
        self.heap: list[tuple[int, int, Any]] = []  # latest call first
        self.found: dict[int, Any] = {}
        self.shared: dict[int, Any] = {}  # cotangents that more than one place may hold

    def send(self, target: Any, g: Any) -> None:
        key = id(target)
        if key in self.pending:
            old = self.pending[key]
            self.pending[key] = old.merge(g) if isinstance(old, Cotangents) else add(old, g)
        else:
            self.pending[key] = g
            heapq.heappush(self.heap, (-target.seq if isinstance(target, TapeNode) else 0, key, target))


def _leading_to(roots: Sequence[Any], ends: dict[int, Any]) -> set[int]:
    """Ids of the tape nodes strictly after one of `ends`."""
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
        stack.extend((e, False) for e in node.edges if isinstance(e, TapeNode))
    return leading


def _any_wanted(node: TapeNode, wanted: set[int]) -> bool:
    return any(e is not None and id(e) in wanted for e in node.edges)


def _step(node: TapeNode, g: Any, wanted: set[int] | None, walk: _Walk) -> None:
    """Call one vjp and send its cotangents on."""
    if node.saved is None:
        raise RuntimeError(
            "Trying to backward through the graph a second time (or directly access saved tensors "
            "after they have already been freed). Saved intermediate values of the graph are freed "
            "when you call .backward() or autograd.grad(). Specify retain_graph=True if you need "
            "to backward through the graph a second time or if you need to access saved tensors "
            "after calling backward."
        )
    _check_versions(node)
    op = node.op
    result = node.result
    if result is None:
        result = None if isinstance(g, Cotangents) else Meta(g.shape, g.dtype.np)
    elif state.grad:
        result = alias(result)
        result._fn = node
        result._rg = True
    cotangents = op.vjp(g, result, *node.saved)
    for i, edge in enumerate(node.edges):
        if edge is None or (wanted is not None and id(edge) not in wanted):
            continue
        c = cotangents[i]
        if c is None:
            continue
        if isinstance(c, Cotangents):
            walk.send(edge, c)
            continue
        if not isinstance(c, Handle):
            c = c()  # a thunk: wanted after all
        if c is g or c._base is not None:
            walk.shared[id(c)] = c
        operand = node.saved[i]
        if tuple(c.shape) != tuple(operand.shape):
            if not op.broadcasts:
                raise RuntimeError(
                    f"{op}: vjp gave a cotangent of shape {tuple(c.shape)} for operand {i} of "
                    f"shape {tuple(operand.shape)}"
                )
            c = sum_to(c, operand.shape)
        walk.send(edge, c)


def _check_versions(node: TapeNode) -> None:
    kept = [s for s in node.saved or () if isinstance(s, Handle)]
    if node.result is not None:
        kept.append(node.result)
    for t, then in zip(kept, node.versions, strict=True):
        now = 0 if t._st is None else t._st.version
        if now != then:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: [{t.type()} {list(t.shape)}], saved by {node.name()}, is at "  # type: ignore[attr-defined]
                f"version {now}; expected version {then} instead. Hint: enable anomaly detection "
                "to find the operation that failed to compute its gradient, with "
                "torch.autograd.set_detect_anomaly(True)."
            )


def _call_hooks(hooks: Any, g: Any) -> Any:
    for hook in list((hooks or {}).values()):
        got = hook(g)
        if got is not None:
            g = got
    return g


def _accumulate(t: Any, g: Any, shared: dict[int, Any]) -> None:
    """t.grad += g.  Without a recorded graph the sum goes into the old memory, as torch's does."""
    old = t._grad
    if old is not None:
        if state.grad:
            t._grad = add(old, g)
        else:
            old.add_(g)
    elif state.grad:
        t._grad = g
    else:
        # Two leaves may have got the very same tensor (both operands of an add): own the memory.
        t._grad = g.clone() if id(g) in shared else g.detach()
    for hook in list(t.__dict__.get("_post_accumulate", {}).values()):
        hook(t)
