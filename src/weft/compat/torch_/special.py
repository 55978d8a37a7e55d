"""torch.special: Weft's functions under the names of that namespace."""

from __future__ import annotations

import weft
from weft.nn.functional import log_softmax, softmax

__all__ = ["log_softmax", "softmax"]

_SAME = (
    "digamma erf erfc erfinv exp2 expm1 log1p logit logsumexp round sinc xlogy i0 multigammaln "
    "polygamma"
)
_RENAMED = {
    "expit": "sigmoid",
    "psi": "digamma",
    "gammaln": "lgamma",
}


def __getattr__(name: str) -> object:
    own = _RENAMED.get(name, name if name in _SAME.split() else "")
    if own and hasattr(weft, own):
        return getattr(weft, own)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
