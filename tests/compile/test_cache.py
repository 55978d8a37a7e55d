"""Caches of a decoder that are written in place: one program, nothing copied, eager's bits."""

from __future__ import annotations

import numpy as np
import pytest

import weft
from weft.compile import api
from weft.compile.program import Program


@pytest.fixture(name="steps")
def _steps(monkeypatch):
    """The labels of each program's steps, as they are made."""
    made = []

    class Spy(Program):
        def __init__(self, *args, **kw):
            super().__init__(*args, **kw)
            made.append([(s.label, s.out.base[0]) for s in self.steps])

    monkeypatch.setattr(api, "Program", Spy)
    return made


def decoder():
    """A step of attention over two caches of 40 places, which it writes at place i."""
    weft.manual_seed(0)
    qkv = weft.nn.Linear(32, 96)
    keys, values, places = weft.zeros(1, 4, 40, 8), weft.zeros(1, 4, 40, 8), weft.arange(40)

    def step(x, i):
        q, k, v = qkv(x).view(1, 1, 3, 4, 8).permute(2, 0, 3, 1, 4)
        keys.index_copy_(2, i, k)
        values[:, :, i] = v
        y = weft.nn.functional.scaled_dot_product_attention(q, keys, values, places <= i)
        return y.transpose(1, 2).reshape(1, 1, 32)

    return step, keys, values


@pytest.mark.parametrize("replay", [False, True])
def test_a_decoding_loop_is_one_program_that_copies_no_cache(steps, replay):
    (step, *caches), (plain, *others) = decoder(), decoder()
    fast = weft.compile(step, replay=replay)
    x = y = weft.randn(1, 1, 32)
    with weft.no_grad():
        for t in range(24):
            x, y = fast(x, weft.tensor([t])) + 0.5, plain(y, weft.tensor([t])) + 0.5
            np.testing.assert_array_equal(x.numpy(), y.numpy())
            for got, want in zip(caches, others, strict=True):
                np.testing.assert_array_equal(got.numpy(), want.numpy())
    assert fast.stats["programs"] == 1
    assert fast.stats["op_by_op"] == 0
    puts = [place for label, place in steps[0] if label.startswith("IndexPut")]
    assert puts == ["in", "in"], steps
    assert not any(label.startswith("write") for label, _ in steps[0]), steps


def test_an_index_outside_leaves_what_eager_leaves():
    (step, *caches), (plain, *others) = decoder(), decoder()
    fast = weft.compile(step)
    x = weft.randn(1, 1, 32)
    with weft.no_grad():
        for t in (0, 1, 2):
            fast(x, weft.tensor([t]))
            plain(x, weft.tensor([t]))
        for call in (fast, plain):
            with pytest.raises(IndexError):
                call(x, weft.tensor([40]))
        for got, want in zip(caches, others, strict=True):
            np.testing.assert_array_equal(got.numpy(), want.numpy())
        fast(x, weft.tensor([3]))
        plain(x, weft.tensor([3]))
    for got, want in zip(caches, others, strict=True):
        np.testing.assert_array_equal(got.numpy(), want.numpy())


def _before(c, i, x):
    old = c.sum()
    c.index_copy_(0, i, x)
    return old + c.sum()


def _twice(c, i, x):
    c.index_add_(0, i, x)
    return c.sum()


def _then_fails(c, i, x):
    picked = c.new_zeros(3)[i]  # an index outside is found here, in program order first
    c.index_copy_(0, i, x)
    return picked.sum() + c.sum()


@pytest.mark.parametrize("fn", [_before, _twice, _then_fails])
@pytest.mark.parametrize("index", [[1], [1, 2]])
def test_what_is_read_or_added_to_is_eagers_too(fn, index):
    weft.manual_seed(1)
    cache = weft.randn(6, 5)
    other = cache.clone()
    fast = weft.compile(lambda i, x: fn(cache, i, x))
    for _ in range(4):
        x, i = weft.randn(len(index), 5), weft.tensor(index)
        np.testing.assert_array_equal(fast(i, x).numpy(), fn(other, i, x).numpy())
        np.testing.assert_array_equal(cache.numpy(), other.numpy())
    far = weft.tensor([*index[1:], 5 if fn is _then_fails else 6])
    for call in (lambda: fast(far, x), lambda: fn(other, far, x)):
        with pytest.raises(IndexError):
            call()
    np.testing.assert_array_equal(cache.numpy(), other.numpy())
