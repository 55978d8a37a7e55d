"""The container: tensors by name and text metadata, in one `.safetensors` file.

Written to a temporary file beside the target, flushed to the disk, renamed: a reader sees the old
file or the new one, never a half.  The metadata carries a digest of every tensor and of the other
metadata, so a changed or cut file is refused.

Format: https://github.com/huggingface/safetensors (8 bytes of header length, JSON, raw data).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from weft.core import dtype as dt

DIGEST = "weft.digest"


class BadFile(ValueError):
    """The file is cut, changed, or not what its name says; the message says which, and where."""


def write(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str],
          *, digest: bool = True) -> None:  # fmt: skip
    """Write the container atomically.  TypeError: a dtype that safetensors lacks."""
    metadata = dict(metadata)
    if digest:
        metadata[DIGEST] = _digest(arrays, metadata)
    ready = {}
    for name, a in arrays.items():
        dt.from_np(a.dtype)  # TypeError for a dtype that Weft, and so the file, lacks
        ready[name] = np.asarray(a, order="C")
    replace(path, safetensors.numpy.save(ready, metadata or None))


def replace(path: str | os.PathLike, data: bytes) -> None:
    """Put `data` at `path` in one step, surviving a crash at any moment."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent or ".", prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """The rename itself must reach the disk; systems without folder handles do it on their own."""
    try:
        fd = os.open(folder or ".", os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)


def read(path: str | os.PathLike, *, check: bool = True) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, metadata).  The arrays own their memory and may be written.

    FileNotFoundError; BadFile for anything that is not a whole, unchanged container.
    """
    with open(path, "rb") as f:
        data = f.read()
    header = _header(data, path)
    try:
        loaded = safetensors.numpy.load(data)
    except Exception as e:
        raise BadFile(f"{path}: not a whole safetensors file: {e}") from None
    metadata = header.get("__metadata__") or {}
    arrays = {}
    for name, a in loaded.items():
        try:
            dt.from_np(a.dtype)
        except TypeError as e:
            raise BadFile(f"{path}: tensor {name!r}: {e}") from None
        arrays[name] = a if a.flags.writeable else a.copy()
    if check and DIGEST in metadata:
        told = metadata[DIGEST]
        rest = {k: v for k, v in metadata.items() if k != DIGEST}
        if _digest(arrays, rest) != told:
            raise BadFile(f"{path}: the contents were changed since the file was written (digest)")
    return arrays, metadata


def _header(data: bytes, path: Any) -> dict:
    if len(data) < 8:
        raise BadFile(f"{path}: {len(data)} bytes: a container has a header of at least 8")
    size = int.from_bytes(data[:8], "little")
    if size > len(data) - 8:
        raise BadFile(
            f"{path}: the header needs {size} bytes and the file holds {len(data) - 8}: it is cut, "
            "or not a safetensors file"
        )
    try:
        header = json.loads(data[8 : 8 + size])
    except ValueError:
        raise BadFile(f"{path}: the header is not JSON: not a safetensors file") from None
    if not isinstance(header, dict):
        raise BadFile(f"{path}: the header is not a JSON object")
    return header


def _digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    h = hashlib.sha256()
    for name in sorted(arrays):
        a = arrays[name]
        h.update(f"{name}|{a.dtype}|{a.shape}|".encode())
        h.update(np.ascontiguousarray(a).view(np.uint8).data if a.size else b"")
    for k in sorted(metadata):
        h.update(f"{k}={metadata[k]}|".encode())
    return h.hexdigest()
