"""Every format of torch.save: what torch wrote is read, memory-mapped where asked for."""

import base64
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

import weft
from tests.io.test_torch_attacks import call, g, number, storage, text
from weft.core import dtype as dt
from weft.io import torch_file, torch_zip

FILES = {
    name: base64.b64decode(text)
    for name, text in json.loads(
        (Path(__file__).resolve().parents[1] / "fixtures/torch_files.json").read_text("utf-8")
    ).items()
}


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_every_dtype_that_torch_wrote(kind):
    got = torch_file.load(io.BytesIO(FILES[f"dtypes.{kind}"]))
    assert {n.removeprefix("torch.") for n in got} == set(dt.BY_NAME)
    for name, t in got.items():
        assert t.dtype is dt.BY_NAME[name.removeprefix("torch.")]
        assert t.tolist() == [bool(x) if t.dtype is dt.bool else x for x in (0, 1, 3)]


@pytest.mark.parametrize("kind", ["zip", "legacy", "protocol4"])
def test_a_whole_checkpoint_that_torch_wrote(kind):
    got = torch_file.load(io.BytesIO(FILES[f"checkpoint.{kind}"]))
    model = weft.nn.Sequential(weft.nn.Linear(3, 4), weft.nn.BatchNorm1d(4), weft.nn.Linear(4, 2))
    optimizer = weft.optim.AdamW(model.parameters(), 1e-2)
    schedule = weft.optim.lr_scheduler.StepLR(optimizer, 1)
    model.load_state_dict(got["model"])
    optimizer.load_state_dict(got["optimizer"])
    schedule.load_state_dict(got["schedule"])
    state = optimizer.state[model[0].weight]
    assert state["step"] == 1 and state["exp_avg"].shape == (4, 3)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3) and schedule.last_epoch == 1
    assert got["epoch"] == 3 and got["best"] == (0.5, [1, None, "text"], {"k": {1, 2}})
    assert got["rng"].dtype is weft.uint8 and got["rng"].shape == (16,)
    assert isinstance(got["parameter"], weft.nn.Parameter) and got["parameter"].requires_grad
    assert got["view"].tolist() == [[1.0, 4.0], [2.0, 5.0]] and got["view"].stride() == (1, 3)
    got["base"][1] = 9.0
    assert got["view"][0, 0].item() == 9.0  # one memory, as saved
    assert got["empty"].shape == (0, 3) and got["scalar"].item() == 7


@pytest.mark.parametrize("kind", ["module", "module.legacy"])
def test_a_whole_module_that_torch_wrote(kind):
    with pytest.raises(pickle.UnpicklingError, match=r"Sequential"):
        torch_file.load(io.BytesIO(FILES[kind]))
    got = torch_file.load(io.BytesIO(FILES[kind]), weights_only=False)
    assert type(got) is weft.nn.Sequential and type(got.b) is weft.nn.ReLU
    assert got(weft.zeros(1, 2)).tolist() == [got.a.bias.relu().tolist()]


def test_the_tar_of_2016():
    with pytest.raises(RuntimeError, match=r"weights_only=True.*tar"):
        torch_file.load(io.BytesIO(FILES["tar"]))
    got = torch_file.load(io.BytesIO(FILES["tar"]), weights_only=False)
    assert got["a"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert got["b"].tolist() == [3.0, 5.0]
    got["a"][1, 0] = 7.0
    assert got["b"].tolist() == [7.0, 5.0]


@pytest.mark.parametrize("zipped", [True, False])
def test_there_and_back_in_both_formats(tmp_path, zipped):
    path = tmp_path / "x.pt"
    base = weft.arange(6.0)
    value = {d.name: weft.tensor([0, 1, 3]).to(d) for d in dt.BY_NAME.values()}
    value |= {"view": base.view(2, 3).t(), "base": base, "empty": weft.empty(0, 2), "n": [1, "a"]}
    weft.save(value, path, _use_new_zipfile_serialization=zipped)
    assert zipfile.is_zipfile(path) is zipped
    got = weft.load(path)
    for d in dt.BY_NAME.values():
        assert got[d.name].dtype is d and got[d.name].tolist() == value[d.name].tolist()
    assert got["view"].stride() == (1, 3) and got["n"] == [1, "a"] and got["empty"].shape == (0, 2)
    got["base"][0] = 5.0
    assert got["view"][0, 0].item() == 5.0
    with open(path, "rb") as f:
        assert weft.load(f)["base"].tolist() == base.tolist()


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_that_are_made_of_the_numbers(tmp_path, zipped):
    value = weft.tensor([[0.0, 2.0], [3.0, 0.0]])
    state = {"coo": value.to_sparse(), "csr": value.to_sparse_csr()}
    weft.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    for got in weft.load(tmp_path / "x.pt").values():
        assert got.to_dense().tolist() == value.tolist()


def test_a_conjugate_in_the_format_of_before_2020():
    parts = (
        storage("ComplexFloatStorage", size=b"K\x02N"), number(0), b"(K\x02t", b"(K\x01t", b"\x89",
        call(g("collections", "OrderedDict")), b"}" + text("conj") + b"\x88s",
    )  # fmt: skip
    f = io.BytesIO()
    pickled = b"\x80\x02" + call(g("torch._utils", "_rebuild_tensor_v2"), *parts) + b"."
    torch_zip.write(f, pickled, {"0": np.array([1 + 2j, 3 - 1j], np.complex64)})
    f.seek(0)
    assert weft.load(f).tolist() == [1 - 2j, 3 + 1j]


def resident() -> int:
    """Bytes of memory that this process has at hand."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_a_mapped_file_takes_no_memory_until_it_is_touched(tmp_path):
    path, n = tmp_path / "big.pt", 12_000_000
    weft.save({"w": weft.ones(n), "b": weft.arange(4)}, path)
    before = resident()
    mapped = weft.load(path, mmap=True)
    assert mapped["b"].tolist() == [0, 1, 2, 3] and mapped["w"].shape == (n,)
    assert mapped["w"][n // 2].item() == 1.0
    assert resident() - before < n  # bytes: a quarter of the file
    assert mapped["w"].sum().item() == n and resident() - before > 3 * n  # now it is read
    mapped["w"][0] = 5.0  # a private map: the file keeps its numbers
    assert weft.load(path)["w"][0].item() == 1.0 and mapped["w"][0].item() == 5.0


def test_what_cannot_be_mapped(tmp_path):
    with pytest.raises(ValueError, match="file path"):
        weft.load(io.BytesIO(FILES["checkpoint.zip"]), mmap=True)
    path = tmp_path / "old.pt"
    path.write_bytes(FILES["checkpoint.legacy"])
    with pytest.raises(RuntimeError, match="mmap can only be used"):
        weft.load(path, mmap=True)
    path.write_bytes(FILES["checkpoint.zip"])
    assert weft.load(path, mmap=True)["base"].tolist() == [0, 1, 2, 3, 4, 5]


def test_map_location():
    raw = FILES["checkpoint.zip"]
    for place in ("cpu", weft.device("cpu"), {"cuda:0": "cpu"}):
        assert torch_file.load(io.BytesIO(raw), place)["epoch"] == 3
    seen = []
    torch_file.load(io.BytesIO(raw), lambda storage, at: seen.append((len(storage), at)) or storage)
    assert (24, "cpu") in seen
    for place in ("cuda", weft.device("cuda:1"), {"cpu": "cuda:0"}):
        with pytest.raises(RuntimeError, match="map_location='cpu'"):
            torch_file.load(io.BytesIO(raw), place)


def test_big_endian_numbers():
    f = io.BytesIO()
    torch_file.save({"x": weft.arange(3.0), "c": weft.tensor([1 + 2j]), "i": weft.arange(2)}, f)
    swapped = io.BytesIO()
    with zipfile.ZipFile(f) as z, zipfile.ZipFile(swapped, "w") as out:
        for name in z.namelist():
            raw = z.read(name)
            if name.endswith("byteorder"):
                raw = b"big"
            elif "/data/" in name:
                kind = {12: ">f4", 8: ">f4", 16: ">i8"}[len(raw)]
                raw = np.frombuffer(raw, kind.replace(">", "<")).astype(kind).tobytes()
            out.writestr(name, raw)
    got = torch_file.load(io.BytesIO(swapped.getvalue()))
    assert got["x"].tolist() == [0.0, 1.0, 2.0] and got["i"].tolist() == [0, 1]
    assert got["c"].tolist() == [1 + 2j]


def test_the_reader_of_records(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(FILES["checkpoint.zip"])
    with torch_zip.PyTorchFileReader(str(path)) as r:
        assert {"data.pkl", "version", "byteorder", "data/0"} <= set(r.get_all_records())
        assert r.version() == 3 and r.has_record("data/1") and not r.has_record("data/999")
        assert (
            r.get_record("data/0")
            == path.read_bytes()[
                r.get_record_offset("data/0") : r.get_record_offset("data/0")
                + r.get_record_size("data/0")
            ]
        )
        t = r.get_storage_from_record("data/0", 12, weft.float32)
        assert t.shape == (12,) and t.dtype is weft.float32
        with pytest.raises(RuntimeError, match="failed locating file"):
            r.get_record("none")


class Mine:
    def __init__(self, x):
        self.x = x


def test_classes_that_the_user_allows(monkeypatch):
    from weft.compat.torch_ import serialization

    f = io.BytesIO()
    torch_file.save({"m": Mine(3)}, f)
    f.seek(0)
    name = f"{Mine.__module__}.Mine"
    assert serialization.get_unsafe_globals_in_checkpoint(f) == [name]
    f.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="Mine was not an allowed global"):
        torch_file.load(f)
    f.seek(0)
    with serialization.safe_globals([Mine]):
        assert serialization.get_safe_globals() == [Mine]
        got = torch_file.load(f)["m"]
    assert type(got) is Mine and got.x == 3 and serialization.get_safe_globals() == []
