"""Drivers are compiled in haste at first, and optimised behind what runs: to the same bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from weft.kernels.target.llvm import Module
from weft.runtime import machine
from weft.runtime.parts import is_driver, split

PROGRAM = """
import ctypes, os, sys
import numpy as np
import weft
from weft.runtime import machine

machine._CALM = 1e9
weft.manual_seed(0)
a, b = weft.randn(70, 301), weft.randn(301, 90)
x, w = weft.randn(2, 20, 9, 11).requires_grad_(), weft.randn(33, 20, 3, 3).requires_grad_()

def numbers():
    y = weft.nn.functional.conv2d(x, w, None, 1, 1)
    grads = weft.autograd.grad((y * y).sum(), [x, w])
    return [t.detach().numpy().copy() for t in (a @ b, a.t().contiguous().t() @ b, y, *grads)]

before, waiting = numbers(), machine._improver is not None
exact = a.numpy().astype(float) @ b.numpy()
assert np.allclose(before[0], exact, rtol=0, atol=1e-4)
"""
IMPROVE = """
slots = [slot for *_, named in machine._rough for slot in named.values()]
there = [ctypes.c_uint64.from_address(slot).value for slot in slots]
machine.improve_now()
now = [ctypes.c_uint64.from_address(slot).value for slot in slots]
assert len(there) >= 30 * waiting and not set(there) & set(now)
assert machine._improver is None and not machine._rough
assert all(map(np.array_equal, before, numbers()))
print(waiting, *(machine.cache_stats()[n] for n in ("compiled", "disk")))
"""
FORK = """
machine._CALM = 0
for n in range(6):
    weft.ones(9) @ weft.ones(9)
    child = os.fork()
    if not child:
        same = all(map(np.array_equal, before, numbers()))
        c = weft.nn.functional.conv1d(weft.ones(1, 3, 40), weft.ones(5, 3, 2))
        os._exit(0 if same and (c == 6).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
print(waiting)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def run(place: Path, code: str) -> list[str]:
    env = {**os.environ, "WEFT_CACHE_DIR": str(place), "WEFT_NUM_THREADS": "2"}
    call = [sys.executable, "-c", PROGRAM + code]
    done = subprocess.run(call, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def kept(place: Path) -> tuple[set[str], set[str]]:
    """The parts whose rough objects the disk has, and those whose good ones."""
    rough, good = ({p.stem for p in place.rglob(kind)} for kind in ("*.rough", "*.o"))
    return rough, good


def test_better_code_gives_the_same_bits(place):
    run(place, "")  # its end does not wait for the better code
    rough, good = kept(place)
    assert len(rough - good) > 3
    waiting, compiled, disk = run(place, IMPROVE)  # the next process goes on
    assert (waiting, compiled) == ("True", "0") and int(disk) > 5
    rough, good = kept(place)
    assert len(rough - good) == 1  # the entries are as good as they will be
    waiting, compiled, _ = run(place, IMPROVE)
    assert (waiting, compiled) == ("False", "0")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_part_and_end_meanwhile(place):
    rough, _ = kept(place)
    for file in place.rglob("*.o"):
        if file.stem in rough:
            file.unlink()
    assert run(place, FORK) == ["True"]


def test_a_part_of_drivers_is_one():
    m = Module()
    for name, driver in (("tile", False), ("around", True), ("other", False)):
        f = m.function(name, [("i64", "x")], "i64", internal=name != "other", driver=driver)
        value = f.arg("x") if name == "tile" else f.call("tile", "i64", f.arg("x"))
        for _ in range(900):
            value = f.op("add", value, 1)
        f.ret(value)
    parts = split(m.text())
    assert [is_driver(p) for p in parts] == [False, True, False]
    assert not is_driver(m.text())
    found = machine.emit_object(parts[1]), machine.emit_object(parts[1], rough=True)
    assert found[0] != found[1]
