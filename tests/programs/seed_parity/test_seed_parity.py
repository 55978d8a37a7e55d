"""One script, one seed: Weft prints the loss curve that torch prints, for 50 steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
CURVES = json.loads((HERE / "curves.json").read_text("utf-8"))


@pytest.mark.parametrize("script", ["gpt", "cnn"])
def test_the_loss_curve_is_torchs(script):
    done = subprocess.run(
        [sys.executable, "-m", "weft", "run", str(HERE / f"{script}.py"), "0"],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[2] / "src")},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line.rpartition(" ")[0] for line in lines] == [f"step {i} loss" for i in range(50)]
    got = np.array([float(line.rpartition(" ")[2]) for line in lines])
    wanted = np.array(CURVES[script]["0"])
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=0)
    assert abs(np.array(CURVES[script]["1"]) / wanted - 1).max() > 1e-3  # other seeds differ
