"""TensorFlow: tf.function, plain and with XLA; models from Keras layers, NHWC."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

VARIANTS = ["function", "XLA"]
keras = tf.keras
layers = keras.layers


def start(threads: int) -> str:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    return tf.__version__


def _mlp() -> Any:
    return keras.Sequential(
        [layers.Dense(512, "relu"), layers.Dense(256, "relu"), layers.Dense(10)]
    )


def _cnn() -> Any:
    return keras.Sequential([
        layers.Conv2D(32, 3, activation="relu"), layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPool2D(2), layers.Flatten(), layers.Dense(128, "relu"), layers.Dense(10),
    ])  # fmt: skip


def _lstm() -> Any:
    return keras.Sequential([layers.LSTM(256), layers.Dense(10)])


def _attend(qkv: Any, heads: int, allowed: Any = None, past: Any = None) -> tuple[Any, Any]:
    """Attention over heads of width 64; `past` holds earlier keys and values."""
    b, n = qkv.shape[0], qkv.shape[1]
    new = tf.transpose(tf.reshape(qkv, (b, n, 3, heads, 64)), (2, 0, 3, 1, 4))
    q, k, v = new[0], new[1], new[2]
    if past is not None:
        k, v = tf.concat((past[0], k), 2), tf.concat((past[1], v), 2)
    s = tf.matmul(q, k, transpose_b=True) / 8.0
    if allowed is not None:
        s = tf.where(allowed, s, tf.constant(-1e30))
    y = tf.matmul(tf.nn.softmax(s), v)
    return tf.reshape(tf.transpose(y, (0, 2, 1, 3)), (b, n, heads * 64)), new[1:]


class Block(layers.Layer):
    """A transformer block; `post` puts the norms behind the sums."""

    def __init__(self, width: int, *, post: bool, approximate: bool = False) -> None:
        super().__init__()
        self.n1, self.n2 = (layers.LayerNormalization(epsilon=1e-5) for _ in range(2))
        self.qkv, self.out = layers.Dense(3 * width), layers.Dense(width)
        self.up, self.down = layers.Dense(4 * width), layers.Dense(width)
        self.heads, self.post, self.approximate = width // 64, post, approximate

    def call(self, x: Any, allowed: Any = None, past: Any = None) -> Any:
        y, new = _attend(self.qkv(x if self.post else self.n1(x)), self.heads, allowed, past)
        x = x + self.out(y)
        x = self.n1(x) if self.post else x
        up = tf.nn.gelu(self.up(x if self.post else self.n2(x)), approximate=self.approximate)
        x = x + self.down(up)
        return self.n2(x) if self.post else (x, new)


class GPT(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.token = layers.Embedding(256, 384)
        self.place = self.add_weight(shape=(128, 384), name="place")
        self.blocks = [Block(384, post=False) for _ in range(6)]
        self.norm, self.head = layers.LayerNormalization(epsilon=1e-5), layers.Dense(256)

    def call(self, x: Any) -> Any:
        allowed = tf.linalg.band_part(tf.ones((128, 128), tf.bool), -1, 0)
        x = self.token(x) + self.place
        for block in self.blocks:
            x, _ = block(x, allowed)
        return tf.reshape(self.head(self.norm(x)), (-1, 256))


class Bert(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.token = layers.Embedding(30522, 768)
        self.place = self.add_weight(shape=(128, 768), name="place")
        self.norm = layers.LayerNormalization(epsilon=1e-5)
        self.blocks = [Block(768, post=True) for _ in range(12)]

    def call(self, x: Any) -> Any:
        x = self.norm(self.token(x) + self.place)
        for block in self.blocks:
            x = block(x)
        return x


def _conv_bn(x: Any, cout: int, kernel: int, stride: int) -> Any:
    x = layers.Conv2D(cout, kernel, stride, "same", use_bias=False)(x)
    return layers.BatchNormalization(epsilon=1e-5, momentum=0.9)(x)


def _resnet18() -> Any:
    x = inputs = keras.Input((64, 64, 3), batch_size=16)
    x = layers.ReLU()(_conv_bn(x, 64, 3, 1))
    cin = 64
    for cout, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            y = _conv_bn(layers.ReLU()(_conv_bn(x, cout, 3, stride)), cout, 3, 1)
            x = layers.ReLU()(y + (x if cin == cout else _conv_bn(x, cout, 1, stride)))
            cin = cout
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def _resnet50(batch: int) -> Any:
    x = inputs = keras.Input((224, 224, 3), batch_size=batch)
    x = layers.ReLU()(_conv_bn(x, 64, 7, 2))
    x = layers.MaxPool2D(3, 2, "same")(x)
    for width, first, count in ((64, 1, 3), (128, 2, 4), (256, 2, 6), (512, 2, 3)):
        for i in range(count):
            stride = first if i == 0 else 1
            y = layers.ReLU()(_conv_bn(x, width, 1, 1))
            y = _conv_bn(layers.ReLU()(_conv_bn(y, width, 3, stride)), 4 * width, 1, 1)
            x = layers.ReLU()(y + (x if i else _conv_bn(x, 4 * width, 1, stride)))
    return keras.Model(inputs, layers.Dense(1000)(layers.GlobalAveragePooling2D()(x)))


def _integers(high: int, *shape: int) -> Any:
    return tf.random.uniform(shape, 0, high, tf.int32)


_TRAINING: dict[str, tuple[Callable, Callable]] = {
    "mlp": (_mlp, lambda: (tf.random.normal((128, 784)), _integers(10, 128))),
    "cnn": (_cnn, lambda: (tf.random.normal((64, 28, 28, 1)), _integers(10, 64))),
    "lstm": (_lstm, lambda: (tf.random.normal((32, 64, 64)), _integers(10, 32))),
    "gpt": (GPT, lambda: (_integers(256, 8, 128), _integers(256, 1024))),
    "resnet18": (_resnet18, lambda: (tf.random.normal((16, 64, 64, 3)), _integers(10, 16))),
}
_INFERENCE: dict[str, tuple[Callable, Callable]] = {
    "mlp_b1": (_mlp, lambda: tf.random.normal((1, 784))),
    "mlp_b32": (_mlp, lambda: tf.random.normal((32, 784))),
    "bert": (Bert, lambda: _integers(30522, 1, 128)),
    "resnet50_b1": (lambda: _resnet50(1), lambda: tf.random.normal((1, 224, 224, 3))),
    "resnet50_b8": (lambda: _resnet50(8), lambda: tf.random.normal((8, 224, 224, 3))),
}


def make(work: str, variant: str) -> Callable[[], float]:
    xla = variant == "XLA"
    if work in _INFERENCE:
        model_of, inputs = _INFERENCE[work]
        model, x = model_of(), inputs()
        model(x)
        run = tf.function(lambda x: model(x, training=False), jit_compile=xla)
        return lambda: float(run(x).numpy().flat[0])
    if work not in _TRAINING:
        raise NotImplementedError(f"{work} is not written in TensorFlow")
    model_of, inputs = _TRAINING[work]
    model, (x, y) = model_of(), inputs()
    model(x)
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=xla)
    def step() -> Any:
        with tf.GradientTape() as tape:
            rows = model(x, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=rows)
            )
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        return loss

    return lambda: float(step().numpy())
