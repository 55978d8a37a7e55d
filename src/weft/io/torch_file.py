"""torch's files: `save` writes what torch.load reads, `load` reads them without executing anything.

A file is a zip of `data.pkl` (a pickle in which every tensor names a storage), one record a storage
(`data/0`, raw little-endian numbers) and `byteorder`.  torch_pickle.py reads the pickle,
torch_zip.py the zip, or a file from before zips.  Source of the formats:
torch/serialization.py, torch/_utils.py of torch 2.13.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np

import weft
from weft import Parameter, Size, Tensor
from weft.core import dtype as dt
from weft.io import container, torch_pickle, torch_zip
from weft.io.torch_zip import TorchZip
from weft.ops import subclass
from weft.ops.dispatch import read
from weft.ops.storage import STORAGE_NAMES

# ---------------------------------------------------------------------------- writing


class _Global:
    """A name that the pickle holds in place of an object."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *args: Any) -> None:  # pickle wants what it reduces to, callable
        raise TypeError(self.name)


class _Memory:
    """A storage on its way into the file."""

    def __init__(self, key: str, dtype: dt.dtype | None, size: int) -> None:
        self.key, self.dtype, self.size = key, dtype, size  # no dtype: bytes


_TENSOR = _Global("torch._utils", "_rebuild_tensor_v2")
_OF_BYTES = _Global("torch._utils", "_rebuild_tensor_v3")
_PARAMETER = _Global("torch._utils", "_rebuild_parameter")
_WITH_STATE = _Global("torch._utils", "_rebuild_parameter_with_state")
_SPARSE = _Global("torch._utils", "_rebuild_sparse_tensor")
_LAYOUT = _Global("torch.serialization", "_get_layout")
_OF_TYPE = _Global("torch._tensor", "_rebuild_from_type_v2")
_PLAIN = _Global("torch", "Tensor")
_SIZE, _DEVICE = _Global("torch", "Size"), _Global("torch", "device")


_PythonPickler: Any = pickle._Pickler


class _Pickler(_PythonPickler):
    """Writes tensors as torch does.  The one in Python, for it lets names be written as given."""

    def __init__(self, file: BinaryIO, *, legacy: bool) -> None:
        super().__init__(file, protocol=2)
        self.legacy = legacy
        self.memories: dict[tuple, _Memory] = {}
        self.arrays: list[np.ndarray] = []

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Memory):
            return None
        if obj.dtype is None and self.legacy:
            raise TypeError(
                "save: files of before torch 1.6 hold no float8 or wide unsigned tensors"
            )
        kind = _Global("torch", STORAGE_NAMES[obj.dtype] if obj.dtype else "UntypedStorage")
        view = (None,) if self.legacy else ()
        return ("storage", kind, obj.key, "cpu", obj.size, *view)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _Global):
            return obj.name
        if isinstance(obj, _Reduced):
            return obj.how
        if isinstance(obj, Tensor) and obj.layout is not weft.strided:
            places = (obj._indices(), obj._values(), Size(obj.shape), obj.is_coalesced())
            if obj.layout is weft.sparse_csr:
                rows = (obj.crow_indices(), obj.col_indices())
                places = (*rows, obj.values(), Size(obj.shape))
            return _SPARSE, (_Reduced((_LAYOUT, (str(obj.layout),))), places)
        if isinstance(obj, Tensor):
            state = subclass.state_of(obj)
            if type(obj) is Parameter:
                parts = (_Reduced(self._tensor(obj, False)), obj.requires_grad, OrderedDict())
                return (_WITH_STATE, (*parts, state)) if state else (_PARAMETER, parts)
            rebuild, parts = self._tensor(obj, obj.requires_grad)
            kind = type(obj) if obj.dtype in STORAGE_NAMES and type(obj) is not Tensor else _PLAIN
            plain = kind is _PLAIN and not state
            return (rebuild, parts) if plain else (_OF_TYPE, (rebuild, kind, parts, state))
        if isinstance(obj, Size):
            return _SIZE, (tuple(obj),)
        if isinstance(obj, dt.dtype):
            return obj.name  # save_global writes torch's name for it
        if isinstance(obj, weft.device):
            return _DEVICE, (str(obj),)
        return NotImplemented

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if isinstance(obj, dt.dtype):
            obj = _Global("torch", obj.name)
        if not isinstance(obj, _Global):
            super().save_global(obj, name)
            return
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        self.memoize(obj)

    def _tensor(self, t: Tensor, requires_grad: bool) -> tuple:
        t = subclass.make_subclass(Tensor, t)
        owner = t if t._base is None else t._base
        whole = read(owner)
        if not whole.flags.c_contiguous or whole.dtype != t.dtype.np:
            t = t.contiguous() if not t.is_contiguous() else t.clone()
            whole = read(t)
        key = (whole.ctypes.data, whole.nbytes, t.dtype) if whole.size else (id(t),)
        memory = self.memories.get(key)
        if memory is None:
            known = t.dtype in STORAGE_NAMES
            size = whole.size if known else whole.nbytes
            memory = _Memory(str(len(self.arrays)), t.dtype if known else None, size)
            self.memories[key] = memory
            self.arrays.append(whole if known else whole.reshape(-1).view(np.uint8))
        offset = t.storage_offset() if whole.size else 0
        place = (memory, offset, tuple(t.shape), tuple(t.stride()), requires_grad, OrderedDict())
        return (_TENSOR, place) if memory.dtype else (_OF_BYTES, (*place, t.dtype))


class _Reduced:
    """An object whose reduction is known already."""

    def __init__(self, how: Any) -> None:
        self.how = how


def save(
    obj: Any,
    f: Any,
    pickle_module: Any = None,
    pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True,
) -> None:
    """Write any picklable object, tensors in torch's form, to a path or an open binary file.

    A path appears whole or not at all.  Without `_use_new_zipfile_serialization` the file is of the
    kind from before torch 1.6.  `pickle_module` and `pickle_protocol` are accepted without effect.
    """
    text = io.BytesIO()
    pickler = _Pickler(text, legacy=not _use_new_zipfile_serialization)
    pickler.dump(obj)
    name = os.path.splitext(os.path.basename(os.fspath(f)))[0] if _is_path(f) else "archive"

    def put(file: BinaryIO) -> None:
        if _use_new_zipfile_serialization:
            _write(file, name, text.getvalue(), pickler.arrays)
        else:
            by_key = {str(i): a for i, a in enumerate(pickler.arrays)}
            torch_zip.write(file, text.getvalue(), by_key)

    if not _is_path(f):
        put(f)
        return
    with container.replacing(f) as file:
        put(file)


def _write(file: BinaryIO, name: str, text: bytes, arrays: list[np.ndarray]) -> None:
    """The zip, its storages aligned to 64 bytes as torch wants for memory maps."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as z:
        _record(z, f"{name}/data.pkl", text)
        _record(z, f"{name}/.format_version", b"1")
        _record(z, f"{name}/.storage_alignment", b"64")
        _record(z, f"{name}/byteorder", b"little")
        for i, a in enumerate(arrays):
            _record(z, f"{name}/data/{i}", np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)
        _record(z, f"{name}/version", b"3\n")


def _record(z: zipfile.ZipFile, name: str, content: Any) -> None:
    info = zipfile.ZipInfo(name)
    start = z.fp.tell() + 30 + len(name.encode())  # type: ignore[union-attr]
    pad = -(start + 4) % 64
    info.extra = struct.pack("<2sH", b"FB", pad) + b"Z" * pad
    z.writestr(info, content)


# ---------------------------------------------------------------------------- reading


def load(
    f: Any,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    encoding: str = "utf-8",
    **pickle_load_args: Any,
) -> Any:
    """What torch.save wrote: tensors, containers, numbers, text.  Nothing in the file is executed.

    Every tensor comes to the CPU, whatever device it was saved from; `map_location` may say so, and
    a function of (storage, location) is called with each storage.  `mmap`: numbers stay in the
    file, which must have a name, and are read page by page when they are touched (a program that
    cuts the file meanwhile ends this one, as with torch).  `pickle_module` is accepted without
    effect.

    RuntimeError or UnpicklingError for a foreign, cut or hostile file; UnpicklingError for a class
    that is not read (weights_only=False: an inert `Record`, and a warning that names it).
    """
    if mmap and not _is_path(f):
        raise ValueError("f must be a file path in order to use the mmap argument")
    if _is_path(f):
        with open(os.fspath(f), "rb") as file:
            return _load(file, map_location, weights_only is not False, bool(mmap), encoding)
    return _load(f, map_location, weights_only is not False, False, encoding)


def _load(f: Any, map_location: Any, strict: bool, mapped: bool, encoding: str) -> Any:
    where = _Places(map_location)
    start = f.tell()
    if not f.read(1):
        raise EOFError("load: the file is empty (Ran out of input)")
    f.seek(start)
    if not zipfile.is_zipfile(f):
        if mapped:
            raise RuntimeError(
                "mmap can only be used with files saved with "
                "`torch.save(_use_new_zipfile_serialization=True)`"
            )
        f.seek(start)
        value, unknown = torch_zip.read(f, where.check, weights_only=strict, encoding=encoding)
    else:
        with TorchZip(f, mapped=mapped) as z:
            storages = _Storages(z, where)
            value, unknown = torch_pickle.read(
                z.get_record("data.pkl"), storages.get, weights_only=strict, encoding=encoding
            )
    if unknown:
        warnings.warn(
            f"load: objects of {', '.join(sorted(unknown))} were read as inert records: "
            "Weft executes nothing that a file holds",
            stacklevel=3,
        )
    return value


def unsafe_globals(f: Any) -> list[str]:
    """The names in a file of torch.save that weights_only=True refuses; nothing of it is run."""
    if not zipfile.is_zipfile(f):
        raise ValueError("Expected input to be a checkpoint returned by torch.save")
    with TorchZip(f) as z:
        return torch_pickle.unknown_globals(z.get_record("data.pkl"))


class _Storages:
    """The storages of a zip, each read once, in whatever dtype it is asked for."""

    def __init__(self, z: TorchZip, where: _Places) -> None:
        self._zip, self._where = z, where
        self._made: dict[str, np.ndarray] = {}  # their bytes

    def get(self, pid: Any) -> np.ndarray:
        """The numbers that a persistent id names."""
        kind, *rest = pid if isinstance(pid, tuple) else (None,)
        if kind != "storage" or len(rest) not in (4, 5) or not isinstance(rest[0], dt.dtype):
            raise pickle.UnpicklingError(f"unknown persistent id {str(pid)[:80]}")
        d, key, location, count = rest[:4]
        if type(count) is not int or count < 0 or not isinstance(key, (str, int)):
            raise pickle.UnpicklingError(f"unknown persistent id {str(pid)[:80]}")
        name = f"data/{key}"
        if name not in self._made:
            numbers = self._zip.numbers(name, d.np, count)
            self._made[name] = self._where.call(numbers, location)
        raw = self._made[name].view(np.uint8)
        if raw.nbytes < count * d.itemsize:
            raise RuntimeError(f"load: storage {key} is cut: {raw.nbytes} bytes")
        return raw[: count * d.itemsize].view(d.np)


class _Places:
    """What `map_location` says of each device that a file names: only the CPU is there."""

    def __init__(self, wanted: Any) -> None:
        self._wanted = wanted
        if isinstance(wanted, (str, weft.device)):
            self._need_cpu(wanted)

    def check(self, location: Any) -> None:
        """RuntimeError for a device that a dict maps to another than the CPU."""
        if isinstance(self._wanted, dict) and location in self._wanted:
            self._need_cpu(self._wanted[location])

    def call(self, numbers: np.ndarray, location: Any) -> np.ndarray:
        """The storage after the function that the caller gave, if any."""
        self.check(location)
        if callable(self._wanted):
            made: Any = self._wanted(weft.from_numpy(numbers).untyped_storage(), str(location))
            if made is not None and made.device.type != "cpu":
                self._need_cpu(made.device)
        return numbers

    def _need_cpu(self, place: Any) -> None:
        if weft.device(place).type != "cpu":
            raise RuntimeError(
                f"Attempting to deserialize object on {place}, which is not there: Weft computes "
                "on the CPU. Use map_location='cpu'."
            )


def _is_path(f: Any) -> bool:
    return isinstance(f, (str, os.PathLike))
