"""The backward walk: what torch 2.13 does in the same situations (answers recorded by hand)."""

import gc
import weakref

import pytest

import weft
from weft.autograd import grad
from weft.nn import functional as F


def leaf(*values):
    return weft.tensor(list(values), requires_grad=True)


def test_inplace_by_a_number_needs_no_old_value():
    x = leaf(1.0, 2.0, 3.0)
    h = x * 2
    h.mul_(3.0)
    h.sum().backward()
    assert x.grad.tolist() == [6.0, 6.0, 6.0]


def test_inplace_keeps_the_old_value_where_backward_needs_it():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    h = x * 2
    h.mul_(w)
    h.sin_()
    h.sum().backward()
    c = (x * 2 * w).detach().cos()
    assert w.grad.tolist() == (c * x.detach() * 2).tolist()
    assert x.grad.tolist() == (c * w.detach() * 2).tolist()


def test_saved_result_changed_in_place_raises_when_used():
    x = leaf(1.0, 2.0)
    y = x.exp()
    y.add_(1)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation.*ExpBackward0"):
        y.sum().backward()
    x = leaf(1.0, 2.0)
    y = x * x
    x.detach().add_(1)
    with pytest.raises(RuntimeError, match="is at version 1; expected version 0"):
        y.sum().backward()


def test_a_view_made_before_a_write_follows_it():
    x = leaf(1.0, 2.0, 3.0)
    b = weft.zeros(4)
    v, w = b[1:], b[:2]
    v.mul_(1).add_(x)
    assert b.requires_grad and w.requires_grad and w.tolist() == [0.0, 1.0]
    (w * w).sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 0.0]


def test_a_view_follows_a_write_to_its_base():
    a = weft.zeros(3)
    v = a.view(3)
    x = leaf(1.0, 2.0, 3.0)
    a.add_(x)
    v.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 1.0]


def test_writes_through_views_reach_the_base():
    x = leaf(1.0, 2.0, 3.0, 4.0)
    b = x * 1
    b[1:3].mul_(3)
    (b * b).sum().backward()
    assert x.grad.tolist() == [2.0, 36.0, 54.0, 8.0]


def test_second_backward_needs_a_kept_graph_only_where_values_were_saved():
    x = leaf(1.0, 2.0)
    y = (x + x).sum()
    y.backward()
    y.backward()
    assert x.grad.tolist() == [4.0, 4.0]
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()


def test_hooks_run_in_order_and_retain_grad_last():
    x = leaf(1.0, 2.0)
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: g * 10)
    y.register_hook(lambda g: g + 1)
    y.sum().backward()
    assert y.grad.tolist() == [11.0, 11.0] and x.grad.tolist() == [22.0, 22.0]
    log = []
    x = leaf(1.0)
    x.register_post_accumulate_grad_hook(lambda p: log.append(p.grad.item()))
    handle = x.register_hook(lambda g: log.append("hook"))
    (x * 3).sum().backward()
    handle.remove()
    (x * 3).sum().backward()
    assert log == ["hook", 3.0, 6.0]


def test_retained_gradient_follows_an_inplace_op():
    x = leaf(1.0, 2.0)
    h = x * 1
    h.retain_grad()
    h.mul_(2)
    h.sum().backward()
    assert h.grad.tolist() == [1.0, 1.0] and x.grad.tolist() == [2.0, 2.0]


def test_hooks_of_a_node():
    x = leaf(1.0, 2.0)
    y = x * 2
    y.grad_fn.register_prehook(lambda gs: (gs[0] * 5,))
    y.grad_fn.register_hook(lambda into, out: tuple(g if g is None else g + out[0] for g in into))
    y.sum().backward()
    assert x.grad.tolist() == [15.0, 15.0]


def test_grad_of_unused_inputs():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    assert grad((x * 2).sum(), [x, y], allow_unused=True)[1] is None
    assert grad((x * 2).sum(), [x, y], materialize_grads=True)[1].tolist() == [0.0, 0.0]
    with pytest.raises(RuntimeError, match="at index 1 appears to not have been used"):
        grad((x * 2).sum(), [x, y])
    with pytest.raises(ValueError, match="allow_unused"):
        grad((x * 2).sum(), [x, y], allow_unused=False, materialize_grads=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        grad((x * 2).sum(), [weft.ones(1)])


def test_batched_cotangents_are_one_row_each():
    x = leaf(1.0, 2.0)
    (rows,) = grad(x**3, [x], weft.eye(2), is_grads_batched=True)
    assert rows.tolist() == [[3.0, 0.0], [0.0, 12.0]]


def test_backward_of_chosen_inputs():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    h = x * y
    h.sum().backward(inputs=[x])
    assert x.grad.tolist() == [3.0, 4.0] and y.grad is None
    h = x * 1
    h.retain_grad()
    h.sum().backward(inputs=[h])
    assert h.grad.tolist() == [1.0, 1.0] and x.grad.tolist() == [3.0, 4.0]
    with pytest.raises(RuntimeError, match="cannot be empty"):
        h.sum().backward(inputs=[])


def test_gradients_share_no_memory():
    x, y = leaf(1.0, 2.0), leaf(1.0, 2.0)
    given = weft.ones(2)
    (x + y).backward(given)
    x.grad.add_(1)
    assert y.grad.tolist() == [1.0, 1.0] and given.tolist() == [1.0, 1.0]
    x = leaf(1.0, 2.0)
    x.sum().backward()
    assert x.grad.is_contiguous()  # the cotangent of a sum repeats one element
    x.grad.add_(weft.tensor([1.0, 2.0]))
    assert x.grad.tolist() == [2.0, 3.0]


def test_gradient_is_added_in_place():
    x = leaf(1.0, 2.0)
    x.grad = held = weft.ones(2)
    (x * 2).sum().backward()
    assert x.grad is held and held.tolist() == [3.0, 3.0]


def test_double_backward():
    x = leaf(1.0, 2.0, 3.0)
    (g,) = grad((x**3).sum(), [x], create_graph=True)
    assert grad(g.sum(), [x])[0].tolist() == [6.0, 12.0, 18.0]


def test_deep_chains_neither_recurse_nor_overflow_when_freed():
    x = leaf(1.0)
    y = x * 1
    for _ in range(20_000):
        y = y * 1.0
    y.sum().backward()
    assert x.grad.tolist() == [1.0]
    y = x * 1
    for _ in range(50_000):
        y = y * 1.0
    del y


def test_backward_errors():
    with pytest.raises(RuntimeError, match="implicitly created only for scalar outputs"):
        (leaf(1.0, 2.0) * 2).backward()
    with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
        weft.ones(1).backward()
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        (leaf(1.0, 2.0) * 2).backward(weft.ones(3))
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        leaf(1.0).add_(1)


def test_the_tape_holds_no_cycles():
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        h = x * 2
        h.mul_(leaf(3.0, 4.0))
        y = h.exp()
        y.retain_grad()
        refs = [weakref.ref(h), weakref.ref(y)]
        y.sum().backward()
        del h, y
        assert [r() for r in refs] == [None, None]
    finally:
        gc.enable()


def test_reductions_keep_no_operand():
    x = leaf(1.0, 2.0)
    h = x * 1
    ref = weakref.ref(h)
    y = h.sum()
    del h
    assert ref() is None and y.requires_grad


def test_a_cotangent_of_another_dtype_is_cast():
    x = leaf(1.0, 2.0)
    (x.double() * 2).sum().backward()
    assert x.grad.dtype is weft.float32


def test_no_grad_around_a_generator_holds_inside_only():
    @weft.no_grad()
    def numbers():
        yield weft.is_grad_enabled()
        yield weft.is_grad_enabled()

    inside = []
    for value in numbers():
        inside.append((value, weft.is_grad_enabled()))
    assert inside == [(False, True), (False, True)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 0, 1)], ids=str)
def test_gradients_of_selects_that_lie_side_by_side(order):
    """Attention makes those of queries, keys and values in one memory; theirs is a copy."""
    weft.manual_seed(0)
    x, g = weft.randn(3, 2, 3, 5, 4, requires_grad=True), weft.randn(2, 3, 5, 4)
    kept = []

    def through(x):
        parts = x.unbind(0)
        q, k, v = (parts[i] for i in order)
        for part in (q, k, v):
            part.register_hook(kept.append)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    through(x).backward(g)
    with weft.no_grad():
        alone = [x[i].clone().requires_grad_() for i in range(3)]
    F.scaled_dot_product_attention(*(alone[i] for i in order), is_causal=True).backward(g)
    want = weft.stack([weft.zeros_like(a) if a.grad is None else a.grad for a in alone])
    assert weft.equal(x.grad, want)
    assert x.grad.stride() == x.stride() and x.grad._base is None
    for seen in kept:
        seen.mul_(0.0)
    assert weft.equal(x.grad, want)


def test_a_stack_of_pieces_of_one_view():
    base = weft.arange(24.0).reshape(2, 3, 4)

    class Given(weft.autograd.Function):
        @staticmethod
        def forward(ctx, a, b, pieces):
            ctx.pieces = pieces
            return a + b

        @staticmethod
        def backward(ctx, g):
            return *ctx.pieces, None

    for pieces, want in (
        ((base[0], base[1]), base),
        ((base[1], base[0]), base.flip(0)),
        ((base[0], base[0]), weft.stack((base[0], base[0]))),
        ((base[0, :, 1:3], base[1, :, 1:3]), base[:, :, 1:3]),
    ):
        x = weft.zeros(*want.shape, requires_grad=True)
        Given.apply(*x.unbind(0), pieces).sum().backward()
        assert weft.equal(x.grad, want), want
        assert weft.equal(base, weft.arange(24.0).reshape(2, 3, 4))


@pytest.mark.parametrize("leaf", [True, False])
def test_a_hook_answers_with_a_gradient_of_the_same_shape_and_dtype(leaf):
    answers = [(5, TypeError), ("g", TypeError), (weft.ones(4), RuntimeError),
               (weft.ones(()), RuntimeError), (weft.ones(3).double(), RuntimeError)]  # fmt: skip
    for answer, error in answers:
        x = weft.ones(3, requires_grad=True)
        y = x * 2
        (x if leaf else y).register_hook(lambda g, answer=answer: answer)
        with pytest.raises(error, match="hook"):
            y.sum().backward()
        assert x.grad is None
    x = weft.ones(3, requires_grad=True)
    x.register_hook(lambda g: weft.full((3,), 7.0))
    (x * 2).sum().backward()
    assert x.grad.tolist() == [7.0] * 3


def test_a_write_to_a_detached_tensor_stays_off_the_tape_of_the_other():
    x = weft.ones(2, requires_grad=True)
    z, w = x * 2, weft.tensor([3.0, 4.0], requires_grad=True)
    d = z.detach()
    d.mul_(w)
    z.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, 2.0]
    assert w.grad is None and z.tolist() == d.tolist() == [6.0, 8.0]
    d.sum().backward()
    assert w.grad is not None and w.grad.tolist() == [2.0, 2.0]


def test_views_of_a_detached_tensor_stay_off_the_tape():
    x = weft.ones(2, 2, requires_grad=True) * 2
    d = x.detach()
    views = [d.t(), d[0], d.expand(2, 2, 2), d.as_strided((2,), (1,)), x[1:].detach()[0]]
    x.pow_(2)
    assert x.requires_grad and not any(v.requires_grad for v in [d, *views])
    assert all((v == 4).all() for v in views)


def test_a_view_of_a_detached_leaf_is_not_written():
    d = (weft.ones(2, requires_grad=True) * 2).detach().requires_grad_()
    with pytest.raises(RuntimeError, match="a view of a leaf"):
        d[0].mul_(2)
    assert d.tolist() == [2.0, 2.0]
    (d.as_strided((1,), (1,), 1) * 3).sum().backward()
    assert d.grad is not None and d.grad.tolist() == [0.0, 3.0]


@pytest.mark.parametrize("wanted", [False, True])
def test_as_strided_reads_the_memory_of_a_turned_tensor(wanted):
    leaf = weft.arange(6.0).reshape(2, 3).requires_grad_(wanted)
    turned = [leaf.t().clone(), (leaf * 1).t_(), (leaf * 1).swapaxes_(0, 1)]
    for x in turned:
        assert x.stride() == (1, 3)
        y = x.as_strided((2,), (1,), 1)
        assert y.tolist() == [1.0, 2.0]
        if wanted:
            leaf.grad = None
            (y * weft.tensor([1.0, 10.0])).sum().backward()
            assert leaf.grad is not None
            assert leaf.grad.tolist() == [[0.0, 1.0, 10.0], [0.0, 0.0, 0.0]]


def test_a_leaf_that_wants_no_gradient_any_more_gets_none():
    x = weft.ones(3, requires_grad=True)
    y = (x * x).sum()
    x.requires_grad_(False)
    y.backward()
    assert x.grad is None


def test_sub_in_place_says_what_does_not_fit():
    x = weft.ones(2, 2)
    for f in (x.sub_, x.add_, x.mul_):
        with pytest.raises(RuntimeError, match="size of tensor a"):
            f(weft.ones(3, 1))
    bools = x > 0
    with pytest.raises(RuntimeError, match="Subtraction"):
        bools.sub_(bools)
    assert bools.add_(bools).all() and (bools.clone().mul_(bools)).all()
