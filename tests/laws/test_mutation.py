"""The laws catch wrong rules: each mutant of an op's vjp must break one.

A mutant does what a slip of the pen does: a lost factor, a lost sign, a lost operand, a lost sum
over broadcast dims, a stale operand.
"""

import pytest

import weft
from tests.laws.checks import LAWS, Broken, Idle, check
from weft.autograd import engine
from weft.core import sampling
from weft.core.op import REGISTRY

# ops of every kind: broadcast pairs, unary, reductions, views and their adjoints, contraction
OPS = (
    "Add", "Sub", "Mul", "Div", "Pow", "Atan2", "Where", "Exp", "Sqrt", "Tanh", "Lgamma", "Relu",
    "Sum", "Prod", "AMax", "Reshape", "Permute", "Expand", "Slice", "SliceBack", "AsStrided",
    "WriteStrided", "Concat", "MatMul",
)  # fmt: skip
GRADIENT_LAWS = ("vjp", "double_vjp", "jvp")


def caught(op: str) -> str | None:
    """The first gradient law that some sample of the op breaks."""
    for index in range(len(REGISTRY[op].samples)):
        for name in GRADIENT_LAWS:
            try:
                check(name, op, index)
            except Idle:
                continue
            except Broken:
                return name
    return None


def changed(rule, change):
    """The vjp rule with `change(position, cotangent)` applied to each cotangent."""

    def mutant(self, g, y, *xs):
        out = []
        for i, c in enumerate(rule(self, g, y, *xs)):
            c = c() if callable(c) and not isinstance(c, weft.Tensor) else c
            out.append(c if c is None else change(i, c))
        return tuple(out)

    return mutant


CHANGES = {
    "doubled": lambda i, c: c * 2.0,
    "negated": lambda i, c: -c,
    "a little off": lambda i, c: c * 1.001,
    "first lost": lambda i, c: c * 0.0 if i == 0 else c,
    "largest element lost": lambda i, c: c * (c.abs() < c.abs().amax()) if c.numel() else c,
    "detached": lambda i, c: c.detach(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("op", OPS)
def test_wrong_cotangent_is_caught(op, change, monkeypatch):
    cls = REGISTRY[op]
    if change == "first lost" and op == "Where":
        pytest.skip("the condition has no cotangent to lose")
    monkeypatch.setattr(cls, "vjp", changed(cls.vjp, CHANGES[change]))
    assert caught(op), f"no law saw that {op}'s cotangents are {change}"


@pytest.mark.parametrize("op", ["Sub", "Mul", "Div", "Pow", "Atan2", "Where", "Concat", "MatMul"])
def test_each_lost_operand_is_caught(op, monkeypatch):
    cls = REGISTRY[op]
    rule = cls.vjp
    for position in range(1, 3 if op == "Where" else 2):
        mutant = changed(rule, lambda i, c, at=position: c * 0.0 if i == at else c)
        monkeypatch.setattr(cls, "vjp", mutant)
        assert caught(op), f"no law saw that {op}'s cotangent {position} is zero"


@pytest.mark.parametrize("op", ["Add", "Mul", "Sub", "Maximum"])
def test_missing_unbroadcast_is_caught(op, monkeypatch):
    assert caught(op) is None
    monkeypatch.setattr(engine, "sum_to", lambda c, shape: c)  # an addition would broadcast
    assert caught(op), "an unsummed cotangent went through"


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_pick_instead_of_sum_is_caught(op, monkeypatch):
    def pick(c, shape):
        while c.ndim > len(shape):
            c = c.select(0, 0)
        for d, n in enumerate(shape):
            c = c.narrow(d, 0, n)
        return c

    monkeypatch.setattr(engine, "sum_to", pick)
    assert caught(op)


def test_wrong_values_are_caught(monkeypatch):
    """The other laws are no formality either."""
    relu = REGISTRY["Relu"]
    for name in ("_calls", "call", "quick", "into", "_uses"):  # what other tests had it learn
        vars(relu()).pop(name, None)
    plan, rule = relu.plan, relu.vmap
    monkeypatch.setattr(relu, "oracle", lambda self, x: x)
    assert broken("value", "Relu")
    monkeypatch.undo()
    monkeypatch.setattr(relu, "type", lambda self, x: type(x)(x.shape[::-1], x.dtype))
    assert broken("types", "Relu")
    monkeypatch.undo()
    monkeypatch.setattr(relu, "vmap", lambda self, size, dims, x: (rule(self, size, dims, x)[0], 1))
    assert broken("vmap", "Relu")
    monkeypatch.undo()
    monkeypatch.setattr(relu, "host", lambda self, x: x)
    assert broken("purity", "Relu")
    monkeypatch.undo()
    monkeypatch.setattr(relu, "host", lambda self, x: x * 0 + x.strides[0], raising=False)
    assert broken("layout", "Relu")
    monkeypatch.undo()
    assert relu.plan is plan and not broken("value", "Relu")


def broken(law: str, op: str) -> bool:
    assert law in LAWS
    for made in REGISTRY[op]._interned.values():  # as new: a native form is of the rules as they
        for name in ("call", "_calls", "_uses"):  # were, and after many uses NumPy gives way to it
            vars(made).pop(name, None)
    before = sampling.draw(op, 0)
    try:
        check(law, op, 0)
    except Broken:
        return True
    assert (sampling.draw(op, 0)[0] == before[0]).all()
    return False
