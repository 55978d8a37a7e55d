"""Complex tensors in files and in other libraries' hands."""

import copy
import pickle

import numpy as np
import pytest

import weft
from weft.io import torch_file

Z = weft.tensor([[1 + 2j, 3], [0.5, -1j]])


def test_pickle_and_copies():
    assert pickle.loads(pickle.dumps(Z)).equal(Z) and copy.deepcopy(Z).equal(Z)


@pytest.mark.parametrize("dtype", [weft.complex64, weft.complex128])
def test_torch_files(tmp_path, dtype):
    z = Z.to(dtype)
    torch_file.save({"z": z, "part": z.real, "dtype": dtype}, tmp_path / "x.pt")
    back = weft.load(tmp_path / "x.pt")
    assert back["z"].equal(z) and back["part"].equal(z.real) and back["dtype"] is dtype


def test_safetensors_hold_complex64_and_refuse_complex128(tmp_path):
    weft.io.save_file({"z": Z}, tmp_path / "x.safetensors")
    assert weft.io.load_file(tmp_path / "x.safetensors")["z"].equal(Z)
    weft.save({"z": Z}, tmp_path / "x.weft")
    assert weft.load(tmp_path / "x.weft")["z"].equal(Z)
    with pytest.raises(TypeError, match="no complex128"):
        weft.io.save_file({"z": Z.to(weft.complex128)}, tmp_path / "y.safetensors")


def test_memory_is_shared_with_numpy_and_dlpack():
    a = np.array([1 + 1j, 2], np.complex64)
    x = weft.from_numpy(a)
    x[0] = 5j
    x.real.mul_(2)
    x *= 1j
    assert a.tolist() == [-5 + 0j, 4j] and np.shares_memory(x.numpy(), a)
    assert np.from_dlpack(x).tolist() == a.tolist()
    assert weft.from_dlpack(a).data_ptr() == x.data_ptr()
    assert weft.view_as_real(x).tolist() == [[-5, 0], [0, 4]]
