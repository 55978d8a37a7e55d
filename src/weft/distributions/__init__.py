"""Probability distributions with torch's draws, as `torch.distributions`."""

from weft.distributions import (
    constraints,
    continuous,
    discrete,
    distribution,
    gamma,
    kl,
    mixture,
    transformed,
    transforms,
)
from weft.distributions.continuous import *
from weft.distributions.discrete import *
from weft.distributions.distribution import *
from weft.distributions.gamma import *
from weft.distributions.kl import *
from weft.distributions.mixture import *
from weft.distributions.transformed import *
from weft.distributions.transforms import *

__all__: list[str] = []
__all__ += continuous.__all__
__all__ += discrete.__all__
__all__ += distribution.__all__
__all__ += gamma.__all__
__all__ += kl.__all__
__all__ += mixture.__all__
__all__ += transformed.__all__
__all__ += transforms.__all__
