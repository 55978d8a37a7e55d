"""torch.autograd.profiler: the older spelling of torch.profiler."""

from __future__ import annotations

from typing import Any

from weft import profiler
from weft.compat.torch_.absent import Absent
from weft.profiler import EventList, record_function

__all__ = ["EventList", "emit_nvtx", "profile", "record_function"]


class profile(profiler.profile):
    """As weft.profiler.profile; `enabled=False` watches nothing."""

    def __init__(self, enabled: bool = True, **kw: Any) -> None:
        off = None if enabled else (lambda _: profiler.ProfilerAction.NONE)
        known = ("record_shapes", "profile_memory", "with_stack", "with_flops", "with_modules")
        super().__init__(schedule=off, **{k: v for k, v in kw.items() if k in known})


class emit_nvtx(Absent):
    """Not available."""

    why = "Weft does not mark ranges for CUDA's tools; weft.profiler writes Chrome traces"
