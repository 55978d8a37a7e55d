"""Function: user-written forward and backward."""

import gc
import weakref

import pytest

import weft
from weft.autograd import Function, grad
from weft.autograd.function import once_differentiable


def leaf(*values, dtype=None):
    return weft.tensor(list(values), dtype=dtype, requires_grad=True)


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x * x * g


class Exp(Function):
    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y


def test_first_and_second_derivative():
    x = leaf(1.0, 2.0)
    (g,) = grad(Cube.apply(x).sum(), [x], create_graph=True)
    assert g.tolist() == [3.0, 12.0]
    assert grad(g.sum(), [x])[0].tolist() == [6.0, 12.0]
    x = leaf(0.5, dtype=weft.float64)
    assert weft.autograd.gradgradcheck(Exp.apply, x)  # through a saved result


def test_a_saved_result_makes_no_cycle():
    gc.collect()
    gc.disable()
    try:
        y = Exp.apply(leaf(1.0))
        ref = weakref.ref(y)
        del y
        assert ref() is None
    finally:
        gc.enable()


def test_several_results_and_unused_ones():
    seen = []

    class Both(Function):
        @staticmethod
        def forward(ctx, x, n):
            return x * n, x + n, (x > 0)

        @staticmethod
        def backward(ctx, a, b, c):
            seen.append((a.tolist(), b.tolist()))
            return a * 10 + b, None

    x = leaf(1.0, 2.0)
    a, b, mask = Both.apply(x, 3.0)
    assert a.requires_grad and not mask.requires_grad
    (a.sum() + (b * 2).sum()).backward()
    assert x.grad.tolist() == [12.0, 12.0]
    a, b, _ = Both.apply(x, 3.0)
    b.sum().backward()
    assert seen[-1] == ([0.0, 0.0], [1.0, 1.0])  # zeros for the result that was not used


def test_materialize_grads_off_gives_none():
    seen = []

    class Two(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x * 1, x * 2

        @staticmethod
        def backward(ctx, a, b):
            seen.append(a)
            return b

    x = leaf(1.0)
    Two.apply(x)[1].sum().backward()
    assert seen == [None]


def test_needs_input_grad_and_setup_context():
    class Scale(Function):
        @staticmethod
        def forward(x, w):
            return x * w

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            assert ctx.needs_input_grad == (True, False)
            return g * w, g * x

    x = leaf(1.0, 2.0)
    Scale.apply(x, weft.tensor([3.0, 4.0])).sum().backward()
    assert x.grad.tolist() == [3.0, 4.0]


def test_mark_dirty_and_non_differentiable():
    class AddOne(Function):
        @staticmethod
        def forward(ctx, x):
            x.add_(1)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 7

    x = leaf(1.0)
    h = x * 1
    assert AddOne.apply(h) is h
    h.sum().backward()
    assert x.grad.tolist() == [7.0]

    class Rank(Function):
        @staticmethod
        def forward(ctx, x):
            places = x * 0
            ctx.mark_non_differentiable(places)
            return x * 2, places

        @staticmethod
        def backward(ctx, g, unused):
            return g * 2

    y, places = Rank.apply(x)
    assert y.requires_grad and not places.requires_grad


def test_an_operand_returned_as_it_is_gets_a_handle_of_its_own():
    class Same(Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return -g

    x = leaf(1.0)
    y = Same.apply(x)
    assert y is not x and x.is_leaf
    y.sum().backward()
    assert x.grad.tolist() == [-1.0]


def test_once_differentiable_refuses_the_second_time():
    class Once(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 2 * x * g

    x = leaf(3.0)
    (g,) = grad(Once.apply(x).sum(), [x], create_graph=True)
    assert g.tolist() == [6.0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_mistakes_are_named():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * y

        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises(RuntimeError, match=r"incorrect number of gradients \(expected 2, got 1\)"):
        Wrong.apply(leaf(1.0), leaf(2.0)).sum().backward()

    class Shape(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return weft.ones(5)

    with pytest.raises(RuntimeError, match="invalid gradient at index 0"):
        Shape.apply(leaf(1.0, 2.0)).sum().backward()


def test_saved_tensors_changed_or_freed():
    x = leaf(1.0, 2.0)
    h = x * 1
    y = Cube.apply(h)
    h.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = Cube.apply(x)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
