"""weft's public names are torch's; what they need is loaded when it is needed."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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


# public modules, with the modules that `import *` brings along (torch's do too)
FACADES = {
    "weft.nn": {"functional", "init", "utils"},
    "weft.nn.functional": set(),
    "weft.nn.utils": {"parametrizations", "parametrize", "rnn"},
    "weft.optim": {"lr_scheduler", "swa_utils"},
    "weft.optim.lr_scheduler": set(),
    "weft.distributions": set(),
    "weft.linalg": set(),
    "weft.fft": set(),
    "weft.special": set(),
    "weft.data": set(),
    "weft.train": set(),
}


@pytest.mark.parametrize("name", FACADES)
def test_star_brings_the_public_names_and_no_rooms(name):
    found: dict = {}
    exec(f"from {name} import *", found)
    del found["__builtins__"]
    assert {n for n, v in found.items() if isinstance(v, ModuleType)} == FACADES[name]
    assert not [n for n in found if n.startswith("_")]


def exported(module: str) -> set[str]:
    """What a type checker takes for exported by a typed package's module: names in `__all__`,
    `x as x`, those of starred modules, and what is defined there.
    """
    path = Path(importlib.import_module(module).__file__ or "")
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            if names != {"__all__"}:
                found |= names
            elif isinstance(node.value, ast.List):
                found |= {str(ast.literal_eval(e)) for e in node.value.elts}
            else:  # += module.__all__
                assert isinstance(node.value, ast.Attribute) and node.value.attr == "__all__"
                found |= exported(f"{module}.{ast.unparse(node.value.value)}")
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            for a in node.names:
                if a.name == "*":
                    found |= set(importlib.import_module(str(node.module)).__all__)
                elif a.name == a.asname:
                    found.add(str(a.asname))
    return found


@pytest.mark.parametrize("name", ["weft", *FACADES])
def test_type_checkers_see_every_public_name(name):
    """py.typed makes checkers believe the files, in which a plain import exports nothing."""
    assert (Path(weft.__file__).parent / "py.typed").exists()
    module = importlib.import_module(name)
    given: dict = {}
    exec(f"from {name} import *", given)
    public = {n for n, v in given.items() if not isinstance(v, ModuleType)} - {"__builtins__"}
    lazy = set(weft._HOME_OF) | {n for n in public if n.endswith("_")} if name == "weft" else set()
    assert public - lazy - {"annotations"} <= exported(name)
    assert not [n for n in getattr(module, "__all__", []) if not hasattr(module, n)]
