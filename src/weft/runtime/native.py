"""Calling native kernels.

A kernel stage is `void k(ptr args, i32 tid, i32 nth)`; `args` is a block of 64-bit words:

    args[0] status (a kernel stores nonzero on a data error)
    args[1] its detail, e.g. the offending index
    args[2] out pointer      args[3..3+n_in) input pointers
    args[3+n_in] scratch pointer, then the launch's ints

`launch` runs one plan on arrays (eager). `make_table` fixes many launches with their pointers, run
by one call (compiled programs).

Long because the builtins' making, and what they must know of CPython, lie beside the launches.
"""

import ctypes
import os
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weft.core import overrides
from weft.core.device import device
from weft.core.dtype import ALL, dtype
from weft.core.handle import Handle, Storage, TapeNode, promised, sequence, state
from weft.core.op import Meta, Op
from weft.runtime import (
    builtin_code,
    layout_code,
    match_code,
    threads,
    wish_code,
)
from weft.runtime.machine import (
    Host,
    cache_dir,
    cache_stats,
    emit_assembly,
    emit_object,
    host,
    load,
    load_made,
    second_cache,
    why_no_tiles,
)
from weft.runtime.once import once

__all__ = [
    "OUT_OF_MEMORY", "Host", "Launch", "Stage", "Table", "address", "cache_dir", "cache_stats",
    "detail", "double_bits", "emit_assembly", "emit_object", "host", "launch",
    "layout_calls", "load", "load_made", "make_table", "second_cache", "why_no_tiles",
]  # fmt: skip

# The status when scratch memory could not be had; the detail is its size in bytes.
OUT_OF_MEMORY = -1


@dataclass(frozen=True)
class Stage:
    """A kernel's address; whether threads share it: always, or if all are `awake` (light work)."""

    function: int
    parallel: bool = False
    awake: bool = False
    shared = property(lambda s: 1 if s.parallel else 2 * s.awake)  # in the native form


@dataclass(frozen=True)
class Launch:
    """Stages with a barrier between them; a stage that reports a status is the last to run.

    `ints` follow the pointers in the block (`double_bits` makes an int of a float), whose scratch
    pointer has `scratch + threads * scratch_per_thread` bytes behind it, 64-byte aligned, not
    cleared. `quick`: some microseconds of work; Python's global lock is then kept.
    """

    stages: tuple[Stage, ...]
    ints: tuple[int, ...] = ()
    scratch: int = 0
    scratch_per_thread: int = 0
    quick: bool = False
    plan_: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The native form, made at once: two threads may make their first call at the same time.
        ints = words(self.ints)
        pairs = [w for s in self.stages for w in (s.function, s.shared)]
        sizes = [len(self.stages), len(self.ints), self.scratch, self.scratch_per_thread]
        flags = [int(self.quick), int(any(s.shared for s in self.stages)), 0]
        block = words([*sizes, ctypes.addressof(ints), *flags, *pairs])
        object.__setattr__(self, "_kept", (ints, block))
        object.__setattr__(self, "plan_", ctypes.addressof(block))

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy gets a native form of its own."""
        return Launch, (self.stages, self.ints, self.scratch, self.scratch_per_thread, self.quick)


def double_bits(value: float) -> int:
    """A float64 as the int that holds its bits, for `Launch.ints`."""
    return struct.unpack("<q", struct.pack("<d", value))[0]


def words(values: Sequence[int]) -> Any:
    """A ctypes array of 64-bit words."""
    return (ctypes.c_int64 * max(len(values), 1))(*values)


def address_of(block: Any) -> int:
    """Where `words` lie."""
    return ctypes.addressof(block)


_detail = ctypes.c_int64(0)


def detail() -> int:
    """The detail (args[1]) of the last launch that returned a nonzero status."""
    return _detail.value


def launch(launch: Launch, out: np.ndarray, ins: Sequence[np.ndarray]) -> int:
    """Run a launch on arrays: 0, or the status of the stage that failed (see `detail`).

    The arrays must have the layouts that the launch was planned for: nothing is checked but that
    they are ndarrays (TypeError). Threads may launch at the same time.
    """
    return _launcher()(launch, out, ins)


def address(array: np.ndarray) -> int:
    """The address of an array's first element, ten times faster than `array.ctypes.data`."""
    return _addresser()(array)


# The first call of `launch` or `address` replaces the module's function by the builtin: callers
# that look the name up in this module (`native.launch(...)`) then have no Python frame in between.


@once
def _launcher() -> Callable[..., int]:
    function = _builtins()[0] if builtins_fit() else _launch_by_ctypes
    globals()["launch"] = function
    return function


@once
def _addresser() -> Callable[[np.ndarray], int]:
    function = _builtins()[1] if builtins_fit() else _address_by_ctypes
    globals()["address"] = function
    return function


def _builtins_work() -> bool:
    """Whether arrays have the struct that we read (a build of Python may differ)."""
    probe = np.zeros((3, 4))[1:, 2:]
    return _builtins()[1](probe) == _address_by_ctypes(probe)


def _builtins_fit() -> bool:
    """The builtins read structs of CPython 3.11 to 3.14 with the global lock; WEFT_NO_BUILTIN=1
    turns them off.
    """
    if os.environ.get("WEFT_NO_BUILTIN", "0") not in ("", "0"):
        return False
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    return (
        sys.implementation.name == "cpython"
        and (3, 11) <= sys.version_info[:2] <= (3, 14)
        and locked
        # a build without the lock has a longer header even where the lock was turned on again
        and object.__basicsize__ == _HEADER
    )


_HEADER = 16  # bytes before an object's own fields: its count, its type


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


METH_FASTCALL, METH_NOARGS, _METH_O = 0x80, 0x04, 0x08
_kept: list[Any] = []  # names, which the builtins point to


@once
def _builtins() -> tuple[Callable[..., int], Callable[..., int]]:
    imports = python_functions(builtin_code.FUNCTIONS)
    imports["weft_run_block"] = threads.functions()["weft_run_block"]
    found = load(builtin_code.text(), builtin_code.EXPORTS, imports)
    init = ctypes.PYFUNCTYPE(None, *[ctypes.c_void_p] * 5)(found["weft_builtin_init"])
    name = sys.intern("plan_")
    _kept.append(name)
    init(id(np.ndarray), id(name), id(TypeError), id(MemoryError), ctypes.addressof(_detail))
    return (
        builtin("launch", found["weft_builtin_launch"], METH_FASTCALL, doc=launch.__doc__),
        builtin("address", found["weft_builtin_address"], _METH_O, doc=address.__doc__),
    )


_MOST_WISHES = 24  # that are one op
_keys: list[Any] = []  # what the table of wishes points to
_past: list[Any] = []  # what it pointed to before it began anew: a call may be on its way
_told: Counter[int] = Counter()  # wishes by the op's address


class LayoutCalls:
    """An op's launches by the layouts of its operands, in native form: `call(*arrays)` gives the
    result, or None where `add` has not been told of the layouts (or the data is bad).

    `quick(*tensors)` does so for tensors, the tape node with it; None as well where there is no op.
    `into(*tensors)` writes the result over the first tensor's value, and gives True or None.
    """

    __slots__ = ("_kept", "_table", "address", "call", "into", "quick")

    def __init__(
        self, op: Op | None = None, keeps: Sequence[int] = (0,) * 8, *, pointwise: bool = False
    ) -> None:
        """`keeps`: bits of the operands whose values the tape keeps, by which want a gradient.
        `pointwise`: an element of the result depends on that of the operands there alone.
        """
        if op is None:
            self._table = words([0] * 14)
        else:
            facts = (op.nondiff is None, op.saves_result)
            most = 8 if op.saved_for is None else 3  # operands, of a call with a gradient
            self._table = words([0, id(op), *map(int, facts), *keeps, int(pointwise), most])
        self._kept: list[Any] = [op]
        at = Bound(ctypes.addressof(self._table), self._table, self._kept)
        made = _layout_functions()
        self.address = 0 if op is None else int(at)  # 0: it does not know the op
        self.call = builtin("call", made["weft_layout_call"], METH_FASTCALL, at)
        self.quick = builtin("quick", made["weft_tensor_call"], METH_FASTCALL, at)
        self.into = builtin("into", made["weft_tensor_into"], METH_FASTCALL, at)

    def add(
        self, launch: Launch, ins: Sequence[np.ndarray], out: np.ndarray,
        make: Callable[[], np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        """From now on arrays like these are run by `launch`, and the result is like `out`: one that
        `make` gives, if it is named (it must be of out's shape and dtype, contiguous).
        """
        if len(ins) + len(launch.ints) + 4 <= layout_code.MOST_WORDS:
            self._add(launch, ins, out, 0, make)

    def add_view(self, x: np.ndarray, view: np.ndarray) -> None:
        """From now on an array like x gives a view of its memory that lies like `view` of x's."""
        self._add(None, [x], view, address(view) - address(x))

    def tell(self, shape: tuple[int, ...], *wish: Any) -> None:
        """From now on `known(x, *wish)` of a tensor of this shape is `quick(x)`."""
        if self.address and _told[self.address] < _MOST_WISHES:
            _tell(self.address, (self._kept, self._table), shape, *wish)
            _told[self.address] += 1

    def _add(
        self, launch: Launch | None, ins: Sequence[np.ndarray], out: np.ndarray, offset: int,
        make: Callable[[], np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        wanted = [
            word for a in ins for word in (id(a.dtype), a.ndim, *a.shape, *a.strides)
        ]  # fmt: skip
        metas = tuple([Meta(a.shape, a.dtype) for a in ins])
        dims, strides, operands = words(out.shape), words(out.strides), words(wanted)
        entry = words([
            self._table[0], len(ins), 0 if launch is None else launch.plan_, id(out.dtype),
            out.ndim, ctypes.addressof(dims), ctypes.addressof(operands),
            ctypes.addressof(strides), offset, 0 if make is None else id(make), id(metas),
            tape_of(out.dtype), max(a.itemsize for a in (out, *ins)),
        ])  # fmt: skip
        dtypes = [a.dtype for a in (out, *ins)]
        self._kept.append((launch, dtypes, dims, strides, operands, make, metas, entry))
        self._table[0] = ctypes.addressof(entry)

    def __len__(self) -> int:
        return len(self._kept) - 1


def _tell(address: int, kept: Any, shape: tuple[int, ...] | None, *wish: Any) -> None:
    """The table of wishes has what lies at an address, and is kept; a full one begins anew, for
    what a program asks now is not what it asked at first.
    """
    if len(_keys) >= wish_code.MOST_KEYS:
        _wish_builtin("forget")()
        _past[:] = _keys
        _keys.clear()
        _told.clear()
    block = words([0] * (3 + wish_code.MOST_WORDS))
    if _wish_builtin("tell")(address_of(block), address, shape, *wish):
        _keys.append((block, kept, wish))  # some of it is known by its address


def tell_made(
    launch: Launch, y: np.ndarray, like: np.ndarray | None, keep: Any, *wish: Any
) -> None:
    """From now on `made(*wish)`, or `made_like(x, *wish)` of a tensor like `like`, gives what the
    launch makes: small, of y's shape and dtype.  It reads what is kept.
    """
    calls = LayoutCalls()
    calls.add(launch, [], y)
    kept = (calls, keep, None if like is None else like.dtype)
    if like is None:
        _tell(address_of(calls._table), kept, None, *wish)
    else:
        _tell(address_of(calls._table), kept, like.shape, id(like.dtype), *wish)


def tell_parts(several: Sequence[LayoutCalls], shape: tuple[int, ...], *wish: Any) -> None:
    """From now on `parts(x, *wish)` of a tensor of this shape is `quick(x)` of each."""
    if all(calls.address for calls in several):
        tables = words([len(several), *[calls.address for calls in several]])
        kept = [(calls._kept, calls._table) for calls in several]
        _tell(address_of(tables), (tables, kept), shape, *wish)


def _met_shape(size: tuple[int, ...]) -> tuple[int, ...]:
    """`size`, which from now on is the `shape` of all tensors with an equal one."""
    if len(_keys) < _MOST_SHAPES:
        _tell(id(size), size, size, wish_code.SHAPE)
    return size


_MOST_SHAPES = 2048  # and wishes, before shapes are told no more
_TAPES = {"f": 1, "V": 1, "i": 0, "u": 0, "b": 0}


def tape_of(dtype: np.dtype) -> int:
    """Whether a result of this dtype gets a tape node: 0 none, 1 of native code, 2 of Python."""
    return _TAPES.get(dtype.kind, 2)


def layout_calls(
    op: Op | None = None, keeps: Sequence[int] = (0,) * 8, *, pointwise: bool = False
) -> LayoutCalls | None:
    """Such a table, empty; None where the interpreter or NumPy is not one whose structs we know."""
    if not builtins_fit():
        return None
    known = op if _places_fit() else None
    return LayoutCalls(known, keeps, pointwise=pointwise)


def stand_aside(*, on: bool) -> None:
    """Whether native forms of ops say None to everything, so that launches go through `launch`."""
    if builtins_fit():
        ctypes.CFUNCTYPE(None, ctypes.c_int64)(_layout_functions()["weft_layout_aside"])(int(on))


_tensors: list[type] = [Handle, Handle]
_ways: dict[str, Any] = {}  # of Python, to what native code knows of a tensor (wish_code.FACTS)


def install(tensor: type[Handle], parameter: type[Handle]) -> None:
    """tensor.py names the plain tensor classes; `quick` makes results of the first."""
    _tensors[:] = tensor, parameter
    first = vars(tensor)["shape"].fget
    for name in wish_code.FACTS:
        given = vars(tensor)[name]
        _ways[name] = getattr(given, "fget", given)
    _ways["shape"] = lambda t: _met_shape(first(t))


_trie: list[type] = []  # compile/record.py's: Session, TrieNode, Ghost, Pending


def install_trie(session: type, node: type, ghost: type, pending: type) -> None:
    """compile/record.py names the classes that a match looks into."""
    _trie[:] = session, node, ghost, pending


@once
def match_functions() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """`match` and `promise` of match_code.py; None where they cannot be."""
    if not (builtins_fit() and _trie and _places_fit()):
        return None
    session, node, ghost, pending = _trie
    kinds = {"session": (session,), "trie": (node,), "ghost": (ghost, pending)}
    if not all(_slots_fit(k, s) for n, s in match_code.SLOTS.items() for k in kinds[n]):
        return None
    functions = _layout_functions()
    _name_objects(functions)  # again: eager code may have had them made before the trie was there
    return (
        builtin("match", functions["weft_match_call"], METH_FASTCALL),
        builtin("promise", functions["weft_match_promise"], METH_FASTCALL),
    )


@once
def tensor_builtins() -> dict[str, Callable[..., Any]]:
    """`fresh` and the builtins of wishes of ops/dispatch.py; empty where they cannot be."""
    if not (builtins_fit() and _places_fit()):
        return {}
    fresh = builtin("fresh", _layout_functions()["weft_tensor_fresh"], METH_NOARGS)
    _take_over_values()
    for name, fact in _FACTS.items():
        function = _layout_functions()[f"weft_fact_{fact}"]
        overrides.stand_in(_tensors[0], name, _descriptor(name, function, _ways[fact].__doc__))
    made = {"fresh": fresh, **{name: _wish_builtin(name) for name in _WISHES}}
    if _slots_fit(Meta, wish_code.META_SLOTS) and _element_size(np.dtype(np.int16)) == 2:
        for name, function in ("joined", "weft_joined"), ("overwrite", "weft_tensor_overwrite"):
            made[name] = builtin(name, _layout_functions()[function], METH_FASTCALL)
    _ready.append(True)
    for take_over in _waiting:
        take_over(_layout_functions())
    return made


_ready: list[bool] = []
_waiting: list[Callable[[dict[str, int]], None]] = []


def when_ready(take_over: Callable[[dict[str, int]], None]) -> None:
    """What else native code takes over, with its functions' addresses, then or now."""
    if _ready:
        take_over(_layout_functions())
    else:
        _waiting.append(take_over)


_WISHES = ("known", "parts", "item", "made", "made_like")


def _element_size(dtype: np.dtype) -> int:
    """`_PyArray_DescrNumPy2.elsize`, where native code reads it."""
    return ctypes.c_ssize_t.from_address(id(dtype) + 40).value


_FACTS = {name: name for name in wish_code.FACTS} | {"ndim": "dim", "nelement": "numel"}
_ATTRIBUTES = ("shape", "dtype", "ndim")


def _descriptor(name: str, function: int, doc: str | None) -> Any:
    """An attribute or a method without arguments, of native code."""
    definition: Any
    if name in _ATTRIBUTES:
        definition = _getset(name, function, 0)
    else:
        definition = _definition(name, function, METH_NOARGS, f"{name}($self, /)\n--\n\n{doc}")
    make = "PyDescr_NewGetSet" if name in _ATTRIBUTES else "PyDescr_NewMethod"
    return _descriptor_maker(make)(_tensors[0], ctypes.addressof(definition))


def _descriptor_maker(name: str) -> Any:
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.c_void_p)
    return make((name, ctypes.pythonapi))


def _getset(name: str, get: int, put: int) -> Any:
    text = ctypes.create_string_buffer(name.encode())
    definition = words([ctypes.addressof(text), get, put, 0, 0])
    _kept.append((text, definition))
    return definition


def _take_over_values() -> None:
    """`Handle._a` read and set by native code, in place of `Handle.__getattr__`: attributes and
    methods of a class that has one are not specialised by CPython 3.11 (27 ns in place of 6).
    """
    if "__getattr__" in vars(Handle):
        functions = _layout_functions()
        definition = _getset("_a", functions["weft_value_get"], functions["weft_value_set"])
        make = _descriptor_maker("PyDescr_NewGetSet")
        Handle._a = make(Handle, ctypes.addressof(definition))
        del Handle.__getattr__


@once
def _wish_builtin(name: str) -> Callable[..., Any]:
    return builtin(name, _layout_functions()[f"weft_wish_{name}"], METH_FASTCALL)


def _places_fit() -> bool:
    of = layout_code
    kinds = (Handle, of.HANDLE_SLOTS), (Storage, of.STORAGE_SLOTS), (TapeNode, of.NODE_SLOTS)
    return all(_slots_fit(kind, names) for kind, names in kinds)


@once
def _layout_functions() -> dict[str, int]:
    imports = python_functions(layout_code.FUNCTIONS)
    imports["weft_run_block"] = threads.functions()["weft_run_block"]
    found = load(layout_code.text(), layout_code.exports(), imports)
    _name_objects(found)
    return found


def _name_objects(functions: dict[str, int]) -> None:
    """Give the builtins the objects, names and places that they look for."""
    objects = [*_tensors, state, (), Storage, TapeNode, sequence, 0, True, False, float, int, list]
    objects += [Handle, Storage().room, *map(np.dtype, (np.float32, np.float64, np.int64))]
    objects += [slice, ..., (...,), dict, promised, bool, str, dtype, device]
    names = [sys.intern(name) for name in layout_code.ATTRIBUTES]
    more = [sys.intern(name) for name in match_code.ATTRIBUTES]
    _kept.extend(objects + names + more + _trie)
    tensor, parameter, modes, *others = map(id, objects)
    object_new = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_int)(
        ("PyType_GetSlot", ctypes.pythonapi)
    )(object, _TP_NEW)
    given = words([
        id(np.ndarray), id(None), _numpy_function(_NEW_FROM_DESCR), _numpy_function(_SET_BASE),
        tensor, parameter, modes, object_new, *others, *map(id, names),
        *[slot_offset(Handle, name) for name in layout_code.HANDLE_SLOTS],
        *[slot_offset(Storage, name) for name in layout_code.STORAGE_SLOTS],
        *[slot_offset(TapeNode, name) for name in layout_code.NODE_SLOTS],
        *_match_words(more), *[id(_ways.get(n)) for n in wish_code.FACTS], address_of(_DTYPES),
        id(Meta), *[slot_offset(Meta, name) for name in wish_code.META_SLOTS],
    ])  # fmt: skip
    ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(functions["weft_layout_init"])(ctypes.addressof(given))


_DTYPES = words([w for d in ALL for w in (id(d.np), id(d))] + [0])


def _match_words(names: list[str]) -> list[int]:
    if not _trie:
        return [0] * len(match_code.WORDS)
    session, node, ghost, pending = _trie
    kinds = {"session": session, "trie": node, "ghost": ghost}
    slots = [slot_offset(kinds[k], name) for k, of in match_code.SLOTS.items() for name in of]
    return [id(session), id(node), id(ghost), id(pending), *map(id, names), *slots]


_TP_NEW = 65  # Py_tp_new of CPython's stable ABI


@once
def slot_offset(kind: type, name: str) -> int:
    """Where objects of a class have a slot: PyMemberDescrObject.d_member, PyMemberDef.offset."""
    member = ctypes.c_void_p.from_address(id(vars(kind)[name]) + 40).value
    return ctypes.c_ssize_t.from_address((member or 0) + 16).value


@once
def _slots_fit(kind: type, names: tuple[str, ...]) -> bool:
    """Whether objects of a class have their slots where we shall look."""
    made = object.__new__(kind)
    for name in names:
        setattr(made, name, mark := object())
        place = id(made) + slot_offset(kind, name)
        if ctypes.c_void_p.from_address(place).value != id(mark):
            return False
    return True


def python_functions(names: Sequence[str]) -> dict[str, int]:
    """The addresses of functions of Python's C API."""
    return {name: function_address(getattr(ctypes.pythonapi, name)) for name in names}


_NEW_FROM_DESCR, _SET_BASE = 94, 282  # places in NumPy's table of functions, which are stable ABI


def _numpy_function(place: int) -> int:
    """The address of a function of NumPy's C API."""
    capsule = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    table = capsule(np._core._multiarray_umath._ARRAY_API, None)  # type: ignore[attr-defined]
    return ctypes.c_void_p.from_address(table + place * 8).value or 0


def function_address(function: Any) -> int:
    """Where a function that ctypes calls lies."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class Bound(int):
    """An address, and what must live as long as native code may look there.

    A builtin's `self` of this kind keeps it all for the time of a call, whoever drops the builtin
    meanwhile (Python code that the call runs, another thread).
    """

    kept: Any

    def __new__(cls, address: int, *kept: Any) -> "Bound":
        made = super().__new__(cls, address)
        made.kept = kept
        return made


def builtins_fit() -> bool:
    """Whether builtins that read structs of CPython and NumPy may run here."""
    return _builtins_fit() and _builtins_work()


def new_array_function() -> int:
    """The address of `PyArray_NewFromDescr`."""
    return _numpy_function(_NEW_FROM_DESCR)


@once
def _definition(name: str, function: int, flags: int, doc: str | None) -> _MethodDef:
    return _MethodDef(name.encode(), function, flags, (doc or "").encode())


def builtin(
    name: str, function: int, flags: int, bound: Any = None, doc: str | None = None
) -> Callable[..., Any]:
    """A builtin function made of native code, which gets `bound` as its `self`."""
    definition = _definition(name, function, flags, doc)
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
        ("PyCFunction_NewEx", ctypes.pythonapi)
    )
    return make(ctypes.addressof(definition), bound, None)


@once
def _runner() -> Any:
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    return ctypes.CFUNCTYPE(None, pointer, pointer, integer, pointer)(
        threads.functions()["weft_run"]
    )


def _launch_by_ctypes(launch: Launch, out: np.ndarray, ins: Sequence[np.ndarray]) -> int:
    pointers = words([_address_by_ctypes(array) for array in (out, *ins)])
    result = (ctypes.c_int64 * 2)()
    _runner()(launch.plan_, ctypes.addressof(pointers), len(ins), ctypes.addressof(result))
    if result[0]:
        _detail.value = result[1]
    return result[0]


def _address_by_ctypes(array: np.ndarray) -> int:
    if not isinstance(array, np.ndarray):
        raise TypeError("launch: expected a numpy.ndarray")
    return array.__array_interface__["data"][0]


class Table:
    """Launches with their pointers, run in order by one native call. Made by `make_table`.

    Pointers are plain ints: whoever makes the table keeps the memory alive. One run at a time
    (RuntimeError otherwise); pointers may change between runs.
    """

    owner: Any = None  # the program that the table belongs to

    def __init__(self, entries: Sequence[tuple[Launch, int, Sequence[int]]]):
        self._launches = [launch for launch, _, _ in entries]  # their plans must live
        self._blocks = [words([0, 0, out, *ins, 0, *launch.ints]) for launch, out, ins in entries]
        self._slots = [1 + len(ins) for _, _, ins in entries]
        triples = [
            (launch.plan_, ctypes.addressof(block), len(ins))
            for (launch, _, ins), block in zip(entries, self._blocks, strict=True)
        ]
        self._entries = words([word for triple in triples for word in triple])
        shared = max((launch.scratch for launch in self._launches), default=0)
        each = max((launch.scratch_per_thread for launch in self._launches), default=0)
        several = any(stage.shared for launch in self._launches for stage in launch.stages)
        self._head = words([shared, each, int(several), 0, ctypes.addressof(self._entries)])
        self._result = (ctypes.c_int64 * 3)()
        self._call = _table_runner()
        self.form = object()  # another one whenever pointers' words have moved (see `place`)
        self._places = (ctypes.addressof(self._head), ctypes.addressof(self._result))

    def __len__(self) -> int:
        return len(self._launches)

    @property
    def address(self) -> int:
        """Of the table's native form, for `weft_run_table`."""
        return self._places[0]

    def scratch_bytes(self) -> int:
        """Scratch memory that a run takes, with as many threads as it may have."""
        shared, each = self._head[0], self._head[1]
        return shared + each * threads.get_num_threads()

    def set_pointer(self, entry: int, slot: int, pointer: int) -> None:
        """Give an entry another pointer: slot 0 is out, slot 1 + k is input k."""
        self.set_pointers(((entry, slot, 0),), pointer)

    def set_pointers(self, places: Iterable[tuple[int, int, int]], base: int) -> None:
        """`set_pointer` of entries, slots and what to add to the base."""
        blocks, slots = self._blocks, self._slots
        for entry, slot, more in places:
            if not 0 <= slot < slots[entry]:
                raise IndexError(
                    f"set_pointer: entry {entry} has slots 0 to {slots[entry] - 1}, not {slot}"
                )
            blocks[entry][2 + slot] = base + more

    def exchange(self, entry: int, launch: Launch) -> None:
        """Let an entry run another launch, on the same pointers."""
        ins = self._slots[entry] - 1
        block = words([*self._blocks[entry][: ins + 4], *launch.ints])
        self.form = object()
        self._launches[entry], self._blocks[entry] = launch, block
        self._entries[3 * entry : 3 * entry + 2] = [launch.plan_, ctypes.addressof(block)]
        self._head[0] = max(self._head[0], launch.scratch)
        self._head[1] = max(self._head[1], launch.scratch_per_thread)
        self._head[2] |= any(stage.shared for stage in launch.stages)

    def place(self, entry: int, slot: int) -> int:
        """The address of a pointer's word, for native code or NumPy writes that set many; it is
        valid while `form` is the same object.
        """
        return ctypes.addressof(self._blocks[entry]) + 8 * (2 + slot)

    def run(self, start: int = 0, stop: int | None = None) -> tuple[int, int, int]:
        """Run entries start to stop (all): (first failing entry or -1, its status, its detail).

        The global lock is released meanwhile.
        """
        stop = len(self._launches) if stop is None else stop
        if not 0 <= start <= stop <= len(self._launches):
            raise IndexError(f"run: entries {start} to {stop} of a table of {len(self._launches)}")
        head, place = self._places
        self._call(head, start, stop, place)
        index, status, more = self._result
        if index == -2:
            raise RuntimeError("this table is running in another thread")
        return index, status, more


@once
def _table_runner() -> Any:
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    return ctypes.CFUNCTYPE(None, pointer, integer, integer, pointer)(
        threads.functions()["weft_run_table"]
    )


def make_table(entries: Sequence[tuple[Launch, int, Sequence[int]]]) -> Table:
    """A `Table` of (launch, out pointer, input pointers)."""
    return Table(entries)
