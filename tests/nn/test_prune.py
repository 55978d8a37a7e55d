"""Pruning: masks, gradients through them, repeated pruning, permanence."""

import pytest

import weft
from weft import nn
from weft.nn.utils import prune


def layer():
    m = nn.Linear(4, 2, bias=False)
    m.weight.data = weft.tensor([[1.0, -2.0, 3.0, -4.0], [0.5, 0.1, -6.0, 7.0]])
    return m


def test_the_smallest_entries_go():
    m = layer()
    assert prune.l1_unstructured(m, "weight", amount=3) is m and prune.is_pruned(m)
    assert m.weight_mask.tolist() == [[0, 1, 1, 1], [0, 0, 1, 1]]
    assert sorted(dict(m.named_parameters())) == ["weight_orig"]
    assert sorted(m.state_dict()) == ["weight_mask", "weight_orig"]
    m(weft.ones(1, 4)).sum().backward()
    assert m.weight_orig.grad.tolist() == [[0, 1, 1, 1], [0, 0, 1, 1]]
    prune.l1_unstructured(m, "weight", amount=0.2)  # a fifth of the five that are left
    assert m.weight_mask.sum().item() == 4 and m.weight[0].tolist() == [0, 0, 3, -4]
    assert m(weft.ones(1, 4)).tolist() == [[-1.0, 1.0]]
    prune.remove(m, "weight")
    assert not prune.is_pruned(m) and sorted(m.state_dict()) == ["weight"]
    assert isinstance(m.weight, nn.Parameter) and m.weight[0].tolist() == [0, 0, 3, -4]


def test_whole_slices_go():
    m = prune.ln_structured(layer(), "weight", amount=0.5, n=2, dim=1)
    assert m.weight_mask.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
    m = prune.random_structured(layer(), "weight", amount=1, dim=0)
    assert sorted(m.weight_mask.sum(1).tolist()) == [0, 4]
    m = prune.random_unstructured(layer(), "weight", amount=0.25)
    assert m.weight_mask.sum().item() == 6
    m = prune.custom_from_mask(layer(), "weight", weft.eye(2, 4))
    assert m.weight.tolist() == [[1, 0, 0, 0], [0, 0.1, 0, 0]] or m.weight.count_nonzero() == 2


def test_refusals():
    with pytest.raises(ValueError, match="should either be a float"):
        prune.l1_unstructured(layer(), "weight", amount=1.5)
    with pytest.raises(ValueError, match="smaller than the number"):
        prune.l1_unstructured(layer(), "weight", amount=9)
    with pytest.raises(ValueError, match="has to be pruned before"):
        prune.remove(layer(), "weight")


def test_entries_of_several_parameters_are_compared():
    a, b = layer(), nn.Linear(2, 2)
    b.weight.data = weft.tensor([[0.2, 9.0], [0.3, 0.4]])
    prune.l1_unstructured(b, "weight", amount=1)  # 0.2 is gone already and counts no more
    pairs = [(a, "weight"), (b, "weight")]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=3)
    assert a.weight_mask.tolist() == [[1, 1, 1, 1], [1, 0, 1, 1]]
    assert b.weight_mask.tolist() == [[0, 1], [0, 0]]
    scores = {(a, "weight"): weft.tensor([[0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])}
    prune.global_unstructured(pairs[:1], prune.L1Unstructured, scores, amount=1)
    assert a.weight_mask.tolist() == [[0, 1, 1, 1], [1, 0, 1, 1]]
    with pytest.raises(TypeError, match="unstructured"):
        prune.global_unstructured(pairs, prune.LnStructured, amount=1, n=2)
