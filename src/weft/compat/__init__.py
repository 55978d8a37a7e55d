"""Names only: how Weft answers under PyTorch's name.  `import weft.compat.torch` installs it."""
