"""dtypes that programs name in tables and tests, and that no Weft tensor can have yet."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

import weft


class AbsentDtype(weft.dtype):
    """A name with a size.  Making a tensor of it raises TypeError."""

    __slots__ = ("_complex",)

    def __init__(self, name: str, like: Any, *, is_complex: bool = False) -> None:
        super().__init__(name, like, 2, name, name)
        self._complex = is_complex

    @property
    def is_complex(self) -> bool:
        return self._complex

    @property
    def is_floating_point(self) -> bool:
        return self.name.startswith("float")

    def __reduce__(self) -> tuple:
        return _by_name, (self.name,)


def _by_name(name: str) -> AbsentDtype:
    return globals()[name]


complex32 = chalf = AbsentDtype("complex32", np.uint32, is_complex=True)
float8_e4m3fnuz = AbsentDtype("float8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz)
float8_e5m2fnuz = AbsentDtype("float8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz)
float8_e8m0fnu = AbsentDtype("float8_e8m0fnu", ml_dtypes.float8_e8m0fnu)
float4_e2m1fn_x2 = AbsentDtype("float4_e2m1fn_x2", np.uint8)
quint8, qint8, qint32 = (
    AbsentDtype("quint8", np.uint8),
    AbsentDtype("qint8", np.int8),
    AbsentDtype("qint32", np.int32),
)
