"""Metrics: running values over batches, with a state that a checkpoint can hold."""

from __future__ import annotations

import copy
from typing import Any

import weft


class Metric:
    """A running value: update(output, targets), compute() -> float, reset()."""

    def update(self, output: weft.Tensor, targets: weft.Tensor) -> None:
        raise NotImplementedError

    def compute(self) -> float:
        raise NotImplementedError

    def reset(self) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def fresh(self) -> Metric:
        """Another of the kind, with nothing added yet."""
        made = copy.copy(self)
        made.reset()
        return made


class Mean(Metric):
    """sum / count of what is added; NaN before anything was."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, total: float, count: int) -> None:
        self.total += total
        self.count += count

    def compute(self) -> float:
        return self.total / self.count if self.count else float("nan")

    def reset(self) -> None:
        self.total, self.count = 0.0, 0


class Accuracy(Mean):
    """The share of rows whose target is among the `top_k` largest outputs (batch, classes)."""

    def __init__(self, top_k: int = 1) -> None:
        super().__init__()
        self.top_k = top_k

    def update(self, output: weft.Tensor, targets: weft.Tensor) -> None:
        if output.ndim != 2 or targets.ndim != 1 or len(output) != len(targets):
            raise ValueError(
                f"Accuracy: output {tuple(output.shape)} and targets {tuple(targets.shape)}, "
                "wanted (batch, classes) and (batch,)"
            )
        if self.top_k == 1:
            hits = output.argmax(1) == targets
        else:
            own = output.gather(1, targets.unsqueeze(1))
            hits = (output > own).sum(1) < self.top_k
        self.add(float(hits.sum().item()), len(targets))


class MeanSquaredError(Mean):
    """The mean of (output - target)**2 over all elements."""

    def update(self, output: weft.Tensor, targets: weft.Tensor) -> None:
        d = output - targets
        self.add((d * d).sum().item(), d.numel())


class MeanAbsoluteError(Mean):
    """The mean of |output - target| over all elements."""

    def update(self, output: weft.Tensor, targets: weft.Tensor) -> None:
        d = (output - targets).abs()
        self.add(d.sum().item(), d.numel())
