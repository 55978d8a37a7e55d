"""The name of clip_grad_norm_ that torch deprecated."""

from __future__ import annotations

from weft.nn import utils

clip_grad_norm = utils.clip_grad_norm_
