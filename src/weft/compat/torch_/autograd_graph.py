"""torch.autograd.graph: where saved tensors lie."""

from __future__ import annotations

from typing import Any


class save_on_cpu:
    """A context without effect: saved tensors lie in the CPU's memory already."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        pass

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: Any) -> None:
        return None
