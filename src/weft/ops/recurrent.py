"""The recurrence of an LSTM, a GRU, an RNN over a whole sequence, forward and backward one kernel
each.

    LSTM   a = x[t] + h[t-1] w^T;  i, f, o = sigmoid, g = tanh of a's quarters
           c[t] = f c[t-1] + i g;  h[t] = o tanh(c[t])
    GRU    s = h[t-1] w^T;  r, z = sigmoid of x + s;  n = tanh(x_n + r (s_n + b))
           h[t] = (h[t-1] - n) z + n
    RNN    h[t] = tanh or relu of x[t] + h[t-1] w^T

The gradient of w is one product over all steps, outside.  So is the product with the input, but for
an LSTM of few features, or one that is `rounded`, whose kernel makes it step by step.

Sources: Hochreiter and Schmidhuber 1997; Cho et al. 2014; Elman 1990.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core.handle import state
from weft.core.op import Op, sample
from weft.core.types import Type, numel
from weft.kernels.layout import Layout
from weft.ops.cast import cast
from weft.ops.contract import MatMul, is_fast_math, matmul
from weft.ops.creation import zeros_like
from weft.ops.dispatch import apply
from weft.ops.join import cat, chunk, stack
from weft.ops.kinds import by_loop
from weft.ops.pad import Pad
from weft.ops.reduce import sum
from weft.ops.trig import tanh
from weft.ops.unary import relu, sigmoid
from weft.ops.view import narrow, reshape, select, unsqueeze
from weft.runtime.native import Launch


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class Recurrent(Op, abstract=True):
    """`rounded`: the products' operands are rounded to bfloat16 first; float32."""

    rounded: bool = False
    weights: ClassVar[slice] = slice(2, 3)  # of the operands, those that rows are multiplied with
    vmap = by_loop

    @property
    def rounds(self) -> bool:
        return self.rounded

    def need(self, *ts: Type) -> None:
        """RuntimeError: dtypes that differ, or that the kernels do not know."""
        known = (dt.float32,) if self.rounded else (dt.float32, dt.float64)
        if ts[0].dtype not in known or any(t.dtype is not ts[0].dtype for t in ts):
            one = " or ".join(d.name for d in known)
            raise RuntimeError(f"{self.name}: {', '.join(map(str, ts))} must have one dtype, {one}")

    def flops(self, *types: Type) -> float:
        taken = 0
        for w in types[self.weights]:
            taken += numel(w.shape)
        return 2.0 * numel(types[0].shape[:2]) * taken

    def _dot(self, a: Any, b: Any) -> Any:
        """The product a b of arrays or tensors."""
        return _rounded(a) @ _rounded(b) if self.rounded else a @ b

    def product(self, a: Any, b: Any) -> Any:
        """a b, a product of all steps."""
        return apply(MatMul(True), a, b) if self.rounded else matmul(a, b)

    def input_gradient(self, ds: Any, w: Any) -> Any:
        """ds (T, N, m) times what multiplied the input, w (m, k). `MatMul(True)` does not round a
        matrix of few rows: those of all steps are one here, filled up to as many as it rounds, so
        that a row alone has the bits of one in a batch.
        """
        if not self.rounded:
            return matmul(ds, w)
        steps, rows, wide = ds.shape
        every = reshape(ds, (steps * rows, wide))
        missing = kernels.PAIRS_FROM - steps * rows
        if missing > 0:
            every = apply(Pad(((0, missing), (0, 0))), every)
        found = narrow(self.product(every, w), 0, 0, steps * rows)
        return reshape(found, (steps, rows, w.shape[1]))

    def weight_gradient(self, ds: Any, x: Any) -> Any:
        """The sum over steps and rows of ds (T, N, m) times what was multiplied, x (T, N, k)."""
        a, b = (reshape(v, (v.shape[0] * v.shape[1], v.shape[2])) for v in (ds, x))
        return self.product(a.T, b)

    def w_gradient(self, ds: Any, states: Any) -> Any:
        """That of w, which multiplies the h before each step."""
        return self.weight_gradient(ds, narrow(select(states, 0, 0), 0, 0, ds.shape[0]))


def rounds(d: dt.dtype) -> bool:
    """Whether a recurrence of dtype d is `rounded` now: under autocast, and under fast math on
    hosts that multiply pairs of bfloat16."""
    fast = is_fast_math() and kernels.multiplies_pairs()
    return d is dt.float32 and (fast if state.autocast is None else state.autocast is dt.bfloat16)


def _rounded(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x.astype(dt.bfloat16.np).astype(x.dtype)
    return cast(cast(x, dt.bfloat16), x.dtype)


class LstmStates(Recurrent):
    """y[p, t] = h and c after step t, t = 0 being the initial ones

    x (T, N, 4H), h and c (N, H), w (4H, H) -> (2, T + 1, N, H).
    With v (4H, I) and b (4H,) x is (T, N, I), and x v^T + b stands for x.
    `with_gates`: four more planes, the gates after their functions (0 at t = 0).  They are for the
    gradient alone: no cotangent may come in through them.
    """

    with_gates: bool = False
    weights = slice(3, 5)

    def type(self, x: Type, h: Type, c: Type, w: Type, *inner: Type) -> Type:
        if len(inner) not in (0, 2):
            raise TypeError(f"lstm: 4 or 6 operands, got {4 + len(inner)}")
        fits = x.ndim == 3 and h.ndim == w.ndim == 2 and h.shape == c.shape
        if fits and inner:
            wanted = [(w.shape[0], x.shape[2]), (w.shape[0],)]
            if [v.shape for v in inner] != wanted:
                raise RuntimeError(f"lstm: weight and bias {inner} do not fit inputs {x}")
        if not fits or x.shape[1:] != (h.shape[0], x.shape[2] if inner else w.shape[0]):
            raise RuntimeError(f"lstm: gates {x}, states {h} and {c}, weight {w} do not fit")
        if w.shape != (4 * h.shape[1], h.shape[1]):
            raise RuntimeError(f"lstm: weight {w} does not fit states {h}")
        self.need(x, h, c, w, *inner)
        return Type((6 if self.with_gates else 2, x.shape[0] + 1, *h.shape), x.dtype)

    def oracle(
        self, x: np.ndarray, h: np.ndarray, c: np.ndarray, w: np.ndarray, *inner: np.ndarray
    ) -> np.ndarray:
        if inner:
            x = self._dot(x, inner[0].T) + inner[1]
        rows = [[h, c, *[np.zeros_like(h)] * 4]]
        for gates in x:
            i, f, g, o = np.split(gates + self._dot(h, w.T), 4, -1)
            i, f, o = (_sigmoid(v) for v in (i, f, o))
            g = np.tanh(g)
            c = f * c + i * g
            h = o * np.tanh(c)
            rows.append([h, c, i, f, g, o])
        return np.stack([np.stack(r[: 6 if self.with_gates else 2]) for r in rows], 1)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_recurrent(
            "lstm over inputs" if ins[4:] else "lstm", ins, out, pairs=self.rounded
        )

    def body(self, x: Any, h: Any, c: Any, w: Any, *inner: Any) -> Any:
        if inner:
            x = self._dot(x, inner[0].T) + inner[1]
        rows = [[h, c, *[zeros_like(h)] * 4]]
        for t in range(x.shape[0]):
            i, f, g, o = chunk(select(x, 0, t) + self._dot(h, w.T), 4, -1)
            i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
            c = f * c + i * g
            h = o * tanh(c)
            rows.append([h, c, i, f, g, o])
        return stack([stack(r[: 6 if self.with_gates else 2]) for r in rows], 1)

    def vjp(self, g: Any, y: Any, x: Any, h: Any, c: Any, w: Any, *inner: Any) -> tuple:
        dh, dc = select(g, 0, 0), select(g, 0, 1)
        steps = x.shape[0]
        later = narrow(dc, 0, 1, steps) if steps else unsqueeze(zeros_like(c), 0)
        dx, dh0, dc0, dw, *rest = lstm_gradient(
            narrow(dh, 0, 1, steps), later, None, x, h, c, w, *inner, rounded=self.rounded
        )
        return dx, dh0 + select(dh, 0, 0), dc0 + select(dc, 0, 0), dw, *rest

    samples = (
        sample((3, 2, 20), (2, 5), (2, 5), (20, 5)),
        sample((0, 2, 12), (2, 3), (2, 3), (12, 3)),
        sample((2, 7, 68), (7, 17), (7, 17), (68, 17), low=-0.5, high=0.5),
        sample((2, 7, 3), (7, 17), (7, 17), (68, 17), (68, 3), (68,), low=-0.5, high=0.5),
    )


class LstmGrad(Recurrent):
    """y[t + 1] = the cotangent of step t's a, (N, 4H); y[0] holds those of the initial h and c,
    y[T + 1] the sums over all t

    dh and dc (T, N, H), or (1, N, H): of the last step alone; s the six planes of LstmStates.
    """

    nondiff = "gradients of gradients are composed: see lstm_gradient"

    def type(self, dh: Type, dc: Type, s: Type, w: Type) -> Type:
        if s.ndim != 4 or s.shape[0] != 6 or s.shape[1] < 1:
            raise RuntimeError(f"lstm: {s} are no states with gates")
        steps, rows, width = s.shape[1] - 1, *s.shape[2:]
        one = (1, rows, width)
        if dh.shape not in (one, (steps, rows, width)):
            raise RuntimeError(f"lstm: cotangent {dh} does not fit states {s}")
        if dc.shape not in (one, (steps or 1, rows, width)) or w.shape != (4 * width, width):
            raise RuntimeError(f"lstm: cotangent {dc} or weight {w} does not fit {s}")
        self.need(dh, dc, s, w)
        return Type((steps + 2, rows, 4 * width), dh.dtype)

    def flops(self, dh: Type, dc: Type, s: Type, w: Type) -> float:
        return 2.0 * (s.shape[1] - 1) * s.shape[2] * numel(w.shape)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_recurrent_grad("lstm", ins, out, pairs=self.rounded)

    def body(self, dh: Any, dc: Any, s: Any, w: Any) -> Any:
        carry = select(dc, 0, -1)
        below = zeros_like(carry)
        out: list = []
        steps = s.shape[1] - 1
        for t in reversed(range(steps)):
            c, i, f, g, o = (select(select(s, 0, p), 0, t + 1) for p in range(1, 6))
            comes = dh.shape[0] == steps or t == steps - 1
            given = select(dh, 0, t if dh.shape[0] == steps else 0) if comes else 0.0
            total, squashed = given + below, tanh(c)
            carry = carry + total * o * (1 - squashed * squashed)
            da = [
                carry * g * i * (1 - i),
                carry * select(select(s, 0, 1), 0, t) * f * (1 - f),
                carry * i * (1 - g * g),
                total * squashed * o * (1 - o),
            ]
            carry = carry * f
            if t and dc.shape[0] > 1:
                carry = carry + select(dc, 0, t - 1)
            out.append(cat(da, -1))
            below = self._dot(out[-1], w)
        nothing = zeros_like(below)
        first = cat([below, carry, nothing, nothing], -1)
        sums = sum(stack(out), (0,)) if out else zeros_like(first)
        return stack([first, *out[::-1], sums])

    samples = (
        sample((3, 2, 5), (1, 2, 5), (6, 4, 2, 5), (20, 5), low=-0.5, high=0.5),
        sample((3, 2, 5), (3, 2, 5), (6, 4, 2, 5), (20, 5), low=-0.5, high=0.5),
        sample((1, 9, 19), (1, 9, 19), (6, 2, 9, 19), (76, 19), low=-0.5, high=0.5),
        sample((1, 2, 5), (1, 2, 5), (6, 4, 2, 5), (20, 5), low=-0.5, high=0.5),
        sample((0, 2, 3), (1, 2, 3), (6, 1, 2, 3), (12, 3)),
    )


def lstm_states(
    x: Any, h: Any, c: Any, w: Any, *inner: Any, with_gates: bool, rounded: bool = False
) -> Any:
    """The planes of LstmStates; operands in any layout."""
    return apply(LstmStates(rounded, with_gates), *(v.contiguous() for v in (x, h, c, w, *inner)))


def lstm_gradient(
    dh: Any, dc: Any, states: Any, x: Any, h: Any, c: Any, w: Any, *inner: Any,
    rounded: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    """The cotangents of x, the initial h and c, w and `inner` from those of h (T, N, H) and c
    (T, N, H).

    dc may be (1, N, H): that of the last c alone.  `states`: the six planes, if they are known.
    With gradients wanted of the result too (`create_graph`) it is composed of ops.
    """
    op = LstmGrad(rounded)
    if state.grad:
        states = LstmStates(rounded, True).body(x, h, c, w, *inner)
        d = op.body(dh, dc, states, w)
    else:
        if states is None:
            states = lstm_states(x, h, c, w, *inner, with_gates=True, rounded=rounded)
        d = apply(op, dh.contiguous(), dc.contiguous(), states, w.contiguous())
    steps, _, width = dh.shape
    first = select(d, 0, 0)
    dx = narrow(d, 0, 1, steps)
    dw = op.w_gradient(dx, states)
    others = narrow(first, 1, 0, width), narrow(first, 1, width, width), dw
    if not inner:
        return dx, *others
    dv = op.weight_gradient(dx, x)
    return lambda: op.input_gradient(dx, inner[0]), *others, dv, sum(select(d, 0, steps + 1), (0,))


class GruStates(Recurrent):
    """y[0, t] = h after step t, t = 0 being the initial one

    x (T, N, 3H), h (N, H), w (3H, H), b (H,) -> (1, T + 1, N, H).
    `with_gates`: four more planes, r, z, n and s_n + b, for the gradient alone: no cotangent may
    come in through them.
    """

    with_gates: bool = False

    def type(self, x: Type, h: Type, w: Type, b: Type) -> Type:
        fits = x.ndim == 3 and h.ndim == w.ndim == 2 and b.shape == h.shape[1:]
        if not fits or x.shape[1:] != (h.shape[0], w.shape[0]):
            raise RuntimeError(f"gru: gates {x}, state {h}, weight {w}, bias {b} do not fit")
        if w.shape != (3 * h.shape[1], h.shape[1]):
            raise RuntimeError(f"gru: weight {w} does not fit state {h}")
        self.need(x, h, w, b)
        return Type((5 if self.with_gates else 1, x.shape[0] + 1, *h.shape), x.dtype)

    def oracle(self, x: np.ndarray, h: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        rows = [[h, *[np.zeros_like(h)] * 4]]
        for gates in x:
            (x_r, x_z, x_n), (s_r, s_z, s_n) = (
                np.split(gates, 3, -1),
                np.split(self._dot(h, w.T), 3, -1),
            )
            r, z = _sigmoid(x_r + s_r), _sigmoid(x_z + s_z)
            n = np.tanh(x_n + r * (s_n + b))
            h = (h - n) * z + n
            rows.append([h, r, z, n, s_n + b])
        return np.stack([np.stack(r[: 5 if self.with_gates else 1]) for r in rows], 1)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_recurrent("gru", ins, out, pairs=self.rounded)

    def body(self, x: Any, h: Any, w: Any, b: Any) -> Any:
        rows = [[h, *[zeros_like(h)] * 4]]
        for t in range(x.shape[0]):
            x_r, x_z, x_n = chunk(select(x, 0, t), 3, -1)
            s_r, s_z, s_n = chunk(self._dot(h, w.T), 3, -1)
            r, z, inner = sigmoid(x_r + s_r), sigmoid(x_z + s_z), s_n + b
            n = tanh(x_n + r * inner)
            h = (h - n) * z + n
            rows.append([h, r, z, n, inner])
        return stack([stack(r[: 5 if self.with_gates else 1]) for r in rows], 1)

    def vjp(self, g: Any, y: Any, x: Any, h: Any, w: Any, b: Any) -> tuple:
        dh = select(g, 0, 0)
        dx, dh0, dw, db = gru_gradient(
            narrow(dh, 0, 1, x.shape[0]), None, x, h, w, b, rounded=self.rounded
        )
        return dx, dh0 + select(dh, 0, 0), dw, db

    samples = (
        sample((3, 2, 15), (2, 5), (15, 5), (5,)),
        sample((0, 2, 9), (2, 3), (9, 3), (3,)),
        sample((2, 7, 51), (7, 17), (51, 17), (17,), low=-0.5, high=0.5),
    )


class GruGrad(Recurrent):
    """y[t + 1] = the cotangents of step t's s (N, 3H), then of x_n (N, H); y[0] that of h, then 0

    dh (T, N, H); s the five planes of GruStates.
    """

    nondiff = "gradients of gradients are composed: see gru_gradient"

    def type(self, dh: Type, s: Type, w: Type) -> Type:
        if dh.ndim != 3 or s.shape != (5, dh.shape[0] + 1, *dh.shape[1:]):
            raise RuntimeError(f"gru: cotangent {dh} does not fit states {s}")
        steps, rows, width = dh.shape
        if w.shape != (3 * width, width):
            raise RuntimeError(f"gru: weight {w} does not fit {dh}, {s}")
        self.need(dh, s, w)
        return Type((steps + 1, rows, 4 * width), dh.dtype)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_recurrent_grad("gru", ins, out, pairs=self.rounded)

    def body(self, dh: Any, s: Any, w: Any) -> Any:
        below = zeros_like(select(select(s, 0, 0), 0, 0))
        out: list = []
        for t in reversed(range(dh.shape[0])):
            r, z, n, inner = (select(select(s, 0, p), 0, t + 1) for p in range(1, 5))
            total = select(dh, 0, t) + below
            dn = total * (1 - z) * (1 - n * n)
            dz = total * (select(select(s, 0, 0), 0, t) - n) * (z * (1 - z))
            ds = cat([dn * inner * (r * (1 - r)), dz, dn * r], -1)
            below = total * z + self._dot(ds, w)
            out.append(cat([ds, dn], -1))
        nothing = zeros_like(below)
        out.append(cat([below, nothing, nothing, nothing], -1))
        return stack(out[::-1])

    samples = (
        sample((3, 2, 5), (5, 4, 2, 5), (15, 5), low=-0.5, high=0.5),
        sample((1, 9, 19), (5, 2, 9, 19), (57, 19), low=-0.5, high=0.5),
        sample((0, 2, 3), (5, 1, 2, 3), (9, 3)),
    )


def gru_states(x: Any, h: Any, w: Any, b: Any, *, with_gates: bool, rounded: bool = False) -> Any:
    """The planes of GruStates; operands in any layout."""
    return apply(GruStates(rounded, with_gates), *(v.contiguous() for v in (x, h, w, b)))


def gru_gradient(
    dh: Any, states: Any, x: Any, h: Any, w: Any, b: Any, *, rounded: bool = False
) -> tuple[Any, Any, Any, Any]:
    """The cotangents of x, the initial h, w and b from those of all h (T, N, H).

    `states`: the five planes, if they are known.  With gradients wanted of the result too it is
    composed of ops.
    """
    op = GruGrad(rounded)
    if state.grad:
        states = GruStates(rounded, True).body(x, h, w, b)
        d = op.body(dh, states, w)
    else:
        if states is None:
            states = gru_states(x, h, w, b, with_gates=True, rounded=rounded)
        d = apply(op, dh.contiguous(), states, w.contiguous())
    steps, _, width = dh.shape
    later = narrow(d, 0, 1, steps)
    ds = narrow(later, 2, 0, 3 * width)
    dx = cat([narrow(later, 2, 0, 2 * width), narrow(later, 2, 3 * width, width)], -1)
    db = sum(narrow(later, 2, 2 * width, width), (0, 1))
    dh0 = narrow(select(d, 0, 0), 1, 0, width)
    return dx, dh0, op.w_gradient(ds, states), db


class RnnStates(Recurrent):
    """y[0, t] = h after step t, t = 0 being the initial one: tanh, or relu, of x + h w^T

    x (T, N, H), h (N, H), w (H, H) -> (1, T + 1, N, H).
    """

    relu: bool = False

    def type(self, x: Type, h: Type, w: Type) -> Type:
        if x.ndim != 3 or x.shape[1:] != h.shape or w.shape != h.shape[1:] * 2:
            raise RuntimeError(f"rnn: input {x}, state {h}, weight {w} do not fit")
        self.need(x, h, w)
        return Type((1, x.shape[0] + 1, *h.shape), x.dtype)

    def oracle(self, x: np.ndarray, h: np.ndarray, w: np.ndarray) -> np.ndarray:
        rows = [h]
        for given in x:
            a = given + self._dot(rows[-1], w.T)
            rows.append(np.maximum(a, 0) if self.relu else np.tanh(a))
        return np.stack(rows)[None]

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_recurrent("relu" if self.relu else "tanh", ins, out, pairs=self.rounded)

    def body(self, x: Any, h: Any, w: Any) -> Any:
        rows = [h]
        for t in range(x.shape[0]):
            a = select(x, 0, t) + self._dot(rows[-1], w.T)
            rows.append(relu(a) if self.relu else tanh(a))
        return unsqueeze(stack(rows), 0)

    def vjp(self, g: Any, y: Any, x: Any, h: Any, w: Any) -> tuple:
        dh = select(g, 0, 0)
        dx, dh0, dw = rnn_gradient(
            narrow(dh, 0, 1, x.shape[0]), None, x, h, w, relu=self.relu, rounded=self.rounded
        )
        return dx, dh0 + select(dh, 0, 0), dw

    samples = (
        sample((3, 2, 5), (2, 5), (5, 5)),
        sample((3, 2, 5), (2, 5), (5, 5), relu=True, low=-0.5, high=0.5),
        sample((0, 2, 3), (2, 3), (3, 3)),
        sample((2, 7, 17), (7, 17), (17, 17), low=-0.5, high=0.5),
    )


class RnnGrad(Recurrent):
    """y[t + 1] = the cotangent of step t's x + h w^T; y[0] that of the initial h

    dh (T, N, H); s the states that RnnStates gives.
    """

    relu: bool = False
    nondiff = "gradients of gradients are composed: see rnn_gradient"

    def type(self, dh: Type, s: Type, w: Type) -> Type:
        if dh.ndim != 3 or s.shape != (1, dh.shape[0] + 1, *dh.shape[1:]):
            raise RuntimeError(f"rnn: cotangent {dh} does not fit states {s}")
        if w.shape != (dh.shape[2],) * 2:
            raise RuntimeError(f"rnn: weight {w} does not fit {dh}, {s}")
        self.need(dh, s, w)
        return Type(s.shape[1:], dh.dtype)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_recurrent_grad(
            "relu" if self.relu else "tanh", ins, out, pairs=self.rounded
        )

    def body(self, dh: Any, s: Any, w: Any) -> Any:
        below = zeros_like(select(select(s, 0, 0), 0, 0))
        out: list = []
        for t in reversed(range(dh.shape[0])):
            h, total = select(select(s, 0, 0), 0, t + 1), select(dh, 0, t) + below
            out.append(total.where(h > 0, 0.0) if self.relu else total * (1 - h * h))
            below = self._dot(out[-1], w)
        return stack([*out, below][::-1])

    samples = (
        sample((3, 2, 5), (1, 4, 2, 5), (5, 5), low=-0.5, high=0.5),
        sample((3, 2, 5), (1, 4, 2, 5), (5, 5), relu=True, low=-0.5, high=0.5),
        sample((1, 9, 19), (1, 2, 9, 19), (19, 19), low=-0.5, high=0.5),
        sample((0, 2, 3), (1, 1, 2, 3), (3, 3)),
    )


def rnn_states(x: Any, h: Any, w: Any, *, relu: bool, rounded: bool = False) -> Any:
    """The states of RnnStates; operands in any layout."""
    return apply(RnnStates(rounded, relu), *(v.contiguous() for v in (x, h, w)))


def rnn_gradient(
    dh: Any, states: Any, x: Any, h: Any, w: Any, *, relu: bool, rounded: bool = False
) -> tuple[Any, Any, Any]:
    """The cotangents of x, the initial h and w from those of all h (T, N, H); see gru_gradient."""
    op = RnnGrad(rounded, relu)
    if state.grad:
        states = RnnStates(rounded, relu).body(x, h, w)
        d = op.body(dh, states, w)
    else:
        if states is None:
            states = rnn_states(x, h, w, relu=relu, rounded=rounded)
        d = apply(op, dh.contiguous(), states, w.contiguous())
    dx = narrow(d, 0, 1, dh.shape[0])
    return dx, select(d, 0, 0), op.w_gradient(dx, states)
