"""A product and the loop that follows it, attention and the joins before it: one step, eager's
bits.
"""

from __future__ import annotations

import numpy as np
import pytest

import weft
from weft import kernels
from weft.compile import api
from weft.compile.program import Program
from weft.nn import functional as F


def _program(monkeypatch, fn, *xs):
    """fn's program, after checking its results against eager's, to the bit."""
    made = []

    class Spy(Program):
        def __init__(self, *args, **kw):
            super().__init__(*args, **kw)
            made.append(self)

    monkeypatch.setattr(api, "Program", Spy)
    compiled = weft.compile(fn)
    for _ in range(3):
        got, wanted = compiled(*xs), fn(*xs)
        several = isinstance(wanted, tuple)
        for g, w in zip(got if several else (got,), wanted if several else (wanted,), strict=True):
            np.testing.assert_array_equal(g.detach().numpy(), w.detach().numpy())
    assert compiled.stats["op_by_op"] == 0
    return made[-1]


def _labels(monkeypatch, fn, *xs):
    """The steps of fn's program, after checking its results against eager's, to the bit."""
    return [s.label for s in _program(monkeypatch, fn, *xs).steps]


@pytest.fixture(name="r")
def _r():
    weft.manual_seed(0)
    return weft.randn


def test_activation_and_residual_run_with_the_product(monkeypatch, r):
    x, w, b, y = r(2, 7, 20), r(33, 20), r(33), r(2, 7, 33)
    for act in (F.relu, F.gelu, F.silu, weft.tanh, weft.sigmoid):
        steps = _labels(monkeypatch, lambda act=act: act(F.linear(x, w, b)) * 0.5 + y)
        assert len(steps) == 1, steps
    steps = _labels(monkeypatch, lambda: weft.relu(x[0] @ w.T + b))
    assert len(steps) == 1, steps


def test_sums_that_others_read_are_kept(monkeypatch, r):
    x, w, b = r(2, 7, 20), r(33, 20), r(33)

    def fn():
        h = F.linear(x, w, b)
        return F.gelu(h), h, h.sum(-1)

    steps = _labels(monkeypatch, fn)
    assert "Linear" in steps[0], steps
    assert "Gelu" in steps[0], steps


@pytest.mark.parametrize("k", [0, 5, 800])
def test_a_training_step(monkeypatch, r, k):
    x = r(6, 9, k) if k else weft.ones(6, 9, 0)
    w1, b1, w2, b2 = r(65, k), r(65), r(9, 65), r(9)

    def fn():
        ps = [p.detach().requires_grad_() for p in (w1, b1, w2, b2)]
        h = F.gelu(F.linear(x, ps[0], ps[1]))
        (F.linear(h, ps[2], ps[3]) * 0.1).tanh().sum().backward()
        return tuple(p.grad for p in ps)

    steps = _labels(monkeypatch, fn)
    assert any("MatMul" in s and "Slope" in s for s in steps), steps


def test_a_loop_that_lies_in_no_rows_follows_in_place(monkeypatch, r):
    x, w, place = r(4, 3, 20), r(33, 20), r(3, 33)
    steps = _labels(monkeypatch, lambda: weft.exp(F.linear(x, w) + place))
    assert len(steps) == 2, steps
    a, b = r(5, 3, 6, 8), r(5, 3, 8, 9)
    assert len(_labels(monkeypatch, lambda: (a @ b) * 0.5)) == 2
    steps = _labels(monkeypatch, lambda: F.linear(x, w).transpose(0, 1).exp())
    assert len(steps) == 2, steps


def test_two_products_and_circles(monkeypatch, r):
    x, v, w = r(7, 20), r(33, 20), r(33, 20)
    steps = _labels(monkeypatch, lambda: F.linear(x, v).sigmoid() * F.linear(x, w))
    assert len(steps) == 2, steps

    def circle():  # the loop reads what was made of the product by something else
        h = F.linear(x, v)
        return h - h.softmax(-1)

    assert len(_labels(monkeypatch, circle)) == 3
    b = r(20, 7)
    assert len(_labels(monkeypatch, lambda: (x @ b) - (x @ b) @ (x @ b).T)) <= 3


def test_halves_and_other_dtypes_keep_their_own_roundings(monkeypatch, r):
    for dtype in (weft.bfloat16, weft.float16, weft.float64):
        x, w, b = (t.to(dtype) for t in (r(7, 20), r(33, 20), r(33)))
        _labels(monkeypatch, lambda x=x, w=w, b=b: F.gelu(F.linear(x, w, b)).float().exp())
    i, j = (weft.randint(-9, 9, s) for s in ((5, 6), (6, 7)))
    _labels(monkeypatch, lambda: (i @ j) // 3)
    x, w = r(7, 20), r(33, 20)
    _labels(monkeypatch, lambda: (F.linear(x, w) > 0, F.linear(x, w).int() // 2))


def test_in_place_updates_stay_loops(r):
    x, w = r(7, 20), r(33, 20)
    total, again = weft.zeros(7, 33), weft.zeros(7, 33)

    def fn(t):
        t.add_(F.linear(x, w))
        return t.sum()

    compiled = weft.compile(fn)
    for _ in range(4):
        assert compiled(total).item() == fn(again).item()
    np.testing.assert_array_equal(total.numpy(), again.numpy())


def test_loops_that_feed_one_another_are_one(monkeypatch, r):
    mean, square, g, p = r(40), r(40) ** 2, r(40), r(40)

    def adam():
        m = mean.lerp(g, 0.1)
        v = (square * 0.99).addcmul(g, g, value=0.01)
        return p.addcdiv(m, v.sqrt() + 1e-8, value=-0.1), m, v

    assert len(steps := _labels(monkeypatch, adam)) == 1, steps


def test_a_sum_between_two_loops_keeps_them_apart(monkeypatch, r):
    x, y = r(5, 8), r(5, 8)

    def fn():
        a = x * y
        return (y + 1.0) * a.sum() + a, a

    steps = _labels(monkeypatch, fn)
    assert [s.split("(")[0].split()[0] for s in steps] == ["Mul", "Sum", "Add"], steps


def test_a_decoder_reads_its_cache_where_it_lies(monkeypatch, r):
    """cat(cache, new) is not made where one attention of few queries is all that reads it."""
    for queries, mask in ((1, None), (2, r(2, 3, 2, 72) > 0), (1, r(2, 3, 1, 71))):
        past, new = r(2, 2, 3, 70, 16), r(3, 2, 3, queries, 16)

        def fn(past=past, new=new, mask=mask):
            k, v = (weft.cat((past[i], new[i]), dim=2) for i in range(2))
            return F.scaled_dot_product_attention(new[2], k, v, mask) * 2.0

        steps = _labels(monkeypatch, fn)
        assert len(steps) == 2, steps
        assert "of pieces" in steps[0], steps


def test_a_cache_that_autocast_narrows_is_not_joined_either(monkeypatch, r):
    """Its cast is one of the cache, and what is new was of that dtype before."""
    past, new = r(2, 2, 3, 70, 16), r(3, 2, 3, 1, 16).bfloat16()

    def fn():
        k, v = (weft.cat((past[i], new[i]), dim=2) for i in range(2))
        with weft.autocast("cpu"):
            return F.scaled_dot_product_attention(new[2], k, v).float() * 2.0

    steps = _labels(monkeypatch, fn)
    assert [s.split("(")[0] for s in steps] == ["Cast", "Cast", "Attention", "Cast Mul"], steps
    assert "of pieces" in steps[2], steps


def test_what_follows_a_product_of_bfloat16_ends_it(monkeypatch, r):
    """Its sums are rounded first: eager's bits, and one step on hosts that multiply pairs."""
    for rows, inner, columns in ((8, 40, 70), (7, 1600, 65), (1, 33, 64)):
        x, w, b = r(rows, inner).bfloat16(), r(columns, inner).bfloat16(), r(columns).bfloat16()

        def fn(x=x, w=w, b=b):
            return F.gelu(F.linear(x, w) + b), F.linear(x, w, b) * 2.0

        steps = _labels(monkeypatch, fn)
        assert len(steps) == (1 if kernels.multiplies_pairs() else 2), steps


def test_joins_that_others_read_or_that_do_not_fit_are_made(monkeypatch, r):
    past, new = r(2, 2, 3, 70, 16), r(3, 2, 3, 5, 16)

    def fn(queries, wanted):
        k, v = (weft.cat((past[i], new[i]), dim=2) for i in range(2))
        y = F.scaled_dot_product_attention(new[2, :, :, :queries], k, v)
        return (y, k) if wanted else (y,)

    for queries, wanted in ((1, True), (5, False)):
        steps = _labels(monkeypatch, lambda q=queries, w=wanted: fn(q, w))
        assert not any("of pieces" in s for s in steps), steps
    across = r(2, 2, 3, 16, 70).transpose(-1, -2)  # a cache whose last stride is not 1: copied

    def odd():
        k, v = (weft.cat((across[i], new[i]), dim=2) for i in range(2))
        return F.scaled_dot_product_attention(new[2, :, :, :1], k, v)

    steps = _labels(monkeypatch, odd)
    assert "of pieces" in steps[-1], steps


def test_parts_are_joined_in_the_order_in_which_they_are_read(monkeypatch, r):
    """The gradient of one projection to queries, keys and values: no copy but of the parts."""
    x, w = r(2, 5, 12), r(36, 12)

    def fn():
        q, k, v = F.linear(x, w).view(2, 5, 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
        parts = weft.cat([a.unsqueeze(0) for a in (q * 2.0, k, v + 1.0)])
        return parts.permute(1, 3, 0, 2, 4).reshape(10, 36) @ w

    steps = _labels(monkeypatch, fn)
    assert not any("Reshape" in s for s in steps), steps
    assert sum(s.startswith("Concat") for s in steps) == 3, steps


def test_attention_reads_and_makes_what_projections_make_and_read(monkeypatch, r):
    """Neither its result nor the gradients of queries, keys and values are copied."""
    x, w, out, g = r(2, 5, 12), r(36, 12), r(12, 12), r(2, 5, 12)
    w.requires_grad_()

    def forward(joined=True):
        if joined:
            q, k, v = F.linear(x, w).view(2, 5, 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = (F.linear(x, p).view(2, 5, 4, 3).transpose(1, 2) for p in w.chunk(3))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.linear(y.transpose(1, 2).reshape(2, 5, 12), out)

    def answer():
        with weft.no_grad():
            return forward()

    names = {s.split("(")[0].split()[0] for s in _labels(monkeypatch, answer)}
    assert names == {"Linear", "Attention"}
    for joined in (True, False):
        steps = _labels(monkeypatch, lambda j=joined: weft.autograd.grad(forward(j), w, g)[0])
        names = {s.split("(")[0].split()[0] for s in steps}
        assert names == {"Linear", "Attention", "MatMul", "AttentionGrad"}, steps


def test_a_stack_of_all_selects_is_a_permutation_and_no_other_is(monkeypatch, r):
    x = r(3, 2, 5, 4)
    for dim, taken in ((0, (0, 1, 2)), (0, (1, 0, 2)), (2, (0, 1, 2, 3, 4)), (2, (0, 1, 2, 3))):
        for order in ((0, 1, 2), (2, 0, 1)):

            def fn(dim=dim, taken=taken, order=order):
                y = x * 2.0
                return weft.stack([y.select(dim, i).permute(order) for i in taken])

            steps = _labels(monkeypatch, fn)
            whole = taken == tuple(range(x.shape[dim]))
            assert any("Concat" in s for s in steps) != whole, steps


def test_a_slice_of_a_slices_gradient_is_the_gradient(monkeypatch, r):
    q, k, v, g = r(1, 2, 6, 4).requires_grad_(), r(1, 2, 6, 4), r(1, 2, 6, 4), r(1, 2, 6, 4)

    def fn():
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return weft.autograd.grad(y, q, g)[0]

    steps = _labels(monkeypatch, fn)
    assert not any("SliceBack" in s for s in steps), steps


def _over(program):
    """Labels of the steps whose result lies where an operand lay."""
    return [s.label for s in program.steps if any(s.out == p for p in s.ins)]


def test_a_result_takes_the_place_of_an_operand_read_for_the_last_time(monkeypatch, r):
    x, w, y, big, z = r(2, 7, 20), r(33, 20), r(2, 7, 33), r(9, 500), r(9, 9)
    for over, fn in (
        (True, lambda: (F.linear(x, w) + y.softmax(-1)).softmax(-1)),
        (True, lambda: (weft.exp(F.linear(x, w) * 2) * y.softmax(-1)).softmax(-1)),
        # more blocks of k than one: sums lie in the result
        (False, lambda: (F.linear(big, big) + z.softmax(-1)).softmax(-1)),
    ):
        assert bool(_over(_program(monkeypatch, fn))) == over

    def read_again():
        a = y.softmax(-1)
        return (F.linear(x, w) + a).softmax(-1), a.softmax(-1)

    assert not _over(_program(monkeypatch, read_again))

    def two():  # two results over two operands that both of them read
        a, b = (y * 2).softmax(-1), y.softmax(-1)
        s, d = a * b + 1, (a - b).abs()
        return s.softmax(-1), d.softmax(-1)

    assert len(_over(_program(monkeypatch, two))) == 1


def test_an_operand_that_is_read_elsewhere_too_is_not_overwritten(monkeypatch, r):
    x, w = r(20, 20), r(20, 20)

    def own_factor():
        a = x.softmax(-1)
        return (F.linear(a, w) + a).softmax(-1)

    def across():
        a = x.softmax(-1)
        return (a * 2 + a.T).softmax(-1)

    def part():
        a = x.softmax(-1)
        return (a[:1] + a).softmax(-1)

    def factor_is_a_view():
        a = x.softmax(-1)
        return (F.linear(w, a.T) + a).softmax(-1)

    def no_rows():  # the loop follows the product, whose sums must not lie over `a`
        a = r3.softmax(-1)
        return (F.linear(x3, w) * place + a).softmax(-1)

    x3, r3, place = r(4, 3, 20), r(4, 3, 20), r(3, 20)
    for fn in (own_factor, across, part, factor_is_a_view, no_rows):
        program = _program(monkeypatch, fn)
        assert fn is no_rows or not _over(program)


def test_images_take_the_place_of_a_residual(monkeypatch):
    weft.manual_seed(0)
    for channels, kernel, over in ((24, 1, 1), (24, 3, 1), (400, 1, 0)):
        first = weft.nn.Conv2d(3, 40, 3, padding=1)
        inner = weft.nn.Conv2d(40, channels, 3, padding=1)
        outer = weft.nn.Conv2d(channels, 40, kernel, padding=kernel // 2)
        norm, last = weft.nn.BatchNorm2d(40).eval(), weft.nn.Conv2d(40, 24, 1)
        x = weft.randn(3, 3, 9, 7)

        def fn(first=first, inner=inner, outer=outer, norm=norm, last=last, x=x):
            a = weft.relu(first(x))
            return last(weft.relu(norm(outer(inner(a))) + F.max_pool2d(a, 3, 1, 1)))

        with weft.no_grad():
            assert len(_over(_program(monkeypatch, fn))) == over, (channels, kernel)


@pytest.mark.parametrize("first", [False, True])
def test_an_lstm_of_which_the_last_step_counts_makes_no_zeros_for_the_others(monkeypatch, r, first):
    x, g = r(*(2, 5, 3) if first else (5, 2, 3)), r(2, 17)
    lstm = weft.nn.LSTM(3, 17, batch_first=first)

    def gradients(step):
        def fn():
            y = lstm(x)[0]
            return weft.autograd.grad(y[:, step] if first else y[step], [*lstm.parameters()], g)

        return _labels(monkeypatch, fn)

    assert not any("SliceBack" in s for s in gradients(-1))
    assert any("SliceBack" in s for s in gradients(-2))


@pytest.mark.parametrize(
    ("channels", "terms", "size"),
    [(64, 40, 1), (33, 40, 1), (12, 40, 1), (80, 800, 1), (128, 40, 3)],
)
def test_what_follows_a_convolution_of_bfloat16_has_eagers_bits(
    monkeypatch, r, channels, terms, size
):
    """Two vectors at a time, in registers or not: tails, several blocks of terms, taps in the
    border, NaN of any bits, infinities, numbers below the normal ones.
    """
    x, w, v = r(2, terms, 5, 7), r(channels, terms, size, size), r(channels, terms, size, size)
    x[0, 3, 2, 2], x[1, 0, 0, 0] = float("inf"), float("nan")
    x[:, :, 4] *= 1e-38
    x, w, v = (t.bfloat16() for t in (x, w, v))
    mean, scale = r(channels), r(channels)
    for i, odd in enumerate((0x7FFFFFFF, -1, 0x7F800001, 0x7F800000, 0x00012345)):
        scale.view(weft.int32)[i], mean.view(weft.int32)[i + 5] = odd, odd
    scale[-1] = 1e-38

    def narrow():
        h = F.batch_norm(F.conv2d(x, w, padding=size // 2), mean, scale.abs(), scale, mean)
        return weft.relu(h + F.conv2d(x, v, padding=size // 2)), h

    def mixed():
        z, h = narrow()
        return z, h, h.float() * 3, (h > 0.5).float()

    for made_of in (narrow, mixed):
        # pools take images channels last, as the convolution leaves them
        fn = lambda of=made_of: [F.max_pool2d(t, 1) for t in of()]
        made = []
        spy = lambda *a, made=made, **kw: made.append(Program(*a, **kw)) or made[-1]
        monkeypatch.setattr(api, "Program", spy)
        compiled = weft.compile(fn)
        for _ in range(3):
            for got, want in zip(compiled(), fn(), strict=True):
                assert got.dtype is want.dtype
                assert got.isnan().equal(want.isnan())
                got, want = (t.where(~t.isnan(), 0).float().numpy() for t in (got, want))
                assert got.tobytes() == want.tobytes()
        assert sum(s.label.startswith("Conv2d(") for s in made[-1].steps) == 1
