"""Files that torch wrote before its zips: a row of pickles with numbers behind, and a tar of such.

row (torch 0.1.10 to 1.5, and `_use_new_zipfile_serialization=False`): the pickles of a magic
number, a protocol version, facts of the machine, the object, the storages' keys; then for each
key the count of its numbers (8 bytes) and the numbers.
tar (before 0.1.10): `storages`, `tensors` and `pickle`, read inside the archive: nothing is
extracted to the disk.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import tarfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from weft.core import dtype as dt
from weft.io import torch_makers, torch_pickle
from weft.runtime import memory

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def write(file: BinaryIO, pickled: bytes, arrays: dict[str, np.ndarray]) -> None:
    """The row of pickles, `pickled` being the object's and `arrays` its storages by key."""
    sizes = {"short": 2, "int": 4, "long": 8}
    facts = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": sizes}
    for part in (MAGIC, PROTOCOL, facts):
        file.write(pickle.dumps(part, 2))
    file.write(pickled)
    keys = sorted(arrays)
    file.write(pickle.dumps(keys, 2))
    for key in keys:
        a = np.ascontiguousarray(arrays[key])
        file.write(struct.pack("<q", a.size))
        file.write(a.reshape(-1).view(np.uint8).data)


def read(
    file: BinaryIO, place: Callable, *, weights_only: bool, encoding: str
) -> tuple[Any, set[str]]:
    """(the value, classes that became inert records); `place(location)` checks each device.

    UnpicklingError or RuntimeError for a file of another kind, or one that is cut.
    """
    start = file.tell()
    if _is_tar(file):
        if weights_only:
            raise RuntimeError(
                "Cannot use ``weights_only=True`` with files saved in the legacy .tar format."
            )
        return _read_tar(file, place, encoding)
    file.seek(start)
    try:
        magic = _plain(file)
    except (pickle.UnpicklingError, ValueError, EOFError) as e:
        raise RuntimeError(f"load: not a file of torch.save ({str(e)[:60]})") from None
    if magic != MAGIC:
        raise RuntimeError("Invalid magic number; corrupt file?")
    version, facts = _plain(file), _plain(file)
    if version != PROTOCOL:
        raise RuntimeError(f"Invalid protocol version: {str(version)[:40]}")
    if not isinstance(facts, dict):
        raise RuntimeError("load: the facts of the machine are no dict: corrupt file?")
    swapped = facts.get("little_endian", True) is not True
    room = _Room(file)
    memories: dict[str, np.ndarray] = {}

    def persistent(pid: Any) -> Any:
        kind, *rest = pid if isinstance(pid, tuple) else (None,)
        if kind == "module" and rest:
            return rest[0]  # a class with its source text, which nobody compares
        if kind != "storage" or len(rest) != 5:
            raise pickle.UnpicklingError(f"unknown persistent id {str(pid)[:80]}")
        d, key, location, count, view = rest
        key = _name(key)
        place(location)
        if key not in memories:
            memories[key] = room.numbers(d, count)
        whole = memories[key]
        if not isinstance(d, dt.dtype) or whole.nbytes // d.itemsize < count:
            raise pickle.UnpicklingError(f"load: storage {key[:40]} is not of {str(d)[:40]}")
        whole = whole.view(d.np)
        if view is None:
            return whole
        if not isinstance(view, tuple) or len(view) != 3:
            raise pickle.UnpicklingError(f"unknown view of a storage {str(view)[:80]}")
        return _part(whole, view[1], view[2])

    value, unknown = torch_pickle.read(
        file, persistent, weights_only=weights_only, encoding=encoding
    )
    keys = _plain(file)
    if not isinstance(keys, list):
        raise RuntimeError("load: the storages' keys are no list: corrupt file?")
    for key in map(_name, keys):
        if key not in memories:
            raise RuntimeError(f"load: storage {key[:40]} belongs to no tensor: corrupt file?")
        _fill(file, memories[key], f"storage {key[:40]}", swapped)
    return value, unknown


class _Room:
    """Numbers are asked for before they are read: a file may ask for as many as it can hold."""

    def __init__(self, file: BinaryIO) -> None:
        here = file.tell()
        self.left = file.seek(0, io.SEEK_END)
        file.seek(here)

    def numbers(self, d: Any, count: Any) -> np.ndarray:
        """Memory for `count` numbers."""
        if not isinstance(d, dt.dtype) or type(count) is not int or count < 0:
            raise pickle.UnpicklingError(f"load: a storage of {str(count)[:40]} {str(d)[:40]}")
        self.left -= count * d.itemsize
        if self.left < 0:
            raise RuntimeError(f"load: storages are cut: {count} numbers do not lie in the file")
        made = memory.empty((count,), d.np)
        made.fill(0)
        return made


def _plain(file: BinaryIO) -> Any:
    """A pickle of numbers, text and containers."""

    def persistent(pid: Any) -> Any:
        raise pickle.UnpicklingError("load: a storage where none belongs")

    return torch_pickle.read(file, persistent, weights_only=True)[0]


def _name(key: Any) -> str:
    if isinstance(key, bytes):
        key = key.decode("ascii", "replace")
    if not isinstance(key, (str, int)):
        raise pickle.UnpicklingError(f"load: a storage's key is a {type(key).__name__}")
    return str(key)


def _part(whole: np.ndarray, offset: Any, count: Any) -> np.ndarray:
    if not all(type(n) is int and n >= 0 for n in (offset, count)) or offset + count > whole.size:
        raise ValueError(f"a view of {count} numbers at {offset} does not fit {whole.size}")
    return whole[offset : offset + count]


def _fill(file: BinaryIO, a: np.ndarray, what: str, swapped: bool) -> None:
    """Read an array's numbers, which their count precedes."""
    head = file.read(8)
    count = int.from_bytes(head, "big" if swapped else "little", signed=True)
    raw = file.read(a.nbytes) if len(head) == 8 and count == a.size else b""
    if len(raw) != a.nbytes or count != a.size:
        raise RuntimeError(f"load: {what} is cut: {count} numbers announced, {a.size} needed")
    a.view(np.uint8)[:] = np.frombuffer(raw, np.uint8)
    if swapped != (sys.byteorder == "big"):
        part = a.dtype if a.dtype.kind != "c" else np.dtype(f"f{a.itemsize // 2}")
        a.view(part).byteswap(inplace=True)


# ------------------------------------------------------------------------------------------ tar


def _is_tar(file: BinaryIO) -> bool:
    """Whether a tar header with torch's first record is at the start."""
    head = file.read(512)
    return len(head) == 512 and head[257:262] == b"ustar"


def _read_tar(file: BinaryIO, place: Callable, encoding: str) -> tuple[Any, set[str]]:
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:", format=tarfile.PAX_FORMAT) as tar:
            parts = {}
            for member in tar:
                if member.isfile() and member.name in ("storages", "tensors", "pickle"):
                    part = tar.extractfile(member)
                    assert part is not None
                    parts[member.name] = io.BytesIO(part.read())
    except tarfile.TarError as e:
        raise RuntimeError(f"load: the tar is broken: {str(e)[:80]}") from None
    if len(parts) != 3:
        raise RuntimeError("load: the tar holds no storages, tensors and pickle")
    made: dict[Any, Any] = {}
    _storages(parts["storages"], made, place)
    _tensors(parts["tensors"], made)

    def persistent(pid: Any) -> Any:
        if isinstance(pid, tuple) and pid:
            return pid[0]
        if str(pid) not in made:
            raise pickle.UnpicklingError(f"unknown persistent id {str(pid)[:80]}")
        return made[str(pid)]

    return torch_pickle.read(parts["pickle"], persistent, weights_only=False, encoding=encoding)


def _tuple(x: Any, width: int, what: str) -> tuple:
    if not isinstance(x, tuple) or len(x) != width:
        raise RuntimeError(f"load: {what} {str(x)[:60]}: corrupt file?")
    return x


def _storages(file: BinaryIO, made: dict, place: Callable) -> None:
    room, count = _Room(file), _plain(file)
    if type(count) is not int:
        raise RuntimeError("load: the tar's storages have no count")
    for _ in range(count):
        key, location, d = _tuple(_plain(file), 3, "a storage")
        place(location)
        here = file.tell()
        n = int.from_bytes(file.read(8), "little", signed=True)
        file.seek(here)
        a = room.numbers(d, n)
        _fill(file, a, f"storage {key}", swapped=False)
        made[str(key)] = a
    views = _plain(file)
    if not isinstance(views, list):
        raise RuntimeError("load: the views of the tar's storages are no list")
    for view in views:
        target, root, offset, n = _tuple(view, 4, "a view of a storage")
        if str(root) not in made:
            raise RuntimeError(f"load: a view of the unknown storage {str(root)[:40]}")
        made[str(target)] = _part(made[str(root)], offset, n)


def _tensors(file: BinaryIO, made: dict) -> None:
    count = _plain(file)
    if type(count) is not int:
        raise RuntimeError("load: the tar's tensors have no count")
    for _ in range(count):
        key, storage, _kind = _tuple(_plain(file), 3, "a tensor")
        head = file.read(8)  # the rank in 4 bytes, and 4 that say nothing
        rank = int.from_bytes(head[:4], "little", signed=True)
        if not 0 <= rank <= 32 or str(storage) not in made:
            raise RuntimeError(f"load: a tensor of rank {rank} over storage {str(storage)[:40]}")
        raw = file.read(16 * rank + 8)
        if len(raw) != 16 * rank + 8:
            raise RuntimeError("load: the tar's tensors are cut")
        numbers = struct.unpack(f"<{2 * rank + 1}q", raw)
        made[str(key)] = torch_makers.tensor(
            made[str(storage)], numbers[-1], numbers[:rank], numbers[rank : 2 * rank]
        )
