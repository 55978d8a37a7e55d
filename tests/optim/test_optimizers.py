"""Optimizers against 100 recorded steps of torch's, and the rules around them."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import weft
from weft import optim

RECORD = json.loads((Path(__file__).parents[1] / "fixtures/optim.json").read_text())
STEPS = 100


def problem():
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(s).astype(np.float32) for s in ((5, 4), (3,))]
    return start, rng.standard_normal((STEPS, 23)).astype(np.float32)


def parameters(case=None):
    made = [weft.Parameter(weft.from_numpy(a)) for a in problem()[0]]
    return made[:1] if case and case["class"] == "Muon" else made  # Muon takes matrices only


def set_grads(params, noise):
    parts = weft.from_numpy(noise).split([20, 3])
    for p, n in zip(params, parts, strict=False):
        p.grad = p.detach() * 0.5 + n.reshape(p.shape)


def flat(params):
    return np.concatenate([p.detach().numpy().reshape(-1) for p in params])


def make(case, params):
    return getattr(optim, case["class"])(params, **case["settings"])


CASES = RECORD["optimizers"]
IDS = [f"{c['class']}-{i}" for i, c in enumerate(CASES)]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_steps_equal_torchs(case):
    params = parameters(case)
    optimizer = make(case, params)
    noise = problem()[1]
    for t in range(STEPS):
        set_grads(params, noise[t])
        optimizer.step()
        if str(t + 1) in case["params"]:
            wanted = np.array(case["params"][str(t + 1)], np.float32)
            np.testing.assert_allclose(flat(params), wanted, rtol=3e-6, atol=3e-6)
    state = optimizer.state_dict()["state"]
    shapes = {k: None if v is None else list(v.shape) for k, v in state.get(0, {}).items()}
    assert shapes == case["state"]


@pytest.mark.parametrize("case", CASES[:5], ids=IDS[:5])
def test_sgd_equals_torchs_to_the_bit(case):
    # the others take a square root, which torch's vector library rounds differently now and then
    params = parameters()
    optimizer = make(case, params)
    noise = problem()[1]
    for t in range(STEPS):
        set_grads(params, noise[t])
        optimizer.step()
    assert np.array_equal(flat(params), np.array(case["params"][str(STEPS)], np.float32))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_restored_optimizer_goes_on_to_the_same_bits(case):
    noise = problem()[1]
    params = parameters(case)
    optimizer = make(case, params)
    for t in range(3):
        set_grads(params, noise[t])
        optimizer.step()
    saved = pickle.loads(pickle.dumps(optimizer.state_dict()))
    others = [weft.Parameter(p.detach().clone()) for p in params]
    other = make(case, others)
    other.load_state_dict(saved)
    for t in range(3, 6):
        for ps, o in ((params, optimizer), (others, other)):
            set_grads(ps, noise[t])
            o.step()
    # counters that state_dict shows as float32 (NAdam's product of mus) are rounded once
    assert np.allclose(flat(params), flat(others), rtol=1e-6, atol=1e-7)
    if case["class"] not in ("NAdam", "ASGD"):
        assert np.array_equal(flat(params), flat(others))


def tensors(x):
    """A recorded state: numbers and lists as tensors."""
    return {k: v if v is None else weft.tensor(v) for k, v in x.items()}


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_torchs_state_is_taken_up(case):
    params = parameters(case)
    flat_ten = weft.tensor(case["params"]["10"]).split([20, 3][: len(params)])
    with weft.no_grad():
        for p, value in zip(params, flat_ten, strict=True):
            p.copy_(value.reshape(p.shape))
    optimizer = make(case, params)
    state = {int(i): tensors(v) for i, v in case["state_after_10"].items()}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for t in range(10, 15):
        set_grads(params, problem()[1][t])
        optimizer.step()
    wanted = np.array(case["params"]["15"], np.float32)
    np.testing.assert_allclose(flat(params), wanted, rtol=3e-6, atol=3e-6)


def test_complex_parameters_that_torch_refuses():
    p = weft.ones(2, 3, dtype=weft.complex64)
    with pytest.raises(ValueError, match="SparseAdam does not support complex parameters"):
        optim.SparseAdam([p])
    p.grad = weft.ones_like(p)
    for kind in (optim.Muon, optim.Adafactor):
        with pytest.raises(RuntimeError, match="does not support complex parameters"):
            kind([p]).step()


def test_muons_decay_by_a_rate_that_is_a_tensor_is_rounded_as_the_tensor():
    p = weft.ones(2, 2, dtype=weft.float64)
    p.grad = weft.zeros_like(p)
    optim.Muon([p], lr=weft.tensor(1e-3), weight_decay=0.1).step()
    rounded = float(np.float32(1) - np.float32(1e-3) * np.float32(0.1))
    assert p.tolist() == [[rounded] * 2] * 2 and rounded != 1 - 1e-3 * 0.1


def test_mixtures_that_torch_refuses():
    p = parameters()
    with pytest.raises(RuntimeError, match="`fused` does not support `differentiable`"):
        optim.Adam(p, fused=True, differentiable=True)
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
        optim.SGD(p, fused=True, foreach=True)
    with pytest.raises(ValueError, match="lr as a Tensor is not supported for capturable=False"):
        optim.AdamW(p, lr=weft.tensor(0.1), foreach=True)
    with pytest.raises(ValueError, match="Muon only supports 2D parameters"):
        optim.Muon(p)
    with pytest.raises(ValueError, match="Adjust learning rate function other"):
        optim.Muon(p[:1], adjust_lr_fn="other")
    with pytest.raises(ValueError, match="beta2_decay should be <= 0 but is"):
        optim.Adafactor(p, beta2_decay=0.5)
    with pytest.raises(ValueError, match="epsilon2 should be >= 0 but is: -1"):
        optim.Adafactor(p, eps=(None, -1))
    with pytest.raises(ValueError, match="Clipping threshold d should be >= 1"):
        optim.Adafactor(p, d=0.5)


def test_state_dict_has_torchs_form():
    params = parameters()
    optimizer = optim.Adam([{"params": params[:1], "lr": 0.5}, {"params": params[1:]}])
    set_grads(params, problem()[1][0])
    optimizer.step()
    saved = optimizer.state_dict()
    assert [g["params"] for g in saved["param_groups"]] == [[0], [1]]
    assert [g["lr"] for g in saved["param_groups"]] == [0.5, 1e-3]
    step = saved["state"][1]["step"]
    assert step.dtype is weft.float32 and step.shape == () and step.item() == 1.0
    assert saved["state"][0]["exp_avg"] is optimizer.state[params[0]]["exp_avg"]


def test_repr_is_torchs():
    assert repr(optim.Adam([weft.zeros(1)])) == RECORD["repr"]


def test_zero_grad_drops_or_zeroes():
    params = parameters()
    optimizer = optim.SGD(params)
    set_grads(params, problem()[1][0])
    kept = params[0].grad
    optimizer.zero_grad(set_to_none=False)
    assert params[0].grad is kept and not kept.numpy().any()
    optimizer.zero_grad()
    assert params[0].grad is None


def test_parameters_without_gradients_stay():
    params = parameters()
    before = flat(params[1:])
    optimizer = optim.AdamW(params)
    params[0].grad = weft.ones_like(params[0])
    optimizer.step()
    assert np.array_equal(flat(params[1:]), before)
    assert set(optimizer.state_dict()["state"]) == {0}


def test_step_is_off_the_tape_and_closure_is_on_it():
    (p, _) = parameters()
    optimizer = optim.SGD([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    before = p.detach().clone()
    loss = optimizer.step(closure)
    assert loss.requires_grad and p.is_leaf and p.grad_fn is None
    np.testing.assert_allclose(p.detach().numpy(), before.numpy() * 0.8, rtol=1e-5)


def test_the_step_never_asks_for_a_tensors_value(monkeypatch):
    params = parameters()
    optimizers = [
        optim.SGD(params, momentum=0.9), optim.AdamW(params, amsgrad=True), optim.RMSprop(params),
        optim.NAdam(params), optim.RAdam(params), optim.Adamax(params),
        optim.Adafactor(params), optim.Muon(params[:1]),
    ]  # fmt: skip
    set_grads(params, problem()[1][0])

    def refuse(self):
        raise AssertionError("a value was asked for")

    for name in ("item", "tolist", "__bool__", "__float__"):
        monkeypatch.setattr(weft.Tensor, name, refuse)
    for optimizer in optimizers:
        optimizer.step()


def test_hooks_run_around_steps_and_states():
    params = parameters()
    optimizer = optim.SGD(params)
    seen = []
    handles = [
        optimizer.register_step_pre_hook(lambda o, a, k: seen.append("before")),
        optimizer.register_step_post_hook(lambda o, a, k: seen.append("after")),
        optimizer.register_state_dict_post_hook(lambda o, s: {**s, "more": 1}),
        optimizer.register_load_state_dict_pre_hook(lambda o, s: seen.append(s["more"])),
    ]
    optimizer.step()
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    assert seen == ["before", "after", 1] and saved["more"] == 1
    for h in handles:
        h.remove()
    optimizer.step()
    assert seen == ["before", "after", 1] and "more" not in optimizer.state_dict()


def test_groups_are_checked():
    p, q = parameters()
    with pytest.raises(ValueError, match="empty parameter list"):
        optim.SGD([])
    with pytest.raises(TypeError, match="iterable of Tensors or dicts"):
        optim.SGD(p)
    with pytest.raises(TypeError, match="can only optimize Tensors"):
        optim.SGD([1.0])
    with pytest.raises(ValueError, match="non-leaf"):
        optim.SGD([p * 2])
    with pytest.raises(TypeError, match="ordered collections"):
        optim.SGD([{"params": {p}}])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optim.SGD([{"params": [p]}, {"params": [p, q]}])
    with pytest.raises(ValueError, match="Invalid learning rate: -1"):
        optim.Adam([p], lr=-1)
    with pytest.raises(ValueError, match=r"Invalid beta parameter at index 1: 1\.0"):
        optim.Adam([p], betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="Nesterov momentum requires"):
        optim.SGD([p], nesterov=True)
    optimizer = optim.SGD([p], lr=0.1)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(optim.SGD([{"params": [p]}, {"params": [q]}]).state_dict())
    with pytest.raises(ValueError, match="doesn't match the size"):
        optimizer.load_state_dict(optim.SGD([p, q]).state_dict())
    optimizer.add_param_group({"params": q, "lr": 0.7})
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.7]


def test_named_parameters_keep_their_names():
    p, q = parameters()
    optimizer = optim.SGD([("a", p), ("b", q)])
    assert optimizer.param_groups[0]["param_names"] == ["a", "b"]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["a", "b"]


def test_loading_casts_to_the_parameters_dtype():
    p = weft.Parameter(weft.ones(3))
    optimizer = optim.Adam([p])
    p.grad = weft.ones(3)
    optimizer.step()
    wide = weft.Parameter(weft.ones(3, dtype=weft.float64))
    other = optim.Adam([wide])
    other.load_state_dict(optimizer.state_dict())
    assert other.state[wide]["exp_avg"].dtype is weft.float64
    assert other.state[wide]["step"] == 1.0


def test_an_optimizer_can_be_copied_and_pickled():
    params = parameters()
    optimizer = optim.Adam(params)
    set_grads(params, problem()[1][0])
    optimizer.step()
    for made in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        p = made.param_groups[0]["params"][0]
        assert p is not params[0] and made.state[p]["step"] == 1.0
        set_grads(made.param_groups[0]["params"], problem()[1][1])
        made.step()
        assert made.state[p]["step"] == 2.0


def test_a_users_own_optimizer_gets_hooks():
    class Plain(optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            with weft.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p.add_(p.grad, alpha=-group["lr"])

    p = weft.Parameter(weft.ones(2))
    p.grad = weft.ones(2)
    optimizer = Plain([p], 0.25)
    seen = []
    optimizer.register_step_post_hook(lambda *a: seen.append(1))
    optimizer.step()
    assert seen == [1] and p.detach().tolist() == [0.75, 0.75]


@pytest.mark.parametrize("dtype", [weft.float64, weft.bfloat16, weft.float16])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_other_dtypes_keep_their_dtype(name, dtype):
    p = weft.Parameter(weft.ones(4, dtype=dtype))
    p.grad = weft.ones(4, dtype=dtype)
    optimizer = getattr(optim, name)([p], lr=0.125)
    optimizer.step()
    assert p.dtype is dtype and (p.detach().to(weft.float32).numpy() < 1).all()


def test_a_wrapper_that_never_calls_init_still_steps():
    class Wrapper(weft.optim.Optimizer):
        def __init__(self, inner):
            self.inner = inner

        def step(self, closure=None):
            return self.inner.step(closure)

    p = weft.nn.Parameter(weft.ones(1))
    p.grad = weft.ones(1)
    Wrapper(weft.optim.SGD([p], lr=0.5)).step()
    assert p.item() == 0.5
