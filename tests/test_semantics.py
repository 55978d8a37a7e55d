"""What once differed from torch, with torch 2.13's answers written down.

tests/conformance/test_semantics_torch.py probes the same ground at random, beside torch.
"""

import numpy as np
import pytest

import weft
from weft.runtime import native


@pytest.mark.parametrize("order", ["T", "gaps"])
def test_a_write_through_a_view_of_a_base_that_is_not_contiguous(order):
    own = np.arange(12.0).reshape(3, 4)
    base = weft.from_numpy({"T": own.T, "gaps": own[:, ::2]}[order])
    p = weft.tensor(2.0, dtype=weft.float64, requires_grad=True)
    other = base[0]
    row = base[1]
    row.mul_(p)
    base[0, 1] = p * 3
    # by hand: d/dp sum(base^2) of the elements that p reached
    old = {"T": own.T, "gaps": own[:, ::2]}[order]
    np.testing.assert_array_equal(base.detach().numpy(), old)  # the memory is NumPy's own
    (base * base).sum().backward()
    first = np.arange(12.0).reshape(3, 4)
    first = {"T": first.T, "gaps": first[:, ::2]}[order]
    wanted = sum(2 * (2.0 * v) * v for v in first[1]) + 2 * 6.0 * 3
    assert p.grad.item() == pytest.approx(wanted, rel=1e-12)
    assert other.requires_grad and other[1].item() == 6.0


def test_a_base_with_gaps_is_written_to_itself():
    base = weft.from_numpy(np.arange(8.0)[::2])
    p = weft.tensor(2.0, dtype=weft.float64, requires_grad=True)
    base.mul_(p)
    assert base.tolist() == [0, 4, 8, 12]


def test_constants_written_keep_the_gradient():
    x = weft.ones(3, requires_grad=True)
    y = x * 2
    y.zero_()
    assert y.requires_grad
    (y + x).sum().backward()
    assert x.grad.tolist() == [1, 1, 1]


def test_gradients_of_zero():
    m = weft.ones(4, requires_grad=True)
    (weft.normal(m, 1.0).sum() + weft.bernoulli(m).sum()).backward()
    assert m.grad.tolist() == [0, 0, 0, 0]
    a = weft.tensor([1.0, 2.0], requires_grad=True)
    weft.nextafter(a, weft.tensor([3.0, 2.0])).sum().backward()
    assert a.grad.tolist() == [1, 0]


def test_second_gradient_of_equal_logaddexp():
    a = weft.tensor(0.3, dtype=weft.float64, requires_grad=True)
    b = weft.tensor(0.3, dtype=weft.float64, requires_grad=True)
    (g,) = weft.autograd.grad(weft.logaddexp(a, b), a, create_graph=True)
    (h,) = weft.autograd.grad(g, a)
    assert g.item() == 0.5 and h.item() == pytest.approx(0.25)


@pytest.mark.parametrize("f", [
    lambda t: weft.maximum(t, 2), lambda t: weft.atan2(t, 2), lambda t: weft.eq(2, t),
    lambda t: weft.logical_and(t, True), lambda t: weft.fmod(2, t), lambda t: weft.ldexp(2, t),
    lambda t: weft.gcd(t, 2), lambda t: weft.Tensor.__rand__(2, t), lambda t: weft.rsub(2, t),
])  # fmt: skip
def test_functions_of_tensors_refuse_numbers(f):
    with pytest.raises(TypeError):
        f(weft.tensor([1, 2, 3]))


@pytest.mark.parametrize(("f", "kind"), [
    (lambda: weft.cat([]), ValueError),
    (lambda: weft.cat(weft.zeros(2, 3)), TypeError),
    (lambda: weft.hstack(()), RuntimeError),
    (lambda: weft.eye(-1), RuntimeError),
    (lambda: weft.linspace(0, 3, 1.0), TypeError),
    (lambda: weft.zeros(20, 10, 5).narrow(1, 11, 0), IndexError),
    (lambda: weft.zeros(2, 3, 4).movedim((0, 0), (1, 2)), RuntimeError),
    (lambda: weft.zeros(2, 2).masked_fill(weft.tensor(True), 1j), RuntimeError),
    (lambda: weft.tensor([True]) // weft.tensor([True]), NotImplementedError),
    (lambda: weft.tensor([1, 2]) - True, RuntimeError),
    (lambda: weft.ones(3).to(memory_format=weft.channels_last), RuntimeError),
    (lambda: weft.gather(weft.zeros(2, 2), 1, weft.zeros(2, 2, dtype=weft.int64),
                         out=weft.zeros(2, 2, dtype=weft.float64)), RuntimeError),
    (lambda: weft.nn.functional.max_pool1d(weft.zeros(0, 10), 1), RuntimeError),
])  # fmt: skip
def test_classes_of_errors(f, kind):
    with pytest.raises(kind):
        f()


def test_scalars_of_products_are_cut_to_the_dtype():
    a, b = weft.ones(2, 2, 2, dtype=weft.int64), weft.ones(2, 2, dtype=weft.int64)
    y = weft.addbmm(b, a, a, beta=0.6, alpha=2.7)
    assert y.dtype is weft.int64 and y.tolist() == [[8, 8], [8, 8]]
    t = weft.tensor([True, False])
    assert weft.add(t, t, alpha=2).tolist() == [True, False]
    assert (t**True).tolist() == [True, False] and (t**False).tolist() == [True, True]


def test_circular_padding_does_not_bring_round_what_it_cuts():
    x = weft.arange(4.0).reshape(1, 1, 4)
    y = weft.nn.functional.pad(x, (-1, 2), "circular")
    assert y.reshape(-1).tolist() == [1, 2, 3, 1, 2]


def test_grid_sample_of_a_volume_at_its_own_places():
    x = weft.arange(2 * 3 * 4.0).reshape(1, 1, 2, 3, 4)
    z, y, w = (np.linspace(-1, 1, n) for n in (2, 3, 4))
    grid = np.stack(np.meshgrid(z, y, w, indexing="ij")[::-1], -1)[None].astype(np.float32)
    for mode in ("bilinear", "nearest"):
        got = weft.nn.functional.grid_sample(x, weft.from_numpy(grid), mode, align_corners=True)
        np.testing.assert_allclose(got.numpy(), x.numpy(), rtol=1e-5, atol=1e-5)
    half = weft.zeros(1, 1, 1, 1, 3)  # the middle: the mean of all eight corners around it
    got = weft.nn.functional.grid_sample(x, half, align_corners=True)
    assert got.item() == pytest.approx(x[0, 0, :, 1, 1:3].mean().item())


def test_grid_sample_has_a_slope_of_zero_where_it_stops():
    x = weft.arange(20.0).reshape(1, 1, 4, 5)
    for mode, padding in (("bilinear", "border"), ("bilinear", "reflection"), ("nearest", "zeros")):
        grid = weft.tensor([[[[-1.0, 1.0], [0.1, 0.2], [3.0, -1.0]]]], requires_grad=True)
        got = weft.nn.functional.grid_sample(x, grid, mode, padding, align_corners=True)
        got.sum().backward()  # on the edge, at its image and (nearest) anywhere: torch's 0
        assert grid.grad is not None and (grid.grad[0, 0, ::2] == 0).all()
        inner = [0.0, 0.0] if mode == "nearest" else [2.0, 7.5]
        np.testing.assert_allclose(grid.grad[0, 0, 1].numpy(), inner, rtol=1e-6)
    gone = weft.full((1, 1, 1, 2), float("nan"), requires_grad=True)
    weft.nn.functional.grid_sample(x, gone, "nearest", align_corners=True).sum().backward()
    assert gone.grad.tolist() == [[[[0.0, 0.0]]]]


def test_grid_sample_makes_no_kernel_a_size():
    def made(size: tuple) -> int:
        before = native.cache_stats()
        for padding in ("border", "reflection"):
            x, grid = weft.ones(1, 2, *size), weft.zeros(1, 3, 4, 2, requires_grad=True)
            y = weft.nn.functional.grid_sample(x, grid, "bilinear", padding, align_corners=False)
            y.sum().backward()
        after = native.cache_stats()
        return sum(after[k] - before[k] for k in ("disk", "compiled"))

    for size in ((5, 6), (7, 11), (8, 9), (7, 11)):  # some kernels come with later layouts
        made(size)
    assert min(made(size) for size in ((13, 17), (19, 23), (29, 31))) == 0


def test_memory_formats_are_as_asked_for():
    x = weft.arange(120.0).reshape(2, 3, 4, 5)
    y = x.contiguous(memory_format=weft.channels_last)
    assert y.stride() == (60, 1, 15, 3) and not y.is_contiguous()
    assert y.is_contiguous(memory_format=weft.channels_last)
    np.testing.assert_array_equal(y.numpy(), x.numpy())
    assert weft.zeros_like(y).stride() == y.stride()
    assert y.clone(memory_format=weft.preserve_format).stride() == y.stride()
    t = x.clone().requires_grad_()
    (t.to(memory_format=weft.channels_last) * y).sum().backward()
    np.testing.assert_array_equal(t.grad.numpy(), x.numpy())


@pytest.mark.parametrize("value", [None, 0, -0.0, 0.0, 2, 2.0, True, float("nan")])
def test_a_pad_met_before_has_its_own_value(value):
    """Numbers that equal one another are not one value: zeros have signs, 2 is not 2.0."""
    for x in weft.ones(2, 3), weft.ones(2, 3, dtype=weft.int64), weft.ones(3):
        if not x.is_floating_point() and (value != value):
            continue
        for widths in (1, 2), [1, 2], (-1, 1), (weft.tensor(1), 2):
            got = [weft.nn.functional.pad(x, widths, value=value).numpy() for _ in range(3)]
            a, b = (int(w) for w in widths)
            fill = np.asarray(0 if value is None else value).astype(got[0].dtype)
            wanted = np.pad(x.numpy()[..., max(-a, 0):], [(0, 0)] * (x.ndim - 1) + [(max(a, 0), b)],
                            constant_values=fill)  # fmt: skip
            for y in got:
                np.testing.assert_array_equal(y, wanted)
                np.testing.assert_array_equal(np.signbit(y), np.signbit(wanted))
