"""torch.nn.functional's names against torch's recorded answers: values, gradients, errors."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from tests.nn.cases import CASES, answers
from tests.nn.errors import ERRORS, message

FIXTURES = Path(__file__).parents[1] / "fixtures"
WANTED = json.loads((FIXTURES / "functional.json").read_text(encoding="utf-8"))
WORDS = json.loads((FIXTURES / "functional_errors.json").read_text(encoding="utf-8"))
# Sums of float32 terms in another order, and gradients of gradients with cancelling terms.
RTOL, ATOL = (2e-5, 2e-5, 2e-4), 2e-5


def same(got: dict | None, want: dict | None, rtol: float) -> str | None:
    """None when two digests agree; a gradient that is zero may be missing."""
    zero = {"size": 0.0}
    if got is None or want is None:
        left = (got or zero)["size"] + (want or zero)["size"]
        return None if left < ATOL else f"{got} for {want}"
    if got["shape"] != want["shape"]:
        return f"shape {got['shape']} for {want['shape']}"
    if not np.isfinite(want["mixed"]):  # JSON keeps NaN and infinity
        same_kind = np.array_equal(got["mixed"], want["mixed"], equal_nan=True)
        return None if same_kind else f"{got} for {want}"
    scale = want["size"]
    near = np.allclose(got["head"], want["head"], rtol * 10, ATOL + rtol * scale / 10)
    near &= np.allclose(got["mixed"], want["mixed"], rtol, ATOL + rtol * scale)
    return None if near else f"{got} for {want}"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("entry", CASES, ids=[c[0] for c in CASES])
def test_as_torch(entry):
    name, fn, arrays, order = entry
    got = answers(weft, F, fn, arrays, order)
    want = WANTED[name]
    assert len(got) == len(want)
    leaves = sum(a.dtype.kind == "f" for a in arrays)
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        depth = 0 if i == 0 else 1 if i <= leaves else 2
        assert same(g, w, RTOL[depth]) is None, (i, same(g, w, RTOL[depth]))


@pytest.mark.parametrize("name", ERRORS)
def test_refuses_as_torch(name):
    kind, text = message(weft, F, ERRORS[name])
    wanted_kind, wanted = WORDS[name]
    assert kind == wanted_kind
    assert text.endswith(wanted)  # ours may begin with the op's name


def test_every_fixture_has_its_case():
    assert {c[0] for c in CASES} == set(WANTED)
    assert set(ERRORS) == set(WORDS)


def test_signatures_are_torchs():
    recorded = json.loads((FIXTURES / "torch_signatures.json").read_text(encoding="utf-8"))
    own = {n for n, f in vars(F).items() if inspect.isfunction(f) and not n.startswith("_")}
    prefix = "torch.nn.functional."
    known = {k.removeprefix(prefix): v for k, v in recorded.items() if k.startswith(prefix)}
    for name in own & known.keys():
        params = known[name]
        if not isinstance(params, list):
            continue
        mine = list(inspect.signature(getattr(F, name)).parameters)
        assert mine[: len(params)] == params or set(params) <= set(mine), (name, mine, params)


def test_in_place_forms_write_into_the_input():
    x = weft.tensor([-1.0, 2.0])
    for form in (F.relu_, F.elu_, F.selu_, F.celu_, F.leaky_relu_, F.hardtanh_, F.rrelu_):
        y = x.clone()
        assert form(y) is y
        assert y.tolist() == pytest.approx(getattr(F, form.__name__[:-1])(x).tolist())


def test_a_softmax_without_dim_warns():
    with pytest.warns(UserWarning, match="Implicit dimension choice for softmax"):
        y = F.softmax(weft.zeros(2, 4))
    assert y.sum(1).tolist() == [1.0, 1.0]


def test_losses_warn_of_broadcasting_and_old_arguments():
    with pytest.warns(UserWarning, match="different to the input size"):
        F.mse_loss(weft.zeros(3, 4), weft.zeros(1, 4))
    with pytest.warns(UserWarning, match="please use reduction='sum' instead"):
        F.l1_loss(weft.zeros(3), weft.zeros(3), size_average=False)
    with pytest.warns(UserWarning, match="batchmean"):
        F.kl_div(weft.zeros(3), weft.ones(3))


def test_cross_entropy_holds_at_extremes():
    x = weft.tensor([[1e4, -1e4, 0.0], [float("-inf"), 0.0, 0.0]], requires_grad=True)
    y = F.cross_entropy(x, weft.tensor([0, 1]))
    y.backward()
    assert y.item() == pytest.approx(np.log(2) / 2)
    assert np.isfinite(x.grad.numpy()).all()
    assert weft.isnan(F.softmax(weft.tensor([[float("-inf")] * 3]), 1)).all()


def test_empty_batches():
    weight, bias = weft.zeros(4, 3, 3, 3), weft.zeros(4)
    assert F.conv2d(weft.zeros(0, 3, 8, 8), weight, bias).shape == (0, 4, 6, 6)
    assert F.max_pool2d(weft.zeros(0, 3, 8, 8), 2).shape == (0, 3, 4, 4)
    assert F.layer_norm(weft.zeros(0, 3), (3,)).shape == (0, 3)
    assert F.cross_entropy(weft.zeros(0, 3), weft.zeros(0).long(), reduction="sum").item() == 0
    assert weft.isnan(F.cross_entropy(weft.zeros(0, 3), weft.zeros(0).long()))
    assert F.scaled_dot_product_attention(*[weft.zeros(0, 2, 3, 4)] * 3).shape == (0, 2, 3, 4)


def test_halves_compute_in_float32():
    x = weft.randn(2, 3, 6, 6, generator=weft.Generator().manual_seed(1))
    w = weft.randn(4, 3, 3, 3, generator=weft.Generator().manual_seed(2))
    g = (weft.ones(3), weft.zeros(3))
    calls = (
        lambda d: F.conv2d(x.to(d), w.to(d)),
        lambda d: F.softmax(x.to(d), 1),
        lambda d: F.batch_norm(x.to(d), None, None, *(a.to(d) for a in g), True),
        lambda d: F.layer_norm(x.to(d), (6,)),
        lambda d: F.gelu(x.to(d)),
        lambda d: F.interpolate(x.to(d), scale_factor=2, mode="bilinear"),
    )
    for d in (weft.float16, weft.bfloat16):
        for call in calls:
            y = call(d)
            assert y.dtype is d
            wide = call(weft.float32)
            tol = 4e-3 if d is weft.float16 else 3e-2
            np.testing.assert_allclose(y.float().numpy(), wide.numpy(), tol, tol * 4)


def test_batch_norm_moves_nothing_in_evaluation_and_no_gradient_into_statistics():
    mean, var = weft.zeros(3), weft.ones(3)
    x = weft.randn(4, 3, 2, 2, generator=weft.Generator().manual_seed(0))
    F.batch_norm(x, mean, var, training=False)
    assert mean.tolist() == [0, 0, 0] and var.tolist() == [1, 1, 1]
    x.requires_grad_()
    F.batch_norm(x, mean, var, training=True).sum().backward()
    assert not mean.requires_grad and mean.abs().sum() > 0
    np.testing.assert_allclose(x.grad.numpy(), 0, atol=1e-6)


def test_dropout_leaves_the_generator_alone_where_torch_does():
    for p, training in ((0.0, True), (1.0, True), (0.5, False)):
        weft.manual_seed(4)
        F.dropout(weft.ones(8), p, training)
        after = weft.rand(3).tolist()
        weft.manual_seed(4)
        assert weft.rand(3).tolist() == after
