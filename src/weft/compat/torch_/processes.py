"""Faces of many processes and many devices: one class a module of torch.

torch.distributed is not available, and calls say so.
"""

from __future__ import annotations

import enum
from typing import Any

import weft
from weft.compat.torch_.answers import Absent, no, refusing

_NO_GROUP = "Default process group has not been initialized: torch.distributed is not available"


class _Apart(Absent):
    why = "torch.distributed is not available"


class distributed:
    is_available = is_initialized = is_nccl_available = is_mpi_available = is_gloo_available = no
    is_torchelastic_launched = is_ucc_available = is_xccl_available = no

    get_rank = get_world_size = get_backend = barrier = refusing(ValueError, _NO_GROUP)
    broadcast = broadcast_object_list = all_reduce = all_gather = all_gather_object = barrier
    all_gather_into_tensor = reduce = scatter = gather = gather_object = send = recv = barrier
    isend = irecv = new_group = init_process_group = reduce_scatter = barrier
    reduce_scatter_tensor = all_to_all = all_to_all_single = destroy_process_group = barrier
    monitored_barrier = scatter_object_list = barrier

    class ReduceOp(enum.Enum):
        SUM = 0
        AVG = 1
        PRODUCT = 2
        MIN = 3
        MAX = 4

    class ProcessGroup(_Apart): ...

    class ZeroRedundancyOptimizer(_Apart): ...

    class DistributedOptimizer(ZeroRedundancyOptimizer): ...

    class Work(_Apart): ...

    class group:
        WORLD = None


class distributed_tensor:
    """torch.distributed.tensor: classes that trainers test for; nothing is an instance."""

    class DTensor(_Apart): ...

    class DeviceMesh(_Apart): ...

    class Placement(_Apart): ...

    class Shard(Placement): ...

    class Replicate(Placement): ...

    class Partial(Placement): ...


class parallel:
    """torch.nn.parallel on a machine without devices."""

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
            raise RuntimeError(_NO_GROUP)

    scatter = gather = replicate = parallel_apply = scatter_kwargs = data_parallel = refusing(
        AssertionError, "Torch not compiled with CUDA enabled"
    )


class multiprocessing:
    """Python's, whose processes Weft's tensors reach by copy."""

    @staticmethod
    def set_sharing_strategy(new_strategy: str) -> None:
        """Kept out: tensors are copied between processes."""

    @staticmethod
    def get_sharing_strategy() -> str:
        return "file_descriptor"

    @staticmethod
    def get_all_sharing_strategies() -> set[str]:
        return {"file_descriptor", "file_system"}
