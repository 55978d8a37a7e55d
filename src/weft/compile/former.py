"""The call whose memories a later call of the same function may count on.

Whether two tensors share memory decides what a write changes, so a call keeps tables of the
memories that it met (`Session.tables`). A call that is matched and writes nothing never asks them.
So a call that made its tables notes in each node which memory it met there (runtime/match_code.py),
and the next ones compare with that: what one call noted lies apart. Their tables are made when they
are asked, and for some calls thereafter nobody counts on another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from weft.compile.record import Session

_LONGEST = 1024  # calls
_serials = itertools.count(1)


class Former:
    """Of one compiled function."""

    __slots__ = ("pause", "serial", "wait")

    def __init__(self) -> None:
        self.serial = 0  # of the call to count on, if there is one
        self.wait, self.pause = 1, 0  # calls before one is noted, now and after a failure

    def begin(self, session: Session) -> None:
        """Let the call count on the former, or be the one that others count on."""
        if self.serial:
            session.count_on(self.serial)
        elif self.wait:
            self.wait -= 1
        else:
            session.serial = next(_serials)

    def end(self, session: Session) -> None:
        """The call is over."""
        if not session.serial:
            return
        if session.asked:
            self.serial = 0
            self.wait = self.pause = min(2 * self.pause + 1, _LONGEST)
        else:
            self.serial = session.serial
            self.pause = max(self.pause - 1, 0)


class Inputs(Mapping):
    """The values behind a call's operand references, by name, looked up when they are asked for."""

    __slots__ = ("_refs", "_session")

    def __init__(self, session: Session, refs: dict[str, int]) -> None:
        self._session, self._refs = session, refs

    def __getitem__(self, name: str) -> np.ndarray:
        return self._session.array(self._refs[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)
