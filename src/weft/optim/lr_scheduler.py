"""Learning-rate schedules, as `torch.optim.lr_scheduler`."""

from weft.optim.schedule import *
from weft.optim.schedule_cycles import *
