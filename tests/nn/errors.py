"""Calls that torch refuses, by name; torch's class of error and words are recorded beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

ERRORS: dict[str, Callable] = {
    "target": lambda W, F: F.cross_entropy(W.zeros(3, 5), W.tensor([0, 5, 1])),
    "target_negative": lambda W, F: F.nll_loss(W.zeros(3, 5), W.tensor([0, -1, 1])),
    "batch": lambda W, F: F.cross_entropy(W.zeros(3, 5), W.tensor([0, 1])),
    "target_dtype": lambda W, F: F.nll_loss(W.zeros(2, 5), W.tensor([0.0, 1.0])),
    "target_rank": lambda W, F: F.nll_loss(W.zeros(2, 5), W.tensor([[0], [1]])),
    "class_weight": lambda W, F: F.nll_loss(W.zeros(2, 5), W.tensor([0, 1]), W.ones(4)),
    "smoothing": lambda W, F: F.cross_entropy(W.zeros(2, 5), W.zeros(2, 5), label_smoothing=2.0),
    "prob_dtype": lambda W, F: F.cross_entropy(W.zeros(2, 5), W.zeros(2, 5).long()),
    "reduction": lambda W, F: F.mse_loss(W.zeros(2), W.zeros(2), reduction="foo"),
    "bce_shape": lambda W, F: F.binary_cross_entropy(W.zeros(3, 5), W.zeros(3, 1)),
    "bce_range": lambda W, F: F.binary_cross_entropy(W.full((2,), 2.0), W.zeros(2)),
    "bcel_shape": lambda W, F: F.binary_cross_entropy_with_logits(W.zeros(3, 5), W.zeros(3, 1)),
    "beta": lambda W, F: F.smooth_l1_loss(W.zeros(2), W.zeros(2), beta=-1.0),
    "delta": lambda W, F: F.huber_loss(W.zeros(2), W.zeros(2), delta=0.0),
    "var": lambda W, F: F.gaussian_nll_loss(W.zeros(2), W.zeros(2), -W.ones(2)),
    "triplet": lambda W, F: F.triplet_margin_loss(W.zeros(2, 2), W.zeros(2, 2), W.zeros(2)),
    "margin": lambda W, F: F.triplet_margin_loss(*[W.zeros(2, 2)] * 3, margin=0.0),
    "softmax_dim": lambda W, F: F.softmax(W.zeros(2, 2), 2),
    "approximate": lambda W, F: F.gelu(W.zeros(2), approximate="foo"),
    "hardtanh": lambda W, F: F.hardtanh(W.zeros(2), 1.0, -1.0),
    "softshrink": lambda W, F: F.softshrink(W.zeros(2), -1.0),
    "glu": lambda W, F: F.glu(W.zeros(2, 3)),
    "channels": lambda W, F: F.conv2d(W.zeros(2, 3, 8, 8), W.zeros(4, 2, 3, 3)),
    "conv_bias": lambda W, F: F.conv2d(W.zeros(2, 3, 8, 8), W.zeros(4, 3, 3, 3), W.zeros(3)),
    "stride": lambda W, F: F.conv2d(W.zeros(2, 3, 8, 8), W.zeros(4, 3, 3, 3), stride=0),
    "padding": lambda W, F: F.conv2d(W.zeros(2, 3, 8, 8), W.zeros(4, 3, 3, 3), padding=-1),
    "groups": lambda W, F: F.conv2d(W.zeros(2, 3, 8, 8), W.zeros(4, 1, 3, 3), groups=3),
    "kernel": lambda W, F: F.conv2d(W.zeros(2, 3, 8, 8), W.zeros(4, 3, 9, 9)),
    "same": lambda W, F: F.conv2d(W.zeros(1, 1, 4, 4), W.zeros(1, 1, 2, 2), None, 2, "same"),
    "paddings": lambda W, F: F.conv2d(W.zeros(1, 1, 4, 4), W.zeros(1, 1, 2, 2), padding="foo"),
    "conv_rank": lambda W, F: F.conv2d(W.zeros(8, 8), W.zeros(4, 3, 3, 3)),
    "conv_dtype": lambda W, F: F.conv2d(W.zeros(2, 3, 8, 8), W.zeros(4, 3, 3, 3).double()),
    "transposed": lambda W, F: F.conv_transpose2d(W.zeros(2, 3, 8, 8), W.zeros(4, 3, 3, 3)),
    "out_padding": lambda W, F: F.conv_transpose2d(
        W.zeros(1, 3, 8, 8), W.zeros(3, 3, 3, 3), output_padding=1
    ),
    "pool_pad": lambda W, F: F.max_pool2d(W.zeros(1, 3, 8, 8), 3, padding=2),
    "pool_size": lambda W, F: F.avg_pool2d(W.zeros(1, 3, 8, 8), 9),
    "pool_rank": lambda W, F: F.max_pool2d(W.zeros(8, 8), 2),
    "pool_stride": lambda W, F: F.max_pool2d(W.zeros(1, 3, 8, 8), 2, 0),
    "divisor": lambda W, F: F.avg_pool2d(W.zeros(1, 3, 8, 8), 2, divisor_override=0),
    "adaptive": lambda W, F: F.adaptive_avg_pool2d(W.zeros(8, 8), 2),
    "one_value": lambda W, F: F.batch_norm(W.zeros(1, 3), None, None, training=True),
    "running": lambda W, F: F.batch_norm(W.zeros(2, 3), W.zeros(4), W.zeros(3)),
    "no_statistics": lambda W, F: F.batch_norm(W.zeros(2, 3), None, None),
    "instance": lambda W, F: F.instance_norm(W.zeros(2, 3, 1, 1)),
    "layer": lambda W, F: F.layer_norm(W.zeros(2, 3), (4,)),
    "layer_weight": lambda W, F: F.layer_norm(W.zeros(2, 3), (3,), W.zeros(4)),
    "group": lambda W, F: F.group_norm(W.zeros(2, 3), 2),
    "dropout": lambda W, F: F.dropout(W.zeros(2), 1.5),
    "uniform": lambda W, F: W.zeros(3).uniform_(2, 1),
    "std": lambda W, F: W.zeros(3).normal_(0, -1),
    "randint": lambda W, F: W.randint(5, 2, (3,)),
    "negative_size": lambda W, F: W.rand(-1),
    "leaf": lambda W, F: W.zeros(3, requires_grad=True).uniform_(),
    "bernoulli": lambda W, F: W.zeros(3).bernoulli_(2.0),
    "heads": lambda W, F: F.multi_head_attention_forward(
        *[W.zeros(2, 1, 4)] * 3, 5, 2, W.zeros(12, 4), None, None, None, False, 0.0,
        W.zeros(4, 4), None,
    ),
    "size_and_scale": lambda W, F: F.interpolate(W.zeros(1, 1, 4, 4), 2, 2.0),
    "no_size": lambda W, F: F.interpolate(W.zeros(1, 1, 4, 4)),
    "corners": lambda W, F: F.interpolate(W.zeros(1, 1, 4, 4), 2, align_corners=True),
    "mode_rank": lambda W, F: F.interpolate(W.zeros(1, 1, 4, 4), 2, mode="linear"),
    "shuffle": lambda W, F: F.pixel_shuffle(W.zeros(1, 3, 4, 4), 2),
    "fold": lambda W, F: F.fold(W.zeros(1, 12, 9), (3, 3), 2),
    "unfold": lambda W, F: F.unfold(W.zeros(1, 1, 4, 4), 5),
    "pad_length": lambda W, F: F.pad(W.zeros(1, 1, 4), (1,)),
    "pad_far": lambda W, F: F.pad(W.zeros(1, 1, 4), (4, 0), "reflect"),
    "pad_mode": lambda W, F: F.pad(W.zeros(1, 1, 4), (1, 0), "foo"),
    "bag": lambda W, F: F.embedding_bag(W.tensor([1, 2]), W.zeros(5, 4)),
}  # fmt: skip


def message(W: Any, F: Any, fn: Callable) -> list[str]:
    """[the error's class, its first line]; a call that does not fail fails the test."""
    try:
        got = fn(W, F)
    except Exception as e:
        return [type(e).__name__, str(e).split("\n")[0].strip()]
    raise AssertionError(f"no error, but {np.asarray(got.detach().numpy()).shape}")
