"""Tensors of dtypes that are kept and cast and in which nothing computes: float8, unsigned ints.

Their dtypes are no arguments that functions know, so a call with one of them, or with one of their
tensors, comes here (core/overrides.py): it is a cast, a view, a copy or a look, or it raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from weft.core import dtype as dt
from weft.core import layouts as kinds
from weft.core import overrides, printing
from weft.core.handle import Handle
from weft.ops import view as views
from weft.ops.dispatch import wrap
from weft.ops.write import store
from weft.tensor import Tensor

__all__ = ["float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64"]


class StoredDtype(dt.dtype):
    """A dtype of stored numbers."""

    __slots__ = ()


float8_e4m3fn = StoredDtype(
    "float8_e4m3fn", ml_dtypes.float8_e4m3fn, dt.FLOAT, "f8e4m3fn", "Float8_e4m3fn"
)
float8_e5m2 = StoredDtype("float8_e5m2", ml_dtypes.float8_e5m2, dt.FLOAT, "f8e5m2", "Float8_e5m2")
uint16 = StoredDtype("uint16", np.uint16, dt.INT, "u16", "UInt16")
uint32 = StoredDtype("uint32", np.uint32, dt.INT, "u32", "UInt32")
uint64 = StoredDtype("uint64", np.uint64, dt.INT, "u64", "UInt64")
dt.keep(float8_e4m3fn, float8_e5m2, uint16, uint32, uint64)


def _answer(native: Callable, public: Callable, args: tuple, kw: dict) -> Any:
    """A public function called with a stored dtype or tensor."""
    name = overrides.bare_name(public)
    if name in _RULES:
        return _RULES[name](*args, **kw)
    if name in _MAKERS:
        return _made(native, args, kw)
    if name in _SEEN:
        return _kept(native(*args, **kw))
    spelled = next(
        (a.dtype.spelled for a in args if isinstance(a, StoredTensor)), "a dtype that is only kept"
    )
    raise NotImplementedError(f"\"{name}\" not implemented for '{spelled}'")


class StoredTensor(Tensor, layout=_answer):
    """A tensor of one of these dtypes."""

    __torch_function__: Any = staticmethod(overrides.disabled_torch_function)


StoredDtype.tensors = StoredTensor
overrides.layouts[StoredDtype] = _answer


def _kept(y: Any) -> Any:
    """A function's tensors, those of a stored dtype as StoredTensor."""
    if isinstance(y, (tuple, list)):
        return type(y)(_kept(v) for v in y) if any(isinstance(v, Handle) for v in y) else y
    if type(y) is Tensor and isinstance(y.dtype, StoredDtype):
        y.__class__ = StoredTensor
    return y


def _wide(x: Any) -> np.ndarray:
    """The numbers, of types that others registered with NumPy as float32."""
    return x._a.astype(np.float32) if x._a.dtype.num >= 256 else x._a


def _cast(x: Tensor, d: dt.dtype) -> Any:
    """x as another dtype; what float8_e4m3fn cannot hold becomes its largest number."""
    if x.dtype is d:
        return x
    wide = _wide(x)
    with np.errstate(all="ignore"):
        if d is float8_e4m3fn:
            wide = np.clip(wide, -448, 448)
        return _kept(wrap(np.asarray(wide).astype(d.np)))


def _to(x: Any, *args: Any, dtype: Any = None, copy: bool = False, **options: Any) -> Any:
    others = []
    for a in args:
        if isinstance(a, dt.dtype):
            dtype = a
        elif isinstance(a, Tensor):
            dtype = a.dtype
        else:
            others.append(a)
    options.pop("memory_format", None)
    if others or options:
        wrap(np.empty(0, np.float32)).to(*others, **options)  # a device that is not there raises
    y = x if dtype is None else _cast(x, dtype)
    return _clone(y) if copy and y is x else y


def _conversion(d: dt.dtype) -> Callable:
    return lambda x, memory_format=None: _cast(x, d)


def _type(x: Any, dtype: Any = None) -> Any:
    return f"torch.{x.dtype.spelled}Tensor" if dtype is None else _to(x, dtype)


def _view(x: Any, *shape: Any, dtype: Any = None) -> Any:
    d = dtype if dtype is not None else shape[0] if isinstance(shape[0], dt.dtype) else None
    if d is None:
        return _kept(views.view(x, *shape))
    a = x.detach()._a.view(d.np)
    y = wrap(a)
    y._base = x
    return _kept(y)


def _clone(x: Any, *, memory_format: Any = None) -> Any:
    return _kept(wrap(np.array(x._a, order="C")))


def _made(native: Callable, args: tuple, kw: dict) -> Any:
    """A function that makes a tensor: of the nearest dtype that computes, then cast."""
    kw = dict(kw)
    like = next((a for a in args if isinstance(a, StoredTensor)), None)
    d = kw.pop("dtype", None) or (None if like is None else like.dtype)
    if like is not None:
        args = tuple(_cast(a, _near(a.dtype)) if isinstance(a, StoredTensor) else a for a in args)
    if not isinstance(d, StoredDtype):
        return native(*args, dtype=d, **kw)
    if d is uint64 and args and not isinstance(args[0], (int, Handle, tuple)):
        return _kept(wrap(np.array(args[0], np.uint64)))  # int64 has not room for all of them
    return _cast(native(*args, dtype=_near(d), **kw), d)


def _near(d: dt.dtype) -> dt.dtype:
    return dt.float32 if d.category == dt.FLOAT else dt.int64


def _copy_(x: Any, src: Any, non_blocking: bool = False) -> Any:
    return store(x, wrap(np.broadcast_to(_cast(src, x.dtype)._a, x._a.shape)))


def _fill_(x: Any, value: Any) -> Any:
    value = value if isinstance(value, Handle) else wrap(np.asarray(value, _near(x.dtype).np))
    return _copy_(x, value)


def _joined(join: Callable) -> Callable:
    def rule(tensors: Any, dim: int = 0, *, out: Any = None) -> Any:
        kinds_of = {t.dtype for t in tensors}
        if len(kinds_of) != 1:
            raise NotImplementedError("cat and stack of stored dtypes: one dtype, got several")
        return _kept(wrap(np.ascontiguousarray(join([t._a for t in tensors], axis=dim))))

    return rule


def _numbers(x: Any) -> Any:
    return _wide(x).tolist()


def _item(x: Any) -> Any:
    if x._a.size != 1:
        raise RuntimeError(f"a Tensor with {x._a.size} elements cannot be converted to Scalar")
    return _numbers(x.reshape(1))[0]


def _numpy(x: Any, *, force: bool = False) -> np.ndarray:
    if x._a.dtype.num >= 256:
        raise TypeError(f"Got unsupported ScalarType {x.dtype.spelled}")
    return x._a


def _show(x: Any, **kw: Any) -> str:
    a = _wide(x)
    suffixes = [f"size={tuple(a.shape)}"] if a.size == 0 and a.ndim != 1 else []
    return printing.show(a, [*suffixes, f"dtype=torch.{x.dtype.name}"])


def _equal(x: Any, other: Any) -> Any:
    a, b = (_wide(t) if isinstance(t, Handle) else t for t in (x, other))
    return wrap(np.asarray(a == b))


_RULES: dict[str, Callable] = {
    "to": _to, "type": _type, "type_as": lambda x, other: _cast(x, other.dtype), "view": _view,
    "clone": _clone, "copy_": _copy_, "fill_": _fill_, "zero_": lambda x: _fill_(x, 0),
    "cat": _joined(np.concatenate), "concat": _joined(np.concatenate), "stack": _joined(np.stack),
    "tolist": _numbers, "item": _item, "numpy": _numpy, "__array__": lambda x, *a, **k: _numpy(x),
    "__repr__": _show, "__eq__": _equal, "eq": _equal, "layout": lambda x: kinds.strided,
    **{
        name: _conversion(d)
        for name, d in {
            "float": dt.float32, "double": dt.float64, "half": dt.float16, "long": dt.int64,
            "bfloat16": dt.bfloat16, "int": dt.int32, "short": dt.int16, "char": dt.int8,
            "byte": dt.uint8, "bool": dt.bool,
        }.items()
    },
}  # fmt: skip
_MAKES = (
    "tensor as_tensor zeros ones empty full arange rand randn randint linspace eye zeros_like "
    "ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty new_full "
    "new_tensor scalar_tensor"
)
_MAKERS = frozenset(_MAKES.split())
_LOOKS = (
    "shape size dim ndim ndimension numel nelement dtype itemsize element_size nbytes stride "
    "storage_offset data_ptr device is_cuda is_cpu get_device __len__ is_contiguous is_sparse "
    "is_floating_point is_complex is_signed requires_grad is_leaf grad grad_fn _version cpu cuda "
    "reshape t T transpose permute squeeze unsqueeze flatten unflatten narrow select expand "
    "contiguous detach data unbind chunk split view_as reshape_as expand_as movedim as_strided "
    "__getitem__ is_same_size untyped_storage storage share_memory_ is_shared __deepcopy__ "
    "__reduce_ex__ is_tensor swapaxes moveaxis can_cast ravel"
)
_SEEN = frozenset(_LOOKS.split())
overrides.switch_on()
