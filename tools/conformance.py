"""Which of torch's public names Weft has, and whether their arguments agree.

    python tools/conformance.py [--missing NAMESPACE]

torch's names were recorded by tests/fixtures/make_torch_signatures.py; torch itself is not needed.
Arguments agree when each of torch's is there under its name, with its default, and the positional
ones in torch's order. Weft may have more, as keywords. Names that torch writes in C++ have no
readable signature: they count as present, their arguments are tested by value elsewhere.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import weft

RECORD = Path(__file__).resolve().parent.parent / "tests/fixtures/torch_signatures.json"
# Arguments that choose among torch's own implementations or devices; Weft has one of each.
IGNORED = {
    "device", "dtype", "layout", "pin_memory", "memory_format", "out", "foreach", "fused",
    "capturable", "differentiable", "pin_memory_device", "multiprocessing_context", "_stacklevel",
    "async_op", "non_blocking", "in_order", "timeout",
}  # fmt: skip
RENAMED = {"utils.data": ("utils.data", "data")}  # where Weft may keep a namespace


def resolve(namespace: str) -> Any:
    """The Weft object for a namespace such as `nn.functional`, or None."""
    for path in RENAMED.get(namespace, (namespace,)):
        thing: Any = weft
        for part in filter(None, path.split(".")):
            thing = getattr(thing, part, None)
        if thing is not None:
            return thing
    return None


def same_default(ours: object, theirs: str) -> bool:
    """Whether a default equals torch's, which was recorded as its repr ("" is none)."""
    if ours is inspect.Parameter.empty or not theirs:
        return (ours is inspect.Parameter.empty) == (not theirs)
    try:
        value = ast.literal_eval(theirs)
    except (ValueError, SyntaxError):
        return True  # an object of torch's: comparable by its repr only
    return bool(ours == value)


def disagreements(thing: object, theirs: list[list[str]]) -> list[str]:
    """How the arguments of `thing` differ from torch's; empty when they agree."""
    target = thing.__init__ if inspect.isclass(thing) else thing
    try:
        ours = {n: p for n, p in inspect.signature(target).parameters.items() if n != "self"}
    except (TypeError, ValueError):
        return []
    takes_any = any(p.kind is p.VAR_KEYWORD for p in ours.values())
    takes_list = any(p.kind is p.VAR_POSITIONAL for p in ours.values())
    out, positional, keyword_only = [], [], False
    for name, default in theirs:
        if name.startswith("*"):
            keyword_only = True
            continue
        if name.startswith("_") or (name in IGNORED and name not in ours):
            continue
        if name not in ours:
            if not (takes_any or (takes_list and not keyword_only)):
                out.append(f"lacks `{name}`")
            continue
        if not same_default(ours[name].default, default):
            default_of_ours = ours[name].default
            mine = "none" if default_of_ours is inspect.Parameter.empty else repr(default_of_ours)
            out.append(f"`{name}` defaults to {mine}, torch's to {default or 'none'}")
        if not keyword_only and ours[name].kind is inspect.Parameter.KEYWORD_ONLY:
            out.append(f"`{name}` is keyword-only")
        elif not keyword_only:
            positional.append(name)
    order = [n for n in ours if n in positional]
    if order != positional:
        out.append(f"order is {order}, torch's {positional}")
    return out


def compare() -> dict[str, tuple[list[str], list[str], list[str]]]:
    """namespace -> (names present, names missing, `name: how its arguments differ`)."""
    report = {}
    for namespace, names in json.loads(RECORD.read_text(encoding="utf-8")).items():
        space = resolve(namespace)
        present, missing, differing = [], [], []
        for name, theirs in names.items():
            thing = getattr(space, name, None)
            if thing is None:
                missing.append(name)
                continue
            present.append(name)
            if theirs is not None and callable(thing):
                prefix = f"{namespace}.{name}" if namespace else name
                differing += [f"{prefix}: {d}" for d in disagreements(thing, theirs)]
        report[namespace] = (present, missing, differing)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--missing", metavar="NAMESPACE", help="list what a namespace lacks")
    args = parser.parse_args()
    report = compare()
    if args.missing is not None:
        print(*report[args.missing.removeprefix("torch").lstrip(".")][1], sep="\n")
        return 0
    print(f"{'namespace':<26} {'torch':>5} {'weft':>5} {'share':>6} {'differ':>6}")
    for namespace, (present, missing, differing) in report.items():
        label = "torch." + namespace if namespace else "torch"
        total = len(present) + len(missing)
        share = len(present) / total
        print(f"{label:<26} {total:>5} {len(present):>5} {share:>6.0%} {len(differing):>6}")
    for _, _, differing in report.values():
        for line in differing:
            print("  " + line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
