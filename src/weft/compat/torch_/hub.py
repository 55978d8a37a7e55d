"""torch.hub: where downloads are kept."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import urlopen

from tqdm import tqdm

from weft.compat.torch_.serialization import load

__all__ = ["tqdm"]

HASH_REGEX = re.compile(r"-([a-f0-9]*)\.")


def _get_torch_home() -> str:
    """$TORCH_HOME, by default `torch` under the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return os.path.expanduser(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")))


def get_dir() -> str:
    """Where downloads are kept: $TORCH_HOME/hub."""
    return os.path.join(_get_torch_home(), "hub")


def download_url_to_file(
    url: str, dst: str, hash_prefix: str | None = None, progress: bool = True
) -> None:
    """Fetch a file; it appears under its name when whole."""
    part = Path(str(dst) + ".part")
    with urlopen(url) as answer, part.open("wb") as f:
        while block := answer.read(1 << 20):
            f.write(block)
    os.replace(part, dst)


def load_state_dict_from_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
    weights_only: bool = True,
) -> Any:
    """The state dict of a file on the net, kept in `get_dir()/checkpoints`."""
    folder = Path(model_dir or os.path.join(get_dir(), "checkpoints"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (file_name or os.path.basename(urlparse(url).path))
    if not path.exists():
        download_url_to_file(url, str(path))
    return load(path, map_location)


load_url = load_state_dict_from_url
