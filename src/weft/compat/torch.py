"""`import weft.compat.torch`: from here on `import torch` gives Weft in this process."""

from weft.compat.alias import install, installed

__all__ = ["install", "installed"]

install()
