"""`__torch_function__`: objects that take part in calls of the public functions.

A class with a `__torch_function__` (a subclass of Tensor, or any other) is asked in place of each
public function and method that gets one of its objects; a mode (a context) is asked before all.

Programs without such classes pay nothing.  The public functions look at no argument until the
first class or mode appears; `switch_on` then gives each of them a body that looks, *in place*:
whoever holds `weft.add` or has it in a table of overrides holds the same function object, with the
checking body, and its own body under `__wrapped__`.  A class that is no Tensor shows itself only
where classes are watched: `import weft.compat.torch` does that.

Protocol: NEP 18, and torch/overrides.py of torch 2.13.
"""

from __future__ import annotations

import inspect
import opcode
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from weft.core.handle import Handle, NoTensor, state

ALL, NOT_SUBCLASSES, NONE = 0, 1, 2  # who is asked, as state.overrides has it: see `disabled`


class _Classes(set):
    """A set that a code object may have among its constants, which are hashed."""

    __hash__: Any = object.__hash__


class _Modes(list):
    __hash__: Any = object.__hash__


# Classes whose objects never take part: the common ones, so that a check is one look-up each.
plain = _Classes((int, float, bool, str, complex, bytes, type(None), slice, type(Ellipsis)))
# Tensor classes of another layout -> who answers for their objects: (native, public, args, kw)
# and are not asked otherwise
layouts: dict[type, Callable[[Callable, Callable, tuple, dict], Any]] = {}
# functions that look at shape and dtype only, which a tensor without an array has too
_OF_SHAPE = (
    "shape size dim ndim ndimension numel nelement dtype itemsize element_size is_floating_point "
    "is_complex is_signed device is_cuda get_device __len__ stride is_same_size is_tensor "
    "is_quantized cuda is_conj is_mps is_xpu is_meta __torch_function__"
)
OF_SHAPE = frozenset(_OF_SHAPE.split())
_modes = _Modes()  # of all threads; not empty: every call must look at its own thread's


def disabled_torch_function(func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """The function's own result: what a class says to take no part."""
    return func(*args, **(kwargs or {}))


def overrides(kind: type) -> bool:
    """Whether objects of a class are asked."""
    if kind in plain:
        return False
    found = getattr(kind, "__torch_function__", None)
    return found is not None and found is not disabled_torch_function


class disabled:
    """A context in which fewer are asked: NOT_SUBCLASSES (modes are), or NONE."""

    def __init__(self, level: int) -> None:
        self.level = level

    def __enter__(self) -> disabled:
        self.before = state.overrides
        state.overrides = max(self.level, self.before)
        return self

    def __exit__(self, *exc: object) -> None:
        state.overrides = self.before


# ------------------------------------------------------------------------------ who is asked


class Unanswered(TypeError):
    """Every class that was asked said NotImplemented."""


def overloaded(values: Any) -> list:
    """One object of each class that is asked: from left to right, subclasses before their bases."""
    out: list = []
    for v in values:
        kind = type(v)
        if kind in plain or not overrides(kind) or any(type(o) is kind for o in out):
            continue
        at = (i for i, o in enumerate(out) if issubclass(kind, type(o)))
        out.insert(next(at, len(out)), v)
    return out


def asked(values: Any) -> bool:
    """Whether a mode is on, or one of the objects takes part."""
    level = state.overrides
    if level == NONE:
        return False
    return bool(state.modes) or (level == ALL and any(overrides(type(v)) for v in values))


def ask(public: Callable, over: list, args: tuple, kw: dict) -> Any:
    """What the innermost mode or the first of `over` answers; TypeError when none does."""
    kinds = tuple(type(o) for o in over)
    modes = state.modes
    if modes:
        state.modes = modes[:-1]  # inside its answer a mode is not asked again
        try:
            answer = modes[-1].__torch_function__(public, kinds, args, kw)
        finally:
            state.modes = modes
        if answer is not NotImplemented:
            return answer
    for o in over:
        answer = o.__torch_function__(public, kinds, args, kw)
        if answer is not NotImplemented:
            return answer
    who = [f"  - tensor subclass {kind}" for kind in kinds]
    who += [f"  - mode object {modes[-1]}"] if modes else []
    raise Unanswered(
        f"Multiple dispatch failed for '{name_of(public)}'; all __torch_function__ handlers "
        "returned NotImplemented:\n\n" + "\n".join(who)
    )


def call(native: Callable, public: Callable, args: tuple, kw: dict) -> Any:
    """A public function called with an argument that is not plain, or under a mode."""
    answerer, strange = None, []
    for given in (*args, *kw.values()) if kw else args:
        kind = given.__class__
        if kind in plain:
            continue
        for v in given if kind is list or kind is tuple else (given,):  # lists are opened
            kind = v.__class__
            if kind in layouts:  # which takes no part
                answerer = answerer or layouts[kind]
            elif kind not in plain:
                strange.append(v)
    if (strange or _modes) and (level := state.overrides) != NONE:
        over = [] if level else overloaded(strange)
        if over or state.modes:
            return ask(public, over, args, kw)
    return native(*args, **kw) if answerer is None else answerer(native, public, args, kw)


def _call_operator(native: Callable, public: Callable, args: tuple, kw: dict) -> Any:
    """`call` of an operator: without an answer Python asks the other operand."""
    try:
        return call(native, public, args, kw)
    except Unanswered:
        return NotImplemented


def _call_maker(native: Callable, public: Callable, args: tuple, kw: dict) -> Any:
    """`call` of a function that makes tensors: modes are asked, objects are not."""
    if state.modes and state.overrides != NONE:
        return ask(public, [], args, kw)
    for v in kw.values():
        if type(v) in layouts:  # a dtype that is only kept
            return layouts[type(v)](native, public, args, kw)
    return native(*args, **kw)


def push_mode(mode: Any) -> None:
    """The mode is asked first, in this thread, until it is popped."""
    switch_on()
    _modes.append(mode)
    state.modes = (*state.modes, mode)


def pop_mode() -> Any:
    """Take the innermost mode out again."""
    mode = state.modes[-1]
    state.modes = state.modes[:-1]
    _modes.remove(mode)
    return mode


# -------------------------------------------------------------------- bodies that look


def twin(fn: types.FunctionType) -> Any:
    """Another function object of the same code, defaults and attributes."""
    made = types.FunctionType(
        fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__
    )
    made.__kwdefaults__ = fn.__kwdefaults__
    made.__dict__.update(fn.__dict__)
    made.__doc__, made.__annotations__ = fn.__doc__, fn.__annotations__
    made.__module__, made.__qualname__ = fn.__module__, fn.__qualname__
    return made


_PLACES = ("plain", "call", "modes", "native", "public")


def _checked(*args: Any, **kw: Any) -> Any:
    """The body of every public function once switched on; the constant is exchanged."""
    values: Any = ("plain", "call", "modes", "native", "public")  # as _PLACES
    plain, call, modes, native, public = values
    for a in args:
        if a.__class__ not in plain:
            return call(native, public, args, kw)
    if kw:
        for a in kw.values():
            if a.__class__ not in plain:
                return call(native, public, args, kw)
    if modes:
        return call(native, public, args, kw)
    return native(*args, **kw)


_named: dict[Any, str] = {}  # public function -> torch's name for it


def _with_cells(code: types.CodeType, free: tuple[str, ...]) -> types.CodeType:
    """The code with free variables, whose cells it takes first: CPython reads them unchecked when
    a debugger or pytest asks a frame for its locals.
    """
    takes = bytes([opcode.opmap["COPY_FREE_VARS"], len(free)])
    lines = b"\xf8" + code.co_linetable  # an instruction of no line
    return code.replace(co_freevars=free, co_code=takes + code.co_code, co_linetable=lines)


def _exchange(fn: types.FunctionType, public: Any, door: Callable) -> None:
    """Give `fn` a body that looks at its arguments; `public` is what those who answer are told."""
    native = twin(fn)
    _embody(fn, native, _checked.__code__, _PLACES, (plain, door, _modes, native, public))


def _embody(fn: Any, native: Any, body: types.CodeType, places: tuple, values: tuple) -> None:
    code = body.replace(
        co_consts=tuple(values if c == places else c for c in body.co_consts),
        co_name=fn.__name__,
        co_qualname=fn.__qualname__,
    )
    free = fn.__code__.co_freevars  # not read, but a function keeps their number
    fn.__code__ = _with_cells(code, free) if free else code
    fn.__wrapped__ = native  # inspect.signature follows it


# ---------------------------------------------------------- arguments of the wrong kind

_KINDS = {"bool": (bool, np.bool_), "float": (float, int), "int": (int,), "str": (str,)}
# rooms whose calls take about as long as a look at their arguments: there their ops look
_QUICK = (
    "activation arithmetic attention cast compare construct contract conv creation gather "
    "getitem index join loss loss_class norm pointwise random reduce softmax unary view"
)
_LOOKS = ("positional", "named", "explain", "native")
_looking: set[Any] = set()


class _Named(dict):
    __hash__: Any = object.__hash__


def _typed(*args: Any, **kw: Any) -> Any:
    """The body of a public function that is not quick; the constant is exchanged."""
    values: Any = ("positional", "named", "explain", "native")  # as _LOOKS
    positional, named, explain, native = values
    for i, kinds in positional:
        if i < len(args) and args[i].__class__ not in kinds:
            explain(native, args, kw, None)
    for name in kw:
        if name in named and kw[name].__class__ not in named[name]:
            explain(native, args, kw, None)
    try:
        return native(*args, **kw)
    except AttributeError as e:
        explain(native, args, kw, e)
        raise


def _kind_of(native: Any, name: str) -> tuple[str, tuple[type, ...]]:
    """The plain kind that an argument is annotated with, and the classes that are of it."""
    kind, *none = str(native.__annotations__.get(name)).split(" | ")
    if kind not in _KINDS or none not in ([], ["None"]):
        return "", ()
    return kind, (*_KINDS[kind], *([type(None)] if none else []))


def _explain(native: Any, args: tuple, kw: dict, error: AttributeError | None) -> None:
    """TypeError for an argument that is not of its kind (other numbers that tell that they are
    whole or real are), or no tensor, and was taken for one: whose attribute was missed.
    """
    names = native.__code__.co_varnames[: native.__code__.co_argcount]
    for i, (name, v) in enumerate([*zip(names, args, strict=False), *kw.items()]):
        kind, classes = _kind_of(native, name)
        if not kind:
            missed = error is not None and error.name is not None and error.obj is v
            kind, fits = "Tensor", not missed or isinstance(v, Handle)
        elif v.__class__ in classes:
            continue
        else:
            says = {"int": "__index__", "float": "__float__"}.get(kind)
            fits = says is not None and hasattr(v, says) and not getattr(v, "ndim", 0)
            fits = fits and not (kind == "int" and isinstance(v, bool))
        if not fits:
            raise (NoTensor if kind == "Tensor" else TypeError)(
                f"{native.__name__}(): argument '{name}' (position {i + 1}) must be {kind}, not "
                f"{type(v).__name__}"
            ) from None


def look_at_kinds(fn: Any) -> None:
    """A room's function refuses arguments that are not of their kind, from now on."""
    if not isinstance(fn, types.FunctionType):
        return
    fn = fn if fn in _looking else inspect.unwrap(fn)  # of one that takes NumPy's words
    home, _, room = fn.__module__.rpartition(".")
    if home not in ("weft.ops", "weft.nn") or room in _QUICK.split() or fn in _looking:
        return
    _looking.add(fn)
    native, named = twin(fn), _Named()
    for name in native.__annotations__:
        kind, classes = _kind_of(native, name)
        if kind:
            named[name] = frozenset(classes)
    names = native.__code__.co_varnames[: native.__code__.co_argcount]
    positional = tuple((i, named[n]) for i, n in enumerate(names) if n in named)
    _embody(fn, native, _typed.__code__, _LOOKS, (positional, named, _explain, native))


# --------------------------------------------------------------- which functions are public

_covers: list[Callable[[], None]] = []  # each covers one module or class
_done: set[Any] = set()
_on = False
_stood_in: list[tuple[type, str, Any]] = []


def switch_on() -> None:
    """From now on the public functions look for objects and modes that take part."""
    global _on
    if not _on:
        _on = True
        for kind, name, thing in _stood_in:
            setattr(kind, name, thing)
        cover_again()


def on() -> bool:
    """Whether they look."""
    return _on


def stand_in(kind: type, name: str, native: Any) -> None:
    """Native code in place of a class's method or property, until these have to look."""
    if not _on:
        _stood_in.append((kind, name, vars(kind)[name]))
        setattr(kind, name, native)


def cover_again() -> None:
    """Modules may have more functions than when they were covered."""
    if _on:
        for cover in _covers:
            cover()


def _add(cover: Callable[[], None]) -> None:
    _covers.append(cover)
    if _on:
        cover()


def _cover(fn: Any, public: Any, name: str, door: Callable) -> None:
    if isinstance(fn, types.FunctionType) and fn not in _done:
        _done.add(fn)
        _named[public] = name
        _exchange(fn, public, door)


def cover_functions(space: dict[str, Any], prefix: str, *, but: str = "", makers: str = "") -> None:
    """The functions of a public module, but those named, look once switched on.

    `makers`: those that make tensors of numbers, of which only modes are asked.
    """
    left_out, make = set(but.split()), set(makers.split())
    for fn in list(space.values()):
        look_at_kinds(fn)

    def cover() -> None:
        for name, fn in list(space.items()):
            if not name.startswith("_") and name not in left_out:
                _cover(fn, fn, f"{prefix}.{name}", _call_maker if name in make else call)

    _add(cover)


def cover_methods(kind: type, prefix: str, *, but: str, operators: dict[str, str]) -> None:
    """The methods, operators and properties of a tensor class look once switched on.

    `operators`: the method that an operator is known as, where that is not its own name.
    """

    def cover() -> None:
        for name, thing in list(vars(kind).items()):
            if name in but.split():
                continue
            if isinstance(thing, property):
                _cover(thing.fget, thing.__get__, f"{prefix}.{name}.__get__", call)
                _cover(thing.fset, thing.__set__, f"{prefix}.{name}.__set__", call)
            else:
                known_as = operators.get(name, name)
                public, door = getattr(kind, known_as), call
                if name in operators:
                    door = _call_operator
                _cover(thing, public, f"{prefix}.{known_as}", door)

    _add(cover)


def name_of(public: Any) -> str:
    """torch's dotted name of a public function."""
    return _named.get(public) or getattr(public, "__qualname__", repr(public))


def bare_name(public: Any) -> str:
    """The name alone: `add`; a property's, read or set."""
    return name_of(public).removesuffix(".__get__").removesuffix(".__set__").rpartition(".")[2]


def named() -> dict[Any, str]:
    """Every function that can be overridden, with torch's name."""
    switch_on()
    return _named
