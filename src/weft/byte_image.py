"""Images of bytes that quantized layers hand one another; floats to whoever else looks at them.

A ByteImage is (N, C, H, W) in float32 to the program.  It holds bytes (N, H, W, C) on a grid, or a
convolution that has not run yet: batch norm in evaluation, a clamp and one sum with another image
of bytes become part of it, and it runs when a layer asks for bytes, on the grid that the layer
wants.  Any other function makes a plain tensor of the object first, in place, and goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol, TypeGuard

from weft.core import dtype as dt
from weft.core import overrides
from weft.core.handle import take_over
from weft.ops import dispatch, view
from weft.ops.quantized import UNBOUNDED, Grid, bytes_max_pool
from weft.ops.reduce import mean
from weft.tensor import Tensor


class Layer(Protocol):
    """A convolution of bytes."""

    def finish(self, chain: Chain, grid: Grid | None) -> Any:
        """The chain's result (N, H, W, C): bytes on the grid, or floats."""
        ...

    def own_grid(self, chain: Chain) -> Grid | None:
        """The grid that calibration found for what this chain gives, or None."""
        ...


class Chain(NamedTuple):
    """A convolution to be run, and what becomes of its sums."""

    layer: Layer
    x: Any
    grid: Grid  # of x
    shape: tuple[int, ...]  # (N, C, H, W)
    norm: tuple | None = None  # (mean, var, weight, bias, eps)
    other: ByteImage | None = None
    low: float = -UNBOUNDED
    high: float = UNBOUNDED


_chain_of = partial(tuple.__new__, Chain)  # of all eight; a third of the class's own time


def _is_bare(chain: Chain | None) -> TypeGuard[Chain]:
    """Whether it is one, and a sum or batch norm would have nothing to wait for."""
    return chain is not None and chain.other is None and chain[6:] == _OPEN


_OPEN = (-UNBOUNDED, UNBOUNDED)


class _Described:
    """What ByteImages of a shape have where others have an array: shape, strides and dtype."""

    offset, outer, session, dtype = 0, None, None, dt.float32

    def __init__(self, shape: tuple[int, ...]) -> None:
        overrides.switch_on()  # before there is an image of this shape
        self.shape = shape
        _, c, h, w = shape
        self.strides = (c * h * w, h * w, w, 1)

    def demand(self, t: Any) -> Any:
        """The array, of a plain tensor from now on."""
        become_floats(t)
        return t._a


_described = lru_cache(256)(_Described)


def _answer(native: Callable, public: Callable, args: tuple, kw: dict) -> Any:
    """A public function called with a ByteImage: on bytes where there is a rule, else on floats."""
    rule = _known.get(public)
    if rule is None:
        name = overrides.bare_name(public)
        rule = _RULES.get(name, _OF_SHAPE if name in overrides.OF_SHAPE else _NO_RULE)
        _known[public] = rule
    if rule is _OF_SHAPE:
        return native(*args, **kw)
    y = rule(*args, **kw)
    if y is not NotImplemented:
        return y
    for a in (*args, *kw.values()):
        for v in a if isinstance(a, (list, tuple)) else (a,):
            if v.__class__ is ByteImage:
                become_floats(v)
    return native(*args, **kw)


_OF_SHAPE, _NO_RULE = (lambda *_, **__: NotImplemented for _ in range(2))
_known: dict[Any, Callable] = {}  # public function -> its rule


class ByteImage(Tensor, layout=_answer):
    """An image in bytes, or one that will be."""

    __torch_function__: Any = staticmethod(overrides.disabled_torch_function)
    ndim: Any = 4  # norms look at each image's
    _chain: Chain | None
    _bytes: Any = None
    _grid: Grid | None = None

    def resolve(self, wanted: Grid | None = None) -> bool:
        """Have bytes: on the grid wanted, or the one that calibration found; False: neither is."""
        chain = self._chain
        if chain is not None:
            grid = wanted or chain.layer.own_grid(chain)
            if grid is None:
                return False
            self._bytes, self._grid, self._chain = chain.layer.finish(chain, grid), grid, None
        return True


def image_of(
    shape: tuple, chain: Chain | None, q: Any = None, grid: Grid | None = None
) -> ByteImage:
    """The image that a convolution will make, or of bytes."""
    made = dispatch.fresh()
    made.__class__ = ByteImage
    made._ghost = _described(shape)
    made._chain = chain
    if q is not None:
        made._bytes, made._grid = q, grid
    return made


def become_floats(x: ByteImage) -> Any:
    """Make a plain tensor of the object: all who hold it see the same one.  (N, H, W, C) of it."""
    chain = x._chain
    if chain is not None:
        y = chain.layer.finish(chain, None)
    else:
        assert x._grid is not None
        y = (x._bytes.to(dt.float32) - float(x._grid.zero)) * x._grid.scale
    z = view.permute(y, (0, 3, 1, 2)).contiguous()
    x.__dict__.clear()
    take_over(x, z)
    x.__class__ = Tensor  # type: ignore[assignment]
    return y


class _Flow(threading.local):
    depth = 0  # of calls of quantized models


_flow = _Flow()


def enter(model: Any, args: Any) -> None:
    """A pre-hook of a whole model: its layers may hand one another bytes."""
    _flow.depth += 1


def leave(model: Any, args: Any, y: Any) -> None:
    """A hook of a whole model: what it returns are plain tensors."""
    _flow.depth -= 1
    if not _flow.depth:
        _make_plain(y)


def flows() -> bool:
    """Whether a quantized model is being called."""
    return _flow.depth > 0


def _make_plain(x: Any) -> None:
    if x.__class__ is ByteImage:
        become_floats(x)
    elif isinstance(x, (list, tuple)):
        for v in x:
            _make_plain(v)
    elif isinstance(x, dict):
        _make_plain(list(x.values()))


# ------------------------------------------------------------------------------ the rules


def _clamped(x: ByteImage, low: float, high: float, *, inplace: bool) -> Any:
    chain, grid = x._chain, x._grid
    if chain is not None:
        top = high if high < chain.high else chain.high
        top = low if low > top else top
        bottom = low if low > chain.low else chain.low
        chain = _chain_of((*chain[:6], top if top < bottom else bottom, top))
    elif grid is None or low > -grid.zero * grid.scale or high < (255 - grid.zero) * grid.scale:
        return NotImplemented  # bytes that it would change
    if inplace:
        x._chain = chain
        return x
    return image_of(x._ghost.shape, chain, x._bytes, grid)


def _relu(input: Any, inplace: bool = False) -> Any:
    return _clamped(input, 0.0, UNBOUNDED, inplace=inplace)


def _relu6(input: Any, inplace: bool = False) -> Any:
    return _clamped(input, 0.0, 6.0, inplace=inplace)


def _hardtanh(
    input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Any:
    return _clamped(input, float(min_val), float(max_val), inplace=inplace)


def _clamp(input: Any, min: Any = None, max: Any = None, *, out: Any = None) -> Any:
    bounds = (-UNBOUNDED if min is None else min, UNBOUNDED if max is None else max)
    if out is not None or any(b.__class__ not in (int, float) for b in bounds):
        return NotImplemented
    if bounds[0] > bounds[1] or input.__class__ is not ByteImage:
        return NotImplemented
    return _clamped(input, float(bounds[0]), float(bounds[1]), inplace=False)


def _batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    chain = input._chain if input.__class__ is ByteImage else None
    if not _is_bare(chain) or chain.norm or training or running_mean is None:
        return NotImplemented
    norm = (running_mean, running_var, weight, bias, eps)
    return image_of(chain.shape, _chain_of((*chain[:4], norm, None, *_OPEN)))


def _sum(a: Any, b: Any) -> Any:
    """The chain of a + b, or NotImplemented."""
    if not (a.__class__ is b.__class__ is ByteImage) or a._ghost.shape != b._ghost.shape or a is b:
        return NotImplemented
    if not _is_bare(a._chain):
        a, b = b, a
    if not _is_bare(a._chain) or not b.resolve():
        return NotImplemented
    other = image_of(b._ghost.shape, None, b._bytes, b._grid)
    return _chain_of((*a._chain[:5], other, *_OPEN))


def _add(input: Any, other: Any, *, alpha: Any = 1, out: Any = None) -> Any:
    chain = _sum(input, other) if alpha == 1 and out is None else NotImplemented
    return chain if chain is NotImplemented else image_of(chain.shape, chain)


def _add_(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    chain = _sum(input, other) if alpha == 1 else NotImplemented
    if chain is NotImplemented:
        return chain
    input._chain, input._bytes, input._grid = chain, None, None
    return input


def _max_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    kernel, pads, gaps = (_pair(v) for v in (kernel_size, padding, dilation))
    steps = _pair(kernel_size if stride is None or stride == () else stride)
    wrong = any(2 * p > k for p, k in zip(pads, kernel, strict=True))  # says the function itself
    if ceil_mode or return_indices or wrong or not input.resolve():
        return NotImplemented
    q = bytes_max_pool(input._bytes, kernel, steps, pads, gaps)
    n, h, w, c = q.shape
    return image_of((n, c, h, w), None, q, input._grid)


def _mean_of_planes(input: Any, output_size: Any) -> Any:
    if input._chain is None or output_size not in (1, (1, 1), [1, 1]):
        return NotImplemented
    y = become_floats(input)
    return view.reshape(mean(y, (1, 2)), (*input.shape[:2], 1, 1))


def _pair(v: Any) -> tuple[int, int]:
    return (int(v), int(v)) if isinstance(v, int) else (int(v[0]), int(v[-1]))


def _dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return NotImplemented if training else input


_RULES: dict[str, Callable] = {
    "clamp": _clamp, "clip": _clamp,
    "relu": _relu, "relu_": lambda x: _relu(x, True), "relu6": _relu6, "hardtanh": _hardtanh,
    "batch_norm": _batch_norm, "add": _add, "__add__": _add, "__radd__": _add, "add_": _add_,
    "__iadd__": _add_, "max_pool2d": _max_pool2d, "adaptive_avg_pool2d": _mean_of_planes,
    "dropout": _dropout, "dropout2d": _dropout,
}  # fmt: skip
