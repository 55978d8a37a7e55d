"""Packages written for torch work on Weft, installed without torch, and print torch's numbers.

`make packages` makes the environment (.venv-packages) and runs this file in it.
"""

import importlib.util
import json
import os

import pytest

from tests.programs.output import HERE, differences, run

RECORD = json.loads((HERE.parent / "fixtures/packages.json").read_text("utf-8"))
SCRIPTS = sorted((HERE / "packages").glob("use_*.py"))
HERE_ONLY = pytest.mark.skipif(
    os.environ.get("WEFT_PACKAGES") != "1", reason="`make packages` runs it, where they are"
)


@HERE_ONLY
def test_torch_is_not_installed():
    assert importlib.util.find_spec("torch") is None


@HERE_ONLY
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.stem.removeprefix("use_"))
def test_a_package_written_for_torch_prints_what_it_prints_on_torch(script):
    done = run(script, seconds=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found = differences(done.stdout.splitlines(), RECORD[script.stem])
    assert not found, "\n".join(found[:10])


def test_every_package_is_recorded():
    assert set(RECORD) == {s.stem for s in SCRIPTS} and len(RECORD) >= 14


def test_what_issue_3_lists_is_there():
    """Every timm model and every transformers model that the issue names is trained in a script."""
    timm, transformers = (RECORD[f"use_{name}"] for name in ("timm", "transformers"))
    for kind in ("resnet18", "mobilenetv3", "efficientnet_b0", "convnext_tiny", "vit_tiny",
                 "swin_tiny", "mixer"):  # fmt: skip
        assert any(line.removeprefix("rough ").startswith(kind) for line in timm), kind
    for kind in ("gpt2", "bert", "llama", "vit", "whisper"):
        assert any(line.startswith(f"{kind} ") for line in transformers), kind
    for package in ("einops", "x_transformers", "vit_pytorch", "torchdiffeq", "lightning"):
        assert RECORD[f"use_{package}"], package
