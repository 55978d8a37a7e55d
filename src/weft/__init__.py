"""Weft: write it as you write PyTorch, ship it as TensorFlow ships.  The public names.

`weft.X` means what `torch.X` means.  Names are grouped by the room that makes them, which lists
them in its `__all__`; those that `import weft` does not load come with their first use.
"""

# ruff: noqa: I001  the order is the rooms'

from __future__ import annotations

from importlib import import_module as _import_module
from math import e as e, inf as inf, nan as nan, pi as pi
from typing import TYPE_CHECKING as _CHECKING, Any as _Any

# --------------------------------------------------------------------------------- what a tensor is
from weft import _layers as _layers, _version
from weft.core import overrides as _overrides
from weft.core.device import device as device
from weft.core.dtype import *
from weft.core.printing import set_printoptions as set_printoptions
from weft.tensor import *
from weft import methods as _methods  # gives Tensor its methods
from weft import sparse as sparse
from weft.sparse.products import mm as _spmm, smm as smm
from weft.sparse.layout import (
    sparse_coo_tensor as sparse_coo_tensor, sparse_csr_tensor as sparse_csr_tensor,
)  # fmt: skip

# ------------------------------------------------------------ made from numbers, arrays, attributes
from weft.ops.construct import *
from weft.ops.creation import *
from weft.ops.random import *

# ---------------------------------------------------------------------------------------- questions
from weft.ops.query import *
from weft.ops.promote import *
from weft.ops.storage import *

# ----------------------------------------------------------------------------------------- elements
from weft.ops.arithmetic import *
from weft.ops.compare import *
from weft.ops.unary import *
from weft.ops.trig import *
from weft.ops.pointwise import *
from weft.ops.activation import *
from weft.ops.bag import *

# -------------------------------------------------------------------------------- shapes and places
from weft.ops.view import *
from weft.ops.strided import *
from weft.ops.join import *
from weft.ops.shape import *
from weft.ops.complex_parts import *
from weft.ops.arrange import *
from weft.ops.replace import *
from weft.ops.getitem import *
from weft.ops.index import *
from weft.ops.gather import *
from weft.ops.masked import *
from weft.ops.lookup import *
from weft.ops.sort import *

# ----------------------------------------------------------------------------------- sums and lines
from weft.ops.reduce import *
from weft.ops.scan import *
from weft.ops.stat import *
from weft.ops.softmax import *
from weft.ops.dropout import *
from weft.ops.torch_order import *
from weft.ops.norm import *

# -------------------------------------------------------------------------------- products, windows
from weft.ops.contract import *
from weft.ops.einsum import *
from weft.ops.linalg import (
    cholesky_inverse as cholesky_inverse, cholesky_solve as cholesky_solve, det as det,
    inv as _inverse, logdet as logdet, matrix_exp as matrix_exp, matrix_power as matrix_power,
    slogdet as slogdet,
)  # fmt: skip
from weft.ops.factor import (
    geqrf as geqrf, lu_unpack as lu_unpack, orgqr as orgqr, ormqr as ormqr, pinverse as pinverse,
    qr as qr,
    svd as svd, torch_lu as _lu, torch_lu_solve as _lu_solve, triangular_solve as triangular_solve,
)  # fmt: skip
from weft.ops.conv import *
from weft.ops.pool import *
from weft.ops.pool_more import *
from weft.ops.resize import *

# ------------------------------------------------------------------- gradients, programs, threads
from weft import autograd as autograd
from weft.autograd import (
    enable_grad as enable_grad, inference_mode as inference_mode,
    is_grad_enabled as is_grad_enabled, no_grad as no_grad, set_grad_enabled as set_grad_enabled,
)  # fmt: skip
from weft.autograd.modes import (
    autocast as autocast, get_autocast_cpu_dtype as get_autocast_cpu_dtype,
    get_autocast_dtype as get_autocast_dtype, get_autocast_gpu_dtype as get_autocast_gpu_dtype,
    is_autocast_available as is_autocast_available,
    is_autocast_cpu_enabled as is_autocast_cpu_enabled, is_autocast_enabled as is_autocast_enabled,
)  # fmt: skip
from weft.compile import compile as compile
from weft.runtime.threads import (
    get_num_threads as get_num_threads, set_num_threads as set_num_threads,
)  # fmt: skip

if _CHECKING:
    from weft import (
        amp as amp, data as data, distributions as distributions, fft as fft, io as io,
        linalg as linalg, nested as nested, nn as nn, optim as optim, profiler as profiler,
        serve as serve, special as special, train as train, utils as utils,
    )  # fmt: skip
    from weft.autograd import func as func
    from weft.core.dtype import finfo as finfo, iinfo as iinfo

detach, newaxis, __version__ = Tensor.detach, None, _version.__version__
inverse, lu, lu_solve, spmm = _inverse, _lu, _lu_solve, _spmm

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
    "ops.conv": "conv_transpose3d",
    "ops.factor": "pca_lowrank svd_lowrank",
    "ops.memory_view": "eig lstsq matrix_rank resize_as_ solve symeig",
    "stored": "float8_e4m3fn float8_e5m2 uint16 uint32 uint64",
    "ops.storage": "BFloat16Storage BoolStorage ByteStorage CharStorage ComplexDoubleStorage "
    "ComplexFloatStorage DoubleStorage FloatStorage HalfStorage IntStorage LongStorage "
    "ShortStorage TypedStorage UntypedStorage",
    "ops.signal": "bartlett_window blackman_window hamming_window hann_window istft kaiser_window "
    "logspace stft",
    "autograd.func": "vmap",
    "core.layouts": "channels_last channels_last_3d contiguous_format jagged layout memory_format "
    "preserve_format sparse_bsc sparse_bsr sparse_coo sparse_csc sparse_csr strided",
    "core.dtype": "finfo iinfo",
    "io.files": "load save",
    "profiler": "profile",
    "nn.quantized": "quantize",
    "ops.histogram": "fill frexp gradient histogram histogramdd isreal nonzero_static",
    "ops.native_names": "alias_copy as_strided_copy constant_pad_nd diagonal_copy empty_permuted "
    "empty_strided expand_copy grid_sampler_2d grid_sampler_3d native_batch_norm native_group_norm "
    "native_layer_norm permute_copy split_with_sizes split_with_sizes_copy squeeze_copy t_copy "
    "transpose_copy unbind_copy unfold_copy unsafe_chunk unsafe_split unsafe_split_with_sizes "
    "unsqueeze_copy view_copy _chunk_cat _native_batch_norm_legit _unsafe_masked_index "
    "_unsafe_masked_index_put_accumulate",
    "ops.fractional": "segment_reduce _segment_reduce",
    "ops.random": "_dirichlet_grad _sample_dirichlet _standard_gamma _standard_gamma_grad",
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


def __getattr__(name: str) -> _Any:
    if name in _MODULES:
        return _import_module(f"weft.{_MODULES[name]}")
    if name in _HOME_OF:
        found = getattr(_import_module(f"weft.{_HOME_OF[name]}"), name)
        _overrides.look_at_kinds(found)
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
