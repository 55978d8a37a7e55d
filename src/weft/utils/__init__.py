"""torch.utils: data, checkpoint, tensorboard."""

from weft.utils import checkpoint, data, tensorboard

__all__ = ["checkpoint", "data", "tensorboard"]
