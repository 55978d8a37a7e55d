"""The rooms' functions as Tensor methods: one list a room, and the in-place forms.

A function whose first argument is a tensor is a method under the same name.  An in-place form
`f_` writes what `f` gives into the tensor's memory (ops/write.py).
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from weft import autograd
from weft.core import dtype as dt
from weft.ops import (
    activation,
    arithmetic,
    arrange,
    cast,
    compare,
    contract,
    creation,
    einsum,
    extreme,
    gather,
    getitem,
    index,
    join,
    linalg,
    lookup,
    masked,
    pointwise,
    random,
    reduce,
    scan,
    shape,
    softmax,
    sort,
    stat,
    trig,
    unary,
    view,
    weighted,
    write,
)
from weft.tensor import Tensor, tensor

METHODS: dict[ModuleType, str] = {
    arithmetic: "add sub mul div pow fmod remainder floor_divide minimum maximum atan2 neg "
    "multiply subtract divide true_divide negative",
    compare: "eq ne lt le gt ge bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift "
    "bitwise_right_shift logical_and logical_or logical_xor logical_not not_equal less "
    "less_equal greater greater_equal",
    unary: "abs sign floor ceil trunc round sqrt rsqrt reciprocal square exp exp2 expm1 log log1p "
    "log2 log10 sigmoid relu absolute fix",
    trig: "sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc erfinv lgamma "
    "digamma arcsin arccos arctan arcsinh arccosh arctanh",
    view: "reshape view permute transpose t movedim expand squeeze unsqueeze flatten unflatten "
    "narrow select as_strided",
    join: "split chunk unbind",
    reduce: "sum mean amax amin argmax argmin any all prod",
    contract: "matmul mm bmm mv dot outer addmm",
    creation: "clone",
    weighted: "addcmul addcdiv lerp",
    getitem: "index_put index_put_",
    index: "index_select index_add index_copy index_fill take",
    gather: "gather scatter scatter_add scatter_reduce take_along_dim",
    masked: "masked_fill masked_select masked_scatter nonzero argwhere count_nonzero bincount",
    sort: "sort argsort msort topk kthvalue median nanmedian mode quantile nanquantile",
    extreme: "max min aminmax",
    lookup: "unique unique_consecutive",
    scan: "cumsum cumprod cummax cummin logcumsumexp diff",
    stat: "logsumexp var std norm dist renorm nansum nanmean histc cov corrcoef",
    pointwise: "clamp clip clamp_min clamp_max isnan isinf isfinite isposinf isneginf signbit "
    "isclose allclose equal nan_to_num frac copysign hypot xlogy heaviside logaddexp nextafter "
    "fmax fmin logit deg2rad rad2deg positive sinc",
    shape: "flip fliplr flipud roll rot90 repeat tile repeat_interleave tril triu diagonal diag "
    "diag_embed trace unfold",
    arrange: "broadcast_to swapaxes swapdims moveaxis adjoint ravel tensor_split hsplit vsplit "
    "dsplit",
    einsum: "inner kron cross baddbmm addbmm addmv addr vdot",
    linalg: "det slogdet logdet matrix_power cholesky",
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
    "index_add index_copy index_fill scatter scatter_add scatter_reduce masked_fill masked_scatter "
    "cumsum cumprod clamp clip clamp_min clamp_max nan_to_num frac copysign hypot xlogy heaviside "
    "nextafter logit deg2rad rad2deg sinc tril triu renorm baddbmm "
    "addbmm addmv addr"
)
_DIRECT = {
    "add_": arithmetic.Add(), "sub_": arithmetic.Sub(), "mul_": arithmetic.Mul(),
}  # fmt: skip


def bind(rooms: dict[ModuleType, str]) -> None:
    """Make the named functions of each room methods of Tensor."""
    for room, names in rooms.items():
        for name in names.split():
            setattr(Tensor, name, getattr(room, name))


def bind_inplace(names: str) -> None:
    """Make `f_` of the methods named: the value of `f`, written into the tensor."""
    for name in names.split():
        setattr(Tensor, name + "_", _inplace_form(name, getattr(Tensor, name)))


def _inplace_form(name: str, fn: Callable) -> Callable:
    direct = _DIRECT.get(name + "_")

    def form(self: Any, *args: Any, **kw: Any) -> Any:
        if direct is not None and len(args) == 1 and not kw and _same(self, args[0]):
            return write.inplace(direct, self, args[0])
        write.check_writable(self)
        return write.write(self, fn(self, *args, **kw))

    form.__name__ = form.__qualname__ = name + "_"
    form.__doc__ = f"`{name}`, written into the tensor's own memory.  Returns the tensor."
    return form


def _same(t: Any, other: Any) -> bool:
    if isinstance(other, Tensor):
        return other.dtype is t.dtype
    return isinstance(other, (int, float)) and t.dtype.category == dt.FLOAT


bind(METHODS)
Tensor.__getitem__ = getitem.getitem  # type: ignore[attr-defined]
Tensor.__setitem__ = getitem.setitem  # type: ignore[attr-defined]
bind_inplace(INPLACE)


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
    autograd.backward(self, gradient, retain_graph, create_graph, inputs)


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
    write.check_writable(self)
    return write.write(self, cast.cast(src, self.dtype))


@_method
def fill_(self: Tensor, value: Any) -> Tensor:
    """Every element becomes `value`."""
    write.check_writable(self)
    value = value if isinstance(value, Tensor) else tensor(value, dtype=self.dtype)
    return write.write(self, cast.cast(value, self.dtype))


@_method
def zero_(self: Tensor) -> Tensor:
    """Every element becomes 0."""
    return self.fill_(0)


@_method
def inverse(self: Tensor) -> Tensor:
    """The inverse of each matrix."""
    return linalg.inv(self)


@_method
def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """The sum to a shape that broadcasts to this one."""
    return reduce.sum_to(self, view.shape_args(size, "sum_to_size"))


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
def new_full(self: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, **kw: Any) -> Tensor:
    """full of this tensor's dtype."""
    return creation.full(size, fill_value, dtype=dtype or self.dtype, **kw)


@_method
def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """expand to other's shape."""
    return view.expand(self, tuple(other.shape))


@_method
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """view under other's shape."""
    return view.view(self, tuple(other.shape))


@_method
def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """reshape to other's shape."""
    return view.reshape(self, tuple(other.shape))


def _conversion(name: str, d: dt.dtype) -> None:
    def convert(self: Tensor, memory_format: Any = None) -> Tensor:
        return cast.cast(self, d)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"The tensor as {d.name}."
    setattr(Tensor, name, convert)


for _name, _d in {
    "float": dt.float32, "double": dt.float64, "half": dt.float16, "bfloat16": dt.bfloat16,
    "long": dt.int64, "int": dt.int32, "short": dt.int16, "char": dt.int8, "byte": dt.uint8,
    "bool": dt.bool,
}.items():  # fmt: skip
    _conversion(_name, _d)

