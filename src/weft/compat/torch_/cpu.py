"""torch.cpu: the one device there is."""

from __future__ import annotations

from typing import Any


def is_available() -> bool:
    return True


def device_count() -> int:
    return 1


def current_device() -> str:
    return "cpu"


def synchronize(device: Any = None) -> None:
    """Every op has ended when it returns."""


class Stream:
    """The CPU's one queue."""


class StreamContext:
    """A context without effect: the CPU has one stream."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None


_stream = Stream()
stream = StreamContext


def current_stream(device: Any = None) -> Stream:
    """The CPU's one queue."""
    return _stream
