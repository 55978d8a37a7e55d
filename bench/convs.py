"""Convolutions, their gradients, batch norm and pooling beside torch; then whole conv nets.

    python bench/convs.py [--threads 1] [--seconds 1] [--only REGEX] [--models]

Needs torch beside Weft (`make bench` makes such an environment); other peers are in suite.py.
A row gives Weft's time and GFLOP/s, the share of the rate that multiply-adds in registers have in
the same round, the times of others (Weft's with images channels last, torch's in both layouts), and
two ratios, above 1 where Weft is faster: the best of torch by Weft in planes, and by the better of
Weft's two.  All ratios are medians over rounds of calls in turns (`turns.py`).
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import Any

import models
import numpy as np
import torch
import turns
from turns import Call

import weft
from weft.ops.conv import Conv2d, Conv2dInput, Conv2dWeight
from weft.ops.dispatch import apply


@dataclass(frozen=True)
class Options:
    """How rows are timed: threads, seconds a row."""

    threads: int
    seconds: float


@dataclass(frozen=True)
class Conv:
    """A convolution of (batch, channels, size, size); `transposed` swaps forward and gradient."""

    name: str
    batch: int
    channels: int
    out: int
    kernel: int
    size: int
    stride: int = 1
    groups: int = 1
    transposed: bool = False

    @property
    def padding(self) -> int:
        return 1 if self.transposed else self.kernel // 2

    @property
    def out_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def flops(self) -> int:
        """Of one of the three faces."""
        taps = self.kernel**2 * self.channels // self.groups
        return 2 * self.batch * self.out * self.out_size**2 * taps


CONVS = (
    Conv("3x3 64-64 56 b1", 1, 64, 64, 3, 56),
    Conv("3x3 64-64 56 b8", 8, 64, 64, 3, 56),
    Conv("1x1 256-64 56 b1", 1, 256, 64, 1, 56),
    Conv("1x1 64-256 56 b8", 8, 64, 256, 1, 56),
    Conv("7x7/2 3-64 224 b1", 1, 3, 64, 7, 224, 2),
    Conv("3x3 128-128 28 b1", 1, 128, 128, 3, 28),
    Conv("3x3 256-256 14 b8", 8, 256, 256, 3, 14),
    Conv("3x3 512-512 7 b1", 1, 512, 512, 3, 7),
    Conv("3x3 512-512 7 b8", 8, 512, 512, 3, 7),
    Conv("3x3/2 128-256 28 b8", 8, 128, 256, 3, 28, 2),
    Conv("1x1/2 256-512 56 b1", 1, 256, 512, 1, 56, 2),
    Conv("3x3 512-512 8 b16", 16, 512, 512, 3, 8),
    Conv("3x3 64-64 64 b16", 16, 64, 64, 3, 64),
    Conv("3x3 g32 128-128 56 b1", 1, 128, 128, 3, 56, 1, 32),
    Conv("depthwise 3x3 128 56 b1", 1, 128, 128, 3, 56, 1, 128),
    Conv("depthwise 3x3 128 56 b8", 8, 128, 128, 3, 56, 1, 128),
    Conv("depthwise 3x3/2 128 56 b1", 1, 128, 128, 3, 56, 2, 128),
    Conv("transposed 4x4/2 64-64 56", 1, 64, 64, 4, 56, 2, 1, True),
)


def report(label: str, flops: float, calls: dict[str, Call], options: Options, unit: float) -> None:
    """One row."""
    floor, share = turns.peak(options.threads, flops or 1.0)
    times = turns.take({**calls, "peak": floor}, seconds=options.seconds, threads=options.threads)
    mine = turns.middle(times, "weft")
    rate = f"{'':13s}"
    if flops:
        rate = f"{flops / mine / 1e9:7.1f} {turns.ratio(times, 'peak', 'weft') / share:5.0%}"
    rest = " ".join(f"{turns.middle(times, k) * unit:9.2f}" for k in calls if k != "weft")

    def ratio(name: str) -> float:
        return min(turns.ratio(times, k, name) for k in calls if k.startswith("torch"))

    best = max(ratio(k) for k in calls if k.startswith("weft"))
    print(
        f"{label:34s}{mine * unit:10.2f} {rate} {rest} {ratio('weft'):7.2f}{best:7.2f}", flush=True
    )


def faces(case: Conv) -> dict[str, dict[str, Call]]:
    """Forward, input gradient and weight gradient, as Weft's and torch's calls."""
    rng = np.random.default_rng(0)

    def data(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    big = data(case.batch, case.channels, case.size, case.size)
    small = data(case.batch, case.out, case.out_size, case.out_size)
    weight = data(case.out, case.channels // case.groups, case.kernel, case.kernel)
    geometry = ((case.stride,) * 2, (case.padding,) * 4, (1, 1), case.groups)
    size, kernel = (case.size,) * 2, (case.kernel,) * 2
    sizes = ([case.stride] * 2, [case.padding] * 2, [1, 1])
    found: dict[str, dict[str, Call]] = {"forward": {}, "dx": {}, "dw": {}}
    for name, form in (("weft", weft.contiguous_format), ("weft cl", weft.channels_last)):
        x, g = (weft.from_numpy(a).contiguous(memory_format=form) for a in (big, small))
        w = weft.from_numpy(weight)
        found["forward"][name] = lambda x=x, w=w: apply(Conv2d(*geometry), x, w)
        found["dx"][name] = lambda g=g, w=w: apply(Conv2dInput(*geometry, size), g, w)
        found["dw"][name] = lambda g=g, x=x: apply(Conv2dWeight(*geometry, kernel), g, x)
    for name, form in (("torch", torch.contiguous_format), ("torch cl", torch.channels_last)):
        tx, tg, tw = (
            torch.from_numpy(a).contiguous(memory_format=form) for a in (big, small, weight)
        )

        def backward(mask: list[bool], tx: Any = tx, tg: Any = tg, tw: Any = tw) -> Call:
            return lambda: torch.ops.aten.convolution_backward(
                tg, tx, tw, None, *sizes, False, [0, 0], case.groups, mask
            )

        found["forward"][name] = lambda tx=tx, tw=tw: torch.conv2d(
            tx, tw, None, *sizes, case.groups
        )
        found["dx"][name] = backward([True, False, False])
        found["dw"][name] = backward([False, True, False])
        if case.transposed:
            found["dx"][name] = lambda tg=tg, tw=tw: torch.conv_transpose2d(
                tg, tw, None, *sizes[:2], 0, case.groups
            )
    if case.transposed:
        found["forward"], found["dx"] = found["dx"], found["forward"]
    return found


def layers() -> dict[str, dict[str, Call]]:
    """Batch norm and max pooling, forward and backward, on 16 x 64 x 32 x 32."""
    found: dict[str, dict[str, Call]] = {}
    shape = (16, 64, 32, 32)
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    for name, t, form in (
        ("weft", weft, weft.contiguous_format),
        ("weft cl", weft, weft.channels_last),
        ("torch", torch, torch.contiguous_format),
        ("torch cl", torch, torch.channels_last),
    ):
        x = t.from_numpy(values).contiguous(memory_format=form).requires_grad_()
        for label, layer in (
            ("batch norm", t.nn.BatchNorm2d(64)),
            ("max pool 3x3/2", t.nn.MaxPool2d(3, 2, 1)),
            ("max pool 2x2", t.nn.MaxPool2d(2)),
        ):
            y = layer(x)
            g = t.ones_like(y)
            inputs = [x, *layer.parameters()]

            def backward(t: Any = t, y: Any = y, g: Any = g, inputs: Any = inputs) -> Any:
                return t.autograd.grad(y, inputs, g, retain_graph=True)

            found.setdefault(label, {})[name] = lambda layer=layer, x=x: layer(x)
            found.setdefault(f"{label} backward", {})[name] = backward
    return found


# ------------------------------------------------------------------------------ whole nets


def training_step(t: Any, *, channels_last: bool = False) -> Call:
    """One step of ResNet-18 on 16 images: forward, loss, backward, Adam."""

    def make(t: Any) -> tuple:
        model, x, y = models.example("resnet18")(t)
        if channels_last:
            model, x = model.to(memory_format=t.channels_last), x.to(memory_format=t.channels_last)
        return model, x, y

    return models.step_of(t, make)


def inference(t: Any, batch: int) -> Call:
    """ResNet-50 in evaluation, on 1 or 8 images."""
    model, inputs = models.inference(t, f"resnet50_b{batch}")

    def run() -> Any:
        with t.no_grad():
            return model(*inputs)

    return run


RESNET18_STEP = 213e9  # multiplications and additions of a step of 16 images, convolutions and head
RESNET50 = 2 * 4.089e9  # of an image


def main() -> None:
    """Print a row a case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="a row")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="a regular expression that names must match")
    parser.add_argument("--models", action="store_true", help="whole nets instead of layers")
    args = parser.parse_args()
    options = Options(args.threads, args.seconds)
    weft.set_num_threads(args.threads)
    torch.set_num_threads(args.threads)
    print(f"weft {weft.__version__}, torch {torch.__version__}, {args.threads} threads")
    if args.models:
        rows: list[tuple[str, float, dict[str, Call]]] = [
            ("ResNet-18 step", RESNET18_STEP, {
                "weft": weft.compile(training_step(weft)), "weft eager": training_step(weft),
                "torch": training_step(torch), "torch cl": training_step(torch, channels_last=True),
            }),
            *((f"ResNet-50 b{n}", n * RESNET50, {
                "weft": weft.compile(inference(weft, n), replay=True),
                "weft eager": inference(weft, n),
                "torch": inference(torch, n),
            }) for n in (1, 8)),
        ]  # fmt: skip
        print(f"{'ms':34s}{'compiled':>10s}{'GFLOP/s':>8s}{'peak':>6s} eager, peers")
        for name, flops, calls in rows:
            if re.search(args.only, name):
                report(name, flops, calls, options, 1e3)
        return
    print(
        f"{'us':34s}{'weft':>10s}{'GFLOP/s':>8s}{'peak':>6s}"
        f"{'weft cl':>10s}{'torch':>10s}{'cl':>10s}{'ratio':>8s}{'best':>7s}"
    )
    for case in CONVS:
        if any(re.search(args.only, f"{case.name} {face}") for face in ("forward", "dx", "dw")):
            for face, calls in faces(case).items():
                if re.search(args.only, f"{case.name} {face}"):
                    report(f"{case.name} {face}", case.flops, calls, options, 1e6)
    for name, calls in layers().items():
        if re.search(args.only, name):
            report(name, 0, calls, options, 1e6)


if __name__ == "__main__":
    main()
