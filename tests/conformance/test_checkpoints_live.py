"""Files go both ways between Weft and the torch that is installed; skipped where none is."""

import importlib.util
import subprocess
import sys

import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("needs torch", allow_module_level=True)

MAKE = """
import sys
DTYPES = ("float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool "
          "complex64 complex128").split()
folder, which = sys.argv[1:]
if which == "weft":
    import weft as t
else:
    import torch as t
t.manual_seed(0)
model = t.nn.Sequential(t.nn.Linear(3, 4), t.nn.BatchNorm1d(4), t.nn.Linear(4, 2))
optimizer = t.optim.AdamW(model.parameters(), 1e-2)
model(t.ones(5, 3)).pow(2).sum().backward()
optimizer.step()
base = t.arange(6.0)
value = {
    "dtypes": {d: t.tensor([0, 1, 3]).to(getattr(t, d)) for d in DTYPES},
    "model": model.state_dict(), "optimizer": optimizer.state_dict(), "base": base,
    "view": base.view(2, 3).t(), "empty": t.empty(0, 3), "scalar": t.tensor(7),
    "parameter": t.nn.Parameter(t.ones(2)), "rest": (1, 2.5, "text", None, {"k": [True]}),
    "size": t.Size([2, 3]), "dtype": t.float16, "device": t.device("cpu"),
}
t.save(value, folder + "/zip.pt")
t.save(value, folder + "/old.pt", _use_new_zipfile_serialization=False)
if which == "weft":
    t.save(value["model"], folder + "/m.safetensors")
else:
    import safetensors.torch
    safetensors.torch.save_file(value["model"], folder + "/m.safetensors")
"""

CHECK = """
import sys, warnings
folder, which = sys.argv[1:]
if which == "weft":
    import weft as t
    loads = [{}, {"weights_only": False}, {"mmap": True}, {"map_location": "cpu"}]
else:
    import torch as t
    loads = [{"weights_only": True}, {"weights_only": False}, {"mmap": True}]
for name in ("zip", "old"):
    for how in loads:
        if name == "old" and "mmap" in how:
            continue
        got = t.load(folder + "/" + name + ".pt", **how)
        for d, x in got["dtypes"].items():
            assert x.dtype is getattr(t, d)
            assert x.tolist() == ([0, 1, 3] if d != "bool" else [0, 1, 1])
        model = t.nn.Sequential(t.nn.Linear(3, 4), t.nn.BatchNorm1d(4), t.nn.Linear(4, 2))
        optimizer = t.optim.AdamW(model.parameters(), 1e-2)
        model.load_state_dict(got["model"])
        optimizer.load_state_dict(got["optimizer"])
        assert optimizer.state[model[0].weight]["step"] == 1
        got["base"][0] = 9.0
        assert got["view"][0, 0].item() == 9.0 and got["view"].stride() == (1, 3)
        assert got["empty"].shape == (0, 3) and got["scalar"].item() == 7
        assert isinstance(got["parameter"], t.nn.Parameter) and got["parameter"].requires_grad
        assert got["rest"] == (1, 2.5, "text", None, {"k": [True]})
        assert got["size"] == t.Size([2, 3]) and got["dtype"] is t.float16
        assert got["device"] == t.device("cpu")
if which == "weft":
    weights = t.load(folder + "/m.safetensors")
else:
    import safetensors.torch
    weights = safetensors.torch.load_file(folder + "/m.safetensors")
assert all(weights[k].tolist() == v.tolist() for k, v in got["model"].items())
print("as saved")
"""


@pytest.mark.parametrize(("writer", "reader"), [("torch", "weft"), ("weft", "torch")])
def test_what_one_writes_the_other_reads(tmp_path, writer, reader):
    for code, who in ((MAKE, writer), (CHECK, reader)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), who], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "as saved\n"
