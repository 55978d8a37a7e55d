"""torch.profiler: labels are accepted; profiles are not taken."""

from __future__ import annotations

import enum
from typing import Any

from weft.compat.torch_.absent import Absent


class record_function:
    """A label around a block, for a profile that is not taken."""

    def __init__(self, name: str, args: Any = None) -> None:
        self.name = name

    def __enter__(self) -> record_function:
        return self

    def __exit__(self, *exc: object) -> bool:
        return False


class ProfilerActivity(enum.Enum):
    CPU = 0
    CUDA = 2
    XPU = 1


class ProfilerAction(enum.Enum):
    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


class _NoProfile(Absent):
    why = "Weft takes no torch profiles; WEFT_DEBUG=1 shows what compiled programs do"


class profile(_NoProfile):
    """Not available."""


class EventList(_NoProfile):
    """Not available."""


class emit_nvtx(_NoProfile):
    """Not available."""


def schedule(**kw: Any) -> Any:
    """For a profile, which is not available."""
    raise NotImplementedError(_NoProfile.why)


tensorboard_trace_handler = schedule


def kineto_available() -> bool:
    return False
