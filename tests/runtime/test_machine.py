"""Compile, keep on disk, trust nothing that is damaged or that others own."""

import ctypes
import os
import stat
import subprocess
import sys
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


def run(directory: Path, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "WEFT_CACHE_DIR": str(directory), **more}
    code = PROGRAM.replace("{{", "{").replace("}}", "}")
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_the_same_text_is_linked_once():
    before = machine.cache_stats()["memory"]
    assert answer(1234567) == 1234567
    first = machine.load(IR.format(n=1234567), ["answer_1234567"])
    assert machine.load(IR.format(n=1234567), ["answer_1234567"]) == first
    assert machine.cache_stats()["memory"] == before + 2


def test_objects_are_kept_and_damage_is_noticed(tmp_path):
    place = tmp_path / "cache"
    first = run(place)
    assert first.stdout.startswith("41") and "'compiled': 1" in first.stdout, first.stderr
    assert stat.S_IMODE((place / "objects").stat().st_mode) == 0o700
    second = run(place)
    assert second.stdout.startswith("41") and "'disk': 1, 'compiled': 0" in second.stdout
    (file,) = place.rglob("*.o")
    whole = file.read_bytes()
    damaged = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    for content in (b"", whole[:10], whole[:-1], damaged, b"x" * len(whole)):
        file.write_bytes(content)
        again = run(place)
        assert again.stdout.startswith("41") and "'compiled': 1" in again.stdout, again.stderr
        assert file.read_bytes() == whole
    assert not list(place.rglob("*.part"))


def test_another_target_is_another_object(tmp_path):
    run(tmp_path)
    other = run(tmp_path, WEFT_TARGET="sse")
    if "ValueError" in other.stderr:
        pytest.skip("not an x86 machine")
    assert "'compiled': 1" in other.stdout
    assert "WEFT_TARGET must be" in run(tmp_path, WEFT_TARGET="avx3").stderr


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners here")
def test_a_directory_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 123456)
    machine.cache_dir.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="belongs to user"):
            assert machine.cache_dir() is None
        assert answer(7654321) == 7654321
        assert not list(tmp_path.rglob("*.o"))
    finally:
        machine.cache_dir.cache_clear()


def test_a_directory_open_to_others_is_closed(tmp_path, monkeypatch):
    (tmp_path / "objects").mkdir(mode=0o755)
    (tmp_path / "objects").chmod(0o777)
    monkeypatch.setenv("WEFT_CACHE_DIR", str(tmp_path))
    machine.cache_dir.cache_clear()
    try:
        place = machine.cache_dir()
        assert place is not None and stat.S_IMODE(place.stat().st_mode) == 0o700
    finally:
        machine.cache_dir.cache_clear()


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
