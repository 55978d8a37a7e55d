"""torch.library: the registered function and gradient are the ones that run."""

import pytest

import weft
from weft.autograd.func import vmap
from weft.compat.torch_ import library
from weft.compat.torch_.library import ops


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch):
    monkeypatch.setattr(library, "OPERATORS", {})
    monkeypatch.setattr(ops, "OPERATORS", library.OPERATORS)


def test_the_registered_backward_is_used():
    @library.custom_op("mine::scale", mutates_args=())
    def scale(x: weft.Tensor, by: float = 3.0) -> weft.Tensor:
        return x * by

    def setup(ctx, inputs, output):
        (x, by) = inputs
        ctx.save_for_backward(x, output)
        ctx.by = by

    def backward(ctx, g):
        x, y = ctx.saved_tensors
        assert y.tolist() == (x * ctx.by).tolist()
        return g * 100.0, None

    scale.register_autograd(backward, setup_context=setup)
    x = weft.ones(2, requires_grad=True)
    y = scale(x)
    assert y.tolist() == [3.0, 3.0]
    y.sum().backward()
    assert x.grad.tolist() == [100.0, 100.0]  # not 3: the function's own operations are no tape
    assert scale(x, by=2.0).tolist() == [2.0, 2.0] and scale.default is scale
    assert ops.__getattr__("mine").scale(x).tolist() == [3.0, 3.0]
    assert vmap(scale)(weft.ones(3, 2)).shape == (3, 2)


def test_without_a_backward_it_raises_as_in_torch():
    @library.custom_op("mine::double", mutates_args=())
    def double(x):
        return x * 2

    assert double(weft.ones(2)).tolist() == [2.0, 2.0]
    y = double(weft.ones(2, requires_grad=True))
    assert y.requires_grad
    with pytest.raises(RuntimeError, match=r"backward through mine\.double\.default"):
        y.sum().backward()


def test_kernels_and_rules_by_name():
    @library.custom_op("mine::f", mutates_args=())
    def f(x, *, times=2):
        raise AssertionError("the CPU has its own")

    f.register_kernel("cpu")(lambda x, *, times=2: x * times)
    f.register_kernel("cuda")(lambda x: 1 / 0)

    @library.register_fake("mine::f")
    def _(x, *, times=2):
        return x.new_empty(x.shape)

    def setup(ctx, inputs, keyword_only_inputs, output):
        ctx.times = keyword_only_inputs["times"]

    library.register_autograd("mine::f", lambda ctx, g: g * ctx.times * 10, setup_context=setup)
    x = weft.ones(1, requires_grad=True)
    y = f(x, times=5)
    y.backward()
    assert y.item() == 5.0 and x.grad.item() == 50.0
    assert f.fake(x).shape == (1,)


def test_an_operator_that_writes_into_its_argument():
    @library.custom_op("mine::fill", mutates_args={"x"})
    def fill(x) -> None:
        x.fill_(7.0)

    x = weft.zeros(2)
    assert fill(x) is None and x.tolist() == [7.0, 7.0]


def test_a_library_of_operators():
    lib = library.Library("ours", "DEF")
    lib.define("twice(Tensor x) -> Tensor")
    ours = ops.__getattr__("ours")
    with pytest.raises(NotImplementedError, match="ours::twice has no function"):
        ours.twice(weft.ones(1))
    lib.impl("twice", lambda x: x * 2, "CPU")
    lib.impl("twice", lambda x: 1 / 0, "CUDA")
    assert ours.twice(weft.ones(1)).item() == 2.0
    lib.impl("twice", lambda x: x * 2, "CompositeImplicitAutograd")
    x = weft.ones(1, requires_grad=True)
    ours.twice(x).backward()
    assert x.grad.item() == 2.0
    with pytest.raises(AttributeError, match=r"no torch\.ops\.ours\.thrice"):
        _ = ours.thrice
    with pytest.raises(ValueError, match="namespace::name"):
        library.custom_op("plain", lambda x: x, mutates_args=())
