"""The model server: the compiled graph of a `.weft` file behind HTTP."""

from weft.serve.app import make_app
from weft.serve.model import ServedModel
from weft.serve.run import BackgroundServer, serve

__all__ = ["BackgroundServer", "ServedModel", "make_app", "serve"]
