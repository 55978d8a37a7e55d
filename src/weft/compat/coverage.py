"""Which of the 1,000 most used torch names Weft has: `python -m weft.compat.coverage`.

Prints the totals, and with `--write` makes docs/coverage.md.  A name is *tested* when the tests or
the programs under tests/ name it, *present* when it resolves, and *missing* otherwise, with the
reason.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from weft.compat import alias
from weft.compat.names import NAMES, SHARE
from weft.compat.report import exists
from weft.compat.torch_ import absent

_NAMES_ONLY = {
    f"torch.{n}"
    for n, d in vars(absent).items()
    if n[0].isupper() or isinstance(d, absent.AbsentDtype)
}
_NAMES_ONLY |= {n for n in NAMES if "flex_attention" in n}
CUTS = (300, 500, 700, 1000)

# What is missing, and why: the first pattern that matches the name.
REASONS: tuple[tuple[str, str], ...] = (
    (r"quant|int_repr|q_scale|q_zero|qint|per_channel", "quantized tensors: none yet"),
    (r"float8|uint16", "a dtype that Weft lacks"),
    (r"flex_attention", "needs torch's compiler"),
    (r"Tensor\.names$", "torch 2.13 has none either: a word of lists and files"),
    (r"Tensor\.index$", "binds first-class dims; here a word of lists"),
    (r"prune", "pruning masks: not yet"),
    (r"dataloader\._", "an inner class of torch's loader"),
)


def why(name: str) -> str:
    """Why a name is missing."""
    return next((said for pattern, said in REASONS if re.search(pattern, name)), "not yet")


def named_in_tests(root: Path) -> set[str]:
    """Every word of the test-suite: tests, recorded cases, programs."""
    words: set[str] = set()
    for path in (root / "tests").rglob("*"):
        if path.suffix in (".py", ".json") and path.name != "torch_signatures.json":
            words.update(re.findall(r"[A-Za-z_]\w*", path.read_text("utf-8", errors="ignore")))
    return words


def statuses(root: Path) -> dict[str, str]:
    """name -> tested, present, or `missing: why`."""
    words = named_in_tests(root)
    out = {}
    for name in NAMES:
        if name in _NAMES_ONLY:
            out[name] = (
                "missing: a name only, for tables and annotations: nothing can be made of it"
            )
        elif not exists(name):
            out[name] = f"missing: {why(name)}"
        else:
            out[name] = "tested" if name.rpartition(".")[2] in words else "present"
    return out


def totals(found: dict[str, str]) -> list[str]:
    """How many of the first 300, 500, 700 and 1,000 exist, and how far no name is missing."""
    lines = []
    for cut in CUTS:
        some = [found[n] for n in NAMES[:cut]]
        have = sum(not s.startswith("missing") for s in some)
        tested = sum(s == "tested" for s in some)
        lines.append(f"first {cut}: {have} exist ({have / cut:.1%}), {tested} of them tested")
    first = next((i for i, n in enumerate(NAMES) if found[n].startswith("missing")), len(NAMES))
    share = SHARE[NAMES[first - 1]] if first else 0.0
    lines.append(f"first missing name: {NAMES[first] if first < len(NAMES) else 'none'}")
    lines.append(f"files of real repositories complete up to there: {share:.1%} (a lower bound)")
    return lines


def ignored() -> list[tuple[str, str]]:
    """Names that are accepted and do nothing, or less than torch: (name, what they say)."""
    out = []
    for face in sorted(alias.TABLE):
        for path in alias.sources(face):
            if not path.startswith("weft.compat.torch_"):
                continue
            for name, thing in sorted(vars(alias.source(path)).items()):
                doc = (inspect.getdoc(thing) or "").partition("\n")[0]
                own = str(getattr(thing, "__module__", "")).startswith("weft.compat.torch_")
                if own and re.search(
                    r"^(Kept|Accepted|Nothing|Without)|without effect|does nothing", doc
                ):
                    out.append((f"{face}.{name}", doc))
    return out


def document(root: Path) -> str:
    """docs/coverage.md."""
    found = statuses(root)
    lines = [
        "# Which torch names exist",
        "",
        "Made by `python -m weft.compat.coverage --write`. The names are the 1,000 that",
        "complete most files of 61 public repositories, in that order. *tested*: named in Weft's",
        "tests; *present*: resolves, and no test names it.",
        "",
        *[f"- {line}" for line in totals(found)],
        "",
        "## Missing",
        "",
        "| order | name | why |",
        "|---|---|---|",
    ]
    for i, name in enumerate(NAMES):
        if found[name].startswith("missing"):
            lines.append(f"| {i + 1} | `{name}` | {found[name].removeprefix('missing: ')} |")
    lines += ["", "## Accepted, without torch's effect", "", "| name | what it does |", "|---|---|"]
    lines += [f"| `{name}` | {said} |" for name, said in ignored()]
    lines += ["", "## Every name", "", "| order | name | status |", "|---|---|---|"]
    lines += [f"| {i + 1} | `{n}` | {found[n].partition(':')[0]} |" for i, n in enumerate(NAMES)]
    return "\n".join(lines) + "\n"


def main() -> None:
    root = Path(__file__).resolve().parents[3]
    alias.install()
    if "--write" in sys.argv[1:]:
        (root / "docs/coverage.md").write_text(document(root), "utf-8")
    print(*totals(statuses(root)), sep="\n")


if __name__ == "__main__":
    main()
