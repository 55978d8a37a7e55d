"""Datasets, samplers and collation."""

from __future__ import annotations

import json
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest

import weft
from weft import data

RECORD = json.loads((Path(__file__).parents[1] / "fixtures" / "data.json").read_text())


@pytest.mark.parametrize("case", RECORD["splits"], ids=lambda c: str(c["lengths"]))
def test_random_split_is_torchs(case):
    weft.manual_seed(case["seed"])
    generator = None if case["own"] is None else weft.Generator().manual_seed(case["own"])
    parts = data.random_split(range(case["n"]), case["lengths"], generator)
    assert [list(p.indices) for p in parts] == case["parts"]
    assert weft.randint(0, 2**31, (3,)).tolist() == case["draws"]


def test_random_split_mistakes():
    with pytest.raises(ValueError, match="3 \\+ 3 != 10"):
        data.random_split(range(10), [3, 3])
    with pytest.raises(ValueError, match="Fraction at index 0"):
        data.random_split(range(10), [1.5, -0.5])
    with pytest.warns(UserWarning, match="index 1 is 0"):
        data.random_split(range(2), [0.9, 0.1])


def test_distributed_order_is_torchs():
    for rank, drop_last, order, length in RECORD["replicas"]:
        sampler = data.DistributedSampler(range(10), 3, rank, seed=4, drop_last=drop_last)
        sampler.set_epoch(2)
        assert (list(sampler), len(sampler)) == (order, length)
    with pytest.raises(ValueError, match="Invalid rank 3"):
        data.DistributedSampler(range(10), 3, 3)


def test_tensor_dataset():
    x, y = weft.arange(12).reshape(4, 3), weft.tensor([1.0, 2.0, 3.0, 4.0])
    rows = data.TensorDataset(x, y)
    assert len(rows) == 4
    assert rows[1][0].tolist() == [3, 4, 5] and rows[-1][1].item() == 4.0
    assert rows[1:3][1].tolist() == [2.0, 3.0]
    with pytest.raises(AssertionError, match="Size mismatch"):
        data.TensorDataset(x, y[:3])


def test_concat_chain_stack_subset():
    both = data.ConcatDataset([range(3), range(10, 12)])
    assert [both[i] for i in range(5)] == [0, 1, 2, 10, 11]
    assert both[-1] == 11 and both[-5] == 0 and len(both) == 5
    with pytest.raises(ValueError, match="absolute value"):
        both[-6]
    with pytest.raises(AssertionError, match="empty"):
        data.ConcatDataset([])
    rows = data.TensorDataset(weft.arange(2))
    assert len(rows + rows) == 4

    class Count(data.IterableDataset):
        def __iter__(self):
            return iter(range(2))

        def __len__(self):
            return 2

    assert list(Count() + Count()) == [0, 1, 0, 1] and len(Count() + Count()) == 4
    with pytest.raises(AssertionError, match="IterableDataset"):
        data.ConcatDataset([Count()])
    with pytest.raises(AssertionError, match="IterableDataset"):
        list(data.ChainDataset([range(2)]))

    pairs, named = data.StackDataset(range(3), "abc"), data.StackDataset(x=range(3), y="abc")
    assert pairs[1] == (1, "b") and named[2] == {"x": 2, "y": "c"}
    assert pairs.__getitems__([0, 2]) == [(0, "a"), (2, "c")]
    assert named.__getitems__([1]) == [{"x": 1, "y": "b"}]
    with pytest.raises(ValueError, match="Size mismatch"):
        data.StackDataset(range(3), "ab")

    part = data.Subset(range(10, 20), [4, 2, 0])
    assert [part[i] for i in range(3)] == [14, 12, 10] and len(part) == 3

    class Half(data.Subset):
        def __getitem__(self, i):
            return super().__getitem__(i) / 2

    with pytest.raises(NotImplementedError, match="__getitems__"):
        Half(range(3), [0])


def test_base_classes_say_what_is_missing():
    with pytest.raises(NotImplementedError, match="__getitem__"):
        data.Dataset()[0]
    with pytest.raises(NotImplementedError, match="__iter__"):
        iter(data.IterableDataset())
    with pytest.raises(NotImplementedError, match="__iter__"):
        iter(data.Sampler())


def test_samplers():
    assert list(data.SequentialSampler("abc")) == [0, 1, 2]
    for drop_last, expected in ((False, [[0, 1, 2], [3, 4]]), (True, [[0, 1, 2]])):
        batches = data.BatchSampler(data.SequentialSampler(range(5)), 3, drop_last)
        assert list(batches) == expected and len(batches) == len(expected)
    assert sorted(data.SubsetRandomSampler([5, 9, 7])) == [5, 7, 9]
    assert len(list(data.RandomSampler(range(3), num_samples=7))) == 7
    picked = list(data.WeightedRandomSampler([0.0, 1.0, 0.0, 1.0], 50))
    assert len(picked) == 50 and set(picked) == {1, 3}


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: data.RandomSampler([]), ValueError, "num_samples=0"),
        (lambda: data.RandomSampler([1], 1), TypeError, "replacement=1"),
        (lambda: data.BatchSampler([1], 0, False), ValueError, "batch_size=0"),
        (lambda: data.BatchSampler([1], True, False), ValueError, "batch_size=True"),
        (lambda: data.BatchSampler([1], 2, 1), ValueError, "drop_last=1"),
        (lambda: data.WeightedRandomSampler([1.0], 0), ValueError, "num_samples=0"),
        (lambda: data.WeightedRandomSampler([1.0], 1, 1), ValueError, "replacement=1"),
        (lambda: data.WeightedRandomSampler([[1.0]], 1), ValueError, "1d sequence"),
    ],
)
def test_sampler_mistakes(make, error, words):
    with pytest.raises(error, match=words):
        make()


Point = namedtuple("Point", ["x", "y"])


def test_collate_leaves():
    assert data.default_collate([1, 2]).dtype == weft.int64
    assert data.default_collate([True, False]).dtype == weft.bool
    assert data.default_collate([1.5, 2]).dtype == weft.float64
    assert data.default_collate(["a", "b"]) == ["a", "b"]
    numbers = data.default_collate([np.float32(1), np.float32(2)])
    assert numbers.dtype == weft.float32 and numbers.tolist() == [1.0, 2.0]
    arrays = data.default_collate([np.zeros((2, 3), np.int16), np.ones((2, 3), np.int16)])
    assert tuple(arrays.shape) == (2, 2, 3) and arrays.dtype == weft.int16
    stacked = data.default_collate([weft.ones(3), weft.zeros(3)])
    assert stacked.tolist() == [[1.0] * 3, [0.0] * 3]


def test_collate_structures():
    sample = {"a": 1, "b": [2.0, (3, "c")]}
    batch = data.default_collate([sample, sample])
    assert batch["a"].tolist() == [1, 1]
    assert isinstance(batch["b"], list) and batch["b"][0].tolist() == [2.0, 2.0]
    assert isinstance(batch["b"][1], list) and batch["b"][1][1] == ("c", "c")
    assert sample == {"a": 1, "b": [2.0, (3, "c")]}  # not changed
    point = data.default_collate([Point(0, 1), Point(2, 3)])
    assert isinstance(point, Point) and point.y.tolist() == [1, 3]
    assert isinstance(data.default_collate([OrderedDict(a=1)] * 2), OrderedDict)
    with pytest.raises(RuntimeError, match="equal size"):
        data.default_collate([[1, 2], [3]])
    with pytest.raises(TypeError, match=r"default_collate.*object"):
        data.default_collate([object(), object()])
    with pytest.raises(TypeError, match="default_collate"):
        data.default_collate([np.array(["a"]), np.array(["b"])])


def test_collate_with_own_functions():
    class Box:
        def __init__(self, value: int) -> None:
            self.value = value

    own = {Box: lambda batch, *, collate_fn_map: [b.value for b in batch]}
    assert data.collate([(Box(1), Box(2)), (Box(3), Box(4))], collate_fn_map=own) == [
        [1, 3],
        [2, 4],
    ]


def test_convert():
    kept = weft.ones(2)
    assert data.default_convert(kept) is kept
    assert data.default_convert(np.arange(3)).tolist() == [0, 1, 2]
    out = data.default_convert({"a": [np.float32(1)], "b": "text", "c": Point(np.arange(2), 5)})
    assert out["a"][0].item() == 1.0 and out["b"] == "text" and out["c"].x.tolist() == [0, 1]
    strings = np.array(["a"])
    assert data.default_convert(strings) is strings
