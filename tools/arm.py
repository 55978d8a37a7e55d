"""Weft on a 64-bit ARM machine that this one plays: tests under qemu, and whether bits agree.

    python tools/arm.py [pytest arguments]

Makes `.venv-arm` the first time: Debian's Python for arm64 (120 MB unpacked, from a mirror, no root
needed), NumPy and llvmlite as wheels for it. Then kernels are tested there (NEON code, run by
qemu-aarch64; the C target too where a cross compiler is), and `tools/bits.py` is run there and
here. LLVM itself is not emulated: a thread here compiles for the processor there (`compiler`).
Needs `qemu-aarch64` (Debian: qemu-user). Ends with 1 where anything differs.
"""

from __future__ import annotations

import io
import lzma
import os
import shutil
import socketserver
import struct
import subprocess
import sys
import tarfile
import threading
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import llvmlite.binding as llvm
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".venv-arm"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
SUITE, VERSION = "bookworm", "3.11"
DEBS = [
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "zlib1g",
    "libexpat1",
    "libssl3",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libsqlite3-0",
    "libuuid1",
    "libcrypt1",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "python3.11-minimal",
    "python3.11",
]
TOOLS = ("pytest", "hypothesis", "scipy")
TESTS = (
    "tests/kernels",
    "tests/runtime",
    "tests/compile/test_compile.py",
    "tests/compile/test_writes_and_failures.py",
)
# qemu-user aborts when a process with threads forks: tests of forks are not run there
LEFT_OUT = "not forked_child"
# may differ from AVX-512: erf's table fits its registers alone, attention's sums go by vector lanes
BY_VECTORS = {"erf", "gelu, silu", "attention"}


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def _addresses() -> dict[str, str]:
    """Package -> path on the mirror."""
    index = lzma.decompress(_fetch(f"{MIRROR}/dists/{SUITE}/main/binary-arm64/Packages.xz"))
    found = {}
    for entry in index.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line[:40])
        if lines.get("Package") in DEBS:
            found[lines["Package"]] = lines["Filename"]
    return found


def _unpack(deb: bytes, into: Path) -> None:
    """A .deb is an ar archive; the files are its member data.tar.*."""
    at = 8
    while at < len(deb):
        name, size = deb[at : at + 16].decode().strip(), int(deb[at + 48 : at + 58])
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(deb[at + 60 : at + 60 + size])) as files:
                files.extractall(into, filter="tar")
            return
        at += 60 + size + size % 2
    raise ValueError("a .deb without data.tar")


def _wheels() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *TOOLS]


def make() -> Path:
    """The emulated Python: a script that takes Python's arguments."""
    python = PLACE / "python"
    if python.exists():
        return python
    root, site = PLACE / "root", PLACE / "site"
    shutil.rmtree(PLACE, ignore_errors=True)  # half of an earlier one: its links lead outside
    root.mkdir(parents=True)
    paths = _addresses()
    missing = set(DEBS) - set(paths)
    if missing:
        sys.exit(f"{MIRROR} {SUITE} has no {', '.join(sorted(missing))}")
    for name in tqdm(DEBS, desc="arm64 packages", unit="deb"):
        _unpack(_fetch(f"{MIRROR}/{paths[name]}"), root)
    kinds = [f"--platform=manylinux{v}_aarch64" for v in ("2014", "_2_17", "_2_27", "_2_28")]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    pip += ["--target", str(site), "--only-binary=:all:", "--python-version", VERSION]
    subprocess.run([*pip, *kinds, *_wheels()], check=True)
    # sys.executable is this script, so that tests which start Python start it here too.
    # OpenBLAS, an oracle of tests, computes wrongly with the SVE that qemu offers: ARMV8 has none.
    python.write_text(
        "#!/bin/sh\n"
        f"export PYTHONHOME='{root}/usr' PYTHONPATH=\"{site}:$PYTHONPATH\"\n"
        "export OPENBLAS_CORETYPE=ARMV8\n"
        f"exec qemu-aarch64 -0 '{python}' -L '{root}' '{root}/usr/bin/python{VERSION}' \"$@\"\n"
    )
    python.chmod(0o755)
    return python


class _Compile(socketserver.StreamRequestHandler):
    """Processor, features and LLVM IR in, an object file (or what is wrong) out."""

    def handle(self) -> None:
        (size,) = struct.unpack("<Q", self.rfile.read(8))
        cpu, features, text = self.rfile.read(size).decode().split("\0")
        try:
            target = llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(
                cpu=cpu, features=features, opt=1, reloc="pic", codemodel="small", jit=True
            )  # as runtime/machine.py
            module = llvm.parse_assembly(text, llvm.create_context())
            module.verify()
            good, answer = 1, target.emit_object(module)
        except RuntimeError as error:
            good, answer = 0, str(error).encode()
        self.wfile.write(struct.pack("<QQ", good, len(answer)) + answer)


@contextmanager
def compiler(place: Path) -> Iterator[None]:
    """Meanwhile a thread serves `arm_site/sitecustomize.py` at the socket `place`."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    place.unlink(missing_ok=True)
    with socketserver.UnixStreamServer(str(place), _Compile) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            place.unlink()


def main(arguments: list[str]) -> int:
    if shutil.which("qemu-aarch64") is None:
        sys.exit("qemu-aarch64 is not here: apt install qemu-user (or your system's package)")
    python = make()
    with compiler(PLACE / "compiler"):
        return _run(python, arguments)


def _run(python: Path, arguments: list[str]) -> int:
    paths = (ROOT / "src", ROOT, ROOT / "tools" / "arm_site")
    env = dict(
        os.environ, PYTHONPATH=":".join(map(str, paths)), WEFT_CACHE_DIR=str(PLACE / "cache")
    )
    env["WEFT_ARM_COMPILER"] = str(PLACE / "compiler")
    cross = shutil.which("aarch64-linux-gnu-gcc")
    if cross:
        env["CC"] = cross
    bits = str(ROOT / "tools" / "bits.py")
    here, there = (
        subprocess.run([p, bits], env=e, check=True, capture_output=True, text=True).stdout
        for p, e in ((sys.executable, dict(os.environ)), (str(python), env))
    )
    pairs = zip(here.splitlines(), there.splitlines(), strict=True)
    differ = {a.split("  ", 1)[1] for a, b in pairs if a != b}
    names = "; ".join(sorted(differ)) or "none"
    print(f"bits on ARM and here: {len(here.splitlines())} digests, different: {names}", flush=True)
    tests = arguments or ["-k", LEFT_OUT, *TESTS]
    run = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(run, env=env, cwd=ROOT).returncode or bool(differ - BY_VECTORS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
