"""Adafactor: Adam's second moment of a matrix, kept as one row and one column."""

from __future__ import annotations

from typing import Any

import weft
from weft import Tensor
from weft.optim.optimizer import ByParameter, check_step_size, number, zeros


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
