"""Optimizers and learning-rate schedules, as `torch.optim`."""

from weft.optim import lr_scheduler, swa_utils
from weft.optim.adafactor import Adafactor
from weft.optim.adam import Adam, AdamW
from weft.optim.adam_variants import Adamax, NAdam, RAdam
from weft.optim.adaptive import Adadelta, Adagrad, RMSprop
from weft.optim.lbfgs import LBFGS
from weft.optim.muon import Muon
from weft.optim.optimizer import Optimizer
from weft.optim.sgd import SGD
from weft.optim.sign import ASGD, Rprop
from weft.optim.sparse_adam import SparseAdam
