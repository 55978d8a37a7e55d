"""Which nodes run as one kernel.

    elementwise nodes of one shape      one loop, with several outputs where several are wanted
                                        (loops that feed one another are merged)
    a reduction of such a loop's only result, used nowhere else: the loop runs inside it
    a product or convolution and the first loop over its result: it runs on each finished tile
    attention of few queries and the joins that make its keys and values: it reads the pieces
    a pool's maxima and the taps that they are
    anything else                       a kernel of its own

A node joins the loop of one of its operands unless another operand depends on that loop through
something outside it (that would close a cycle) or the loop would grow past what registers hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from weft.core import scalar as S
from weft.core.graph import Graph, Node
from weft.core.types import numel
from weft.ops.attention import Attention
from weft.ops.contract import Product
from weft.ops.join import Concat
from weft.ops.kinds import Elementwise, Reduce, Summing
from weft.ops.norm import Moment
from weft.ops.pool import MaxPool2dTake
from weft.ops.view import Reshape

MAX_NODES, MAX_READS = 48, 14
REDUCTIONS = (Reduce, Moment)  # the loop of their first operand may run inside


@dataclass(eq=False)
class Group:
    """Nodes that run as one kernel."""

    nodes: list[Node]
    wanted: list[Node] = field(default_factory=list)  # those that others read
    reduce: Node | None = None  # the reduction at the end, if any
    product: Node | None = None  # the product at the start, if any: the rest is its epilogue
    pieces: Node | None = None  # the reader of joins (the nodes before it), which nobody else reads
    both: Node | None = None  # a pool, behind the taps that it takes
    before: set[int] = field(default_factory=set)  # indices of the groups it reads from

    @property
    def is_loop(self) -> bool:
        return is_loop(self.nodes[0])


def is_complex(n: Node) -> bool:
    """Whether the node reads or makes complex numbers, which no loop does."""
    types = [n.type, *(a.type for a in n.args if isinstance(a, Node))]
    return any(t.dtype.is_complex for t in types)


def is_loop(n: Node) -> bool:
    """Whether the node is computed element by element, by a kernel."""
    return isinstance(n.op, Elementwise) and not is_complex(n)


def fuse(g: Graph, into: Iterable[str] = ()) -> list[Group]:
    """The graph's nodes in groups, each after the groups it reads from.

    `into` names the outputs that are written to an input's memory: their loops stay loops, which
    write there at once.
    """
    into = tuple(into)
    found = _fused(g, into, Groups())
    if found is None:
        thorough = Groups()
        thorough.hurried = False
        found = _fused(g, into, thorough)
        assert found is not None, "fused kernels read from each other"
    return found


class Groups(list[Group]):
    """The groups of a graph; `hurried`: what could depend on what is told by program order."""

    hurried = True


def _fused(g: Graph, into: tuple[str, ...], groups: Groups) -> list[Group] | None:
    """The groups; None where two read from each other, which a hurry does not always see."""
    group_of = _loops(g, groups)
    for value, loop in g.again:
        mine, source = group_of[id(loop)], group_of[id(value)]
        if mine != source and _can_merge(groups, mine, source):
            _merge(groups, mine, source)
            group_of |= {id(n): mine for n in groups[mine].nodes}
    _mark_wanted(g, groups, group_of)
    _absorb_into_reductions(g, groups, group_of)
    _absorb_into_products(g, groups, group_of, {id(g.outputs[name]) for name in into})
    _absorb_joins(g, groups, group_of)
    _absorb_taps(g, groups, group_of)
    _merge_loops(g, groups)
    return _ordered(groups)


def _loops(g: Graph, groups: Groups) -> dict[int, int]:
    group_of: dict[int, int] = {}
    draws = {id(later): earlier for earlier, later in itertools.pairwise(g.effects)}
    for n in g.nodes():
        place = _join(n, groups, group_of) if is_loop(n) else None
        if place is None:
            place = len(groups)
            groups.append(Group([]))
        groups[place].nodes.append(n)
        group_of[id(n)] = place
        for a in n.args:
            source = group_of.get(id(a), place)
            if source != place:
                groups[place].before.add(source)
        if id(n) in draws:  # they keep their order
            groups[place].before.add(group_of[id(draws[id(n)])])
            groups[place].before.discard(place)
    return group_of


def _join(n: Node, groups: Groups, group_of: dict[int, int]) -> int | None:
    sources = {group_of[id(a)] for a in n.args if id(a) in group_of}
    for place in sorted(sources, reverse=True):
        if _hindrance(n, groups[place]) is None and not any(
            s != place and _depends(s, place, groups) for s in sources
        ):
            return place
    return None


def _hindrance(n: Node, group: Group) -> str | None:
    """Why the node cannot join this group's loop whatever else there is; None if it can."""
    first = group.nodes[0]
    if not is_loop(n):
        return f"{_name(n)} is a kernel of its own"
    if group.product is not None:
        return f"the loop runs on the tiles of {_name(first)}"
    if not group.is_loop:
        return f"{_name(first)} is a kernel of its own"
    if first.type.shape != n.type.shape:
        return f"the loop's shape is {list(first.type.shape)}, not {list(n.type.shape)}"
    if len(group.nodes) >= MAX_NODES:
        return f"the loop has {MAX_NODES} ops already"
    if (reads := len(_reads([*group.nodes, n]))) > MAX_READS:
        return f"the loop would read {reads} operands, more than {MAX_READS}"
    return None


def why_apart(g: Graph, groups: list[Group]) -> list[str]:
    """A line for each op that reads another kernel's result: why it is not in that kernel."""
    group_of = {id(n): group for group in groups for n in group.nodes}
    lines = []
    for n in g.nodes():
        for a in n.args:
            source, mine = group_of.get(id(a)), group_of.get(id(n))
            if source is None or source is mine or a.op.is_view or n.op.is_view:  # type: ignore[union-attr]
                continue
            if isinstance(n.op, REDUCTIONS) and (source.is_loop or source.product is not None):
                why = "its operand is read by others too, or ends a reduction"
            else:
                why = _hindrance(n, source) or (
                    "another operand depends on that loop, or it joined another operand's"
                )
            line = g.lines.get(n.serial)
            at = f" at {line}" if line else ""
            lines.append(f"apart: {_name(n)}{at} reads {_name(a)}: {why}")  # type: ignore[arg-type]
    return lines


def _name(n: Node) -> str:
    return n.op.name if n.op is not None else n.name


def _reads(nodes: list[Node]) -> set[int]:
    inside = {id(n) for n in nodes}
    return {id(a) for n in nodes for a in n.args if isinstance(a, Node) and id(a) not in inside}


def _depends(start: int, target: int, groups: Groups) -> bool:
    """Whether group `start` reads from group `target`, at once or through others."""
    # a group that ends before it seldom reads from it: by way of one that was joined by later nodes
    since = groups[target].nodes[0].serial if groups.hurried else -1
    stack, seen = [start], {start}
    while stack:
        for b in groups[stack.pop()].before:
            if b == target:
                return True
            if b not in seen and groups[b].nodes[-1].serial > since:
                seen.add(b)
                stack.append(b)
    return False


def _mark_wanted(g: Graph, groups: list[Group], group_of: dict[int, int]) -> None:
    outputs = {id(n) for n in g.outputs.values()}
    wanted = set(outputs)
    for n in g.nodes():
        for a in n.args:
            if id(a) in group_of and group_of[id(a)] != group_of[id(n)]:
                wanted.add(id(a))
    for group in groups:
        group.wanted = [n for n in group.nodes if id(n) in wanted] or group.nodes[-1:]


def _absorb_into_reductions(g: Graph, groups: list[Group], group_of: dict[int, int]) -> None:
    users: dict[int, int] = {}
    for n in g.nodes():
        for a in n.args:
            users[id(a)] = users.get(id(a), 0) + 1
    for n in g.outputs.values():
        users[id(n)] = users.get(id(n), 0) + 1
    for n in g.nodes():
        x = n.args[0] if isinstance(n.op, REDUCTIONS) else None
        if not isinstance(x, Node) or (n.type.shape == () and numel(x.type.shape) < 2):
            continue
        source = group_of.get(id(x))
        if source is None or users[id(x)] != 1:
            continue
        group = groups[source]
        if group.is_loop and group.reduce is None and group.wanted == [x]:
            mine = group_of[id(n)]
            group.reduce = n
            group.nodes.append(n)
            group.wanted = [n]
            group_of[id(n)] = source
            group.before |= groups[mine].before - {source}
            groups[mine].nodes = []
            for other in groups:
                if mine in other.before:
                    other.before.discard(mine)
                    other.before.add(source)


def _absorb_joins(g: Graph, groups: list[Group], group_of: dict[int, int]) -> None:
    """Keys and values that a decoder joins to its cache for one attention are not copied."""
    users: dict[int, int] = {}
    for x in (*g.outputs.values(), *(a for n in g.nodes() for a in n.args)):
        users[id(x)] = users.get(id(x), 0) + 1
    for n in g.nodes():
        if not isinstance(n.op, Attention):
            continue
        q, *joins = (a for a in n.args[:3] if isinstance(a, Node))
        alone = all(j.op == Concat(2) and users[id(j)] == 1 for j in joins)
        types = [[a.type for a in j.args if isinstance(a, Node)] for j in joins]
        if not alone or len(joins) != 2 or not n.op.reads_pieces(q.type, *types):
            continue
        mine = group_of[id(n)]
        group = groups[mine]
        group.pieces, group.nodes = n, [*joins, n]
        for j in joins:
            theirs = group_of[id(j)]
            group.before |= groups[theirs].before
            group.before.discard(theirs)
            groups[theirs].nodes, group_of[id(j)] = [], mine


def _absorb_taps(g: Graph, groups: list[Group], group_of: dict[int, int]) -> None:
    """A pool and the taps of the same image are found at once."""
    outputs, users = {id(n) for n in g.outputs.values()}, readers_of(g)
    for n in g.nodes():
        if not isinstance(n.op, MaxPool2dTake):
            continue
        x, taps = n.args
        assert isinstance(taps, Node)
        if taps.op is not n.op.first or taps.args[0] is not x:
            continue
        mine, theirs = group_of[id(n)], group_of[id(taps)]
        read = id(taps) in outputs or any(u is not n for u in users[id(taps)])
        group = groups[mine]
        group.both, group.nodes = n, [taps, n]
        group.wanted = [n, taps] if read else [n]
        group.before = groups[theirs].before
        groups[theirs].nodes, group_of[id(taps)] = [], mine
        for other in groups:
            if theirs in other.before:
                other.before = other.before - {theirs} | {mine}


def _absorb_into_products(
    g: Graph, groups: Groups, group_of: dict[int, int], written: set[int]
) -> None:
    users = readers_of(g)
    outputs = {id(n) for n in g.outputs.values()}
    for mine, loop in enumerate(groups):
        if not loop.nodes or not loop.is_loop or loop.reduce is not None:
            continue
        if any(id(n) in written for n in loop.wanted):
            continue
        chain = _product_of(loop, groups, group_of, mine)
        if chain is None:
            continue
        product, *views = chain
        loop.product = product
        loop.nodes = [*chain, *loop.nodes]
        for n in chain:
            theirs = group_of[id(n)]
            loop.before |= groups[theirs].before
            groups[theirs].nodes, group_of[id(n)] = [], mine
            for other in groups:
                if theirs in other.before:
                    other.before.discard(theirs)
                    other.before.add(mine)
        loop.before.discard(mine)
        inside = {id(n) for n in loop.nodes}
        read = [
            n for n in chain if id(n) in outputs or any(id(u) not in inside for u in users[id(n)])
        ]
        if read and read[0] is not product:  # a view of it is wanted: then so is what it views
            read.insert(0, product)
        loop.wanted = [*read, *loop.wanted]


def _can_merge(groups: Groups, mine: int, source: int) -> bool:
    """Whether two loops may be one: no third kernel stands between them."""
    loop, other = groups[mine], groups[source]
    if any(not x.nodes or not x.is_loop or x.reduce or x.product for x in (loop, other)):
        return False
    nodes = [*other.nodes, *loop.nodes]
    return (
        other.nodes[0].type.shape == loop.nodes[0].type.shape
        and len(nodes) <= MAX_NODES
        and len(_reads(nodes)) <= MAX_READS
        and not any(_depends(b, source, groups) for b in loop.before - {source})
        and not any(_depends(b, mine, groups) for b in other.before - {mine})
    )


def _merge(groups: list[Group], mine: int, source: int) -> None:
    """Two loops become one, `mine`."""
    loop, other = groups[mine], groups[source]
    loop.nodes = sorted([*other.nodes, *loop.nodes], key=lambda n: n.serial)
    loop.before = (loop.before | other.before) - {source, mine}
    other.nodes = []
    for group in groups:
        if source in group.before:
            group.before.discard(source)
            group.before.add(mine)
    loop.before.discard(mine)


def _merge_loops(g: Graph, groups: Groups) -> None:
    """A loop that reads another one takes it inside: what both read, and what one reads of the
    other, is then read once."""
    users = readers_of(g)
    outputs = {id(n) for n in g.outputs.values()}
    for mine, loop in enumerate(groups):
        waiting = sorted(loop.before, reverse=True)
        while waiting:
            source = waiting.pop(0)
            other = groups[source]
            if not _can_merge(groups, mine, source):
                continue
            wanted = {id(n) for n in (*other.wanted, *loop.wanted)}
            waiting = sorted({*waiting, *other.before}, reverse=True)
            _merge(groups, mine, source)
            inside = {id(n) for n in loop.nodes}
            loop.wanted = [
                n for n in loop.nodes
                if id(n) in wanted
                and (id(n) in outputs or any(id(u) not in inside for u in users.get(id(n), ())))
            ]  # fmt: skip


def readers_of(g: Graph) -> dict[int, list[Node]]:
    """Who reads a node."""
    users: dict[int, list[Node]] = {}
    for n in g.nodes():
        for a in n.args:
            users.setdefault(id(a), []).append(n)
    return users


def _product_of(
    loop: Group, groups: Groups, group_of: dict[int, int], mine: int
) -> list[Node] | None:
    """A product that the loop reads, and the reshapes between; none if it cannot be computed with
    the loop."""
    shape = loop.nodes[0].type.shape
    inside = {id(n) for n in loop.nodes}
    for n in loop.nodes:
        for a in n.args:
            if not isinstance(a, Node) or id(a) in inside:
                continue
            chain = [a]
            while isinstance(chain[0].op, Reshape) and isinstance(chain[0].args[0], Node):
                chain.insert(0, chain[0].args[0])
            product = chain[0]
            types = (product.type, *(w.type for w in loop.wanted[:1]))
            if (
                isinstance(product.op, Summing)
                and (isinstance(product.op, Product) or shape == a.type.shape == product.type.shape)
                and all(len(groups[group_of[id(c)]].nodes) == 1 for c in chain)
                and product.op.goes_on(*(p.type for p in product.args if isinstance(p, Node)))
                and types[0].dtype is types[-1].dtype
                and shape[-1:] == product.type.shape[-1:]
                and numel(shape) == numel(product.type.shape)
            ):
                start = group_of[id(product)]
                own = {group_of[id(c)] for c in chain}
                others = loop.before - own
                if not any(_depends(s, start, groups) for s in others):
                    return chain
    return None


def _ordered(groups: list[Group]) -> list[Group] | None:
    """Groups after those they read from; among the ready ones, program order. None: a cycle."""
    out: list[Group] = []
    state: dict[int, int] = {}
    for start in sorted(
        (i for i, x in enumerate(groups) if x.nodes), key=lambda i: groups[i].nodes[-1].serial
    ):
        stack = [(start, False)]
        while stack:
            i, leaving = stack.pop()
            if leaving:
                if state[i] != 2:
                    state[i] = 2
                    out.append(groups[i])
                continue
            if state.get(i):
                if state[i] == 1:  # what it reads is being looked at
                    return None
                continue
            state[i] = 1
            stack.append((i, True))
            stack.extend((b, False) for b in sorted(groups[i].before) if state.get(b) != 2)
    return out


def loop_exprs(group: Group) -> tuple[list[S.Expr], list[Node]]:
    """One expression a wanted result (or the reduction's operand), over the loop's reads.

    The first read of a product's loop is the product itself: its sums.
    """
    inside: dict[int, S.Expr] = {}
    reads: list[Node] = []

    def read(a: Node) -> S.Expr:
        if all(a is not r for r in reads):
            reads.append(a)
        return S.Arg(next(i for i, r in enumerate(reads) if r is a), a.type.dtype)

    for n in group.nodes:
        if n is group.reduce:
            continue
        if n is group.product:
            assert isinstance(n.op, Summing)
            bias = [a for a in n.args[2:] if isinstance(a, Node)]
            inside[id(n)] = n.op.ending(read(n), *map(read, bias))
            continue
        if not isinstance(n.op, Elementwise):  # a reshape between the product and the loop
            inside[id(n)] = inside[id(n.args[0])]
            continue
        args: list[S.Expr] = []
        first = next(a.type.dtype for a in n.args if isinstance(a, Node))
        for a in n.args:
            if not isinstance(a, Node):
                args.append(S.Const(a, first))
            elif id(a) in inside:
                args.append(inside[id(a)])
            else:
                args.append(read(a))
        own = n.op.expr(*(a.dtype for a in args))
        inside[id(n)] = S.substitute(
            own, lambda leaf, args=args: args[leaf.index] if isinstance(leaf, S.Arg) else leaf
        )
    if group.reduce is not None:
        op = group.reduce.op
        assert isinstance(op, REDUCTIONS)
        terms = op.terms(*(inside.get(id(a)) or read(a) for a in group.reduce.args))  # type: ignore[arg-type]
        return list(terms), reads
    return [inside[id(n)] for n in group.wanted if not n.op.is_view], reads  # type: ignore[union-attr]
