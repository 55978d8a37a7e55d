"""What loggers write is what readers read, also after a run was taken up again."""

from __future__ import annotations

import csv
import math

import pytest

from weft import train


def rows(path):
    with path.open(newline="") as f:
        return list(csv.reader(f))


def test_csv_appends_and_keeps_every_bit(tmp_path):
    path = tmp_path / "deep" / "log.csv"
    values = {"loss": 0.1 + 0.2, "worst": float("inf"), "none": float("nan")}
    for step in (1, 2):
        logger = train.CSVLogger(path)
        logger.log(values, step)
        logger.close()
    found = rows(path)
    assert found[0] == ["step", "name", "value"] and len(found) == 7
    assert [r[0] for r in found[1:]] == ["1"] * 3 + ["2"] * 3
    assert float(found[1][2]) == values["loss"] and math.isnan(float(found[3][2]))


def test_csv_takes_back_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "log.csv"
    logger = train.CSVLogger(path)
    for step in range(1, 6):
        logger.log({"loss": step / 2}, step)
    logger.flush()
    with path.open("a") as f:
        f.write("6,los")  # a row that a kill cut
    again = train.CSVLogger(path)
    again.resume(3)
    again.log({"loss": 9.0}, 4)
    again.close()
    assert [r[0] for r in rows(path)] == ["step", "1", "2", "3", "4"]


def test_tensorboard_events_read_back(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = train.TensorBoardLogger(tmp_path)
    for step in range(1, 6):
        logger.log({"loss": 1.0 / step, "lr": 0.5}, step)
    logger.flush()
    again = train.TensorBoardLogger(tmp_path)  # another process, from the checkpoint at step 3
    again.resume(3)
    again.log({"loss": 7.0}, 4)
    again.close()
    logger.close()
    found = reader.EventAccumulator(str(tmp_path)).Reload()
    assert sorted(found.Tags()["scalars"]) == ["loss", "lr"]
    loss = [(e.step, e.value) for e in found.Scalars("loss")]
    assert loss == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 7.0)]
    assert [e.step for e in found.Scalars("lr")] == [1, 2, 3]
