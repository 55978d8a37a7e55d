"""Named results of functions that return several tensors: `values, indices = x.sort()`."""

from __future__ import annotations

from collections import namedtuple
from typing import Any


def _named(name: str, *fields: str) -> Any:
    made = namedtuple(name, fields)

    def show(self: Any) -> str:
        parts = ",\n".join(f"{f}={getattr(self, f)!r}" for f in fields)
        return f"torch.return_types.{name}(\n{parts})"

    made.__repr__ = show
    made.__module__ = "weft.return_types"
    return made


Max, Min, Sort = (_named(n, "values", "indices") for n in ("max", "min", "sort"))
TopK, KthValue = (_named(n, "values", "indices") for n in ("topk", "kthvalue"))
Median, NanMedian = (_named(n, "values", "indices") for n in ("median", "nanmedian"))
Mode, CumMax, CumMin = (_named(n, "values", "indices") for n in ("mode", "cummax", "cummin"))
AMinMax = _named("aminmax", "min", "max")
SlogDet = _named("slogdet", "sign", "logabsdet")
QR = _named("linalg_qr", "Q", "R")
SVD = _named("linalg_svd", "U", "S", "Vh")
Eig = _named("linalg_eig", "eigenvalues", "eigenvectors")
Eigh = _named("linalg_eigh", "eigenvalues", "eigenvectors")
LstSq = _named("linalg_lstsq", "solution", "residuals", "rank", "singular_values")
LUFactor = _named("linalg_lu_factor", "LU", "pivots")
LUFactorEx = _named("linalg_lu_factor_ex", "LU", "pivots", "info")
LUParts = _named("linalg_lu", "P", "L", "U")
LUUnpacked = _named("lu_unpack", "P", "L", "U")
InvEx = _named("linalg_inv_ex", "inverse", "info")
SolveEx = _named("_linalg_solve_ex", "result", "info")
CholeskyEx = _named("linalg_cholesky_ex", "L", "info")
GeQrf = _named("geqrf", "a", "tau")
SVD1, QR1 = _named("svd", "U", "S", "V"), _named("qr", "Q", "R")
TriangularSolve = _named("triangular_solve", "solution", "cloned_coefficient")
Histogram = _named("histogram", "hist", "bin_edges")
HistogramDD = _named("histogramdd", "hist", "bin_edges")
FrExp = _named("frexp", "mantissa", "exponent")
