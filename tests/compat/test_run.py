"""weft run: arguments, exit codes, exceptions, local imports, the report."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*args, **kw):
    return subprocess.run(
        [sys.executable, "-m", "weft", "run", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        **kw,
    )


def test_arguments_name_and_local_modules(tmp_path):
    (tmp_path / "model.py").write_text("import torch.nn as nn\nNet = nn.Linear\n")
    (tmp_path / "train.py").write_text(
        "import sys, torch\nfrom model import Net\n"
        "print(__name__, __file__, sys.argv, torch.Tensor.__module__, end=' ')\n"
        "print(Net(2, 3)(torch.ones(2)).shape)\n"
        "class A: pass\n"
        "import pickle; print(type(pickle.loads(pickle.dumps(A()))) is A)\n"
    )
    done = run("train.py", "--epochs", "3", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == (
        "__main__ train.py ['train.py', '--epochs', '3', '--help'] weft.tensor torch.Size([3])"
    )
    assert second == "True"


def test_exit_codes_and_exceptions_are_plain_pythons(tmp_path):
    script = tmp_path / "s.py"
    script.write_text("import sys\nsys.exit(7)\n")
    assert run(script).returncode == 7
    script.write_text("import torch\nprint('before')\ntorch.ones(2) + torch.ones(3)\n")
    done = run(script)
    plain = done.stderr.splitlines()
    assert done.returncode == 1 and done.stdout == "before\n"
    assert plain[0] == "Traceback (most recent call last):"
    assert plain[1] == f'  File "{script}", line 3, in <module>'  # none of the command's frames
    assert plain[-1].startswith("RuntimeError: ") and "size of tensor a (2) must match" in plain[-1]
    script.write_text("x = (\n")
    done = run(script)
    assert done.returncode == 1 and "SyntaxError" in done.stderr
    done = run(tmp_path / "none.py")
    assert done.returncode == 1 and "no such file" in done.stderr


def test_the_report_names_what_is_missing_and_runs_nothing(tmp_path):
    (tmp_path / "helper.py").write_text(
        "import torch as t\ndef f(x):\n    return t.nn.functional.relyou(x)\n"
    )
    script = tmp_path / "s.py"
    script.write_text(
        "import torch\nfrom torch import nn\nimport torch.nn.functional as F\nimport helper\n"
        "raise SystemExit('it ran')\n"
        "nn.Linaer(2, 3)\nF.relu(torch.ones(2)).int_repr()\n"
    )
    done = run("--report", script)
    assert done.returncode == 1, done.stderr
    assert "torch.nn.Linaer" in done.stdout and "torch.nn.Linear" in done.stdout
    assert "torch.nn.functional.relyou" in done.stdout and "helper.py:3" in done.stdout
    assert "Tensor.int_repr" in done.stdout and "it ran" not in done.stdout + done.stderr
    assert "2 files use" in done.stdout and "Weft lacks 3" in done.stdout
    script.write_text("import torch\ntorch.ones(2)\n")
    assert run("--report", script).returncode == 0


def test_the_report_reads_packages_that_use_torch(tmp_path):
    package = tmp_path / "lib" / "pack"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .inner import f\n")
    (package / "inner.py").write_text("import torch\n\n\ndef f():\n    return torch.nonsense\n")
    (package / "unused.py").write_text("import torch\ntorch.neither\n")
    (package / "other.py").write_text("'torch'\nx.int_repr()\n")
    plain = tmp_path / "lib" / "plain"
    plain.mkdir()
    (plain / "__init__.py").write_text("x.int_repr()\n")
    script = tmp_path / "s" / "main.py"
    script.parent.mkdir()
    script.write_text("import pack, plain\n")
    path = os.pathsep.join([str(ROOT / "src"), str(tmp_path / "lib")])
    done = subprocess.run(
        [sys.executable, "-m", "weft", "run", "--report", str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 1, done.stderr
    assert "torch.nonsense" in done.stdout and "inner.py:5" in done.stdout
    assert "neither" not in done.stdout and "int_repr" not in done.stdout  # files not imported


def test_what_a_missing_name_says(tmp_path):
    script = tmp_path / "s.py"
    script.write_text("from torch.nn import Linaer\n")
    assert "ImportError: Weft has no torch.nn.Linaer; the nearest" in run(script).stderr
    script.write_text("import torch\ntorch.ones(2).softmaxx()\n")
    said = run(script).stderr
    assert "'Tensor' object has no attribute 'softmaxx'. Did you mean: 'softmax'?" in said
