"""torch.cuda as torch answers on a machine without CUDA."""

from __future__ import annotations

from typing import Any

from weft.compat.torch_.absent import CUDAGraph, StreamContext
from weft.compat.torch_.version import TorchVersion

__all__ = ["CUDAGraph", "Event", "Stream", "StreamContext"]


class Stream:
    """A name: RuntimeError when one is made."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        raise RuntimeError("torch.cuda.Stream requires CUDA support")


class Event:
    """A name: RuntimeError when one is made."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        raise RuntimeError("Tried to instantiate dummy base class Event")


_NO_CUDA = "Torch not compiled with CUDA enabled"

__version__ = TorchVersion("0")
has_half = _initialized = False
default_generators: tuple = ()


def is_available() -> bool:
    return False


def device_count() -> int:
    return 0


def is_initialized() -> bool:
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    return False


def init() -> None:
    raise AssertionError(_NO_CUDA)


def _refuse(*args: Any, **kw: Any) -> Any:
    raise AssertionError(_NO_CUDA)


current_device = get_device_name = get_device_properties = get_device_capability = _refuse
synchronize = current_stream = default_stream = get_rng_state = mem_get_info = _refuse
set_rng_state = graph = stream = _refuse


def set_device(device: Any) -> None:
    """A negative index does nothing, as in torch; any other is refused."""
    if isinstance(device, int) and device < 0:
        return
    raise AssertionError(_NO_CUDA)


# Seeds are kept for a CUDA that is never initialised, memory is none: torch answers the same.
def manual_seed(seed: int) -> None:
    """Nothing to seed."""


manual_seed_all = manual_seed


def seed() -> None:
    """Nothing to seed."""


seed_all = seed


def empty_cache() -> None:
    """Nothing is cached."""


ipc_collect = empty_cache


def memory_allocated(device: Any = None) -> int:
    return 0


max_memory_allocated = memory_reserved = max_memory_reserved = memory_allocated
memory_cached = max_memory_cached = memory_allocated


def memory_stats(device: Any = None) -> dict:
    return {}


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    return ""


def reset_peak_memory_stats(device: Any = None) -> None:
    """No statistics are kept."""


reset_max_memory_allocated = reset_max_memory_cached = reset_peak_memory_stats


def get_rng_state_all() -> list:
    return []


def set_rng_state_all(new_states: Any) -> None:
    """No device has a generator."""


class OutOfMemoryError(RuntimeError):
    """Never raised: there is no device memory to run out of."""


class device:
    """A context that selects a CUDA device; only "none of them" can be selected."""

    def __init__(self, device: Any) -> None:
        set_device(-1 if device is None else device)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> bool:
        return False


class FloatTensor:
    """CUDA tensors: none can be made, and no tensor is one."""

    def __new__(cls, *args: Any, **kw: Any) -> Any:
        raise TypeError("type torch.cuda.FloatTensor not available. " + _NO_CUDA)


HalfTensor = DoubleTensor = LongTensor = IntTensor = ByteTensor = BoolTensor = FloatTensor
