"""Normalisation: (x - mean) / sqrt(var + eps), over the batch, the channels, or both."""

from __future__ import annotations

from typing import Any, ClassVar

import weft
from weft import Parameter, Tensor
from weft.nn import functional as F
from weft.nn import init
from weft.nn.module import Module

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d", "LayerNorm", "LocalResponseNorm", "RMSNorm", "SyncBatchNorm",
]  # fmt: skip


class _Affine(Module):
    """A weight that begins as ones and a bias of zeros, where there are any."""

    def _affine(self, shape: Any, weight: bool, bias: bool, **made: Any) -> None:
        for name, on in (("weight", weight), ("bias", weight and bias)):
            self.register_parameter(name, Parameter(weft.empty(shape, **made)) if on else None)

    def reset_parameters(self) -> None:
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class _WithStatistics(_Affine):
    """Affine parameters and, when tracked, running statistics of `num_features` channels."""

    _version = 2

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        made = {"device": device, "dtype": dtype}
        self._affine(num_features, affine, bias, **made)
        on = track_running_stats
        self.register_buffer("running_mean", weft.zeros(num_features, **made) if on else None)
        self.register_buffer("running_var", weft.ones(num_features, **made) if on else None)
        count = weft.tensor(0, dtype=weft.int64, device=device) if on else None
        self.register_buffer("num_batches_tracked", count)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        super().reset_parameters()

    _repr_names = "num_features, eps momentum affine bias track_running_stats"

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict, *rest: Any
    ) -> None:
        version = local_metadata.get("version")
        key = prefix + "num_batches_tracked"
        if (version is None or version < 2) and self.track_running_stats and key not in state_dict:
            # states of before this buffer existed
            state_dict[key] = self.num_batches_tracked
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class _BatchNorm(_WithStatistics):
    """y = (x - E[x]) / sqrt(Var[x] + eps) * weight + bias over all dims but the channels (dim 1).

    In training E and Var are the batch's (Var biased), and the running ones move towards them by
    `momentum` (Var unbiased; None: the mean of all batches).  In eval the running ones are used.
    """

    _ranks: ClassVar[tuple[int, ...]] = ()

    def forward(self, input: Tensor) -> Tensor:
        if self._ranks and input.ndim not in self._ranks:
            kinds = " or ".join(f"{n}D" for n in self._ranks)
            raise ValueError(f"expected {kinds} input (got {input.ndim}D input)")
        own = self.__class__ in _PLAIN  # where no property stands before the dicts
        try:
            seen, learned = (self._buffers, self._parameters) if own else ({}, {})
            mean, var = seen["running_mean"], seen["running_var"]
            weight, bias, count = learned["weight"], learned["bias"], seen["num_batches_tracked"]
        except KeyError:
            mean, var, weight, bias = self.running_mean, self.running_var, self.weight, self.bias
            count = self.num_batches_tracked
        factor = 0.0 if self.momentum is None else self.momentum
        training = self.training
        if training and self.track_running_stats and count is not None:
            count.add_(1)
            if self.momentum is None:
                factor = 1.0 / float(count)
        from_batch = training or (mean is None and var is None)
        if training and not self.track_running_stats:
            mean = var = None
        return F.batch_norm(input, mean, var, weight, bias, from_batch, factor, self.eps)


class BatchNorm1d(_BatchNorm):
    """Batch norm of (N, C) or (N, C, L)."""

    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch norm of (N, C, H, W)."""

    _ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch norm of (N, C, D, H, W)."""

    _ranks = (5,)


_PLAIN = (BatchNorm1d, BatchNorm2d, BatchNorm3d)


class SyncBatchNorm(_BatchNorm):
    """Batch norm of any rank; with one process it is BatchNorm."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias
        )
        self.process_group = process_group


class _InstanceNorm(_WithStatistics):
    """y = (x - E[x]) / sqrt(Var[x] + eps) * weight + bias over the spatial dims of each sample."""

    _dims: ClassVar[int]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias
        )

    def forward(self, input: Tensor) -> Tensor:
        n = self._dims
        if input.dim() not in (n + 1, n + 2):
            raise ValueError(f"expected {n + 1}D or {n + 2}D input (got {input.dim()}D input)")
        batched = input.dim() == n + 2
        channels = input.size(1 if batched else 0)
        if self.affine and channels != self.num_features:
            raise ValueError(
                f"expected input's size at dim={int(batched)} to match num_features "
                f"({self.num_features}), but got: {channels}."
            )
        y = F.instance_norm(
            input if batched else input.unsqueeze(0),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return y if batched else y.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """Instance norm of (N, C, L) or (C, L)."""

    _dims = 1


class InstanceNorm2d(_InstanceNorm):
    """Instance norm of (N, C, H, W) or (C, H, W)."""

    _dims = 2


class InstanceNorm3d(_InstanceNorm):
    """Instance norm of (N, C, D, H, W) or (C, D, H, W)."""

    _dims = 3


def _shape(shape: Any) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


class LayerNorm(_Affine):
    """y = (x - E[x]) / sqrt(Var[x] + eps) * weight + bias over the last dims, `normalized_shape`"""

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self._affine(self.normalized_shape, elementwise_affine, bias, device=device, dtype=dtype)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        own = self._parameters  # asked first: `self.weight` would look in two other places before
        if self.__class__ is LayerNorm and "weight" in own and "bias" in own:
            weight, bias = own["weight"], own["bias"]
        else:
            weight, bias = self.weight, self.bias
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)

    _repr_names = "normalized_shape, eps elementwise_affine bias"


class RMSNorm(Module):
    """y = x / sqrt(E[x^2] + eps) * weight over the last dims, `normalized_shape`.

    eps=None is the dtype's own epsilon.  (Zhang and Sennrich 2019)
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        if elementwise_affine:
            made = weft.empty(self.normalized_shape, device=device, dtype=dtype)
            self.weight = Parameter(made)
        else:
            self.register_parameter("weight", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    _repr_names = "normalized_shape, eps elementwise_affine"


class GroupNorm(_Affine):
    """y = (x - E[x]) / sqrt(Var[x] + eps) * weight + bias over each group of channels of a sample.

    x (N, C, *); `num_groups` must divide C.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(
                f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})"
            )
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = eps, affine
        self._affine(num_channels, affine, bias, device=device, dtype=dtype)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    _repr_names = "num_groups, num_channels, eps affine bias"


class LocalResponseNorm(Module):
    """y = x / (k + alpha mean(x^2 over `size` neighbouring channels))^beta"""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    _repr_names = "size, alpha beta k"
