"""Metrics over batches equal NumPy's over all rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

import weft
from weft import train


def batches(rng, sizes, *, classes=None):
    for n in sizes:
        if classes:
            yield rng.standard_normal((n, classes)).astype(np.float32), rng.integers(0, classes, n)
        else:
            yield (
                rng.standard_normal((n, 3)).astype(np.float32),
                rng.standard_normal((n, 3)).astype(np.float32),
            )


@pytest.mark.parametrize("k", [1, 2, 3])
def test_accuracy(k, rng):
    metric = train.Accuracy(top_k=k)
    hits, count = 0, 0
    for out, y in batches(rng, (7, 1, 5), classes=6):
        metric.update(weft.tensor(out), weft.tensor(y))
        best = np.argsort(-out, axis=1)[:, :k]
        hits += int((best == y[:, None]).any(1).sum())
        count += len(y)
    assert metric.compute() == hits / count


def test_mean_errors(rng):
    square, absolute = train.MeanSquaredError(), train.MeanAbsoluteError()
    d = []
    for out, y in batches(rng, (4, 1, 6)):
        square.update(weft.tensor(out), weft.tensor(y))
        absolute.update(weft.tensor(out), weft.tensor(y))
        d.append((out - y).astype(np.float64))
    d = np.concatenate(d)
    assert square.compute() == pytest.approx((d**2).mean(), rel=1e-6)
    assert absolute.compute() == pytest.approx(np.abs(d).mean(), rel=1e-6)


def test_nothing_added_is_nan_and_reset_forgets():
    metric = train.Accuracy()
    assert math.isnan(metric.compute())
    metric.update(weft.eye(2), weft.tensor([0, 0]))
    assert metric.compute() == 0.5
    assert math.isnan(metric.fresh().compute()) and metric.compute() == 0.5
    metric.reset()
    assert math.isnan(metric.compute())


def test_state_goes_on(rng):
    one, two = train.Accuracy(), train.Accuracy()
    parts = list(batches(rng, (5, 4), classes=3))
    for out, y in parts:
        one.update(weft.tensor(out), weft.tensor(y))
    two.update(*map(weft.tensor, parts[0]))
    three = train.Accuracy()
    three.load_state_dict(two.state_dict())
    three.update(*map(weft.tensor, parts[1]))
    assert three.compute() == one.compute()


def test_nan_outputs_do_not_count_as_right():
    out = weft.tensor([[float("nan"), 1.0], [0.0, 1.0]])
    metric = train.Accuracy()
    metric.update(out, weft.tensor([1, 1]))
    assert metric.compute() == 0.5


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"output \(2, 2, 2\) and targets \(2,\)"):
        train.Accuracy().update(weft.zeros(2, 2, 2), weft.zeros(2, dtype=weft.int64))
