"""What a function can see without its arguments changing: the guards of a replay.

A replay skips Python, so it must know that Python would have done the same.  `World` walks all
that the function's code can reach (closure, globals it names, attributes, methods, modules,
optimizers, parameters) and notes which objects it found where.  `holds()` says whether all of it is
still in place, by identity: an attribute set to another value, a hook, a layer taken out, a
parameter given other memory all show.  What cannot be looked into (an iterator, a file, a NumPy
array, a module that knows the time) is refused with its name: Unseen.
"""

from __future__ import annotations

import builtins
import dataclasses
import dis
import functools
import sys
import types
from collections.abc import Iterable
from contextlib import suppress
from operator import is_
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import Handle, TapeNode, computed, state
from weft.core.op import Op
from weft.ops.contract import FastMath
from weft.runtime.random import Generator
from weft.tensor import Size

_LARGEST = 100_000  # objects
_ATOMS = (
    type(None), bool, int, float, complex, str, bytes, range, slice, type(...), np.dtype,
    np.generic, dt.dtype, Generator, types.GetSetDescriptorType, types.MemberDescriptorType,
    types.WrapperDescriptorType, types.MethodDescriptorType,
)  # fmt: skip
_SCALARS = (bool, int, float, complex, str, bytes)
_PURE = {
    "weft", "torch", "numpy", "math", "cmath", "functools", "itertools", "operator", "typing",
    "collections", "contextlib", "dataclasses", "enum", "warnings", "copy", "abc", "numbers",
    "types", "builtins", "string", "re", "ml_dtypes",
}  # fmt: skip
_IMPURE_NAMES = {"next", "input", "open", "exec", "eval", "__import__", "id", "vars", "globals"}
_NOT_CALLED = {"__init__", "__new__", "__repr__", "__str__", "__doc__", "__reduce__"}
OPTIMIZER_OWN = {"state", "param_groups", "_opt_called", "_program"}


class Unseen(Exception):
    """The function reaches something whose changes would not be noticed."""


class World:
    """All that `roots` reach, as it is now."""

    def __init__(self, roots: Iterable[Any]) -> None:
        self.tensors: list[Handle] = []
        self.optimizers: list[Any] = []
        self.dicts: list[tuple[Any, list, list, str]] = []  # a dict, its keys and values
        self.lists: list[tuple[Any, list, str]] = []
        self.types: list[tuple[Any, type]] = []
        self.cells: list[tuple[types.CellType, Any, str]] = []
        self.names: list[tuple[dict, str, Any]] = []  # a namespace's entry
        self.functions: list[types.FunctionType] = []
        self._seen: dict[int, Any] = {}  # by id; keeps them alive
        self.forwards: dict[type, Any] = {}  # of Weft's classes
        self._met: set[tuple[int, str]] = set()  # modules' entries
        self._used: set[str] = {"forward", "backward", "setup_context"}
        self._classes: dict[type, set[str]] = {}  # users' classes -> members walked
        self._todo: list[tuple[Any, str]] = [(r, "the function") for r in roots]
        self._todo += [(hooks, "a hook of all modules") for hooks in _hooks_everywhere()]
        self._walk()
        # most are a module's hooks and the like: empty, and looked at in one step
        self._empty = [d for d, _, values, _ in self.dicts if not values]
        self._filled = [entry for entry in self.dicts if entry[2]]
        self._codes = [(f.__code__, f.__defaults__) for f in self.functions]
        self._tensor_states = [_state_of(t) for t in self.tensors]
        self._settings = [_settings(o) for o in self.optimizers]
        self._modes = _modes()

    # ------------------------------------------------------------------ still so?

    def holds(self) -> bool:
        """Whether everything is where it was."""
        return self.change() is None

    def change(self) -> str | None:
        """What is not where it was, or None."""
        if _modes() != self._modes:
            return "a mode (gradients, autocast, hooks)"
        if any(self._empty):
            return next(name for d, _, values, name in self.dicts if d and not values)
        for entry in (*self._filled, *self.lists):
            if is_changed(entry):
                return entry[-1]
        for x, kind in self.types:
            if type(x) is not kind:
                return f"a {kind.__name__}'s class"
        for cell, value, name in self.cells:
            now = _content(cell)
            if now is not value and not _alike((now,), (value,)):
                return name
        for space, name, value in self.names:
            now = space.get(name)
            if now is not value and not _alike((now,), (value,)):
                return name
        for cls, f in self.forwards.items():
            if vars(cls).get("forward") is not f:
                return f"{cls.__name__}.forward"
        for f, (code, defaults) in zip(self.functions, self._codes, strict=True):
            if f.__code__ is not code or f.__defaults__ is not defaults:
                return f.__qualname__
        for t, (a, seen, rg, fn, hooks) in zip(self.tensors, self._tensor_states, strict=True):
            ghost = t._ghost
            if computed(t) is not a or (ghost is not None and ghost.session is not None):
                return "a tensor's memory"
            if a is not None and _seen(a) != seen:
                return "how a tensor's memory is seen"
            if t._rg is not rg or t._fn is not fn or t._hooks or _hooked(t) or hooks:
                return "a tensor's place on the tape"
        for o, settings in zip(self.optimizers, self._settings, strict=True):
            if _settings(o) != settings:
                return "an optimizer's settings or state"
        return None

    # ------------------------------------------------------------------ the walk

    def _walk(self) -> None:
        while True:
            while self._todo:
                self._visit(*self._todo.pop())
                if len(self._seen) > _LARGEST:
                    raise Unseen(f"more than {_LARGEST} objects")
            for cls, walked in self._classes.items():
                for name, member in list(vars(cls).items()):
                    if name not in walked and self._may_run(name):
                        walked.add(name)
                        self._todo.append((member, f"{cls.__name__}.{name}"))
            if not self._todo:
                return

    def _may_run(self, name: str) -> bool:
        dunder = name.startswith("__") and name.endswith("__")
        return name in self._used or (dunder and name not in _NOT_CALLED) or "getattr" in self._used

    def counters(self) -> dict[int, tuple]:
        """The floats in each parameter's optimizer state, by the state's id."""
        states = [kept for o in self.optimizers for kept in o.state.values()]
        return {id(k): tuple(v for v in k.values() if v.__class__ is float) for k in states}

    def _visit(self, x: Any, name: str) -> None:
        if isinstance(x, _ATOMS) or id(x) in self._seen:
            return
        self._seen[id(x)] = x
        kind = type(x)
        if isinstance(x, Handle):
            if x._hooks or _hooked(x):
                raise Unseen(f"a tensor with hooks ({name})")
            if x._fn is None and x._ghost is not None:
                _ = x._a  # a result of an earlier call: let it be an ordinary tensor
            self.tensors.append(x)
        elif isinstance(x, types.FunctionType):
            self._function(x, name)
        elif isinstance(x, types.MethodType):
            self._todo += [(x.__self__, name), (x.__func__, name)]
        elif isinstance(x, (types.BuiltinFunctionType, types.MethodWrapperType, np.ufunc)):
            self._builtin(x, name)
        elif isinstance(x, types.ModuleType):
            self._module(x.__name__, name)
        elif isinstance(x, functools.partial):
            self._todo += [(x.func, name), (x.args, name), (x.keywords, name)]
        elif isinstance(x, (staticmethod, classmethod)):
            self._todo.append((x.__func__, name))
        elif isinstance(x, property):
            self._todo += [(f, name) for f in (x.fget, x.fset) if f is not None]
        elif isinstance(x, type):
            self._class(x)
        elif kind in (tuple, frozenset, Size) or (isinstance(x, tuple) and hasattr(x, "_fields")):
            self._todo += [(v, name) for v in x]
        elif kind in (list, set):
            self.lists.append((x, list(x), name))
            self._todo += [(v, name) for v in x]
        elif isinstance(x, dict):
            self._dict(x, name)
        elif isinstance(x, Op):  # a value; what it keeps beside its fields are caches of Weft's own
            self._todo += [(getattr(x, f.name), name) for f in dataclasses.fields(x)]
        elif _is_optimizer(x):
            self._optimizer(x)
        elif kind.__name__ == "CompiledFunction" and _is_pure(kind.__module__):
            self._todo.append((x._fn, name))  # type: ignore[union-attr]
        else:
            self._object(x, name)

    def _dict(self, x: dict, name: str) -> None:
        self.dicts.append((x, list(x), list(x.values()), name))
        self._todo += [(v, f"{name}.{k}") for k, v in x.items()]
        self._todo += [(k, name) for k in x if not isinstance(k, _ATOMS)]

    def _object(self, x: Any, name: str) -> None:
        kind = type(x)
        if isinstance(x, np.ndarray):
            raise Unseen(f"a NumPy array ({name})")
        if not hasattr(x, "__dict__") or kind.__module__ == "builtins":
            raise Unseen(f"an object of type {kind.__name__} ({name})")
        if not _is_pure(kind.__module__) and kind.__module__.partition(".")[0] in _STANDARD:
            raise Unseen(f"an object of type {kind.__module__}.{kind.__name__} ({name})")
        self._dict(x.__dict__, name)
        self.types.append((x, kind))
        for cls in kind.__mro__:
            for slot in _slots(cls):
                value = getattr(x, slot, None)
                if not isinstance(value, _ATOMS):
                    raise Unseen(f"{kind.__name__} has __slots__ ({name})")
            if not _is_pure(cls.__module__):
                self._members(cls)
            elif "forward" in vars(cls) and cls not in self.forwards:
                self.forwards[cls] = vars(cls)["forward"]  # libraries put their own in its place
                self._todo.append((self.forwards[cls], f"{cls.__name__}.forward"))

    def _class(self, cls: type) -> None:
        for c in cls.__mro__:
            if not _is_pure(c.__module__):
                if c.__module__.partition(".")[0] in _STANDARD:
                    raise Unseen(f"the class {c.__module__}.{c.__name__}")
                self._members(c)
                for name in ("__init__", "__new__"):
                    if name in vars(c):
                        self._todo.append((vars(c)[name], f"{c.__name__}.{name}"))

    def _members(self, cls: type) -> None:
        if cls not in self._classes:
            with suppress(Exception):  # whoever reads them first changes the class's dict by it
                cls.__annotations__  # noqa: B018
            self._classes[cls] = set()
            self.dicts.append((vars(cls), list(vars(cls)), list(vars(cls).values()), cls.__name__))

    def _builtin(self, x: Any, name: str) -> None:
        owner = getattr(x, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType):
            self._todo.append((owner, name))
            return
        module = getattr(x, "__module__", None) or getattr(owner, "__name__", None) or "numpy"
        self._module(module, name)

    def _module(self, module: str, name: str) -> None:
        if not _is_pure(module):
            raise Unseen(f"the module {module} ({name})")

    def _function(self, x: types.FunctionType, name: str) -> None:
        if _is_pure(x.__module__ or ""):
            wrapped = getattr(x, "__wrapped__", None)
            self._todo += [(wrapped, name)] if wrapped is not None else []
            return
        if (x.__module__ or "").partition(".")[0] in _STANDARD:
            raise Unseen(f"the function {x.__module__}.{x.__qualname__}")
        self.functions.append(x)
        self._todo += [(x.__defaults__, name), (x.__kwdefaults__, name)]
        for free, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True):
            value = _content(cell)
            self.cells.append((cell, value, free))
            self._todo.append((value, free))
        self._code(x.__code__, x.__globals__)

    def _code(self, code: types.CodeType, namespace: dict) -> None:
        found, attributes, imported = _names_of(code)
        self._used |= attributes
        for name in found:
            if name in namespace:
                value = namespace[name]
                self.names.append((namespace, name, value))
                self._entry(value, name, attributes)
            elif name in _IMPURE_NAMES:
                raise Unseen(f"the builtin {name}()")
            elif hasattr(builtins, name):
                self._used.add(name)
        if "random" in attributes and found & {"np", "numpy"}:
            raise Unseen("numpy.random")
        for name in imported:
            module = sys.modules.get(name)
            if module is None or not _is_pure(name):
                raise Unseen(f"the module {name}")

    def _entry(self, value: Any, name: str, attributes: set[str]) -> None:
        """What a name stands for: of a module, what a function may use of it."""
        if not isinstance(value, types.ModuleType):
            self._todo.append((value, name))
            return
        module = value.__name__
        pure = _is_pure(module)
        if not pure and module.partition(".")[0] in _STANDARD:
            raise Unseen(f"the module {module}")
        for used in sorted(attributes & vars(value).keys()):
            inner = vars(value)[used]
            foreign = isinstance(inner, types.ModuleType) and not _is_pure(inner.__name__)
            if not (pure and foreign) and (id(value), used) not in self._met:
                self._met.add((id(value), used))
                self.names.append((vars(value), used, inner))
                self._entry(inner, f"{module}.{used}", attributes)

    def _optimizer(self, x: Any) -> None:
        self.optimizers.append(x)
        for k, v in list(vars(x).items()):
            if k.endswith("_hooks") and v:
                raise Unseen("an optimizer with hooks")
            if k not in OPTIMIZER_OWN:
                self._todo.append((v, f"{type(x).__name__}.{k}"))
        for group in x.param_groups:
            self._todo += [(v, f"the setting {k}") for k, v in group.items()]
        for p, kept in x.state.items():
            self._todo.append((p, "a parameter"))
            self._todo += [(v, f"the state {k}") for k, v in kept.items()]
        for cls in type(x).__mro__:
            if not _is_pure(cls.__module__):
                self._members(cls)


_STANDARD = sys.stdlib_module_names


def is_changed(entry: tuple) -> bool:
    """Whether a dict (with its keys and values) or a list or set (with its items) is not as it was.

    The entry's first is the container, its last a name.
    """
    x, *parts, _ = entry
    if len(x) != len(parts[0]):
        return True
    now = (x, x.values()) if len(parts) == 2 else (x,)
    return not all(all(map(is_, a, b)) or _alike(a, b) for a, b in zip(now, parts, strict=True))


def _is_pure(module: str) -> bool:
    return module.partition(".")[0] in _PURE and not module.startswith("numpy.random")


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return () if _is_pure(cls.__module__) else (slots,) if isinstance(slots, str) else tuple(slots)


def _alike(now: Iterable, before: Iterable) -> bool:
    """Equal, number by number and string by string: a value made anew is no change."""
    for a, b in zip(now, before, strict=True):
        if a is not b and (type(a) is not type(b) or not isinstance(a, _SCALARS)):
            return False
        if a is not b and (a != b or repr(a) != repr(b)):
            return False
    return True


_GLOBAL = {  # the last is for what a class annotates and its type parameters, from 3.12
    "LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS",
}  # fmt: skip


@functools.cache
def _names_of(code: types.CodeType) -> tuple[set[str], set[str], set[str]]:
    """The globals, attributes and modules that a code object and those inside it name."""
    found, attributes, imported = set(), set(), set()
    for i in dis.get_instructions(code):
        if i.opname in _GLOBAL:
            found.add(i.argval)
        elif i.opname == "IMPORT_NAME":
            imported.add(i.argval)
        elif i.argval.__class__ is str and i.argval in code.co_names:
            attributes.add(i.argval)
    for c in code.co_consts:
        if isinstance(c, types.CodeType):
            for mine, more in zip((found, attributes, imported), _names_of(c), strict=True):
                mine |= more
    return found, attributes, imported


def _hooked(t: Handle) -> bool:
    return bool(t.__dict__.get("_post_accumulate"))


def _state_of(t: Handle) -> tuple:
    a = computed(t)
    return a, None if a is None else _seen(a), t._rg, t._fn, bool(t._hooks)


def _seen(a: np.ndarray) -> tuple:
    """What may be set in place, by `resize` most likely."""
    return a.shape, a.strides, a.dtype


# attributes of objects whose values are the modes of a call; guard.py reads them in native form
MODES: tuple[tuple[Any, str], ...] = (
    (state, "grad"), (state, "autocast"), (state, "saved_hooks"), (TapeNode, "watch"),
    (dt._Default, "dtype"), (FastMath, "on"),
)  # fmt: skip


def _modes() -> list:
    return [getattr(x, name) for x, name in MODES]


def _hooks_everywhere() -> list[dict]:
    """The hooks that every module calls: weft.nn's, if it is there."""
    module = sys.modules.get("weft.nn.hooks")
    kept = () if module is None else vars(module.Everywhere).values()
    return [x for x in kept if isinstance(x, dict)]


def _is_optimizer(x: Any) -> bool:
    return any(
        c.__name__ == "Optimizer" and c.__module__ == "weft.optim.optimizer"
        for c in type(x).__mro__
    )


def _settings(o: Any) -> list:
    """An optimizer without the numbers that its updates read anew on every step: of a float, only
    whether it is 0 counts (whether an update decays, has momentum)."""
    found: list = []

    def note(key: Any, v: Any) -> None:
        scalar = bool(v) if v.__class__ is float else v if isinstance(v, _SCALARS) else id(v)
        found.append((key, v.__class__, scalar))

    for k, v in list(vars(o).items()):
        if k not in OPTIMIZER_OWN:
            note(k, v)
    for group in o.param_groups:
        for k, v in group.items():
            if k == "params":
                found.append([id(p) for p in v])
            else:
                note(k, v)
    for p, kept in o.state.items():
        found.append(id(p))
        for k, v in kept.items():
            # counters count: that they are not 0 any more is no change of kind
            found.append((k, float)) if v.__class__ is float else note(k, v)
    return found
