"""Learning-rate schedules, as `torch.optim.lr_scheduler`."""

from weft.optim.schedule import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from weft.optim.schedule_chains import ChainedScheduler, ReduceLROnPlateau, SequentialLR
from weft.optim.schedule_cycles import CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR
