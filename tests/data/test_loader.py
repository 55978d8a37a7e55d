"""The loader: torch's orders, workers, exact resume."""

from __future__ import annotations

import gc
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import weft
from weft import data

RECORD = json.loads((Path(__file__).parents[1] / "fixtures" / "data.json").read_text())


def draws() -> list[int]:
    return weft.randint(0, 2**31, (3,)).tolist()


def own_generator(seed: int | None):
    return None if seed is None else weft.Generator().manual_seed(seed)


def plain(batch):
    return batch if isinstance(batch, int) else batch.tolist()


def make_loader(case: dict) -> data.DataLoader:
    n, options = case["n"], dict(case["options"])
    name, *args = options.pop("sampler", ["none"])
    if name == "weighted":
        options["sampler"] = data.WeightedRandomSampler(*args)
    elif name == "subset":
        options["sampler"] = data.SubsetRandomSampler(*args)
    elif name == "random":
        options["sampler"] = data.RandomSampler(range(n), *args)
    return data.DataLoader(range(n), generator=own_generator(case["own"]), **options)


@pytest.mark.parametrize("case", RECORD["loaders"], ids=lambda c: str(c["seed"]))
def test_orders_and_later_draws_are_torchs(case):
    weft.manual_seed(case["seed"])
    loader = make_loader(case)
    for batches, after in zip(case["batches"], case["draws"]):
        assert len(loader) == len(batches)
        assert [plain(b) for b in loader] == batches
        assert draws() == after


class Noisy(data.Dataset):
    def __len__(self) -> int:
        return 11

    def __getitem__(self, i: int):
        return weft.randint(0, 1000, (2,)) + 1000 * i


@pytest.mark.parametrize("case", RECORD["noisy"], ids=lambda c: str(c["workers"]))
def test_draws_inside_the_dataset_are_torchs(case):
    weft.manual_seed(case["seed"])
    options = {"num_workers": case["workers"], "persistent_workers": case["persistent"]}
    loader = data.DataLoader(Noisy(), 3, case["shuffle"], **options)
    for batches in case["batches"]:
        assert [b.tolist() for b in loader] == batches
    assert draws() == case["draws"]


RESUMED = [
    {"num_workers": 0, "shuffle": True},
    {"num_workers": 2, "shuffle": True},
    {"num_workers": 3, "shuffle": False, "drop_last": True},
    {"num_workers": 2, "shuffle": True, "persistent_workers": True},
    {"num_workers": 2, "shuffle": True, "generator": True},
    {"num_workers": 0, "sampler": "with replacement"},
    {"num_workers": 1, "sampler": "own generator"},
]


def noisy_loader(options: dict) -> data.DataLoader:
    options = dict(options)
    if options.get("generator"):
        options["generator"] = weft.Generator().manual_seed(3)
    if options.get("sampler") == "with replacement":
        options["sampler"] = data.RandomSampler(range(11), True, 70)
    elif options.get("sampler") == "own generator":
        own = weft.Generator().manual_seed(9)
        options["sampler"] = data.RandomSampler(range(11), True, 70, generator=own)
    return data.DataLoader(Noisy(), 2, **options)


@pytest.mark.parametrize("options", RESUMED, ids=str)
@pytest.mark.parametrize("position", [0, 1, 3])
@pytest.mark.parametrize("epoch", [0, 1])
def test_resume_gives_the_same_batches(options, position, epoch):
    """Kill a run after `position` batches of `epoch`; a new process goes on with the same bits."""
    weft.manual_seed(5)
    loader = noisy_loader(options)
    for _ in range(epoch):
        list(loader)
    batches = iter(loader)
    for _ in range(position):
        next(batches)
    weft.rand(3)  # the model draws too
    state, global_state = loader.state_dict(), weft.get_rng_state()
    rest = [b.tolist() for b in batches]
    following = [b.tolist() for b in loader]

    weft.manual_seed(99)  # another process
    again = noisy_loader(options)
    again.load_state_dict(json_round(state))
    assert again.state_dict()["position"] == position
    weft.set_rng_state(global_state)
    assert [b.tolist() for b in again] == rest
    assert [b.tolist() for b in again] == following


def json_round(state: dict) -> dict:
    """What a file keeps: whole numbers, and tensors by value."""
    kept = json.loads(json.dumps({k: v for k, v in state.items() if isinstance(v, int)}))
    for key in ("generators", "workers"):
        kept[key] = [None if t is None else weft.from_numpy(t.numpy().copy()) for t in state[key]]
    return kept


class Stream(data.IterableDataset):
    """0, 1, 2, ...; each worker takes its share."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self):
        info = data.get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(start, self.n, step))


def test_streams():
    assert [b.tolist() for b in data.DataLoader(Stream(5), 2)] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in data.DataLoader(Stream(5), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(data.DataLoader(Stream(3), None)) == [0, 1, 2]
    two = data.DataLoader(Stream(7), 2, num_workers=2)
    assert [b.tolist() for b in two] == [[0, 2], [1, 3], [4, 6], [5]]
    for workers in (0, 2):
        loader = data.DataLoader(Stream(40), 3, num_workers=workers)
        batches = iter(loader)
        first = [next(batches).tolist() for _ in range(4)]
        state = loader.state_dict()
        rest = [b.tolist() for b in batches]
        again = data.DataLoader(Stream(40), 3, num_workers=workers)
        again.load_state_dict(state)
        assert [b.tolist() for b in again] == rest
        assert sorted(i for batch in first + rest for i in batch) == list(range(40))
    with pytest.raises(TypeError):
        len(two)


def test_state_between_epochs_and_bad_states():
    loader = data.DataLoader(range(4), 2)
    assert loader.state_dict() == {"position": 0}
    list(loader)
    assert loader.state_dict() == {"position": 0}
    loader.load_state_dict({"position": 0})
    assert len(list(loader)) == 2
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    with pytest.raises(ValueError, match="0 workers, the loader 2"):
        data.DataLoader(range(4), 2, num_workers=2).load_state_dict(state)
    with pytest.raises(ValueError, match="1 generators, the loader and its samplers 2"):
        data.DataLoader(range(4), 2, generator=weft.Generator()).load_state_dict(state)
    with pytest.raises(ValueError, match="position"):
        loader.load_state_dict({"position": -1})
    with pytest.raises(ValueError, match="no generators"):
        loader.load_state_dict({"position": 3})


class Fragile(data.Dataset):
    def __init__(self, error: Exception, at: int) -> None:
        self.error, self.at = error, at

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> int:
        if i == self.at:
            raise self.error
        return i


class TwoArguments(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("bad sample"), ValueError),
        (KeyError("bad sample"), KeyError),
        (TwoArguments(1, 2), RuntimeError),
        (StopIteration("bad sample"), RuntimeError),
    ],
)
def test_a_workers_failure_comes_in_order_with_its_traceback(error, kind):
    loader = data.DataLoader(Fragile(error, 5), 2, num_workers=2)
    batches, seen = iter(loader), []
    with pytest.raises(kind) as caught:
        for batch in batches:
            seen.append(batch.tolist())
    assert seen == [[0, 1], [2, 3]]
    text = str(caught.value)
    assert f"Caught {type(error).__name__} in DataLoader worker thread 0" in text
    assert "in __getitem__" in text and "raise self.error" in text
    assert next(batches).tolist() == [6, 7]  # goes on after it, as torch


def test_without_workers_the_error_is_the_original():
    error = ValueError("bad sample")
    with pytest.raises(ValueError) as caught:
        list(data.DataLoader(Fragile(error, 1)))
    assert caught.value is error


class Blocked(data.Dataset):
    def __init__(self) -> None:
        self.gate = threading.Event()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> int:
        if i == 2:
            self.gate.wait(20)
        return i


def test_timeout():
    dataset = Blocked()
    batches = iter(data.DataLoader(dataset, num_workers=1, timeout=1))
    assert [next(batches).item(), next(batches).item()] == [0, 1]
    with pytest.raises(RuntimeError, match=r"timed out after 1 seconds"):
        next(batches)
    dataset.gate.set()


class Counting(data.Dataset):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def __len__(self) -> int:
        return 100

    def __getitem__(self, i: int) -> int:
        self.seen.append(i)
        return i


def test_prefetch_is_bounded():
    dataset = Counting()
    batches = iter(data.DataLoader(dataset, 2, num_workers=2, prefetch_factor=3))
    assert next(batches).tolist() == [0, 1]
    deadline = time.monotonic() + 30
    while len(dataset.seen) < 14 and time.monotonic() < deadline:
        threading.Event().wait(0.001)
    assert len(dataset.seen) == 14  # the one taken, and three batches ahead of each worker


def workers_alive() -> int:
    return sum(t.name.startswith("weft-data") for t in threading.enumerate())


def wait_for_workers(count: int) -> None:
    deadline = time.monotonic() + 30
    while workers_alive() != count and time.monotonic() < deadline:
        threading.Event().wait(0.001)
    assert workers_alive() == count


def test_threads_end_with_the_epoch_the_loader_or_never():
    gc.collect()
    wait_for_workers(0)
    loader = data.DataLoader(range(10), num_workers=2)
    list(loader)
    wait_for_workers(0)
    next(iter(loader))
    wait_for_workers(2)
    del loader
    gc.collect()
    wait_for_workers(0)
    started = []
    init = lambda i: started.append((i, threading.get_ident()))
    options = {"num_workers": 2, "persistent_workers": True, "worker_init_fn": init}
    loader = data.DataLoader(range(10), 2, **options)
    expected = [b.tolist() for b in loader]
    for _ in range(2):
        next(iter(loader))  # left early
        assert [b.tolist() for b in loader] == expected
    assert sorted(i for i, _ in started) == [0, 1]
    del loader
    gc.collect()
    wait_for_workers(0)


def test_worker_info():
    assert data.get_worker_info() is None

    class Asks(data.Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int):
            info = data.get_worker_info()
            assert info is not None and info.dataset is self
            return info.id, info.num_workers, info.seed, weft.initial_seed()

    weft.manual_seed(0)
    for batch, worker in zip(data.DataLoader(Asks(), num_workers=2), (0, 1, 0, 1)):
        identity, count, seed, generator_seed = (int(x.item()) for x in batch)
        assert (identity, count) == (worker, 2)
        assert seed == generator_seed
    assert data.get_worker_info() is None


def test_a_failing_worker_init_is_reported():
    def init(worker: int) -> None:
        raise OSError(f"no disk for worker {worker}")

    loader = data.DataLoader(range(4), num_workers=1, worker_init_fn=init)
    with pytest.raises(OSError, match="no disk for worker 0"):
        next(iter(loader))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_workers": -1}, "num_workers"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": 1}, "timeout"),
        ({"prefetch_factor": 2}, "prefetch_factor"),
        ({"num_workers": 1, "prefetch_factor": 0}, "prefetch_factor"),
        ({"persistent_workers": True}, "persistent_workers"),
        ({"sampler": [1], "shuffle": True}, "mutually exclusive with shuffle"),
        ({"batch_sampler": [[1]], "batch_size": 2}, "mutually exclusive"),
        ({"batch_size": None, "drop_last": True}, "disables auto-batching"),
        ({"batch_size": 0}, "batch_size"),
        ({"dataset": Stream(3), "shuffle": True}, "IterableDataset"),
        ({"dataset": Stream(3), "sampler": [0]}, "IterableDataset"),
        ({"dataset": [], "shuffle": True}, "num_samples"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        data.DataLoader(**{"dataset": range(4), **options})


def test_fixed_attributes():
    loader = data.DataLoader(range(4))
    with pytest.raises(ValueError, match="batch_size attribute should not be set"):
        loader.batch_size = 3
    loader.timeout = 0


def test_tensor_rows_equal_stacked_rows():
    x, y = weft.rand(20, 3), weft.arange(20)
    rows = data.TensorDataset(x, y)
    part = data.Subset(data.Subset(rows, list(range(19, -1, -2))), [4, 0, 3])
    fast = list(data.DataLoader(part, 2))
    slow = list(data.DataLoader(part, 2, collate_fn=lambda b: data.default_collate(b)))
    assert len(fast) == len(slow) == 2
    for a, b in zip(fast, slow):
        assert isinstance(a, list)
        for s, t in zip(a, b):
            np.testing.assert_array_equal(s.numpy(), t.numpy())
            assert s.dtype == t.dtype
