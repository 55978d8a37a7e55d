"""Module: a tree of layers that own parameters and buffers.

Parameters, buffers and child modules live in three dicts; assigning an attribute files it in its
own.  `module(x)` calls `forward`; hooks around it are in hooks.py, saving and loading in tree.py.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self

import weft
from weft import Parameter, Tensor
from weft.nn import hooks, tree
from weft.nn.hooks import Everywhere, RemovableHandle
from weft.nn.parameter import Buffer
from weft.nn.tree import Tree

__all__ = ["Module", "OptimizedModule"]

_HOOK_DICTS = (
    "_backward_pre_hooks", "_backward_hooks", "_forward_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)  # fmt: skip


def _no_forward(self: Any, *input: Any) -> None:
    """The computation; subclasses write it."""
    raise NotImplementedError(
        f'Module [{type(self).__name__}] is missing the required "forward" function'
    )


class Module(Tree):
    """Base of all layers and models: write `__init__` and `forward`."""

    _version: int = 1
    training: bool
    call_super_init: bool = False
    _hooked: bool = False  # once True, calls look at the hook dicts
    _compiled_call_impl: Callable | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.call_super_init and kwargs:
            raise TypeError(
                f"{type(self).__name__}.__init__() got an unexpected keyword argument "
                f"'{next(iter(kwargs))}'"
            )
        if not self.call_super_init and args:
            raise TypeError(
                f"{type(self).__name__}.__init__() takes 1 positional argument but "
                f"{len(args) + 1} were given"
            )
        own = self.__dict__
        own["training"] = True
        own["_parameters"] = {}
        own["_buffers"] = {}
        own["_non_persistent_buffers_set"] = set()
        for name in _HOOK_DICTS:
            own[name] = OrderedDict()
        own["_modules"] = {}
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    forward: Callable[..., Any] = _no_forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooked or Everywhere.active:
            return self._call_hooked(args, kwargs)
        try:
            return self.forward(*args, **kwargs)
        except AttributeError as e:
            raise hooks.explained(self, args, e) from None

    def _call_hooked(self, args: tuple, kwargs: dict) -> Any:
        if self._compiled_call_impl is not None:
            return self._compiled_call_impl(*args, **kwargs)
        return hooks.call(self, args, kwargs)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Run later calls of this module through `weft.compile`."""

        def call_impl(*a: Any, **k: Any) -> Any:
            return hooks.call(self, a, k)

        self._compiled_call_impl = weft.compile(call_impl, *args, **kwargs)
        self._hooked = True

    def _compile_as_module(self, wrap: Callable[[Callable], Callable]) -> OptimizedModule:
        """What `weft.compile(module)` gives."""
        return OptimizedModule(self, wrap)

    # ------------------------------------------------------------------ attributes

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        if "_modules" in own:  # not before Module.__init__()
            if name in (found := own["_parameters"]) or name in (found := own["_modules"]):
                return found[name]
            if name in (found := own["_buffers"]):
                return found[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        params = own.get("_parameters")
        if isinstance(value, Parameter):
            if params is None:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            self._forget(name, own, self._buffers, self._modules)
            self.register_parameter(name, value)
            return
        if params is not None and name in params:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{weft.typename(value)}' as parameter '{name}' "
                    "(torch.nn.Parameter or None expected)"
                )
            self.register_parameter(name, value)
            return
        modules = own.get("_modules")
        is_module = isinstance(value, Module)
        if is_module or (modules is not None and name in modules):
            if modules is None:
                raise AttributeError("cannot assign module before Module.__init__() call")
            if is_module:
                self._forget(name, own, self._parameters, self._buffers)
            elif value is not None:
                raise TypeError(
                    f"cannot assign '{weft.typename(value)}' as child module '{name}' "
                    "(torch.nn.Module or None expected)"
                )
            modules[name] = hooks.replaced(Everywhere.module.values(), self, name, value)
            return
        buffers = own.get("_buffers")
        if isinstance(value, Buffer) or (buffers is not None and name in buffers):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"cannot assign '{weft.typename(value)}' as buffer '{name}' "
                    "(torch.nn.Buffer, torch.Tensor or None expected)"
                )
            kept = name not in own.get("_non_persistent_buffers_set", ())
            kept = value.persistent if isinstance(value, Buffer) else kept
            self.register_buffer(name, value, kept)
            return
        object.__setattr__(self, name, value)

    def _forget(self, name: str, *places: dict) -> None:
        for place in places:
            if name in place:
                del place[name]
        self._non_persistent_buffers_set.discard(name)

    def __delattr__(self, name: str) -> None:
        for place in (self._parameters, self._buffers, self._modules):
            if name in place:
                del place[name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = [*dir(type(self)), *self.__dict__]
        names += [*self._parameters, *self._modules, *self._buffers]
        return sorted(n for n in names if not n[0].isdigit())

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but not trained; in the state_dict when `persistent`."""
        self._check_name(name, "buffer", "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{weft.typename(tensor)}' object to buffer '{name}' "
                "(torch Tensor or None required)"
            )
        self._buffers[name] = hooks.replaced(Everywhere.buffer.values(), self, name, tensor)
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under `name`; None reserves the name."""
        self._check_name(name, "parameter", "_parameters")
        if param is None:
            self._parameters[name] = None
            return
        if not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{weft.typename(param)}' object to parameter '{name}' "
                "(torch.nn.Parameter or None required)"
            )
        if param.grad_fn is not None:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be "
                f"created explicitly. To express '{name}' as a function of another Tensor, compute "
                "the value in the forward() method."
            )
        self._parameters[name] = hooks.replaced(Everywhere.parameter.values(), self, name, param)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child under `name`."""
        if not isinstance(module, Module) and module is not None:
            raise TypeError(f"{weft.typename(module)} is not a Module subclass")
        self._check_name(name, "module", "_modules")
        self._modules[name] = hooks.replaced(Everywhere.module.values(), self, name, module)

    register_module = add_module

    def _check_name(self, name: Any, kind: str, place: str) -> None:
        if place not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {weft.typename(name)}")
        if name not in self.__dict__[place] and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")
        if "." in name:
            got = f", got: {name}" if kind == "module" else ""
            raise KeyError(f'{kind} name can\'t contain "."{got}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')

    # ------------------------------------------------------------------ modes and conversion

    def train(self, mode: bool = True) -> Self:
        """Set training mode on this module and all below it."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """train(False)"""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set requires_grad on every parameter."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop every parameter's gradient, or fill it with zeros."""
        for p in self.parameters():
            if p.grad is None:
                continue
            if set_to_none:
                p.grad = None
            else:
                p.grad.detach_().zero_()

    def apply(self, fn: Callable[[Module], None]) -> Self:
        """Call `fn` on every module, children first."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Replace the value of every parameter, gradient and buffer by fn of it."""
        if recurse:
            for child in self.children():
                child._apply(fn)
        with weft.no_grad():
            for p in self._parameters.values():
                if p is None:
                    continue
                grad, p.grad = p.grad, None
                p.data = fn(p)
                if grad is not None:
                    p.grad = fn(grad)
            for name, b in self._buffers.items():
                if b is not None:
                    self._buffers[name] = fn(b)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """`to(dtype)`, `to(device)`, `to(tensor)`: floating and complex tensors change dtype.

        `memory_format` is that of tensors of 4 or 5 dims.
        """
        dtype = kwargs.get("dtype")
        for a in args:
            dtype = a if isinstance(a, weft.dtype) else a.dtype if isinstance(a, Tensor) else dtype
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(
                "nn.Module.to only accepts floating point or complex dtypes, but got desired "
                f"dtype={dtype}"
            )
        kwargs.pop("dtype", None)
        form = kwargs.pop("memory_format", None)
        rest = [a for a in args if not isinstance(a, (weft.dtype, Tensor))]

        def convert(t: Tensor) -> Tensor:
            wanted = {"memory_format": form} if form is not None and t.dim() in (4, 5) else {}
            changes = t.is_floating_point() or t.is_complex()
            return t.to(*rest, dtype=dtype if changes else None, **kwargs, **wanted)

        return self._apply(convert)

    def type(self, dst_type: Any) -> Self:
        """Every parameter and buffer in another dtype."""
        return self._apply(
            lambda t: t.type(dst_type) if isinstance(dst_type, str) else t.to(dst_type)
        )

    def float(self) -> Self:
        """Floating parameters and buffers as float32."""
        return self._cast(weft.float32)

    def double(self) -> Self:
        """Floating parameters and buffers as float64."""
        return self._cast(weft.float64)

    def half(self) -> Self:
        """Floating parameters and buffers as float16."""
        return self._cast(weft.float16)

    def bfloat16(self) -> Self:
        """Floating parameters and buffers as bfloat16."""
        return self._cast(weft.bfloat16)

    def _cast(self, dtype: weft.dtype) -> Self:
        return self._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)

    def cpu(self) -> Self:
        """Everything on the CPU."""
        return self._apply(lambda t: t.cpu())

    def cuda(self, device: Any = None) -> Self:
        """RuntimeError: Weft computes on the CPU."""
        return self._apply(lambda t: t.cuda(device))

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Fresh memory that nobody has written for every tensor."""
        return self._apply(lambda t: weft.empty_like(t, device=device), recurse=recurse)

    def share_memory(self) -> Self:
        """The module itself, its tensors in memory that processes forked from now on share."""
        return self._apply(lambda t: t.share_memory_())

    # ------------------------------------------------------------------ hooks

    def register_forward_pre_hook(
        self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """hook(module, args[, kwargs]) before forward; a result replaces the arguments."""
        handle = self._hook("_forward_pre_hooks", hook, prepend=prepend)
        if with_kwargs:
            self._forward_pre_hooks_with_kwargs[handle.id] = True
        return handle

    def register_forward_hook(
        self,
        hook: Callable,
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """hook(module, args[, kwargs], output) after forward; a result replaces the output."""
        handle = self._hook("_forward_hooks", hook, prepend=prepend)
        if with_kwargs:
            self._forward_hooks_with_kwargs[handle.id] = True
        if always_call:
            self._forward_hooks_always_called[handle.id] = True
        return handle

    def register_full_backward_pre_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """hook(module, grad_output) before the backward pass of this module."""
        return self._hook("_backward_pre_hooks", hook, prepend=prepend)

    def register_full_backward_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """hook(module, grad_input, grad_output); a result replaces grad_input."""
        return self._hook("_backward_hooks", hook, prepend=prepend)

    register_backward_hook = register_full_backward_hook

    def _hook(self, place: str, hook: Callable, *, prepend: bool = False) -> RemovableHandle:
        self._hooked = True
        return RemovableHandle(self.__dict__[place], hook, prepend=prepend)

    def register_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """hook(module, prefix, keep_vars) before state_dict collects this module."""
        return RemovableHandle(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """hook(module, state_dict, prefix, local_metadata), which must return None."""

        def checked(*args: Any) -> None:
            if hook(*args) is not None:
                raise RuntimeError("state_dict post-hook must return None")

        return RemovableHandle(self._state_dict_hooks, checked)

    def _register_state_dict_hook(self, hook: Callable) -> RemovableHandle:
        return RemovableHandle(self._state_dict_hooks, hook)

    def register_load_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """hook(module, state_dict, prefix, metadata, strict, missing, unexpected, errors)."""
        return RemovableHandle(self._load_state_dict_pre_hooks, hook)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable, with_module: bool = False
    ) -> RemovableHandle:
        made = hook if with_module else _LoadPreHook(hook)
        return RemovableHandle(self._load_state_dict_pre_hooks, made)

    def register_load_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """hook(module, incompatible_keys), which may change the keys in place."""
        return RemovableHandle(self._load_state_dict_post_hooks, hook)

    # ------------------------------------------------------------------ saving and loading

    get_extra_state = tree.no_extra_state
    set_extra_state = tree.set_no_extra_state

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        tree.save(self, destination, prefix, keep_vars)

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        """An OrderedDict of all parameters and persistent buffers, detached unless `keep_vars`."""
        if args:
            warnings.warn(
                "Positional args are being deprecated, use kwargs instead.",
                FutureWarning,
                stacklevel=2,
            )
            given: tuple = (*args, *(destination, prefix, keep_vars)[len(args) :])
            destination, prefix, keep_vars = given
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, child in self._modules.items():
            if child is not None:
                child.state_dict(
                    destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
                )
        for hook in self._state_dict_hooks.values():
            got = hook(self, destination, prefix, metadata)
            destination = destination if got is None else got
        return destination

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        for hook in self._load_state_dict_pre_hooks.values():
            hook(
                self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                error_msgs,
            )  # fmt: skip
        assign = local_metadata.get("assign_to_params_buffers", False)
        tree.load_own(
            self, state_dict, prefix, assign, strict, missing_keys, unexpected_keys, error_msgs
        )

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> tree.IncompatibleKeys:
        """Copy (or, with `assign`, take over) the tensors of `state_dict`.

        RuntimeError lists all missing and unexpected keys (when `strict`) and wrong shapes.
        """
        return tree.load(self, state_dict, strict=strict, assign=assign)

    def __getstate__(self) -> dict:
        own = self.__dict__.copy()
        own.pop("_compiled_call_impl", None)
        return own

    def __setstate__(self, saved: dict) -> None:
        self.__dict__.update(saved)
        for name in _HOOK_DICTS:
            self.__dict__.setdefault(name, OrderedDict())
        self.__dict__.setdefault("_non_persistent_buffers_set", set())

    # ------------------------------------------------------------------ printing

    def _get_name(self) -> str:
        return type(self).__name__

    _repr_names: ClassVar[str] = ""  # of attributes; of those with a comma the value alone

    def extra_repr(self) -> str:
        """What to print of this module beside its children."""
        shown = []
        for name in self._repr_names.split():
            value = getattr(self, name.rstrip(","))
            value = value is not None if name == "bias" else value
            shown.append(str(value) if name[-1] == "," else f"{name}={value}")
        return ", ".join(shown)

    def __repr__(self) -> str:
        extra = self.extra_repr()
        own = extra.split("\n") if extra else []
        lines = [f"({k}): " + indented(repr(m)) for k, m in self._modules.items()]
        if len(own) == 1 and not lines:
            return f"{self._get_name()}({own[0]})"
        inner = "\n  ".join(own + lines)
        return f"{self._get_name()}(" + (f"\n  {inner}\n" if inner else "") + ")"


class _LoadPreHook:
    """A load_state_dict pre-hook that is not given the module; it can be copied and pickled."""

    def __init__(self, hook: Callable) -> None:
        self.hook = hook

    def __call__(self, module: Module, *rest: Any) -> None:
        self.hook(*rest)


def indented(text: str) -> str:
    """The text with every line but the first moved right by two."""
    return text.replace("\n", "\n  ")


def ntuple(x: Any, n: int) -> tuple:
    """n times `x`, or the n numbers that `x` holds."""
    return tuple(x) if isinstance(x, Iterable) else (x,) * n


_OF_THE_CALL = ("memory", "stats")
_OWN = ("training", "_hooked", "_compiled_call_impl")


class OptimizedModule(Module):
    """The module, called through `weft.compile`: same parameters, same results.

    Attributes are those of the original, `_orig_mod`; `memory()` and `stats` tell of the compiled
    call.  As in torch the names in `state_dict()` begin with `_orig_mod.`: save the original's.
    """

    def __init__(self, module: Module, wrap: Callable[[Callable], Callable]) -> None:
        super().__init__()
        self._modules["_orig_mod"] = module
        object.__setattr__(self, "_compiled", wrap(module.__call__))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooked or Everywhere.active:
            return self._call_hooked(args, kwargs)
        return self._compiled(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    @property
    def training(self) -> bool:
        return self._modules["_orig_mod"].training

    @training.setter
    def training(self, value: bool) -> None:
        module = self.__dict__.get("_modules", {}).get("_orig_mod")
        if module is not None:  # None while Module.__init__ runs
            module.training = value

    def __getattr__(self, name: str) -> Any:
        modules = self.__dict__.get("_modules", {})
        if name == "_orig_mod":
            return modules[name]
        module = modules["_orig_mod"]
        if name in _OF_THE_CALL and not hasattr(module, name):
            return getattr(self._compiled, name)
        return getattr(module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        elif name == "_orig_mod":
            raise AttributeError("weft.compile the other module instead")
        else:
            setattr(self._modules["_orig_mod"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._modules["_orig_mod"], name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._modules["_orig_mod"])})
