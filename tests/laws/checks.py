"""The laws: each takes (op name, sample index) and raises Broken, or returns what it checked.

By hand: `python -m tests.laws.checks vjp Softmax 0` runs one.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import weft
from tests.laws.tolerances import DIFFERENCE, close, worst
from weft import ops
from weft.autograd import grad
from weft.core import dtype as dt
from weft.core import sampling
from weft.core.op import REGISTRY, Op
from weft.core.op_text import parse_op
from weft.core.types import Type
from weft.ops.dispatch import apply, wrap

ROOM_ERRORS: list[str] = []  # a room that does not import fails one test, not the other rooms'
for _room in pkgutil.iter_modules(ops.__path__):
    try:
        importlib.import_module(f"weft.ops.{_room.name}")
    except Exception as e:
        ROOM_ERRORS.append(f"weft.ops.{_room.name}: {type(e).__name__}: {e}")

REFUSALS = (RuntimeError, TypeError, IndexError, ValueError, NotImplementedError)
LAWS: dict[str, Callable[[str, int], Any]] = {}


class Broken(AssertionError):
    """A law does not hold; the message ends with a command that shows it again."""


class Idle(Exception):
    """The law has nothing to say about this sample (the reason is the text)."""


def law(fn: Callable) -> Callable:
    LAWS[fn.__name__] = fn
    return fn


def check(name: str, op: str, index: int) -> None:
    """One law on one sample, with a one-line repro on failure."""
    try:
        LAWS[name](op, index)
    except Idle:
        raise
    except Exception as e:
        what = str(e) if isinstance(e, Broken) else f"{type(e).__name__}: {e}"
        raise Broken(
            f"{sampling.op_of(op, index)}: {what}\n"
            f"repro: PYTHONPATH=src:. python -m tests.laws.checks {name} {op} {index}"
        ) from (None if isinstance(e, Broken) else e)


# ------------------------------------------------------------------------------ helpers


def tensors(args: list) -> list:
    """Fresh tensors over the arrays; numbers stay."""
    return [wrap(a) if isinstance(a, np.ndarray) else a for a in args]


def run(op: Op, args: list) -> np.ndarray:
    """The op's value, off the tape."""
    with weft.no_grad():
        return apply(op, *tensors(args))._a


def types_of(args: list) -> list[Type]:
    """The operands' types; a number has the first array's dtype, as kernels see it."""
    first = next((a for a in args if isinstance(a, np.ndarray)), None)
    out = []
    for a in args:
        if isinstance(a, np.ndarray):
            out.append(Type(a.shape, dt.from_np(a.dtype)))
        else:
            out.append(Type((), dt.of_number(a) if first is None else dt.from_np(first.dtype)))
    return out


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def need_same(got: np.ndarray, want: np.ndarray, what: str) -> None:
    if got.shape != want.shape or got.dtype != want.dtype:
        raise Broken(f"{what}: {got.dtype}{got.shape}, wanted {want.dtype}{want.shape}")
    if not same_bits(got, want):
        raise Broken(f"{what}: other bits, {worst(got, want)}")


def as_number_array(x: Any, args: list) -> Any:
    """What oracles get for a Python number: an array of the first operand's dtype."""
    first = next((a for a in args if isinstance(a, np.ndarray)), None)
    return x if isinstance(x, np.ndarray) or first is None else np.asarray(x, first.dtype)


def is_pure(op: Op) -> None:
    if op.effect:
        raise Idle("it draws random numbers")


# ------------------------------------------------------------------------------ value and type


@law
def value(name: str, index: int) -> None:
    """The value is the oracle's in float64, within the dtype's tolerance; NaN may be in it."""
    op = sampling.op_of(name, index)
    is_pure(op)
    args = sampling.draw(name, index)
    kinds = {d.name for d in sampling.dtypes_of(REGISTRY[name].samples[index])}
    floats = [dt.float32, dt.float64, dt.float16, dt.bfloat16] if "float32" in kinds else [None]
    if any(kind.startswith("complex") for kind in kinds):
        floats = [dt.float32, dt.float64]  # of the parts
    if op.single:
        floats = [dt.float32]
    for d in floats:
        args = sampling.draw(name, index, floats=d)
        try:
            got = run(op, args)
        except REFUSALS as e:
            if d in (dt.float16, dt.bfloat16):
                continue  # a narrow dtype may be refused, never wrong
            raise Broken(f"refuses its own sample in {d}: {type(e).__name__}: {e}") from e
        want = oracle(op, args)
        bad = close(got, np.asarray(want), dt.from_np(got.dtype) if d is None else _coarser(d, got))
        if bad:
            raise Broken(f"value in {d or 'its dtypes'}: {bad}")


def _coarser(d: dt.dtype, got: np.ndarray) -> dt.dtype:
    """The dtype whose tolerance counts: the narrower of operands' and result's."""
    result = dt.from_np(got.dtype)
    narrow = result.category < dt.FLOAT or result.to_real().itemsize < d.itemsize
    return result if narrow else d


def oracle(op: Op, args: list) -> np.ndarray:
    """The op's meaning, computed in float64; a body is its own oracle, run in float64."""
    if op.is_view:  # bits, not numbers: nothing rounds
        return op.oracle(*args)
    wide = [_widest(a) for a in args]
    with np.errstate(all="ignore"):
        if op.oracle is not None:
            return op.oracle(*(as_number_array(a, wide) for a in wide))
        with weft.no_grad():
            return op.body(*tensors(wide))._a


def _widest(a: Any) -> Any:
    d = dt.from_np(a.dtype) if isinstance(a, np.ndarray) else dt.bool
    return a.astype((np.float64, np.complex128)[d.is_complex]) if d.category >= dt.FLOAT else a


@law
def types(name: str, index: int) -> None:
    """type() gives the shape and dtype of the actual value, also without elements."""
    op = sampling.op_of(name, index)
    for args in [sampling.draw(name, index), *_zero_sized(name, index)]:
        given = types_of(args)
        try:
            inferred = op.type(*given)
        except REFUSALS as e:
            if args is None:
                raise
            try:
                got = run(op, args)
            except REFUSALS:
                continue
            raise Broken(
                f"type() refuses {list(map(str, given))} ({e}), yet it runs: {got.shape}"
            ) from None
        try:
            got = run(op, args)
        except (IndexError, RuntimeError):
            if hasattr(op, "fail"):  # the data (an index into nothing) is refused, not the types
                continue
            raise
        actual = Type(got.shape, dt.from_np(got.dtype))
        if actual != inferred:
            raise Broken(f"on {list(map(str, given))} type() says {inferred}, got {actual}")


def _zero_sized(name: str, index: int) -> Iterator[list]:
    """The sample with all dims of one size set to 0, for each size in it."""
    shapes = [a if isinstance(a, tuple) else None for a in REGISTRY[name].samples[index].args]
    for size in sorted({n for s in shapes if s for n in s} - {0}):
        empty = [s and tuple(0 if n == size else n for n in s) for s in shapes]
        try:
            yield sampling.draw(name, index, shapes=tuple(empty))
        except ValueError:
            continue


# ------------------------------------------------------------------------------ derivatives


def _differentiable(name: str, index: int) -> tuple[Op, list, list[int]]:
    """The op, its operands in float64, and the positions of those with a gradient."""
    op = sampling.op_of(name, index)
    if op.nondiff is not None:
        raise Idle(f"no gradient: {op.nondiff}")
    args = sampling.draw(name, index, floats=dt.float64)
    where = [i for i, a in enumerate(args) if isinstance(a, np.ndarray) and a.dtype in EXACT]
    if not where:
        raise Idle("no floating operand")
    probe = run(op, args)
    if dt.from_np(probe.dtype).category < dt.FLOAT:
        raise Idle("its result is not floating")
    return op, args, where


EXACT = (np.float64, np.complex128)


def _normal(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    """Standard normal numbers of an array's shape, complex where it is."""
    real = rng.standard_normal(like.shape)
    return np.asarray(
        real + 1j * rng.standard_normal(like.shape) if like.dtype.kind == "c" else real
    )


def _inner(a: np.ndarray, b: np.ndarray) -> float:
    """<a, b>: the change of a loss with gradient a along b (of complex numbers Re conj(a) b)."""
    return float(np.sum(np.conj(a) * b).real)


def _inner_of(c: Any, u: np.ndarray) -> Any:
    """<c, u> as a tensor."""
    products = c * wrap(np.conj(u))
    return (products.real if products.is_complex() else products).sum()


def _leaves(args: list, where: list[int]) -> tuple[list, list]:
    xs = tensors(args)
    for i in where:
        xs[i].requires_grad_()
    return xs, [xs[i] for i in where]


def _seeded(name: str, index: int, salt: int) -> np.random.Generator:
    return np.random.default_rng([index, salt, len(name)])


def _moved(args: list, i: int, step: np.ndarray) -> list:
    out = list(args)
    out[i] = np.asarray(args[i] + step)
    return out


def _need_type(got: np.ndarray, want: np.ndarray, what: str) -> None:
    """Before any inner product: it broadcasts, and would hide a missing sum."""
    if got.shape != want.shape or got.dtype != want.dtype:
        raise Broken(f"{what} is {got.dtype}{got.shape} for {want.dtype}{want.shape}")


_STEP = 1e-6
_NARROW = 2e-3  # a result that rounds to float32 or less needs a longer step


def _need_close(got: float, want: float, scale: float, what: str, step: float) -> None:
    rtol, atol = DIFFERENCE if step == _STEP else (2e-2, 2e-2)
    if not abs(got - want) <= atol * max(1.0, scale) + rtol * abs(want):
        raise Broken(f"{what}: rule gives {got!r}, finite difference {want!r}")


def _step_for(op: Op, args: list) -> float:
    y = run(op, args)
    return _STEP if y.dtype in EXACT else _NARROW


@law
def vjp(name: str, index: int) -> None:
    """<vjp(g), v> is the slope of <op(x + t v), g> at t = 0, operand by operand."""
    op, args, where = _differentiable(name, index)
    step = _step_for(op, args)
    rng = _seeded(name, index, 1)
    xs, leaves = _leaves(args, where)
    y = apply(op, *xs)
    g = _normal(rng, y._a)
    cts = grad(y, leaves, wrap(g.astype(y._a.dtype)), materialize_grads=True)
    for i, c in zip(where, cts, strict=True):
        _need_type(c._a, args[i], f"cotangent of operand {i}")
        v = _normal(rng, args[i])
        up, down = (run(op, _moved(args, i, t * v)) for t in (step, -step))
        want = _inner(g, _widest(up) - down) / (2 * step)
        got = _inner(c._a, v)
        _need_close(got, want, float(np.abs(g).sum()), f"cotangent of operand {i}", step)


@law
def double_vjp(name: str, index: int) -> None:
    """The vjp rule's own derivative, with respect to operands and cotangent, is its slope."""
    op, args, where = _differentiable(name, index)
    if _step_for(op, args) != _STEP:
        raise Idle("its result is narrower than float64")
    rng = _seeded(name, index, 2)
    g = _normal(rng, run(op, args))
    us = [_normal(rng, args[i]) for i in where]

    def first(args: list, g: np.ndarray, order: bool) -> tuple[Any, list]:
        """<vjp(x, g), u> as a tensor, and the leaves (operands, then g)."""
        xs, leaves = _leaves(args, where)
        gt = wrap(np.array(g))
        if order:
            gt.requires_grad_()
        y = apply(op, *xs)
        cts = grad(y, leaves, gt, create_graph=order, materialize_grads=True)
        s = sum((_inner_of(c, u) for c, u in zip(cts, us, strict=True)), start=0.0)
        return s, [*leaves, gt]

    s, leaves = first(args, g, order=True)
    if s.requires_grad:
        seconds = grad(s, leaves, allow_unused=True)
    else:
        seconds = (None,) * len(leaves)
    points = [*(args[i] for i in where), g]
    for k, (second, point) in enumerate(zip(seconds, points, strict=True)):
        v = _normal(rng, point)
        ends = []
        for t in (_STEP, -_STEP):
            if k < len(where):
                s, _ = first(_moved(args, where[k], t * v), g, order=False)
            else:
                s, _ = first(args, g + t * v, order=False)
            ends.append(float(s._a))
        want = (ends[0] - ends[1]) / (2 * _STEP)
        if second is not None:
            _need_type(second._a, point, f"second derivative {k}")
        got = 0.0 if second is None else _inner(second._a, v)
        what = f"second derivative along {'operand ' + str(where[k]) if k < len(where) else 'g'}"
        _need_close(got, want, 10 * float(np.abs(g).sum()), what, _STEP)


@law
def jvp(name: str, index: int) -> None:
    """The jvp made of two vjps is the op's slope, and <J v, g> = <v, J^T g>."""
    op, args, where = _differentiable(name, index)
    step = _step_for(op, args)
    rng = _seeded(name, index, 3)
    xs, leaves = _leaves(args, where)
    y = apply(op, *xs)
    u = wrap(np.zeros(y._a.shape, y._a.dtype)).requires_grad_()
    cts = grad(y, leaves, u, create_graph=True, materialize_grads=True)
    vs = [_normal(rng, args[i]) for i in where]
    s = sum((_inner_of(c, v) for c, v in zip(cts, vs, strict=True)), start=0.0)
    if s.requires_grad:
        (tangent,) = grad(s, [u], materialize_grads=True)
        jv = tangent._a
    else:
        jv = np.zeros(y._a.shape)
    ends = []
    for t in (step, -step):
        moved = list(args)
        for i, v in zip(where, vs, strict=True):
            moved[i] = np.asarray(args[i] + t * v)
        ends.append(_widest(run(op, moved)))
    want = (ends[0] - ends[1]) / (2 * step)
    rtol, atol = DIFFERENCE if step == _STEP else (2e-2, 2e-2)
    scale = max(1.0, float(np.abs(want).max(initial=0.0)))
    if not np.allclose(jv, want, rtol, atol * 10 * scale):
        raise Broken(f"J v: {worst(jv, want)}")
    g = _normal(rng, y._a)
    xs, leaves = _leaves(args, where)
    back = grad(apply(op, *xs), leaves, wrap(g.astype(y._a.dtype)), materialize_grads=True)
    there = _inner(jv, g)
    here = sum(_inner(b._a, v) for b, v in zip(back, vs, strict=True))
    tol = 1e-9 if step == _STEP else 1e-4
    if abs(there - here) > tol * max(1.0, abs(there), float(np.abs(g).sum()) * scale):
        raise Broken(f"<J v, g> = {there!r} but <v, J^T g> = {here!r}")


# ------------------------------------------------------------------------------ vmap and bits


def _batches(name: str, index: int, size: int) -> Iterator[tuple[tuple, list, list[list]]]:
    """(dims, batched operands, operands of each row): all batched, then each one alone."""
    base = sampling.draw(name, index)
    where = [i for i, a in enumerate(base) if isinstance(a, np.ndarray)]
    if not where:
        raise Idle("no operands")
    rows = [sampling.draw(name, index, seed=s) for s in range(size)]
    choices = [dict.fromkeys(where, 0), {i: base[i].ndim for i in where}]
    if len(where) > 1:
        choices += [{i: 0} for i in where]
    for chosen in choices:
        dims = tuple(chosen.get(i) for i in range(len(base)))
        args, each = list(base), [list(base) for _ in range(size)]
        for i, d in chosen.items():
            args[i] = np.stack([r[i] for r in rows], d)
            for r, out in zip(rows, each, strict=True):
                out[i] = np.array(r[i], order="C")  # keeps 0 dims
        yield dims, args, each


@law
def vmap(name: str, index: int) -> None:
    """The vmap rule gives, row by row, the bits of one call a row."""
    op = sampling.op_of(name, index)
    is_pure(op)
    for dims, args, each in _batches(name, index, 3):
        want = np.stack([run(op, a) for a in each])
        with weft.no_grad():
            try:
                y, out_dim = batched(op, 3, dims, tensors(args))
            except RuntimeError:
                if op.is_view and dims != tuple(0 if d is not None else None for d in dims):
                    continue  # a view may be impossible on these strides
                raise
        if out_dim is None:
            got = np.broadcast_to(y._a, want.shape)
        else:
            got = np.moveaxis(y._a, out_dim, 0)
        need_same(np.ascontiguousarray(got), want, f"vmap over dims {dims}")


def batched(op: Op, size: int, dims: tuple, xs: list) -> tuple[Any, int | None]:
    """The op's vmap rule, or its body over a batch."""
    if op.vmap is not None:
        return op.vmap(size, dims, *xs)
    return weft.func.vmap(op.body, in_dims=dims)(*xs), 0


@law
def threads(name: str, index: int) -> None:
    """One thread or two, again or for the first time, alone or in a large batch: same bits."""
    op = sampling.op_of(name, index)
    is_pure(op)
    args = sampling.draw(name, index)
    once = run(op, args)
    need_same(run(op, args), once, "the same call twice")
    if not any(isinstance(a, np.ndarray) for a in args) or once.size == 0:
        return
    loops = getattr(op.vmap, "__name__", "") == "by_loop"
    size = 3 if loops else min(4096, 1 + 60_000 // max(once.size, 1))
    dims = tuple(0 if isinstance(a, np.ndarray) else None for a in args)
    big = [np.stack([a] * size) if isinstance(a, np.ndarray) else a for a in args]
    results = []
    before = weft.get_num_threads()
    try:
        for n in (1, 2):
            weft.set_num_threads(n)
            with weft.no_grad():
                y, out_dim = batched(op, size, dims, tensors(big))
            results.append(np.array(y._a))
    finally:
        weft.set_num_threads(before)
    need_same(results[1], results[0], "2 threads against 1")
    last = np.take(results[0], size - 1, axis=out_dim)
    need_same(np.ascontiguousarray(last), np.ascontiguousarray(once), "a row of a large batch")


@law
def layout(name: str, index: int) -> None:
    """The operands' strides do not show: reversed, transposed, with gaps, repeated."""
    op = sampling.op_of(name, index)
    is_pure(op)
    args = sampling.draw(name, index)
    plain = run(op, args)
    for what, lay in LAYOUTS.items():
        spread = [lay(a) if isinstance(a, np.ndarray) else a for a in args]
        try:
            got = run(op, spread)
        except RuntimeError:
            if op.is_view:  # a view may be impossible on these strides
                continue
            raise
        need_same(np.ascontiguousarray(got), np.ascontiguousarray(plain), what)
    for d in range(max((a.ndim for a in args if isinstance(a, np.ndarray)), default=0)):
        held = [_repeated(a, d) if isinstance(a, np.ndarray) else a for a in args]
        try:
            want = run(
                op, [np.array(a, order="C") if isinstance(a, np.ndarray) else a for a in held]
            )
            got = run(op, held)
        except RuntimeError:
            if op.is_view or _refuses(op, held):  # or there is no value: equal rows are singular
                continue
            raise
        need_same(np.ascontiguousarray(got), np.ascontiguousarray(want), f"stride 0 in dim {d}")


def _refuses(op: Op, args: list) -> bool:
    try:
        run(op, [np.array(a, order="C") if isinstance(a, np.ndarray) else a for a in args])
    except REFUSALS:
        return True
    return False


def _reversed(a: np.ndarray) -> np.ndarray:
    if a.ndim == 0:
        return a
    flip = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[flip])[flip]


def _gaps(a: np.ndarray) -> np.ndarray:
    if a.ndim == 0:
        return a
    wide = np.zeros(tuple(2 * n + 1 for n in a.shape), a.dtype)
    at = tuple(slice(1, 2 * n + 1, 2) for n in a.shape)
    wide[at] = a
    return wide[at]


def _repeated(a: np.ndarray, d: int) -> np.ndarray:
    """The array with the first place of dim d repeated along it, with stride 0."""
    if d >= a.ndim or a.shape[d] == 0:
        return a
    return np.broadcast_to(np.take(a, [0], axis=d), a.shape)


LAYOUTS = {
    "negative strides": _reversed,
    "Fortran order": lambda a: np.array(a, order="F"),  # keeps 0 dims
    "gaps between elements": _gaps,
}


@law
def purity(name: str, index: int) -> None:
    """The operands keep their values, and the result is memory of its own unless a view."""
    op = sampling.op_of(name, index)
    args = sampling.draw(name, index)
    kept = [np.array(a) for a in args]
    y = run(op, args)
    for i, (a, k) in enumerate(zip(args, kept, strict=True)):
        if isinstance(a, np.ndarray):
            need_same(a, k, f"operand {i} after the call")
    shared = any(isinstance(a, np.ndarray) and np.may_share_memory(y, a) for a in args)
    if shared and not op.is_view and y.size:
        raise Broken("the result shares memory with an operand, and the op is no view")


@law
def text(name: str, index: int) -> None:
    """The printed op parses back to the same op."""
    op = sampling.op_of(name, index)
    back = parse_op(str(op))
    if back is not op and str(back) != str(op):
        raise Broken(f"{op} parses to {back}")


if __name__ == "__main__":
    check(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print("holds")
