"""The pool's size and its life: fork, exit, rest."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from weft.kernels.layout import Layout
from weft.kernels.schedule.gemm import plan_matmul
from weft.kernels.target.llvm import Module
from weft.runtime import native, threads


def product(n: int = 128) -> np.ndarray:
    """A product that is large enough to be shared by all threads."""
    a = (np.arange(n * n) % 11).astype(np.float32).reshape(n, n)
    out = np.empty_like(a)
    layout = Layout.of(a)
    assert native.launch(plan_matmul(layout, layout, layout), out, (a, a)) == 0
    return out


def test_set_num_threads():
    before = threads.get_num_threads()
    try:
        threads.set_num_threads(3)
        assert threads.get_num_threads() == 3
        product()
        assert threads.started_workers() == 2
        threads.set_num_threads(1)
        assert threads.started_workers() == 0
    finally:
        threads.set_num_threads(before)
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="set_num_threads"):
            threads.set_num_threads(wrong)


def test_default_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("WEFT_NUM_THREADS", "5")
    assert threads.default_num_threads() == 5
    monkeypatch.setenv("WEFT_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="WEFT_NUM_THREADS"):
        threads.default_num_threads()
    monkeypatch.delenv("WEFT_NUM_THREADS")
    assert 1 <= threads.default_num_threads() <= (os.cpu_count() or 1)


def test_resizing_while_others_launch():
    before = threads.get_num_threads()
    expected, failures = product(), []

    def work() -> None:
        for _ in range(60):
            if (product() != expected).any():
                failures.append(1)

    running = [threading.Thread(target=work) for _ in range(2)]
    for thread in running:
        thread.start()
    try:
        for count in (3, 1, 4, 2) * 3:
            threads.set_num_threads(count)
    finally:
        for thread in running:
            thread.join()
        threads.set_num_threads(before)
    assert not failures


FORK = """
import os, sys
import numpy as np
sys.path.insert(0, os.path.dirname({here!r}))
from test_threads import product
from weft.runtime import memory, threads
threads.set_num_threads(3)
expected = product()
kept = memory.empty((100, 100), np.dtype("float64"))
for _ in range(3):
    child = os.fork()
    if child == 0:
        ok = threads.started_workers() == 0 and (product() == expected).all()
        ok = ok and threads.started_workers() == 2
        del kept
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (product() == expected).all() and threads.started_workers() == 2
print("ended")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("pool", ["", "condition"])
def test_a_forked_child_makes_its_own_workers_and_exit_is_clean(pool):
    run = subprocess.run(
        [sys.executable, "-c", FORK.format(here=__file__)],
        env={**os.environ, "WEFT_POOL": pool}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (run.returncode, run.stdout.strip()) == (0, "ended"), run.stderr


def test_idle_workers_sleep():
    before = threads.get_num_threads()
    threads.set_num_threads(4)
    try:
        product()
        threading.Event().wait(0.02)  # longer than any spin
        start, wall = time.process_time(), time.monotonic()
        threading.Event().wait(0.1)
        assert time.process_time() - start < 0.3 * (time.monotonic() - wall)
    finally:
        threads.set_num_threads(before)


def test_light_work_is_shared_by_workers_that_are_awake_alone():
    m = Module(native.host().vector_bits)
    for name in ("heavy", "light"):
        f = m.kernel(name)
        out = f.load("ptr", f.gep("%args", 2, "i64"))
        mine = f.gep(out, f.cast("sext", f.arg("tid"), "i64"), "i64")
        word = mine if name == "heavy" else f.gep(mine, 8, "i64")
        f.store(f.typed(f.cast("sext", f.arg("nth"), "i64"), "i64"), word)
        f.ret()
    found = native.load(m.text(), ["heavy", "light"])
    heavy, light = native.Stage(found["heavy"], True), native.Stage(found["light"], awake=True)

    def shared_by(*stages: native.Stage) -> list[int]:
        """The threads of each part of the light stage."""
        out = np.zeros(16, np.int64)
        native.launch(native.Launch(stages), out, ())
        return out[8:10].tolist()

    before = threads.get_num_threads()
    threads.set_num_threads(2)
    try:
        shared_by(heavy)
        # another program may hold a thread up until the worker sleeps, or until it does not yet
        tries = 200
        assert any(shared_by(heavy, light) == [2, 2] for _ in range(tries))
        for _ in range(tries):
            time.sleep(0.01)
            if shared_by(light) == [1, 0]:
                break
        else:
            pytest.fail("a worker is woken for light work")
    finally:
        threads.set_num_threads(before)
