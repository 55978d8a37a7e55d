"""torch.utils._pytree: nested containers as leaves and a shape (torch's own Python, in short)."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Context = PyTree = Any


class NodeDef(NamedTuple):
    """How a container comes apart and together: x -> (children, context), and back."""

    type: type
    flatten_fn: Callable
    unflatten_fn: Callable


SUPPORTED_NODES: dict[type, NodeDef] = {}


def register_pytree_node(
    cls: type, flatten_fn: Callable, unflatten_fn: Callable, **kw: Any
) -> None:
    """From now on `cls` is a node."""
    SUPPORTED_NODES[cls] = NodeDef(cls, flatten_fn, unflatten_fn)


_register_pytree_node = register_pytree_node


def _dict_flatten(d: dict) -> tuple[list, list]:
    """(values, keys)"""
    return list(d.values()), list(d)


def _dict_unflatten(values: Iterable, context: Any) -> dict:
    return dict(zip(context, values))


def _dict_flatten_with_keys(d: dict) -> tuple[list, list]:
    """([(key, value)], keys)"""
    return list(d.items()), list(d)


for _cls, _apart, _together in (
    (dict, _dict_flatten, _dict_unflatten),
    (OrderedDict, _dict_flatten, lambda v, c: OrderedDict(zip(c, v))),
    (list, lambda x: (list(x), None), lambda v, c: list(v)),
    (tuple, lambda x: (list(x), None), lambda v, c: tuple(v)),
    (namedtuple, lambda x: (list(x), type(x)), lambda v, c: c(*v)),
    (deque, lambda x: (list(x), x.maxlen), lambda v, c: deque(v, maxlen=c)),
    (
        defaultdict,
        lambda d: (list(d.values()), (d.default_factory, list(d))),
        lambda v, c: defaultdict(c[0], zip(c[1], v)),
    ),
):
    register_pytree_node(_cls, _apart, _together)  # type: ignore[arg-type]


def _get_node_type(tree: Any) -> Any:
    """The key of a tree in SUPPORTED_NODES: its type, or `namedtuple` for any of those."""
    kind = type(tree)
    return namedtuple if issubclass(kind, tuple) and hasattr(kind, "_fields") else kind


def _is_leaf(tree: Any, is_leaf: Callable | None = None) -> bool:
    return (is_leaf is not None and is_leaf(tree)) or _get_node_type(tree) not in SUPPORTED_NODES


@dataclass
class TreeSpec:
    """The shape of a tree; a leaf has none of these."""

    type: Any
    context: Any
    children_specs: list[TreeSpec] = field(default_factory=list)

    @property
    def num_leaves(self) -> int:
        return sum(c.num_leaves for c in self.children_specs)

    def is_leaf(self) -> bool:
        return isinstance(self, LeafSpec)

    def unflatten(self, leaves: Iterable) -> Any:
        """The tree of this shape with these leaves, in order."""
        return self._build(iter(leaves))

    def _build(self, leaves: Any) -> Any:
        children = [c._build(leaves) for c in self.children_specs]
        return SUPPORTED_NODES[self.type].unflatten_fn(children, self.context)


class LeafSpec(TreeSpec):
    """The shape of one leaf."""

    def __init__(self) -> None:
        super().__init__(None, None, [])

    @property
    def num_leaves(self) -> int:
        return 1

    def _build(self, leaves: Any) -> Any:
        return next(leaves)


def tree_flatten(tree: Any, is_leaf: Callable | None = None) -> tuple[list, TreeSpec]:
    """(the leaves, the shape)"""
    if _is_leaf(tree, is_leaf):
        return [tree], LeafSpec()
    kind = _get_node_type(tree)
    children, context = SUPPORTED_NODES[kind].flatten_fn(tree)
    leaves, specs = [], []
    for child in children:
        more, spec = tree_flatten(child, is_leaf)
        leaves += more
        specs.append(spec)
    return leaves, TreeSpec(kind, context, specs)


def tree_unflatten(leaves: Iterable, treespec: TreeSpec) -> Any:
    """The tree of that shape with these leaves."""
    return treespec.unflatten(leaves)


def tree_leaves(tree: Any, is_leaf: Callable | None = None) -> list:
    """The leaves, in order."""
    return tree_flatten(tree, is_leaf)[0]


tree_iter = tree_leaves


def tree_structure(tree: Any, is_leaf: Callable | None = None) -> TreeSpec:
    """The shape."""
    return tree_flatten(tree, is_leaf)[1]


def tree_map(func: Callable, tree: Any, *rests: Any, is_leaf: Callable | None = None) -> Any:
    """`func` on every leaf (and on the leaves of further trees of the same shape)."""
    leaves, spec = tree_flatten(tree, is_leaf)
    others = [tree_leaves(r, is_leaf) for r in rests]
    return spec.unflatten(map(func, leaves, *others))


def tree_map_(func: Callable, tree: Any, *rests: Any, is_leaf: Callable | None = None) -> Any:
    """`func` on every leaf, for its effect; the tree itself."""
    tree_map(func, tree, *rests, is_leaf=is_leaf)
    return tree


def tree_map_only(types: Any, func: Callable, tree: Any, is_leaf: Callable | None = None) -> Any:
    """`func` on every leaf of the types named."""
    return tree_map(lambda x: func(x) if isinstance(x, types) else x, tree, is_leaf=is_leaf)


def tree_any(pred: Callable, tree: Any) -> bool:
    return any(map(pred, tree_leaves(tree)))


def tree_all(pred: Callable, tree: Any) -> bool:
    return all(map(pred, tree_leaves(tree)))
