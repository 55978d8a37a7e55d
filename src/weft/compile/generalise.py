"""Sizes that were never recorded: a path of the trie for a new batch or length, from known ones.

A loop over batches of 64 meets a last batch of 32, and a language model meets every length.  Two or
three recorded paths that are the same but for integers (shapes, slice ends) tell how these follow
from the few that vary independently, the *symbols*: a multiple of one, of the product of two, an
affine function of one or two.  A call of another size gets a path of its own by these formulas,
without being recorded.

The guess is checked before it is used: the type of every result is inferred from its operands'
types, so a ghost never has a wrong shape, and matching goes on op by op, so a program that
branches differently at this size forks as always.
"""

from __future__ import annotations

import itertools
from dataclasses import fields
from typing import Any

from weft.compile.record import WRITE, Meta, TrieNode
from weft.core.dtype import dtype, from_np
from weft.core.op import Op
from weft.core.types import Type, contiguous_strides
from weft.kernels.layout import Layout
from weft.ops.dispatch import NUMBERS

_LONGEST = 20_000  # ops of a path; a longer one is recorded instead
_CASES = 4  # recorded paths that a new one is compared with


class _Differs(Exception):
    """Two keys are not one at two sizes."""


class _Symbols:
    """The sizes that vary independently: their values in the known cases and in the wanted one."""

    def __init__(self, cases: int) -> None:
        self.cases = cases
        self.known: list[tuple[int, ...]] = []
        self.wanted: list[int] = []
        self._found: dict[tuple[int, ...], int] = {}
        self._parts: dict[tuple[int, ...], _Symbols] = {}

    def of(self, chosen: tuple[int, ...]) -> _Symbols:
        """The same sizes, seen in some of the known cases."""
        if len(chosen) == self.cases:
            return self
        found = self._parts.get(chosen)
        if found is None:
            found = self._parts[chosen] = _Symbols(len(chosen))
            found.known = [tuple(x[i] for i in chosen) for x in self.known]
            found.wanted = self.wanted
        return found

    def learn(self, values: tuple[int, ...], wanted: int) -> None:
        """An integer of the key: explained by the symbols, or a symbol itself."""
        if len(set(values)) == 1:
            if values[0] != wanted:  # it never varied before
                raise _Differs
            return
        try:
            explained = self._follow(values) == wanted
        except _Differs:
            explained = False
        if not explained:
            self.known.append(values)
            self.wanted.append(wanted)

    def at(self, values: tuple[int, ...]) -> int:
        """The integer that has these values in the known cases."""
        if len(set(values)) == 1:
            return values[0]
        found = self._found.get(values)
        if found is None:
            found = self._found[values] = self._follow(values)
        return found

    def _follow(self, values: tuple[int, ...]) -> int:
        """By the simplest formula that explains all known cases."""
        alone = list(zip(self.known, self.wanted, strict=True))
        products = [
            (tuple(a * b for a, b in zip(x, y, strict=True)), p * q)
            for i, (x, p) in enumerate(alone)
            for y, q in alone[i:]
        ]
        for x, wanted in (*alone, *products):  # k x
            k, rest = divmod(values[0], x[0]) if x[0] else (0, 1)
            if not rest and all(k * a == v for a, v in zip(x, values, strict=True)):
                return k * wanted
        for slope in (1, None):  # x + c, then k x + c
            for x, wanted in (*alone, *products):
                line = _line(x, values, slope)
                if line is not None:
                    return line[0] * wanted + line[1]
        for i, (x, p) in enumerate(alone):  # j x + k y + c
            for y, q in alone[i + 1 :]:
                plane = _plane(x, y, values)
                if plane is not None:
                    return plane[0] * p + plane[1] * q + plane[2]
        raise _Differs


def _line(x: tuple, values: tuple, slope: int | None) -> tuple[int, int] | None:
    """(k, c) with k x + c = values."""
    if len(set(x)) == 1:
        return None
    i = next(i for i, a in enumerate(x) if a != x[0])
    k, rest = divmod(values[i] - values[0], x[i] - x[0])
    c = values[0] - k * x[0]
    fits = not rest and slope in (None, k) and k != 0
    return (k, c) if fits and all(k * a + c == v for a, v in zip(x, values, strict=True)) else None


def _plane(x: tuple, y: tuple, values: tuple) -> tuple[int, int, int] | None:
    """(j, k, c) with j x + k y + c = values, from three cases at least."""
    if len(values) < 3:
        return None
    (x0, x1, x2), (y0, y1, y2), (v0, v1, v2) = x[:3], y[:3], values[:3]
    a, b, c, d = x1 - x0, y1 - y0, x2 - x0, y2 - y0
    det = a * d - b * c
    if not det:
        return None
    j, rest_j = divmod((v1 - v0) * d - b * (v2 - v0), det)
    k, rest_k = divmod(a * (v2 - v0) - (v1 - v0) * c, det)
    at = v0 - j * x0 - k * y0
    fits = all(j * p + k * q + at == v for p, q, v in zip(x, y, values, strict=True))
    return (j, k, at) if fits and not rest_j and not rest_k else None


def synthesize(cursor: TrieNode, key: tuple, outside: list[Layout]) -> TrieNode | None:
    """A child of `cursor` for `key`, with what follows, from recorded children; or None."""
    for known in _bases(cursor):
        symbols = _understood(key, [k for k, _ in known])
        if symbols is None:
            continue
        try:
            return _grow(cursor, key, [node for _, node in known], symbols, list(outside))
        except _Differs:
            continue
    return None


def may_follow(cursor: TrieNode, key: tuple) -> bool:
    """Whether recorded children explain the key."""
    return any(_understood(key, [k for k, _ in known]) is not None for known in _bases(cursor))


def _bases(cursor: TrieNode) -> list[list[tuple[tuple, TrieNode]]]:
    """Sets of recorded children to start from: all of the last four, then pairs."""
    known = [(k, n) for k, n in list(cursor.children.items()) if not n.derived][-_CASES:]
    pairs = [list(p) for p in itertools.combinations(known, 2)]
    triples = [list(p) for p in itertools.combinations(known, 3)]
    return [b for b in (known, *triples, *pairs) if len(b) > 1]


def _understood(key: tuple, known: list[tuple]) -> _Symbols | None:
    """The symbols by which `key` follows from known ones, or None."""
    symbols = _Symbols(len(known))
    try:
        for values in _leaves((*known, key)):
            symbols.learn(values[:-1], values[-1])
        fits = symbols.known and _fit(tuple(known), symbols) == key
    except _Differs:
        return None
    return symbols if fits else None


def _leaves(cases: tuple) -> list[tuple[int, ...]]:
    """The integers of things alike, case by case."""
    first = cases[0]
    if any(type(x) is not type(first) for x in cases):
        raise _Differs
    if isinstance(first, tuple):
        if any(len(x) != len(first) for x in cases):
            raise _Differs
        return [leaf for parts in zip(*cases, strict=True) for leaf in _leaves(parts)]
    if isinstance(first, Op):
        return _leaves(tuple(_values(x) for x in cases))
    if isinstance(first, int) and not isinstance(first, bool):
        return [cases]
    return []


def _values(op: Op) -> tuple:
    return tuple(getattr(op, f.name) for f in fields(op))


def _fit(cases: tuple, symbols: _Symbols) -> Any:
    """The value at the wanted size; _Differs when more than integers differ."""
    first = cases[0]
    if all(x is first for x in cases):
        return first
    kind = type(first)
    if any(type(x) is not kind for x in cases):
        raise _Differs
    if isinstance(first, tuple):
        if any(len(x) != len(first) for x in cases):
            raise _Differs
        return tuple(_fit(parts, symbols) for parts in zip(*cases, strict=True))
    if isinstance(first, Op):
        return kind(*_fit(tuple(_values(x) for x in cases), symbols))
    if isinstance(first, int) and not isinstance(first, bool):
        return symbols.at(cases)
    if all(x == first for x in cases):
        return first
    raise _Differs


def _grow(
    cursor: TrieNode, key: tuple, known: list[TrieNode], symbols: _Symbols, outside: list[Layout]
) -> TrieNode:
    """The subtree that the known nodes have in common, at the wanted size."""
    results: dict[int, Layout] = {}
    metas: dict[int, Meta] = {}
    for n in cursor.path(0):
        if n.meta is not None:
            m = n.meta
            results[n.depth] = Layout(m.shape, m.strides, m.dtype.np)
            metas[n.depth] = m
    top = None
    stack = [(cursor, key, known, symbols)]
    made: list[tuple[TrieNode, tuple, TrieNode]] = []
    while stack:
        parent, k, cases, symbols = stack.pop()
        if len(made) > _LONGEST:
            raise _Differs
        node = _node(parent, k, cases, outside, results, metas)
        made.append((parent, k, node))
        top = top or node
        following = _following(cases, symbols)
        if len(following) > 1:  # a fork: what is known below it is found again by matching
            continue
        stack.extend((node, *how) for how in following)
    for parent, k, node in made:  # nothing was changed until all of it held
        parent.children[k] = node
    assert top is not None
    return top


def _following(
    cases: list[TrieNode], symbols: _Symbols
) -> list[tuple[tuple, list[TrieNode], _Symbols]]:
    """The calls that come next in all known cases, and their key at the wanted size.

    Where not all go on alike, as many as do: a first step makes an optimizer's state.
    """
    count = len(cases)
    for size in range(count, 1, -1):
        found: list[tuple[tuple, list[TrieNode], _Symbols]] = []
        for chosen in itertools.combinations(range(count), size):
            part = symbols.of(chosen)
            for ways in itertools.product(*(cases[i].children.items() for i in chosen)):
                try:
                    fitted = _fit(tuple(k for k, _ in ways), part)
                except _Differs:
                    continue
                found.append((fitted, [n for _, n in ways], part))
                if len(found) > 1:
                    return found
        if found:
            return found
    return []


def _node(
    parent: TrieNode,
    key: tuple,
    cases: list[TrieNode],
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
        elif r.__class__ is int and ~r >= len(outside):  # known there from an op that failed
            raise _Differs
        else:
            refs.append(r)
    op = key[0]
    if op is WRITE:
        node = TrieNode(parent, op, tuple(refs), None)
    else:
        meta = _meta(op, refs, cases, outside, results, metas)
        node = TrieNode(parent, op, tuple(refs), meta)
        results[node.depth] = Layout(meta.shape, meta.strides, meta.dtype.np)
        metas[node.depth] = meta
    node.line = cases[0].line
    node.derived = True
    return node


def _meta(
    op: Op,
    refs: list,
    cases: list[TrieNode],
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
    given = [n.meta for n in cases if n.meta is not None]
    assert len(given) == len(cases)
    if any(not isinstance(n, int) or n < 0 for n in t.shape) or t.dtype is not given[0].dtype:
        raise _Differs
    view = op.layout(layouts[0]) if op.is_view else None  # type: ignore[attr-defined]
    is_view = view is not None
    if any(m.view != is_view for m in given):
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
