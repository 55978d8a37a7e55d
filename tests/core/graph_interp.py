"""The Graph's interpreter: each op's oracle in turn, plain NumPy.  What every target is held to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from weft.core.graph import Graph, Node, meaning


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
