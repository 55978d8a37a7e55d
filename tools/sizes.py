"""The size table: lines of each part of src/weft against its budget, and files that are too long.

A file past 600 lines must say why in its module docstring, on a line that starts with `Long
because`; past 1,000 it is split. Budgets are for comparison: crossing one is printed, not an error.
Raise one here by a commit that says why.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

NEEDS_A_REASON = 600
LIMIT = 1000
BUDGETS = {
    "core": 4300,  # from 2,400: two IRs with text, verifier, interpreter; ONNX rules; overrides
    # from 4,700: torch's draws bit by bit; a call on known layouts, its view or tape node, a
    # tensor's facts, joins, matches inside a compiled function and a whole replay are builtins in
    # LLVM IR, a line of which says little: 4,900 lines
    "runtime": 8700,
    # from 11,500: convolutions in five ways (wide, few channels, depthwise, by rows, weights),
    # attention with its gradient, recurrent steps, bytes, pairs of bfloat16, copies of weights,
    # epilogues: what the distance to the machine's limit asked for (bench/RESULTS.md); 2,000 lines
    # are files of tile registers; spans of pixels, pieces of k, gradients spread among zeros,
    # planes of all parts, the best of a row, averages, one place of a long row
    "kernels": 22300,
    # from 4,500: 679 of torch's operators, complex too, with its words; bytes; what random calls
    # with wrong arguments made name its argument and numbers; compositions as one launch; torch's
    # gradients beside NaN and infinities, modules' native calls
    "ops": 25000,
    "tensor": 700,
    "byte_image": 300,  # new: what flows between quantized convolutions
    "nested": 320,  # new: torch.nested
    "stored": 300,  # new: float8 and wide unsigned ints, kept and cast
    "sparse": 1200,  # new: tensors of sparse layouts, torch.sparse
    "methods": 580,  # new: Tensor's methods, one list a room
    "autograd": 2950,  # from 1,000: func transforms, gradcheck, hooks, checkpoint
    # from 4,500: replays with their guards, matches and runs by native code, updates of optimizers
    # as nodes, layouts, samples in slices, copies of weights, tuning, profiles, memories of the
    # call before
    "compile": 7350,
    "nn": 7900,  # from 3,500: torch.nn's layers, state_dict, hooks, init, int8 layers
    "optim": 2750,  # from 1,200: fifteen optimizers, sixteen schedules, averaging
    "data": 1250,
    "io": 3700,  # from 2,000: ONNX export with its own replay; .pt files read and written
    "train": 900,
    "serve": 600,
    "ship": 1500,
    "cli": 900,  # new: the verbs
    "compat": 3900,  # new: the alias `torch` and its namespaces
    "distributions": 3800,  # from 1,300: all of torch.distributions, 85 divergences, transforms
    "amp": 250,  # new: autocast and gradient scaling
    "utils": 400,  # new: torch.utils, a TensorBoard writer of its own
}


def lines_of(path: Path) -> int:
    """Physical lines, as an editor counts them."""
    return len(path.read_text(encoding="utf-8").splitlines())


def part_of(path: Path, package: Path) -> str:
    """`src/weft/ops/conv.py` -> `ops`, `src/weft/tensor.py` -> `tensor`."""
    return path.relative_to(package).with_suffix("").parts[0]


def violations(package: Path) -> list[str]:
    """`path:line: what is wrong` for every file that is too long or does not say why."""
    bad = []
    for path in sorted(package.rglob("*.py")):
        count = lines_of(path)
        if count > LIMIT:
            bad.append(f"{path}:{LIMIT + 1}: {count} lines; past {LIMIT:,} a file is split")
        elif count > NEEDS_A_REASON:
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            if not any(line.startswith("Long because") for line in docstring.splitlines()):
                bad.append(
                    f"{path}:1: {count} lines; past {NEEDS_A_REASON} the module docstring needs a "
                    "line that starts with 'Long because'"
                )
    return bad


def table(package: Path) -> str:
    """One row a part: files, lines, budget, share used, longest file."""
    files = sorted(package.rglob("*.py"))
    lines: Counter[str] = Counter()
    number: Counter[str] = Counter()
    longest: dict[str, tuple[int, str]] = {}
    for path in files:
        part, count = part_of(path, package), lines_of(path)
        lines[part] += count
        number[part] += 1
        longest[part] = max(longest.get(part, (0, "")), (count, path.name))
    rows = [f"{'part':<12} {'files':>5} {'lines':>7} {'budget':>7} {'used':>5}  longest file"]
    order = [*(p for p in BUDGETS if p in lines), *sorted(lines.keys() - BUDGETS.keys())]
    for part in order:
        budget = BUDGETS.get(part)
        used = f"{lines[part] / budget:>5.0%}" if budget else "    -"
        over = "  over budget" if budget and lines[part] > budget else ""
        shown = f"{budget:,}" if budget else "-"
        count, name = longest[part]
        rows.append(
            f"{part:<12} {number[part]:>5} {lines[part]:>7,} {shown:>7} {used}  {count:>4} "
            f"{name}{over}"
        )
    rows.append(f"{'all':<12} {len(files):>5} {lines.total():>7,} {sum(BUDGETS.values()):>7,}")
    return "\n".join(rows)


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    package = root / "src" / "weft"
    print(table(package))
    bad = violations(package)
    for line in bad:
        print(line.replace(str(root) + "/", ""))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
