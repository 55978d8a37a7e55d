"""Operands that do not fit an op are refused before its kernel reads or writes past them."""

import numpy as np
import pytest

import weft
from weft.core.op import REGISTRY
from weft.ops import quantized  # noqa: F401  its ops are declared when it is imported
from weft.ops.dispatch import apply, wrap

CASES = [  # each wrote or read past an array, gave another type than the op's, or a crash's words
    ("SoftmaxGrad", {"log": True}, ["f4", (4, 2)], ["f4", (2, 70)]),
    ("SoftmaxGrad", {}, ["f4", (3, 4)], ["f4", (4, 1)]),
    ("SoftmaxGrad", {}, ["f4", (3, 4)], ["f8", (3, 4)]),
    ("WriteStrided", {"strides": (3, 1), "offset": 1}, ["f4", (12,)], ["f8", (3, 2)]),
    ("WriteStrided", {"strides": (3, 1), "offset": 1}, ["u1", (12,)], ["f4", (3, 2)]),
    ("Concat", {}, ["f4", (2, 3)], ["f8", (4, 3)]),
    ("Concat", {}, ["f4", (1 << 18,)], ["u1", (1 << 18,)]),
    ("Stack", {}, ["f4", (2, 3)], ["i8", (2, 3)]),
    ("Stack", {}, ["f4", (2, 3)], ["f4", (2, 4)]),
    ("Softmax", {}, ["i4", (3, 4)]),
    ("LogSoftmax", {}, ["c8", (3, 4)]),
    ("CrossEntropy", {}, ["i4", (3, 4)], ["i8", (3,)]),
    ("LayerNorm", {}, ["i4", (3, 8)], ["i4", (8,)], ["i4", (8,)]),
    ("LayerNorm", {"ndims": 2}, ["f4", (8,)], ["f4", (8,)], ["f4", (8,)]),
    ("BatchNormEval", {}, ["f4", (2, 1, 4)], *[["f4", (3,)]] * 4),
    ("Embedding", {}, ["f4", (4, 3)], ["f4", (2,)]),
    ("Embedding", {}, ["f4", ()], ["i8", (2,)]),
    ("EmbeddingBack", {"rows": 4}, ["i4", (6, 3)], ["i8", (6,)]),
    ("EmbeddingBack", {"rows": 4}, ["f4", (6, 3)], ["i8", (5,)]),
    ("IndexPut", {"dims": (1,), "at": 1}, ["f4", (3,)], ["f4", (3, 1)], ["i8", (2,)]),
    ("MaxPool2d", {"kernel": (2, 2), "stride": (2, 2)}, ["f4", (2, 3, 6, 7, 3)]),
    ("AvgPool2dInput", {"kernel": (2, 2), "stride": (2, 2), "size": (6, 7)}, ["f4", (3, 3, 3)]),
    ("AvgPool2dInput", {"kernel": (2, 2), "stride": (2, 2), "size": (6, 7)}, ["f4", (1, 3, 9, 3)]),
    ("AdaptiveAvgPool2dInput", {"size": (2, 3), "full": (5, 7)}, ["f4", (3, 2, 3)]),
    ("Conv2d", {"stride": (1, 1 << 62)}, ["f4", (2, 4, 5, 6)], ["f4", (6, 4, 3, 3)]),
    ("Conv2d", {"stride": (0, 1)}, ["f4", (2, 4, 5, 6)], ["f4", (6, 4, 3, 3)]),
    ("MaxPool2d", {"kernel": (2, 2), "stride": (2, 1 << 62)}, ["f4", (2, 3, 6, 7)]),
    (
        "QuantizedConv",
        {"columns": 10, "stride": (-(1 << 40), 1), "to": "int32"},
        ["u1", (3, 8)],
        ["i1", (1, 2, 64, 4)],
    ),
    ("Stack", {"dim": -1}, ["f4", (2, 3)], ["f4", (2, 3)]),
    ("SliceBack", {"dim": -1, "start": 1, "step": 2, "size": 5}, ["f4", (2, 4)]),
    ("SliceBack", {"dim": 1, "start": 7, "size": 6}, ["f4", (3, 0)]),
    ("SliceBack", {"dim": 0, "start": 2, "step": 2, "size": 4}, ["f4", (2, 4)]),
    ("Sum", {"dims": (1,)}, ["f4", (4,)]),
    ("Moment", {"kind": "square", "dims": (1,)}, ["f4", (4,)]),
    ("VectorNorm", {"dims": (1,)}, ["f4", (4,)]),
    ("VectorNorm", {"dims": (1,)}, ["i4", (3, 4)]),
    ("Moment", {"kind": "square", "dims": ()}, ["f4", (4,)]),
    ("Gather", {"dim": -1}, ["f4", (3, 4)], ["i8", (3, 4)]),
    ("Scatter", {"dim": -1, "mode": "add"}, ["f4", (3, 4)], ["f4", (3, 4)], ["i8", (3, 4)]),
    ("GatherBack", {"dim": 2, "shape": (3, 4)}, ["f4", (3, 4)], ["i8", (3, 4)]),
    ("Solve", {}, ["f4", (3, 3)], ["f4", (3,)]),
]


@pytest.mark.parametrize("name, attributes, operands", [(c[0], c[1], c[2:]) for c in CASES])
def test_operands_that_do_not_fit_are_refused(name, attributes, operands):
    op = REGISTRY[name](**attributes)
    xs = [wrap(np.ones(shape, dtype)) for dtype, shape in operands]
    for call in (apply, weft.compile(apply)):
        for _ in range(2):
            with pytest.raises((RuntimeError, IndexError, TypeError, NotImplementedError)) as info:
                call(op, *xs)
            shown = "".join([str(info.value), *getattr(info.value, "__notes__", ())])
            assert name.lower() in shown.lower().replace(" ", "") or "dim" in shown, shown


def test_what_comes_from_within_says_which_op_and_operands():
    with pytest.raises(Exception, match="out of bounds") as info:
        apply(REGISTRY["Flip"]((1,)), weft.ones(4))
    assert info.value.__notes__ == ["in Flip(dims=(1,)) of f32[4]"]
