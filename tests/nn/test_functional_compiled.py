"""Law 4 over torch.nn.functional: compiled calls have eager's bits, gradients and draws too."""

import pytest

import weft
import weft.nn.functional as F
from tests.nn.cases import CASES, leaves


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("entry", CASES, ids=[c[0] for c in CASES])
def test_compiled_has_eagers_bits(entry):
    _, fn, arrays, order = entry

    def step(*ts):
        y = fn(weft, F, *ts)
        wanted = [t for t in ts if t.requires_grad] if order else []
        if not wanted:
            return [y]
        grads = weft.autograd.grad((y * y).sum(), wanted, allow_unused=True)
        return [y, *(g for g in grads if g is not None)]

    weft.manual_seed(0)
    want = [[t.detach().numpy().tobytes() for t in step(*leaves(weft, arrays))] for _ in range(3)]
    weft.manual_seed(0)
    program = weft.compile(step)
    for call in range(3):  # recorded, made, matched; each call draws anew
        got = [t.detach().numpy().tobytes() for t in program(*leaves(weft, arrays))]
        assert got == want[call], call
