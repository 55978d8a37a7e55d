"""DataLoader: batches of a dataset in torch's order, in this thread or ahead of it in workers.

Each `iter(loader)` draws a base seed from the default generator (or the loader's), as torch does,
so the order of the batches and every later draw match torch's. Worker i fetches batches i, i + n,
i + 2n, ... with a default generator of its own, seeded base_seed + i.
"""

from __future__ import annotations

import queue
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

import weft
from weft.data.dataset import IterableDataset, default_collate, default_convert, fetcher
from weft.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler, draw_seed
from weft.runtime import random as rng

T = TypeVar("T", covariant=True)
_FIXED = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")


class _EndlessSampler(Sampler[None]):
    """What stands for indices when the dataset is a stream."""

    def __iter__(self) -> Iterator[None]:
        while True:
            yield None


class DataLoader(Generic[T]):
    """Iterate over `dataset` in batches; arguments as `torch.utils.data.DataLoader`. Workers are
    threads: `multiprocessing_context` and `pin_memory` are accepted and change nothing.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable | None = None,
        batch_sampler: Iterable | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        streams = isinstance(dataset, IterableDataset)
        self._check(num_workers, timeout, prefetch_factor, persistent_workers)
        if streams:
            _check_stream_options(shuffle, sampler, batch_sampler)
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive "
                    "with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError(
                "batch_size=None option disables auto-batching "
                "and is mutually exclusive with drop_last"
            )
        if sampler is None:
            if streams:
                sampler = _EndlessSampler()
            elif shuffle:
                sampler = RandomSampler(dataset, generator=generator)
            else:
                sampler = SequentialSampler(dataset)
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        if collate_fn is None:
            collate_fn = default_convert if batch_sampler is None else default_collate
        if num_workers > 0 and prefetch_factor is None:
            prefetch_factor = 2

        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.generator = generator
        self.num_workers = num_workers
        self.prefetch_factor = prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.in_order = in_order
        self.collate_fn = collate_fn
        self.persistent_workers = persistent_workers
        self._iterator: _Iterator | None = None
        self._resume: dict | None = None
        self._fixed = True

    @staticmethod
    def _check(
        num_workers: int, timeout: float, prefetch_factor: int | None, persistent_workers: bool
    ) -> None:
        if num_workers < 0:
            raise ValueError("num_workers option should be non-negative")
        if timeout < 0:
            raise ValueError("timeout option should be non-negative")
        if num_workers == 0 and timeout:
            raise ValueError("timeout option needs num_workers > 0")
        if num_workers == 0 and prefetch_factor is not None:
            raise ValueError("prefetch_factor option needs num_workers > 0")
        if prefetch_factor is not None and prefetch_factor <= 0:
            raise ValueError("prefetch_factor option should be positive")
        if persistent_workers and num_workers == 0:
            raise ValueError("persistent_workers option needs num_workers > 0")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and getattr(self, "_fixed", False):
            raise ValueError(
                f"{name} attribute should not be set after {type(self).__name__} is initialized"
            )
        super().__setattr__(name, value)

    @property
    def _index_sampler(self) -> Any:
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def __iter__(self) -> Iterator[T]:
        resume, self._resume = self._resume, None
        live = self._iterator
        if self.persistent_workers and isinstance(live, _WorkerIterator):
            if resume is None and live.restart():
                return live
            live._stop()
        kind = _WorkerIterator if self.num_workers else _Iterator
        self._iterator = kind(self, resume)
        return self._iterator

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            size = len(self.dataset)  # type: ignore[arg-type]
            if self.batch_size is None:
                return size
            return (size if self.drop_last else size + self.batch_size - 1) // self.batch_size
        return len(self._index_sampler)

    # --- resume --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the current epoch stands: the number of batches handed out, the states of the
        generators from which the epoch began, and of the workers' generators. Between epochs only
        `position` 0, and what persistent workers keep. Whole numbers and uint8 tensors.
        """
        if self._resume is not None:
            return dict(self._resume)
        live = self._iterator
        if live is None:
            return {"position": 0}
        if not live.finished:
            return live.state()
        if self.persistent_workers and isinstance(live, _WorkerIterator):
            return {"position": 0, **live.lasting()}
        return {"position": 0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next `iter` goes on after batch `position` of the recorded epoch: a map dataset is
        not read for the batches before, a stream is read past them. The default generator keeps
        its state: who resumes a run restores it apart, as part of the run.
        """
        position = state.get("position")
        if not isinstance(position, int) or position < 0:
            raise ValueError(f"DataLoader: a state needs a position >= 0, but has {position!r}")
        if "generators" not in state:
            if position:
                raise ValueError("DataLoader: the state has a position but no generators")
            self._resume = None
            if not (self.persistent_workers and "workers" in state):
                return
        if len(state["workers"]) != self.num_workers:
            raise ValueError(
                f"DataLoader: the state has {len(state['workers'])} workers, "
                f"the loader {self.num_workers}"
            )
        if "generators" in state and len(state["generators"]) != len(self._generators()):
            raise ValueError(
                f"DataLoader: the state has {len(state['generators'])} generators, "
                f"the loader and its samplers {len(self._generators())}"
            )
        self._resume = dict(state)

    def _generators(self) -> list[Any]:
        """The generators on which the order may depend; the default one first."""
        found: list[Any] = [rng.default_generator]
        inner = getattr(self.batch_sampler, "sampler", None)
        for owner in (self, self.sampler, self.batch_sampler, inner):
            generator = getattr(owner, "generator", None)
            if generator is not None and all(generator is not g for g in found):
                found.append(generator)
        return found


def _check_stream_options(shuffle: Any, sampler: Any, batch_sampler: Any) -> None:
    message = "DataLoader with IterableDataset: expected unspecified {0} option, but got {0}={1}"
    if shuffle not in {False, None}:
        raise ValueError(message.format("shuffle", shuffle))
    for name, value in (("sampler", sampler), ("batch_sampler", batch_sampler)):
        if value is not None:
            raise ValueError(message.format(name, value))


def _state_of(generator: Any) -> np.ndarray:
    return np.array(generator.get_state(), np.uint8)


class _Iterator:
    """One epoch, fetched in the calling thread."""

    def __init__(self, loader: DataLoader, resume: dict | None) -> None:
        self.loader = loader
        self.streams = isinstance(loader.dataset, IterableDataset)
        batched = loader.batch_sampler is not None
        # holds no reference to this iterator, which its workers must not keep alive
        self.make_fetch = partial(
            fetcher, loader.dataset, batched, loader.collate_fn, loader.drop_last
        )
        self._begin(resume)

    def _begin(self, resume: dict | None) -> None:
        """Draw the base seed as torch does. To resume: from the states that the epoch began with,
        then take what was handed out, and give the default generator its state back.
        """
        generators = self.loader._generators()
        now = [_state_of(g) for g in generators]
        recorded = None if resume is None else resume.get("generators")
        within = recorded is not None  # an epoch; else the state is from between two
        self.start = now if recorded is None else [np.asarray(s) for s in recorded]
        self.finished, self.position = False, 0
        try:
            if within:
                for generator, state in zip(generators, self.start):
                    generator.set_state(weft.from_numpy(state.copy()))
            self.indices = iter(self.loader._index_sampler)
            self.drew_seed = resume is None or bool(resume.get("drew_seed"))
            if self.drew_seed:
                self.base_seed = draw_seed(self.loader.generator)
            if resume is not None:
                self.base_seed = int(resume["base_seed"])
            self._open(resume)
        finally:
            if within:
                rng.default_generator.set_state(now[0])

    def _open(self, resume: dict | None) -> None:
        self.fetch = self.make_fetch()
        if resume is not None:
            self._skip(resume["position"])

    def _skip(self, count: int) -> None:
        """Take `count` batches' indices; a stream has none, so read it."""
        for _ in range(count):
            try:
                if self.streams:
                    self._next()
                else:
                    next(self.indices)
            except StopIteration:  # the data shrank: nothing is left of the epoch
                break
        self.position = count

    def __iter__(self) -> _Iterator:
        return self

    def __next__(self) -> Any:
        try:
            return self._next()
        except StopIteration:
            self.finished = True
            raise

    def __len__(self) -> int:
        return len(self.loader)

    def _next(self) -> Any:
        indices = next(self.indices)
        self.position += 1
        return self.fetch(indices)

    def state(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "base_seed": self.base_seed,
            "drew_seed": int(self.drew_seed),
            "generators": [weft.from_numpy(s.copy()) for s in self.start],
            "workers": [],
        }


class _WorkerIterator(_Iterator):
    """One epoch, fetched ahead by threads; batches come in the sampler's order."""

    def _open(self, resume: dict | None) -> None:
        loader = self.loader
        count = loader.num_workers
        reread = self.streams and resume is not None and "generators" in resume
        recorded = [None] * count if resume is None or reread else resume["workers"]
        self.states = [None if s is None else np.array(s, np.uint8) for s in recorded]
        self.workers = [
            Worker(
                WorkerInfo(i, count, self.base_seed + i, loader.dataset),
                self.make_fetch,
                loader.worker_init_fn,
                self.states[i],
            )
            for i in range(count)
        ]
        self._stop = weakref.finalize(self, _stop_all, self.workers)
        self._prime(0 if resume is None else resume["position"])

    def _prime(self, skip: int) -> None:
        """Hand out the first tasks. `turns` are the workers in the order of their next results."""
        count = len(self.workers)
        if not self.streams:
            self._skip(skip)
        first = self.position % count
        self.turns = deque((first + i) % count for i in range(count))
        self.waiting = [0] * count  # tasks of each worker whose result was not taken yet
        assert self.loader.prefetch_factor is not None
        for _ in range(self.loader.prefetch_factor):
            for i in tuple(self.turns):
                self._assign(i)
        if self.streams:
            self._skip(skip)

    def _assign(self, i: int) -> None:
        try:
            indices = next(self.indices)
        except StopIteration:
            return
        self.waiting[i] += 1
        self.workers[i].tasks.put((indices,))

    def restart(self) -> bool:
        """The next epoch on the same threads, as torch: no new base seed. False when they ended."""
        if not self._stop.alive:
            return False
        for i, worker in enumerate(self.workers):
            for _ in range(self.waiting[i]):  # an epoch that was left early
                worker.results.get()
            worker.tasks.put(RESTART)
        self._begin_again()
        return True

    def _begin_again(self) -> None:
        self.start = [_state_of(g) for g in self.loader._generators()]
        self.finished, self.position, self.drew_seed = False, 0, False
        self.indices = iter(self.loader._index_sampler)
        self._prime(0)

    def _next(self) -> Any:
        while self.turns:
            i = self.turns[0]
            if not self.waiting[i]:  # the sampler ran out before this worker's turn
                break
            result = self._take(i)
            if result.ended:
                self.turns.popleft()
                continue
            self.turns.rotate(-1)
            self._assign(i)
            self.position += 1
            self.states[i] = result.generator
            if result.error is not None:
                reraise(result, i)
            return result.batch
        if not self.loader.persistent_workers:
            self._stop()
        raise StopIteration

    def _take(self, i: int) -> Any:
        timeout = self.loader.timeout or None
        try:
            result = self.workers[i].results.get(timeout=timeout)
        except queue.Empty:
            raise RuntimeError(f"DataLoader timed out after {timeout} seconds") from None
        self.waiting[i] -= 1
        return result

    def state(self) -> dict[str, Any]:
        return {**super().state(), "workers": _tensors(self.states)}

    def lasting(self) -> dict[str, Any]:
        """What the threads carry from one epoch to the next."""
        return {"base_seed": self.base_seed, "workers": _tensors([w.state for w in self.workers])}


def _tensors(states: list[Any]) -> list[Any]:
    return [None if s is None else weft.from_numpy(s.copy()) for s in states]


def _stop_all(workers: list[Worker]) -> None:
    for worker in workers:
        worker.stop()


_local = threading.local()


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker knows of itself. Threads share one dataset object: shard by `id`."""

    id: int
    num_workers: int
    seed: int
    dataset: Any
    worker_method: str = "thread"


def get_worker_info() -> WorkerInfo | None:
    """The calling worker's `WorkerInfo`; None outside a worker."""
    return getattr(_local, "info", None)


@dataclass
class Result:
    """A batch, a failure, or the end of a worker's stream; and the worker's generator after it."""

    batch: Any = None
    error: BaseException | None = None
    trace: str = ""
    ended: bool = False
    generator: np.ndarray | None = None


class Worker:
    """One thread: takes what the sampler yields from `tasks`, puts batches into `results`."""

    def __init__(
        self,
        info: WorkerInfo,
        make_fetch: Callable[[], Callable[[Any], Any]],
        init: Callable[[int], None] | None,
        generator_state: np.ndarray | None,
    ) -> None:
        self.info = info
        self.make_fetch = make_fetch
        self.init = init
        self.tasks: queue.SimpleQueue = queue.SimpleQueue()
        self.results: queue.SimpleQueue = queue.SimpleQueue()
        self.generator = rng.Generator()
        self.generator.manual_seed(info.seed)
        self.state: np.ndarray | None = generator_state
        if generator_state is not None:
            self.generator.set_state(generator_state)
        self.stopped = False
        name = f"weft-data-{info.id}"
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        _local.info = self.info
        with rng.default_generator.bound(self.generator):
            fetch, failure = self._start(self.init)
            while (task := self.tasks.get()) is not None and not self.stopped:
                if task is RESTART:
                    fetch, failure = self._start(None)
                    continue
                result = failure or self._fetch(fetch, task[0])
                self.results.put(result)
                del task, result  # frees the batch as soon as its reader drops it

    def _start(self, init: Callable[[int], None] | None) -> tuple[Any, Result | None]:
        try:
            if init is not None:
                init(self.info.id)
            return self.make_fetch(), None
        except Exception as error:
            return None, Result(error=error, trace=traceback.format_exc())

    def _fetch(self, fetch: Callable[[Any], Any], indices: Any) -> Result:
        before = self.generator.fingerprint()
        try:
            result = Result(fetch(indices))
        except Exception as error:
            if isinstance(error, StopIteration) and isinstance(self.info.dataset, IterableDataset):
                result = Result(ended=True)
            else:
                result = Result(error=error, trace=traceback.format_exc())
        if self.generator.fingerprint() != before:  # an unused one need not be recorded
            self.state = self.generator.get_state()
        result.generator = self.state
        return result

    def stop(self) -> None:
        """Ask the thread to end after the batch that it is at."""
        self.stopped = True
        self.tasks.put(None)


RESTART = object()


def reraise(result: Result, worker_id: int) -> None:
    """Raise a worker's failure here: its type, and its traceback in the message, as torch does."""
    error = result.error
    assert error is not None
    kind = type(error)
    text = (
        f"Caught {kind.__name__} in DataLoader worker thread {worker_id}.\nOriginal {result.trace}"
    )
    if kind is KeyError:
        raise KeyError(_Plain(text)) from error
    try:
        again = RuntimeError(text) if kind is StopIteration else kind(text)
    except Exception:
        again = RuntimeError(text)
    raise again from error


class _Plain(str):
    """KeyError shows the repr of its argument; a traceback reads better as it is."""

    def __repr__(self) -> str:
        return str(self)
