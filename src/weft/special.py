"""weft.special: special functions under torch.special's names."""

from weft.core.overrides import cover_functions as _cover
from weft.ops.pointwise import logit, sinc, xlogy
from weft.ops.softmax import log_softmax, softmax
from weft.ops.special import (
    airy_ai,
    bessel_j0,
    bessel_j1,
    bessel_y0,
    bessel_y1,
    chebyshev_polynomial_t,
    chebyshev_polynomial_u,
    chebyshev_polynomial_v,
    chebyshev_polynomial_w,
    entr,
    erfcx,
    gammainc,
    gammaincc,
    hermite_polynomial_h,
    hermite_polynomial_he,
    i0,
    i0e,
    i1,
    i1e,
    laguerre_polynomial_l,
    legendre_polynomial_p,
    log_ndtr,
    modified_bessel_i0,
    modified_bessel_i1,
    modified_bessel_k0,
    modified_bessel_k1,
    multigammaln,
    ndtr,
    ndtri,
    polygamma,
    scaled_modified_bessel_k0,
    scaled_modified_bessel_k1,
    shifted_chebyshev_polynomial_t,
    shifted_chebyshev_polynomial_u,
    shifted_chebyshev_polynomial_v,
    shifted_chebyshev_polynomial_w,
    spherical_bessel_j0,
    xlog1py,
    zeta,
)
from weft.ops.stat import logsumexp
from weft.ops.trig import digamma, erf, erfc, erfinv, lgamma
from weft.ops.unary import exp2, expm1, log1p, round, sigmoid

expit, psi, gammaln = sigmoid, digamma, lgamma

_cover(globals(), "torch.special")
