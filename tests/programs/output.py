"""Running a script on Weft, and comparing what it prints with what torch made it print."""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)(?![A-Za-z_])")
RELATIVE = 1e-4
ROUGH = 5e-3  # lines marked "rough" print what bfloat16 made: 8 bits of mantissa


def run(script: Path, *, seconds: float = 280) -> subprocess.CompletedProcess:
    """`weft run script`, with this interpreter and this source tree."""
    return subprocess.run(
        [sys.executable, "-m", "weft", "run", str(script)],
        capture_output=True,
        text=True,
        timeout=seconds,
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
