"""Sums of products by named dims: einsum, and its relatives tensordot, kron, inner, cross;
lengths and angles of vectors: normalize, cdist, pairwise_distance, cosine_similarity.

einsum contracts two operands at a time, from the left: dims that neither the result nor a later
operand names are summed as soon as they can be, the rest is one batched matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from functools import lru_cache
from typing import Any

from weft.core.handle import Handle, state
from weft.core.types import broadcast_shapes, numel, real_number, some_dim, whole, wrap_dim
from weft.ops.compare import where
from weft.ops.complex_parts import conj
from weft.ops.contract import matmul
from weft.ops.creation import arange
from weft.ops.dispatch import dtype_of, shape_of
from weft.ops.pointwise import clamp_min
from weft.ops.promote import as_number, number_of, only_tensors, operands
from weft.ops.reduce import sum
from weft.ops.shape import diagonal, roll
from weft.ops.stat import vector_norm
from weft.ops.unary import sqrt
from weft.ops.view import expand, permute, reshape, squeeze, unsqueeze

__all__ = [
    "addbmm", "addmv", "addr", "baddbmm", "cdist", "chain_matmul", "cosine_similarity", "cross",
    "einsum", "inner", "kron", "pairwise_distance", "tensordot", "vander", "vdot",
]  # fmt: skip

Labels = tuple[str, ...]


def einsum(equation: Any, *operands: Any) -> Any:
    """The sum over all dims not named behind `->` of the product of the operands.

        einsum("bij,bjk->bik", a, b)      einsum("...ii", a)      einsum(a, [0, 1], b, [1], [0])

    Without `->`: the labels that occur once, in alphabetical order, after the ellipsis' dims.
    RuntimeError: labels and ranks or sizes that do not fit.
    """
    if not isinstance(equation, str):
        equation, operands = _from_lists((equation, *operands))
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    shapes = tuple([shape_of(x) for x in operands])
    labels, result = (_read if state.recorder is None else _read.__wrapped__)(equation, shapes)
    parts = [_without_repeats(x, names) for x, names in zip(operands, labels)]
    y, names = parts[0]
    for k in range(1, len(parts)):
        later = frozenset(result).union(*[rest for _, rest in parts[k + 1 :]])
        y, names = _contract(y, names, *parts[k], later)
    y, names = _summed(y, names, set(result))
    return permute(y, tuple(names.index(c) for c in result)) if names != result else y


@lru_cache(1024)
def _read(equation: str, shapes: tuple) -> tuple[list[Labels], Labels]:
    """The operands' labels, and the result's."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise RuntimeError(
            f"einsum(): more {'operands' if len(terms) < len(shapes) else 'subscripts'} were "
            f"provided than {'subscripts' if len(terms) < len(shapes) else 'operands'} "
            f"({len(terms)} and {len(shapes)})"
        )
    wide = max((len(shape) - _named(t) for t, shape in zip(terms, shapes, strict=True)
                if "..." in t), default=0)  # fmt: skip
    labels = [_labels(t, len(shape), wide, k) for k, (t, shape) in enumerate(zip(terms, shapes))]
    result = _result(labels, wide, right if arrow else None)
    _sizes(labels, shapes)
    return labels, result


def _from_lists(args: tuple) -> tuple[str, tuple]:
    """einsum(a, [0, 1], b, [1], [0]) as an equation."""
    rest = list(args)
    target = rest.pop() if len(rest) % 2 else None

    def text(labels: Sequence[Any]) -> str:
        if isinstance(labels, (int, float)) or not hasattr(labels, "__iter__"):
            kind = type(labels).__name__
            raise TypeError(f"einsum(): a sublist must be a list of ints, not {kind}")
        for c in labels:
            if c is not Ellipsis and not 0 <= whole(c, "einsum", "sublist") < 52:
                raise ValueError(f"einsum(): subscript {c} is not within the valid range [0, 52)")
        return "".join(
            "..." if c is Ellipsis else chr(ord("A") + c) if c < 26 else chr(ord("a") + c - 26)
            for c in labels
        )

    equation = ",".join(text(rest[k]) for k in range(1, len(rest), 2))
    if target is not None:
        equation += "->" + text(target)
    return equation, tuple(rest[0::2])


def _named(term: str) -> int:
    return len(term.replace("...", ""))


def _labels(term: str, rank: int, wide: int, k: int) -> Labels:
    """One label a dim; the dims of an ellipsis are "0", "1", ... counted from the right."""
    before, dots, behind = term.partition("...")
    letters = before + behind
    bad = [c for c in letters if not c.isalpha()]
    if bad:
        raise RuntimeError(
            f"einsum(): invalid subscript given at index {term.index(bad[0])} in the equation "
            "string, subscripts must be in [a-zA-Z]"
        )
    spare = rank - len(letters)
    if spare < 0 or (spare and not dots):
        raise RuntimeError(
            f"einsum(): the number of subscripts in the equation ({len(letters)}) does not match "
            f"the number of dimensions ({rank}) for operand {k} and no ellipsis was given"
        )
    return (*before, *(str(wide - spare + i) for i in range(spare)), *behind)


def _result(labels: list[Labels], wide: int, right: str | None) -> Labels:
    seen = [c for names in labels for c in names]
    ellipsis = [str(i) for i in range(wide)]
    if right is None:
        return (*ellipsis, *sorted({c for c in seen if c.isalpha() and seen.count(c) == 1}))
    before, dots, behind = right.partition("...")
    for c in before + behind:
        if c not in seen:
            raise RuntimeError(
                f"einsum(): output subscript {c} does not appear in the equation for any input "
                "operand"
            )
        if (before + behind).count(c) > 1:
            raise RuntimeError(f"einsum(): output subscript {c} appears more than once")
    return (*before, *(ellipsis if dots else ()), *behind)


def _sizes(labels: list[Labels], shapes: tuple) -> None:
    sizes: dict[str, int] = {}
    for k, (names, shape) in enumerate(zip(labels, shapes, strict=True)):
        for c, n in zip(names, shape, strict=True):
            have = sizes.setdefault(c, n)
            if have == 1:
                sizes[c] = n
            elif n not in (1, have):
                raise RuntimeError(
                    f"einsum(): subscript {c} has size {n} for operand {k} which does not "
                    f"broadcast with previously seen size {have}"
                )


def _without_repeats(x: Any, names: Labels) -> tuple[Any, Labels]:
    """A label that stands twice in one operand is the diagonal of its dims."""
    while len(set(names)) < len(names):
        c = next(c for c in names if names.count(c) > 1)
        i = names.index(c)
        j = names.index(c, i + 1)
        x = diagonal(x, 0, i, j)
        names = (*names[:i], *names[i + 1 : j], *names[j + 1 :], c)
    return x, names


def _summed(x: Any, names: Labels, keep: Set[str]) -> tuple[Any, Labels]:
    drop = tuple([d for d, c in enumerate(names) if c not in keep])
    return (x.sum(drop), tuple([c for c in names if c in keep])) if drop else (x, names)


def _contract(
    a: Any, a_names: Labels, b: Any, b_names: Labels, later: frozenset[str]
) -> tuple[Any, Labels]:
    """The product of two operands, summed over what nothing later names."""
    for c in set(a_names) & set(b_names):  # a size of 1 beside a larger one is broadcast
        i, j = a_names.index(c), b_names.index(c)
        m, n = shape_of(a)[i], shape_of(b)[j]
        if m == 1 and n != 1:
            a, a_names = squeeze(a, i), tuple([k for k in a_names if k != c])
        elif n == 1 and m != 1:
            b, b_names = squeeze(b, j), tuple([k for k in b_names if k != c])
    both = set(a_names) & set(b_names)
    a, a_names = _summed(a, a_names, later | both)
    b, b_names = _summed(b, b_names, later | both)
    names, a_order, b_order, n, k = _orders(a_names, b_names, later)
    a = a if a_order is None else permute(a, a_order)
    b = b if b_order is None else permute(b, b_order)
    rows, cols = len(shape_of(a)) - n - k, len(shape_of(b)) - n - k
    if rows == k == cols == 1:
        return matmul(a, b), names
    lead = shape_of(a)[:n]
    row_sizes, inner_sizes = shape_of(a)[n : n + rows], shape_of(a)[n + rows :]
    col_sizes = shape_of(b)[n + k :]
    if not k:  # an outer product: no sum, so no matrix product either
        a = reshape(a, (*lead, *row_sizes, *(1,) * cols))
        return a * reshape(b, (*lead, *(1,) * rows, *col_sizes)), names
    a = reshape(a, (*lead, numel(row_sizes), numel(inner_sizes)))
    b = reshape(b, (*lead, numel(inner_sizes), numel(col_sizes)))
    return reshape(matmul(a, b), (*lead, *row_sizes, *col_sizes)), names


@lru_cache(1024)
def _orders(a: Labels, b: Labels, later: frozenset[str]) -> tuple:
    """The product's labels; how operands' dims are to lie (None: as they do): batch, rows, inner
    and batch, inner, columns; how many of the batch there are, and inner.
    """
    both = set(a) & set(b)
    batch = [c for c in a if c in both and c in later]
    inner = [c for c in a if c in both and c not in later]
    rows, cols = ([c for c in names if c not in both] for names in (a, b))
    orders = [
        tuple(names.index(c) for c in wanted)
        for names, wanted in ((a, batch + rows + inner), (b, batch + inner + cols))
    ]
    found = [None if order == tuple(range(len(order))) else order for order in orders]
    return (*batch, *rows, *cols), *found, len(batch), len(inner)


# ---------------------------------------------------------------------------------- relatives


def tensordot(a: Any, b: Any, dims: Any = 2, out: Any = None) -> Any:
    """The sum over pairs of dims: the last `dims` of a with the first of b, or two lists."""
    m, n = len(shape_of(a)), len(shape_of(b))
    if hasattr(dims, "tolist"):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(m, n):
            raise RuntimeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}")
        dims = (list(range(m - dims, m)), list(range(dims)))
    elif not isinstance(dims, (tuple, list)) or len(dims) != 2:
        raise ValueError(f"tensordot expects dims to be an int or two lists, but got {dims}")
    first, second = ([d] if isinstance(d, int) else list(d) for d in dims)
    if len(first) != len(second):
        raise RuntimeError("both dimension lists should have same length")
    first = [wrap_dim(d, m, "tensordot") for d in first]
    second = [wrap_dim(d, n, "tensordot") for d in second]
    sizes, others = shape_of(a), shape_of(b)
    for i, j in zip(first, second, strict=True):
        if sizes[i] != others[j] and 1 in (sizes[i], others[j]):  # one for all: it multiplies sums
            a, b = (a, b.sum(j, keepdim=True)) if sizes[i] == 1 else (a.sum(i, keepdim=True), b)
        elif sizes[i] != others[j]:
            raise RuntimeError(
                "contracted dimensions need to match, but first has size "
                f"{sizes[i]} in dim {i} and second has size {others[j]} in dim {j}"
            )
    sizes, others = shape_of(a), shape_of(b)
    rows = [d for d in range(m) if d not in first]
    cols = [d for d in range(n) if d not in second]
    k = numel(sizes[d] for d in first)
    left = reshape(permute(a, (*rows, *first)), (numel(sizes[d] for d in rows), k))
    right = reshape(permute(b, (*second, *cols)), (k, numel(others[d] for d in cols)))
    y = reshape(matmul(left, right), (*(sizes[d] for d in rows), *(others[d] for d in cols)))
    return y if out is None else out.copy_result(y)


def inner(input: Any, other: Any, *, out: Any = None) -> Any:
    """y[..., ...] = the sum over the last dims; a plain product where one is 0-dim."""
    if not shape_of(input) or not shape_of(other):
        y = input * other
    else:
        if shape_of(input)[-1] != shape_of(other)[-1]:
            raise RuntimeError(
                "inner() the last dimension must match on both input tensors but got shapes "
                f"{list(shape_of(input))} and {list(shape_of(other))}"
            )
        y = tensordot(input, other, ([-1], [-1]))
    return y if out is None else out.copy_result(y)


def kron(input: Any, other: Any, *, out: Any = None) -> Any:
    """The Kronecker product: each element of input times the whole of other, in its place."""
    rank = max(len(shape_of(input)), len(shape_of(other)))
    a = (*(1,) * (rank - len(shape_of(input))), *shape_of(input))
    b = (*(1,) * (rank - len(shape_of(other))), *shape_of(other))
    left = reshape(input, tuple(k for n in a for k in (n, 1)))
    right = reshape(other, tuple(k for n in b for k in (1, n)))
    y = reshape(left * right, tuple(m * n for m, n in zip(a, b, strict=True)))
    return y if out is None else out.copy_result(y)


def cross(input: Any, other: Any, dim: int | None = None, *, out: Any = None) -> Any:
    """The vector product along dim (the first dim of size 3 when None)."""
    if dim is None:
        found = [d for d, n in enumerate(shape_of(input)) if n == 3]
        if not found:
            raise RuntimeError("no dimension of size 3 in input")
        dim = found[0]
    rank = len(shape_of(input))
    if rank != len(shape_of(other)):
        raise RuntimeError("linalg.cross: inputs must have the same number of dimensions.")
    d = some_dim(dim, shape_of(input), "cross")
    if shape_of(input)[d] != 3 or shape_of(other)[d] != 3:
        raise RuntimeError(
            "linalg.cross: inputs dimension "
            f"{dim} must have length 3. Got {shape_of(input)[d]} and {shape_of(other)[d]}"
        )
    if dtype_of(input) is not dtype_of(other):
        raise RuntimeError(
            f"linalg.cross: expected one dtype, got {dtype_of(input)} and {dtype_of(other)}"
        )
    y = roll(input * roll(other, -1, d) - roll(input, -1, d) * other, -1, d)
    return y if out is None else out.copy_result(y)


def baddbmm(
    input: Any, batch1: Any, batch2: Any, *, beta: Any = 1, alpha: Any = 1, out: Any = None
) -> Any:
    """beta * input + alpha * (batch1 @ batch2), for batches of matrices."""
    y = _scaled_sum("baddbmm", input, matmul(batch1, batch2), beta, alpha)
    return y if out is None else out.copy_result(y)


def addbmm(
    input: Any, batch1: Any, batch2: Any, *, beta: Any = 1, alpha: Any = 1, out: Any = None
) -> Any:
    """beta * input + alpha * (the sum over the batch of batch1 @ batch2)."""
    y = _scaled_sum("addbmm", input, matmul(batch1, batch2).sum(0), beta, alpha)
    return y if out is None else out.copy_result(y)


def addmv(input: Any, mat: Any, vec: Any, *, beta: Any = 1, alpha: Any = 1, out: Any = None) -> Any:
    """beta * input + alpha * (mat @ vec)"""
    y = _scaled_sum("addmv", input, matmul(mat, vec), beta, alpha)
    return y if out is None else out.copy_result(y)


def addr(
    input: Any, vec1: Any, vec2: Any, *, beta: Any = 1, alpha: Any = 1, out: Any = None
) -> Any:
    """beta * input + alpha * (vec1 outer vec2)"""
    y = _scaled_sum("addr", input, unsqueeze(vec1, 1) * vec2, beta, alpha)
    return y if out is None else out.copy_result(y)


def _scaled_sum(op: str, input: Any, product: Any, beta: Any, alpha: Any) -> Any:
    """beta * input + alpha * product; with beta 0 input's NaNs do not count."""
    d = dtype_of(product)
    alpha = as_number(number_of(alpha, op, "alpha"), d)
    beta = as_number(number_of(beta, op, "beta"), d)
    y = product if alpha == 1 else product * alpha
    if beta == 0:
        return y
    return y + (input if beta == 1 else input * beta)


def vdot(input: Any, other: Any, *, out: Any = None) -> Any:
    """The inner product of two vectors."""
    if dtype_of(input) is not dtype_of(other):
        raise RuntimeError(
            "dot : expected both vectors to have same dtype, but found "
            f"{dtype_of(input).spelled} and {dtype_of(other).spelled}"
        )
    y = inner(conj(input), other)
    return y if out is None else out.copy_result(y)


def chain_matmul(*matrices: Any, out: Any = None) -> Any:
    """The product of all matrices, in the order of least work."""
    return multi_dot(matrices, out=out)


def multi_dot(tensors: Sequence[Any], *, out: Any = None) -> Any:
    """The product of all matrices, in the order of least work; the ends may be vectors."""
    if isinstance(tensors, Handle):
        raise TypeError(
            "multi_dot(): argument 'tensors' (position 1) must be tuple of Tensors, not Tensor"
        )
    xs = list(tensors)
    if len(xs) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {len(xs)}")
    first, last = len(shape_of(xs[0])) == 1, len(shape_of(xs[-1])) == 1
    if first:
        xs[0] = unsqueeze(xs[0], 0)
    if last:
        xs[-1] = unsqueeze(xs[-1], 1)
    for i, x in enumerate(xs):
        if len(shape_of(x)) != 2:
            raise RuntimeError(f"multi_dot(): tensor {i} must be 2D but got {len(shape_of(x))}D")
    sizes = [shape_of(xs[0])[0], *(shape_of(x)[1] for x in xs)]
    cost: dict[tuple[int, int], tuple[int, int]] = {(i, i): (0, i) for i in range(len(xs))}
    for length in range(1, len(xs)):
        for i in range(len(xs) - length):
            j = i + length
            cost[i, j] = min(
                (cost[i, k][0] + cost[k + 1, j][0] + sizes[i] * sizes[k + 1] * sizes[j + 1], k)
                for k in range(i, j)
            )

    def product(i: int, j: int) -> Any:
        if i == j:
            return xs[i]
        k = cost[i, j][1]
        return matmul(product(i, k), product(k + 1, j))

    y = product(0, len(xs) - 1)
    y = squeeze(y, -1) if last else y
    y = squeeze(y, 0) if first else y
    return y if out is None else out.copy_result(y)


def cdist(
    x1: Any,
    x2: Any,
    p: float = 2.0,
    compute_mode: str = "use_mm_for_euclid_dist_if_necessary",
) -> Any:
    """y[..., i, j] = the p-norm of x1[..., i, :] - x2[..., j, :].

    Of 32 and more numbers, or where `compute_mode` is "use_mm_for_euclid_dist", p = 2 goes through
    |a|^2 + |b|^2 - 2 <a, b>, which loses digits where a and b are near one another. What torch
    asks, how many rows there are, would let a distance depend on the other rows.
    """
    if compute_mode not in _MODES:
        raise ValueError(f"{compute_mode} is not a valid value for compute_mode")
    shapes = shape_of(x1), shape_of(x2)
    least = _MODES[compute_mode]
    if p == 2 and all(len(s) > 1 for s in shapes) and shapes[0][-1] == shapes[1][-1] >= least:
        lengths = sum(x1 * x1, -1, True), sum(x2 * x2, -1, True)
        squared = lengths[0] + lengths[1].mT - 2 * matmul(x1, x2.mT)
        near = squared <= 0  # their gradient is 0, not 0 / 0
        return where(near, 0.0, sqrt(where(near, 1.0, squared)))
    apart = unsqueeze(x1, -2) - unsqueeze(x2, -3)
    return apart.norm(p, -1)


_MODES = {  # the least length of rows whose squared distances are made of products
    "use_mm_for_euclid_dist_if_necessary": 32,
    "use_mm_for_euclid_dist": 1,
    "donot_use_mm_for_euclid_dist": math.inf,
}


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """y[i, j] = x[i] ** (N - 1 - j), or ** j when increasing; N columns (x's size when None)."""
    if len(shape_of(x)) != 1:
        raise RuntimeError("x must be a one-dimensional tensor.")
    n = shape_of(x)[0] if N is None else N
    powers = arange(n) if increasing else arange(n - 1, -1, -1) if n else arange(0)
    return unsqueeze(x, 1) ** powers


def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Any:
    """y = x / max(length of x along dim, eps); lengths in the p-norm."""
    shape = shape_of(input)
    if isinstance(dim, int):
        wrap_dim(dim, len(shape), "normalize")
    y = input / expand(clamp_min(vector_norm(input, p, dim, True), eps), shape)
    return y if out is None else out.copy_result(y)


def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Any:
    """y = the p-norm of x1 - x2 + eps along the last dim; x1 and x2 broadcast."""
    only_tensors("pairwise_distance", x1, x2, names=("x1", "x2"))
    eps = real_number(eps, "pairwise_distance", "eps")
    return vector_norm(x1 - x2 + eps, real_number(p, "pairwise_distance", "p"), -1, keepdim)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """y = <x1, x2> / (max(|x1|, eps) max(|x2|, eps)) along dim; x1 and x2 broadcast."""
    x1, x2 = operands("cosine_similarity", x1, x2, floating=True)
    shape = broadcast_shapes(shape_of(x1), shape_of(x2), op="cosine_similarity")
    wrap_dim(dim, len(shape), "cosine_similarity")
    x1, x2 = expand(x1, shape), expand(x2, shape)
    n1 = clamp_min(vector_norm(x1, 2, dim, True), eps)
    n2 = clamp_min(vector_norm(x2, 2, dim, True), eps)
    return sum((x1 / n1) * (x2 / n2), dim)
