"""The server over real HTTP: v2, v1, health, errors, many clients; eager's answers to the bit."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import weft
from tests.io.models import cnn, outputs
from weft import io, nn

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from weft.serve import BackgroundServer, serve
from weft.serve import app as app_module


class Two(nn.Module):
    """Two inputs, three outputs; one of them is not by row."""

    def forward(self, a: weft.Tensor, k: weft.Tensor) -> dict[str, weft.Tensor]:
        y = a.log() * k
        return {"y": y, "positive": y > 0, "total": k.sum()}


MODELS: dict[str, tuple[nn.Module, Any]] = {}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("models")
    weft.manual_seed(0)
    MODELS["digits"] = cnn()
    MODELS["two"] = (Two(), (weft.rand(2, 3) + 1, weft.randint(1, 5, (2, 3))))
    MODELS["words"] = (nn.Embedding(10, 4), weft.randint(0, 10, (2, 3)))
    MODELS["broken"] = (nn.Linear(3, 2), weft.randn(2, 3))
    paths = {}
    for name, (model, x) in MODELS.items():
        paths[name] = folder / f"{name}.weft"
        names = ["a", "k"] if name == "two" else None
        file = io.save(paths[name], model, x, input_names=names, labels=["<0>", "</script>"])
        if name == "broken":
            file.arrays["weight"] = file.arrays["weight"] + 1
            file.write()
    with BackgroundServer(paths) as server:
        yield server.url


def _v2(name: str, x: np.ndarray, datatype: str = "FP32") -> dict:
    return {"name": name, "datatype": datatype, "shape": list(x.shape), "data": x.ravel().tolist()}


def _bits(answer: dict) -> bytes:
    return np.array(answer["data"]).astype(np.float32).tobytes()


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_v2_gives_eager_s_bits(url: str, batch: int) -> None:
    model, _ = MODELS["digits"]
    x = weft.randn(batch, 1, 12, 12)
    body = {"id": "7", "inputs": [_v2("input", x.numpy())]}
    answer = httpx.post(f"{url}/v2/models/digits/infer", json=body).json()
    assert answer["id"] == "7" and answer["model_name"] == "digits"
    (out,) = answer["outputs"]
    want = outputs(model, x)["output"].numpy()
    assert out["shape"] == list(want.shape) and out["datatype"] == "FP32"
    assert _bits(out) == want.tobytes()


def test_v1_gives_eager_s_bits(url: str) -> None:
    model, _ = MODELS["digits"]
    x = weft.randn(2, 1, 12, 12)
    want = outputs(model, x)["output"].numpy()
    for key, back in (("instances", "predictions"), ("inputs", "outputs")):
        answer = httpx.post(f"{url}/v1/models/digits:predict", json={key: x.tolist()}).json()
        assert np.array(answer[back], np.float32).tobytes() == want.tobytes()


def test_several_inputs_and_outputs(url: str) -> None:
    a, k = weft.rand(4, 3) + 1, weft.randint(1, 5, (4, 3))
    want = outputs(MODELS["two"][0], a, k)
    inputs = [_v2("a", a.numpy()), _v2("k", k.numpy(), "INT64")]
    answer = httpx.post(f"{url}/v2/models/two/infer", json={"inputs": inputs}).json()
    got = {o["name"]: o for o in answer["outputs"]}
    assert _bits(got["y"]) == want["y"].numpy().tobytes()
    assert got["positive"]["data"] == want["positive"].numpy().ravel().tolist()
    assert got["total"]["shape"] == [] and got["total"]["data"] == [want["total"].item()]
    body = {"inputs": inputs, "outputs": [{"name": "total"}]}
    answer = httpx.post(f"{url}/v2/models/two/infer", json=body).json()
    assert [o["name"] for o in answer["outputs"]] == ["total"]
    columns = {"inputs": {"a": a.tolist(), "k": k.tolist()}}
    answer = httpx.post(f"{url}/v1/models/two:predict", json=columns).json()
    assert answer["outputs"]["total"] == want["total"].item()
    rows = {"instances": [{"a": r, "k": s} for r, s in zip(a.tolist(), k.tolist(), strict=True)]}
    refused = httpx.post(f"{url}/v1/models/two:predict", json=rows)
    assert refused.status_code == 400 and "'total' is not by row" in refused.json()["error"]


def test_what_the_server_says_of_itself(url: str) -> None:
    assert httpx.get(f"{url}/v2/health/live").json() == {"live": True}
    ready = httpx.get(f"{url}/v2/health/ready")
    assert ready.status_code == 503 and ready.json() == {"ready": False}
    assert httpx.get(f"{url}/v2").json()["version"] == weft.__version__
    facts = httpx.get(f"{url}/v2/models/two").json()
    assert facts["inputs"] == [
        {"name": "a", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "k", "datatype": "INT64", "shape": [-1, 3]},
    ]
    assert facts["outputs"][2] == {"name": "total", "datatype": "INT64", "shape": []}
    assert httpx.get(f"{url}/v2/models/digits/ready").status_code == 200
    state = httpx.get(f"{url}/v1/models/digits").json()["model_version_status"][0]["state"]
    assert state == "AVAILABLE"


def test_a_model_that_failed_its_verification_does_not_answer(url: str) -> None:
    body = {"inputs": [_v2("input", np.zeros((1, 3), np.float32))]}
    for path in ("v2/models/broken/infer", "v1/models/broken:predict"):
        refused = httpx.post(f"{url}/{path}", json=body)
        assert refused.status_code == 503 and "verification" in refused.json()["error"]
    assert httpx.get(f"{url}/v2/models/broken/ready").status_code == 503
    status = httpx.get(f"{url}/v1/models/broken").json()["model_version_status"][0]
    assert status["state"] == "END"


GOOD = {"name": "input", "datatype": "INT64", "shape": [1, 3], "data": [1, 2, 3]}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ([], "object with a list"),
        ({}, "object with a list"),
        ({"inputs": {}}, "object with a list"),
        ({"inputs": []}, "takes ['input']"),
        ({"inputs": [3]}, 'object with a "name"'),
        ({"inputs": [{}]}, 'object with a "name"'),
        ({"inputs": [{**GOOD, "name": "other"}]}, "unknown input 'other'"),
        ({"inputs": [GOOD, GOOD]}, "given twice"),
        ({"inputs": [{**GOOD, "datatype": "FP32"}]}, "datatype 'FP32'"),
        ({"inputs": [{**GOOD, "datatype": None}]}, "datatype None"),
        ({"inputs": [{**GOOD, "datatype": []}]}, "datatype []"),
        ({"inputs": [{**GOOD, "shape": [1, 4]}]}, "needs 4 values, 3 were sent"),
        ({"inputs": [{**GOOD, "shape": [-1, 3]}]}, "list of sizes"),
        ({"inputs": [{**GOOD, "shape": [1.0, 3]}]}, "list of sizes"),
        ({"inputs": [{**GOOD, "shape": [True, 3]}]}, "list of sizes"),
        ({"inputs": [{**GOOD, "shape": "12"}]}, "list of sizes"),
        ({"inputs": [{**GOOD, "shape": [1 << 30, 1 << 30]}]}, "needs 1152921504606846976 values"),
        ({"inputs": [{**GOOD, "shape": [0, 1 << 39], "data": []}]}, "wanted"),
        ({"inputs": [{**GOOD, "shape": [3]}]}, "wanted"),
        ({"inputs": [{**GOOD, "shape": [1, 1, 3]}]}, "wanted"),
        ({"inputs": [{**GOOD, "shape": None}]}, "list of sizes"),
        ({"inputs": [{**GOOD, "data": "12"}]}, "must be a list"),
        ({"inputs": [{**GOOD, "data": [1, 2, "2"]}]}, "must be numbers"),
        ({"inputs": [{**GOOD, "data": [1, 2, None]}]}, "must be numbers"),
        ({"inputs": [{**GOOD, "data": [1, 2, {}]}]}, "must be numbers"),
        ({"inputs": [{**GOOD, "data": [[1], [2, 3]]}]}, "one shape"),
        ({"inputs": [{**GOOD, "data": [1, 2, 2.5]}]}, "whole numbers"),
        ({"inputs": [{**GOOD, "data": [1, 2, 1 << 63]}]}, "can hold"),
        ({"inputs": [{**GOOD, "data": [1, 2, 1 << 100]}]}, "can hold"),
        ({"inputs": [{**GOOD, "data": [1, 2, 10]}]}, "index out of range"),
        ({"inputs": [{**GOOD, "data": [1, 2, -1]}]}, "index out of range"),
        ({"inputs": [GOOD], "outputs": [{"name": "z"}]}, "unknown output 'z'"),
        ({"inputs": [GOOD], "outputs": "y"}, "list of objects"),
    ],
)
def test_v2_requests_that_do_not_fit(url: str, body: Any, says: str) -> None:
    refused = httpx.post(f"{url}/v2/models/words/infer", json=body)
    assert refused.status_code == 400, refused.text
    assert says in refused.json()["error"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "either"),
        ({"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}, "either"),
        ({"instances": []}, "at least one row"),
        ({"instances": 3}, "at least one row"),
        ({"instances": [{"input": [1, 2, 3]}, {"other": [1, 2, 3]}]}, "same inputs"),
        ({"instances": [{"other": [1, 2, 3]}]}, "unknown input"),
        ({"instances": [[1, 2, 3], [1, 2]]}, "one shape"),
        ({"inputs": {"input": [1, 2, 3]}}, "wanted"),
        ({"inputs": {}}, "takes"),
        ({"inputs": [[1, True, 3]]}, ""),
    ],
)
def test_v1_requests_that_do_not_fit(url: str, body: Any, says: str) -> None:
    refused = httpx.post(f"{url}/v1/models/words:predict", json=body)
    if says:
        assert refused.status_code == 400 and says in refused.json()["error"]


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[" * 100_000, '{"inputs": NaN}', "\x00"])
def test_bodies_that_are_no_requests(url: str, text: str) -> None:
    refused = httpx.post(f"{url}/v2/models/words/infer", content=text)
    assert refused.status_code == 400 and refused.json()["error"]


def test_nan_in_an_answer_is_said(url: str) -> None:
    body = {
        "inputs": [
            _v2("a", -np.ones((1, 3), np.float32)),
            _v2("k", np.ones((1, 3), np.int64), "INT64"),
        ]
    }
    refused = httpx.post(f"{url}/v2/models/two/infer", json=body)
    assert refused.status_code == 400 and "NaN" in refused.json()["error"]
    text = json.dumps(body).replace("-1.0", "NaN")  # Python's JSON reads it
    assert httpx.post(f"{url}/v2/models/two/infer", content=text).status_code == 400


def test_unknown_models_paths_and_methods(url: str) -> None:
    for path in ("v2/models/none", "v2/models/none/ready", "v1/models/none"):
        refused = httpx.get(f"{url}/{path}")
        assert refused.status_code == 404 and "this server has" in refused.json()["error"]
    assert httpx.post(f"{url}/v2/models/none/infer", json={}).status_code == 404
    refused = httpx.get(f"{url}/v3")
    assert refused.status_code == 404 and "/v3" in refused.json()["error"]
    assert httpx.get(f"{url}/v2/models/digits/infer").status_code == 405


def test_a_client_that_leaves_is_no_failure_of_the_server(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port)), 5) as client:
            head = "POST /v2/models/words/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
            client.sendall(head.encode())
            time.sleep(0.05)
    time.sleep(0.2)
    assert httpx.get(f"{url}/v2/health/live").status_code == 200
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


def test_requests_that_are_too_large(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "MAX_BODY", 100)
    path = f"{url}/v2/models/words/infer"
    assert httpx.post(path, content=b" " * 101).status_code == 413
    assert httpx.post(path, content=iter([b" " * 60, b" " * 60])).status_code == 413


def test_many_clients_at_once_get_eager_s_bits(url: str) -> None:
    model, _ = MODELS["digits"]
    rows = [weft.randn(1 + i % 3, 1, 12, 12) for i in range(6)]
    wanted = [outputs(model, x)["output"].numpy().tobytes() for x in rows]
    wrong: list[int] = []

    def client(start: int) -> None:
        with httpx.Client() as http:
            for k in range(8):
                i = (start + k) % len(rows)
                body = {"inputs": [_v2("input", rows[i].numpy())]}
                reply = http.post(f"{url}/v2/models/digits/infer", json=body)
                if reply.status_code != 200 or _bits(reply.json()["outputs"][0]) != wanted[i]:
                    wrong.append(i)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_the_page_holds_the_facts_and_no_markup_of_the_file(url: str) -> None:
    page = httpx.get(url)
    assert page.headers["content-type"].startswith("text/html")
    assert "/*FACTS*/" not in page.text and '"name": "digits"' in page.text
    assert page.text.count("</script>") == 1


def test_a_server_starts_and_stops_twice(tmp_path: Path) -> None:
    path = tmp_path / "m.weft"
    io.save(path, nn.Linear(2, 2), weft.randn(1, 2))
    for _ in range(2):
        with BackgroundServer(path) as server:
            assert httpx.get(f"{server.url}/v2/models/m/ready").json()["ready"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/v2")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "m.weft"
    io.save(path, nn.Linear(2, 2), weft.randn(1, 2))
    with BackgroundServer(path) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(OSError, match="cannot listen"):
            serve(path, port=port)


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "m.weft"
    io.save(path, nn.Linear(2, 2), weft.randn(1, 2))
    command = [sys.executable, "-u", "-m", "weft", "serve", str(path), "--port", "0"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    with run.stdout:
        (url,) = re.findall(r"http://\S+:\d+", run.stdout.readline())
        transport = httpx.HTTPTransport(retries=8)  # the address is told before the loop runs
        with httpx.Client(transport=transport) as http:
            assert http.get(f"{url}/v2/health/ready").json() == {"ready": True}
        run.send_signal(signal.SIGINT)
        assert run.wait(20) == 0
