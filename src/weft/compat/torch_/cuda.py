"""torch.cuda as torch answers on a machine without CUDA."""

from __future__ import annotations

from typing import Any

from weft.compat.torch_ import answers
from weft.compat.torch_.absent import CUDAGraph, StreamContext
from weft.compat.torch_.version import TorchVersion

__all__ = ["CUDAGraph", "Event", "Stream", "StreamContext"]


class Stream:
    """A name: RuntimeError when one is made."""

    __init__ = answers.refusing(RuntimeError, "torch.cuda.Stream requires CUDA support")


class Event:
    """A name: RuntimeError when one is made."""

    __init__ = answers.refusing(RuntimeError, "Tried to instantiate dummy base class Event")


_NO_CUDA = "Torch not compiled with CUDA enabled"

__version__ = TorchVersion("0")
has_half = _initialized = False
default_generators: tuple = ()

is_available = is_initialized = is_bf16_supported = answers.no
device_count = memory_allocated = max_memory_allocated = memory_reserved = answers.zero
max_memory_reserved = memory_cached = max_memory_cached = answers.zero

init = current_device = get_device_name = get_device_properties = answers.refusing(
    AssertionError, _NO_CUDA
)
get_device_capability = synchronize = current_stream = default_stream = get_rng_state = init
mem_get_info = set_rng_state = graph = stream = init


def set_device(device: Any) -> None:
    """A negative index does nothing, as in torch; any other is refused."""
    if isinstance(device, int) and device < 0:
        return
    init()


# Seeds are kept for a CUDA that is never initialised, memory is none: torch answers the same.
manual_seed = manual_seed_all = seed = seed_all = empty_cache = ipc_collect = answers.nothing
reset_peak_memory_stats = reset_max_memory_allocated = reset_max_memory_cached = answers.nothing
set_rng_state_all = answers.nothing


def memory_stats(device: Any = None) -> dict:
    return {}


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    return ""


def get_rng_state_all() -> list:
    return []


class OutOfMemoryError(RuntimeError):
    """Never raised: there is no device memory to run out of."""


class device(answers.Idle):
    """A context that selects a CUDA device; only "none of them" can be selected."""

    def __init__(self, device: Any) -> None:
        set_device(-1 if device is None else device)


class FloatTensor:
    """CUDA tensors: none can be made, and no tensor is one."""

    def __new__(cls, *args: Any, **kw: Any) -> Any:
        raise TypeError("type torch.cuda.FloatTensor not available. " + _NO_CUDA)


HalfTensor = DoubleTensor = LongTensor = IntTensor = ByteTensor = BoolTensor = FloatTensor
