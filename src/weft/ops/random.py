"""Random numbers as ops: torch's draws, number for number, from torch's CPU generator.

An op with `effect = True` is never merged, moved or dropped.  Fills of tensors that are not
contiguous go in memory order, as torch's do.

Long because draws, fills and the derivatives of draws are one room.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import Handle, state
from weft.core.op import Op, sample
from weft.core.types import Type, broadcast_shapes, real_numbers, whole
from weft.ops import dispatch
from weft.ops.activation import spelled
from weft.ops.cast import cast
from weft.ops.compare import depends, where
from weft.ops.creation import finish, memory_order, sizes, undo
from weft.ops.dispatch import apply, dtype_of, read, settle, shape_of, tell_kernel, tell_made, wrap
from weft.ops.kinds import Create, by_loop
from weft.ops.trig import digamma
from weft.ops.unary import exp, expm1, log, log1p
from weft.ops.view import permute
from weft.ops.write import check_writable, write
from weft.runtime import native
from weft.runtime import random as rng

if TYPE_CHECKING:
    from weft.tensor import Tensor

__all__ = [
    "Generator", "bernoulli", "binomial", "default_generator", "get_rng_state", "initial_seed",
    "manual_seed", "multinomial", "normal", "poisson", "rand", "rand_like", "randint",
    "randint_like", "randn", "randn_like", "randperm", "seed", "set_rng_state",
]  # fmt: skip


class Generator(rng.Generator):
    """A stream of random numbers, as `torch.Generator`; its state is a uint8 tensor."""

    __slots__ = ()

    def get_state(self) -> Any:
        """The state as a tensor of 5,056 bytes, laid out as torch's."""
        return wrap(super().get_state())

    def set_state(self, new_state: Any) -> Generator:
        """Continue from a state that `get_state` (or torch) made."""
        super().set_state(read(new_state) if isinstance(new_state, Handle) else new_state)
        return self

    def clone_state(self) -> Generator:
        """A new generator that continues from this one's state."""
        return Generator().set_state(self.get_state())


_KINDS: dict[str, Callable[..., np.ndarray]] = {
    "uniform": lambda g, shape, d, low, high: g.uniform(shape, low, high, d),
    "normal": lambda g, shape, d, mean, std: g.normal(shape, mean, std, d),
    "normal_serial": lambda g, shape, d, mean, std: g.normal(shape, mean, std, d, False),
    "log_normal": lambda g, shape, d, mean, std: g.log_normal(shape, mean, std, d),
    "exponential": lambda g, shape, d, rate: g.exponential(shape, rate, d),
    "cauchy": lambda g, shape, d, median, sigma: g.cauchy(shape, median, sigma, d),
    "geometric": lambda g, shape, d, p: g.geometric(shape, p, d),
    "whole": lambda g, shape, d, low, high: g.random_(shape, d, low, high),
    "bernoulli": lambda g, shape, d, p: g.bernoulli(shape, p, d),
    "permutation": lambda g, shape, d: g.randperm(shape[0], d),
}


_OF_PARTS = ("uniform", "normal", "normal_serial")  # kinds that complex numbers are drawn of


def _source(generator: Any) -> rng.Generator:
    if generator is not None and not isinstance(generator, rng.Generator):
        kind = type(generator).__name__
        raise TypeError(f"argument 'generator' must be torch.Generator, not {kind}")
    return rng.default_generator.current if generator is None else generator


def _numbers(kind: str, shape: tuple, params: tuple, d: dt.dtype, generator: Any) -> np.ndarray:
    """What Draw gives."""
    g = _source(generator)
    if not d.is_complex:
        return np.asarray(_KINDS[kind](g, shape, d.np, *params))
    # real and imaginary parts in turn, each with half the variance
    if kind not in _OF_PARTS:
        raise d.lacks(kind)
    if kind != "uniform":
        params = (params[0], params[1] / math.sqrt(2))
    y = np.asarray(_KINDS[kind](g, (*shape, 2), d.to_real().np, *params))
    return np.ascontiguousarray(y).view(d.np)[..., 0]


class Draw(Create):
    """y = numbers of the distribution `kind` with `params`, from `generator` (None: the default)"""

    effect = True
    kind: str = "uniform"
    shape: tuple[int, ...] = ()
    params: tuple = (0.0, 1.0)
    dtype: dt.dtype = dt.float32
    generator: Any = None

    def type(self) -> Type:
        return Type(self.shape, self.dtype)

    def host(self) -> np.ndarray:
        return _numbers(self.kind, self.shape, self.params, self.dtype, self.generator)

    oracle = host
    samples = (
        sample(kind="uniform", shape=(3, 4)),
        sample(kind="normal", shape=(20,)),
        sample(kind="whole", shape=(5,), params=(0, 10), dtype=dt.int64),
        sample(kind="permutation", shape=(7,), params=(), dtype=dt.int64),
    )


class DrawFrom(Op, abstract=True):
    """Random numbers whose distribution is an operand."""

    effect = True
    nondiff = "its result is random"
    generator: Any = None

    def source(self) -> Any:
        return _source(self.generator)

    vmap = by_loop


class BernoulliOf(DrawFrom):
    """y = 1 with probability p, else 0"""

    dtype: dt.dtype = dt.float32

    def type(self, p: Type) -> Type:
        return Type(p.shape, self.dtype)

    def host(self, p: np.ndarray) -> np.ndarray:
        return np.asarray(self.source().bernoulli(None, p, self.dtype.np)).reshape(p.shape)

    oracle = host
    samples = (sample((3, 4), low=0.0, high=1.0),)


class Multinomial(DrawFrom):
    """y = `count` indices a row, drawn in proportion to the weights"""

    count: int = 1
    replacement: bool = False

    def type(self, weights: Type) -> Type:
        if weights.ndim not in (1, 2):
            raise RuntimeError("prob_dist must be 1 or 2 dim")
        if (weights.shape[-1] == 0 and weights.shape[0] != 0) or weights.shape == (0,):
            raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
        return Type((*weights.shape[:-1], self.count), dt.int64)

    def host(self, weights: np.ndarray) -> np.ndarray:
        return self.source().multinomial(weights, self.count, self.replacement)

    oracle = host
    samples = (sample((3, 4), low=0.1, high=1.0, count=2, replacement=True),)


class PoissonOf(DrawFrom):
    """y = a count whose mean is the operand"""

    def host(self, rates: np.ndarray) -> np.ndarray:
        return self.source().poisson(rates)

    oracle = host
    samples = (sample((3, 4), low=0.0, high=20.0),)


class StandardGamma(DrawFrom):
    """y = a number of density x^(alpha - 1) e^-x / Gamma(alpha)"""

    def host(self, alpha: np.ndarray) -> np.ndarray:
        return self.source().standard_gamma(alpha)

    oracle = host
    samples = (sample((3, 4), low=0.1, high=20.0),)


class SampleDirichlet(DrawFrom):
    """y = rows that sum to 1, of the Dirichlet distribution of each row of the operand"""

    def host(self, alpha: np.ndarray) -> np.ndarray:
        return self.source().dirichlet(alpha)

    oracle = host
    samples = (sample((3, 4), low=0.1, high=20.0),)


class BinomialOf(DrawFrom):
    """y = successes among `count` trials of probability `prob`"""

    def host(self, count: np.ndarray, prob: np.ndarray) -> np.ndarray:
        return self.source().binomial(count, prob)

    oracle = host
    samples = (sample((3, 4), (3, 4), low=0.1, high=1.0),)


# ------------------------------------------------------------------------------- functions


_RAND, _RANDN, _RANDINT, _RANDPERM, _NORMAL, _LIKE, _BERNOULLI, _MULTINOMIAL = (
    dispatch.wish() for _ in range(8)
)


def _made(wish: tuple, name: str, kind: str, size: tuple, params: tuple) -> Any:
    """A draw; the wish ends with generator, out, dtype, device and requires_grad."""
    generator, out, dtype, device, requires_grad = wish[-5:]
    shape = sizes(size, name)
    y = _drawn(kind, shape, params, dt.asked(dtype) or dt.get_default_dtype(), generator)
    if generator is out is state.recorder and not requires_grad:
        tell_made(y, partial(_small, kind, y, params), None, *wish)
    return finish(y, requires_grad, device, name) if out is None else out.copy_result(y)


def _small(kind: str, y: Any, params: tuple) -> native.Launch | None:
    """What draws tensors like y, where native code can."""
    if kind == "bernoulli":
        params = (*params, 1.0)
    return rng.small_draw(kind, y._a.size, y._a.dtype, params)


def rand(
    *args: Any, size: Any = None, generator: Any = None, out: Any = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Numbers of [0, 1): 24 random bits each, 53 for float64."""
    d, size = dtype or dt.get_default_dtype(), args if size is None else (size,)
    wish = _RAND, size, generator, out, d, device, requires_grad
    y = dispatch.made(*wish)
    return _made(wish, "rand", "uniform", size, (0.0, 1.0)) if y is None else y


def randn(
    *args: Any, size: Any = None, generator: Any = None, out: Any = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Numbers of the standard normal distribution."""
    d, size = dtype or dt.get_default_dtype(), args if size is None else (size,)
    wish = _RANDN, size, generator, out, d, device, requires_grad
    y = dispatch.made(*wish)
    return _made(wish, "randn", "normal", size, (0.0, 1.0)) if y is None else y


def randint(
    low: Any = 0, high: Any = None, size: Any = None, *, generator: Any = None, out: Any = None,
    dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Whole numbers of [low, high): `randint(high, size)` or `randint(low, high, size)`.

    RuntimeError: high <= low, or bounds that the dtype (int64 by default) does not hold.
    """
    wish = _RANDINT, low, high, size, generator, out, dtype or dt.int64, device, requires_grad
    if (y := dispatch.made(*wish)) is not None:
        return y
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    return _made(
        wish,
        "randint",
        "whole",
        (size,),
        (whole(low, "randint", "low"), whole(high, "randint", "high")),
    )


def randperm(
    n: int, *, generator: Any = None, out: Any = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A permutation of 0 .. n - 1, int64 by default."""
    wish = _RANDPERM, n, generator, out, dtype or dt.int64, device, requires_grad
    y = dispatch.made(*wish)
    return _made(wish, "randperm", "permutation", ((n,),), ()) if y is None else y


def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None, out: Any = None,
    dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """y = mean + std z, z standard normal; mean and std numbers (with size) or tensors.

    RuntimeError: a negative std.
    """
    if size is not None:
        d = dtype or dt.get_default_dtype()
        wish = _NORMAL, mean, std, size, generator, out, d, device, requires_grad
        if (y := dispatch.made(*wish)) is not None:
            return y
        return _made(wish, "normal", "normal", (size,), real_numbers("normal", mean=mean, std=std))
    if isinstance(std, Handle):
        if bool((std < 0).any()):  # type: ignore[attr-defined]
            raise RuntimeError("normal expects all elements of std >= 0.0")
        shape = shape_of(mean * std) if isinstance(mean, Handle) else shape_of(std)  # pyright: ignore[reportOperatorIssue]
        y = _drawn("normal", shape, (0.0, 1.0), dtype_of(std), generator) * std + mean
    elif generator is None:
        y = _drawn_like("normal", mean, 0.0, float(std)) + mean
    else:
        y = _drawn("normal", shape_of(mean), (0.0, float(std)), dtype_of(mean), generator) + mean
    y = depends(y.detach(), mean, std)
    return y if out is None else out.copy_result(y)


def _drawn_like(kind: str, x: Any, *params: Any) -> Any:
    """A draw of a tensor's shape and dtype from the default generator."""
    y = dispatch.made_like(x, _LIKE, kind, *params)
    if y is not None:
        return y
    y = _drawn(kind, shape_of(x), params, dtype_of(x), None)
    if state.recorder is None:
        tell_made(y, partial(_small, kind, y, params), x, _LIKE, kind, *params)
    return y


def _drawn(kind: str, shape: tuple, params: tuple, d: dt.dtype, generator: Any) -> Any:
    if state.recorder is not None:
        return apply(Draw(kind, shape, params, d, generator))
    return wrap(_numbers(kind, shape, params, d, generator))  # nobody asks for the op


def bernoulli(input: Any, p: Any = None, *, generator: Any = None, out: Any = None) -> Tensor:
    """y = 1 with probability input (or the number p), else 0; RuntimeError outside [0, 1]."""
    if generator is p is out is None and (y := dispatch.known(input, _BERNOULLI)) is not None:
        return depends(y, input) if input._rg else y
    if p is not None and generator is None:
        y = _drawn_like("bernoulli", input, float(p))
    elif p is not None:
        y = _drawn("bernoulli", shape_of(input), (float(p),), dtype_of(input), generator)
    else:
        if dtype_of(input).category != dt.FLOAT:
            raise dtype_of(input).lacks("bernoulli_tensor_cpu")
        op = BernoulliOf(generator, dtype_of(input))
        y = apply(op, input)
        if generator is None:
            draw = partial(_small, "bernoulli_of", y, ())
            tell_kernel(y, op, draw, input, _BERNOULLI)
        y = depends(y, input)
    return y if out is None else out.copy_result(y)


def multinomial(
    input: Any, num_samples: int, replacement: bool = False, *, generator: Any = None,
    out: Any = None,
) -> Tensor:  # fmt: skip
    """num_samples indices a row of weights (k,) or (m, k), drawn in proportion to them."""
    wish = _MULTINOMIAL, num_samples, replacement
    if generator is out is None and (y := dispatch.known(input, *wish)) is not None:
        return y
    if out is not None and dtype_of(out) is not dt.int64:
        raise RuntimeError(f"multinomial expects Long tensor out, got: {dtype_of(out).spelled}")
    op = Multinomial(generator, num_samples, replacement)
    y = apply(op, input)
    if generator is None and num_samples == 1 and dtype_of(input) is dt.float32:
        draw = partial(_small, "multinomial", y, shape_of(input)[-1:])
        tell_kernel(y, op, draw, input, *wish)
    return y if out is None else out.copy_result(y)


def poisson(input: Any, generator: Any = None) -> Tensor:
    """Counts whose means are the input's elements."""
    return apply(PoissonOf(generator), input)


def binomial(count: Any, prob: Any, generator: Any = None) -> Tensor:
    """Successes among count trials of probability prob; tensors of one dtype, broadcast.

    A count or probability that is NaN gives NaN.  ValueError: integer dtypes.
    """
    for name, t in (("count", count), ("prob", prob)):
        if dtype_of(t).category != dt.FLOAT:
            raise ValueError(
                f"binomial only supports floating-point dtypes for {name}, got: {spelled(t)}"
            )
    if dtype_of(count) is not dtype_of(prob):
        raise RuntimeError(
            f"Found dtype {spelled(prob)} but expected {spelled(count)}: binomial's count and prob "
            "must have one dtype"
        )
    shape = broadcast_shapes(shape_of(count), shape_of(prob))
    return apply(BinomialOf(generator), count.expand(shape), prob.expand(shape))


def _like(kind: str, input: Any, params: tuple, dtype: Any, device: Any, grad: bool) -> Any:
    """A draw in input's shape and memory order."""
    plain = dtype is device is None and not grad
    if plain and (y := dispatch.made_like(input, _LIKE, kind, *params)) is not None:
        return y
    d = dt.asked(dtype) or dtype_of(input)
    order = memory_order(input)  # empty_like keeps it, but closes gaps
    if plain and order == sorted(order) and input.is_contiguous():
        return _drawn_like(kind, input, *params)
    y = _in_memory_order(kind, input, params, d, None, contiguous=order == sorted(order))
    return finish(y, grad, device, "rand_like")


def rand_like(
    input: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """rand of input's shape and dtype."""
    return _like("uniform", input, (0.0, 1.0), dtype, device, requires_grad)


def randn_like(
    input: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """randn of input's shape and dtype."""
    return _like("normal", input, (0.0, 1.0), dtype, device, requires_grad)


def randint_like(
    input: Any, low: int, high: int | None = None, *, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """randint of input's shape and dtype: `(x, high)` or `(x, low, high)`."""
    low, high = (0, low) if high is None else (low, high)
    low, high = (whole(v, "randint_like", n) for v, n in ((low, "low"), (high, "high")))
    return _like("whole", input, (low, high), dtype, device, requires_grad)


# ------------------------------------------------------------------------------- fills


def _in_memory_order(
    kind: str, t: Any, params: tuple, d: dt.dtype, generator: Any, contiguous: bool
) -> Any:
    """A draw of t's shape whose numbers follow t's memory; `contiguous`: so is what torch fills."""
    shape, order = shape_of(t), memory_order(t)
    if kind == "normal" and not contiguous:
        kind = "normal_serial"
    y = _drawn(kind, tuple(shape[k] for k in order), params, d, generator)
    return y if order == sorted(order) else permute(y, undo(order))


def _fill(t: Any, kind: str, params: tuple, generator: Any) -> Any:
    shape_of(t)  # a tensor has one
    alike = generator is None and kind in ("uniform", "normal")
    if (
        alike
        and t.__class__ in dispatch.plain_classes
        and not t._rg
        and (y := dispatch.made_like(t, _LIKE, kind, *params)) is not None
    ):
        return write(t, y)
    check_writable(t)
    whole = t.is_contiguous()
    if alike and whole:
        return write(t, _drawn_like(kind, t, *params))
    y = _in_memory_order(kind, t, params, dtype_of(t), generator, contiguous=whole)
    return write(t, y.detach())


def uniform_(
    self: Any, from_: float = 0, to: float = 1, *, generator: Any = None, **kw: Any
) -> Any:
    """self's elements become numbers of [from, to)."""
    low = kw.pop("from", from_)
    _no_more("uniform_", kw)
    return _fill(self, "uniform", (float(low), float(to)), generator)


_NUMBERS = (int, float)


def _no_more(name: str, kw: dict) -> None:
    if kw:
        raise TypeError(f"{name}() got an unexpected keyword argument '{next(iter(kw))}'")


def normal_(self: Any, mean: float = 0, std: float = 1, *, generator: Any = None) -> Any:
    """self's elements become normal numbers."""
    if generator is None and mean.__class__ in _NUMBERS and std.__class__ in _NUMBERS and std >= 0:
        return _fill(self, "normal", (float(mean), float(std)), None)
    return _fill(self, "normal", real_numbers("normal_", mean=mean, std=std), generator)


def log_normal_(self: Any, mean: float = 1, std: float = 2, *, generator: Any = None) -> Any:
    """self's elements become e**z, z normal."""
    return _fill(self, "log_normal", real_numbers("log_normal_", mean=mean, std=std), generator)


def exponential_(self: Any, lambd: float = 1, *, generator: Any = None) -> Any:
    """self's elements become exponential numbers of rate lambd."""
    return _fill(self, "exponential", real_numbers("exponential_", lambd=lambd), generator)


def cauchy_(self: Any, median: float = 0, sigma: float = 1, *, generator: Any = None) -> Any:
    """self's elements become Cauchy numbers."""
    return _fill(self, "cauchy", real_numbers("cauchy_", median=median, sigma=sigma), generator)


def geometric_(self: Any, p: float, *, generator: Any = None) -> Any:
    """self's elements become numbers of trials up to the first success."""
    return _fill(self, "geometric", (float(p),), generator)


def random_(self: Any, *bounds: Any, generator: Any = None, **kw: Any) -> Any:
    """Whole numbers: `random_()` of the dtype's range, `random_(to)`, `random_(from, to)`."""
    if "from" in kw or "to" in kw:
        bounds = (kw.pop("from", 0), kw.pop("to", None))
    _no_more("random_", kw)
    low, high = {0: (None, None), 1: (0, *bounds[:1])}.get(len(bounds), bounds[:2])
    named = (("from", low), ("to", high))
    low, high = (None if v is None else whole(v, "random_", name) for name, v in named)
    return _fill(self, "whole", (low, high), generator)


def bernoulli_(self: Any, p: Any = 0.5, *, generator: Any = None) -> Any:
    """self's elements become 1 with probability p (a number or a tensor), else 0."""
    if not isinstance(p, Handle):
        return _fill(self, "bernoulli", (float(p),), generator)
    check_writable(self)
    order = memory_order(self)
    spread = permute(p.expand(shape_of(self)), order)
    hit = permute(apply(BernoulliOf(generator, dtype_of(p)), spread), undo(order))
    return write(self, cast(hit, dtype_of(self)).detach())


# ------------------------------------------------------------------------------- the default


def manual_seed(seed: int) -> Any:
    """Seed the default generator; returns it."""
    settle()
    return rng.manual_seed(seed)


def seed() -> int:
    """Seed the default generator from the operating system's entropy; returns the seed."""
    settle()
    return rng.seed()


def initial_seed() -> int:
    """The seed that the default generator was last given."""
    settle()
    return rng.initial_seed()


def get_rng_state() -> Tensor:
    """The default generator's state, a uint8 tensor."""
    settle()
    return wrap(rng.default_generator.get_state())


def set_rng_state(new_state: Any) -> None:
    """Continue the default generator from a state that `get_rng_state` (or torch) made."""
    settle()
    rng.default_generator.set_state(new_state.numpy())


default_generator, fork_rng = rng.default_generator, rng.fork_rng


# ------------------------------------------------------ draws with derivatives: gamma, Dirichlet

_STEP, _ENDS = 0.04, (-3.3, 3.1)  # of `_rule`


@cache
def _rule() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on (0, inf): v = exp(pi/2 sinh t), t equidistant."""
    t = np.arange(*_ENDS, _STEP)
    nodes = np.exp(math.pi / 2 * np.sinh(t))
    return nodes, nodes * np.cosh(t) * (math.pi / 2 * _STEP)


def _columns(*tensors: Any) -> list:
    """The tensors in float64 with a last dim for the nodes."""
    return [cast(t.detach(), dt.float64).unsqueeze(-1) for t in tensors]


def _standard_gamma_grad(self: Any, output: Any) -> Any:
    """dx/da of a standard gamma number x = output with parameter a = self.

    A draw x of cumulative distribution F(x; a) moves with a as dx/da = -(dF/da) / (dF/dx) (implicit
    reparameterisation; Figurnov, Mohamed and Mnih 2018).  The quotient is one integral, which is
    taken over the side of x where its integrand has one sign:

        x/a int (psi(a) - ln x + v/a) exp(-v + x (1 - e^(-v/a))) dv         below e^psi(a)
        int (ln(x + w) - psi(a)) exp((a - 1) ln(1 + w/x) - w) dw            above

    and likewise for beta, both over (0, inf) by the double exponential rule (Takahasi and Mori
    1974) in float64.  torch uses rational fits there, good to about 1e-3; these are good to 1e-7.
    """
    alpha, x = _columns(self, output)
    nodes, weights = (wrap(a) for a in _rule())
    psi = digamma(alpha)
    ahead = log(x) - psi  # negative: integrate from 0 to x, else from x on
    below = (nodes / alpha - ahead) * exp(-nodes - x * expm1(-nodes / alpha)) * (x / alpha)
    growth = log1p(nodes / x)
    above = (growth + ahead) * exp((alpha - 1) * growth - nodes)
    near_0 = (x < 0.5) & (alpha < 1)  # `above` has its mass at w << 1e-9 there
    total = (where((ahead < 0) | near_0, below, above) * weights).sum(-1)
    return cast(total, dtype_of(self))


def _dirichlet_grad(x: Any, alpha: Any, total: Any) -> Any:
    """dx/dalpha / (1 - x) of a beta number x with parameters alpha and total - alpha."""
    d = dtype_of(x)
    x, alpha, total = _columns(x, alpha, total)
    beta, rest = total - alpha, 1 - x
    nodes, weights = (wrap(a) for a in _rule())
    ahead = log(x) - digamma(alpha) + digamma(total)
    shrunk = -expm1(-nodes / alpha)
    ratio = log1p(x * shrunk / rest)
    below = (nodes / alpha - ahead) * exp(-nodes + (beta - 1) * ratio) * (x / alpha) / rest
    growth = log1p(-rest * expm1(-nodes / beta) / x)
    above = (growth + ahead) * exp(-nodes + (alpha - 1) * growth) / beta
    near_0, near_1 = (x < 0.25) & (alpha < 1), (rest < 0.25) & (beta < 1)
    low = ((ahead < 0) & ~near_1) | near_0
    return cast((where(low, below, above) * weights).sum(-1), d)


def _standard_gamma(self: Any, generator: Any = None) -> Any:
    """Numbers of the gamma distribution of rate 1, one an element of self, which may be tracked."""
    y = apply(StandardGamma(generator), self.detach())
    if not self.requires_grad:
        return y
    moved = self - self.detach()  # 0, with a gradient
    return y + moved * _standard_gamma_grad(self, y)


def _sample_dirichlet(self: Any, generator: Any = None) -> Any:
    """Rows of the Dirichlet distribution of self's rows, which may be tracked."""
    y = apply(SampleDirichlet(generator), self.detach())
    if not self.requires_grad:
        return y
    fixed = self.detach()
    total = fixed.sum(-1, keepdim=True).expand_as(fixed)
    moved = (self - fixed) * _dirichlet_grad(y, fixed, total)
    return y + (moved - y * moved.sum(-1, keepdim=True))
