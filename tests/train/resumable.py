"""A run that test_resume.py kills and starts again: `resumable.py FOLDER WORKERS [CALL COUNT]`.

It holds everything random that a run can hold: shuffling, dropout, augmentation with Weft's,
Python's and NumPy's generators, and state in the optimizer, the schedule, the callbacks and the
metrics.  When done it writes all of it to FOLDER/done.  With CALL (`fsync` or `replace` of os) the
process kills itself at the COUNT-th call (of `replace`: for a checkpoint), at `fsync` with half of
the file's bytes gone.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

import weft
from weft import data, nn, optim, train

EPOCHS = 6


class Noisy(data.Dataset):
    """Rows of two classes; each reading adds noise (in the main thread also Python's, NumPy's)."""

    def __init__(self, own: bool) -> None:
        rng = np.random.default_rng(0)
        self.y = rng.integers(0, 2, 42)
        self.x = (rng.standard_normal((42, 6)) + self.y[:, None]).astype(np.float32)
        self.own = own

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int):
        x = weft.tensor(self.x[i]) + 0.1 * weft.randn(6)
        if self.own:
            x = x + 0.01 * (random.random() + np.random.rand())  # noqa: NPY002
        return x, int(self.y[i])


class Slow(train.Callback):
    """Gives the killer time to hit any place of a step."""

    def on_step_end(self, trainer) -> None:
        time.sleep(0.002)


def make(folder: Path, workers: int, *, persistent: bool = False, extra: tuple = ()):
    """(trainer, training loader, validation loader), seeded."""
    for seed in (weft.manual_seed, random.seed, np.random.seed):
        seed(5)
    model = nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2)
    )
    rows = Noisy(own=workers == 0)
    loader = data.DataLoader(
        rows, batch_size=4, shuffle=True, num_workers=workers, persistent_workers=persistent
    )
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    trainer = train.Trainer(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        metrics={"accuracy": train.Accuracy()},
        scheduler=optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=1e-2, total_steps=EPOCHS * len(loader)
        ),
        schedule="step",
        callbacks=[
            train.Checkpoint(every=3, monitor="val_loss"),
            train.EarlyStopping("val_loss", patience=2),
            train.LearningRateMonitor(),
            train.LossMonitor(),
            *extra,
        ],
        loggers=[train.CSVLogger(folder / "log.csv")],
        folder=folder,
        max_norm=1.0,
    )
    return trainer, loader, data.DataLoader(rows, batch_size=16)


def outcome(trainer) -> dict:
    """Everything that two equal runs have in common, as JSON that keeps every bit."""
    trainer.loggers[0].close()
    optimizer = trainer.optimizer.state_dict()
    moments = {f"{i} {k}": v.tolist() for i, e in optimizer["state"].items() for k, v in e.items()}
    return {
        "model": {k: v.tolist() for k, v in trainer.model.state_dict().items()},
        "optimizer": {**moments, "groups": str(optimizer["param_groups"])},
        "schedule": str(trainer.scheduler.state_dict()),
        "weft": weft.get_rng_state().tolist(),
        "python": random.random(),
        "numpy": np.random.rand(),  # noqa: NPY002
        "history": trainer.history,
        "callbacks": [str(c.state_dict()) for c in trainer.callbacks],
        "counters": [trainer.epoch, trainer.step, trainer.batch, trainer.rows],
        "log": (trainer.folder / "log.csv").read_text(),
    }


def die_at(call: str, count: int) -> None:
    """SIGKILL at the count-th os.fsync, or os.replace of a checkpoint: logs and the cache of
    compiled code, whose writes come when they come, are replaced, too.
    """
    real, left = getattr(os, call), [count]

    def last(*args):
        left[0] -= call == "fsync" or str(args[1]).endswith(".weft")
        if left[0] == 0:
            if call == "fsync":
                os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    setattr(os, call, last)


def main() -> None:
    folder, workers, *bomb = sys.argv[1:]
    if bomb:
        die_at(bomb[0], int(bomb[1]))
    trainer, loader, val_loader = make(Path(folder), int(workers), extra=(Slow(),))
    print("started", flush=True)
    trainer.fit(loader, val_loader, EPOCHS, resume=True)
    (Path(folder) / "done").write_text(json.dumps(outcome(trainer)))


if __name__ == "__main__":
    main()
