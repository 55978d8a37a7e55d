"""The generator against recorded torch draws, and properties that need no record."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from weft.runtime import random as rng
from weft.runtime import random_code
from weft.runtime import random_dist as dist
from weft.runtime.random import Generator

FIXTURES = Path(__file__).parents[1] / "fixtures"
CASES = json.loads((FIXTURES / "random.json").read_text())
DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "bool": np.dtype(np.bool_)}
KEY_END = 24 + 8 * 624  # the state's bytes before the waiting normal number


@pytest.fixture(scope="module")
def arrays():
    with np.load(FIXTURES / "random.npz") as file:
        return dict(file)


def digest(array: np.ndarray) -> str:
    return hashlib.sha1(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def call(g: Generator, method: str, kw: dict) -> np.ndarray:
    kw = dict(kw)
    name = kw.pop("dtype", "float32" if method != "randperm" else None)
    dtype = np.dtype(np.int64) if name is None else DTYPES.get(name) or np.dtype(name)
    if method == "dropout_mask":
        return g.dropout_mask(**kw)
    if method in ("multinomial", "poisson", "bernoulli_each"):
        top, count = kw.pop("top"), kw.pop("count")
        weights = np.array([(i % 7 + 1) / 8 * top for i in range(count)]).astype(dtype)
        if method == "bernoulli_each":
            return g.bernoulli(None, weights, dtype)
        return g.poisson(weights) if method == "poisson" else g.multinomial(weights, **kw)
    return getattr(g, method)(dtype=dtype, **kw)


def assert_near(ours: np.ndarray, torchs: np.ndarray) -> None:
    if torchs.dtype == np.int64:
        np.testing.assert_array_equal(ours, torchs)
        return
    signed = {8: np.int64, 4: np.int32, 2: np.int16}[ours.dtype.itemsize]
    gap = ours.view(signed).astype(np.float64) - torchs.view(signed).astype(np.float64)
    assert np.abs(gap).max() <= 4, (ours, torchs)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_torch_draws(case, arrays):
    record = CASES[case]
    g = Generator().manual_seed(record["seed"])
    for i, (method, kw, expected) in enumerate(record["calls"]):
        out = call(g, method, kw)
        if record["exact"]:
            assert digest(out) == expected, (i, method, kw, out.reshape(-1)[:8])
        else:
            assert_near(out, arrays[f"{case}_{i}"])
    if record["exact"]:
        assert digest(g.get_state()) == record["state"]


def test_state_bytes_are_torchs(arrays):
    g = Generator().manual_seed(11)
    np.testing.assert_array_equal(g.get_state(), arrays["fresh_state"])
    g.normal(3)
    g.uniform(5)
    state = g.get_state()
    np.testing.assert_array_equal(state[:KEY_END], arrays["used_state"][:KEY_END])
    assert state.view(np.uint8)[KEY_END + 24] == 1  # the fourth normal number waits

    other = Generator()
    other.set_state(arrays["used_state"])
    np.testing.assert_array_equal(other.get_state(), arrays["used_state"])
    assert_near(other.normal(4), arrays["used_next"])
    assert other.initial_seed() == 11


@pytest.mark.parametrize("name", ["transposed_0", "transposed_1", "strided_0", "strided_1"])
def test_views_fill_in_memory_order(name, arrays):
    bases = {
        "transposed_0": np.zeros((5, 6), np.float32).T,
        "transposed_1": np.zeros((2, 3, 4), np.float32).transpose(1, 2, 0),
        "strided_0": np.zeros((4, 8), np.float32)[:, ::2],
        "strided_1": np.zeros((9, 9), np.float32)[2:, 3:],
    }
    g = Generator().manual_seed(12)
    for key, view in bases.items():
        rng.store(view, g.uniform(view.size))
        if key == name:
            np.testing.assert_array_equal(view, arrays[f"{name}_uniform"])
        rng.store(view, g.normal(view.size, contiguous=False))
        if key == name:
            np.testing.assert_allclose(view, arrays[f"{name}_normal"], rtol=3e-7)


@pytest.mark.parametrize("used", [0, 1, 5, 623, 624, 625, 5000])
def test_state_restores_exactly_anywhere(used):
    g = Generator().manual_seed(5)
    g.random_raw32(used)
    g.normal(3)
    state = g.get_state()
    expected = g.normal(5), g.uniform(700), g.normal(33)
    copies = g.clone_state(), pickle.loads(pickle.dumps(g)), Generator()
    for copy in copies[:2]:
        np.testing.assert_array_equal(copy.get_state(), g.get_state())
    again = copies[2]
    again.set_state(state)
    np.testing.assert_array_equal(again.get_state(), state)
    assert type(pickle.loads(pickle.dumps(rng.default_generator))) is Generator
    for a, b in zip(expected, (again.normal(5), again.uniform(700), again.normal(33)), strict=True):
        assert a.tobytes() == b.tobytes()


def test_bad_states_and_seeds_are_refused():
    g = Generator()
    good = g.get_state()
    with pytest.raises(TypeError, match="uint8"):
        g.set_state(good.astype(np.int64))
    with pytest.raises(RuntimeError, match="5056 bytes"):
        g.set_state(good[:-1])
    with pytest.raises(RuntimeError, match="Invalid mt19937"):
        g.set_state(np.zeros_like(good))
    broken = good.copy()
    broken[8:12] = np.array([700], np.int32).view(np.uint8)
    with pytest.raises(RuntimeError, match="Invalid mt19937"):
        g.set_state(broken)
    np.testing.assert_array_equal(g.get_state(), good)  # a refused state changes nothing
    for seed in (1.5, True, "3"):
        with pytest.raises(RuntimeError, match="expected a long"):
            g.manual_seed(seed)
    with pytest.raises(ValueError, match="outside"):
        g.manual_seed(2**64)
    assert g.manual_seed(-1).initial_seed() == 2**64 - 1
    with pytest.raises(RuntimeError, match="cuda"):
        Generator("cuda")


@pytest.mark.parametrize(
    ("draw", "error", "words"),
    [
        (lambda g: g.normal(3, std=-1), RuntimeError, "std >= 0.0"),
        (lambda g: g.normal(3, std=float("nan")), RuntimeError, "std >= 0.0"),
        (lambda g: g.normal(3, dtype=np.int64), NotImplementedError, "Long"),
        (lambda g: g.uniform(3, 2, 1), RuntimeError, "from=2 > to=1"),
        (lambda g: g.uniform(3, 0, 1e39), RuntimeError, "to is out of bounds"),
        (lambda g: g.uniform(3, dtype=np.bool_), NotImplementedError, "Bool"),
        (lambda g: g.randint(3, 3, 2), RuntimeError, "from=3 >= to=3"),
        (lambda g: g.randint(0, 300, 2, np.uint8), RuntimeError, "to - 1 is out of bounds"),
        (lambda g: g.randint(-1, 3, 2, np.uint8), RuntimeError, "from is out of bounds"),
        (lambda g: g.random_(2, np.float16, 0, 2**17), RuntimeError, "out of bounds"),
        (lambda g: g.random_(2, np.int32, -(2**63)), RuntimeError, "64-bit range"),
        (lambda g: g.randperm(-1), RuntimeError, "non-negative"),
        (lambda g: g.randperm(300, np.uint8), RuntimeError, "cannot hold"),
        (lambda g: g.bernoulli(3, 1.5), RuntimeError, "p=1.5"),
        (lambda g: g.bernoulli(None, np.array([2.0])), RuntimeError, "every p"),
        (lambda g: g.bernoulli(3, float("nan")), RuntimeError, "p=nan"),
        (lambda g: g.dropout_mask(3, -0.1), ValueError, "between 0 and 1"),
        (lambda g: g.exponential(3, 0), RuntimeError, "lambda > 0.0"),
        (lambda g: g.geometric(3, 1.0), RuntimeError, r"\(0, 1\)"),
        (lambda g: g.log_normal(3, 0, 0), RuntimeError, "std > 0.0"),
        (lambda g: g.cauchy(3, 0, -1), RuntimeError, "sigma > 0.0"),
        (lambda g: g.poisson(np.array([-1.0])), RuntimeError, "non-negative"),
        (lambda g: g.multinomial(np.zeros(3), 1), RuntimeError, "sum of probabilities"),
        (lambda g: g.multinomial(np.ones((3, 0)), 1, True), RuntimeError, "sum of probabilities"),
        (lambda g: g.multinomial(np.array([1.0, np.nan]), 1), RuntimeError, "nan"),
        (lambda g: g.multinomial(np.array([1.0, -1.0]), 1, True), RuntimeError, "< 0"),
        (lambda g: g.multinomial(np.ones(2), 3), RuntimeError, "without replacement"),
        (lambda g: g.multinomial(np.ones(2), 0), RuntimeError, "n_sample <= 0"),
        (lambda g: g.multinomial(np.ones((1, 1, 1)), 1), RuntimeError, "1 or 2 dim"),
        (lambda g: g.multinomial(np.ones(2, np.int64), 1), RuntimeError, "floating-point"),
    ],
)
def test_mistakes_raise_and_draw_nothing(draw, error, words):
    g = Generator().manual_seed(1)
    before = g.get_state()
    with pytest.raises(error, match=words):
        draw(g)
    np.testing.assert_array_equal(g.get_state(), before)


@pytest.mark.parametrize("shape", [0, (0,), (3, 0), ()])
def test_empty_and_scalar_shapes(shape):
    g = Generator()
    full = (shape,) if isinstance(shape, int) else shape
    for draw in (g.uniform, g.normal, g.exponential, g.log_normal, g.cauchy):
        assert draw(shape).shape == full
    assert g.randint(0, 5, shape).shape == full
    assert g.bernoulli(shape, 0.5).shape == full


def test_permutations_hold_every_number():
    g = Generator().manual_seed(3)
    for n in (0, 1, 2, 257, 60_000):
        np.testing.assert_array_equal(np.sort(g.randperm(n)), np.arange(n))


def test_large_permutations_by_the_other_algorithm():
    n = 1000
    engine, bits = Generator().manual_seed(3)._engine, numpys_words(3)
    expected = [0] * n
    for i in range(n):
        high, low = (int(w) for w in bits.random_raw(2))
        z = ((high << 32) | low) % (i + 1)
        expected[i] = expected[z]
        expected[z] = i
    assert engine.shuffle64(n).tolist() == expected
    assert sorted(expected) == list(range(n))


def test_moments():
    g = Generator().manual_seed(4)
    n = 200_000
    for z in (g.normal(n), g.normal(n, dtype=np.float64), g.normal(n // 4, contiguous=False)):
        assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01
        assert abs((z**4).mean() - 3) < 0.15
    assert abs(g.exponential(n, 2.0).mean() - 0.5) < 0.01
    assert abs(g.geometric(n, 0.25).mean() - 4) < 0.05
    assert abs(np.median(g.cauchy(n, 1.5)) - 1.5) < 0.02
    for rate in (0.0, 3.0, 40.0):
        count = g.poisson(np.full(3000, rate))
        assert abs(count.mean() - rate) < 0.5
    picked = g.multinomial(np.array([0.1, 0.0, 0.6, 0.3]), 20_000, True)
    share = np.bincount(picked, minlength=4) / 20_000
    np.testing.assert_allclose(share, [0.1, 0, 0.6, 0.3], atol=0.02)
    each = g.multinomial(np.ones((50, 6)), 6)
    np.testing.assert_array_equal(np.sort(each, 1), np.tile(np.arange(6), (50, 1)))


def test_uniform_never_returns_the_open_end():
    g = Generator().manual_seed(6)
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32):
        u = g.uniform(50_000, 1.0, 2.0, dtype).astype(np.float64)
        assert u.min() >= 1.0 and u.max() < 2.0


def test_float32_polynomials_against_float64():
    x = np.linspace(1e-7, 1, 10_001, dtype=np.float32)
    np.testing.assert_allclose(dist.log32(x), np.log(x.astype(np.float64)), rtol=3e-7, atol=1e-7)
    t = np.linspace(0, 2 * np.pi, 10_001, dtype=np.float32)
    sin, cos = dist.sincos32(t)
    np.testing.assert_allclose(sin, np.sin(t.astype(np.float64)), atol=2e-7)
    np.testing.assert_allclose(cos, np.cos(t.astype(np.float64)), atol=2e-7)


def numpys_words(seed: int) -> np.random.MT19937:
    bits = np.random.MT19937()
    bits._legacy_seeding(seed)
    return bits


def test_words_equal_numpys_twister():
    g, bits = Generator().manual_seed(5), numpys_words(5)
    for n in (0, 1, 3, 227, 396, 397, 623, 624, 625, 10, 100_000, 7):
        np.testing.assert_array_equal(g.random_raw32(n), bits.random_raw(n))
        key, used = g._engine.key()
        expected = bits.state["state"]
        np.testing.assert_array_equal(key, expected["key"])
        assert used == expected["pos"]


@pytest.mark.parametrize("n", [1, 7, 8, 9, 1023, 1024, 1025, 5000])
def test_uniforms_equal_the_words(n):
    g, bits = Generator().manual_seed(6), numpys_words(6)
    g.random_raw32(1), bits.random_raw(1)  # pairs of words straddle the blocks
    words = bits.random_raw(n) & np.uint64(2**24 - 1)
    np.testing.assert_array_equal(g.uniform(n), (words * 2.0**-24).astype(np.float32))
    for p in (None, 0.0, 0.3, 2.0**-53, 1 - 2.0**-53, 1.0):
        pairs = bits.random_raw(2 * n).reshape(n, 2)
        u = (((pairs[:, 0] << np.uint64(32)) | pairs[:, 1]) & np.uint64(2**53 - 1)) * 2.0**-53
        ours = g.uniform(n, dtype=np.float64) if p is None else g.bernoulli(n, p, np.bool_)
        np.testing.assert_array_equal(ours, u if p is None else u < p)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 0.02), (-3.0, 2.5), (1e30, 1e38)])
def test_native_normals_equal_numpys(mean, std):
    if random_code.function() is None:
        pytest.skip("this machine has no fused multiply-add")
    u = Generator().manual_seed(2).uniform(16 * 4001)
    u[:16], u[16:32] = 0, np.float32(1 - 2**-24)
    numpys, native = u.copy(), u.copy()
    with np.errstate(over="ignore"):
        dist.box_muller32(numpys, mean, std)
    random_code.box_muller32(native, mean, std)
    np.testing.assert_array_equal(numpys.view(np.int32), native.view(np.int32))


def test_fma64_rounds_once():
    from fractions import Fraction

    g = np.random.default_rng(0)
    for _ in range(300):
        a, b, c = (float(v) for v in g.normal(size=3) * 10.0 ** g.integers(-3, 3, 3))
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        assert dist.fma64(np.array([a]), b, c)[0] == float(exact)


def test_threads_share_one_stream():
    g = Generator().manual_seed(8)
    parts: list[np.ndarray] = []

    def work() -> None:
        for _ in range(20):
            parts.append(g.random_raw32(100))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    alone = Generator().manual_seed(8).random_raw32(8000)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.sort(alone))


def test_a_thread_may_have_its_own_default_generator():
    state = rng.default_generator.get_state()
    drawn = {}

    def work(name: str, seed: int) -> None:
        with rng.default_generator.bound(Generator().manual_seed(seed)):
            drawn[name] = [rng.default_generator.normal(3) for _ in range(3)]
            assert rng.initial_seed() == seed

    threads = [threading.Thread(target=work, args=(str(seed), seed)) for seed in (21, 22)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for seed in (21, 22):
        alone = Generator().manual_seed(seed)
        for z in drawn[str(seed)]:
            np.testing.assert_array_equal(z, alone.normal(3))
    np.testing.assert_array_equal(rng.default_generator.get_state(), state)


def test_the_fingerprint_changes_with_every_draw():
    g = Generator().manual_seed(1)
    seen = {g.fingerprint()}
    for draw in (lambda: g.normal(1), lambda: g.normal(1), lambda: g.random_raw32(624)):
        draw()
        seen.add(g.fingerprint())
    assert len(seen) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_may_draw_whoever_held_the_lock():
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with rng.default_generator._lock:
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # a deadlock ends the child, not the test run
        os._exit(0 if rng.default_generator.uniform(3).shape == (3,) else 1)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_default_generator_and_fork():
    state = rng.default_generator.get_state()
    try:
        assert rng.manual_seed(7) is rng.default_generator
        assert rng.initial_seed() == 7
        with rng.fork_rng():
            rng.default_generator.uniform(3)
        first = rng.default_generator.uniform(2)
        np.testing.assert_array_equal(first, Generator().manual_seed(7).uniform(2))
        assert rng.seed() == rng.initial_seed()
    finally:
        rng.default_generator.set_state(state)
