"""weft.compile: the same bits as eager, whatever Python does between the ops."""

from __future__ import annotations

from typing import assert_type, get_args, get_origin, get_overloads, get_type_hints

import pytest

import weft
from tests.compile.agree import bits, same, tensor
from weft.compile import CompiledFunction, api


def test_training_step_with_changing_rate_and_shapes():
    def make():
        w = tensor(5, 4, requires_grad=True)
        m = weft.zeros(5, 4)

        def step(x, lr):
            w.grad = None
            loss = ((x @ w.t()).tanh() ** 2).mean()
            loss.backward()
            with weft.no_grad():
                m.mul_(0.9).add_(w.grad)
                w.sub_(m * lr)
            return loss

        return step, lambda i: (tensor(3 + i % 2, 4, seed=i), 0.1 / (i + 1)), lambda: (w, m, w.grad)

    fn = same(make, 8)
    assert fn.stats["programs"] == 2  # one a batch size; the rate is an operand
    assert fn.stats["op_by_op"] == 0


def test_value_demand_takes_the_branch_of_each_call():
    def make():
        taken = []

        def f(x):
            y = x.exp().sum()
            if y.item() > 20:
                taken.append("big")
                return y * 2
            taken.append("small")
            return y - 1, x + y

        return f, lambda i: (tensor(6, seed=i) * (2.0 if i % 2 else 0.1),), lambda: tuple(taken)

    same(make, 8)


def test_python_side_effects_happen_on_every_call():
    seen = []

    def f(x):
        seen.append(1)
        return x * 2

    c = weft.compile(f)
    for _ in range(5):
        c(tensor(3))
    assert len(seen) == 5


def test_loop_of_varying_length():
    def make():
        w = tensor(4, 4)

        def f(x, n):
            for _ in range(n):
                x = (x @ w).tanh()
            return x

        return f, lambda i: (tensor(2, 4, seed=i), 1 + i % 3), lambda: ()

    same(make, 9)


def test_writes_through_views_show_in_the_base_and_other_views():
    def make():
        base = tensor(4, 5)
        outer = base[1]

        def f(x):
            row = base[2]
            row.mul_(2.0)
            base[:, 1].add_(x)
            y = base.sum() + row.sum()
            base.t()[0].zero_()
            return y, row, base[0] + 1

        return f, lambda i: (tensor(4, seed=i),), lambda: (base, outer)

    same(make)


def test_write_then_read_before_and_after():
    def make():
        a, b = tensor(3, seed=1), tensor(3, seed=2)

        def swap():
            old = a.clone()
            before = a + 0.5
            a.copy_(b)
            b.copy_(old)
            return before, a * 1.0, b * 1.0

        return swap, lambda i: (), lambda: (a, b)

    same(make)


def test_results_that_are_views_inputs_or_the_same_twice():
    def make():
        x = tensor(4, 3)

        def f():
            y = x * 2
            return x, x.t(), y, y, y.t(), y[1:3], y.reshape(-1)

        return f, lambda i: (), lambda: (x,)

    same(make)


def test_a_view_result_shares_memory_with_its_base():
    def f(x):
        y = x * 2
        return y, y[0]

    c = weft.compile(f)
    for _ in range(3):
        y, row = c(tensor(3, 2))
        row.fill_(7.0)
        assert y[0].tolist() == [7.0, 7.0]


def test_two_handles_of_one_memory():
    def make():
        p = tensor(4, requires_grad=True)

        def f(x):
            y = (p * x).sum()
            p.data.add_(x)
            return y, p.detach() * 2

        return f, lambda i: (tensor(4, seed=i),), lambda: (p,)

    same(make)


def test_overlapping_outside_views_fall_back_and_stay_right():
    def make():
        base = tensor(6)
        left, right = base[:4], base[2:]

        def f():
            left.add_(1.0)
            right.mul_(2.0)
            return left + right

        return f, lambda i: (), lambda: (base,)

    same(make)


def test_strided_outside_tensors():
    def make():
        x = tensor(4, 6).t()
        y = tensor(6, 8)[:, ::2]

        def f(k):
            return x + y * k, (x * y).sum(0), x.t() @ y

        return f, lambda i: (float(i),), lambda: ()

    same(make)


def test_second_derivative_inside():
    def make():
        x = tensor(5, requires_grad=True)

        def f():
            y = (x * x * x).sum()
            (g,) = weft.autograd.grad(y, x, create_graph=True)
            (h,) = weft.autograd.grad(g.sum(), x)
            return g.detach(), h

        return f, lambda i: (), lambda: ()

    same(make)


def test_gradients_accumulate_over_calls():
    def make():
        w = tensor(3, requires_grad=True)

        def f(x):
            (w * x).sum().backward()

        return f, lambda i: (tensor(3, seed=i),), lambda: (w.grad,)

    same(make)


def test_tensor_hook_runs_on_each_call():
    def make():
        w = tensor(3, requires_grad=True)
        norms = []

        def f(x):
            y = w * x
            y.register_hook(lambda g: g * 2)
            w.grad = None
            y.sum().backward()
            norms.append(w.grad.sum().item())

        return f, lambda i: (tensor(3, seed=i),), lambda: tuple(norms)

    same(make)


def test_random_draws_follow_the_generator():
    def make():
        weft.manual_seed(3)

        def f(x):
            return x + weft.rand(4), weft.randn(20).sum()

        return f, lambda i: (tensor(4),), lambda: (weft.get_rng_state(),)

    same(make)


def test_seeding_inside_takes_effect_in_order():
    def make():
        def f(x):
            a = x + weft.rand(4)
            weft.manual_seed(7)
            return a, weft.rand(4)

        weft.manual_seed(1)
        return f, lambda i: (tensor(4),), lambda: ()

    same(make)


def test_exception_inside_leaves_eager_state():
    def make():
        b = tensor(3)

        def f(x):
            b.add_(x)
            if len(x) != 3:
                raise AssertionError
            try:
                return b @ weft.ones(4)
            except RuntimeError as e:
                return str(e)

        return f, lambda i: (tensor(3, seed=i),), lambda: (b,)

    same(make)


def test_exception_leaves_no_recorder_behind():
    def f(x):
        x + 1
        raise KeyError("out")

    c = weft.compile(f)
    for _ in range(3):
        with pytest.raises(KeyError):
            c(tensor(2))
    assert (tensor(2) + 1).tolist() is not None


def test_nested_compiled_functions_are_one():
    inner = weft.compile(lambda x: x * 2)
    outer = weft.compile(lambda x: inner(x) + 1)
    for _ in range(3):
        assert outer(weft.ones(2)).tolist() == [3.0, 3.0]


def test_index_out_of_range_raises_from_a_program():
    table = tensor(4, 3)
    c = weft.compile(lambda i: table.index_select(0, i) * 2)
    good = weft.tensor([0, 3])
    for _ in range(3):
        c(good)
    with pytest.raises(IndexError):
        c(weft.tensor([0, 9]))
    assert bits(c(good)) == bits(table.index_select(0, good) * 2)


def test_zero_size_and_one_element():
    def make():
        def f(x):
            return x * 2 + 1, x.sum(), x.sum(0), x.t()

        return f, lambda i: (tensor(i % 3, 4, seed=i),), lambda: ()

    same(make, 6)


def test_dtypes_and_casts():
    def make():
        def f(x):
            y = x.to(weft.bfloat16) * 1.5
            return y, y.float() + x, (x > 0).sum(), x.long() // 2, x.double().exp().float()

        return f, lambda i: (tensor(33, seed=i) * 5,), lambda: ()

    same(make)


def test_nan_and_infinity():
    def make():
        def f(x):
            return x / 0.0, (x - x) / (x - x), x.amax(), x.sum(), weft.maximum(x, -x)

        x = weft.tensor([1.0, -1.0, float("nan"), float("inf"), -0.0])
        return f, lambda i: (x,), lambda: ()

    same(make)


def test_a_third_size_is_not_recorded():
    def make():
        w = tensor(6, 4, requires_grad=True)

        def f(x):
            w.grad = None
            y = (x.reshape(x.shape[0], -1) @ w).tanh()
            ((y[1:] - y[:-1]) ** 2).mean().backward()
            return y.sum(0)

        sizes = (8, 3, 5, 12, 1, 8, 7)
        return f, lambda i: (tensor(sizes[i], 2, 3, seed=i),), lambda: (w.grad,)

    fn = same(make, 7)
    assert fn.stats["other_sizes"] == 4, fn.stats  # 5, 12, 1 and 7 follow from 8 and 3


def test_a_size_at_which_the_program_differs_is_recorded():
    def make():
        def f(x):
            y = x * 2
            if len(x) > 10:
                y = y + 1
            return y.sum()

        sizes = (4, 6, 20, 5, 30)
        return f, lambda i: (tensor(sizes[i], seed=i),), lambda: ()

    same(make, 5)


def test_sizes_of_two_dims_at_once():
    def make():
        def f(x):
            return (x @ x.t()).exp().sum(), x.t().reshape(-1)

        shapes = ((2, 3), (4, 3), (6, 3), (6, 5), (2, 7), (3, 4), (9, 9))
        return f, lambda i: (tensor(*shapes[i], seed=i),), lambda: ()

    same(make, 7)


def test_outside_views_at_an_offset():
    def make():
        data = tensor(10, 4)
        leaf = tensor(4, 4, requires_grad=True)

        def f(i):
            rows = data[i : i + 4]
            return g(rows)

        def g(rows):
            inner = rows[1:3]
            y = (inner @ leaf).sum(0)
            inner[0].mul_(0.5)
            rows.t()[2].add_(1.0)
            return y, inner, rows.t(), inner[:, 1:]

        compiled = []

        def call(i):
            if not compiled:
                compiled.append(weft.compile(g) if make.compiling else g)
            return compiled[0](data[i : i + 4])

        return call, lambda i: (i % 3,), lambda: (data,)

    runs = []
    for compiling in (False, True):
        make.compiling = compiling
        fn, arguments, state = make()
        runs.append([(bits(fn(*arguments(i))), bits(state())) for i in range(7)])
    assert runs[0] == runs[1]


def test_in_place_on_a_view_of_an_outside_view_has_gradients():
    def make():
        base = tensor(6, 3)
        w = tensor(3, requires_grad=True)

        def f():
            w.grad = None
            rows = base.clone()[2:5]
            rows[1] = w * 3.0
            rows[:, 0].mul_(2.0)
            (rows * rows).sum().backward()
            return rows.detach()

        return f, lambda i: (), lambda: (w.grad,)

    same(make, 5)


def test_results_held_differ_from_call_to_call():
    def make():
        kept = []

        def f(x, mask):
            values = [x + i for i in range(4)]
            kept[:] = [v for v, k in zip(values, mask, strict=True) if k]
            return values[-1] * 2

        masks = [(i & 1, i & 2, i & 4, i & 8) for i in range(16)]
        return f, lambda i: (tensor(3, seed=i), masks[i]), lambda: tuple(kept)

    fn = same(make, 16)
    assert fn.stats["programs"] <= 5


def test_values_computed_early_live_as_long_as_their_tensors():
    """One reference from outside keeps a value: how many Python counts differs by its version."""

    @weft.compile
    def f(x):
        y = x * 2
        if y.sum() > 0:  # all until here is computed, y with it
            z = y + 1
            if z.sum() > 0:
                return y * z
        return y

    for k in (1.0, 2.0, 3.0, -1.0, 4.0):
        y = 2 * k
        expected = y * (y + 1) if y > 0 else y
        assert f(weft.full((5,), k)).tolist() == [expected] * 5


def test_timing_steps_needs_no_memory_of_a_run():
    def f(x, i):
        return (x.t() @ x).exp()[i], x.sum(0)

    c = weft.compile(f)
    x, i = tensor(300, 40), weft.tensor([3, 39])
    wanted = bits(f(x, i))
    for _ in range(3):
        assert bits(c(x, i)) == wanted
    (made,) = programs(c._root)
    for _ in range(3):
        rows = made.program.time_steps(2)
        assert rows and all(seconds >= 0 for _, seconds in rows)
        assert bits(c(x, i)) == wanted


def programs(node):
    """All programs of a recorded trie."""
    found = list(node.programs.values())
    for child in node.children.values():
        found += programs(child)
    return found


def test_values_read_after_a_promised_write():
    def make():
        count, w, base = weft.tensor(0), tensor(3), tensor(2, 3, seed=1)
        seen = []

        def f(x):
            count.add_(1)
            seen.append(count.item())
            seen.append(1.0 / float(count))
            before = w * 2
            w.add_(x)
            same = w.detach()
            seen.append(w.tolist())
            w.mul_(0.5)
            seen.append(same.tolist())
            row = base[1]
            row.add_(x)
            seen.append(base.tolist())
            row.mul_(2.0)
            seen.append(row.tolist())
            y = x * 3
            seen.append(y.sum().item())
            part = y[1:]
            seen.append(part.tolist())
            y.add_(1)
            seen.append((part.tolist(), y.tolist()))
            if bool((base > 0).any()):
                base.sub_(0.1)
            return before, y, w + 1, base[0], same

        return f, lambda i: (tensor(3, seed=i),), lambda: (w, base, count, tuple(map(repr, seen)))

    fn = same(make, 7)
    assert fn.stats["op_by_op"] == 0


def test_debug_says_why_two_ops_are_apart(monkeypatch, capsys):
    monkeypatch.setenv("WEFT_DEBUG", "4")
    x, w = tensor(6, 7), tensor(7, 5)

    def f(x, w):
        y = (x @ w).exp()
        return y / y.sum(1, keepdim=True) + 1

    c = weft.compile(f)
    for _ in range(2):
        c(x, w)
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert "reads MatMul" not in text  # the first loop runs on the product's tiles
    assert "Sum at test_compile.py" in text and "read by others too" in text
    assert "Div at test_compile.py" in text and "reads Sum: Sum is a kernel of its own" in text
    assert "reads Div" not in text  # the addition is in the division's loop


def test_loops_that_grow_by_later_nodes_do_not_read_from_each_other():
    """The first loop takes in an op that reads the second, whose last op reads the first's."""

    def make():
        x, w, b = tensor(3, 8), tensor(8, 8, seed=1), tensor(8, seed=2)

        def step(x, w, b):
            first = x + 1
            product = first @ w
            second = weft.where(b > 0, 0.0, b)
            below = weft.minimum(second, first - first)
            largest = product.nan_to_num().mul(0.5).amax()
            return first, below, largest - second * 2

        return step, lambda i: (x + i, w, b), lambda: ()

    same(make)


def test_compile_keeps_the_functions_types():
    hints = [get_type_hints(f, localns=vars(api)) for f in get_overloads(weft.compile)]
    module, function, decorator = hints
    assert module["return"] is module["model"]  # a Module is what it was
    for made in (function["return"], get_args(decorator["return"])[-1]):
        assert get_origin(made) is CompiledFunction
        assert get_args(made) == get_args(function["model"])  # its arguments, its result

    def double(x: weft.Tensor) -> weft.Tensor:
        return x * 2

    assert_type(weft.compile(double)(weft.ones(1)), weft.Tensor)
