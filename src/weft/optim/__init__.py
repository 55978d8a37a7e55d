"""Optimizers and learning-rate schedules, as `torch.optim`."""

from weft.optim import (
    adaptive,
    lbfgs,
    lr_scheduler,
    optimizer,
    sgd,
    swa_utils,
)
from weft.optim.adaptive import *
from weft.optim.lbfgs import *
from weft.optim.optimizer import *
from weft.optim.sgd import *

__all__ = ["lr_scheduler", "swa_utils"]
__all__ += adaptive.__all__
__all__ += lbfgs.__all__
__all__ += optimizer.__all__
__all__ += sgd.__all__
