"""Mixed precision: autocast and GradScaler, as `torch.amp`."""

from weft import autocast, is_autocast_available
from weft.amp.custom import custom_bwd, custom_fwd
from weft.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
