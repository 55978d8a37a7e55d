"""Layers, losses and their helpers, as `torch.nn`."""

from weft.nn import (
    activation,
    container,
    conv,
    functional,
    init,
    lazy,
    linear,
    loss,
    module,
    norm,
    one_op,
    parameter,
    pooling,
    rnn,
    shape,
    transformer,
    utils,
)
from weft.nn.activation import *
from weft.nn.container import *
from weft.nn.conv import *
from weft.nn.lazy import *
from weft.nn.linear import *
from weft.nn.loss import *
from weft.nn.module import *
from weft.nn.norm import *
from weft.nn.parameter import *
from weft.nn.pooling import *
from weft.nn.rnn import *
from weft.nn.shape import *
from weft.nn.transformer import *

__all__ = ["functional", "init", "utils"]
__all__ += activation.__all__
__all__ += container.__all__
__all__ += conv.__all__
__all__ += lazy.__all__
__all__ += linear.__all__
__all__ += loss.__all__
__all__ += module.__all__
__all__ += norm.__all__
__all__ += parameter.__all__
__all__ += pooling.__all__
__all__ += rnn.__all__
__all__ += shape.__all__
__all__ += transformer.__all__
