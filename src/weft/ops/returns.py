"""Named results of functions that return several tensors: `values, indices = x.sort()`."""

from __future__ import annotations

from collections import namedtuple
from typing import Any


def _named(name: str, *fields: str) -> Any:
    made = namedtuple(name, fields)  # type: ignore[misc]

    def show(self: Any) -> str:
        parts = ",\n".join(f"{f}={getattr(self, f)}" for f in fields)
        return f"torch.return_types.{name}(\n{parts})"

    made.__repr__ = show  # type: ignore[method-assign]
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
Eigh = _named("linalg_eigh", "eigenvalues", "eigenvectors")
