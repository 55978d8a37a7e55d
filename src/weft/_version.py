"""The version, in one place: the wheel and `weft.__version__` both read it."""

__version__ = "0.1.0"
