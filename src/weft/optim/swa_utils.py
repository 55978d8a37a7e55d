"""Averages of a model over training, as `torch.optim.swa_utils`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import weft
from weft import Tensor
from weft.nn import BatchNorm1d, BatchNorm2d, BatchNorm3d, Module, SyncBatchNorm
from weft.optim.lr_scheduler import LRScheduler, check_anneal, per_group
from weft.optim.optimizer import Optimizer

__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]


def _check_decay(decay: float) -> None:
    if not 0.0 <= decay <= 1.0:
        raise ValueError(
            f"Invalid decay value {decay} provided. Please provide a value in [0,1] range."
        )


def get_ema_avg_fn(decay: float = 0.999) -> Callable:
    """mean = decay mean + (1 - decay) p"""
    _check_decay(decay)

    @weft.no_grad()
    def ema_update(ema_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return decay * ema_param + (1 - decay) * current_param

    return ema_update


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable:
    """The same for lists of tensors, in place; integer buffers are rounded down."""
    _check_decay(decay)

    @weft.no_grad()
    def ema_update(ema_params: list[Tensor], current_params: list[Tensor], _: Any) -> None:
        for mean, p in zip(ema_params, current_params, strict=True):
            if mean.is_floating_point():
                mean.lerp_(p, 1 - decay)
            else:
                mean.copy_((mean * decay + p * (1 - decay)).to(mean.dtype))

    return ema_update


def get_swa_avg_fn() -> Callable:
    """mean += (p - mean) / (n + 1)"""

    @weft.no_grad()
    def swa_update(averaged_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return averaged_param + (current_param - averaged_param) / (num_averaged + 1)

    return swa_update


def get_swa_multi_avg_fn() -> Callable:
    """The same for lists of tensors, in place."""
    average = get_swa_avg_fn()

    @weft.no_grad()
    def swa_update(means: list[Tensor], current_params: list[Tensor], num_averaged: Any) -> None:
        for mean, p in zip(means, current_params, strict=True):
            mean.copy_(average(mean, p, num_averaged).to(mean.dtype))

    return swa_update


class AveragedModel(Module):
    """A copy of a model whose parameters are averages (by default the equal mean) of the model's.

    Buffers are copied, or averaged too with `use_buffers`.
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Callable | None = None,
        multi_avg_fn: Callable | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = deepcopy(model)
        self.register_buffer("n_averaged", weft.tensor(0, dtype=weft.int64, device=device))
        self.avg_fn, self.multi_avg_fn = avg_fn, multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the model's present parameters into the average."""
        means = [t.detach() for t in self._averaged(self.module)]
        values = [t.detach() for t in self._averaged(model)]
        count = int(self.n_averaged)
        if count == 0:
            for mean, value in zip(means, values, strict=True):
                mean.copy_(value)
        elif self.avg_fn is None:
            update = self.multi_avg_fn or get_swa_multi_avg_fn()
            update(means, values, self.n_averaged)
        else:
            for mean, value in zip(means, values, strict=True):
                mean.copy_(self.avg_fn(mean, value, self.n_averaged))
        if not self.use_buffers:
            for mine, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
                mine.detach().copy_(theirs)
        self.n_averaged.add_(1)

    def _averaged(self, model: Module) -> Iterable[Tensor]:
        buffers = model.buffers() if self.use_buffers else ()
        return itertools.chain(model.parameters(), buffers)


@weft.no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of all batch norms anew, over the batches of `loader`."""
    momenta = {}
    for m in model.modules():
        if isinstance(m, (BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm)):
            m.reset_running_stats()
            momenta[m] = m.momentum
    if not momenta:
        return
    was_training = model.training
    model.train()
    for m in momenta:
        m.momentum = None  # the equal mean of all batches
    for batch in loader:
        model(batch[0] if isinstance(batch, (list, tuple)) else batch)
    for m, momentum in momenta.items():
        m.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """lr goes to `swa_lr` in `anneal_epochs` epochs ("cos" or "linear") and stays there."""

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: Any,
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        values = per_group("swa_lr", optimizer, swa_lr)
        for value, group in zip(values, optimizer.param_groups, strict=True):
            group["swa_lr"] = value
        check_anneal(anneal_strategy)
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        self._anneal_strategy, self.anneal_epochs = anneal_strategy, anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _share(self, epoch: int) -> float:
        """How much of `swa_lr` is in the learning rate after `epoch` epochs."""
        done = max(0.0, min(1.0, epoch / max(1, self.anneal_epochs)))
        return (1 - math.cos(math.pi * done)) / 2 if self._anneal_strategy == "cos" else done

    def get_lr(self) -> list[Any]:
        lrs = self._present()
        epoch = self._step_count - 1
        epoch = max(1, epoch) if self.anneal_epochs == 0 else epoch
        before, now = self._share(epoch - 1), self._share(epoch)
        out = []
        for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
            end = group["swa_lr"]
            start = end if before == 1 else (lr - before * end) / (1 - before)
            out.append(end * now + start * (1 - now))
        return out
