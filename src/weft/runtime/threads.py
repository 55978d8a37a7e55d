"""The number of threads that kernels run on, and the pool's life: start, resize, fork, exit.

The workers are pthreads made by native code at the first parallel stage; they never touch Python.
See `pool_code`.
"""

import atexit
import ctypes
import os
import threading
import time

from weft.runtime import builtin_code, layout_code, pool_code
from weft.runtime.machine import cache_dir, compiled_ahead, load

_wanted: int | None = None
_found: dict[str, int] | None = None
_starting = threading.Lock()


def default_num_threads() -> int:
    """WEFT_NUM_THREADS, or the number of physical cores that this process may run on."""
    text = os.environ.get("WEFT_NUM_THREADS")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"WEFT_NUM_THREADS must be a positive integer, not {text!r}")
        return int(text)
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return max(len({_core(cpu) for cpu in os.sched_getaffinity(0)}), 1)


def _core(cpu: int) -> str:
    """The CPUs that share a core with this one: two hyper-threads give one answer."""
    try:
        with open(
            f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", encoding="ascii"
        ) as file:
            return file.read().strip()
    except OSError:
        return str(cpu)


def get_num_threads() -> int:
    """The number of threads that a parallel stage runs on, the caller's included."""
    global _wanted
    if _wanted is None:
        _wanted = default_num_threads()
    return _wanted


def set_num_threads(threads: int) -> None:
    """Use this many threads from the next launch on, at most 1,024. Results do not change by a bit.

    Raises ValueError for a number below 1.
    """
    global _wanted
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"set_num_threads: expected a positive integer, got {threads!r}")
    _wanted = threads
    if _found is not None:
        _resize(threads)


def functions() -> dict[str, int]:
    """The addresses of the native functions of `pool_code`; at first the pool gets its size."""
    global _found
    if _found is None:
        with _starting:  # a second start would reset a pool that runs already
            if _found is None:
                _found = _start()
    return _found


def _start() -> dict[str, int]:
    # WEFT_POOL=condition|alone tests the ways of other systems.
    text = pool_code.text(os.environ.get("WEFT_POOL", ""))
    # who asks will launch, by these builtins (runtime/native.py)
    others = [builtin_code.text(), layout_code.text()] if cache_dir() is not None else []
    with compiled_ahead([text, *others]):
        found = load(text, pool_code.EXPORTS)
    _reset(found)
    _resize(get_num_threads(), found)
    atexit.register(_resize, 1)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _reset(found))
    return found


def _reset(found: dict[str, int]) -> None:
    ctypes.CFUNCTYPE(None)(found["weft_pool_reset"])()


def _resize(threads: int, found: dict[str, int] | None = None) -> None:
    found = found or functions()
    if hasattr(os, "sched_getaffinity"):
        mask = (ctypes.c_uint8 * 128).from_address(found["weft_cpus"])
        bits = sum(1 << cpu for cpu in os.sched_getaffinity(0) if cpu < 8 * len(mask))
        mask[:] = bits.to_bytes(len(mask), "little")
    resize = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(found["weft_pool_resize"])
    while not resize(threads):
        time.sleep(0.0002)  # another thread's launch holds the pool


def started_workers() -> int:
    """How many worker threads exist now (they are made at the first parallel stage)."""
    return ctypes.c_int32.from_address(functions()["weft_workers"]).value
