"""Nested Python state as JSON and tensors: what `state_dict`s are made of, and nothing that runs.

dict (str or int keys), list, tuple, None, bool, int, float, str, bytes, tensors and NumPy arrays.
A tensor becomes a reference to a named array; everything else JSON with a tag where JSON lacks it.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

import weft
from weft.io import container
from weft.io.container import BadFile
from weft.ops.dispatch import read
from weft.runtime import memory


def flatten(value: Any, prefix: str, arrays: dict[str, np.ndarray]) -> Any:
    """The JSON form of `value`; its tensors go into `arrays` under prefix/..."""
    if isinstance(value, weft.Tensor):
        return _store(read(value), prefix, arrays, "tensor")
    if isinstance(value, np.ndarray):
        return _store(value, prefix, arrays, "array")
    if isinstance(value, np.generic):
        return flatten(value.item(), prefix, arrays)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, weft.dtype):
        return {"$dtype": value.name}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return {"$tuple": [flatten(v, f"{prefix}/{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, list):
        return [flatten(v, f"{prefix}/{i}", arrays) for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        pairs = []
        for k, v in value.items():
            if not isinstance(k, (str, int)):
                raise TypeError(f"{prefix}: a key of type {type(k).__name__} cannot be stored")
            pairs.append([k, flatten(v, f"{prefix}/{k}", arrays)])
        return {"$dict": pairs}
    raise TypeError(
        f"{prefix}: cannot store a {type(value).__name__}: state is numbers, text, tensors, lists, "
        "tuples and dicts of them"
    )


def _store(a: np.ndarray, name: str, arrays: dict[str, np.ndarray], kind: str) -> dict:
    if name in arrays:
        raise ValueError(f"two tensors are called {name!r}")
    arrays[name] = a
    return {f"${kind}": name}


def unflatten(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """What `flatten` was given.  BadFile: a reference to a tensor that is not there."""
    if isinstance(value, list):
        return [unflatten(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise BadFile(f"state: an object with keys {sorted(value)}")
    ((tag, inner),) = value.items()
    if tag in ("$tensor", "$array"):
        if not isinstance(inner, str) or inner not in arrays:
            raise BadFile(f"state: tensor {inner!r} is missing")
        a = arrays[inner]
        return weft.from_numpy(a) if tag == "$tensor" else memory.lend(a)
    if tag == "$float":
        return float(inner)
    if tag == "$dtype":
        known = isinstance(inner, str) and inner.startswith(_DTYPES)
        found = getattr(weft, inner, None) if known else None
        return found if isinstance(found, weft.dtype) else _bad(f"{tag} {str(inner)[:40]}")
    if tag == "$bytes":
        return base64.b64decode(inner)
    if tag == "$tuple":
        return tuple(unflatten(v, arrays) for v in inner)
    if tag == "$dict":
        return {k: unflatten(v, arrays) for k, v in inner}
    return _bad(tag)


_DTYPES = ("float", "bfloat", "int", "uint", "bool", "complex")


def _bad(tag: str) -> Any:
    raise BadFile(f"state: unknown tag {tag!r}")


def save_state(path: str | os.PathLike, state: Any) -> None:
    """Write nested state (dicts, lists, tuples, numbers, text, tensors) atomically.

    TypeError names the entry that cannot be stored; nothing is written then.
    """
    arrays: dict[str, np.ndarray] = {}
    form = flatten(state, "state", arrays)
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
        return unflatten(form, arrays)
    except container.BadFile:
        raise
    except (ValueError, TypeError, RecursionError) as e:
        raise container.BadFile(f"{path}: its state cannot be read: {e}") from None
