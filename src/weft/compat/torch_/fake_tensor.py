"""torch._subclasses, torch.fx.experimental: tensors without values, of which Weft has none."""

from __future__ import annotations

from typing import Any

from weft.compat.torch_.absent import Absent


class FakeTensor(Absent):
    why = "every tensor has a value"


class FakeTensorMode(Absent):
    why = "every tensor has a value"


def is_fake(x: Any) -> bool:
    """No tensor is."""
    return False


def get_proxy_mode() -> None:
    """None: nothing is traced by proxies."""
