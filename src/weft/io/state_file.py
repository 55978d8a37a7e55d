"""State files: any nested state (a checkpoint of a training run) in one container."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from weft.io import container, tree


def save_state(path: str | os.PathLike, state: Any) -> None:
    """Write nested state (dicts, lists, tuples, numbers, text, tensors) atomically.

    TypeError names the entry that cannot be stored; nothing is written then.
    """
    arrays: dict[str, np.ndarray] = {}
    form = tree.flatten(state, "state", arrays)
    container.write(path, arrays, {"weft.format": "1", "weft.state": json.dumps(form)})


def load_state(path: str | os.PathLike) -> Any:
    """What save_state wrote.  container.BadFile for a cut, changed or foreign file."""
    return from_container(path, *container.read(path))


def from_container(
    path: str | os.PathLike, arrays: dict[str, np.ndarray], metadata: dict[str, str]
) -> Any:
    """The state in an opened container.  BadFile when it holds none."""
    if "weft.state" not in metadata:
        raise container.BadFile(f"{path}: no training state in this file")
    try:
        form = json.loads(metadata["weft.state"])
        return tree.unflatten(form, arrays)
    except container.BadFile:
        raise
    except (ValueError, TypeError, RecursionError) as e:
        raise container.BadFile(f"{path}: its state cannot be read: {e}") from None
