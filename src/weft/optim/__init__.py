"""Optimizers and learning-rate schedules, as `torch.optim`."""

from weft.optim import lr_scheduler, swa_utils
from weft.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam, SparseAdam
from weft.optim.adaptive import Adadelta, Adafactor, Adagrad, RMSprop
from weft.optim.lbfgs import LBFGS
from weft.optim.optimizer import Optimizer
from weft.optim.sgd import ASGD, SGD, Muon, Rprop
