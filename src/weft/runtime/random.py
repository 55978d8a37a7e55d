"""Random generators: torch's CPU generator (mt19937) draw for draw, so seeds carry over.

A `Generator` hands out NumPy arrays; the tensor layer wraps them. Every element consumes the 32-bit
words that torch's CPU kernels consume, in the same order, and one draw method is one locked step.
All draws equal torch's bit for bit (arithmetic in `random_dist`); float64 log, sin and the like
come from the C library, as torch's do, so there the C library must be the same.

torch built with MKL fills Bernoulli draws of one probability on Intel processors from a second
generator; Weft always follows the path that torch takes everywhere else.
"""

from __future__ import annotations

import math
import operator
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.runtime import memory, native, random_code
from weft.runtime import random_dist as dist
from weft.runtime.twister import ASIDE, USED, N, Twister, first_key

DEFAULT_SEED = 67280421310721  # what a new torch.Generator starts from
STATE_BYTES = 5056
_SINGLE = np.dtype(np.float32)
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_LARGE_PERMUTATION = (2**32 - 1) // 20  # from here torch draws 64-bit words

_STATE = np.dtype(
    {
        "names": ["seed", "left", "seeded", "next", "key", "normal", "has_normal"],
        "formats": ["<u8", "<i4", "<i4", "<u8", ("<u8", (N,)), "<f8", "<i4"],
        "offsets": [0, 8, 12, 16, 24, 24 + 8 * N + 8, 24 + 8 * N + 24],
        "itemsize": STATE_BYTES,
    }
)

Shape = int | Sequence[int]


def check_probability(p: float) -> None:
    """ValueError for another than that of a dropout."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


class Generator:
    """A stream of random numbers, as `torch.Generator(device="cpu")`."""

    __slots__ = ("_engine", "_lock", "_seed", "__weakref__")

    def __init__(self, device: object = "cpu") -> None:
        if str(device) != "cpu":
            raise RuntimeError(f"Generator: device {device} has no generator; only 'cpu' has")
        self._engine = Twister()
        self._lock = threading.RLock()
        self.manual_seed(DEFAULT_SEED)

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def current(self) -> Generator:
        """Who draws in this thread."""
        return self

    _normal = property(
        lambda self: self._engine.waiting(), lambda self, z: self._engine.wait(z)
    )  # of a pair: the next number

    # --- seeds and state ---------------------------------------------------------------------

    def manual_seed(self, seed: int) -> Generator:
        """Restart the stream; `seed` in [-2^63, 2^64), of which mt19937 uses the low 32 bits."""
        if isinstance(seed, bool) or not hasattr(seed, "__index__"):
            raise RuntimeError(f"manual_seed expected a long, but got {type(seed).__name__}")
        seed = operator.index(seed)
        if not _INT64_MIN <= seed < 2**64:
            raise ValueError(f"manual_seed: {seed} is outside [-2^63, 2^64)")
        with self._lock:
            self._seed = seed % 2**64
            self._engine.seed(self._seed)
            self._normal = None
        return self

    def seed(self) -> int:
        """Seed from the operating system's entropy; returns the seed."""
        value = int.from_bytes(os.urandom(8), "little")
        self.manual_seed(value)
        return value

    def initial_seed(self) -> int:
        return self._seed

    def get_state(self) -> np.ndarray:
        """The state as 5,056 bytes, laid out as `torch.get_rng_state()` lays it out."""
        with self._lock:
            key, position = self._engine.key()
            record = np.zeros((), _STATE)
            record["seed"], record["seeded"], record["key"] = self._seed, 1, key
            if position == N:  # used up: the next draw makes a new block of words
                record["left"] = 1
                record["next"] = 0 if np.array_equal(key, first_key(self._seed)) else N
            else:
                record["left"], record["next"] = N + 1 - position, position
            if self._normal is not None:
                record["normal"], record["has_normal"] = self._normal, 1
        return np.frombuffer(record.tobytes(), np.uint8).copy()

    def set_state(self, state: np.ndarray) -> None:
        """Continue from bytes that `get_state` (or torch) made. RuntimeError for other bytes."""
        state = np.asarray(state)
        if state.dtype != np.uint8:
            raise TypeError(f"RNG state must be uint8, but got {state.dtype}")
        if state.size != STATE_BYTES:
            raise RuntimeError(f"RNG state must have {STATE_BYTES} bytes, but got {state.size}")
        record = np.frombuffer(state.tobytes(), _STATE)[0]
        left, position = int(record["left"]), int(record["next"])
        used_up = left == 1 and position in (0, N)
        inside = 0 < position < N and left + position == N + 1
        if not record["seeded"] or not (used_up or inside):
            raise RuntimeError("Invalid mt19937 state")
        with self._lock:
            self._seed = int(record["seed"])
            self._engine.load(record["key"].astype(np.uint32), N if used_up else position)
            self._normal = float(record["normal"]) if record["has_normal"] else None

    def clone_state(self) -> Generator:
        """A new generator that continues from this one's state."""
        other = Generator()
        other.set_state(self.get_state())
        return other

    def __reduce__(self) -> tuple:
        return _restore, (type(self), Generator.get_state(self).tobytes())

    def __repr__(self) -> str:
        return f"<weft.Generator device=cpu seed={self._seed}>"

    def fingerprint(self) -> tuple[int, int, float | None]:
        """Something that changes with every draw, for less than `get_state` costs."""
        state = self._engine.state
        return int(state[0]), int(state[USED]), self._normal

    def put_aside(self, step: int) -> None:
        """One thread more, or less, draws from another stream than this one, which it would."""
        with self._lock:
            state = self._engine.state
            state[ASIDE] = int(state[ASIDE]) + step

    # --- words ---------------------------------------------------------------------------------

    def random_raw32(self, n: int) -> np.ndarray:
        """The next `n` words, uint32 (n,)."""
        with self._lock:
            return self._engine.words(n)

    def random_raw64(self, n: int) -> np.ndarray:
        """`n` numbers of two words each, the first one high; uint64 (n,)."""
        words = self.random_raw32(2 * n).reshape(n, 2).astype(np.uint64)
        return (words[:, 0] << np.uint64(32)) | words[:, 1]

    def _uniform24(self, n: int) -> np.ndarray:
        with self._lock:
            return self._engine.uniform24(n)

    def _uniform53(self, n: int) -> np.ndarray:
        with self._lock:
            return self._engine.uniform53(n)

    # --- real numbers --------------------------------------------------------------------------

    def uniform(
        self, shape: Shape, low: float = 0.0, high: float = 1.0, dtype: object = np.float32
    ) -> np.ndarray:
        """u (high - low) + low, u in [0, 1): 53 random bits for float64, else 24."""
        if low == 0 and high == 1 and dtype is _SINGLE:  # most often
            shape, n = _shape(shape)
            return self._uniform24(n).reshape(shape)
        dtype = _floating(dtype, "check_uniform_bounds")
        limit = float(dist.largest(dtype))
        for name, value in (("from", low), ("to", high)):
            if not -limit <= value <= limit:
                raise RuntimeError(f"{name} is out of bounds for {dtype}")
        if not low <= high:
            raise RuntimeError(
                "uniform_ expects to return a [from, to) range, "
                f"but found from={low:g} > to={high:g}"
            )
        if high - low > limit:
            raise RuntimeError(f"uniform_ expects to-from <= {limit:g}: from={low:g}, to={high:g}")
        shape, n = _shape(shape)
        if dtype.itemsize == 8:
            value = dist.fma64(self._uniform53(n), high - low, low)
        else:
            low32, high32 = np.float32(low), np.float32(high)
            value = self._uniform24(n)
            if low32 != 0 or high32 != 1:
                value = dist.fma32(value, high32 - low32, low32)
            value = value.astype(dtype, copy=False)
        if low or high != 1 or dtype.itemsize == 2:  # rounding may reach the open end
            value[value == np.asarray(high).astype(dtype)] = np.asarray(low).astype(dtype)
        return value.reshape(shape)

    def normal(
        self,
        shape: Shape,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: object = np.float32,
        contiguous: bool = True,
    ) -> np.ndarray:
        """std z + mean. Contiguous arrays of 16 and more elements are made in blocks of 16, the
        last 16 anew when the size is no multiple; the others one by one in float64, where every
        second number waits in the generator for the next call. `contiguous=False` forces that.
        """
        dtype = _floating(dtype, "normal_kernel_cpu")
        if not std >= 0:
            raise RuntimeError(f"normal expects std >= 0.0, but found std {std:g}")
        shape, n = _shape(shape)
        if n < 16 or not contiguous:
            return dist.cast(self._normal_serial(n, mean, std), dtype).reshape(shape)
        whole = n - n % 16
        with self._lock:
            if dtype.itemsize == 8:
                value = self._uniform53(n)
                tail = self._uniform53(16 if n % 16 else 0)
            else:  # 16-bit types skip the words of the partial block
                value = self._uniform24(n if dtype.itemsize == 4 else whole)
                tail = self._uniform24(16 if n % 16 else 0)
        transform = dist.box_muller64 if dtype.itemsize == 8 else random_code.box_muller32
        transform(value[:whole], mean, std)
        if tail.size:
            transform(tail, mean, std)
            out = memory.empty((n,), value.dtype)
            value = np.concatenate([value[: n - 16], tail], out=out)
        return dist.cast(value, dtype).reshape(shape)

    def _normal_serial(self, n: int, mean: float, std: float) -> np.ndarray:
        """float64 (n,): Box-Muller pairs; an odd one stays for the next call."""
        with self._lock:
            if n == 0:
                return np.empty(0)
            waiting = [] if self._normal is None else [self._normal]
            missing = n - len(waiting)
            z = dist.normal_pairs(self._uniform53(missing + missing % 2))
            self._normal = float(z[-1]) if missing % 2 else None
        z = np.concatenate([waiting, z])[:n] if waiting or missing % 2 else z
        return dist.fma64(z, std, mean)

    def log_normal(
        self, shape: Shape, mean: float = 1.0, std: float = 2.0, dtype: object = np.float32
    ) -> np.ndarray:
        """exp(std z + mean), z as in the one-by-one path of `normal`."""
        dtype = _floating(dtype, "log_normal_cpu")
        if not std > 0:
            raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std:g}")
        shape, n = _shape(shape)
        z = self._normal_serial(n, mean, std)
        return dist.cast(dist.libm("exp", z), dtype).reshape(shape)

    def exponential(
        self, shape: Shape, lambd: float = 1.0, dtype: object = np.float32
    ) -> np.ndarray:
        """-log1p(-u) / lambd."""
        dtype = _floating(dtype, "exponential_cpu")
        if not lambd > 0:
            raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd:g}")
        shape, n = _shape(shape)
        value = (-1.0 / lambd) * dist.libm("log1p", -self._uniform53(n))
        return dist.cast(value, dtype).reshape(shape)

    def cauchy(
        self, shape: Shape, median: float = 0.0, sigma: float = 1.0, dtype: object = np.float32
    ) -> np.ndarray:
        """median + sigma tan(pi (u - 1/2))."""
        dtype = _floating(dtype, "cauchy_cpu")
        if not sigma > 0:
            raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma:g}")
        shape, n = _shape(shape)
        tangent = dist.libm("tan", math.pi * (self._uniform53(n) - 0.5))
        return dist.cast(dist.fma64(tangent, sigma, median), dtype).reshape(shape)

    def geometric(self, shape: Shape, p: float, dtype: object = np.float32) -> np.ndarray:
        """ceil(log u / log1p(-p)): trials up to the first success."""
        if not 0 < p < 1:
            raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p:g}")
        shape, n = _shape(shape)
        value = np.ceil(dist.libm("log", self._uniform53(n)) / math.log1p(-p))
        return dist.cast(value, _numpy_dtype(dtype)).reshape(shape)

    # --- whole numbers and choices ---------------------------------------------------------------

    def randint(self, low: int, high: int, shape: Shape, dtype: object = np.int64) -> np.ndarray:
        """word % (high - low) + low; two words a number from a range of 2^28 on."""
        return self.random_(shape, dtype, low, high)

    def random_(
        self, shape: Shape, dtype: object, low: int | None = None, high: int | None = None
    ) -> np.ndarray:
        """`Tensor.random_`: whole numbers in [low, high). Without bounds: [0, largest] for
        integers, [0, 2^mantissa] for floats; with `low` alone: [low, largest].
        """
        dtype = _numpy_dtype(dtype)
        shape, n = _shape(shape)
        if low is None and high is None:
            return self._random_full(n, dtype).reshape(shape)
        low = 0 if low is None else low
        if high is None and low == _INT64_MIN:
            if dtype not in (np.int64, np.float64, np.float32) and dist.digits(dtype) != 8:
                raise RuntimeError(f"random_: the full 64-bit range does not fit {dtype}")
            return dist.cast(self.random_raw64(n).view(np.int64), dtype).reshape(shape)
        low, last = dist.integer_bounds(low, high, dtype)
        span = last - low + 1
        raw = self.random_raw32(n) if span < 2**28 else self.random_raw64(n)
        value = raw % raw.dtype.type(span)
        if value.itemsize == 4 and low == 0:
            return dist.cast(value, dtype).reshape(shape)
        value = value.astype(np.uint64) + np.uint64(low % 2**64)
        return dist.cast(value.view(np.int64), dtype).reshape(shape)

    def _random_full(self, n: int, dtype: np.dtype) -> np.ndarray:
        if dtype == np.bool_:
            return (self.random_raw32(n) & np.uint32(1)).astype(np.bool_)
        raw = self.random_raw64(n) if dtype in (np.int64, np.float64) else self.random_raw32(n)
        count = 2 ** dist.digits(dtype) + (0 if dtype.kind in "iu" else 1)
        return dist.cast(raw % raw.dtype.type(count), dtype)

    def randperm(self, n: int, dtype: object = np.int64) -> np.ndarray:
        """A permutation of 0..n-1: for i from 0, swap places i and i + word % (n - i)."""
        dtype = _numpy_dtype(dtype)
        if n < 0:
            raise RuntimeError(f"randperm: n must be non-negative, but got {n}")
        if n > 1 and n > 2 ** dist.digits(dtype) and dtype != np.bool_:
            raise RuntimeError(f"randperm: {dtype} cannot hold the numbers below n = {n}")
        if n < 2:
            return np.arange(n).astype(dtype)
        with self._lock:
            small = n < _LARGE_PERMUTATION
            order = self._engine.shuffle(n) if small else self._engine.shuffle64(n)
        return order.astype(dtype, copy=False)

    def bernoulli(
        self, shape: Shape | None, p: float | np.ndarray, dtype: object = np.float32
    ) -> np.ndarray:
        """1 where u < p, else 0. `p` a number or a float64 array: 53-bit u; another float array
        (broadcast to `shape`; None takes p's own): 24-bit u.
        """
        if isinstance(p, np.ndarray):
            shape, n = _shape(p.shape if shape is None else shape)
            least, most = (
                np.minimum.reduce(p, None, initial=1),
                np.maximum.reduce(p, None, initial=0),
            )
            if not (least >= 0 and most <= 1):
                raise RuntimeError("bernoulli_ expects every p to be in [0, 1]")
            p = (p if p.shape == shape else np.broadcast_to(p, shape)).reshape(-1)
            if p.dtype != np.float64:
                hit = self._uniform24(n) < p.astype(np.float32)
                return hit.astype(_numpy_dtype(dtype)).reshape(shape)
        else:
            shape, n = _shape(() if shape is None else shape)
            if not 0 <= p <= 1:
                raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p:g}")
            with self._lock:
                hit = self._engine.below(n, p)
            return hit.astype(_numpy_dtype(dtype), copy=False).reshape(shape)
        return (self._uniform53(n) < p).astype(_numpy_dtype(dtype)).reshape(shape)

    def dropout_mask(self, shape: Shape, p: float, dtype: object = np.bool_) -> np.ndarray:
        """True where dropout keeps: Bernoulli(1 - p). torch draws nothing for p = 0 and p = 1,
        nor in evaluation mode, and then multiplies by mask / (1 - p).
        """
        check_probability(p)
        if p in (0, 1):
            return np.full(_shape(shape)[0], p == 0, _numpy_dtype(dtype))
        return self.bernoulli(shape, 1.0 - p, dtype)

    def multinomial(
        self, weights: np.ndarray, num_samples: int, replacement: bool = False
    ) -> np.ndarray:
        """Indices (..., num_samples), int64, drawn in proportion to `weights` (k,) or (m, k).

        With replacement: the first place whose cumulative weight reaches u. Without: the places of
        the largest w / e, e exponential, largest first; equal quotients in order of place.
        """
        dist.check_weights(weights, num_samples, replacement)
        rows = weights.reshape(-1, weights.shape[-1])
        if not replacement or num_samples == 1:
            e = self.exponential(rows.shape, 1.0, rows.dtype)
            with np.errstate(divide="ignore", invalid="ignore"):
                score = (rows / e).astype(rows.dtype, copy=False)
            if num_samples == 1:
                picked = score.argmax(-1, keepdims=True)
            else:
                picked = np.argsort(-score, axis=-1, kind="stable")[:, :num_samples]
        else:
            wide = rows if rows.dtype.itemsize > 2 else rows.astype(np.float32)
            total = np.add.accumulate(wide, axis=-1)
            total /= total[:, -1:].copy()
            total[:, -1] = 1
            u = self._uniform53(len(rows) * num_samples).reshape(len(rows), num_samples)
            picked = np.empty(u.shape, np.int64)
            for i, row in enumerate(total):
                picked[i] = np.searchsorted(row.astype(np.float64), u[i], side="left")
        picked = picked.astype(np.int64, copy=False)
        return picked.reshape(*weights.shape[:-1], num_samples)

    # --- by rejection, one element at a time ------------------------------------------------------

    def _rejecting(self, sampler: Callable[[dist.Draws], list[float]]) -> np.ndarray:
        with self._lock:
            key, position = self._engine.key()
            draws = dist.Draws(self._uniform53, self._normal)
            values = sampler(draws)
            self._engine.load(key, position)  # give back what was drawn ahead
            self._engine.words(2 * draws.used)
            self._normal = draws.left
        return np.array(values, np.float64)

    def poisson(self, rates: np.ndarray) -> np.ndarray:
        """Counts with mean `rates`, in rates' shape and dtype."""
        _floating(rates.dtype, "poisson_cpu")
        if not (rates >= 0).all():
            raise RuntimeError("invalid Poisson rate, expected rate to be non-negative")
        flat = rates.astype(np.float64).reshape(-1).tolist()
        counts = self._rejecting(lambda draws: dist.poisson(flat, draws))
        return dist.cast(counts, rates.dtype).reshape(rates.shape)

    def standard_gamma(self, alpha: np.ndarray) -> np.ndarray:
        """Numbers of density x^(alpha - 1) e^-x / Gamma(alpha), at least `tiny`."""
        flat = _wide(alpha, "gamma_cpu").reshape(-1)
        value = self._rejecting(lambda draws: dist.gamma(flat, draws))
        least = np.finfo(alpha.dtype).tiny
        return np.maximum(value.astype(alpha.dtype), least).reshape(alpha.shape)

    def dirichlet(self, alpha: np.ndarray) -> np.ndarray:
        """Rows that sum to 1: gammas of a row, drawn in float64, divided by their sum."""
        flat = _wide(alpha, "dirichlet").astype(np.float64).reshape(-1)
        value = self._rejecting(lambda draws: dist.gamma(flat, draws)).reshape(alpha.shape)
        value = np.maximum(value, np.finfo(np.float64).tiny)
        value = (value / value.sum(-1, keepdims=True)).astype(alpha.dtype)
        below_one = np.nextafter(alpha.dtype.type(1), alpha.dtype.type(0))
        return np.clip(value, np.finfo(alpha.dtype).tiny, below_one)

    def binomial(self, count: np.ndarray, prob: np.ndarray) -> np.ndarray:
        """Successes among `count` trials of probability `prob`, of one shape and dtype."""
        _wide(count, "binomial_cpu")
        n, p = count.reshape(-1), prob.reshape(-1)
        value = self._rejecting(lambda draws: dist.binomial(n, p, draws))
        return value.astype(count.dtype).reshape(count.shape)


def store(out: np.ndarray, values: np.ndarray) -> None:
    """Write flat `values` into `out` in the order in which torch fills a tensor in place: memory
    order, that is the dim with the largest stride outermost.
    """
    dims = sorted(range(out.ndim), key=lambda d: -abs(out.strides[d]))
    view = out.transpose(dims)
    view[...] = values.reshape(view.shape)


def _restore(kind: type[Generator], state: bytes) -> Generator:
    generator = Generator() if kind is DefaultGenerator else kind()
    Generator.set_state(generator, np.frombuffer(state, np.uint8))
    return generator


def _numpy_dtype(dtype: Any) -> np.dtype:
    return np.dtype(getattr(dtype, "np", dtype))


def _floating(dtype: object, kernel: str) -> np.dtype:
    dtype = _numpy_dtype(dtype)
    if dtype.kind in "iub":
        raise dt.from_np(dtype).lacks(kernel)
    return dtype


def _wide(x: np.ndarray, kernel: str) -> np.ndarray:
    """x, which must be float32 or float64."""
    if x.dtype not in (np.float32, np.float64):
        raise NotImplementedError(f'"{kernel}" not implemented for {x.dtype}')
    return x


def _shape(shape: Shape) -> tuple[tuple[int, ...], int]:
    if isinstance(shape, tuple):
        return shape, math.prod(shape)
    shape = tuple(shape) if isinstance(shape, Sequence) else (operator.index(shape),)
    return shape, math.prod(shape)


# --- the default generator --------------------------------------------------------------------


class _Current(threading.local):
    generator = Generator()


def _forward(name: str) -> property:
    return property(
        lambda self: getattr(self._current.generator, name),
        lambda self, value: setattr(self._current.generator, name, value),
    )


class DefaultGenerator(Generator):
    """One stream for all threads, except those that `bound` gives one of their own."""

    __slots__ = ("_current",)
    _engine, _lock = _forward("_engine"), _forward("_lock")
    _seed, _normal = _forward("_seed"), _forward("_normal")

    def __init__(self) -> None:
        self._current = _Current()
        self.seed()

    @property
    def current(self) -> Generator:
        """The generator that this thread has."""
        return self._current.generator

    @contextmanager
    def bound(self, generator: Generator) -> Iterator[None]:
        """Inside, and in this thread only, the default generator is `generator`: a data loader's
        worker draws its own numbers, whatever the others do.
        """
        before = self._current.generator
        self._current.generator = generator
        _Current.generator.put_aside(1)
        try:
            yield
        finally:
            self._current.generator = before
            _Current.generator.put_aside(-1)


default_generator = DefaultGenerator()
random_code.install(Generator)


def small_draw(kind: str, n: int, dtype: np.dtype, params: tuple) -> native.Launch | None:
    """`random_code.draw` from the process-wide generator."""
    state = _Current.generator._engine.address
    return random_code.draw(_Current.generator, state, kind, n, dtype, params)


def _new_lock() -> None:
    _Current.generator._lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # another thread may have held the lock at the fork
    os.register_at_fork(after_in_child=_new_lock)


def manual_seed(seed: int) -> Generator:
    """Seed the default generator, as `torch.manual_seed`; returns it."""
    return default_generator.manual_seed(int(seed))


def seed() -> int:
    return default_generator.seed()


def initial_seed() -> int:
    return default_generator.initial_seed()


@contextmanager
def fork_rng(
    devices: Any = None,
    enabled: bool = True,
    _caller: str = "fork_rng",
    _devices_kw: str = "devices",
    device_type: Any = None,
) -> Iterator[None]:
    """Draws inside leave the default generator as it was before."""
    if not enabled:
        yield
        return
    state = default_generator.get_state()
    try:
        yield
    finally:
        default_generator.set_state(state)
