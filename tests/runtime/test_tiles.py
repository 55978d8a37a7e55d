"""Tile registers (AMX) and what Linux ties to them: forks, threads, signals, a refused permission.

Linux gives them to a process that asks, unless a thread of it has a signal stack too small for
their 8 KB; a child of fork keeps the permission, a new program asks anew.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from weft.runtime import native

pytestmark = pytest.mark.skipif(
    not (native.host().has("amx-bf16") and native.host().has("amx-int8")),
    reason="no tile registers here",
)

START = """
import ctypes, faulthandler, os, signal, sys, threading
import ml_dtypes
import numpy as np
import weft
from weft.runtime import native, threads

rng = np.random.default_rng(0)
a = rng.standard_normal((70, 200)).astype(ml_dtypes.bfloat16)
b = rng.standard_normal((200, 90)).astype(ml_dtypes.bfloat16)
exact = a.astype(np.float64) @ b.astype(np.float64)

class Stack(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def signal_stack(size):
    # this thread's; 0, or -1 where Linux does not take it
    room = ctypes.create_string_buffer(size)
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.sigaltstack(ctypes.byref(Stack(ctypes.addressof(room), 0, size)), None), room

def in_weft():
    y = weft.from_numpy(a) @ weft.from_numpy(b)
    near = np.abs(y.float().numpy() - exact).max() <= 2**-8 * np.abs(exact).max()
    return near, y.float().numpy().tobytes()

def in_tiles():
    # 16 x 64 bytes times 64 x 16, exact
    from tests.kernels.test_amx import product
    x = (np.arange(1024) % 251).astype(np.uint8).reshape(16, 64)
    y = x.view(np.int8).reshape(64, 16)
    return (product("bytes", x, y, np.int32) == x.astype(int) @ y).all()
"""


def run(code: str, **more: str) -> None:
    env = {**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONPATH": os.pathsep.join(sys.path), **more}
    command = [sys.executable, "-c", START + code + "\nprint('ended')"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.strip()) == (0, "ended"), done.stderr[-3000:]


def test_a_forked_child_has_them():
    run("""
threads.set_num_threads(3)
near, bits = in_weft()
assert near and in_tiles()

def busy():
    while not stop.is_set():
        in_tiles()

stop = threading.Event()
other = threading.Thread(target=busy)
other.start()
for _ in range(5):  # the other thread's registers may be in use
    child = os.fork()
    if child == 0:
        os._exit(0 if in_tiles() and in_weft() == (True, bits) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
other.join()
""")


def test_signals_between_their_instructions():
    """On the thread's stack and on faulthandler's own: what the registers hold comes back."""
    run("""
near, bits = in_weft()
assert near and in_tiles()
nowhere = open(os.devnull, "w")
for by_faulthandler in (False, True):
    seen = []
    signal.signal(signal.SIGALRM, lambda *_: seen.append(0))
    if by_faulthandler:
        faulthandler.register(signal.SIGALRM, nowhere, all_threads=False)
    signal.setitimer(signal.ITIMER_REAL, 2e-4, 2e-4)
    assert all(in_tiles() and in_weft() == (True, bits) for _ in range(60))
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert by_faulthandler or len(seen) > 10
    faulthandler.unregister(signal.SIGALRM)
""")


@pytest.mark.parametrize("where", ["in this thread", "in another"])
def test_a_small_signal_stack_means_that_there_are_none(where: str):
    run(f"""
other = {where == "in another"}
set_up, end = threading.Event(), threading.Event()

def small():
    taken, room = signal_stack(4096)
    assert taken == 0
    set_up.set()
    if other:
        end.wait()
    return room

if other:
    thread = threading.Thread(target=small)
    thread.start()
    set_up.wait()
else:
    room = small()
near, bits = in_weft()
assert near
assert not [f for f in ("tile", "bf16", "int8") if native.host().has("amx-" + f)]
assert "the system did not let" in native.why_no_tiles()
end.set()
""")


def test_a_small_signal_stack_is_not_taken_afterwards():
    run("""
near, bits = in_weft()
assert near and in_tiles()

def work():
    taken, room = signal_stack(4096)
    results.append(taken == -1 and in_tiles() and in_weft() == (True, bits))

results = []
for thread in [threading.Thread(target=work) for _ in range(4)]:
    thread.start()
    thread.join()
work()
assert results == [True] * 5, results
""")


def test_threads_share_the_permission():
    run("""
import concurrent.futures
near, bits = in_weft()

def work(_):
    return in_tiles() and in_weft() == (True, bits)

with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert near and all(pool.map(work, range(64)))
every = weft.data.DataLoader(range(64), num_workers=3, collate_fn=lambda ns: all(map(work, ns)))
assert all(every)
""")


def test_nothing_on_disk_is_shared_with_a_target_without_tiles(tmp_path: Path):
    """Neither objects nor the choices that were timed."""
    names = []
    for target in ("", "avx512"):
        path = tmp_path / f"names{target}"
        code = "from weft.compile import tune\nfrom weft.runtime import machine\n"
        code += f"open({str(path)!r}, 'w').write(f'{{machine._key(chr(59))}} {{tune._file()}}')"
        run(code, WEFT_TARGET=target, WEFT_CACHE_DIR=str(tmp_path / "cache"))
        names.append(path.read_text().split())
    assert names[0][0] != names[1][0] and names[0][1] != names[1][1]
    assert "None" not in names[0]
