"""Metrics: running values over batches.  Loggers: where values go, by step."""

from __future__ import annotations

import copy
import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import weft
from weft.utils.tensorboard import SummaryWriter


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


class Logger:
    """log(values, step), flush(), close(); resume(step) takes back what came after a step."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        pass

    def resume(self, step: int) -> None:
        pass

    def close(self) -> None:
        pass


class CSVLogger(Logger):
    """Appends rows `step, name, value` to a CSV file; held back until `flush` or 1,000 rows."""

    HEADER = ("step", "name", "value")

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rows: list[tuple] = []
        if not self.path.exists():
            self._rows.append(self.HEADER)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._rows.extend((step, k, repr(float(v))) for k, v in values.items())
        if len(self._rows) >= 1000:
            self.flush()

    def flush(self) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as f:
            csv.writer(f).writerows(self._rows)
        self._rows.clear()

    def resume(self, step: int) -> None:
        """Drop the rows after `step`, and a row that a killed run left unfinished."""
        self.flush()
        with self.path.open(newline="", encoding="utf-8") as f:
            whole = [line for line in f if line.endswith("\n")]
        kept = [r for r in csv.reader(whole[1:]) if len(r) == 3 and int(r[0]) <= step]
        new = self.path.with_name(f".{self.path.name}.new")
        with new.open("w", newline="", encoding="utf-8") as f:
            csv.writer(f).writerows([self.HEADER, *kept])
        os.replace(new, self.path)

    def close(self) -> None:
        self.flush()


class TensorBoardLogger(Logger):
    """Writes scalars as TensorBoard event files (needs the package tensorboard)."""

    def __init__(self, folder: str | Path) -> None:
        self.writer = SummaryWriter(str(folder))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, float(value), step)

    def flush(self) -> None:
        self.writer.flush()

    def resume(self, step: int) -> None:
        """From here on TensorBoard leaves out what earlier files have after `step`."""
        self.writer.purge(step + 1)

    def close(self) -> None:
        self.writer.close()
