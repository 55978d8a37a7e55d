"""What a tensor's handle holds, and what the tape keeps of one call.

`Handle` is the data layout of `weft.Tensor` (which adds the methods); the rooms compute on it.
What every op asks for has a fixed place, which native code reads (runtime/layout_code.py); the
rest are class-level defaults, so that making a handle sets only what differs:

_a      the value: a NumPy view over the storage.  Absent on a *ghost*, a tensor that a compiled
        function has promised but not computed; reading it asks the recorder for the value.
_ghost  the ghost's description (shape, dtype, place in the program), else None
_st     the storage: shared by all views of one memory, made when a second handle needs it
_base   the tensor this one is a view of (the owner of the memory), with `_view` the op of the view
_rg     requires_grad;  _fn  the tape node that made it;  _grad, _hooks, _retain  as in torch
_held   a cotangent whose memory someone else may hold: who wants to keep it makes a copy
"""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import ref

if TYPE_CHECKING:
    import numpy as np

    from weft.core.op import Op


class State(threading.local):
    """Per-thread modes."""

    grad: bool = True
    recorder: Any = None  # who takes ops in place of running them: compile, vmap, or None
    saved_hooks: tuple = ()  # (pack, unpack) pairs, innermost last
    autocast: Any = None  # the dtype that products compute in (autograd/modes.py), or None
    overrides: int = 0  # whom public functions ask first: all, no subclasses, none
    devices: tuple = ()  # of `with device(...)` and set_default_device, innermost last
    modes: tuple = ()  # that public functions ask first, innermost last (core/overrides.py)


state = State()


_ROOM = 8


class Storage:
    """One memory, seen by any number of views; counts its in-place writes."""

    __slots__ = ("pin", "room", "version", "views")  # fixed places, as a handle's

    version: int
    views: list | None  # weak references to tracked views (see `add_view`)
    room: int  # length of `views` at which the dead are dropped
    pin: ref  # of an array of NumPy's whose memory it is: NumPy does not resize it meanwhile

    def __init__(self) -> None:
        self.version = 0
        self.views = None
        self.room = _ROOM

    def add_view(self, y: Handle) -> None:
        """Note a view whose place on the tape changes when the memory is written to."""
        views = self.views
        if views is None:
            views = self.views = []
        elif views and views[-1]() is None:  # the last one is dead, as in a loop
            views[-1] = ref(y)
            return
        elif len(views) >= self.room:
            views[:] = [r for r in views if r() is not None]
            self.room = max(8, 2 * len(views))
        views.append(ref(y))


class Handle:
    """A tensor without methods; what else its `__dict__` has, a user gave it."""

    __slots__ = (
        "__dict__", "__weakref__", "_a", "_base", "_fn", "_ghost", "_held", "_rg", "_st",
    )  # fmt: skip

    _a: np.ndarray
    _ghost: Any
    _st: Storage | None
    _base: Handle | None
    _rg: bool
    _fn: TapeNode | None
    _held: bool
    _grad: Any = None
    _hooks: dict | None = None
    _post_accumulate: dict | None = None
    _retain: bool = False

    def __getattr__(self, name: str) -> Any:
        """Native code takes this out again, for a class without it is faster (native.py)."""
        if name == "_a":
            return promised(self)
        text = f"'{type(self).__name__}' object has no attribute '{name}'"
        raise AttributeError(text, name=name, obj=self)


def promised(t: Any) -> np.ndarray:
    """The value of a tensor that has none yet."""
    ghost = t._ghost
    if ghost is None:
        raise AttributeError("a tensor without a value")
    return ghost.demand(t)


# what a new handle has in its fixed places
DEFAULTS = {
    "_ghost": None, "_st": None, "_base": None, "_fn": None, "_rg": False, "_held": False,
}  # fmt: skip
_read_value = vars(Handle)["_a"].__get__


def bare(kind: type) -> Any:
    """An object of a tensor class with what a new one has in its places: no value."""
    made = object.__new__(kind)
    made._ghost = made._st = made._base = made._fn = None  # DEFAULTS, without a loop
    made._rg = made._held = False
    return made


class NoTensor(TypeError, AttributeError):
    """No tensor was given: torch's functions in C++ raise the one, those in Python, which
    miss an attribute, the other.
    """


def computed(t: Handle) -> np.ndarray | None:
    """A tensor's value; None of a promise, which is not asked for."""
    try:
        return _read_value(t)
    except AttributeError:
        return None


def take_over(t: Handle, other: Handle) -> None:
    """From now on t is what the other handle is."""
    t.__dict__.update(other.__dict__)
    for name in DEFAULTS:
        setattr(t, name, getattr(other, name))
    value = computed(other)
    if value is not None:
        t._a = value


FIELDS = frozenset(Handle.__annotations__)


def attributes_of(t: Handle) -> dict[str, Any]:
    """What a user has set on a tensor: all that is not the handle's own."""
    own = t.__dict__
    return {} if own.keys() <= FIELDS else {k: v for k, v in own.items() if k not in FIELDS}


def owner_of(t: Any) -> Any:
    """The tensor whose memory t sees; a detached view's base is that view."""
    while t._base is not None:
        t = t._base
    return t


def storage_of(t: Handle) -> Storage:
    st = t._st
    if st is None:
        st = t._st = Storage()
    return st


sequence = itertools.count(1)


class TapeNode:
    """One differentiable call: the op, where its operands came from, and what vjp needs."""

    # Fixed places, which native code fills (runtime/layout_code.py).
    __slots__ = (
        "__weakref__", "edges", "hooks", "line", "op", "post", "result", "saved", "seq", "versions",
    )  # fmt: skip

    watch: ClassVar[Any] = None  # sees each new node in anomaly mode and under saved-tensor hooks

    op: Op
    edges: tuple  # per operand: TapeNode, leaf Handle, or None where no gradient flows
    saved: tuple | None  # per operand: Handle (value kept), Meta, or a Python number
    versions: tuple  # of the kept handles' storages, at the time of the call
    result: Any  # where vjp reads it: (array, storage) or an alias; else None
    seq: int
    hooks: dict | None  # of the result's gradient, by id; id -1 (retain_grad) comes last
    post: dict | None  # of the node: hook(grads of operands, grads of results)
    line: Any

    def __init__(self, op: Op, edges: tuple, saved: tuple, versions: tuple, result: Any) -> None:
        self.op = op
        self.edges = edges
        self.saved = saved
        self.versions = versions
        self.result = result
        self.seq = next(sequence)
        self.hooks = self.post = self.line = None
        if TapeNode.watch is not None:
            TapeNode.watch(self)

    def name(self) -> str:
        return f"{self.op.name}Backward0"

    @property
    def next_functions(self) -> tuple:
        return tuple((e, 0) for e in self.edges)

    def register_hook(self, hook: Any) -> Any:
        """Call `hook(grad_inputs, grad_outputs)` after the vjp; a tuple replaces the first."""
        if self.post is None:
            self.post = {}
        return RemovableHandle(self.post, hook)

    def register_prehook(self, hook: Any) -> Any:
        """Call `hook(grad_outputs)` before the node's vjp; a tuple replaces them."""
        if self.hooks is None:
            self.hooks = {}

        def on_gradient(g: Any) -> Any:
            got = hook((g,))
            return None if got is None else got[0]

        return RemovableHandle(self.hooks, on_gradient)

    def __repr__(self) -> str:
        return f"<{self.name()} object>"


class RemovableHandle:
    """What a register call returns: `remove()` takes the hook out again."""

    _ids = itertools.count()

    def __init__(self, hooks: dict, hook: Any = None, *, prepend: bool = False) -> None:
        self._hooks = hooks
        self.id = next(RemovableHandle._ids)
        if hook is not None:
            hooks[self.id] = hook
        if prepend:  # before those that stand there; an OrderedDict's
            hooks.move_to_end(self.id, last=False)  # type: ignore[attr-defined]

    def remove(self) -> None:
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()
