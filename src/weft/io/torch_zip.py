"""The records of a zip that torch.save wrote, read from a file, or mapped from it.

Nothing is ever extracted to the disk, so a record's name is only a key.  A zip that would grow out
of proportion, or whose records lie over one another, is refused before a byte of it is unpacked.

And the files that torch wrote before its zips: a row of pickles with numbers behind, or a tar:

row (torch 0.1.10 to 1.5, and `_use_new_zipfile_serialization=False`): the pickles of a magic
number, a protocol version, facts of the machine, the object, the storages' keys; then for each
key the count of its numbers (8 bytes) and the numbers.
tar (before 0.1.10): `storages`, `tensors` and `pickle`, read inside the archive: nothing is
extracted to the disk.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

import weft
from weft.core import dtype as dt
from weft.io import torch_makers, torch_pickle
from weft.runtime import memory

_RATIO = 100  # torch stores without compression; re-packed weights shrink by far less than this
_SMALL = 1 << 20  # bytes that any record may have
_PIECE = 1 << 20  # bytes that are read at once
_CUT = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error)


class TorchZip:
    """The records of one file, by the names below its root folder.

    RuntimeError for what is no such zip.  With `mapped`, numbers are views of the file's pages (a
    private map: writes do not reach the file), read from the disk when they are touched.
    """

    def __init__(self, file: Any, *, mapped: bool = False) -> None:
        named = isinstance(file, (str, os.PathLike))
        self._own = open(os.fspath(file), "rb") if named else None  # noqa: SIM115
        self._file: BinaryIO = self._own or file
        self._map: mmap.mmap | None = None
        try:
            self._zip = zipfile.ZipFile(self._file)
            self._length = self._file.seek(0, io.SEEK_END)
        except (zipfile.BadZipFile, struct.error, NotImplementedError) as e:
            raise self._cut(e) from None
        self._entries = {i.filename: i for i in self._zip.infolist()}
        inside = [n for n in self._entries if n.endswith("/data.pkl") and n.count("/") == 1]
        if len(inside) != 1:
            raise RuntimeError("load: the zip holds no data.pkl: not a file of torch.save")
        self._root = inside[0][: -len("data.pkl")]
        if sum(i.compress_size for i in self._entries.values()) > self._length:
            raise RuntimeError("load: records of the zip lie over one another")
        if mapped:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        order = self.get_record("byteorder") if self.has_record("byteorder") else b"little"
        if order not in (b"little", b"big"):
            raise RuntimeError(f"load: byteorder is {order[:20]!r}, not little or big")
        self.order = "<" if order == b"little" else ">"

    def __enter__(self) -> TorchZip:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._zip.close()
        if self._own is not None:
            self._own.close()

    def has_record(self, name: str) -> bool:
        """Whether there is a record of this name."""
        return self._root + name in self._entries

    def get_all_records(self) -> list[str]:
        """The names of all records."""
        return [n[len(self._root) :] for n in self._entries if n.startswith(self._root)]

    def get_record_size(self, name: str) -> int:
        """Bytes of a record."""
        return self._entry(name).file_size

    def get_record(self, name: str) -> bytes:
        """The bytes of a record."""
        entry = self._entry(name)
        try:
            return self._zip.read(entry)
        except _CUT as e:
            raise self._cut(e) from None

    def get_record_offset(self, name: str) -> int:
        """Where the bytes of a record that is stored as it is begin in the file."""
        entry = self._entry(name)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise RuntimeError(f"load: record {name} is compressed: it cannot be mapped")
        self._file.seek(entry.header_offset)
        header = self._file.read(30)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise RuntimeError(f"load: record {name} has no header")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        if start + entry.file_size > self._length:
            raise RuntimeError(f"load: record {name} ends after the file")
        return start

    def numbers(self, name: str, d: np.dtype, count: int) -> np.ndarray:
        """`count` numbers of a record in this machine's order; RuntimeError if it has fewer."""
        have = self.get_record_size(name)
        if count * d.itemsize > have:
            key = name.rpartition("/")[2]
            raise RuntimeError(
                f"load: storage {key} is cut: it has {have} bytes, not {count * d.itemsize}"
            )
        if self._map is not None and self.order == "<":
            start = self.get_record_offset(name)
            if start % d.itemsize == 0:
                return np.frombuffer(self._map, d, count, start)
        a = self._read(name)[: count * d.itemsize]
        if self.order == ">":
            part = d.itemsize // (2 if d.kind == "c" else 1)  # a complex number is two numbers
            a = np.ascontiguousarray(a.reshape(-1, part)[:, ::-1]).reshape(-1)
        return a.view(d)

    def _read(self, name: str) -> np.ndarray:
        """The bytes of a record, in memory of Weft's own."""
        entry = self._entry(name)
        a = memory.empty((entry.file_size,), np.dtype(np.uint8))
        view, at = memoryview(a), 0  # pyright: ignore[reportArgumentType]
        try:
            with self._zip.open(entry) as f:
                while count := f.readinto(view[at : at + _PIECE]):  # type: ignore[attr-defined]
                    at += count
        except _CUT as e:
            raise self._cut(e) from None
        if at != len(view):
            raise self._cut(EOFError(f"record {name} has {at} bytes of {len(view)}"))
        return a

    def _entry(self, name: str) -> zipfile.ZipInfo:
        entry = self._entries.get(self._root + name)
        if entry is None:
            raise RuntimeError(f"PytorchStreamReader failed locating file {name}: file not found")
        if entry.flag_bits & 1:
            raise RuntimeError(f"load: record {name} is encrypted")
        if entry.file_size > _SMALL + _RATIO * entry.compress_size:
            raise RuntimeError(
                f"load: record {name} would grow from {entry.compress_size} to {entry.file_size} "
                "bytes: refused"
            )
        return entry

    def _cut(self, e: Exception) -> RuntimeError:
        return RuntimeError(
            f"PytorchStreamReader failed reading zip archive ({str(e)[:80]}): not a file of "
            "torch.save, or a file that is cut"
        )


class PyTorchFileReader(TorchZip):
    """torch's name for the reader of a checkpoint's records, by path or open file."""

    def __init__(self, name: Any) -> None:
        super().__init__(name)

    def get_storage_from_record(self, name: str, numel: int, dtype: dt.dtype) -> weft.Tensor:
        """The first `numel` numbers of a record."""
        return weft.from_numpy(self.numbers(name, dtype.np, numel))

    def serialization_id(self) -> str:
        """torch's digest of the file, where it holds one; else empty."""
        name = ".data/serialization_id"
        return self.get_record(name).decode("ascii", "replace") if self.has_record(name) else ""

    def version(self) -> int:
        """The format's version number."""
        return int(self.get_record("version"))


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

    # the numbers lie behind the pickle, and some tensors are made from them (conjugates, sparse
    # ones): it is gone over for the storages' sizes first
    here = file.tell()
    torch_pickle.read(
        file, persistent, weights_only=False, encoding=encoding, by=torch_pickle.Scout
    )
    keys = _plain(file)
    if not isinstance(keys, list):
        raise RuntimeError("load: the storages' keys are no list: corrupt file?")
    for key in map(_name, keys):
        if key not in memories:
            raise RuntimeError(f"load: storage {key[:40]} belongs to no tensor: corrupt file?")
        _fill(file, memories[key], f"storage {key[:40]}", swapped)
    file.seek(here)
    return torch_pickle.read(file, persistent, weights_only=weights_only, encoding=encoding)


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
