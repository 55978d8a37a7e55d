"""Learning-rate schedules, as `torch.optim.lr_scheduler`."""

from weft.optim.schedule import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from weft.optim.schedule_cycles import CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR
