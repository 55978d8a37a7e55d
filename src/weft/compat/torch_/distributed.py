"""torch.distributed in one process: nothing is available, and calls say so."""

from __future__ import annotations

import enum
from typing import Any

from weft.compat.torch_.absent import Absent


def is_available() -> bool:
    return False


is_initialized = is_nccl_available = is_mpi_available = is_gloo_available = is_available
is_torchelastic_launched = is_ucc_available = is_xccl_available = is_available


def _refuse(*args: Any, **kw: Any) -> Any:
    raise ValueError(
        "Default process group has not been initialized: torch.distributed is not available"
    )


get_rank = get_world_size = get_backend = barrier = broadcast = broadcast_object_list = _refuse
all_reduce = all_gather = all_gather_object = all_gather_into_tensor = reduce = scatter = _refuse
gather = gather_object = send = recv = isend = irecv = new_group = init_process_group = _refuse
reduce_scatter = reduce_scatter_tensor = all_to_all = all_to_all_single = _refuse
destroy_process_group = monitored_barrier = scatter_object_list = _refuse


class ReduceOp(enum.Enum):
    SUM = 0
    AVG = 1
    PRODUCT = 2
    MIN = 3
    MAX = 4


class ProcessGroup(Absent):
    why = "torch.distributed is not available"


class ZeroRedundancyOptimizer(Absent):
    why = "torch.distributed is not available"


class DistributedOptimizer(ZeroRedundancyOptimizer):
    """Not available."""


class Work(Absent):
    why = "torch.distributed is not available"


class group:
    WORLD = None
