"""torch.backends.cuda: settings of a device that is not there; kept, without effect."""

from __future__ import annotations

from typing import Any


class _Matmul:
    """`allow_tf32` and its like: read back as written."""

    allow_tf32 = False
    allow_fp16_reduced_precision_reduction = True
    allow_bf16_reduced_precision_reduction = True
    fp32_precision = "none"


matmul = _Matmul()
_sdp = {"flash": True, "mem_efficient": True, "math": True, "cudnn": True}


def is_built() -> bool:
    return False


def flash_sdp_enabled() -> bool:
    return _sdp["flash"]


def mem_efficient_sdp_enabled() -> bool:
    return _sdp["mem_efficient"]


def math_sdp_enabled() -> bool:
    return _sdp["math"]


def enable_flash_sdp(enabled: bool) -> None:
    """Kept; Weft has one attention."""
    _sdp["flash"] = enabled


def enable_mem_efficient_sdp(enabled: bool) -> None:
    """Kept; Weft has one attention."""
    _sdp["mem_efficient"] = enabled


def enable_math_sdp(enabled: bool) -> None:
    """Kept; Weft has one attention."""
    _sdp["math"] = enabled


class sdp_kernel:
    """A context that selects among torch's attention kernels; Weft has one."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        pass

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> bool:
        return False
