"""The old name of the base class of schedules."""

from __future__ import annotations

from weft import optim

_LRScheduler = optim.lr_scheduler.LRScheduler
