"""gradcheck and gradgradcheck over complex numbers, and what they must refuse."""

import numpy as np
import pytest

import weft
from weft.autograd import gradcheck, gradgradcheck


def draw(*shape, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return weft.tensor(a).requires_grad_()


FUNCTIONS = {
    "square": lambda z: z * z,
    "modulus": lambda z: z.abs(),
    "parts": lambda z: z.real * z.imag + z.conj(),
    "inverse": lambda z: weft.linalg.inv(z + 3 * weft.eye(2)),
    "spectrum": lambda z: weft.fft.irfft(weft.fft.fft(z).abs() * z),
    "complex constant": lambda z: (z * (1 - 2j)).exp(),
    "reals": lambda z: weft.polar(z.abs(), z.real),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_right_derivatives_pass(name):
    assert gradcheck(FUNCTIONS[name], draw(2, 2), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(FUNCTIONS[name], draw(2, 2), fast_mode=True)


def test_a_missing_conjugate_is_found():
    class Square(weft.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z * z

        @staticmethod
        def backward(ctx, g):
            (z,) = ctx.saved_tensors
            return 2 * z * g  # torch's convention wants conj(z)

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck(Square.apply, draw(2))


def test_gradients_of_reals_are_real():
    x = weft.tensor([0.5, -2.0], dtype=weft.float64, requires_grad=True)
    y = (x * 1j).exp() * x
    (y.real.sum() + 2 * y.imag.sum()).backward()
    a = x.detach().numpy()
    want = np.cos(a) - a * np.sin(a) + 2 * (np.sin(a) + a * np.cos(a))
    assert x.grad.dtype is weft.float64
    np.testing.assert_allclose(x.grad.numpy(), want)
