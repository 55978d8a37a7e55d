"""torch.nn.parallel on a machine without devices."""

from __future__ import annotations

from typing import Any

import weft


class DataParallel(weft.nn.Module):
    """The module, called as it is: without CUDA devices torch does the same."""

    def __init__(
        self, module: Any, device_ids: Any = None, output_device: Any = None, dim: int = 0
    ) -> None:
        super().__init__()
        self.module = module
        self.device_ids: list[int] = []

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)


class DistributedDataParallel:
    """Needs torch.distributed, which is not available."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        raise RuntimeError(
            "Default process group has not been initialized: torch.distributed is not available"
        )


def _no_devices(*args: Any, **kw: Any) -> Any:
    raise AssertionError("Torch not compiled with CUDA enabled")


scatter = gather = replicate = parallel_apply = scatter_kwargs = data_parallel = _no_devices
