"""Weights: inputs of a program that do not change between runs, packed once for the products.

A product reads its second operand in panels, packed on every run.  Where that operand is an input,
the program looks before each run at the mark of its memory (`runtime/memory.py`): the same mark
twice in a row, at the same address, and the operand is packed into memory that is kept; the
product's launch is exchanged for one that reads it there, until the mark differs.  The bits are the
same.  How an op's kernel asks for this: `Summing.packed` (`ops/kinds.py`, `kernels/packed.py`).
Where a loop makes the operand of one input alone (autocast rounds weights), and only such products
read it, it is packed from what the loop makes once, and the loop does not run.

A product of one row reads what comes from memory nearly as fast where it lies: where copies of such
operands would take more than an eighth of the machine's memory, they stay there. Copies that no
cache holds are made of fewer bytes where they can (`kernels/schedule/gemv.py`).

Inputs that the program writes to, or makes gradients of, are never looked at; nor are those that
are a product's first operand (a batch, of which a later product takes the weight's gradient).
Where nothing stays the same, only two runs in many look.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from weft.kernels import Packed
from weft.kernels.schedule.tile import up
from weft.runtime import memory, native

if TYPE_CHECKING:
    from weft.compile.steps import Place

_PAUSE = 63  # runs without a look, at most, while everything changes
_MOST_SPARE = memory.machine_bytes() // 8  # bytes of copies that gain little from memory
_CACHED = 64 << 20  # bytes of all copies that a last cache may hold
_PATIENCE = 64  # looks at the same mark before a weight that changed is packed again, at most
_BYTE = np.dtype(np.uint8)
_NOTHING = native.Launch(())


class Copy:
    """A packed operand; programs that read the same one share it."""

    def __init__(self, part: np.ndarray) -> None:
        self.memory = part
        self.address = native.address(part)


# by mark and address of the input, where the operand lies in it, and the form it is packed to
_copies: WeakValueDictionary[tuple, Copy] = WeakValueDictionary()


class Rounding:
    """A loop of one input: its entry, its launch, where its result lies, and who reads that."""

    def __init__(self, entry: int, source: Place, out: Place, launch: native.Launch) -> None:
        self.entry = entry
        self.source = source
        self.out = out
        self.launch = launch
        self.readers: list[int] = []
        self.alone = True  # whether the readers are products, of their second operand
        self.idle = 0  # readers that read a copy


class Weight:
    """The second operand of an entry of a program's table, if it is an input, or made of one by
    `by`.
    """

    def __init__(
        self, entry: int, place: Place, plain: native.Launch, ask: Callable[[], Packed | None],
        by: Rounding | None = None,
    ) -> None:  # fmt: skip
        self.entry = entry
        self.by = by
        self.name = place.base[1]
        self.place = place
        self.plain = plain
        self.ask = ask
        self.how = (place.offset, place.layout, None if by is None else by.launch.ints)
        self.packed: Packed | None = None  # once asked
        self.copy: Copy | None = None  # while the entry reads it
        self.key: tuple = ()  # of the copy
        self.seen: tuple[int, int] | None = None  # mark and address at the last look
        self.patience = self.left = 1  # looks at the same mark before it is packed
        self.lease: Callable[[], Any] = memory.nobody  # whose mark tells, while it is packed
        out = place if by is None else by.out
        at = out.offset * out.layout.dtype.itemsize
        arena = out.base[0] == "arena"
        self.base = ("arena", None) if arena else out.base
        self.slot = (entry, 2, at + out.base[1] if arena else at)


class Weights:
    """Those of one program."""

    def __init__(self, table: native.Table, slots: dict[tuple, list], found: Iterable[Weight]):
        self.table = table
        self.slots = slots  # base -> the pointers that follow it when it moves
        self.all = list(found)
        self.asked = False  # whether all know how they are packed
        self.pause = self.wait = 0
        self.again = False  # whether the last run looked, after a pause

    def keep(self, inputs: Set[str]) -> None:
        """Only inputs among these can be weights: those of which a change would be noticed."""
        self.all = [w for w in self.all if w.name in inputs]

    def look(
        self, inputs: Mapping[str, np.ndarray], address: Callable[[str], int],
        view: Callable[[Place], np.ndarray], moved: Set[str] | None = None,
    ) -> None:  # fmt: skip
        """Before a run on these inputs, whose pointers are set: pack what stayed the same.

        `address` gives an input's, `view` the array at a place; none but `moved` lie elsewhere than
        at the last look (None: nobody knows).
        """
        if self.wait:
            self.wait -= 1
            return
        same, ready = False, []
        for w in self.all:
            stays = moved is not None and w.copy is not None and w.name not in moved
            lease = w.lease() if stays else None
            if lease is not None and w.seen is not None and lease.mark == w.seen[0]:
                same = True
                continue
            mark = memory.mark(inputs[w.name])
            now = (mark, w.seen[1] if stays and w.seen else address(w.name))
            if mark is not None and now == w.seen:
                same = True
                if w.copy is None:
                    w.left -= 1
                    if not w.left:
                        ready.append(w)
                else:
                    w.lease = memory.lease_named(inputs[w.name])
                continue
            if w.copy is not None:
                w.copy, w.lease = None, memory.nobody
                w.patience = min(2 * w.patience, _PATIENCE)
                self.slots[w.base].append(w.slot)
                self.table.exchange(w.entry, w.plain)
                where = now[1] + w.slot[2]
                if w.by is not None:
                    self._idle(w.by, -1)
                    result = self.table.place(w.by.entry, 0)
                    where = ctypes.c_int64.from_address(result).value
                self.table.set_pointer(w.entry, 2, where)
            w.seen, w.left = now, w.patience  # type: ignore[assignment]
        if ready:
            self._pack(ready, view)
        if same:
            self.pause = 0
        elif self.again:  # two runs beside each other, and everything has changed between them
            self.wait = self.pause = min(2 * self.pause + 1, _PAUSE)
        self.again = not same and not self.again

    def watched(self, inputs: Mapping[str, np.ndarray]) -> list[tuple[Any, str, Any]] | None:
        """Attributes of objects that are what they are while all weights stay as they were packed;
        None where one is not packed (yet).
        """
        found = []
        for w in self.all:
            packed = w.copy is not None and w.seen is not None and w.name in inputs
            now = memory.marked(inputs[w.name]) if packed else None
            if now is None or now[2] != w.seen[0]:  # type: ignore[index]
                return None
            found.append(now)
        return found

    def _pack(self, ready: list[Weight], view: Callable[[Place], np.ndarray]) -> None:
        """In one block for all, of huge pages where it is large: weights come from memory on each
        run, and the small pages of many blocks cost 5 % of a product's time.
        """
        self._ask()
        found: dict[tuple, Copy] = {}
        wanted: dict[tuple, tuple[Weight, Packed]] = {}
        ready = [w for w in ready if w in self.all]
        for w in ready:
            p = w.packed
            assert p is not None
            w.key = (*w.seen, *w.how, p.form)  # type: ignore[misc]
            known = _copies.get(w.key)
            if known is None:
                wanted[w.key] = w, p
            else:
                found[w.key] = known
        if wanted:
            try:
                block = memory.empty((_room(p for _, p in wanted.values()),), _BYTE)
            except MemoryError:  # it goes on without
                return
            at = 0
            for key, (w, p) in wanted.items():
                found[key] = _copies[key] = Copy(block[at : at + p.size])
                operand = view(w.place)
                if w.by is not None:
                    made = w.by.out.layout.zeros()
                    native.launch(w.by.launch, made, [operand])
                    operand = made
                native.launch(p.pack, found[key].memory, [operand])
                at += up(p.size)
        for w in ready:
            w.copy = found.get(w.key)
            if w.copy is not None:
                self.slots[w.base].remove(w.slot)
                self.table.exchange(w.entry, w.packed.launch)  # type: ignore[union-attr]
                self.table.set_pointer(w.entry, 2, w.copy.address)
                if w.by is not None:
                    self._idle(w.by, 1)

    def _idle(self, by: Rounding, more: int) -> None:
        """So many more of its readers read copies: it runs as long as one does not."""
        before, by.idle = by.idle, by.idle + more
        every = len(by.readers)
        if every in (before, by.idle):
            self.table.exchange(by.entry, _NOTHING if by.idle == every else by.launch)

    def _ask(self) -> None:
        """Learn once how each is packed; only those remain that are worth their memory."""
        if self.asked:
            return
        self.asked = True
        for w in self.all:
            w.packed = w.ask()
        self.all = [w for w in self.all if w.packed is not None]
        forms = self._forms().values()
        if sum(p.size for p in forms if p.spare) > _MOST_SPARE:
            self.all = [w for w in self.all if not w.packed.spare]  # type: ignore[union-attr]
        for w in self.all if sum(p.size for p in forms) > _CACHED else ():
            if w.packed is not None and w.packed.shorter is not None:
                w.packed = w.packed.shorter()

    def _forms(self) -> dict[tuple, Packed]:
        return {(w.name, w.how, w.packed.form): w.packed for w in self.all if w.packed}

    def planned_bytes(self) -> int:
        """What the copies take up, or will when they are made."""
        self._ask()
        found = self._forms()
        return memory.block_size(_room(found.values())) if found else 0


def _room(packed: Iterable[Packed]) -> int:
    """The bytes of a block for such copies."""
    return max(sum(up(p.size) for p in packed), memory.SMALL)
