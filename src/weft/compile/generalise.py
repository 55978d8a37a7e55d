"""Sizes that were never recorded: a path of the trie for a third batch size, from two known ones.

A loop over batches of 64 meets a last batch of 32, and a language model meets every length.  Two
recorded paths that are the same but for integers (shapes, slice ends) differ by one parameter; a
third call that fits between them gets a path of its own by interpolation, without being recorded.

The guess is checked before it is used: the type of every result is inferred from its operands'
types, so a ghost never has a wrong shape, and matching goes on op by op, so a program that
branches differently at this size forks as always.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from weft.compile.record import WRITE, Meta, TrieNode
from weft.core.dtype import dtype, from_np
from weft.core.op import Op
from weft.core.types import Type, contiguous_strides
from weft.kernels.layout import Layout
from weft.ops.dispatch import NUMBERS

_LONGEST = 20_000  # ops of a path; a longer one is recorded instead


class _Differs(Exception):
    """Two keys are not one at two sizes."""


class _Line:
    """The parameter: its values in two known cases and in the wanted one."""

    def __init__(self) -> None:
        self.first: tuple[int, int] | None = None  # p, q
        self.wanted = 0

    def fix(self, p: int, q: int, r: int) -> None:
        if self.first is None:
            self.first, self.wanted = (p, q), r

    def at(self, u: int, v: int) -> int:
        """The integer that is u and v in the known cases."""
        if u == v:
            return u
        if self.first is None:
            raise _Differs
        p, q = self.first
        value, rest = divmod((v - u) * (self.wanted - p), q - p)
        if rest:
            raise _Differs
        return u + value


def synthesize(cursor: TrieNode, key: tuple, outside: list[Layout]) -> TrieNode | None:
    """A child of `cursor` for `key`, with what follows, interpolated from two children; or None."""
    known = list(cursor.children.items())[-4:]
    for i, (key1, one) in enumerate(known):
        for key2, two in known[i + 1 :]:
            line = _Line()
            try:
                _align(key1, key2, key, line)
                if line.first is None or _key(key1, key2, line) != key:
                    continue
                return _grow(cursor, key, one, two, line, list(outside))
            except _Differs:
                continue
    return None


def _align(a: Any, b: Any, wanted: Any, line: _Line) -> None:
    """Find the first integer that differs between the known cases."""
    for x, y, z in _leaves(a, b, wanted):
        if x != y:
            line.fix(x, y, z)
            return


def _leaves(a: Any, b: Any, c: Any) -> list[tuple[int, int, int]]:
    if type(a) is not type(b) or type(a) is not type(c):
        raise _Differs
    if isinstance(a, tuple):
        if not len(a) == len(b) == len(c):
            raise _Differs
        return [leaf for t in zip(a, b, c, strict=True) for leaf in _leaves(*t)]
    if isinstance(a, Op):
        return _leaves(_values(a), _values(b), _values(c))
    if isinstance(a, int) and not isinstance(a, bool):
        return [(a, b, c)]
    return []


def _values(op: Op) -> tuple:
    return tuple(getattr(op, f.name) for f in fields(op))


def _key(a: Any, b: Any, line: _Line) -> Any:
    """The value at the wanted size; _Differs when more than integers differ."""
    if a is b:
        return a
    if type(a) is not type(b):
        raise _Differs
    if isinstance(a, tuple):
        if len(a) != len(b):
            raise _Differs
        return tuple(_key(x, y, line) for x, y in zip(a, b, strict=True))
    if isinstance(a, Op):
        return type(a)(*_key(_values(a), _values(b), line))
    if isinstance(a, int) and not isinstance(a, bool):
        return line.at(a, b)
    if a == b:
        return a
    raise _Differs


def _grow(
    cursor: TrieNode, key: tuple, one: TrieNode, two: TrieNode, line: _Line, outside: list[Layout]
) -> TrieNode:
    """The subtree that `one` and `two` have in common, at the wanted size."""
    results: dict[int, Layout] = {}
    metas: dict[int, Meta] = {}
    for n in cursor.path(0):
        if n.meta is not None:
            m = n.meta
            results[n.depth] = Layout(m.shape, m.strides, m.dtype.np)
            metas[n.depth] = m
    top = None
    stack = [(cursor, key, one, two)]
    made: list[tuple[TrieNode, tuple, TrieNode]] = []
    while stack:
        parent, k, a, b = stack.pop()
        if len(made) > _LONGEST:
            raise _Differs
        node = _node(parent, k, a, b, outside, results, metas)
        made.append((parent, k, node))
        top = top or node
        pairs = _pairs(a, b, line)
        if len(pairs) > 1:  # a fork: what is known below it is found again by matching
            continue
        stack.extend((node, pair[0], pair[1], pair[2]) for pair in pairs)
    for parent, k, node in made:  # nothing was changed until all of it held
        parent.children[k] = node
    assert top is not None
    return top


def _pairs(a: TrieNode, b: TrieNode, line: _Line) -> list[tuple[tuple, TrieNode, TrieNode]]:
    found = []
    for key1, one in a.children.items():
        for key2, two in b.children.items():
            try:
                found.append((_key(key1, key2, line), one, two))
            except _Differs:
                continue
    return found


def _node(
    parent: TrieNode,
    key: tuple,
    one: TrieNode,
    two: TrieNode,
    outside: list[Layout],
    results: dict[int, Layout],
    metas: dict[int, Meta],
) -> TrieNode:
    refs = []
    for r in key[1:]:
        if isinstance(r, tuple):  # an outside tensor's first use brings its layout
            place, shape, strides, np_dtype, _ = r
            if ~place != len(outside):
                raise _Differs
            outside.append(Layout(shape, tuple(s // np_dtype.itemsize for s in strides), np_dtype))
            refs.append(place)
        else:
            refs.append(r)
    op = key[0]
    if op is WRITE:
        node = TrieNode(parent, op, tuple(refs), None)
    else:
        meta = _meta(op, refs, one, two, outside, results, metas)
        node = TrieNode(parent, op, tuple(refs), meta)
        results[node.depth] = Layout(meta.shape, meta.strides, meta.dtype.np)
        metas[node.depth] = meta
    node.line = one.line
    return node


def _meta(
    op: Op,
    refs: list,
    one: TrieNode,
    two: TrieNode,
    outside: list[Layout],
    results: dict[int, Layout],
    metas: dict[int, Meta],
) -> Meta:
    """The result's layout, inferred; _Differs where it does not follow the known ones' kind."""
    layouts = [None if r in NUMBERS else outside[~r] if r < 0 else results[r] for r in refs]
    first = next((x for x in layouts if x is not None), None)
    number = from_np(first.dtype) if first is not None else None
    types = [Type((), number) if x is None else Type(x.shape, from_np(x.dtype)) for x in layouts]  # type: ignore[arg-type]
    try:
        t = op.type(*types)
    except (RuntimeError, ValueError, IndexError, TypeError):
        raise _Differs from None
    assert one.meta is not None and two.meta is not None
    if any(not isinstance(n, int) or n < 0 for n in t.shape) or t.dtype is not one.meta.dtype:
        raise _Differs
    view = op.layout(layouts[0]) if op.is_view else None  # type: ignore[attr-defined]
    is_view = view is not None
    if not is_view == one.meta.view == two.meta.view:
        raise _Differs
    if view is None:
        return meta_of(t.shape, contiguous_strides(t.shape), t.dtype, view=False, offset=0)
    at, offset = view
    start = metas[refs[0]].offset if refs[0] >= 0 else 0
    return meta_of(at.shape, at.strides, t.dtype, view=True, offset=start + offset)


def meta_of(shape: tuple, strides: tuple, d: dtype, *, view: bool, offset: int) -> Meta:
    """A Meta from parts."""
    made = object.__new__(Meta)
    made.shape, made.strides, made.dtype = tuple(shape), tuple(strides), d
    made.view, made.offset = view, offset
    return made
