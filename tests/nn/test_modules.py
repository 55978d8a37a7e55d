"""Every layer and loss beside torch's: printing, state, initial weights, results, gradients."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import weft
from weft import nn

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORD = json.loads((FIXTURES / "nn.json").read_text())
ARRAYS = np.load(FIXTURES / "nn.npz")
CASES = RECORD["cases"]


def inputs(shapes):
    rng = np.random.default_rng(1)
    out = []
    for shape in shapes:
        if isinstance(shape, str):
            values = rng.integers(0, 3, eval(shape[1:]))
            signs = (values % 2 * 2 - 1).astype(np.float32)
            out.append(weft.from_numpy(values if shape[0] == "i" else signs))
        else:
            a = weft.from_numpy(rng.standard_normal(tuple(shape)).astype(np.float32))
            out.append(a.requires_grad_())
    return out


def flat(y):
    if y is None:
        return []
    return [t for part in y for t in flat(part)] if isinstance(y, (tuple, list)) else [y]


def make(text):
    return eval("nn." + text, {"nn": nn, "torch": weft})


@pytest.mark.parametrize("text", RECORD["reprs"])
def test_prints_and_names_its_state_as_torchs(text):
    module = make(text)
    wanted, state = RECORD["reprs"][text]
    assert repr(module) == wanted
    found = {k: list(v.shape) for k, v in module.state_dict().items()}
    assert found == state and list(found) == list(state)


@pytest.mark.parametrize("i", range(len(CASES)), ids=[c["code"] for c in CASES])
def test_weights_results_and_gradients_are_torchs(i):
    case = CASES[i]
    weft.manual_seed(0)
    module = make(case["code"])
    state = module.state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == case["state"]
    digest = hashlib.sha1()
    for v in state.values():
        digest.update(np.ascontiguousarray(v.numpy()).tobytes())
    assert digest.hexdigest()[:16] == case["init"]
    assert weft.rand(1).item() == case["next"]
    xs = inputs(case["shapes"])
    ys = flat(module(*xs))
    scale = sum((y * weft.arange(y.numel()).reshape(y.shape).add(1).cos()).sum() for y in ys)
    if scale.requires_grad:
        scale.backward()
    arrays = [y.detach().numpy() for y in ys]
    arrays += [x.grad.numpy() for x in xs if x.grad is not None]
    arrays += [p.grad.numpy() for p in module.parameters() if p.grad is not None]
    arrays += [b.numpy() for b in module.buffers() if b.is_floating_point()]
    assert len(arrays) == case["count"]
    got = np.concatenate([a.astype(np.float32).reshape(-1) for a in arrays])
    np.testing.assert_allclose(got, ARRAYS[f"c{i}"], rtol=2e-4, atol=2e-5)
