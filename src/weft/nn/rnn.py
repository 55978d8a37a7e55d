"""Recurrent layers: RNN, LSTM, GRU over sequences, and their single steps (cells).

Weights are named `weight_ih_l0`, `bias_hh_l1_reverse`, ... as torch's, the gates stacked in its
order (LSTM: input, forget, cell, output; GRU: reset, update, new), all drawn from U(-b, b),
b = 1 / sqrt(hidden).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import weft
from weft import Parameter, Tensor
from weft.autograd import Function
from weft.nn import functional as F
from weft.nn import init
from weft.nn.module import Module
from weft.nn.utils.rnn import PackedSequence
from weft.ops.recurrent import (
    gru_gradient,
    gru_states,
    lstm_gradient,
    lstm_states,
    rnn_gradient,
    rnn_states,
    rounds,
)

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]


class _LstmSequence(Function):
    """An LSTM's steps as one kernel: (rounded, gates (T, N, 4H), h, c (N, H), W_hh) -> (all h, the
    last c), or (rounded, x (T, N, I), h, c, W_hh, W_ih, the sum of the biases).

    The gradients of the weights are single products over all steps.
    """

    @staticmethod
    def forward(ctx: Any, rounded: bool, x: Tensor, *given: Tensor) -> tuple:
        x, ctx.rounded = x.contiguous(), rounded
        states = lstm_states(x, *given, with_gates=any(ctx.needs_input_grad), rounded=rounded)
        ctx.save_for_backward(x, *given, states)
        return states[0, 1:], states[1, -1].clone()

    @staticmethod
    def backward(ctx: Any, dh: Tensor, dc: Tensor) -> tuple:
        *given, states = ctx.saved_tensors
        dx, *others = lstm_gradient(dh, dc.unsqueeze(0), states, *given, rounded=ctx.rounded)
        if callable(dx):  # a product that nobody may want
            dx = dx() if ctx.needs_input_grad[1] else None
        return None, dx, *others


class _GruSequence(Function):
    """A GRU's steps as one kernel: (rounded, gates (T, N, 3H), h (N, H), W_hh, b_hn) -> all h."""

    @staticmethod
    def forward(ctx: Any, rounded: bool, *given: Tensor) -> Tensor:
        ctx.rounded = rounded
        states = gru_states(*given, with_gates=any(ctx.needs_input_grad), rounded=rounded)
        ctx.save_for_backward(*given, states)
        return states[0, 1:]

    @staticmethod
    def backward(ctx: Any, dh: Tensor) -> tuple:
        *given, states = ctx.saved_tensors
        return None, *gru_gradient(dh, states, *given, rounded=ctx.rounded)


class _RnnSequence(Function):
    """An RNN's steps as one kernel: (rounded, relu, x (T, N, H), h (N, H), W_hh) -> all h."""

    @staticmethod
    def forward(ctx: Any, rounded: bool, relu: bool, *given: Tensor) -> Tensor:
        ctx.kind = {"relu": relu, "rounded": rounded}
        states = rnn_states(*given, **ctx.kind)
        ctx.save_for_backward(*given, states)
        return states[0, 1:]

    @staticmethod
    def backward(ctx: Any, dh: Tensor) -> tuple:
        *given, states = ctx.saved_tensors
        return None, None, *rnn_gradient(dh, states, *given, **ctx.kind)


def _step_plain(activation: Callable) -> Callable:
    """h = activation(W_ih x + b_ih + W_hh h + b_hh)"""

    def step(gates: Tensor, state: tuple, w: tuple) -> tuple:
        (h,) = state
        return (activation(gates + F.linear(h, w[0], w[1])),)

    return step


def _step_lstm(gates: Tensor, state: tuple, w: tuple) -> tuple:
    """i, f, o = sigmoid, g = tanh of the gates;  c = f c + i g;  h = o tanh(c), or W_hr of it"""
    h, c = state
    i, f, g, o = (gates + F.linear(h, w[0], w[1])).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if w[2] is None else F.linear(h, w[2])), c


def _step_gru(gates: Tensor, state: tuple, w: tuple) -> tuple:
    """r, z = sigmoid of the gates;  n = tanh(x_n + r h_n);  h = (h - n) z + n"""
    (h,) = state
    x_r, x_z, x_n = gates.chunk(3, -1)
    h_r, h_z, h_n = F.linear(h, w[0], w[1]).chunk(3, -1)
    n = (x_n + h_n * (h_r + x_r).sigmoid()).tanh()
    return ((h - n) * (h_z + x_z).sigmoid() + n,)


_STEPS: dict[str, tuple[int, Callable]] = {  # mode -> (gates, step)
    "RNN_TANH": (1, _step_plain(weft.tanh)),
    "RNN_RELU": (1, _step_plain(F.relu)),
    "LSTM": (4, _step_lstm),
    "GRU": (3, _step_gru),
}


# An LSTM of few features multiplies them step by step: memory for all gates would cost more.  Up to
# so many the sums, and with them the bits, are those of `linear`, which shorter calls take.
_ONE_SUM = 384


class RNNBase(Module):
    """What the recurrent layers share: weights, directions, layers, packed sequences."""

    _states: ClassVar[int] = 1  # tensors of hidden state: 2 for the LSTM

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if mode not in _STEPS:
            raise ValueError("Unrecognized RNN mode: " + mode)
        self.mode = mode
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self._check()
        gates = _STEPS[mode][0] * hidden_size
        width = proj_size or hidden_size
        directions = 2 if bidirectional else 1
        self._all_weights: list[list[str]] = []
        for layer in range(num_layers):
            fed = input_size if layer == 0 else width * directions
            for suffix in ("", "_reverse")[:directions]:
                shapes: dict[str, tuple[int, ...]] = {
                    "weight_ih": (gates, fed),
                    "weight_hh": (gates, width),
                }
                if bias:
                    shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                for name, shape in shapes.items():
                    made = Parameter(weft.empty(shape, device=device, dtype=dtype))
                    setattr(self, f"{name}_l{layer}{suffix}", made)
                self._all_weights.append([f"{name}_l{layer}{suffix}" for name in shapes])
        self.reset_parameters()

    def _check(self) -> None:
        if not 0 <= self.dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an "
                "element being zeroed"
            )
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero "
                "dropout expects num_layers greater than 1, but got "
                f"dropout={self.dropout} and num_layers={self.num_layers}",
                stacklevel=4,
            )
        for name in ("bias", "batch_first"):
            if not isinstance(getattr(self, name), bool):
                kind = type(getattr(self, name)).__name__
                raise TypeError(f"{name} should be of type bool, got: {kind}")
        for name in ("input_size", "hidden_size", "num_layers"):
            value = getattr(self, name)
            if not isinstance(value, int):
                raise TypeError(f"{name} should be of type int, got: {type(value).__name__}")
            if value <= 0:
                raise ValueError(f"{name} must be greater than zero")
        if self.proj_size < 0:
            raise ValueError(
                "proj_size should be a positive integer or zero to disable projections"
            )
        if self.proj_size >= self.hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")

    def reset_parameters(self) -> None:
        bound = 1.0 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing to do: torch uses this to arrange a GPU's memory."""

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The weights of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        usual = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0,
            "bidirectional": False,
        }  # fmt: skip
        for name, value in usual.items():
            if getattr(self, name) != value:
                text += f", {name}={getattr(self, name)}"
        return text

    # ------------------------------------------------------------------ computing

    def _run(self, input: Any, state: tuple | None) -> tuple[Any, tuple]:
        """(output, final states), for a packed, batched or single sequence."""
        if isinstance(input, PackedSequence):
            return self._run_packed(input, state)
        if input.dim() not in (2, 3):
            raise ValueError(
                f"{self._get_name()}: Expected input to be 2D or 3D, got {input.dim()}D instead"
            )
        batched = input.dim() == 3
        if any(h.dim() != input.dim() for h in state or ()):
            kind = "batched 3-D" if batched else "unbatched 2-D"
            got = ", ".join(f"{h.dim()}-D" for h in state or ())
            both = self._states == 2
            raise RuntimeError(
                f"For {kind} input, {'hx and cx' if both else 'hx'} should also be {input.dim()}-D "
                f"but got {f'({got}) tensors' if both else f'{got} tensor'}"
            )
        if not batched:
            input = input.unsqueeze(1)
            state = None if state is None else tuple(h.unsqueeze(1) for h in state)
        elif self.batch_first:
            input = input.transpose(0, 1)
        if not input.size(0):
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        state = self._initial(input, state, input.size(1))
        sizes = [input.size(1)] * input.size(0)
        y, state = self._layers(input.flatten(0, 1), sizes, state)
        y = y.reshape(len(sizes), -1, y.shape[-1])
        if not batched:
            y, state = y.squeeze(1), tuple(h.squeeze(1) for h in state)
        elif self.batch_first:
            y = y.transpose(0, 1)
        plain = self.mode != "GRU" and not self.proj_size  # which torch leaves in float32
        if plain and _narrow() is weft.bfloat16 and y.dtype is weft.float32:
            return y.bfloat16(), tuple(h.bfloat16() for h in state)
        return y, state

    def _run_packed(self, packed: Any, state: tuple | None) -> tuple[Any, tuple]:
        data, batch_sizes, order, back = packed
        sizes = batch_sizes.tolist()
        if state is not None and order is not None:
            state = tuple(h.index_select(1, order) for h in state)
        state = self._initial(data, state, sizes[0])
        y, state = self._layers(data, sizes, state)
        if back is not None:
            state = tuple(h.index_select(1, back) for h in state)
        return PackedSequence(y, batch_sizes, order, back), state

    def _initial(self, x: Tensor, state: tuple | None, batch: int) -> tuple:
        """The initial states, checked, or zeros."""
        if x.dtype is not self.weight_ih_l0.dtype and not _narrow():
            raise ValueError(
                f"RNN input dtype ({x.dtype}) does not match weight dtype "
                f"({self.weight_ih_l0.dtype}). Convert input: input.to({self.weight_ih_l0.dtype}), "
                f"or convert model: model.to({x.dtype})"
            )
        if x.size(-1) != self.input_size:
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. Expected "
                f"{self.input_size}, got {x.size(-1)}"
            )
        rows = self.num_layers * (2 if self.bidirectional else 1)
        widths = (self.proj_size or self.hidden_size, self.hidden_size)[: self._states]
        wanted = [(rows, batch, width) for width in widths]
        if state is None:
            return tuple(weft.zeros(shape, dtype=x.dtype) for shape in wanted)
        for i, (h, shape) in enumerate(zip(state, wanted, strict=True)):
            if tuple(h.shape) != shape:
                name = f"hidden[{i}]" if self._states == 2 else "hidden"
                raise RuntimeError(f"Expected {name} size {shape}, got {list(h.shape)}")
        return state

    def _layers(self, x: Tensor, sizes: list[int], state: tuple) -> tuple[Tensor, tuple]:
        """All layers over the rows of x, sizes[t] of them at step t.

        x (sum of sizes, features) -> (the same rows, width * directions), the final states.
        """
        directions = 2 if self.bidirectional else 1
        if _narrow() is not None:  # a layer before this one may have left bfloat16
            d = self.weight_ih_l0.dtype
            x, state = x.to(d), tuple(h.to(d) for h in state)
        finals: list[tuple] = []
        for layer in range(self.num_layers):
            outs = []
            for d in range(directions):
                i = layer * directions + d
                y, final = self._direction(x, sizes, tuple(h[i] for h in state), i, d == 1)
                outs.append(y)
                finals.append(final)
            x = outs[0] if directions == 1 else weft.cat(outs, dim=-1)
            if self.dropout > 0 and self.training and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, True)
        return x, tuple(weft.stack(hs) for hs in zip(*finals, strict=True))

    def _direction(
        self, x: Tensor, sizes: list[int], state: tuple, index: int, reverse: bool
    ) -> tuple[Tensor, tuple]:
        """One layer in one direction.  Sequences end (or, in reverse, begin) at different steps;
        they are sorted by length, so those that are running are the first rows.
        """
        names = self._all_weights[index]
        own = {name.split("_l")[0]: getattr(self, name) for name in names}
        if self._is_one_kernel(x, sizes):
            return self._whole_sequence(x, len(sizes), state, own, reverse)
        gates = F.linear(x, own["weight_ih"], own.get("bias_ih"))
        w = (own["weight_hh"], own.get("bias_hh"), own.get("weight_hr"))
        step = _STEPS[self.mode][1]
        gates_at = gates.split(sizes, 0)
        order = range(len(sizes))
        now = sizes[-1] if reverse else sizes[0]
        initial, state = state, tuple(_first(h, now) for h in state)
        outs, ended = [], []
        for t in reversed(order) if reverse else order:
            n = sizes[t]
            if n < now:  # the last rows have ended: put their states aside
                ended.append(tuple(h.narrow(0, n, now - n) for h in state))
                state = tuple(_first(h, n) for h in state)
            elif n > now:
                state = tuple(
                    weft.cat([h, h0.narrow(0, now, n - now)])
                    for h, h0 in zip(state, initial, strict=True)
                )
            now = n
            state = step(gates_at[t], state, w)
            outs.append(state[0])
        if ended:
            parts = zip(state, *reversed(ended), strict=True)
            state = tuple(weft.cat(list(hs)) for hs in parts)
        return weft.cat(outs[::-1] if reverse else outs), state

    def _is_one_kernel(self, x: Tensor, sizes: list[int]) -> bool:
        """Whether all sequences have one length, and a dtype that the kernels know."""
        plain = not self.proj_size and sizes[0] == sizes[-1]
        known = (weft.float32, weft.float64)
        return plain and x.dtype in known and (rounds(x.dtype) or _narrow() is None)

    def _whole_sequence(
        self, x: Tensor, steps: int, state: tuple, own: dict[str, Tensor], reverse: bool
    ) -> tuple[Tensor, tuple]:
        """A layer in one direction by one kernel; see `_direction`."""
        w, bias, inner = own["weight_hh"], None, None
        if self.bias:
            bias = own["bias_ih"] + own["bias_hh"]
        if self.mode == "GRU":  # a part of b_hh is inside the reset gate
            inner = weft.zeros(self.hidden_size, dtype=x.dtype)
            if self.bias:
                outer, inner = own["bias_hh"].split([2 * self.hidden_size, self.hidden_size])
                bias = own["bias_ih"] + weft.cat([outer, weft.zeros_like(inner)])
        rounded = rounds(x.dtype)
        few = bias is not None and 2 * x.shape[1] <= self.hidden_size
        short = x.shape[1] > _ONE_SUM or steps < 4 or state[0].shape[0] < 4
        inside = self.mode == "LSTM" and (rounded or (few and not short))
        gates = x if inside else F.linear(x, own["weight_ih"], bias).to(x.dtype)
        gates = gates.unflatten(0, (steps, -1))
        gates = gates.flip(0) if reverse else gates
        if self.mode == "LSTM":
            bias = weft.zeros(w.shape[0]) if inside and bias is None else bias
            given = (own["weight_ih"], bias) if inside else ()
            h, c = _LstmSequence.apply(rounded, gates, *state, w, *given)
            last = (h[-1], c)
        elif self.mode == "GRU":
            h = _GruSequence.apply(rounded, gates, *state, w, inner)
            last = (h[-1],)
        else:
            h = _RnnSequence.apply(rounded, self.mode == "RNN_RELU", gates, *state, w)
            last = (h[-1],)
        return (h.flip(0) if reverse else h).flatten(0, 1), last


def _narrow() -> Any:
    """What autocast casts to, or None."""
    return weft.get_autocast_dtype("cpu") if weft.is_autocast_enabled("cpu") else None


def _first(h: Tensor, n: int) -> Tensor:
    return h if h.shape[0] == n else h.narrow(0, 0, n)


class RNN(RNNBase):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), or relu with `nonlinearity`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if len(args) > 3:
            kind = args[3]
            args = args[:3] + args[4:]
        else:
            kind = kwargs.pop("nonlinearity", "tanh")
        if kind not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{kind}'. Select from 'tanh' or 'relu'.")
        super().__init__(f"RNN_{kind.upper()}", *args, **kwargs)
        self.nonlinearity = kind

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple:
        y, (h,) = self._run(input, None if hx is None else (hx,))
        return y, h


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); see `_step_lstm`.

    x (L, N, in) -> (L, N, hidden), (h, c) of (layers * directions, N, hidden).
    """

    _states = 2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    def forward(self, input: Any, hx: tuple | None = None) -> tuple:
        return self._run(input, None if hx is None else tuple(hx))


class GRU(RNNBase):
    """Gated recurrent unit (Cho et al. 2014); see `_step_gru`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__("GRU", *args, **kwargs)

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple:
        y, (h,) = self._run(input, None if hx is None else (hx,))
        return y, h


# ---------------------------------------------------------------------------- cells


class RNNCellBase(Module):
    """One step of a recurrent layer: x (N, in) or (in,)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        gates = num_chunks * hidden_size
        made = {"device": device, "dtype": dtype}
        self.weight_ih = Parameter(weft.empty((gates, input_size), **made))
        self.weight_hh = Parameter(weft.empty((gates, hidden_size), **made))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(weft.empty(gates, **made)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def _step(self, mode: str, input: Tensor, state: tuple | None, count: int = 1) -> tuple:
        for name, x in (("input", input), *((f"hx[{i}]", h) for i, h in enumerate(state or ()))):
            if x.dim() not in (1, 2):
                raise ValueError(
                    f"{self._get_name()}: Expected {name} to be 1D or 2D, got {x.dim()}D instead"
                )
        batched = input.dim() == 2
        x = input if batched else input.unsqueeze(0)
        if state is None:
            zeros = weft.zeros((x.size(0), self.hidden_size), dtype=x.dtype)
            state = (zeros,) * count
        elif not batched:
            state = tuple(h.unsqueeze(0) for h in state)
        gates = F.linear(x, self.weight_ih, self.bias_ih)
        new = _STEPS[mode][1](gates, state, (self.weight_hh, self.bias_hh, None))
        return new if batched else tuple(h.squeeze(0) for h in new)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        kind = getattr(self, "nonlinearity", "tanh")
        return text + (f", nonlinearity={kind}" if kind != "tanh" else "")


class RNNCell(RNNCellBase):
    """One step of RNN."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        mode = f"RNN_{self.nonlinearity.upper()}"
        return self._step(mode, input, None if hx is None else (hx,))[0]


class LSTMCell(RNNCellBase):
    """One step of LSTM: (h, c)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple | None = None) -> tuple[Tensor, Tensor]:
        h, c = self._step("LSTM", input, None if hx is None else tuple(hx), count=2)
        return h, c


class GRUCell(RNNCellBase):
    """One step of GRU."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step("GRU", input, None if hx is None else (hx,))[0]
