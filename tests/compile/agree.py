"""A function eager and compiled, call by call: what tests of weft.compile compare."""

from __future__ import annotations

import numpy as np

import weft


def bits(x):
    """A nested result as comparable bytes. Which NaN it is (its sign) hangs on the order of
    operands, which IEEE 754 leaves open and LLVM may change.
    """
    if isinstance(x, weft.Tensor):
        a = x.detach().numpy().copy()
        if (nan := a != a).any():
            a[nan] = complex("nan") if a.dtype.kind == "c" else float("nan")
        return (x.dtype.name, tuple(x.shape), a.tobytes())
    if isinstance(x, (tuple, list)):
        return [bits(i) for i in x]
    return x.hex() if isinstance(x, float) else x  # nan is nan


def same(make, calls=4):
    """make() -> (function, next arguments, state): eager and compiled must agree to the bit."""
    runs = []
    for wrap in (lambda f: f, weft.compile):
        fn, arguments, state = make()
        fn = wrap(fn)
        seen = []
        for i in range(calls):
            seen.append(bits(fn(*arguments(i))))
            seen.append([bits(s) for s in state()])
        runs.append(seen)
    for i, (a, b) in enumerate(zip(*runs, strict=True)):
        assert a == b, f"call {i // 2} differs"
    return fn


def tensor(*shape, seed=0, **kw):
    rng = np.random.default_rng(seed)
    return weft.tensor(rng.standard_normal(shape).astype(np.float32), **kw)
