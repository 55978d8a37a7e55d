"""torch.types: names for annotations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import weft

_size = Union[weft.Size, list[int], tuple[int, ...]]  # noqa: UP007 - isinstance of torch's too
_int, _float, _bool = int, float, bool
_dtype, _device = weft.dtype, weft.device
Device = Union[weft.device, str, int, None]  # noqa: UP007
Number = (int, float, bool)
_TensorOrTensors = Union[weft.Tensor, Sequence[weft.Tensor]]  # noqa: UP007
FileLike = Any
Tensor = weft.Tensor
