"""Convolutions, their gradients, batch norm and pooling beside torch; then whole conv nets.

    python bench/convs.py [--threads 1] [--rounds 7] [--only 3x3] [--models]

Needs torch beside Weft (`make bench` makes such an environment); onnxruntime joins the inference
rows where it is installed.  Everything is interleaved in one process and a row gives medians:
Weft's time and GFLOP/s, the share of the machine's measured fma peak, the peers' times (torch's
tensors in NCHW, then channels_last) and the ratio of the best of them to Weft's: above 1 Weft is
faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import weft
from weft.kernels.schedule.tile import tile_for
from weft.kernels.target.llvm import Module, const
from weft.ops.conv import Conv2d, Conv2dInput, Conv2dWeight
from weft.ops.dispatch import apply
from weft.runtime import native

Call = Callable[[], Any]


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
    Conv("transposed 4x4/2 64-64 56", 1, 64, 64, 4, 56, 2, 1, True),
)


def peak(threads: int) -> float:
    """GFLOP/s of independent fmas in registers, float32."""
    tile = tile_for("float")
    m = Module(native.host().vector_bits)
    f = m.kernel("peak")
    steps, sums = 1 << 16, 12
    one = const(tile.type, 1.0)
    low, high = f.split(64)
    with f.loop(low, high):
        with f.loop(0, steps, carry=[(tile.type, const(tile.type, 0.0))] * sums) as L:
            L.next = [f.fma(c, one, one) for c in L.carry]
        total = L.carry[0]
        for c in L.carry[1:]:
            total = f.op("fadd", total, c)
        out = f.words(f.arg("args"), 2, ["ptr"])[0]
        f.store(total, out)
    f.ret()
    stage = native.Stage(native.load(m.text(), ["peak"])["peak"], threads > 1)
    launch, out = native.Launch((stage,)), np.zeros(64, np.float32)
    flops = 64 * steps * sums * tile.lanes * 2
    return flops / min(timed(lambda: native.launch(launch, out, ())) for _ in range(5)) / 1e9


def timed(call: Call) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Median seconds of each, one after the other in turn, at least 10 ms each a round."""
    repeats = {}
    for name, call in calls.items():
        call()
        call()
        repeats[name] = max(1, min(50, int(0.01 / max(timed(call), 1e-6))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(0.02)  # a peer's OpenMP threads spin on for a while after its last call
            call()
            times[name].extend(timed(call) for _ in range(repeats[name]))
    return {name: statistics.median(t) for name, t in times.items()}


def report(label: str, flops: float, best: float, found: dict[str, float], unit: float) -> None:
    """One row."""
    mine = found["weft"]
    peers = {k: v for k, v in found.items() if not k.startswith("weft")}
    rate = f"{flops / mine / 1e9:7.1f} {flops / mine / 1e9 / best:5.0%}" if flops else " " * 13
    rest = " ".join(f"{v * unit:9.2f}" for k, v in found.items() if k != "weft")
    ratio = min(peers.values()) / mine if peers else 0.0
    print(f"{label:34s}{mine * unit:10.2f} {rate} {rest} {ratio:7.2f}", flush=True)


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
    x, g, w = (weft.from_numpy(a) for a in (big, small, weight))
    found: dict[str, dict[str, Call]] = {
        "forward": {"weft": lambda: apply(Conv2d(*geometry), x, w)},
        "dx": {"weft": lambda: apply(Conv2dInput(*geometry, size), g, w)},
        "dw": {"weft": lambda: apply(Conv2dWeight(*geometry, kernel), g, x)},
    }
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
        ("weft", weft, None),
        ("torch", torch, torch.contiguous_format),
        ("torch cl", torch, torch.channels_last),
    ):
        x = t.from_numpy(values)
        if form is not None:
            x = x.contiguous(memory_format=form)
        x.requires_grad_()
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


def block(t: Any, channels: int, out: int, stride: int) -> Any:
    """ResNet's basic block (He et al. 2015)."""
    nn = t.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
            self.relu, self.down = nn.ReLU(), None
            if stride != 1 or channels != out:
                self.down = nn.Sequential(
                    nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
                )

        def forward(self, x: Any) -> Any:
            y = self.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            return self.relu(y + (x if self.down is None else self.down(x)))

    return Block()


def bottleneck(t: Any, channels: int, width: int, stride: int) -> Any:
    """ResNet's block of 1x1, 3x3, 1x1."""
    nn = t.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
            self.bn3, self.relu, self.down = nn.BatchNorm2d(4 * width), nn.ReLU(), None
            if stride != 1 or channels != 4 * width:
                self.down = nn.Sequential(
                    nn.Conv2d(channels, 4 * width, 1, stride, bias=False),
                    nn.BatchNorm2d(4 * width),
                )

        def forward(self, x: Any) -> Any:
            y = self.relu(self.bn1(self.conv1(x)))
            y = self.relu(self.bn2(self.conv2(y)))
            y = self.bn3(self.conv3(y))
            return self.relu(y + (x if self.down is None else self.down(x)))

    return Block()


def resnet18(t: Any) -> Any:
    """For 3x64x64: a 3x3 stem and no first pool."""
    nn = t.nn
    parts = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    channels = 64
    for out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        parts += [block(t, channels, out, stride), block(t, out, out, 1)]
        channels = out
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def resnet50(t: Any) -> Any:
    """For 3x224x224."""
    nn = t.nn
    parts = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    parts.append(nn.MaxPool2d(3, 2, 1))
    channels = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(count):
            parts.append(bottleneck(t, channels, width, stride if i == 0 else 1))
            channels = 4 * width
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def training_step(t: Any, *, channels_last: bool = False) -> Call:
    """One step of ResNet-18 on 16 images: forward, loss, backward, Adam."""
    t.manual_seed(0)
    model, x, y = resnet18(t), t.randn(16, 3, 64, 64), t.randint(0, 10, (16,))
    if channels_last:
        model, x = model.to(memory_format=t.channels_last), x.to(memory_format=t.channels_last)
    optimizer = t.optim.Adam(model.parameters())

    def step() -> Any:
        optimizer.zero_grad()
        loss = t.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def inference(t: Any, batch: int) -> Call:
    """ResNet-50 in evaluation."""
    t.manual_seed(0)
    model, x = resnet50(t).eval(), t.randn(batch, 3, 224, 224)

    def run() -> Any:
        with t.no_grad():
            return model(x)

    return run


def onnx_inference(batch: int, threads: int) -> Call | None:
    """The same in onnxruntime, exported by Weft; None where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    weft.manual_seed(0)
    model, x = resnet50(weft).eval(), weft.randn(batch, 3, 224, 224)
    path = f"/tmp/resnet50-{batch}.onnx"
    weft.onnx.export(model, (x,), path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, feed)


RESNET18_STEP = 213e9  # multiplications and additions of a step of 16 images, convolutions and head
RESNET50 = 2 * 4.089e9  # of an image


def main() -> None:
    """Print a row a case."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--models", action="store_true", help="whole nets instead of layers")
    args = parser.parse_args()
    weft.set_num_threads(args.threads)
    torch.set_num_threads(args.threads)
    best = peak(args.threads)
    print(f"weft {weft.__version__}, torch {torch.__version__}, {args.threads} threads, "
          f"fma peak {best:.0f} GFLOP/s")  # fmt: skip
    if args.models:
        rows: list[tuple[str, float, dict[str, Call | None]]] = [
            ("ResNet-18 step", RESNET18_STEP, {
                "weft": weft.compile(training_step(weft)), "weft eager": training_step(weft),
                "torch": training_step(torch), "torch cl": training_step(torch, channels_last=True),
            }),
            *((f"ResNet-50 b{n}", n * RESNET50, {
                "weft": weft.compile(inference(weft, n), replay=True),
                "weft eager": inference(weft, n),
                "torch": inference(torch, n), "onnxruntime": onnx_inference(n, args.threads),
            }) for n in (1, 8)),
        ]  # fmt: skip
        print(f"{'ms':34s}{'compiled':>10s}{'GFLOP/s':>8s}{'peak':>6s} eager, peers")
        for name, flops, calls in rows:
            if args.only in name:
                present = {k: v for k, v in calls.items() if v is not None}
                report(name, flops, best, medians(present, args.rounds), 1e3)
        return
    print(
        f"{'us':34s}{'weft':>10s}{'GFLOP/s':>8s}{'peak':>6s}{'torch':>10s}{'cl':>10s}{'ratio':>8s}"
    )
    for case in CONVS:
        if args.only in case.name:
            for face, calls in faces(case).items():
                report(f"{case.name} {face}", case.flops, best, medians(calls, args.rounds), 1e6)
    for name, calls in layers().items():
        if args.only in name:
            report(name, 0, best, medians(calls, args.rounds), 1e6)


if __name__ == "__main__":
    main()
