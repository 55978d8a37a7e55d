"""A fused layer does what its two did."""

import numpy as np
import pytest

import weft
from weft import nn
from weft.nn.utils.parameters import fuse_conv_bn_eval, fuse_linear_bn_eval


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("layer", "bn", "x", "fuse"),
    [
        (lambda b: nn.Conv2d(3, 4, 3, bias=b), nn.BatchNorm2d(4), (2, 3, 5, 5), fuse_conv_bn_eval),
        (lambda b: nn.Linear(3, 4, bias=b), nn.BatchNorm1d(4), (6, 3), fuse_linear_bn_eval),
    ],
)
def test_fused_equals_both(layer, bn, x, fuse, bias):
    weft.manual_seed(0)
    first, x = layer(bias), weft.randn(*x)
    bn.running_mean.normal_()
    bn.running_var.uniform_(0.5, 2)
    nn.init.normal_(bn.weight)
    with pytest.raises(AssertionError, match="only for eval"):
        fuse(first, bn.train())
    first.eval(), bn.eval()
    with weft.no_grad():
        got, wanted = fuse(first, bn)(x), bn(first(x))
    np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_a_linear_layer_and_a_norm_of_another_size():
    layer, norm = nn.Linear(2, 3).eval(), nn.BatchNorm1d(4).eval()
    with pytest.raises(AssertionError, match=r"linear.out_features=3 and bn.num_features=4"):
        nn.utils.fuse_linear_bn_eval(layer, norm)
