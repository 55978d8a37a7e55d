"""Program: a graph as native launches over planned memory.

Groups (compile/fuse.py) become entries of one native table, run by one call; ops that NumPy
computes stand between ranges of it.  Every value has a place: an outside tensor's memory, an
output made anew on each run, a slot of the arena shared by values whose lives do not overlap, a
number, a constant.  Views are places, not work.  A value that is written back to memory nobody
reads any more is computed straight into it; and one whose loop is the last to read an operand of
the same layout takes the operand's slot (a residual sum: its lines are loaded once, not twice).

Long because every decision here is about one table: where each value lies when a step runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from weft.compile.arena import ARENA, Memory, Slots
from weft.compile.fuse import REDUCTIONS, Group, fuse, is_complex, loop_exprs, readers_of, why_apart
from weft.compile.passes import run_passes
from weft.compile.passes.layout import channels_last, channels_last_layout
from weft.compile.steps import Entry, HostCall, Place, describe, label_of, loops_of
from weft.compile.tune import shown, tuned
from weft.compile.weights import Rounding, Weight, Weights
from weft.core import config, dtype
from weft.core import scalar as S
from weft.core.graph import Graph, Node
from weft.core.op import Op
from weft.core.types import numel
from weft.kernels.eager import plan_copy, plan_fused, plan_reduce
from weft.kernels.layout import Layout
from weft.kernels.schedule.epilogue import Epilogue
from weft.ops import dispatch
from weft.ops.attention import Attention
from weft.ops.index import IndexPut
from weft.ops.join import Concat
from weft.ops.kinds import Create, Elementwise, Summing
from weft.ops.pad import Pad
from weft.ops.pool import MaxPool2dTake
from weft.ops.strided import WriteStrided
from weft.ops.view import Permute, Reshape, Slice, SliceBack
from weft.runtime import machine, memory, native


class Program:
    """A graph made ready to run, any number of times, on inputs of one set of layouts."""

    def __init__(
        self,
        graph: Graph,
        layouts: Mapping[str, Layout],
        into: Mapping[str, str] | None = None,
        *,
        autotune: bool = False,
    ) -> None:
        """`into`: outputs that are written to an input's memory (output name -> input name)."""
        self._autotune = autotune
        self.graph = graph = run_passes(graph)
        self.into = dict(into or {})
        self.layouts = dict(layouts)
        self.groups = fuse(graph, self.into)
        self.channels_last = channels_last(graph, self.groups)
        self.places: dict[int, Place] = {}
        self.steps: list[Entry | HostCall] = []
        self._later: list[tuple[Entry, Callable[[], native.Launch], str]] = []
        self._launches: dict[tuple, native.Launch] = {}
        self.consts: list[np.ndarray] = []
        self.direct: set[str] = set()  # outputs computed straight into an input's memory
        self.out_types = {k: v.type for k, v in graph.outputs.items()}
        self._plan()
        made = [(k, t) for k, t in self.out_types.items() if k not in self.direct]
        self._made = [(k, t.shape, t.dtype.np) for k, t in made]
        self._assemble()
        if config.wants(4):
            apart = why_apart(graph, self.groups)
            config.show(4, "schedule", "\n".join([self.describe(), *apart]))

    # ------------------------------------------------------------------ planning

    def _plan(self) -> None:
        for n in self.graph.inputs:
            self.places[id(n)] = Place(("in", n.name), 0, self.layouts[n.name])
        self._readers_of = readers_of(self.graph)
        self._name_outputs()
        slots = Slots()
        order = {id(n): i for i, group in enumerate(self.groups) for n in group.nodes}
        self._last = self._last_uses(order)
        groups = shown(self.groups) if self._autotune else self.groups
        for i, group in enumerate(groups):
            for n in group.wanted:
                if n.op.is_view and self._as_view(n):  # type: ignore[union-attr]
                    continue
                if isinstance(n.op, Create) and not n.op.effect:
                    self._constant(n)
                    continue
                self._give_place(n, i, slots)
            if group.wanted and id(group.wanted[0]) in self._pending:
                planned = len(self.steps)
                self._emit(group, i, slots)
                for step in self.steps[planned:]:
                    step.line = self.graph.lines.get(group.nodes[0].serial)
            slots.release(i)
        self.arena_bytes = slots.total
        for name, source in self.into.items():
            if name not in self.direct:
                n = self.graph.outputs[name]
                at = Place(("in", source), 0, self.layouts[source])
                plan = partial(plan_copy, self.places[id(n)].layout, at.layout)
                copy = self._step(plan, at, [self.places[id(n)]], n.op, f"write {name}")  # type: ignore[arg-type]
                copy.aside = True
        with machine.compiled_ahead(text for _, _, text in self._later):
            for entry, plan, _ in self._later:
                entry.launch = plan()
        self._later.clear()

    def _name_outputs(self) -> None:
        self._pending: set[int] = set()
        self._output_of = {}
        # a step that fails must find the inputs as they were: the ops are then run one by one
        may_fail = (i for i, group in enumerate(self.groups) if _may_fail(group))
        self._last_risk = max(may_fail, default=-1)
        readers = self._readers()
        order = {id(n): i for i, group in enumerate(self.groups) for n in group.nodes}
        for name, n in self.graph.outputs.items():
            source = self.into.get(name)
            if source is None:
                self._output_of[id(n)] = ("out", name)
            elif self._can_write_directly(n, source, readers, order) or self._sets_one_place(
                n, source, readers[source], order[id(n)]
            ):
                self._output_of[id(n)] = ("in", source)
                self.direct.add(name)
            else:
                for made in self._written_in_place(n, source, readers[source], order):
                    self._output_of[id(made)] = ("in", source)
                    self.direct.add(name)

    def _readers(self) -> dict[str, list[tuple[Node, Node]]]:
        """Input name -> (reader, the node it reads: the input or a view of it)."""
        root: dict[int, str] = {id(n): n.name for n in self.graph.inputs}
        readers: dict[str, list[tuple[Node, Node]]] = {n.name: [] for n in self.graph.inputs}
        for n in self.graph.nodes():
            for a in n.args:
                if isinstance(a, Node) and id(a) in root:
                    readers[root[id(a)]].append((n, a))
                    if n.op.is_view:  # type: ignore[union-attr]
                        root[id(n)] = root[id(a)]
        return readers

    def _sets_one_place(
        self, n: Node, source: str, readers: list[tuple[Node, Node]], mine: int
    ) -> bool:
        """Whether the node sets one index of a tensor that nobody else reads as it was: a step of
        a cache. It is set where it lies: to do so twice, should a later op fail, changes nothing.
        """
        if not isinstance(n.op, IndexPut) or n.op.mode != "set" or id(n) in self._output_of:
            return False
        x, _, *indices = n.args
        layout = self.layouts[source]
        own = isinstance(x, Node) and x.op is None and x.name == source and len(readers) == 1
        # an index outside then leaves the tensor alone
        one = all(isinstance(i, Node) and numel(i.type.shape) == 1 for i in indices)
        if not own or not one or not layout.is_contiguous or layout.shape != n.type.shape:
            return False
        later = (g for g in self.groups[mine + 1 :] if _may_fail(g))
        return all(g.nodes[0].serial > n.serial for g in later) and not any(
            self.graph.outputs[k] is n for k in self.graph.outputs if self.into.get(k) != source
        )

    def _written_in_place(
        self, n: Node, source: str, readers: list[tuple[Node, Node]], order: dict[int, int]
    ) -> list[Node]:
        """The writes that make n of the input, the last first, if they may be done in its memory:
        nobody else reads it meanwhile, and what may fail (the first, before it writes) has run.
        """
        layout = self.layouts[source]
        made, x = [], n
        while _writes_part(x):
            own = not made or len(self._readers_of.get(id(x), ())) == 1
            if id(x) in self._output_of or not own:
                return []
            made.append(x)
            x = x.args[0]
            assert isinstance(x, Node)
        if not made or x.op is not None or x.name != source:
            return []
        first = order[id(made[-1])]
        alone = all(r is made[-1] or order[id(r)] < first for r, _ in readers)
        once = sum(r is made[-1] for r, _ in readers) == 1 and made[-1].args.count(x) == 1
        others = (k for k in self.graph.outputs if self.into.get(k) != source)
        kept = any(self.graph.outputs[k] is w for k in others for w in made)
        fits = layout.is_contiguous and layout.shape == n.type.shape and first >= self._last_risk
        return made if fits and alone and once and not kept else []

    def _can_write_directly(
        self,
        n: Node,
        source: str,
        readers: dict[str, list[tuple[Node, Node]]],
        order: dict[int, int],
    ) -> bool:
        layout = self.layouts[source]
        if not layout.is_contiguous or layout.shape != n.type.shape or id(n) in self._output_of:
            return False
        mine = order[id(n)]
        group = self.groups[mine]
        if mine <= self._last_risk or not group.is_loop or group.reduce is not None:
            return False
        for reader, read in readers[source]:
            if order[id(reader)] > mine:
                return False
            if order[id(reader)] == mine and (
                read.op is not None or reader.type.shape != n.type.shape
            ):
                return False
        return all(
            self.graph.outputs[k] is not n for k in self.graph.outputs if self.into.get(k) != source
        )

    def _last_uses(self, order: dict[int, int]) -> dict[int, int]:
        """Node -> index of the last group that reads it, itself or through views."""
        last: dict[int, int] = {}
        end = len(self.groups)
        for n in self.graph.outputs.values():
            last[id(n)] = end
        for n in reversed(self.graph.nodes()):
            mine = max(order.get(id(n), 0), last.get(id(n), 0) if n.op.is_view else 0)  # type: ignore[union-attr]
            for a in n.args:
                if isinstance(a, Node):
                    last[id(a)] = max(last.get(id(a), -1), mine)
        return last

    def _as_view(self, n: Node) -> bool:
        """Give a view node its place in its operand's memory; False where it must copy."""
        x = n.args[0]
        assert isinstance(x, Node)
        source = self.places[id(x)]
        found = n.op.layout(source.layout)  # type: ignore[union-attr]
        if found is None:
            return False
        layout, offset = found
        apart = id(x) in self.channels_last and id(n) not in self.channels_last
        if apart and not layout.is_contiguous:
            return False  # its readers may count on a contiguous value, which they saw recorded
        self.places[id(n)] = Place(source.base, source.offset + offset, layout)
        return True

    def _constant(self, n: Node) -> None:
        value = n.op.host()  # type: ignore[union-attr]
        self.consts.append(np.ascontiguousarray(value))
        layout = Layout.contiguous(n.type.shape, n.type.dtype.np)
        self.places[id(n)] = Place(("const", len(self.consts) - 1), 0, layout)

    def _give_place(self, n: Node, i: int, slots: Slots) -> None:
        self._pending.add(id(n))
        if id(n) in self.places:  # of a join: its operands are computed where it lies
            return
        layout = self._layout(n)
        base = self._output_of.get(id(n))
        if base is None:
            joined = self._part_of_join(n, layout, i, slots)
            if joined is not None:
                self.places[id(n)] = joined
                return
            base = self._over_operand(n, layout, i, slots) or self._slot(n, layout, i, slots)
        self.places[id(n)] = Place(base, 0, layout)

    def _layout(self, n: Node) -> Layout:
        """How a value lies that has memory of its own."""
        if id(n) in self.channels_last:
            return channels_last_layout(n.type)
        layout = Layout.contiguous(n.type.shape, n.type.dtype.np)
        own = isinstance(n.op, (Concat, Attention)) and id(n) not in self._output_of
        return self._read_order(n, layout) if own else layout

    def _part_of_join(self, n: Node, layout: Layout, i: int, slots: Slots) -> Place | None:
        """Where n lies in the reader that joins samples, if these lie as n's do, and as long."""
        joins = [r for r in self._readers_of.get(id(n), []) if r.op == Concat(0)]
        if len(joins) != 1:
            return None
        join = joins[0]
        if self._last.get(id(n), i) > self._last.get(id(join), i):
            return None
        at = 0
        for a in join.args:
            if a is n:
                break
            at += a.type.shape[0]  # type: ignore[union-attr]
        whole = self._layout(join)
        part, offset = Slice(0, at, at + n.type.shape[0], 1).layout(whole)
        base = self._output_of.get(id(join))
        if part.strides != layout.strides or (base is not None and base[0] == "in"):
            return None
        if id(join) not in self.places:
            base = base or self._slot(join, whole, i, slots, behind=True)
            self.places[id(join)] = Place(base, 0, whole)
        return Place(self.places[id(join)].base, offset, layout)

    def _slot(
        self, n: Node, layout: Layout, i: int, slots: Slots, *, behind: bool = False
    ) -> tuple[str, int]:
        size = layout.size * n.type.dtype.itemsize
        return "arena", slots.take(size, self._last.get(id(n), i), behind=behind)

    def _over_operand(
        self, n: Node, layout: Layout, i: int, slots: Slots
    ) -> tuple[str, int] | None:
        """The slot of an operand that lies as n does, where n's loop is the last to read it: each
        element is read before it is written.
        """
        group = self.groups[i]
        product, factors = group.product, []
        if product is not None:
            op, factors = product.op, [a for a in product.args[:2] if isinstance(a, Node)]
            types = (a.type for a in product.args if isinstance(a, Node))
            if not isinstance(op, Summing) or not op.sums_apart(*types):
                return None
        elif not group.is_loop and not _writes_part(n):
            return None
        if group.reduce is not None or any(w.op.is_view for w in group.wanted):  # type: ignore[union-attr]
            return None
        inside = {id(m) for m in group.nodes}
        operands = [a for m in group.nodes for a in m.args if isinstance(a, Node)]
        reads = [a for a in operands if id(a) not in inside]
        if _writes_part(n):
            reads, factors = operands[:1], operands[1:]
        factor_bases = [self.places[id(a)].base for a in factors]
        for a in reads:
            place = self.places[id(a)]
            if place != Place(place.base, 0, layout) or place.base[0] != "arena":
                continue
            alike = (p == place for r in reads if (p := self.places[id(r)]).base == place.base)
            if (
                a.type == n.type
                and place.base not in factor_bases
                and all(alike)
                and slots.hand_over(place.base[1], i, self._last.get(id(n), i))
            ):
                return place.base
        return None

    def _read_order(self, n: Node, layout: Layout) -> Layout:
        """The layout of a value whose only reader permutes it: the order in which that reads."""
        readers = self._readers_of.get(id(n), [])
        if len(readers) != 1 or not isinstance(readers[0].op, Permute):
            return layout
        dims, shape = readers[0].op.dims, readers[0].type.shape
        steps = Layout.contiguous(shape, layout.dtype).strides
        strides = dict(zip(dims, steps, strict=True))
        return Layout(layout.shape, tuple(strides[d] for d in range(len(dims))), layout.dtype)

    def _emit(self, group: Group, i: int, slots: Slots) -> None:
        n = group.wanted[0]
        op = n.op
        assert op is not None
        out = self.places[id(n)]
        if group.product is not None:
            self._emit_product(group, group.product, i, slots)
            return
        if group.pieces is not None:
            self._emit_pieces(group.pieces, out, i, slots)
            return
        if isinstance(op, MaxPool2dTake) and group.both is not None:
            outs = [self.places[id(w)] for w in group.wanted]
            ins = [*outs[1:], self.places[id(n.args[0])]]
            layouts = [p.layout for p in (ins[-1], *outs)]
            plan = partial(op.plan_both if outs[1:] else op.plan_alone, *layouts)
            self._step(plan, out, ins, op, label_of(group))
            return
        if group.is_loop:
            exprs, reads = loop_exprs(group)
            ins = [self.places[id(r)] for r in reads]
            layouts = [p.layout for p in ins]
            if group.reduce is not None:
                r = group.reduce.op
                assert isinstance(r, REDUCTIONS)
                plan = partial(
                    plan_reduce, r.combine, exprs[0], r.dims, r.keepdim, layouts, out.layout,
                    others=exprs[1:],
                )  # fmt: skip
                self._step(plan, out, ins, r, label_of(group))
                return
            outs = [self.places[id(w)] for w in group.wanted]
            plan = partial(_fused, exprs, layouts, [p.layout for p in outs])
            made = self._step(plan, out, [*outs[1:], *ins], op, label_of(group))
            made.loops = loops_of(exprs, ins, outs)
            return
        ins = [self.places[id(a)] for a in n.args if isinstance(a, Node)]
        if isinstance(op, Reshape):  # one that no strides can express
            source = ins[0].layout
            flat = Layout.contiguous(source.shape, source.dtype)
            self._step(partial(plan_copy, source, flat), out, ins, op, str(op))
        elif isinstance(op, (Concat, SliceBack)):
            self._assemble_pieces(op, ins, out)
        elif isinstance(op, Pad) and not is_complex(n):
            source, layout = ins[0].layout, out.layout
            self._fill(out, op.value, op)
            before = (a * step for (a, _), step in zip(op.widths, layout.strides, strict=True))
            inside = Layout(source.shape, layout.strides, layout.dtype)
            to = Place(out.base, out.offset + sum(before), inside)
            self._step(partial(plan_copy, source, inside), to, ins, op, str(op))
        elif isinstance(op, WriteStrided):
            base, source = ins
            if out.base != base.base:
                self._step(partial(plan_copy, base.layout, out.layout), out, [base], op, "base")
            layout = Layout(source.layout.shape, op.strides, source.layout.dtype)
            to = Place(out.base, out.offset + op.offset, layout)
            self._step(partial(plan_copy, source.layout, layout), to, [source], op, str(op))
        elif op.plan_in_place is not None and out.base == ins[0].base:
            plan = partial(op.plan_in_place, [p.layout for p in ins], out.layout)
            self._step(plan, out, ins, op, str(op))
        elif op.plan is None:
            self.steps.append(HostCall(op, ins, out, op.host))
        elif is_complex(n):
            self.steps.append(HostCall(op, ins, out, dispatch.complex_host(op)))
        else:
            best = partial(self._best, op, op.plan)
            made = self._readable_step(best, out, ins, op, str(op), i, slots)
            if isinstance(op, Summing):
                made.packed = partial(op.packed, [p.layout for p in made.ins], out.layout)

    def _step(
        self, plan: Callable[[], native.Launch], out: Place, ins: list[Place], op: Op, label: str
    ) -> Entry:
        """A launch, planned at the end where kernels are to be compiled: all cores do so then."""
        made = Entry(native.Launch(()), out, ins, op, label)
        try:
            with nullcontext() if self._autotune else machine.postponing():
                made.launch = plan()
        except machine.Uncompiled as missing:
            self._later.append((made, plan, str(missing)))
        self.steps.append(made)
        return made

    def _readable_step(
        self, plan: Callable[..., native.Launch], out: Place, ins: list[Place], op: Op, label: str,
        i: int, slots: Slots,
    ) -> Entry:  # fmt: skip
        """`_step` of plan(layouts, layout), over copies where the kernel does not read a layout."""

        def step(ins: list[Place]) -> Entry:
            return self._step(
                partial(plan, [p.layout for p in ins], out.layout), out, ins, op, label
            )

        try:
            return step(ins)
        except ValueError:
            return step([self._dense(p, op, i, slots) for p in ins])

    def _emit_product(self, group: Group, n: Node, i: int, slots: Slots) -> None:
        """A product whose results go through a loop: tile by tile, or the loop afterwards."""
        op = n.op
        assert isinstance(op, Summing)
        exprs, reads = loop_exprs(group)
        outs = [self.places[id(w)] for w in group.wanted if not w.op.is_view]  # type: ignore[union-attr]
        ab = [self.places[id(a)] for a in n.args[:2] if isinstance(a, Node)]
        more = [self.places[id(r)] for r in reads[1:]]
        shape = group.nodes[-1].type.shape
        over = [_seen(p.layout, shape) for p in outs]
        sums = _seen(outs[0].layout, n.type.shape)
        own = len(n.args) - 2
        ins = tuple(op.beside(p.layout) if k < own else p.layout for k, p in enumerate(more))
        factors = [p.layout for p in ab]
        end = Epilogue(tuple(exprs), ins, tuple(over))
        best = partial(self._best, op, op.plan_sums, factors, sums)
        inside = [*ab, *outs[1:], *more]
        try:
            made = self._step(partial(best, end), outs[0], inside, op, label_of(group))
            made.packed = partial(op.packed, factors, sums, end)
        except ValueError:  # the loop reads what lies in no rows: it follows, in place
            if any(p.base == outs[0].base for p in more):  # which the sums shall not overwrite
                n, at = group.wanted[0], outs[0].layout
                outs[0] = self.places[id(n)] = Place(self._slot(n, at, i, slots), 0, at)
            made = self._step(best, outs[0], ab, op, str(op))
            made.packed = partial(op.packed, factors, sums)
            follow = partial(_fused, exprs, [over[0], *ins], over)
            ins = [*outs[1:], outs[0], *more]
            self._step(follow, outs[0], ins, op, label_of(group)).aside = True

    def _emit_pieces(self, n: Node, out: Place, i: int, slots: Slots) -> None:
        """An attention whose keys and values lie in pieces."""
        op, (q, k, v, *mask) = n.op, (a for a in n.args if isinstance(a, Node))
        assert isinstance(op, Attention)
        ins = [self.places[id(a)] for a in (q, *k.args, *v.args, *mask)]
        self._readable_step(op.plan_pieces, out, ins, op, f"{op} of pieces", i, slots)

    def _best(
        self,
        op: Op,
        plan: Callable[..., native.Launch],
        ins: list[Layout],
        out: Layout,
        end: Epilogue | None = None,
    ) -> native.Launch:
        """The launch of a kernel by its plan, one for all slices of a batch; with autotune the
        fastest of several.
        """
        more = () if end is None else (end,)
        key = (op, plan.__name__, *ins, out, *more)
        found = self._launches.get(key)
        if found is None:
            found = self._launches[key] = self._planned(op, plan, ins, out, end)
        return found

    def _planned(
        self,
        op: Op,
        plan: Callable[..., native.Launch],
        ins: list[Layout],
        out: Layout,
        end: Epilogue | None,
    ) -> native.Launch:
        more = () if end is None else (end,)
        if not self._autotune:
            return plan(ins, out, *more)
        operands = [out, *ins] if end is None else [end.outs[0], *ins, *end.outs[1:], *end.ins]
        return tuned(f"{op} {more}", lambda: plan(ins, out, *more), operands)

    def _dense(self, p: Place, op: Op, i: int, slots: Slots) -> Place:
        """The operand, copied where it is not contiguous."""
        if p.layout.is_contiguous:
            return p
        flat = Layout.contiguous(p.layout.shape, p.layout.dtype)
        slot = slots.take(flat.size * flat.dtype.itemsize, i)
        to = Place(("arena", slot), 0, flat)
        copy = partial(plan_copy, p.layout, flat)
        self._step(copy, to, [p], op, f"{op.name} operand").aside = True
        return to

    def _fill(self, to: Place, value: Any, op: Op) -> None:
        layout = to.layout.pairs() if to.layout.dtype.kind == "c" else to.layout
        number = S.Const(value, dtype.from_np(layout.dtype))
        self._step(partial(_fused, [number], [], [layout]), to, [], op, f"{op.name} fill")

    def _assemble_pieces(self, op: Concat | SliceBack, ins: list[Place], out: Place) -> None:
        """Copies into the parts of a result, and zeros where no operand lies."""
        pieces: list[tuple[Slice, Place | None]] = []
        if isinstance(op, Concat):
            at = 0
            for p in ins:
                size = p.layout.shape[op.dim]
                pieces.append((Slice(op.dim, at, at + size, 1), p))
                at += size
        else:
            stop = op.start + op.step * ins[0].layout.shape[op.dim]
            if op.step == 1:
                pieces.append((Slice(op.dim, 0, op.start, 1), None))
                pieces.append((Slice(op.dim, stop, op.size, 1), None))
            else:
                pieces.append((Slice(op.dim, 0, op.size, 1), None))
            pieces.append((Slice(op.dim, op.start, stop, op.step), ins[0]))
        for part, source in pieces:
            found = part.layout(out.layout)
            assert found is not None
            layout, offset = found
            to = Place(out.base, out.offset + offset, layout)
            if source == to:
                continue
            if source is None:
                self._fill(to, 0, op)
            else:
                plan = partial(plan_copy, source.layout, layout)
                self._step(plan, to, [source], op, f"{op.name} part")

    # ------------------------------------------------------------------ running

    def _assemble(self) -> None:
        """Make the table, the ranges between host calls, and the list of pointers to set."""
        entries = [s for s in self.steps if isinstance(s, Entry) and s.launch.stages]
        self.entries = entries
        self.table = native.make_table([(e.launch, 0, [0] * len(e.ins)) for e in entries])
        self.table.owner = self  # for profiles, which time each entry
        self.ranges: list[tuple[int, int] | HostCall] = []
        at = 0
        for s in self.steps:
            if isinstance(s, HostCall):
                self.ranges.append(s)
            elif s.launch.stages:
                if self.ranges and not isinstance(self.ranges[-1], HostCall):
                    self.ranges[-1] = (self.ranges[-1][0], at + 1)  # pyright: ignore[reportIndexIssue]
                else:
                    self.ranges.append((at, at + 1))
                at += 1
        self.slots: dict[tuple, list[tuple[int, int, int]]] = {}
        for i, e in enumerate(entries):
            for slot, p in enumerate([e.out, *e.ins]):
                base = ("arena", None) if p.base[0] == "arena" else p.base
                extra = p.base[1] if p.base[0] == "arena" else 0
                offset = extra + p.offset * p.layout.dtype.itemsize
                self.slots.setdefault(base, []).append((i, slot, offset))
        self._bases: dict[str, tuple] = {}  # of inputs
        self._set: dict[tuple, int] = {}
        self._fixed: dict[str, np.ndarray] = {}
        # the call whose inputs the pointers are, but those that lay elsewhere in the last run
        self._former, self._elsewhere = 0, set[str]()
        # inputs and outputs, while a run lasts
        self._running: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]] = {}, {}
        self.owner: Any = None  # who sets pointers of the table by himself (see `take`)
        for i, c in enumerate(self.consts):
            self._point(("const", i), native.address(c))
        self.weights = Weights(self.table, self.slots, self._weights())

    def _weights(self) -> Iterator[Weight]:
        """What may not change between runs: see compile/weights.py."""
        made = {(t.shape, t.dtype) for t in self.out_types.values()}
        inputs = {n.name: n.type for n in self.graph.inputs}
        first = {
            name
            for name, readers in self._readers().items()
            if any(isinstance(r.op, Summing) and r.args[0] is read for r, read in readers)
        }
        by = {i: r for r in self._roundings() for i in r.readers}
        for i, e in enumerate(self.entries):
            if e.packed is None:
                continue
            place = by[i].source if i in by else e.ins[1]
            if (base := place.base)[0] != "in":
                continue
            t = inputs[base[1]]
            if (t.shape, t.dtype) not in made and base[1] not in first:
                yield Weight(i, place, e.launch, e.packed, by.get(i))

    def _roundings(self) -> list[Rounding]:
        """Loops of one input whose result is the second operand of products, and nothing else."""
        found: list[Rounding] = []
        lying: dict[tuple, Rounding] = {}  # by the memory that holds their results
        i = 0
        for s in self.steps:
            entry = isinstance(s, Entry)
            if entry and not s.launch.stages:
                continue
            for k, p in enumerate(s.ins):
                if (r := lying.get(p.base)) is None:
                    continue
                if entry and k == 1 and s.packed is not None and p == r.out:
                    r.readers.append(i)
                else:
                    r.alone = False
            lying.pop(s.out.base, None)
            if entry:
                single = len(s.ins) == 1 and s.ins[0].base[0] == "in"
                if single and isinstance(s.op, Elementwise) and s.out.base[0] == "arena":
                    lying[s.out.base] = Rounding(i, s.ins[0], s.out, s.launch)
                    found.append(lying[s.out.base])
                i += 1
        return [r for r in found if r.alone]

    def _point(self, base: tuple, address: int) -> None:
        if self._set.get(base) != address:
            self._set[base] = address
            self.owner = None
            self._former = 0
            self.table.set_pointers(self.slots.get(base, ()), address)

    def fix_input(self, name: str, array: np.ndarray) -> None:
        """This input is read from `array`'s memory on every run; the caller changes its values."""
        self._fixed[name] = array
        self._point(("in", name), native.address(array))

    def take(
        self, owner: Any, inputs: Mapping[str, np.ndarray], moving: Sequence[tuple[str, str]]
    ) -> None:
        """Set the pointers of the arena and these inputs; `owner` will set those of `moving` before
        each run of the table, while it still is `self.owner`.  ARENA.lock is held.
        """
        ARENA.ensure(self.arena_bytes)
        self._point(("arena", None), native.address(ARENA.memory))
        for name, a in inputs.items():
            self._point(("in", name), native.address(a))
        for base in moving:
            self._set.pop(base, None)
        self.owner = owner

    def pointers(self, kind: str, name: str) -> list[tuple[int, int]]:
        """Where the table keeps pointers to an input or output, with their offsets in it."""
        return [(self.table.place(i, slot), at) for i, slot, at in self.slots.get((kind, name), ())]

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        former: int = 0,
        elsewhere: AbstractSet[str] = frozenset(),
    ) -> dict[str, np.ndarray]:
        """The outputs; those in `into` are written to their input's memory instead.

        Inputs lie where those of the call `former` lay, but those `elsewhere` (compile/former.py).
        """
        outs = {k: memory.empty(shape, np_dtype) for k, shape, np_dtype in self._made}
        with ARENA.lock:
            ARENA.ensure(self.arena_bytes)
            address = native.address
            self._point(("arena", None), address(ARENA.memory))
            known, bases, moved = self._set, self._bases, None
            if former and former == self._former:
                moved = self._elsewhere | elsewhere
            found = inputs.items() if moved is None else [(k, inputs[k]) for k in moved]
            for name, a in found:  # most often they lie where they lay
                base = bases.get(name) or bases.setdefault(name, ("in", name))
                if known.get(base) != (at := address(a)):
                    x = self.layouts[name]
                    if a.shape != x.shape or a.dtype != x.dtype:  # its tensor became another kind
                        raise RuntimeError(f"{a.dtype}{a.shape} where a program was made for {x}")
                    self._point(base, at)
            for name, a in outs.items():
                self._point(("out", name), address(a))
            self._former = 0
            self._running = inputs, outs
            if self.weights.all:
                self.weights.look(inputs, self._address_of, self._array, moved)
            self._former, self._elsewhere = former, elsewhere
            try:
                for r in self.ranges:
                    if isinstance(r, HostCall):
                        self._host(r)
                    else:
                        failed, status, detail = self.table.run(*r)
                        if failed >= 0:
                            self._raise(self.entries[failed], status, detail)
            finally:
                self._running = {}, {}
                for name in self.into.values():
                    memory.wrote(inputs[name])
        for name in self.into:
            outs.pop(name, None)
        return outs

    def _address_of(self, name: str) -> int:
        return self._set["in", name]

    def _array(self, p: Place) -> np.ndarray:
        """The array at a place, which keeps its memory: it may get into a traceback."""
        kind, index = p.base
        if not p.layout.size:
            return np.empty(p.layout.shape, p.layout.dtype)
        inputs, outs = self._running
        if kind == "arena":
            owner, start = ARENA.memory, index
        elif kind == "const":
            owner, start = self.consts[index], 0
        else:
            owner, start = (outs if kind == "out" else {**self._fixed, **inputs})[index], 0
        x, size = p.layout, p.layout.dtype.itemsize
        steps = [(n - 1) * s * size for n, s in zip(x.shape, x.strides, strict=True)]
        before = -sum(s for s in steps if s < 0)
        start += native.address(owner) + p.offset * size - before
        window = _Window(owner, start, before + sum(s for s in steps if s > 0) + size)
        strides = tuple(s * size for s in x.strides)
        return np.ndarray(x.shape, x.dtype, np.asarray(window), before, strides)

    def _host(self, call: HostCall) -> None:
        value = dispatch.quietly(call.compute, [self._array(p) for p in call.ins])
        np.copyto(self._array(call.out), value)

    def _raise(self, e: Entry, status: int, detail: int) -> None:
        native._detail.value = detail
        raise dispatch.failure(e.op, status, [self._array(p) for p in e.ins])

    def time_steps(self, runs: int) -> list[tuple[Entry | HostCall, float]]:
        """(step, median seconds): each step alone, again and again, on inputs of zeros."""
        rows = []
        with self.on_zeros():
            at = 0
            for s in self.steps:
                if isinstance(s, Entry) and not s.launch.stages:
                    continue
                times = []
                for _ in range(runs):
                    start = time.perf_counter()
                    if isinstance(s, HostCall):
                        self._host(s)
                    else:
                        self.table.run(at, at + 1)
                    times.append(time.perf_counter() - start)
                at += isinstance(s, Entry)
                rows.append((s, sorted(times)[runs // 2]))
        return rows

    @contextmanager
    def on_zeros(self) -> Iterator[None]:
        """A block in which every input and output has memory of its own, zeros at first."""
        ins = {k: x.zeros() for k, x in self.layouts.items()}
        outs = {
            k: Layout.contiguous(t.shape, t.dtype.np).zeros() for k, t in self.out_types.items()
        }
        with ARENA.lock:
            ARENA.ensure(self.arena_bytes)
            self._point(("arena", None), native.address(ARENA.memory))
            for kind, arrays in (("in", ins), ("out", outs)):
                for name, a in arrays.items():
                    self._point((kind, name), native.address(a))
            self._running = ins, outs
            try:
                yield
            finally:
                self._running = {}, {}
                for name, a in self._fixed.items():
                    self._point(("in", name), native.address(a))

    def memory(self) -> Memory:
        """What a run needs."""
        arrays = {name: x.size * x.dtype.itemsize for name, x in self.layouts.items()}
        results = [
            memory.block_size(numel(t.shape) * t.dtype.itemsize)
            for k, t in self.out_types.items()
            if k not in self.direct
        ]
        return Memory(
            outside=sum(memory.block_size(n) for n in arrays.values()),
            arena=memory.block_size(self.arena_bytes),
            results=sum(results),
            scratch=self.table.scratch_bytes() + sum(c.nbytes for c in self.consts),
            packed=self.weights.planned_bytes(),
        )

    def describe(self) -> str:
        """The schedule, one line a step."""
        return f"{describe(self.steps)}\narena {self.arena_bytes} bytes"


class _Window:
    """Bytes of an array's memory, for `np.asarray`: what that makes holds this by its `base`."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, owner: np.ndarray, start: int, size: int) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "version": 3, "data": (start, False), "shape": (size,), "typestr": "|u1",
        }  # fmt: skip


def _fused(exprs: list[S.Expr], ins: list[Layout], outs: list[Layout]) -> native.Launch:
    return plan_fused(exprs, ins, outs).launch


def _writes_part(n: Node) -> bool:
    """Whether the node's kernel can leave the rest of its first operand where it lies."""
    part = isinstance(n.op, WriteStrided) or (n.op is not None and n.op.plan_in_place is not None)
    return part and not is_complex(n)


def _seen(x: Layout, shape: tuple[int, ...]) -> Layout:
    """What lies at x seen with another shape, which a contiguous value may be."""
    return x if x.shape == shape else Layout.contiguous(shape, x.dtype)


def _may_fail(group: Group) -> bool:
    """Whether the kernel checks its data (an index in range, what divides integers), or NumPy
    computes it."""
    op = (group.pieces or group.nodes[0]).op
    if group.is_loop:
        whole = any(n.type.dtype.category == dtype.INT for n in group.nodes)
        return whole and S.may_fail(*loop_exprs(group)[0])
    if op is None or op.is_view or (isinstance(op, Create) and not op.effect):
        return False
    if isinstance(op, (WriteStrided, Pad)) and not is_complex(group.nodes[0]):
        return False
    return op.plan is None or is_complex(group.nodes[0]) or hasattr(op, "fail")
