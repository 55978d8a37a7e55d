"""Whole training steps (forward, loss, backward, Adam) beside torch, interleaved in one process.

    python bench/training.py [--rounds 5]

Needs torch beside Weft (`make bench` makes such an environment).  The models are written once and
built from either library.  A row gives the medians in milliseconds, of Weft eager, Weft compiled
and torch eager, and the ratio of torch's median to compiled Weft's: above 1 Weft is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import weft


def mlp(t: Any) -> tuple[Any, Any, Any]:
    """784-512-256-10, batch 128."""
    nn = t.nn
    model = nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    return model, t.randn(128, 784), t.randint(0, 10, (128,))


def cnn(t: Any) -> tuple[Any, Any, Any]:
    """28x28: 3x3x32, 3x3x64, pool, 128, 10; batch 64."""
    nn = t.nn
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    return model, t.randn(64, 1, 28, 28), t.randint(0, 10, (64,))


def lstm(t: Any) -> tuple[Any, Any, Any]:
    """Hidden 256, input 64, length 64, batch 32."""

    class Tagger(t.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = t.nn.LSTM(64, 256, batch_first=True)
            self.out = t.nn.Linear(256, 10)

        def forward(self, x: Any) -> Any:
            return self.out(self.rnn(x)[0][:, -1])

    return Tagger(), t.randn(32, 64, 64), t.randint(0, 10, (32,))


def gpt(t: Any) -> tuple[Any, Any, Any]:
    """6 pre-norm blocks, 6 heads, width 384, length 128, batch 8, vocabulary 256."""

    class Block(t.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = t.nn.LayerNorm(384), t.nn.LayerNorm(384)
            self.qkv, self.out = t.nn.Linear(384, 1152), t.nn.Linear(384, 384)
            self.up, self.down = t.nn.Linear(384, 1536), t.nn.Linear(1536, 384)

        def forward(self, x: Any) -> Any:
            f = t.nn.functional
            b, n, c = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, 6, 64).permute(2, 0, 3, 1, 4).unbind(0)
            y = f.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, n, c))
            return x + self.down(f.gelu(self.up(self.norm2(x))))

    class Model(t.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.place = t.nn.Embedding(256, 384), t.nn.Embedding(128, 384)
            self.blocks = t.nn.ModuleList(Block() for _ in range(6))
            self.norm, self.head = t.nn.LayerNorm(384), t.nn.Linear(384, 256)

        def forward(self, x: Any) -> Any:
            x = self.token(x) + self.place.weight
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x)).flatten(0, 1)

    return Model(), t.randint(0, 256, (8, 128)), t.randint(0, 256, (1024,))


def step_of(t: Any, make: Callable) -> Callable[[], Any]:
    """One training step of the model, ready to call."""
    t.manual_seed(0)
    model, x, y = make(t)
    optimizer = t.optim.Adam(model.parameters())

    def step() -> Any:
        optimizer.zero_grad()
        loss = t.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def main() -> None:
    """Print a row a model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    weft.set_num_threads(args.threads)
    torch.set_num_threads(args.threads)
    print(f"weft {weft.__version__}, torch {torch.__version__}, {args.threads} threads, ms a step")
    print(f"{'model':8s}{'eager':>9s}{'compiled':>10s}{'torch':>9s}{'torch/compiled':>16s}")
    for make in (mlp, cnn, lstm, gpt):
        peers = {
            "eager": step_of(weft, make),
            "compiled": weft.compile(step_of(weft, make)),
            "torch": step_of(torch, make),
        }
        times: dict[str, list[float]] = {name: [] for name in peers}
        for step in peers.values():
            for _ in range(3):
                step().item()
        for _ in range(args.rounds):
            for name, step in peers.items():
                for _ in range(3):
                    start = time.perf_counter()
                    step().item()
                    times[name].append(1e3 * (time.perf_counter() - start))
        e, c, p = (statistics.median(times[k]) for k in ("eager", "compiled", "torch"))
        print(f"{make.__name__:8s}{e:9.2f}{c:10.2f}{p:9.2f}{p / c:16.2f}")


if __name__ == "__main__":
    main()
