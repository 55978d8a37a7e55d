"""What the tape saved: versions checked when used, and hooks that store it elsewhere.

`saved_tensors_hooks(pack, unpack)`: while it is on, `pack(tensor)` is called for each tensor that
the tape would save, and `unpack(packed)` when backward needs it again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft.core.dtype import dtype, from_np
from weft.core.handle import Handle, TapeNode, state
from weft.core.op import Meta
from weft.ops.dispatch import NUMBERS, alias, of_kept, record, shape_of
from weft.ops.view import Reshape

Node = TapeNode


class Stale:
    """Stands for a saved operand that was written to since: any use of its value raises.

    Only use raises: `h.mul_(2)` changes h, which its own vjp would need only for 2's gradient.
    """

    def __init__(self, t: Handle, node: TapeNode, now: int, then: int) -> None:
        self.shape = shape_of(t)
        self.np_dtype = t._a.dtype
        self._message = (
            "one of the variables needed for gradient computation has been modified by an inplace "
            f"operation: [{t.type()} {list(self.shape)}], saved by {node.name()}, is at version "
            f"{now}; expected version {then} instead. Hint: enable anomaly detection to find the "
            "operation that failed to compute its gradient, with "
            "torch.autograd.set_detect_anomaly(True)."
        )

    @property
    def dtype(self) -> dtype:
        return from_np(self.np_dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(self.__dict__.get("_message", "stale"))


def _refuse(self: Stale, *args: Any) -> Any:
    raise RuntimeError(self._message)


_DUNDERS = (
    "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow matmul "
    "rmatmul neg abs invert eq ne lt le gt ge and rand or ror xor rxor getitem bool float int len "
    "iter"
)
for _name in _DUNDERS.split():
    setattr(Stale, f"__{_name}__", _refuse)
Stale.__hash__ = object.__hash__


class Packed:
    """A saved tensor that a hook has put away."""

    __slots__ = ("_rg", "_st", "edge", "np_dtype", "packed", "shape", "unpack")

    def __init__(self, t: Handle, edge: Any, pack: Callable, unpack: Callable) -> None:
        self.shape = shape_of(t)
        self.np_dtype = t._a.dtype
        self.edge = edge  # where the tensor is on the tape: a node, a leaf, or None
        self.unpack = unpack
        grad, state.grad = state.grad, False
        try:
            self.packed = pack(t)
        finally:
            state.grad = grad

    @property
    def dtype(self) -> dtype:
        return from_np(self.np_dtype)

    def value(self) -> Handle:
        """The tensor again, at its place on the tape when a graph is being made."""
        got = self.unpack(self.packed)
        if not isinstance(got, Handle):
            raise TypeError(
                "Output of saved tensor unpack_hook expected to be a Tensor but got result of type "
                f"{type(got).__name__}"
            )
        y = alias(got)
        if self.edge.__class__ is TapeNode:
            y._fn, y._rg = self.edge, True
        elif self.edge is not None and state.grad:  # a leaf: gradients must reach the leaf itself
            record(Reshape(tuple(self.shape)), (self.edge,), y)
        return y


def saved_values(node: TapeNode) -> tuple[tuple, Any]:
    """(operands, result) as the node's vjp gets them: unpacked, stale ones marked."""
    saved, versions = node.saved, node.versions
    k = 0
    assert saved is not None
    for i, s in enumerate(saved):
        kind = s.__class__
        if kind is Meta or kind in NUMBERS:
            continue
        if kind is Packed:
            saved = (*saved[:i], s.value(), *saved[i + 1 :])
        else:
            st = s._st
            if st is not None and st.version != versions[k]:
                stale = Stale(s, node, st.version, versions[k])
                saved = (*saved[:i], stale, *saved[i + 1 :])
        k += 1
    result = node.result
    if result is not None:
        if result.__class__ is Packed:
            result = result.value()
        else:
            if result.__class__ is tuple:
                result = of_kept(result)
            st = result._st
            if st is not None and st.version != versions[k]:
                result = Stale(result, node, st.version, versions[k])
    return saved, result


# ------------------------------------------------------------------------------ hooks


class saved_tensors_hooks:
    """`with saved_tensors_hooks(pack, unpack):` tensors saved inside go through the hooks."""

    def __init__(self, pack_hook: Callable, unpack_hook: Callable) -> None:
        self.hooks = (pack_hook, unpack_hook)

    def __enter__(self) -> None:
        state.saved_hooks = (*state.saved_hooks, self.hooks)
        watch("saved", _pack_node)

    def __exit__(self, *exc: object) -> None:
        state.saved_hooks = state.saved_hooks[:-1]
        if not state.saved_hooks:
            unwatch("saved")


def packed(t: Any, edge: Any) -> Any:
    """t put away by the innermost hooks, or t itself."""
    hooks = state.saved_hooks
    return Packed(t, edge, *hooks[-1]) if hooks and t is not None else t


def _pack_node(node: TapeNode) -> None:
    if not state.saved_hooks or not node.versions:
        return
    assert node.saved is not None
    node.saved = tuple(
        packed(s, e) if isinstance(s, Handle) else s
        for s, e in zip(node.saved, node.edges, strict=True)
    )
    if node.result is not None:
        kept = node.result
        node.result = packed(of_kept(kept) if kept.__class__ is tuple else kept, None)


_watchers: dict[str, Callable[[TapeNode], None]] = {}


def watch(name: str, see: Callable[[TapeNode], None]) -> None:
    """Show each new tape node to `see` until `unwatch(name)`."""
    _watchers[name] = see
    TapeNode.watch = _show


def unwatch(name: str) -> None:
    _watchers.pop(name, None)
    if not _watchers:
        TapeNode.watch = None


def _show(node: TapeNode) -> None:
    for see in list(_watchers.values()):
        see(node)
