"""weft.linalg: linear algebra under torch.linalg's names."""

from weft.core.overrides import cover_functions as _cover
from weft.ops.eigen import eig, eigh, eigvals, eigvalsh
from weft.ops.factor import (
    cholesky_ex,
    householder_product,
    inv_ex,
    lu,
    lu_factor,
    lu_factor_ex,
    lu_solve,
    solve_ex,
    tensorinv,
    tensorsolve,
)
from weft.ops.lapack_info import LinAlgError
from weft.ops.least import lstsq, matrix_rank, pinv
from weft.ops.linalg import (
    cholesky,
    cond,
    cross,
    det,
    diagonal,
    inv,
    matmul,
    matrix_exp,
    matrix_norm,
    matrix_power,
    multi_dot,
    norm,
    qr,
    slogdet,
    solve,
    solve_triangular,
    svd,
    svdvals,
    vander,
    vecdot,
    vector_norm,
)

_cover(globals(), "torch.linalg")
