"""Unmodified PyTorch scripts on Weft print torch's numbers: same seeds, same loss curves."""

import json

import pytest

from tests.programs.output import HERE, differences, run

RECORD = json.loads((HERE.parent / "fixtures/programs.json").read_text("utf-8"))
SCRIPTS = sorted((HERE / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.stem)
def test_a_script_prints_what_it_prints_under_torch(script):
    done = run(script)
    assert done.returncode == 0, done.stderr[-3000:]
    found = differences(done.stdout.splitlines(), RECORD[script.stem])
    assert not found, "\n".join(found[:10])


def test_every_script_is_recorded():
    assert set(RECORD) == {s.stem for s in SCRIPTS} and len(RECORD) >= 11


def test_how_lines_are_compared():
    assert not differences(["loss 1.23461 step 3"], ["loss 1.23456 step 3"])
    assert differences(["loss 1.2348 step 3"], ["loss 1.2345 step 3"])
    assert differences(["loss 1.2345 step 4"], ["loss 1.2345 step 3"])
    assert differences(["loss nan"], ["loss 1.0"]) and differences(["lass 1.0"], ["loss 1.0"])
    assert differences(["a"], ["a", "b"]) and not differences(["x -0.00000"], ["x 0.00000"])
