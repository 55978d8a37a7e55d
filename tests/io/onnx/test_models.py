"""Whole models in ONNX: checked, replayed, at other batch sizes, and what a wrong export says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import weft
from tests.io.models import MODELS, mlp, outputs
from weft import io, nn

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from weft.io import onnx as weft_onnx  # noqa: E402


@pytest.mark.parametrize("name", MODELS)
def test_a_model_at_batches_it_was_not_traced_at(name: str, tmp_path: Path) -> None:
    weft.manual_seed(2)
    model, x = MODELS[name]()
    file = io.save(tmp_path / "m.weft", model, x)
    path = tmp_path / "m.onnx"
    weft_onnx.export(file, path)
    found = weft_onnx.verify(file, path)
    assert found.ok, str(found)
    session = ort.InferenceSession(path.read_bytes())
    assert session.get_inputs()[0].shape[0] == "b"
    names = [o.name for o in session.get_outputs()]
    for batch in (1, 2, 7):
        rows = weft.cat([x, x, x])[:batch]
        got = dict(zip(names, session.run(None, {"input": rows.numpy()}), strict=True))
        for key, want in outputs(model, rows).items():
            np.testing.assert_allclose(got[key], want.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("opset", [17, 18, 20, 22])
def test_opsets(opset: int, tmp_path: Path) -> None:
    model, x = MODELS["cnn"]()
    file = io.save(tmp_path / "m.weft", model, x)
    weft_onnx.export(file, tmp_path / "m.onnx", opset=opset)
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == opset
    assert weft_onnx.verify(file, tmp_path / "m.onnx").ok


@pytest.mark.parametrize("name", ["mlp", "cnn", "tokens"])
def test_the_reference_of_onnx_agrees(name: str, tmp_path: Path) -> None:
    model, x = MODELS[name]()
    file = io.save(tmp_path / "m.weft", model, x)
    weft_onnx.export(file, tmp_path / "m.onnx")
    found = weft_onnx.verify(file, tmp_path / "m.onnx", runtime="reference")
    assert found.ok and "onnx.reference" in found.target, str(found)


def test_names_and_lines(tmp_path: Path) -> None:
    """Weights under their state_dict names, outputs under theirs, each node with its user line."""
    model, x = MODELS["mixed"]()
    file = io.save(tmp_path / "m.weft", model, x)
    made = weft_onnx.to_model(file).model
    assert {"weight", "table.weight"} <= {t.name for t in made.graph.initializer}
    assert [o.name for o in made.graph.output] == list(file.graph().outputs)
    assert any("models.py:" in n.doc_string and "Conv2d" in n.doc_string for n in made.graph.node)
    produced = [o for n in made.graph.node for o in n.output]
    assert len(set(produced)) == len(produced)


def test_an_op_without_a_form_is_named_with_its_line(tmp_path: Path) -> None:
    class Model(nn.Module):
        def forward(self, x: weft.Tensor) -> weft.Tensor:
            return weft.lgamma(x.abs() + 1)

    file = io.save(tmp_path / "m.weft", Model(), weft.randn(2, 3))
    with pytest.raises(ValueError, match=r"Lgamma\(\) at test_models\.py:\d+ .*lgamma"):
        weft_onnx.export(file, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_wrong_export_names_the_first_op_that_differs(tmp_path: Path) -> None:
    """The softmax's node replaced by one over another axis."""
    file = io.save(tmp_path / "m.weft", *mlp())
    path = tmp_path / "m.onnx"
    weft_onnx.export(file, path)
    model = onnx.load(path)
    (node,) = (n for n in model.graph.node if n.op_type == "Softmax")
    node.attribute[0].i = 0
    onnx.save(model, path)
    found = weft_onnx.verify(file, path)
    assert not found.ok
    assert found.first_difference is not None
    assert found.first_difference.startswith("Softmax(dim=1) at test_models.py:")


def test_a_changed_weight_is_named(tmp_path: Path) -> None:
    file = io.save(tmp_path / "m.weft", *mlp())
    path = tmp_path / "m.onnx"
    weft_onnx.export(file, path)
    model = onnx.load(path)
    (weight,) = (t for t in model.graph.initializer if t.name == "0.weight")
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * 2).tobytes()
    onnx.save(model, path)
    found = weft_onnx.verify(file, path)
    assert found.first_difference is not None and "'0.weight'" in found.first_difference


def test_the_report_goes_into_the_file_when_asked(tmp_path: Path) -> None:
    file = io.save(tmp_path / "m.weft", *mlp())
    weft_onnx.export(file, tmp_path / "m.onnx")
    weft_onnx.verify(file, tmp_path / "m.onnx", keep=True)
    file.write()
    kept = io.load(tmp_path / "m.weft").report("onnx")
    assert kept is not None and kept["ok"] and kept["target"].startswith("ONNX in onnxruntime")


def test_files_that_are_no_onnx(tmp_path: Path) -> None:
    file = io.save(tmp_path / "m.weft", *mlp())
    with pytest.raises(FileNotFoundError):
        weft_onnx.verify(file, tmp_path / "none.onnx")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"\x01not onnx")
    with pytest.raises(io.BadFile):
        weft_onnx.verify(file, bad)
    bad.write_bytes(b"")
    with pytest.raises(io.BadFile):
        weft_onnx.verify(file, bad)
    for opset in (11, 999):
        with pytest.raises(ValueError, match="opset"):
            weft_onnx.export(file, bad, opset=opset)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    file = io.save(tmp_path / "m.weft", *mlp())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "weft\[onnx\]"'):
        weft_onnx.export(file, tmp_path / "m.onnx")


class Narrow(nn.Module):
    """What onnxruntime computes in wide integers only."""

    def forward(self, x: weft.Tensor) -> dict[str, weft.Tensor]:
        odd = x % 2 == 1
        return {
            "chosen": weft.where(x > 3, odd, ~odd),
            "signed": weft.where(odd, x, -x),
            "product": x @ weft.full((4, 2), 3, dtype=x.dtype),
            "largest": weft.maximum(x, x * 100),
        }


@pytest.mark.parametrize("dtype", [weft.int8, weft.uint8, weft.int16, weft.int64])
def test_integers_and_bools_of_every_width(dtype: weft.dtype, tmp_path: Path) -> None:
    x = weft.arange(12).reshape(3, 4).to(dtype)
    file = io.save(tmp_path / "m.weft", Narrow(), x)
    weft_onnx.export(file, tmp_path / "m.onnx")
    session = ort.InferenceSession((tmp_path / "m.onnx").read_bytes())
    got = dict(
        zip((o.name for o in session.get_outputs()), session.run(None, {"input": x.numpy()}))
    )
    for key, want in outputs(Narrow(), x).items():
        assert got[key].dtype == want.numpy().dtype
        np.testing.assert_array_equal(got[key], want.numpy(), key)


class Bits(nn.Module):
    def forward(self, x: weft.Tensor) -> weft.Tensor:
        return x & 6


def test_bits_of_integers_ask_for_a_later_opset(tmp_path: Path) -> None:
    file = io.save(tmp_path / "m.weft", Bits(), weft.arange(12).reshape(3, 4))
    weft_onnx.export(file, tmp_path / "m.onnx", opset=18)
    with pytest.raises(ValueError, match="need opset 18"):
        weft_onnx.export(file, tmp_path / "n.onnx", opset=17)
