"""`.safetensors` files of tensors by name, as Hugging Face writes and reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping

import weft
from weft.io import container
from weft.ops.dispatch import read


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
