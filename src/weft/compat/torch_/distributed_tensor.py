"""torch.distributed.tensor: classes that trainers test for; nothing is an instance."""

from __future__ import annotations

from weft.compat.torch_.absent import Absent


class _Apart(Absent):
    why = "torch.distributed is not available"


class DTensor(_Apart):
    """Not available."""


class DeviceMesh(_Apart):
    """Not available."""


class Placement(_Apart):
    """Not available."""


class Shard(Placement):
    """Not available."""


class Replicate(Placement):
    """Not available."""


class Partial(Placement):
    """Not available."""
