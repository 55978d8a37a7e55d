"""weft's public names are torch's; what they need is loaded when it is needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import weft

SIGNATURES = Path(__file__).parent / "fixtures/torch_signatures.json"
# Weft's own, and torch's C++ classes and functions of its amp module, which the record lacks
OTHERS = {"Parameter", "Generator", "Size", "device", "dtype", "finfo", "iinfo", "layout"}
OTHERS |= {"memory_format", "is_autocast_available", "profile", "quantize"}
OTHERS |= {"is_fast_math", "set_fast_math"}


def test_every_public_name_is_torchs_or_ours():
    torchs = set(json.loads(SIGNATURES.read_text(encoding="utf-8"))[""])
    public = (name for name in dir(weft) if not name.startswith("_"))
    functions = {name for name in public if callable(getattr(weft, name))}
    assert functions - torchs <= OTHERS
    assert {"data", "io", "serve", "train"} <= set(dir(weft))


def test_every_public_name_is_there():
    missing = []
    for name in dir(weft):
        try:
            getattr(weft, name)
        except Exception as e:
            missing.append(f"{name}: {type(e).__name__}: {e}")
    assert not missing


@pytest.mark.parametrize("name", ["sum_to", "shape_args", "number_tensor", "Add", "apply", "np"])
def test_no_helper_is_public(name):
    assert not hasattr(weft, name)


def test_builtins_are_torchs_only_as_attributes():
    assert weft.sum is not sum and weft.float is weft.float32
    assert weft.Size((2, 3)).numel() == 6
    assert weft.is_tensor(weft.ones(1)) and weft.is_floating_point(weft.ones(1))
    assert weft.numel(weft.ones(2, 3)) == 6 and weft.typename(weft.ones(1)) == "torch.FloatTensor"
    assert (weft.relu_(x := weft.tensor([-1.0, 2.0])) is x) and x.tolist() == [0.0, 2.0]
    assert weft.vmap is weft.func.vmap and callable(weft.compile)


def test_import_loads_neither_llvm_nor_the_rooms_outside():
    program = "import sys, weft; weft.compile; print(*sys.modules)"
    run = [sys.executable, "-c", program]
    loaded = set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())
    late = "llvmlite tqdm click weft.nn weft.optim weft.data weft.io weft.train weft.serve"
    for name in [*late.split(), "weft.compile.api", "weft.kernels.schedule"]:
        assert name not in loaded
