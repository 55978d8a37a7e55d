"""The HTTP application: v2 (Open Inference Protocol), v1 (TensorFlow Serving's REST), a page."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import weft
from weft import io
from weft.serve.model import BadRequest, ServedModel

MAX_BODY = 64 << 20


def _starlette() -> Any:
    try:
        import starlette.applications as applications
        import starlette.concurrency as concurrency
        import starlette.exceptions as exceptions
        import starlette.requests as requests
        import starlette.responses as responses
        import starlette.routing as routing
    except ImportError:
        raise ImportError(
            'the server needs starlette and uvicorn: pip install "weft[serve]"'
        ) from None
    return applications, concurrency, exceptions, requests, responses, routing


def make_app(models: Sequence[ServedModel]) -> Any:
    """An ASGI application that answers for these models.

    GET  /v2/health/live  /v2/health/ready  /v2  /v2/models/NAME[/ready]
    POST /v2/models/NAME/infer
    GET  /v1/models/NAME            POST /v1/models/NAME:predict
    GET  /                          a page to try the first model
    Errors are {"error": "..."}: 400 the request does not fit, 404 no such model or path, 405, 413
    larger than MAX_BODY, 503 the model failed its verification.
    """
    applications, concurrency, exceptions, requests, responses, routing = _starlette()
    by_name = {m.name: m for m in models}

    def error(status: int, text: str) -> Any:
        return responses.JSONResponse({"error": text}, status_code=status)

    async def http_error(request: Any, problem: Any) -> Any:
        return error(problem.status_code, f"{problem.detail}: {request.method} {request.url.path}")

    def find(request: Any) -> ServedModel:
        name = request.path_params["name"]
        if name not in by_name:
            raise LookupError(f"no model {name!r}: this server has {sorted(by_name)}")
        return by_name[name]

    async def bytes_of(request: Any) -> bytes:
        told = request.headers.get("content-length", "")
        if told.isdecimal() and int(told) > MAX_BODY:
            raise OverflowError(f"the request is larger than {MAX_BODY} bytes")
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_BODY:
                raise OverflowError(f"the request is larger than {MAX_BODY} bytes")
        return bytes(data)

    def guarded(handler: Any) -> Any:
        async def run(request: Any) -> Any:
            try:
                return await handler(request)
            except LookupError as e:
                return error(404, str(e.args[0]))
            except OverflowError as e:
                return error(413, str(e))
            except BadRequest as e:
                return error(400, str(e))
            except requests.ClientDisconnect:  # nobody reads it; the server's log stays clean
                return error(400, "the client left before its request ended")

        return run

    def answering(answer: Callable[[ServedModel, Any], dict]) -> Any:
        """The handler of requests to a model; all but reading the body is off the event loop."""

        async def handle(request: Any) -> Any:
            model = find(request)
            if not model.ready:
                return error(503, f"model {model.name!r} failed its verification")
            data = await bytes_of(request)
            text = await concurrency.run_in_threadpool(
                lambda: _to_json(answer(model, _from_json(data)))
            )
            return responses.Response(text, media_type="application/json")

        return guarded(handle)

    def infer(model: ServedModel, body: Any) -> dict:
        return model.to_v2(model.infer(model.from_v2(body)), body)

    def predict(model: ServedModel, body: Any) -> dict:
        arrays, rows = model.from_v1(body)
        return model.to_v1(model.infer(arrays), rows)

    @guarded
    async def describe(request: Any) -> Any:
        return responses.JSONResponse(find(request).metadata())

    @guarded
    async def model_ready(request: Any) -> Any:
        model = find(request)
        return responses.JSONResponse(
            {"name": model.name, "ready": model.ready}, status_code=200 if model.ready else 503
        )

    @guarded
    async def status(request: Any) -> Any:
        model = find(request)
        state = "AVAILABLE" if model.ready else "END"
        return responses.JSONResponse(
            {"model_version_status": [{"version": "1", "state": state, "status": {}}]}
        )

    async def live(request: Any) -> Any:
        return responses.JSONResponse({"live": True})

    async def ready(request: Any) -> Any:
        good = all(m.ready for m in models)
        return responses.JSONResponse({"ready": good}, status_code=200 if good else 503)

    async def server(request: Any) -> Any:
        facts = {"name": "weft", "version": weft.__version__, "extensions": []}
        return responses.JSONResponse(facts)

    async def page(request: Any) -> Any:
        return responses.HTMLResponse(page_of(models[0]))

    route = routing.Route
    return applications.Starlette(
        routes=[
            route("/", page),
            route("/v2", server),
            route("/v2/health/live", live),
            route("/v2/health/ready", ready),
            route("/v2/models/{name}", describe),
            route("/v2/models/{name}/ready", model_ready),
            route("/v2/models/{name}/infer", answering(infer), methods=["POST"]),
            route("/v1/models/{name}:predict", answering(predict), methods=["POST"]),
            route("/v1/models/{name}", status),
        ],
        exception_handlers={exceptions.HTTPException: http_error},
    )


def _from_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as e:
        raise BadRequest(f"the request is not JSON: {e}") from None
    except RecursionError:
        raise BadRequest("the request is nested too deeply") from None


def _to_json(answer: dict) -> str:
    """JSON has no NaN: a model that answers one is reported as such."""
    try:
        return json.dumps(answer, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise BadRequest("the answer holds NaN or infinity, which JSON cannot carry") from None


def page_of(model: ServedModel) -> str:
    """The page: a drawing field for a model of drawn digits, else the signature to try."""
    drawn = model.file.preprocessing.get("page") == "digits"
    text = resources.files("weft.serve").joinpath("digits.html" if drawn else "model.html")
    facts = {
        "name": model.name,
        "metadata": model.metadata(),
        "labels": model.file.labels,
        "preprocessing": model.file.preprocessing,
    }
    safe = json.dumps(facts).replace("<", "\\u003c")
    return text.read_text(encoding="utf-8").replace("/*FACTS*/null", safe)


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
