"""Classes that annotations and isinstance tests name; none can be made."""

from __future__ import annotations

from typing import Any


class Absent:
    """Making one raises; nothing is an instance."""

    why = "Weft does not have it"

    def __init__(self, *args: Any, **kw: Any) -> None:
        raise NotImplementedError(f"torch.{type(self).__name__}: {self.why}")


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
    why = "there is no TorchScript"


class Graph(_Script):
    """Of TorchScript, in annotations."""


class Node(_Script):
    """Of TorchScript, in annotations."""


class Value(_Script):
    """Of TorchScript, in annotations."""
