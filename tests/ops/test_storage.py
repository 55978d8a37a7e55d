"""Storages: what is written through one shows in its tensors, and the other way round."""

import copy
import os
import pickle

import numpy as np
import pytest

import weft
from weft.compat.torch_.legacy import ByteTensor, FloatTensor


def test_a_storage_is_the_memory_of_a_tensor_and_its_views():
    x = weft.arange(6.0)
    y, s, u = x[2:], x.storage(), x.untyped_storage()
    assert (s.size(), len(s), s.nbytes(), u.size(), s.element_size()) == (6, 6, 24, 24, 4)
    assert s.dtype is weft.float32 and s.type() == "torch.FloatStorage" and s[1] == 1.0
    assert y.storage() == s and y.untyped_storage().data_ptr() == x.data_ptr() == s.data_ptr()
    s[2] = 9.0
    assert y.tolist() == [9.0, 3.0, 4.0, 5.0] and x._version == 1
    assert s.fill_(3.0) is s and x.tolist() == [3.0] * 6
    version = x._version
    s.copy_(weft.FloatStorage([3.0] * 6))
    assert x._version == version + 1
    x[0] = 7.0
    assert s.tolist()[0] == 7.0 and next(iter(s)) == 7.0 and s[:2].tolist() == [7.0, 3.0]
    turned = weft.from_numpy(weft.arange(6.0).reshape(2, 3).numpy().T)
    turned.storage()[1] = 50.0
    assert turned[1, 0].item() == 50.0


def test_storages_of_their_own():
    f = weft.FloatStorage([1.0, 2.0, 3.0])
    assert weft.is_storage(f) and not weft.is_storage(weft.ones(1)) and not weft.is_tensor(f)
    assert isinstance(f, weft.FloatStorage) and not isinstance(f, weft.ByteStorage)
    assert len(weft.FloatStorage(4)) == 4 and weft.FloatStorage().size() == 0
    t = FloatTensor(f)
    t[0] = 7.0
    assert f.tolist() == [7.0, 2.0, 3.0] and f.long().tolist() == [7, 2, 3]
    b = weft.ByteStorage.from_buffer(b"abc")
    assert b.tolist() == [97, 98, 99] and ByteTensor(b).tolist() == [97, 98, 99]
    u = weft.UntypedStorage([1, 2, 3])
    u.copy_(weft.UntypedStorage([4, 5, 6]))
    u.resize_(5)
    assert u.tolist() == [4, 5, 6, 0, 0]
    for again in (copy.copy(f), copy.deepcopy(f), pickle.loads(pickle.dumps(f)), f.clone()):
        assert again.tolist() == f.tolist() and again.dtype is weft.float32 and again != f
    assert "of size 3" in repr(f) and f.untyped().nbytes() == 12
    assert weft.TypedStorage([1, 2], dtype=weft.int32).int().tolist() == [1, 2]


def test_set_():
    f = weft.FloatStorage([7.0, 2.0, 3.0])
    z = weft.empty(0).set_(f, 1, (2,), (1,))
    z[0] = 5.0
    assert f.tolist() == [7.0, 5.0, 3.0] and z.storage_offset() == 1
    assert weft.empty(0).set_(f).data_ptr() == f.data_ptr()
    x = weft.arange(6.0)
    whole = weft.empty(0)
    assert whole.set_(x) is whole and whole.data_ptr() == x.data_ptr()
    grid = weft.empty(0).set_(x.untyped_storage(), 0, (3, 2), (1, 3))
    x[1] = 77.0
    assert grid.tolist() == [[0.0, 3.0], [77.0, 4.0], [2.0, 5.0]] and whole[1] == 77.0
    grid.add_(1)  # through the tensor: the version is the memory's
    assert x[1] == 78.0 and x._version == grid._version > 0
    assert weft.empty(3).set_().shape == (0,)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda f: weft.empty(0).set_(f, 1, (5,), (1,)), "out of bounds for storage of 3"),
        (lambda f: weft.empty(0).set_(f, -1, (1,), (1,)), "out of bounds"),
        (lambda f: weft.empty(0).set_(f, 0, (2,), (-1,)), "out of bounds"),
        (lambda f: weft.empty(0, dtype=weft.int64).set_(f), "Expected a Storage of type"),
        (lambda f: weft.empty(0).set_(weft.ones(1).long()), "Could not set tensor of type"),
        (lambda f: f["a"], "can't index"),
        (lambda f: weft.ones(3).storage().resize_(9), "not resizable"),
        (lambda f: f.copy_(weft.FloatStorage(2)), "2 elements into a storage of 3"),
        (lambda f: weft.ones(3, requires_grad=True).resize_(2), "cannot resize"),
    ],
)
def test_mistakes(wrong, words):
    with pytest.raises(RuntimeError) as e:
        wrong(weft.FloatStorage([1.0, 2.0, 3.0]))
    assert words in str(e.value)
    with pytest.raises(IndexError, match="index 9 out of range"):
        weft.FloatStorage(3)[9]


def test_resize_stays_in_the_memory_where_it_fits():
    r = weft.arange(6.0)
    v = r[:2]
    r.resize_(2, 2)
    r[0, 0] = 50.0
    assert v.tolist() == [50.0, 1.0] and r.storage().size() == 6
    r.resize_(3, 4)
    assert r.shape == (3, 4) and r.reshape(-1)[:6].tolist() == [50.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    w = weft.arange(6.0)[2:]
    assert w.resize_(2).tolist() == [2.0, 3.0] and w.storage_offset() == 2


def test_shared_memory_is_seen_by_both_processes():
    m = weft.zeros(4)
    row = m[2:]
    assert not m.is_shared() and m.share_memory_() is m and m.is_shared()
    assert row.data_ptr() == m.data_ptr() + 8 and m.storage().is_shared()
    child = os.fork()
    if child == 0:
        m[3] = 5.0
        os._exit(0)
    os.waitpid(child, 0)
    assert m.tolist() == [0.0, 0.0, 0.0, 5.0] and row.tolist() == [0.0, 5.0]
    before = m.data_ptr()
    assert m.share_memory_().data_ptr() == before
    layer = weft.nn.Linear(2, 2).share_memory()
    assert layer.weight.is_shared() and layer.weight.requires_grad


def test_an_empty_array_may_begin_anywhere():
    """An empty bytearray's address is any (CPython 3.13), and nothing is read there."""
    memory = np.zeros(9, np.uint8)
    odd = np.frombuffer(memory, np.float32, 0, 1)
    assert odd.ctypes.data % 4
    assert weft.from_numpy(odd).shape == (0,)
    with pytest.raises(ValueError, match="not aligned"):
        weft.from_numpy(memory[1:9].view(np.float32))


@pytest.mark.parametrize("name", ["float32", "bfloat16", "bool", "uint8", "int64", "complex64"])
@pytest.mark.parametrize("value", [0, 1])
def test_large_tensors_are_filled_and_copied_by_threads(name, value):
    d, other = getattr(weft, name), 1 - value
    for shape in ((4_400_003,), (1111, 1307)):
        a = weft.full(shape, value, dtype=d)
        assert a.dtype is d and bool((a == value).all())
        assert bool((a.fill_(other) == other).all())
    part = a[3:, ::2]
    part.fill_(value)
    assert bool((part == value).all()) and bool((a[:3] == other).all())
    assert bool((a[3:, 1::2] == other).all())
    whole = weft.zeros(1307, 1111, dtype=d)
    whole.t().copy_(a)
    assert bool((whole == a.t()).all())
    before = a.clone()
    assert bool((a.flip(1)[:, 3] == a[:, -4]).all()) and bool(
        (a.flip(0, 1)[7] == a[-8].flip(0)).all()
    )
    assert bool((weft.cat([a[:, 5:], a], 1)[:, 1302:] == a).all())
    assert bool((a.roll(2, 1)[:, 2:] == a[:, :-2]).all())
    a[1:] = a[:-1]
    assert bool((a[1:] == before[:-1]).all())
