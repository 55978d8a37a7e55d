"""Weft: write it as you write PyTorch, ship it as TensorFlow ships.  The public names."""

from weft import autograd
from weft import methods as _methods
from weft._version import __version__
from weft.autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from weft.compile import compile
from weft.core.device import device
from weft.core.printing import set_printoptions
from weft.core.dtype import (
    bfloat16,
    bool,
    double,
    dtype,
    float,
    float16,
    float32,
    float64,
    get_default_dtype,
    half,
    int,
    int8,
    int16,
    int32,
    int64,
    long,
    promote_types,
    set_default_dtype,
    short,
    uint8,
)
from weft.ops import linalg
from weft.ops.activation import celu, hardshrink, prelu, selu, threshold
from weft.ops.arithmetic import *
from weft.ops.arrange import (
    adjoint,
    atleast_1d,
    atleast_2d,
    atleast_3d,
    block_diag,
    broadcast_tensors,
    broadcast_to,
    cartesian_prod,
    column_stack,
    combinations,
    dsplit,
    dstack,
    hsplit,
    hstack,
    meshgrid,
    moveaxis,
    ravel,
    row_stack,
    swapaxes,
    swapdims,
    tensor_split,
    tril_indices,
    triu_indices,
    vsplit,
    vstack,
)
from weft.ops.bag import bilinear, rrelu
from weft.ops.compare import *
from weft.ops.contract import *
from weft.ops.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d
from weft.ops.creation import *
from weft.ops.distance import cosine_similarity, pairwise_distance
from weft.ops.dropout import alpha_dropout, dropout, feature_alpha_dropout, feature_dropout
from weft.ops.einsum import (
    addbmm,
    addmv,
    addr,
    baddbmm,
    cdist,
    chain_matmul,
    cross,
    einsum,
    inner,
    kron,
    tensordot,
    vdot,
)
from weft.ops.extreme import aminmax, max, min
from weft.ops.gather import gather, scatter, scatter_add, scatter_reduce, take_along_dim
from weft.ops.getitem import index_put
from weft.ops.index import index_add, index_copy, index_fill, index_select, take
from weft.ops.join import *
from weft.ops.linalg import (
    cholesky,
    cholesky_inverse,
    cholesky_solve,
    det,
    logdet,
    matrix_exp,
    matrix_power,
    slogdet,
)
from weft.ops.linalg import inv as inverse
from weft.ops.lookup import bucketize, searchsorted, unique, unique_consecutive
from weft.ops.masked import (
    argwhere,
    bincount,
    count_nonzero,
    masked_fill,
    masked_scatter,
    masked_select,
    nonzero,
)
from weft.ops.norm import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from weft.ops.pointwise import (
    allclose,
    clamp,
    clamp_max,
    clamp_min,
    clip,
    copysign,
    deg2rad,
    equal,
    fmax,
    float_power,
    fmin,
    frac,
    gcd,
    heaviside,
    hypot,
    isclose,
    isfinite,
    isinf,
    isnan,
    isneginf,
    isposinf,
    lcm,
    ldexp,
    logaddexp,
    logaddexp2,
    logit,
    nan_to_num,
    nextafter,
    positive,
    rad2deg,
    rsub,
    signbit,
    sinc,
    xlogy,
)
from weft.ops.pool import (
    adaptive_avg_pool1d,
    adaptive_max_pool1d,
    avg_pool1d,
    max_pool1d,
    max_pool2d,
)
from weft.ops.promote import result_type
from weft.ops.random import (
    Generator,
    bernoulli,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    multinomial,
    normal,
    poisson,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
    seed,
    set_rng_state,
)
from weft.ops.reduce import *
from weft.ops.replace import (
    as_strided_scatter,
    diagflat,
    diagonal_scatter,
    index_reduce,
    isin,
    narrow_copy,
    put,
    select_scatter,
    slice_scatter,
    unravel_index,
)
from weft.ops.resize import channel_shuffle, pixel_shuffle, pixel_unshuffle
from weft.ops.scan import (
    cummax,
    cummin,
    cumprod,
    cumsum,
    cumulative_trapezoid,
    diff,
    logcumsumexp,
    trapezoid,
    trapz,
)
from weft.ops.shape import (
    diag,
    diag_embed,
    diagonal,
    flip,
    fliplr,
    flipud,
    repeat_interleave,
    roll,
    rot90,
    tile,
    trace,
    tril,
    triu,
)
from weft.ops.softmax import log_softmax, softmax
from weft.ops.sort import (
    argsort,
    kthvalue,
    median,
    mode,
    msort,
    nanmedian,
    nanquantile,
    quantile,
    sort,
    topk,
)
from weft.ops.stat import (
    corrcoef,
    cov,
    dist,
    histc,
    logsumexp,
    nanmean,
    nansum,
    norm,
    renorm,
    std,
    std_mean,
    var,
    var_mean,
)
from weft.ops.strided import as_strided
from weft.ops.trig import *
from weft.ops.unary import *
from weft.ops.view import *
from weft.ops.weighted import addcdiv, addcmul, lerp
from weft.runtime.threads import get_num_threads, set_num_threads
from weft.ops.construct import as_tensor, from_numpy, tensor
from weft.tensor import Parameter, Size, Tensor

# Rooms that `import weft` does not load: they come with their first use.
_LAZY = ("data", "io", "nn", "optim", "serve", "train", "utils")


def __getattr__(name: str) -> object:
    if name in _LAZY:
        import importlib

        return importlib.import_module(f"weft.{name}")
    raise AttributeError(f"module 'weft' has no attribute {name!r}")
