"""vmap: a function of one row, run on all rows at once through the ops' vmap rules.

Inside, a batched tensor is a *ghost*: it has the shape of one row, and its value is the batch.  Ops
on ghosts come to a recorder (as under weft.compile), which calls the op's vmap rule on the
batches.  Since the rules are written in ops, vmap nests, and differentiates both ways: gradients
taken inside are per row, those taken outside flow through the batches.

Not supported: reading a value inside (`item`, `if t:`), and writing a batched value into a tensor
that is not batched, or into a view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft.core import dtype as dt
from weft.core.handle import Handle, state
from weft.core.op import Op
from weft.core.types import contiguous_strides
from weft.ops import dispatch
from weft.ops.dispatch import NUMBERS, apply, dtype_of, shape_of
from weft.ops.join import Concat
from weft.ops.view import expand, movedim, reshape


class _Row:
    """The ghost of a batched tensor: one row's shape, the batch, and where its dim is."""

    __slots__ = ("batch", "dim", "dtype", "level", "offset", "shape", "strides")
    outer = None

    def __init__(self, level: Level, batch: Any, dim: int) -> None:
        self.level = level
        self.batch = batch
        self.dim = dim
        full = shape_of(batch)
        self.shape = full[:dim] + full[dim + 1 :]
        self.dtype: dt.dtype = dtype_of(batch)
        self.strides = contiguous_strides(self.shape)
        self.offset = 0

    def demand(self, handle: Handle) -> Any:
        raise RuntimeError(
            "vmap: the value of a batched tensor was asked for inside the function (by .item(), "
            "bool(), numpy(), or control flow that depends on data). Use weft.where for choices."
        )


def _ghost_of(level: Level, batch: Any, dim: int) -> Any:
    y = dispatch.fresh()
    y._ghost = _Row(level, batch, dim)
    return y


class Level:
    """One vmap in progress; the recorder of the ops inside it."""

    def __init__(self, size: int, outer: Any, randomness: str) -> None:
        self.size = size
        self.outer = outer
        self.randomness = randomness

    def row(self, t: Any) -> _Row | None:
        """t's ghost when t is batched at this level."""
        ghost = None if t.__class__ in NUMBERS else t._ghost
        return ghost if isinstance(ghost, _Row) and ghost.level is self else None

    def apply(self, op: Op, args: tuple) -> Any:
        """Called by dispatch.apply: the op on one row is its vmap rule on the batches."""
        rows = [self.row(a) for a in args]
        state.recorder = self.outer
        try:
            if not any(r is not None for r in rows):
                if op.effect and self.randomness != "same":
                    return self._draw(op, args)
                return apply(op, *args)
            if op.effect and self.randomness == "error":
                raise RuntimeError(_RANDOM)
            xs = [a if r is None else r.batch for a, r in zip(args, rows, strict=True)]
            dims = tuple(None if r is None else r.dim for r in rows)
            if op.vmap is not None:
                y, dim = op.vmap(self.size, dims, *xs)
            else:
                y, dim = vmap(op.body, dims)(*xs), 0
        finally:
            state.recorder = self
        return y if dim is None else _ghost_of(self, y, dim)

    def _draw(self, op: Op, args: tuple) -> Any:
        if self.randomness == "error":
            raise RuntimeError(_RANDOM)
        rows = [apply(op, *args) for _ in range(self.size)]
        return _ghost_of(self, _stack(rows), 0)

    def write(self, t: Any, value: Any) -> None:
        """Called by ops/write.py for an in-place write."""
        row = self.row(value)
        mine = self.row(t)
        if t._base is not None or (mine is None) != (row is None):
            raise RuntimeError(
                "vmap: an in-place write of a batched tensor into one that is not batched, or into "
                "a view, is not supported. Write the result into a new tensor."
            )
        if row is None:
            state.recorder = self.outer
            try:
                t.copy_(value)
            finally:
                state.recorder = self
        else:
            t._ghost = row

    def flush(self) -> None:
        """Nothing waits: ops run when called."""


_RANDOM = (
    "vmap: called random operation while in randomness error mode. Please either use the 'same' or "
    "'different' randomness flags on vmap or perform the randomness operation out of vmap"
)


def _stack(rows: list) -> Any:
    lifted = [reshape(r, (1, *shape_of(r))) for r in rows]
    return apply(Concat(0), *lifted)


def vmap(
    func: Callable,
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable:
    """func over a dim of its arguments: `vmap(dot)(a, b)[i] == dot(a[i], b[i])`.

    in_dims   the dim of each argument (int, None: the same for every row; or nested as the
              arguments are);  out_dims  where the results get it
    randomness  "error", "same" or "different" numbers in the rows
    ValueError: no dim to map over, or sizes that differ.
    """
    if randomness not in ("error", "same", "different"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")  # fmt: skip  # noqa: E501

    def mapped(*args: Any, **kw: Any) -> Any:
        flat, rebuild = flatten(args)
        dims = _spread(in_dims, args)
        fixed = []
        for x, d in zip(flat, dims, strict=True):
            if d is not None and not isinstance(x, Handle):
                raise ValueError(
                    f"vmap: Got in_dim={d} for an input but the input is of type {type(x)}. We "
                    "cannot vmap over non-Tensor arguments, please use None as the respective "
                    "in_dim"
                )
            n = len(shape_of(x)) if d is not None else 0
            if d is not None and not -n <= d < n:
                raise ValueError(f"vmap: Got in_dim={d} for an input of {n} dims: out of range")
            fixed.append(None if d is None else d % n)
        sizes = {shape_of(x)[d] for x, d in zip(flat, fixed, strict=True) if d is not None}
        if not sizes:
            raise ValueError("vmap: there is no dim to map over: in_dims are all None")
        if len(sizes) > 1:
            raise ValueError(
                f"vmap: Expected all tensors to have the same size in the mapped dimension, got "
                f"sizes {sorted(sizes)} for the mapped dimension"
            )
        size = sizes.pop()
        if chunk_size is not None and chunk_size < size:
            return _chunked(mapped_once, flat, fixed, rebuild, size, chunk_size, out_dims, kw)
        return mapped_once(flat, fixed, rebuild, size, kw)

    def mapped_once(flat: list, dims: list, rebuild: Callable, size: int, kw: dict) -> Any:
        outer = state.recorder
        level = Level(size, outer, randomness)
        inside = [
            x if d is None else _ghost_of(level, x, d) for x, d in zip(flat, dims, strict=True)
        ]
        state.recorder = level
        try:
            out = func(*rebuild(inside), **kw)
        finally:
            state.recorder = outer
        leaves, rebuild_out = flatten(out)
        places = _spread(out_dims, out)
        return rebuild_out([_outside(level, y, d) for y, d in zip(leaves, places, strict=True)])

    return mapped


def _outside(level: Level, y: Any, out_dim: int | None) -> Any:
    """A result with its batch dim at `out_dim`."""
    if not isinstance(y, Handle):
        raise ValueError(f"vmap: the function must only return Tensors, got type {type(y)}")
    row = level.row(y)
    if row is None:
        if out_dim is None:
            return y
        y = expand(reshape(y, (1, *shape_of(y))), (level.size, *shape_of(y)))
        return movedim(y, 0, out_dim)
    if out_dim is None:
        raise ValueError("vmap: out_dims is None for a result that differs between rows")
    return row.batch if row.dim == out_dim else movedim(row.batch, row.dim, out_dim)


def _chunked(
    once: Callable, flat: list, dims: list, rebuild: Callable, size: int, chunk: int, out_dims: Any,
    kw: dict,
) -> Any:  # fmt: skip
    """The rows in groups, so that less memory is live at a time."""
    parts = []
    for start in range(0, size, chunk):
        n = min(chunk, size - start)
        some = [x if d is None else x.narrow(d, start, n) for x, d in zip(flat, dims, strict=True)]
        parts.append(flatten(once(some, dims, rebuild, n, kw)))
    columns = []
    for k, d in enumerate(_spread(out_dims, parts[0][1](parts[0][0]))):
        pieces = [p[0][k] for p in parts]
        columns.append(apply(Concat(d % len(shape_of(pieces[0]))), *pieces))
    return parts[0][1](columns)


# ------------------------------------------------------------------------------ nested arguments


def flatten(x: Any) -> tuple[list, Callable[[list], Any]]:
    """The leaves of nested tuples, lists and dicts, and the way back."""
    leaves: list = []

    def walk(v: Any) -> Any:
        if isinstance(v, dict):
            return dict, list(v), [walk(e) for e in v.values()]
        if isinstance(v, (tuple, list)):
            return type(v), None, [walk(e) for e in v]
        leaves.append(v)
        return None

    shape = walk(x)

    def rebuild(values: list) -> Any:
        rest = iter(values)

        def make(s: Any) -> Any:
            if s is None:
                return next(rest)
            kind, keys, parts = s
            made = [make(p) for p in parts]
            if kind is dict:
                return dict(zip(keys, made, strict=True))
            return kind(*made) if hasattr(kind, "_fields") else kind(made)

        return make(shape)

    return leaves, rebuild


def _spread(dims: Any, like: Any) -> list:
    """One dim a leaf of `like`, from a dim or a nest of dims."""
    if isinstance(like, dict):
        each = [dims[k] if isinstance(dims, dict) else dims for k in like]
        return [d for e, v in zip(each, like.values(), strict=True) for d in _spread(e, v)]
    if isinstance(like, (tuple, list)):
        if isinstance(dims, (tuple, list)):
            if len(dims) != len(like):
                raise ValueError(
                    f"vmap: {len(dims)} dims were given for {len(like)} arguments: {dims}"
                )
            return [d for e, v in zip(dims, like, strict=True) for d in _spread(e, v)]
        return [d for v in like for d in _spread(dims, v)]
    return [dims]
