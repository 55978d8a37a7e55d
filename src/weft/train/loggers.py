"""Loggers: where values go, by step."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Logger:
    """log(values, step) and close()."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


class CSVLogger(Logger):
    """Appends rows `step, name, value` to a CSV file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        self._file = self.path.open("a", newline="")
        self._writer = csv.writer(self._file)
        if new:
            self._writer.writerow(["step", "name", "value"])

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._writer.writerows([step, k, repr(float(v))] for k, v in values.items())
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoardLogger(Logger):
    """Writes scalars as TensorBoard event files (needs the package tensorboard)."""

    def __init__(self, folder: str | Path) -> None:
        event_pb2, summary_pb2, writer = _tensorboard()
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._writer = writer.EventFileWriter(str(folder))

    def log(self, values: Mapping[str, float], step: int) -> None:
        pairs = [self._summary.Value(tag=k, simple_value=float(v)) for k, v in values.items()]
        self._writer.add_event(
            self._event(wall_time=time.time(), step=step, summary=self._summary(value=pairs))
        )
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _tensorboard() -> tuple[Any, Any, Any]:
    try:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer import event_file_writer
    except ImportError:
        raise ImportError(
            'TensorBoardLogger needs tensorboard: pip install "weft[board]"'
        ) from None
    return event_pb2, summary_pb2, event_file_writer
