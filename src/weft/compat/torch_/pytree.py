"""torch.utils._pytree: nested lists, tuples and dicts as leaves and a shape."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any


def tree_map(func: Callable, tree: Any) -> Any:
    """`func` on every leaf."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[tree_map(func, x) for x in tree])
    if isinstance(tree, (list, tuple)):
        return type(tree)(tree_map(func, x) for x in tree)
    if type(tree) in (dict, OrderedDict):
        return type(tree)((k, tree_map(func, v)) for k, v in tree.items())
    return func(tree)


def tree_leaves(tree: Any) -> list:
    """The leaves, in order."""
    out: list = []
    tree_map(out.append, tree)
    return out


def tree_map_only(types: Any, func: Callable, tree: Any) -> Any:
    """`func` on every leaf of the types named."""
    return tree_map(lambda x: func(x) if isinstance(x, types) else x, tree)


def tree_any(pred: Callable, tree: Any) -> bool:
    return any(map(pred, tree_leaves(tree)))


def tree_all(pred: Callable, tree: Any) -> bool:
    return all(map(pred, tree_leaves(tree)))


class TreeSpec:
    """The shape of a tree: `tree_unflatten` puts leaves back into it."""

    def __init__(self, tree: Any) -> None:
        count = iter(range(1 << 62))
        self._places = tree_map(lambda _: next(count), tree)
        self.num_leaves = next(count)

    def unflatten(self, leaves: Any) -> Any:
        leaves = list(leaves)
        return tree_map(lambda i: leaves[i], self._places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TreeSpec) and self._places == other._places

    __hash__ = None  # type: ignore[assignment]


def tree_flatten(tree: Any) -> tuple[list, TreeSpec]:
    """(the leaves, the shape)."""
    return tree_leaves(tree), TreeSpec(tree)


def tree_unflatten(leaves: Any, treespec: TreeSpec) -> Any:
    """The tree of that shape with these leaves."""
    return treespec.unflatten(leaves)
