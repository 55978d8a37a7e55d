"""A world's guards in native form: the same look at the same things, by identity.

Where it finds all in place, so would `World.change`; where it does not (an equal number made anew
is no change), Python looks.  What it cannot read as C reads it (a set's items, an ordered dict's
order) stays with Python.
"""

from __future__ import annotations

import gc
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

from weft.compile.world import MODES, OPTIMIZER_OWN, World, is_changed
from weft.core.handle import Handle, computed
from weft.runtime import guard_code, guards

_LOOKS = 8  # streams made since equal objects had come in; then Python looks alone
_PLACES = ("_a", "_rg", "_fn", "_ghost")  # of a tensor
_TENSOR_FIELDS = ("_hooks", "_grad", "_post_accumulate")  # in its `__dict__`
_DICTS = (dict, defaultdict)


class Guard:
    """Whether `world` is as it is now, and the same of its tensors have no gradient as now, or
    those of which `none` says so.
    """

    def __init__(self, world: World, none: list[bool] | None = None) -> None:
        self.world = world
        self.none = [t._grad is None for t in world.tensors] if none is None else none
        self.stream: guards.Stream | None = None  # None: Python looks alone
        self.rest: list[tuple] = []  # entries of world's dicts and lists that Python looks at
        self._looks = 0
        self._look()

    def _look(self) -> None:
        self._looks += 1
        self.stream = None
        if (
            guards.available()
            and self._looks <= _LOOKS
            and not any(map(_is_odd, self.world.tensors))
        ):
            self.stream = self.native()

    def holds(self) -> bool:
        """Whether all is as it was."""
        if self.stream is not None and self.stream.check() and not any(map(is_changed, self.rest)):
            return True
        if [t._grad is None for t in self.world.tensors] != self.none or not self.world.holds():
            return False
        if self.stream is not None:  # equal objects have come in: know these
            self._look()
        return True

    def native(self, more: Sequence[tuple[Any, str, Any]] = ()) -> guards.Stream:
        """What the native look looks at as it is now, and these attributes of objects."""
        self.rest = []
        world, s = self.world, guards.Stream()
        s.attributes(more)
        s.attributes([(x, name, getattr(x, name)) for x, name in MODES])
        for entry in world.dicts:
            d = entry[0] if isinstance(entry[0], dict) else gc.get_referents(entry[0])[0]
            kind = type(d)
            if not d and kind in (*_DICTS, OrderedDict):
                s.empty(d)
            elif kind in _DICTS or (kind is OrderedDict and len(d) == 1):
                s.entries(d)
            else:
                self.rest.append(entry)
        for entry in world.lists:
            x = entry[0]
            if x.__class__ is list:
                s.items(x)
            elif x.__class__ is set and not x:
                s.empty(x)
            else:
                self.rest.append(entry)
        for x, _ in world.types:
            s.kind(x)
        for cell, _, _ in world.cells:
            s.cell(cell)
        s.names([(d, k, d.get(k, guards.ABSENT)) for d, k, _ in world.names])
        for cls, f in world.forwards.items():
            s.member(cls, "forward", f)
        s.functions(world.functions)
        for t, none in zip(world.tensors, self.none, strict=True):
            self._tensor(s, t, none=none)
        for o in world.optimizers:
            self._optimizer(s, o)
        return s.ready()

    def _tensor(self, s: guards.Stream, t: Handle, *, none: bool) -> None:
        s.kind(t)
        s.places(t, Handle, _PLACES)
        s.dicts([(t, t.__dict__)])
        modes = _tensor_modes[none]
        s.entries(t.__dict__, modes, as_now=none == (t._grad is None))
        s.data(t._a)
        for name in ("_hooks", "_post_accumulate"):
            hooks = t.__dict__.get(name)
            if hooks is not None:
                s.empty(hooks)
        if t._ghost is not None:
            s.attributes([(t._ghost, "session", None)])

    def _optimizer(self, s: guards.Stream, o: Any) -> None:
        """What `world.settings` reads."""
        s.dicts([(o, vars(o))])
        s.entries(vars(o), lambda k, v: _ANY if k in _UNREAD else setting(k, v))
        s.items(o.param_groups)
        for group in o.param_groups:
            s.entries(group, setting)
            s.items(group["params"])
        s.entries(o.state)
        for kept in o.state.values():
            s.entries(kept, counter)


_ANY = (guard_code.ANY, None)
_UNREAD = OPTIMIZER_OWN - {"state", "param_groups"}


def _same(v: Any) -> tuple[int, Any]:
    return guard_code.SAME, v


def _is_float(v: Any) -> bool:
    return v.__class__ is float


def counter(_: Any, v: Any) -> tuple[int, Any]:
    """Of a state's entry: of a float only that it is one."""
    return (guard_code.FLOAT, float) if _is_float(v) else _same(v)


def setting(_: Any, v: Any) -> tuple[int, Any]:
    """Of a float only whether it is 0 counts: updates read it anew."""
    return (guard_code.FLOAT_IS, bool(v)) if _is_float(v) else _same(v)


def _tensor_mode(key: str, v: Any, gradient: int) -> tuple[int, Any]:
    if key == "_grad":
        return gradient, None
    return _same(v) if key in _TENSOR_FIELDS else _ANY


# of a tensor with a gradient, without one
_tensor_modes = [partial(_tensor_mode, gradient=m) for m in (guard_code.OTHER, guard_code.SAME)]


def _is_odd(t: Handle) -> bool:
    """Whether C would read the tensor wrongly: a class that computes what is an attribute of ours,
    a value or hooks of another kind.
    """
    ours, names = (Handle, *Handle.__mro__), _PLACES + _TENSOR_FIELDS
    overrides = any(n in vars(c) for c in type(t).__mro__ if c not in ours for n in names)
    hooks = [t.__dict__.get(n) for n in ("_hooks", "_post_accumulate")]
    return (
        overrides or type(t).__getattribute__ is not object.__getattribute__
        or computed(t) is None or type(t.__dict__) is not dict
        or any(h is not None and type(h) not in (dict, OrderedDict) for h in hooks)
        or (t._ghost is not None and t._ghost.session is not None)
    )  # fmt: skip
