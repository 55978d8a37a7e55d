"""Native code behind `module.name` and `module(x)`: what Python would give, and as soon as anything
that has a say changes, Python's way again.
"""

import gc
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import weft
from weft import nn
from weft.core import overrides
from weft.nn import functional as F
from weft.ops import contract, module_calls
from weft.runtime import guards, native

if native.layout_calls() is None or not guards.has_tags_and_versions():
    pytest.skip("this interpreter's structs are not known", allow_module_level=True)

ROUNDS = 400


@pytest.fixture(autouse=True)
def _no_overrides(monkeypatch):
    """Classes that other tests made would be asked first from then on."""
    monkeypatch.setattr(overrides, "on", lambda: False)


def frames(call):
    """How many Python frames it makes, its own left out; what it gives."""
    seen = []
    sys.setprofile(lambda frame, event, arg: event == "call" and seen.append(frame.f_code))
    try:
        y = call()
    finally:
        sys.setprofile(None)
    return len(seen) - 1, y


def teach(layer, *inputs):
    """Call the layer until native code knows it."""
    for _ in range(ROUNDS):
        for x in inputs:
            layer(x)
        if all(frames(lambda x=x: layer(x))[0] == 0 for x in inputs):
            return layer
    raise AssertionError(f"{layer} was not learned")


def known(layer, x):
    return frames(lambda: layer(x))[0] == 0


def moved(layer):
    """A batch norm with statistics that are not 0 and 1."""
    layer.running_mean.copy_(weft.randn(4))
    layer.running_var.copy_(weft.rand(4) + 0.5)
    return layer.eval()


LAYERS = {
    "linear": (lambda: nn.Linear(5, 4), (3, 5)),
    "no bias": (lambda: nn.Linear(5, 4, bias=False), (3, 5)),
    "conv": (lambda: nn.Conv2d(3, 4, 3, padding=1), (2, 3, 6, 5)),
    "conv without bias": (lambda: nn.Conv2d(3, 4, 1, stride=2, bias=False), (2, 3, 6, 5)),
    "batch norm": (lambda: moved(nn.BatchNorm2d(4)), (2, 4, 3, 3)),
    "batch norm of vectors": (lambda: moved(nn.BatchNorm1d(4)), (7, 4)),
    "layer norm": (lambda: nn.LayerNorm(5), (2, 3, 5)),
    "relu": (lambda: nn.ReLU(), (3, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_known_call_is_forward(name):
    make, shape = LAYERS[name]
    layer, x = make(), weft.randn(*shape)
    teach(layer, x)
    for grad in (False, True):
        a, b = (x.clone().requires_grad_(grad) for _ in range(2))
        n, y = frames(lambda a=a: layer(a))
        want = layer.forward(b)
        assert n == 0 and weft.equal(y, want) and y.requires_grad == want.requires_grad
        if y.requires_grad:
            mine = weft.autograd.grad(y.sum(), [*layer.parameters(), *([a] if grad else [])])
            its = weft.autograd.grad(want.sum(), [*layer.parameters(), *([b] if grad else [])])
            assert all(map(weft.equal, mine, its))


CHANGES = {
    "another weight": lambda m: setattr(m, "weight", nn.Parameter(weft.ones(4, 5))),
    "no bias any more": lambda m: setattr(m, "bias", None),
    "a hook": lambda m: m.register_forward_hook(lambda m, a, y: y + 1),
    "a hook before": lambda m: m.register_forward_pre_hook(lambda m, a: (a[0] * 2,)),
    "its own forward": lambda m: setattr(m, "forward", lambda x: x + 1),
    "another class": lambda m: setattr(m, "__class__", Doubled),
    "through the dict": lambda m: m._parameters.update(weight=nn.Parameter(weft.ones(4, 5))),
    "a mode": lambda m: m.train(mode=False),
}


class Doubled(nn.Linear):
    def forward(self, input):
        return super().forward(input) * 2


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_module_ends_it(name):
    layer, x = nn.Linear(5, 4), weft.randn(3, 5)
    teach(layer, x)
    CHANGES[name](layer)
    assert not known(layer, x)
    assert weft.equal(layer(x), type(layer).__call__(layer, x))
    for _ in range(ROUNDS):  # perhaps it is known again
        layer(x)
    assert weft.equal(layer(x), type(layer).__call__(layer, x))


def test_values_written_in_place_are_seen():
    layer, x = teach(nn.Linear(5, 4), weft.randn(3, 5)), weft.randn(3, 5)
    with weft.no_grad():
        layer.weight.fill_(0.0)
        layer.bias.fill_(2.0)
    assert known(layer, x) and weft.equal(layer(x), weft.full((3, 4), 2.0))
    layer.weight.data = weft.ones(4, 5)
    assert weft.equal(layer(x), layer.forward(x))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        layer(weft.randn(3, 6))


def test_what_is_set_elsewhere_ends_it(monkeypatch):
    layer, x = nn.Linear(5, 4), weft.randn(3, 5)
    y = teach(layer, x)(x)
    with monkeypatch.context() as patched:
        patched.setattr(F, "linear", lambda *args: "patched")
        assert layer(x) == "patched"
    teach(layer, x)
    with monkeypatch.context() as patched:
        patched.setattr(nn.Linear, "forward", lambda self, x: "patched")
        assert layer(x) == "patched"
    teach(layer, x)
    with monkeypatch.context() as patched:
        patched.setattr(nn.Module, "__call__", lambda self, x: "patched")
        assert layer(x) == "patched"
    assert not known(layer, x)  # CPython made its own slots again
    kinds = [nn.Module]
    for kind in kinds:
        module_calls.adopt(kind)
        kinds += kind.__subclasses__()
    teach(layer, x)
    hook = nn.hooks.register_module_forward_hook(lambda m, a, y: y + 1)
    assert weft.equal(layer(x), y + 1)
    hook.remove()
    with weft.autocast("cpu", dtype=weft.bfloat16):
        assert layer(x).dtype is weft.bfloat16
    assert weft.equal(layer(x), y)


def test_fast_math_ends_it():
    layer, x = teach(nn.Linear(64, 64), weft.randn(16, 64)), weft.randn(16, 64)
    y = layer(x)
    with contract.fast_math(True):
        assert not known(layer, x)
        fast = layer(x)
        teach(layer, x)
        assert weft.equal(layer(x), fast)
    assert weft.equal(layer(x), y)


def test_ranks_that_a_layer_refuses_are_refused():
    """The op of both norms is one, and knows matrices."""
    vectors, x = moved(nn.BatchNorm1d(4)), weft.randn(7, 4)
    images = moved(nn.BatchNorm2d(4))
    teach(vectors, x)
    teach(images, weft.randn(2, 4, 3, 3))
    for _ in range(ROUNDS):
        with pytest.raises(ValueError, match="expected 4D input"):
            images(x)


def test_a_layer_norm_whose_weight_grows_is_refused():
    """The op takes any length that weight, bias and input share; the layer has one."""
    norm, x, wide = nn.LayerNorm(5), weft.randn(3, 5), weft.randn(3, 6)
    other = nn.LayerNorm(6)
    teach(norm, x)
    teach(other, wide)
    norm.weight.data, norm.bias.data = weft.ones(6), weft.zeros(6)
    for _ in range(ROUNDS):
        with pytest.raises(RuntimeError, match="normalized_shape"):
            norm(wide)


def test_training_is_not_one_op():
    norm, x = moved(nn.BatchNorm2d(4)), weft.randn(2, 4, 3, 3)
    teach(norm, x)
    before = norm.running_mean.clone()
    norm.train()
    norm(x)
    assert not weft.equal(norm.running_mean, before) and norm.num_batches_tracked.item() == 1


def test_a_compiled_call_matches_known_layers():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    x = weft.randn(2, 3, 8, 8)
    for _ in range(ROUNDS):
        model(x)
    fast = weft.compile(model)
    for _ in range(5):
        assert weft.equal(fast(x), model(x))
    assert fast.stats["recorded_ops"] == 3 and fast.stats["programs"] == 1


def test_what_was_taken_away_is_missed_by_forward():
    layer, x = nn.Linear(5, 4), weft.randn(3, 5)
    del layer.weight
    for _ in range(ROUNDS):
        with pytest.raises(AttributeError, match="'Linear' object has no attribute 'weight'"):
            layer(x)


def test_no_leaks():
    layer, x = nn.Linear(5, 4), weft.randn(3, 5)
    teach(layer, x)
    held = [layer, layer.weight, layer.bias, x, None]
    gc.collect()
    before = [sys.getrefcount(h) for h in held]
    for _ in range(5000):
        layer(x)
        layer(weft.randn(1, 3, 5))  # the op is asked and does not know it, or the rank differs
        assert layer.weight is held[1]
    after = [sys.getrefcount(h) for h in held]
    assert all(abs(a - b) < 100 for a, b in zip(after, before, strict=True)), (before, after)


def test_a_layer_that_dies_leaves_nothing():
    x = weft.randn(3, 5)
    for _ in range(50):  # objects at the same address
        layer = teach(nn.Linear(5, 4), x)
        want = F.linear(x, layer.weight, layer.bias)
        assert weft.equal(layer(x), want)
        del layer
        gc.collect()


def test_layers_imported_behind_native_code_are_known():
    code = """
    import weft
    x = weft.randn(3, 5)
    for _ in range(300):
        x + x, x[0], x.t()
    from weft import nn
    from weft.ops import module_calls
    layer = nn.Linear(5, 4)
    for _ in range(300):
        layer(x)
    assert any(kept[0][0] == id(layer) for kept in module_calls._kept.values() if len(kept) == 3)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_overrides_are_asked():
    code = """
    import weft
    from weft import nn
    layer, x = nn.Linear(5, 4), weft.randn(3, 5)
    for _ in range(1000):
        layer(x)
    from weft.compat.torch_ import overrides
    asked = []
    class Mode(overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            asked.append(func.__name__)
            return func(*args, **(kwargs or {}))
    with Mode():
        for _ in range(200):
            layer(x)
    assert asked.count("linear") == 200, asked
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


# ------------------------------------------------------------------ attributes


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.child = nn.Identity()
        self.weight = nn.Parameter(weft.ones(2))
        self.register_buffer("seen", weft.zeros(2))
        self.calls = 0

    @property
    def broken(self):
        self.calls += 1
        raise AttributeError("inside")


class Asked(Odd):
    def __getattr__(self, name):
        return f"asked {name}" if name.startswith("x") else super().__getattr__(name)


def test_attributes_are_those_of_python():
    teach(nn.ReLU(), weft.randn(3))  # native code is there now
    assert module_calls._functions
    m = Odd()
    assert m.child is m._modules["child"] and m.weight is m._parameters["weight"]
    assert m.seen is m._buffers["seen"] and m.calls == 0
    with pytest.raises(AttributeError, match="'Odd' object has no attribute 'nothing'"):
        m.nothing
    with pytest.raises(AttributeError, match="'Odd' object has no attribute 'broken'"):
        m.broken
    assert m.calls == 1
    assert not hasattr(Odd.__new__(Odd), "child")
    del m.child
    assert not hasattr(m, "child")
    a = Asked()
    assert a.xy == "asked xy" and a.child is a._modules["child"] and not hasattr(a, "y")


def test_a_class_that_sees_all_its_attributes_goes_on():
    code = """
    import weft
    from weft import nn
    from weft.ops import module_calls
    def sees(self, name):
        return "seen" if name == "training" else object.__getattribute__(self, name)
    def classes():
        class Mixin:
            __getattribute__ = sees
        class Mixed(Mixin, nn.Linear):
            pass
        class Own(nn.Linear):
            __getattribute__ = sees
        return Mixed, Own
    before = classes()
    x, layer = weft.randn(3, 5), nn.Linear(5, 4)
    for _ in range(300):
        layer(x) + 1
    assert module_calls._functions
    for kind in (*before, *classes()):
        assert kind(2, 2).training == "seen", kind
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_what_is_set_on_a_class_later_counts():
    class Later(Odd):
        pass

    class Below(Later):
        pass

    m = Below()
    assert m.child is m._modules["child"]
    Later.__getattr__ = lambda self, name: "later"
    Later.__call__ = lambda self, x: x + 1
    assert m.child == "later" and m(1) == 2
    del Later.__getattr__, Later.__call__
    assert m.child is m._modules["child"]
    with pytest.raises(NotImplementedError):
        m(1)


def test_numbers_agree_with_numpy():
    layer, x = nn.Linear(5, 4), weft.randn(3, 5)
    y = teach(layer, x)(x).detach().numpy()
    w, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    np.testing.assert_allclose(y, x.numpy() @ w.T + b, rtol=1e-5, atol=1e-6)
