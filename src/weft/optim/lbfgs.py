"""LBFGS: a quasi-Newton method that remembers the last steps, and its line search."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import weft
from weft import Tensor
from weft.optim.optimizer import Optimizer, check, number

__all__ = ["LBFGS"]


class LBFGS(Optimizer):
    """x += t d,  d = -H g,  H built from the last `history_size` changes of x and of g.

    `step(closure)` makes up to `max_iter` iterations; `line_search_fn` is None (t = lr) or
    "strong_wolfe".  One parameter group only; each iteration reads the loss.  (Nocedal 1980)
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        check(lr)
        defaults = {
            "lr": lr, "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
            "history_size": history_size, "line_search_fn": line_search_fn,
        }  # fmt: skip
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")

    @property
    def _params(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    def _gradient(self) -> Tensor:
        """All gradients as one vector."""
        parts = [weft.zeros_like(p) if p.grad is None else p.grad for p in self._params]
        return weft.cat([g.reshape(-1) for g in parts])

    def _move(self, t: float, d: Tensor) -> None:
        for p, part in zip(self._params, d.split([p.numel() for p in self._params]), strict=True):
            p.add_(part.reshape(p.shape), alpha=t)

    @weft.no_grad()
    def step(self, closure: Callable) -> Any:
        """Iterate; `closure` computes the loss and its gradients anew.  Returns the first loss."""
        group = self.param_groups[0]
        search = group["line_search_fn"]
        if search not in (None, "strong_wolfe"):
            raise RuntimeError("only 'strong_wolfe' is supported")
        lr, closure = number(group["lr"]), weft.enable_grad()(closure)
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first_loss = closure()
        loss, gradient = float(first_loss), self._gradient()
        evaluations = 1
        state["func_evals"] += 1
        if float(gradient.abs().max()) <= group["tolerance_grad"]:
            return first_loss
        for i in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            d = self._direction(state, gradient, group["history_size"])
            state["prev_flat_grad"], state["prev_loss"] = gradient.clone(), loss
            t = lr
            if state["n_iter"] == 1:
                t = min(1.0, 1.0 / float(gradient.abs().sum())) * lr
            state["d"], state["t"] = d, t
            slope = float(gradient.dot(d))
            if slope > -group["tolerance_change"]:
                break
            before, used = loss, 0
            if search is not None:
                start = Point(0.0, loss, gradient, slope)
                most = group["max_eval"] - evaluations
                found, used = self._search(closure, start, t, d, group["tolerance_change"], most)
                loss, gradient, t = found.loss, found.gradient, found.t
                state["t"] = t
                self._move(t, d)
            else:
                self._move(t, d)
                if i < group["max_iter"]:  # the last loss is not looked at
                    loss, gradient, used = float(closure()), self._gradient(), 1
            evaluations += used
            state["func_evals"] += used
            if (
                evaluations >= group["max_eval"]
                or float(gradient.abs().max()) <= group["tolerance_grad"]
                or abs(t) * float(d.abs().max()) <= group["tolerance_change"]
                or abs(loss - before) < group["tolerance_change"]
            ):
                break
        return first_loss

    def _direction(self, state: dict[str, Any], gradient: Tensor, history: int) -> Tensor:
        """-H g by the two-loop recursion; first puts the last step into the memory."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
            return -gradient
        changes, steps, inverses = state["old_dirs"], state["old_stps"], state["ro"]
        change, step = gradient - state["prev_flat_grad"], state["d"] * state["t"]
        curvature = float(change.dot(step))
        if curvature > 1e-10:
            changes.append(change)
            steps.append(step)
            inverses.append(1.0 / curvature)
            for memory in (changes, steps, inverses):
                del memory[:-history]
            state["H_diag"] = curvature / float(change.dot(change))
        q = -gradient
        weights = []
        for y, s, r in zip(reversed(changes), reversed(steps), reversed(inverses), strict=True):
            weights.append(float(s.dot(q)) * r)
            q = q.add(y, alpha=-weights[-1])
        q = q * state["H_diag"]
        for y, s, r, a in zip(changes, steps, inverses, reversed(weights), strict=True):
            q = q.add(s, alpha=a - float(y.dot(q)) * r)
        return q

    def _search(
        self, closure: Callable, start: Point, t: float, d: Tensor, tolerance: float, most: int
    ) -> tuple[Point, int]:
        origin = [p.clone() for p in self._params]

        def evaluate(at: float) -> Point:
            self._move(at, d)
            loss = float(closure())
            gradient = self._gradient()
            for p, x in zip(self._params, origin, strict=True):
                p.copy_(x)
            return Point(at, loss, gradient, float(gradient.dot(d)))

        return strong_wolfe(evaluate, start, t, float(d.abs().max()), tolerance, most)


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
