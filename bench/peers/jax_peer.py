"""JAX: one jitted function a workload, buffers donated; convolutions in NHWC, its better layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

VARIANTS = ["jit"]
Params = dict[str, Any]
_rng = np.random.default_rng(0)


def start(threads: int) -> str:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # XLA has one thread a core
    return jax.__version__


def _weight(*shape: int) -> Any:
    return jnp.asarray(_rng.standard_normal(shape, np.float32) * 0.02)


def _linear(cin: int, cout: int) -> Params:
    return {"w": _weight(cin, cout), "b": jnp.zeros(cout)}


def _apply(p: Params, x: Any) -> Any:
    return x @ p["w"] + p["b"]


def _norm_of(c: int) -> Params:
    return {"g": jnp.ones(c), "b": jnp.zeros(c)}


def _layer_norm(p: Params, x: Any) -> Any:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + 1e-5) * p["g"] + p["b"]


def _conv(w: Any, x: Any, stride: int = 1, padding: str = "SAME") -> Any:
    return jax.lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _batch_norm(p: Params, x: Any, *, train: bool) -> Any:
    if not train:
        return (x - p["mean"]) * jax.lax.rsqrt(p["var"] + 1e-5) * p["g"] + p["b"]
    mean = x.mean((0, 1, 2))
    var = (x * x).mean((0, 1, 2)) - mean * mean
    return (x - mean) * jax.lax.rsqrt(var + 1e-5) * p["g"] + p["b"]


def _bn_of(c: int) -> Params:
    return _norm_of(c)


def _mlp() -> tuple[Params, Callable]:
    p = {str(i): _linear(a, b) for i, (a, b) in enumerate(((784, 512), (512, 256), (256, 10)))}

    def forward(p: Params, x: Any) -> Any:
        x = jax.nn.relu(_apply(p["0"], x))
        return _apply(p["2"], jax.nn.relu(_apply(p["1"], x)))

    return p, forward


def _cnn() -> tuple[Params, Callable]:
    p = {
        "c1": {"w": _weight(3, 3, 1, 32), "b": jnp.zeros(32)},
        "c2": {"w": _weight(3, 3, 32, 64), "b": jnp.zeros(64)},
        "l1": _linear(9216, 128),
        "l2": _linear(128, 10),
    }

    def forward(p: Params, x: Any) -> Any:
        x = jax.nn.relu(_conv(p["c1"]["w"], x, padding="VALID") + p["c1"]["b"])
        x = jax.nn.relu(_conv(p["c2"]["w"], x, padding="VALID") + p["c2"]["b"])
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return _apply(p["l2"], jax.nn.relu(_apply(p["l1"], x.reshape(x.shape[0], -1))))

    return p, forward


def _lstm() -> tuple[Params, Callable]:
    p = {"x": _linear(64, 1024), "h": _weight(256, 1024), "out": _linear(256, 10)}

    def forward(p: Params, x: Any) -> Any:
        gates = _apply(p["x"], x).transpose(1, 0, 2)

        def step(state: Any, g: Any) -> Any:
            h, c = state
            i, f, z, o = jnp.split(g + h @ p["h"], 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(z)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        zero = jnp.zeros((x.shape[0], 256))
        (h, _), _ = jax.lax.scan(step, (zero, zero), gates)
        return _apply(p["out"], h)

    return p, forward


def _block_of(width: int) -> Params:
    return {
        "n1": _norm_of(width), "n2": _norm_of(width), "qkv": _linear(width, 3 * width),
        "out": _linear(width, width), "up": _linear(width, 4 * width),
        "down": _linear(4 * width, width),
    }  # fmt: skip


def _attend(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
    s = jnp.einsum("bhqd,bhkd->bhqk", q, k) / 8.0
    if mask is not None:
        s = jnp.where(mask, s, -jnp.inf)
    return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(s, -1), v)


def _heads(x: Any, heads: int) -> Any:
    b, n, _ = x.shape
    return x.reshape(b, n, 3, heads, 64).transpose(2, 0, 3, 1, 4)


def _join(y: Any) -> Any:
    b, h, n, d = y.shape
    return y.transpose(0, 2, 1, 3).reshape(b, n, h * d)


def _gpt() -> tuple[Params, Callable]:
    p = {
        "token": _weight(256, 384), "place": _weight(128, 384),
        "blocks": [_block_of(384) for _ in range(6)], "norm": _norm_of(384),
        "head": _linear(384, 256),
    }  # fmt: skip

    def forward(p: Params, x: Any) -> Any:
        mask = jnp.tril(jnp.ones((128, 128), bool))
        x = p["token"][x] + p["place"]
        for b in p["blocks"]:
            q, k, v = _heads(_apply(b["qkv"], _layer_norm(b["n1"], x)), 6)
            x = x + _apply(b["out"], _join(_attend(q, k, v, mask)))
            up = jax.nn.gelu(_apply(b["up"], _layer_norm(b["n2"], x)), approximate=False)
            x = x + _apply(b["down"], up)
        return _apply(p["head"], _layer_norm(p["norm"], x)).reshape(-1, 256)

    return p, forward


def _resnet18() -> tuple[Params, Callable]:
    def conv(k: int, a: int, b: int) -> Params:
        return {"w": _weight(k, k, a, b), "bn": _bn_of(b)}

    def unit(p: Params, x: Any, stride: int = 1) -> Any:
        return _batch_norm(p["bn"], _conv(p["w"], x, stride), train=True)

    p: Params = {"stem": conv(3, 3, 64), "blocks": [], "out": _linear(512, 10)}
    cin, strides = 64, []
    for cout, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            b = {"1": conv(3, cin, cout), "2": conv(3, cout, cout)}
            if cin != cout:
                b["down"] = conv(1, cin, cout)
            p["blocks"].append(b)
            strides.append(stride)
            cin = cout

    def forward(p: Params, x: Any) -> Any:
        x = jax.nn.relu(unit(p["stem"], x))
        for b, stride in zip(p["blocks"], strides, strict=True):
            y = unit(b["2"], jax.nn.relu(unit(b["1"], x, stride)))
            x = jax.nn.relu(y + (unit(b["down"], x, stride) if "down" in b else x))
        return _apply(p["out"], x.mean((1, 2)))

    return p, forward


def _bert() -> tuple[Params, Callable]:
    p = {
        "token": _weight(30522, 768), "place": _weight(128, 768), "norm": _norm_of(768),
        "blocks": [_block_of(768) for _ in range(12)],
    }  # fmt: skip

    def forward(p: Params, x: Any) -> Any:
        x = _layer_norm(p["norm"], p["token"][x] + p["place"])
        for b in p["blocks"]:
            q, k, v = _heads(_apply(b["qkv"], x), 12)
            x = _layer_norm(b["n1"], x + _apply(b["out"], _join(_attend(q, k, v))))
            up = jax.nn.gelu(_apply(b["up"], x), approximate=False)
            x = _layer_norm(b["n2"], x + _apply(b["down"], up))
        return x

    return p, forward


def _decode() -> tuple[Params, Callable]:
    p = {
        "token": _weight(50257, 768), "place": _weight(1024, 768), "norm": _norm_of(768),
        "blocks": [_block_of(768) for _ in range(12)],
    }  # fmt: skip

    def forward(p: Params, token: Any, past: Any) -> Any:
        x = p["token"][token] + p["place"][256]
        made = []
        for b, old in zip(p["blocks"], past, strict=True):
            new = _heads(_apply(b["qkv"], _layer_norm(b["n1"], x)), 12)
            k = jnp.concatenate((old[0], new[1]), 2)
            v = jnp.concatenate((old[1], new[2]), 2)
            x = x + _apply(b["out"], _join(_attend(new[0], k, v)))
            x = x + _apply(b["down"], jax.nn.gelu(_apply(b["up"], _layer_norm(b["n2"], x))))
            made.append(new[1:])
        return _layer_norm(p["norm"], x) @ p["token"].T, jnp.stack(made)

    return p, forward


def _normal(*shape: int) -> Any:
    return jnp.asarray(_rng.standard_normal(shape, np.float32))


def _integers(high: int, *shape: int) -> Any:
    return jnp.asarray(_rng.integers(0, high, shape))


_TRAINING: dict[str, tuple[Callable, Callable]] = {
    "mlp": (_mlp, lambda: (_normal(128, 784), _integers(10, 128))),
    "cnn": (_cnn, lambda: (_normal(64, 28, 28, 1), _integers(10, 64))),
    "lstm": (_lstm, lambda: (_normal(32, 64, 64), _integers(10, 32))),
    "gpt": (_gpt, lambda: (_integers(256, 8, 128), _integers(256, 1024))),
    "resnet18": (_resnet18, lambda: (_normal(16, 64, 64, 3), _integers(10, 16))),
}
_INFERENCE: dict[str, tuple[Callable, Callable]] = {
    "mlp_b1": (_mlp, lambda: (_normal(1, 784),)),
    "mlp_b32": (_mlp, lambda: (_normal(32, 784),)),
    "bert": (_bert, lambda: (_integers(30522, 1, 128),)),
    "gpt2_decode": (_decode, lambda: (_integers(50257, 1, 1), _normal(12, 2, 1, 12, 256, 64))),
}


def make(work: str, variant: str) -> Callable[[], float]:
    if work in _INFERENCE:
        model, inputs = _INFERENCE[work]
        params, forward = model()
        x = inputs()
        run = jax.jit(forward)

        def serve() -> float:
            y = jax.block_until_ready(run(params, *x))
            return float((y[0] if isinstance(y, tuple) else y).reshape(-1)[0])

        return serve
    if work not in _TRAINING:
        raise NotImplementedError(f"{work} is not written in JAX: it is far behind in convolutions")
    model, inputs = _TRAINING[work]
    params, forward = model()
    x, target = inputs()

    def loss_of(p: Params) -> Any:
        rows = jax.nn.log_softmax(forward(p, x), -1)
        return -jnp.take_along_axis(rows, target[:, None], 1).mean()

    zeros = jax.tree.map(jnp.zeros_like, params)

    def update(state: Any) -> Any:
        p, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(p)
        t = t + 1.0
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        a, b = 1 - 0.9**t, 1 - 0.999**t
        p = jax.tree.map(lambda p, m, v: p - 1e-3 * (m / a) / (jnp.sqrt(v / b) + 1e-8), p, m, v)
        return loss, (p, m, v, t)

    step = jax.jit(update, donate_argnums=0)
    state = [(params, zeros, jax.tree.map(jnp.copy, zeros), jnp.asarray(0.0))]

    def train() -> float:
        loss, state[0] = step(state[0])
        return float(loss)

    return train
