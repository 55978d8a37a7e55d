"""torch's files: `save` writes what torch.load reads, `load` reads them without executing anything.

A file is a zip of `data.pkl` (a pickle in which every tensor names a storage), one record a storage
(`data/0`, raw little-endian numbers) and `byteorder`.  The reader resolves a global of the pickle
to one of a few makers of tensors and containers, or else refuses (weights_only=True, as torch) or
makes an inert record.  Source: torch/serialization.py, torch/_utils.py of torch 2.13.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import types
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

import weft
from weft import Parameter, Size, Tensor
from weft.core import dtype as dt
from weft.core.handle import FIELDS
from weft.io import container
from weft.ops import subclass

_STORAGES = {
    "DoubleStorage": dt.float64, "FloatStorage": dt.float32, "HalfStorage": dt.float16,
    "BFloat16Storage": dt.bfloat16, "LongStorage": dt.int64, "IntStorage": dt.int32,
    "ShortStorage": dt.int16, "CharStorage": dt.int8, "ByteStorage": dt.uint8,
    "BoolStorage": dt.bool, "ComplexFloatStorage": dt.complex64,
    "ComplexDoubleStorage": dt.complex128,
}  # fmt: skip
_STORAGE_OF = {d: name for name, d in _STORAGES.items()}


# ---------------------------------------------------------------------------- writing


class _Global:
    """A name that the pickle holds in place of an object."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *args: Any) -> None:  # pickle wants what it reduces to, callable
        raise TypeError(self.name)


class _Memory:
    """A storage on its way into the file."""

    def __init__(self, key: str, dtype: dt.dtype, size: int) -> None:
        self.key, self.dtype, self.size = key, dtype, size


_TENSOR = _Global("torch._utils", "_rebuild_tensor_v2")
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

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, protocol=2)
        self.memories: dict[tuple, _Memory] = {}
        self.arrays: list[np.ndarray] = []

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Memory):
            return None
        kind = _Global("torch", _STORAGE_OF[obj.dtype])
        return ("storage", kind, obj.key, "cpu", obj.size)

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
            kind = _PLAIN if type(obj) is Tensor else type(obj)
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
        whole = owner.numpy(force=True)
        if not whole.flags.c_contiguous or whole.dtype != t.dtype.np:
            t = t.contiguous() if not t.is_contiguous() else t.clone()
            whole = t.numpy(force=True)
        key = (weft.from_numpy(whole).data_ptr(), whole.nbytes, t.dtype) if whole.size else (id(t),)
        memory = self.memories.get(key)
        if memory is None:
            memory = self.memories[key] = _Memory(str(len(self.arrays)), t.dtype, whole.size)
            self.arrays.append(whole)
        offset = t.storage_offset() if whole.size else 0
        place = (memory, offset, tuple(t.shape), tuple(t.stride()), requires_grad, OrderedDict())
        return _TENSOR, place


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

    A path appears whole or not at all.  `pickle_module` and `pickle_protocol` are accepted without
    effect.
    """
    text = io.BytesIO()
    pickler = _Pickler(text)
    pickler.dump(obj)
    name = os.path.splitext(os.path.basename(os.fspath(f)))[0] if _is_path(f) else "archive"
    if not _is_path(f):
        _write(f, name, text.getvalue(), pickler.arrays)
        return
    with container.replacing(f) as file:
        _write(file, name, text.getvalue(), pickler.arrays)


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


class Record:
    """What stands for an object of a class that is not read: its class, arguments and state."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        self.args, self.kwargs = args, kw

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"<inert {type(self).__module__}.{type(self).__qualname__}>"


class _Revived:
    """Stands for a Module class in a file: makes the object without calling its __init__."""

    target: type

    def __new__(cls, *args: Any) -> Any:
        return object.__new__(cls.target)


def _revived(module: str, name: str) -> Any:
    """A Module's or tensor's class that this process has loaded, or a function of nn.functional.

    Nothing is imported for a file's sake, and no constructor runs: state is put back as it was.
    """
    if module.startswith("torch.nn."):
        module = "weft.nn.functional" if module == "torch.nn.functional" else "weft.nn"
    found = getattr(sys.modules.get(module), name, None)
    if isinstance(found, type) and issubclass(found, (weft.nn.Module, Tensor)):
        return type(name, (_Revived,), {"target": found, "__module__": module})
    if module.startswith("weft.") and found is getattr(weft.nn.functional, name, _MISSING):
        return found
    return None


_MISSING = object()


def _dtype(spelled: str, *flags: Any) -> np.dtype:
    return np.dtype(str(spelled), copy=True)  # a copy: state that follows changes no other


def _reconstruct(kind: Any, shape: tuple, typecode: Any) -> np.ndarray:
    return np.ndarray((0,), np.uint8)  # its state has shape, dtype and numbers


def _encode(text: str, coding: str = "latin1") -> bytes:
    return text.encode("latin1")  # how protocol 2 spells bytes


def _scalar(d: np.dtype, raw: Any = None) -> Any:
    return np.frombuffer(_encode(raw) if isinstance(raw, str) else raw, d)[0]


def _parameter(data: Any, requires_grad: bool, hooks: Any) -> Any:
    return Parameter(data, requires_grad)


def _tensor(
    storage: np.ndarray,
    offset: int,
    size: tuple,
    stride: tuple,
    requires_grad: bool = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Any:
    """A tensor over its part of a storage; ValueError when that does not lie inside it."""
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= storage.size):
        raise ValueError(f"a tensor of {list(size)} does not fit its storage of {storage.size}")
    base = weft.from_numpy(storage)
    if 0 in size:
        made = weft.empty(size, dtype=base.dtype)
    else:
        made = base.as_strided(size, stride, offset) if storage.size else base
        made = made if storage.size else made.reshape(size)
    if isinstance(metadata, dict):  # what torch left undone when it saved
        made = made.conj() if metadata.get("conj") else made
        made = -made if metadata.get("neg") else made
    return made.requires_grad_() if requires_grad else made


def _layout(name: str) -> Any:
    return next((k for k in (weft.sparse_coo, weft.sparse_csr) if str(k) == name), name)


def _sparse(layout: Any, parts: tuple) -> Any:
    """A sparse tensor; the places it names are checked."""
    if layout is weft.sparse_coo:
        i, v, size, *coalesced = parts
        return weft.sparse_coo_tensor(i, v, size, is_coalesced=bool(coalesced and coalesced[0]))
    if layout is weft.sparse_csr:
        return weft.sparse_csr_tensor(*parts)
    raise pickle.UnpicklingError(f"tensors of layout {layout} are not read")


def _parameter_with_state(data: Any, requires_grad: bool, hooks: Any, state: Any) -> Any:
    return _with_attributes(Parameter(data, requires_grad), state)


def _of_type(rebuild: Any, kind: Any, parts: tuple, state: Any) -> Any:
    """A tensor of a subclass that this process has loaded, with what was set on it."""
    if rebuild is not _tensor:
        raise pickle.UnpicklingError("a tensor's type must come with a tensor")
    made = _tensor(*parts)
    target = getattr(kind, "target", None)
    if target is not None:
        made = subclass.make_subclass(target, made, made.requires_grad)
    return _with_attributes(made, state)


def _with_attributes(made: Tensor, state: Any) -> Tensor:
    for part in state if isinstance(state, tuple) else (state,):
        if not part:
            continue
        if not isinstance(part, dict) or FIELDS & part.keys():
            raise pickle.UnpicklingError(f"state of a tensor is refused: {str(part)[:80]}")
        made.__dict__.update(part)
    return made


_MAKERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("collections", "Counter"): Counter,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter_with_state,
    ("torch._utils", "_rebuild_sparse_tensor"): _sparse,
    ("torch.serialization", "_get_layout"): _layout,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    ("torch", "Size"): Size,
    ("torch", "device"): weft.device,
    ("torch", "Tensor"): Tensor,
    ("torch.nn.parameter", "Parameter"): Parameter,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _dtype,
    **{("torch", d.name): d for d in dt.BY_NAME.values()},
    **{("torch", name): d for name, d in _STORAGES.items()},
    **{(m, "scalar"): _scalar for m in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{
        (m, "_reconstruct"): _reconstruct
        for m in ("numpy.core.multiarray", "numpy._core.multiarray")
    },
    ("numpy", "ndarray"): None.__class__,  # an argument of _reconstruct, which does not look at it
    **{
        ("builtins", t.__name__): t
        for t in (set, frozenset, list, dict, tuple, int, float, bool, str, complex, slice)
    },
    ("argparse", "Namespace"): types.SimpleNamespace,
    ("types", "SimpleNamespace"): types.SimpleNamespace,
}
_MAKERS.update({("__builtin__", name): t for (m, name), t in _MAKERS.items() if m == "builtins"})


_PythonUnpickler: Any = pickle._Unpickler
_STATEFUL = (
    Record, weft.nn.Module, np.ndarray, np.dtype, OrderedDict, types.SimpleNamespace,
)  # fmt: skip


class _Unpickler(_PythonUnpickler):
    """A pickle reader that knows `_MAKERS` and nothing else.  The one in Python: its steps can be
    refused one by one."""

    dispatch = dict(_PythonUnpickler.dispatch)

    def __init__(self, file: BinaryIO, memory: Callable, weights_only: bool) -> None:
        super().__init__(file, encoding="utf-8")
        self._memory, self._strict = memory, weights_only
        self.unknown: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> Any:
        found = _MAKERS.get((module, name))
        if found is not None:
            return found
        if not self._strict and (revived := _revived(module, name)) is not None:
            return revived
        if self._strict:
            raise pickle.UnpicklingError(
                f"Weights only load failed. Unsupported global: GLOBAL {module}.{name} was not an "
                "allowed global by default. Weft never runs what a file holds; with "
                "weights_only=False objects of unknown classes are read as inert records."
            )
        full = f"{module}.{name}"
        if full not in self.unknown:
            self.unknown[full] = type(name.rpartition(".")[2], (Record,), {"__module__": module})
        return self.unknown[full]

    def load_build(self) -> None:
        """State goes into objects the file made, never into classes, functions or tensors."""
        made = self.stack[-2]
        if isinstance(made, type) or not isinstance(made, _STATEFUL):
            raise pickle.UnpicklingError(f"state for a {type(made).__name__} is refused")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, *_, size = pid[:5]
        if kind != "storage" or not isinstance(dtype, dt.dtype):
            raise pickle.UnpicklingError(f"unknown persistent id {str(pid)[:80]}")
        return self._memory(str(key), dtype, int(size))


def load(
    f: Any,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """What torch.save wrote: tensors, containers, numbers, text.  Nothing in the file is executed.

    RuntimeError for a file that is no such zip, pickle.UnpicklingError for a class that is not
    read (weights_only=False: an inert `Record` and a warning that names it).  Every tensor comes
    to the CPU, whatever device it was saved from.
    """
    if _is_path(f):
        with open(os.fspath(f), "rb") as file:
            return load(file, map_location, weights_only=weights_only, mmap=mmap)
    if not f.read(1):
        raise EOFError("load: the file is empty")
    if not zipfile.is_zipfile(f):
        raise RuntimeError("load: not a file of torch.save (a zip with data.pkl inside)")
    f.seek(0)
    with zipfile.ZipFile(f) as z:
        inside = [n for n in z.namelist() if n.endswith("data.pkl") and n.count("/") <= 1]
        if len(inside) != 1:
            raise RuntimeError("load: the zip holds no data.pkl: not a file of torch.save")
        root = inside[0][: -len("data.pkl")]
        order = z.read(root + "byteorder") if root + "byteorder" in z.namelist() else b"little"
        memories: dict[str, np.ndarray] = {}

        def memory(key: str, dtype: dt.dtype, size: int) -> np.ndarray:
            if key not in memories:
                raw = bytearray(z.read(f"{root}data/{key}"))
                as_stored = dtype.np.newbyteorder(">") if order == b"big" else dtype.np
                if len(raw) < size * dtype.itemsize:
                    raise RuntimeError(f"load: storage {key} is cut: {len(raw)} bytes")
                a = np.frombuffer(raw, as_stored, size)
                memories[key] = a.astype(dtype.np) if order == b"big" else a
            return memories[key]

        reader = _Unpickler(io.BytesIO(z.read(inside[0])), memory, weights_only is not False)
        value = reader.load()
    if reader.unknown:
        warnings.warn(
            f"load: objects of {', '.join(sorted(reader.unknown))} were read as inert records: "
            "Weft executes nothing that a file holds",
            stacklevel=2,
        )
    return value


def _is_path(f: Any) -> bool:
    return isinstance(f, (str, os.PathLike))
