"""The model server: the compiled graph of a `.weft` file behind HTTP."""

from weft.serve.app import BackgroundServer, make_app, serve
from weft.serve.model import ServedModel

__all__ = ["BackgroundServer", "ServedModel", "make_app", "serve"]
