"""weft.nested: tensors of tensors whose sizes differ in some dims, under torch.nested's names.

A NestedTensor is a list of dense tensors of one rank and dtype; a function on it is the function on
each of them, and so are its gradients.  What has no such form raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from weft.core import dtype as dt
from weft.core import layouts, overrides
from weft.core.handle import Handle, bare
from weft.ops import construct, creation, join, pad, subclass, view
from weft.tensor import Tensor

__all__ = ["as_nested_tensor", "nested_tensor", "to_padded_tensor"]

_SIZES = "Internal error: NestedTensorImpl doesn't support sizes. Please file an issue."


class _Described:
    """What a nested tensor has where others have an array: a dtype."""

    offset, outer = 0, None

    def __init__(self, dtype: dt.dtype) -> None:
        self.dtype = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        raise RuntimeError(_SIZES)

    strides = shape

    def demand(self, t: Any) -> Any:
        """NotImplementedError: something wants one array."""
        raise NotImplementedError(
            "this function does not take nested tensors: to_padded_tensor() first"
        )


def _answer(native: Callable, public: Callable, args: tuple, kw: dict) -> Any:
    """A public function called with a nested tensor: its rule, or the function on each part."""
    name = overrides.bare_name(public)
    if name in _RULES:
        return _RULES[name](*args, **kw)
    if name in _BY_PART:
        if name in _WITH_DIM:
            args, kw = _inner_dims(name, args, kw)
        return _each(native, name, args, kw)
    if name in _OF_DTYPE:
        return native(*args, **kw)
    raise NotImplementedError(
        f"Could not run 'aten::{name}' with arguments from the 'NestedTensorCPU' backend: Weft has "
        "no nested form of it (to_padded_tensor() first)"
    )


class NestedTensor(Tensor, layout=_answer):
    """A list of tensors as one."""

    __torch_function__: Any = staticmethod(overrides.disabled_torch_function)
    _parts: list[Tensor]
    is_nested: bool


def _make(parts: Iterable[Any], d: dt.dtype | None = None) -> NestedTensor:
    parts = list(parts)
    overrides.switch_on()
    for i, p in enumerate(parts):
        if p.ndim != parts[0].ndim:
            raise RuntimeError(
                "All Tensors given to nested_tensor must have the same dimension. Found dimension "
                f"{p.ndim} for Tensor at index {i} and dimension {parts[0].ndim} for Tensor at "
                "index 0."
            )
    made: Any = bare(NestedTensor)
    made._ghost = _Described(parts[0].dtype if parts else d or dt.get_default_dtype())
    made._parts, made.is_nested = parts, True
    return made


def _each(native: Callable, name: str, args: tuple, kw: dict) -> NestedTensor:
    """The function on each part; dense operands are the same for all, where it takes them."""
    nested = [a for a in (*args, *kw.values()) if isinstance(a, NestedTensor)]
    count = len(nested[0]._parts)
    if any(len(a._parts) != count for a in nested):
        raise RuntimeError(f"{name}: nested tensors of {[len(a._parts) for a in nested]} parts")
    dense = [a for a in (*args, *kw.values()) if type(a) is Tensor and a.ndim]
    if dense and name in _PAIRS:
        raise RuntimeError(
            "Expected both self and other to be nested, but got a nested self and non-nested other"
            if isinstance(args[0], NestedTensor)
            else "Expected both self and other to be nested, but got a non-nested self"
        )

    def part(a: Any, i: int) -> Any:
        return a._parts[i] if isinstance(a, NestedTensor) else a

    rows = (
        native(*(part(a, i) for a in args), **{k: part(v, i) for k, v in kw.items()})
        for i in range(count)
    )
    return _make(rows, nested[0]._ghost.dtype)


def _inner_dims(name: str, args: tuple, kw: dict) -> tuple[tuple, dict]:
    """Dims of the parts for dims of the whole, whose dim 0 counts the parts."""
    rank = args[0].dim()

    def inner(d: Any) -> Any:
        if not isinstance(d, int) or isinstance(d, bool):
            return d
        if not -rank <= d < rank:
            raise IndexError(
                f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but "
                f"got {d})"
            )
        if d % rank == 0:
            raise RuntimeError(f"{name}: not over dim 0 of a nested tensor, which counts its parts")
        return d % rank - 1

    count = 1 + _WITH_DIM[name]
    moved = (args[0], *(inner(a) for a in args[1:count]), *args[count:])
    return moved, {k: inner(v) if k.startswith("dim") else v for k, v in kw.items()}


_EACH = (
    "relu gelu silu sin cos tanh sigmoid neg abs sqrt logical_not sgn elu leaky_relu hardtanh "
    "clone detach contiguous to type float double half bfloat16 long int short bool cpu "
    "requires_grad_ dropout linear layer_norm embedding softmax log_softmax transpose select "
    "add sub mul div matmul bmm __rsub__ masked_fill"
)
_BY_PART = frozenset(_EACH.split())
_WITH_DIM = {"softmax": 1, "log_softmax": 1, "transpose": 2, "select": 1}  # how many dims
_PAIRS = frozenset(("add", "sub", "mul", "div", "matmul", "bmm", "__rsub__"))
_QUESTIONS = (
    "dtype itemsize element_size is_floating_point is_complex is_signed device is_cuda is_sparse "
    "get_device cuda"
)
_OF_DTYPE = frozenset(_QUESTIONS.split())


def _size(t: NestedTensor, dim: int | None = None) -> int:
    """The size of a dim that is the same in all parts."""
    if dim is None:
        raise RuntimeError(_SIZES)
    dim = dim % _dim(t)
    if dim == 0:
        return len(t._parts)
    sizes = {int(p.shape[dim - 1]) for p in t._parts}
    if len(sizes) != 1:
        raise RuntimeError(f"Given dimension {dim} is irregular and does not have a size.")
    return sizes.pop()


def _no(what: str) -> Callable:
    def refuse(t: NestedTensor, *args: Any, **kw: Any) -> Any:
        raise RuntimeError(_SIZES.replace("sizes", what))

    return refuse


def _dim(t: NestedTensor) -> int:
    return 1 + (t._parts[0].ndim if t._parts else 0)


def to_padded_tensor(
    input: NestedTensor, padding: float, output_size: Any = None, out: Any = None
) -> Tensor:
    """One dense tensor, (parts, the largest sizes or output_size), filled up with `padding`.

    RuntimeError where output_size is too small.
    """
    if not isinstance(input, NestedTensor):
        raise NotImplementedError(
            "Could not run 'aten::to_padded_tensor' with arguments from the 'CPU' backend: the "
            "tensor is not nested"
        )
    parts = input._parts
    if not parts:
        return creation.zeros(0, dtype=input._ghost.dtype)
    largest = [max(p.shape[d] for p in parts) for d in range(parts[0].ndim)]
    if output_size is not None:
        asked = [int(n) for n in output_size]
        if len(asked) != len(largest) + 1 or any(
            n < m for n, m in zip(asked, (len(parts), *largest), strict=True)
        ):
            raise RuntimeError(
                "Value in output_size is less than NestedTensor padded size. Truncation is not "
                "supported."
            )
        largest, more = asked[1:], asked[0] - len(parts)
    else:
        more = 0
    rows = []
    for p in parts:
        wide = [k for n, m in zip(reversed(p.shape), reversed(largest), strict=True)
                for k in (0, m - n)]  # fmt: skip
        rows.append(pad.pad(p, wide, value=padding) if any(wide) else p)
    rows += [creation.full(largest, padding, dtype=parts[0].dtype)] * more
    return join.stack(rows)


def _show(t: NestedTensor, **kw: Any) -> str:
    lines = ",\n".join("  " + repr(p).replace("\n", "\n  ") for p in t._parts)
    tail = ", requires_grad=True" if _requires_grad(t) and _is_leaf(t) else ""
    return f"nested_tensor([\n{lines}\n]{tail})"


def _requires_grad(t: NestedTensor, *flag: Any) -> Any:
    if flag:
        for p in t._parts:
            p.requires_grad_(flag[0])
        return None
    return any(p._rg for p in t._parts)


def _is_leaf(t: NestedTensor) -> bool:
    return all(p._fn is None for p in t._parts)


def _grad(t: NestedTensor, *value: Any) -> Any:
    if value:
        given = [None] * len(t._parts) if value[0] is None else value[0]._parts
        for p, g in zip(t._parts, given, strict=True):
            p.grad = g
        return None
    if all(p._grad is None for p in t._parts):
        return None
    return _make(creation.zeros_like(p) if p._grad is None else p._grad for p in t._parts)


def _getitem(t: NestedTensor, at: Any) -> Any:
    if isinstance(at, tuple):
        return t[at[0]][at[1:]]
    if not isinstance(at, int):
        raise NotImplementedError(f"a nested tensor takes one int as an index, got {at!r}")
    if not -len(t._parts) <= at < len(t._parts):
        raise IndexError(f"index {at} is out of bounds for dimension 0 with size {len(t._parts)}")
    return t._parts[at]


def _cat(tensors: Any, dim: int = 0, *, out: Any = None) -> NestedTensor:
    if dim != 0 or not all(isinstance(t, NestedTensor) for t in tensors):
        raise RuntimeError("cat: nested tensors are joined along dim 0, with nested tensors only")
    return _make(p for t in tensors for p in t._parts)


_RULES: dict[str, Callable] = {
    "size": _size,
    "shape": _no("sizes"),
    "stride": _no("strides"),
    "numpy": _no("sizes"),
    "tolist": _no("strides"),
    "dim": _dim,
    "ndim": _dim,
    "numel": lambda t: sum(p.numel() for p in t._parts),
    "layout": lambda t: layouts.strided,
    "unbind": lambda t, dim=0: tuple(t._parts),
    "to_padded_tensor": overrides.twin(to_padded_tensor),
    "__repr__": _show,
    "requires_grad": _requires_grad,
    "is_leaf": _is_leaf,
    "grad": _grad,
    "__getitem__": _getitem,
    "cat": _cat,
    "is_contiguous": lambda t, memory_format=None: True,
    "__deepcopy__": lambda t, memo: _make(p.__deepcopy__(memo) for p in t._parts),
}


def _rows(tensor_list: Any, d: dt.dtype | None) -> list[Tensor]:
    rows: list[Any] = [
        t if isinstance(t, Handle) else construct.tensor(t, dtype=d) for t in tensor_list
    ]
    return [r if d is None else r.to(d) for r in rows]


def nested_tensor(
    tensor_list: Any, *, dtype: dt.dtype | None = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> NestedTensor:  # fmt: skip
    """A new leaf that copies tensors (or lists of numbers) of one rank."""
    if layout not in (None, layouts.strided):
        raise NotImplementedError(f"nested_tensor: Weft has no layout {layout}")
    rows = [creation.clone(r.detach()) for r in _rows(tensor_list, dtype)]
    return _make((subclass.make_subclass(Tensor, r, requires_grad) for r in rows), dtype)


def as_nested_tensor(
    ts: Any, dtype: dt.dtype | None = None, device: Any = None, layout: Any = None
) -> NestedTensor:
    """Tensors as one nested tensor: gradients flow to them."""
    if layout not in (None, layouts.strided):
        raise NotImplementedError(f"as_nested_tensor: Weft has no layout {layout}")
    if isinstance(ts, NestedTensor):
        return ts if dtype is None else ts.to(dtype)
    return _make((view.view(r, tuple(r.shape)) for r in _rows(ts, dtype)), dtype)
