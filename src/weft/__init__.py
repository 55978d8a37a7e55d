"""Weft: write it as you write PyTorch, ship it as TensorFlow ships.  The public names.

`weft.X` means what `torch.X` means.  Names are grouped by the room that makes them; those that
`import weft` does not load come with their first use.
"""

# ruff: noqa: I001  the order is the rooms'

from __future__ import annotations

from importlib import import_module as _import_module
from math import e, inf, nan, pi
from typing import TYPE_CHECKING as _CHECKING

# --------------------------------------------------------------------------------- what a tensor is
from weft import _version
from weft.core import overrides as _overrides
from weft.core.device import device
from weft.core.dtype import (
    bfloat16, bool, cdouble, cfloat, complex128, complex64, double, dtype, float, float16, float32,
    float64, get_default_dtype, half, int, int16, int32, int64, int8, long, promote_types,
    set_default_dtype, short, uint8,
)  # fmt: skip
from weft.core.printing import set_printoptions
from weft.tensor import Parameter, Size, Tensor, broadcast_shapes
from weft import methods as _methods  # gives Tensor its methods
from weft import sparse
from weft.sparse.products import mm as spmm, smm
from weft.sparse.layout import sparse_coo_tensor, sparse_csr_tensor

# ------------------------------------------------------------ made from numbers, arrays, attributes
from weft.ops.construct import (
    as_tensor, asarray, from_dlpack, from_numpy, frombuffer, scalar_tensor, tensor,
)  # fmt: skip
from weft.ops.creation import (
    arange, clone, empty, empty_like, eye, full, full_like, linspace, ones, ones_like, zeros,
    zeros_like,
)  # fmt: skip
from weft.ops.random import (
    bernoulli, binomial, default_generator, Generator, get_rng_state, initial_seed, manual_seed,
    multinomial, normal, poisson, rand, rand_like, randint, randint_like, randn, randn_like,
    randperm, seed, set_rng_state,
)  # fmt: skip

# ---------------------------------------------------------------------------------------- questions
from weft.ops.query import (
    can_cast, get_device, is_complex, is_conj, is_floating_point, is_nonzero, is_same_size,
    is_signed, is_tensor, numel, typename,
)  # fmt: skip
from weft.ops.promote import result_type
from weft.ops.storage import is_storage

# ----------------------------------------------------------------------------------------- elements
from weft.ops.arithmetic import (
    add, atan2, div, divide, floor_divide, fmod, maximum, minimum, mul, multiply, neg, negative,
    pow, remainder, sub, subtract, true_divide,
)  # fmt: skip
from weft.ops.compare import (
    bitwise_and, bitwise_left_shift, bitwise_not, bitwise_or, bitwise_right_shift, bitwise_xor,
    eq, ge, greater, greater_equal, gt, le, less, less_equal, logical_and, logical_not,
    logical_or, logical_xor, lt, ne, not_equal, where,
)  # fmt: skip
from weft.ops.unary import (
    abs, absolute, ceil, exp, exp2, expm1, fix, floor, log, log10, log1p, log2, reciprocal,
    relu, round, rsqrt, sigmoid, sign, sqrt, square, trunc,
)  # fmt: skip
from weft.ops.trig import (
    acos, acosh, arccos, arccosh, arcsin, arcsinh, arctan, arctanh, asin, asinh, atan, atanh,
    cos, cosh, digamma, erf, erfc, erfinv, lgamma, sin, sinh, tan, tanh,
)  # fmt: skip
from weft.ops.pointwise import (
    allclose, clamp, clamp_max, clamp_min, clip, copysign, deg2rad, equal, float_power, fmax,
    fmin, frac, gcd, heaviside, hypot, isclose, isfinite, isinf, isnan, isneginf, isposinf, lcm,
    ldexp, logaddexp, logaddexp2, logit, nan_to_num, nextafter, positive, rad2deg, rsub,
    signbit, sinc, xlogy,
)  # fmt: skip
from weft.ops.weighted import addcdiv, addcmul, lerp
from weft.ops.activation import celu, hardshrink, prelu, selu, threshold
from weft.ops.bag import bilinear, rrelu

# -------------------------------------------------------------------------------- shapes and places
from weft.ops.view import (
    flatten, movedim, narrow, permute, reshape, select, squeeze, t, transpose, unflatten,
    unsqueeze,
)  # fmt: skip
from weft.ops.strided import as_strided
from weft.ops.join import cat, chunk, concat, concatenate, split, stack, unbind
from weft.ops.shape import (
    diag, diag_embed, diagonal, flip, fliplr, flipud, repeat_interleave, roll, rot90, tile,
    trace, tril, triu,
)  # fmt: skip
from weft.ops.complex_parts import (
    adjoint, angle, complex, conj, conj_physical, imag, polar, real, resolve_conj, resolve_neg, sgn,
    view_as_complex, view_as_real,
)  # fmt: skip
from weft.ops.arrange import (
    atleast_1d, atleast_2d, atleast_3d, block_diag, broadcast_tensors, broadcast_to,
    cartesian_prod, column_stack, combinations, dsplit, dstack, hsplit, hstack, meshgrid,
    moveaxis, ravel, row_stack, swapaxes, swapdims, tensor_split, tril_indices, triu_indices,
    vsplit, vstack,
)  # fmt: skip
from weft.ops.replace import (
    as_strided_scatter, diagflat, diagonal_scatter, index_reduce, isin, narrow_copy, put,
    select_scatter, slice_scatter, unravel_index,
)  # fmt: skip
from weft.ops.getitem import index_put, index_put_
from weft.ops.index import index_add, index_copy, index_fill, index_select, take
from weft.ops.gather import gather, scatter, scatter_add, scatter_reduce, take_along_dim
from weft.ops.masked import (
    argwhere, bincount, count_nonzero, masked_fill, masked_scatter, masked_select, nonzero,
)  # fmt: skip
from weft.ops.lookup import bucketize, searchsorted, unique, unique_consecutive
from weft.ops.sort import (
    argsort, kthvalue, median, mode, msort, nanmedian, nanquantile, quantile, sort, topk,
)  # fmt: skip

# ----------------------------------------------------------------------------------- sums and lines
from weft.ops.reduce import all, amax, amin, any, argmax, argmin, mean, prod, sum
from weft.ops.extreme import aminmax, max, min
from weft.ops.scan import (
    cummax, cummin, cumprod, cumsum, cumulative_trapezoid, diff, logcumsumexp, trapezoid, trapz,
)  # fmt: skip
from weft.ops.stat import (
    corrcoef, cov, dist, histc, logsumexp, nanmean, nansum, norm, renorm, std, std_mean, var,
    var_mean,
)  # fmt: skip
from weft.ops.softmax import log_softmax, softmax
from weft.ops.dropout import feature_dropout
from weft.ops.torch_order import (  # fmt: skip
    alpha_dropout,
    batch_norm,
    cholesky,
    dropout,
    feature_alpha_dropout,
    group_norm,
    instance_norm,
    layer_norm,
)
from weft.ops.norm import rms_norm

# -------------------------------------------------------------------------------- products, windows
from weft.ops.contract import (
    addmm, bmm, dot, is_fast_math, matmul, mm, mv, outer, set_fast_math,
)  # fmt: skip
from weft.ops.einsum import (
    addbmm, addmv, addr, baddbmm, cdist, chain_matmul, cross, einsum, inner, kron, tensordot,
    vander, vdot,
)  # fmt: skip
from weft.ops.linalg import (
    cholesky_inverse, cholesky_solve, det, inv as inverse, logdet, matrix_exp,
    matrix_power, slogdet,
)  # fmt: skip
from weft.ops.factor import (
    geqrf, lu_unpack, ormqr, pinverse, qr, svd, torch_lu as lu, torch_lu_solve as lu_solve,
    triangular_solve,
)  # fmt: skip
from weft.ops.distance import cosine_similarity, pairwise_distance
from weft.ops.conv import conv_tbc, conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d
from weft.ops.pool import (
    adaptive_avg_pool1d, adaptive_max_pool1d, avg_pool1d, max_pool1d, max_pool2d,
)  # fmt: skip
from weft.ops.pool_more import max_pool3d
from weft.ops.resize import channel_shuffle, pixel_shuffle, pixel_unshuffle

# ------------------------------------------------------------------- gradients, programs, threads
from weft import autograd
from weft.autograd import (
    enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled,
)  # fmt: skip
from weft.autograd.autocast import (
    autocast,
    get_autocast_cpu_dtype,
    get_autocast_dtype,
    get_autocast_gpu_dtype,
    is_autocast_available,
    is_autocast_cpu_enabled,
    is_autocast_enabled,
)
from weft.compile import compile
from weft.runtime.threads import get_num_threads, set_num_threads

if _CHECKING:
    from weft import amp, data, io, linalg, nn, optim, serve, special, train, utils
    from weft.autograd.func import vmap
    from weft.core.limits import finfo, iinfo
    from weft.ops.random_path import _sample_dirichlet, _standard_gamma
    from weft.ops.special import mvlgamma
    from weft.io.files import load, save

detach, newaxis, __version__ = Tensor.detach, None, _version.__version__

# What is loaded with its first use: modules by their place, names by the module that has them.
_MODULES = {
    "amp": "amp",
    "data": "data",
    "distributions": "distributions",
    "io": "io",
    "linalg": "linalg",
    "nested": "nested",
    "nn": "nn",
    "optim": "optim",
    "profiler": "profiler",
    "serve": "serve",
    "train": "train",
    "utils": "utils",
    "fft": "fft",
    "func": "autograd.func",
    "special": "special",
    "testing": "compat.torch_.testing",
    "version": "_version",
}
_HOMES = {
    "ops.conv_transpose": "conv_transpose3d",
    "ops.lowrank": "pca_lowrank svd_lowrank",
    "ops.memory_view": "eig lstsq matrix_rank resize_as_ solve symeig",
    "stored": "float8_e4m3fn float8_e5m2 uint16 uint32 uint64",
    "ops.storage": "BFloat16Storage BoolStorage ByteStorage CharStorage ComplexDoubleStorage "
    "ComplexFloatStorage DoubleStorage FloatStorage HalfStorage IntStorage LongStorage "
    "ShortStorage TypedStorage UntypedStorage",
    "ops.spectrogram": "istft stft",
    "ops.signal": "bartlett_window blackman_window hamming_window hann_window kaiser_window "
    "logspace",
    "autograd.func": "vmap",
    "core.layouts": "channels_last channels_last_3d contiguous_format jagged layout memory_format "
    "preserve_format sparse_bsc sparse_bsr sparse_coo sparse_csc sparse_csr strided",
    "core.limits": "finfo iinfo",
    "io.files": "load save",
    "profiler": "profile",
    "nn.quantized": "quantize",
    "ops.copies": "alias_copy as_strided_copy diagonal_copy expand_copy permute_copy "
    "split_with_sizes split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy "
    "unfold_copy unsafe_chunk unsafe_split unsqueeze_copy view_copy",
    "ops.histogram": "fill frexp gradient histogram histogramdd isreal nonzero_static",
    "ops.native_names": "constant_pad_nd empty_permuted empty_strided grid_sampler_2d "
    "grid_sampler_3d _chunk_cat _native_batch_norm_legit _unsafe_masked_index "
    "_unsafe_masked_index_put_accumulate native_batch_norm native_group_norm native_layer_norm",
    "ops.fractional": "segment_reduce _segment_reduce",
    "ops.random_path": "_dirichlet_grad _sample_dirichlet _standard_gamma _standard_gamma_grad",
    "ops.special": "i0 igamma igammac mvlgamma polygamma",
    "compat.torch_.settings": "are_deterministic_algorithms_enabled "
    "get_default_device get_float32_matmul_precision get_num_interop_threads "
    "is_deterministic_algorithms_warn_only_enabled "
    "set_default_device set_deterministic_debug_mode set_float32_matmul_precision "
    "set_flush_denormal set_num_interop_threads use_deterministic_algorithms",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
# torch's functions that write into their first argument, of those that Tensor has as methods
_INPLACE = (
    "abs acos acosh asin asinh atan atanh ceil clamp clamp_max clamp_min clip cos cosh deg2rad "
    "erf erfinv exp exp2 expm1 fill fix floor frac log log10 log1p log2 logit nan_to_num neg "
    "rad2deg reciprocal relu round rsqrt selu sigmoid sin sinc sinh sqrt square tan tanh trunc "
    "xlogy zero"
)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return _import_module(f"weft.{_MODULES[name]}")
    if name in _HOME_OF:
        found = getattr(_import_module(f"weft.{_HOME_OF[name]}"), name)
    elif name.endswith("_") and name[:-1] in _INPLACE.split() and hasattr(Tensor, name):
        found = getattr(Tensor, name)
    else:
        raise AttributeError(f"module 'weft' has no attribute {name!r}")
    globals()[name] = found  # from now on without this detour
    _overrides.cover_again()
    return found


def __dir__() -> list[str]:
    inside = {"annotations", "core", "kernels", "methods", "ops", "runtime", "cli", "compat"}
    public = (name for name in globals() if name not in inside and not name.startswith("_"))
    return sorted({*public, *_MODULES, *_HOME_OF, "__version__"})


# With the first class or mode of `__torch_function__` the public functions look for it.
_overrides.cover_functions(
    globals(),
    "torch",
    but="Generator Parameter Size Tensor broadcast_shapes can_cast compile default_generator "
    "detach get_autocast_cpu_dtype get_autocast_dtype get_autocast_gpu_dtype get_default_dtype "
    "get_num_threads get_rng_state initial_seed is_autocast_available is_autocast_cpu_enabled "
    "is_autocast_enabled is_grad_enabled is_storage is_tensor manual_seed promote_types "
    "result_type seed set_default_dtype set_num_threads set_printoptions set_rng_state typename "
    "is_fast_math set_fast_math vmap load save set_default_device get_default_device",
    makers="arange as_tensor asarray bartlett_window blackman_window empty empty_permuted "
    "empty_strided eye frombuffer from_dlpack from_numpy full hamming_window hann_window "
    "kaiser_window linspace logspace normal ones rand randint randn randperm scalar_tensor "
    "tensor tril_indices triu_indices zeros sparse_coo_tensor sparse_csr_tensor",
)
