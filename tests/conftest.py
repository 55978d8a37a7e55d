"""What every test gets: a seeded generator, golden texts, Hypothesis without clocks or chance."""

import difflib
import os
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")  # no test opens a window

# The same examples every time, on any machine; `--hypothesis-profile=explore` draws new ones.
settings.register_profile(
    "default-suite", deadline=None, derandomize=True, database=None, max_examples=50
)
settings.register_profile(
    "explore", deadline=None, database=None, max_examples=500, print_blob=True
)
settings.load_profile("default-suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the golden texts instead of comparing with them",
    )


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh NumPy generator; the same numbers in every test."""
    return np.random.default_rng(0)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden("softmax.graph", text)` compares `text` with `golden/softmax.graph.txt`.

    The file lies beside the test, in `golden/` unless the test's own folder has that name. With
    `--update-golden` (`make golden`) it is written instead, to be reviewed as a diff.
    """
    folder = request.path.parent
    if folder.name != "golden":
        folder /= "golden"

    def compare(name: str, text: str) -> None:
        path = folder / f"{name}.txt"
        text = text.rstrip("\n") + "\n"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.exists(), f"{path} is missing: `make golden` writes it"
        wanted = path.read_text(encoding="utf-8")
        if text != wanted:
            diff = difflib.unified_diff(
                wanted.splitlines(), text.splitlines(), str(path), "now", lineterm=""
            )
            pytest.fail(
                "\n".join(["differs from the golden text (`make golden` rewrites it):", *diff]),
                pytrace=False,
            )

    return compare
