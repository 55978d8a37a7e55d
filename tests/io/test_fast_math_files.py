"""What is written does not depend on fast math; a file's products obey their caller's setting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import weft
from weft import io, nn
from weft.kernels.schedule.tile import multiplies_pairs

ROUNDS = multiplies_pairs()  # whether this host has the instruction


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    weft.set_fast_math(False)


class Net(nn.Module):
    """A linear layer, a product, and attention, whose body has products."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(20, 32), nn.Linear(32, 8)
        self.heads = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Any) -> Any:
        y = self.first(x).relu()
        y = self.heads(y, y, y, need_weights=False)[0] @ self.last.weight.t()
        return y.softmax(-1)


def _net() -> tuple[nn.Module, Any]:
    weft.manual_seed(0)
    return Net().eval(), weft.randn(3, 16, 20)


def _answer(net: nn.Module, x: Any, fast: bool) -> bytes:
    weft.set_fast_math(fast)
    with weft.no_grad():
        return net(x).numpy().tobytes()


def _saved(folder: Path, fast: bool) -> io.ModelFile:
    net, x = _net()
    weft.set_fast_math(fast)
    path = folder / f"{fast}.weft"
    io.save(path, net, x)
    assert weft.is_fast_math() == fast
    return io.load(path)


def test_the_file_is_the_same(tmp_path: Path) -> None:
    plain, fast = (_saved(tmp_path, f) for f in (False, True))
    assert {k: a.tobytes() for k, a in plain.arrays.items()} == {
        k: a.tobytes() for k, a in fast.arrays.items()
    }
    for m in (plain, fast):
        for k in ("weft.lineage", "weft.digest"):  # the time of writing
            m.metadata.pop(k, None)
    assert plain.metadata == fast.metadata and "fast=" not in plain.metadata["weft.graph.forward"]
    assert json.loads(plain.metadata["weft.report"])["compiled"]["checks"][0]["bitwise"]


@pytest.mark.parametrize("order", [(False, True), (True, False, True)])
@pytest.mark.parametrize("written", [False, True])
def test_a_loaded_program_obeys_its_caller(
    tmp_path: Path, order: tuple[bool, ...], written: bool
) -> None:
    file = _saved(tmp_path, written)
    net, x = _net()
    answers = {f: _answer(net, x, f) for f in (False, True)}
    assert (answers[True] != answers[False]) == ROUNDS
    for fast in order:
        weft.set_fast_math(fast)
        for _ in range(4):
            assert file.run({"input": x.numpy()})["output"].tobytes() == answers[fast]
        found = io.verify(file)
        assert weft.is_fast_math() == fast
        assert found.ok and all(c.bitwise for c in found.checks)


def test_a_file_that_says_fast_obeys_its_caller(tmp_path: Path) -> None:
    file = _saved(tmp_path, False)
    text = file.metadata["weft.graph.forward"]
    file.metadata["weft.graph.forward"] = text.replace(" MatMul()", " MatMul(fast=True)").replace(
        " Linear()", " Linear(fast=True)"
    )
    assert file.metadata["weft.graph.forward"].count("fast=True") >= 2
    net, x = _net()
    for fast in (False, True):
        assert _answer(net, x, fast) == file.run({"input": x.numpy()})["output"].tobytes()
    assert all(c.bitwise for c in io.verify(file).checks)


def test_onnx_is_the_same(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from weft.io.onnx import export

    written = []
    for fast in (False, True):
        file = _saved(tmp_path, fast)
        file.path = "m.weft"  # whose stem is the title
        export(file, tmp_path / "m.onnx")
        written.append((tmp_path / "m.onnx").read_bytes())
    assert written[0] == written[1]


def test_threads_that_save_leave_the_setting(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    net, x = _net()
    weft.set_fast_math(True)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda i: io.save(tmp_path / f"{i}.weft", net, x), range(4)))
    assert weft.is_fast_math()
    assert len({m.metadata["weft.graph.forward"] for m in made}) == 1
    assert len({m.records()[0]["outputs"]["output"].tobytes() for m in made}) == 1
