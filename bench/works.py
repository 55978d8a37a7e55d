"""The workloads: what is timed, how much arithmetic it is, and how long it may take.

No peer is imported here: every process of the suite reads this table.  `flop` counts what matrix
products and convolutions need (two a multiplication and addition; backward twice the forward,
less the gradient of the first layer's input, which nobody needs); `bytes` what a step must read at
least, where that bounds it.  A peer's time against these gives its share of the machine's peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Work:
    """One row of the table."""

    name: str
    kind: str  # "training", "inference", or "int8": inference of the model `NAME_int8` in bytes
    what: str
    flop: float
    target: float  # the issue's: the best peer's median over Weft's, at least
    bytes: float = 0.0  # in float32; half of them in bfloat16
    calls: int = 3  # timed calls a round


def linear(rows: int, *widths: int) -> float:
    """Operations of products through layers of these widths."""
    return 2.0 * rows * sum(a * b for a, b in pairwise(widths))


def conv(images: int, size: int, cin: int, cout: int, kernel: int) -> float:
    """Operations of a convolution whose output is size x size."""
    return 2.0 * images * size * size * cin * cout * kernel * kernel


def resnet18(images: int) -> float:
    """3x64x64, a 3x3 stem with stride 1, no first pool: forward."""
    total = conv(images, 64, 3, 64, 3)
    cin = 64
    for cout, size in ((64, 64), (128, 32), (256, 16), (512, 8)):
        total += conv(images, size, cin, cout, 3) + 3 * conv(images, size, cout, cout, 3)
        total += conv(images, size, cin, cout, 1) if cin != cout else 0
        cin = cout
    return total + linear(images, 512, 10)


def resnet50(images: int) -> float:
    """3x224x224: forward."""
    total = conv(images, 112, 3, 64, 7)
    cin = 64
    for width, size, blocks in ((64, 56, 3), (128, 28, 4), (256, 14, 6), (512, 7, 3)):
        for i in range(blocks):
            before = size * 2 if i == 0 and width != 64 else size
            total += conv(images, before, cin, width, 1) + conv(images, size, width, width, 3)
            total += conv(images, size, width, 4 * width, 1)
            total += conv(images, size, cin, 4 * width, 1) if i == 0 else 0
            cin = 4 * width
    return total + linear(images, 2048, 1000)


def transformer(batch: int, length: int, width: int, layers: int, *, causal: bool) -> float:
    """Blocks of attention and a fourfold MLP: forward."""
    rows = batch * length
    scores = 4.0 * rows * length * width * (0.5 if causal else 1.0)
    return layers * (12 * linear(rows, width, width) + scores)


_MLP = (784, 512, 256, 10)
_CNN = (
    conv(64, 26, 1, 32, 3) * 2  # without its input's gradient
    + 3 * conv(64, 24, 32, 64, 3)
    + 3 * linear(64, 9216, 128, 10)
)
_GPT = transformer(8, 128, 384, 6, causal=True) + linear(1024, 384, 256)
_LSTM = 64 * (3 * linear(32, 256, 1024) + 2 * linear(32, 64, 1024)) + 3 * linear(32, 256, 10)
_DECODE_NUMBERS = 12 * (12 * 768 * 768) + 50257 * 768 + 12 * 2 * 256 * 768

WORKS = (
    Work("mlp", "training", "MLP 784-512-256-10, batch 128, Adam",
         3 * linear(128, *_MLP) - linear(128, 784, 512), 1.3, calls=30),
    Work("cnn", "training", "CNN 28x28: 3x3x32, 3x3x64, pool, 128, 10; batch 64, Adam", _CNN, 1.3),
    Work("lstm", "training", "LSTM hidden 256, input 64, length 64, batch 32, Adam", _LSTM, 1.3),
    Work("gpt", "training", "GPT 6 layers, width 384, length 128, batch 8, Adam", 3 * _GPT, 1.25,
         calls=1),
    Work("resnet18", "training", "ResNet-18 on 3x64x64 (3x3 stem, no first pool), batch 16, Adam",
         3 * resnet18(16) - conv(16, 64, 3, 64, 3), 1.15, calls=1),
    Work("mlp_b1", "inference", "the MLP, batch 1", linear(1, *_MLP), 1.2,
         calls=300),
    Work("mlp_b32", "inference", "the MLP, batch 32", linear(32, *_MLP), 1.2, calls=100),
    Work("bert", "inference", "BERT-base, length 128, batch 1",
         transformer(1, 128, 768, 12, causal=False), 1.2),
    Work("resnet50_b1", "inference", "ResNet-50 on 3x224x224, batch 1", resnet50(1), 1.05),
    Work("resnet50_b8", "inference", "ResNet-50 on 3x224x224, batch 8", resnet50(8), 1.0, calls=1),
    Work("gpt2_decode", "inference", "GPT-2 small, one token behind a cache of 256",
         2.0 * _DECODE_NUMBERS, 1.1, bytes=4.0 * _DECODE_NUMBERS, calls=5),
    Work("bert_int8", "int8", "BERT-base in int8, length 128, batch 1",
         transformer(1, 128, 768, 12, causal=False), 1.0),
    Work("resnet50_b1_int8", "int8", "ResNet-50 in int8, batch 1", resnet50(1), 1.0, calls=5),
    Work("resnet50_b8_int8", "int8", "ResNet-50 in int8, batch 8", resnet50(8), 1.0),
)  # fmt: skip
