"""Kernels keep to their room: no access outside of operands, scratch, rooms on the stack."""

import re
import subprocess
import sys
from pathlib import Path

# `make watch` runs all parts, and other tests too
PARTS = {"rows": 2000, "places": 1000, "nothing": 8}


def test_the_watch_sees_and_kernels_keep_to_their_room() -> None:
    """In a process of its own: a watched one has other kernels and no native calls."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.kernels.watched", *PARTS]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    launches = {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", done.stdout)}
    assert launches.keys() == PARTS.keys()
    assert all(launches[part] > least for part, least in PARTS.items()), launches
