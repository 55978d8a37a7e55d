"""torch.__config__: how it was built."""

from __future__ import annotations


def show() -> str:
    return "Weft\n  - CPU kernels made at run time by LLVM\n"


def parallel_info() -> str:
    return "Weft: native threads\n"
