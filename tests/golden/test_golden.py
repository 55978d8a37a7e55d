"""Golden texts: a program at each stage of the compiler.  `make golden` rewrites them."""

from __future__ import annotations

import re

import numpy as np

import weft
from weft.compile.fuse import fuse, loop_exprs
from weft.compile.passes import PASSES
from weft.compile.program import Program
from weft.compile.symbolic import generalise
from weft.compile.trace import trace
from weft.core import scalar as S
from weft.core.graph import to_text
from weft.core.graph_text import parse
from weft.kernels.layout import Layout
from weft.kernels.schedule.lower import lower_nest


def small(rows):
    """A linear layer with gelu and layer norm, traced on a batch of `rows`."""
    rng = np.random.default_rng(0)
    w = weft.tensor(rng.standard_normal((8, 6)).astype(np.float32))
    b = weft.zeros(8)

    def f(x):
        y = weft.nn.functional.gelu(weft.nn.functional.linear(x.reshape(x.shape[0], -1), w, b))
        return weft.nn.functional.layer_norm(y, (8,)).t().t()

    made = trace(f, {"x": weft.ones(rows, 2, 3)}, {"fc.weight": w, "fc.bias": b})
    return made.graph


def without_lines(text):
    """Texts name lines of this file; they would change with every edit."""
    return re.sub(r"  # test_golden\.py:\d+", "", text)


def test_graph(golden):
    golden("linear.graph", without_lines(to_text(small(4))))


def test_symbolic_graph(golden):
    golden("linear.symbolic", without_lines(to_text(generalise(small(2), small(3), 2, 3))))


def test_each_pass(golden):
    g = small(4)
    for p in PASSES:
        g = p.run(g)
        golden(f"linear.after-{p.name}", without_lines(to_text(g)))


def test_schedule(golden):
    g = small(4)
    layouts = {n.name: Layout.contiguous(n.type.shape, n.type.dtype.np) for n in g.inputs}
    golden("linear.schedule", Program(g, layouts).describe())


def test_loops(golden):
    g = small(4)
    texts = []
    for group in fuse(g):
        if group.is_loop and group.reduce is None:
            exprs, reads = loop_exprs(group)
            ins = tuple(Layout.contiguous(r.type.shape, r.type.dtype.np) for r in reads)
            outs = tuple(Layout.contiguous(n.type.shape, n.type.dtype.np) for n in group.wanted)
            texts.append(str(lower_nest(tuple(exprs), ins, outs)))
    golden("linear.loops", "\n\n".join(texts))


def test_scalar_composites(golden):
    x = S.Arg(0, weft.float32)
    lines = [f"{f.__name__}: {S.show(f(x))}" for f in (S.sigmoid, S.silu, S.gelu, S.softplus)]
    golden("scalars", "\n".join(lines))


def test_graph_text_reads_back():
    for g in (small(4), generalise(small(2), small(3), 2, 3)):
        assert to_text(parse(to_text(g))) == to_text(g)
