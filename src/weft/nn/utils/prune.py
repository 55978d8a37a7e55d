"""Pruning: parameters seen through a mask of zeros and ones, as torch.nn.utils.prune.

A pruned `name` becomes a parameter `name_orig` and a buffer `name_mask`; `name` itself is their
product, made anew before every forward.
"""

from __future__ import annotations

from typing import Any

import weft
from weft import nn


class BasePruningMethod:
    """Subclasses write compute_mask(t, default_mask)."""

    PRUNING_TYPE = "unstructured"
    _tensor_name = ""

    def __call__(self, module: Any, inputs: Any) -> None:
        setattr(module, self._tensor_name, self.apply_mask(module))

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        raise NotImplementedError

    def apply_mask(self, module: Any) -> Any:
        """orig * mask"""
        name = self._tensor_name
        mask = getattr(module, name + "_mask")
        orig = getattr(module, name + "_orig")
        return mask.to(dtype=orig.dtype) * orig

    @classmethod
    def apply(
        cls, module: Any, name: str, *args: Any, importance_scores: Any = None, **kwargs: Any
    ) -> BasePruningMethod:
        """Prune `module.name`; a second pruning works on what the first one left."""
        method = cls(*args, **kwargs)
        method._tensor_name = name
        old = _find(module, name)
        if old is None:
            orig = getattr(module, name)
            default = weft.ones_like(orig)
            del module._parameters[name]
            module.register_parameter(name + "_orig", orig)
        else:
            orig = getattr(module, name + "_orig")
            default = getattr(module, name + "_mask").detach().clone()
            del module._forward_pre_hooks[old]
        scores = orig if importance_scores is None else importance_scores
        if scores.shape != orig.shape:
            raise AssertionError(
                f"importance_scores should have the same shape as parameter {name} of {module}"
            )
        with weft.no_grad():
            mask = method.compute_mask(scores.detach(), default)
        module.register_buffer(name + "_mask", mask)
        setattr(module, name, method.apply_mask(module))
        module.register_forward_pre_hook(method)
        return method

    def prune(self, t: Any, default_mask: Any = None, importance_scores: Any = None) -> Any:
        """t with what the method removes set to 0."""
        scores = t if importance_scores is None else importance_scores
        default = weft.ones_like(t) if default_mask is None else default_mask
        return t * self.compute_mask(scores, default)

    def remove(self, module: Any) -> None:
        """Make the pruning permanent: `name` is a parameter again, with its zeros."""
        name = self._tensor_name
        weight = self.apply_mask(module).detach()
        orig = module._parameters.pop(name + "_orig")
        del module._buffers[name + "_mask"]
        orig.data = weight
        if name in module.__dict__:
            del module.__dict__[name]
        module.register_parameter(name, orig)


class Identity(BasePruningMethod):
    """Removes nothing."""

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        return default_mask


class _Amount(BasePruningMethod):
    def __init__(self, amount: Any) -> None:
        if isinstance(amount, bool) or not isinstance(amount, (int, float)):
            raise TypeError(f"Invalid type for amount: {amount}. Must be int or float.")
        if (isinstance(amount, int) and amount < 0) or (
            isinstance(amount, float) and not 0.0 <= amount <= 1.0
        ):
            raise ValueError(
                f"amount={amount} should either be a float in the range [0, 1] or a non-negative "
                "integer"
            )
        self.amount = amount

    def count(self, size: int) -> int:
        n = self.amount if isinstance(self.amount, int) else round(self.amount * size)
        if n > size:
            raise ValueError(
                f"amount={self.amount} should be smaller than the number of parameters to prune="
                f"{size}"
            )
        return n


class L1Unstructured(_Amount):
    """Removes the entries of least absolute value."""

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        left = default_mask.reshape(-1) != 0
        mask = default_mask.clone().reshape(-1)
        places = left.nonzero().reshape(-1)
        n = self.count(places.numel())
        if n:
            small = weft.topk(t.reshape(-1)[places].abs(), k=n, largest=False).indices
            mask[places[small]] = 0
        return mask.reshape(default_mask.shape)


class RandomUnstructured(_Amount):
    """Removes entries at random."""

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        mask = default_mask.clone().reshape(-1)
        places = (mask != 0).nonzero().reshape(-1)
        n = self.count(places.numel())
        if n:
            drawn = weft.topk(weft.rand(places.numel()), k=n).indices
            mask[places[drawn]] = 0
        return mask.reshape(default_mask.shape)


class LnStructured(_Amount):
    """Removes whole slices along `dim`, those of least n-norm."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: Any, n: Any, dim: int = -1) -> None:
        super().__init__(amount)
        self.n, self.dim = n, dim

    def order(self, t: Any) -> Any:
        dims = [d for d in range(t.ndim) if d != self.dim % t.ndim]
        return weft.linalg.vector_norm(t, self.n, dim=dims)

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        size = t.shape[self.dim]
        kept = size - self.count(size)
        line = weft.zeros(size, dtype=default_mask.dtype)
        if kept:
            line[weft.topk(self.order(t), k=kept).indices] = 1
        shape = [1] * t.ndim
        shape[self.dim] = size
        return default_mask * line.reshape(shape)


class RandomStructured(LnStructured):
    """Removes whole slices along `dim` at random."""

    def __init__(self, amount: Any, dim: int = -1) -> None:
        super().__init__(amount, None, dim)

    def order(self, t: Any) -> Any:
        return weft.rand(t.shape[self.dim])


class CustomFromMask(BasePruningMethod):
    """Removes what a given mask says."""

    def __init__(self, mask: Any) -> None:
        self.mask = mask

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        return default_mask * self.mask.to(dtype=default_mask.dtype)


def _find(module: Any, name: str) -> int | None:
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
            return key
    return None


def identity(module: nn.Module, name: str) -> nn.Module:
    """Prune nothing, with mask and all."""
    Identity.apply(module, name)
    return module


def l1_unstructured(
    module: nn.Module, name: str, amount: Any, importance_scores: Any = None
) -> nn.Module:
    """Remove the `amount` (a count, or a share) of entries of least absolute value."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_unstructured(module: nn.Module, name: str, amount: Any) -> nn.Module:
    """Remove entries at random."""
    RandomUnstructured.apply(module, name, amount)
    return module


def ln_structured(
    module: nn.Module, name: str, amount: Any, n: Any, dim: int, importance_scores: Any = None
) -> nn.Module:
    """Remove whole slices along `dim` of least n-norm."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def random_structured(module: nn.Module, name: str, amount: Any, dim: int) -> nn.Module:
    """Remove whole slices along `dim` at random."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def custom_from_mask(module: nn.Module, name: str, mask: Any) -> nn.Module:
    """Remove what the mask has as 0."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Any, pruning_method: Any, importance_scores: Any = None, **kwargs: Any
) -> None:
    """Prune (module, name) pairs as if they were one vector.

    `importance_scores`: {(module, name): scores}.  TypeError for a method that is structured.
    """
    method = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(
            f'Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. Found method '
            f"{pruning_method} of type {method.PRUNING_TYPE}"
        )
    pairs, given = list(parameters), importance_scores or {}
    values = [getattr(module, name).detach() for module, name in pairs]
    scores = [given.get(pair, x).reshape(-1) for pair, x in zip(pairs, values, strict=True)]
    masks = [
        getattr(module, name + "_mask", weft.ones_like(x)).reshape(-1)
        for (module, name), x in zip(pairs, values, strict=True)
    ]
    mask = method.compute_mask(weft.cat(scores), weft.cat(masks))
    parts = mask.split([x.numel() for x in values])
    for (module, name), x, part in zip(pairs, values, parts, strict=True):
        custom_from_mask(module, name, part.reshape(x.shape))


def remove(module: nn.Module, name: str) -> nn.Module:
    """Make a pruning permanent.  ValueError when `name` is not pruned."""
    key = _find(module, name)
    if key is None:
        raise ValueError(
            f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed"
        )
    module._forward_pre_hooks.pop(key).remove(module)
    return module


def is_pruned(module: nn.Module) -> bool:
    """Whether any submodule has a pruned parameter."""
    return any(
        isinstance(hook, BasePruningMethod)
        for m in module.modules()
        for hook in m._forward_pre_hooks.values()
    )
