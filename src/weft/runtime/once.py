"""What may be made only once, whichever threads ask for it at first."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_locks: list[list[threading.RLock]] = []  # each in a list of its own


def once(f: Callable[P, T]) -> Callable[P, T]:
    """`functools.cache`, whose threads that ask at the same time compute twice and keep one: here
    one computes and the others wait.  For what native code is given the address of, or what changes
    something when it is made.
    """
    found, lock = functools.cache(f), [threading.RLock()]
    _locks.append(lock)

    @functools.wraps(f)
    def call(*args: Any, **kw: Any) -> T:
        with lock[0]:
            return found(*args, **kw)

    vars(call).update(cache_clear=found.cache_clear, cache_info=found.cache_info)
    return call


def _after_fork() -> None:
    """A thread that held a lock is not there to let it go."""
    for lock in _locks:
        lock[0] = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
