"""Attention and transformer layers against NumPy, masks included."""

import numpy as np
import pytest

import weft
from weft import nn

E, HEADS = 8, 2


def data(*shape, seed=0):
    return weft.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def reference(m, q, k, v, mask=None):
    """q (N, L, E), mask broadcastable to (N, heads, L, S): (output, weights by head)."""
    w, b = m.in_proj_weight.detach().numpy(), m.in_proj_bias.detach().numpy()
    parts = []
    for i, x in enumerate((q, k, v)):
        y = x.numpy() @ w[i * E : (i + 1) * E].T + b[i * E : (i + 1) * E]
        parts.append(y.reshape(*y.shape[:2], HEADS, E // HEADS).transpose(0, 2, 1, 3))
    scores = parts[0] @ parts[1].transpose(0, 1, 3, 2) / np.sqrt(E // HEADS)
    weights = softmax(scores if mask is None else scores + mask)
    y = (weights @ parts[2]).transpose(0, 2, 1, 3).reshape(q.shape)
    out = m.out_proj
    return y @ out.weight.detach().numpy().T + out.bias.detach().numpy(), weights


def made(**kw):
    weft.manual_seed(0)
    m = nn.MultiheadAttention(E, HEADS, batch_first=True, **kw)
    with weft.no_grad():
        m.in_proj_bias.normal_()
        m.out_proj.bias.normal_()
    return m


def close(a, b):
    np.testing.assert_allclose(a.detach().numpy(), b, rtol=1e-4, atol=1e-5)


CAUSAL = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
PADDING = np.array([[False] * 4, [False, False, True, True]])


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("kind", ["none", "causal", "bool", "hint", "padding", "both", "3d"])
def test_masks(kind, need_weights):
    m = made()
    x = data(2, 4, E)
    causal = weft.from_numpy(CAUSAL)
    padding = weft.from_numpy(PADDING)
    added = np.where(PADDING, -np.inf, 0).astype(np.float32)[:, None, None, :]
    kw, mask = {
        "none": ({}, None),
        "causal": ({"attn_mask": causal}, CAUSAL),
        "bool": ({"attn_mask": causal != 0}, CAUSAL),
        "hint": ({"attn_mask": causal, "is_causal": True}, CAUSAL),
        "padding": ({"key_padding_mask": padding}, added),
        "both": ({"key_padding_mask": padding, "attn_mask": causal != 0}, added + CAUSAL),
        "3d": ({"attn_mask": causal.expand(4, 4, 4)}, CAUSAL),
    }[kind]
    y, w = m(x, x, x, need_weights=need_weights, **kw)
    wanted, weights = reference(m, x, x, x, mask)
    close(y, wanted)
    if need_weights:
        close(w, weights.mean(1))
        _, by_head = m(x, x, x, average_attn_weights=False, **kw)
        close(by_head, weights)
    else:
        assert w is None


def test_shared_keys_and_separate_operands_agree():
    m = made()
    q, k, v = data(2, 3, E), data(2, 5, E, seed=1), data(2, 5, E, seed=2)
    close(m(q, k, v)[0], reference(m, q, k, v)[0])
    close(m(q, k, k)[0], reference(m, q, k, k)[0])
    close(m(q, k, k.clone())[0], reference(m, q, k, k)[0])


def test_layouts_agree():
    m = made()
    x = data(2, 3, E)
    y, w = m(x, x, x)
    other = nn.MultiheadAttention(E, HEADS)
    other.load_state_dict(m.state_dict())
    t = x.transpose(0, 1)
    close(other(t, t, t)[0].transpose(0, 1), y.detach().numpy())
    single, ws = m(x[1], x[1], x[1])
    close(single, y[1].detach().numpy())
    close(ws, w[1].detach().numpy())
    assert ws.shape == (3, 3)


def test_gradients_reach_every_parameter():
    for kw in ({}, {"kdim": 3, "vdim": 5}, {"add_bias_kv": True, "add_zero_attn": True}):
        m = nn.MultiheadAttention(E, HEADS, **kw)
        m(data(3, 2, E), data(4, 2, m.kdim, seed=1), data(4, 2, m.vdim, seed=2))[
            0
        ].square().sum().backward()
        assert all(p.grad is not None for p in m.parameters())


def test_wrong_shapes():
    m = made()
    x = data(2, 4, E)
    with pytest.raises(AssertionError, match="divisible by num_heads"):
        nn.MultiheadAttention(5, 2)
    with pytest.raises(ValueError, match="must be greater than 0"):
        nn.MultiheadAttention(4, 0)
    with pytest.raises(AssertionError, match="unbatched 2D or batched 3D"):
        m(data(E), data(E), data(E))
    with pytest.raises(RuntimeError, match="shape of the 2D attn_mask"):
        m(x, x, x, attn_mask=weft.zeros(3, 4))
    with pytest.raises(AssertionError, match="only bool and floating types"):
        m(x, x, x, attn_mask=weft.zeros(4, 4, dtype=weft.int64))
    with pytest.raises(RuntimeError, match="Need attn_mask if specifying the is_causal"):
        m(x, x, x, is_causal=True)
    with pytest.raises(AssertionError, match="expecting key_padding_mask shape"):
        m(x, x, x, key_padding_mask=weft.zeros(2, 3) != 0)


def test_causal_layers_do_not_look_ahead():
    layer = nn.TransformerEncoderLayer(E, HEADS, 16, batch_first=True, norm_first=True).eval()
    encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(E), enable_nested_tensor=False)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    assert np.array_equal(mask.numpy(), np.triu(np.full((5, 5), -np.inf, np.float32), 1))
    x = data(1, 5, E)
    changed = weft.cat([x[:, :3], data(1, 2, E, seed=3)], 1)
    a, b = encoder(x, mask=mask), encoder(changed, mask=mask, is_causal=True)
    close(a[:, :3], b[:, :3].detach().numpy())
    assert not np.allclose(a[:, 3:].detach().numpy(), b[:, 3:].detach().numpy())


def test_padding_is_not_seen():
    layer = nn.TransformerDecoderLayer(E, HEADS, 16, batch_first=True).eval()
    decoder = nn.TransformerDecoder(layer, 1)
    tgt, memory = data(2, 3, E), data(2, 4, E, seed=1)
    padding = weft.from_numpy(PADDING)
    changed = weft.where(padding.unsqueeze(-1), memory * 5, memory)
    a = decoder(tgt, memory, memory_key_padding_mask=padding)
    close(decoder(tgt, changed, memory_key_padding_mask=padding), a.detach().numpy())


def test_dropout_draws_only_in_training():
    layer = nn.TransformerEncoderLayer(E, HEADS, 16, dropout=0.5)
    x = data(3, 2, E)
    assert not np.array_equal(layer(x).detach().numpy(), layer(x).detach().numpy())
    layer.eval()
    assert np.array_equal(layer(x).detach().numpy(), layer(x).detach().numpy())
    with pytest.raises(RuntimeError, match="activation should be relu/gelu, not tanh"):
        nn.TransformerEncoderLayer(E, HEADS, activation="tanh")


def test_layers_of_an_encoder_are_copies():
    layer = nn.TransformerEncoderLayer(E, HEADS, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 3)
    assert len({id(p) for p in encoder.parameters()}) == 3 * len(list(layer.parameters()))
    model = nn.Transformer(E, HEADS, 1, 1, 16)
    with pytest.raises(RuntimeError, match="batch number"):
        model(data(3, 2, E), data(3, 1, E))
    with pytest.raises(RuntimeError, match="feature number"):
        model(data(3, 2, E + 1), data(3, 2, E))
