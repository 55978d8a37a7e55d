"""The container: tensors by name and text metadata, in one `.safetensors` file.

Written to a temporary file beside the target, flushed to the disk, renamed: a reader sees the old
file or the new one, never a half.  The metadata carries a digest of every tensor and of the other
metadata, so a changed or cut file is refused.  A file is read, not mapped: a mapped file that
another program cuts would end this one, and what it writes there would go unnoticed.

Format: https://github.com/huggingface/safetensors (8 bytes of header length, JSON, raw data).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy

import weft
from weft.core import dtype as dt
from weft.runtime import memory

DIGEST = "weft.digest"
_LONGEST_HEADER = 100_000_000  # bytes; as the safetensors library
_DTYPES = {
    "F64": dt.float64, "F32": dt.float32, "F16": dt.float16, "BF16": dt.bfloat16, "I64": dt.int64,
    "I32": dt.int32, "I16": dt.int16, "I8": dt.int8, "U8": dt.uint8, "BOOL": dt.bool,
    "C64": dt.complex64,
}  # fmt: skip
# dtypes in which nothing computes: public names, loaded when a file holds one
_STORED = {
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "U16": "uint16", "U32": "uint32",
    "U64": "uint64",
}  # fmt: skip


class BadFile(ValueError):
    """The file is cut, changed, or not what its name says; the message says which, and where."""


# -------------------------------------------------------------------------------------- writing


def write(
    path: str | os.PathLike,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    *,
    digest: bool = True,
) -> None:
    """Write the container atomically.  TypeError: a dtype that safetensors lacks."""
    metadata = {k: v for k, v in metadata.items() if k != DIGEST}  # that of the file it came from
    if digest:
        metadata[DIGEST] = _digest(arrays, metadata)
    ready = {}
    for name, a in arrays.items():
        d = dt.from_np(a.dtype)
        if d not in _DTYPES.values() and d.name not in _STORED.values():
            raise TypeError(f"{name}: safetensors has no {a.dtype} (save its parts, or as .pt)")
        ready[name] = np.asarray(a, order="C")
    replace(path, safetensors.numpy.save(ready, metadata or None))


def replace(path: str | os.PathLike, data: bytes) -> None:
    """Put `data` at `path` in one step, surviving a crash at any moment."""
    with replacing(path) as f:
        f.write(data)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write; when the block ends it stands at `path`, whole, and after an error not."""
    target = Path(os.path.realpath(path))  # a link stays, what it points to is replaced
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        with os.fdopen(handle, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def drop_unfinished(path: str | os.PathLike) -> None:
    """Delete what runs that were killed while they wrote `path` left beside it."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        return
    name = re.compile(re.escape(f".{target.name}.") + "[0-9a-f]{16}")
    for beside in target.parent.iterdir():
        if name.fullmatch(beside.name):
            beside.unlink(missing_ok=True)


_BINARY = getattr(os, "O_BINARY", 0)  # without it Windows would change line ends


def _sync_folder(folder: Path) -> None:
    """The rename itself must reach the disk; systems without folder handles do it on their own."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)


# -------------------------------------------------------------------------------------- reading


def read(
    path: str | os.PathLike, *, check: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, metadata).  Each array lies in memory of its own, of Weft's; it may be written.

    FileNotFoundError; BadFile for anything that is not a whole, unchanged container.
    """
    with open(path, "rb", buffering=0) as f:
        size = os.fstat(f.fileno()).st_size
        header, start = _header(f, size, path)
        metadata = _metadata(header.pop("__metadata__", {}), path)
        arrays = _arrays(f, header, size - start, path)
    if check and DIGEST in metadata:
        rest = {k: v for k, v in metadata.items() if k != DIGEST}
        if _digest(arrays, rest) != metadata[DIGEST]:
            raise BadFile(f"{path}: the contents were changed since the file was written (digest)")
    return arrays, metadata


def _fill(f: BinaryIO, data: np.ndarray, path: Any) -> None:
    view, at = memoryview(data), 0  # pyright: ignore[reportArgumentType]
    while at < len(view):
        count = f.readinto(view[at:])  # type: ignore[attr-defined]
        if not count:
            raise BadFile(f"{path}: the file became shorter while it was read")
        at += count


def _bytes(f: BinaryIO, size: int, path: Any) -> bytes:
    data = np.empty(size, np.uint8)
    _fill(f, data, path)
    return data.tobytes()


def _header(f: BinaryIO, whole: int, path: Any) -> tuple[dict, int]:
    if whole < 8:
        raise BadFile(f"{path}: {whole} bytes: a container has a header of at least 8")
    size = int.from_bytes(_bytes(f, 8, path), "little")
    if size > whole - 8:
        raise BadFile(
            f"{path}: the header needs {size} bytes and the file holds {whole - 8}: it is cut, "
            "or not a safetensors file"
        )
    if size > _LONGEST_HEADER:
        raise BadFile(f"{path}: a header of {size} bytes: more than {_LONGEST_HEADER}")
    try:
        header = json.loads(_bytes(f, size, path), object_pairs_hook=_once)
    except (ValueError, RecursionError) as e:
        what = str(e) if isinstance(e, _Twice) else "not JSON: not a safetensors file"
        raise BadFile(f"{path}: the header is {what}") from None
    if not isinstance(header, dict):
        raise BadFile(f"{path}: the header is not a JSON object")
    return header, 8 + size


class _Twice(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [k for k, _ in pairs]
        twice = next(k for k in names if names.count(k) > 1)
        raise _Twice(f"ambiguous: it has {twice[:80]!r} twice")
    return found


def _metadata(found: Any, path: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise BadFile(f"{path}: __metadata__ is not an object of strings")
    return found


def _arrays(f: BinaryIO, header: dict, size: int, path: Any) -> dict[str, np.ndarray]:
    """The tensors; together they must fill the data of `size` bytes, each byte once."""
    found = {}
    for name, entry in header.items():
        found[name] = d, shape, begin, end = _entry(entry, f"{path}: tensor {name[:80]!r}")
        if end > size:
            raise BadFile(
                f"{path}: tensor {name[:80]!r} ends at byte {end} of {size}: the file is cut"
            )
    at = 0
    in_order = sorted((begin, end, name) for name, (_, _, begin, end) in found.items())
    for begin, end, name in in_order:
        if begin != at:
            raise BadFile(f"{path}: tensor {name[:80]!r} begins at byte {begin}, not at {at}")
        at = end
    if at != size:
        raise BadFile(f"{path}: {size - at} bytes belong to no tensor")
    arrays: dict[str, Any] = dict.fromkeys(found)
    for begin, end, name in in_order:
        d, shape, _, _ = found[name]
        a = memory.empty((end - begin,), _BYTE)
        _fill(f, a, path)
        if d is dt.bool and a.max(initial=0) > 1:
            raise BadFile(f"{path}: tensor {name[:80]!r}: a bool is the byte 0 or 1")
        arrays[name] = a.view(d.np).reshape(shape)
    return arrays


_BYTE = np.dtype(np.uint8)


def _entry(entry: Any, where: str) -> tuple[dt.dtype, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadFile(f"{where}: its entry must have dtype, shape and data_offsets")
    name = entry["dtype"] if isinstance(entry["dtype"], str) else None
    d = getattr(weft, _STORED[name]) if name in _STORED else _DTYPES.get(name or "")
    if d is None:
        known = ", ".join((*_DTYPES, *_STORED))
        raise BadFile(f"{where}: dtype {str(entry['dtype'])[:40]!r} is none of {known}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _is_sizes(shape) or len(shape) > 64 or not _is_sizes(offsets) or len(offsets) != 2:
        raise BadFile(f"{where}: shape and data_offsets must be lists of sizes")
    needed = d.itemsize
    for n in shape:
        needed *= n
    begin, end = offsets
    if end - begin != needed:
        raise BadFile(f"{where}: {d.name} {shape} needs {needed} bytes, it has {end - begin}")
    return d, tuple(shape), begin, end


def _is_sizes(v: Any) -> bool:
    return isinstance(v, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in v)


def _digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes in the order of the names, then the metadata."""
    h = hashlib.sha256()
    for name in sorted(arrays):
        a = arrays[name]
        h.update(f"{len(name)}|{name}|{a.dtype}|{a.shape}|".encode())
        h.update(np.ascontiguousarray(a).view(np.uint8).data if a.size else b"")
    for k in sorted(metadata):
        h.update(f"{len(k)}|{k}|{len(metadata[k])}|{metadata[k]}|".encode())
    return h.hexdigest()
