"""The CTC loss: -log of the probability of all alignments of a label sequence.

An alignment takes one label or blank a step; repeats merge, blanks go.  alpha[t, s] is the log
probability of all beginnings that have reached place s of "blank l1 blank l2 ... blank" at step t:

    alpha[t, s] = log sum exp(alpha[t-1, s], alpha[t-1, s-1], alpha[t-1, s-2]) + log p[t, label s]

with the third term only where label s is neither a blank nor the label two places before.
(Graves et al. 2006)
"""

from __future__ import annotations

from typing import Any

import numpy as np

import weft
from weft import Tensor

_NEVER = -1e30  # stands for log 0: differences of it stay finite


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """log_probs (T, N, C) or (T, C); targets (N, S), or all labels one after another.

    "mean" divides each loss by its target's length first.  Impossible targets give inf, or 0 with
    `zero_infinity`.  RuntimeError on lengths that do not fit.  The gradient is torch's, p minus
    the share of alignments: that of scores before log_softmax, whatever log_probs sums to.
    """
    if log_probs.dim() not in (2, 3):
        raise RuntimeError(
            f"ctc_loss: Expected log_probs of 2 or 3 dims, got shape {list(log_probs.shape)}"
        )
    single = log_probs.dim() == 2
    if single:
        log_probs = log_probs.unsqueeze(1)
    steps, batch, classes = log_probs.shape
    ins, outs = _numbers(input_lengths), _numbers(target_lengths)
    if len(ins) != batch or len(outs) != batch:
        raise RuntimeError(
            f"ctc_loss: input_lengths and target_lengths must be of size {batch}, got {len(ins)} "
            f"and {len(outs)}"
        )
    for name, lengths in (("input_lengths", ins), ("target_lengths", outs)):
        if lengths.min(initial=0) < 0:
            raise RuntimeError(
                f"ctc_loss: Expected {name} to have value at least 0, but got value {lengths.min()}"
            )
    if ins.max(initial=0) > steps:
        raise RuntimeError(f"Expected input_lengths to have value at most {steps}")
    if not 0 <= blank < classes:
        raise RuntimeError("blank must be in label range")
    labels, skip = _places(targets.numpy(), outs, blank, single)
    size = labels.shape[1]
    at = weft.from_numpy(labels).unsqueeze(0).expand(steps, batch, size)
    emitted = log_probs.gather(2, at).unbind(0)
    loss = -_forward(emitted, weft.from_numpy(skip), ins, outs)
    if log_probs.requires_grad:  # as torch: the gradient of what log_softmax was given
        read = weft.from_numpy(np.arange(steps)[:, None, None] < ins[:, None])
        p = log_probs.exp()
        loss = loss + (p - p.detach()).where(read, 0.0).sum((0, 2))
    possible = loss.detach() < -_NEVER / 2
    loss = weft.where(possible, loss, 0.0 if zero_infinity else float("inf"))
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return (loss / weft.from_numpy(np.maximum(outs, 1)).to(loss.dtype)).mean()
    return loss.squeeze(0) if single else loss


def _numbers(x: Any) -> np.ndarray:
    values = x.numpy() if isinstance(x, Tensor) else x
    return np.atleast_1d(np.asarray(values, np.int64))


def _places(
    targets: np.ndarray, outs: np.ndarray, blank: int, single: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(labels with blanks between (N, 2 S + 1), where place s may follow s - 2)."""
    rows = len(outs) if targets.ndim > 1 or single else int(outs.sum())
    got = 1 if single and targets.ndim == 1 else targets.shape[0] if targets.ndim else 0
    if targets.ndim not in (1, 2) or targets.dtype.kind not in "iu" or got != rows:
        raise RuntimeError(
            f"ctc_loss: Expected targets of whole numbers and size {rows} at dimension 0, got "
            f"{targets.dtype} of shape {list(targets.shape)}"
        )
    labels = np.full((len(outs), 2 * int(outs.max(initial=0)) + 1), blank, np.int64)
    if targets.ndim == 1 and not single:
        rows = np.split(targets, np.cumsum(outs)[:-1])
    else:
        rows = list(np.atleast_2d(targets))
    for row, own, n in zip(rows, labels, outs, strict=True):
        if len(row) < n:
            raise RuntimeError(f"Expected tensor to have at least {n} labels, got {len(row)}")
        own[1 : 2 * n : 2] = row[:n]
    skip = np.zeros(labels.shape, np.bool_)
    skip[:, 2:] = (labels[:, 2:] != blank) & (labels[:, 2:] != labels[:, :-2])
    return labels, skip


def _forward(emitted: tuple, skip: Tensor, ins: np.ndarray, outs: np.ndarray) -> Tensor:
    """log of the probability of each row's target (N,); emitted[t] (N, places)."""
    first = emitted[0]
    batch, size = first.shape
    never = weft.full((batch, 2), _NEVER, dtype=first.dtype)
    start = weft.from_numpy(np.arange(size) < 2).unsqueeze(0)
    alpha = weft.where(start, first, _NEVER)
    for t, now in enumerate(emitted[1:], 1):
        stay = alpha
        step = weft.cat([never[:, :1], alpha], 1).narrow(1, 0, size)
        jump = weft.where(skip, weft.cat([never, alpha], 1).narrow(1, 0, size), _NEVER)
        top = weft.maximum(weft.maximum(stay, step), jump).detach()
        total = (stay - top).exp() + (step - top).exp() + (jump - top).exp()
        new = top + total.log() + now
        running = t < ins
        alpha = new if running.all() else weft.where(
            weft.from_numpy(running).unsqueeze(1), new, alpha
        )  # fmt: skip
    last = weft.from_numpy(2 * outs).unsqueeze(1)
    before = weft.from_numpy(np.maximum(2 * outs - 1, 0)).unsqueeze(1)
    end = alpha.gather(1, last).squeeze(1)
    other = alpha.gather(1, before).squeeze(1)
    other = weft.where(weft.from_numpy(outs > 0), other, _NEVER)
    top = weft.maximum(end, other).detach()
    return top + ((end - top).exp() + (other - top).exp()).log()
