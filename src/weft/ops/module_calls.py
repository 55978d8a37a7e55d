"""Native code behind `module.name` and `module(x)`.

CPython 3.11 makes an exception for each attribute that is not in an object's own dict before it
asks `__getattr__`: a parameter or a child takes 0.7 us, and a call in Python 0.3 more than
`forward`.  Two slots of Module's classes are replaced:

`tp_getattro` looks as object's does, then in `_parameters`, `_modules` and `_buffers`; what is not
there, Python's `__getattr__` is asked.

`tp_call` knows layers that are one op of their input and of what they own.  It runs the op at once
where the versions of the module's dicts, of its class and of whatever else may have a say are those
that `know` found; else Python runs, and `tell(module, args)` once in 13 such calls.  A word that a
call compares is read only where those before it have shown that it is there.

Where a class has its own `__getattr__`, `__getattribute__` or `__call__` its slots stay Python's;
who sets one later gets Python's slot back by CPython itself.

A call that is known, i64 words: 0 the module, 1 the op's table, 2 operands, 3 the input's rank or
0, 4 what keeps the table, 5 the number of pairs, 6 to 12 the operands behind the input, then pairs:
an address, the word there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from weft.core import overrides
from weft.core.handle import Handle
from weft.core.op import Op
from weft.ops import dispatch
from weft.ops.contract import FastMath
from weft.runtime import guards, native

_CALL, _GETATTRO = 128, 144  # PyTypeObject
_SLOTS = {_CALL: 50, _GETATTRO: 58}  # their numbers in CPython's stable ABI
_MANY = 4096  # calls that are known
_kept: dict[int, tuple] = {}  # by place
_functions: dict[str, int] = {}
_base: list[type] = []
_python: dict[int, int] = {}  # slots as CPython made them, by place


def install(module: type, tell: Callable[[Any, tuple], None]) -> None:
    """The base class, and what may `know` a module that was called in Python."""

    def take_over(functions: dict[str, int]) -> None:
        search = getattr(ctypes.pythonapi, "_PyObject_GenericGetAttrWithDict", None)
        slot = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_int)(
            ("PyType_GetSlot", ctypes.pythonapi)
        )
        _python.update({at: guards.word_at(id(module) + at) for at in _SLOTS})
        if search is None or any(slot(module, n) != _python[at] for at, n in _SLOTS.items()):
            return
        way = vars(module)["__getattr__"]
        _functions.update(functions)
        words = native.words([
            id(way), native.function_address(search), _python[_CALL], id(tell)
        ])  # fmt: skip
        _kept[-1] = way, tell
        ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(functions["weft_module_init"])(
            native.address_of(words)
        )
        _base.append(module)
        below = [module]
        while below:
            kind = below.pop()
            below += kind.__subclasses__()
            adopt(kind)

    def made_below(kind: type, **kw: Any) -> None:
        super(module, kind).__init_subclass__(**kw)
        adopt(kind)

    module.__init_subclass__ = classmethod(made_below)  # type: ignore[assignment]
    native.when_ready(take_over)


def adopt(kind: type) -> None:
    """The slots of the base class or of one below it, where they are not a class's own."""
    for base in _base:
        for at, names, function in (
            (_GETATTRO, ("__getattr__", "__getattribute__"), "weft_module_attribute"),
            (_CALL, ("__call__",), "weft_module_call"),
        ):
            inherited = all(getattr(kind, name) is getattr(base, name) for name in names)
            if inherited and guards.word_at(id(kind) + at) == _python[at]:
                ctypes.c_int64.from_address(id(kind) + at).value = _functions[function]


def know(
    module: Any, op: Op, rank: int, operands: Sequence[Any], within: Iterable[dict],
    also: Iterable[Any], *, shaped: bool = False,
) -> None:  # fmt: skip
    """From now on `module(x)` is `op.quick(x, *operands)` for an x of this rank (0: of any).

    `within`: dicts of the module that have the operands. `also`: classes and dicts elsewhere of
    which any change ends it; those by which ops are chosen are looked at, too. `shaped`: so does
    another length of the first operand, a vector.
    """
    calls, own = op._calls, module.__dict__
    if not _functions or calls is None or not calls.address or overrides.on():
        return
    at = guards.dict_place(module)
    pairs = [*_words([(id(module), guards.TYPE), (id(module), at), (id(own), guards.TAG)])]
    pairs += _words([(id(d), guards.TAG) for d in within])
    # of a tensor's class: native methods go when overrides come
    for x in (type(module), FastMath, dispatch.fresh().__class__, *also):
        if isinstance(x, dict):
            pairs += _words([(id(x), guards.TAG)])
            continue
        hasattr(x, "forward")  # a class gets its version when something is looked up
        if not guards.word_at(id(x) + guards.VERSION) & 0xFFFFFFFF:
            return
        pairs += _words([(id(x), guards.VERSION)])
    if shaped:
        first = operands[0]
        if first._ghost is not None:
            return
        value, dims = id(first._a), guards.DIMS[0]
        pairs += _words([
            (id(first), native.slot_offset(Handle, "_a")), (value, guards.RANK), (value, dims),
            (guards.word_at(value + dims), 0),
        ])  # fmt: skip
    if guards.word_at(id(module) + at) != id(own) or not guards.has_tags_and_versions():
        return
    others = [*map(id, operands), *[0] * (7 - len(operands))]
    entry = native.words([
        id(module), calls.address, 1 + len(operands), rank, id(calls), len(pairs) // 2, *others,
        *pairs,
    ])  # fmt: skip
    place = (id(module) >> 4 ^ id(module) >> 14) % _MANY
    put = ctypes.PYFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(_functions["weft_module_know"])
    put(place, native.address_of(entry))
    _kept[place] = entry, calls, op


def _words(places: Iterable[tuple[int, int]]) -> list[int]:
    return [w for x, at in places for w in (x + at, guards.word_at(x + at))]
