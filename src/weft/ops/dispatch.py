"""apply: run an op on tensors.  The one door through which every tensor operation goes.

    infer type -> find the kernel -> call native code -> record a tape node if a gradient is wanted

While a `weft.compile`d function runs, the recorder of this thread takes the call instead.

Long because what every operation pays for is written out here for one, two and three operands.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy._core.umath import _extobj_contextvar as _errors
from numpy._core.umath import _make_extobj
from numpy.lib.array_utils import byte_bounds

from weft.core import dtype as dt
from weft.core.handle import (
    Handle,
    NoTensor,
    Storage,
    TapeNode,
    bare,
    computed,
    state,
    storage_of,
)
from weft.core.op import REGISTRY, Meta, Op
from weft.core.types import Type, array_type, numel
from weft.kernels.layout import Layout
from weft.runtime import memory, native, random_code

# np.errstate costs more than a small add; this is the context variable that it sets.
_quiet = _make_extobj(all="ignore")
NUMBERS = (float, int, bool)
_tensor_class: Any = Handle  # weft.Tensor once tensor.py has named it
plain_classes: set[type] = set()  # tensor classes without behaviour of their own
_launches: dict[tuple, tuple] = {}
_LAUNCH_CAP = 50_000
_HUGE = 2**30  # elements
_FEW = 16  # views of one call


def install(tensor_class: type[Handle], parameter: type[Handle]) -> None:
    """tensor.py names the class of results (ops may not import it: the import law)."""
    global _tensor_class
    _tensor_class = tensor_class
    plain_classes.update((tensor_class, parameter))
    native.install(tensor_class, parameter)


def fresh() -> Any:
    """A tensor without a value: the caller gives it one, or a promise.

    A builtin replaces this function too, see `known`.
    """
    return bare(_tensor_class)


def known(x: Any, *wish: Any) -> Any:
    """What a function (its number, and what it was asked for) makes of a tensor, where `told` said
    by which op alone; None: the function must look at what it is given.

    The builtins that come with the first native form of an op replace this function, `parts`,
    `joined` and `item`.
    """
    return None


def wish() -> int:
    """A number of its own for a function that asks `known` or `parts`; 0 is an index."""
    return next(_wishes)


_wishes = itertools.count(1)


def parts(x: Any, *wish: Any) -> Any:
    """`known` of a function that gives several views, a tuple: `told_parts` says of which ops."""
    return None


def made(*wish: Any) -> Any:
    """What a function (its number, and what it was asked for) makes, where `tell_made` said how:
    without an op, for nobody records it.
    """
    return None


def made_like(x: Any, *wish: Any) -> Any:
    """`made` of a tensor's shape and dtype; it is contiguous."""
    return None


def tell_made(
    y: Any, draw: Callable[[], native.Launch | None] | None, like: Any, *wish: Any
) -> Any:
    """y, which `made(*wish)` (or `made_like(like, *wish)`) gives from now on if it is asked often.

    `draw` gives the launch that fills it where it is drawn, if there is one; else it is copied.
    """
    key = wish if like is None else (shape_of(like), dtype_of(like), wish)
    try:
        _asked[key] = asked = _asked.get(key, 0) + 1
    except TypeError:  # a list
        return y
    if asked == _OFTEN:
        del _asked[key]
        if y._a.nbytes < memory.SMALL and native.builtins_fit():
            _take_builtins()
            keep = y._a.copy()
            launch = draw() if draw else random_code.constant(keep)
            if launch is not None and (like is None or like._ghost is None):
                native.tell_made(launch, y._a, None if like is None else like._a, keep, *wish)
    elif len(_asked) > _ASKED_CAP:
        _asked.clear()
    return y


def tell_kernel(y: Any, op: Op, launch: Callable[[], native.Launch | None], *call: Any) -> Any:
    """y, which `known(x, *wish)` gives from now on by a launch if it is asked often: call is x,
    contiguous, and the wish.
    """
    x, *wish = call
    vars(op)["_uses"] = op._uses + 1
    if op._uses % _OFTEN == 0 and state.recorder is None and x._a.flags.c_contiguous:
        calls, run = _calls_of(op), launch()
        if calls is not None and run is not None and y._a.nbytes < memory.SMALL:
            calls.add(run, [x._a], y._a)
            calls.tell(x._a.shape, *wish)
    return y


_asked: dict[tuple, int] = {}
_ASKED_CAP = 4096


def overwrite(t: Any, *value: Any) -> Any:
    """True: t's memory has the values of another tensor like it, or zeros. None: the long way."""
    return None


def joined(ops: tuple, tensors: Any, dim: int, *new: bool) -> Any:
    """The small tensors along dim, with the op `ops[dim]` on the tape; None: the long way."""
    return None


def item(x: Any, index: Any) -> Any:
    """x[index] where NumPy's view is torch's and the tape needs no op, or as `known`; else None."""
    vars(item)["calls"] = count = vars(item).get("calls", 0) + 1
    if count == _OFTEN:
        _take_builtins()
    return None


def _take_builtins() -> None:
    """The builtins replace functions of this module, once: whoever watches one of them since
    (a test, a profiler) keeps it.
    """
    if not _taken:
        _taken.update(native.tensor_builtins())
        globals().update(_taken)


_taken: dict[str, Callable] = {}


def run(op: Op, x: Any) -> Any:
    """The op's result, at once where it knows tensors like this one."""
    y = op.quick(x)
    return apply(op, x) if y is None else y


def told(op: Op, x: Any, *wish: Any) -> Any:
    """What `op` makes of x, which `known` gives from now on if it is made often."""
    y = run(op, x)
    tell(op, x, *wish)
    return y


def told_parts(ops: list[Op], x: Any, *wish: Any) -> tuple:
    """The views these ops make of x, which `parts` gives from now on if they are made often."""
    ys = tuple([run(op, x) for op in ops])
    if len(ops) <= _FEW and state.recorder is None and all(op._calls is not None for op in ops):
        native.tell_parts([op._calls for op in ops], shape_of(x), *wish)
    return ys


def tell(op: Op, x: Any, *wish: Any) -> None:
    """`known(x, *wish)` runs this op, if it is one that native code runs."""
    if op._calls is not None or state.recorder is not None:
        calls = native_form(op)
        if calls is not None:
            calls.tell(shape_of(x), *wish)


def wrap(a: np.ndarray) -> Any:
    """A fresh tensor over an array."""
    y = fresh()
    y._a = a
    return y


def apply(op: Op, *args: Any) -> Any:
    """The result of `op` on `args` (tensors; Python numbers where the op takes them)."""
    if (y := op.quick(*args)) is not None:
        return y
    try:
        recorder = state.recorder
        if recorder is not None:
            y = recorder.apply(op, args)
            if y._rg:  # the recorder has put it on the tape
                return y
        elif op.is_view:
            y = _view(op, args[0])
        else:
            y = fresh()
            if op.host is None and op.plan is not None:
                y._a = _run_native(op, args)
            else:
                y._a = execute(op, args)
        for a in args:
            if a.__class__ not in NUMBERS and a._rg:
                if state.grad and op.nondiff is None:
                    record(op, args, y)
                break
        return y
    except AttributeError:
        for a in args:
            if a.__class__ not in NUMBERS and not isinstance(a, Handle):
                raise no_tensor(a) from None
        raise
    except (IndexError, TypeError, ValueError) as e:  # it may come from NumPy, or from within
        if not hasattr(e, "__notes__"):
            e.add_note(f"in {op} of {', '.join(map(str, types_of(args)))}")
        raise


def apply_both(op: Op, x: Any) -> Any:
    """`op(x, op.first(x))`, outside of compiled functions by one launch (which they find)."""
    if state.recorder is not None:
        return apply(op, x, apply(op.first, x))  # type: ignore[attr-defined]
    a = x._a
    key = (op, a.shape, a.strides, a.dtype)
    found = _launches.get(key)
    if found is None:
        known = array_type(a)
        first = op.first.type(known)  # type: ignore[attr-defined]
        t = op.type(known, first)
        layouts = [Layout.contiguous(t.shape, t.dtype.np) for t in (t, first)]
        launch = op.plan_both(Layout.of(a), *layouts)  # type: ignore[attr-defined]
        found = _keep_launch(key, (launch, layouts))
    launch, layouts = found
    y, first = (wrap(memory.empty(m.shape, m.dtype)) for m in layouts)
    arrays = [first._a, a]
    status = native.launch(launch, y._a, arrays)
    if status:
        raise failure(op, status, arrays)
    record(op, (x, first), y)
    return y


def _view(op: Op, x: Any) -> Any:
    """A tensor over what a view op makes of x's memory; of a copy where it had to copy."""
    y = fresh()
    a = x._a
    call = op.call
    if call is not None and (r := call(a)) is not None:
        y._a = r
        link_view(y, x)
        return y
    try:
        y._a = r = op.host(a)
    except (ValueError, TypeError, IndexError):
        op.type(type_of(x))  # says what is wrong in the op's own words
        raise
    if r.base is a or shares_memory(r, a):
        link_view(y, x)
        if op._uses != _OFTEN:
            vars(op)["_uses"] = op._uses + 1
        else:
            _remember_view(op, a, r)
    return y


def shares_memory(y: np.ndarray, x: np.ndarray) -> bool:
    """Whether a view op gave a view; a reshape that no strides can express copies."""
    return y.base is x or (y.base is not None and y.base is x.base) or np.may_share_memory(x, y)


def look() -> None:
    """Python looks at a value, and may do by it what it likes."""
    if state.recorder is not None:
        state.recorder.looked = True


def read(t: Any) -> np.ndarray:
    """The value of a tensor, for who only looks at it: `numpy`, whose array may be written to,
    takes the memory's mark away for good.
    """
    if state.recorder is not None:
        look()
    try:
        return t._a
    except AttributeError:
        raise no_tensor(t) from None


MUCH = 1 << 20  # bytes that threads share
_BITS = {n: np.dtype(f"i{n}") for n in (1, 2, 4, 8)}  # elements are moved, not computed with


def put(to: np.ndarray, value: np.ndarray) -> None:
    """`value`, of its dtype and broadcast to it, into `to`: by all threads if it is much."""
    bits = _BITS.get(to.itemsize)
    if to.nbytes >= MUCH and bits is not None and not np.may_share_memory(to, value):
        y, x = to.view(bits), value.view(bits)
        launch = plan_of(REGISTRY["Clone"](), [Layout.of(x)], Layout.of(y))
        native.launch(launch, y, [x])  # type: ignore[arg-type]
    else:
        np.copyto(to, value)
    memory.wrote(to)


def fill(to: np.ndarray, value: Any) -> None:
    """`to.fill(value)`, by all threads if it is much."""
    if to.nbytes < MUCH:
        to.fill(value)
    else:
        one = np.empty((), to.dtype)
        one.fill(value)
        put(to, one)


def wrote(t: Handle) -> None:
    """A tensor that is no ghost has been written to: its version grows, its memory's mark goes."""
    if t._a.base is not None:
        memory.wrote(t._a)
    st = t._st
    if st is None:
        st = t._st = Storage()
    st.version += 1


def settle() -> None:
    """Inside a compiled function: let the ops called so far happen, before state is looked at."""
    if state.recorder is not None:
        state.recorder.flush()


def alike() -> Any:
    """Inside a compiled function: what matches `update(p, grad, state, group)` as one op where it
    was seen before with other tensors (`compile/repeat.py`); else None.
    """
    return getattr(state.recorder, "alike", _none)()


def _none() -> None:
    return None


def link_view(y: Handle, x: Handle) -> None:
    """Make `y` a view of `x`'s memory."""
    st = x._st
    if st is None:
        st = x._st = Storage()
    y._st = st
    base = x._base
    if base is None:
        base = x
    y._base = base
    if state.grad and (base._fn is not None or not base._rg):
        st.add_view(y)  # a tracked write to the memory gives the view a new place on the tape


def record(op: Op, args: tuple, y: Any) -> None:
    """Put a node on the tape: `y = op(*args)`; none for results that are not floating."""
    if y._ghost is None:
        shape, np_dtype = y._a.shape, y._a.dtype
    else:
        shape, np_dtype = y._ghost.shape, y._ghost.dtype.np
    if (kind := np_dtype.kind) != "f":
        if kind in "iub":
            return
        if kind == "c" and not op.conjugates and (op.saved_args != () or op.saves_result):
            op = Conjugated(op)  # type: ignore[assignment]  a tape node asks no more of it
    keep: Any = op.saved_args
    if op.saved_for is not None:  # only what the cotangents that are wanted will read
        keep = set()
        for a, reads in zip(args, op.saved_for, strict=False):
            if a.__class__ not in NUMBERS and a._rg:
                keep.update(reads)
    edges = []
    saved = []
    versions: list | tuple = ()
    meta = None
    i = -1
    for a in args:
        i += 1
        if a.__class__ in NUMBERS:
            edges.append(None)
            saved.append(a)
            continue
        edges.append((a._fn or a) if a._rg else None)
        if keep is None or i in keep:
            saved.append(a)
            st = a._st
            if versions:
                versions.append(0 if st is None else st.version)  # type: ignore[union-attr]
            else:
                versions = [0 if st is None else st.version]
        elif a._ghost is not None:
            saved.append(Meta(a._ghost.shape, a._ghost.dtype.np))
        elif a._a.shape == shape and a._a.dtype is np_dtype:  # most often: one for all
            if meta is None:
                meta = Meta(shape, np_dtype)
            saved.append(meta)
        else:
            saved.append(Meta(a._a.shape, a._a.dtype))
    if op.saves_result:
        result = kept_result(y)
        versions = [*versions, 0 if y._st is None else y._st.version]
    else:
        result = None
    y._fn = TapeNode(op, tuple(edges), tuple(saved), tuple(versions), result)
    y._rg = True


class Conjugated:
    """Stands on the tape for an op with a complex result whose vjp rule is written for reals.

    With J the op's Jacobian, such rules give J^T g; torch's gradient is J^H g = conj(J^T conj(g)).
    (A rule that reads no values is linear with real numbers: there both are one.)
    """

    __slots__ = ("_op",)

    def __init__(self, op: Op) -> None:
        self._op = op

    def __getattr__(self, name: str) -> Any:
        return getattr(self._op, name)

    def __str__(self) -> str:
        return str(self._op)

    def vjp(self, g: Any, y: Any, *xs: Any) -> tuple:
        conj = REGISTRY["Conj"]()  # its room builds on this module

        def turned(c: Any) -> Any:
            if c is None:
                return None
            if isinstance(c, Handle):
                return apply(conj, c)
            return lambda: apply(conj, c())

        return tuple(turned(c) for c in self._op.vjp(apply(conj, g), y, *xs))


_kept: dict[str, list[tuple[bool, ...]]] = {}


def kept_of(op: Op) -> list[tuple[bool, ...]]:
    """Whose values the tape keeps of the operands: by which of three want a gradient (bits)."""
    found = _kept.get(op.name)
    if found is None:
        if op.saved_for is None:
            kept = op.saved_args
            found = [tuple(kept is None or i in kept for i in range(8))] * 8
        else:
            reads = [set[int]()]
            for first in (op.saved_for + ((),) * 3)[:3]:
                reads += [read.union(first) for read in reads]
            found = [tuple(i in read for i in range(3)) for read in reads]
        _kept[op.name] = found
    return found


def kept_result(y: Handle) -> Any:
    """What the tape keeps of a result: its array and storage, of which the engine makes a tensor
    (`of_kept`), or an alias.  Not y itself, whose tape node it is.
    """
    if y._ghost is None and y._base is None:
        return y._a, storage_of(y)
    return alias(y)


def of_kept(result: tuple) -> Any:
    """A tensor off the tape that has a kept result's value and storage."""
    y = fresh()
    y._a, y._st = result
    return y


def alias(t: Handle) -> Any:
    """Another handle of the same value, off the tape (so the tape makes no reference cycle)."""
    y = fresh()
    if t._ghost is None:
        y._a = t._a
    else:  # same promise, same value when it comes
        y._ghost = t._ghost
        known = computed(t)
        if known is not None:
            y._a = known
    y._st = storage_of(t)
    if t._base is not None:
        y._base = t._base
    return y


SMALL = 16_384  # elements up to which NumPy beats a native launch where IEEE fixes the answer


def execute(op: Op, args: tuple) -> np.ndarray:
    """The value of `op` on the operands' values."""
    host = op.host
    if host is None:
        return _run_body(op, args) if op.plan is None else _run_native(op, args)
    arrays = [a._a if a.__class__ not in NUMBERS else a for a in args]
    if len(args) == 2:
        a, b = arrays
        if b.__class__ in NUMBERS:
            arrays[1] = number_array(b, a.dtype)
        elif a.__class__ in NUMBERS:
            arrays[0] = number_array(a, b.dtype)
    call = op.call
    if call is not None and (r := call(*arrays)) is not None:
        return r
    if op.plan is not None:
        for a in arrays:
            if a.__class__ is np.ndarray and (a.size > SMALL or a.dtype.kind == "c"):
                return _run_native(op, args)
        if op._uses != _OFTEN:
            vars(op)["_uses"] = op._uses + 1
        elif _worth_remembering(op, arrays):
            return _run_native(op, args)
    try:
        y = quietly(host, arrays)
    except (ValueError, TypeError, IndexError):
        op.type(*types_of(args))  # says what is wrong in the op's own words
        raise
    if y.__class__ is not np.ndarray:
        return np.asarray(y)  # ufuncs give scalars for 0-dim operands
    if op.copies is not None:
        _learn(op, arrays, y)
    # ufuncs keep the operands' order of dims; ours are C-contiguous, compiled and eager
    return y if y.ndim < 2 or y.flags.c_contiguous or op.is_view else np.array(y, order="C")


def quietly(host: Any, arrays: list) -> Any:
    """host(*arrays) without NumPy's warnings: inf and NaN are results like others."""
    token = _errors.set(_quiet)
    try:
        return host(*arrays)
    finally:
        _errors.reset(token)


def types_of(args: tuple) -> list[Type]:
    return [type_of(a) for a in args]


def dtype_of(t: Handle) -> dt.dtype:
    try:
        return dt.BY_NP[t._a.dtype] if t._ghost is None else t._ghost.dtype
    except AttributeError:
        raise no_tensor(t) from None
    except KeyError:
        return dt.from_np(t._a.dtype)


def shape_of(t: Handle) -> tuple[int, ...]:
    try:
        return t._a.shape if t._ghost is None else t._ghost.shape
    except AttributeError:
        raise no_tensor(t) from None


def no_tensor(x: Any) -> Exception:
    """What is said about an argument that should be a tensor."""
    return misplaced(x, "Tensor", 3) or NoTensor(f"must be Tensor, not {type(x).__name__}")


_ROOMS = ("weft.ops.", "weft.methods", "weft.nn.functional")


def misplaced(x: Any, wanted: str, depth: int) -> Exception | None:
    """What is said about an argument of the wrong kind, in torch's words: of the room's function
    that was called with it. None where no room has called, `depth` frames above.
    """
    frame, named, said = sys._getframe(depth), False, None
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_ROOMS):
        code = frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        at = next((i for i, n in enumerate(names) if frame.f_locals.get(n) is x), None)
        if at is not None or not (named or code.co_name.startswith("_")):
            named, at = at is not None, at or 0
            argument = names[at] if names else "input"
            said = (NoTensor if wanted == "Tensor" else TypeError)(
                f"{code.co_name}(): argument '{argument}' (position {at + 1}) must be {wanted}, "
                f"not {type(x).__name__}"
            )
        frame = frame.f_back
    return said if named or wanted == "Tensor" else None


def type_of(a: Any) -> Type:
    """A tensor's Type; a Python number counts as a 0-dim value of its own dtype."""
    if a.__class__ in NUMBERS:
        return Type((), dt.of_number(a))
    return Type(shape_of(a), dtype_of(a))


def _run_body(op: Op, args: tuple) -> np.ndarray:
    arrays = [a if a.__class__ in NUMBERS else a._a for a in args]
    call = op.call
    if call is not None and (out := call(*arrays)) is not None:
        return out
    op.type(*types_of(args))
    grad, state.grad = state.grad, False
    try:
        out = op.body(*args)._a
    finally:
        state.grad = grad
    _learn(op, arrays, out)
    return out


def _learn(op: Op, arrays: list, out: np.ndarray) -> None:
    """Every so often, the native form of an op without a plan is told of small ones."""
    if _is_time(op, arrays) and out.nbytes <= _CHAINED and _worth_remembering(op, arrays):
        launch = _plan_body[0](op, arrays, out)
        if launch is not None:
            _remember(op, launch, arrays, out)
        else:
            _in_vain(op)


def _in_vain(op: Op) -> None:
    """A body that is no chain is looked at again, much later: others may be."""
    vars(op)["_uses"] = -20 * _OFTEN


def _is_time(op: Op, arrays: list) -> bool:
    """Whether to chain the op for these arrays, after another call; threads share much work."""
    if any(a.__class__ is np.ndarray and a.nbytes > _CHAINED for a in arrays):
        return False
    vars(op)["_uses"] = uses = op._uses + 1
    return uses > 0 and uses % _OFTEN == 0


_CHAINED = 1 << 18  # bytes of an operand or a result of what is chained


class Chained(Op, abstract=True):
    """A function of one tensor as an op off the tape: see `chained`."""

    function: Any = None
    given: tuple = ()
    named: tuple = ()
    nondiff = "only what is off the tape is chained"

    def body(self, x: Any) -> Any:
        return self.function(x, *self.given, **dict(self.named))


def chained(fn: Callable) -> Callable:
    """`fn`, a composition of ops on its first argument that gives a new tensor: off the tape, and
    asked often for small ones, one launch of their kernels.  Not where modes have a say in it.
    """
    number = wish()

    @functools.wraps(fn)
    def _call(*args: Any, **kw: Any) -> Any:
        if not args or args[0].__class__ not in plain_classes or (args[0]._rg and state.grad):
            return fn(*args, **kw)
        x, *given = args
        asks = (number, len(given), *given, *kw, *kw.values())
        if (y := known(x, *asks)) is not None:
            return y
        y = fn(*args, **kw)
        fits = y.__class__ is _tensor_class and all(v.__class__ in _WISHED for v in asks)
        if fits and state.recorder is None and not state.modes:
            _tell_chain(fn, tuple(given), tuple(kw.items()), y, x, asks)
        return y

    return _call


def told_chain(fn: Callable, given: tuple, x: Any, *wish: Any) -> Any:
    """fn(x, *given), a composition that is not differentiable, which `known(x, *wish)` gives from
    now on by one launch if it is asked often.
    """
    y = fn(x, *given)
    if state.recorder is None and not state.modes and y.__class__ is _tensor_class:
        _tell_chain(fn, given, (), y, x, wish)
    return y


_WISHED = {int, float, bool, str, tuple, type(None)}


def tell_chains(several: list[tuple[Callable, tuple, Any]], x: Any, *wish: Any) -> None:
    """`parts(x, *wish)` gives from now on what these functions (and arguments) make of x, which
    they have made now, off the tape, if that is asked often.
    """
    if state.recorder is None and not state.modes and x._ghost is None:
        ops = [Chained(fn, given) for fn, given, _ in several]
        if _is_time(ops[0], [x._a]):
            if all(_chain(op, x, y) for op, (_, _, y) in zip(ops, several, strict=True)):
                native.tell_parts([op._calls for op in ops], x._a.shape, *wish)
            else:
                _in_vain(ops[0])


def _chain(op: Op, x: Any, y: Any) -> bool:
    """Whether the op's native form knows tensors like x, for which it gives ones like y."""
    if y._ghost is not None or x._ghost is not None or y._a.nbytes > _CHAINED:
        return False
    calls = _calls_of(op)
    launch = None if calls is None else _plan_body[0](op, [x._a], y._a)
    if calls is None or launch is None:
        return False
    _add(calls, launch, [x._a], y._a)
    return True


def _tell_chain(fn: Callable, given: tuple, named: tuple, y: Any, x: Any, asks: tuple) -> None:
    op = Chained(fn, given, named)
    if _is_time(op, [] if x._ghost is not None else [x._a]):
        if _chain(op, x, y):
            op._calls.tell(x._a.shape, *asks)
        else:
            _in_vain(op)


_plan_body: list[Callable[[Op, list, Any], native.Launch | None]] = [lambda op, arrays, out: None]


def install_bodies(plan: Callable[[Op, list, Any], native.Launch | None]) -> None:
    """formula.py, which is built on this room, plans the launch of a composite op."""
    _plan_body[:] = [plan]


def _keep_launch(key: tuple, found: tuple) -> tuple:
    """`found`, which `_launches` has from now on."""
    if len(_launches) > _LAUNCH_CAP:
        _launches.clear()
    _launches[key] = found
    return found


def _run_native(op: Op, args: tuple) -> np.ndarray:
    arrays = _arrays(args)
    call = op.call
    if call is not None and (out := call(*arrays)) is not None:
        return out
    key = (op, *[(a.shape, a.strides, a.dtype) for a in arrays])
    found = _launches.get(key)
    if found is None:
        t = op.type(*map(array_type, arrays))
        if t.dtype.category == dt.COMPLEX or any(a.dtype.kind == "c" for a in arrays):
            return np.asarray(quietly(complex_host(op), arrays))
        out_layout = Layout.contiguous(t.shape, t.dtype.np)
        need_memory(t.shape, t.dtype)  # no plan for what it cannot hold
        try:
            launch = plan_of(op, [Layout.of(a) for a in arrays], out_layout)
        except ValueError:  # a layout that the kernel does not read
            if all(a.flags.c_contiguous for a in arrays):
                raise
            return _run_native(op, tuple(wrap(np.array(a, order="C")) for a in arrays))
        # memory's own blocks serve sizes at which NumPy's are slower
        new = np.empty if out_layout.size * t.dtype.itemsize < memory.SMALL else memory.empty
        found = _keep_launch(key, (launch, t.shape, t.dtype.np, new))
    launch, shape, np_dtype, new = found
    out = new(shape, np_dtype)
    if launch is None:  # nothing to compute: no elements
        return out
    status = native.launch(launch, out, arrays)
    if status:
        raise failure(op, status, arrays)
    _remember(op, launch, arrays, out)
    return out


def need_memory(shape: tuple, d: dt.dtype) -> None:
    """MemoryError where a result is too large, before it is worked on."""
    if numel(shape) > _HUGE:
        memory.empty(shape, d.np)


def run_in_place(op: Op, args: tuple) -> bool:
    """The first operand's memory gets op of the operands; False where that does not go."""
    arrays = _arrays(args)
    out, *others = arrays
    if out.dtype.kind == "c" or any(np.may_share_memory(out, a) for a in others):
        return False
    key = (op, run_in_place, *[(a.shape, a.strides, a.dtype) for a in arrays])
    found = _launches.get(key)
    if found is None:
        op.type(*types_of(args))
        layouts = [Layout.of(a) for a in arrays]
        found = _keep_launch(key, (op.plan_in_place(layouts, layouts[0]),))
    if found[0].stages and (status := native.launch(found[0], out, arrays)):
        raise failure(op, status, arrays)
    return True


def failure(op: Op, status: int, arrays: list[np.ndarray]) -> Exception:
    """Why a launch stopped: no memory, or wrong data; loops find integers divided by zero."""
    if status == native.OUT_OF_MEMORY:
        return memory.OutOfMemory(native.detail(), f"{op}: scratch: ")
    fail = getattr(op, "fail", None)
    return RuntimeError(f"{op.name}: ZeroDivisionError") if fail is None else fail(status, arrays)


_MOST_LAYOUTS = 256  # of one op, that its native form is told of
_OFTEN = 100  # calls on small arrays, before NumPy gives way to a kernel (to load, or to be made)


def _worth_remembering(op: Op, arrays: list) -> bool:
    """Whether the native form could serve such arrays from now on: NumPy takes longer."""
    calls = op._calls
    kinds = "fiub" if op.pointwise or op.copies is not None else "f"
    if any(a.__class__ is not np.ndarray or a.dtype.kind not in kinds for a in arrays):
        return False
    if calls is None:
        return native.layout_calls() is not None
    return len(calls) < _MOST_LAYOUTS


def learn_write(op: Op, *args: Any) -> None:
    """After a write by NumPy: every so often, `op.into` is told of tensors like these."""
    vars(op)["_writes"] = count = op._writes + 1
    if count % _OFTEN == 0 and op.plan is not None and _worth_remembering(op, _arrays(args)):
        _run_native(op, args)


def _remember(op: Op, launch: native.Launch, arrays: Any, out: np.ndarray) -> None:
    """Let the op's native form know these layouts: they came, and may come again."""
    calls = _calls_of(op)
    if calls is not None and all(a.__class__ is np.ndarray for a in arrays):
        _add(calls, launch, arrays, out)


def _add(calls: native.LayoutCalls, launch: native.Launch, arrays: Any, out: np.ndarray) -> None:
    small = out.nbytes < memory.SMALL
    calls.add(launch, arrays, out, None if small else memory.maker(out.shape, out.dtype))


def _remember_view(op: Op, a: np.ndarray, view: np.ndarray) -> None:
    """`_remember` for a view that lies within the operand, as one of any such operand will."""
    if a.__class__ is not np.ndarray or view.__class__ is not np.ndarray or not a.size:
        return
    (first, last), (start, stop) = byte_bounds(a), byte_bounds(view)
    if first <= start and stop <= last and view.flags.writeable == a.flags.writeable:
        calls = _calls_of(op)
        if calls is not None:
            calls.add_view(a, view)


def _calls_of(op: Op) -> native.LayoutCalls | None:
    """The op's native form, made if need be; None where it knows enough layouts, or cannot be."""
    calls = native_form(op)
    return calls if calls is not None and len(calls) < _MOST_LAYOUTS else None


def native_form(op: Op) -> native.LayoutCalls | None:
    """The op's native form, made if need be; None where it cannot be."""
    calls = op._calls
    if calls is None:
        own = not (op.is_view and op.saves_result)
        bits = [sum(keep << i for i, keep in enumerate(kept)) for kept in kept_of(op)]
        pointwise = op.pointwise and not op.effect
        calls = native.layout_calls(op, bits, pointwise=pointwise) if own else native.layout_calls()
        if calls is None:
            return None
        _take_builtins()
        vars(op).update(_calls=calls, call=calls.call, quick=calls.quick, into=calls.into)
    return calls


def _arrays(args: tuple) -> list[np.ndarray]:
    """The operands' arrays; Python numbers become 0-dim arrays of the tensors' dtype."""
    for a in args:
        if a.__class__ not in NUMBERS:
            np_dtype = a._a.dtype
            break
    else:
        raise TypeError("at least one operand must be a tensor")
    return [number_array(a, np_dtype) if a.__class__ in NUMBERS else a._a for a in args]


def complex_host(op: Op) -> Any:
    """What computes a planned op on complex operands: NumPy, as its room says."""
    if op.complex_host is None:
        raise NotImplementedError(f'"{op.name.lower()}_cpu" not implemented for complex numbers')
    return op.complex_host


_numbers: dict[tuple, np.ndarray] = {}
_NUMBERS_CAP = 1_000


def number_array(x: Any, np_dtype: np.dtype) -> np.ndarray:
    """A Python number as a read-only 0-dim array; integers wrap as in C, as torch's do."""
    key = (x or repr(x), x.__class__, np_dtype)  # 0.0 and -0.0 are one key
    found = _numbers.get(key)
    if found is None:
        if np_dtype.kind in "iu" and x.__class__ is int:
            found = np.array(x & 0xFFFFFFFFFFFFFFFF, np.uint64).astype(np_dtype)
        else:
            with np.errstate(over="ignore"):  # a half of 1e6 is inf
                found = np.asarray(x).astype(np_dtype)
        found.flags.writeable = False
        if x == x:  # a NaN is no key
            if len(_numbers) > _NUMBERS_CAP:
                _numbers.clear()
            _numbers[key] = found
    return found


def plan_of(op: Op, ins: list[Layout], out: Layout) -> native.Launch | None:
    """The native code of one op call: the kind's generator, or the op's own planner."""
    if (call := (op.__class__, len(ins))) not in _fitting:
        try:  # a kernel reads as many operands as its op has, whatever it is given
            inspect.signature(op.body if op.oracle is None else op.oracle).bind(*ins)
        except TypeError as e:
            raise TypeError(f"{op.name}: {len(ins)} operands do not fit ({e})") from None
        _fitting.add(call)
    return op.plan(ins, out)


_fitting: set[tuple[type[Op], int]] = set()  # numbers of operands that an op takes
