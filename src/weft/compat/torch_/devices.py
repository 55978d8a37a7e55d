"""Faces of devices: the CPU, and those that are not there.  One class a module of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import weft
from weft import amp
from weft.amp import custom_bwd, custom_fwd
from weft.compat.torch_.answers import Idle, no, none, nothing, refusing, zero


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
