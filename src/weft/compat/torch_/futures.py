"""torch.futures: values that another thread will give."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from weft.compat.torch_.devices import only_cpu

__all__ = ["Future", "collect_all", "wait_all"]


T = TypeVar("T")


class Future(Generic[T]):
    """A value that `set_result` or `set_exception` gives once, from any thread."""

    def __init__(self, *, devices: Any = None) -> None:
        for device in devices or ():
            only_cpu(device)
        self._given = threading.Condition()
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Future], None]] = []

    def done(self) -> bool:
        """Whether the value, or an exception, is there."""
        return self._done

    def wait(self) -> Any:
        """The value when it is there; the exception is raised."""
        with self._given:
            self._given.wait_for(lambda: self._done)
        return self.value()

    def value(self) -> Any:
        """The value.  RuntimeError before it is there."""
        if not self._done:
            raise RuntimeError("Future: value() before the future is completed; use wait()")
        if self._error is not None:
            raise self._error
        return self._value

    def set_result(self, result: Any) -> None:
        """Give the value.  RuntimeError the second time."""
        self._complete(result, None)

    def set_exception(self, result: BaseException) -> None:
        """Give an exception, which wait() and value() raise."""
        if not isinstance(result, Exception):
            raise AssertionError(f"{result} is of type {type(result)}, not an Exception.")
        self._complete(None, result)

    def _complete(self, value: Any, error: BaseException | None) -> None:
        with self._given:
            if self._done:
                raise RuntimeError(
                    "Attempting to mark a completed Future as complete again. Note that a Future "
                    "can only be marked completed once."
                )
            self._done, self._value, self._error = True, value, error
            callbacks, self._callbacks = self._callbacks, []
            self._given.notify_all()
        for callback in callbacks:
            callback(self)

    def add_done_callback(self, callback: Callable[[Future], None]) -> None:
        """Call `callback(self)` when the value is there, or now."""
        with self._given:
            if not self._done:
                self._callbacks.append(callback)
                return
        callback(self)

    def then(self, callback: Callable[[Future], Any]) -> Future:
        """A Future of `callback(self)`, called when the value is there."""
        if not callable(callback):
            raise TypeError("then(): incompatible function arguments: callback must be callable")
        made = Future()

        def follow(done: Future) -> None:
            try:
                made.set_result(callback(done))
            except Exception as e:
                text = f"Got the following error when running the callback: {type(e).__name__}: {e}"
                made.set_exception(RuntimeError(text))

        self.add_done_callback(follow)
        return made


def collect_all(futures: list[Future]) -> Future:
    """A Future of the list, there when all of them are; the first exception becomes its own."""
    made = Future()
    waiting = list(futures)
    lock, missing = threading.Lock(), [len(waiting)]

    def one_more(done: Future) -> None:
        with lock:
            missing[0] -= 1
            last = missing[0] == 0
        if last:
            failed = next((f._error for f in waiting if f._error is not None), None)
            if failed is None:
                made.set_result(waiting)
            else:
                made._complete(None, failed)

    if not waiting:
        made.set_result([])
    for f in waiting:
        f.add_done_callback(one_more)
    return made


def wait_all(futures: list[Future]) -> list:
    """The values of all, when all are there; the first exception is raised."""
    return [f.wait() for f in collect_all(futures).wait()]
