"""Faces of torch's compilers, tracers, exporters and quantizers, none of which Weft has.

One class a module of torch.  Weft runs Python, so what marks code for them changes nothing.
"""

from __future__ import annotations

import enum
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final, Optional

import weft
from weft import nn
from weft.compat.torch_ import absent
from weft.compat.torch_.answers import Absent, Idle, no, none, nothing, refusing, same


class compiler:
    compile = weft.compile
    is_compiling = is_dynamo_compiling = is_exporting = no
    allow_in_graph = assume_constant_result = same
    reset = cudagraph_mark_step_begin = nothing

    @staticmethod
    def disable(fn: Callable | None = None, recursive: bool = True, **kw: Any) -> Any:
        """The function itself; a decorator, with or without arguments."""
        return fn if fn is not None else same


class dynamo:
    """torch._dynamo: what programs set before torch.compile."""

    OptimizedModule = absent.OptimizedModule
    # Kept, without effect: Weft records what ran, and needs no limits or guards.
    config = SimpleNamespace(suppress_errors=False, cache_size_limit=8, verbose=False)
    allow_in_graph = assume_constant_result = same
    disable, reset = compiler.disable, nothing
    is_compiling = is_compile_supported = is_dynamo_supported = no
    mark_dynamic = mark_static_address = nothing


class higher_order:
    class TransformGetItemToIndex(Idle):
        """A context without effect: indexing by a batched tensor is an index already."""


_warned: set[str] = set()


def _once(what: str) -> None:
    if not _warned:
        _warned.add(what)
        warnings.warn(
            f"torch.jit.{what} does nothing under Weft: the function or module runs as Python. "
            "torch.compile makes it fast, weft export makes it portable.",
            stacklevel=3,
        )


class jit:
    """torch.jit: functions and modules stay what they are, and one warning says so."""

    Final = Final
    ScriptFunction = Callable

    class ScriptModule(nn.Module):
        """A base class for programs that name it; scripting a module does not make it one."""

    class RecursiveScriptModule(ScriptModule):
        """No module is one."""

    TopLevelTracedModule = TracedModule = RecursiveScriptModule

    @staticmethod
    def script(obj: Any, *args: Any, **kw: Any) -> Any:
        """The object itself."""
        _once("script")
        return obj

    @staticmethod
    def trace(func: Any, example_inputs: Any = None, *args: Any, **kw: Any) -> Any:
        """The function or module itself."""
        _once("trace")
        return func

    trace_module = trace

    @staticmethod
    def freeze(mod: Any, *args: Any, **kw: Any) -> Any:
        """The module itself."""
        _once("freeze")
        return mod

    @staticmethod
    def optimize_for_inference(mod: Any, *args: Any, **kw: Any) -> Any:
        """The module itself."""
        _once("optimize_for_inference")
        return mod

    # These only mark Python for torch's script compiler: without one there is nothing to say.
    @staticmethod
    def ignore(drop: Any = False, **kw: Any) -> Any:
        """The function itself; a decorator, with or without arguments."""
        return drop if callable(drop) else same

    unused = export = script_if_tracing = interface = same
    _overload = _script_if_tracing = _overload_method = same
    is_scripting = is_tracing = no

    @staticmethod
    def isinstance(obj: Any, target_type: Any) -> bool:
        """Python's isinstance, which a script would refine."""
        return isinstance(obj, target_type)

    @staticmethod
    def annotate(the_type: Any, the_value: Any) -> Any:
        return the_value

    save = refusing(
        RuntimeError, "Weft has no TorchScript files: save m.state_dict(), or use weft.io.save"
    )
    load = refusing(RuntimeError, "Weft cannot run TorchScript files: load a state_dict instead")


class jit_annotations:
    """Types that a script compiler would read."""

    Dict, List, Tuple, Optional = dict, list, tuple, Optional
    BroadcastingList1 = BroadcastingList2 = BroadcastingList3 = list


class _Untraceable(Absent):
    face = "torch.fx"
    why = "Weft has no symbolic tracer; weft.compile records what runs, and weft export writes it"


class fx:
    class Graph(_Untraceable): ...

    class Node(_Untraceable): ...

    class Proxy(_Untraceable): ...

    class Tracer(_Untraceable): ...

    class Interpreter(_Untraceable): ...

    class GraphModule(_Untraceable, nn.Module):
        """Not available; no module is one."""

    symbolic_trace, wrap = Tracer, same


class fake_tensor:
    """torch._subclasses, torch.fx.experimental: tensors without values, of which Weft has none."""

    class FakeTensor(Absent):
        why = "every tensor has a value"

    class FakeTensorMode(FakeTensor): ...

    is_fake, get_proxy_mode = no, none


class onnx:
    """`weft export` and weft.io.onnx write ONNX; torch's exporter is not imitated yet."""

    is_in_onnx_export, register_custom_op_symbolic = no, nothing
    export = refusing(
        NotImplementedError, "torch.onnx.export: use weft.io.onnx.export(model, example, path)"
    )


class onnx_symbolic:
    """torch.onnx.symbolic_helper and its kin: decorators of symbols that no exporter here reads."""

    @staticmethod
    def parse_args(*arg_descriptors: Any) -> Callable:
        """The function itself."""
        return same

    quantized_args = parse_args


class flop_counter:
    class FlopCounterMode:
        """A context that would count; its counts stay 0."""

        def __init__(
            self, mods: Any = None, depth: int = 2, display: bool = True,
            custom_mapping: Any = None,
        ) -> None:  # fmt: skip
            self.depth = depth

        def __enter__(self) -> Any:
            text = "FlopCounterMode: Weft does not count operations: 0 is told"
            warnings.warn(text, stacklevel=2)
            return self

        def __exit__(self, *exc: object) -> None:
            return None

        def get_total_flops(self) -> int:
            return 0

        def get_flop_counts(self) -> dict:
            return {}


class attention:
    """torch.nn.attention: the choice among torch's attention kernels; Weft has one."""

    class SDPBackend(enum.IntEnum):
        ERROR = -1
        MATH = 0
        FLASH_ATTENTION = 1
        EFFICIENT_ATTENTION = 2
        CUDNN_ATTENTION = 3
        OVERRIDEABLE = 4

    @staticmethod
    @contextmanager
    def sdpa_kernel(backends: Any, set_priority: bool = False) -> Iterator[None]:
        """Without effect: one kernel serves them all, with the same result."""
        yield


class flex_attention:
    _DEFAULT_SPARSE_BLOCK_SIZE = 128

    class BlockMask(Absent):
        why = "flex_attention is not available; use scaled_dot_product_attention"

    class AuxRequest(BlockMask): ...

    flex_attention = create_block_mask = create_mask = and_masks = or_masks = refusing(
        NotImplementedError,
        "flex_attention is not available under Weft: use scaled_dot_product_attention with a mask",
    )
    create_nested_block_mask = noop_mask = flex_attention


class ao:
    """torch.ao.quantization, torch.nn.quantized: the parts that float models are written with."""

    class QuantStub(nn.Module):
        """Identity, where a quantizer would enter."""

        def __init__(self, qconfig: Any = None) -> None:
            super().__init__()

        def forward(self, x: Any) -> Any:
            return x

    class DeQuantStub(QuantStub):
        """Identity, where a quantizer would leave."""

    class FloatFunctional(nn.Module):
        """Arithmetic as a module, so that a quantizer could observe it."""

        def add(self, x: Any, y: Any) -> Any:
            return weft.add(x, y)

        def mul(self, x: Any, y: Any) -> Any:
            return weft.mul(x, y)

        def cat(self, x: Any, dim: int = 0) -> Any:
            return weft.cat(x, dim=dim)

        def add_relu(self, x: Any, y: Any) -> Any:
            return nn.functional.relu(weft.add(x, y))

        add_scalar, mul_scalar = add, mul

    convert = prepare = prepare_qat = fuse_modules = fuse_modules_qat = quantize_dynamic = refusing(
        NotImplementedError, "torch.ao.quantization: Weft does not quantize torch's way yet"
    )
    QConfig = default_observer = default_weight_observer = convert
