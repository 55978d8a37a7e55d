"""Trainer: the loop that most training scripts are, with exact resume.

The loop is `fit` and `_epoch` below; everything else is what they call.  A step (forward, loss,
backward, clipping, optimizer) is one function, compiled unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import weft
from weft import io, nn
from weft.train.callbacks import Callback, Checkpoint
from weft.train.loggers import Logger
from weft.train.metrics import Mean, Metric


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
    never stopped: it restores parameters, optimizer, scheduler, random generators, the loader's
    place, running metrics and the callbacks' state.
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
        self.callbacks, self.loggers = list(callbacks), list(loggers)
        self.folder, self.max_norm = Path(folder), max_norm
        self.epoch = self.step = self.batch = 0
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
        """Train up to `epochs` epochs; returns one dict of results an epoch."""
        self.loader = loader
        if resume:
            self.load_checkpoint()
        self._call("on_fit_start")
        while self.epoch < epochs and not self.should_stop:
            self._epoch(loader)
            if val_loader is not None:
                self.results.update(self.validate(val_loader))
            self._step_scheduler("epoch")
            self.history.append(dict(self.results))
            self._log(self.results, self.epoch)
            self.epoch, self.batch = self.epoch + 1, 0
            self._call("on_epoch_end")
        self._call("on_fit_end")
        return self.history

    def _epoch(self, loader: Iterable) -> None:
        self.model.train()
        if self.batch == 0:
            self._reset()
        self._call("on_epoch_start")
        for inputs, targets in loader:
            value, output = self._train_step(inputs, targets)
            self._update(value, output, targets)
            self.step, self.batch = self.step + 1, self.batch + 1
            self._step_scheduler("step")
            self._call("on_step_end")
        self.results = {name: m.compute() for name, m in self._running.items()}

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
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "batch": self.batch,
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "rng": weft.get_rng_state(),
            "loader": self.loader.state_dict() if hasattr(self.loader, "state_dict") else None,  # type: ignore[attr-defined]
            "running": {name: m.state_dict() for name, m in self._running.items()},
            "callbacks": [c.state_dict() for c in self.callbacks],
            "results": dict(self.results),
            "history": list(self.history),
            "should_stop": self.should_stop,
        }
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was taken."""
        self.epoch, self.step, self.batch = state["epoch"], state["step"], state["batch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if state["loader"] is not None:
            self.loader.load_state_dict(state["loader"])  # type: ignore[attr-defined]
        elif self.batch:
            raise RuntimeError(
                "Trainer: the checkpoint lies within an epoch, and this loader has no state_dict: "
                "use weft.data.DataLoader, or checkpoint at epoch ends only"
            )
        for name, m in self._running.items():
            m.load_state_dict(state["running"][name])
        for c, s in zip(self.callbacks, state["callbacks"], strict=True):
            c.load_state_dict(s)
        self.results, self.history = dict(state["results"]), list(state["history"])
        self.should_stop = state["should_stop"]
        weft.set_rng_state(state["rng"])

    def save_checkpoint(self, path: str | Path | None = None) -> Path:
        """Write the state atomically; the old checkpoint stays whole until the new one is."""
        target = Path(path or self.folder / Checkpoint.LAST)
        target.parent.mkdir(parents=True, exist_ok=True)
        io.save_state(target, self.state_dict())
        return target

    def load_checkpoint(self, path: str | Path | None = None) -> bool:
        """Go on from a checkpoint; False when there is none yet."""
        source = Path(path or self.folder / Checkpoint.LAST)
        if not source.exists():
            return False
        self.load_state_dict(io.load_state(source))
        return True

    # ------------------------------------------------------------------ inside

    def _reset(self) -> None:
        for m in self._running.values():
            m.reset()

    def _update(self, value: Any, output: Any, targets: Any) -> None:
        _update(self._running, value, output, targets)

    def _step_scheduler(self, when: str) -> None:
        if self.scheduler is None or self.schedule != when:
            return
        if hasattr(self.scheduler, "patience"):  # ReduceLROnPlateau
            if self.monitor not in self.results:
                raise KeyError(f"Trainer: the scheduler wants {self.monitor!r}, not in the results")
            self.scheduler.step(self.results[self.monitor])
        else:
            self.scheduler.step()

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for logger in self.loggers:
            logger.log(values, step)

    def log(self, values: Mapping[str, float]) -> None:
        """Give values to the loggers under the current step."""
        self._log(values, self.step)

    def running(self) -> dict[str, float]:
        """Loss and metrics of the epoch so far."""
        return {name: m.compute() for name, m in self._running.items()}

    def _call(self, event: str) -> None:
        for c in self.callbacks:
            getattr(c, event)(self)


def _update(running: Mapping[str, Metric], value: Any, output: Any, targets: Any) -> None:
    count = len(targets)
    for name, m in running.items():
        if name == "loss":
            m.add(value.item() * count, count)  # type: ignore[attr-defined]
        else:
            m.update(output, targets)
