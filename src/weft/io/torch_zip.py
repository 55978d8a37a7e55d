"""The records of a zip that torch.save wrote, read from a file, or mapped from it.

Nothing is ever extracted to the disk, so a record's name is only a key.  A zip that would grow out
of proportion, or whose records lie over one another, is refused before a byte of it is unpacked.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
import zipfile
import zlib
from typing import Any, BinaryIO

import numpy as np

import weft
from weft.core import dtype as dt
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
