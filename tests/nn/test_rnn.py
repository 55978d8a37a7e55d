"""Recurrent layers: layers against cells, packed against single sequences, errors."""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest

import weft
from weft import nn
from weft.kernels import multiplies_pairs
from weft.nn.utils import rnn as U
from weft.ops.recurrent import lstm_states

CLASSES = [nn.RNN, nn.LSTM, nn.GRU]


def data(*shape, seed=0):
    return weft.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def close(a, b):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)


def states(h):
    return h if isinstance(h, tuple) else (h,)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_layer_is_its_cell_step_by_step(cls):
    layer = cls(3, 4)
    cell = getattr(nn, cls.__name__ + "Cell")(3, 4)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell.load_state_dict({n: getattr(layer, n + "_l0") for n in names})
    x = data(5, 2, 3)
    y, h = layer(x)
    state = None
    for t in range(5):
        state = cell(x[t], state)
        close(y[t], states(state)[0])
    for mine, theirs in zip(states(h), states(state), strict=True):
        close(mine[0], theirs)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences_are_the_single_ones(cls, enforce_sorted):
    lengths = [5, 3, 3, 1] if enforce_sorted else [3, 1, 5, 3]
    sequences = [data(n, 3, seed=i) for i, n in enumerate(lengths)]
    layer = cls(3, 4, num_layers=2, bidirectional=True)
    first = data(4, 4, 4, seed=9) * 0.3
    h0 = (first, first * 2) if cls is nn.LSTM else first
    packed = U.pack_sequence(sequences, enforce_sorted=enforce_sorted)
    y, h = layer(packed, h0)
    assert isinstance(y, U.PackedSequence)
    ys, n = U.pad_packed_sequence(y, batch_first=True)
    assert n.tolist() == lengths and ys.shape == (4, 5, 8)
    for i, x in enumerate(sequences):
        own = tuple(s[:, i] for s in states(h0))
        y1, h1 = layer(x, own if cls is nn.LSTM else own[0])
        close(ys[i, : lengths[i]], y1)
        assert not ys[i, lengths[i] :].detach().numpy().any()
        for a, b in zip(states(h), states(h1), strict=True):
            close(a[:, i], b)


def test_gradients_flow_through_packing():
    x = data(4, 2, 3).requires_grad_()
    layer = nn.GRU(3, 2)
    y, _ = layer(U.pack_padded_sequence(x, [4, 2]))
    U.pad_packed_sequence(y)[0].sum().backward()
    assert not x.grad[2:, 1].numpy().any() and x.grad[:2].numpy().all()
    assert all(p.grad is not None for p in layer.parameters())


def test_packing_matches_torchs_layout():
    x = weft.arange(12).reshape(3, 4, 1).float()
    p = U.pack_padded_sequence(x, weft.tensor([3, 2, 2, 1]))
    assert p.data.flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 8]
    assert p.batch_sizes.tolist() == [4, 3, 1] and p.sorted_indices is None
    p = U.pack_padded_sequence(x, [1, 3, 2, 2], enforce_sorted=False)
    assert p.sorted_indices.tolist() == [1, 2, 3, 0]
    assert p.unsorted_indices.tolist() == [3, 0, 1, 2]
    assert p.data.flatten().tolist() == [1, 2, 3, 0, 5, 6, 7, 9]
    y, n = U.pad_packed_sequence(p, padding_value=-1.0, total_length=4)
    assert y[:, :, 0].tolist() == [[0, 1, 2, 3], [-1, 5, 6, 7], [-1, 9, -1, -1], [-1] * 4]
    assert n.tolist() == [1, 3, 2, 2]
    assert p.double().data.dtype is weft.float64


def test_pad_and_unpad():
    xs = [data(n, 2, seed=n) for n in (2, 4, 1)]
    right = U.pad_sequence(xs)
    left = U.pad_sequence(xs, batch_first=True, padding_value=7.0, padding_side="left")
    assert right.shape == (4, 3, 2) and left.shape == (3, 4, 2)
    assert (left[0, :2].numpy() == 7).all() and np.array_equal(left[0, 2:].numpy(), xs[0].numpy())
    for a, b in zip(U.unpad_sequence(right, [2, 4, 1]), xs, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())
    packed = U.pack_sequence(xs, enforce_sorted=False)
    for a, b in zip(U.unpack_sequence(packed), xs, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_bad_lengths():
    x = data(3, 2, 1)
    with pytest.raises(RuntimeError, match="sorted in decreasing order"):
        U.pack_padded_sequence(x, [1, 2])
    with pytest.raises(RuntimeError, match="greater than 0"):
        U.pack_padded_sequence(x, [2, 0])
    with pytest.raises(RuntimeError, match="equal to batch_size"):
        U.pack_padded_sequence(x, [2])
    with pytest.raises(RuntimeError, match="at most 3"):
        U.pack_padded_sequence(x, [5, 1])
    with pytest.raises(ValueError, match="Expected total_length"):
        U.pad_packed_sequence(U.pack_padded_sequence(x, [3, 1]), total_length=2)


def test_states_of_another_rank():
    one, many = weft.ones(1, 3), weft.ones(1, 1, 3)
    said = r"batched 3-D input, hx and cx should also be 3-D but got \(2-D, 2-D\) tensors"
    with pytest.raises(RuntimeError, match=said):
        nn.LSTM(2, 3)(weft.ones(2, 2, 2), (one, one))
    with pytest.raises(
        RuntimeError, match="unbatched 2-D input, hx should also be 2-D but got 3-D"
    ):
        nn.GRU(2, 3)(weft.ones(2, 2), many)


def test_bad_arguments():
    with pytest.raises(ValueError, match="only supported for LSTM"):
        nn.GRU(2, 3, proj_size=1)
    with pytest.raises(ValueError, match="Unknown nonlinearity"):
        nn.RNN(2, 3, nonlinearity="gelu")
    with pytest.raises(ValueError, match="hidden_size must be greater than zero"):
        nn.LSTM(2, 0)
    with pytest.raises(ValueError, match="smaller than hidden_size"):
        nn.LSTM(2, 3, proj_size=3)
    with pytest.warns(UserWarning, match="dropout option adds dropout"):
        nn.LSTM(2, 3, dropout=0.5)
    layer = nn.LSTM(2, 3)
    with pytest.raises(RuntimeError, match="Expected 2, got 5"):
        layer(data(4, 1, 5))
    with pytest.raises(
        RuntimeError, match=r"Expected hidden\[1\] size \(1, 1, 3\), got \[1, 1, 4\]"
    ):
        layer(data(4, 1, 2), (data(1, 1, 3), data(1, 1, 4)))
    with pytest.raises(ValueError, match="Expected input to be 2D or 3D, got 1D"):
        layer(data(2))
    with pytest.raises(ValueError, match="does not match weight dtype"):
        layer(data(4, 1, 2).double())


def test_weights_are_listed_by_layer():
    layer = nn.LSTM(2, 3, 2, bidirectional=True, proj_size=1)
    assert len(layer.all_weights) == 4 and len(layer.all_weights[0]) == 5
    assert layer.all_weights[3][0] is layer.weight_ih_l1_reverse
    layer.flatten_parameters()


def one_step(kind, a, s, b, state):
    """The cell by its formula: a of the input, s and b of the state, without and with b_hh."""
    h = state[0]
    if kind == "lstm":
        i, f, g, o = (a + s + b).chunk(4, -1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    if kind == "gru":
        (a_r, a_z, a_n), (s_r, s_z, s_n) = a.chunk(3, -1), (s + b).chunk(3, -1)
        n = (a_n + (a_r + s_r).sigmoid() * s_n).tanh()
        return ((h - n) * (a_z + s_z).sigmoid() + n,)
    return ((a + s + b).tanh() if kind == "tanh" else (a + s + b).relu(),)


def by_steps(kind, layer, x, state):
    """A layer one step at a time: (all h, the last states)."""
    outs, ends = [], []
    for d, suffix in enumerate(("", "_reverse")[: 1 + layer.bidirectional]):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w_ih, w_hh, b_ih, b_hh = (getattr(layer, f"{n}_l0{suffix}") for n in names)
        now = tuple(s[d] for s in state)
        ys = []
        for step in x.flip(0) if d else x:
            now = one_step(kind, step @ w_ih.t() + b_ih, now[0] @ w_hh.t(), b_hh, now)
            ys.append(now[0])
        outs.append(weft.stack(ys[::-1] if d else ys))
        ends.append(now)
    return weft.cat(outs, -1), tuple(weft.stack(list(e)) for e in zip(*ends, strict=True))


KINDS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "bidirectional"),
    [((4, 3, 5, 7), True), ((1, 1, 2, 3), False), ((6, 13, 3, 20), False), ((3, 8, 2, 33), True)],
)
def test_a_whole_sequence_has_the_gradients_of_its_steps(kind, shape, bidirectional):
    steps, rows, width, hidden = shape
    layer = KINDS[kind](width, hidden, bidirectional=bidirectional, dtype=weft.float64)
    rng = np.random.default_rng(3)
    draw = lambda *s: weft.tensor(rng.standard_normal(s), requires_grad=True)
    d = 1 + bidirectional
    x, given = draw(steps, rows, width), [draw(d, rows, hidden) for _ in range(layer._states)]
    weights = [
        rng.standard_normal((steps, rows, d * hidden)),
        *rng.standard_normal((2, *given[0].shape)),
    ]
    wanted = [x, *given, *layer.parameters()]

    def whole(x, state):
        y, ends = layer(x, state if kind == "lstm" else state[0])
        return y, states(ends)

    def total_of(forward):
        y, ends = forward(x, tuple(given))
        parts = [(o * weft.tensor(w)).sum() for o, w in zip((y, *ends), weights, strict=False)]
        return [y, *ends], weft.stack(parts).sum()

    def run(forward):
        outs, total = total_of(forward)
        first = weft.autograd.grad(total, wanted, create_graph=True)
        squares = weft.stack([(g * g).sum() for g in first]).sum()
        return [*outs, *first, *weft.autograd.grad(squares, wanted, materialize_grads=True)]

    mine, theirs = run(whole), run(lambda x, s: by_steps(kind, layer, x, s))
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        np.testing.assert_allclose(
            a.detach().numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-10, err_msg=str(i)
        )
    # without a graph of its own the gradient is one kernel
    total_of(whole)[1].backward()
    for t, g in zip(wanted, theirs[1 + layer._states :], strict=False):
        np.testing.assert_allclose(t.grad.numpy(), g.detach().numpy(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [5, 16, 130])
def test_rows_do_not_depend_on_batch_or_threads(kind, hidden):
    layer = KINDS[kind](6, hidden)
    x = data(9, 40, 6)
    whole = layer(x)[0].detach().numpy()
    before = weft.get_num_threads()
    try:
        weft.set_num_threads(1)
        assert (layer(x)[0].detach().numpy() == whole).all()
        weft.set_num_threads(4)
        assert (layer(x)[0].detach().numpy() == whole).all()
    finally:
        weft.set_num_threads(before)
    for low, high in ((0, 1), (3, 10), (39, 40)):
        assert (layer(x[:, low:high])[0].detach().numpy() == whole[:, low:high]).all()


def test_not_a_number_goes_through():
    x = data(3, 2, 4)
    x[1, 0, 0] = float("nan")
    for kind, make in KINDS.items():
        y = make(4, 5)(x)[0].detach().numpy()
        assert np.isnan(y[1:, 0]).all() and not np.isnan(y[:, 1]).any(), kind
        assert not np.isnan(y[0]).any(), kind


@pytest.mark.parametrize("kind", KINDS)
def test_layers_without_biases(kind):
    layer, other = KINDS[kind](3, 4, bias=False), KINDS[kind](3, 4)
    with weft.no_grad():
        for name, p in other.named_parameters():
            p.copy_(getattr(layer, name) if "weight" in name else weft.zeros_like(p))
    close(layer(data(5, 2, 3))[0], other(data(5, 2, 3))[0])


def test_an_lstm_without_steps_or_in_half_precision():
    layer = nn.LSTM(3, 4)
    with pytest.raises(RuntimeError, match="sequence length to be larger than 0"):
        layer(weft.zeros(0, 2, 3))
    half = nn.LSTM(3, 4).to(weft.bfloat16)
    y, _ = half(data(2, 2, 3).to(weft.bfloat16))
    wide = nn.LSTM(3, 4)
    wide.load_state_dict(half.state_dict())
    np.testing.assert_allclose(
        y.detach().float().numpy(), wide(data(2, 2, 3))[0].detach().numpy(), atol=0.03
    )


def test_an_lstms_result_changed_in_place_is_noticed():
    layer = nn.LSTM(3, 4)
    y, _ = layer(data(2, 2, 3))
    with weft.no_grad():
        y.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        y.sum().backward()


@pytest.mark.parametrize("sizes", [(3, 7, 1, 2), (2, 14, 20, 40), (2, 40, 64, 130), (2, 5, 384, 9)])
def test_an_lstm_over_its_inputs_has_the_bits_of_one_over_its_gates(sizes):
    steps, rows, features, hidden = sizes
    x, h, c = data(steps, rows, features), data(rows, hidden, seed=1), data(rows, hidden, seed=2)
    w, v = data(4 * hidden, hidden, seed=3) * 0.1, data(4 * hidden, features, seed=4)
    b = data(4 * hidden, seed=5)
    gates = nn.functional.linear(x.flatten(0, 1), v, b).unflatten(0, (steps, rows))
    for kept in (False, True):
        want = lstm_states(gates, h, c, w, with_gates=kept)
        got = lstm_states(x, h, c, w, v, b, with_gates=kept)
        np.testing.assert_array_equal(got.numpy(), want.numpy())
    with pytest.raises(RuntimeError, match="weight and bias"):
        lstm_states(x, h, c, w, v[:, :-1], b, with_gates=False)
    with pytest.raises(RuntimeError, match="one dtype"):
        lstm_states(x, h, c, w, v, b.double(), with_gates=False)


NARROW = {"bfloat16": weft.bfloat16, "float16": weft.float16}


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("kind", KINDS)
def test_autocast_gives_torchs_dtypes(kind, name):
    layer, x = KINDS[kind](3, 4, num_layers=2, bidirectional=True), data(5, 2, 3)
    first = weft.zeros(4, 2, 4)
    with weft.autocast("cpu", dtype=NARROW[name]):
        y, h = layer(x)
        given = layer(x, (first, first) if kind == "lstm" else first)[0]
        packed = layer(U.pack_sequence([x[:3, 0], x[:2, 1]]))[0].data
        narrow = layer(x.to(NARROW[name]))[0]
    if name == "bfloat16":  # what torch 2.13 gives on a CPU
        want = weft.float32 if kind == "gru" else weft.bfloat16
        assert [t.dtype for t in (y, given, narrow, *states(h))] == [want] * (3 + len(states(h)))
    wide = layer(x)[0]
    for t in (y, given, narrow):
        np.testing.assert_allclose(t.detach().float(), wide.detach(), rtol=0, atol=0.02)
    np.testing.assert_allclose(packed.detach()[0].float(), wide[0, 0].detach(), rtol=0, atol=1)
    with pytest.raises(ValueError, match="does not match weight dtype"):
        layer(x.to(NARROW[name]))


def step_of(layer, x, context):
    """The loss of a batch's last step and all gradients."""

    def step():
        layer.zero_grad()
        with context():
            y, h = layer(x)
            loss = y[-1].float().square().mean() + sum(s.float().sum() for s in states(h)) * 0.01
        loss.backward()
        return loss.detach()

    return lambda make=lambda f: f: [
        t.clone().numpy() for t in (make(step)(), *(p.grad for p in layer.parameters()))
    ]


@contextmanager
def fast_math():
    weft.set_fast_math(True)
    try:
        yield
    finally:
        weft.set_fast_math(False)


@pytest.mark.parametrize("context", [lambda: weft.autocast("cpu"), fast_math])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_rounded_products_are_near_and_compiled_to_the_bit(kind, bias, context):
    weft.manual_seed(0)
    layer, x = KINDS[kind](24, 40, num_layers=2, bias=bias), data(7, 9, 24)
    wide, eager = step_of(layer, x, nullcontext)(), step_of(layer, x, context)
    narrow = eager()
    for got, want in zip(narrow, wide, strict=True):
        assert np.linalg.norm(got - want) <= 2.0**-5 * np.linalg.norm(want)
    differs = [not np.array_equal(a, b) for a, b in zip(narrow, wide, strict=True)]
    assert all(differs) or (context is fast_math and not multiplies_pairs())
    for _ in range(3):
        for got, want in zip(eager(weft.compile), narrow, strict=True):
            np.testing.assert_array_equal(got, want)
    with weft.autocast("cpu"):  # a row among others, or alone
        rows = layer(x)[0].detach().float()
        if kind in ("lstm", "gru"):
            np.testing.assert_array_equal(layer(x[:, 2:4])[0].detach().float(), rows[:, 2:4])


def test_a_rounded_lstm_has_second_gradients():
    weft.manual_seed(0)
    layer, x = nn.LSTM(5, 6), data(4, 3, 5).requires_grad_()

    def second():
        y = layer(x)[0].float()
        (g,) = weft.autograd.grad(y.square().sum(), x, create_graph=True)
        return weft.autograd.grad(g.square().sum(), x)[0].numpy()

    want = second()
    with weft.autocast("cpu"):
        got = second()
    assert 0 < np.abs(got - want).max() <= 0.05 * np.abs(want).max()


def test_the_last_step_alone_is_cast_under_autocast():
    layer, x = nn.LSTM(3, 16, batch_first=True), data(4, 9, 3)

    @weft.compile
    def step():
        layer.zero_grad()
        with weft.autocast("cpu"):
            loss = layer(x)[0][:, -1].float().square().sum()
        loss.backward()
        return loss.detach()

    want = [step().numpy()] + [p.grad.clone().numpy() for p in layer.parameters()]
    for _ in range(4):  # the first calls are eager
        got = [step().numpy()] + [p.grad.clone().numpy() for p in layer.parameters()]
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)
    with weft.profile() as p:
        step()
    casts = [e.shapes[0] for e in p.events() if "Cast" in e.name]
    assert all(np.prod(shape) <= 4 * 16 for shape in casts), casts
