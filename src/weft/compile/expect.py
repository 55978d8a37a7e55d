"""What a path expects next, in the form that native code compares a call with.

`match(session, op, operands)` gives what `Session.apply` and the tape would where the call is the
one that came next the last time (runtime/match_code.py); else None, and Python looks at all of the
node's children.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weft.core.op import Meta
from weft.ops import dispatch
from weft.ops.dispatch import NUMBERS, dtype_of, shape_of
from weft.runtime import native

if TYPE_CHECKING:
    from weft.compile.record import TrieNode

_RESULT, _KNOWN, _FIRST, _NUMBER = range(4)
_MOST = 8  # operands
_UNMET = 0, 0, 0, 0  # by which call a memory was noted, and where it lies


def match(session: Any, op: Any, operands: tuple) -> Any:
    """The promise of the call's result, on the tape where it belongs there; None: the long way.

    The first call replaces this function by the native one.
    """
    _use_builtins()
    return match(session, op, operands)


def promise(session: Any, handles: list) -> Any:
    """True where the tensors, of those that were met outside, are promises now; None: nothing was
    done. Replaced as `match` is.
    """
    _use_builtins()
    return promise(session, handles)


def _use_builtins() -> None:
    found = native.match_functions() or (_unmatched, _unmatched)
    globals()["match"], globals()["promise"] = found


def _unmatched(*_: Any) -> None:
    return None


def expect(cursor: TrieNode, key: tuple, found: TrieNode, args: tuple) -> None:
    """From now on look first whether the call after `cursor` is `found`, whose key this is."""
    cursor.next = found
    if found.native is None and 0 < len(args) <= _MOST and native.match_functions() is not None:
        found.native = _native(key, found, args)


def _native(key: tuple, found: TrieNode, args: tuple) -> native.Bound:
    operands: list[int] = []
    layouts: list[Any] = []
    for ref in key[1:]:
        if ref.__class__ is tuple:
            operands += (_FIRST, id(ref), 0)
            place, shape, strides, np_dtype, first = ref
            if first < 0:
                met = [~place, id(np_dtype), len(shape), *_UNMET, *shape, *strides]
                layouts.append(native.words(met))
                operands[-1] = native.address_of(layouts[-1])
        elif ref in NUMBERS:
            operands += (_NUMBER, id(ref), 0)
        else:
            operands += (_RESULT, ref, 0) if ref >= 0 else (_KNOWN, ~ref, 0)
    op, meta = found.op, found.meta
    assert meta is not None
    saved = tuple(
        [None if a.__class__ in NUMBERS else Meta(shape_of(a), dtype_of(a).np) for a in args]
    )
    calls = dispatch.native_form(op)
    table = 0 if calls is None else calls.address
    result = [found.depth, meta.shape, meta.strides, meta.dtype, meta.offset]
    words = native.words([
        id(op), len(args), table, int(meta.view), *map(id, result), 0, id(saved),
        native.tape_of(meta.dtype.np), *operands,
    ])  # fmt: skip
    return native.Bound(native.address_of(words), words, op, key, layouts, saved, calls, result)
