"""The import law on Weft itself, and the law's own teeth on small invented houses."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.import_law import OPTIONAL, ROOMS, House

SRC = Path(__file__).resolve().parent.parent / "src"


def house(tmp_path: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        path = tmp_path / "weft" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [v.replace(str(tmp_path) + "/", "") for v in House(tmp_path).violations()]


def test_weft_obeys_the_import_law():
    bad = House(SRC).violations()
    assert not bad, "\n".join(["", *bad])


def test_the_import_is_fast():
    """It loads nothing that takes as long as many rooms (OpenSSL, NumPy's generators), and Python
    collects its cycles again.
    """
    code = """
import sys, numpy, ml_dtypes
before = {*sys.modules}
import weft, gc
print(gc.isenabled(), *{*sys.modules} - before)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    collects, *loaded = ran.stdout.split()
    assert collects == "True" and "weft.methods" in loaded
    slow = {"pathlib", "tempfile", "shutil", "_hashlib", "numpy.random", "llvmlite"}
    assert not slow.intersection(loaded)


@pytest.mark.parametrize("frozen", [False, True])
def test_what_an_import_makes_is_not_looked_through(frozen):
    """And nothing else is kept from the collector: a cycle that was there before goes."""
    code = f"""
import gc, numpy, ml_dtypes, weakref
class Knot: pass
gc.collect()
if {frozen}:
    gc.freeze()
before, knot, most = gc.get_freeze_count(), Knot(), [0]
knot.knot, gone = knot, weakref.ref(knot)
def look(phase, how):
    if phase == "start":
        young = (len(gc.get_objects(generation=g)) for g in range(how["generation"] + 1))
        most.append(sum(young))
gc.callbacks.append(look)
import weft
gc.callbacks.clear()
del knot
gc.collect()
print(max(most) < 10_000, gc.get_freeze_count() == before, gone() is None)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [str(not frozen), "True", "True"]


def test_import_weft_loads_no_optional_dependency():
    code = "import sys, weft; print(*{m.split('.')[0] for m in sys.modules})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(out.stdout.split()) & OPTIONAL


LAWFUL = {
    "__init__.py": "from weft.ops.conv import conv2d\nfrom weft import nn, compile\n",
    "core/__init__.py": "",
    "core/op.py": "import numpy as np\nfrom weft._version import __version__\n",
    "_version.py": "__version__ = '1'\n",
    "ops/__init__.py": "",
    "ops/conv.py": (
        "from typing import TYPE_CHECKING\nfrom ..core import op\n"
        "if TYPE_CHECKING:\n    from weft.tensor import Tensor\n"
        "def compiled():\n    import llvmlite.binding\n"
    ),
    "tensor.py": "from .ops.conv import conv2d\n",
    "nn/__init__.py": "import weft\nfrom weft import tensor, Tensor\n",
    "nn/a.py": "from weft.autograd import grad\n",
    "autograd/__init__.py": "from weft.tensor import Tensor\n",
    "compile/__init__.py": "from ..autograd import grad\n",
    "io/__init__.py": "from weft.compile import record\n",
    "serve/app.py": "import starlette.applications\n",
    "cli/__init__.py": "import click\ndef serve():\n    from weft.serve.app import app\n",
}


def test_a_lawful_house_passes(tmp_path):
    assert house(tmp_path, LAWFUL) == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("core/a.py", "import os\nfrom ..ops import conv\n",
         "weft/core/a.py:2: core imports weft.ops.conv, but core lies below ops"),
        ("ops/a.py", "from weft.nn import relu\n",
         "weft/ops/a.py:1: the layer ops imports weft.nn,"),
        ("ops/a.py", "import weft\n", "weft/ops/a.py:1: the layer ops imports weft,"),
        ("train/a.py", "from weft.ops.conv import conv2d\n",
         "weft/train/a.py:1: train imports weft.ops.conv, which is not public"),
        ("train/a.py", "from weft import ops\n",
         "weft/train/a.py:1: train imports weft.ops, which is not public"),
        ("optim/a.py", "from weft.autograd.tape import Node\n", "weft/optim/a.py:1: optim imports"),
        ("optim/a.py", "from weft.nn import _fold\n",
         "weft/optim/a.py:1: optim imports the private name _fold"),
        ("core/a.py", "def f():\n    import json\n",
         "weft/core/a.py:2: import of json inside a function"),
        ("optim/a.py", "def f():\n    from weft import nn\n",
         "weft/optim/a.py:2: import of weft.nn inside a function"),
        ("data/a.py", "import pandas\n", "weft/data/a.py:1: pandas is not a declared dependency"),
        ("core/a.py", "import importlib\nx = importlib.import_module('weft.ops.conv')\n",
         "weft/core/a.py:2: core imports weft.ops.conv, but core lies below ops"),
        ("core/a.py", "from importlib import import_module\nx = import_module('..ops', __name__)\n",
         "weft/core/a.py:2: core imports weft.ops, but core lies below ops"),
        ("nn/a.py", "", None),
        ("junk/a.py", "", "weft/junk/a.py:1: weft.junk is neither a layer nor a room"),
        ("ops/conv.py", "import scipy\n",
         "weft/ops/conv.py:1: `import weft` would import the optional scipy"),
    ],
)  # fmt: skip
def test_each_breach_is_named_with_file_and_line(tmp_path, file, text, message):
    bad = house(tmp_path, {**LAWFUL, file: text})
    assert (not bad) if message is None else any(v.startswith(message) for v in bad), bad


def test_cycles_are_found_and_spelt_out(tmp_path):
    files = {"ops/a.py": "from . import b\n", "ops/b.py": "\nfrom .c import x\n",
             "ops/c.py": "import weft.ops.a\n"}  # fmt: skip
    bad = house(tmp_path, {**LAWFUL, **files})
    assert bad == [
        "weft/ops/c.py:1: import cycle: weft.ops.a -> weft.ops.b -> weft.ops.c -> weft.ops.a"
    ]


def test_a_submodule_must_not_import_from_its_own_package_face(tmp_path):
    files = {"ops/__init__.py": "from .a import x\n", "ops/a.py": "from weft.ops import y\n"}
    assert any("import cycle: weft.ops" in v for v in house(tmp_path, {**LAWFUL, **files}))


def test_every_room_is_one_of_the_design():
    assert len(set(ROOMS)) == len(ROOMS) == 15
