"""How much the laws say: no law may fall silent, and samples must reach the hard cases."""

from collections import Counter

import numpy as np

from tests.laws.checks import LAWS, Idle, check
from weft.core import sampling
from weft.core.op import REGISTRY


def test_derivative_laws_speak_about_every_differentiable_op():
    spoken: Counter[str] = Counter()
    silent = []
    for name, cls in REGISTRY.items():
        if cls.nondiff is not None:
            continue
        heard = False
        for index in range(len(cls.samples)):
            try:
                check("vjp", name, index)
            except Idle:
                continue
            heard = True
        spoken[str(heard)] += 1
        if not heard:
            silent.append(name)
    assert not silent, f"no sample of these ops reaches the gradient laws: {silent}"


def test_samples_reach_every_law():
    heard: Counter[str] = Counter()
    for law in LAWS:
        for name in ("Add", "Sum", "Reshape", "MatMul"):
            try:
                check(law, name, 0)
            except Idle:
                continue
            heard[law] += 1
    assert all(heard[law] >= 3 for law in LAWS), heard


def test_draws_are_repeatable_and_apart():
    a, b = sampling.draw("Add", 0)
    again, _ = sampling.draw("Add", 0)
    assert np.array_equal(a, again) and not np.array_equal(a, b)
    other, _ = sampling.draw("Add", 0, seed=1)
    assert not np.array_equal(a, other)
