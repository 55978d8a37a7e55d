"""torch.utils' names are Weft's own objects."""

from __future__ import annotations

import weft
import weft.utils.data as utils_data
from weft import data
from weft.utils.checkpoint import checkpoint


def test_data_is_the_data_room():
    for name in data.__all__:
        assert getattr(utils_data, name) is getattr(data, name)
    assert weft.utils.data.DataLoader is data.DataLoader


def test_checkpoint_gives_the_same_gradient():
    x = weft.tensor([0.3, -1.0], requires_grad=True)
    checkpoint(lambda t: (t.sin() * t).exp(), x, use_reentrant=False).sum().backward()
    y = x.detach().clone().requires_grad_()
    (y.sin() * y).exp().sum().backward()
    assert weft.equal(x.grad, y.grad)
