"""The rooms' functions as Tensor methods: one list a room, and the in-place forms.

A function whose first argument is a tensor is a method under the same name.  An in-place form
`f_` writes what `f` gives into the tensor's memory (ops/write.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from weft import autograd
from weft.core import dtype as dt
from weft.core import layouts, overrides
from weft.core.handle import state
from weft.core.types import broadcast_shapes
from weft.ops import (
    activation,
    arithmetic,
    arrange,
    cast,
    compare,
    complex_parts,
    contract,
    creation,
    dispatch,
    einsum,
    factor,
    gather,
    getitem,
    histogram,
    index,
    join,
    linalg,
    lookup,
    masked,
    memory_view,
    native_names,
    placed,
    pointwise,
    query,
    random,
    reduce,
    replace,
    scan,
    shape,
    signal,
    softmax,
    sort,
    special,
    stat,
    storage,
    strided,
    subclass,
    torch_order,
    trig,
    unary,
    view,
    write,
)
from weft.ops.construct import tensor
from weft.ops.promote import only_tensors
from weft.ops.write import need_no_leaf
from weft.runtime import native
from weft.tensor import Tensor

METHODS: dict[ModuleType, str] = {
    complex_parts: "conj resolve_conj resolve_neg conj_physical angle is_conj sgn adjoint",
    memory_view: "values indices coalesce is_coalesced to_dense dequantize "
    "crow_indices col_indices sparse_dim dense_dim _nnz _indices _values "
    "to_padded_tensor "
    "pin_memory is_pinned new resize_as_ resize resize_as record_stream symeig eig lstsq solve",
    arithmetic: "add sub mul div pow fmod remainder floor_divide minimum maximum atan2 arctan2 "
    "neg multiply subtract divide true_divide negative addcmul addcdiv lerp",
    compare: "eq ne lt le gt ge bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift "
    "bitwise_right_shift logical_and logical_or logical_xor logical_not not_equal less "
    "less_equal greater greater_equal",
    unary: "abs sign floor ceil trunc round sqrt rsqrt reciprocal square exp exp2 expm1 log log1p "
    "log2 log10 sigmoid relu absolute fix",
    trig: "sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc erfinv lgamma "
    "digamma arcsin arccos arctan arcsinh arccosh arctanh",
    view: "reshape view permute transpose t movedim expand squeeze unsqueeze flatten unflatten "
    "narrow select",
    storage: "untyped_storage storage set_ resize_ share_memory_ is_shared",
    strided: "as_strided",
    subclass: "as_subclass",
    join: "chunk unbind",
    native_names: "split_with_sizes unsafe_chunk unsafe_split unsafe_split_with_sizes",
    query: "is_same_size is_nonzero get_device",
    reduce: "sum mean amax amin argmax argmin any all prod",
    contract: "matmul mm bmm mv dot outer ger addmm",
    creation: "clone",
    getitem: "index_put index_put_",
    index: "index_select index_add index_copy index_fill take",
    gather: "gather scatter scatter_add scatter_reduce take_along_dim",
    placed: "index_add_ index_copy_ index_fill_ scatter_ scatter_add_",
    masked: "masked_fill masked_select masked_scatter nonzero argwhere count_nonzero bincount",
    sort: "sort argsort msort topk kthvalue median nanmedian mode max min aminmax",
    lookup: "unique unique_consecutive",
    scan: "cumsum cumprod cummax cummin logcumsumexp diff",
    stat: "logsumexp var std norm dist renorm nansum nanmean histc cov corrcoef quantile "
    "nanquantile",
    pointwise: "clamp clip clamp_min clamp_max isnan isinf isfinite isposinf isneginf signbit "
    "isclose allclose equal nan_to_num frac copysign hypot xlogy heaviside logaddexp nextafter "
    "fmax fmin logit deg2rad rad2deg positive sinc logaddexp2 ldexp float_power gcd lcm",
    shape: "flip fliplr flipud roll rot90 repeat tile repeat_interleave tril triu diagonal diag "
    "diag_embed trace unfold",
    arrange: "broadcast_to swapaxes swapdims moveaxis ravel tensor_split hsplit vsplit dsplit",
    einsum: "inner kron cross baddbmm addbmm addmv addr vdot",
    factor: "geqrf orgqr ormqr pinverse qr svd triangular_solve",
    special: "i0 igamma igammac mvlgamma",
    histogram: "frexp histogram isreal nonzero_static",
    linalg: "det slogdet logdet matrix_power matrix_exp cholesky_solve cholesky_inverse",
    replace: "select_scatter slice_scatter diagonal_scatter as_strided_scatter put index_reduce "
    "diagflat narrow_copy",
    signal: "stft istft",
    torch_order: "cholesky",
    softmax: "softmax log_softmax",
    activation: "prelu hardshrink",
    random: "bernoulli multinomial uniform_ normal_ log_normal_ exponential_ cauchy_ geometric_ "
    "random_ bernoulli_",
}
INPLACE = (
    "add sub mul div pow fmod remainder floor_divide atan2 neg bitwise_and bitwise_or bitwise_xor "
    "logical_and logical_or logical_not abs sign floor ceil trunc round sqrt rsqrt reciprocal "
    "square exp exp2 expm1 log log1p log2 log10 sigmoid relu sin cos tan asin acos atan sinh cosh "
    "tanh erf erfinv eq ne lt le gt ge addmm addcmul addcdiv lerp "
    "scatter_reduce masked_fill masked_scatter "
    "cumsum cumprod clamp clip clamp_min clamp_max nan_to_num frac copysign hypot xlogy heaviside "
    "nextafter logit deg2rad rad2deg sinc tril triu renorm baddbmm "
    "addbmm addmv addr put index_reduce ldexp float_power gcd lcm bitwise_not bitwise_left_shift "
    "bitwise_right_shift logical_xor subtract multiply divide true_divide negative absolute fix "
    "sgn conj_physical greater greater_equal less less_equal not_equal arcsin arccos arctan "
    "arcsinh arccosh arctanh asinh acosh atanh erfc digamma lgamma arctan2 i0 igamma igammac "
    "mvlgamma"
)
_DIRECT = {
    "add_": arithmetic.Add(), "sub_": arithmetic.Sub(), "mul_": arithmetic.Mul(),
}  # fmt: skip
# ops with a number: its keyword, how many tensors come before it, its sign
_WEIGHTED = {
    "add_": (arithmetic.AddScaled(), "alpha", 1, 1.0),
    "sub_": (arithmetic.AddScaled(), "alpha", 1, -1.0),
    "addcmul_": (arithmetic.Addcmul(), "value", 2, 1.0),
    "addcdiv_": (arithmetic.Addcdiv(), "value", 2, 1.0),
    "lerp_": (arithmetic.Lerp(), "", 1, 1.0),
}


def bind(rooms: dict[ModuleType, str]) -> None:
    """Make the named functions of each room methods of Tensor."""
    for room, names in rooms.items():
        for name in names.split():  # a function of its own: `torch.add` is not `Tensor.add`
            method = overrides.twin(getattr(room, name))
            method.__qualname__ = f"Tensor.{name}"
            setattr(Tensor, name, method)


def bind_inplace(names: str) -> None:
    """Make `f_` of the methods named: the value of `f`, written into the tensor."""
    for name in names.split():
        setattr(Tensor, name + "_", _inplace_form(name, getattr(Tensor, name)))


def _inplace_form(name: str, fn: Callable) -> Callable:
    direct, scaled = _DIRECT.get(name + "_"), _WEIGHTED.get(name + "_")

    def form(self: Any, *args: Any, **kw: Any) -> Any:
        if direct is not None and len(args) == 1 and not kw and _same(self, args[0]):
            return write.inplace(direct, self, args[0])
        if scaled is not None and not state.modes and _into(self, args, kw, *scaled):
            return self
        if self.__class__ not in dispatch.plain_classes or self._rg:
            write.check_writable(self)
        return write.write(self, fn(self, *args, **kw))

    form.__name__ = form.__qualname__ = name + "_"
    form.__doc__ = f"`{name}`, written into the tensor's own memory.  Returns the tensor."
    return form


def _into(t: Any, args: tuple, kw: dict, op: Any, word: str, count: int, sign: float) -> bool:
    """Whether t's memory has op(t, *args, number) now, by native code alone; else nothing is done.

    The number is the keyword `word` or, where that is "", the last argument.
    """
    number: Any = None
    if word:
        if len(args) == count and len(kw) == 1:
            number = kw.get(word)
    elif len(args) == count + 1 and not kw:
        number = args[count]
    if number.__class__ not in (float, int) or not op.into(t, *args[:count], sign * number):
        return False
    dispatch.wrote(t)
    return True


def _same(t: Any, other: Any) -> bool:
    if isinstance(other, Tensor):
        return other.dtype is t.dtype is not dt.bool  # of which `sub` says why not
    if t.dtype is dt.int64:
        return other.__class__ is int and abs(other) < 2**31
    return other.__class__ in (int, float, bool) and t.dtype in (dt.float32, dt.float64)


bind(METHODS)
Tensor.__getitem__ = getitem.getitem  # type: ignore[attr-defined]
Tensor.__setitem__ = getitem.setitem  # type: ignore[attr-defined]
bind_inplace(INPLACE)
for _sign, _name in {
    "iadd": "add_", "isub": "sub_", "imul": "mul_", "itruediv": "div_",
    "ifloordiv": "floor_divide_",
    "imod": "remainder_", "ipow": "pow_", "iand": "bitwise_and_", "ior": "bitwise_or_",
    "ixor": "bitwise_xor_", "ilshift": "bitwise_left_shift_", "irshift": "bitwise_right_shift_",
}.items():  # fmt: skip
    setattr(Tensor, f"__{_sign}__", getattr(Tensor, _name))


def _method(fn: Callable) -> Callable:
    setattr(Tensor, fn.__name__, fn)
    return fn


@_method
def backward(
    self: Tensor,
    gradient: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add d(self . gradient)/d(leaf) to the `.grad` of every leaf `self` depends on."""
    autograd.backward(self, gradient, retain_graph, create_graph, inputs=inputs)


@_method
def register_hook(self: Tensor, hook: Callable) -> Any:
    """Call `hook(grad)` when this tensor's gradient is known; its result replaces the gradient."""
    return autograd.hooks.register(self, hook)


@_method
def register_post_accumulate_grad_hook(self: Tensor, hook: Callable) -> Any:
    """Call `hook(tensor)` after a leaf's `.grad` has been added to."""
    return autograd.hooks.register_post_accumulate(self, hook)


@_method
def retain_grad(self: Tensor) -> None:
    """Keep `.grad` of a tensor that is not a leaf."""
    autograd.hooks.retain_grad(self)


@_method
def copy_(self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """self's memory gets src's values, cast and broadcast."""
    if dispatch.overwrite(self, src):
        return self
    if self.__class__ not in dispatch.plain_classes or self._rg:
        write.check_writable(self)
    return write.write(self, cast.cast(src, self.dtype))


@_method
def fill_(self: Tensor, value: Any) -> Tensor:
    """Every element becomes `value`."""
    write.check_writable(self)
    kind, d = value.__class__, self.dtype
    exact = kind is int and (value == 0 or (abs(value) < 2**53 and d in (dt.float32, dt.float64)))
    exact = exact or (
        kind is float and (d is dt.float64 or (d is dt.float32 and abs(value) < 1e38))
    )
    if exact and state.recorder is None and not (self._rg and state.grad):
        dispatch.fill(self._a, value)
        dispatch.wrote(self)
        return self
    if not isinstance(value, Tensor):
        if kind is float or kind is int:
            creation.number_in(value, d)  # says that d does not reach so far
        value = tensor(value, dtype=d)
        value._a.flags.writeable = False  # a number, as `number_tensor`'s are: a replay has it, too
    if value.ndim:
        raise RuntimeError(
            "fill_ only supports 0-dimension value tensor but got tensor with "
            f"{value.ndim} dimensions."
        )
    return write.assign(self, cast.cast(value, d))


@_method
def zero_(self: Tensor) -> Tensor:
    """Every element becomes 0."""
    return self if dispatch.overwrite(self) else self.fill_(0)


@_method
def inverse(self: Tensor) -> Tensor:
    """The inverse of each matrix."""
    return linalg.inv(self)


def _seen_as(self: Tensor, y: Tensor) -> Tensor:
    """self becomes `y`, a view of all of it: another shape over the same memory."""
    if state.recorder is not None:
        state.recorder.flush()
    need_no_leaf(self)
    self._a = y._a
    self._ghost = None
    self._fn = y._fn
    return self


@_method
def t_(self: Tensor) -> Tensor:
    """t, of the tensor itself."""
    return _seen_as(self, view.t(self))


@_method
def transpose_(self: Tensor, dim0: int, dim1: int) -> Tensor:
    """transpose, of the tensor itself."""
    return _seen_as(self, view.transpose(self, dim0, dim1))


@_method
def squeeze_(self: Tensor, dim: Any = None) -> Tensor:
    """squeeze, of the tensor itself."""
    return _seen_as(self, view.squeeze(self, dim))


@_method
def unsqueeze_(self: Tensor, dim: int) -> Tensor:
    """unsqueeze, of the tensor itself."""
    return _seen_as(self, view.unsqueeze(self, dim))


Tensor.swapaxes_ = Tensor.swapdims_ = transpose_  # type: ignore[attr-defined]


@_method
def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """The main diagonal becomes fill_value; of tall matrices again below with `wrap`."""
    if self.ndim < 2:
        raise RuntimeError("dimensions must larger than 1")
    if self.ndim > 2 and len(set(self.shape)) > 1:
        raise RuntimeError("all dimensions of input must be of equal length")
    n = min(self.shape)
    step = sum(math.prod(self.shape[d + 1 :]) for d in range(self.ndim))
    places = np.arange(n) * step
    if wrap and self.ndim == 2:
        places = np.arange(0, self.numel(), step)
    at = np.unravel_index(places, self.shape)
    self[tuple(dispatch.wrap(np.ascontiguousarray(i)) for i in at)] = fill_value
    return self


@_method
def split(self: Tensor, split_size: Any, dim: int = 0) -> tuple:
    """Views of consecutive parts along dim: of one size (the last may be smaller), or as listed."""
    return join.split(self, split_size, dim)


@_method
def __reversed__(self: Tensor) -> Tensor:
    """The rows from the last to the first."""
    return shape.flip(self, 0) if self.ndim else self


@_method
def ndimension(self: Tensor) -> int:
    """The number of dims."""
    return self.ndim


@_method
def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether both look at the same memory in the same way."""
    only_tensors("is_set_to", tensor, names=("tensor",))
    return (
        native.address(self._a) == native.address(tensor._a)
        and self.shape == tensor.shape
        and self.stride() == tensor.stride()
    )


def _need_callable(op: str, fn: Any) -> None:
    if not callable(fn):
        kind = type(fn).__name__
        raise TypeError(f"{op}(): argument 'callable' must be callable, not {kind}")


@_method
def apply_(self: Tensor, callable: Callable) -> Tensor:
    """Each element replaced by callable(element); slow."""
    _need_callable("apply_", callable)
    values = [callable(v) for v in self._a.reshape(-1).tolist()]
    return self.copy_(tensor(values, dtype=self.dtype).reshape(self.shape))


@_method
def map_(self: Tensor, tensor: Tensor, callable: Callable) -> Tensor:
    """Each element replaced by callable(element, the tensor's element); slow."""
    only_tensors("map_", tensor, names=("tensor",))
    _need_callable("map_", callable)
    if broadcast_shapes(self.shape, tensor.shape, op="map_") != tuple(self.shape):
        raise RuntimeError(f"map_: {list(tensor.shape)} does not broadcast to {list(self.shape)}")
    other = np.broadcast_to(tensor._a, self._a.shape).reshape(-1).tolist()
    pairs = zip(self._a.reshape(-1).tolist(), other, strict=True)
    values = dispatch.wrap(np.array([callable(a, b) for a, b in pairs], self._a.dtype))
    return self.copy_(values.reshape(self.shape))


@_method
def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """The sum to a shape that broadcasts to this one."""
    shape = view.shape_args(size, "sum_to_size")
    if not self.ndim:
        return self.sum()
    return reduce.sum_to(
        self.long() if self.dtype is dt.bool and shape != self.shape else self, shape
    )


@_method
def new_tensor(
    self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A new leaf of this tensor's dtype."""
    return tensor(data, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)


@_method
def new_zeros(self: Tensor, *size: Any, dtype: Any = None, **kw: Any) -> Tensor:
    """zeros of this tensor's dtype."""
    return creation.zeros(*size, dtype=dtype or self.dtype, **kw)


@_method
def new_ones(self: Tensor, *size: Any, dtype: Any = None, **kw: Any) -> Tensor:
    """ones of this tensor's dtype."""
    return creation.ones(*size, dtype=dtype or self.dtype, **kw)


@_method
def new_empty(self: Tensor, *size: Any, dtype: Any = None, **kw: Any) -> Tensor:
    """Uninitialised memory of this tensor's dtype."""
    return creation.empty(*size, dtype=dtype or self.dtype, **kw)


@_method
def new_empty_strided(
    self: Tensor, size: Any, stride: Any, *, dtype: Any = None, **kw: Any
) -> Tensor:
    """Memory as it is found, of this tensor's dtype, under a size and strides."""
    return native_names.empty_strided(size, stride, dtype=dtype or self.dtype, **kw)


@_method
def lu(self: Tensor, pivot: bool = True, get_infos: bool = False) -> tuple:
    """(LU, pivots), and info with get_infos."""
    return factor.torch_lu(self, pivot, get_infos)


@_method
def lu_solve(self: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """X with A X = self, from A's LU factors."""
    return factor.torch_lu_solve(self, LU_data, LU_pivots)


@_method
def polygamma(self: Tensor, n: int) -> Tensor:
    """The n-th derivative of digamma."""
    return special.polygamma(n, self)


bind_inplace("polygamma")


@_method
def new_full(self: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, **kw: Any) -> Tensor:
    """full of this tensor's dtype."""
    return creation.full(size, fill_value, dtype=dtype or self.dtype, **kw)


@_method
def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """expand to other's shape."""
    return view.expand(self, dispatch.shape_of(other))


@_method
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """view under other's shape."""
    return view.view(self, dispatch.shape_of(other))


@_method
def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """reshape to other's shape."""
    return view.reshape(self, dispatch.shape_of(other))


def _conversion(name: str, d: dt.dtype) -> None:
    def convert(self: Tensor, memory_format: Any = None) -> Tensor:
        if memory_format is None and self.dtype is d:
            return self
        y = creation.converted(self, d)
        return y if memory_format is None else creation.in_format(y, memory_format)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"The tensor as {d.name}."
    setattr(Tensor, name, convert)


for _name, _d in {
    "float": dt.float32, "double": dt.float64, "half": dt.float16, "bfloat16": dt.bfloat16,
    "long": dt.int64, "int": dt.int32, "short": dt.int16, "char": dt.int8, "byte": dt.uint8,
    "bool": dt.bool, "cfloat": dt.complex64, "cdouble": dt.complex128,
}.items():  # fmt: skip
    _conversion(_name, _d)

Tensor.real = property(complex_parts.real)  # type: ignore[attr-defined]
Tensor.imag = property(complex_parts.imag)  # type: ignore[attr-defined]
Tensor.H = property(complex_parts.hermitian)  # type: ignore[attr-defined]
Tensor.mH = property(complex_parts.adjoint)  # type: ignore[attr-defined]
Tensor.layout = property(lambda self: layouts.strided)  # type: ignore[attr-defined]
Tensor.is_cpu = True  # type: ignore[attr-defined]
Tensor.retains_grad = property(lambda self: self._retain)  # type: ignore[attr-defined]
Tensor.output_nr = 0  # type: ignore[attr-defined]
_KINDS = (
    "is_mps", "is_xpu", "is_meta", "is_mkldnn", "is_nested", "is_sparse_csr", "is_vulkan", "is_xla",
    "is_ipu", "is_mtia", "is_maia",
)  # fmt: skip
for _name in _KINDS:
    if not hasattr(Tensor, _name):
        setattr(Tensor, _name, False)  # kinds of tensors that Weft has none of

overrides.cover_methods(
    Tensor,
    "torch.Tensor",
    but="__init__ __new__ __init_subclass__ __hash__ __iter__ __getattr__ copy_result "
    "as_subclass",
    operators={
        "__add__": "add", "__radd__": "add", "__sub__": "sub", "__mul__": "mul",
        "__rmul__": "mul", "__truediv__": "div", "__div__": "div", "__mod__": "remainder",
        "__matmul__": "matmul", "__ne__": "ne", "__lt__": "lt", "__le__": "le", "__gt__": "gt",
        "__ge__": "ge", "__eq__": "__eq__", "__and__": "__and__", "__or__": "__or__",
        "__xor__": "__xor__", "__pow__": "__pow__", "__floordiv__": "__floordiv__",
        "__rsub__": "__rsub__", "__rtruediv__": "__rtruediv__", "__rpow__": "__rpow__",
        "__rfloordiv__": "__rfloordiv__", "__rmod__": "__rmod__", "__rmatmul__": "__rmatmul__",
        "__neg__": "neg", "__pos__": "positive", "__abs__": "abs", "__rlshift__": "__rlshift__",
        "__rrshift__": "__rrshift__",
    },
)  # fmt: skip
