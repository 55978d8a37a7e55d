"""Models whose products are of bytes: four times the arithmetic a second, a quarter of the weights.

    small = weft.quantize(model, calibration=batches)
    print(small.quantization)        # what each layer lost, and the whole

Weights are int8 with a scale for each output channel; activations uint8, either by the range seen
in calibration (static) or by each row's own range (dynamic: no calibration, and a row's result
still does not depend on its neighbours).  Sums are exact in int32.  Source: Jacob et al. 2018.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import weft
from weft import Tensor
from weft.nn import functional as F
from weft.nn.conv import Conv2d
from weft.nn.linear import Linear
from weft.nn.module import Module
from weft.ops.quantized import (
    FOUR,
    pack_weight,
    quantize_rows,
    quantized_product,
    range_to_scale,
    to_bytes,
)


class _Quantized(Module):
    """What the layers share: packed weights, their scales, and the activations' range."""

    panels: Tensor
    scale: Tensor
    sums: Tensor
    bias: Tensor | None
    input_scale: Tensor | None
    input_zero: Tensor | None

    def __init__(self, rows: Tensor, bias: Tensor | None, seen: tuple[Tensor, Tensor] | None):
        super().__init__()
        q, scale = quantize_rows(rows)
        self.out_features, self.in_features = rows.shape
        self.register_buffer("panels", pack_weight(q))
        self.register_buffer("scale", scale)
        self.register_buffer("sums", q.float().sum(1))  # what `zero` adds to each column
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        found = (None, None) if seen is None else range_to_scale(*seen)
        self.register_buffer("input_scale", found[0])
        self.register_buffer("input_zero", found[1])

    def product(self, q: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """Bytes (M, K) by the weights, as floats (M, N)."""
        left = -q.shape[1] % FOUR
        if left:
            q = F.pad(q, (0, left))
        y = quantized_product(q, self.panels, self.out_features).float()
        y = (y - zero * self.sums) * (scale * self.scale)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        how = "static" if self.input_scale is not None else "dynamic"
        return f"{self.in_features} -> {self.out_features}, int8, {how} activations"


class QuantizedLinear(_Quantized):
    """y = x W^T + b with x in uint8 and W in int8.  x (*, in), y (*, out), float32."""

    def __init__(self, layer: Linear, seen: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__(layer.weight, layer.bias, seen)

    def forward(self, input: Tensor) -> Tensor:
        rows = input.reshape(-1, self.in_features)
        if self.input_scale is None or self.input_zero is None:
            scale, zero = range_to_scale(rows.amin(1, keepdim=True), rows.amax(1, keepdim=True))
        else:
            scale, zero = self.input_scale, self.input_zero
        y = self.product(to_bytes(rows, scale, zero), scale, zero)
        return y.reshape(*input.shape[:-1], self.out_features)


class QuantizedConv2d(_Quantized):
    """Conv2d (groups 1, dilation 1, zeros around) with bytes: windows of bytes times the weights.

    x (N, C, H, W), y (N, O, H', W'), float32.  Dynamic ranges are those of each image.
    """

    def __init__(self, layer: Conv2d, seen: tuple[Tensor, Tensor] | None = None) -> None:
        w = layer.weight
        channels = w.shape[1]
        self._more = -channels % FOUR  # channels of zeros, so that windows are whole fours
        rows = F.pad(w.detach().permute(0, 2, 3, 1), (0, self._more)).reshape(w.shape[0], -1)
        super().__init__(rows, layer.bias, seen)
        self.kernel_size, self.stride = tuple(w.shape[2:]), layer.stride
        pad = layer.padding
        assert not isinstance(pad, str)
        self.padding = pad

    def forward(self, input: Tensor) -> Tensor:
        if self.input_scale is None or self.input_zero is None:
            low = input.amin((1, 2, 3), keepdim=True)
            scale, zero = range_to_scale(low, input.amax((1, 2, 3), keepdim=True))
        else:
            scale, zero = self.input_scale, self.input_zero
        (top, left), (kh, kw) = self.padding, self.kernel_size
        if top or left:
            input = F.pad(input, (left, left, top, top))
        q = to_bytes(input.permute(0, 2, 3, 1), scale, zero)  # a number, or one an image
        if self._more:
            q = F.pad(q, (0, self._more))
        windows = q.unfold(1, kh, self.stride[0]).unfold(2, kw, self.stride[1])
        n, h, w = windows.shape[:3]
        rows = windows.permute(0, 1, 2, 4, 5, 3).reshape(n * h * w, self.in_features)
        y = self.product(rows, _for_rows(scale, h * w), _for_rows(zero, h * w))
        return y.reshape(n, h, w, self.out_features).permute(0, 3, 1, 2).contiguous()


def _for_rows(x: Tensor, pixels: int) -> Tensor:
    """One number, or one an image beside the rows of all its pixels: (N pixels, 1)."""
    return x if not x.ndim else x.reshape(-1, 1).expand(-1, pixels).reshape(-1, 1)


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

    The report is the copy's attribute `quantization`.  Groups, dilation and padding modes other
    than zeros stay in float32, as do layers that the calibration did not reach.
    ValueError: static activations without calibration, a name in `skip` that is not there.
    """
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
    for name, layer in made.items():
        _put(model, name, layer)
    if "" in made:
        model = made[""]
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
    if isinstance(layer, Conv2d):
        if layer.groups != 1 or tuple(layer.dilation) != (1, 1):
            return "groups or dilation"
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return f"padding {layer.padding_mode}, {layer.padding}"
    return ""


def _bytes(model: Module) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def _put(model: Module, name: str, layer: Module) -> None:
    parent, _, last = name.rpartition(".")
    if last:
        setattr(model.get_submodule(parent), last, layer)


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
