"""Activations: pointwise functions with their slopes.

An `Activation` gives its formula and its slope; `Slope` is the one op of all their gradients:

    y = f(x)        dx = g * f'(x)        and of that one: g * f''(x), and so on

so a backward step is one kernel, and every order exists.  `curve` is f'' where the one derived
from `slope` would not be finite everywhere.  Piecewise functions take torch's side at a kink and
at NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from weft.core import dtype as dt
from weft.core import scalar as S
from weft.core.derivative import derivative
from weft.core.handle import Handle, state
from weft.core.op import Onnx, sample
from weft.core.types import Type, need_floats, real_number, real_numbers, unknown, wrap_dim
from weft.ops import dispatch
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.kinds import Elementwise
from weft.ops.trig import tanh
from weft.ops.unary import Relu, abs, relu, sigmoid
from weft.ops.view import narrow, reshape
from weft.ops.write import check_writable, write

__all__ = ["celu", "hardshrink", "prelu", "selu", "threshold"]

SAMPLES = (sample((3, 4)), sample((2, 0)), sample((5,), low=-6.0, high=6.0))


class Activation(Elementwise, abstract=True):
    """y = formula(x); its gradient is g * slope(x)"""

    formula: ClassVar[Callable[..., S.Expr]]
    slope: ClassVar[Callable[..., S.Expr]]
    curve: ClassVar[Callable[..., S.Expr] | None] = None
    flat: ClassVar[bool] = False  # where the slope is 0 nothing goes through, no infinity either
    samples = SAMPLES

    def scalar(self, x: S.Expr) -> S.Expr:
        return _in_float32(self.formula, x)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(Slope(self, 1), g, x),)


def _in_float32(f: Callable[[S.Expr], S.Expr], x: S.Expr) -> S.Expr:
    """f computed in float32 and rounded once, for float16 and bfloat16."""
    half = x.dtype in (dt.float16, dt.bfloat16)
    return S.cast(f(S.cast(x, dt.float32)), x.dtype) if half else f(x)


def _sigmoid(x: S.Expr) -> S.Expr:
    return S.div(1.0, S.add(1.0, S.exp(S.neg(x))))


class Gelu(Activation):
    """y = x/2 (1 + erf(x / sqrt 2)), or its tanh approximation

    The slope of the first at inf and -inf is its limit, 1 and 0; torch has NaN (inf times 0).
    """

    approximate: str = "none"

    def formula(self, x: S.Expr) -> S.Expr:
        return S.gelu(x) if self.approximate == "none" else S.gelu_tanh(x)

    def slope(self, x: S.Expr) -> S.Expr:
        if self.approximate == "none":  # cdf(x) + x pdf(x)
            return S.add(0.5, S.lift(x))
        k, c = math.sqrt(2 / math.pi), 0.044715
        square = S.mul(x, x)
        t = S.tanh(S.mul(k, S.add(x, S.mul(c, S.mul(square, x)))))
        inner = S.mul(k, S.add(1.0, S.mul(3 * c, square)))
        half = S.mul(0.5, S.add(1.0, t))
        return S.add(half, S.mul(S.mul(S.mul(0.5, x), S.sub(1.0, S.mul(t, t))), inner))

    onnx = Onnx("Gelu", 20, (("approximate", "approximate"),))
    samples = (*SAMPLES, sample((3, 4), approximate="tanh"))


class Silu(Activation):
    """y = x / (1 + e**-x)"""

    def formula(self, x: S.Expr) -> S.Expr:
        return S.silu(x)

    def slope(self, x: S.Expr) -> S.Expr:  # s (1 + x (1 - s))
        s = _sigmoid(x)
        return S.mul(s, S.add(1.0, S.mul(x, S.sub(1.0, s))))

    def curve(self, x: S.Expr) -> S.Expr:  # s (1 - s) (2 + x (1 - 2 s))
        s = _sigmoid(x)
        bend = S.add(2.0, S.mul(x, S.sub(1.0, S.mul(2.0, s))))
        return S.mul(S.mul(s, S.sub(1.0, s)), bend)


class Softplus(Activation):
    """y = log(1 + e**(beta x)) / beta, and x where beta x > threshold"""

    beta: float = 1.0
    threshold: float = 20.0

    def formula(self, x: S.Expr) -> S.Expr:
        return S.softplus(x, self.beta, self.threshold)

    def slope(self, x: S.Expr) -> S.Expr:
        z = S.mul(x, self.beta)
        return S.where(S.gt(z, self.threshold), 1.0, _sigmoid(z))

    def curve(self, x: S.Expr) -> S.Expr:
        z = S.mul(x, self.beta)
        s = _sigmoid(z)
        bend = S.mul(S.mul(self.beta, s), S.sub(1.0, s))
        return S.where(S.gt(z, self.threshold), 0.0, bend)

    samples = (*SAMPLES, sample((3, 4), beta=2.0, threshold=1.0))


class Elu(Activation):
    """y = scale x where x > 0, else scale alpha (e**(input_scale x) - 1)"""

    alpha: float = 1.0
    scale: float = 1.0
    input_scale: float = 1.0

    def formula(self, x: S.Expr) -> S.Expr:
        low = S.mul(S.expm1(S.mul(x, self.input_scale)), self.alpha * self.scale)
        return S.where(S.gt(x, 0.0), S.mul(x, self.scale), low)

    def slope(self, x: S.Expr) -> S.Expr:
        steep = self.alpha * self.scale * self.input_scale
        low = S.mul(S.exp(S.mul(x, self.input_scale)), steep)
        return S.where(S.le(x, 0.0), low, self.scale)

    samples = (*SAMPLES, sample((3, 4), alpha=1.5, scale=0.5, input_scale=2.0))


class LeakyRelu(Activation):
    """y = x where x > 0, else negative_slope x"""

    negative_slope: float = 0.01

    def formula(self, x: S.Expr) -> S.Expr:
        return S.leaky_relu(x, self.negative_slope)

    def slope(self, x: S.Expr) -> S.Expr:
        return S.where(S.gt(x, 0.0), S.const(1.0, x.dtype), self.negative_slope)

    onnx = Onnx("LeakyRelu", 16, (("negative_slope", "alpha"),))


class Hardtanh(Activation):
    """y = min(max(x, min_val), max_val)"""

    flat = True
    min_val: float = -1.0
    max_val: float = 1.0

    def formula(self, x: S.Expr) -> S.Expr:
        return S.clamp(x, self.min_val, self.max_val)

    def slope(self, x: S.Expr) -> S.Expr:
        outside = S.or_(S.le(x, self.min_val), S.ge(x, self.max_val))
        return S.where(outside, S.const(0.0, x.dtype), 1.0)

    samples = (*SAMPLES, sample((3, 4), low=-3.0, high=3.0))


class Hardswish(Activation):
    """y = x min(max(x + 3, 0), 6) / 6"""

    flat = True

    def formula(self, x: S.Expr) -> S.Expr:
        return S.div(S.mul(x, S.clamp(S.add(x, 3.0), 0.0, 6.0)), 6.0)

    def slope(self, x: S.Expr) -> S.Expr:
        inside = S.add(S.div(x, 3.0), 0.5)
        return S.where(S.le(x, -3.0), 0.0, S.where(S.lt(x, 3.0), inside, 1.0))

    onnx = Onnx("HardSwish", 14)


class Hardsigmoid(Activation):
    """y = min(max(x + 3, 0), 6) / 6"""

    flat = True

    def formula(self, x: S.Expr) -> S.Expr:
        return S.div(S.clamp(S.add(x, 3.0), 0.0, 6.0), 6.0)

    def slope(self, x: S.Expr) -> S.Expr:
        inside = S.and_(S.gt(x, -3.0), S.lt(x, 3.0))
        return S.where(inside, S.const(1 / 6, x.dtype), 0.0)


class Hardshrink(Activation):
    """y = 0 where |x| <= lambd, else x"""

    flat = True
    lambd: float = 0.5

    def inside(self, x: S.Expr) -> S.Expr:
        return S.and_(S.ge(x, -self.lambd), S.le(x, self.lambd))

    def formula(self, x: S.Expr) -> S.Expr:
        return S.where(self.inside(x), 0.0, x)

    def slope(self, x: S.Expr) -> S.Expr:
        return S.where(self.inside(x), S.const(0.0, x.dtype), 1.0)


class Softshrink(Activation):
    """y = x moved toward 0 by lambd, 0 where it would cross"""

    flat = True
    lambd: float = 0.5

    def formula(self, x: S.Expr) -> S.Expr:
        near = S.where(S.isnan(x), x, 0.0)
        low = S.where(S.lt(x, -self.lambd), S.add(x, self.lambd), near)
        return S.where(S.gt(x, self.lambd), S.sub(x, self.lambd), low)

    def slope(self, x: S.Expr) -> S.Expr:
        inside = S.and_(S.ge(x, -self.lambd), S.le(x, self.lambd))
        return S.where(inside, S.const(0.0, x.dtype), 1.0)


class Mish(Activation):
    """y = x tanh(log(1 + e**x))"""

    def formula(self, x: S.Expr) -> S.Expr:
        return S.mish(x)

    def slope(self, x: S.Expr) -> S.Expr:  # t + x s (1 - t^2), s = sigmoid(x)
        t = S.tanh(S.softplus(x))
        return S.add(t, S.mul(S.mul(x, _sigmoid(x)), S.sub(1.0, S.mul(t, t))))

    def curve(self, x: S.Expr) -> S.Expr:  # s (1 - t^2) (2 + x (1 - s - 2 s t))
        t, s = S.tanh(S.softplus(x)), _sigmoid(x)
        bend = S.sub(S.sub(1.0, s), S.mul(2.0, S.mul(s, t)))
        flat = S.mul(s, S.sub(1.0, S.mul(t, t)))
        return S.mul(flat, S.add(2.0, S.mul(x, bend)))

    onnx = Onnx("Mish", 18)


class LogSigmoid(Activation):
    """y = -log(1 + e**-x)"""

    def formula(self, x: S.Expr) -> S.Expr:
        return S.log_sigmoid(x)

    def slope(self, x: S.Expr) -> S.Expr:
        return S.div(1.0, S.add(1.0, S.exp(x)))

    def curve(self, x: S.Expr) -> S.Expr:
        s = _sigmoid(x)
        return S.mul(s, S.sub(s, 1.0))


class Threshold(Activation):
    """y = value where x <= threshold, else x"""

    flat = True
    threshold: float = 0.0
    value: float = 0.0

    def formula(self, x: S.Expr) -> S.Expr:
        return S.where(S.le(x, self.threshold), self.value, x)

    def slope(self, x: S.Expr) -> S.Expr:
        return S.where(S.le(x, self.threshold), S.const(0.0, x.dtype), 1.0)

    samples = (*SAMPLES, sample((3, 4), threshold=0.5, value=-1.0))


class Prelu(Elementwise):
    """y = x where x > 0, else w x"""

    def scalar(self, x: S.Expr, w: S.Expr) -> S.Expr:
        return S.where(S.gt(x, 0), x, S.mul(w, x))

    def vjp(self, g: Any, y: Any, x: Any, w: Any) -> tuple:
        return lambda: g.where(x > 0, g * w), lambda: (g * x).where(~(x > 0), 0.0)

    samples = (sample((2, 3, 4), (3, 1)), sample((5,), (1,)))


_MOST_DERIVED = 16  # each derivative's expression is nearly twice the one before


class Slope(Elementwise):
    """y = g * (the order-th derivative of fn at x)"""

    fn: Any = None
    order: int = 1

    def type(self, *types: Type) -> Type:
        if not isinstance(self.fn, Activation) or not 1 <= self.order <= _MOST_DERIVED:
            raise ValueError(f"{self}: derivatives 1 to {_MOST_DERIVED} of an activation are made")
        return super().type(*types)

    def scalar(self, g: S.Expr, x: S.Expr) -> S.Expr:
        half = x.dtype in (dt.float16, dt.bfloat16)
        d = dt.float32 if half else x.dtype
        slope = self.slope_of(S.cast(x, d))
        y = S.mul(S.cast(g, d), slope)
        if self.fn.flat and self.order == 1:
            y = S.where(S.eq(slope, 0.0), S.const(0.0, d), y)
        return S.cast(y, x.dtype)

    def slope_of(self, x: S.Expr) -> S.Expr:
        """The derivative as an expression of x."""
        leaf = S.Arg(0, x.dtype)
        curve = self.fn.curve
        e = self.fn.slope(leaf) if curve is None or self.order == 1 else curve(leaf)
        for _ in range(self.order - (1 if curve is None or self.order == 1 else 2)):
            e = derivative(e, leaf)
        return S.substitute(e, lambda n: x if n is leaf else n)

    def vjp(self, g: Any, y: Any, upstream: Any, x: Any) -> tuple:
        return (
            lambda: apply(self, g, x),
            lambda: apply(Slope(self.fn, self.order + 1), g * upstream, x),
        )

    samples = (
        sample((3, 4), (3, 4), fn=Gelu("none"), order=1),
        sample((3, 4), (3, 4), fn=Silu(), order=2),
    )


# ------------------------------------------------------------------------------- functions


def spelled(x: Any) -> str:
    """A tensor's dtype as torch's messages spell it."""
    return dtype_of(x).spelled


def _run(name: str, op: Any, x: Any, inplace: bool = False) -> Any:
    """op(x) for a floating x; written into x's memory when `inplace`."""
    if not isinstance(x, Handle):
        raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(x).__name__}")
    need_floats(name, x)
    if not inplace:
        return apply(op, x)
    check_writable(x)
    # the tape keeps a copy: the memory of x is about to change
    return write(x, apply(op, x.clone() if x._rg and state.grad else x))


def gelu(input: Any, *, approximate: str = "none") -> Any:
    """y = x/2 (1 + erf(x / sqrt 2)).

    approximate="tanh": x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
    Source: Hendrycks & Gimpel 2016.
    """
    if approximate not in ("none", "tanh"):
        said = "approximate argument must be either none or tanh."
        raise unknown("gelu", "approximate", approximate, said)
    op = Gelu(approximate)
    return _run("gelu", op, input) if (y := op.quick(input)) is None else y


def silu(input: Any, inplace: bool = False) -> Any:
    """y = x / (1 + e**-x), elementwise."""
    return _run("silu", Silu(), input, inplace)


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """y = log(1 + e**(beta x)) / beta; x itself where beta x > threshold."""
    if (y := dispatch.known(input, _SOFTPLUS, beta, threshold)) is not None:
        return y
    numbers = real_numbers("softplus", beta=beta, threshold=threshold)
    y = _run("softplus", Softplus(*numbers), input)
    dispatch.tell(Softplus(*numbers), input, _SOFTPLUS, beta, threshold)
    return y


_SOFTPLUS = dispatch.wish()


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """y = x where x > 0, else alpha (e**x - 1)."""
    return _run("elu", Elu(real_number(alpha, "elu", "alpha")), input, inplace)


def selu(input: Any, inplace: bool = False) -> Any:
    """y = 1.0507 (x where x > 0, else 1.6733 (e**x - 1)).   Source: Klambauer et al. 2017."""
    return _run("selu", Elu(1.6732632423543772, 1.0507009873554805), input, inplace)


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """y = max(0, x) + min(0, alpha (e**(x / alpha) - 1))."""
    if alpha == 0:
        raise RuntimeError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _run("celu", Elu(real_number(alpha, "celu", "alpha"), 1.0, 1.0 / alpha), input, inplace)


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    """y = x where x > 0, else negative_slope x."""
    return _run(
        "leaky_relu",
        LeakyRelu(real_number(negative_slope, "leaky_relu", "negative_slope")),
        input,
        inplace,
    )


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    """y = min(max(x, min_val), max_val)."""
    limits = real_numbers("hardtanh", min_val=min_val, max_val=max_val)
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    if dtype_of(input).category == dt.INT:
        if dtype_of(input) is dt.uint8 and (min_val < 0 or max_val < 0):
            raise RuntimeError("cannot do hardtanh on an unsigned type with negative limits")
        y = input.clamp(int(min_val), int(max_val))
        return write(input, y) if inplace else y
    return _run("hardtanh", Hardtanh(*limits), input, inplace)


def relu6(input: Any, inplace: bool = False) -> Any:
    """y = min(max(x, 0), 6)."""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardswish(input: Any, inplace: bool = False) -> Any:
    """y = x min(max(x + 3, 0), 6) / 6."""
    return _run("hardswish", Hardswish(), input, inplace)


def hardsigmoid(input: Any, inplace: bool = False) -> Any:
    """y = min(max(x + 3, 0), 6) / 6."""
    return _run("hardsigmoid", Hardsigmoid(), input, inplace)


def hardshrink(input: Any, lambd: float = 0.5) -> Any:
    """y = 0 where |x| <= lambd, else x."""
    return _run("hardshrink", Hardshrink(real_number(lambd, "hardshrink", "lambd")), input)


def softshrink(input: Any, lambd: float = 0.5) -> Any:
    """y = x - lambd above lambd, x + lambd below -lambd, 0 between."""
    if lambd < 0:
        largest = 65504.0 if dtype_of(input) is dt.float16 else 3.40282e38
        raise RuntimeError(
            f"lambda must be in range [0, {largest:g}] for input dtype {spelled(input)}, but found "
            f"{lambd:g}"
        )
    return _run("softshrink", Softshrink(real_number(lambd, "softshrink", "lambd")), input)


def tanhshrink(input: Any) -> Any:
    """y = x - tanh(x)."""
    return input - tanh(input)


def mish(input: Any, inplace: bool = False) -> Any:
    """y = x tanh(log(1 + e**x)).   Source: Misra 2019."""
    return _run("mish", Mish(), input, inplace)


def softsign(input: Any) -> Any:
    """y = x / (1 + |x|)."""
    return input / (abs(input) + 1)


def logsigmoid(input: Any) -> Any:
    """y = -log(1 + e**-x)."""
    return _run("log_sigmoid", LogSigmoid(), input)


def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    """y = value where x <= threshold, else x."""
    numbers = real_numbers("threshold", threshold=threshold, value=value)
    if dtype_of(input).category == dt.INT:
        for name, v in (("threshold", numbers[0]), ("value", numbers[1])):
            if not math.isfinite(v):
                d = dtype_of(input).name
                raise RuntimeError(f"threshold: {name} {v} cannot be converted to {d}")
        y = input.where(input > int(threshold), int(value))
        return write(input, y) if inplace else y
    return _run("threshold", Threshold(*numbers), input, inplace)


def prelu(input: Any, weight: Any) -> Any:
    """y = x where x > 0, else w x; weight (1,), or (C,) for dim 1 of the input.

    RuntimeError: the number of weights fits neither.
    """
    n = shape_of(weight)
    shape = shape_of(input)
    if dtype_of(input) is not dtype_of(weight):
        raise RuntimeError("prelu: Type promoting not supported. Got "
                           f"{spelled(input)} and {spelled(weight)}")  # fmt: skip
    if n == (1,) and not shape:
        weight = reshape(weight, ())
    elif n not in ((), (1,)):
        if len(n) != 1:
            raise RuntimeError(
                f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {len(n)}"
            )
        channels = shape[1] if len(shape) > 1 else 1
        if channels != n[0]:
            raise RuntimeError(
                "Mismatch of parameter numbers and input channel size. Found parameter numbers = "
                f"{n[0]} and channel size = {channels}."
            )
        weight = reshape(weight, (n[0], *(1,) * (len(shape) - 2)))
    return apply(Prelu(), input, weight)


def glu(input: Any, dim: int = -1) -> Any:
    """y = a * sigmoid(b), a and b the halves of the input along dim; RuntimeError for odd sizes."""
    shape = shape_of(input)
    if not shape:
        raise RuntimeError("glu does not support 0-dimensional tensors")
    d = wrap_dim(dim, len(shape), "glu")
    if shape[d] % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {d} is size {shape[d]}")
    half = shape[d] // 2
    return narrow(input, d, 0, half) * sigmoid(narrow(input, d, half, half))


_RELU = Relu()


def relu_or_into(input: Any, inplace: bool = False) -> Any:
    """y = max(x, 0); written into the input's memory when `inplace`."""
    if inplace:
        return input.relu_()
    return relu(input) if (y := _RELU.quick(input)) is None else y


relu_or_into.__name__ = relu_or_into.__qualname__ = "relu"  # what programs print of F.relu
