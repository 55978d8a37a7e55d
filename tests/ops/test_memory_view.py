"""Storages as torch shows them, and names about complex and sparse tensors on dense real ones."""

import pytest

import weft


def test_storages():
    x = weft.arange(6.0).view(2, 3)
    y = x[1:]
    s = y.untyped_storage()
    assert s.nbytes() == s.size() == len(s) == 24 and len(y.storage()) == 6
    assert s.data_ptr() == x.data_ptr() == y.data_ptr() - 12 and s == x.t().untyped_storage()
    assert s != x.clone().untyped_storage() and y.storage().tolist() == [0, 1, 2, 3, 4, 5]
    assert len({x.untyped_storage(), s}) == 1 and s.device.type == "cpu"
    assert weft.empty(0).untyped_storage().nbytes() == 0


def test_real_tensors():
    x = weft.tensor([[1.0, -2.0]])
    assert x.real is x and x.conj() is x and x.H.shape == (2, 1)
    assert weft.angle(x).tolist() == [[0.0, pytest.approx(3.14159265)]]
    assert weft.angle(weft.tensor([2, -2])).dtype is weft.float32
    with pytest.raises(RuntimeError, match="imag is not implemented"):
        _ = x.imag
    with pytest.raises(RuntimeError, match="only supported on matrices"):
        _ = weft.zeros(1, 2, 3).H


def test_dense_tensors():
    x = weft.ones(2)
    assert x.to_dense() is x and x.share_memory_() is x and not x.is_pinned()
    for name in ("values", "indices", "coalesce", "is_coalesced"):
        with pytest.raises(RuntimeError, match=f"{name} expected sparse"):
            getattr(x, name)()
    with pytest.raises(RuntimeError, match="accelerator"):
        x.pin_memory()


def test_new():
    x = weft.ones(2, dtype=weft.int32)
    assert x.new().shape == (0,) and x.new(2, 3).shape == (2, 3)
    assert x.new([1, 2]).tolist() == [1, 2] and x.new([1]).dtype is weft.int32
    assert x.new(weft.zeros(2, 2).size()).shape == (2, 2)
    assert x.resize_as_(weft.zeros(1, 2)).shape == (1, 2)
