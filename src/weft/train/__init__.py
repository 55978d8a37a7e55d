"""Training: a Trainer whose loop one can read, callbacks, metrics, loggers, exact resume."""

from weft.train.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    LearningRateMonitor,
    LossMonitor,
    Progress,
)
from weft.train.loggers import CSVLogger, Logger, TensorBoardLogger
from weft.train.metrics import Accuracy, Mean, MeanAbsoluteError, MeanSquaredError, Metric
from weft.train.trainer import Trainer
