"""The name of clip_grad_norm_ that torch deprecated."""

from __future__ import annotations

from weft.nn import utils
from weft.nn.utils.spectral_norm import remove_spectral_norm, spectral_norm

__all__ = ["remove_spectral_norm", "spectral_norm"]

clip_grad_norm = utils.clip_grad_norm_
