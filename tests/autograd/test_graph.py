"""Saved-tensor hooks, checkpoint, anomaly mode."""

import pytest

import weft
from weft.autograd.checkpoint import CheckpointError, checkpoint, checkpoint_sequential
from weft.autograd.graph import saved_tensors_hooks


def leaf(*values):
    return weft.tensor(list(values), requires_grad=True)


def test_saved_tensors_go_through_the_hooks():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    packed = []

    def pack(t):
        packed.append(t.tolist())
        return len(packed) - 1

    def unpack(i):
        return weft.tensor(packed[i]) * 10

    with saved_tensors_hooks(pack, unpack):
        y = (x * w).exp()
    (x * w).sum()  # outside: no hook
    assert len(packed) == 3  # x, w, and the result of exp
    y.sum().backward()
    e = weft.exp(weft.tensor([3.0, 8.0])) * 10
    assert x.grad.tolist() == (e * weft.tensor([30.0, 40.0])).tolist()


def test_second_derivatives_through_packed_tensors():
    x = leaf(1.0, 2.0)
    with saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
        y = (x * x * x).sum()
    (g,) = weft.autograd.grad(y, [x], create_graph=True)
    assert weft.autograd.grad(g.sum(), [x])[0].tolist() == [6.0, 12.0]


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint_gives_the_same_bits_and_runs_twice(use_reentrant):
    runs = []
    w = leaf(0.3, -0.7)

    def block(x, scale):
        runs.append(1)
        return (x * w).tanh().exp() * scale

    x = leaf(1.0, 2.0)
    block(x, 2.0).sum().backward()
    plain = x.grad.tolist(), w.grad.tolist()
    x.grad = w.grad = None
    runs.clear()
    y = checkpoint(block, x, 2.0, use_reentrant=use_reentrant)
    assert len(runs) == 1
    y.sum().backward()
    assert len(runs) == 2 and (x.grad.tolist(), w.grad.tolist()) == plain


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint_draws_the_same_random_numbers(use_reentrant):
    weft.manual_seed(0)
    x = weft.ones(1000, requires_grad=True)
    block = lambda x: x * (weft.rand(1000) < 0.5).to(weft.float32)
    y = checkpoint(block, x, use_reentrant=use_reentrant)
    after = weft.rand(3).tolist()
    y.sum().backward()
    assert x.grad.tolist() == y.tolist()
    weft.manual_seed(0)
    weft.rand(1000)
    assert weft.rand(3).tolist() == after


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint_casts_again_as_it_did(use_reentrant):
    def run(again: bool) -> list:
        weft.manual_seed(0)
        x, w = weft.randn(3, 4, requires_grad=True), weft.randn(4, 4, requires_grad=True)
        block = lambda x: (x @ w).relu() @ w
        with weft.autocast("cpu", dtype=weft.bfloat16):
            y = checkpoint(block, x, use_reentrant=use_reentrant) if again else block(x)
        y.float().sum().backward()  # outside of autocast, as torch asks for
        assert y.dtype is weft.bfloat16 and not weft.is_autocast_enabled("cpu")
        return [y.tolist(), x.grad.tolist(), w.grad.tolist()]

    assert run(again=True) == run(again=False)


def test_checkpoint_keeps_no_intermediate():
    kept = []
    x = weft.ones(4, requires_grad=True)

    def block(x):
        h = x * 2
        kept.append(weft_ref(h))
        return h.exp().sin()

    y = checkpoint(block, x, use_reentrant=False)
    assert kept[0]() is None
    y.sum().backward()


def weft_ref(t):
    import weakref

    return weakref.ref(t)


def test_checkpoint_notices_another_second_run():
    state = {"n": 0}

    def block(x):
        state["n"] += 1
        return x.exp() if state["n"] == 1 else x.exp().exp()

    with pytest.raises(CheckpointError, match="different number of tensors"):
        checkpoint(block, leaf(1.0), use_reentrant=False).sum().backward()


def test_checkpoint_sequential():
    fs = [lambda x: x * 2, lambda x: x.sin(), lambda x: x.exp(), lambda x: x * x]
    x = leaf(0.5, 1.0)
    y = x
    for fn in fs:
        y = fn(y)
    y.sum().backward()
    want = x.grad.tolist()
    for reentrant in (False, True):
        x.grad = None
        checkpoint_sequential(fs, 2, x, use_reentrant=reentrant).sum().backward()
        assert x.grad.tolist() == want


def test_anomaly_mode_names_the_forward_line():
    x = leaf(-1.0)
    with pytest.warns(UserWarning, match="Anomaly Detection has been enabled"):
        mode = weft.autograd.detect_anomaly()
    with mode:
        y = x.sqrt()  # this line
        with pytest.raises(
            RuntimeError, match=r"SqrtBackward0.*nan values.*y = x.sqrt\(\)  # this"
        ):
            y.sum().backward()
    assert not weft.autograd.is_anomaly_enabled()
    with weft.autograd.set_detect_anomaly(True, check_nan=False):
        x.sqrt().sum().backward()
        h = x * x
        x.detach().add_(1)
        with pytest.warns(UserWarning, match="h = x \\* x"), pytest.raises(RuntimeError):
            h.sum().backward()
