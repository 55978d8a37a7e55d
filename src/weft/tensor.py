"""Tensor: the handle that users hold.  Its methods are the rooms' functions.

Methods that are an op's function with the tensor first are bound at the end of this file, from
one list a room; what is written out here is what makes it a Python object: attributes,
operators, conversion, printing, in-place operations.

Long because Python's protocol of an object is written in one class.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from weft.core import dtype as dt
from weft.core import layouts, overrides, printing, types
from weft.core.device import cpu, device, require_cpu
from weft.core.handle import Handle, bare, owner_of, state, storage_of
from weft.core.op import Op
from weft.core.types import is_contiguous, numel, some_dim
from weft.ops import (
    arithmetic,
    compare,
    construct,
    contract,
    creation,
    dispatch,
    formula,
    subclass,
    unary,
    view,
    write,
)
from weft.runtime import memory, native

__all__ = ["Parameter", "Size", "Tensor", "broadcast_shapes"]


def _is_operand(x: Any) -> bool:
    """Whether an operator knows what to do with `x`; else Python asks `x` itself."""
    return isinstance(x, (Handle, int, float, complex, np.number, np.bool_))


def _operator(function: Any, op: Any = Op) -> Any:
    """The operator method that calls a room's function, or runs its op where it knows tensors like
    these (an op that the function calls with the tensors and numbers that it is given).
    """

    def operator(self: Any, other: Any) -> Any:
        if (y := op.quick(self, other)) is not None:
            return y
        return function(self, other) if _is_operand(other) else NotImplemented

    return operator


def _reflected(function: Any, op: Any = Op) -> Any:
    """`_operator` for a tensor on the right: `2 - x`."""

    def operator(self: Any, other: Any) -> Any:
        if (y := op.quick(other, self)) is not None:
            return y
        if not isinstance(self, Handle):
            raise TypeError(f"{function.__name__}: the operand on the right must be a Tensor")
        return function(other, self) if _is_operand(other) else NotImplemented

    return operator


def _commuted(function: Any, op: Any) -> Any:
    """`_operator` for a tensor on the right, where the order says nothing."""

    def operator(self: Any, other: Any) -> Any:
        if not isinstance(self, Handle):
            raise TypeError(f"{function.__name__}: the operand on the right must be a Tensor")
        if (y := op.quick(self, other)) is not None:
            return y
        return function(self, other) if _is_operand(other) else NotImplemented

    return operator


def _bits(function: Any, op: Any) -> tuple:
    """The operator methods of a tensor on the left and on the right."""
    return _operator(function, op), _reflected(function, op)


_ADD, _SUB, _MUL, _DIV = arithmetic.Add(), arithmetic.Sub(), arithmetic.Mul(), arithmetic.Div()


_entry = tuple.__getitem__


class Size(tuple):
    """A shape: a tuple of ints with `numel()`."""

    __slots__ = ()

    def numel(self) -> int:
        return numel(self)

    def __repr__(self) -> str:
        return f"torch.Size({list(self)})"

    def __getitem__(self, i: Any) -> Any:
        got = _entry(self, i)
        return Size(got) if i.__class__ is slice else got

    def __add__(self, other: Any) -> Size:
        return Size(tuple(self) + tuple(other))

    def __radd__(self, other: Any) -> Size:
        return Size(tuple(other) + tuple(self))

    def __mul__(self, times: Any) -> Any:
        return Size(tuple(self) * times)

    __rmul__ = __mul__


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that tensors of these shapes (or lengths) broadcast to; RuntimeError if none."""
    return Size(types.broadcast_shapes(*shapes))


class Tensor(Handle):
    """An n-dimensional array of one dtype that can remember how it was computed."""

    def __new__(cls, *args: Any, device: Any = None, **kw: Any) -> Any:
        """Data as the default dtype, a tensor's own memory, or, of ints, an uninitialised shape."""
        if kw:
            raise TypeError(f"new() received an unexpected keyword argument {next(iter(kw))!r}")
        require_cpu(device, "Tensor")
        data = construct.of_default_dtype(args)
        if data._rg:
            return subclass.as_subclass(data, cls)
        return subclass.make_subclass(cls, data)

    def __init__(self, *args: Any, **kw: Any) -> None:
        """`__new__` has done it all; a subclass's `super().__init__()` may pass what it likes."""

    def __init_subclass__(cls, *, layout: Any = None, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if layout is not None:  # who answers for tensors that are not dense
            overrides.layouts[cls] = layout
        elif overrides.overrides(cls):
            overrides.switch_on()
        else:
            overrides.plain.add(cls)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """The function's result, its tensors as objects of `cls`; what subclasses build on."""
        keep = func in _AS_THEY_ARE
        return subclass.answer(cls, func, types, args, kwargs, keep=keep)

    @staticmethod
    def _make_subclass(kind: type, data: Any, require_grad: bool = False, **options: Any) -> Any:
        return subclass.make_subclass(kind, data, require_grad, **options)

    # ------------------------------------------------------------------ attributes

    @property
    def shape(self) -> Size:
        g = self._ghost
        return Size(self._a.shape if g is None else g.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or its entry `dim`."""
        shape = self.shape
        if dim is None:
            return shape
        try:
            return _entry(shape, dim)
        except IndexError:
            raise IndexError(
                f"Dimension out of range (expected to be in range of [{-len(shape)}, "
                f"{len(shape) - 1}], but got {dim})"
            ) from None

    def dim(self) -> int:
        g = self._ghost
        return self._a.ndim if g is None else len(g.shape)

    ndim = property(overrides.twin(dim))

    def numel(self) -> int:
        g = self._ghost
        return self._a.size if g is None else numel(g.shape)

    nelement = numel

    @property
    def dtype(self) -> dt.dtype:
        g = self._ghost
        return dt.from_np(self._a.dtype) if g is None else g.dtype

    @property
    def device(self) -> device:
        return cpu

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    def element_size(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.numel() * self.dtype.itemsize

    def is_floating_point(self) -> bool:
        return self.dtype.category == dt.FLOAT

    def is_complex(self) -> bool:
        return self.dtype.category == dt.COMPLEX

    def is_signed(self) -> bool:
        return self.dtype.is_signed

    @property
    def is_cuda(self) -> bool:
        return False

    @property
    def is_sparse(self) -> bool:
        return False

    @property
    def is_quantized(self) -> bool:
        return False

    T = property(overrides.twin(view.T))

    @property
    def mT(self) -> Tensor:
        return view.transpose(self, -2, -1)

    def stride(self, dim: int | None = None) -> Any:
        """Steps in elements from one place to the next along each dim (or along `dim`)."""
        g = self._ghost
        if g is None:
            size = self._a.itemsize
            strides = tuple([s // size for s in self._a.strides])
        else:
            strides = g.strides
        return strides if dim is None else strides[some_dim(dim, strides, "stride")]

    def storage_offset(self) -> int:
        """Where this view begins in its memory, in elements."""
        base, g = self._base, self._ghost
        if base is None:
            return 0
        if g is not None:
            return g.offset + (0 if g.outer is None else g.outer.storage_offset())
        return (native.address(self._a) - native.address(base._a)) // self._a.itemsize

    def data_ptr(self) -> int:
        return native.address(memory.give_away(self._a))

    def is_contiguous(self, memory_format: Any = None) -> bool:
        if memory_format is not None and memory_format is not layouts.contiguous_format:
            return creation.has_format(self, memory_format)
        g = self._ghost
        if g is None:
            return self._a.flags.c_contiguous
        return is_contiguous(g.shape, g.strides)

    def contiguous(self, memory_format: Any = None) -> Tensor:
        """The tensor itself when contiguous (in a memory format), else a contiguous copy."""
        if memory_format is not None:
            return creation.in_format(self, memory_format)
        g = self._ghost
        whole = self._a.flags.c_contiguous if g is None else is_contiguous(g.shape, g.strides)
        return self if whole else creation.clone(self, memory_format=layouts.contiguous_format)

    @property
    def _version(self) -> int:
        return 0 if self._st is None else self._st.version

    def _is_view(self) -> bool:
        return self._base is not None

    # ------------------------------------------------------------------ autograd

    @property
    def requires_grad(self) -> bool:
        return self._rg

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        self.requires_grad_(flag)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for gradients (floating dtypes only); RuntimeError when a non-leaf is told not to."""
        if not isinstance(requires_grad, (bool, np.bool_)) and requires_grad is not None:
            kind = requires_grad.__class__.__name__
            raise TypeError(f"argument 'requires_grad' must be bool, not {kind}")
        if requires_grad and self.dtype.category < dt.FLOAT:
            raise RuntimeError(
                "only Tensors of floating point and complex dtype can require gradients"
            )
        if not requires_grad and self._fn is not None:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. If you want to use a "
                "computed variable in a subgraph that doesn't require differentiation use "
                "var_no_grad = var.detach()."
            )
        self._rg = bool(requires_grad)
        base = self._base if self._rg and self._ghost is None else None
        if base is not None and base._ghost is None and self._a is base._a:
            self._base = None  # detached: a leaf, whose views are its own
        return self

    @property
    def is_leaf(self) -> bool:
        return self._fn is None

    @property
    def grad_fn(self) -> Any:
        return self._fn

    @property
    def grad(self) -> Any:
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"assigned grad expected to be a Tensor or None but got {type(value).__name__}"
                )
            if value.shape != self.shape:
                raise RuntimeError(
                    "assigned grad has data of a different size: "
                    f"{list(value.shape)} for a tensor of {list(self.shape)}"
                )
        self._grad = value

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        """Give the tensor another value (and memory), unseen by the tape."""
        if state.recorder is not None:
            state.recorder.flush()
        self._a = value._a
        self._ghost = None
        self._st = storage_of(value)
        self._base = value._base

    def detach(self) -> Tensor:
        """The same memory, off the tape."""
        y, owner = dispatch.alias(self), dispatch.alias(owner_of(self))
        owner._base, y._base = None, owner  # no write to a tensor on the tape takes y's views there
        return y

    def detach_(self) -> Tensor:
        self._fn = None
        self._rg = False
        return self

    # ------------------------------------------------------------------ values

    def item(self) -> Any:
        """The one element as a Python number; RuntimeError when there are more."""
        g = self._ghost
        n = self._a.size if g is None else numel(g.shape)
        if n != 1:
            raise RuntimeError(f"a Tensor with {n} elements cannot be converted to Scalar")
        dispatch.look()
        a = self._a
        return a.item() if a.dtype.kind in "fiubc" else float(a.reshape(())[()])

    def tolist(self) -> Any:
        dispatch.look()
        a = self._a
        return a.astype(np.float32).tolist() if a.dtype == dt.bfloat16.np else a.tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The value as a NumPy array over the same memory."""
        a = self._read() if self._rg and not force else dispatch.read(self)
        return memory.lend(a)

    def _read(self, *, force: bool = False) -> np.ndarray:
        """The value for who only looks at it: the array must not be handed on."""
        if self._rg and not force:
            raise RuntimeError(
                "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() "
                "instead."
            )
        return dispatch.read(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        a = self._read()
        a = a if dtype is None else a.astype(dtype, copy=False)
        return a.copy() if copy else memory.lend(a)

    def __dlpack__(self, **kw: Any) -> Any:
        return memory.lend(dispatch.read(self.detach())).__dlpack__(**kw)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __bool__(self) -> bool:
        n = self.numel()
        if n != 1:
            raise dispatch.misplaced(self, "bool", 2) or RuntimeError(
                "Boolean value of Tensor with "
                + ("no values" if n == 0 else "more than one value")
                + " is ambiguous"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self._real_item("float"))

    def __int__(self) -> int:
        return int(self._real_item("int"))

    def _real_item(self, kind: str) -> Any:
        if self.numel() != 1:
            raise dispatch.misplaced(self, kind, 3) or ValueError(
                "only one element tensors can be converted to Python scalars"
            )
        x = self.item()
        if x.imag:
            raise RuntimeError(f"value cannot be converted to type {kind} without overflow")
        return x.real

    def __index__(self) -> int:
        if self.dtype.category >= dt.FLOAT or self.numel() != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __format__(self, spec: str) -> str:
        plain = self.ndim == 0 and type(self) is Tensor
        return format(self.item() if plain else str(self), spec)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.dim():
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))

    def __hash__(self) -> int:
        return id(self)

    if TYPE_CHECKING:  # methods.py binds them

        def __getitem__(self, at: Any) -> Any: ...

        def __setitem__(self, at: Any, value: Any) -> None: ...

        def unbind(self, dim: int = 0) -> tuple: ...

    def __contains__(self, x: Any) -> bool:
        if not isinstance(x, (Tensor, int, float, complex)):
            raise RuntimeError(
                "Tensor.__contains__ only supports Tensor or scalar, but you passed in a "
                f"{x.__class__}."
            )
        same: Any = self == x
        return bool(same.any())

    # ------------------------------------------------------------------ operators

    __add__, __radd__ = _operator(arithmetic.add, _ADD), _commuted(arithmetic.add, _ADD)
    __sub__ = _operator(arithmetic.sub, _SUB)
    __mul__, __rmul__ = _operator(arithmetic.mul, _MUL), _commuted(arithmetic.mul, _MUL)
    __truediv__ = _operator(arithmetic.div, _DIV)
    __floordiv__ = _operator(arithmetic.floor_divide)
    __mod__ = _operator(arithmetic.remainder, arithmetic.Remainder())
    __pow__ = _operator(arithmetic.pow)
    __rsub__ = _reflected(arithmetic.sub, _SUB)
    __rtruediv__ = __rdiv__ = _reflected(arithmetic.div, _DIV)
    __rfloordiv__ = _reflected(arithmetic.floor_divide)
    __rmod__ = _reflected(arithmetic.remainder)
    __rpow__ = _reflected(arithmetic.pow)

    def __matmul__(self, other: Any) -> Any:
        return contract.matmul(self, other) if isinstance(other, Handle) else NotImplemented

    def __rmatmul__(self, other: Any) -> Any:
        return contract.matmul(other, self) if isinstance(other, Handle) else NotImplemented

    def __neg__(self) -> Any:
        return arithmetic.neg(self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return unary.abs(self)

    def __invert__(self) -> Any:
        return compare.bitwise_not(self)

    __eq__ = _operator(compare.eq, compare.Eq())
    __ne__ = _operator(compare.ne, compare.Ne())
    __lt__ = _operator(compare.lt, compare.Lt())
    __le__ = _operator(compare.le, compare.Le())
    __gt__ = _operator(compare.gt, compare.Gt())
    __ge__ = _operator(compare.ge, compare.Ge())
    __and__, __rand__ = _bits(compare.bitwise_and, compare.BitwiseAnd())
    __or__, __ror__ = _bits(compare.bitwise_or, compare.BitwiseOr())
    __xor__, __rxor__ = _bits(compare.bitwise_xor, compare.BitwiseXor())

    def __lshift__(self, other: Any) -> Any:
        return compare.bitwise_left_shift(self, other)

    def __rshift__(self, other: Any) -> Any:
        return compare.bitwise_right_shift(self, other)

    __rlshift__ = _reflected(compare.bitwise_left_shift)
    __rrshift__ = _reflected(compare.bitwise_right_shift)

    def where(self, condition: Any, other: Any) -> Any:
        """self where condition, else other."""
        return compare.where(condition, self, other)

    # ------------------------------------------------------------------ dtype and device

    def to(self, *args: Any, dtype: Any = None, device: Any = None, copy: bool = False,
           non_blocking: bool = False, memory_format: Any = None) -> Any:  # fmt: skip
        """Another dtype (or the same tensor): `to(dtype)`, `to(device)`, `to(other)`."""
        flags = 0
        for a in args:
            if isinstance(a, (dt.dtype, type)):  # float, int, bool, complex
                dtype = a
            elif isinstance(a, Tensor):
                dtype = a.dtype
            elif isinstance(a, bool):  # non_blocking, then copy
                flags += 1
                copy = a if flags == 2 else copy
            elif a is not None:
                device = a
        if device is not None:
            require_cpu(device, "to")
        y = self if dtype is None else creation.converted(self, dtype)
        if memory_format is not None:
            y = creation.in_format(y, memory_format)
        return creation.clone(y) if copy and y is self else y

    def type(self, dtype: Any = None) -> Any:
        """The name of the tensor's type, or the tensor in another dtype."""
        if dtype is None:
            return f"torch.{_TYPE_NAMES[self.dtype.name]}"
        if isinstance(dtype, str):
            dtype = _BY_TYPE_NAME[dtype.rpartition(".")[2]]
        return creation.converted(self, dtype)

    def type_as(self, other: Tensor) -> Tensor:
        return creation.converted(self, other.dtype)

    def cpu(self) -> Tensor:
        return self

    def cuda(self, *args: Any, **kw: Any) -> Tensor:
        require_cpu("cuda", "cuda")
        return self

    # ------------------------------------------------------------------ in place

    def copy_result(self, value: Tensor) -> Tensor:
        """What `out=` does: this tensor gets the value, resized if it was empty."""
        if self.shape != value.shape:
            if self.numel():
                raise RuntimeError(
                    f"out= has shape {list(self.shape)}, the result {list(value.shape)}"
                )
            self._a = dispatch.memory.empty(tuple(value.shape), self._a.dtype)
        with_grad, state.grad = state.grad, False
        try:
            return write.write(self, value)
        finally:
            state.grad = with_grad

    def __deepcopy__(self, memo: dict) -> Any:
        return subclass.deepcopy(self, memo)

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return subclass.reduce(self)

    def __repr__(self, **kw: Any) -> str:
        return show(self)

    __array_priority__ = 1000  # so that ndarray + Tensor asks the tensor


class _ParameterMeta(type):
    """A tensor of a subclass that Parameter was given is a parameter too."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) or (
            cls is Parameter and isinstance(instance, Tensor) and "_is_param" in instance.__dict__
        )


class Parameter(Tensor, metaclass=_ParameterMeta):
    """A tensor that a Module registers as a parameter when assigned as an attribute."""

    __torch_function__: Any = staticmethod(overrides.disabled_torch_function)

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Any:
        if data is None:
            data = dispatch.wrap(np.empty((0,), np.float32))
        if overrides.overrides(type(data)):  # stays what it is
            made = data.detach().requires_grad_(requires_grad)
            if type(made) is not type(data):
                raise RuntimeError(
                    f"Creating a Parameter from an instance of type {type(data).__name__} "
                    "requires that detach() returns an instance of the same type, but return type "
                    f"{type(made).__name__} was found instead. To use the type as a Parameter, "
                    "please correct the detach() semantics defined by its __torch_dispatch__() "
                    "implementation."
                )
            made._is_param = True
            return made
        made = bare(cls)
        made._a = data._a
        made._st = storage_of(data)
        made._rg = requires_grad
        return made

    def __init__(self, *args: Any, **kw: Any) -> None:
        """As object's: a subclass's `__new__` may have arguments of its own."""

    def __deepcopy__(self, memo: dict) -> Any:
        if id(self) not in memo:
            memo[id(self)] = type(self)(creation.clone(self.detach()), self._rg)
            memo[id(self)]._grad = None if self._grad is None else copy.deepcopy(self._grad, memo)
        return memo[id(self)]

    def __repr__(self, **kw: Any) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


_TYPE_NAMES = {
    "float64": "DoubleTensor", "float32": "FloatTensor", "float16": "HalfTensor",
    "bfloat16": "BFloat16Tensor", "int64": "LongTensor", "int32": "IntTensor",
    "complex64": "ComplexFloatTensor", "complex128": "ComplexDoubleTensor",
    "int16": "ShortTensor", "int8": "CharTensor", "uint8": "ByteTensor", "bool": "BoolTensor",
}  # fmt: skip
_BY_TYPE_NAME = {v: dt.BY_NAME[k] for k, v in _TYPE_NAMES.items()}

dispatch.install(Tensor, Parameter)
dispatch.install_bodies(formula.plan_body)
overrides.plain.update((Tensor, dt.dtype, device, Size, np.ndarray))
# these give what is stored: a subclass gets it as it is
_AS_THEY_ARE: set[Any] = {Tensor.grad.__get__}


def show(t: Tensor) -> str:
    """The text of a tensor, as torch prints it."""
    a, d, default = t._a, t.dtype, dt.get_default_dtype()
    suffixes = []
    if a.size == 0:
        if a.ndim != 1:
            suffixes.append(f"size={tuple(a.shape)}")
        if d is not default:
            suffixes.append(f"dtype=torch.{d.name}")
    elif d not in (default, default.to_complex(), dt.int64, dt.bool):
        suffixes.append(f"dtype=torch.{d.name}")
    if t._fn is not None:
        suffixes.append(f"grad_fn=<{t._fn.name()}>")
    elif t._rg:
        suffixes.append("requires_grad=True")
    half = d in (dt.bfloat16, dt.float16)
    prefix = "tensor(" if type(t) in (Tensor, Parameter) else f"{type(t).__name__}("
    return printing.show(a.astype(np.float32) if half else a, suffixes, prefix)
