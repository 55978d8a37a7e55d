"""Operands drawn from an op's `samples`: the same numbers for laws, fuzz, goldens, benchmarks.

A number is drawn for (op, sample, operand): adding a sample changes no other one's values.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.op import REGISTRY, Op, Sample


def cases() -> Iterator[tuple[str, int]]:
    """(op name, position of the sample), for every op in the registry, by name."""
    for name in sorted(REGISTRY):
        for i in range(len(REGISTRY[name].samples)):
            yield name, i


def op_of(name: str, index: int) -> Op:
    """The op instance of a sample: its attributes are the sample's."""
    cls = REGISTRY[name]
    return cls(**cls.samples[index].attrs)


def dtypes_of(s: Sample) -> tuple[dt.dtype, ...]:
    """The dtype of each operand (a Python number counts as an operand)."""
    of = (s.of,) * len(s.args) if isinstance(s.of, str) else tuple(s.of)
    if len(of) != len(s.args):
        raise ValueError(f"a sample of {len(s.args)} operands names {len(of)} dtypes: {of}")
    return tuple(dt.BY_NAME[name] for name in of)


def draw(
    name: str,
    index: int,
    *,
    floats: dt.dtype | None = None,
    shapes: tuple | None = None,
    seed: int = 0,
) -> list[Any]:
    """The sample's operands: NumPy arrays, and Python numbers where the sample has numbers.

    floats  the dtype that floating operands get instead of the sample's own (complex ones: the
            complex dtype of such parts)
    shapes  other shapes than the sample's (numbers stay)
    """
    s = REGISTRY[name].samples[index]
    out: list[Any] = []
    for i, (arg, d) in enumerate(zip(s.args, dtypes_of(s), strict=True)):
        if not isinstance(arg, tuple):
            out.append(arg)
            continue
        shape = arg if shapes is None else shapes[i]
        if floats is not None and d.category >= dt.FLOAT:
            d = floats.to_complex() if d.is_complex else floats
        rng = np.random.default_rng([zlib.crc32(name.encode()), index, i, seed])
        out.append(values(rng, shape, d, s.low, s.high))
    return out


def values(
    rng: np.random.Generator, shape: tuple[int, ...], d: dt.dtype, low: float, high: float
) -> np.ndarray:
    """Numbers in [low, high): integers between the bounds' ceilings; bools are fair coins."""
    if d is dt.bool:
        return np.asarray(rng.random(shape) < 0.5)
    if d.category == dt.INT:
        first = 0 if not d.is_signed else int(np.ceil(low))
        last = int(np.ceil(high))
        return np.asarray(rng.integers(first, max(last, first + 1), shape), d.np)
    if d.category == dt.COMPLEX:
        parts = values(rng, (*shape, 2), d.to_real(), low, high)
        return parts.view(d.np).reshape(shape)
    # float32 first: float64 runs of a sample see the same numbers, so that results compare
    return np.asarray(np.asarray(rng.uniform(low, high, shape), np.float32), d.np)
