"""CTC against the sum over all alignments, one by one."""

import itertools

import numpy as np
import pytest

import weft
from weft import nn


def collapse(path, blank):
    merged = [k for k, _ in itertools.groupby(path)]
    return [k for k in merged if k != blank]


def brute_force(log_probs, target, blank):
    """log_probs (T, C)."""
    total = -np.inf
    steps, classes = log_probs.shape
    for path in itertools.product(range(classes), repeat=steps):
        if collapse(path, blank) == list(target):
            total = np.logaddexp(total, sum(log_probs[t, k] for t, k in enumerate(path)))
    return -total


def data(steps=4, batch=3, classes=3):
    x = np.random.default_rng(0).standard_normal((steps, batch, classes))
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


TARGETS = [[1, 2], [2, 2], [1, 0]]
LENGTHS = [2, 2, 1]
INPUTS = [4, 4, 2]


@pytest.mark.parametrize("blank", [0, 2])
def test_losses_are_the_sum_over_alignments(blank):
    x = data()
    swap = {0: 0, 1: 1, 2: 2} if blank == 0 else {0: 2, 1: 1, 2: 0}
    rows = [[swap[k] for k in row] for row in TARGETS]
    got = nn.CTCLoss(blank, "none")(weft.from_numpy(x), weft.tensor(rows), INPUTS, LENGTHS)
    wanted = [
        brute_force(x[:t, i], rows[i][:n], blank)
        for i, (t, n) in enumerate(zip(INPUTS, LENGTHS, strict=True))
    ]
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-9)
    mean = nn.CTCLoss(blank)(weft.from_numpy(x), weft.tensor(rows), INPUTS, LENGTHS)
    assert mean.item() == pytest.approx(np.mean(np.array(wanted) / LENGTHS), rel=1e-9)
    joined = weft.tensor(rows[0] + rows[1] + rows[2][:1])
    lengths = weft.tensor(INPUTS), weft.tensor(LENGTHS)
    total = nn.CTCLoss(blank, "sum")(weft.from_numpy(x), joined, *lengths)
    assert total.item() == pytest.approx(sum(wanted), rel=1e-9)


def test_gradient_is_that_of_differences():
    def normal(x):  # torch's gradient is right where log_softmax comes before
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    x = data(3, 1)
    t = weft.from_numpy(x).requires_grad_()
    loss = nn.CTCLoss(reduction="sum")
    loss(t.log_softmax(-1), weft.tensor([[1, 1]]), [3], [2]).backward()
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += 1e-6
        down[i] -= 1e-6
        high, low = (brute_force(normal(v)[:, 0], [1, 1], 0) for v in (up, down))
        slope = (high - low) / 2e-6
        assert t.grad.numpy()[i] == pytest.approx(slope, abs=1e-5)


def test_impossible_targets_and_empty_ones():
    x = weft.from_numpy(data(2, 2)).requires_grad_()
    targets = weft.tensor([[1, 1], [1, 0]])
    y = nn.CTCLoss(reduction="none")(x, targets, [2, 2], [2, 0])
    assert y[0].item() == float("inf")  # two equal labels need a blank between
    assert y[1].item() == pytest.approx(brute_force(x.detach().numpy()[:, 1], [], 0))
    nn.CTCLoss(reduction="sum", zero_infinity=True)(x, targets, [2, 2], [2, 0]).backward()
    assert not x.grad.numpy()[:, 0].any() and np.isfinite(x.grad.numpy()).all()


def test_one_sequence_without_a_batch():
    x = data(4, 1)[:, 0]
    y = nn.CTCLoss(reduction="none")(weft.from_numpy(x), weft.tensor([1, 2]), 4, 2)
    assert y.shape == () and y.item() == pytest.approx(brute_force(x, [1, 2], 0), rel=1e-9)


def test_lengths_are_checked():
    x = weft.from_numpy(data())
    with pytest.raises(RuntimeError, match="at most 4"):
        nn.CTCLoss()(x, weft.tensor(TARGETS), [5, 4, 4], LENGTHS)
    with pytest.raises(RuntimeError, match="must be of size 3"):
        nn.CTCLoss()(x, weft.tensor(TARGETS), [4], LENGTHS)
    with pytest.raises(RuntimeError, match="blank must be in label range"):
        nn.CTCLoss(blank=7)(x, weft.tensor(TARGETS), INPUTS, LENGTHS)
    with pytest.raises(RuntimeError, match="at least 3 labels"):
        nn.CTCLoss()(x, weft.tensor(TARGETS), INPUTS, [3, 2, 1])
