"""SparseAdam: Adam for sparse gradients, whose moments change where the gradient has rows."""

from __future__ import annotations

from typing import Any

from weft import Tensor
from weft.optim.optimizer import ByParameter, check, check_betas, number, with_values, zeros


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
