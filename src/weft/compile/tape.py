"""`backward()` matched as one node: a tape that was walked before, from the same place of the path.

What the vjp rules call is decided by the tape: its ops, how they hang together, what they saved (of
values: which results or outside tensors; else shapes and numbers), and by which leaves have no
gradient yet.  So the first matched walk goes op by op and notes where the path ended and which
results became gradients; where the same tape stands at the same node of the trie again, the cursor
jumps there.  Whatever has a say of its own is walked op by op: hooks, Functions, packed or changed
saved tensors, gradients to be added to, subclasses, numbers that change with each call.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from weft.autograd import anomaly
from weft.core import dtype as dt
from weft.core.handle import Handle, TapeNode, computed, state
from weft.core.op import Meta, Op
from weft.ops import dispatch
from weft.ops.contract import FastMath
from weft.ops.dispatch import NUMBERS

if TYPE_CHECKING:
    from weft.compile.record import Session, TrieNode

_MOST = 8  # tapes known at one node of the trie
_by_age = attrgetter("seq")
_ours: set[type] = set()  # classes of ops whose rules are Weft's


class Walk:
    """Where a backward's path goes: its last node, and which results became gradients."""

    __slots__ = ("end", "grads", "length", "numbers")

    def __init__(self, end: TrieNode, length: int, numbers: list, grads: list) -> None:
        self.end = end
        self.length = length
        self.numbers = numbers  # what the rules made of the tape's
        self.grads = grads  # by leaf, in the order of the key: the result's node, or None


def backward(session: Session, root: Handle, keep: bool, walk: Callable[[], Any]) -> None:
    """walk(), the engine's, or its effect."""
    if not session.matching or session.updates is not None or anomaly.enabled():
        walk()
        return
    found = _tape(session, root)
    if found is None:
        walk()
        return
    key, nodes, leaves = found
    start = session.cursor
    jump = start.jumps.get(key)
    if jump is None:
        _learn(session, key, leaves, walk)
        return
    session.jump(jump.end, jump.length, jump.numbers)
    for leaf, made in zip(leaves, jump.grads, strict=True):
        if made is not None:
            leaf._grad = session.promise(made)
    if not keep:
        for node in nodes:
            if node.versions:
                node.saved = node.result = None


def _tape(session: Session, root: Handle) -> tuple[tuple, list[TapeNode], list[Handle]] | None:
    """(what decides the walk from `root`, its nodes, its leaves); None: it goes op by op."""
    promised, first = root._ghost, root._fn
    if promised is None or promised.session is not session or first is None:
        return None
    nodes, stack, numbered = [], [first], {first}
    while stack:
        node = stack.pop()
        nodes.append(node)
        for e in node.edges:
            if e.__class__ is TapeNode and e not in numbered:
                numbered.add(e)
                stack.append(e)
    nodes.sort(key=_by_age, reverse=True)
    places: dict[int, int] = {id(n): i for i, n in enumerate(nodes)}
    plain, outside = dispatch.plain_classes, session.tables()[0]
    leaves: list[Handle] = []
    key: list = [promised.k, state.autocast, dt.get_default_dtype(), FastMath.on]
    for node in nodes:
        op, saved = node.op, node.saved
        if saved is None or node.hooks or node.post:
            return None
        if op.__class__ not in _ours and not _is_ours(op):
            return None
        key.append(op)
        for e in node.edges:
            if e is None:
                key.append(None)
                continue
            place = places.get(id(e))
            if place is None:  # a leaf, met for the first time
                if (
                    e.__class__ not in plain
                    or e._grad is not None
                    or e._hooks
                    or "_post_accumulate" in e.__dict__
                ):
                    return None
                leaves.append(e)
                place = places[id(e)] = -len(leaves)
            key.append(place)
        kept = -1
        for s in saved if node.result is None else (*saved, node.result):
            kind = s.__class__
            if kind is Meta:
                key.append(s.shape)
                key.append(s.np_dtype)
            elif kind in NUMBERS:
                key.append(kind)
                key.append(s.hex() if kind is float else s)
            elif kind in plain:
                kept += 1
                st = s._st
                if st is not None and st.version != node.versions[kept]:
                    return None
                ghost = s._ghost
                if ghost is not None and ghost.session is session:
                    key.append(ghost.k)
                else:
                    place = outside.get(id(s))
                    if place is None:
                        return None
                    key.append(~place)
            else:
                return None
    return tuple(key), nodes, leaves


def _is_ours(op: Any) -> bool:
    kind = op.__class__
    if isinstance(op, Op) and kind.__module__.startswith("weft."):
        _ours.add(kind)
        return True
    return False


def _is_bare(g: Handle) -> bool:
    """Whether a gradient is a promise and nothing more."""
    off = not g._rg and g._fn is None and g._base is None
    return off and not g.__dict__ and computed(g) is None


def _learn(session: Session, key: tuple, leaves: list[Handle], walk: Callable[[], Any]) -> None:
    """walk(), and note the path if it is one that can be jumped."""
    start, begin, known = session.cursor, session.start, len(session.outside)
    at = len(session.numbers)
    walk()
    if not session.matching or session.start != begin or len(session.outside) != known:
        return
    if sum(j.__class__ is Walk for j in list(start.jumps.values())) >= _MOST:
        return
    path = session.cursor.path(start.depth + 1)
    if not path or any(n.meta is None or n.op.effect for n in path):
        return
    grads: list = []
    for leaf in leaves:
        g = leaf._grad
        if g is None:  # the rules sent it nothing
            grads.append(None)
            continue
        ghost = g._ghost
        if ghost is None or ghost.session is not session or ghost.k <= start.depth:
            return
        made = path[ghost.k - start.depth - 1]
        if made.meta.view or made in grads or not _is_bare(g):
            return
        grads.append(made)
    start.jumps[key] = Walk(session.cursor, len(path), session.numbers[at:], grads)
