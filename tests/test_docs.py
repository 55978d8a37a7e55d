"""The Python blocks of README.md and docs/ run, and links between the pages lead somewhere.

All ```python blocks of a page run in order as one program. A block below the line
`<!-- not run: REASON -->` is left out; blocks in other languages (```sh) are never run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def program_of(page: str) -> str:
    """The page's Python blocks, every other line blanked, so that line numbers are the page's."""
    out, inside, skip = [], False, False
    for line in page.splitlines():
        fence = line.strip()
        if inside and fence == "```":
            inside = False
            out.append("")
        elif not inside and fence.startswith("```python"):
            inside, run, skip = True, not skip, False
            out.append("")
        else:
            out.append(line if inside and run else "")
            if not inside and fence:
                skip = fence.startswith("<!-- not run:")
    assert not inside, "a ```python block has no end"
    return "\n".join(out) + "\n"


def test_program_keeps_line_numbers_and_leaves_out_the_rest():
    page = (
        "# T\n```sh\nmake\n```\n```python\nx = 1\n```\ntext\n<!-- not run: slow -->\n```python\ny\n"
        "```\n```python\nz = x\n```\n"
    )
    wanted = {6: "x = 1", 14: "z = x"}
    lines = program_of(page).splitlines()
    assert {n: line for n, line in enumerate(lines, 1) if line} == wanted


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_blocks_run(page, tmp_path):
    program = program_of(page.read_text(encoding="utf-8"))
    if not program.strip():
        return  # prose only
    script = tmp_path / f"{page.stem}.py"
    script.write_text(program, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", script.name],
        cwd=tmp_path,  # what the page writes stays out of the checkout
        env={**os.environ, "MPLBACKEND": "Agg"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, f"line numbers are those of {page}:\n{run.stdout}\n{run.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    links = re.findall(r"\]\(([^)#\s]+)", text)
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    lost = [link for link in local if not (page.parent / link).exists()]
    assert not lost, f"{page} links to {lost}"
