"""A product that ends over the memory of an operand of its ending: no element is ended twice."""

import numpy as np
import pytest

import weft
from tests.compile.agree import bits


@pytest.mark.parametrize("pack", [True, False], ids=["packed", "as it lies"])
@pytest.mark.parametrize("turned", [(0, 1, 0), (1, 1, 1), (0, 0, 1)], ids=str)
def test_one_row_by_several_matrices(rng, turned, pack):
    """Columns beside the last whole unit of a row's product are summed twice (kernels' gemv)."""
    for k, n in ((8, 17), (383, 63), (64, 65), (31, 127), (5, 64), (400, 200)):
        draw = lambda *shape: weft.from_numpy(rng.standard_normal(shape).astype(np.float32))
        ws = [draw(n, k).t() if t else draw(k, n) for t in turned]
        b, x = draw(n), draw(1, k)

        def f(x, ws=ws, b=b):
            one, two, three = (x @ w + b for w in ws)
            return one * two + three

        with weft.no_grad():
            run = weft.compile(f, options={"cpp.weight_prepack": pack})
            want = bits(f(x))
            assert [bits(run(x)) for _ in range(4)] == [want] * 4, (k, n)
