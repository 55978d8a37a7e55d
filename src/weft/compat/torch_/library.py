"""torch.library: operators of one's own are the Python functions that define them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _itself(*args: Any, **kw: Any) -> Callable:
    return lambda fn: fn


def custom_op(
    name: str, fn: Callable | None = None, /, *, mutates_args: Any = (), **kw: Any
) -> Any:
    """The function, with the registrations that torch's operators have as methods."""

    def keep(f: Callable) -> Callable:
        for method in ("register_fake", "register_kernel", "register_vmap"):
            setattr(f, method, _itself)
        f.register_autograd = lambda *a, **k: None  # type: ignore[attr-defined]
        return f

    return keep if fn is None else keep(fn)


triton_op = custom_op


def register_fake(op: Any, func: Callable | None = None, /, **kw: Any) -> Any:
    """Kept out: shapes come from running the function."""
    return (lambda fn: fn) if func is None else func


register_kernel = register_vmap = impl_abstract = register_torch_dispatch = register_fake


def register_autograd(op: Any, backward: Any, /, **kw: Any) -> None:
    """Kept out: gradients come from the function's own ops."""


class Library:
    """A namespace of operators: definitions are accepted, and none becomes callable by it."""

    def __init__(self, ns: str, kind: str, dispatch_key: str = "") -> None:
        self.ns, self.kind = ns, kind

    def define(self, schema: str, *args: Any, **kw: Any) -> str:
        return schema.partition("(")[0]

    def impl(self, op_name: Any, fn: Any, dispatch_key: str = "", **kw: Any) -> None:
        """Kept out."""


def define(*args: Any, **kw: Any) -> None:
    """Kept out."""


def impl(qualname: Any, types: Any, func: Callable | None = None, **kw: Any) -> Any:
    return (lambda fn: fn) if func is None else func
