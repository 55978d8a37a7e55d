"""weft.save and weft.load, safetensors and checkpoints."""

from __future__ import annotations

import io as io_module
import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import weft
from weft import io, nn
from weft.io import container

ALL = [weft.float64, weft.float32, weft.float16, weft.bfloat16, weft.int64, weft.int32, weft.int16,
       weft.int8, weft.uint8, weft.bool]  # fmt: skip


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_safetensors_of_every_dtype(dtype: weft.dtype, shape: tuple, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    t = (weft.randn(*shape) * 3).to(dtype)
    weft.save({"t": t}, path)
    (back,) = weft.load(path).values()
    assert back.dtype is dtype and tuple(back.shape) == shape
    assert back.numpy().tobytes() == t.numpy().tobytes()


def test_safetensors_of_others(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    given = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "i": np.array(3)}
    safetensors.numpy.save_file(given, path, {"format": "pt"})
    back = weft.load(path)
    assert back["w"].tolist() == [[0, 1, 2], [3, 4, 5]] and back["i"].item() == 3
    back["w"].add_(1)
    weft.save({"view": back["w"].t()}, path)
    assert safetensors.numpy.load_file(path)["view"].tolist() == [[1, 4], [2, 5], [3, 6]]


def test_a_module_as_safetensors(tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    weft.save(model, tmp_path / "m.safetensors")
    assert set(weft.load(tmp_path / "m.safetensors")) == {"weight", "bias"}


def test_a_model_and_a_checkpoint_share_the_ending(tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    x = weft.randn(4, 2)
    weft.save(model, tmp_path / "m.weft", x, labels=["a", "b", "c"])
    file = weft.load(tmp_path / "m.weft")
    assert isinstance(file, io.ModelFile) and file.labels == ["a", "b", "c"]
    np.testing.assert_array_equal(
        file.run({"input": x.numpy()})["output"], model(x).detach().numpy()
    )
    state = {"model": model.state_dict(), "epoch": 3}
    weft.save(state, tmp_path / "c.weft")
    back = weft.load(tmp_path / "c.weft")
    assert back["epoch"] == 3 and back["model"]["weight"].tolist() == model.weight.tolist()
    with pytest.raises(io.BadFile, match="training state"):
        io.load(tmp_path / "c.weft")
    with pytest.raises(io.BadFile, match="no training state"):
        io.load_state(tmp_path / "m.weft")


def test_state_of_every_sort(tmp_path: Path) -> None:
    shared = weft.ones(2)
    state = {
        "list": [1, 2.5, True, None, "text", b"\x00\xff", (), [], {}],
        "tuple": (1, (2, [3])),
        "floats": [math.inf, -math.inf, -0.0, 1e-300, 0.1],
        "big": 1 << 200,
        3: "an int key",
        "dtype": weft.bfloat16,
        "array": np.arange(3, dtype=np.int16),
        "half": weft.ones(2, dtype=weft.bfloat16),
        "numpy": np.float32(0.5),
        "twice": [shared, shared],
        "$dict": {"$tuple": 1},
        "a/b": {"c": weft.zeros(1)},
        "": "an empty key",
    }
    weft.save(state, tmp_path / "s.weft")
    back = weft.load(tmp_path / "s.weft")
    assert list(back) == list(state)
    assert back["list"] == state["list"] and back["tuple"] == state["tuple"]
    assert [v.hex() for v in back["floats"]] == [v.hex() for v in state["floats"]]
    assert back["big"] == 1 << 200 and back[3] == "an int key" and back["dtype"] is weft.bfloat16
    assert back["array"].dtype == np.int16 and back["half"].numpy().dtype == ml_dtypes.bfloat16
    assert back["$dict"] == {"$tuple": 1} and back["a/b"]["c"].tolist() == [0]
    assert back["numpy"] == 0.5


@pytest.mark.parametrize("bad", [object(), {1.5: 2}, {"f": print}, {"s": {1, 2}}, [weft.nn.Linear]])
def test_what_cannot_be_stored_is_named(bad: object, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot"):
        weft.save({"here": bad}, tmp_path / "s.weft")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "form",
    ['{"$what": 1}', '{"a": 1, "b": 2}', '{"$tensor": "none"}', '{"$tensor": 3}', '{"$float": {}}',
     '{"$bytes": 3}', '{"$dict": 3}', '{"$dict": [3]}', '{"$tuple": 3}', '{"$dtype": "__class__"}',
     '{"$dict": [[[1], 2]]}', "[" * 100_000, "nonsense"],
)  # fmt: skip
def test_state_of_wrong_form(form: str, tmp_path: Path) -> None:
    path = tmp_path / "s.weft"
    container.write(path, {}, {"weft.format": "1", "weft.state": form})
    with pytest.raises(io.BadFile):
        weft.load(path)


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m", "m.bin"])
def test_other_endings_are_torch_s_files(name: str, tmp_path: Path) -> None:
    weft.save({"w": weft.ones(2), "n": [1, "a"]}, tmp_path / name)
    back = weft.load(tmp_path / name)
    assert back["w"].tolist() == [1, 1] and back["n"] == [1, "a"]


def test_torch_s_files_without_a_name() -> None:
    memory = io_module.BytesIO()
    weft.save(weft.ones(2), memory)
    memory.seek(0)
    assert weft.load(memory).tolist() == [1, 1]


def test_wrong_arguments(tmp_path: Path) -> None:
    for name in ("m.weft", "m.safetensors", "m.pt"):
        with pytest.raises(FileNotFoundError):
            weft.load(tmp_path / name)
    with pytest.raises(TypeError):
        weft.save([1], tmp_path / "m.safetensors")
    with pytest.raises(TypeError):
        weft.save({}, tmp_path / "m.weft", 3)
    weft.save({}, tmp_path / "m.weft")
    assert weft.load(tmp_path / "m.weft", map_location="cpu", weights_only=True) == {}
    with pytest.raises(RuntimeError, match="CPU"):
        weft.load(tmp_path / "m.weft", map_location="cuda")
    with pytest.raises(TypeError, match="unheard"):
        weft.load(tmp_path / "m.weft", unheard=1)


def test_another_format_or_no_weft_file(tmp_path: Path) -> None:
    path = tmp_path / "m.weft"
    container.write(path, {}, {"weft.format": "99"})
    with pytest.raises(io.BadFile, match="format '99'"):
        weft.load(path)
    path.write_bytes((2).to_bytes(8, "little") + json.dumps({}).encode())
    with pytest.raises(io.BadFile, match=r"not a \.weft file"):
        weft.load(path)


def test_a_checkpoint_holds_dtypes_that_are_only_stored(tmp_path: Path) -> None:
    state = {"kept": [weft.float8_e5m2, weft.uint16], "computed": (weft.bfloat16, weft.complex64)}
    weft.save(state, tmp_path / "a.weft")
    assert weft.load(tmp_path / "a.weft") == state
    path = tmp_path / "b.weft"
    container.write(path, {}, {"weft.format": "1", "weft.state": '{"$dtype": "float_power"}'})
    with pytest.raises(io.BadFile, match="unknown tag"):
        weft.load(path)


@pytest.mark.parametrize("ending", ["safetensors", "weft", "pt"])
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64"])
def test_tensors_in_which_nothing_computes(dtype: str, ending: str, tmp_path: Path) -> None:
    d = getattr(weft, dtype)
    state = {"a": weft.arange(6.0).to(d).reshape(2, 3), "none": weft.zeros(0, 3).to(d)}
    weft.save(state, tmp_path / f"a.{ending}")
    back = weft.load(tmp_path / f"a.{ending}")
    assert back["a"].dtype is d and back["a"].float().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert back["none"].dtype is d and back["none"].shape == (0, 3)
    assert type(back["a"]) is type(state["a"])
