"""torch.library, torch.ops: operators of one's own, with their own gradient, and where they are.

An operator's function runs below the tape: its gradient is the one that register_autograd gave it,
and without one `backward` raises, as in torch.  Of compiled libraries Weft loads none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import weft
from weft.autograd import Function

OPERATORS: dict[str, CustomOpDef] = {}  # by "namespace::name"
_ON_CPU = (None, "", "cpu", "CPU", "CompositeExplicitAutograd", "default")


class CustomOpDef:
    """One operator: a function, the kernels and rules registered for it, and a way to call it."""

    def __init__(self, name: str, fn: Callable | None) -> None:
        self._qualname = name
        self.__name__ = name.rpartition("::")[2]
        self._kernel = fn
        self._whole: Callable | None = None  # made of other operators, which have gradients
        self._backward: Callable | None = None
        self._setup: Callable | None = None
        self.fake: Callable | None = None  # the rule for shapes: kept, for shapes come from running
        self.__doc__ = fn.__doc__ if fn is not None else None

    def __repr__(self) -> str:
        return f"<CustomOpDef({self._qualname})>"

    @property
    def default(self) -> CustomOpDef:
        """The one overload."""
        return self

    def register_autograd(
        self, backward: Callable, /, *, setup_context: Callable | None = None
    ) -> None:
        """backward(ctx, *grads) gives the gradients; setup_context(ctx, inputs, output) saves."""
        self._backward, self._setup = backward, setup_context

    def register_kernel(self, device_types: Any, func: Callable | None = None, /) -> Any:
        """The function to run on these devices; of which only the CPU is there."""

        def keep(f: Callable) -> Callable:
            kinds = [device_types] if isinstance(device_types, str) else device_types
            if kinds is None or "cpu" in kinds:
                self._kernel = f
            return f

        return keep if func is None else keep(func)

    def register_fake(self, func: Callable, /) -> Callable:
        """The rule for shapes, kept as `fake`: under Weft shapes come from running."""
        self.fake = func
        return func

    def register_vmap(self, func: Callable | None = None, /) -> Any:
        """Without effect: vmap batches the operations inside the function."""
        return (lambda f: f) if func is None else func

    register_torch_dispatch = register_kernel

    def set_kernel_enabled(self, device_type: str, enabled: bool = True) -> Any:
        """RuntimeError: one kernel an operator."""
        raise RuntimeError(f"set_kernel_enabled: {self._qualname} has one kernel")

    def __call__(self, *args: Any, **kw: Any) -> Any:
        if self._whole is not None:
            return self._whole(*args, **kw)
        kernel = self._kernel
        if kernel is None:
            raise NotImplementedError(f"operator {self._qualname} has no function for the CPU")
        bound = inspect.signature(kernel).bind(*args, **kw)
        bound.apply_defaults()
        named = bound.kwargs
        return _rule(self, kernel, named).apply(*bound.args)


def _rule(op: CustomOpDef, kernel: Callable, named: dict) -> type[Function]:
    """The Function of one call: keyword-only arguments belong to the call."""

    class Rule(Function):
        @staticmethod
        def forward(*args: Any) -> Any:
            return kernel(*args, **named)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
            if op._setup is None:
                return
            if named:
                op._setup(ctx, inputs, named, output)
            else:
                op._setup(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            if op._backward is None:
                raise RuntimeError(
                    f"Trying to backward through {op._qualname.replace('::', '.')}.default but no "
                    "autograd formula was registered. Please use register_autograd to add one."
                )
            return op._backward(ctx, *grads)

    Rule.__name__ = op.__name__
    return Rule


def _operator(op: Any) -> CustomOpDef:
    """The operator of a name, made if new: rules may come before the function."""
    if isinstance(op, CustomOpDef):
        return op
    name = str(op).partition("(")[0].partition(".")[0]
    return OPERATORS.setdefault(name, CustomOpDef(name, None))


def custom_op(
    name: str, fn: Callable | None = None, /, *, mutates_args: Any = (), **kw: Any
) -> Any:
    """The function as the operator `namespace::name`, also found in torch.ops."""

    def keep(f: Callable) -> CustomOpDef:
        if "::" not in name:
            raise ValueError(f"custom_op: {name!r} must be namespace::name")
        made = OPERATORS[name] = CustomOpDef(name, f)
        return made

    return keep if fn is None else keep(fn)


triton_op = custom_op


def register_fake(op: Any, func: Callable | None = None, /, **kw: Any) -> Any:
    """The rule for shapes, kept: under Weft shapes come from running."""
    made = _operator(op)
    return made.register_fake if func is None else made.register_fake(func)


impl_abstract = register_fake


def register_kernel(op: Any, device_types: Any, func: Callable | None = None, /, **kw: Any) -> Any:
    """The function to run on these devices; of which only the CPU is there."""
    return _operator(op).register_kernel(device_types, func)


def register_vmap(op: Any, func: Callable | None = None, /, **kw: Any) -> Any:
    """Without effect: vmap batches the operations inside the function."""
    return (lambda f: f) if func is None else func


def register_torch_dispatch(op: Any, cls: Any, func: Callable | None = None, /, **kw: Any) -> Any:
    """Without effect: there is no dispatcher below the tape."""
    return (lambda f: f) if func is None else func


def register_autograd(
    op: Any, backward: Callable, /, *, setup_context: Callable | None = None, lib: Any = None
) -> None:
    """The operator's gradient; see CustomOpDef.register_autograd."""
    _operator(op).register_autograd(backward, setup_context=setup_context)


class Library:
    """A namespace of operators; `impl` gives one its function."""

    def __init__(self, ns: str, kind: str, dispatch_key: str = "") -> None:
        self.ns, self.kind, self.dispatch_key = ns, kind, dispatch_key

    def define(self, schema: str, *args: Any, **kw: Any) -> str:
        """Name an operator."""
        _operator(f"{self.ns}::{schema}")
        return schema.partition("(")[0]

    def impl(self, op_name: Any, fn: Any, dispatch_key: str = "", **kw: Any) -> None:
        """Give an operator its function for a dispatch key; those of absent devices are dropped."""
        name = str(op_name).rpartition("::")[2]
        impl(f"{self.ns}::{name}", dispatch_key or self.dispatch_key, fn)


def define(qualname: str, schema: str = "", *, lib: Any = None, tags: Any = ()) -> None:
    """Name an operator."""
    _operator(qualname)


def impl(qualname: Any, types: Any, func: Callable | None = None, **kw: Any) -> Any:
    """Give an operator its function for device types or a dispatch key."""

    def keep(f: Callable) -> Callable:
        made = _operator(qualname)
        for kind in [types] if types is None or isinstance(types, str) else types:
            if kind in _ON_CPU:
                made._kernel = f
            elif kind in ("CompositeImplicitAutograd", "Autograd", "AutogradCPU"):
                made._whole = f
        return f

    return keep if func is None else keep(func)


# ------------------------------------------------------------------------------ torch.ops


class _Overload:
    """One overload of an operator of torch's own: the function of that name."""

    def __init__(self, name: str, fn: Any) -> None:
        self._name, self._fn = name, fn
        self._overloads: dict[str, _Overload] = {}

    def __call__(self, *args: Any, **kw: Any) -> Any:
        if self._fn is None:
            raise NotImplementedError(f"Weft has no operator {self._name} to call")
        return self._fn(*args, **kw)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or self._name.count(".") > 1:
            raise AttributeError(name)
        full = f"{self._name}.{name}"
        return self._overloads.setdefault(name, _Overload(full, self._fn))

    def __repr__(self) -> str:
        return f"<OpOverload(op='{self._name}')>"


# Operators without a function of their name, that packages use as keys of tables; a call raises.
_KEYS = {
    "alias", "index", "slice", "_to_copy", "_pin_memory", "_sparse_addmm", "_sparse_mm_reduce_impl",
}  # fmt: skip


class _Aten:
    """torch's own operators by name: keys of tables, and functions where Weft has one so named."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        homes = (weft, weft.nn.functional, weft.Tensor)
        fn = next((f for h in homes if callable(f := getattr(h, name, None))), None)
        if fn is None and name not in _KEYS:
            raise AttributeError(f"Weft has no torch.ops.aten.{name}")
        made = self.__dict__[name] = _Overload(f"aten.{name}", fn)
        return made


class _Namespace:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = OPERATORS.get(f"{self._name}::{name}")
        if found is not None:
            return found
        raise AttributeError(
            f"Weft has no torch.ops.{self._name}.{name}: torch.library defines none, and no "
            "compiled operators are loaded"
        )


class _Ops:
    """torch.ops."""

    aten = _Aten()

    @staticmethod
    def load_library(path: Any) -> None:
        raise OSError(f"Weft loads no library of compiled torch operators: {path}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Namespace(name)


ops = _Ops()
