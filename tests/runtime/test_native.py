"""Launches, tables, statuses; the builtin and the ctypes path must agree."""

import copy
import dataclasses
import gc
import os
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from weft.kernels.target.llvm import Module, vector
from weft.runtime import native, threads

LANES = 16


@cache
def kernels() -> dict[str, int]:
    """scale: out = x * ints[1]; stash, fetch: through scratch; check: status when an index is out
    of range; nth: who ran.
    """
    m = Module(native.host().vector_bits)
    f = m.kernel("scale")
    out, x, _, n, factor = f.words("%args", 2, ["ptr", "ptr", "ptr", "i64", "double"])
    type = vector(LANES, "float")
    times = f.splat(f.cast("fptrunc", factor, "float"), type)
    start, stop = f.split(n, LANES)
    with f.loop(start, stop, LANES) as L:
        mask = f.lane_mask(f.sub(stop, L.i), LANES)
        v = f.masked_load(type, f.gep(x, L.i, "float"), mask)
        f.masked_store(f.op("fmul", v, times), f.gep(out, L.i, "float"), mask)
    f.ret()

    for name, to_scratch in (("stash", True), ("fetch", False)):
        f = m.kernel(name)
        out, x, scratch, n = f.words("%args", 2, ["ptr", "ptr", "ptr", "i64"])
        start, stop = f.split(n)
        source, target = (x, scratch) if to_scratch else (scratch, out)
        with f.loop(start, stop) as L:
            # fetch reads what another thread stashed: it works only behind a barrier
            at = L.i if to_scratch else f.sub(f.sub(n, 1), L.i)
            f.store(f.load("float", f.gep(source, at, "float")), f.gep(target, L.i, "float"))
        f.ret()

    f = m.kernel("check")
    status, _, out, index, _, n = f.words("%args", 0, ["i64", "i64", "ptr", "ptr", "ptr", "i64"])
    at = f.load("i64", index)
    with f.if_else(f.icmp("ult", at, n)) as way:
        f.store(at, out)
        way.otherwise()
        f.store(f.typed(3, "i64"), "%args")
        f.store(at, f.gep("%args", 1, "i64"))
    f.ret()

    f = m.kernel("nth")
    out = f.load("ptr", f.gep("%args", 2, "i64"))
    tid = f.cast("sext", f.arg("tid"), "i64")
    f.store(f.arg("nth"), f.gep(out, tid, "i32"))
    f.ret()

    f = m.kernel("sum_all")
    out = f.load("ptr", f.gep("%args", 2, "i64"))
    count = f.load("i64", f.gep("%args", 3 + 300 + 1, "i64"))
    with f.loop(0, count, 1, [("double", 0.0)]) as L:
        p = f.load("ptr", f.gep("%args", f.add(L.i, 3), "i64"))
        L.next = [f.op("fadd", L.carry[0], f.load("double", p))]
    f.store(L.carry[0], out)
    f.ret()
    names = ["scale", "stash", "fetch", "check", "nth", "sum_all"]
    return native.load(m.text(), names)


def stage(name: str, parallel: bool = False) -> native.Stage:
    return native.Stage(kernels()[name], parallel)


def scale(n: int, factor: float, parallel: bool = False) -> native.Launch:
    return native.Launch((stage("scale", parallel),), (n, native.double_bits(factor)))


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1000])
@pytest.mark.parametrize("parallel", [False, True])
def test_launch_gives_pointers_and_ints(rng, n, parallel):
    x, out = rng.standard_normal(n).astype(np.float32), np.empty(n, np.float32)
    assert native.launch(scale(n, -2.5, parallel), out, [x]) == 0
    assert (out == x * np.float32(-2.5)).all()


def test_subclass_and_tuple_and_offset_view(rng):
    class Sub(np.ndarray):
        pass

    x = rng.standard_normal(20).astype(np.float32)
    out = np.empty(15, np.float32)
    assert native.launch(scale(15, 2.0), out, (x[5:].view(Sub),)) == 0
    assert (out == x[5:] * 2).all()


def test_status_stops_the_later_stages():
    out, marker = np.zeros(1, np.int64), np.array([12], np.int64)
    guarded = native.Launch((stage("check"), stage("nth")), (10,))
    assert native.launch(guarded, out, [marker]) == 3
    assert native.detail() == 12
    assert out[0] == 0
    marker[0] = 9
    assert native.launch(native.Launch((stage("check"),), (10,)), out, [marker]) == 0
    assert out[0] == 9


def test_barrier_between_stages_and_scratch(rng):
    n = 100_000
    plan = native.Launch((stage("stash", True), stage("fetch", True)), (n,), scratch=4 * n)
    x, out = rng.standard_normal(n).astype(np.float32), np.empty(n, np.float32)
    for _ in range(20):
        out[:] = 0
        assert native.launch(plan, out, [x]) == 0
        assert (out == x[::-1]).all()


def test_many_inputs_do_not_fit_the_stack_block():
    ins = [np.full(1, float(i)) for i in range(300)]
    out = np.zeros(1)
    assert native.launch(native.Launch((stage("sum_all"),), (300,)), out, ins) == 0
    assert out[0] == 300 * 299 / 2


def test_impossible_scratch_is_a_status():
    plan = native.Launch((stage("nth"),), (), scratch=1 << 60)
    assert native.launch(plan, np.zeros(4, np.int32), []) == native.OUT_OF_MEMORY
    assert native.detail() == 1 << 60


def test_wrong_arguments_raise():
    plan, x = scale(1, 1.0), np.zeros(1, np.float32)
    for args in [(plan, [1.0], [x]), (plan, x, [None]), (plan, x, 5), (plan, x)]:
        with pytest.raises(TypeError):
            native.launch(*args)
    with pytest.raises(AttributeError):
        native.launch(object(), x, [x])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        native.address("text")  # type: ignore[arg-type]


def test_arguments_are_not_leaked():
    plan, out = scale(1, 1.0), np.zeros(1, np.float32)
    x, ins = np.zeros(1, np.float32), None
    before = sys.getrefcount(x), sys.getrefcount(out)
    for _ in range(100):
        ins = [x]
        native.launch(plan, out, ins)
        with pytest.raises(TypeError):
            native.launch(plan, out, [x, 1])
    del ins
    gc.collect()
    assert (sys.getrefcount(x), sys.getrefcount(out)) == before


def test_copies_outlive_the_original(rng):
    plan, x = scale(9, 2.0), rng.standard_normal(9).astype(np.float32)
    copies = [copy.copy(plan), copy.deepcopy(plan), dataclasses.replace(plan, quick=True)]
    assert copies[0] == plan and hash(copies[0]) == hash(plan) and copies[2] != plan
    del plan
    gc.collect()
    for other in copies:
        out = np.zeros(9, np.float32)
        assert native.launch(other, out, [x]) == 0
        assert (out == 2 * x).all()


def test_address():
    x = np.zeros((4, 5))
    assert native.address(x[2:, 1:]) == x.ctypes.data + 8 * 11


def test_threads_launch_at_the_same_time(rng):
    n = 60_000
    plan = native.Launch((stage("stash", True), stage("fetch", True)), (n,), scratch=4 * n)
    failures = []

    def work(seed: int) -> None:
        x = np.full(n, seed, np.float32)
        x[::7] = -seed
        out = np.empty(n, np.float32)
        for _ in range(60):
            if native.launch(plan, out, [x]) != 0 or not (out == x[::-1]).all():
                failures.append(seed)

    running = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not failures


def test_table_runs_its_entries_in_order(rng):
    n = 50
    x, y, z = (rng.standard_normal(n).astype(np.float32) for _ in range(3))
    first, second = scale(n, 2.0), scale(n, 3.0)
    table = native.make_table(
        [
            (first, native.address(y), [native.address(x)]),
            (second, native.address(z), [native.address(y)]),
        ]
    )
    assert len(table) == 2
    assert table.run() == (-1, 0, 0)
    assert (z == x * np.float32(2) * np.float32(3)).all()
    other = np.ones(n, np.float32)
    table.set_pointer(0, 1, native.address(other))
    assert table.run() == (-1, 0, 0)
    assert (z == 6).all()
    z[:] = 0
    assert table.run(0, 1) == (-1, 0, 0)
    assert (z == 0).all()
    for call in (
        lambda: table.set_pointer(0, 2, 0),
        lambda: table.run(1, 3),
    ):
        with pytest.raises(IndexError):
            call()


def test_table_names_the_entry_that_fails():
    out, good, bad = np.zeros(1, np.int64), np.array([1], np.int64), np.array([-1], np.int64)
    check = native.Launch((stage("check"),), (10,))
    where = native.address
    table = native.make_table(
        [(check, where(out), [where(good)]), (check, where(out), [where(bad)])]
    )
    assert table.run() == (1, 3, -1)
    bad[0] = 5
    assert table.run() == (-1, 0, 0)
    assert native.make_table([]).run() == (-1, 0, 0)


def test_table_shares_threads_and_scratch(rng):
    n = 40_000
    plan = native.Launch((stage("stash", True), stage("fetch", True)), (n,), scratch=4 * n)
    x, out = rng.standard_normal(n).astype(np.float32), np.empty(n, np.float32)
    table = native.make_table([(plan, native.address(out), [native.address(x)])] * 3)
    assert table.run() == (-1, 0, 0)
    assert (out == x[::-1]).all()


def test_parallel_stage_sees_every_thread():
    if os.environ.get("WEFT_POOL") == "alone":
        pytest.skip("no workers here")
    before = threads.get_num_threads()
    out = np.zeros(8, np.int32)
    try:
        for count in (1, 3, 2):
            threads.set_num_threads(count)
            out[:] = 0
            native.launch(native.Launch((stage("nth", True),)), out, [])
            assert out.tolist() == [count] * count + [0] * (8 - count)
        native.launch(native.Launch((stage("nth"),)), out, [])
        assert out[0] == 1
    finally:
        threads.set_num_threads(before)


@pytest.mark.parametrize("pool", ["condition", "alone"])
def test_without_builtins_all_is_equal(pool):
    """The whole file again through ctypes, and with the waits of systems without futexes."""
    if "WEFT_NO_BUILTIN" in os.environ:
        pytest.skip("already inside such a run")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    env = {**os.environ, "WEFT_NO_BUILTIN": "1", "WEFT_POOL": pool}
    run = subprocess.run(
        [*command, "-k", "not without_builtins"],
        env=env,
        capture_output=True,
        text=True,
        cwd=Path.cwd(),
    )
    assert run.returncode == 0, run.stdout + run.stderr
