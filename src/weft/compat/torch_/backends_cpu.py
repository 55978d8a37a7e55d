"""torch.backends.mkldnn, .mps, .openmp: implementations that Weft does not have."""

from __future__ import annotations

enabled = False


def is_available() -> bool:
    return False


def is_built() -> bool:
    return False


def get_cpu_capability() -> str:
    return "DEFAULT"
