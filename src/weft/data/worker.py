"""Loading in threads: each worker fetches its batches in turn and keeps a few ready."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from weft.data.dataset import IterableDataset
from weft.runtime import random as rng

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
