"""Switches read from the environment, and the printing of the compiler's stages.

WEFT_DEBUG   1 a line a compile  2 the graph with the user's lines  3 what each pass changed
             4 loops and schedule  5 LLVM IR  6 assembly.  Each level prints the ones below too.
WEFT_DUMP    a folder: the same texts as numbered files, for a bug report
WEFT_WEIGHT_PREPACK   0: programs keep no packed copies of weights, unless they are told to
"""

from __future__ import annotations

import itertools
import os
import sys

_numbers = itertools.count(1)


def debug_level() -> int:
    """WEFT_DEBUG as an int; 0 when unset or not a number."""
    text = os.environ.get("WEFT_DEBUG", "")
    return int(text) if text.isdigit() else 0


def packs_weights() -> bool:
    """Whether programs keep packed copies of weights that do not change; WEFT_WEIGHT_PREPACK."""
    return os.environ.get("WEFT_WEIGHT_PREPACK") != "0"


def wants(level: int) -> bool:
    """Whether a stage's text is wanted at all (it may be costly to make)."""
    return debug_level() >= level or "WEFT_DUMP" in os.environ


def show(level: int, stage: str, text: str) -> None:
    """Print a stage's text at its level; write it to WEFT_DUMP's folder."""
    if debug_level() >= level:
        head = text if level == 1 else f"-- {stage}\n{text}"
        print(head, file=sys.stderr)
    folder = os.environ.get("WEFT_DUMP")
    if folder:
        os.makedirs(folder, exist_ok=True)
        name = f"{next(_numbers):04d}-{stage.replace(' ', '-').replace('/', '_')[:60]}.txt"
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text + "\n")
