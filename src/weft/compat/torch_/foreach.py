"""`torch._foreach_NAME`: a tensor method over lists, and in place as `_foreach_NAME_`.

Made from one table.  An operand is a list (one entry a tensor: tensors or numbers) or one number or
tensor for all.  Lists give lists: a tuple of results, or the list that was changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import weft
from weft import Tensor

_UNARY = (
    "abs acos asin atan ceil cos cosh erf erfc exp expm1 floor frac lgamma log log10 log1p log2 "
    "neg reciprocal round rsqrt sigmoid sign sin sinh sqrt tan tanh trunc"
)
# operands after the list, and the keywords that they may be given by
_TABLE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_UNARY.split(), ()),
    **dict.fromkeys(("add", "sub"), ("other scalar scalars", "alpha")),
    **dict.fromkeys(
        ("mul", "div", "maximum", "minimum", "clamp_max", "clamp_min"), ("other scalar scalars",)
    ),
    "pow": ("exponent",),
    "lerp": ("tensors1", "weight weights"),
    **dict.fromkeys(("addcmul", "addcdiv"), ("tensor1", "tensor2", "value scalars")),
    "mm": ("mat2",),
    "norm": ("ord", "dtype"),
    "powsum": ("ord", "dtype"),
    "max": (),
    "clone": ("memory_format",),
    "copy_": ("src", "non_blocking"),
    "zero_": (),
}
_NOT_IN_PLACE = {"mm", "norm", "powsum", "max", "clone"}
_METHODS = {"maximum": "clamp_min", "minimum": "clamp_max"}
_AS_KEYWORDS = {"alpha", "value scalars", "memory_format", "dtype"}


def _powsum(x: Tensor, ord: Any = 2, dtype: Any = None) -> Tensor:
    """sum |x|^ord"""
    return (x if dtype is None else x.to(dtype)).abs().pow(ord).sum()


def _norm(x: Tensor, ord: Any = 2, dtype: Any = None) -> Tensor:
    return weft.linalg.vector_norm(x, ord, dtype=dtype)


def _lists(name: str, args: tuple) -> int:
    """The common length; RuntimeError, in torch's words, where there is none."""
    sizes = [len(a) for a in args if isinstance(a, (list, tuple))]
    if 0 in sizes:
        raise RuntimeError("Tensor list must have at least one tensor.")
    for a in args:
        if isinstance(a, (list, tuple)) and len(a) != sizes[0]:
            if isinstance(a[0], Tensor):
                raise RuntimeError(
                    f"{name}: Tensor lists must have the same number of tensors, "
                    f"got {sizes[0]} and {len(a)}"
                )
            raise RuntimeError(
                f"{name}: Tensor list must have same number of elements as scalar list, "
                f"got {sizes[0]} and {len(a)}"
            )
    return sizes[0]


def _method(name: str) -> Callable:
    own = {"norm": _norm, "powsum": _powsum}
    return own[name] if name in own else getattr(Tensor, _METHODS.get(name, name))


def _made(name: str, operands: tuple[str, ...], in_place: bool) -> Callable:
    public = f"_foreach_{name}" + "_" * (in_place and not name.endswith("_"))
    method = name if name.endswith("_") or not in_place else _METHODS.get(name, name) + "_"
    one = _method(name) if method == name else getattr(Tensor, method)

    def call(tensors: Sequence[Tensor], *args: Any, **kw: Any) -> Any:
        given = dict(zip(operands, args))
        for key, value in kw.items():
            place = next((o for o in operands if key in o.split()), None)
            if place is None or place in given:
                raise TypeError(f"{public}() got an unexpected keyword argument '{key}'")
            given[place] = value
        if len(args) > len(operands):
            raise TypeError(
                f"{public}() takes {len(operands) + 1} arguments but {len(args) + 1} were given"
            )
        if isinstance(given.get("value scalars"), Tensor):
            given["value scalars"] = given["value scalars"].tolist()
        count = _lists(public, (tensors, *given.values()))
        out = []
        for i in range(count):
            each = [tensors, *given.values()]
            x, *rest = (a[i] if isinstance(a, (list, tuple)) else a for a in each)
            x = x if isinstance(x, Tensor) else weft.tensor(x)  # pow of a number
            plain = [v for k, v in zip(given, rest) if k not in _AS_KEYWORDS]
            named = {
                k.split()[0]: v for k, v in zip(given, rest) if k in _AS_KEYWORDS and v is not None
            }
            out.append(one(x, *plain, **named))
        return list(out) if in_place else tuple(out)

    call.__name__ = call.__qualname__ = public
    call.__doc__ = f"`{name.rstrip('_')}` of each tensor" + (", in place." if in_place else ".")
    return call


for _name, _operands in _TABLE.items():
    if not _name.endswith("_"):
        globals()[f"_foreach_{_name}"] = _made(_name, _operands, False)
    if _name not in _NOT_IN_PLACE:
        globals()[f"_foreach_{_name.rstrip('_')}_"] = _made(_name, _operands, True)
