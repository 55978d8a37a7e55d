"""A native look at whether objects are still what and where they were (`guard_code`), and a program
that runs if they are (`replay_code`).
"""

from __future__ import annotations

import ctypes
import math
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from weft.runtime import guard_code, memory, native, replay_code, threads
from weft.runtime.once import once

_ITEM, _LENGTH, _USED_OF_SET = 24, 16, 24  # bytes from an object's address
TYPE, TAG, _MANAGED = 8, 24, -24  # a dict's tag; where an object keeps its dict, since 3.11
RANK, DIMS, _DTYPE = 24, (32, 40), 56  # of an ndarray: pointers to dims and strides; its dtype
VERSION = 384  # of a class: each change of it or of a base makes this number anew; 0: it has none
_Slot = types.MemberDescriptorType
ABSENT = object()  # stands for a dict's entry that is not there


class Stream:
    """Instructions of `guard_code`, and the objects that they name.

    Each method adds one, of how things are now. `check()`, once `ready()`, says if they still are.
    """

    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._parts: list[int] = []
        self._words: list[tuple[Any, int]] = []  # an object's word, by its place
        self._arrays: list[np.ndarray] = []  # whose dims and strides count
        self._dicts: list[tuple[dict, list[int], bool]] = []  # their entries' words; are they so

    def _id(self, x: Any) -> int:
        self._kept.append(x)
        return id(x)

    def empty(self, x: dict | set) -> None:
        """This dict or set has no entries."""
        self._words.append((x, _USED_OF_SET if isinstance(x, set) else _LENGTH))

    def kind(self, x: Any) -> None:
        """x is of this class."""
        self._words.append((x, TYPE))
        self._kept.append(type(x))

    def places(self, x: Any, kind: type, names: Sequence[str]) -> None:
        """These slots, of x's class `kind`, hold what they do."""
        for name in names:
            self._kept.append(getattr(x, name))
            self._words.append((x, native.slot_offset(kind, name)))

    def cell(self, x: types.CellType) -> None:
        """The cell holds this object."""
        self._words.append((x, _LENGTH))
        self._kept.append(x.cell_contents if _is_full(x) else None)

    def data(self, x: Any) -> None:
        """The ndarray's memory begins here, and is seen in this way: all may be set in place."""
        self._words += [(x, place) for place in (_LENGTH, *DIMS, _DTYPE)]
        self._arrays.append(x)

    def entries(
        self, x: dict, modes: Callable[[Any, Any], tuple[int, Any]] | None = None, *,
        as_now: bool = True,
    ) -> None:  # fmt: skip
        """The dict's keys and values, in order; `modes(key, value)` gives what of a value counts:
        a mode of `guard_code` and, where the mode wants one, the value. Not `as_now`: they are
        to be so, and are not yet.
        """
        words: list[int] = []
        for k, v in list(x.items()):
            mode, value = (guard_code.SAME, v) if modes is None else modes(k, v)
            word = int(value) if mode == guard_code.FLOAT_IS else self._id(value)
            words += (self._id(k), mode, word)
        self._dicts.append((x, words, as_now))

    def items(self, x: list) -> None:
        """The list's items."""
        self._parts += (guard_code.LIST, len(x), self._id(x), *[self._id(v) for v in x])

    def names(self, entries: Sequence[tuple[dict, str, Any]]) -> None:
        """Entries of dicts; ABSENT: there is none."""
        self._many(guard_code.NAMES, entries)

    def member(self, x: type, name: str, value: Any) -> None:
        """The class keeps this under that name."""
        if _has_versions() and word_at(id(x) + VERSION) & 0xFFFFFFFF:
            self._words.append((x, VERSION))
        else:
            self.attributes([(x, name, value)])

    def functions(self, functions: Sequence[types.FunctionType]) -> None:
        """The functions' code and defaults."""
        found = [
            (f, f.__code__, ABSENT if f.__defaults__ is None else f.__defaults__) for f in functions
        ]
        self._many(guard_code.FUNCTIONS, found)

    def dicts(self, pairs: Sequence[tuple[Any, dict]]) -> None:
        """Objects and their `__dict__`."""
        hidden = []
        for x, d in pairs:
            place = dict_place(x)
            if place and word_at(id(x) + place) == id(d):
                self._words.append((x, place))
                self._kept.append(d)
            else:
                hidden.append((x, d))
        if hidden:
            self._many(guard_code.HIDDEN, hidden)

    def attributes(self, entries: Sequence[tuple[Any, str, Any]]) -> None:
        """Attributes of objects, whatever finds them."""
        found = []
        for x, name, value in entries:
            slot = vars(type(x)).get(name)
            place = native.slot_offset(type(x), name) if type(slot) is _Slot else 0
            if place and word_at(id(x) + place) == id(value):
                self._words.append((x, place))
                self._kept.append(value)
            else:
                found.append((x, name, value))
        if found:
            self._many(guard_code.ATTRIBUTES, found)

    def _many(self, op: int, entries: Sequence[tuple[Any, ...]]) -> None:
        words = [0 if x is ABSENT else self._id(x) for entry in entries for x in entry]
        self._parts += (op, len(entries), *words)

    def ready(self) -> Stream:
        """No instruction is added any more."""
        places = [self._id(x) + place for x, place in self._words]
        for a in self._arrays:  # where the dims lie will have been compared by then
            for at in (word_at(id(a) + place) for place in DIMS):
                places += range(at, at + 8 * a.ndim, 8)
        looked = [w for at in places for w in (at, word_at(at))]
        start = [guard_code.WORDS, len(places), *looked, guard_code.DICTS, len(self._dicts)]
        end = [*self._parts, guard_code.END]
        at = len(start) + 4 * len(self._dicts) + len(end)
        entries = [word for _, words, _ in self._dicts for word in words]
        self._native = (ctypes.c_int64 * (at + len(entries)))()
        self.address = ctypes.addressof(self._native)
        for x, words, so in self._dicts:
            tag = (word_at(id(x) + TAG) if so else -1) * _has_tags()
            start += (self._id(x), tag, len(words) // 3, self.address + 8 * at)
            at += len(words)
        self._native[:] = [*start, *end, *entries]
        function = _functions()["weft_guard_check"]
        self.check: Callable[[], bool] = native.builtin(
            "check", function, native.METH_NOARGS,
            bound=native.Bound(self.address, self._native, self._kept),
        )  # fmt: skip
        return self


def dict_place(x: Any) -> int:
    """How far from an object's address its dict may be named; 0: nowhere."""
    place = type(x).__dictoffset__
    return _MANAGED if place < 0 else place


def word_at(at: int) -> int:
    return ctypes.c_int64.from_address(at).value


@once
def _has_tags() -> bool:
    """Whether a dict has a number that each change of it makes anew."""
    d: dict[str, int] = {}
    seen = [word_at(id(d) + TAG)]
    for change in (lambda: d.update(a=1), lambda: d.update(a=2), d.clear, lambda: d.update(a=1)):
        change()
        seen.append(word_at(id(d) + TAG))
    return sys.version_info < (3, 13) and len(set(seen)) == len(seen)


@once
def _has_versions() -> bool:
    """Whether a class has a number that each change of it makes anew."""

    class Base:
        value = 0

    class Inner(Base):
        pass

    seen = []
    for kind in (Base, Inner, Base, Inner):
        kind.value = len(seen)
        _ = Inner().value
        seen.append(word_at(id(Inner) + VERSION) & 0xFFFFFFFF)
    return all(seen) and len(set(seen)) == len(seen)


def has_tags_and_versions() -> bool:
    """Whether each change of a dict, and of a class, makes a number of it anew."""
    return _has_tags() and _has_versions()


def _is_full(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


Places = Sequence[tuple[int, int]]  # addresses of a table's words, what to add to the pointer


class GuardedRun:
    """A table that runs on arguments like the ones recorded, if its stream finds all in place.

    `call(*tensors)` gives the result's array (a tuple of them where there are more), or None:
    nothing was done. `arguments`: an array like each and where its address goes; `results`: their
    shapes and dtypes, and where theirs go; `roots`: the arrays that own the memory outside, which
    no argument may share; `kind`: the tensors' class. Whoever calls must see to it that no other
    run of the table happens meanwhile.
    """

    def __init__(
        self, stream: Stream, arguments: Sequence[tuple[np.ndarray, Places]],
        results: Sequence[tuple[tuple[int, ...], np.dtype, Places]], roots: Iterable[int],
        table: native.Table, kind: type,
    ) -> None:  # fmt: skip
        if max(len(arguments), len(results)) > replay_code.MOST or not results:
            raise ValueError(f"{len(arguments)} arguments, {len(results)} results")
        places = lambda found: [len(found), *[w for pair in found for w in pair]]
        taken: list[int] = []
        for a, found in arguments:
            taken += [id(a.dtype), a.ndim, *a.shape, *a.strides, *places(found)]
        made: list[int] = []
        kept: list[Any] = [stream, table, kind, [a.dtype for a, _ in arguments]]
        for shape, dtype, found in results:
            large = math.prod(shape) * dtype.itemsize >= memory.SMALL
            maker = memory.maker(shape, dtype) if large else None
            dims = native.words(shape)
            kept.append((dtype, maker, dims))
            at = ctypes.addressof(dims)
            made += [id(dtype), len(shape), at, id(maker) if maker else 0, *places(found)]
        known = list(roots)
        arrays = [native.words(x) for x in (taken, made, known, (0, 0, 0))]
        at_taken, at_made, at_known, report = map(ctypes.addressof, arrays)
        head = native.words([
            stream.address, len(arguments), at_taken, len(results), at_made, len(known), at_known,
            table.address, len(table), report, id(kind),
        ])  # fmt: skip
        self._kept = kept, arrays, head
        self.call: Callable[..., Any] = native.builtin(
            "call", _functions()["weft_replay_call"], native.METH_FASTCALL,
            bound=native.Bound(ctypes.addressof(head), *self._kept),
        )  # fmt: skip


@once
def _functions() -> dict[str, int]:
    imports = native.python_functions((*guard_code.FUNCTIONS_USED, *replay_code.FUNCTIONS_USED))
    imports["weft_run_table"] = threads.functions()["weft_run_table"]
    text, exports = guard_code.TEXT + replay_code.TEXT, guard_code.EXPORTS + replay_code.EXPORTS
    found = native.load(text, exports, imports)
    init = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
    init(found["weft_guard_init"])(id(float))
    names = [sys.intern(name) for name in replay_code.NAMES]
    _names.extend(names)
    objects = [id(x) for x in (np.ndarray, None)]
    words = native.words([*objects, native.new_array_function(), id(False), *map(id, names)])
    init(found["weft_replay_init"])(ctypes.addressof(words))
    return found


_names: list[str] = []  # which native code points to


@once
def available() -> bool:
    """Whether the interpreter is one whose structs we know, and they are so."""
    if not native.builtins_fit():
        return False
    item, table, cell = object(), {1: 2, 3: 4, 5: 6}, types.CellType(7)
    some = [item, 8]
    return (
        [word_at(id(x) + _LENGTH) for x in ({}, table, [], some)] == [0, 3, 0, 2]
        and [word_at(id(x) + _USED_OF_SET) for x in (set(), {1, 2})] == [0, 2]
        and word_at(id(item) + TYPE) == id(object)
        and word_at(word_at(id(some) + _ITEM)) == id(item)
        and word_at(id(cell) + _LENGTH) == id(cell.cell_contents)
        and ctypes.c_double.from_address(id(2.5) + _LENGTH).value == 2.5
    )
