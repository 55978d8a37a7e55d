"""slices: large images go through several layers a few at a time, while they are in a cache.

    y = h(g(f(x)))        becomes        y = cat([h(g(f(x[i:j]))) for each few samples i to j])

where f, g and h compute sample i of their result from sample i of their operands (Op.by_sample).
Each result of a whole batch would be written to memory and read back by the next layer; a sample's
stays in the last cache, and the samples' intermediate results share one small place.  The last
result of each slice is computed straight into its part of y (compile/program.py).

Which runs of ops depends on sizes alone, how many samples at a time on the last cache too: a
launch of more samples waits less for its threads.  Results do not depend on the batch that a
sample is in, so no bit changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.core import dtype as dt
from weft.core.graph import Builder, Graph, Node
from weft.core.types import Type, numel
from weft.ops.join import Concat
from weft.ops.kinds import Elementwise
from weft.ops.view import Slice
from weft.runtime.machine import last_cache

_FAR = 8 << 20  # bytes of a value that the last cache does not hold beside others
_NEAR, _SHARE = 16 << 20, 8  # bytes of a value that it does, and of the cache at most a share
_WEIGHTS = 1 << 20  # bytes that an op may read anew for each slice
_MOST = 32  # slices: each is planned, and has its own entries in the table
_GAIN = 2  # bytes that kernels inside hand one another for each byte that others read


@dataclass
class Run:
    """Ops that are done slice by slice, in order."""

    nodes: list[Node]
    samples: int
    step: int  # samples of a slice


def slices(g: Graph) -> Graph:
    """The graph with such runs done slice by slice."""
    runs = [] if g.effects or g.again else _runs(g)
    if not runs:
        return g
    b = Builder()
    new: dict[int, Node] = {id(n): b.input(n.name, n.type) for n in g.inputs}
    lines: dict[int, str] = {}
    run_of = {id(n): run for run in runs for n in run.nodes}
    outputs = {id(n) for n in g.outputs.values()}
    users = _users(g)

    def make(n: Node, args: list) -> Node:
        assert n.op is not None
        made = b.node(n.op, *args)
        if n.serial in g.lines:
            lines.setdefault(made.serial, g.lines[n.serial])
        return made

    def make_run(run: Run) -> None:
        inside = {id(n) for n in run.nodes}
        parts: dict[int, list[Node]] = {id(n): [] for n in run.nodes}
        for start in range(0, run.samples, run.step):
            part = Slice(0, start, min(start + run.step, run.samples), 1)
            for n in run.nodes:
                args: list = [new.get(id(a), a) for a in n.args]
                for k in _sliced(n):
                    a = n.args[k]
                    args[k] = parts[id(a)][-1] if id(a) in inside else b.node(part, args[k])
                parts[id(n)].append(make(n, args))
        for n in run.nodes:
            if id(n) in outputs or any(id(u) not in inside for u in users[id(n)]):
                new[id(n)] = b.node(Concat(0), *parts[id(n)])

    waiting: list[Node] = []  # they read what a run makes
    for n in g.nodes():
        waiting.append(n)
        run = run_of.get(id(n))
        if run is not None:
            waiting.pop()
            if n is not run.nodes[-1]:
                continue
            make_run(run)
        left = []
        for w in waiting:
            if all(id(a) in new for a in w.args if isinstance(a, Node)):
                new[id(w)] = make(w, [new[id(a)] if isinstance(a, Node) else a for a in w.args])
            else:
                left.append(w)
        waiting = left
    return Graph(
        [new[id(n)] for n in g.inputs], {k: new[id(n)] for k, n in g.outputs.items()}, lines
    )


def _runs(g: Graph) -> list[Run]:
    """What is worth it: maximal runs of ops by sample, cut to those around large values."""
    found: list[Run] = []
    run: list[Node] = []
    inside: set[int] = set()
    behind: set[int] = set()  # others that read what the run makes
    outputs, users = {id(n) for n in g.outputs.values()}, _users(g)

    def end() -> None:
        made = _worth(run, outputs, users)
        if made is not None:
            found.append(made)
        run.clear()
        inside.clear()
        behind.clear()

    for n in g.nodes():
        sliced = _sliced(n)
        operands = {k: id(a) for k, a in enumerate(n.args) if isinstance(a, Node)}
        if sliced and run and n.type.shape[0] == run[0].type.shape[0]:
            if any(k in behind for k in operands.values()) or any(
                v in inside for k, v in operands.items() if k not in sliced
            ):
                end()
        elif sliced and _bytes(n.type) > _FAR:
            end()
        else:
            if any(v in inside or v in behind for v in operands.values()):
                behind.add(id(n))
            continue
        run.append(n)
        inside.add(id(n))
    end()
    return found


def _worth(run: list[Node], outputs: set[int], users: dict[int, list[Node]]) -> Run | None:
    """The part of a run to the last reader of a large value and what ends it, if it gains."""
    large = {id(n) for n in run if _bytes(n.type) > _FAR}
    near = [i for i, n in enumerate(run) if not large.isdisjoint(map(id, (n, *n.args)))]
    if not near:
        return None
    end = near[-1] + 1
    while end < len(run) and isinstance(run[end].op, Elementwise):  # they end the op before them
        end += 1
    nodes = run[:end]
    samples = nodes[0].type.shape[0]
    near = min(_NEAR, last_cache() // _SHARE)
    step = max(near * samples // max(_bytes(n.type) for n in nodes), -(-samples // _MOST))
    count = max(-(-samples // step), 2)
    step = -(-samples // count)  # alike: a slice of few is worth less
    inside = {id(n) for n in nodes}
    read = sum(
        _bytes(n.type)
        for n in nodes
        if id(n) in outputs or any(id(u) not in inside for u in users[id(n)])
    )
    made = sum(_bytes(n.type) for n in nodes if not isinstance(n.op, Elementwise))
    return Run(nodes, samples, step) if made > _GAIN * read and step < samples else None


def _sliced(n: Node) -> tuple[int, ...]:
    """Which operands are sliced with the result; none where the op is not done by samples."""
    assert n.op is not None
    if n.op.is_view or n.type.ndim < 2 or n.type.shape[0] < 2:
        return ()
    number = Type((), dt.float32)
    types = [a.type if isinstance(a, Node) else number for a in n.args]
    sliced = n.op.by_sample(n.type, *types)
    whole = sum(_bytes(t) for k, t in enumerate(types) if k not in sliced)
    return sliced if whole <= _WEIGHTS else ()


def _bytes(t: Type) -> int:
    return numel(t.shape) * t.dtype.itemsize


def _users(g: Graph) -> dict[int, list[Node]]:
    """Who reads a node."""
    nodes = g.nodes()
    users: dict[int, list[Node]] = {id(n): [] for n in nodes}
    for n in nodes:
        for a in n.args:
            if id(a) in users:
                users[id(a)].append(n)
    return users
