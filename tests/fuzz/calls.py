"""Random calls of every op and every public function, in a process of its own.

`python -m tests.fuzz.calls SEED COUNT [WAY]` makes COUNT calls; each returns or raises.
WAY is what runs between fences (fence.py): `launch` each launch from Python (default); `native` the
native forms of ops, which come at once here, each call made some times; `compiled` programs of
each call.
Before a call its number and text go to the file named by WEFT_FUZZ_LOG, so that a crash of the
interpreter is known by its last line; a call that hangs dumps its stack and ends the process.
"""

from __future__ import annotations

import faulthandler
import importlib
import inspect
import linecache
import os
import pkgutil
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import weft
from tests.fuzz import fence
from weft import ops
from weft.core import dtype as dt
from weft.core import sampling
from weft.core.op import REGISTRY
from weft.ops import dispatch
from weft.ops.dispatch import apply, wrap
from weft.runtime import memory, native

for _room in pkgutil.iter_modules(ops.__path__):
    importlib.import_module(f"weft.ops.{_room.name}")

# A call that makes a kernel on a loaded machine may take seconds. The watchdog writes the threads'
# frames while they run, which ends CPython 3.11 in a segmentation fault now and then, without Weft
# too (a loop of calls under `dump_traceback_later(0.0005, repeat=True)`: 3 of 3 in seconds): a
# return code of -11 behind its text means that the time was up, no more.
SECONDS_A_CALL = 90
DTYPES = (dt.float32, dt.float32, dt.float64, dt.complex64, dt.float16,
          dt.bfloat16, dt.int64, dt.int64, dt.int32, dt.int8, dt.uint8, dt.bool)  # fmt: skip
# they act on the process, wait, read files, or make as many results as their argument says
TIMES = {"launch": 1, "native": 4, "compiled": 3}
LEFT_OUT = {
    "tensor_split", "hsplit", "vsplit", "dsplit",
    "set_num_threads", "set_num_interop_threads", "set_default_dtype", "set_default_device",
    "load", "save", "compile", "manual_seed", "seed", "set_rng_state", "set_fast_math", "hub",
    "set_flush_denormal", "set_printoptions", "use_deterministic_algorithms", "from_file",
    "set_grad_enabled", "set_detect_anomaly", "set_deterministic_debug_mode",
}  # fmt: skip


_TENSORS = (
    "input self other tensor weight a b x mat1 mat2 src target bias vec query key value "
    "running_mean condition"
)
TENSORS = frozenset(_TENSORS.split())
_SIZES = (
    "size shape sizes stride dims kernel_size padding output_size normalized_shape pad shifts "
    "split_size_or_sections dilation"
)
SIZES = frozenset(_SIZES.split())
_WHOLE = (
    "dim dim0 dim1 dim2 n k diagonal offset start length chunks num_classes groups steps end step "
    "storage_offset"
)
WHOLE = frozenset(_WHOLE.split())


def array(rng: np.random.Generator, d: dt.dtype | None = None, rank: int | None = None) -> Any:
    """A tensor of random shape, dtype, values (NaN, infinities, extremes) and strides."""
    d = d or DTYPES[rng.integers(len(DTYPES))]
    rank = int(rng.integers(0, 5)) if rank is None else rank
    shape = tuple(int(n) for n in rng.choice([0, 1, 1, 2, 3, 3, 4, 5, 7, 17], rank))
    if d.is_complex:
        a = np.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
        a = np.where(rng.random(shape) < 0.1, complex(np.nan, np.inf), a)
    elif d.category == dt.FLOAT:
        a = np.asarray(rng.standard_normal(shape) * 3)
        if a.size and rng.random() < 0.3:
            where = rng.random(shape) < 0.3
            a = np.where(where, rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30], shape), a)
    elif d is dt.bool:
        a = np.asarray(rng.random(shape) < 0.5)
    else:
        edge = np.iinfo(d.np)
        a = np.asarray(rng.integers(-9 if d.is_signed else 0, 9, shape))
        if rng.random() < 0.2:
            a = np.where(rng.random(shape) < 0.3, rng.choice([edge.min, edge.max, 0], shape), a)
    with np.errstate(all="ignore"):
        a = np.asarray(a).astype(d.np)
    return wrap(strided(rng, a))


def strided(rng: np.random.Generator, a: np.ndarray) -> np.ndarray:
    """The same values under other strides, now and then."""
    kind = rng.integers(6)
    if a.ndim == 0 or kind > 3:
        return a
    if kind == 0:
        return np.ascontiguousarray(a.T).T
    if kind == 1:
        flip = (slice(None, None, -1),) * a.ndim
        return np.ascontiguousarray(a[flip])[flip]
    if kind == 2:
        wide = np.zeros(tuple(2 * n for n in a.shape), a.dtype)
        wide[tuple(slice(None, None, 2) for _ in a.shape)] = a
        return wide[tuple(slice(None, None, 2) for _ in a.shape)]
    return np.broadcast_to(a[:1], a.shape) if a.shape[0] else a


def whole(rng: np.random.Generator) -> int:
    """Mostly a small int, seldom an absurd one."""
    if rng.random() < 0.03:
        return int(rng.choice([2**31, -(2**31), 2**63 - 1, -(2**63), 10**6]))
    return int(rng.integers(-4, 6))


def anything(rng: np.random.Generator) -> Any:
    """Whatever someone may pass."""
    kind = rng.integers(12)
    if kind == 11 and rng.random() < 0.2:
        return complex(rng.choice([0, 1j, 2 - 1j, complex("nan")]))
    if kind < 4:
        return array(rng)
    if kind < 7:
        return whole(rng)
    if kind == 7:
        return float(rng.choice([0.0, 0.5, -1.5, np.nan, np.inf, 1e-8, 2.0]))
    if kind == 8:
        return tuple(whole(rng) for _ in range(rng.integers(0, 4)))
    if kind == 9:
        return [array(rng) for _ in range(rng.integers(0, 3))]
    return [True, False, None, "sum", "mean", DTYPES[rng.integers(len(DTYPES))], slice(0, 2)][
        rng.integers(7)
    ]


def argument(rng: np.random.Generator, name: str) -> Any:
    """A value that fits a parameter's name more often than chance would."""
    if rng.random() < 0.1:
        return anything(rng)
    if name in TENSORS:
        return array(rng)
    if name in ("index", "indices", "repeats", "bins"):
        return array(rng, dt.int64)
    if name == "mask":
        return array(rng, dt.bool)
    if name in ("tensors", "operands"):
        return [array(rng) for _ in range(rng.integers(0, 3))]
    if name in SIZES:
        return (
            tuple(whole(rng) for _ in range(rng.integers(1, 4)))
            if rng.random() < 0.7
            else whole(rng)
        )
    if name in WHOLE:
        return whole(rng)
    if name == "dtype":
        return DTYPES[rng.integers(len(DTYPES))]
    if name.startswith(("keepdim", "descending", "largest", "sorted", "training", "inplace")):
        return bool(rng.random() < 0.5)
    if name in ("p", "eps", "alpha", "beta", "momentum", "lambd", "negative_slope", "min", "max"):
        return float(rng.choice([0.0, 0.5, 1.0, -1.0, np.nan]))
    return anything(rng)


def public() -> list[tuple[str, Callable]]:
    """weft.*, Tensor's methods, and weft.nn.functional, by name."""
    found: dict[str, Callable] = {}
    places: list[tuple[str, Any]] = [("weft", weft), ("Tensor", weft.Tensor)]
    places += [("fft", weft.fft), ("linalg", weft.linalg)]
    functional = getattr(getattr(weft, "nn", None), "functional", None)
    if functional is not None:
        places.append(("F", functional))
    for prefix, place in places:
        for name in sorted(dir(place)):
            fn = getattr(place, name, None)
            plain = callable(fn) and not inspect.isclass(fn) and not inspect.ismodule(fn)
            if plain and not name.startswith("_") and name not in LEFT_OUT:
                found[f"{prefix}.{name}"] = fn  # type: ignore[assignment]
    for name in (
        "__getitem__",
        "__setitem__",
        "__matmul__",
        "__lshift__",
        "__pow__",
        "__floordiv__",
    ):
        found[f"Tensor.{name}"] = getattr(weft.Tensor, name)
    return list(found.items())


def index(rng: np.random.Generator) -> Any:
    """What stands between the brackets."""

    def one() -> Any:
        kind = rng.integers(7)
        if kind < 2:
            return whole(rng)
        if kind == 2:
            return slice(*(None if rng.random() < 0.4 else whole(rng) for _ in range(3)))
        if kind == 3:
            return array(rng, dt.int64, int(rng.integers(0, 3)))
        if kind == 4:
            return array(rng, dt.bool, int(rng.integers(0, 3)))
        return [None, Ellipsis, [whole(rng), whole(rng)], True][rng.integers(4)]

    return one() if rng.random() < 0.4 else tuple(one() for _ in range(rng.integers(0, 4)))


def call_of_function(rng: np.random.Generator, name: str, fn: Callable) -> tuple[Callable, str]:
    if name == "Tensor.__getitem__":
        args: list = [array(rng), index(rng)]
        return lambda: fn(*args), f"{name}({', '.join(map(text, args))})"
    if name == "Tensor.__setitem__":
        args = [array(rng), index(rng), anything(rng)]
        return lambda: fn(*args), f"{name}({', '.join(map(text, args))})"
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    args, kw = [], {}
    for i, p in enumerate(parameters):
        if p.name == "out" or p.kind is p.VAR_KEYWORD:
            continue
        if p.kind is p.VAR_POSITIONAL:
            args += [argument(rng, "size" if i else "input") for _ in range(rng.integers(0, 3))]
        elif p.default is p.empty and p.kind is not p.KEYWORD_ONLY:
            args.append(array(rng) if i == 0 and rng.random() < 0.8 else argument(rng, p.name))
        elif rng.random() < 0.25:
            kw[p.name] = argument(rng, p.name)
    shown = [*map(text, args), *(f"{k}={text(v)}" for k, v in kw.items())]
    return lambda: fn(*args, **kw), f"{name}({', '.join(shown)})"


def call_of_op(rng: np.random.Generator, name: str, number: int) -> tuple[Callable, str]:
    """The op of a sample on operands that mostly do not fit it: other shapes, dtypes, indices."""
    position = int(rng.integers(len(REGISTRY[name].samples)))
    op = sampling.op_of(name, position)
    args = sampling.draw(name, position, seed=number)
    for i, a in enumerate(args):
        chance = rng.random()
        if not isinstance(a, np.ndarray):
            continue
        if chance < 0.25:
            args[i] = array(rng)
        elif chance < 0.4:
            args[i] = array(rng, dt.from_np(a.dtype), a.ndim)
        elif chance < 0.5 and a.ndim:  # one dim is another
            shape, k = [*a.shape], rng.integers(a.ndim)
            shape[k] = max(0, int(rng.choice([shape[k] - 1, shape[k] + 1, 2 * shape[k], 0, 1, 67])))
            args[i] = wrap(strided(rng, np.resize(a, shape)))
        elif chance < 0.7 and a.dtype.kind in "iu" and a.size:
            bad = np.array(a)
            edge = np.iinfo(a.dtype)
            wrong = [-1, -100, 100, edge.max, edge.min]
            bad.reshape(-1)[rng.integers(a.size)] = np.clip(rng.choice(wrong), edge.min, edge.max)
            args[i] = wrap(bad)
        else:
            args[i] = wrap(strided(rng, a))
    if args and rng.random() < 0.1:
        args = args[:-1] if rng.random() < 0.5 else [*args, array(rng)]
    return lambda: apply(op, *args), f"{op} on {', '.join(map(text, args))}"


def text(x: Any) -> str:
    if isinstance(x, weft.Tensor):
        a = x._a
        return f"{dt.from_np(a.dtype).short}{list(a.shape)}/{[s // a.itemsize for s in a.strides]}"
    if isinstance(x, (list, tuple)):
        return f"[{', '.join(map(text, x))}]"
    return repr(x)


def use(y: Any) -> None:
    """Read every element of a result: a view out of bounds would show here."""
    if isinstance(y, weft.Tensor):
        if y._a.size < 100_000:
            y._a.tobytes()
    elif isinstance(y, (list, tuple)) and len(y) < 1000:
        for part in y:
            use(part)


SIGNATURE = ("missing", "takes", "got an unexpected", "got multiple values", "got both")


def is_unclear(error: Exception) -> bool:
    """Whether an exception came out of the inside of Weft: no statement of ours raised it, and it
    is not what Python says of arguments that do not fit a signature.
    """
    if isinstance(error, TypeError) and any(f" {words} " in f" {error}" for words in SIGNATURE):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    lines = range(last.lineno or 0, (last.end_lineno or last.lineno or 0) + 1)
    raised = any(linecache.getline(last.filename, n).lstrip().startswith("raise") for n in lines)
    return not raised or Path(weft.__file__).parent not in Path(last.filename).parents


def main(seed: int, count: int, way: str = "launch") -> int:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    _limit_memory()
    if way == "launch":
        fence.install(native)
    else:
        fence.install_memory(native, memory)
        dispatch._OFTEN = 2 if way == "native" else dispatch._OFTEN
    functions = public()
    names = sorted(REGISTRY)
    log = open(os.environ["WEFT_FUZZ_LOG"], "w", encoding="utf-8")  # noqa: SIM115
    raised, unclear = 0, []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        # a round gives each function and each op one call, then the next round begins
        at = number % (len(functions) + len(names))
        if at < len(functions):
            call, shown = call_of_function(rng, *functions[at])
        else:
            call, shown = call_of_op(rng, names[at - len(functions)], number)
        log.seek(0)
        log.truncate()
        log.write(f"call {number} of seed {seed}: {shown}\n")
        log.flush()
        faulthandler.dump_traceback_later(SECONDS_A_CALL, exit=True)
        try:
            if way == "compiled":
                call = weft.compile(call)
            for _ in range(TIMES[way]):
                use(call())
        except Exception as error:
            raised += 1
            if at < len(functions) and is_unclear(error):
                unclear.append(f"{shown}: {type(error).__name__}: {error}")
    faulthandler.cancel_dump_traceback_later()
    print(f"{count} calls, {raised} raised, {len(unclear)} unclear,", end=" ")
    print(f"{len(functions)} functions, {len(names)} ops", *unclear, sep="\n")
    return 0


def _limit_memory() -> None:
    """An absurd size must end in MemoryError here, not take the machine's memory."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    except (ImportError, ValueError, OSError):
        pass


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
