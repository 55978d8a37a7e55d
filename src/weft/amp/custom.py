"""custom_fwd and custom_bwd: how an autograd.Function meets autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import weft
from weft import Tensor


def _cast(x: Any, dtype: Any) -> Any:
    if isinstance(x, Tensor):
        return x.to(dtype) if x.is_floating_point() and x.dtype is not weft.float64 else x
    if isinstance(x, Mapping):
        return type(x)({k: _cast(v, dtype) for k, v in x.items()})  # type: ignore[call-arg]
    if isinstance(x, (list, tuple)):
        return type(x)(_cast(v, dtype) for v in x)
    return x


def custom_fwd(
    fwd: Callable | None = None, *, device_type: str = "cpu", cast_inputs: Any = None
) -> Any:
    """Decorates `forward`: under autocast, its inputs become `cast_inputs` and autocast is off."""
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def inside(ctx: Any, *args: Any, **kw: Any) -> Any:
        on = weft.is_autocast_enabled(device_type)
        ctx._dtype = weft.get_autocast_dtype(device_type)
        ctx._fwd_used_autocast = on and cast_inputs is None
        if not on or cast_inputs is None:
            return fwd(ctx, *args, **kw)
        with weft.autocast(device_type, enabled=False):
            return fwd(ctx, *_cast(args, cast_inputs), **_cast(kw, cast_inputs))

    return inside


def custom_bwd(bwd: Callable | None = None, *, device_type: str = "cpu") -> Any:
    """Decorates `backward`: autocast is then as it was in `forward`."""
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def inside(ctx: Any, *args: Any, **kw: Any) -> Any:
        if device_type != "cpu":
            return bwd(ctx, *args, **kw)
        with weft.autocast("cpu", dtype=ctx._dtype, enabled=ctx._fwd_used_autocast):
            return bwd(ctx, *args, **kw)

    return inside
