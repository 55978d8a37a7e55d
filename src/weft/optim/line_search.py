"""A step length along a direction that satisfies the strong Wolfe conditions.

f(t) <= f(0) + c1 t f'(0)  and  |f'(t)| <= c2 |f'(0)|: bracket such a t, then zoom in by cubic
interpolation.  (Nocedal and Wright 2006, algorithms 3.5 and 3.6)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

C1, C2 = 1e-4, 0.9


@dataclass(frozen=True)
class Point:
    """A step length t with the loss, the gradient and the slope there."""

    t: float
    loss: float
    gradient: Any
    slope: float


def cubic_minimum(a: Point, b: Point, bounds: tuple[float, float] | None = None) -> float:
    """Where the cubic through two points with their slopes is least, within bounds."""
    low, high = bounds or (min(a.t, b.t), max(a.t, b.t))
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1**2 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2.0
    left, right = (a, b) if a.t <= b.t else (b, a)
    d2 = math.sqrt(square)
    part = (right.slope + d2 - d1) / (right.slope - left.slope + 2 * d2)
    return min(max(right.t - (right.t - left.t) * part, low), high)


def strong_wolfe(
    evaluate: Callable[[float], Point], start: Point, t: float, reach: float, tolerance: float,
    most: int,
) -> tuple[Point, int]:  # fmt: skip
    """(the point found, evaluations): from first guess `t`; `reach` is the direction's largest |d|.

    Ends when the bracket moves no element by more than `tolerance`, or after `most` steps.
    """
    now, before, steps = evaluate(t), start, 0
    count = 1
    ends: list[Point] = []
    while steps < most:
        above = now.loss > start.loss + C1 * now.t * start.slope
        if above or (steps > 1 and now.loss >= before.loss):
            ends = [before, now]
            break
        if abs(now.slope) <= -C2 * start.slope:
            return now, count
        if now.slope >= 0:
            ends = [before, now]
            break
        wider = (now.t + 0.01 * (now.t - before.t), now.t * 10)
        t, before = cubic_minimum(before, now, wider), now
        now = evaluate(t)
        count += 1
        steps += 1
    ends = ends or [start, now]
    found, more = _zoom(evaluate, start, ends, reach, tolerance, most - steps)
    return found, count + more


def _zoom(
    evaluate: Callable[[float], Point], start: Point, ends: list[Point], reach: float,
    tolerance: float, most: int,
) -> tuple[Point, int]:  # fmt: skip
    low, high = (0, 1) if ends[0].loss <= ends[1].loss else (1, 0)
    stuck = False
    for count in range(max(most, 0)):
        if abs(ends[1].t - ends[0].t) * reach < tolerance:
            return ends[low], count
        t, stuck = _inside(cubic_minimum(ends[0], ends[1]), ends, stuck)
        now = evaluate(t)
        if now.loss > start.loss + C1 * t * start.slope or now.loss >= ends[low].loss:
            ends[high] = now
            low, high = (0, 1) if ends[0].loss <= ends[1].loss else (1, 0)
            continue
        if abs(now.slope) <= -C2 * start.slope:
            return now, count + 1
        if now.slope * (ends[high].t - ends[low].t) >= 0:
            ends[high] = ends[low]
        ends[low] = now
    return ends[low], max(most, 0)


def _inside(t: float, ends: list[Point], stuck: bool) -> tuple[float, bool]:
    """t, moved a tenth of the bracket inwards when it is close to an end a second time."""
    left, right = min(e.t for e in ends), max(e.t for e in ends)
    margin = 0.1 * (right - left)
    if min(right - t, t - left) >= margin:
        return t, False
    if stuck or t >= right or t <= left:
        return (right - margin if abs(t - right) < abs(t - left) else left + margin), False
    return t, True
