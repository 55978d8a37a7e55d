"""Stages (native.py) that make small tensors at once: constants, the places of sorted numbers, and
draws from the process-wide generator, number for number those of `random.Generator`.

A draw's stage runs with Python's global lock and takes the generator's own; where somebody else
has it, or a thread draws from another stream, it gives status 1 and has drawn nothing.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import numpy as np

from weft.runtime import ir_text, machine, native, random_code, random_dist, twister

MOST_SORTED = 32  # numbers of a row
MOST_BYTES = 16_384  # larger results lie in memory's own blocks
_WORDS = ("acquire", "release", "true", "false", "lock")
_PYTHON = ("PyObject_CallMethodObjArgs", "PyErr_Clear", "Py_DecRef")
_MADE = ("copy", "rows", "order")
_DRAWN = (
    "uniform", "normal", "normal_serial", "whole", "permutation", "bernoulli", "bernoulli_of",
    "multinomial",
)  # fmt: skip


def _text() -> str:
    """The module's IR."""
    text = ir_text.section(
        "small", ASIDE=4 * twister.ASIDE, WAITING=4 * twister.WAITING, WAITS=4 * twister.WAITS,
        SORTED=MOST_SORTED, BUFFER=MOST_BYTES + 256,
    )  # fmt: skip
    declared = ir_text.declare(_PYTHON) + ir_text.words("weft_draw", _WORDS)
    return declared + ir_text.expand(text, _WORDS)


@cache
def _stages() -> dict[str, native.Stage]:
    """The stages by name: `copy`, and of draws those that this machine can run."""
    functions: dict[str, Any] = dict(zip(twister.EXPORTS, twister.functions(), strict=True))
    functions["weft_normal_pairs"] = random_dist.maps()["weft_normal_pairs"]
    functions["weft_map_log1p"] = random_dist.maps()["log1p"]
    functions["weft_box_muller"] = random_code.function() or functions["weft_normal_pairs"]
    imports = native.python_functions(_PYTHON)
    imports |= {name: native.function_address(f) for name, f in functions.items()}
    names = {name: f"weft_made_{name}" for name in _MADE}
    names |= {name: f"weft_draw_{name}" for name in _DRAWN}
    found = machine.load(_text(), [*names.values(), "weft_draw_init"], imports)
    given = native.words([*map(id, _OBJECTS), native.slot_offset(_lock_of[0], "_lock")])
    ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(found["weft_draw_init"])(native.address_of(given))
    if random_code.function() is None:
        del names["normal"]
    return {name: native.Stage(found[exported]) for name, exported in names.items()}


_OBJECTS = (sys.intern("acquire"), sys.intern("release"), True, False)
_lock_of: list[type] = []  # random.Generator


def install(generator: type) -> None:
    """random.py names the class whose `_lock` is taken."""
    _lock_of[:] = [generator]


def constant(a: np.ndarray) -> native.Launch:
    """What makes a copy of a small contiguous array, which the caller keeps."""
    return _launch("copy", native.address(a), a.nbytes)


def rows(a: np.ndarray, places: np.ndarray, row_bytes: int) -> native.Launch:
    """`constant`, with an operand's rows at these int64 places, in bytes; both arrays are kept."""
    at = native.address(places)
    return _launch("rows", native.address(a), a.nbytes, at, places.size, row_bytes)


def order(rows: int, width: int, k: int, *, descending: bool) -> native.Launch:
    """What gives the places of the first k of each contiguous float32 row, sorted stably."""
    return _launch("order", rows, width, k, int(descending))


def draw(
    generator: Any, state: int, kind: str, n: int, dtype: np.dtype, params: tuple
) -> native.Launch | None:
    """What draws n numbers of a kind from a generator, whose engine's state lies there, for params
    that its methods took; None where only they can.

    In float32 `uniform`, `normal`, `bernoulli` (p, the value of a hit), `bernoulli_of` (whose p is
    an operand); in int64 `whole`, `permutation`, `multinomial` (length of n rows, an operand's).
    """
    whole = kind in ("whole", "permutation", "multinomial")
    many = n * params[0] if kind == "multinomial" else n
    if not 0 < many * dtype.itemsize < MOST_BYTES:
        return None
    if dtype != (np.int64 if whole else np.float32):
        return None
    given: tuple[int, ...] = ()
    if kind == "uniform" and params != (0, 1):
        return None
    if kind == "normal":
        mean, std = params
        given = native.double_bits(mean + 0.0), native.double_bits(std)
        if n < 16:
            if mean and std != 1:
                return None
            kind = "normal_serial"
    elif kind == "whole":
        low, high = params
        if high - low >= 2**28:
            return None
        given = low, high - low
    elif kind == "permutation" and n < 2:
        return None
    elif kind == "bernoulli":
        p, hit = params
        given = twister.below_limit(p), native.double_bits(hit)
    elif kind == "bernoulli_of":
        given = (1,)
    elif kind == "multinomial":
        given = params
    if kind not in _stages():
        return None
    return _launch(kind, id(generator), state, n, *given)


def _launch(name: str, *ints: int) -> native.Launch:
    return native.Launch((_stages()[name],), ints, quick=True)
