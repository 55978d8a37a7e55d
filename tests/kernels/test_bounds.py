"""Kernels read and write nothing outside their arrays: a fault there ends the child process."""

import subprocess
import sys

import pytest

import weft
from weft.nn import functional as F

CHILD = """
import ctypes, itertools, mmap
import numpy as np
from weft.core import dtype as D
from weft.core import scalar as S
from weft.kernels import eager
from weft.kernels.layout import Layout
from weft.kernels.schedule.gemm import plan_matmul
from weft.runtime import native, threads

threads.set_num_threads(1)
PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
kept = []


def guarded(shape, d, step, at_end):
    "An array that ends (or starts) at a page which may not be touched."
    size = int(np.prod(shape)) * d.itemsize * step
    pages = -(-size // PAGE)
    room = mmap.mmap(-1, (pages + 2) * PAGE)
    kept.append(room)
    base = ctypes.addressof(ctypes.c_char.from_buffer(room))
    for page in (0, pages + 1):
        assert libc.mprotect(ctypes.c_void_p(base + page * PAGE), PAGE, 0) == 0
    wide = (*shape[:-1], shape[-1] * step)
    if at_end:
        first = (pages + 1) * PAGE - size + (step - 1) * d.itemsize
        flat = np.frombuffer(room, d.np, offset=first, count=size // d.itemsize - step + 1)
        strides = [d.itemsize * step * int(np.prod(shape[k + 1:])) for k in range(len(shape))]
        return np.lib.stride_tricks.as_strided(flat, shape, strides, writeable=True)
    flat = np.frombuffer(room, d.np, offset=PAGE, count=size // d.itemsize)
    return flat.reshape(wide)[..., ::step]


def of(x):
    return Layout.of(x)


dtypes = (D.float64, D.float32, D.bfloat16, D.int8)
shapes = ((1,), (19,), (5, 21), (70, 67))
for d, shape, step, end in itertools.product(dtypes, shapes, (1, 3), (0, 1)):
    x, y = (guarded(shape, d, s, end) for s in (step, 1))
    a, b = S.Arg(0, d), S.Arg(1, d)
    launches = [
        (eager.plan_elementwise(a + b, [of(x), of(y)], of(y)), y, (x, y)),
        (eager.plan_elementwise(a + b, [of(x), of(y)], of(x)), x, (x, y)),
        (eager.plan_copy(of(x.T), of(y.reshape(x.T.shape))), y.reshape(x.T.shape), (x.T,)),
        (eager.plan_cumulative("max", 0, of(x), of(y)), y, (x,)),
    ]
    if len(shape) == 2:  # products whose operands lie along and across
        wide, tall = guarded((shape[0], 70), d, 1, end), guarded((shape[1], 70), d, 1, end)
        launches.append((plan_matmul(of(x.T), of(wide), of(tall)), tall, (x.T, wide)))
        launches.append((plan_matmul(of(x), of(tall), of(wide)), wide, (x, tall)))
    for dim in range(len(shape)):
        out = guarded(tuple(n for k, n in enumerate(shape) if k != dim) or (1,), d, 1, end)
        line = out if len(shape) > 1 else out.reshape(())
        launches.append((eager.plan_reduce("max", a, (dim,), False, [of(x)], of(line)), line, (x,)))
        if d.is_floating_point:
            launches.append((eager.plan_softmax(of(x), dim, of(y)), y, (x,)))
    if d.is_floating_point:
        launches.append((eager.plan_layer_norm(of(x), 1, of(y), 1e-5), y, (x,)))
    for launch, out, ins in launches:
        assert native.launch(launch, out, ins) == 0
print("fine")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="guard pages are made with Linux calls")
def test_guard_pages_are_not_touched() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


@pytest.mark.parametrize("size", [2**31, 2**62, 2**63 - 1])
def test_windows_of_more_than_32_bits_are_refused(size: int) -> None:
    """The address of a tap is a sum of products of such numbers: they crashed the interpreter."""
    x, line = weft.ones(1, 2, 8, 8), weft.ones(1, 2, 8)
    kernel, deep = weft.ones(2, 2, 3, 3), weft.ones(2, 2, 1, 1, 3)
    for call in (
        lambda: F.local_response_norm(x, size),
        lambda: F.max_pool2d(x, size, 1, size // 2),
        lambda: F.avg_pool1d(line, size, 1, size // 2),
        lambda: F.conv2d(x, kernel, padding=size, stride=size),
        lambda: F.conv3d(x[:, :, None], deep, padding=(0, 0, size), dilation=size),
        lambda: F.unfold(x, 2, padding=size),
    ):
        with pytest.raises(RuntimeError, match="without overflow"):
            call()
    assert F.max_pool2d(x, 2, size, ceil_mode=True).tolist() == [[[[1.0]]] * 2]  # clipped


def test_windows_with_too_many_taps_are_refused() -> None:
    x = weft.ones(1, 2, 8, 8)
    for pool in (F.max_pool2d, F.avg_pool2d):
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            pool(x, 2**31 - 1, 1, 2**30 - 1)
