"""Verification: recorded inputs run again, and the answers compared with the recorded ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from weft.core.graph import Node


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
    first_difference: str | None = None

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(c.ok for c in self.checks)

    @property
    def largest(self) -> float:
        return max((c.largest for c in self.checks), default=0.0)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        lines = [f"{self.target}: {'ok' if self.ok else 'FAILED'}"]
        for c in self.checks:
            how = "same bits" if c.bitwise else f"largest difference {c.largest:.3g}"
            lines.append(f"  record {c.record}, {c.output}: {how}{'' if c.ok else '  <- too large'}")
        if not self.checks:
            lines.append("  no recorded inputs to check with")
        if self.first_difference:
            lines.append(f"  first op that differs: {self.first_difference}")
        return "\n".join(lines)


def verify(model_file: Any, rtol: float = 1e-4, atol: float = 1e-5) -> Report:
    """Replay the file's records on its compiled graph.

    The recorded answers are eager's; on the machine that made them the bits are equal, on
    another with other vector units the bound is atol + rtol * |answer|.  On a failure the first op
    whose value differs from its NumPy meaning is named with the user's line.
    """
    found = Report("compiled graph")
    for i, record in enumerate(model_file.records()):
        got = model_file.run(record["inputs"], record["signature"])
        for name, want in record["outputs"].items():
            found.checks.append(compare(i, name, got[name], want, rtol, atol))
        if not found.ok and found.first_difference is None:
            found.first_difference = _first_difference(model_file, record)
    return found


def compare(
    i: int, name: str, got: np.ndarray, want: np.ndarray, rtol: float, atol: float
) -> Check:
    """The difference of two answers; NaN equals NaN."""
    if got.shape != want.shape:
        return Check(i, f"{name} {list(got.shape)} for {list(want.shape)}", float("inf"), False, False)
    bitwise = got.dtype == want.dtype and got.tobytes() == want.tobytes()
    a, b = got.astype(np.float64), want.astype(np.float64)
    both = np.isnan(a) & np.isnan(b)
    with np.errstate(invalid="ignore"):
        difference = np.where(both | (a == b), 0.0, np.abs(a - b))
    largest = float(np.max(difference, initial=0.0))
    ok = bool(np.all(difference <= atol + rtol * np.abs(np.where(both, 0.0, b))))
    return Check(i, name, largest, bitwise, ok)


def _first_difference(model_file: Any, record: dict) -> str | None:
    """The first node whose compiled value is far from its oracle on the same operands."""
    from weft.compile.symbolic import bind, sizes_of  # noqa: PLC0415

    graph = model_file.graph(record["signature"])
    bound = bind(graph, sizes_of(graph, {k: a.shape for k, a in record["inputs"].items()}))
    env: dict[int, np.ndarray] = {}
    for n in bound.inputs:
        env[id(n)] = record["inputs"].get(n.name, model_file.arrays.get(n.name))
    for n in bound.nodes():
        value = _oracle(n, env)
        env[id(n)] = value
        if not np.all(np.isfinite(value)):
            return f"{n.op} at {bound.lines.get(n.serial, '?')} (not finite)"
    return None


def _oracle(n: Node, env: dict[int, np.ndarray]) -> np.ndarray:
    assert n.op is not None
    first = next((env[id(a)].dtype for a in n.args if isinstance(a, Node)), None)
    xs = [env[id(a)] if isinstance(a, Node) else np.asarray(a, first) for a in n.args]
    return np.asarray(n.op.oracle(*xs)).astype(n.type.dtype.np, copy=False)
