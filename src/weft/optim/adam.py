"""Adam and AdamW, steps scaled by moving averages of the gradient and its square; and their kin."""

from __future__ import annotations

from typing import Any

import weft
from weft import Tensor
from weft.optim.optimizer import ByParameter, check, check_betas, number, with_values, zeros

__all__ = ["Adam", "Adamax", "AdamW", "NAdam", "RAdam", "SparseAdam"]


class Adam(ByParameter):
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
    p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps).

    g includes weight_decay p, unless `decoupled_weight_decay`: then p *= 1 - lr weight_decay first.
    `amsgrad` uses the largest v so far.  (Kingma and Ba 2015; Loshchilov and Hutter 2019)
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        check(lr, eps=eps, weight_decay=weight_decay)
        check_betas(betas)
        if len({isinstance(b, Tensor) for b in betas}) > 1:
            raise ValueError("betas must be either both floats or both Tensors")
        for name, value in (("lr", lr), ("betas[0]", betas[0]), ("betas[1]", betas[1])):
            if isinstance(value, Tensor) and foreach and not capturable:
                raise ValueError(
                    f"{name} as a Tensor is not supported for capturable=False and foreach=True"
                )
            if isinstance(value, Tensor) and value.numel() != 1:
                raise ValueError(f"Tensor {name} must be 1-element")
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable, "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = {"step": 0.0, "exp_avg": zeros(p), "exp_avg_sq": zeros(p)}
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = zeros(p)
        return state

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        lr, (beta1, beta2) = number(group["lr"]), map(number, group["betas"])
        decay = group["weight_decay"]
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        state["step"] += 1
        step = state["step"]
        if decay != 0:
            if group["decoupled_weight_decay"]:
                p.mul_(1 - lr * decay)
            else:
                grad = grad.add(p, alpha=decay)
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        if group["amsgrad"]:
            square = state["max_exp_avg_sq"].copy_(weft.maximum(state["max_exp_avg_sq"], square))
        denominator = (square.sqrt() / (1 - beta2**step) ** 0.5).add_(group["eps"])
        p.addcdiv_(mean, denominator, value=-(lr / (1 - beta1**step)))


class AdamW(Adam):
    """Adam with decoupled weight decay: p *= 1 - lr weight_decay before each step."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize,
            capturable=capturable, differentiable=differentiable, fused=fused,
            decoupled_weight_decay=True,
        )  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True


class Adamax(ByParameter):
    """m as Adam's;  u = max(b2 u, |g| + eps);  p -= lr / (1 - b1^t) m / u  (Kingma and Ba 2015)"""

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check(lr, eps=eps, weight_decay=weight_decay)
        check_betas(betas)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0.0, "exp_avg": zeros(p), "exp_inf": zeros(p)}

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        beta1, beta2 = group["betas"]
        state["step"] += 1
        if group["weight_decay"] != 0:
            grad = grad.add(p, alpha=group["weight_decay"])
        mean, largest = state["exp_avg"], state["exp_inf"]
        mean.lerp_(grad, 1 - beta1)
        largest.copy_(weft.maximum(largest * beta2, grad.abs() + group["eps"]))
        p.addcdiv_(mean, largest, value=-(number(group["lr"]) / (1 - beta1 ** state["step"])))


class NAdam(ByParameter):
    """Adam whose mean looks one step ahead, by a momentum mu_t = b1 (1 - 0.5 0.96^(t psi)).

    psi is `momentum_decay`; mu_product is the product of all mu so far.  (Dozat 2016)
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check(lr, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
        check_betas(betas)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize, "foreach": foreach, "capturable": capturable,
            "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0.0, "mu_product": 1.0, "exp_avg": zeros(p), "exp_avg_sq": zeros(p)}

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        lr, (beta1, beta2), decay = number(group["lr"]), group["betas"], group["weight_decay"]
        psi = group["momentum_decay"]
        state["step"] += 1
        step = state["step"]
        if decay != 0:
            if group["decoupled_weight_decay"]:
                p.mul_(1 - lr * decay)
            else:
                grad = grad.add(p, alpha=decay)
        mu = beta1 * (1.0 - 0.5 * 0.96 ** (step * psi))
        mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * psi))
        product = state["mu_product"] = state["mu_product"] * mu
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        root = square.div(1 - beta2**step).sqrt().add_(group["eps"])
        p.addcdiv_(grad, root, value=-lr * (1.0 - mu) / (1.0 - product))
        p.addcdiv_(mean, root, value=-lr * mu_next / (1.0 - product * mu_next))


class RAdam(ByParameter):
    """Adam whose step is rectified by r_t while v is young; without v while r_t is undefined.

    rho_inf = 2 / (1 - b2) - 1;  rho_t = rho_inf - 2 t b2^t / (1 - b2^t);  r_t from rho_t > 5 on.
    (Liu et al. 2020)
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check(lr, eps=eps, weight_decay=weight_decay)
        check_betas(betas)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "foreach": foreach, "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0.0, "exp_avg": zeros(p), "exp_avg_sq": zeros(p)}

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        lr, (beta1, beta2), decay = number(group["lr"]), group["betas"], group["weight_decay"]
        state["step"] += 1
        step = state["step"]
        if decay != 0:
            if group["decoupled_weight_decay"]:
                p.mul_(1 - lr * decay)
            else:
                grad = grad.add(p, alpha=decay)
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        correction = 1 - beta2**step
        unbiased = mean / (1 - beta1**step)
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * step * beta2**step / correction
        if rho > 5.0:
            rectified = (
                (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
            ) ** 0.5
            scale = correction**0.5 / square.sqrt().add_(group["eps"])
            p.add_(unbiased * lr * scale * rectified, alpha=-1.0)
        else:
            p.add_(unbiased * lr, alpha=-1.0)


class SparseAdam(ByParameter):
    """At the rows of the gradient, and only there:  m = b1 m + (1 - b1) g;
    v = b2 v + (1 - b2) g^2;  p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).

    RuntimeError for a dense gradient, ValueError for a sparse parameter.
    """

    _takes = "sparse"

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        if number(lr) <= 0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if eps <= 0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        check(lr)
        check_betas(betas)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})
        for group in self.param_groups:
            sparse = [i for i, p in enumerate(group["params"]) if p.is_sparse]
            if sparse:
                raise ValueError(
                    f"Sparse params at indices {sparse}: SparseAdam requires dense parameter "
                    "tensors"
                )

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0, "exp_avg": zeros(p), "exp_avg_sq": zeros(p)}

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        state["step"] += 1
        grad = grad.coalesce()
        g = grad.values()
        if not g.numel():  # no row was used
            return
        (b1, b2), t = group["betas"], state["step"]
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        old_mean = mean.sparse_mask(grad).values()
        mean_moves = (g - old_mean) * (1 - b1)
        mean.add_(with_values(grad, mean_moves))
        old_square = square.sparse_mask(grad).values()
        square_moves = (g * g - old_square) * (1 - b2)
        square.add_(with_values(grad, square_moves))
        root = (square_moves + old_square).sqrt().add_(group["eps"])
        step = number(group["lr"]) * (1 - b2**t) ** 0.5 / (1 - b1**t)
        p.add_(with_values(grad, (mean_moves + old_mean) / root * -step))
