"""Digests of what kernels compute: elementwise functions, sums, products, convolutions, training.

Run on two machines (or with two values of WEFT_TARGET) and compared, it tells whether they agree to
the bit: `python tools/bits.py`. `tools/arm.py` compares this machine with an emulated ARM one.
"""

from __future__ import annotations

import hashlib

import weft
from weft import nn
from weft.nn import functional as F

POINTWISE = [
    "exp",
    "log1p",
    "sin",
    "cos",
    "tanh",
    "sigmoid",
    "erf",
    "lgamma",
    "sqrt",
    "rsqrt",
    "atan",
    "floor",
    "relu",
    "expm1",
    "log2",
    "square",
    "reciprocal",
    "softmax",
    "log_softmax",
]


def digest(*tensors: weft.Tensor) -> str:
    """16 digits for the bytes of the tensors, in order."""
    h = hashlib.sha256()
    for t in tensors:
        h.update(t.detach().contiguous().numpy().tobytes())
    return h.hexdigest()[:16]


def trained(model: nn.Module, x: weft.Tensor, y: weft.Tensor) -> str:
    """A model after five steps of AdamW, eager and compiled."""
    optimizer = weft.optim.AdamW(model.parameters(), lr=1e-2)

    def step() -> weft.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    fast = weft.compile(step)
    losses = [run() for run in (step, fast, fast, fast, fast)]
    return digest(*losses, *model.parameters())


def rows() -> list[tuple[str, str]]:
    """(what, digest)."""
    weft.manual_seed(0)
    x = weft.randn(70, 133)
    found = [("randn", digest(x)), ("rand, randint", digest(weft.rand(99), weft.randint(9, (99,))))]
    for name in POINTWISE:
        f = getattr(weft, name, None) or getattr(F, name)
        found.append((name, digest(f(x, -1) if "softmax" in name else f(x.abs() + 0.1))))
    found.append(("gelu, silu", digest(F.gelu(x), F.silu(x))))
    found.append(("sums", digest(x.sum(), x.sum(0), x.sum(1), x.var(0), x.mean((0, 1)))))
    found.append(("layer norm", digest(F.layer_norm(x, (133,)))))
    for kind in (weft.float32, weft.float64, weft.bfloat16):
        found.append((f"matmul {kind}", digest((x.to(kind) @ x.to(kind).T).float())))
    images, w = weft.randn(3, 8, 17, 19), weft.randn(12, 8, 3, 3)
    found.append(("conv", digest(F.conv2d(images, w, padding=1), F.conv2d(images, w, stride=2))))
    q = weft.randn(2, 3, 21, 16)
    found.append(("attention", digest(F.scaled_dot_product_attention(q, q, q, is_causal=True))))
    found.append(("cumsum, sort", digest(x.cumsum(1), x.sort(1).values)))
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(8 * 9, 5),
    )  # fmt: skip
    found.append(("conv net", trained(net, weft.randn(9, 1, 8, 8), weft.randint(0, 5, (9,)))))
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    block = nn.Sequential(layer, nn.Flatten(), nn.Linear(16 * 7, 5))
    found.append(("transformer", trained(block, weft.randn(9, 7, 16), weft.randint(0, 5, (9,)))))
    return found


if __name__ == "__main__":
    for what, d in rows():
        print(f"{d}  {what}")
