"""Rprop and ASGD: steps from the gradient's sign; averaged SGD."""

from __future__ import annotations

from typing import Any

import weft
from weft import Tensor
from weft.optim.optimizer import ByParameter, check, number, zeros


class Rprop(ByParameter):
    """p -= sign(g) s;  s *= eta+ where g kept its sign, eta- where it turned (there g counts as 0)

    s stays within `step_sizes`.  (Riedmiller and Braun 1993)
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        etas: tuple = (0.5, 1.2),
        step_sizes: tuple = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        defaults = {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        size = weft.full_like(p, float(number(group["lr"])))
        return {"step": 0.0, "prev": zeros(p), "step_size": size}

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        (shrink, grow), (least, most) = group["etas"], group["step_sizes"]
        state["step"] += 1
        before, size = state["prev"], state["step_size"]
        agreement = grad * before
        one = weft.ones_like(size)
        turned = agreement < 0
        factor = weft.where(agreement > 0, one * grow, weft.where(turned, one * shrink, one))
        size.mul_(factor).clamp_(least, most)
        grad = weft.where(turned, weft.zeros_like(grad), grad)
        p.addcmul_(grad.sign(), size, value=-1)
        before.copy_(grad)


class ASGD(ByParameter):
    """p = (1 - lambd eta) p - eta g;  eta = lr / (1 + lambd lr t)^alpha;  ax = mean of p since t0

    (Polyak and Juditsky 1992)
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check(lr, weight_decay=weight_decay)
        defaults = {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0.0, "eta": float(number(group["lr"])), "mu": 1.0, "ax": zeros(p)}

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        lr, lambd, mean = number(group["lr"]), group["lambd"], state["ax"]
        state["step"] += 1
        if group["weight_decay"] != 0:
            grad = grad.add(p, alpha=group["weight_decay"])
        p.mul_(1 - lambd * state["eta"]).add_(grad, alpha=-state["eta"])
        if state["mu"] != 1:
            mean.add_(p.sub(mean).mul_(state["mu"]))
        else:
            mean.copy_(p)
        state["eta"] = lr / (1 + lambd * lr * state["step"]) ** group["alpha"]
        state["mu"] = 1 / max(1, state["step"] - group["t0"])
