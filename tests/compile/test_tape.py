"""`backward()` matched as one node: eager's bits and side effects, whatever stands on the tape."""

from __future__ import annotations

import numpy as np
import pytest

import weft
from tests.compile.agree import bits
from weft import nn, optim
from weft.compile.tape import Walk
from weft.utils.checkpoint import checkpoint


def model_of():
    weft.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))


def walks(step):
    """How many backwards the trie knows as one node."""
    count, stack = 0, [step._root]
    while stack:
        node = stack.pop()
        count += sum(isinstance(j, Walk) for j in node.jumps.values())
        stack.extend(node.children.values())
    return count


class Scene:
    """A model, its optimizer, and a step to change."""

    def __init__(self):
        self.model = model_of()
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.seen = []
        self.zero = True

    def loss(self, x):
        return (self.model(x) ** 2).mean()

    def end(self, loss, x):
        loss.backward()

    def step(self, x):
        if self.zero:
            self.optimizer.zero_grad()
        loss = self.loss(x)
        self.end(loss, x)
        self.optimizer.step()
        return loss.detach()

    def between(self, i):
        pass


def alike(kind, calls=9, *, expect=1):
    """Eager and compiled runs agree after each call; `expect` backwards became one node."""
    histories = []
    for wrap in (lambda f: f, weft.compile):
        scene = kind()
        step = wrap(scene.step)
        rng, history = np.random.default_rng(1), []
        for i in range(calls):
            scene.between(i)
            x = weft.tensor(rng.standard_normal((3, 4)).astype(np.float32))
            try:
                out = [step(x)]
            except RuntimeError as e:
                out = [str(e)[:60]]
            params = list(scene.model.parameters())
            versions = [p._version for p in params] + [
                None if p.grad is None else p.grad._version for p in params
            ]
            grads = [0 if p.grad is None else p.grad for p in params]
            history.append((bits([out, params, grads]), versions, list(scene.seen)))
        histories.append(history)
    for i, (a, b) in enumerate(zip(*histories, strict=True)):
        assert a == b, f"call {i} differs"
    if expect is not None:
        assert walks(step) == expect
    return step


def test_a_training_step():
    step = alike(Scene)
    assert step.stats["op_by_op"] == 0


class Hooked(Scene):
    """A hook on a result, on a leaf, after accumulation and on a node, for some calls each."""

    def loss(self, x):
        y = self.model[:2](x)
        if self.on == "result":
            y.register_hook(lambda g: self.seen.append(g.sum().item()) or g * 2)
        if self.on == "node":
            y.grad_fn.register_hook(lambda new, given: self.seen.append(len(new)))
        if self.on == "retain":
            y.retain_grad()
            self.kept = y
        return self.model[2:](y).sum()

    def end(self, loss, x):
        super().end(loss, x)
        if self.on == "retain":
            self.seen.append(float(self.kept.grad.sum()))

    def between(self, i):
        self.on = {2: "result", 4: "node", 7: "retain"}.get(i)
        leaf = self.model[0].weight
        if i == 3:
            self.handle = leaf.register_hook(lambda g: self.seen.append(1))
        if i == 5:
            self.handle.remove()
            self.handle = leaf.register_post_accumulate_grad_hook(
                lambda t: self.seen.append(float(t.grad.sum()))
            )
        if i == 6:
            self.handle.remove()


def test_hooks_are_called():
    alike(Hooked, 12)


class Twice(Scene):
    """The graph is kept, and walked again: the second adds to the gradients."""

    def end(self, loss, x):
        loss.backward(retain_graph=True)
        loss.backward()


class Freed(Scene):
    def end(self, loss, x):
        loss.backward()
        loss.backward()


def test_a_second_backward():
    alike(Twice)
    alike(Freed, expect=None)


class Accumulate(Scene):
    def between(self, i):
        self.zero = i % 3 == 0


def test_gradients_are_added_to():
    alike(Accumulate)


class Freeze(Scene):
    """Other leaves want a gradient, and a part of the model is cut off, from call to call."""

    def between(self, i):
        self.model[0].weight.requires_grad_(i % 4 != 3)
        self.cut = i % 3 == 2

    def loss(self, x):
        y = self.model[:2](x)
        return self.model[2:](y.detach() if self.cut else y).sum()


def test_the_tape_decides_not_the_path():
    step = alike(Freeze, 14, expect=None)
    assert walks(step) >= 2


class Scaled(Scene):
    """A number that the rules multiply by: a new one each call, then one that stays."""

    def between(self, i):
        self.scale = float(min(i, 5)) - 0.5

    def loss(self, x):
        return (self.model(x) * self.scale).sum()


def test_numbers_of_the_tape():
    step = alike(Scaled, 12, expect=None)
    assert walks(step) >= 1
    first = alike(lambda: _negative(0.0), 8, expect=None)
    assert walks(first) == 2  # 0.0 and -0.0 are two numbers


def _negative(start):
    scene = Scaled()
    scene.between = lambda i: setattr(scene, "scale", start if i % 2 else -start)
    return scene


def test_how_many_tapes_are_kept_is_bounded():
    class Many(Scaled):
        def between(self, i):
            self.scale = float(i)

    step = alike(Many, 30, expect=None)
    assert walks(step) <= 8


class Square(weft.autograd.Function):
    calls = 0

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        Square.calls += 1
        (x,) = ctx.saved_tensors
        return 2 * x * g


class Custom(Scene):
    def loss(self, x):
        return Square.apply(self.model(x)).sum()


class Checkpointed(Scene):
    def loss(self, x):
        return self.model[2:](checkpoint(self.model[:2], x, use_reentrant=False)).sum()


class Graph(Scene):
    def end(self, loss, x):
        loss.backward(create_graph=True)
        penalty = sum((p.grad**2).sum() for p in self.model.parameters())
        self.optimizer.zero_grad()
        penalty.backward()


class Some(Scene):
    def end(self, loss, x):
        loss.backward(inputs=[self.model[0].weight])


class Packed(Scene):
    def loss(self, x):
        with weft.autograd.graph.saved_tensors_hooks(
            lambda t: self.seen.append(tuple(t.shape)) or t, lambda t: t
        ):
            return self.model(x).sum()


@pytest.mark.parametrize("kind", [Custom, Checkpointed, Graph, Some, Packed])
def test_what_goes_op_by_op(kind):
    alike(kind, 6, expect=None)
    before, step = Square.calls, weft.compile(Custom().step)
    for _ in range(5):
        step(weft.ones(3, 4))
    assert Square.calls == before + 5


class Spoiled(Scene):
    """A saved operand is written to before backward, on one call."""

    def between(self, i):
        self.spoil = i == 5

    def loss(self, x):
        y = self.model(x)
        z = y * y
        if self.spoil:
            y.add_(1)
        return z.sum()


def test_a_changed_operand_is_told():
    alike(Spoiled)


class Looks(Scene):
    """Values are looked at before and after backward, on some calls."""

    def between(self, i):
        self.i = i

    def end(self, loss, x):
        if self.i % 3 == 1:
            self.seen.append(loss.item())
        super().end(loss, x)
        if self.i % 4 == 2:
            self.seen.append([p.grad.sum().item() for p in self.model.parameters()])


def test_values_may_be_looked_at():
    alike(Looks, 14)


class Differs(Scene):
    """After a matched backward comes an op that the trie does not have."""

    def between(self, i):
        self.i = i

    def end(self, loss, x):
        super().end(loss, x)
        for p in self.model.parameters():
            if self.i == 5:
                p.grad = p.grad * 0.5
            if self.i == 7:
                p.grad.clamp_(-0.01, 0.01)


def test_the_path_may_fork_behind_it():
    alike(Differs, 10)


def test_a_leaf_that_gets_nothing():
    class Where(Scene):
        def loss(self, x):
            y = self.model(x)
            return y.sum() + (self.model[0].bias.round() * 0).sum()

    alike(Where, expect=None)


def test_sizes_and_autocast():
    class Sizes(Scene):
        def between(self, i):
            self.n, self.half = (3, 2, 3, 1)[i % 4], i % 5 == 4

        def loss(self, x):
            with weft.autocast("cpu", weft.bfloat16, enabled=self.half):
                return self.model(x[: self.n]).float().sum()

    alike(Sizes, 24, expect=None)


def test_user_ops_have_a_say():
    """An op whose rules are not Weft's may do anything in them."""
    from weft.compile import tape

    class Stranger:
        __module__ = "somewhere"

    assert not tape._is_ours(Stranger())
    assert tape._is_ours(weft.ops.arithmetic.Add())
