"""From a recorded segment to a Graph: in-place writes become new values of a memory.

Each memory (an outside tensor, or the owner of a result's memory) has a current value, a node.
A write replaces it: by the value written, or, through a view, by the old value with that region
replaced.  A view read after a write is taken again from the current value.  What was written to
memory that outlives the segment is listed, to be copied back at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from weft.compile.record import WRITE, TrieNode
from weft.core import dtype as dt
from weft.core.graph import Builder, Graph, Node
from weft.core.types import Type, array_type
from weft.kernels.layout import Layout
from weft.ops.dispatch import NUMBERS
from weft.ops.strided import AsStrided, WriteStrided


class CannotFunctionalize(Exception):
    """The segment writes to memory that the graph cannot describe; it is run op by op instead."""


@dataclass
class Segment:
    """A segment as values: what it reads, what it makes, what it writes back."""

    graph: Graph
    outside: dict[int, Node]  # outside tensor j -> its input
    earlier: dict[int, Node]  # result k of an earlier segment -> its input
    numbers: list[tuple[int, Node]]  # place among the call's numbers -> its input
    results: dict[int, str]  # live result k -> output name
    views: list[int]  # live results that are views: taken from their base afterwards
    written: dict[str, int]  # output name -> ref (k or ~j) of the memory to copy it into


def functionalize(
    path: list[TrieNode],
    before: list[TrieNode],
    outside: list[Layout],
    shared: set[int],
    live: tuple[int, ...],
    *,
    numbers: list | None = None,
    named: dict[str, int] | None = None,
) -> Segment:
    """The graph of `path`, of which the results `live` are wanted.

    `numbers`: write these values into the graph instead of making them inputs.
    `named`: results wanted under names of their own (any, views too).

    `before`: the calls of earlier segments (for the layout and owner of their results).
    `shared`: outside tensors whose memory another outside tensor also sees.
    """
    f = _Functionalizer(path, before, outside, shared, numbers)
    return f.run(live, named or {})


class _Functionalizer:
    def __init__(
        self,
        path: list[TrieNode],
        before: list[TrieNode],
        outside: list[Layout],
        shared: set[int],
        literals: list | None,
    ) -> None:
        self.literals = literals
        self.b = Builder()
        self.path = path
        self.calls = {n.depth: n for n in (*before, *path)}
        self.first = path[0].depth
        self.outside = outside
        self.shared = shared
        self.inputs: list[Node] = []
        self.lines: dict[int, str] = {}
        self.current: dict[int, Node] = {}  # owner ref -> value now
        self.version: dict[int, int] = {}
        self.seen: dict[int, tuple[int, Node]] = {}  # view ref -> (owner's version, node)
        self.numbers: list[tuple[int, Node]] = []
        self.effects: list[Node] = []
        self.written: list[int] = []

    def run(self, live: tuple[int, ...], named: dict[str, int]) -> Segment:
        for call in self.path:
            if call.op is WRITE:
                self._write(*call.args)
            else:
                self._call(call)
        outputs: dict[str, Node] = {}
        results: dict[int, str] = {}
        views = []
        for k in live:
            if self.owner(k) != k:
                views.append(k)
            else:
                results[k] = f"r{k}"
                outputs[f"r{k}"] = self.current[k]
        outputs.update((name, self.value(k)) for name, k in named.items())
        written = {}
        for ref in self.written:
            if ref < 0 or ref < self.first:
                name = f"w{len(written)}"
                written[name] = ref
                outputs[name] = self.current[ref]
        graph = Graph(self.inputs, outputs, self.lines, self.effects)
        ext = {~r: n for r, n in self._inputs_of.items() if r < 0}
        earlier = {r: n for r, n in self._inputs_of.items() if r >= 0}
        return Segment(graph, ext, earlier, self.numbers, results, views, written)

    @property
    def _inputs_of(self) -> dict[int, Node]:
        return self.__dict__.setdefault("_input_nodes", {})

    def owner(self, ref: int) -> int:
        """The memory a reference lies in."""
        while ref >= 0:
            meta = self.calls[ref].meta
            if meta is None or not meta.view:
                break
            ref = self.calls[ref].args[0]
        return ref

    def _input(self, ref: int) -> Node:
        node = self._inputs_of.get(ref)
        if node is None:
            if ref < 0:
                x = self.outside[~ref]
                t, name = array_type(x), f"x{~ref}"
            else:
                meta = self.calls[ref].meta
                assert meta is not None
                t, name = Type(meta.shape, meta.dtype), f"v{ref}"
            node = self._inputs_of[ref] = self.b.input(name, t)
            self.inputs.append(node)
        return node

    def value(self, ref: int) -> Node:
        """The node of a reference, as of now."""
        owner = self.owner(ref)
        if owner == ref:
            if ref not in self.current:
                self.current[ref] = self._input(ref)
            return self.current[ref]
        version = self.version.get(owner, 0)
        known = self.seen.get(ref)
        if known is not None and known[0] == version:
            return known[1]
        call = self.calls[ref]
        if ref < self.first:
            meta = call.meta
            assert meta is not None
            if meta.dtype is not self._dtype(owner):
                raise CannotFunctionalize("a view of another dtype, of an earlier segment")
            if version == 0 and not self._contiguous(owner):
                raise CannotFunctionalize(f"a view of strided memory (result {ref})")
            op = AsStrided(tuple(meta.shape), tuple(meta.strides), meta.offset)
            node = self.b.node(op, self.value(owner))
        else:
            node = self.b.node(call.op, self.value(call.args[0]))
        self.seen[ref] = (version, node)
        return node

    def _dtype(self, ref: int) -> dt.dtype:
        if ref < 0:
            return dt.from_np(self.outside[~ref].dtype)
        meta = self.calls[ref].meta
        assert meta is not None
        return meta.dtype

    def _contiguous(self, ref: int) -> bool:
        if ref < 0:
            return self.outside[~ref].is_contiguous
        meta = self.calls[ref].meta
        assert meta is not None
        return Layout(meta.shape, meta.strides, meta.dtype.np).is_contiguous

    def _call(self, call: TrieNode) -> None:
        args: list[Any] = []
        at = call.numbers
        first = next((self.value(r) for r in call.args if r not in NUMBERS), None)
        for r in call.args:
            if r in NUMBERS and self.literals is not None:
                args.append(self.literals[at])
                at += 1
            elif r in NUMBERS:
                d = first.type.dtype if first is not None else dt.float32
                node = self.b.input(f"n{at}", Type((), d))
                self.inputs.append(node)
                self.numbers.append((at, node))
                args.append(node)
                at += 1
            else:
                args.append(self.value(r))  # pyright: ignore[reportArgumentType]
        node = self.b.node(call.op, *args)
        if call.line:
            self.lines.setdefault(node.serial, call.line)
        if call.op.effect:
            self.effects.append(node)
        if self.owner(call.depth) == call.depth:
            self.current[call.depth] = node
        else:
            self.seen[call.depth] = (self.version.get(self.owner(call.depth), 0), node)

    def _write(self, target: int, value: int) -> None:
        owner = self.owner(target)
        if self._dtype(owner) is not self._dtype(target):
            raise CannotFunctionalize("a write through a view of another dtype")
        if owner < 0 and ~owner in self.shared:
            raise CannotFunctionalize(f"a write to shared memory (outside tensor {~owner})")
        new = self.value(value)
        if owner != target:
            if not self._contiguous(owner):
                raise CannotFunctionalize("a write through a view of strided memory")
            meta = self.calls[target].meta
            assert meta is not None
            op = WriteStrided(tuple(meta.strides), meta.offset)
            new = self.b.node(op, self.value(owner), new)
        elif owner not in self.current:
            self._input(owner)
        self.current[owner] = new
        self.version[owner] = self.version.get(owner, 0) + 1
        if owner not in self.written:
            self.written.append(owner)
