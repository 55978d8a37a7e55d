"""Adam and its kin, RMSprop, Adagrad, Adadelta, Adafactor: steps scaled by past squares of the
gradient.
"""

from __future__ import annotations

from typing import Any

import weft
from weft import Tensor
from weft.optim.optimizer import (
    ByParameter,
    check,
    check_betas,
    check_step_size,
    number,
    with_values,
    zeros,
)

__all__ = [
    "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop",
    "SparseAdam",
]  # fmt: skip


def _moments(
    p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any], lr: Any, beta1: Any,
    beta2: Any,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(g, m, v) of one more step of Adam or its kin; the weights have decayed."""
    state["step"] += 1
    if (decay := group["weight_decay"]) != 0:
        if group["decoupled_weight_decay"]:
            p.mul_(1 - lr * decay)
        else:
            grad = grad.add(p, alpha=decay)
    mean, square = state["exp_avg"], state["exp_avg_sq"]
    mean.lerp_(grad, 1 - beta1)
    square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    return grad, mean, square


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
        _, mean, square = _moments(p, grad, state, group, lr, beta1, beta2)
        step = state["step"]
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
        lr, (beta1, beta2), psi = number(group["lr"]), group["betas"], group["momentum_decay"]
        grad, mean, square = _moments(p, grad, state, group, lr, beta1, beta2)
        step = state["step"]
        mu = beta1 * (1.0 - 0.5 * 0.96 ** (step * psi))
        mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * psi))
        product = state["mu_product"] = state["mu_product"] * mu
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
        lr, (beta1, beta2) = number(group["lr"]), group["betas"]
        _, mean, square = _moments(p, grad, state, group, lr, beta1, beta2)
        step = state["step"]
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
        check(lr)
        if not number(lr):
            raise ValueError(f"Invalid learning rate: {lr}")
        if eps <= 0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        check_betas(betas)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})
        groups = enumerate(self.param_groups)
        places = [(p, [g, i]) for g, group in groups for i, p in enumerate(group["params"])]
        if bad := [at for p, at in places if p.is_sparse]:
            raise ValueError(
                f"Sparse params at indices {bad}: SparseAdam requires dense parameter tensors"
            )
        if bad := [at for p, at in places if p.is_complex()]:
            raise ValueError(
                f"Complex params at indices {bad}: SparseAdam does not support complex parameters"
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


class RMSprop(ByParameter):
    """v = alpha v + (1 - alpha) g^2;  p -= lr g / (sqrt(v) + eps).

    `centered` subtracts the square of the mean gradient from v; with momentum m,
    b = m b + g / (sqrt(v) + eps) and p -= lr b.
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check(lr, eps=eps, momentum=momentum, weight_decay=weight_decay, alpha=alpha)
        defaults = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = {"step": 0.0, "square_avg": zeros(p)}
        if group["momentum"] > 0:
            state["momentum_buffer"] = zeros(p)
        if group["centered"]:
            state["grad_avg"] = zeros(p)
        return state

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        lr, alpha, decay = number(group["lr"]), group["alpha"], group["weight_decay"]
        state["step"] += 1
        if decay != 0:
            grad = grad.add(p, alpha=decay)
        square = state["square_avg"]
        square.mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
        if group["centered"]:
            mean = state["grad_avg"]
            mean.lerp_(grad, 1 - alpha)
            root = square.addcmul(mean, mean, value=-1).sqrt_()
        else:
            root = square.sqrt()
        root = root.add_(group["eps"])
        if group["momentum"] > 0:
            buffer = state["momentum_buffer"]
            buffer.mul_(group["momentum"]).addcdiv_(grad, root)
            p.add_(buffer, alpha=-lr)
        else:
            p.addcdiv_(grad, root, value=-lr)


class Adagrad(ByParameter):
    """s += g^2;  p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)  (Duchi et al. 2011)

    A sparse gradient changes the rows it names, of p and of s, and no other.
    """

    _takes = "both"

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check(
            lr, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, eps=eps,
        )  # fmt: skip
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "fused": fused,
        }  # fmt: skip
        super().__init__(params, defaults)
        for group in self.param_groups:  # torch's has its state from the start
            for p in group["params"]:
                self.state[p].update(self._start(p, group))

    def share_memory(self) -> None:
        """Put the sums where processes that are forked from now on share them."""
        for state in self.state.values():
            state["sum"].share_memory_()

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0.0, "sum": weft.full_like(p, group["initial_accumulator_value"])}

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        state["step"] += 1
        sparse = grad.layout is not weft.strided
        if group["weight_decay"] != 0:
            if sparse:
                raise RuntimeError("weight_decay option is not compatible with sparse gradients")
            grad = grad.add(p, alpha=group["weight_decay"])
        lr = number(group["lr"]) / (1 + (state["step"] - 1) * group["lr_decay"])
        if sparse:
            grad = grad.coalesce()
            state["sum"].add_(grad.pow(2))
            root = state["sum"].sparse_mask(grad).values().sqrt().add_(group["eps"])
            p.add_(with_values(grad, grad.values() / root), alpha=-lr)
            return
        root = state["sum"].addcmul_(grad, grad, value=1).sqrt().add_(group["eps"])
        p.addcdiv_(grad, root, value=-lr)


class Adadelta(ByParameter):
    """v = rho v + (1 - rho) g^2;  d = sqrt(u + eps) / sqrt(v + eps) g;  u = rho u + (1 - rho) d^2;
    p -= lr d  (Zeiler 2012)
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check(lr, eps=eps, weight_decay=weight_decay)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        defaults = {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "foreach": foreach, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0.0, "square_avg": zeros(p), "acc_delta": zeros(p)}

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        rho, eps = group["rho"], group["eps"]
        state["step"] += 1
        if group["weight_decay"] != 0:
            grad = grad.add(p, alpha=group["weight_decay"])
        square, moved = state["square_avg"], state["acc_delta"]
        square.mul_(rho).addcmul_(grad, grad, value=1 - rho)
        delta = moved.add(eps).sqrt_().div_(square.add(eps).sqrt_()).mul_(grad)
        moved.mul_(rho).addcmul_(delta, delta, value=1 - rho)
        p.add_(delta, alpha=-number(group["lr"]))


class Adafactor(ByParameter, by_shape=True):
    """rho = min(lr, 1 / sqrt(t));  b = 1 - t^beta2_decay;  p *= 1 - lr weight_decay;
    R = b R + (1 - b) mean_rows(g^2);  C = b C + (1 - b) mean_columns(g^2);  V = R C / mean(R);
    U = g / sqrt(V);  p -= rho max(eps2, RMS(p)) U / max(1, RMS(U) / d).

    The last two dims are factored; a vector keeps V = b V + (1 - b) g^2 whole.  eps is (eps1,
    eps2); eps1 (None: the dtype's) bounds mean(R) and sqrt(V) from below.  As in torch, lr bounds
    the step.  (Shazeer and Stern 2018)
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        check_step_size(lr)
        if not beta2_decay <= 0.0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        for i, bound in enumerate(eps, 1):
            if bound is not None and not bound >= 0.0:
                raise ValueError(f"epsilon{i} should be >= 0 but is: {bound}")
        if not d >= 1.0:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight_decay should be >= 0 but is: {weight_decay}")
        defaults = {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d,
            "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _start(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        if p.is_complex():
            raise RuntimeError("Adafactor does not support complex parameters")
        if p.dim() < 2:
            return {"step": 0.0, "variance": zeros(p)}
        *batch, rows, columns = p.shape
        return {
            "step": 0.0,
            "row_var": weft.zeros((*batch, rows, 1), dtype=p.dtype),
            "col_var": weft.zeros((*batch, 1, columns), dtype=p.dtype),
        }

    def _update(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        lr, (eps1, eps2) = number(group["lr"]), group["eps"]
        eps1 = weft.finfo(p.dtype).eps if eps1 is None else eps1
        state["step"] += 1
        step = state["step"]
        fresh = step ** group["beta2_decay"]
        root = p.numel() ** 0.5
        alpha = p.norm(2).div_(root).clamp_(min=eps2).mul_(min(lr, step**-0.5))
        if group["weight_decay"] != 0:
            p.mul_(1 - lr * group["weight_decay"])
        if grad.dim() > 1:
            row, column = state["row_var"], state["col_var"]
            row.lerp_(grad.norm(2, -1, keepdim=True).square_().div_(grad.size(-1)), fresh)
            column.lerp_(grad.norm(2, -2, keepdim=True).square_().div_(grad.size(-2)), fresh)
            variance = (row @ column).div_(row.mean(-2, keepdim=True).clamp_(min=eps1))
        else:
            variance = state["variance"].lerp_(grad * grad, fresh).clone()
        update = variance.clamp_(min=eps1 * eps1).rsqrt_().mul_(grad)
        clip = update.norm(2).div_(root * group["d"]).clamp_(min=1.0)
        p.sub_(update.mul_(alpha / clip))
