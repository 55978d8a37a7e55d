"""torch.utils.checkpoint: forward again in backward instead of keeping what it computed."""

from weft import autograd

CheckpointError = autograd.checkpoint.CheckpointError
checkpoint = autograd.checkpoint.checkpoint
checkpoint_sequential = autograd.checkpoint.checkpoint_sequential

__all__ = ["CheckpointError", "checkpoint", "checkpoint_sequential"]
