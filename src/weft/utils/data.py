"""torch.utils.data: the same objects as weft.data."""

from weft.data import *  # noqa: F403  all of its public names
