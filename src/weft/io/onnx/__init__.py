"""ONNX: a model file written for other runtimes, and proved there on its recorded inputs."""

from weft.io.onnx.export import export, to_model, verify

__all__ = ["export", "to_model", "verify"]
