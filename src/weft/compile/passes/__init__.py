"""The compiler as one readable list: pure functions Graph -> Graph, each with what holds after it.

After these, compile/fuse.py groups nodes into kernels and compile/program.py plans their memory.
Common subexpressions and dead nodes need no pass: a Builder interns, and a Graph is only what its
outputs reach.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from dataclasses import dataclass

from weft.compile.passes.canonicalize import canonicalize, is_canonical
from weft.compile.passes.decompose import decompose, has_no_composites
from weft.compile.passes.masks import is_masked, masks
from weft.compile.passes.own import outputs_are_own, own
from weft.compile.passes.recompute import is_done, recompute
from weft.compile.passes.slices import slices
from weft.core import config
from weft.core.graph import Graph, to_text, verify


@dataclass(frozen=True)
class Pass:
    """A rewrite, and the property that its result has."""

    name: str
    run: Callable[[Graph], Graph]
    after: str
    holds: Callable[[Graph], bool]


PASSES = (
    Pass("decompose", decompose, "every op has a kernel or host code", has_no_composites),
    Pass(
        "canonicalize",
        canonicalize,
        "no view of a view of the same kind, no mask behind a pool",
        is_canonical,
    ),
    Pass("own", own, "every output has memory of its own", outputs_are_own),
    Pass("recompute", recompute, "a value and the loop that repeats it have one shape", is_done),
    Pass("slices", slices, "every output still has memory of its own", outputs_are_own),
    Pass("masks", masks, "no cotangent of a relu is kept for batch norm's gradient", is_masked),
)


def run_passes(g: Graph) -> Graph:
    """All passes in order; each one's postcondition is checked, and its change shown."""
    if config.wants(2):
        config.show(2, "graph", to_text(g))
    for p in PASSES:
        start = time.perf_counter()
        new = p.run(g)
        if not p.holds(new):
            raise AssertionError(f"pass {p.name}: its result should satisfy: {p.after}")
        if config.wants(3) and new is not g:
            verify(new)
            ms = 1e3 * (time.perf_counter() - start)
            config.show(3, f"after {p.name}", f"{_changes(g, new)}\n({ms:.2f} ms)")
        g = new
    return g


def _changes(old: Graph, new: Graph) -> str:
    """The lines that differ, with - and +."""
    before, after = to_text(old).split("\n"), to_text(new).split("\n")
    lines = difflib.unified_diff(before, after, lineterm="", n=0)
    shown = [x for x in lines if not x.startswith(("---", "+++", "@@"))]
    return "\n".join(shown) or "nothing changed"
