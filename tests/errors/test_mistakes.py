"""The commonest mistakes fail as in torch: its class of exception, its words or what matters."""

import builtins
import json
import warnings
from pathlib import Path

import pytest

from tests.errors.mistakes import MISTAKES, PRELUDE
from weft.compat import alias

RECORD = json.loads(
    (Path(__file__).resolve().parents[1] / "fixtures/mistakes.json").read_text("utf-8")
)
PREPARED = compile(PRELUDE, "prelude", "exec")


@pytest.fixture(scope="module")
def names():
    """What a program of the table finds defined: Weft under torch's names."""
    import sys

    assert not any(k == "torch" or k.startswith("torch.") for k in sys.modules)
    alias.install()
    found: dict = {}
    exec(PREPARED, found)
    yield found
    sys.meta_path.remove(alias._FINDER)
    for name in [k for k in sys.modules if k == "torch" or k.startswith("torch.")]:
        del sys.modules[name]


def raised(program: str, names: dict) -> Exception:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exec(program, dict(names))
        except Exception as e:
            return e
    raise AssertionError("nothing was raised")


def plain(text: str) -> str:
    return " ".join(text.replace("torch.", "").replace("weft.", "").split())


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_fails_as_in_torch(name, names):
    program, words = MISTAKES[name]
    theirs, message = RECORD[name]
    e = raised(program, names)
    classes = {c.__name__ for c in type(e).__mro__}  # torch spells one _LinAlgError
    assert theirs.lstrip("_") in classes, f"{type(e).__name__}: {e}\ntorch: {theirs}: {message}"
    if plain(str(e)) != plain(message):
        lacking = [w for w in words.split() if w not in str(e)]
        assert not lacking, f"{e}\nlacks {lacking}; torch: {message}"


def test_the_table_has_more_than_a_hundred_rows_of_each_its_own():
    assert len(MISTAKES) >= 250 and set(MISTAKES) == set(RECORD)
    assert len({p for p, _ in MISTAKES.values()}) == len(MISTAKES)
    assert all(
        hasattr(builtins, c) or c in ("PicklingError", "_LinAlgError") for c, _ in RECORD.values()
    )


def test_the_comparison_can_fail(names):
    with pytest.raises(AssertionError, match="nothing was raised"):
        raised("torch.ones(2)", names)
    assert type(raised("torch.ones(2) + torch.ones(3)", names)) is RuntimeError
