"""trace: a function's ops on example inputs, as one Graph that needs no Python to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from weft.compile.functionalize import functionalize
from weft.compile.record import Session, TrieNode
from weft.core.graph import Graph
from weft.core.handle import Handle, state
from weft.kernels.layout import Layout


class TraceError(RuntimeError):
    """The function cannot become one graph; the message says which line, and why."""


@dataclass
class Traced:
    """A graph, the tensors it captured (weights, constants) by input name, and the results."""

    graph: Graph
    captured: dict[str, Handle]
    results: Any


def trace(
    fn: Callable,
    inputs: Mapping[str, Handle],
    names: Mapping[str, Handle] | None = None,
) -> Traced:
    """Run fn(*inputs.values()) once, without gradients, and return what it did as a graph.

    `names`: captured tensors by input name (a state_dict), whichever handle of theirs fn reads
    (x or x.detach()); others are called const0, const1, ...  The result may be a tensor, a tuple or
    list, or a dict of tensors.
    TraceError: a write to memory that outlives the call, a random draw, a result that is no tensor.
    Only the branches taken with these inputs are in the graph.
    """
    session = Session(TrieNode(None, None, (), None), None)
    session.matching = False
    before = (state.recorder, state.grad)
    state.recorder, state.grad = session, False
    given = (*(names or {}).items(), *inputs.items())
    try:
        results = fn(*inputs.values())
        named = named_results(results)
        for name, t in named.items():
            if t._ghost is None and any(
                session.place_of(t) == session.place_of(g) for _, g in given
            ):
                named[name] = t.clone()  # what was given is a result: it comes out of an op
    finally:
        state.recorder, state.grad = before
    graph, outside = _graph(session, named)
    labels = {session.place_of(t): k for k, t in given}
    captured: dict[str, Handle] = {}
    for j, node in outside.items():
        name = labels.get(j)
        if name is None:
            name = f"const{len(captured)}"
        if name not in inputs:
            captured[name] = session.outside[j]
        node.name = name
    used = {n.name: n for n in graph.inputs}
    graph.inputs = [used[k] for k in (*inputs, *captured) if k in used]
    session.finish()
    return Traced(graph, captured, results)


def named_results(results: Any) -> dict[str, Handle]:
    """The tensors of a model's answer by output name.

    A tensor is "output", part i of a tuple "output{i}", part k of that "output{i}.{k}"; a dict's
    keys are names themselves.  TraceError: an answer that holds something else.
    """
    if isinstance(results, Mapping):
        parts = {str(k): v for k, v in results.items()}
    elif isinstance(results, (tuple, list)):
        parts = {f"output{i}": v for i, v in enumerate(results)}
    else:
        parts = {"output": results}
    named: dict[str, Handle] = {}
    for name, v in parts.items():
        if isinstance(v, Handle):
            named[name] = v
        elif isinstance(v, (tuple, list, Mapping)):
            keys = v if isinstance(v, Mapping) else range(len(v))
            deeper = named_results({f"{name}.{k}": v[k] for k in keys})
            named.update(deeper)
        else:
            raise TraceError(f"trace: result {name!r} is {type(v).__name__}, not a tensor")
    if not named:
        raise TraceError("trace: the function returned no tensors")
    return named


def _graph(session: Session, results: Mapping[str, Handle]) -> tuple[Graph, dict[int, Any]]:
    path = session.cursor.path(0)
    refs = {}
    for name, t in results.items():
        ghost = t._ghost
        if ghost is None or ghost.session is not session:
            raise TraceError(f"trace: result {name!r} does not depend on any op of the function")
        refs[name] = ghost.k
    outside = [Layout.of(t._a) for t in session.outside]
    segment = functionalize(path, [], outside, set(), (), numbers=session.numbers, named=refs)
    for name, ref in segment.written.items():
        shape = list(outside[~ref].shape)
        raise TraceError(
            f"trace: the function writes to a tensor of shape {shape} that outlives it ({name}); "
            "a model with running statistics must be in eval mode"
        )
    for n in segment.graph.effects:
        raise TraceError(
            f"trace: {n.op} at {segment.graph.lines.get(n.serial, '?')} draws random numbers; "
            "a model with dropout must be in eval mode"
        )
    return segment.graph, segment.outside
