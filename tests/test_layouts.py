"""How copies, casts and `*_like` tensors lie in memory: as torch's (tests/fixtures/layouts.json),
in eager and in compiled functions, with the same bits.
"""

import copy
import json
from pathlib import Path

import pytest

import weft
from tests.compile.agree import bits
from tests.fixtures.make_layouts import CALLS, CASES

FOUND = json.loads((Path(__file__).parent / "fixtures/layouts.json").read_text("utf-8"))


def told(shape, strides):
    """The strides that say where an element lies."""
    if 0 in shape:
        return []
    return [s for n, s in zip(shape, strides, strict=True) if n > 1]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_strides_are_torchs(case):
    size, stride = case
    x = weft.arange(400, dtype=weft.float32).as_strided(size, stride)
    for call in CALLS:
        asked = compile(call, call, "eval")
        want = told(size, FOUND[f"{size} {stride} {call}"])
        ask = lambda x, asked=asked: eval(asked, {"T": weft, "x": x})
        y = ask(x)
        assert told(y.shape, y.stride()) == want, call
        copied = "like" not in call
        if copied:
            assert y.tolist() == ask(x.contiguous()).tolist()
        run = weft.compile(lambda x, ask=ask: (ask(x + 0.0), ask(x)))
        for _ in range(3):
            z = run(x)[1]
            assert told(z.shape, z.stride()) == want, call
            assert not copied or bits(z) == bits(y)


def test_what_is_made_so_is_a_tensor_like_others():
    """Gradients, writes in place, copies of modules, other sizes in a compiled function."""
    weft.manual_seed(0)
    x = weft.randn(2, 3, 4, 5).contiguous(memory_format=weft.channels_last).requires_grad_()

    def f(x):
        y = x.clone()
        y[:, 1] *= 2.0
        y.add_(1.0)
        return y.square(), y.double()

    f(x)[0].sum().backward()
    rows = weft.ones(3)
    rows[1] = 2.0
    scale = rows.reshape(3, 1, 1)
    assert weft.allclose(x.grad, 2 * (scale * x.detach() + 1) * scale)
    run = weft.compile(f)
    for n in (2, 3, 2, 5, 4):
        x = weft.randn(n, 3, 4, 5).contiguous(memory_format=weft.channels_last)
        got, want = run(x), f(x)
        assert bits(got) == bits(want)
        assert got[1].stride() == want[1].stride() == (60, 1, 15, 3)
    layer = weft.nn.Conv2d(3, 4, 2).to(memory_format=weft.channels_last)
    twin = copy.deepcopy(layer)
    assert twin.weight.stride() == layer.weight.stride() == (12, 1, 6, 3)
    assert layer.bfloat16().weight.is_contiguous(memory_format=weft.channels_last)
