"""torch.backends.cudnn: settings of a library that is not there; kept, without effect."""

from __future__ import annotations

from typing import Any

enabled = True
benchmark = False
deterministic = False
allow_tf32 = True
benchmark_limit = 10


def is_available() -> bool:
    return False


def version() -> None:
    return None


class flags:
    """A context that sets them for a while."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        pass

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> bool:
        return False
