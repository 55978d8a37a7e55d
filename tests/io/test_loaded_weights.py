"""Weights of files are packed as those made in memory are, and every write is noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weft
from weft import io, nn
from weft.ops.dispatch import read
from weft.runtime import memory

WIDE, OUT = 100, 170


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDE, OUT), nn.ReLU(), nn.Linear(OUT, WIDE))


class Served:
    """A file's program beside a model whose weights get the same changes."""

    def __init__(self, path: Path, *, loaded: bool = True) -> None:
        weft.manual_seed(2)
        self.model, self.x = _net().eval(), weft.randn(9, WIDE)
        self.file = io.save(path, self.model, self.x)
        if loaded:
            self.file = io.load(path)
        self.inputs = {"input": self.x.numpy()}

    @property
    def packed(self) -> list[bool]:
        (program,) = self.file.programs()
        return [w.copy is not None for w in program.weights.all]

    def check(self, times: int = 1) -> None:
        with weft.no_grad():
            want = self.model(self.x).numpy().tobytes()
        for _ in range(times):
            assert self.file.run(self.inputs)["output"].tobytes() == want


@pytest.mark.parametrize("loaded", [True, False])
def test_a_file_packs_its_weights(tmp_path: Path, loaded: bool) -> None:
    served = Served(tmp_path / "m.weft", loaded=loaded)
    served.check(4)
    assert served.packed == [True, True]


def _write(served: Served, name: str, value: float) -> None:
    served.file.arrays[name][...] = value


def _exchange(served: Served, name: str, value: float) -> None:
    served.file.arrays[name] = np.full_like(served.file.arrays[name], value)


def _by_tensor(served: Served, name: str, value: float) -> None:
    served.file.state_dict()[name].fill_(value)


def _by_weight(served: Served, name: str, value: float) -> None:
    served.file.weight(name)[:] = value


def _by_items(served: Served, name: str, value: float) -> None:
    dict(served.file.arrays.items())[name].fill(value)


def _by_a_model(served: Served, name: str, value: float) -> None:
    other = _net()
    other.load_state_dict(served.file.state_dict(), assign=True)
    dict(other.named_parameters())[name].data.fill_(value)


@pytest.mark.parametrize(
    "write", [_write, _exchange, _by_tensor, _by_weight, _by_items, _by_a_model]
)
def test_a_write_to_a_file_is_noticed(
    tmp_path: Path, write: Callable[[Served, str, float], None]
) -> None:
    served = Served(tmp_path / "m.weft")
    served.check(4)
    for value in (0.5, 0.25):
        write(served, "0.weight", value)
        served.model[0].weight.data.fill_(value)  # type: ignore[index]
        served.check(1)
        assert not all(served.packed)
        served.check(8)
    assert all(served.packed) == (write is not _exchange)  # whose memory is the caller's


def test_an_array_of_a_file_that_is_kept(tmp_path: Path) -> None:
    served = Served(tmp_path / "m.weft")
    kept = served.file.arrays["2.weight"][4:]
    for value in (1.0, 2.0, 3.0):
        kept[:] = value
        served.model[2].weight.data[4:] = value  # type: ignore[index]
        served.check(5)
    assert served.packed == [True, False]
    del kept
    served.check(70)
    assert served.packed == [True, True]


def test_verifying_a_file_does_not_show_its_weights(tmp_path: Path) -> None:
    served = Served(tmp_path / "m.weft")
    served.check(3)
    assert io.verify(served.file).ok
    served.file.records(), served.file.write(tmp_path / "again.weft"), str(served.file.graph())
    served.check(1)
    assert served.packed == [True, True]


def _torch(t: Any, path: Path, **how: Any) -> Any:
    weft.save({"w": t}, path, **how)
    return weft.load(path)["w"]


KINDS: dict[str, Callable[[Any, Path], Any]] = {
    ".pt": lambda t, p: _torch(t, p / "w.pt"),
    ".pt before zips": lambda t, p: _torch(t, p / "w.pt", _use_new_zipfile_serialization=False),
    ".safetensors": lambda t, p: _torch(t, p / "w.safetensors"),
    "state": lambda t, p: _torch(t, p / "w.weft"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_files_lie_in_memory_that_is_watched(kind: str, tmp_path: Path) -> None:
    t = KINDS[kind](weft.randn(OUT, WIDE), tmp_path)
    before = memory.mark(read(t))
    assert before is not None and memory.mark(read(t)) == before
    t[0] = 3
    assert memory.mark(read(t)) not in (None, before)


def test_a_mapped_file_is_not_watched(tmp_path: Path) -> None:
    """Who writes to the file changes the tensor."""
    weft.save({"w": weft.randn(OUT, WIDE)}, tmp_path / "w.pt")
    t = weft.load(tmp_path / "w.pt", mmap=True)["w"]
    assert memory.mark(read(t)) is None
