"""torch.version: the torch whose names and numbers Weft follows."""

from __future__ import annotations

import re
from typing import Any


def _release(text: str) -> tuple[int, ...]:
    numbers = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(n) for n in numbers[0].split(".")) if numbers else ()


class TorchVersion(str):
    """A version that compares by its numbers: `torch.__version__ >= "2.1"`, `>= (2, 1)`."""

    def _pair(self, other: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        theirs = _release(other) if isinstance(other, str) else tuple(int(n) for n in other)
        mine = _release(self)
        length = max(len(mine), len(theirs))
        return mine + (0,) * (length - len(mine)), theirs + (0,) * (length - len(theirs))

    def __lt__(self, other: Any) -> bool:
        mine, theirs = self._pair(other)
        return mine < theirs

    def __le__(self, other: Any) -> bool:
        mine, theirs = self._pair(other)
        return mine <= theirs

    def __gt__(self, other: Any) -> bool:
        return not self <= other

    def __ge__(self, other: Any) -> bool:
        return not self < other


__version__ = TorchVersion("2.13.0+weft")
git_version = "weft"
debug = False
cuda: str | None = None
hip: str | None = None
xpu: str | None = None
