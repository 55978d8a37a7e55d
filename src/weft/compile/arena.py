"""Memory of programs: the arena that all runs share, places in it, and what a run needs."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from weft.runtime import memory

ALIGN = 64


@dataclass(frozen=True)
class Memory:
    """Bytes that one run of a program needs, as planned."""

    outside: int  # tensors that it reads or writes: inputs, parameters, optimizer state
    arena: int  # values that live within the run
    results: int  # tensors that it makes: gradients, losses
    scratch: int  # the kernels' own, and constants
    packed: int  # copies of weights that do not change, as products read them

    @property
    def total(self) -> int:
        return self.outside + self.arena + self.results + self.scratch + self.packed


class Arena:
    """Memory for values that live within one run; one for the process, grown on demand."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.memory = np.empty(0, np.uint8)

    def ensure(self, nbytes: int) -> None:
        if self.memory.size < nbytes:
            # blocks of the eager steps before, which nobody will ask for again
            self.memory = np.empty(0, np.uint8)
            memory.trim()
            self.memory = memory.empty((nbytes,), np.dtype(np.uint8))


ARENA = Arena()


class Slots:
    """Places in the arena, reused once their value has been read for the last time."""

    def __init__(self) -> None:
        self.total = 0
        self.free: list[tuple[int, int]] = []  # (offset, size), by offset
        self.until: dict[int, list[tuple[int, int]]] = {}  # last use -> (offset, size)

    def take(self, nbytes: int, until: int, *, behind: bool = False) -> int:
        """A place for a value that group `until` reads last; `behind` all others: holes stay whole
        for what comes and goes while it lives.
        """
        size = max(ALIGN, -(-nbytes // ALIGN) * ALIGN)
        holes = (f for f in self.free if f[1] >= size and not behind)
        best = min(holes, key=lambda f: f[1], default=None)
        if best is None:
            offset = self.total
            if not behind and self.free and sum(self.free[-1]) == self.total:  # grow the last hole
                offset = self.free.pop()[0]
            self.total = offset + size
        else:
            self.free.remove(best)
            offset = best[0]
            if best[1] > size:
                self.free.append((offset + size, best[1] - size))
                self.free.sort()
        self.until.setdefault(until, []).append((offset, size))
        return offset

    def hand_over(self, offset: int, i: int, until: int) -> bool:
        """The value at `offset`, which group i is the last to read, is followed there by one that
        the group makes; False where another group reads it later.
        """
        found = next((s for s in self.until.get(i, ()) if s[0] == offset), None)
        if found is None or until == i:
            return False
        self.until[i].remove(found)
        self.until.setdefault(until, []).append(found)
        return True

    def release(self, i: int) -> None:
        """Group i has run: what was last read by it is free."""
        done = self.until.pop(i, None)
        if done is None:
            return
        self.free.extend(done)
        self.free.sort()
        merged: list[tuple[int, int]] = []
        for offset, size in self.free:
            if merged and sum(merged[-1]) == offset:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((offset, size))
        self.free = merged
