"""Callbacks: what else happens during training.  Subclass Callback and override events."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm


class Callback:
    """Events, each with the trainer; a state that checkpoints keep."""

    def on_fit_start(self, trainer: Any) -> None:
        pass

    def on_epoch_start(self, trainer: Any) -> None:
        pass

    def on_step_start(self, trainer: Any) -> None:
        pass

    def on_step_end(self, trainer: Any) -> None:
        pass

    def on_epoch_end(self, trainer: Any) -> None:
        pass

    def on_fit_end(self, trainer: Any) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Checkpoint(Callback):
    """Writes the whole run's state every `every` steps and at each epoch's end, to last.weft.

    With `monitor`, the state of the best epoch is kept in best.weft too (`mode` "min" or "max").
    The trainer calls checkpoints after all other callbacks, whose states are part of theirs.
    """

    LAST = "last.weft"
    BEST = "best.weft"

    def __init__(
        self, every: int | None = None, *, monitor: str | None = None, mode: str = "min"
    ) -> None:
        if every is not None and every < 1:
            raise ValueError(f"Checkpoint: every is a number of steps >= 1, not {every}")
        self.every, self.monitor, self.mode = every, monitor, _mode(mode)
        self.best: float | None = None

    def on_step_end(self, trainer: Any) -> None:
        if self.every is not None and trainer.step % self.every == 0:
            trainer.save_checkpoint()

    def on_epoch_end(self, trainer: Any) -> None:
        if self.monitor is not None:
            value = _monitored(trainer, self.monitor, "Checkpoint")
            if _better(value, self.best, self.mode):
                self.best = value
                trainer.save_checkpoint(Path(trainer.folder) / self.BEST)
        trainer.save_checkpoint()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = state["best"]


class EarlyStopping(Callback):
    """Stops when `monitor` has not become better by `min_delta` for `patience` epochs."""

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 3,
        min_delta: float = 0.0,
        mode: str = "min",
    ) -> None:
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.mode = _mode(mode)
        self.best: float | None = None
        self.waited = 0

    def on_epoch_end(self, trainer: Any) -> None:
        value = _monitored(trainer, self.monitor, "EarlyStopping")
        margin = -self.min_delta if self.mode == "min" else self.min_delta
        if self.best is None or _better(value, self.best + margin, self.mode):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


class LearningRateMonitor(Callback):
    """Logs the learning rate that each step used: `lr`, or `lr/0`, `lr/1`, ... by group."""

    def on_step_start(self, trainer: Any) -> None:
        groups = trainer.optimizer.param_groups
        names = ["lr"] if len(groups) == 1 else [f"lr/{i}" for i in range(len(groups))]
        self._rates = {n: float(g["lr"]) for n, g in zip(names, groups, strict=True)}

    def on_step_end(self, trainer: Any) -> None:
        trainer.log(self._rates)


class LossMonitor(Callback):
    """Logs the loss of single batches as `loss_step`, every `every` steps."""

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"LossMonitor: every is a number of steps >= 1, not {every}")
        self.every = every

    def on_step_end(self, trainer: Any) -> None:
        if trainer.step % self.every == 0:
            trainer.log({"loss_step": trainer.last_loss})


class Progress(Callback):
    """A line an epoch: loss, metrics, rows a second; on a terminal a tqdm bar until then."""

    FORMAT = "{desc} {bar:16} {n_fmt}/{total_fmt}{postfix}"
    ENDLESS = "{desc} {n_fmt} batches{postfix}"  # a loader without a length

    def __init__(self, unit: str = "row", file: Any = None) -> None:
        self.unit = unit
        self.file = file
        self._bar: Any = None
        self._before, self._start = 0, 0.0
        self._title = self._speed = ""

    def on_epoch_start(self, trainer: Any) -> None:
        loader = trainer.loader
        total = len(loader) if hasattr(loader, "__len__") else None
        file = self.file or sys.stderr
        self._title = f"epoch {trainer.epoch + 1:{len(str(trainer.epochs))}}/{trainer.epochs}"
        self._bar = tqdm(
            total=total,
            initial=trainer.batch,
            desc=self._title,
            bar_format=self.ENDLESS if total is None else self.FORMAT,
            file=file,
            disable=not file.isatty(),
            leave=False,  # the line replaces it, and no terminal is too narrow for a line
        )
        self._before, self._start = trainer.rows, time.perf_counter()

    def on_step_end(self, trainer: Any) -> None:
        seconds = max(time.perf_counter() - self._start, 1e-9)
        self._speed = f"{(trainer.rows - self._before) / seconds:.0f} {self.unit}s/s"
        if not self._bar.disable:
            self._bar.set_postfix_str(self._text(trainer.running()), refresh=False)
        self._bar.update(1)

    def on_epoch_end(self, trainer: Any) -> None:
        self._bar.close()
        self._bar = None
        text = f"{self._title}: {self._text(trainer.results)}"
        print(text, file=self.file or sys.stderr, flush=True)

    def on_fit_end(self, trainer: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _text(self, values: dict[str, float]) -> str:
        return ", ".join([*(f"{k} {v:.4f}" for k, v in values.items()), self._speed])


def _mode(mode: str) -> str:
    if mode not in ("min", "max"):
        raise ValueError(f"mode is 'min' or 'max', not {mode!r}")
    return mode


def _monitored(trainer: Any, name: str, who: str) -> float:
    if name not in trainer.results:
        raise KeyError(f"{who}: no value {name!r}; the results are {sorted(trainer.results)}")
    return trainer.results[name]


def _better(value: float, best: float | None, mode: str) -> bool:
    if math.isnan(value):
        return False
    return best is None or (value < best if mode == "min" else value > best)
