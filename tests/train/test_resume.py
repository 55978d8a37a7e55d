"""Law 9, nothing is lost: a run killed anywhere goes on to the bits of a run left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.train import resumable
from weft import io, train

SCRIPT = Path(resumable.__file__)
SOURCE = Path(train.__file__).parents[2]


def start(folder: Path, workers: int, *bomb: str) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(workers), *bomb],
        stdout=subprocess.PIPE,
        env=env,
    )


def finish(run: subprocess.Popen) -> int:
    run.communicate(timeout=60)
    return run.returncode


def kill_within(run: subprocess.Popen, seconds: float) -> int:
    """SIGKILL that long after training began, unless the run is over before."""
    assert run.stdout is not None
    assert run.stdout.readline() == b"started\n"
    end = time.monotonic() + seconds
    while run.poll() is None and time.monotonic() < end:
        time.sleep(0.001)
    run.send_signal(signal.SIGKILL)
    return finish(run)


def assert_same(folder: Path, whole: Path) -> None:
    made, wanted = (json.loads((f / "done").read_text()) for f in (folder, whole))
    assert made.keys() == wanted.keys()
    for key, value in wanted.items():
        assert made[key] == value, key


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("workers", [0, 2])
def test_sigkill_at_any_moment(workers, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    alone = start(whole, workers)
    for call, count, name in (("fsync", 5, "last"), ("replace", 3, "last"), ("fsync", 1, "best")):
        assert finish(start(killed, workers, call, str(count))) == -signal.SIGKILL
        assert list(killed.glob(f".{name}.weft.*"))  # it was while that checkpoint was written
    chance = random.Random(workers)
    deaths = sum(
        kill_within(start(killed, workers), chance.uniform(0.0, 0.25)) == -signal.SIGKILL
        for _ in range(4)
    )
    assert deaths >= 2  # a slow machine kills more often than a fast one
    assert finish(start(killed, workers)) == 0
    assert finish(alone) == 0
    assert_same(killed, whole)
    assert not list(killed.glob(".*"))  # no unfinished files are left


class Stop(Exception):
    pass


class Fuse(train.Callback):
    """Fails at the end of one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer) -> None:
        if trainer.step == self.step:
            raise Stop


@pytest.mark.parametrize(
    ("workers", "persistent"), [(0, False), (2, False), (2, True)], ids=["0", "2", "persistent"]
)
def test_failure_at_many_steps(workers, persistent, tmp_path):
    def run(folder: Path, *extra: train.Callback) -> train.Trainer:
        kw = {"persistent": persistent}
        trainer, loader, val_loader = resumable.make(folder, workers, **kw, extra=extra)
        trainer.fit(loader, val_loader, resumable.EPOCHS, resume=True)
        return trainer

    wanted = resumable.outcome(run(tmp_path / "whole", Fuse(0)))
    folder = tmp_path / "broken"
    for step in (2, 4, 11, 13, 18, 22, 34, 44):  # before, at and after checkpoints and epochs
        with pytest.raises(Stop):
            run(folder, Fuse(step))
    assert resumable.outcome(run(folder, Fuse(0))) == wanted


def test_resume_after_the_end_changes_nothing(tmp_path):
    trainer, loader, val_loader = resumable.make(tmp_path, 0)
    trainer.fit(loader, val_loader, 2)
    wanted = resumable.outcome(trainer)
    again, loader, val_loader = resumable.make(tmp_path, 0)
    again.fit(loader, val_loader, 2, resume=True)
    assert resumable.outcome(again) == wanted


def test_damaged_checkpoint_is_refused(tmp_path):
    trainer, loader, val_loader = resumable.make(tmp_path, 0)
    trainer.fit(loader, val_loader, 1)
    path = tmp_path / "last.weft"
    path.write_bytes(path.read_bytes()[:-40])
    again, loader, val_loader = resumable.make(tmp_path, 0)
    with pytest.raises(io.BadFile, match=r"last\.weft"):
        again.fit(loader, val_loader, 2, resume=True)


def test_checkpoint_of_another_trainer_is_refused(tmp_path):
    trainer, loader, val_loader = resumable.make(tmp_path, 0)
    trainer.fit(loader, val_loader, 1)
    again, loader, val_loader = resumable.make(tmp_path, 0, extra=(Fuse(0),))
    with pytest.raises(ValueError, match="callbacks: the checkpoint has 4, this trainer 5"):
        again.fit(loader, val_loader, 2, resume=True)
