"""Training: a Trainer whose loop one can read, callbacks, metrics, loggers, exact resume."""

from weft.train.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    LearningRateMonitor,
    LossMonitor,
    Progress,
)
from weft.train.metrics import (
    Accuracy,
    CSVLogger,
    Logger,
    Mean,
    MeanAbsoluteError,
    MeanSquaredError,
    Metric,
    TensorBoardLogger,
)
from weft.train.trainer import Trainer

__all__ = [
    "Accuracy", "CSVLogger", "Callback", "Checkpoint", "EarlyStopping", "LearningRateMonitor",
    "Logger", "LossMonitor", "Mean", "MeanAbsoluteError", "MeanSquaredError", "Metric", "Progress",
    "TensorBoardLogger", "Trainer",
]  # fmt: skip
