"""The Graph's interpreter: each op's oracle in turn, plain NumPy.  What every target is held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weft.core.graph import Graph, Node
from weft.core.op import Op


def interpret(g: Graph, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The graph's outputs for inputs by name; sizes must be known (no symbolic dims).

    KeyError: an input without a value.  TypeError: an op that is only a body (decompose first).
    """
    env: dict[int, np.ndarray] = {id(n): np.asarray(values[n.name]) for n in g.inputs}
    for n in g.nodes():
        assert n.op is not None
        operands = [env[id(a)] if isinstance(a, Node) else a for a in n.args]
        env[id(n)] = meaning(n.op, operands).astype(n.type.dtype.np, copy=False)
    return {k: env[id(n)] for k, n in g.outputs.items()}


def meaning(op: Op, operands: Sequence[Any]) -> np.ndarray:
    """What `op` gives by its oracle; a Python number has the dtype of the first array."""
    if op.oracle is None:
        raise TypeError(f"{op} has no oracle: it is what its body is")
    first = next((a.dtype for a in operands if isinstance(a, np.ndarray)), None)
    with np.errstate(all="ignore"):
        arrays = [a if isinstance(a, np.ndarray) else np.asarray(a, first) for a in operands]
        return np.asarray(op.oracle(*arrays))
