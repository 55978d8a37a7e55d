"""Files: `.weft` models, `.safetensors`, ONNX.  Loading any of them executes nothing."""

from weft.io.check import Refused
from weft.io.container import BadFile
from weft.io.files import load_file, save_file
from weft.io.model_file import ModelFile, load, save
from weft.io.report import Report, verify
from weft.io.tree import load_state, save_state

__all__ = [
    "BadFile",
    "ModelFile",
    "Refused",
    "Report",
    "load",
    "load_file",
    "load_state",
    "save",
    "save_file",
    "save_state",
    "verify",
]
