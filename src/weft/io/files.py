"""weft.save and weft.load: the kind of file is told by the name's ending; `.safetensors` files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import weft
from weft.core.device import device
from weft.io import container, model_file, torch_file, tree
from weft.ops.dispatch import read


def save(obj: Any, f: Any, *args: Any, **options: Any) -> Any:
    """Write `obj` to the path `f` in one step: the old file stays until the new one is whole.

    name.weft         a Module: as `weft.io.save(f, module, example, ...)`, options passed on;
                      any other state (dicts, lists, numbers, text, tensors): a checkpoint
    name.safetensors  a Module's state_dict, or tensors by name
    others            as torch.save, also to an open file
    TypeError: state that cannot be stored, an option that the kind of file lacks.
    """
    ending = _ending(f)
    if ending is None:
        return torch_file.save(obj, f, *args, **options)
    module = hasattr(obj, "state_dict") and hasattr(obj, "modules")
    if ending == ".weft" and module:
        return model_file.save(f, obj, *args, **options)
    if args or options:
        raise TypeError(f"save: {f} takes no further arguments, got {[*args, *options]}")
    if ending == ".weft":
        return tree.save_state(f, obj)
    tensors = obj.state_dict() if module else obj
    if not isinstance(tensors, Mapping):
        raise TypeError(f"save: {f} holds tensors by name, not a {type(obj).__name__}")
    return save_file(tensors, f)


def load(f: Any, map_location: Any = None, *args: Any, **options: Any) -> Any:
    """What `f` holds; loading executes nothing, `weights_only` or not.

    name.weft         a ModelFile (state_dict(), run(inputs), ...), or a checkpoint's state
    name.safetensors  tensors by name
    others            as torch.load: what torch.save wrote, also from an open file
    FileNotFoundError; BadFile (or torch's errors) for a cut, changed or foreign file.
    """
    ending = _ending(f)
    if ending is None:
        return torch_file.load(f, map_location, *args, **options)
    unknown = set(options) - {"weights_only", "mmap"}
    if args or unknown:
        raise TypeError(f"load: {f} takes no further arguments, got {[*args, *sorted(unknown)]}")
    if isinstance(map_location, (str, device)) and device(map_location).type != "cpu":
        raise RuntimeError(f"load: Weft computes on the CPU, not on {map_location}")
    if ending == ".safetensors":
        return load_file(f)
    arrays, metadata = container.read(f)
    if "weft.state" in metadata:
        return tree.from_container(f, arrays, metadata)
    return model_file.from_container(f, arrays, metadata)


def _ending(f: Any) -> str | None:
    """.weft or .safetensors; None for torch's own kind of file."""
    if not isinstance(f, (str, os.PathLike)):
        return None
    ending = Path(f).suffix.lower()
    return ending if ending in (".weft", ".safetensors") else None


def save_file(
    tensors: Mapping[str, weft.Tensor],
    filename: str | os.PathLike,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors by name, atomically."""
    for name, t in tensors.items():
        if not isinstance(t, weft.Tensor):
            raise TypeError(f"save_file: {name!r} is a {type(t).__name__}, not a tensor")
    arrays = {k: read(t) for k, t in tensors.items()}
    container.write(filename, arrays, metadata or {}, digest=False)


def load_file(filename: str | os.PathLike) -> dict[str, weft.Tensor]:
    """The tensors of a file by name.  container.BadFile for a cut or foreign file."""
    arrays, _ = container.read(filename)
    return {k: weft.from_numpy(a) for k, a in arrays.items()}
