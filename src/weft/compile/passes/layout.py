"""Which values of a program lie channels last: (N, C, H, W) in shape, (N, H, W, C) in memory.

Convolutions put channels across the vector (kernels/schedule/conv_wide.py): with the channels of a
pixel side by side they read and write plain runs, and their neighbours pay nothing.  So what such a
convolution makes lies channels last, and what elementwise loops and pools make of it, as long as
every reader takes it so; some samples of it, and samples joined, lie as they did.  A program's
inputs and outputs lie as eager would have them: they are transposed inside the kernels at the
edges.  No number changes: sums go by logical index.
"""

from __future__ import annotations

from weft.compile.fuse import Group
from weft.core.graph import Graph, Node
from weft.core.types import Type, numel
from weft.kernels.layout import Layout
from weft.ops.join import Concat
from weft.ops.kinds import Elementwise
from weft.ops.view import Reshape, Slice


def channels_last(g: Graph, groups: list[Group]) -> set[int]:
    """The ids of the nodes that lie channels last; `groups` each after those it reads from."""
    free = _free_of_order(g)
    found: set[int] = set()
    for group in groups:
        if group.both is not None:  # taps lie as their image does, whatever the maxima do
            mine = [n for n in group.nodes if id(n) in free and _makes(n, found)]
            if group.nodes[0] in mine or group.wanted == mine:
                found.update(map(id, mine))
            continue
        if group.reduce is not None or not all(id(n) in free for n in group.wanted):
            continue
        n = group.wanted[0] if group.wanted else group.nodes[0]
        if group.product is not None:
            made = group.product.type.shape == n.type.shape and _makes(group.product, found)
        elif group.is_loop:
            like = (a for m in group.nodes for a in m.args if isinstance(a, Node))
            made = any(id(a) in found and a.type.shape == n.type.shape for a in like)
        else:
            made = _makes(n, found)
        if made:
            found.update(id(w) for w in group.wanted)
    return found


def _makes(n: Node, found: set[int]) -> bool:
    assert n.op is not None
    types = _types(n)
    kept = any(id(a) in found for a in n.args) and n.op.keeps_channels_last(*types)
    return kept or n.op.makes_channels_last(*types)


def _free_of_order(g: Graph) -> set[int]:
    """Values of four dims that are no outputs and whose every reader takes channels last."""
    kept = {id(n) for n in g.outputs.values()}
    free = {id(n) for n in g.nodes() if _is_image(n.type) and id(n) not in kept}
    for n in reversed(g.nodes()):  # who reads a node is known by then
        follows = isinstance(n.op, (Slice, Concat)) and n.op.dim == 0
        if (follows and id(n) not in free) or not (follows or _reads_any_order(n)):
            free -= {id(a) for a in n.args if isinstance(a, Node)}
        elif isinstance(n.op, Reshape):  # it would copy what may be written so at once
            free -= {id(a) for a in n.args if isinstance(a, Node) and _turned(a, n.op)}
    return free


def _turned(a: Node, reshape: Reshape) -> bool:
    """Whether a value that the reshape cannot view channels last may be made in planes."""
    made = [x for x in (a.args if a.op == Concat(0) else (a,)) if isinstance(x, Node)]
    if not _is_image(a.type) or reshape.layout(channels_last_layout(a.type)) is not None:
        return False
    return all(x.op is not None and x.op.turns_channels_last(*_types(x)) for x in made)


def _reads_any_order(n: Node) -> bool:
    op = n.op
    assert op is not None
    if op.is_view:
        return isinstance(op, Reshape)  # which copies what no strides express
    return isinstance(op, Elementwise) or op.takes_channels_last(*_types(n))


def _types(n: Node) -> list[Type]:
    return [a.type for a in n.args if isinstance(a, Node)]


def _is_image(t: Type) -> bool:
    return t.ndim == 4 and t.shape[1] > 1 and numel(t.shape[2:]) > 1


def channels_last_layout(t: Type) -> Layout:
    """The layout of a value that lies channels last."""
    _, c, h, w = t.shape
    return Layout(t.shape, (h * w * c, 1, w * c, c), t.dtype.np)
