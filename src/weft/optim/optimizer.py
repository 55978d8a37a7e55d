"""Optimizer: parameters in groups, a state for each parameter, and a step.

The number of steps taken is a Python float in `state[p]["step"]` (COUNTERS are such numbers), so
that a step never waits for a tensor's value; `state_dict()` shows it as a float32 tensor, as
torch's does, and `load_state_dict()` takes either.
"""

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import chain
from typing import Any, ClassVar

import weft
from weft import Tensor
from weft.ops.dispatch import alike

__all__ = ["Optimizer"]

RemovableHandle = weft.autograd.hooks.RemovableHandle


class _Required:
    """The default of a setting that has none."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()

_global_pre_hooks: OrderedDict[int, Callable] = OrderedDict()
_global_post_hooks: OrderedDict[int, Callable] = OrderedDict()
_HOOK_DICTS = tuple(
    f"_optimizer_{name}_hooks"
    for name in ("step_pre", "step_post", "state_dict_pre", "state_dict_post",
                 "load_state_dict_pre", "load_state_dict_post")
)  # fmt: skip


def register_optimizer_step_pre_hook(hook: Callable) -> RemovableHandle:
    """hook(optimizer, args, kwargs) before every optimizer's step."""
    return RemovableHandle(_global_pre_hooks, hook)


def register_optimizer_step_post_hook(hook: Callable) -> RemovableHandle:
    """hook(optimizer, args, kwargs) after every optimizer's step."""
    return RemovableHandle(_global_post_hooks, hook)


def _with_hooks(step: Callable) -> Callable:
    """`step` with the optimizer's and the global step hooks around it."""

    @functools.wraps(step)
    def hooked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "_optimizer_step_pre_hooks" not in self.__dict__:  # a wrapper that skipped __init__
            return step(self, *args, **kwargs)
        given = (self, *args)
        for hook in (*_global_pre_hooks.values(), *self._optimizer_step_pre_hooks.values()):
            got = hook(self, given, kwargs)
            if got is None:
                continue
            if not (isinstance(got, tuple) and len(got) == 2):
                raise RuntimeError(
                    f"{step} must return None or a tuple of (new_args, new_kwargs), but got {got}."
                )
            given, kwargs = got
        self._opt_called = True  # learning-rate schedules look whether any step came before theirs
        out = step(*given, **kwargs)
        for hook in (*self._optimizer_step_post_hooks.values(), *_global_post_hooks.values()):
            hook(self, given, kwargs)
        return out

    return hooked


class Optimizer:
    """Base of all optimizers; subclasses write `step`.

    `params` are tensors, (name, tensor) pairs, or dicts {"params": ..., and settings of the group}.
    """

    _optimizer_step_pre_hooks: OrderedDict[int, Callable]
    _optimizer_step_post_hooks: OrderedDict[int, Callable]
    _optimizer_state_dict_pre_hooks: OrderedDict[int, Callable]
    _optimizer_state_dict_post_hooks: OrderedDict[int, Callable]
    _optimizer_load_state_dict_pre_hooks: OrderedDict[int, Callable]
    _optimizer_load_state_dict_post_hooks: OrderedDict[int, Callable]

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        for name in _HOOK_DICTS:
            setattr(self, name, OrderedDict())
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, "
                f"but got {params.type()}"
            )
        self.state: defaultdict[Any, Any] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _with_hooks(cls.__dict__["step"])

    def step(self, closure: Callable | None = None) -> Any:
        """Update the parameters from their gradients; returns the closure's loss."""
        raise NotImplementedError

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop every parameter's gradient, or fill it with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if set_to_none:
                    p.grad = None
                else:
                    p.grad.detach_().zero_()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; missing settings are the defaults."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        params = param_group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the "
                "ordering of tensors in sets will change between runs. Please use a list instead."
            )
        params = list(params)
        if params and isinstance(params[0], tuple):
            param_group["param_names"] = [name for name, _ in params]
            params = [p for _, p in params]
        param_group["params"] = params
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(
                    "optimizer can only optimize Tensors, but one of the params is "
                    f"{type(p).__name__}"
                )
            if not self.defaults.get("differentiable") and not (
                p.is_leaf or getattr(p, "retains_grad", False)
            ):
                raise ValueError("can't optimize a non-leaf Tensor")
        for name, value in self.defaults.items():
            if value is required and name not in param_group:
                raise ValueError(
                    "parameter group didn't specify a value of required optimization parameter "
                    f"{name}"
                )
            param_group.setdefault(name, value)
        if len({id(p) for p in params}) != len(params):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this "
                "will cause an error; see github.com/pytorch/pytorch/issues/40967 for more "
                "information",
                stacklevel=3,
            )
        taken = {id(p) for g in self.param_groups for p in g["params"]}
        if any(id(p) in taken for p in params):
            raise ValueError("some parameters appear in more than one parameter group")
        if self.param_groups and ("param_names" in param_group) != (
            "param_names" in self.param_groups[0]
        ):
            raise ValueError(
                "all optimizer param groups should be with/without names. cannot add param group "
                f"{'with' if 'param_names' in param_group else 'without'} names to the optimizer"
            )
        self.param_groups.append(param_group)

    # ------------------------------------------------------------------ saving and loading

    def state_dict(self) -> dict[str, Any]:
        """{"state": {index: {...}}, "param_groups": [...]}; parameters are numbered in order."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            packed = {k: v for k, v in group.items() if k != "params"}
            for p in group["params"]:
                numbers.setdefault(id(p), len(numbers))
            packed["params"] = [numbers[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {
            numbers[id(k)] if isinstance(k, Tensor) else k: _shown(v) for k, v in self.state.items()
        }
        made = {"state": state, "param_groups": groups}
        for hook in self._optimizer_state_dict_post_hooks.values():
            got = hook(self, made)
            made = made if got is None else got
        return made

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; ValueError when the groups do not match.

        Tensors are cast to their parameter's dtype.
        """
        state_dict = state_dict.copy()
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            got = hook(self, state_dict)
            state_dict = state_dict if got is None else got
        saved = deepcopy(state_dict["param_groups"])
        if len(saved) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        for group, new in zip(self.param_groups, saved, strict=True):
            if len(group["params"]) != len(new["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of "
                    "optimizer's group"
                )
        by_number = dict(
            zip(
                chain.from_iterable(g["params"] for g in saved),
                chain.from_iterable(g["params"] for g in self.param_groups),
                strict=True,
            )
        )
        state: defaultdict[Any, Any] = defaultdict(dict)
        for k, v in state_dict["state"].items():
            if k in by_number:
                state[by_number[k]] = _taken(by_number[k], v)
            else:
                state[k] = v
        for group, new in zip(self.param_groups, saved, strict=True):
            new["params"] = group["params"]
            if "param_names" in group:
                new.setdefault("param_names", group["param_names"])
        self.__setstate__({"state": state, "param_groups": saved})
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "defaults": self.defaults,
            "state": self.state,
            "param_groups": self.param_groups,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in _HOOK_DICTS:
            self.__dict__.setdefault(name, OrderedDict())
        for group in self.param_groups:  # settings that did not exist when the state was saved
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    # ------------------------------------------------------------------ hooks

    def register_step_pre_hook(self, hook: Callable) -> RemovableHandle:
        """hook(optimizer, args, kwargs) before step; may return new (args, kwargs)."""
        return RemovableHandle(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> RemovableHandle:
        """hook(optimizer, args, kwargs) after step."""
        return RemovableHandle(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """hook(optimizer) before state_dict."""
        return RemovableHandle(self._optimizer_state_dict_pre_hooks, hook, prepend=prepend)

    def register_state_dict_post_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """hook(optimizer, state_dict) after state_dict; a result replaces it."""
        return RemovableHandle(self._optimizer_state_dict_post_hooks, hook, prepend=prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """hook(optimizer, state_dict) before loading; a result replaces the state_dict."""
        return RemovableHandle(self._optimizer_load_state_dict_pre_hooks, hook, prepend=prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """hook(optimizer) after loading."""
        return RemovableHandle(self._optimizer_load_state_dict_post_hooks, hook, prepend=prepend)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {group[k]}" for k in sorted(group) if k != "params"]
        return "\n".join([*lines, ")"])


COUNTERS = ("step", "mu_product", "eta", "mu")  # Python floats that state_dict shows as tensors


def _shown(state: Any) -> Any:
    """A parameter's state as state_dict shows it."""
    if not isinstance(state, dict):
        return state
    return {
        k: weft.tensor(v) if k in COUNTERS and isinstance(v, float) else v for k, v in state.items()
    }


def _taken(p: Tensor, value: Any, key: Any = None) -> Any:
    """A loaded value for parameter `p`."""
    if isinstance(value, Tensor):
        if key in COUNTERS:
            return float(value)
        return value.to(p.dtype) if p.is_floating_point() else value
    if isinstance(value, dict):
        return {k: _taken(p, v, k) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return type(value)(_taken(p, v) for v in value)  # type: ignore[call-arg]
    return value


_PROGRAM_FROM = 1 << 18  # elements; below, calling the ops costs less than matching them


class ByParameter(Optimizer):
    """An optimizer that updates one parameter at a time: subclasses write `_start` and `_update`.

    Settings that every one of torch's optimizers takes: `maximize` climbs instead of descending;
    `differentiable` keeps the step on the tape; `foreach`, `fused` and `capturable` choose among
    torch's implementations and change nothing here; mixtures that torch refuses are refused.

    Inside a compiled function, parameters with equal counters are updated alike (`alike`): which
    ops an `_update` of this package calls depends on settings, counters and layouts only, and the
    numbers they get on settings and counters only.
    """

    _program: Any = None  # `_update_all`, compiled: the same bits, memory read and written once
    _alike: ClassVar[Any] = None  # the `_update` for which that holds
    _takes: ClassVar[str] = "dense"  # which gradients: dense, sparse, both

    def __init_subclass__(cls, *, by_shape: bool = False, **kwargs: Any) -> None:
        """`by_shape`: the numbers of `_update` depend on the parameter's shape too."""
        super().__init_subclass__(**kwargs)
        if "_update" in cls.__dict__:
            own = cls.__module__.startswith("weft.optim.") and not by_shape
            cls._alike = cls.__dict__["_update"] if own else None

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        foreach, fused = defaults.get("foreach"), defaults.get("fused")
        if fused and defaults.get("differentiable"):
            raise RuntimeError("`fused` does not support `differentiable`")
        if fused and foreach:
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
        if isinstance(defaults["lr"], Tensor) and foreach and not defaults.get("capturable", True):
            raise ValueError(
                "lr as a Tensor is not supported for capturable=False and foreach=True"
            )
        super().__init__(params, defaults)

    def step(self, closure: Callable | None = None) -> Any:
        """Update the parameters that have a gradient; returns the closure's loss."""
        loss = None
        if closure is not None:
            with weft.enable_grad():
                loss = closure()
        differentiable = bool(self.defaults.get("differentiable", False))
        update = self._update
        known = type(self)._alike is update.__func__ and not differentiable
        repeat = alike() if known else None
        with weft.set_grad_enabled(weft.is_grad_enabled() and differentiable):
            if known and repeat is None and self._worth_a_program():
                if self._program is None:
                    self._program = weft.compile(ByParameter._update_all)
                self._program(self)
            else:
                self._update_all()
        return loss

    def _worth_a_program(self) -> bool:
        """Whether a step moves so much memory that its ops should run as one program: not the first
        step, which makes the states, nor one of few elements or of unusual gradients.
        """
        total = 0
        for group in self.param_groups:
            for p in group["params"]:
                grad = p.grad
                if grad is not None:
                    if grad.__class__ is not Tensor or p.is_complex() or not self.state.get(p):
                        return False
                    total += p.numel()
        return total >= _PROGRAM_FROM

    def _update_all(self) -> None:
        update = self._update
        repeat = alike() if type(self)._alike is update.__func__ else None
        if repeat is not None and repeat.whole(update, self.param_groups, self.state):
            return
        for group in self.param_groups:
            for p in group["params"]:
                grad = p.grad
                if grad is None:
                    continue
                if grad.__class__ is not Tensor or self._takes == "sparse":
                    self._check_layout(grad)
                state = self.state.get(p)
                if not state:
                    state = self._start(p, group)
                    if state:
                        self.state[p] = state
                if group.get("maximize"):
                    grad = -grad
                if p.is_complex():
                    _update_pairs(update, p, grad, state, group)
                elif repeat is None:
                    update(p, grad, state, group)
                else:
                    repeat(update, p, grad, state, group)
        if repeat is not None:
            repeat.learn(update, self.param_groups)

    def _check_layout(self, grad: Tensor) -> None:
        """RuntimeError for a gradient of a layout that this optimizer does not take."""
        name = type(self).__name__
        if grad.layout is not weft.strided and self._takes == "dense":
            name = "Adam" if name == "AdamW" else name
            beside = ", please consider SparseAdam instead" if name == "Adam" else ""
            raise RuntimeError(f"{name} does not support sparse gradients{beside}")
        if grad.layout is weft.strided and self._takes == "sparse":
            raise RuntimeError(
                f"{name} does not support dense gradients, please consider Adam instead"
            )

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The state of a parameter before its first step."""
        raise NotImplementedError

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """One step of one parameter."""
        raise NotImplementedError


def with_values(s: Tensor, values: Tensor) -> Tensor:
    """A sparse tensor at the places of `s`, each named once."""
    return weft.sparse_coo_tensor(s.indices(), values, s.shape, is_coalesced=True)


def number(x: Any) -> Any:
    """A setting that may be a one-element tensor, as a Python number."""
    return x.item() if isinstance(x, Tensor) else x


def check_step_size(lr: Any) -> None:
    """ValueError unless lr is one number >= 0, in the words of torch's younger optimizers."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not number(lr) >= 0.0:
        raise ValueError(f"Learning rate should be >= 0 but is: {lr}")


def check(lr: Any, **least: float) -> None:
    """ValueError unless lr and the named settings are >= 0."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not number(lr) >= 0.0:
        raise ValueError(f"Invalid learning rate: {lr}")
    for name, value in least.items():
        if not value >= 0.0:
            label = {"eps": "epsilon value"}.get(name, f"{name} value")
            raise ValueError(f"Invalid {label}: {value}")


def check_betas(betas: tuple) -> None:
    """ValueError unless both are in [0, 1)."""
    for i in (0, 1):
        if not 0.0 <= number(betas[i]) < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {betas[i]}")


def zeros(p: Tensor) -> Tensor:
    """The usual start of a moving average."""
    return weft.zeros_like(p)


def _update_pairs(
    update: Callable, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
) -> None:
    """The update of complex numbers: as torch's, of their real and imaginary parts each alone."""
    pairs = {k: weft.view_as_real(v) if _is_complex(v) else v for k, v in state.items()}
    before = dict(pairs)
    update(weft.view_as_real(p), weft.view_as_real(grad), pairs, group)
    for k, v in pairs.items():
        if v is not before.get(k):
            made = isinstance(v, Tensor) and v.shape == (*p.shape, 2)
            state[k] = weft.view_as_complex(v) if made else v


def _is_complex(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_complex()
