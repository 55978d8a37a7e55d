"""Models whose products are of bytes: four times the arithmetic a second, a quarter of the weights.

    small = weft.quantize(model, calibration=batches)
    print(small.quantization)        # what each layer lost, and the whole

Weights are int8 with a scale for each output channel; activations uint8, either by the range seen
in calibration (static) or by each row's own range (dynamic: no calibration, and a row's result
still does not depend on its neighbours).  Sums are exact in int32.  Source: Jacob et al. 2018.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import weft
from weft import Tensor, byte_image
from weft.byte_image import ByteImage, Chain
from weft.nn import functional as F
from weft.nn.conv import Conv2d
from weft.nn.linear import Linear
from weft.nn.module import Module
from weft.ops.quantized import (
    COLUMNS,
    FOUR,
    LONGEST,
    Grid,
    QuantizedConv,
    QuantizedDepthwise,
    grid_of,
    image_to_bytes,
    on_bytes,
    on_grid,
    pack_weight,
    quantize_rows,
    range_to_scale,
    to_bytes,
)

_FULL = 16  # columns from which a panel of a group is worth its arithmetic
_MOST_MADE = 1_000


class _Quantized(Module):
    """What the layers share: packed weights, their scales, and the activations' range."""

    panels: Tensor
    scale: Tensor
    sums: Tensor
    bias: Tensor | None
    input_scale: Tensor | None
    input_zero: Tensor | None

    def __init__(
        self, weight: Tensor, bias: Tensor | None, seen: tuple[Tensor, Tensor] | None, groups: int
    ) -> None:
        super().__init__()
        self.depthwise = groups > 1 and groups == weight.shape[0] and weight.shape[-1] == 1
        rows = weight.reshape(weight.shape[0], -1)
        q, scale = quantize_rows(rows)
        self.groups = groups
        self.out_features, self.in_features = rows.shape
        if self.depthwise:  # (taps, C), and `zero` is taken from the bytes
            self.register_buffer("panels", q.float().t().contiguous())
        else:
            self.register_buffer("panels", pack_weight(q.reshape(weight.shape), groups))
        self.register_buffer("scale", scale)
        sums = q.float().sum(1)  # what `zero` adds to each column
        self.register_buffer("sums", sums * 0 if self.depthwise else sums)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        found = (None, None) if seen is None else range_to_scale(*seen)
        self.register_buffer("input_scale", found[0])
        self.register_buffer("input_zero", found[1])
        self._forget()

    def _forget(self) -> None:
        self._made: dict[tuple, tuple] = {}  # see `_once`

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "_made"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def _once(self, key: tuple, tensors: tuple, make: Callable, *args: Any) -> Any:
        """make(*args), made once for these tensors as long as nobody writes to them."""
        key = (*key, *map(id, tensors))
        found = self._made.get(key)
        if found is not None and found[0] == _versions(tensors):
            return found[2]
        if len(self._made) > _MOST_MADE:
            self._made.clear()
        now = _versions(tensors)
        with weft.no_grad():
            self._made[key] = found = now, tensors, make(*args)
        return found[2]

    def grid(self) -> Grid:
        """The grid that calibration found for the input."""
        own = self._buffers
        return self._once((), (own["input_scale"], own["input_zero"]), self._found_grid)

    def _found_grid(self) -> Grid:
        assert self.input_scale is not None and self.input_zero is not None
        return Grid(self.input_scale.item(), int(self.input_zero.item()))

    def factored(self, x: Grid, norm: tuple | None = None, *more: Any) -> Any:
        """`_prepared` of these, once for the tensors that it reads."""
        own = self._buffers
        held = (own["scale"], own["sums"], own["bias"], *(norm or ())[:4])
        return self._once((x, norm and norm[4], *more), held, self._prepared, x, norm, *more)

    def _prepared(self, x: Grid, norm: tuple | None, *more: Any) -> tuple:
        """What multiplies bytes of the grid x: the op, scale and shift."""
        raise NotImplementedError

    def _factors(self, x: Grid, norm: tuple | None, other: Grid | None, to: Grid | None) -> tuple:
        """(scale, shift, other's scale): sums times scale plus shift are the result's floats, or
        its places on the grid `to`; as the kernel reads them.
        """
        scale = _array(self.scale, 1.0) * x.scale
        shift = _array(self.bias, 0.0) - x.zero * _array(self.sums, 0.0) * scale
        if norm is not None:
            mean, var, weight, bias, eps = norm
            a = _array(weight, 1.0) / np.sqrt(_array(var, 1.0) + eps)
            scale, shift = scale * a, (shift - _array(mean, 0.0)) * a + _array(bias, 0.0)
        beside = 0.0 if other is None else other.scale
        shift = shift - beside * (0 if other is None else other.zero)
        if to is not None:
            scale, shift, beside = scale / to.scale, shift / to.scale + to.zero, beside / to.scale
        return self._in_panels(scale), self._in_panels(shift), float(np.float32(beside))

    def _in_panels(self, x: Any) -> Tensor:
        """One number a column, as the panels lie."""
        each = self.out_features // self.groups
        more = 0 if self.depthwise else -each % COLUMNS
        rows = np.broadcast_to(x, self.out_features).reshape(self.groups, each)
        return weft.from_numpy(np.pad(rows, ((0, 0), (0, more))).astype(np.float32).ravel())

    def extra_repr(self) -> str:
        how = "static" if self.input_scale is not None else "dynamic"
        return f"{self.in_features} -> {self.out_features}, int8, {how} activations"

    def _floats(self, sums: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """Sums as floats, with a scale and a zero of their own for each row or image."""
        y = (sums.float() - zero * self.sums) * (scale * self.scale)
        return y if self.bias is None else y + self.bias


def _versions(tensors: tuple) -> list[int]:
    """How often each one's memory was written to."""
    return [0 if t is None or t._st is None else t._st.version for t in tensors]


def _array(t: Tensor | None, default: float) -> Any:
    return default if t is None else t.detach().double().numpy()


class QuantizedLinear(_Quantized):
    """y = x W^T + b with x in uint8 and W in int8.  x (*, in), y (*, out), float32."""

    def __init__(self, layer: Linear, seen: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__(layer.weight.detach(), layer.bias, seen, 1)

    def forward(self, input: Tensor) -> Tensor:
        flat = input.ndim == 2
        if self.input_scale is None:
            rows = self._rows(input)
            scale, zero = range_to_scale(rows.amin(1, keepdim=True), rows.amax(1, keepdim=True))
            q = to_bytes(rows, scale, zero)
            y = self._floats(self._product(QuantizedConv(self.out_features), q), scale, zero)
        else:
            grid = self.grid()
            op, *factors = self.factored(grid)
            # bytes are made first: what made the input may end in them, and layers share them
            y = self._product(op, self._rows(on_grid(input, grid)), *factors)
        # a result that is no view lets a replay be one native call
        return y if flat else y.reshape(*input.shape[:-1], self.out_features)

    def _rows(self, x: Tensor) -> Tensor:
        return x if x.ndim == 2 else x.reshape(-1, self.in_features)

    def _prepared(self, x: Grid, norm: tuple | None, *more: Any) -> tuple:
        op = QuantizedConv(self.out_features, to="float32")
        return op, *self._factors(x, norm, None, None)[:2]

    def _product(self, op: Any, q: Tensor, *more: Tensor) -> Tensor:
        left = -q.shape[1] % FOUR
        return on_bytes(op, F.pad(q, (0, left)) if left else q, self._buffers["panels"], *more)


class QuantizedConv2d(_Quantized):
    """Conv2d with bytes, of zeros around the image.

    x (N, C, H, W), y (N, O, H', W'), float32.  Dynamic ranges are those of each image.  Inside a
    quantized model a static layer reads and makes images of bytes (`weft.byte_image`).
    """

    def __init__(self, layer: Conv2d, seen: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__(layer.weight.detach().permute(0, 2, 3, 1), layer.bias, seen, layer.groups)
        left, _, top, _ = layer._reversed_padding_repeated_twice
        self.in_channels = layer.in_channels
        self._more = -layer.in_channels % FOUR  # channels of zeros, so that pixels are whole fours
        self.kernel_size, self.stride = tuple(layer.kernel_size), tuple(layer.stride)
        self.padding, self.dilation = (top, left), tuple(layer.dilation)
        self.grids: dict[tuple, Grid] = {}  # of what chains give
        self._seen: dict[tuple, tuple[float, float]] = {}
        self.observing = False

    def forward(self, input: Tensor) -> Tensor:
        made = input.__class__ is ByteImage
        shape = input._ghost.shape if made else input.shape  # the first costs less
        if len(shape) == 3:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        own = self._buffers
        seen = own["input_scale"], own["input_zero"]
        size, grid = self._once((shape,), seen, self._begin, shape)
        if grid is None:
            return self._dynamic(input)
        if made and input.resolve(grid):
            q, grid = input._bytes, input._grid
            q = self._whole(q) if self._more else q
        else:
            q = image_to_bytes(input, grid)
        y = byte_image.image_of(size, Chain(self, q, grid, size))
        return y if byte_image.flows() else y.contiguous()

    def get_extra_state(self) -> Tensor:
        """The grids of chains (n, 6), float64: batch norm, sum, clamp low and high; scale, zero."""
        rows = [(*key, grid.scale, grid.zero) for key, grid in self.grids.items()]
        return weft.tensor(rows, dtype=weft.float64).reshape(-1, 6)

    def set_extra_state(self, state: Tensor) -> None:
        """What `get_extra_state` gave.  RuntimeError: other than such rows."""
        if not isinstance(state, Tensor) or state.ndim != 2 or state.shape[1] != 6:
            raise RuntimeError(f"quantized conv2d: grids are rows of 6 numbers, got {state!r:.80}")
        self.grids = {
            (bool(norm), bool(other), low, high): Grid(scale, int(zero))
            for norm, other, low, high, scale, zero in state.double().tolist()
        }

    def _whole(self, q: Tensor) -> Tensor:
        return F.pad(q, (0, self._more)) if self._more else q

    def _begin(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Grid | None]:
        """The result's sizes (N, O, H', W') and the input's grid; RuntimeError on this line,
        although sums may wait.
        """
        window = zip(
            shape[2:], self.padding, self.dilation, self.kernel_size, self.stride, strict=False
        )
        size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in window]
        if len(shape) != 4 or shape[1] != self.in_channels or min(size) < 1:
            raise RuntimeError(
                f"quantized conv2d: expected images (N, {self.in_channels}, H, W) no smaller than "
                f"the kernel {self.kernel_size}, got {list(shape)}"
            )
        grid = None if self.input_scale is None else self.grid()
        return (shape[0], self.out_features, *size), grid

    def _op(self, **settings: Any) -> Any:
        settings.update(kernel=self.kernel_size, stride=self.stride, dilation=self.dilation)
        if self.depthwise:
            return QuantizedDepthwise(**settings)
        return QuantizedConv(self.out_features, groups=self.groups, **settings)

    def finish(self, chain: Chain, grid: Grid | None) -> Tensor:
        """The chain's result (N, H, W, C): bytes on the grid, or floats."""
        other = chain.other
        more, beside = ((), None) if other is None else ((other._bytes,), other._grid)
        op, *factors = self.factored(chain.grid, chain.norm, beside, grid, chain.low, chain.high)
        return on_bytes(op, chain.x, self._buffers["panels"], *factors, *more)

    def _prepared(self, x: Grid, norm: tuple | None, *more: Any) -> tuple:
        other, grid, low, high = more
        scale, shift, beside = self._factors(x, norm, other, grid)
        if grid is not None:
            low, high = (min(max(round(v / grid.scale) + grid.zero, 0), 255) for v in (low, high))
        op = self._op(
            padding=self.padding, border=x.zero, to="float32" if grid is None else "uint8",
            floor=float(low), ceiling=float(high), other_scale=beside,
        )  # fmt: skip
        return op, scale, shift

    def own_grid(self, chain: Chain) -> Grid | None:
        """The grid that calibration found for what this chain gives, or None."""
        key = (chain.norm is not None, chain.other is not None, chain.low, chain.high)
        if self.observing:
            y = self.finish(chain, None)
            low, high = self._seen.get(key, (0.0, 0.0))
            self._seen[key] = (min(low, y.amin().item()), max(high, y.amax().item()))
            self.grids[key] = grid_of(*self._seen[key])
        return self.grids.get(key)

    def _dynamic(self, input: Tensor) -> Tensor:
        low = input.amin((1, 2, 3), keepdim=True)
        scale, zero = range_to_scale(low, input.amax((1, 2, 3), keepdim=True))
        top, left = self.padding
        if top or left:  # each image has a zero of its own
            input = F.pad(input, (left, left, top, top))
        q = self._whole(to_bytes(input.permute(0, 2, 3, 1), scale, zero))
        y = self._floats(on_bytes(self._op(), q, self.panels), scale, zero)
        return y.permute(0, 3, 1, 2).contiguous()


@dataclass
class LayerReport:
    """What one layer lost: signal over noise of its output on the calibration, in decibels."""

    name: str
    kind: str
    note: str = ""  # why it stays in float32
    decibels: float | None = None


@dataclass
class QuantizationReport:
    """What `weft.quantize` did, layer by layer, and how far the whole is from the float model."""

    layers: list[LayerReport] = field(default_factory=list)
    bytes_before: int = 0
    bytes_after: int = 0
    largest: float | None = None  # |difference| of the outputs on the calibration
    relative: float | None = None  # norm of the difference over the norm of the outputs
    agreement: float | None = None  # share of rows with the same argmax

    def __str__(self) -> str:
        wide = max((len(x.name) for x in self.layers), default=5)
        lines = [
            f"{x.name:<{wide}}  {x.kind:<10} "
            + (f"float32: {x.note}" if x.note else "int8")
            + ("" if x.decibels is None else f"  {x.decibels:6.1f} dB")
            for x in self.layers
        ]
        lines.append(f"weights {self.bytes_before:,} -> {self.bytes_after:,} bytes")
        if self.largest is not None:
            lines.append(
                f"outputs differ by {self.largest:.3g} at most, {self.relative:.2%} in norm; "
                f"the same argmax in {self.agreement:.1%} of rows"
            )
        return "\n".join(lines)


def quantize(
    model: Module,
    calibration: Iterable[Any] | None = None,
    *,
    activations: str | None = None,
    skip: Iterable[str] = (),
) -> Module:
    """A copy of the model whose Linear and Conv2d layers multiply bytes, for inference.

    calibration   batches (a tensor, or a tuple of the arguments): their ranges are the static
                  activations' ranges, and the report compares on them
    activations   "static" or "dynamic" (each row's own range); static if there is a calibration
    skip          names of layers (or of modules around them) that stay in float32

    The report is the copy's attribute `quantization`.  Narrow groups (depthwise layers if dynamic)
    and padding other than zeros stay in float32, as do layers that the calibration did not reach.
    ValueError: static activations without calibration, a name in `skip` that is not there.
    """
    if not isinstance(model, Module):
        kind = type(model).__name__
        raise TypeError(f"quantize(): argument 'model' must be Module, not {kind}")
    batches = [b if isinstance(b, tuple) else (b,) for b in calibration or ()]
    how = activations or ("static" if batches else "dynamic")
    if how not in ("static", "dynamic"):
        raise ValueError(f'quantize: activations must be "static" or "dynamic", got {how!r}')
    if how == "static" and not batches:
        raise ValueError("quantize: static activations need calibration batches")
    names = dict(model.named_modules())
    kept = set(skip)
    if kept - names.keys():
        raise ValueError(f"quantize: no module named {sorted(kept - names.keys())}")
    model = copy.deepcopy(model).eval()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (Linear, Conv2d))}
    seen, outputs = _watch(model, layers, batches)
    report = QuantizationReport(bytes_before=_bytes(model))
    made = {}
    for name, layer in layers.items():
        note = _why_not(name, layer, kept, seen if how == "static" else None)
        report.layers.append(LayerReport(name, type(layer).__name__, note))
        if not note:
            ranges = seen[name] if how == "static" else None
            kind = QuantizedLinear if isinstance(layer, Linear) else QuantizedConv2d
            made[name] = kind(layer, ranges)  # type: ignore[arg-type]
    _measure(model, layers, made, batches, report)
    convs = [m for m in made.values() if isinstance(m, QuantizedConv2d)]
    for name, layer in made.items():
        if name:
            model.set_submodule(name, layer)
        else:
            model = layer
    if convs and how == "static":
        model.register_forward_pre_hook(byte_image.enter)
        model.register_forward_hook(byte_image.leave, always_call=True)
        for layer in convs:
            layer.observing = True
        _run(model, batches)
        for layer in convs:
            layer.observing = False
    report.bytes_after = _bytes(model)
    _compare(model, batches, outputs, report)
    object.__setattr__(model, "quantization", report)
    return model


def _why_not(name: str, layer: Module, kept: set[str], seen: dict | None) -> str:
    parts = name.split(".")
    if any(".".join(parts[:i]) in kept for i in range(1, len(parts) + 1)):
        return "asked to be kept"
    if seen is not None and name not in seen:
        return "the calibration did not reach it"
    if layer.weight.dtype is not weft.float32:
        return f"its weight is {layer.weight.dtype}"
    each, *kernel = layer.weight.shape[1:]
    products = math.prod((-(-each // FOUR) * FOUR, *kernel))
    if products > LONGEST:
        return f"sums of {products} products"
    if isinstance(layer, Conv2d):
        ins, outs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        alone = ins == outs == 1 and not layer.in_channels % FOUR and seen is not None
        if layer.groups != 1 and not alone and (ins % FOUR or outs < _FULL):
            return f"groups of {ins} channels to {outs}"
        left, right, top, bottom = layer._reversed_padding_repeated_twice
        if layer.padding_mode != "zeros" or left != right or top != bottom:
            return f"padding {layer.padding_mode}, {layer.padding}"
    return ""


def _bytes(model: Module) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def _run(model: Module, batches: list[tuple]) -> list[Any]:
    with weft.no_grad():
        return [model(*b) for b in batches]


def _watch(
    model: Module, layers: Mapping[str, Module], batches: list[tuple]
) -> tuple[dict[str, tuple[Tensor, Tensor]], list[Any]]:
    """The range of each layer's input over the batches, and the model's outputs."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str) -> Any:
        def hook(layer: Module, args: tuple) -> None:
            low, high = args[0].detach().amin(), args[0].detach().amax()
            if name in seen:
                low, high = weft.minimum(low, seen[name][0]), weft.maximum(high, seen[name][1])
            seen[name] = (low, high)

        return hook

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]
    try:
        return seen, _run(model, batches)
    finally:
        for h in hooks:
            h.remove()


def _measure(
    model: Module,
    layers: Mapping[str, Module],
    made: Mapping[str, Module],
    batches: list[tuple],
    report: QuantizationReport,
) -> None:
    """Each layer's noise on the float model's own activations."""
    power: dict[str, list[float]] = {name: [0.0, 0.0] for name in made}

    def note(name: str) -> Any:
        def hook(layer: Module, args: tuple, y: Tensor) -> None:
            noise = made[name](*args) - y
            power[name][0] += y.double().square().sum().item()
            power[name][1] += noise.double().square().sum().item()

        return hook

    hooks = [layers[name].register_forward_hook(note(name)) for name in made]
    try:
        _run(model, batches)
    finally:
        for h in hooks:
            h.remove()
    for row in report.layers:
        signal, noise = power.get(row.name, (0.0, 0.0))
        if signal and noise:
            row.decibels = 10 * weft.tensor(signal / noise).log10().item()


def _compare(
    model: Module, batches: list[tuple], outputs: list[Any], report: QuantizationReport
) -> None:
    """The quantized model's outputs beside the float model's."""
    pairs = [
        (a, b)
        for a, b in zip(_run(model, batches), outputs, strict=True)
        if isinstance(a, Tensor) and isinstance(b, Tensor) and a.ndim and a.is_floating_point()
    ]
    if not pairs:
        return
    noise = sum((a - b).double().square().sum().item() for a, b in pairs)
    signal = sum(b.double().square().sum().item() for _, b in pairs)
    same = [(a.argmax(-1) == b.argmax(-1)).double().mean().item() for a, b in pairs]
    report.largest = max((a - b).abs().max().item() for a, b in pairs)
    report.relative = (noise / signal) ** 0.5 if signal else 0.0
    report.agreement = sum(same) / len(same)
