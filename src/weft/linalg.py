"""weft.linalg: linear algebra under torch.linalg's names."""

from weft.core.overrides import cover_functions as _cover
from weft.ops.eigen import *
from weft.ops.factor import *
from weft.ops.lapack_info import *
from weft.ops.linalg import *

_cover(globals(), "torch.linalg")
