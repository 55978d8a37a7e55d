"""Classes and dtypes of `torch` that annotations, tables and tests name; none can be made."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

import weft
from weft.compat.torch_.answers import Absent


class PyTorchFileWriter(Absent):
    why = "weft.io.torch_file writes the files of torch.save"


class SymInt(Absent):
    why = "sizes are ints"


class SymFloat(Absent):
    why = "numbers are floats"


class SymBool(Absent):
    why = "truth values are bools"


class CUDAGraph(Absent):
    why = "there is no CUDA device"


class StreamContext(Absent):
    why = "there is no CUDA device"


class OptimizedModule(Absent):
    why = "torch.compile gives weft.compile's wrapper"


class _Script(Absent):
    """Of TorchScript, in annotations."""

    why = "there is no TorchScript"


class Graph(_Script): ...


class Node(_Script): ...


class Value(_Script): ...


class AbsentDtype(weft.dtype):
    """A name with a size.  Making a tensor of it raises TypeError."""

    __slots__ = ("_complex",)

    def __init__(self, name: str, like: Any, *, is_complex: bool = False) -> None:
        super().__init__(name, like, 2, name, name)
        self._complex = is_complex

    @property
    def is_complex(self) -> bool:
        return self._complex

    @property
    def is_floating_point(self) -> bool:
        return self.name.startswith("float")

    def __reduce__(self) -> Any:  # found by its name in this module
        return self.name


complex32 = chalf = AbsentDtype("complex32", np.uint32, is_complex=True)
float8_e4m3fnuz = AbsentDtype("float8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz)
float8_e5m2fnuz = AbsentDtype("float8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz)
float8_e8m0fnu = AbsentDtype("float8_e8m0fnu", ml_dtypes.float8_e8m0fnu)
float4_e2m1fn_x2 = AbsentDtype("float4_e2m1fn_x2", np.uint8)
quint8 = AbsentDtype("quint8", np.uint8)
qint8 = AbsentDtype("qint8", np.int8)
qint32 = AbsentDtype("qint32", np.int32)
