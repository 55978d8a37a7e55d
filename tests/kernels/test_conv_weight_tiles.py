"""Weight gradients in tile registers: the order of their sums, and what no sum may meet."""

import ml_dtypes
import numpy as np
import pytest

from tests.kernels.test_conv import channels_last, ref_dw, sample, taps
from tests.kernels.test_conv_pairs import close, conv_dw, rounded
from weft.kernels.layout import Layout
from weft.kernels.schedule import conv_weight_tiles
from weft.kernels.schedule.amx import multiplies_pairs_in_tiles
from weft.runtime import threads

pytestmark = pytest.mark.skipif(not multiplies_pairs_in_tiles(), reason="no AMX-BF16 here")
BF16, F32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)
kinds = pytest.mark.parametrize("dtype", [BF16, F32], ids=str)


def by_tiles(g, x, parts):
    """The definition, of (images, columns, rows, places) and the pixels of one tap: equal chunks of
    at most 16 words of each image, the first and the second numbers of words apart (`amx`); so many
    runs of blocks of 24 chunks, one sum each."""
    odd = [(0, 0)] * 3 + [(0, g.shape[3] % 2)]
    words = []
    for a in (g, x):
        a = np.pad(a.astype(BF16).astype(F32), odd).transpose(1, 0, 2, 3)
        words.append(a.reshape(a.shape[0], a.shape[1], -1, 2))
    images, area = words[0].shape[1:3]
    cells = max(n for n in range(1, 17) if area % n == 0)
    a, b = (w.reshape(len(w), -1, cells, 2).astype(np.float64) for w in words)
    chunks = images * area // cells
    blocks = -(-chunks // 24)
    total = None
    for part in range(parts):
        low, high = (24 * (blocks * (part + i) // parts) for i in (0, 1))
        own = np.zeros((len(a), len(b)), F32)
        for chunk in range(low, min(high, chunks)):
            sums = [np.zeros_like(own), np.zeros_like(own)]
            for q in range(cells):
                for i in (0, 1):
                    product = np.outer(a[:, chunk, q, i], b[:, chunk, q, i])  # exact
                    sums[i] = (product + sums[i]).astype(F32)
            own += sums[0] + sums[1]
        total = own if total is None else total + own
    return total


@kinds
@pytest.mark.parametrize(
    ("case", "parts"),
    [
        ((3, 19, 12, 13, 20, 3, 3, (1, 1), (1, 1), (1, 1), 1), 1),  # chunks of 14
        ((2, 5, 16, 17, 33, 3, 3, (2, 2), (1, 1), (1, 1), 1), 1),  # planes of even and odd rows
        ((9, 5, 16, 32, 9, 2, 3, (1, 1), (1, 2), (2, 1), 1), 1),  # less than 8 blocks
        ((14, 5, 16, 31, 9, 1, 3, (1, 1), (0, 1), (1, 1), 1), 2),
        ((2, 8, 63, 97, 9, 1, 1, (1, 1), (0, 0), (1, 1), 1), 4),  # chunks of 9
    ],
    ids=str,
)  # fmt: skip
def test_strict_order(case, parts, dtype):
    x, w, g, args = sample(case, dtype)
    stride, padding, dilation, _ = args
    dw = conv_dw(g, x, w.shape, args)
    pad = [(0, 0), (0, 0), *((p, p + 8) for p in padding)]
    rows, across = g.shape[2:]
    for p, q in np.ndindex(*w.shape[2:]):
        piece = taps(np.pad(x, pad), p, q, rows, across, stride, dilation)
        want = by_tiles(g, piece, parts).astype(dtype)
        np.testing.assert_array_equal(dw[:, :, p, q], want)


@kinds
def test_panels_and_parts_on_any_number_of_threads(dtype):
    """More panels than an item has, sums of parts: the same bits whoever has them."""
    before = threads.get_num_threads()
    for case in (
        (2, 101, 14, 12, 70, 3, 3, (1, 1), (1, 1), (1, 1), 1),
        (14, 10, 16, 32, 40, 1, 3, (1, 1), (0, 1), (1, 1), 1),
        (2, 66, 14, 14, 96, 3, 3, (2, 2), (1, 1), (1, 1), 2),
    ):
        x, w, g, args = sample(case, dtype)
        found = set()
        for count in (1, 2, 3, 8):
            threads.set_num_threads(count)
            for lies in (np.ascontiguousarray, channels_last):
                found.add(conv_dw(lies(g), lies(x), w.shape, args).tobytes())
        threads.set_num_threads(before)
        assert len(found) == 1
        xr, gr = rounded(x, g)
        want, size = (ref_dw(*ab, w.shape, *args) for ab in ((gr, xr), (np.abs(gr), np.abs(xr))))
        close(np.frombuffer(found.pop(), dtype).reshape(w.shape), want, g[:, 0].size, size)


@kinds
def test_a_pixel_that_is_no_number_meets_only_the_taps_that_see_it(dtype):
    """Chunks that end with an image, rows of the next one behind them, words that lack a pixel."""
    for size in ((7, 7), (5, 6), (4, 3), (16, 16)):
        x, w, g, args = sample((3, 18, *size, 20, 3, 3, (1, 1), (1, 1), (1, 1), 1), dtype)
        x[1, 4, 0, 0], x[2, 7, -1, -1], x[0, 9, -1, 1] = np.inf, np.nan, -np.inf
        dw = conv_dw(g, x, w.shape, args).astype(F32)
        seen = np.ones((18, 3, 3), bool)
        seen[4, 2, :] = seen[4, :, 2] = False  # row 0 is below no pixel's, column 0 beside none's
        seen[7, 0, :] = seen[7, :, 0] = False
        seen[9, 0, :] = False
        odd = np.zeros(18, bool)
        odd[[4, 7, 9]] = True
        finite = np.isfinite(dw)
        assert (finite == ~(seen & odd[:, None, None])).all()


def test_where_registers_would_be_too_empty_words_go_singly():
    cases = [
        (1, 12, 37, 37, 20, 1, 1, (1, 1), (0, 0), (1, 1), 1),  # nothing divides 19 words x 37
        (64, 1, 28, 28, 32, 3, 3, (1, 1), (0, 0), (1, 1), 1),  # one channel of sixteen
        (1, 9, 2, 3000, 9, 1, 700, (1, 1), (0, 0), (1, 1), 1),  # 700 planes
    ]
    for case in cases:
        x, w, g, args = sample(case, BF16)
        layouts = [Layout.of(a) for a in (g, x, w)]
        assert conv_weight_tiles.plan_tiles_dw(*layouts, *args) is None
    x, w, g, args = sample(cases[0], BF16)
    xr, gr = rounded(x, g)
    want, size = (ref_dw(*ab, w.shape, *args) for ab in ((gr, xr), (np.abs(gr), np.abs(xr))))
    close(conv_dw(g, x, w.shape, args), want, g[:, 0].size, size)
