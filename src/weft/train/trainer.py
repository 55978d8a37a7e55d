"""Trainer: the loop that most training scripts are, with exact resume.

The loop is `fit` and `_epoch` below; everything else is what they call.  A step (forward, loss,
backward, clipping, optimizer) is one function, compiled unless told otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import weft
from weft import io, nn
from weft.io.container import drop_unfinished
from weft.train.callbacks import Callback, Checkpoint
from weft.train.metrics import Logger, Mean, Metric


class Trainer:
    """Trains `model` to lower `loss(model(inputs), targets)` over batches (inputs, targets).

    model, loss, optimizer    as in torch; `loss` is a Module or function of (output, target)
    metrics                   name -> Metric, computed on training and validation batches
    scheduler                 stepped after every batch (`schedule="step"`) or epoch ("epoch");
                              ReduceLROnPlateau gets the monitored value
    callbacks, loggers        called at the events that callbacks.Callback names
    folder                    where checkpoints and logs go
    compile                   weft.compile the training and evaluation steps
    max_norm                  clip the gradients' total norm

    `fit(..., resume=True)` goes on from the last checkpoint, to the same bits as a run that was
    never stopped: it restores parameters, optimizer, scheduler, random generators (Weft's,
    Python's, NumPy's), the loader's place, running metrics and the callbacks' state, and takes
    back what was logged after the checkpoint.

    During fit: `epoch`, `step`, `batch` count what is done, in all or of the epoch; `rows` are
    those of the epoch; `last_loss` is the last batch's; `results` and `history` are by epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], weft.Tensor],
        optimizer: Any,
        *,
        metrics: Mapping[str, Metric] | None = None,
        scheduler: Any = None,
        schedule: str = "epoch",
        monitor: str = "val_loss",
        callbacks: Sequence[Callback] = (),
        loggers: Sequence[Logger] = (),
        folder: str | Path = "runs",
        compile: bool = True,
        max_norm: float | None = None,
    ) -> None:
        if schedule not in ("step", "epoch"):
            raise ValueError(f"Trainer: schedule is 'step' or 'epoch', not {schedule!r}")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.scheduler, self.schedule, self.monitor = scheduler, schedule, monitor
        self.metrics = dict(metrics or {})
        if "loss" in self.metrics:
            raise ValueError("Trainer: 'loss' is computed anyway: give the metric another name")
        # checkpoints come last: they hold the other callbacks' state
        self.callbacks = sorted(callbacks, key=lambda c: isinstance(c, Checkpoint))
        self.loggers = list(loggers)
        self.folder, self.max_norm = Path(folder), max_norm
        self.loader: Any = None
        self.epoch = self.step = self.batch = self.rows = self.epochs = 0
        self.last_loss = float("nan")
        self.should_stop = False
        self.results: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self._running = {"loss": Mean(), **self.metrics}
        self._train_step = weft.compile(self._one_step) if compile else self._one_step
        self._eval_step = weft.compile(self._one_answer) if compile else self._one_answer

    # ------------------------------------------------------------------ the loop

    def fit(
        self,
        loader: Iterable,
        val_loader: Iterable | None = None,
        epochs: int = 1,
        *,
        resume: bool = False,
    ) -> list[dict[str, float]]:
        """Train until `epochs` epochs are done in all; returns one dict of results an epoch."""
        self.loader, self.epochs = loader, epochs
        if resume:
            self.load_checkpoint()
            for logger in self.loggers:
                logger.resume(self.step)
        self._call("on_fit_start")
        try:
            while self.epoch < epochs and not self.should_stop:
                self._epoch(loader)
                if val_loader is not None:
                    self.results.update(self.validate(val_loader))
                self._step_scheduler("epoch")
                self.history.append(dict(self.results))
                self.log(self.results)
                self.epoch, self.batch = self.epoch + 1, 0
                self._call("on_epoch_end")
        finally:
            self._call("on_fit_end")
            self._flush()
        return self.history

    def _epoch(self, loader: Iterable) -> None:
        self.model.train()
        if self.batch == 0:
            self._reset()
        self._call("on_epoch_start")
        for inputs, targets in loader:
            self._call("on_step_start")
            value, output = self._train_step(inputs, targets)
            self.last_loss = _update(self._running, value, output, targets)
            self.rows += len(targets)
            self.step, self.batch = self.step + 1, self.batch + 1
            self._step_scheduler("step")
            self._call("on_step_end")
        self.results = self.running()

    def _one_step(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """Forward, loss, backward, clip, update: one program once compiled."""
        self.optimizer.zero_grad()
        output = self.model(inputs)
        value = self.loss(output, targets)
        value.backward()
        if self.max_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.optimizer.step()
        return value.detach(), output.detach()

    # ------------------------------------------------------------------ evaluation

    def validate(self, loader: Iterable) -> dict[str, float]:
        """Loss and metrics over a loader, names with `val_` before them."""
        return self._evaluate(loader, "val_")

    def test(self, loader: Iterable) -> dict[str, float]:
        """Loss and metrics over a loader, names with `test_` before them."""
        return self._evaluate(loader, "test_")

    def _evaluate(self, loader: Iterable, prefix: str) -> dict[str, float]:
        running = {"loss": Mean(), **{k: m.fresh() for k, m in self.metrics.items()}}
        was_training = self.model.training
        self.model.eval()
        with weft.no_grad():
            for inputs, targets in loader:
                value, output = self._eval_step(inputs, targets)
                _update(running, value, output, targets)
        self.model.train(was_training)
        return {prefix + name: m.compute() for name, m in running.items()}

    def _one_answer(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        output = self.model(inputs)
        return self.loss(output, targets), output

    def predict(self, loader: Iterable) -> weft.Tensor:
        """The model's outputs over a loader of inputs, or of (inputs, targets)."""
        outputs = []
        was_training = self.model.training
        self.model.eval()
        with weft.no_grad():
            for batch in loader:
                inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
                outputs.append(self.model(inputs))
        self.model.train(was_training)
        if not outputs:
            raise ValueError("Trainer.predict: the loader gave no batches")
        return weft.cat(outputs)

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on."""
        place = self.loader.state_dict() if hasattr(self.loader, "state_dict") else None
        if self.batch and place is None:
            raise RuntimeError(
                f"Trainer: a checkpoint after batch {self.batch} of an epoch needs a loader with a "
                f"state_dict, and this {type(self.loader).__name__} has none: use "
                "weft.data.DataLoader, or checkpoint at the epochs' ends only"
            )
        return {
            **{name: getattr(self, name) for name in _COUNTERS},
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "generators": _generators(),
            "loader": place,
            "running": {name: m.state_dict() for name, m in self._running.items()},
            "callbacks": [c.state_dict() for c in self.callbacks],
            "results": dict(self.results),
            "history": list(self.history),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was taken.  ValueError: a state of a Trainer made differently."""
        _same("metrics", state["running"].keys() - {"loss"}, self.metrics.keys())
        _same("callbacks", len(state["callbacks"]), len(self.callbacks))
        _same("scheduler", state["scheduler"] is not None, self.scheduler is not None)
        for name in _COUNTERS:
            setattr(self, name, state[name])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if state["loader"] is not None and hasattr(self.loader, "load_state_dict"):
            self.loader.load_state_dict(state["loader"])
        elif self.batch and self.loader is not None:
            raise ValueError(
                f"Trainer: the checkpoint lies after batch {self.batch} of an epoch, and this "
                f"{type(self.loader).__name__} has no load_state_dict"
            )
        for name, m in self._running.items():
            m.load_state_dict(state["running"][name])
        for c, s in zip(self.callbacks, state["callbacks"], strict=True):
            c.load_state_dict(s)
        self.results, self.history = dict(state["results"]), list(state["history"])
        _set_generators(state["generators"])

    def save_checkpoint(self, path: str | Path | None = None) -> Path:
        """Write the state atomically; the old checkpoint stays whole until the new one is."""
        target = Path(path or self.folder / Checkpoint.LAST)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._flush()
        io.save_state(target, self.state_dict())
        return target

    def load_checkpoint(self, path: str | Path | None = None) -> bool:
        """Go on from a checkpoint; False when there is none yet."""
        source = Path(path or self.folder / Checkpoint.LAST)
        for written in {source, self.folder / Checkpoint.LAST, self.folder / Checkpoint.BEST}:
            drop_unfinished(written)
        if not source.exists():
            return False
        self.load_state_dict(io.load_state(source))
        return True

    # ------------------------------------------------------------------ inside

    def _reset(self) -> None:
        self.rows = 0
        for m in self._running.values():
            m.reset()

    def _step_scheduler(self, when: str) -> None:
        if self.scheduler is None or self.schedule != when:
            return
        if hasattr(self.scheduler, "patience"):  # ReduceLROnPlateau
            if self.monitor not in self.results:
                raise KeyError(f"Trainer: the scheduler wants {self.monitor!r}, not in the results")
            self.scheduler.step(self.results[self.monitor])
        else:
            self.scheduler.step()

    def log(self, values: Mapping[str, float]) -> None:
        """Give values to the loggers under the current step."""
        for logger in self.loggers:
            logger.log(values, self.step)

    def _flush(self) -> None:
        for logger in self.loggers:
            logger.flush()

    def running(self) -> dict[str, float]:
        """Loss and metrics of the epoch so far."""
        return {name: m.compute() for name, m in self._running.items()}

    def _call(self, event: str) -> None:
        for c in self.callbacks:
            getattr(c, event)(self)


_COUNTERS = ("epoch", "step", "batch", "rows", "last_loss", "should_stop")


def _generators() -> dict[str, Any]:
    """The states of the default generators: Weft's, Python's, NumPy's."""
    kind, words, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "weft": weft.get_rng_state(),
        "python": random.getstate(),
        "numpy": (kind, np.asarray(words, np.int64), *rest),  # files have no uint32
    }


def _set_generators(state: Mapping[str, Any]) -> None:
    weft.set_rng_state(state["weft"])
    random.setstate(state["python"])
    kind, words, *rest = state["numpy"]
    np.random.set_state((kind, words.astype(np.uint32), *rest))  # noqa: NPY002


def _same(what: str, saved: Any, own: Any) -> None:
    if saved != own:
        shown = [sorted(v) if not isinstance(v, (int, bool)) else v for v in (saved, own)]
        raise ValueError(f"Trainer: {what}: the checkpoint has {shown[0]}, this trainer {shown[1]}")


def _update(running: Mapping[str, Metric], value: Any, output: Any, targets: Any) -> float:
    """Add a batch to the running values; returns its loss, which becomes a mean over the rows."""
    count, loss = len(targets), value.item()
    for name, m in running.items():
        if name == "loss":
            m.add(loss * count, count)  # type: ignore[attr-defined]
        else:
            m.update(output, targets)
    return loss
