"""torch.save's files: what torch wrote is read, nothing in a file is executed."""

import base64
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

import weft
from weft.io import torch_file, torch_makers

RECORD = Path(__file__).resolve().parents[1] / "fixtures/torch_save.b64"


def there_and_back(x, **kw):
    f = io.BytesIO()
    torch_file.save(x, f)
    f.seek(0)
    return torch_file.load(f, **kw)


def test_a_file_that_torch_wrote():
    got = torch_file.load(io.BytesIO(base64.b64decode(RECORD.read_text())))
    assert got["transposed"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert got["transposed"].stride() == (1, 3)
    assert got["bf16"].dtype is weft.bfloat16 and got["bf16"].tolist() == [1.5, -2.0]
    assert isinstance(got["parameter"], weft.nn.Parameter) and got["parameter"].requires_grad
    assert got["view"].data_ptr() == got["base"].data_ptr() + 4  # one memory, as saved
    assert got["dtype"] is weft.float16 and got["size"] == weft.Size([2, 3])
    assert got["device"] == weft.device("cpu") and got["list"] == [1, 2.5, "a", None, (True,)]
    assert got["bool"].tolist() == [True, False] and got["empty"].shape == (0, 3)
    assert got["scalar"].shape == () and got["scalar"].item() == 7
    assert isinstance(got["state"], OrderedDict)
    model = weft.nn.Linear(2, 1)
    model.load_state_dict(got["state"])
    assert got["numpy"] == 3.5


def test_there_and_back():
    base = weft.arange(6.0)
    state = {
        "a": base.view(2, 3).t(),
        "b": base[2:],
        "p": weft.nn.Parameter(weft.ones(2)),
        "h": weft.ones(3, dtype=weft.bfloat16),
        "e": weft.empty(0, 4),
        "n": {"lr": 0.1, "k": [1, (2, None)], "d": weft.int8},
        5: weft.tensor(True),
    }
    got = there_and_back(state)
    assert got["a"].tolist() == state["a"].tolist() and got["a"].stride() == (1, 3)
    assert got["b"].untyped_storage() == got["a"].untyped_storage()  # shared before, shared now
    assert isinstance(got["p"], weft.nn.Parameter) and got["e"].shape == (0, 4)
    assert got["h"].dtype is weft.bfloat16 and got["n"] == state["n"] and got[5].item() is True


def test_a_small_part_of_a_numpy_array_comes_back():
    a = np.arange(12.0, dtype=np.float32).reshape(3, 4)[:, ::2]
    assert there_and_back(weft.from_numpy(a)).tolist() == a.tolist()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def rewritten(value):
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w") as z:
        z.writestr("archive/data.pkl", pickle.dumps(value, 2))
        z.writestr("archive/version", "3\n")
    f.seek(0)
    return f


def test_a_malicious_pickle_does_nothing(tmp_path):
    target = tmp_path / "hit"
    with pytest.raises(pickle.UnpicklingError, match="system"):
        torch_file.load(rewritten({"w": Bomb(target)}))
    with pytest.warns(UserWarning, match=r"system were read as inert records"):
        got = torch_file.load(rewritten({"w": Bomb(target)}), weights_only=False)
    assert isinstance(got["w"], torch_makers.Record) and str(target) in got["w"].args[0]
    assert not target.exists()


class Net(weft.nn.Module):
    made = 0

    def __init__(self):
        super().__init__()
        Net.made += 1
        self.body = weft.nn.Sequential(weft.nn.Linear(3, 4), weft.nn.BatchNorm1d(4), weft.nn.ReLU())
        self.act = weft.nn.functional.gelu

    def forward(self, x):
        return self.act(self.body(x))


def test_a_whole_module_comes_back_without_its_init_being_called(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, Net.__module__, sys.modules.get(Net.__module__, pytest))
    monkeypatch.setattr(sys.modules[Net.__module__], "Net", Net, raising=False)
    net, x = Net().eval(), weft.randn(2, 3)
    made = Net.made
    got = there_and_back(net, weights_only=False)
    assert type(got) is Net and Net.made == made and not got.training
    assert got(x).tolist() == net(x).tolist()
    assert all(isinstance(p, weft.nn.Parameter) for p in got.parameters())
    with pytest.raises(pickle.UnpicklingError, match="Net"):
        there_and_back(net)


@pytest.mark.parametrize("where", [b"ctorch\nTensor\n", b"cweft.nn.functional\ngelu\n"])
def test_a_file_cannot_change_classes_or_functions(where):
    """BUILD with (None, {name: value}) sets attributes of whatever lies on the stack."""
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w") as z:
        z.writestr("a/data.pkl", b"\x80\x02" + where + b"N}X\x03\x00\x00\x00hitK\x01s\x86b.")
    f.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        torch_file.load(f, weights_only=False)
    assert not hasattr(weft.Tensor, "hit") and not hasattr(weft.nn.functional.gelu, "hit")


def test_numpy_arrays(tmp_path):
    value = {"a": np.arange(6.0).reshape(2, 3), "n": np.int64(4)}
    got = there_and_back(value, weights_only=False)
    assert got["a"].tolist() == value["a"].tolist() and got["a"].dtype == np.float64
    assert got["n"] == 4


def test_files_that_are_not_torchs(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(RuntimeError, match="not a file of torch"):
        torch_file.load(path)
    with pytest.raises(FileNotFoundError):
        torch_file.load(tmp_path / "none.pt")
    f = io.BytesIO()
    torch_file.save(weft.arange(100.0), f)
    with zipfile.ZipFile(f) as z:
        parts = {n: z.read(n) for n in z.namelist()}
    cut = io.BytesIO()
    with zipfile.ZipFile(cut, "w") as z:
        for n, raw in parts.items():
            z.writestr(n, raw[:-8] if n.endswith("data/0") else raw)
    cut.seek(0)
    with pytest.raises(RuntimeError, match="storage 0 is cut"):
        torch_file.load(cut)


def test_a_tensor_outside_its_storage_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        torch_makers.tensor(np.zeros(4, np.float32), 2, (3,), (1,))
    with pytest.raises(ValueError, match="does not fit"):
        torch_makers.tensor(np.zeros(4, np.float32), 0, (3,), (-1,))


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.pt"
    torch_file.save({"a": 1}, path)
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        torch_file.save({"a": lambda: 0}, path)
    assert torch_file.load(path) == {"a": 1} and os.listdir(tmp_path) == ["x.pt"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "old.pt").write_bytes(b"old")
    (tmp_path / "link.pt").symlink_to("old.pt")
    weft.save({"x": weft.ones(2)}, tmp_path / "link.pt")
    assert (tmp_path / "link.pt").is_symlink()
    assert weft.load(tmp_path / "old.pt")["x"].tolist() == [1.0, 1.0]


def test_a_dtype_that_files_cannot_hold_is_refused_by_name(tmp_path):
    path = tmp_path / "x.pt"
    with pytest.raises(TypeError, match=r"hold no float8 or wide unsigned"):
        x = weft.ones(3).to(weft.uint16)
        weft.save({"x": x}, path, _use_new_zipfile_serialization=False)
    assert not path.exists()  # nothing half-written
