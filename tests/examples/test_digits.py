"""`weft train examples/digits.py`, stopped and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from weft import io
from weft.cli import main

pytest.importorskip("sklearn")
EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.py"


def test_training_and_resuming(tmp_path, monkeypatch):
    def run(*words: str) -> None:
        done = CliRunner().invoke(main, ["train", str(EXAMPLE), *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output

    folders = tmp_path / "whole", tmp_path / "twice"
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(folders[0])
    run("--epochs", "3")
    monkeypatch.chdir(folders[1])
    run("--epochs", "1")
    run("--epochs", "3", "--resume")
    logs = [(f / "runs/small_digits/log.csv").read_text() for f in folders]
    assert logs[0] == logs[1]
    state = io.load_state(folders[1] / "runs/small_digits/last.weft")
    assert state["epoch"] == 3 and state["history"][-1]["val_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("make = 3", "no function 'make'"),
        ("def make(): return 1", "wanted (trainer, loader[, validation loader])"),
    ],
)
def test_a_file_that_makes_no_trainer(text, message, tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(text)
    done = CliRunner().invoke(main, ["train", str(path)])
    assert done.exit_code == 1 and message in done.output
