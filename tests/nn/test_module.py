"""Module: registration, the tree, saving and loading, hooks, conversion, copying.

The messages are torch's.
"""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import weft
from weft import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 3)
        self.b = nn.Sequential(nn.ReLU(), nn.Linear(3, 1))
        self.scale = nn.Parameter(weft.ones(1))
        self.register_buffer("mean", weft.zeros(2))
        self.register_buffer("cache", weft.zeros(1), persistent=False)

    def forward(self, x):
        return self.b(self.a(x - self.mean)) * self.scale


NAMES = ["scale", "a.weight", "a.bias", "b.1.weight", "b.1.bias"]


def test_names_of_parameters_buffers_and_modules():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == NAMES
    assert [n for n, _ in net.named_parameters("x", recurse=False)] == ["x.scale"]
    assert [n for n, _ in net.named_buffers()] == ["mean", "cache"]
    assert [n for n, _ in net.named_modules()] == ["", "a", "b", "b.0", "b.1"]
    assert [n for n, _ in net.named_children()] == ["a", "b"]
    assert len(list(net.parameters())) == 5 and len(list(net.modules())) == 5
    assert list(net.state_dict()) == [
        "scale",
        "mean",
        "a.weight",
        "a.bias",
        "b.1.weight",
        "b.1.bias",
    ]


def test_shared_parameters_and_modules_are_listed_once():
    net = Net()
    net.c = net.a
    net.d = nn.Linear(2, 3)
    net.d.weight = net.a.weight
    assert [n for n, _ in net.named_parameters()] == [*NAMES, "d.bias"]
    all_names = [n for n, _ in net.named_parameters(remove_duplicate=False)]
    assert "c.weight" in all_names and "d.weight" in all_names
    assert [n for n, _ in net.named_children()] == ["a", "b", "d"]
    assert [n for n, _ in net.named_modules(remove_duplicate=False)].count("c") == 1


def test_assignment_files_values():
    m = nn.Module()
    m.x = 3
    m.x = nn.Parameter(weft.ones(2))
    assert "x" in m._parameters and "x" not in m.__dict__
    m.x = None
    assert m.x is None and "x" in m._parameters
    with pytest.raises(TypeError, match=r"cannot assign 'torch\.FloatTensor' as parameter 'x'"):
        m.x = weft.ones(2)
    m.y = nn.ReLU()
    with pytest.raises(TypeError, match="cannot assign 'int' as child module 'y'"):
        m.y = 3
    m.y = nn.Parameter(weft.ones(1))
    assert "y" in m._parameters and "y" not in m._modules
    m.register_buffer("z", weft.ones(1))
    m.z = weft.zeros(3)
    assert m.z is m._buffers["z"] and m.z.shape == (3,)
    with pytest.raises(TypeError, match="cannot assign 'str' as buffer 'z'"):
        m.z = "no"
    del m.z, m.x
    assert not hasattr(m, "z") and not hasattr(m, "x")
    with pytest.raises(AttributeError, match="'Module' object has no attribute 'q'"):
        m.q
    with pytest.raises(AttributeError):
        del m.q
    m.buffer = nn.Buffer(weft.ones(2), persistent=False)
    assert "buffer" in m._buffers and list(m.state_dict()) == ["y"]


def test_registration_is_checked():
    m = nn.Linear(1, 1)
    with pytest.raises(KeyError, match="attribute 'forward' already exists"):
        m.register_parameter("forward", nn.Parameter(weft.ones(1)))
    with pytest.raises(KeyError, match=r"can.*t contain"):
        m.register_buffer("a.b", None)
    with pytest.raises(KeyError, match=r"can.*t be empty"):
        m.add_module("", nn.ReLU())
    with pytest.raises(TypeError, match="should be a string"):
        m.register_buffer(3, None)
    with pytest.raises(TypeError, match="is not a Module subclass"):
        m.add_module("x", 3)
    with pytest.raises(ValueError, match="Cannot assign non-leaf Tensor"):
        p = nn.Parameter(weft.ones(1))
        p._fn = (weft.ones(1, requires_grad=True) * 2)._fn
        m.register_parameter("p", p)

    class Early(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(weft.ones(1))

    with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
        Early()
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        nn.Module(size=3)
    with pytest.raises(NotImplementedError, match='missing the required "forward"'):
        nn.Module()(1)


def test_getting_by_path():
    net = Net()
    assert net.get_submodule("b.1") is net.b[1] and net.get_submodule("") is net
    assert net.get_parameter("b.1.bias") is net.b[1].bias
    assert net.get_buffer("mean") is net.mean
    with pytest.raises(AttributeError, match="Sequential has no attribute `7`"):
        net.get_submodule("b.7")
    with pytest.raises(AttributeError, match=r"`weight` is not an nn\.Module"):
        net.get_submodule("a.weight")
    with pytest.raises(AttributeError, match=r"is not an nn\.Parameter"):
        net.get_parameter("mean")
    with pytest.raises(AttributeError, match="is not a buffer"):
        net.get_buffer("scale")
    net.set_submodule("b.0", nn.Tanh())
    assert isinstance(net.b[0], nn.Tanh)
    with pytest.raises(AttributeError, match="has no attribute"):
        net.set_submodule("b.nine", nn.Tanh(), strict=True)


def test_load_state_dict_copies_and_complains_as_torch():
    net, other = Net(), Net()
    kept = net.a.weight
    assert repr(net.load_state_dict(other.state_dict())) == "<All keys matched successfully>"
    assert net.a.weight is kept
    assert np.array_equal(net.a.weight.detach().numpy(), other.a.weight.detach().numpy())
    bad = other.state_dict()
    del bad["a.bias"]
    bad["b.1.extra"] = weft.ones(1)
    bad["b.1.weight"] = weft.ones(2, 3)
    with pytest.raises(RuntimeError) as e:
        net.load_state_dict(bad)
    assert str(e.value) == (
        "Error(s) in loading state_dict for Net:\n"
        '\tMissing key(s) in state_dict: "a.bias". \n'
        '\tUnexpected key(s) in state_dict: "b.1.extra". \n'
        "\tsize mismatch for b.1.weight: copying a param with shape torch.Size([2, 3]) from "
        "checkpoint, the shape in current model is torch.Size([1, 3])."
    )
    del bad["b.1.weight"]
    found = net.load_state_dict(bad, strict=False)
    assert found.missing_keys == ["a.bias", "b.1.weight"]
    assert found.unexpected_keys == ["b.1.extra"]
    with pytest.raises(TypeError, match="dict-like"):
        net.load_state_dict([1])
    with pytest.raises(RuntimeError, match=r"expected torch\.Tensor or Tensor-like"):
        net.load_state_dict({**other.state_dict(), "scale": 3})


def test_load_state_dict_can_take_over_the_tensors():
    net, other = Net(), Net()
    state = other.state_dict()
    net.load_state_dict(state, assign=True)
    assert isinstance(net.a.weight, nn.Parameter) and net.a.weight.requires_grad
    assert net.a.weight.data_ptr() == other.a.weight.data_ptr()
    assert net.mean is state["mean"]


def test_state_dict_details():
    net = Net()
    state = net.state_dict(prefix="m.")
    assert isinstance(state, OrderedDict) and "m.b.1.bias" in state
    assert state._metadata["m.b"] == {"version": 1} and state._metadata["m"] == {"version": 1}
    assert not state["m.scale"].requires_grad
    assert state["m.scale"].data_ptr() == net.scale.data_ptr()
    assert net.state_dict(keep_vars=True)["scale"] is net.scale
    with pytest.warns(FutureWarning, match="Positional args"):
        assert "q.scale" in net.state_dict(OrderedDict(), "q.")


def test_scalars_saved_as_one_element_load():
    m = nn.Module()
    m.p = nn.Parameter(weft.tensor(0.0))
    m.load_state_dict({"p": weft.tensor([3.0])})
    assert m.p.item() == 3.0


def test_extra_state():
    class Counted(nn.Module):
        count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    m = nn.Sequential(Counted())
    m[0].count = 5
    state = m.state_dict()
    assert state["0._extra_state"] == {"count": 5}
    other = nn.Sequential(Counted())
    other.load_state_dict(state)
    assert other[0].count == 5
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "0\._extra_state"'):
        other.load_state_dict({})
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "0\._extra_state"'):
        nn.Sequential(nn.ReLU()).load_state_dict(state)


def test_state_dict_hooks():
    net = Net()
    seen = []
    net.register_state_dict_pre_hook(lambda m, prefix, keep: seen.append(("pre", prefix)))
    net.register_state_dict_post_hook(lambda m, state, prefix, meta: state.update(more=1) or None)
    state = net.state_dict()
    assert state.pop("more") == 1 and seen == [("pre", "")]
    net.register_load_state_dict_pre_hook(
        lambda m, state, prefix, *rest: state.update({"scale": state.pop("old")})
    )
    net.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    state["old"] = state.pop("scale") + 1
    del state["mean"]
    net.load_state_dict(state)
    assert net.scale.item() == 2.0
    net.register_state_dict_post_hook(lambda *a: 3)
    with pytest.raises(RuntimeError, match="must return None"):
        net.state_dict()


def test_train_and_eval_reach_everything():
    net = Net()
    assert net.train() is net and net.eval() is net
    assert not any(m.training for m in net.modules())
    net.b.train()
    assert [m.training for m in net.modules()] == [False, False, True, True, True]
    with pytest.raises(ValueError, match="expected to be boolean"):
        net.train(1)


def test_apply_goes_children_first():
    seen = []
    Net().apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "ReLU", "Linear", "Sequential", "Net"]


def test_dtype_conversions_keep_parameters_and_gradients():
    net = Net()
    net.register_buffer("count", weft.tensor(3))
    net(weft.ones(1, 2)).sum().backward()
    kept = net.a.weight
    for convert, dtype in (
        (net.double, weft.float64), (net.half, weft.float16), (net.bfloat16, weft.bfloat16),
        (net.float, weft.float32), (lambda: net.to(weft.float64), weft.float64),
        (lambda: net.to("cpu", weft.float32), weft.float32),
        (lambda: net.to(dtype=weft.float64), weft.float64),
        (lambda: net.to(weft.ones(1)), weft.float32),
    ):  # fmt: skip
        assert convert() is net
        assert net.a.weight is kept and kept.dtype is dtype and kept.grad.dtype is dtype
        assert kept.is_leaf and kept.requires_grad
        assert net.mean.dtype is dtype and net.count.dtype is weft.int64
    assert net.cpu() is net
    with pytest.raises(TypeError, match="only accepts floating point"):
        net.to(weft.int32)
    with pytest.raises(AssertionError, match="not compiled with CUDA"):
        net.cuda()


def test_zero_grad_and_requires_grad():
    net = Net()
    net(weft.ones(1, 2)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert all(not p.grad.numpy().any() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())


def test_copies_are_whole_and_independent():
    net = Net()
    net.tied = net.a
    x = weft.ones(1, 2)
    for made in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert made.a.weight is not net.a.weight and made.tied is made.a
        assert isinstance(made.a.weight, nn.Parameter) and made.a.weight.requires_grad
        assert np.array_equal(made(x).detach().numpy(), net(x).detach().numpy())
        with weft.no_grad():
            made.a.weight.add_(1.0)
        assert not np.array_equal(made.a.weight.detach().numpy(), net.a.weight.detach().numpy())


def test_forward_hooks():
    m = nn.Linear(2, 2)
    seen = []
    x = weft.ones(1, 2)
    plain = m(x).detach().numpy()
    h1 = m.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    assert np.array_equal(m(x).detach().numpy(), m.forward(x * 2).detach().numpy())
    h1.remove()
    h2 = m.register_forward_hook(lambda m, args, out: out + 1)
    h3 = m.register_forward_hook(lambda m, args, out: seen.append(out.clone()), prepend=True)
    np.testing.assert_array_equal(m(x).detach().numpy(), plain + 1)
    np.testing.assert_array_equal(seen[0].detach().numpy(), plain)
    h2.remove()
    h3.remove()
    np.testing.assert_array_equal(m(x).detach().numpy(), plain)


def test_hooks_with_keyword_arguments():
    class Scaled(nn.Module):
        def forward(self, x, *, by=1.0):
            return x * by

    m = Scaled()
    m.register_forward_pre_hook(lambda m, a, k: (a, {"by": k["by"] * 10}), with_kwargs=True)
    m.register_forward_hook(lambda m, a, k, y: y + k["by"], with_kwargs=True)
    assert m(weft.ones(1), by=2.0).item() == 40.0
    m.register_forward_pre_hook(lambda m, a, k: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match="must return None or a tuple of"):
        m(weft.ones(1), by=2.0)


def test_always_called_hooks_run_after_an_error():
    class Fails(nn.Module):
        def forward(self, x):
            raise ValueError("no")

    m, seen = Fails(), []
    m.register_forward_hook(lambda *a: seen.append("plain"))
    m.register_forward_hook(lambda *a: seen.append("always"), always_call=True)
    with pytest.raises(ValueError, match="no"):
        m(1)
    assert seen == ["always"]


def test_full_backward_hooks():
    m = nn.Linear(2, 3, bias=False)
    seen = []
    m.register_full_backward_pre_hook(lambda m, go: (go[0] * 2,))
    m.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)) or (gi[0] * 10,))
    x = weft.ones(1, 2, requires_grad=True)
    m(x).sum().backward()
    (gi,), (go,) = seen[0]
    w = m.weight.detach().numpy()
    np.testing.assert_array_equal(go.numpy(), np.full((1, 3), 2.0))
    np.testing.assert_allclose(gi.numpy(), 2 * w.sum(0, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), 20 * w.sum(0, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(m.weight.grad.numpy(), np.full((3, 2), 2.0))


def test_backward_hooks_without_an_input_that_wants_a_gradient():
    m = nn.Linear(2, 3)
    seen = []
    m.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go[0].shape)))
    m(weft.ones(1, 2)).sum().backward()
    assert seen == [((None,), (1, 3))]


def test_backward_hooks_with_several_inputs_and_outputs():
    class Two(nn.Module):
        def forward(self, x, k, y):
            return x * k, y * 3

    m, seen = Two(), []
    m.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
    x = weft.ones(2, requires_grad=True)
    y = weft.ones(2, requires_grad=True)
    a, b = m(x, 2.0, y)
    (a * 5 + b).sum().backward()
    gi, go = seen[0]
    assert gi[1] is None and gi[0].tolist() == [10, 10] and gi[2].tolist() == [3, 3]
    assert go[0].tolist() == [5, 5] and go[1].tolist() == [1, 1]


def test_hooks_on_all_modules():
    seen = []
    handle = nn.hooks.register_module_forward_hook(lambda m, a, y: seen.append(type(m).__name__))
    try:
        nn.Sequential(nn.ReLU())(weft.ones(1))
    finally:
        handle.remove()
    nn.ReLU()(weft.ones(1))
    assert seen == ["ReLU", "Sequential"] and not nn.hooks.Everywhere.active


def test_a_module_forgets_its_hooks():
    m = nn.ReLU()
    m.register_forward_hook(lambda *a: None).remove()
    m(weft.ones(1))
    assert not m._hooked


def test_dir_and_repr():
    net = Net()
    assert {"scale", "mean", "a", "forward"} <= set(dir(net))
    assert repr(net) == (
        "Net(\n  (a): Linear(in_features=2, out_features=3, bias=True)\n  (b): Sequential(\n"
        "    (0): ReLU()\n    (1): Linear(in_features=3, out_features=1, bias=True)\n  )\n)"
    )


def test_data_of_a_parameter():
    data = weft.zeros(3)
    p = nn.Parameter(data)
    with weft.no_grad():
        p.add_(1.0)
    assert data.tolist() == [1, 1, 1] and not data.requires_grad
    assert repr(p).startswith("Parameter containing:\ntensor([1., 1., 1.]")
    assert isinstance(copy.deepcopy(p), nn.Parameter)
    assert not isinstance(p * 1, nn.Parameter)


def test_modules_become_complex_and_take_a_memory_format():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    net.to(weft.float64, memory_format=weft.channels_last)
    assert net[0].weight.stride() == (27, 1, 9, 3) and net[0].bias.dtype is weft.float64
    layer = nn.Linear(2, 2).to(weft.complex64)
    assert layer.weight.dtype is layer.bias.dtype is weft.complex64
    assert layer.double().weight.dtype is weft.complex64  # only floating ones become double
    assert layer.to(weft.complex128).weight.dtype is weft.complex128
    with pytest.raises(TypeError, match=r"only accepts floating point or complex dtypes"):
        layer.to(weft.int64)
