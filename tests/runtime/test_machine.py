"""Compile, keep on disk, trust nothing that is damaged or that others own."""

import ctypes
import os
import stat
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from weft.runtime import machine

IR = "define i32 @answer_{n}() {{ ret i32 {n} }}\n"

PROGRAM = """
import ctypes, sys
from weft.runtime import machine
address = machine.load("define i32 @f() {{ ret i32 41 }}\\n", ["f"])["f"]
print(ctypes.CFUNCTYPE(ctypes.c_int)(address)(), machine.cache_stats())
"""


def answer(n: int) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int)(
        machine.load(IR.format(n=n), [f"answer_{n}"])[f"answer_{n}"]
    )()


def run(directory: Path, first: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "WEFT_CACHE_DIR": str(directory), **more}
    code = first + PROGRAM.replace("{{", "{").replace("}}", "}")
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_the_same_text_is_linked_once():
    before = machine.cache_stats()["memory"]
    assert answer(1234567) == 1234567
    first = machine.load(IR.format(n=1234567), ["answer_1234567"])
    assert machine.load(IR.format(n=1234567), ["answer_1234567"]) == first
    assert machine.cache_stats()["memory"] == before + 2


def test_objects_are_kept(tmp_path):
    place = tmp_path / "cache"
    first = run(place)
    assert first.stdout.startswith("41") and "'compiled': 1" in first.stdout, first.stderr
    assert stat.S_IMODE((place / "objects").stat().st_mode) == 0o700
    second = run(place)
    assert second.stdout.startswith("41") and "'disk': 1, 'compiled': 0" in second.stdout
    assert not list(place.rglob("*.part"))


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_CACHE_DIR", str(tmp_path))
    machine.cache_dir.cache_clear()
    yield
    machine.cache_dir.cache_clear()


@pytest.mark.usefixtures("own_cache")
def test_damage_is_noticed(tmp_path, monkeypatch):
    def compiled() -> int:
        monkeypatch.setattr(machine, "_loaded", {})  # as in a new process
        before = machine.cache_stats()["compiled"]
        assert answer(41) == 41
        return machine.cache_stats()["compiled"] - before

    assert [compiled(), compiled()] == [1, 0]
    (file,) = tmp_path.rglob("*.o")
    whole = file.read_bytes()
    damaged = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    for content in (b"", whole[:10], whole[:-1], damaged, b"x" * len(whole)):
        file.write_bytes(content)
        assert compiled() == 1
        assert file.read_bytes() == whole
    assert not list(tmp_path.rglob("*.part"))


def test_another_target_is_another_object(tmp_path):
    run(tmp_path)
    other = run(tmp_path, WEFT_TARGET="sse")
    if "ValueError" in other.stderr:
        pytest.skip("not an x86 machine")
    assert "'compiled': 1" in other.stdout
    assert "WEFT_TARGET must be" in run(tmp_path, WEFT_TARGET="avx3").stderr


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners here")
@pytest.mark.usefixtures("own_cache")
def test_a_directory_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 123456)
    with pytest.warns(RuntimeWarning, match="belongs to user"):
        assert machine.cache_dir() is None
    assert answer(7654321) == 7654321
    assert not list(tmp_path.rglob("*.o"))


@pytest.mark.usefixtures("own_cache")
def test_a_directory_open_to_others_is_closed(tmp_path):
    (tmp_path / "objects").mkdir(mode=0o755)
    (tmp_path / "objects").chmod(0o777)
    place = machine.cache_dir()
    assert place is not None and stat.S_IMODE(os.stat(place).st_mode) == 0o700


def test_the_oldest_objects_go(tmp_path):
    for i in range(70):
        file = tmp_path / f"{i}.o"
        file.write_text("")
        os.utime(file, (i, i))
    machine._prune(tmp_path)
    left = {int(file.stem) for file in tmp_path.iterdir()}
    assert left == set(range(32, 70))
    machine._prune(tmp_path)
    assert len(list(tmp_path.iterdir())) == 38


def test_a_place_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WEFT_CACHE_DIR", str(tmp_path / "file"))
    machine.cache_dir.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="not kept"):
            assert answer(1111) == 1111
    finally:
        machine.cache_dir.cache_clear()


def test_bad_code_raises():
    with pytest.raises(RuntimeError, match="parsing"):
        machine.load("define nonsense", ["f"])


def test_llvmlite_waits_for_the_first_kernel():
    modules = "weft.runtime.native, weft.kernels.schedule.gemm"
    code = f"import sys; import {modules}; print('llvmlite' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("kept", [True, False])
def test_what_nobody_compiled_yet_is_compiled_together(tmp_path, monkeypatch, kept):
    place = tmp_path / "cache"
    if not kept:
        tmp_path.joinpath("cache").write_text("")
    monkeypatch.setenv("WEFT_CACHE_DIR", str(place))
    machine.cache_dir.cache_clear()
    numbers = range(5000 + 100 * kept, 5020 + 100 * kept)
    texts, counted = [IR.format(n=n) for n in numbers], machine.cache_stats()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for n, text in zip(numbers, texts, strict=True):
                with pytest.raises(machine.Uncompiled) as missing, machine.postponing():
                    answer(n)
                assert str(missing.value) == text
            with machine.compiled_ahead([*texts, *texts]), machine.postponing():
                assert [answer(n) for n in numbers] == [*numbers]
            with machine.postponing():
                assert answer(numbers[3]) == numbers[3]
    finally:
        machine.cache_dir.cache_clear()
    assert machine.cache_stats()["compiled"] == counted["compiled"]
    assert len(list(tmp_path.rglob("*.o"))) == 20 * kept


def test_bad_code_among_good_raises_when_all_threads_ended():
    before = threading.active_count()
    texts = [IR.format(n=n) for n in range(6000, 6006)]
    ahead = machine.compiled_ahead([*texts, "define nonsense"])
    with pytest.raises(RuntimeError, match="parsing"), ahead:
        raise AssertionError("not reached")
    assert threading.active_count() == before
    assert answer(6000) == 6000


def test_threads_make_one_text_once():
    compiled, ready = machine.cache_stats()["compiled"], threading.Barrier(8)
    found = []

    def work() -> None:
        ready.wait()
        found.append(machine.load(IR.format(n=7001), ["answer_7001"])["answer_7001"])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert machine.cache_stats()["compiled"] <= compiled + 1  # an earlier run's cache may have it


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # as on a full disk, writes fail half-way
"""


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    pytest.importorskip("resource")
    done = run(tmp_path, FULL)
    assert done.stdout.startswith("41") and "'compiled': 1" in done.stdout, done.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


MANY = """
from weft.runtime import machine
texts = [f"define i32 @f() {{ ret i32 {n} }}" for n in range(400)]
print("begun", flush=True)
with machine.compiled_ahead(texts):
    pass
"""


def test_processes_that_compile_the_same_and_are_killed(tmp_path):
    env = {**os.environ, "WEFT_CACHE_DIR": str(tmp_path)}
    call = [sys.executable, "-c", MANY]
    running = [
        subprocess.Popen(call, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for p in running:
        assert p.stdout is not None and p.stdout.readline() == "begun\n"
    for p in running[:2]:
        p.kill()
    _, errors = running[2].communicate()
    for p in running[:2]:
        p.communicate()
    assert running[2].returncode == 0, errors
    files = list(tmp_path.rglob("*.o"))
    assert len(files) == 400
    assert all(machine._read(file) for file in files)


@pytest.fixture
def made(own_cache, monkeypatch):
    """Loads `answer_n` by what made it, as a new process would; the numbers that were asked for."""
    monkeypatch.setattr(machine, "_code_state", lambda: "this code")
    asked = []

    def text(n, *, times=1):
        asked.append(n)
        return IR.format(n=n).replace(f"i32 {n} ", f"i32 {n * times} ")

    def ask(n, **more):
        monkeypatch.setattr(machine, "_loaded", {})
        found = machine.load_made([f"answer_{n}"], text, n, **more)
        return ctypes.CFUNCTYPE(ctypes.c_int)(found[f"answer_{n}"])()

    return ask, asked


def test_what_the_disk_knows_is_not_written_again(made):
    ask, asked = made
    counted = machine.cache_stats()
    assert [ask(11), ask(11), ask(12), ask(11), ask(12)] == [11, 11, 12, 11, 12]
    assert asked == [11, 12]
    assert [ask(11, times=2), ask(11), ask(11, times=2)] == [22, 11, 22]
    assert asked == [11, 12, 11]
    now = machine.cache_stats()
    assert now["compiled"] == counted["compiled"] + 3 and now["disk"] == counted["disk"] + 5


def test_other_code_writes_again(made, monkeypatch):
    ask, asked = made
    assert ask(21) == 21
    monkeypatch.setattr(machine, "_code_state", lambda: "other code")
    assert [ask(21), ask(21)] == [21, 21] and asked == [21, 21]
    for unknown in (lambda: None,) * 2:
        monkeypatch.setattr(machine, "_code_state", unknown)
        assert ask(21) == 21
    assert asked == [21] * 4


def test_a_note_without_its_objects_or_damaged_is_none(made, tmp_path):
    ask, asked = made
    assert ask(31) == 31
    (note,), (image,) = tmp_path.rglob("*.made"), tmp_path.rglob("*.o")
    whole = note.read_bytes()
    for content in (b"", whole[:-1], b"x" * len(whole), whole + b" 00"):
        note.write_bytes(content)
        assert ask(31) == 31 and note.read_bytes() == whole
    assert asked == [31] * 5
    image.unlink()
    assert ask(31) == 31 and image.exists() and asked == [31] * 6
    image.write_bytes(image.read_bytes()[:-1])
    assert ask(31) == 31 and asked == [31] * 7
    assert ask(31) == 31 and asked == [31] * 7


def test_the_state_of_the_code_is_that_of_its_files(tmp_path, monkeypatch):
    for name in ("core", "runtime", "kernels/schedule"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "code.py").write_text("x = 1\n")
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "runtime" / "machine.py"))
    monkeypatch.setattr(machine, "_begun", time.time() + 100)
    state = machine._code_state.__wrapped__
    first = state()
    assert first is not None and state() == first
    file = tmp_path / "kernels/schedule/code.py"
    was = file.stat()
    file.write_text("x = 2\n")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))  # as archives keep it
    assert state() not in (first, None)
    monkeypatch.setattr(machine, "_begun", time.time() + 1)
    assert state() is None  # this process may have read the file before
    monkeypatch.setattr(machine, "_begun", time.time() + 100)
    file.unlink()
    file.parent.rmdir()
    (tmp_path / "kernels").rmdir()
    assert state() is None


STEPS = """
import weft
from weft.kernels.target.llvm import Module
from weft.runtime import machine
machine._begun += 1000  # files that were changed just now
written, text = [], Module.text
Module.text = lambda self: written.append(1) or text(self)
weft.manual_seed(0)
nn = weft.nn
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                      nn.LayerNorm(100), nn.Linear(100, 5))
o = weft.optim.Adam(model.parameters())
x, y = weft.randn(8, 1, 12, 12), weft.randint(0, 5, (8,))
@weft.compile
def step():
    o.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    o.step()
    return loss.detach()
losses = [step().item().hex() for _ in range(4)]
print(len(written), machine.cache_stats()["compiled"], *losses)
"""


def test_a_second_process_writes_little(tmp_path):
    env = {**os.environ, "WEFT_CACHE_DIR": str(tmp_path)}
    runs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", STEPS], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        runs.append(done.stdout.split())
    (written, made, *losses), (again, compiled, *same) = runs
    assert losses == same and int(made) > 10 and compiled == "0"
    assert int(again) * 5 < int(written)
