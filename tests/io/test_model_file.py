"""Model files: saved models answer without their Python, to the bit, at any batch size."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weft
from tests.io.models import MODELS, cnn, mlp, outputs
from weft import io, nn
from weft.compile.trace import TraceError
from weft.io import report


@pytest.mark.parametrize("name", MODELS)
def test_the_file_answers_as_eager_at_any_batch(name: str, tmp_path: Path) -> None:
    weft.manual_seed(1)
    model, x = MODELS[name]()
    path = tmp_path / "m.weft"
    io.save(path, model, x)
    file = io.load(path)
    found = io.verify(file)
    assert found.ok and all(c.bitwise for c in found.checks), str(found)
    for batch in (1, 2, 7):
        rows = weft.cat([x, x, x])[:batch]
        got = file.run({"input": rows.numpy()})
        for key, want in outputs(model, rows).items():
            assert got[key].tobytes() == want.numpy().tobytes(), (key, batch)
            assert got[key].shape == tuple(want.shape)
            assert got[key].flags.owndata or got[key].base is not None


def test_an_empty_batch(tmp_path: Path) -> None:
    file = io.save(tmp_path / "m.weft", *mlp())
    assert file.run({"input": np.zeros((0, 4), np.float32)})["output"].shape == (0, 3)


def test_another_process_needs_no_python_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "m.weft"
    io.save(path, *MODELS["tokens"]())
    code = (
        "import sys; from weft import io\n"
        "found = io.verify(io.load(sys.argv[1]))\n"
        "print(found.ok, found.largest)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert run.stdout.split() == ["True", "0.0"], run.stderr


def test_the_state_dict_comes_back(tmp_path: Path) -> None:
    model, x = cnn()
    io.save(tmp_path / "m.weft", model, x)
    fresh, _ = cnn()
    fresh.load_state_dict(io.load(tmp_path / "m.weft").state_dict())
    want, got = outputs(model, x)["output"], outputs(fresh, x)["output"]
    assert want.numpy().tobytes() == got.numpy().tobytes()


def test_what_else_a_file_keeps(tmp_path: Path) -> None:
    model, x = mlp()
    training = {"epoch": 3, "m": [weft.ones(2), (1, None, b"\x00", float("nan"))], 7: weft.float16}
    io.save(
        tmp_path / "m.weft", model, x, labels=["a", "b", "c"], preprocessing={"mean": 0.5},
        card="what it is", training=training, lineage={"data": "none"}, input_names=["row"],
    )  # fmt: skip
    file = io.load(tmp_path / "m.weft")
    assert file.labels == ["a", "b", "c"]
    assert file.preprocessing == {"mean": 0.5}
    assert file.metadata["weft.card"] == "what it is"
    assert file.lineage["data"] == "none" and file.lineage["weft"] == weft.__version__
    assert file.graph().inputs[0].name == "row"
    back = file.training
    assert back is not None and back["epoch"] == 3 and back[7] is weft.float16
    assert back["m"][0].tolist() == [1, 1] and back["m"][1][:3] == (1, None, b"\x00")
    assert np.isnan(back["m"][1][3])
    kept = file.report()
    assert kept is not None and kept["ok"] and kept["checks"][0]["bitwise"]


def test_the_training_mode_comes_back() -> None:
    model, x = cnn()
    model.train()
    model[1].eval()
    before = [m.training for m in model.modules()]
    with pytest.raises(FileNotFoundError):
        io.save("/nonexistent/m.weft", model, x)
    assert [m.training for m in model.modules()] == before


def test_inputs_that_do_not_fit(tmp_path: Path) -> None:
    file = io.save(tmp_path / "m.weft", *mlp())
    with pytest.raises(ValueError, match="takes"):
        file.run({})
    with pytest.raises(ValueError, match="takes"):
        file.run({"input": np.zeros((1, 4), np.float32), "more": np.zeros(1)})
    with pytest.raises(ValueError, match="float64"):
        file.run({"input": np.zeros((1, 4))})
    for shape in ((1, 5), (4,), (1, 1, 4), ()):
        with pytest.raises(ValueError, match="wanted"):
            file.run({"input": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("dtype", [weft.float32, weft.bfloat16])
def test_tensors_are_inputs(dtype: weft.dtype, tmp_path: Path) -> None:
    model, x = mlp()
    file = io.save(tmp_path / "m.weft", model.to(dtype), x.to(dtype))
    got = file.run({"input": x.to(dtype)})["output"]
    np.testing.assert_array_equal(got, outputs(model, x.to(dtype))["output"].numpy())
    with pytest.raises(ValueError, match=r"float64.*takes"):
        file.run({"input": x.double()})


def test_strided_inputs_and_weights(tmp_path: Path) -> None:
    """A transposed weight and a transposed input are still the numbers they stand for."""
    model = nn.Linear(4, 3)
    model.weight = nn.Parameter(weft.randn(4, 3).t())
    x = weft.randn(4, 5).t()
    file = io.save(tmp_path / "m.weft", model, x)
    got = file.run({"input": np.asfortranarray(x.numpy())})["output"]
    np.testing.assert_array_equal(got, outputs(model, x)["output"].numpy())


class Noisy(nn.Module):
    def forward(self, x: weft.Tensor) -> weft.Tensor:
        return x + weft.randn(3)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", weft.zeros(()))

    def forward(self, x: weft.Tensor) -> weft.Tensor:
        self.count += 1
        return x * self.count


@pytest.mark.parametrize("kind", [Noisy, Counting])
def test_models_that_are_no_function_are_refused(kind: type, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"random|writes"):
        io.save(tmp_path / "m.weft", kind(), weft.randn(2, 3))
    assert not list(tmp_path.iterdir())


def test_a_changed_weight_is_found(tmp_path: Path) -> None:
    """A file whose digest was made again but whose answers are no longer the recorded ones."""
    file = io.save(tmp_path / "m.weft", *mlp())
    file.arrays["0.weight"] = file.arrays["0.weight"] + np.float32(0.5)
    file.write()
    found = io.verify(io.load(tmp_path / "m.weft"))
    assert not found.ok
    assert found.first_difference is not None and found.first_difference.startswith("none")


def test_the_first_op_that_differs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a kernel that computes something else than the op means, the op and line are named."""
    from weft.ops.softmax import Softmax

    file = io.save(tmp_path / "m.weft", *mlp())
    meaning = Softmax.oracle
    monkeypatch.setattr(Softmax, "oracle", lambda self, x: meaning(self, x) * 1.5)
    file.arrays["weft/record/0/outputs/output"] *= 1.5
    found = report.verify(file)
    assert found.first_difference is not None
    assert found.first_difference.startswith("Softmax(dim=1) at test_model_file.py:")
    assert "first op that differs: Softmax" in str(found)


def test_an_op_whose_oracle_has_no_answer_is_passed_over(tmp_path: Path) -> None:
    """NumPy solves no singular system, which elimination of a tall singular matrix goes through."""

    class Factors(nn.Module):
        def forward(self, x: weft.Tensor) -> weft.Tensor:
            return weft.linalg.lu_factor_ex(x)[0]

    file = io.save(tmp_path / "m.weft", Factors(), weft.ones(3, 2), dynamic_batch=False)
    file.arrays["weft/record/0/outputs/output"] *= 1.5
    found = report.verify(file)
    assert not found.ok
    assert found.first_difference is not None and found.first_difference.startswith("none")


def test_programs_of_many_sizes_do_not_pile_up(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    file = io.save(tmp_path / "m.weft", model, weft.ones(1, 2))
    for n in range(1, 80):
        file.run({"input": np.ones((n, 2), np.float32)})
    assert len(file.programs()) <= 64


def test_without_an_example(tmp_path: Path) -> None:
    io.save(tmp_path / "m.weft", nn.Linear(2, 2))
    file = io.load(tmp_path / "m.weft")
    with pytest.raises(KeyError, match="without an example"):
        file.graph()
    assert not io.verify(file).ok


def test_a_fixed_batch(tmp_path: Path) -> None:
    file = io.save(tmp_path / "m.weft", *mlp(), dynamic_batch=False)
    with pytest.raises(ValueError, match="wanted"):
        file.run({"input": np.zeros((1, 4), np.float32)})


def test_a_first_dim_that_is_no_batch(tmp_path: Path) -> None:
    """An LSTM with a projection, time first: its ops are as many as the steps."""
    model, x = nn.LSTM(3, 4, proj_size=2), weft.randn(4, 2, 3)
    with pytest.raises(ValueError, match="dynamic_batch=False"):
        io.save(tmp_path / "m.weft", model, (x,))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_over_any_length(kind: type, tmp_path: Path) -> None:
    model, x = kind(3, 2), weft.randn(4, 2, 3)
    file = io.save(tmp_path / "m.weft", model, (x,))
    for steps in (1, 4, 9):
        x = weft.randn(steps, 2, 3)
        got = file.run({"input": x.numpy()})
        assert got["output0"].tobytes() == model(x)[0].detach().numpy().tobytes()


@pytest.mark.parametrize("dtype", [weft.float64, weft.float16, weft.bfloat16])
def test_other_floats(dtype: weft.dtype, tmp_path: Path) -> None:
    model, x = mlp()
    model, x = model.to(dtype), x.to(dtype)
    file = io.save(tmp_path / "m.weft", model, x)
    got = io.load(tmp_path / "m.weft").run({"input": x.numpy()})["output"]
    assert got.tobytes() == outputs(model, x)["output"].numpy().tobytes()
    assert file.graph().outputs["output"].type.dtype is dtype


def test_an_input_that_nothing_reads(tmp_path: Path) -> None:
    class Model(nn.Module):
        def forward(self, a: weft.Tensor, b: weft.Tensor) -> weft.Tensor:
            return a * 2

    file = io.save(tmp_path / "m.weft", Model(), (weft.ones(2, 3), weft.ones(2)))
    got = file.run({"input0": np.ones((4, 3), np.float32), "input1": np.ones(4, np.float32)})
    assert got["output"].shape == (4, 3)


def test_nested_answers(tmp_path: Path) -> None:
    model, x = nn.LSTM(3, 2, batch_first=True), weft.randn(4, 2, 3)
    file = io.save(tmp_path / "m.weft", model, x, dynamic_batch=False)
    got = file.run({"input": x.numpy()})
    y, (h, c) = model(x)
    want = {"output0": y, "output1.0": h, "output1.1": c}
    assert {k: a.tobytes() for k, a in got.items()} == {
        k: t.detach().numpy().tobytes() for k, t in want.items()
    }


class Of(nn.Module):
    """A function of the input, and of a weight."""

    def __init__(self, f: Callable) -> None:
        super().__init__()
        self.f = f
        self.weight = nn.Parameter(weft.tensor([1.0, 2.0, 3.0, 4.0]))

    def forward(self, x: weft.Tensor) -> Any:
        return self.f(x, self.weight)


@pytest.mark.parametrize(
    "f",
    [
        lambda x, w: x.detach() * 2 + x,  # another handle of the input comes first
        lambda x, w: x.logsumexp(1),
        lambda x, w: x.data - w.detach() * x,
        lambda x, w: x,
        lambda x, w: {"same": x.detach(), "weight": w, "twice": x * 2},
    ],
)
@pytest.mark.parametrize("dynamic", [True, False])
def test_every_handle_of_an_input_is_the_input(f: Callable, dynamic: bool, tmp_path: Path) -> None:
    model = Of(f)
    file = io.save(tmp_path / "m.weft", model, weft.rand(3, 4), dynamic_batch=dynamic)
    assert not [n.name for n in file.graph().inputs if n.name.startswith("const")]
    x = weft.rand(3, 4) * 9
    got = file.run({"input": x.numpy()})
    for key, want in outputs(model, x).items():
        np.testing.assert_array_equal(got[key], want.detach().numpy())


def test_a_result_that_numpy_made_is_refused(tmp_path: Path) -> None:
    model = Of(lambda x, w: weft.from_numpy(x.numpy() * 2))
    with pytest.raises(TraceError, match="does not depend"):
        io.save(tmp_path / "m.weft", model, weft.rand(3, 4))
