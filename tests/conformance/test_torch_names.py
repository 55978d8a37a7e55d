"""Weft's names take torch's arguments, in torch's order, with torch's defaults."""

import pytest

from tools.conformance import RECORD, compare, disagreements

# `name: how it differs` -> why it must
DIFFERENCES: dict[str, str] = {}
# Weft's own design under a torch name
OWN = {"compile", "save", "load"}


def test_arguments_agree_with_torch():
    found = [
        line
        for _, _, differing in compare().values()
        for line in differing
        if line not in DIFFERENCES and line.split(":")[0] not in OWN
    ]
    assert not found, "\n".join(["", *found])


def test_the_record_covers_the_namespaces_and_finds_weft():
    report = compare()
    assert RECORD.stat().st_size > 50_000
    for namespace, least in [("nn", 40), ("nn.functional", 30), ("optim", 4), ("Tensor", 100)]:
        assert len(report[namespace][0]) >= least, (namespace, report[namespace][1])


def plain(a, b=1, *, c=None): ...


class Made:
    def __init__(self, a, b=0.5, **rest): ...


@pytest.mark.parametrize(
    ("thing", "theirs", "wanted"),
    [
        (plain, [["a", ""], ["b", "1"], ["*", ""], ["c", "None"]], []),
        (plain, [["a", ""], ["b", "1.0"]], []),
        (plain, [["a", ""], ["b", "2"]], ["`b` defaults to 1, torch's to 2"]),
        (plain, [["a", "1"]], ["`a` defaults to none, torch's to 1"]),
        (plain, [["a", ""], ["dim", "0"]], ["lacks `dim`"]),
        (plain, [["a", ""], ["device", "None"]], []),
        (plain, [["b", "1"], ["a", ""]], ["order is ['a', 'b'], torch's ['b', 'a']"]),
        (plain, [["a", ""], ["c", "None"]], ["`c` is keyword-only"]),
        (Made, [["a", ""], ["b", "0.5"], ["z", "3"]], []),
        (Made, [["a", ""], ["b", "0.25"]], ["`b` defaults to 0.5, torch's to 0.25"]),
    ],
)
def test_how_arguments_are_compared(thing, theirs, wanted):
    assert disagreements(thing, theirs) == wanted
