"""A native look at whether objects are still what and where they were; see `guard_code`."""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from weft.runtime import guard_code, native

_ITEM, _LENGTH, _USED_OF_SET = 24, 16, 24  # bytes from an object's address
_TYPE = 8
ABSENT = object()  # stands for a dict's entry that is not there


class Stream:
    """Instructions of `guard_code`, and the objects that they name.

    Each method adds one, of how things are now. `check()`, once `ready()`, says if they still are.
    """

    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._parts: list[int] = []
        self._words: list[tuple[Any, int]] = []  # an object's word, by its place

    def _id(self, x: Any) -> int:
        self._kept.append(x)
        return id(x)

    def empty(self, x: dict | set) -> None:
        """This dict or set has no entries."""
        self._words.append((x, _USED_OF_SET if isinstance(x, set) else _LENGTH))

    def kind(self, x: Any) -> None:
        """x is of this class."""
        self._words.append((x, _TYPE))
        self._kept.append(type(x))

    def cell(self, x: types.CellType) -> None:
        """The cell holds this object."""
        self._words.append((x, _LENGTH))
        self._kept.append(x.cell_contents if _is_full(x) else None)

    def data(self, x: Any) -> None:
        """The ndarray's memory begins here."""
        self._words.append((x, _LENGTH))

    def entries(self, x: dict, modes: Callable[[Any, Any], tuple[int, Any]] | None = None) -> None:
        """The dict's keys and values, in order; `modes(key, value)` gives what of a value counts:
        a mode of `guard_code` and, where the mode wants one, the value.
        """
        words: list[int] = [guard_code.DICT, len(x), self._id(x)]
        for k, v in x.items():
            mode, value = (guard_code.SAME, v) if modes is None else modes(k, v)
            word = int(value) if mode == guard_code.FLOAT_IS else self._id(value)
            words += (self._id(k), mode, word)
        self._parts += words

    def items(self, x: list) -> None:
        """The list's items."""
        self._parts += (guard_code.LIST, len(x), self._id(x), *[self._id(v) for v in x])

    def names(self, entries: Sequence[tuple[dict, str, Any]]) -> None:
        """Entries of dicts; ABSENT: there is none."""
        self._many(guard_code.NAMES, entries)

    def functions(self, functions: Sequence[types.FunctionType]) -> None:
        """The functions' code and defaults."""
        found = [
            (f, f.__code__, ABSENT if f.__defaults__ is None else f.__defaults__) for f in functions
        ]
        self._many(guard_code.FUNCTIONS, found)

    def dicts(self, pairs: Sequence[tuple[Any, dict]]) -> None:
        """Objects and their `__dict__`."""
        self._many(guard_code.DICTS, pairs)

    def attributes(self, entries: Sequence[tuple[Any, str, Any]]) -> None:
        """Attributes of objects, whatever finds them."""
        self._many(guard_code.ATTRIBUTES, entries)

    def _many(self, op: int, entries: Sequence[tuple[Any, ...]]) -> None:
        words = [0 if x is ABSENT else self._id(x) for entry in entries for x in entry]
        self._parts += (op, len(entries), *words)

    def ready(self) -> Stream:
        """No instruction is added any more."""
        places = [self._id(x) + place for x, place in self._words]
        looked = [w for at in places for w in (at, ctypes.c_int64.from_address(at).value)]
        words = [guard_code.WORDS, len(places), *looked, *self._parts, guard_code.END]
        self._native = (ctypes.c_int64 * len(words))(*words)
        self.address = ctypes.addressof(self._native)
        function = _functions()["weft_guard_check"]
        self.check: Callable[[], bool] = native.builtin(
            "check", function, native.METH_NOARGS, bound=self.address
        )
        return self


def _is_full(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


@cache
def _functions() -> dict[str, int]:
    found = native.load(
        guard_code.TEXT, guard_code.EXPORTS, native.python_functions(guard_code.FUNCTIONS_USED)
    )
    ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(found["weft_guard_init"])(id(float))
    return found


@cache
def available() -> bool:
    """Whether the interpreter is one whose structs we know, and they are so."""
    if not native.builtins_fit():
        return False
    item, table, cell = object(), {1: 2, 3: 4, 5: 6}, types.CellType(7)
    some = [item, 8]
    word = lambda at: ctypes.c_int64.from_address(at).value
    return (
        [word(id(x) + _LENGTH) for x in ({}, table, [], some)] == [0, 3, 0, 2]
        and [word(id(x) + _USED_OF_SET) for x in (set(), {1, 2})] == [0, 2]
        and word(id(item) + _TYPE) == id(object)
        and word(word(id(some) + _ITEM)) == id(item)
        and word(id(cell) + _LENGTH) == id(cell.cell_contents)
        and ctypes.c_double.from_address(id(2.5) + _LENGTH).value == 2.5
    )
