"""SGD with momentum and its kin: averaged SGD, Rprop, Muon."""

from __future__ import annotations

import math
from typing import Any

import weft
from weft import Tensor
from weft.optim.optimizer import ByParameter, check, check_step_size, number, zeros

__all__ = ["ASGD", "SGD", "Muon", "Rprop"]


class SGD(ByParameter):
    """p -= lr d;  d = g + weight_decay p;  with momentum m: b = m b + (1 - dampening) d, then
    d = b, or d + m b with `nesterov`.  b starts as the first d.
    """

    _takes = "both"

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: Any = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check(lr, momentum=momentum, weight_decay=weight_decay)
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize, "foreach": foreach,
            "differentiable": differentiable, "fused": fused,
        }  # fmt: skip
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(params, defaults)

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"momentum_buffer": None} if group["momentum"] != 0 else {}

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        decay, momentum = number(group["weight_decay"]), group["momentum"]
        if decay != 0:
            grad = grad.add(p, alpha=decay)
        if momentum != 0:
            buffer = state.get("momentum_buffer")
            if buffer is None:
                buffer = state["momentum_buffer"] = grad.detach().clone()
            else:
                buffer.mul_(momentum).add_(grad, alpha=1 - group["dampening"])
            grad = grad.add(buffer, alpha=momentum) if group["nesterov"] else buffer
        p.add_(grad, alpha=-number(group["lr"]))


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


class Muon(ByParameter, by_shape=True):
    """b = m b + (1 - m) g;  u = (1 - m) g + m b with `nesterov`, else b;
    p *= 1 - lr weight_decay;  p -= lr scale orthogonal(u).

    `orthogonal` takes `ns_steps` steps X = a X + (b A + c A A) X, A = X X^T, in bfloat16, from
    X = u / max(|u|, eps); it moves all singular values near 1.  scale is sqrt(max(1, rows /
    columns)), or 0.2 sqrt(max(rows, columns)) for adjust_lr_fn="match_rms_adamw".  Parameters are
    matrices; biases and embeddings go to another optimizer.  (Jordan 2024; Liu et al. 2025)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        check_step_size(lr)
        if not momentum >= 0.0:
            raise ValueError(f"momentum should be >= 0 but is: {momentum}")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight decay should be >= 0 but is: {weight_decay}")
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }  # fmt: skip
        super().__init__(params, defaults)
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.ndim != 2:
                raise ValueError(
                    "Muon only supports 2D parameters whereas we found a parameter with size: "
                    f"{p.size()}"
                )

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        if p.is_complex():
            raise RuntimeError("Muon does not support complex parameters")
        return {"momentum_buffer": zeros(p)}

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        lr, momentum = number(group["lr"]), group["momentum"]
        buffer = state["momentum_buffer"].lerp_(grad, 1 - momentum)
        update = grad.lerp(buffer, momentum) if group["nesterov"] else buffer
        update = _orthogonal(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = p.shape
        if group["adjust_lr_fn"] == "match_rms_adamw":
            scale = 0.2 * math.sqrt(max(rows, columns))
        else:
            scale = math.sqrt(max(1, rows / columns))
        # a tensor's rate is rounded as its dtype is, in torch too
        p.mul_(number(1 - group["lr"] * group["weight_decay"]))
        p.add_(update, alpha=-lr * scale)


def _orthogonal(
    grad: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """About U V^T of grad = U S V^T, in bfloat16: Newton and Schulz's odd quintic iteration."""
    if steps >= 100:
        raise ValueError("Number of steps must be less than 100 for computational efficiency")
    if len(coefficients) != 3:
        raise ValueError("Coefficients must be a tuple of exactly 3 values")
    a, b, c = coefficients
    tall = grad.size(0) > grad.size(1)
    x = grad.bfloat16()
    x = x.T if tall else x
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = weft.addmm(x, weft.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
