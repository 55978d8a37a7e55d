"""weft.save and weft.load: the kind of file is told by the name's ending."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import weft
from weft.io import container, model_file, safetensors, state_file

_TORCH = (".pt", ".pth", ".bin", ".ckpt", ".pkl")


def save(obj: Any, f: str | os.PathLike, *args: Any, **options: Any) -> Any:
    """Write `obj` to `f`, atomically.

    name.weft         a Module: `weft.io.save(f, module, example, ...)`, whose options are passed on;
                      anything else that is state (dicts, lists, numbers, text, tensors): a checkpoint
    name.safetensors  a Module's state_dict, or tensors by name
    ValueError: another ending (torch's .pt is not written); TypeError: state that cannot be stored.
    """
    ending = _ending(f)
    module = hasattr(obj, "state_dict") and hasattr(obj, "modules")
    if ending == ".weft" and module:
        return model_file.save(f, obj, *args, **options)
    if args or options:
        raise TypeError(f"save: {f} takes no further arguments, got {[*args, *options]}")
    if ending == ".weft":
        return state_file.save_state(f, obj)
    tensors = obj.state_dict() if module else obj
    if not isinstance(tensors, Mapping):
        raise TypeError(f"save: {f} holds tensors by name, not a {type(obj).__name__}")
    return safetensors.save_file(tensors, f)


def load(f: str | os.PathLike, map_location: Any = None, **options: Any) -> Any:
    """What `f` holds; loading executes nothing.

    name.weft         a ModelFile (state_dict(), run(inputs), ...), or a checkpoint's state
    name.safetensors  tensors by name
    `map_location`: only the CPU.  `weights_only` is always so.
    FileNotFoundError; BadFile for a cut, changed or foreign file; ValueError: another ending.
    """
    options.pop("weights_only", None)
    if options:
        raise TypeError(f"load: unknown arguments {sorted(options)}")
    if map_location is not None and weft.device(map_location).type != "cpu":
        raise RuntimeError(f"load: Weft computes on the CPU, not on {map_location}")
    if _ending(f) == ".safetensors":
        return safetensors.load_file(f)
    arrays, metadata = container.read(f)
    if "weft.state" in metadata:
        return state_file.from_container(f, arrays, metadata)
    return model_file.from_container(f, arrays, metadata)


def _ending(f: Any) -> str:
    if not isinstance(f, (str, os.PathLike)):
        raise TypeError(f"a file name is wanted, got {type(f).__name__}")
    ending = Path(f).suffix.lower()
    if ending in _TORCH:
        raise ValueError(
            f"{f}: torch's {ending} files are not read or written yet; use .weft or .safetensors"
        )
    if ending not in (".weft", ".safetensors"):
        raise ValueError(f"{f}: the name must end in .weft or .safetensors")
    return ending
