"""Law 4: a compiled op gives eager's bits.  Runs where weft.compile exists."""

import numpy as np
import pytest

import weft
from tests.laws.checks import Idle, is_pure, need_same, run, tensors
from weft.core import sampling
from weft.core.op import REGISTRY
from weft.ops.dispatch import apply

CASES = list(sampling.cases())

pytestmark = pytest.mark.skipif(
    not callable(getattr(weft, "compile", None)), reason="no weft.compile"
)


@pytest.mark.parametrize(("name", "index"), CASES, ids=[f"{n}-{i}" for n, i in CASES])
def test_compiled_is_eager(name, index):
    op = sampling.op_of(name, index)
    try:
        is_pure(op)
    except Idle:
        return
    args = sampling.draw(name, index)
    if not any(isinstance(a, np.ndarray) for a in args):
        return
    want = run(op, args)
    program = weft.compile(lambda *xs: apply(op, *xs))
    for call in range(3):  # recorded, made, matched
        with weft.no_grad():
            got = np.ascontiguousarray(program(*tensors(args))._a)
        need_same(got, np.ascontiguousarray(want), f"call {call} of {op} compiled")


DTYPES = (np.float32, np.complex64)
DIFFERENTIABLE = sorted(n for n, c in REGISTRY.items() if c.nondiff is None)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_compiled_gradient_is_eager(name):
    op = sampling.op_of(name, 0)
    args = sampling.draw(name, 0)
    where = [i for i, a in enumerate(args) if isinstance(a, np.ndarray) and a.dtype in DTYPES]
    if not where or run(op, args).dtype not in DTYPES:
        return

    def step(*xs):
        y = apply(op, *xs)
        loss = (y * y).sum()
        loss = loss.real if loss.is_complex() else loss
        return weft.autograd.grad(loss, [xs[i] for i in where], materialize_grads=True)

    def leaves():
        xs = tensors(args)
        for i in where:
            xs[i].requires_grad_()
        return xs

    want = [g._a.copy() for g in step(*leaves())]
    program = weft.compile(step)
    for call in range(3):
        for g, w in zip(program(*leaves()), want, strict=True):
            need_same(np.ascontiguousarray(g._a), np.ascontiguousarray(w), f"{name}, call {call}")
