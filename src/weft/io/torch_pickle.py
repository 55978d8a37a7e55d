"""The pickle inside a checkpoint, walked without executing it.

A pickle is a program: it names callables and calls them.  This reader knows the makers of
torch_makers.py and calls nothing else.  Another global is refused (weights_only, as torch) or
becomes the class of an inert record.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import weft
from weft.core import dtype as dt
from weft.core.types import numel
from weft.io.torch_makers import (
    CALLS,
    MAKERS,
    STORED,
    Record,
    Revived,
    all_hashable,
    encode,
    hashable,
    refuse,
    revived,
    whole_numbers,
)

# ------------------------------------------------------------------------------- what users allow

_allowed: dict[str, Any] = {}


def _full_name(x: Any) -> str:
    return f"{x.__module__}.{x.__qualname__}"


def add_safe_globals(safe_globals: list) -> None:
    """Let files make objects of these classes (or call these functions); (thing, name) renames."""
    for entry in safe_globals:
        thing, name = entry if isinstance(entry, tuple) else (entry, _full_name(entry))
        _allowed[name] = thing


def get_safe_globals() -> list:
    """What add_safe_globals was given."""
    return list(_allowed.values())


def clear_safe_globals() -> None:
    """Forget what add_safe_globals was given."""
    _allowed.clear()


@contextmanager
def safe_globals(safe_globals: list) -> Iterator[None]:
    """add_safe_globals inside a `with` block."""
    before = dict(_allowed)
    add_safe_globals(safe_globals)
    try:
        yield
    finally:
        _allowed.clear()
        _allowed.update(before)


def unknown_globals(pickled: bytes) -> list[str]:
    """The names in a pickle that are neither made nor allowed, found without running a step."""
    found, recent = set(), []
    for op, arg, _ in pickletools.genops(pickled):
        if op.name in ("GLOBAL", "INST"):
            module, _, name = str(arg).partition(" ")
        elif op.name == "STACK_GLOBAL":
            module, name = recent[-2:] if len(recent) > 1 else ("?", "?")
        else:
            if isinstance(arg, str):
                recent = [*recent[-1:], arg]
            continue
        if (module, name) not in MAKERS and f"{module}.{name}" not in _allowed:
            found.add(f"{module}.{name}")
    return sorted(found)


# -------------------------------------------------------------------------------------- the walk

_PythonUnpickler: Any = pickle._Unpickler


class Unpickler(_PythonUnpickler):
    """A pickle reader that calls `CALLS` and nothing else.  The one in Python: its steps can be
    refused one by one."""

    dispatch = dict(_PythonUnpickler.dispatch)

    def __init__(
        self, file: Any, persistent: Callable, *, weights_only: bool, encoding: str = "utf-8"
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._persistent, self._strict = persistent, weights_only
        self.unknown: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> Any:
        found = MAKERS.get((module, name))
        full = f"{module}.{name}"
        if found is None and module == "torch" and name in STORED:
            found = getattr(weft, name)
        if found is None:
            found = _allowed.get(full)
        if found is not None:
            return found
        if not self._strict and (found := revived(module, name)) is not None:
            return found
        if self._strict:
            raise pickle.UnpicklingError(
                f"Weights only load failed. Unsupported global: GLOBAL {full} was not an "
                "allowed global by default. Weft never runs what a file holds; with "
                "weights_only=False objects of unknown classes are read as inert records."
            )
        if full not in self.unknown:
            self.unknown[full] = type(name.rpartition(".")[2], (Record,), {"__module__": module})
        return self.unknown[full]

    def persistent_load(self, pid: Any) -> Any:
        return self._persistent(pid)

    def _call(self, made_by: Any, args: Any, kw: Any = None) -> Any:
        if not isinstance(args, tuple) or (kw is not None and not isinstance(kw, dict)):
            raise refuse("a call without a tuple of arguments")
        call = CALLS.get(id(made_by))
        if call is not None:
            return call(*args, **(kw or {}))
        own = isinstance(made_by, type) and (
            issubclass(made_by, Record)
            or (issubclass(made_by, Revived) and issubclass(made_by.target, weft.nn.Module))
        )
        if own or any(made_by is a for a in _allowed.values()):
            return made_by(*args, **(kw or {}))
        raise refuse(f"calling {str(made_by)[:60]}")

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def load_newobj(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._new(self.stack[-1], args, None)

    def load_newobj_ex(self) -> None:
        kw, args = self.stack.pop(), self.stack.pop()
        self.stack[-1] = self._new(self.stack[-1], args, kw)

    def _new(self, cls: Any, args: Any, kw: Any) -> Any:
        """cls.__new__ for a class that the user allowed, as pickle says; else a call of a maker."""
        if isinstance(cls, type) and any(cls is a for a in _allowed.values()):
            return cls.__new__(cls, *args, **(kw or {}))
        return self._call(cls, args, kw)

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(self._call(klass, tuple(args)))

    def load_build(self) -> None:
        """State goes into objects that the file made, never into classes, functions or tensors."""
        state = self.stack.pop()
        made: Any = self.stack[-1]
        if isinstance(made, type):
            raise refuse("state for a class")
        if isinstance(made, np.dtype):
            _check_dtype_state(made, state)
            made.__setstate__(state)  # type: ignore[attr-defined]
        elif type(made) is np.ndarray:
            made.__setstate__(_checked_array_state(state))
        elif any(type(made) is a for a in _allowed.values()):
            self.stack.append(state)
            super().load_build()
        elif isinstance(made, Record):
            made.__setstate__(state)
        elif isinstance(made, (weft.nn.Module, OrderedDict, types.SimpleNamespace)):
            _put_state(made, state)
        else:
            raise pickle.UnpicklingError(f"state for a {type(made).__name__} is refused")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._put(self.stack[-1], items)

    def _put(self, into: Any, items: list) -> None:
        if not isinstance(into, dict):
            if not isinstance(into, Record):
                raise refuse(f"items for a {type(into).__name__}")
            return
        for i in range(0, len(items) - 1, 2):
            into[hashable(items[i])] = items[i + 1]

    def load_append(self) -> None:
        self._extend(self.stack[-2], [self.stack.pop()])

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._extend(self.stack[-1], items)

    def _extend(self, onto: Any, items: list) -> None:
        if isinstance(onto, list):
            list.extend(onto, items)
        elif not isinstance(onto, Record):
            raise refuse(f"elements for a {type(onto).__name__}")

    def load_additems(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise refuse(f"elements for a {type(self.stack[-1]).__name__}")
        self.stack[-1].update(all_hashable(items))

    def load_frozenset(self) -> None:
        self.append(frozenset(all_hashable(self.pop_mark())))

    def load_dict(self) -> None:
        items = self.pop_mark()
        made: dict = {}
        self._put(made, items)
        self.append(made)

    def _refused(self) -> None:
        raise refuse("an opcode that checkpoints do not use")

    for _code, _step in (
        (pickle.REDUCE, load_reduce), (pickle.NEWOBJ, load_newobj), (pickle.BUILD, load_build),
        (pickle.NEWOBJ_EX, load_newobj_ex), (pickle.SETITEM, load_setitem),
        (pickle.SETITEMS, load_setitems), (pickle.APPEND, load_append), (pickle.DICT, load_dict),
        (pickle.APPENDS, load_appends), (pickle.ADDITEMS, load_additems),
        (pickle.FROZENSET, load_frozenset), (pickle.EXT1, _refused), (pickle.EXT2, _refused),
        (pickle.EXT4, _refused), (pickle.BYTEARRAY8, _refused), (pickle.NEXT_BUFFER, _refused),
        (pickle.READONLY_BUFFER, _refused),
    ):  # fmt: skip
        dispatch[_code[0]] = _step
    del _code, _step


class Scout(Unpickler):
    """Goes over a pickle for its persistent ids alone: whatever it makes is an inert record."""

    def find_class(self, module: str, name: str) -> Any:
        found = MAKERS.get((module, name))
        return found if isinstance(found, dt.dtype) else Record


# What the steps raise when the opcodes make no sense.
_BROKEN = (
    IndexError, KeyError, TypeError, AttributeError, UnicodeError, OverflowError, struct.error,
)  # fmt: skip


def read(
    pickled: Any, persistent: Callable, *, weights_only: bool, encoding: str = "utf-8",
    by: type[Unpickler] = Unpickler,
) -> tuple[Any, set[str]]:  # fmt: skip
    """(the value, names of the classes that became inert records) of a pickle, bytes or a file.

    pickle.UnpicklingError for what is no pickle, is cut, or asks for what is refused.
    """
    file = io.BytesIO(pickled) if isinstance(pickled, bytes) else pickled
    reader = by(file, persistent, weights_only=weights_only, encoding=encoding)
    try:
        value = reader.load()
    except (pickle.UnpicklingError, EOFError, MemoryError):
        raise
    except RecursionError:
        raise refuse("a value nested so deeply") from None
    except _BROKEN as e:
        raise pickle.UnpicklingError(f"load: the pickle is broken: {type(e).__name__}: {e}") from e
    return value, set(reader.unknown)


def _put_state(made: Any, state: Any) -> None:
    """Attributes of a module, a dict or a namespace; no method of the file's choice runs."""
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    for part in parts:
        if part is None:
            continue
        if not isinstance(part, dict) or not all(type(k) is str for k in part):
            raise refuse(f"state that is a {type(part).__name__}")
        if any(k.startswith("__") for k in part):
            raise refuse("state with names of Python's own")
        made.__dict__.update(part)
    if isinstance(made, weft.nn.Module):
        weft.nn.Module.__setstate__(made, {})  # what older files lack


def _check_dtype_state(d: np.dtype, state: Any) -> None:
    """Only byte order, or a text's own size, may be set: NumPy believes the rest."""
    plain = (
        isinstance(state, tuple)
        and len(state) in (8, 9)
        and state[1] in ("<", ">", "=", "|")
        and tuple(state[2:5]) == (None, None, None)
        and (state[5] == -1 or (d.kind in "US" and state[5] == d.itemsize))
        and (state[6] == -1 or (d.kind in "US" and state[6] in (1, 4)))
        and type(state[0]) is int
        and type(state[7]) is int
    )
    if not plain or (d.kind == "O" and state[1] != "|"):
        raise refuse("state of a NumPy dtype")


def _checked_array_state(state: Any) -> tuple:
    """(version, shape, dtype, fortran, numbers), whose sizes agree."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise refuse("state of a NumPy array")
    version, shape, d, fortran, raw = state
    shape = whole_numbers(shape, "shape")
    raw = encode(raw) if isinstance(raw, str) else raw
    if not isinstance(d, np.dtype) or min(shape, default=0) < 0 or len(shape) > 32:
        raise refuse("state of a NumPy array")
    fits = len(raw) == numel(shape) * (1 if d.hasobject else d.itemsize)
    if not isinstance(raw, list if d.hasobject else bytes) or not fits:
        raise refuse("a NumPy array of another size than its numbers")
    return 1, shape, d, bool(fortran), raw
