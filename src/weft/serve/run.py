"""Running the server: in the foreground, or in a thread beside the program."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft import io
from weft.serve.app import make_app
from weft.serve.model import ServedModel


def _uvicorn() -> Any:
    try:
        import uvicorn
    except ImportError:
        raise ImportError(
            'the server needs starlette and uvicorn: pip install "weft[serve]"'
        ) from None
    return uvicorn


def models_of(files: Mapping[str, str | os.PathLike] | str | os.PathLike) -> list[ServedModel]:
    """Served models from {name: path}, or from one path (its name is the file's)."""
    if not isinstance(files, Mapping):
        files = {Path(files).stem: files}
    return [ServedModel(io.load(path), name) for name, path in files.items()]


def serve(
    files: Mapping[str, str | os.PathLike] | str | os.PathLike,
    host: str = "127.0.0.1",
    port: int = 8000,
) -> None:
    """Serve until interrupted.  RuntimeError when a model fails its verification."""
    uvicorn = _uvicorn()
    models = models_of(files)
    for m in models:
        if not m.ready:
            raise RuntimeError(f"model {m.name!r} failed its verification:\n{m.report}")
    uvicorn.run(make_app(models), host=host, port=port, log_level="warning")


class BackgroundServer:
    """A server in a thread: `with BackgroundServer({"digits": path}) as s: ... s.url`.

    Port 0 takes a free one.
    """

    def __init__(
        self,
        files: Mapping[str, str | os.PathLike] | str | os.PathLike,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        uvicorn = _uvicorn()
        self.models = models_of(files)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, port))
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(make_app(self.models), log_level="warning", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def start(self, timeout: float = 20.0) -> BackgroundServer:
        """Start, and return when it answers.  TimeoutError otherwise."""
        self._thread.start()
        end = time.monotonic() + timeout
        while not self._server.started:
            if time.monotonic() > end or not self._thread.is_alive():
                raise TimeoutError(f"the server at {self.url} did not start in {timeout} s")
            self._thread.join(0.02)
        return self

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def __enter__(self) -> BackgroundServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
