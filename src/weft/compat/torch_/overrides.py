"""torch.overrides: who takes part in calls of torch's functions, by `__torch_function__`."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import weft
from weft.core import overrides as _protocol

__all__ = [
    "TorchFunctionMode", "get_default_nowrap_functions", "get_ignored_functions",
    "get_overridable_functions", "handle_torch_function", "has_torch_function", "is_tensor_like",
    "is_tensor_method_or_property", "resolve_name", "wrap_torch_function",
]  # fmt: skip


def has_torch_function(args: Iterable[Any]) -> bool:
    """Whether a mode is on, or one of the objects has a `__torch_function__` of its own."""
    return _protocol.asked(args)


def has_torch_function_unary(arg: Any) -> bool:
    """has_torch_function of one object."""
    return _protocol.asked((arg,))


def has_torch_function_variadic(*args: Any) -> bool:
    """has_torch_function of the arguments."""
    return _protocol.asked(args)


def is_tensor_like(inp: Any) -> bool:
    """Whether an object is a tensor or has a `__torch_function__`."""
    return type(inp) is weft.Tensor or hasattr(inp, "__torch_function__")


def handle_torch_function(
    public_api: Callable, relevant_args: Iterable[Any], *args: Any, **kwargs: Any
) -> Any:
    """What the objects among `relevant_args` answer to `public_api(*args, **kwargs)`.

    TypeError when all answer NotImplemented.
    """
    return _protocol.ask(public_api, _protocol.overloaded(relevant_args), args, kwargs)


def wrap_torch_function(dispatcher: Callable) -> Callable:
    """A decorator: the function asks the objects that `dispatcher(*args, **kwargs)` names."""

    def decorate(func: Callable) -> Callable:
        @functools.wraps(func)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            relevant = dispatcher(*args, **kwargs)
            if has_torch_function(relevant):
                return handle_torch_function(wrapped, relevant, *args, **kwargs)
            return func(*args, **kwargs)

        return wrapped

    return decorate


def get_default_nowrap_functions() -> set:
    """Functions whose results Tensor's own `__torch_function__` leaves as they are."""
    return {weft.Tensor.grad.__get__}


def get_overridable_functions() -> dict[Any, list[Callable]]:
    """The functions that ask, by the module or class that has them."""
    spaces = {
        "torch": weft, "torch.Tensor": weft.Tensor, "torch.nn.functional": weft.nn.functional,
        "torch.linalg": weft.linalg, "torch.special": weft.special, "torch.fft": weft.fft,
    }  # fmt: skip
    out: dict[Any, list[Callable]] = defaultdict(list)
    for function, name in _protocol.named().items():
        place = name.removesuffix(".__get__").removesuffix(".__set__").rpartition(".")[0]
        out[spaces[place]].append(function)
    return dict(out)


def get_ignored_functions() -> set[Callable]:
    """Public functions that ask nobody."""
    named = _protocol.named()
    return {f for n in dir(weft) if callable(f := getattr(weft, n)) and f not in named}


def resolve_name(f: Any) -> str | None:
    """torch's dotted name of an overridable function, else None."""
    return _protocol.named().get(f)


def is_tensor_method_or_property(func: Any) -> bool:
    """Whether a function is a method of Tensor, or the getter or setter of a property."""
    return (_protocol.named().get(func) or "").startswith("torch.Tensor.")


class TorchFunctionMode:
    """A context that is asked, by its `__torch_function__`, before the objects.

    Inside its own answer it is not asked again.
    """

    inner: TorchFunctionMode

    def __torch_function__(
        self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        raise NotImplementedError

    def __enter__(self) -> Any:
        _protocol.push_mode(self)
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        _protocol.pop_mode()

    @classmethod
    def push(cls, *args: Any, **kwargs: Any) -> Any:
        """An object of the class; the context's older spelling."""
        return cls(*args, **kwargs)


class BaseTorchFunctionMode(TorchFunctionMode):
    """A mode that lets every call through."""

    def __torch_function__(
        self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}))
