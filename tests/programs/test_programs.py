"""Unmodified PyTorch scripts on Weft print torch's numbers: same seeds, same loss curves."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RECORD = json.loads((HERE.parent / "fixtures/programs.json").read_text("utf-8"))
SCRIPTS = sorted((HERE / "scripts").glob("*.py"))
PACKAGES = sorted((HERE / "packages").glob("*.py"))
# An interpreter whose environment has Weft's dependencies and the packages, but no torch:
# pip install --no-deps einops torchdiffeq vit-pytorch x-transformers timm transformers lightning,
# torchvision and what they import.
PYTHON = os.environ.get("WEFT_PACKAGES_PYTHON", sys.executable)
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)(?![A-Za-z_])")
RELATIVE = 1e-4
ROUGH = 5e-3  # lines marked "rough" print what bfloat16 made: 8 bits of mantissa


def run(script: Path, python: str = sys.executable) -> subprocess.CompletedProcess:
    return subprocess.run(
        [python, "-m", "weft.cli", "run", str(script)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "default"},
    )


def differences(got: list[str], wanted: list[str]) -> list[str]:
    """Lines whose text differs, or whose numbers differ by more than rounding."""
    out = []
    if len(got) != len(wanted):
        out.append(f"{len(got)} lines, torch printed {len(wanted)}")
    for line, theirs in zip(got, wanted, strict=False):
        if NUMBER.sub("#", line) != NUMBER.sub("#", theirs):
            out.append(f"{line!r} is not {theirs!r}")
            continue
        tolerance = ROUGH if "rough" in theirs else RELATIVE
        for a, b in zip(NUMBER.findall(line), NUMBER.findall(theirs), strict=True):
            digits = len(b.partition(".")[2]) if "e" not in b else 12
            unit = 1.01 * 10.0**-digits if "." in b else 0.0  # both were rounded for printing
            if a != b and not abs(float(a) - float(b)) <= tolerance * abs(float(b)) + unit:
                out.append(f"{line!r} is not {theirs!r}")
                break
    return out


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.stem)
def test_a_script_prints_what_it_prints_under_torch(script):
    done = run(script)
    assert done.returncode == 0, done.stderr[-3000:]
    found = differences(done.stdout.splitlines(), RECORD[script.stem])
    assert not found, "\n".join(found[:10])


@pytest.mark.parametrize("script", PACKAGES, ids=lambda s: s.stem)
def test_a_package_written_for_torch_works_on_top(script):
    package = script.stem.removeprefix("use_")
    find = f"import importlib.util as u, sys; sys.exit(u.find_spec('{package}') is None)"
    if subprocess.run([PYTHON, "-c", find]).returncode:
        pytest.skip(f"{package} is not installed (WEFT_PACKAGES_PYTHON names an interpreter)")
    done = run(script, PYTHON)
    assert done.returncode == 0, done.stderr[-3000:]
    found = differences(done.stdout.splitlines(), RECORD[script.stem])
    assert not found, "\n".join(found[:10])


def test_every_script_is_recorded():
    assert set(RECORD) == {s.stem for s in SCRIPTS + PACKAGES} and len(RECORD) >= 17


def test_how_lines_are_compared():
    assert not differences(["loss 1.23461 step 3"], ["loss 1.23456 step 3"])
    assert differences(["loss 1.2348 step 3"], ["loss 1.2345 step 3"])
    assert differences(["loss 1.2345 step 4"], ["loss 1.2345 step 3"])
    assert differences(["loss nan"], ["loss 1.0"]) and differences(["lass 1.0"], ["loss 1.0"])
    assert differences(["a"], ["a", "b"]) and not differences(["x -0.00000"], ["x 0.00000"])
