"""autocast and GradScaler: which functions change dtype, scales, skipped steps, refusals."""

import pytest

import weft
from weft import amp, nn
from weft.nn import functional as F


def test_products_lower_and_losses_widen():
    x, w = weft.randn(2, 3), weft.randn(4, 3, requires_grad=True)
    with weft.autocast("cpu"):
        assert weft.is_autocast_enabled("cpu") and not weft.is_autocast_enabled("cuda")
        y = F.linear(x, w, weft.zeros(4))
        assert y.dtype is weft.bfloat16 and (x @ x.t()).dtype is weft.bfloat16
        assert weft.mm(x, x.t()).dtype is weft.bfloat16
        assert F.conv1d(x[None], weft.randn(1, 2, 1)).dtype is weft.bfloat16
        assert (x + x).dtype is weft.float32  # not a product
        assert (x.double() @ x.double().t()).dtype is weft.float64
        assert F.cross_entropy(y, weft.tensor([0, 1])).dtype is weft.float32
        assert F.mse_loss(y, weft.zeros(2, 4)).dtype is weft.float32
        with weft.autocast("cpu", enabled=False):
            assert F.linear(x, w).dtype is weft.float32
        with weft.autocast("cpu", dtype=weft.float16):
            assert F.linear(x, w).dtype is weft.float16
        assert F.linear(x, w).dtype is weft.bfloat16
        loss = F.cross_entropy(F.linear(x, w), weft.tensor([0, 1]))
    assert not weft.is_autocast_enabled("cpu")
    loss.backward()
    assert w.grad.dtype is weft.float32

    @weft.autocast("cpu")
    def f(a):
        return a @ a.t()

    assert f(x).dtype is weft.bfloat16 and (x @ x.t()).dtype is weft.float32


@pytest.mark.parametrize("sizes", [(1, 1, 3, 3, 1), (2, 3, 5, 70, 7), (1, 2, 130, 130, 64)])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_bfloat16_and_so_are_its_cotangents(sizes, causal):
    n, h, queries, keys, width = sizes
    leaves = [weft.randn(n, h, m, width).requires_grad_() for m in (queries, keys, keys)]

    def step(*xs):
        with weft.autocast("cpu"):
            y = F.scaled_dot_product_attention(*xs, is_causal=causal)
        weights = weft.arange(1.0, y.numel() + 1).reshape(y.shape).cos()
        return (y.detach(), *weft.autograd.grad((y * weights).sum(), xs))

    found = step(*leaves)
    assert found[0].dtype is weft.bfloat16 and found[1].dtype is weft.float32
    exact = [x.detach().bfloat16().double().requires_grad_() for x in leaves]
    y = F.scaled_dot_product_attention(*exact, is_causal=causal)
    weights = weft.arange(1.0, y.numel() + 1).reshape(y.shape).cos().bfloat16().double()
    want = (y.detach(), *weft.autograd.grad((y * weights).sum(), exact))
    for a, b in zip(found, want, strict=True):
        assert (a.double() - b).abs().max() <= 2.0**-7 * b.abs().max() + 2.0**-7
    compiled = weft.compile(step)
    for _ in range(3):
        for a, b in zip(found, compiled(*leaves), strict=True):
            assert a.equal(b)
    one = [x.detach().bfloat16()[None].expand(2, *x.shape).contiguous() for x in leaves]
    pullback = weft.func.grad(lambda *q: F.scaled_dot_product_attention(*q).float().sum(), (0, 1))
    both = weft.func.vmap(pullback)(*one)
    for a, b in zip(both, pullback(*(x[0] for x in one)), strict=True):
        assert a[1].equal(b)


def test_a_device_that_is_not_there_changes_nothing():
    x = weft.randn(2, 2)
    with pytest.warns(UserWarning, match="CUDA is not available"):
        context = weft.autocast("cuda")
    with context:
        assert (x @ x).dtype is weft.float32
    with pytest.raises(RuntimeError, match="unsupported autocast device_type"):
        weft.autocast("tpu9")
    with pytest.warns(UserWarning, match="not supported"):
        weft.autocast("cpu", dtype=weft.float32)
    with pytest.warns(UserWarning, match="Disabling"):
        scaler = amp.GradScaler()
    assert not scaler.is_enabled() and scaler.state_dict() == {} and scaler.get_scale() == 1.0
    assert scaler.scale(x) is x


def test_the_scale_grows_and_shrinks_and_a_bad_step_is_skipped():
    p = nn.Parameter(weft.ones(2))
    opt = weft.optim.SGD([p], lr=1.0)
    scaler = amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    for _ in range(2):
        opt.zero_grad()
        scaler.scale((p * weft.tensor([0.5, 0.0])).sum()).backward()
        assert p.grad.tolist() == [4.0, 0.0]
        scaler.step(opt)
        scaler.update()
    assert p.tolist() == [0.0, 1.0] and scaler.get_scale() == 16.0
    p.grad = weft.tensor([float("inf"), 0.0])
    scaler.step(opt)
    scaler.update()
    assert p.tolist() == [0.0, 1.0] and scaler.get_scale() == 8.0
    p.grad = weft.tensor([8.0, 0.0])
    scaler.unscale_(opt)
    assert p.grad.tolist() == [1.0, 0.0]
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(opt)
    scaler.step(opt)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.step(opt)
    scaler.update()
    other = amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.get_scale() == 8.0 and other.state_dict() == scaler.state_dict()


def test_custom_functions_meet_autocast():
    seen = {}

    class Wide(weft.autograd.Function):
        @staticmethod
        @amp.custom_fwd(device_type="cpu", cast_inputs=weft.float32)
        def forward(ctx, x):
            seen["forward"] = x.dtype, weft.is_autocast_enabled("cpu")
            return x * 2

        @staticmethod
        @amp.custom_bwd(device_type="cpu")
        def backward(ctx, g):
            seen["backward"] = weft.is_autocast_enabled("cpu")
            return g * 2

    x = weft.ones(2, requires_grad=True)
    with weft.autocast("cpu"):
        y = Wide.apply(x.bfloat16())
    y.sum().backward()
    assert seen == {"forward": (weft.float32, False), "backward": False}
