"""Random programs over random views: native code against the reference, bit for bit."""

import random

import numpy as np
import pytest

from tests.kernels.run import launched, of, thread_count
from tests.kernels.test_reduce import strict
from weft.core import dtype as D
from weft.core import scalar as S
from weft.kernels import eager
from weft.kernels.schedule.combine import accumulator

ROWS = {  # rows whose bits NumPy fixes
    D.FLOAT: "add sub mul neg abs min max floor sqrt sign",
    D.INT: "add sub mul neg abs min max sign and or xor",
    D.BOOL: "and or xor not",
}


class Draw:
    """Random shapes, views and expressions from one seed."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)
        self.rng = np.random.default_rng(seed)

    def shape(self) -> tuple[int, ...]:
        rank = self.pick.choice([0, 1, 2, 2, 3, 4])
        if rank == 1 and self.pick.random() < 0.3:
            return (9000,)
        sizes = [1, 2, 3, 5, 16, 17, 33, 70] if rank < 3 else [1, 2, 3, 7, 17]
        return tuple(self.pick.choice(sizes) for _ in range(rank))

    def view(self, shape: tuple[int, ...], d: D.dtype) -> np.ndarray:
        """A view with gaps, in another order of dims, partly reversed."""
        order = list(range(len(shape)))
        if self.pick.random() < 0.5:
            self.pick.shuffle(order)
        steps = [self.pick.choice([1, 1, 2]) for _ in shape]
        room = [shape[k] * steps[k] + self.pick.choice([0, 3]) for k in order]
        x = np.asarray(self.rng.standard_normal(room) * 20)
        x = np.asarray(x if d.is_signed else abs(x)).astype(d.np)  # -1.0 as a uint8: CPUs differ
        x = x.transpose(np.argsort(order)) if shape else x
        for k, n in enumerate(shape):
            x = np.moveaxis(np.moveaxis(x, k, 0)[: n * steps[k] : steps[k]], 0, k)
            if self.pick.random() < 0.2:
                x = np.flip(x, k)
        return x

    def part(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts to `shape`."""
        return tuple(n if self.pick.random() < 0.7 else 1 for n in shape)

    def expr(self, depth: int, leaves: list[S.Expr]) -> S.Expr:
        if depth == 0:
            return self.pick.choice(leaves)
        a = self.expr(depth - 1, leaves)
        if self.pick.random() < 0.2:
            return S.cast(a, self.pick.choice(D.ALL))
        name = self.pick.choice(ROWS[a.dtype.category].split())  # type: ignore[index]
        if S.TABLE[name].arity == 1:
            return S.apply(name, a)
        b = S.cast(self.expr(depth - 1, leaves), a.dtype)
        return S.where(S.lt(a, b), b, a) if self.pick.random() < 0.1 else S.apply(name, a, b)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.all((a == b) | ((a != a) & (b != b))))


@pytest.mark.parametrize("seed", range(40))
def test_nest_and_its_reduction(seed: int) -> None:
    draw = Draw(seed)
    shape = draw.shape()
    dtypes = [draw.pick.choice(D.ALL) for _ in range(draw.pick.choice([1, 2, 3]))]
    xs = [draw.view(draw.part(shape) if i else shape, d) for i, d in enumerate(dtypes)]
    e = draw.expr(draw.pick.choice([1, 2, 3]), [S.Arg(i, d) for i, d in enumerate(dtypes)])
    want = np.broadcast_to(S.evaluate(e, tuple(xs)), shape)
    with thread_count(draw.pick.choice([1, 2, 3])):
        out = np.empty(shape, e.dtype.np)
        launched(eager.plan_elementwise(e, [of(x) for x in xs], of(out)), out, *xs)
        assert same(out, want), e
        if not shape:
            return
        dims = tuple(sorted(draw.pick.sample(range(len(shape)), draw.pick.randint(1, len(shape)))))
        for kind, op, start in (("sum", np.add, 0), ("max", np.maximum, None)):
            acc = accumulator(kind, e.dtype).np
            wide = want.astype(acc)
            with np.errstate(all="ignore"):
                exact = strict(op, start, wide, dims) if start is not None else wide.max(axis=dims)
            got = np.empty(np.shape(exact), acc)
            launched(
                eager.plan_reduce(kind, e, dims, False, [of(x) for x in xs], of(got)), got, *xs
            )
            assert same(got, exact), (kind, dims, e)
