"""weft.sparse: tensors of sparse layouts under torch.sparse's names.

Loading this room gives Tensor its sparse methods; the first sparse tensor makes the public
functions look for sparse arguments (core/overrides.py), so other programs pay nothing.
"""

from weft.sparse import functions as _functions  # gives the rules
from weft.sparse import layout as _layout
from weft.sparse.layout import SparseTensor
from weft.sparse.products import addmm, log_softmax, mm, sampled_addmm, softmax, spdiags, sum
from weft.tensor import Tensor as _Tensor

__all__ = [
    "SparseTensor", "addmm", "log_softmax", "mm", "sampled_addmm", "softmax", "spdiags", "sum",
]  # fmt: skip

for _name, _fn in {
    "to_sparse": _layout.to_sparse,
    "to_sparse_coo": _layout.to_sparse_coo,
    "to_sparse_csr": _layout.to_sparse_csr,
    "sparse_mask": _layout.sparse_mask,
}.items():
    setattr(_Tensor, _name, _fn)
