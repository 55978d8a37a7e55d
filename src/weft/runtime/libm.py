"""The C library's mathematics on float64 arrays, where NumPy's own vector versions round otherwise.

void weft_map_NAME(double *data, i64 n)       data[i] = NAME(data[i])
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache

import numpy as np

from weft.runtime import machine, native

_MAP = """
declare double @weft_libm_NAME(double)
define void @weft_map_NAME(ptr %data, i64 %n) {
entry:
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %loop, label %done
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %p = getelementptr double, ptr %data, i64 %i
  %x = load double, ptr %p
  %y = call double @weft_libm_NAME(double %x)
  store double %y, ptr %p
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""
NAMES = ("exp", "log", "log1p", "sin", "cos", "tan")


@cache
def library() -> ctypes.CDLL:
    """The C library of this process."""
    return ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)


@cache
def _maps() -> dict[str, Callable[[int, int], None]]:
    addresses = {
        f"weft_libm_{name}": ctypes.cast(getattr(library(), name), ctypes.c_void_p).value or 0
        for name in NAMES
    }
    code = "".join(_MAP.replace("NAME", name) for name in NAMES)
    found = machine.load(code, [f"weft_map_{name}" for name in NAMES], addresses)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    return {name: kind(found[f"weft_map_{name}"]) for name in NAMES}


def libm(name: str, x: np.ndarray) -> np.ndarray:
    """The C library's function of every float64, as a new array; `name` is one of NAMES."""
    out = np.array(x, np.float64, order="C")
    _maps()[name](native.address(out), out.size)
    return out
