"""The size table on Weft itself, and its teeth on invented files."""

from pathlib import Path

import pytest

from tools.sizes import BUDGETS, table, violations

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "weft"


def test_no_file_of_weft_is_too_long():
    bad = violations(PACKAGE)
    assert not bad, "\n".join(["", *bad])


@pytest.mark.parametrize(
    ("lines", "docstring", "complaint"),
    [
        (600, '"""Short."""', None),
        (601, '"""Short."""', ":1: 601 lines; past 600"),
        (601, "x = 1", ":1: 601 lines; past 600"),
        (1000, '"""A table.\n\nLong because the table has one row an op.\n"""', None),
        (1001, '"""A table.\n\nLong because of it.\n"""', ":1001: 1001 lines; past 1,000"),
    ],
)
def test_length_rules(tmp_path, lines, docstring, complaint):
    path = tmp_path / "a.py"
    head = docstring.splitlines()
    path.write_text("\n".join(head + ["pass"] * (lines - len(head))) + "\n")
    bad = violations(tmp_path)
    assert (bad == []) if complaint is None else len(bad) == 1 and f"{path}{complaint}" in bad[0]


def test_table_adds_up(tmp_path):
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.py").write_text("x = 1\n" * (BUDGETS["core"] + 1))
    (tmp_path / "core" / "b.py").write_text("x = 1\n" * 3)
    tenth = BUDGETS["tensor"] // 10
    (tmp_path / "tensor.py").write_text("x = 1\n" * tenth)
    rows = {line.split()[0]: line for line in table(tmp_path).splitlines()}
    budget = BUDGETS["core"]
    assert rows["core"].split()[1:4] == ["2", f"{budget + 4:,}", f"{budget:,}"]
    assert rows["core"].endswith("over budget") and "a.py" in rows["core"]
    assert rows["tensor"].split()[1:5] == ["1", str(tenth), str(BUDGETS["tensor"]), "10%"]
    assert rows["all"].split()[1:3] == ["3", f"{budget + 4 + tenth:,}"]
