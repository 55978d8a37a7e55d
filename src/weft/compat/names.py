"""The 1,000 torch names that complete most real programs, in that order (names.txt).

A line is: name, files of 61 public repositories that use it, and the share of those files whose
every name lies on or above the line.
"""

from __future__ import annotations

from pathlib import Path

LINES = [
    line.split() for line in Path(__file__).with_suffix(".txt").read_text("utf-8").splitlines()
]
NAMES = [name for name, _, _ in LINES]
SHARE = {name: float(share) for name, _, share in LINES}
