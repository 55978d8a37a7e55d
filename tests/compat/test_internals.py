"""Names that packages outside torch take from its private modules, and Python types as dtypes."""

from __future__ import annotations

import pytest

import weft
from weft.compat.torch_ import distribution_utils as utils
from weft.compat.torch_.inner import internals
from weft.ops import random


def test_flat_tensors_come_back_as_views():
    parts = [weft.arange(6.0).reshape(2, 3), weft.ones(()), weft.zeros(0, 4)]
    flat = internals._flatten_dense_tensors(parts)
    back = internals._unflatten_dense_tensors(flat, parts)
    assert [b.shape for b in back] == [p.shape for p in parts] and (back[0] == parts[0]).all()
    flat.zero_()
    assert back[0].sum() == 0  # views


def test_tensors_grouped_by_dtype():
    a, b, c = weft.ones(1), weft.ones(2, dtype=weft.float64), weft.ones(3)
    groups = internals._group_tensors_by_device_and_dtype([[a, b, c], [c, None, a]], True)
    lists, places = groups[weft.device("cpu"), weft.float32]
    assert places == [0, 2] and lists[0][1] is c and lists[1][0] is c
    assert groups[weft.device("cpu"), weft.float64] == ([[b], [None]], [1])


def test_helpers_of_distributions():
    p = weft.tensor([0.0, 0.25, 1.0])
    logits = utils.probs_to_logits(p, is_binary=True)
    assert logits.isfinite().all()
    assert weft.allclose(utils.logits_to_probs(logits, is_binary=True), p, atol=1e-6)
    rows = weft.arange(1.0, 7.0).expand(2, 6)
    square = utils.vec_to_tril_matrix(rows)
    assert square[1].tolist() == [[1, 0, 0], [2, 3, 0], [4, 5, 6]]
    assert (utils.tril_matrix_to_vec(square) == rows).all()
    assert utils.vec_to_tril_matrix(weft.ones(3), diag=-1).shape == (3, 3)
    with pytest.raises(ValueError, match="square D x D"):
        utils.vec_to_tril_matrix(weft.ones(4))


def test_a_lazy_property_is_made_once_and_keeps_the_graph():
    class Twice:
        calls = 0

        def __init__(self, x):
            self.x = x

        @utils.lazy_property
        def value(self):
            Twice.calls += 1
            return self.x * 2

    made = Twice(weft.ones(1, requires_grad=True))
    with weft.no_grad():
        assert made.value.requires_grad and made.value is made.value
    assert Twice.calls == 1 and isinstance(Twice.value, property)


@pytest.mark.parametrize(
    "kind, wanted",
    [(float, weft.float64), (int, weft.int64), (bool, weft.bool), (complex, weft.complex128)],
)
def test_pythons_types_are_dtypes(kind, wanted):
    x = weft.ones(2)
    made = [
        weft.zeros(2, dtype=kind), weft.full((2,), 1, dtype=kind), weft.empty(2, dtype=kind),
        weft.tensor([1], dtype=kind), weft.as_tensor([1], dtype=kind), weft.eye(2, dtype=kind),
        weft.zeros_like(x, dtype=kind), x.new_ones(2, dtype=kind), x.sum(dtype=kind), x.to(kind),
        x.to(dtype=kind), x.type(kind), weft.linspace(0, 1, 2, dtype=kind),
    ]  # fmt: skip
    assert {y.dtype for y in made} == {wanted}
    assert weft.ones(2, dtype=wanted).to(kind).dtype is wanted


def test_a_parameter_class_with_arguments_of_its_own():
    class Scaled(weft.nn.Parameter):
        def __new__(cls, data, scale=1.0, requires_grad=True):
            made = super().__new__(cls, data, requires_grad)
            made.scale = scale
            return made

    assert Scaled(weft.ones(2), scale=3.0).scale == 3.0


def test_fork_rng_takes_torchs_arguments():
    weft.manual_seed(0)
    wanted = weft.rand(2)
    weft.manual_seed(0)
    with random.fork_rng(devices=[], enabled=True):
        weft.rand(5)
    assert (weft.rand(2) == wanted).all()


def test_membership_is_of_numbers_and_tensors():
    x = weft.tensor([1.0, 2.0])
    assert 2 in x and weft.tensor(1.0) in x and 1j not in x
    for other in ("a", None, [1.0]):
        with pytest.raises(RuntimeError, match="only supports Tensor or scalar"):
            _ = other in x


def test_what_is_made_of_shapes_is_a_size():
    shape = weft.ones(2, 3).shape
    for made, wanted in [
        (shape + (1,), [2, 3, 1]), ((1,) + shape, [1, 2, 3]), (shape[1:], [3]),
        (2 * shape, [2, 3, 2, 3]), (weft.broadcast_shapes((1,), (4, 1)), [4, 1]),
    ]:  # fmt: skip
        assert type(made) is weft.Size and list(made) == wanted
