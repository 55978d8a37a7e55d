"""The verbs on a small model: what they print, and mistakes told in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import weft
from tests.io.models import cnn
from weft import io, nn
from weft.cli import main
from weft.runtime import native

pytest.importorskip("onnxruntime")


def _run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "digits.weft"
    io.save(path, *cnn(), labels=[str(i) for i in range(10)], card="Reads digits.")
    return path


def test_help_lists_the_verbs() -> None:
    text = _run("--help").output
    for verb in ("demo", "train", "serve", "export", "verify", "info", "bench", "doctor"):
        assert re.search(rf"^  {verb} ", text, re.M)
        assert _run(verb, "--help").exit_code == 0
    assert weft.__version__ in _run("--version").output


def test_info(model: Path) -> None:
    got = _run("info", model, "--graph", "--tensors")
    assert got.exit_code == 0, got.output
    assert "signature (input: f32[b,1,12,12]) -> output: f32[b,10]" in got.output
    assert "compiled graph: ok, largest difference 0" in got.output
    assert "labels: 0, 1, 2" in got.output and "Reads digits." in got.output
    assert "9.weight" in got.output and "= LogSoftmax(dim=1)" in got.output


def test_verify(model: Path) -> None:
    good = _run("verify", model)
    assert good.exit_code == 0 and "same bits" in good.output
    file = io.load(model)
    file.arrays["9.bias"] = file.arrays["9.bias"] * 2
    file.write()
    bad = _run("verify", model)
    assert bad.exit_code == 1 and "FAILED" in bad.output and "were changed" in bad.output


def test_export_and_verify_the_export(model: Path, tmp_path: Path) -> None:
    made = _run("export", model, "--keep")
    assert made.exit_code == 0, made.output
    assert "wrote" in made.output and "ONNX in onnxruntime" in made.output
    assert (tmp_path / "digits.onnx").exists()
    assert "ONNX in onnxruntime" in _run("info", model).output
    assert _run("verify", model, "--onnx", tmp_path / "digits.onnx").exit_code == 0
    other = _run("export", model, "-o", tmp_path / "other.onnx", "--opset", 20, "--no-check")
    assert other.exit_code == 0 and "ONNX in" not in other.output


def test_bench(model: Path) -> None:
    got = _run("bench", model, "--batch", 3, "--runs", 2)
    assert got.exit_code == 0, got.output
    assert "batch 3" in got.output and "rows/s" in got.output and "Conv2d" in got.output


def test_bench_of_a_model_of_indices(tmp_path: Path) -> None:
    io.save(tmp_path / "m.weft", nn.Embedding(5, 2), weft.randint(0, 5, (2, 3)))
    assert _run("bench", tmp_path / "m.weft", "--batch", 7, "--runs", 1).exit_code == 0


def test_doctor() -> None:
    got = _run("doctor")
    assert got.exit_code == 0, got.output
    for word in ("numpy", "CPU", "threads", "kernel cache", "compiled equals eager", "all well",
                 "GOP/s of bfloat16"):  # fmt: skip
        assert word in got.output
    said = "bf16, int8" if native.host().has("amx-int8") else f"not used: {native.why_no_tiles()}"
    assert f"tile registers (AMX): {said}\n" in got.output


TRAINING = """
import weft
from helper import rows
from weft import nn, optim, train
from weft.data import DataLoader, TensorDataset

def make():
    weft.manual_seed(0)
    model = nn.Linear(3, 1)
    data = TensorDataset(*rows())
    trainer = train.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), 0.1),
                            folder={folder!r}, compile=False)
    return trainer, DataLoader(data, batch_size=4)

three = 3
"""


def test_train_and_resume(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(TRAINING.format(folder=str(tmp_path / "runs")))
    (tmp_path / "helper.py").write_text(
        "import weft\ndef rows():\n    return weft.ones(8, 3), weft.zeros(8, 1)\n"
    )
    first = _run("train", script, "--epochs", 2)
    assert first.exit_code == 0, (first.output, first.exception)
    losses = [float(v) for v in re.findall(r"loss (\d+\.\d+)", first.output)]
    assert len(losses) == 2 and losses[1] < losses[0]
    for target, says in (
        (f"{script}:none", "no function 'none'"),
        (f"{script}:three", "no function 'three'"),
        (tmp_path / "none.py", "no such file"),
    ):
        wrong = _run("train", target)
        assert wrong.exit_code == 1 and says in wrong.output


@pytest.mark.parametrize("verb", ["info", "verify", "export", "bench", "serve"])
def test_files_that_are_no_models_give_one_line(verb: str, tmp_path: Path, model: Path) -> None:
    cut = tmp_path / "cut.weft"
    cut.write_bytes(model.read_bytes()[:-100])
    text = tmp_path / "text.weft"
    text.write_text("hello")
    lie = tmp_path / "lie.weft"
    file = io.load(model)
    file.metadata["weft.graph.forward"] = "graph (x: f32[3]) {\n  return y=%9\n}"
    file.write(lie)
    for path in (tmp_path / "none.weft", cut, text, tmp_path, lie):
        got = _run(verb, path)
        assert got.exit_code == 1, (path, got.output)
        if not (path == lie and verb == "verify"):  # a report of the failed check
            assert got.output.startswith("Error: ") and got.output.count("\n") == 1, got.output
        assert path.name in got.output or "digits" in got.output
        assert isinstance(got.exception, SystemExit)


def test_without_a_graph(tmp_path: Path) -> None:
    path = tmp_path / "m.weft"
    io.save(path, nn.Linear(2, 2))
    assert "2 tensors, 6 numbers" in _run("info", path).output
    for verb in ("export", "bench", "serve"):
        got = _run(verb, path)
        assert got.exit_code == 1 and got.output.startswith("Error: "), got.output
    assert "no recorded inputs" in _run("verify", path).output


def test_wrong_options(model: Path) -> None:
    assert "opset 3" in _run("export", model, "--opset", 3).output
    assert _run("bench", model, "--batch", 0).exit_code == 2
    assert _run("serve", model, "--port", 70000).exit_code == 2
    assert _run("verify", model, "--onnx", "/nonexistent.onnx").exit_code == 1
