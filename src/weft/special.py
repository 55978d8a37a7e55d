"""weft.special: special functions under torch.special's names."""

# ruff: noqa: I001  several names a line

from weft.core.overrides import cover_functions as _cover
from weft.ops.pointwise import logit as logit, sinc as sinc, xlogy as xlogy
from weft.ops.softmax import log_softmax as log_softmax, softmax as softmax
from weft.ops.special import *
from weft.ops.stat import logsumexp as logsumexp
from weft.ops.trig import (
    digamma as digamma,
    erf as erf,
    erfc as erfc,
    erfinv as erfinv,
    lgamma as lgamma,
)
from weft.ops.unary import (
    exp2 as exp2,
    expm1 as expm1,
    log1p as log1p,
    round as round,
    sigmoid as sigmoid,
)

expit, psi, gammaln = sigmoid, digamma, lgamma

_cover(globals(), "torch.special")
