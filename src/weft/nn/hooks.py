"""Hooks on modules: what runs around `forward` and `backward` of a hooked module.

A module without hooks never comes here (module.py calls `forward` at once).
"""

from __future__ import annotations

import inspect
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import weft
from weft.autograd import Function
from weft.ops.dispatch import NoTensor

AROUND_CALLS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
RemovableHandle = weft.autograd.hooks.RemovableHandle


class Everywhere:
    """Hooks that every module calls.  `active`: calls have to look for them."""

    active = False
    forward_pre: OrderedDict[int, Callable] = OrderedDict()
    forward: OrderedDict[int, Callable] = OrderedDict()
    forward_with_kwargs: dict[int, bool] = {}
    forward_always: dict[int, bool] = {}
    backward_pre: OrderedDict[int, Callable] = OrderedDict()
    backward: OrderedDict[int, Callable] = OrderedDict()
    # called when a module, parameter or buffer is assigned to any module
    module: OrderedDict[int, Callable] = OrderedDict()
    parameter: OrderedDict[int, Callable] = OrderedDict()
    buffer: OrderedDict[int, Callable] = OrderedDict()


def _add_everywhere(hooks: OrderedDict, hook: Callable) -> RemovableHandle:
    Everywhere.active = True
    return RemovableHandle(hooks, hook)


def register_module_forward_pre_hook(hook: Callable) -> RemovableHandle:
    """hook(module, args) before every module's forward; a result replaces the arguments."""
    return _add_everywhere(Everywhere.forward_pre, hook)


def register_module_forward_hook(
    hook: Callable, *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """hook(module, args, output) after every module's forward; a result replaces the output."""
    handle = _add_everywhere(Everywhere.forward, hook)
    if with_kwargs:
        Everywhere.forward_with_kwargs[handle.id] = True
    if always_call:
        Everywhere.forward_always[handle.id] = True
    return handle


def register_module_full_backward_pre_hook(hook: Callable) -> RemovableHandle:
    """hook(module, grad_output) before every module's backward."""
    return _add_everywhere(Everywhere.backward_pre, hook)


def register_module_full_backward_hook(hook: Callable) -> RemovableHandle:
    """hook(module, grad_input, grad_output) after every module's backward."""
    return _add_everywhere(Everywhere.backward, hook)


def register_module_module_registration_hook(hook: Callable) -> RemovableHandle:
    """hook(module, name, submodule) when a module is assigned to any module."""
    return RemovableHandle(Everywhere.module, hook)


def register_module_parameter_registration_hook(hook: Callable) -> RemovableHandle:
    """hook(module, name, parameter) when a parameter is assigned to any module."""
    return RemovableHandle(Everywhere.parameter, hook)


def register_module_buffer_registration_hook(hook: Callable) -> RemovableHandle:
    """hook(module, name, buffer) when a buffer is assigned to any module."""
    return RemovableHandle(Everywhere.buffer, hook)


def replaced(hooks: Iterable[Callable], module: Any, name: str, value: Any) -> Any:
    """`value` after the registration hooks, each of which may replace it."""
    for hook in hooks:
        got = hook(module, name, value)
        value = value if got is None else got
    return value


def explained(module: Any, args: tuple, error: AttributeError) -> AttributeError:
    """What a call of a module ended in, or, where one of ours took an argument for a tensor that is
    none and missed an attribute, TypeError.
    """
    name, x = error.name, error.obj
    if name is None or not type(module).__module__.startswith("weft.nn."):
        return error
    if not hasattr(weft.Tensor, name) or isinstance(x, weft.Tensor):
        return error
    names = iter(inspect.signature(module.forward).parameters)
    for i, (argument, given) in enumerate(zip(names, args, strict=False)):
        if given is x:
            return NoTensor(
                f"{type(module).__name__}.forward(): argument '{argument}' (position {i + 1}) must "
                f"be Tensor, not {type(x).__name__}"
            )
    return error


def call(module: Any, args: tuple, kw: dict) -> Any:
    """module.forward(*args, **kw) with the hooks around it."""
    if Everywhere.active and not any(
        (Everywhere.forward_pre, Everywhere.forward, Everywhere.backward_pre, Everywhere.backward)
    ):
        Everywhere.active = False  # the last one was removed
    if not (Everywhere.active or any(module.__dict__[name] for name in AROUND_CALLS)):
        if module._compiled_call_impl is None:
            module.__dict__["_hooked"] = False  # the last hook was removed
        return module.forward(*args, **kw)
    run = _Call(module, args, kw)
    try:
        return run.run()
    except Exception:
        run.after_error()
        raise


class _Call:
    """One call of a hooked module."""

    def __init__(self, module: Any, args: tuple, kw: dict) -> None:
        self.module, self.args, self.kw = module, args, kw
        self.result: Any = None
        self.called: set[int] = set()  # hooks with always_call that have run

    def run(self) -> Any:
        m = self.module
        for key, hook in (*Everywhere.forward_pre.items(), *m._forward_pre_hooks.items()):
            self._before(key, hook)
        backward = None
        if (
            m._backward_hooks
            or m._backward_pre_hooks
            or Everywhere.backward
            or Everywhere.backward_pre
        ):
            backward = _Backward(m)
            self.args = backward.on_inputs(self.args)
        self.result = m.forward(*self.args, **self.kw)
        for key, hook in (*Everywhere.forward.items(), *m._forward_hooks.items()):
            self._after(key, hook)
        if backward is not None:
            if not isinstance(self.result, (weft.Tensor, tuple)):
                warnings.warn(
                    "For backward hooks to be called, module output should be a Tensor or a tuple "
                    f"of Tensors but received {type(self.result)}",
                    stacklevel=4,
                )
            self.result = backward.on_outputs(self.result)
        return self.result

    def _before(self, key: int, hook: Callable) -> None:
        if key in self.module._forward_pre_hooks_with_kwargs:
            got = hook(self.module, self.args, self.kw)
            if got is None:
                return
            if not (isinstance(got, tuple) and len(got) == 2):
                raise RuntimeError(
                    "forward pre-hook must return None or a tuple of (new_args, new_kwargs), but "
                    f"got {got}."
                )
            self.args, self.kw = got
        else:
            got = hook(self.module, self.args)
            if got is not None:
                self.args = got if isinstance(got, tuple) else (got,)

    def _after(self, key: int, hook: Callable) -> None:
        m = self.module
        if key in m._forward_hooks_always_called or key in Everywhere.forward_always:
            self.called.add(key)
        if key in m._forward_hooks_with_kwargs or key in Everywhere.forward_with_kwargs:
            got = hook(m, self.args, self.kw, self.result)
        else:
            got = hook(m, self.args, self.result)
        if got is not None:
            self.result = got

    def after_error(self) -> None:
        """Call what must run even when forward raised; its own errors become warnings."""
        m = self.module
        for key, hook in (*Everywhere.forward.items(), *m._forward_hooks.items()):
            always = key in m._forward_hooks_always_called or key in Everywhere.forward_always
            if not always or key in self.called:
                continue
            try:
                self._after(key, hook)
            except Exception as e:
                warnings.warn(
                    "module forward hook with ``always_call=True`` raised an exception that was "
                    f"silenced as another error was raised in forward: {e}",
                    stacklevel=4,
                )


class _Pass(Function):
    """The same tensors; `notify(grads) -> grads` is called when all their gradients are known."""

    @staticmethod
    def forward(ctx: Any, notify: Callable, *tensors: Any) -> tuple:
        ctx.notify = notify
        ctx.set_materialize_grads(False)
        return tensors

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple:
        return (None, *ctx.notify(grads))


class _Backward:
    """The backward hooks of one call: identity nodes at its outputs and at its inputs."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.hooks = [*Everywhere.backward.values(), *module._backward_hooks.values()]
        self.pre_hooks = [*Everywhere.backward_pre.values(), *module._backward_pre_hooks.values()]
        self.grad_outputs: tuple | None = None
        self.inputs: list[int] | None = None  # places of the tensors among the arguments
        self.n_inputs = 0

    def on_inputs(self, args: tuple) -> tuple:
        self.n_inputs = len(args)
        args, self.inputs = _through(self._grad_inputs_known, args)
        return args

    def on_outputs(self, result: Any) -> Any:
        single = not isinstance(result, tuple)
        outs = (result,) if single else result
        places = [i for i, x in enumerate(outs) if isinstance(x, weft.Tensor)]

        def known(grads: tuple) -> tuple:
            return self._grad_outputs_known(grads, places, len(outs))

        outs, _ = _through(known, outs)
        return outs[0] if single else outs

    def _grad_outputs_known(self, grads: tuple, places: list[int], n: int) -> tuple:
        full = _spread(grads, places, n)
        for hook in self.pre_hooks:
            got = hook(self.module, full)
            if got is None:
                continue
            got = got if isinstance(got, tuple) else (got,)
            if len(got) != n:
                raise RuntimeError(
                    "Backward pre hook returned an invalid number of grad_output, "
                    f"got {len(got)}, but expected {n}"
                )
            full = got
        if self.inputs is None:  # no input wants a gradient: nothing further will call the hooks
            for hook in self.hooks:
                got = hook(self.module, (None,) * self.n_inputs, full)
                if got is not None and not (isinstance(got, tuple) and all(g is None for g in got)):
                    raise RuntimeError(
                        "Backward hook for Modules where no input requires gradient should always "
                        "return None or None for all gradients."
                    )
        else:
            self.grad_outputs = full
        return tuple(full[i] for i in places)

    def _grad_inputs_known(self, grads: tuple) -> tuple:
        if self.grad_outputs is None:  # a gradient reached the input past the output
            return grads
        assert self.inputs is not None
        full = _spread(grads, self.inputs, self.n_inputs)
        for hook in self.hooks:
            got = hook(self.module, full, self.grad_outputs)
            if got is None:
                continue
            got = got if isinstance(got, tuple) else (got,)
            if len(got) != self.n_inputs:
                raise RuntimeError(
                    "Backward hook returned an invalid number of grad_input, "
                    f"got {len(got)}, but expected {self.n_inputs}"
                )
            full = got
        self.grad_outputs = None
        return tuple(full[i] for i in self.inputs)


def _through(notify: Callable, values: tuple) -> tuple[tuple, list[int] | None]:
    """The values with their tensors passed through a node; the places of the tensors.

    The places are None where nothing wants a gradient.
    """
    places = [i for i, x in enumerate(values) if isinstance(x, weft.Tensor)]
    tensors = [values[i] for i in places]
    if not (weft.is_grad_enabled() and any(t.requires_grad for t in tensors)):
        return values, None
    passed = dict(zip(places, _Pass.apply(notify, *tensors), strict=True))
    made = [passed.get(i, x) for i, x in enumerate(values)]
    return (tuple(made) if type(values) is tuple else type(values)(*made)), places


def _spread(grads: tuple, places: list[int], n: int) -> tuple:
    full: list = [None] * n
    for i, g in zip(places, grads, strict=True):
        full[i] = g
    return tuple(full)
