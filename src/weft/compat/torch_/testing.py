"""torch.testing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import weft

# rtol, atol by dtype: https://docs.pytorch.org/docs/stable/testing.html
_TOLERANCES = {
    weft.float16: (1e-3, 1e-5),
    weft.bfloat16: (1.6e-2, 1e-5),
    weft.float32: (1.3e-6, 1e-5),
    weft.float64: (1e-7, 1e-7),
}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    msg: Any = None,
    **kw: Any,
) -> None:
    """|actual - expected| <= atol + rtol |expected|, else AssertionError with the largest."""
    again = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan, "check_dtype": check_dtype}
    if isinstance(expected, Mapping):
        if set(actual) != set(expected):
            raise AssertionError(f"The keys differ: {sorted(set(actual) ^ set(expected))}")
        for k in expected:
            assert_close(actual[k], expected[k], msg=msg, **again)
        return
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if len(actual) != len(expected):
            sizes = f"{len(actual)} != {len(expected)}"
            raise AssertionError(f"The length of the sequences mismatch: {sizes}")
        for a, e in zip(actual, expected):
            assert_close(a, e, msg=msg, **again)
        return
    a, e = weft.as_tensor(actual).detach(), weft.as_tensor(expected).detach()
    if a.shape != e.shape:
        raise AssertionError(
            f"The values for attribute 'shape' do not match: {a.shape} != {e.shape}"
        )
    if check_dtype and a.dtype is not e.dtype:
        raise AssertionError(
            f"The values for attribute 'dtype' do not match: {a.dtype} != {e.dtype}"
        )
    usual = [_TOLERANCES.get(t.dtype, (0.0, 0.0)) for t in (a, e)]
    if (rtol is None) != (atol is None):
        raise ValueError("rtol and atol must both be specified or both be unspecified")
    r = max(u[0] for u in usual) if rtol is None else rtol
    t = max(u[1] for u in usual) if atol is None else atol
    common = weft.promote_types(a.dtype, e.dtype)
    a, e = a.to(common), e.to(common)
    near = weft.isclose(a, e, rtol=r, atol=t, equal_nan=equal_nan)
    if not bool(near.all()):
        wrong = int((~near).sum())
        off = (a.double() - e.double()).abs()
        text = (
            f"Tensor-likes are not close!\n\nMismatched elements: {wrong} / {max(a.numel(), 1)} "
            f"({wrong / max(a.numel(), 1):.1%})\n"
            f"Greatest absolute difference: {float(off.max())} (up to {t} allowed)"
        )
        raise AssertionError(msg(text) if callable(msg) else msg or text)


def assert_allclose(
    actual: Any, expected: Any, rtol: float | None = None, atol: float | None = None, **kw: Any
) -> None:
    """The old spelling of assert_close, dtypes aside."""
    assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=True, check_dtype=False)
