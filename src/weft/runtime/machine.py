"""From LLVM IR to addresses of native code: the host's description, the compiler, the cache of
objects.

llvmlite is imported at the first kernel, not by `import weft`: it costs 0.13 s that many programs
(a `--help`) never need. Nor are pathlib, tempfile and hashlib, which loads OpenSSL: 20 ms.

Drivers (`kernels/target/llvm.py`) are compiled without optimisation at first, a fifth of the time,
and again, as all else, by a thread of low priority, when nothing else is to be compiled. Kernels of
their modules jump to where a slot says, which is then told the better ones. Nothing in a driver
rounds another way when it is optimised: the bits stay.

Long because the better code shares the compiler, the disk and the locks with the first.
"""

import atexit
import ctypes
import importlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

try:
    from _blake2 import blake2b  # what hashlib takes it from
except ImportError:
    from hashlib import blake2b

from weft.core import config
from weft.runtime.once import once
from weft.runtime.parts import is_driver, split

CACHE_VERSION = 3  # raise when objects of an older Weft must not be used again
_DIGEST = 32
_MAX_FILES = 64  # of about 15 KB, in each of 256 folders
_AVX512 = ("avx512f", "avx512vl", "avx512bw", "avx512dq")
# processors that start two multiply-adds of 512 bits in a cycle, as LLVM names them
_TWICE = (
    "skylake-avx512", "cascadelake", "cooperlake", "icelake-server", "sapphirerapids",
    "emeraldrapids", "graniterapids", "graniterapids-d", "diamondrapids", "znver5",
)  # fmt: skip


@dataclass(frozen=True)
class Host:
    """The machine that kernels are made for.

    `vector_bits` is 512, 256 or 128; `registers` the number of vector registers; `features` LLVM's
    feature string.
    """

    arch: str
    cpu: str
    features: str
    vector_bits: int
    registers: int
    has_fma: bool
    has_avx512: bool

    def lanes(self, bytes_per_lane: int) -> int:
        """How many lanes of that size one vector register holds."""
        return self.vector_bits // 8 // bytes_per_lane

    @property
    def multiplies_twice(self) -> bool:
        """Whether two multiply-adds of 512 bits start in a cycle; else one, of two halves."""
        return self.vector_bits == 512 and self.cpu in _TWICE

    def has(self, feature: str) -> bool:
        """Whether LLVM may use the feature (`f16c`, `avx512bf16`, `avx512vnni`...)."""
        return f"+{feature}" in self.features.split(",")


@cache
def host() -> Host:
    """The host, or the part of it that WEFT_TARGET=avx512|avx2|sse asks for (so that one machine
    can test all); avx512 is without tile registers.
    """
    llvm = _llvm()
    cpu = llvm.get_host_cpu_name()
    triple = llvm.get_process_triple()
    arch = triple.split("-")[0]
    have = dict(llvm.get_host_cpu_features())
    wanted = os.environ.get("WEFT_TARGET", "")
    if wanted not in ("", "avx512", "avx2", "sse"):
        raise ValueError(f"WEFT_TARGET must be avx512, avx2 or sse, not {wanted!r}")
    if arch not in ("x86_64", "amd64"):
        if wanted:
            raise ValueError(f"WEFT_TARGET={wanted}: this machine's processor is {arch}")
        return Host(arch, cpu, _flat(have), 128, 32, has_fma=True, has_avx512=False)
    wide = all(have.get(f) for f in _AVX512)
    middle = bool(have.get("avx2") and have.get("fma"))
    best = "avx512" if wide else "avx2" if middle else "sse"
    order = ("sse", "avx2", "avx512")
    if wanted and order.index(wanted) > order.index(best):
        raise ValueError(f"WEFT_TARGET={wanted}: this machine has {best} at most")
    kind = wanted or best
    if why_no_tiles():
        have.update({name: False for name in have if name.startswith("amx-")})
    if kind == "avx512":
        return Host("x86_64", cpu, _flat(have), 512, 32, has_fma=True, has_avx512=True)
    if kind == "avx2":
        names = ("sse4.2", "avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe", "popcnt")
        features = {f: True for f in names if have.get(f)}
        return Host("x86_64", "x86-64-v3", _flat(features), 256, 16, has_fma=True, has_avx512=False)
    features = {f: True for f in ("sse4.1", "sse4.2", "popcnt") if have.get(f)}
    return Host("x86_64", "x86-64", _flat(features), 128, 16, has_fma=False, has_avx512=False)


def second_cache() -> int:
    """Bytes of a core's second cache; 1 MB where the system does not say."""
    return _cache_bytes(2, 1 << 20)


def last_cache() -> int:
    """Bytes of the cache that cores share; 32 MB where the system does not say."""
    return _cache_bytes(3, 32 << 20)


@cache
def _cache_bytes(index: int, otherwise: int) -> int:
    try:
        with open(f"/sys/devices/system/cpu/cpu0/cache/index{index}/size", "rb") as file:
            return int(file.read().strip().removesuffix(b"K")) << 10
    except (OSError, ValueError):
        return otherwise


@cache
def why_no_tiles() -> str:
    """Why tile registers (AMX) are not used here; "" where they are."""
    if wanted := os.environ.get("WEFT_TARGET"):
        return f"WEFT_TARGET={wanted}"
    if not dict(_llvm().get_host_cpu_features()).get("amx-tile"):
        return "the processor has none, or the system does not keep them"
    return "" if _tiles_allowed() else "the system did not let this process have them"


def _tiles_allowed() -> bool:
    """Whether Linux lets this process use the tile registers (AMX), which it has to be asked: their
    8 KB are saved at each switch of threads from then on. Other systems: never.
    """
    if not sys.platform.startswith("linux"):
        return False
    arch_prctl, request, tile_data = 158, 0x1023, 18
    try:
        return ctypes.CDLL(None).syscall(arch_prctl, request, tile_data) == 0  # else -1
    except (OSError, AttributeError):
        return False


def _flat(features: Mapping[str, bool]) -> str:
    return ",".join(("+" if on else "-") + name for name, on in sorted(features.items()))


@once
def _llvm() -> Any:
    """llvmlite.binding, initialised."""
    llvm = importlib.import_module("llvmlite.binding")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


def _target_machine(opt: int = 1) -> Any:  # 3 takes 16 % longer, its code runs as fast
    llvm, machine = _llvm(), host()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    how = {"reloc": "pic", "codemodel": "small", "jit": True}
    return target.create_target_machine(cpu=machine.cpu, features=machine.features, opt=opt, **how)


@once
def _linker() -> Any:
    return _llvm().create_lljit_compiler(_target_machine(), use_jit_link=True)


_spare: tuple[list[Any], list[Any]] = [], []  # target machines that no thread compiles with now
_lock = threading.RLock()
_loaded: dict[str, dict[str, int]] = {}
_making: dict[str, threading.RLock] = {}  # held by who makes the code of this key now
_trackers: list[Any] = []  # native code lives as long as its tracker: to the end of the process
_begun = time.time()
_counts = {"memory": 0, "disk": 0, "compiled": 0}


def _after_fork() -> None:
    """The child's only thread does not hold the locks that others of the parent's may have held."""
    global _lock, _calm, _improver
    _lock, _calm, _improver = threading.RLock(), threading.Lock(), None
    _making.clear()


def _before_fork() -> None:
    _calm.acquire()  # not while `_improve` is inside LLVM


def _forked() -> None:
    _calm.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_forked, after_in_child=_after_fork)


def load(
    ir_text: str, exports: Sequence[str], imports: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Compile LLVM IR (or take it from a cache) and return the address of each exported function.

    `imports` are addresses of outside symbols; symbols of the process (libc, CPython) need none. No
    pass pipeline is run. The same text is compiled once a machine (disk) and linked once a process
    (memory). Raises RuntimeError when the IR is not valid. Threads load side by side, the same text
    one after another.
    """

    def objects() -> list[bytes]:
        images = _objects(ir_text)
        _show(ir_text, exports)
        return images

    return _linked(_key(ir_text), objects, exports, imports or {}, lambda: ir_text)


def load_made(
    exports: Sequence[str], make: Callable[..., str], *args: Any, **more: Any
) -> dict[str, int]:
    """`load(make(*args, **more), exports)` of a text that is a matter of these arguments (whose
    `repr` tells all of them), the host and Weft's code alone. Where the disk knows what it came to
    it is not written again, which was most of a first step with a warm cache.
    """
    code = None if config.wants(5) else _code_state()
    path = None
    if code is not None:
        path = _place(_key(f"{make.__module__}.{make.__qualname__}{args!r}{more!r}{code}"), "made")
    noted = None if path is None else _read(path)
    if noted is not None:
        key, *parts = noted.decode().split()
        whole = [image for image in map(_kept, parts) if image is not None]
        if len(whole) == len(parts):
            _counts["disk"] += key not in _loaded
            return _linked(key, lambda: whole, exports, {}, lambda: make(*args, **more))
    ir_text = make(*args, **more)
    found = load(ir_text, exports)
    if path is not None:
        _write(path, " ".join([_key(ir_text), *map(_key, split(ir_text))]).encode())
    return found


@cache
def _code_state() -> str | None:
    """What is another as soon as a file is that may have a say in a kernel's text; None where
    nobody can tell, or one was changed when this process had read it.
    """
    above, found, newest = os.path.dirname(os.path.dirname(os.path.abspath(__file__))), [], 0.0
    folders = [os.path.join(above, name) for name in ("core", "runtime", "kernels")]
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders += [entry.path] * (entry.name != "__pycache__")
                        continue
                    s = entry.stat()  # a wheel's files have any time, but changed at installation
                    found.append((entry.path, s.st_size, s.st_mtime_ns, s.st_ctime_ns))
                    newest = max(newest, s.st_mtime, s.st_ctime)
    except OSError:
        return None
    return digest(repr(sorted(found)).encode()).hex() if found and newest < _begun - 5 else None


def _linked(
    key: str,
    objects: Callable[[], list[bytes]],
    exports: Sequence[str],
    imports: Mapping[str, int],
    text: Callable[[], str],
) -> dict[str, int]:
    with _making.setdefault(key, threading.RLock()):
        found = _loaded.get(key)
        if found is None or any(name not in found for name in exports):
            images = objects()
            with _lock:
                found = _link(key, images, exports, imports)
                if any(isinstance(image, _Rough) for image in images):
                    found = _improvable(key, found, images, text)
                _loaded[key] = found
        else:
            _counts["memory"] += 1
        _making.pop(key, None)  # who waits for it looks into `_loaded` next, as all others will
        return {name: found[name] for name in exports}


def _show(ir_text: str, exports: Sequence[str]) -> None:
    """The source of what was linked just now, for WEFT_DEBUG=5 (LLVM IR) and 6 (assembly)."""
    if config.wants(5):
        config.show(5, f"llvm {exports[0]}", ir_text)
    if config.wants(6):
        config.show(6, f"assembly {exports[0]}", emit_assembly(ir_text))


def cache_stats() -> dict[str, int]:
    """How many loads were served by this process (`memory`), by the disk, and by the compiler since
    the start.
    """
    return dict(_counts)


@lru_cache(32)
def _key(ir_text: str) -> str:
    machine = host()
    version = ".".join(map(str, _llvm().llvm_version_info))
    parts = (
        str(CACHE_VERSION),
        version,
        machine.arch,
        sys.platform,
        machine.cpu,
        machine.features,
        ir_text,
    )
    return digest("\n".join(parts).encode()).hex()


def digest(data: bytes) -> bytes:
    """By which what is kept on disk is known, and known to be whole."""
    return blake2b(data, digest_size=_DIGEST).digest()


def _objects(ir_text: str) -> list[bytes]:
    """The object files of the text's parts, from the disk or the compiler."""
    parts = split(ir_text)
    images, missing = _found(parts)
    if missing and len(missing) <= _cores() and _postponing.get():
        raise Uncompiled(ir_text)
    _counts["compiled" if missing else "disk"] += 1
    images.update(_emit_all(missing))
    return [images[part] for part in parts]


def _found(parts: Sequence[str]) -> tuple[dict[str, bytes], list[str]]:
    """The objects of parts that were compiled before, and the other parts."""
    images = {}
    for part in parts:
        image = _ahead.get(part) or _kept(_key(part))
        if image is not None:
            images[part] = image
    return images, [part for part in parts if part not in images]


class _Rough(bytes):
    """An object of a driver's, made in haste: in a fifth of the time, to be improved behind."""


def _kept(key: str) -> bytes | None:
    """A part's object as the disk has it, which may be a rough one."""
    for kind, made in (("o", bytes), ("rough", _Rough)):
        path = _place(key, kind)
        image = None if path is None else _read(path)
        if image is not None:
            return made(image)
    return None


def _place(key: str, kind: str) -> str | None:
    directory = cache_dir()
    return os.path.join(directory, key[:2], f"{key}.{kind}") if directory else None


class Uncompiled(BaseException):
    """`load` would compile this text, and shall do so later."""


_postponing: ContextVar[bool] = ContextVar("_postponing", default=False)
_ahead: dict[str, bytes] = {}  # objects that were compiled before `load` asks for them


@contextmanager
def postponing() -> Iterator[None]:
    """Inside, this thread's `load` raises Uncompiled where it would compile on some cores only."""
    token = _postponing.set(True)
    try:
        yield
    finally:
        _postponing.reset(token)


@contextmanager
def compiled_ahead(texts: Iterable[str]) -> Iterator[None]:
    """Inside, `load` of these texts compiles nothing: all cores have done so before."""
    made, missing = _found([part for text in dict.fromkeys(texts) for part in split(text)])
    made.update(_emit_all(missing))
    _ahead.update(made)
    try:
        yield
    finally:
        for part in made:
            _ahead.pop(part, None)


def _cores() -> int:
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return known or 1


def _emit_all(texts: Iterable[str]) -> dict[str, bytes]:
    """The object of each text, rough ones of drivers, kept on disk; threads share the work, the
    largest first.
    """
    global _busy
    images: dict[str, bytes] = {}
    left = sorted(set(texts), key=len)
    errors: list[Exception] = []

    def work() -> None:
        while not errors:
            try:
                text = left.pop()
            except IndexError:
                return
            try:
                rough = is_driver(text)
                image = emit_object(text, rough=rough)
                images[text] = _Rough(image) if rough else image
                _keep(text, image, "rough" if rough else "o")
            except Exception as error:  # raised below
                errors.append(error)

    helpers = [
        threading.Thread(target=work, daemon=True) for _ in range(1, min(len(left), _cores()))
    ]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
    _busy = time.monotonic()
    return images


def _keep(part: str, image: bytes, kind: str) -> None:
    path = _place(_key(part), kind)
    if path is not None:
        _write(path, image)


def emit_object(ir_text: str, *, rough: bool = False) -> bytes:
    """The relocatable object file of the IR for the host; `rough`: unoptimised.

    It is made in a context of its own. llvmlite allows one call at a time; LLVM allows one a
    context, so its code generator is called past that lock.
    """
    llvm, ffi = _llvm(), importlib.import_module("llvmlite.binding.ffi")
    module = llvm.parse_assembly(ir_text, llvm.create_context())
    module.verify()
    emit = ffi.lib.LLVMPY_TargetMachineEmitToMemory
    try:
        target = _spare[rough].pop()
    except IndexError:
        target = _target_machine(0 if rough else 1)
    with ffi.OutputString() as message:
        buffer = getattr(emit, "_cfn", emit)(target, module, 1, message)
        _spare[rough].append(target)
        if not buffer:
            raise RuntimeError(str(message))
    try:
        size = ffi.lib.LLVMPY_GetBufferSize(buffer)
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), size)
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def emit_assembly(ir_text: str) -> str:
    """The host's assembly of the IR, to read."""
    module = _llvm().parse_assembly(ir_text)
    module.verify()
    return _target_machine().emit_assembly(module)


def _link(
    key: str, images: Sequence[bytes], exports: Sequence[str], imports: Mapping[str, int]
) -> dict[str, int]:
    builder = _llvm().JITLibraryBuilder().add_current_process()
    for image in images:
        builder.add_object_img(image)
    for name, address in imports.items():
        builder.import_symbol(name, address)
    for name in exports:
        builder.export_symbol(name)
    tracker = builder.link(_linker(), f"weft{len(_trackers)}_{key[:12]}")
    _trackers.append(tracker)
    return {name: tracker[name] for name in exports}


# -- drivers, rough at first: optimised behind what runs, and put in their place

_CALM = 1.0  # seconds without compiling until code is improved
_SLOTS = 32
_calm = threading.Lock()  # held inside LLVM by who improves: no fork then, no end of the process
_improver: threading.Thread | None = None
_rough: list[tuple[str, Sequence[bytes], Callable[[], str], dict[str, int]]] = []
_slots: list[tuple[int, int]] = []  # free ones: the entry's address, and that of where it jumps to
_busy = 0.0  # when something was compiled, or a rough kernel made, last
_hurry = _ending = False


def _improvable(
    key: str, found: Mapping[str, int], images: Sequence[bytes], text: Callable[[], str]
) -> dict[str, int]:
    """Kernels that jump to those found, or to better ones when these are there."""
    global _improver, _busy
    while len(_slots) < len(found):
        entries = _link("entries", [_entries()], ["slots", *(f"e{i}" for i in range(_SLOTS))], {})
        first = entries.pop("slots")
        _slots.extend((entry, first + 8 * i) for i, entry in enumerate(entries.values()))
    taken = {name: _slots.pop() for name in found}
    slots = {name: slot for name, (_, slot) in taken.items()}
    _fill(slots, found)
    _busy = time.monotonic()
    _rough.append((key, images, text, slots))
    if _improver is None:
        with suppress(RuntimeError):  # no thread can be had: it stays as it is
            helper = threading.Thread(target=_improve_all, name="weft-improve", daemon=True)
            helper.start()
            _improver = helper
    return {name: entry for name, (entry, _) in taken.items()}


def _fill(slots: Mapping[str, int], found: Mapping[str, int]) -> None:
    for name, slot in slots.items():
        ctypes.c_uint64.from_address(slot).value = found[name]  # one store, seen whole


@cache
def _entries() -> bytes:
    """Kernels that jump to where their slot says."""
    lines = [f"@slots = global [{_SLOTS} x ptr] zeroinitializer"]
    for i in range(_SLOTS):
        lines.append(f"""define void @e{i}(ptr %args, i32 %tid, i32 %nth) "driver" {{
  %slot = getelementptr ptr, ptr @slots, i64 {i}
  %to = load atomic ptr, ptr %slot monotonic, align 8
  musttail call void %to(ptr %args, i32 %tid, i32 %nth)
  ret void
}}""")
    text = "\n".join(lines)
    return _kept(_key(text)) or _emit_all([text])[text]


def _improve_all() -> None:
    global _improver
    if sys.platform.startswith("linux"):  # elsewhere the number may be another process's
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
    while True:
        while not _hurry and time.monotonic() < _busy + _CALM:
            time.sleep(0.1)
        with _lock:
            if _ending or not _rough:
                _improver = None
                return
            key, made, make, slots = _rough.pop(0)
        text = make()
        if _key(text) == key:
            with suppress(RuntimeError):  # what is rough does the same
                _improve(key, zip(split(text), made, strict=True), slots)


def _improve(key: str, made: Iterable[tuple[str, bytes]], slots: Mapping[str, int]) -> None:
    images = []
    for part, image in made:
        if isinstance(image, _Rough):
            image = _kept(_key(part)) or image  # another module's may be it
        if isinstance(image, _Rough):
            with _calm:
                if _ending:
                    return
                image = emit_object(part)
                _keep(part, image, "o")
        images.append(image)
    with _lock, _calm:
        if not _ending:
            _fill(slots, _link(key, images, list(slots), {}))


def improve_now() -> None:
    """Wait until no code of this process is a rough one any more."""
    global _hurry
    _hurry, thread = True, _improver
    if thread is not None:
        thread.join()
    _hurry = False


def _end() -> None:
    global _ending
    _ending = True
    with _calm:
        pass


atexit.register(_end)


# -- the disk cache: code that we will execute, so only from a directory that nobody else can write


@cache
def cache_dir() -> str | None:
    """The per-user directory of compiled objects, made with mode 0700; None when it cannot be
    trusted or written.

    WEFT_CACHE_DIR names another place.
    """
    chosen = os.environ.get("WEFT_CACHE_DIR")
    if not chosen:
        chosen = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "weft")
    path = os.path.join(os.path.expanduser(chosen), "objects")
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        if hasattr(os, "geteuid"):
            state = os.stat(path)
            if state.st_uid != os.geteuid():
                _distrust(path, f"it belongs to user {state.st_uid}")
                return None
            if state.st_mode & 0o077:
                os.chmod(path, 0o700)
    except OSError as error:
        _distrust(path, str(error))
        return None
    return path


def _distrust(path: str, reason: str) -> None:
    warnings.warn(f"kernels are not kept on disk: {path}: {reason}", RuntimeWarning, stacklevel=2)


def _read(path: str | os.PathLike[str]) -> bytes | None:
    """The object at the path, or None when it is missing or damaged."""
    try:
        with open(path, "rb") as file:
            if hasattr(os, "geteuid") and os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
            content = file.read()
    except OSError:
        return None
    image = content[_DIGEST:]
    return image if image and digest(image) == content[:_DIGEST] else None


def _write(path: str, image: bytes) -> None:
    """Keep an object; its folder does not grow without bounds."""
    folder = os.path.dirname(path)
    with suppress(OSError):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if write_whole(path, digest(image) + image):
            _prune(folder)


def write_whole(path: str, content: bytes) -> bool:
    """Write beside and rename, so that no reader ever sees half a file; a full or read-only disk is
    no error. Whether it was written.
    """
    part = f"{path}.{os.urandom(6).hex()}.part"
    try:
        handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            os.unlink(part)
        return False
    return True


def _prune(folder: str | os.PathLike[str]) -> None:
    """Remove the oldest half of a folder that has grown too full; there are 256 such folders."""
    with os.scandir(folder) as found:
        files = list(found)
    if len(files) > _MAX_FILES:
        files.sort(key=lambda file: file.stat().st_mtime)
        for file in files[: _MAX_FILES // 2]:
            with suppress(FileNotFoundError):
                os.unlink(file)
