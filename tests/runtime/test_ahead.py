"""What is compiled ahead of need: once a machine, never twice at a time; ends, forks are safe."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMON = """
import ctypes, os, sys, threading, time
from weft.runtime import machine

def text(n):
    adds = "".join(f" %a{i} = mul i64 %a{i - 1}, %x\\n" for i in range(1, 160))
    body = f" %a0 = add i64 %x, {n}\\n{adds} ret i64 %a159\\n"
    return "".join(
        f"define i64 @f{k}_{n}(i64 %x) {{\\n{body}}}\\n" for k in range(12)
    )

def call(n):
    address = machine.load(text(n), [f"f3_{n}"])[f"f3_{n}"]
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(1) == n + 1

def idle():
    while machine._worker or machine._wanted:
        time.sleep(0.01)
"""


def run(code: str, cache: Path, **more: str) -> str:
    env = {**os.environ, "WEFT_CACHE_DIR": str(cache), "WEFT_AHEAD": "1", **more}
    done = subprocess.run(
        [sys.executable, "-c", COMMON + code], env=env, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


def test_once_a_machine(tmp_path):
    code = """
machine.ahead("bad", lambda: 1 / 0)
machine.ahead("good", lambda: (print("made"), machine.prepare(text(5))))
machine.ahead("good", lambda: print("again"))
idle()
print(call(5), machine.cache_stats())
"""
    first = run(code, tmp_path)
    assert first.splitlines() == ["made", "True {'memory': 0, 'disk': 1, 'compiled': 0}"]
    assert run(code, tmp_path) == "True {'memory': 0, 'disk': 1, 'compiled': 0}"
    off = run(code, tmp_path / "other", WEFT_AHEAD="0")
    assert off == "True {'memory': 0, 'disk': 0, 'compiled': 1}"


def test_what_is_being_made_is_waited_for(tmp_path):
    code = """
made = []
emit = machine._emit
machine._emit = lambda text: (made.append(text), emit(text))[1]
machine.ahead("it", lambda: machine.prepare(text(7)))
threads = [threading.Thread(target=lambda: machine.load(text(7), ["f1_7"])) for _ in range(3)]
for thread in threads: thread.start()
good = call(7)
for thread in threads: thread.join()
idle()
print(good, len(made) == len(set(made)) > 1)
"""
    assert run(code, tmp_path) == "True True"


def test_the_process_may_end_meanwhile(tmp_path):
    code = """
for n in range(200):
    machine.ahead(f"n{n}", lambda n=n: machine.prepare(text(n)))
while len(list(machine.cache_dir().glob("*.ahead"))) < 2:
    time.sleep(0.01)
print("end")
"""
    assert run(code, tmp_path) == "end"
    assert not list(tmp_path.rglob("*.part"))
    assert 2 <= len(list(tmp_path.rglob("*.ahead"))) < 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forks_meanwhile(tmp_path):
    code = """
import warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside threads
for n in range(12):
    machine.ahead(f"n{n}", lambda n=n: machine.prepare(text(n)))
for n in (100, 101, 102):
    time.sleep(0.05)
    child = os.fork()
    if not child:
        os._exit(0 if call(n) and call(3) else 1)
    assert os.waitpid(child, 0)[1] == 0
idle()
print(call(11), machine.cache_stats()["disk"])
"""
    assert run(code, tmp_path) == "True 1"


def test_layers_rehearse_what_they_will_call(tmp_path):
    build = """
import weft
from weft import nn
# the norm's size is the rehearsal's: its gradient holds the number of elements as a constant
x, flat = weft.zeros(2, 64, 16, 16, requires_grad=True), weft.zeros(4, 64, requires_grad=True)
conv, norm = nn.Conv2d(64, 96, 3, padding=1, bias=False), nn.BatchNorm2d(64)
linear, adam = nn.Linear(64, 96), weft.optim.Adam([x])
idle()
"""
    call = """
for layer, given in ((conv, x), (norm, x), (linear, flat)):
    y, given.grad = layer(given), None
    y.backward(weft.zeros(y.shape), inputs=[given, *layer.parameters()])
    print(machine.cache_stats()["compiled"])
adam.step()
print(machine.cache_stats()["compiled"], machine.cache_stats()["disk"] > 20)
"""
    run(build, tmp_path)
    assert run(build + call, tmp_path).split() == ["0", "0", "0", "0", "True"]
