"""Faces of devices: the CPU, and those that are not there.  One class a module of torch.

At the top torch.Stream and torch.Event, as they are on a machine without an accelerator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import weft
from weft import amp
from weft.amp import custom_bwd, custom_fwd
from weft.compat.torch_.absent import CUDAGraph, StreamContext
from weft.compat.torch_.answers import Idle, no, none, nothing, refusing, zero
from weft.compat.torch_.version import TorchVersion

_NO_EVENTS = "cpu backend doesn't support events."


def only_cpu(device: Any) -> None:
    """RuntimeError for another device, as a torch built for the CPU says it."""
    kind = "cpu" if device is None else weft.device(device).type
    if kind != "cpu":
        raise RuntimeError(f"PyTorch is not linked with support for {kind} devices")


class Stream:
    """The CPU's one queue: what is called has run when the call returns."""

    stream_id, device_index, device_type = 0, -1, 0
    device = weft.device("cpu")

    def __init__(self, device: Any = None, *, priority: int = 0) -> None:
        only_cpu(device)

    def query(self) -> bool:
        """Whether all has run: it has."""
        return True

    def synchronize(self) -> None:
        """Wait until all has run."""

    def wait_event(self, event: Event) -> None:
        """What follows waits for the event, which has happened."""

    record_event = wait_stream = refusing(RuntimeError, _NO_EVENTS)

    def is_capturing(self) -> bool:
        """Whether calls are recorded into a graph: never."""
        return False

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream)

    def __hash__(self) -> int:
        return hash((self.device_index, self.stream_id))

    def __repr__(self) -> str:
        return "torch.Stream device_type=cpu, device_index=-1, stream_id=0"


class Event:
    """A point in a stream; the CPU's cannot be recorded."""

    event_id = 0
    device = weft.device("cpu")

    def __init__(
        self,
        device: Any = None,
        *,
        enable_timing: bool = False,
        blocking: bool = False,
        interprocess: bool = False,
    ) -> None:
        only_cpu(device)
        self._timed = enable_timing

    record = refusing(RuntimeError, _NO_EVENTS)

    def query(self) -> bool:
        """Whether all that was recorded has happened: nothing was."""
        return True

    def wait(self, stream: Stream | None = None) -> None:
        """What follows in the stream waits for nothing."""

    def synchronize(self) -> None:
        """Wait for what was recorded."""

    def elapsed_time(self, end_event: Event) -> float:
        """ValueError: neither event was recorded."""
        if not (self._timed and end_event._timed):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        raise ValueError("Both events must be recorded before calculating elapsed time.")

    def __repr__(self) -> str:
        flag = int(self._timed)
        return f"torch.Event device_type=cpu, device_index=-1, event_flag={flag}, event_id=0"


class xpu:
    """torch.xpu, torch.mtia."""

    is_available, device_count, manual_seed_all = no, zero, nothing


class mps:
    is_available, device_count = no, zero
    manual_seed = empty_cache = nothing


class accelerator:
    is_available, device_count, current_accelerator, empty_cache = no, zero, none, nothing
    current_device_index = set_device_index = synchronize = current_stream = set_stream = refusing(
        RuntimeError, "Cannot access accelerator device when none is available."
    )
    current_device_idx = set_device_idx = device_index = synchronize


class cpu:
    """The one device there is."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> str:
        return "cpu"

    @staticmethod
    def synchronize(device: Any = None) -> None:
        """Every op has ended when it returns."""

    class Stream:
        """The CPU's one queue."""

    class StreamContext(Idle):
        """A context without effect: the CPU has one stream."""

        def __init__(self, stream: Any) -> None:
            self.stream = stream

    _stream = Stream()
    stream = StreamContext

    @staticmethod
    def current_stream(device: Any = None) -> cpu.Stream:
        """The CPU's one queue."""
        return cpu._stream


_NO_CUDA = "Torch not compiled with CUDA enabled"


class cuda:
    """torch.cuda as torch answers on a machine without CUDA."""

    CUDAGraph, StreamContext = CUDAGraph, StreamContext

    class Stream:
        """A name: RuntimeError when one is made."""

        __init__ = refusing(RuntimeError, "torch.cuda.Stream requires CUDA support")

    class Event:
        """A name: RuntimeError when one is made."""

        __init__ = refusing(RuntimeError, "Tried to instantiate dummy base class Event")

    __version__ = TorchVersion("0")
    has_half = _initialized = False
    default_generators: tuple = ()

    is_available = is_initialized = is_bf16_supported = no
    device_count = memory_allocated = max_memory_allocated = memory_reserved = zero
    max_memory_reserved = memory_cached = max_memory_cached = zero

    init = current_device = get_device_name = get_device_properties = refusing(
        AssertionError, _NO_CUDA
    )
    get_device_capability = synchronize = current_stream = default_stream = get_rng_state = init
    mem_get_info = set_rng_state = graph = stream = init

    @staticmethod
    def set_device(device: Any) -> None:
        """A negative index does nothing, as in torch; any other is refused."""
        if isinstance(device, int) and device < 0:
            return
        cuda.init()

    # Seeds are kept for a CUDA that is never initialised, memory is none: torch answers the same.
    manual_seed = manual_seed_all = seed = seed_all = empty_cache = ipc_collect = nothing
    reset_peak_memory_stats = reset_max_memory_allocated = reset_max_memory_cached = nothing
    set_rng_state_all = nothing

    @staticmethod
    def memory_stats(device: Any = None) -> dict:
        return {}

    @staticmethod
    def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
        return ""

    @staticmethod
    def get_rng_state_all() -> list:
        return []

    class OutOfMemoryError(RuntimeError):
        """Never raised: there is no device memory to run out of."""

    class device(Idle):
        """A context that selects a CUDA device; only "none of them" can be selected."""

        def __init__(self, device: Any) -> None:
            cuda.set_device(-1 if device is None else device)

    class FloatTensor:
        """CUDA tensors: none can be made, and no tensor is one."""

        def __new__(cls, *args: Any, **kw: Any) -> Any:
            raise TypeError("type torch.cuda.FloatTensor not available. " + _NO_CUDA)

    HalfTensor = DoubleTensor = LongTensor = IntTensor = ByteTensor = BoolTensor = FloatTensor


class cpu_amp:
    """torch.cpu.amp: the old spelling of torch.amp for the CPU."""

    class autocast(amp.autocast):
        """amp.autocast("cpu", ...)."""

        def __init__(
            self, enabled: bool = True, dtype: Any = weft.bfloat16, cache_enabled: bool = True
        ) -> None:
            super().__init__("cpu", dtype, enabled, cache_enabled)


class cuda_amp:
    """torch.cuda.amp: the old spelling of torch.amp for CUDA."""

    custom_bwd, custom_fwd = custom_bwd, custom_fwd

    class autocast(amp.autocast):
        """amp.autocast("cuda", ...)."""

        def __init__(
            self, enabled: bool = True, dtype: Any = weft.float16, cache_enabled: bool = True
        ) -> None:
            super().__init__("cuda", dtype, enabled, cache_enabled)

    class GradScaler(amp.GradScaler):
        """amp.GradScaler("cuda", ...)."""

        def __init__(
            self,
            init_scale: float = 2.0**16,
            growth_factor: float = 2.0,
            backoff_factor: float = 0.5,
            growth_interval: int = 2000,
            enabled: bool = True,
        ) -> None:
            super().__init__(
                "cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled
            )


class nvtx:
    """torch.cuda.nvtx: marks for a profiler that is not there."""

    range_push = range_pop = zero
    mark = nothing

    class range(Idle):
        """A context without effect."""


class backends_cpu:
    """torch.backends.cpu, .mkldnn, .mps, .openmp: implementations that Weft does not have."""

    enabled = False
    is_available = is_built = no

    @staticmethod
    def get_cpu_capability() -> str:
        return "DEFAULT"


class backends_cudnn:
    """Settings of a library that is not there; kept, without effect."""

    enabled, benchmark, deterministic, allow_tf32, benchmark_limit = True, False, False, True, 10
    is_available, version = no, none

    class flags(Idle):
        """A context without effect, that would set them for a while."""


def _setting() -> tuple[Callable[[], bool], Callable[[bool], None]]:
    """What tells a setting, and what changes it."""
    kept = [True]

    def enable(enabled: bool) -> None:
        """Kept; Weft has one attention."""
        kept[0] = enabled

    return lambda: kept[0], enable


class backends_cuda:
    """Settings of a device that is not there; kept, without effect."""

    class _Matmul:
        """`allow_tf32` and its like: read back as written."""

        allow_tf32 = False
        allow_fp16_reduced_precision_reduction = True
        allow_bf16_reduced_precision_reduction = True
        fp32_precision = "none"

    matmul, is_built = _Matmul(), no
    flash_sdp_enabled, enable_flash_sdp = _setting()
    mem_efficient_sdp_enabled, enable_mem_efficient_sdp = _setting()
    math_sdp_enabled, enable_math_sdp = _setting()

    class sdp_kernel(Idle):
        """A context without effect: it selects among torch's attention kernels; Weft has one."""
