"""torch.hub: where downloads are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import urlopen

from weft.compat.torch_.serialization import load

_HASH = "a file whose hash is not {0} came from {1}"


def get_dir() -> str:
    """$TORCH_HOME/hub, by default under the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return os.path.join(os.path.expanduser(home), "hub")


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
