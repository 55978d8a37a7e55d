"""Names that torch keeps in modules of its own, old ones and inner ones: one class a module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any, Union

import weft
import weft.data.loader as _loader
from weft import nn, optim, profiler
from weft.compat.torch_.answers import Absent, Idle, no, nothing
from weft.core import printing
from weft.nn.tree import IncompatibleKeys


class config:
    """torch.__config__: how it was built."""

    @staticmethod
    def show() -> str:
        return "Weft\n  - CPU kernels made at run time by LLVM\n"

    @staticmethod
    def parallel_info() -> str:
        return "Weft: native threads\n"


class internals:
    """torch._utils, torch.utils._foreach_utils: flat copies and groups of tensors."""

    @staticmethod
    def _flatten_dense_tensors(tensors: Sequence[weft.Tensor]) -> weft.Tensor:
        """The tensors' entries one after the other, in one new tensor."""
        return weft.cat([t.reshape(-1) for t in tensors])

    @staticmethod
    def _unflatten_dense_tensors(
        flat: weft.Tensor, tensors: Sequence[weft.Tensor]
    ) -> tuple[weft.Tensor, ...]:
        """Views of `flat` in the shapes of `tensors`, in order."""
        pieces = flat.split([t.numel() for t in tensors])
        return tuple(p.view(t.shape) for p, t in zip(pieces, tensors, strict=True))

    @staticmethod
    def _get_available_device_type() -> None:
        """There is no accelerator."""

    @staticmethod
    def _group_tensors_by_device_and_dtype(
        tensorlistlist: Sequence[Sequence[weft.Tensor | None]], with_indices: bool = False
    ) -> dict[tuple, tuple[list, list[int]]]:
        """(device, dtype) of the first list's tensors -> (those entries of each list, places)."""
        groups: dict[tuple, tuple[list, list[int]]] = {}
        for place, entries in enumerate(zip(*tensorlistlist, strict=True)):
            first: Any = entries[0]
            lists, places = groups.setdefault(
                (first.device, first.dtype), ([[] for _ in entries], [])
            )
            for kept, entry in zip(lists, entries, strict=True):
                kept.append(entry)
            if with_indices:
                places.append(place)
        return groups

    @staticmethod
    def _get_foreach_kernels_supported_devices() -> list[str]:
        return []

    _get_fused_kernels_supported_devices = _get_foreach_kernels_supported_devices

    @staticmethod
    def _device_has_foreach_support(device: Any) -> bool:
        """torch's answer on a CPU outside a script."""
        return device.type == "cpu"

    @staticmethod
    def _has_foreach_support(tensors: list[weft.Tensor], device: Any) -> bool:
        """Whether all are on a device with functions over lists, and of no other class."""
        plain = all(t is None or type(t) is weft.Tensor for t in tensors)
        return internals._device_has_foreach_support(device) and plain


class tensor_str:
    """How tensors print, as packages that print their own kinds ask for it."""

    PRINT_OPTS = printing.OPTIONS
    set_printoptions = printing.set_printoptions

    @staticmethod
    def _tensor_str(t: Any, indent: int = 0) -> str:
        """The numbers of a tensor, lines after the first moved right by `indent`."""
        text = repr(t.detach()).removeprefix("tensor(")
        numbers = text[: text.rindex("]") + 1] if "]" in text else text.rstrip(")")
        return numbers.replace("\n" + " " * len("tensor("), "\n" + " " * indent)


class c_nn:
    @staticmethod
    def _parse_to(
        *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False,
        copy: bool = False, memory_format: Any = None,
    ) -> tuple:  # fmt: skip
        """(device, dtype, non_blocking, memory_format) of to(device, dtype), to(tensor), ..."""
        for a in args:
            if isinstance(a, weft.dtype):
                dtype = a
            elif isinstance(a, weft.Tensor):
                device, dtype = a.device, a.dtype
            elif isinstance(a, bool):
                non_blocking = a
            elif a is not None:
                device = a
        return None if device is None else weft.device(device), dtype, non_blocking, memory_format


class autograd:
    """Names older than the tensor itself."""

    class _VariableType(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, weft.Tensor)

    class Variable(metaclass=_VariableType):
        """Variable(t, requires_grad) is a tensor over t's memory, off its tape."""

        def __new__(cls, data: Any, requires_grad: bool = False, volatile: bool = False) -> Any:
            return data.detach().requires_grad_(requires_grad)

    _profiler_enabled = no


class autograd_graph:
    class save_on_cpu(Idle):
        """A context without effect: saved tensors lie in the CPU's memory already."""


class autograd_profiler:
    """The older spelling of torch.profiler."""

    EventList, record_function = profiler.EventList, profiler.record_function

    class profile(profiler.profile):
        """As weft.profiler.profile; `enabled=False` watches nothing."""

        def __init__(self, enabled: bool = True, **kw: Any) -> None:
            off = None if enabled else (lambda _: profiler.ProfilerAction.NONE)
            known = ("record_shapes", "profile_memory", "with_stack", "with_flops", "with_modules")
            super().__init__(schedule=off, **{k: v for k, v in kw.items() if k in known})

    class emit_nvtx(Absent):
        why = "Weft does not mark ranges for CUDA's tools; weft.profiler writes Chrome traces"


class modules:
    """Names of the files of torch.nn.modules."""

    __all__ = ["_IncompatibleKeys"]

    _ConvNd = nn.Conv2d.__mro__[1]
    _BatchNorm = nn.BatchNorm2d.__mro__[1]
    _InstanceNorm = nn.InstanceNorm2d.__mro__[1]
    _Loss = nn.MSELoss.__mro__[1]
    _WeightedLoss = nn.CrossEntropyLoss.__mro__[1]
    _NormBase = _BatchNorm.__mro__[1]
    _IncompatibleKeys = IncompatibleKeys

    class NonDynamicallyQuantizableLinear(nn.Linear):
        """Linear, marked for torch's quantizer."""

    @staticmethod
    def _get_activation_fn(activation: str) -> Callable:
        """relu or gelu by name."""
        if activation not in ("relu", "gelu"):
            raise RuntimeError(f"activation should be relu/gelu, not {activation}")
        return getattr(nn.functional, activation)

    @staticmethod
    def _ntuple(n: int, name: str = "parse") -> Callable:
        """A function that makes an n-tuple of a number, and a tuple of anything iterable."""

        def parse(x: Any) -> tuple:
            return tuple(x) if isinstance(x, Iterable) else tuple(repeat(x, n))

        parse.__name__ = name
        return parse

    _single, _pair = _ntuple(1, "_single"), _ntuple(2, "_pair")
    _triple, _quadruple = _ntuple(3, "_triple"), _ntuple(4, "_quadruple")


class nn_parameter:
    @staticmethod
    def is_lazy(param: Any) -> bool:
        """Whether a parameter waits for its shape."""
        return type(param).__name__.startswith("Uninitialized")


class nn_utils:
    """A name that torch deprecated."""

    clip_grad_norm = nn.utils.clip_grad_norm_


class lr_scheduler:
    _LRScheduler = optim.lr_scheduler.LRScheduler  # its old name


class optimizer:
    """Names of torch/optim/optimizer.py."""

    ParamsT = Iterable[weft.Tensor] | Iterable[dict[str, Any]]

    @staticmethod
    def _get_value(x: Any) -> Any:
        return x.item() if isinstance(x, weft.Tensor) else x

    @staticmethod
    def _use_grad_for_differentiable(func: Any) -> Any:
        """`step` without recording a tape."""
        return weft.no_grad()(func)

    @staticmethod
    def _get_capturable_supported_devices(supports_xla: bool = True) -> list[str]:
        return []

    @staticmethod
    def _default_to_fused_or_foreach(
        params: Any, differentiable: bool, use_fused: bool = False
    ) -> tuple[bool, bool]:
        """Neither: Weft has one form of each step."""
        return False, False


class types:
    """torch.types: names for annotations."""

    _size = Union[weft.Size, list[int], tuple[int, ...]]  # noqa: UP007 - isinstance of torch's too
    _int, _float, _bool = int, float, bool
    _dtype, _device, Tensor = weft.dtype, weft.device, weft.Tensor
    Device = Union[weft.device, str, int, None]  # noqa: UP007
    Number = (int, float, bool)
    _TensorOrTensors = Union[weft.Tensor, Sequence[weft.Tensor]]  # noqa: UP007
    FileLike = Any


class utils:
    @staticmethod
    def set_module(obj: Any, mod: str) -> None:
        """Say that `obj` belongs to the module `mod`."""
        obj.__module__ = mod


class checkpoint:
    """torch.utils.checkpoint: the states of devices' generators, of which there are none."""

    set_device_states = nothing

    @staticmethod
    def get_device_states(*args: Any) -> tuple[list, list]:
        """([], [])"""
        return [], []


class dataloader:
    """Inner classes of torch's loader, for the isinstance tests of trainers."""

    _BaseDataLoaderIter = _SingleProcessDataLoaderIter = _loader._Iterator
    _MultiProcessingDataLoaderIter = _loader._WorkerIterator


class dlpack:
    """Tensors handed over by their memory."""

    from_dlpack = weft.from_dlpack

    @staticmethod
    def to_dlpack(tensor: Any) -> Any:
        """The capsule that other libraries read."""
        return tensor.__dlpack__()


class hooks:
    RemovableHandle = weft.autograd.hooks.RemovableHandle
