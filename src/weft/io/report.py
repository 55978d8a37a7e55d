"""From the graph of a file to a program; and verification: recorded inputs run again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np

from weft.compile.passes.decompose import decompose
from weft.compile.program import Layout, Program
from weft.compile.symbolic import bind, sizes_of, with_sizes
from weft.core.graph import Builder, Graph, Node, meaning
from weft.core.op import Op
from weft.io.check import Refused, check_sized, check_text
from weft.ops.contract import Product, fast_math, is_fast_math
from weft.ops.conv import ConvOp
from weft.ops.creation import Clone


@dataclass
class Check:
    """One output of one record: the largest difference, and whether it is within the bound."""

    record: int
    output: str
    largest: float
    bitwise: bool
    ok: bool


@dataclass
class Report:
    """What a verification found."""

    target: str
    checks: list[Check] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # records that could not be run, and why
    first_difference: str | None = None

    @property
    def ok(self) -> bool:
        return bool(self.checks) and not self.problems and all(c.ok for c in self.checks)

    @property
    def largest(self) -> float:
        return max((c.largest for c in self.checks), default=0.0)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        lines = [f"{self.target}: {'ok' if self.ok else 'FAILED'}"]
        for c in self.checks:
            how = "same bits" if c.bitwise else f"largest difference {c.largest:.3g}"
            lines.append(
                f"  record {c.record}, {c.output}: {how}{'' if c.ok else '  <- too large'}"
            )
        lines.extend(f"  {p}" for p in self.problems)
        if not self.checks and not self.problems:
            lines.append("  no recorded inputs to check with")
        if self.first_difference:
            lines.append(f"  first op that differs: {self.first_difference}")
        return "\n".join(lines)


def verify(model_file: Any, rtol: float = 1e-4, atol: float = 1e-5) -> Report:
    """Replay the file's records on its compiled graph.

    The recorded answers are eager's; on the machine that made them the bits are equal, on
    another with other vector units the bound is atol + rtol * |answer|.  On a failure every op is
    held against its NumPy meaning on the same operands; the first that differs is named with the
    user's line.
    """
    with fast_math(False):
        return _verified(model_file, rtol, atol)


def _verified(model_file: Any, rtol: float, atol: float) -> Report:
    found = Report("compiled graph")
    for i, record in enumerate(model_file.records()):
        try:
            got = model_file.run(record["inputs"], record["signature"])
        except Exception as e:  # whatever it is, the model does not answer
            found.problems.append(f"record {i}: {type(e).__name__}: {e}")
            continue
        for name, want in record["outputs"].items():
            if name in got:
                found.checks.append(compare(i, name, got[name], want, rtol, atol))
            else:
                found.problems.append(f"record {i}: the graph has no output {name!r}")
        if not found.ok and found.checks and found.first_difference is None:
            found.first_difference = _first_difference(model_file, record, rtol, atol)
    return found


def compare(
    i: int, name: str, got: np.ndarray, want: np.ndarray, rtol: float, atol: float
) -> Check:
    """The difference of two answers; NaN equals NaN; a half may be four steps off."""
    if got.shape != want.shape:
        return Check(
            i, f"{name} {list(got.shape)} for {list(want.shape)}", float("inf"), False, False
        )
    if want.dtype.itemsize == 2 and want.dtype.kind not in "iu":
        step = 4 * float(ml_dtypes.finfo(want.dtype).eps)
        rtol, atol = max(rtol, step), max(atol, step)
    bitwise = got.dtype == want.dtype and got.tobytes() == want.tobytes()
    a, b = got.astype(np.float64), want.astype(np.float64)
    both = np.isnan(a) & np.isnan(b)
    with np.errstate(invalid="ignore"):
        difference = np.where(both | (a == b), 0.0, np.abs(a - b))
    largest = float(np.max(difference, initial=0.0))
    ok = bool(np.all(difference <= atol + rtol * np.abs(np.where(both, 0.0, b))))
    return Check(i, name, largest, bitwise, ok)


def where(n: Node, graph: Graph, check: Check) -> str:
    """`Softmax(dim=1) at model.py:41 (largest difference 0.2)`."""
    line = graph.lines.get(n.serial)
    return f"{n.op}{f' at {line}' if line else ''} (largest difference {check.largest:.3g})"


def _first_difference(model_file: Any, record: dict, rtol: float, atol: float) -> str:
    """The first node whose compiled value is far from its oracle on the same operands."""
    graph = model_file.graph(record["signature"])
    inputs = record["inputs"]
    values = every_value(model_file, graph, inputs)
    sizes = sizes_for(graph, {k: a.shape for k, a in inputs.items()})
    env: dict[int, np.ndarray] = {}
    for n in graph.inputs:
        env[id(n)] = inputs[n.name] if n.name in inputs else model_file.weight(n.name)
    for n in graph.nodes():
        env[id(n)] = values[n.serial]
        op = with_sizes(n.op, sizes)
        if op.oracle is None:  # a composition: its parts are what is compared
            continue
        operands = [env[id(a)] if isinstance(a, Node) else a for a in n.args]
        try:
            meant = meaning(op, operands).astype(values[n.serial].dtype)
        except np.linalg.LinAlgError:  # of a matrix for which NumPy has no answer
            continue
        check = compare(0, op.name, values[n.serial], meant, rtol, atol)
        if not check.ok:
            return where(n, graph, check)
    return (
        "none: every op gives what it should, so the weights or the recorded answers were changed"
    )


def sizes_for(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The graph's symbols for inputs of these shapes.  ValueError: a shape that does not fit."""
    sizes = sizes_of(graph, dict(shapes))
    if any(n < 0 for n in sizes.values()):
        raise ValueError(f"inputs of shapes {dict(shapes)} are too small for the model")
    return sizes


def sized(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph at these sizes, of primitives only, safe to run.  Refused where it is not."""
    check_text(graph)
    try:
        bound = decompose(bind(graph, dict(sizes), _obeying))
    except MemoryError:
        raise
    except Exception as e:  # a type rule that meets what it was not made for may raise anything
        raise Refused(f"the graph does not fit sizes {dict(sizes)}: {e}") from None
    check_sized(bound)
    return bound


def _obeying(op: Op, sizes: dict[str, int]) -> Op:
    """What may be rounded in a file obeys the present `set_fast_math`, not its writer's."""
    op = with_sizes(op, sizes)
    return replace(op, fast=is_fast_math()) if isinstance(op, Product | ConvOp) else op


def compiled(bound: Graph) -> Program:
    """A program for contiguous inputs.  Refused: an op that no kernel serves."""
    own = _with_own_outputs(bound)
    layouts = {n.name: Layout.contiguous(n.type.shape, n.type.dtype.np) for n in own.inputs}
    try:
        return Program(own, layouts)
    except MemoryError:
        raise
    except Exception as e:  # planners meet dtypes and shapes that no function would give them
        raise Refused(f"the graph cannot be compiled: {type(e).__name__}: {e}") from None


def _with_own_outputs(g: Graph) -> Graph:
    """Every output as memory of its own: views, inputs, constants and repeats become copies."""
    b = Builder()
    b._count = max((n.serial for n in [*g.inputs, *g.nodes()]), default=0)  # operands come first
    taken: set[int] = set()
    outputs = {}
    for name, n in g.outputs.items():
        if n.op is None or n.op.is_view or not n.args:
            n = b.node(Clone(), n)
        while id(n) in taken:
            n = b.node(Clone(), n)
        taken.add(id(n))
        outputs[name] = n
    return Graph(g.inputs, outputs, g.lines)


def every_value(model_file: Any, graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[int, Any]:
    """Each node's value (by its serial) when the graph runs as a program on these inputs."""
    nodes = graph.nodes()
    exposed = Graph(graph.inputs, {f"v{n.serial}": n for n in nodes}, graph.lines)
    sizes = sizes_for(graph, {k: a.shape for k, a in inputs.items()})
    program = compiled(sized(exposed, sizes))
    weights = {n.name: model_file.weight(n.name) for n in graph.inputs if n.name not in inputs}
    ready = {k: np.ascontiguousarray(a) for k, a in inputs.items()}
    values = program.run({**weights, **ready})
    return {n.serial: values[f"v{n.serial}"] for n in nodes}
