"""torch.serialization: files of torch.save, read without executing what is in them."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from weft.io.torch_file import load, save, unsafe_globals
from weft.io.torch_pickle import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    safe_globals,
)

__all__ = [
    "LoadEndianness", "add_safe_globals", "clear_safe_globals", "default_restore_location",
    "get_default_load_endianness", "get_safe_globals", "get_unsafe_globals_in_checkpoint", "load",
    "location_tag", "safe_globals", "save", "skip_data",
]  # fmt: skip

DEFAULT_PROTOCOL = 2
MAP_LOCATION = Any


class LoadEndianness(enum.Enum):
    NATIVE = 1
    LITTLE = 2
    BIG = 3


class SourceChangeWarning(Warning):
    """Never given: no source text is compared."""


def get_unsafe_globals_in_checkpoint(f: Any) -> list[str]:
    """The names in a file that a load with weights_only=True refuses, found without running it."""
    return unsafe_globals(f)


def get_default_load_endianness() -> LoadEndianness | None:
    """None: a file says its byte order itself."""
    return None


def location_tag(storage: Any) -> str:
    """Everything lies on the CPU."""
    return "cpu"


def default_restore_location(storage: Any, location: str) -> Any:
    """Everything lies on the CPU."""
    return storage


@contextmanager
def skip_data(materialize_fake_tensors: bool = False) -> Iterator[None]:
    """RuntimeError: Weft has no tensors without values."""
    raise RuntimeError("skip_data: Weft has no tensors without values; weft.load(..., mmap=True)")
    yield
