"""What the names in a checkpoint's pickle stand for: makers of tensors, containers and numbers.

A file is not trusted: a maker checks the types, sizes, offsets, keys and state that it is given,
and only what `CALLS` lists is ever called.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import weft
from weft import Parameter, Size, Tensor
from weft.core import dtype as dt
from weft.core.handle import FIELDS, Handle, bare
from weft.ops import subclass
from weft.ops.storage import STORAGE_DTYPES

STORAGES = {**STORAGE_DTYPES, "UntypedStorage": dt.uint8}
STORED = ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2")  # loaded when one is met
_KEYS = 100_000  # parts of one dict key or set element that are looked at: more is an attack


class Record:
    """What stands for an object of a class that is not read: its class, arguments and state."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        self.args, self.kwargs = args, kw

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"<inert {type(self).__module__}.{type(self).__qualname__}>"


class Revived:
    """Stands for a class in a file; a Module is made of it without calling its __init__."""

    target: type

    def __new__(cls, *args: Any) -> Any:
        kind = cls.target
        return bare(kind) if issubclass(kind, Handle) else object.__new__(kind)


def revived(module: str, name: str) -> Any:
    """A Module or Tensor class that this process has loaded, or a function of nn.functional.

    Nothing is imported for a file's sake, and no constructor runs: state is put back as it was.
    """
    if module.startswith("torch.nn."):
        module = "weft.nn.functional" if module == "torch.nn.functional" else "weft.nn"
    found = vars(sys.modules.get(module, types)).get(name)
    if isinstance(found, type) and issubclass(found, (weft.nn.Module, Tensor)):
        return type(name, (Revived,), {"target": found, "__module__": module})
    if isinstance(found, types.FunctionType) and found is vars(weft.nn.functional).get(name):
        return found
    return None


# -------------------------------------------------------------------------------------- makers


def refuse(what: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"load: {what} is refused")


def whole_numbers(x: Any, what: str) -> tuple[int, ...]:
    """A tuple of plain ints that a machine can hold; UnpicklingError for anything else."""
    if isinstance(x, (tuple, list)) and all(type(n) is int and abs(n) < 2**62 for n in x):
        return tuple(x)
    raise refuse(f"{what} {str(x)[:60]}")


def tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Any:
    """A tensor over its part of a storage; ValueError when that does not lie inside it."""
    if type(storage) is not np.ndarray or storage.ndim != 1:
        raise refuse(f"a tensor over a {type(storage).__name__}")
    size, stride = whole_numbers(size, "size"), whole_numbers(stride, "stride")
    (offset,) = whole_numbers((offset,), "offset")
    if len(size) != len(stride) or len(size) > 32:
        raise ValueError(f"a tensor of {list(size)[:40]} has strides {list(stride)[:40]}")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= storage.size):
        raise ValueError(f"a tensor of {list(size)} does not fit its storage of {storage.size}")
    base = weft.from_numpy(storage)
    if 0 in size:
        made = weft.empty(size, dtype=base.dtype)
    else:
        made = base.as_strided(size, stride, offset)
    if isinstance(metadata, dict):  # what torch left undone when it saved
        made = made.conj() if metadata.get("conj") is True else made
        made = -made if metadata.get("neg") is True else made
    return made.requires_grad_() if requires_grad is True else made


def _tensor_of(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any,
    metadata: Any = None,
) -> Any:  # fmt: skip
    """A tensor over raw bytes."""
    if type(storage) is not np.ndarray:
        raise refuse(f"a tensor over a {type(storage).__name__}")
    if not isinstance(dtype, dt.dtype):
        raise refuse(f"a tensor of {str(dtype)[:60]}")
    whole = storage.view(np.uint8)
    typed = whole[: whole.size - whole.size % dtype.itemsize].view(dtype.np)
    return tensor(typed, offset, size, stride, requires_grad)


def _parameter(data: Any, requires_grad: Any = True, hooks: Any = None, state: Any = None) -> Any:
    if not isinstance(data, Tensor):
        raise refuse(f"a parameter that is a {type(data).__name__}")
    return _with_attributes(Parameter(data, requires_grad is True), state)


def _from_array(data: Any, dtype: Any, device: Any, requires_grad: Any) -> Any:
    """How torch writes a tensor that lay on another device."""
    if type(data) is not np.ndarray or not isinstance(dtype, dt.dtype):
        raise refuse(f"a tensor over a {type(data).__name__}")
    made = weft.from_numpy(data).to(dtype)
    return made.requires_grad_() if requires_grad is True else made


def _of_type(make: Any, kind: Any, args: Any, state: Any) -> Any:
    """A tensor of a subclass that this process has loaded, with what was set on it."""
    if make not in (tensor, _tensor_of, _parameter, _from_array) or not isinstance(args, tuple):
        raise refuse("a tensor made by another function")
    made = make(*args)
    target = getattr(kind, "target", None)
    if target is not None:
        made = subclass.make_subclass(target, made, made.requires_grad)
    return _with_attributes(made, state)


def _with_attributes(made: Tensor, state: Any) -> Tensor:
    for part in state if isinstance(state, tuple) else (state,):
        if not part:
            continue
        if not isinstance(part, dict) or FIELDS & part.keys():
            raise refuse(f"state of a tensor {str(part)[:60]}")
        made.__dict__.update(part)
    return made


def _dtype(spelled: Any, *flags: Any) -> np.dtype:
    if not isinstance(spelled, str) or len(spelled) > 8 or spelled.lstrip("<>=|")[:1] in ("V", ""):
        raise refuse(f"a NumPy dtype {str(spelled)[:40]!r}")
    return np.dtype(spelled, copy=True)  # a copy: state that follows changes no other


def _array(kind: Any, shape: Any, typecode: Any) -> np.ndarray:
    return np.ndarray((0,), np.uint8)  # its state has shape, dtype and numbers


def encode(text: Any, coding: Any = "latin1") -> bytes:
    if not isinstance(text, str):
        raise refuse("bytes that are no text")
    return text.encode("latin1")  # how protocol 2 spells bytes


def _scalar(d: Any, raw: Any = b"") -> Any:
    raw = encode(raw) if isinstance(raw, str) else raw
    if not isinstance(d, np.dtype) or d.hasobject or not isinstance(raw, bytes):
        raise refuse("a NumPy number")
    return np.frombuffer(raw, d, 1)[0]


_KEY_TYPES = (
    str, bytes, int, float, complex, np.generic, dt.dtype, weft.device, Tensor, type,
    Record,
)  # fmt: skip


def hashable(k: Any) -> Any:
    """A dict key or set element whose hash costs little; tuples in tuples can cost for ever."""
    left = [_KEYS]

    def walk(x: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise refuse("a key of so many parts")
        if isinstance(x, (tuple, frozenset)):
            for part in x:
                walk(part)
        elif x is not None and not isinstance(x, _KEY_TYPES):
            raise refuse(f"a key that is a {type(x).__name__}")

    walk(k)
    return k


def _pairs(content: Any) -> Iterable[tuple]:
    if isinstance(content, dict):
        return content.items()
    if isinstance(content, (list, tuple)) and all(
        isinstance(p, (list, tuple)) and len(p) == 2 for p in content
    ):
        return [(hashable(k), v) for k, v in content]
    raise refuse(f"a dict made of a {type(content).__name__}")


def _elements(content: Any) -> Any:
    if isinstance(content, (list, tuple, set, frozenset, dict)):
        return content
    raise refuse(f"a container made of a {type(content).__name__}")


def all_hashable(content: Any) -> list:
    return [hashable(k) for k in _elements(content)]


def _defaulting(factory: Any = None, content: Any = ()) -> defaultdict:
    if factory not in (None, list, dict, set, int, float, str, bool, tuple, OrderedDict):
        raise refuse("a defaultdict of another function")
    return defaultdict(factory, _pairs(content))


def _number(kind: type) -> Callable:
    def make(x: Any = 0) -> Any:
        if not isinstance(x, (int, float, str)) or len(str(x)) > 4000:
            raise refuse(f"a number made of a {type(x).__name__}")
        return kind(x)

    return make


def _text(x: Any = "") -> str:
    if not isinstance(x, (str, int, float)):
        raise refuse(f"text made of a {type(x).__name__}")
    return str(x)


def _complex(real: Any = 0.0, imag: Any = 0.0) -> complex:
    if not isinstance(real, (int, float)) or not isinstance(imag, (int, float)):
        raise refuse("a complex number")
    return complex(real, imag)


def _slice(*args: Any) -> slice:
    if not 1 <= len(args) <= 3 or not all(a is None or type(a) is int for a in args):
        raise refuse("a slice")
    return slice(*args)


def _device(kind: Any = "cpu", index: Any = None) -> weft.device:
    if not isinstance(kind, str) or not (index is None or type(index) is int):
        raise refuse("a device")
    return weft.device(kind) if index is None else weft.device(kind, index)


def _layout(name: Any) -> Any:
    for layout in (weft.strided, weft.sparse_coo, weft.sparse_csr):
        if str(layout) == name:
            return layout
    raise refuse(f"a layout {str(name)[:40]!r}")


def _sparse(layout: Any, parts: Any) -> Any:
    """A sparse tensor; the places it names are checked."""
    count = {weft.sparse_coo: (3, 4), weft.sparse_csr: (4, 4)}.get(layout)
    if count is None or not isinstance(parts, tuple) or not count[0] <= len(parts) <= count[1]:
        raise refuse("a sparse tensor")
    tensors = parts[: count[0] - 1]
    if not all(type(t) is Tensor for t in tensors):
        raise refuse("a sparse tensor made of something else")
    size = whole_numbers(parts[count[0] - 1], "size")
    if layout is weft.sparse_csr:
        rows, columns, values = tensors
        return weft.sparse_csr_tensor(rows, columns, values, size)
    coalesced = len(parts) == 4 and parts[3] is True
    return weft.sparse_coo_tensor(*tensors, size, is_coalesced=coalesced)


_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
MAKERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("collections", "Counter"): Counter,
    ("torch._utils", "_rebuild_tensor_v2"): tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of,
    ("torch._utils", "_rebuild_tensor"): tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _from_array,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    ("torch.serialization", "_get_layout"): _layout,
    ("torch._utils", "_rebuild_sparse_tensor"): _sparse,
    ("torch", "Size"): Size,
    ("torch", "device"): weft.device,
    ("torch", "Tensor"): Tensor,
    ("torch.nn.parameter", "Parameter"): Parameter,
    ("_codecs", "encode"): encode,
    ("numpy", "dtype"): _dtype,
    **{("torch", d.name): d for d in dt.BY_NAME.values()},
    **{("torch", name): d for name, d in STORAGES.items()},
    **{("torch", name.replace("Storage", "Tensor")): Tensor for name in STORAGES},
    **{("torch.storage", name): d for name, d in STORAGES.items()},
    **{(m, "scalar"): _scalar for m in _ARRAYS},
    **{(m, "_reconstruct"): _array for m in _ARRAYS},
    ("numpy", "ndarray"): None.__class__,  # an argument of _reconstruct, which does not look at it
    **{
        ("builtins", t.__name__): t
        for t in (set, frozenset, list, dict, tuple, int, float, bool, str, complex, slice)
    },
    ("argparse", "Namespace"): types.SimpleNamespace,
    ("types", "SimpleNamespace"): types.SimpleNamespace,
}
MAKERS.update({("__builtin__", name): t for (m, name), t in MAKERS.items() if m == "builtins"})

# What a call of a name does: only these are called, whatever else the stack may hold.
CALLS: dict[int, Callable] = {
    id(f): f
    for f in (
        tensor, _tensor_of, _parameter, _from_array, _of_type, encode, _dtype, _scalar, _array,
        _layout, _sparse,
    )
} | {
    id(OrderedDict): lambda content=(): OrderedDict(_pairs(content)),
    id(dict): lambda content=(): dict(_pairs(content)),
    id(defaultdict): _defaulting,
    id(Counter): lambda content=(): Counter(dict(_pairs(content))),
    id(set): lambda content=(): set(all_hashable(content)),
    id(frozenset): lambda content=(): frozenset(all_hashable(content)),
    id(list): lambda content=(): list(_elements(content)),
    id(tuple): lambda content=(): tuple(_elements(content)),
    id(Size): lambda content=(): Size(whole_numbers(content, "size")),
    id(int): _number(int),
    id(float): _number(float),
    id(bool): _number(bool),
    id(str): _text,
    id(complex): _complex,
    id(slice): _slice,
    id(weft.device): _device,
    id(types.SimpleNamespace): types.SimpleNamespace,
}  # fmt: skip
