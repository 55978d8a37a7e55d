"""Running the server: in the foreground, or in a thread beside the program."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
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
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve until interrupted.  Port 0 takes a free one; `announce` is told the address.

    RuntimeError when a model fails its verification; OSError when the port is taken.
    """
    uvicorn = _uvicorn()
    models = models_of(files)
    for m in models:
        if not m.ready:
            raise RuntimeError(f"model {m.name!r} failed its verification:\n{m.report}")
    listening, url = _listen(host, port)
    with listening:
        if announce is not None:
            announce(url)
        server = uvicorn.Server(uvicorn.Config(make_app(models), log_level="warning"))
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            pass


def _listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A bound socket and its address as a URL."""
    six = ":" in host
    s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, port))
    except OSError as e:
        s.close()
        raise OSError(f"cannot listen on {host}, port {port}: {e.strerror or e}") from None
    return s, f"http://{f'[{host}]' if six else host}:{s.getsockname()[1]}"


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
        self._socket, self.url = _listen(host, port)
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
