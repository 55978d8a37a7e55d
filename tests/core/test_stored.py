"""float8 and unsigned ints: kept and cast bit by bit, seen, viewed, copied; nothing computes."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

import weft

FLOATS = {weft.float8_e4m3fn: ml_dtypes.float8_e4m3fn, weft.float8_e5m2: ml_dtypes.float8_e5m2}
INTS = {weft.uint16: np.uint16, weft.uint32: np.uint32, weft.uint64: np.uint64}
VALUES = [0.1, 1.0, 3.3, 500.0, -0.02, float("inf"), -1e9, 1e-4, 0.0, -0.0]


@pytest.mark.parametrize("d", FLOATS, ids=lambda d: d.name)
def test_floats_are_rounded_to_the_nearest_and_come_back(d):
    x = weft.tensor(VALUES)
    y = x.to(d)
    wanted = np.array(VALUES, np.float32)
    if d is weft.float8_e4m3fn:  # torch gives its largest number; it has no infinity
        wanted = np.clip(wanted, -448, 448)
    wanted = wanted.astype(FLOATS[d]).astype(np.float32)
    assert y.float().tolist() == wanted.tolist() == y.tolist()
    assert y.dtype is d and y.element_size() == 1 and y.nbytes == 10 and y.is_floating_point()
    assert y.view(weft.uint8).dtype is weft.uint8 and y.view(weft.uint8).data_ptr() == y.data_ptr()
    assert weft.equal(y.view(weft.uint8).view(d).float(), y.float())
    assert y.half().dtype is weft.float16 and y.to(d) is y and y.type(weft.float64)[1] == 1.0
    assert weft.tensor([float("nan")]).to(d).float().isnan().all()


@pytest.mark.parametrize("d", [*FLOATS, *INTS], ids=lambda d: d.name)
def test_tensors_are_made_seen_viewed_and_copied(d):
    y = weft.tensor([1, 2, 48], dtype=d)
    assert y.dtype is d and y.tolist() == [1, 2, 48] and y[2].item() == 48 and len(y) == 3
    assert weft.zeros(2, dtype=d).tolist() == [0, 0] and weft.empty(3, dtype=d).dtype is d
    assert weft.full((2,), 3, dtype=d).tolist() == [3, 3]
    assert weft.zeros_like(y).dtype is d and weft.zeros_like(y, dtype=weft.int64).sum().item() == 0
    turned = y.reshape(3, 1).t()
    assert turned.shape == (1, 3) and turned.dtype is d and turned.data_ptr() == y.data_ptr()
    assert type(turned) is type(y[1:]) is type(y.chunk(3)[0]) is type(y)
    assert weft.cat([y, y]).tolist() == [1, 2, 48] * 2 and weft.stack([y, y]).shape == (2, 3)
    for again in (y.clone(), copy.deepcopy(y), pickle.loads(pickle.dumps(y)), y.detach()):
        assert again.dtype is d and again.tolist() == y.tolist()
    other = y.clone()
    other.copy_(weft.tensor([5.0, 6.0, 7.0]))
    other[1:].fill_(2)
    assert other.tolist() == [5, 2, 2] and (other == y).tolist() == [False, True, False]
    assert weft.ones(3).copy_(y.float()).tolist() == [1.0, 2.0, 48.0]
    assert f"dtype=torch.{d.name}" in repr(y)


def test_unsigned_ints_keep_all_their_bits():
    assert weft.tensor([2**64 - 1, 3], dtype=weft.uint64).tolist() == [2**64 - 1, 3]
    a = weft.arange(70000).to(weft.uint16)
    assert a[65535:65538].tolist() == [65535, 0, 1] and a.long()[65535].item() == 65535
    x = np.array([1, 65535], np.uint16)
    y = weft.from_numpy(x)
    x[0] = 9
    assert y.dtype is weft.uint16 and y.tolist() == [9, 65535] and np.shares_memory(y.numpy(), x)
    assert weft.iinfo(weft.uint32).max == 2**32 - 1 and weft.finfo(weft.float8_e4m3fn).max == 448


@pytest.mark.parametrize("d", [*FLOATS, *INTS], ids=lambda d: d.name)
def test_nothing_computes_in_them(d):
    y = weft.ones(3, dtype=d)
    for wrong in (
        lambda: y + y, lambda: y + 1, lambda: 1 - y, lambda: y.sum(), lambda: weft.exp(y),
        lambda: y @ y, lambda: weft.nn.functional.relu(y), lambda: weft.where(y == 1, y, y),
        lambda: weft.softmax(weft.ones(2), 0, dtype=d), lambda: y.index_select(0, y.long() * 0),
        lambda: weft.ones(3) + y, lambda: y.sort(), lambda: y.add_(1),
    ):  # fmt: skip
        with pytest.raises(NotImplementedError, match="not implemented for"):
            wrong()
