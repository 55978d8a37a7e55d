"""Checks that hold for any op, driven by its samples: value, type, gradients, vmap."""

from typing import Any

import numpy as np

import weft
from weft.core.dtype import BY_NAME, from_np
from weft.core.op import Op, Sample
from weft.core.types import Type
from weft.ops.dispatch import apply


def draw(s: Sample, rng: np.random.Generator, wide: bool = True) -> list[Any]:
    """NumPy operands of a sample; floating ones as float64 when `wide`."""
    names = s.of if isinstance(s.of, tuple) else (s.of,) * len(s.args)
    out: list[Any] = []
    for a, name in zip(s.args, names, strict=True):
        d = BY_NAME[name]
        if not isinstance(a, tuple):
            out.append(a)
        elif name == "bool":
            out.append(rng.random(a) < 0.5)
        elif d.is_complex:
            parts = rng.uniform(s.low, s.high, (*a, 2))
            out.append((parts[..., 0] + 1j * parts[..., 1]).astype(np.complex128 if wide else d.np))
        elif d.is_floating_point:
            out.append(rng.uniform(s.low, s.high, a).astype(np.float64 if wide else d.np))
        else:
            out.append(rng.integers(int(s.low), int(s.high), a).astype(d.np))
    return out


def tensors(arrays: list[Any]) -> list[Any]:
    return [weft.from_numpy(a.copy()) if isinstance(a, np.ndarray) else a for a in arrays]


def check(kind: type[Op], *, vmap: bool = True) -> None:
    """Every rule of an op on every sample, with float64 operands."""
    rng = np.random.default_rng(7)
    for s in kind.samples:
        op = kind(**s.attrs)
        xs = draw(s, rng)
        got = apply(op, *tensors(xs))
        label = f"{op} on {s.args}"
        if op.oracle is not None:
            np.testing.assert_allclose(got.numpy(), op.oracle(*xs), 1e-9, 1e-12, err_msg=label)
        wanted = op.type(*(_type(x) for x in xs))
        assert (tuple(got.shape), got.dtype) == (wanted.shape, wanted.dtype), label
        plain = all(np.asarray(x).dtype.kind != "c" for x in xs)  # tests/laws has complex gradients
        if op.nondiff is None and plain and got.is_floating_point():
            gradients(lambda *ts, op=op: apply(op, *ts), xs, label)
        if vmap and op.vmap is not None:
            _vmap(op, xs, label)


def _type(x: Any) -> Type:
    a = np.asarray(x)
    return Type(a.shape, from_np(a.dtype))


def gradients(fn: Any, xs: list[Any], label: str = "", order: int = 2, tol: float = 2e-6) -> None:
    """The gradient of sum(fn(xs) * weights) against central differences, to order 2."""
    floats = [i for i, x in enumerate(xs) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    rng = np.random.default_rng(3)
    shape = tuple(fn(*tensors(xs)).shape)
    weights = weft.from_numpy(rng.normal(size=shape))

    def loss(arrays: list[Any]) -> float:
        return float((fn(*tensors(arrays)) * weights).sum().item())

    leaves = tensors(xs)
    for i in floats:
        leaves[i].requires_grad_()
    y = (fn(*leaves) * weights).sum()
    if not y.requires_grad:
        raise AssertionError(f"{label}: no gradient")
    grads = weft.autograd.grad(y, [leaves[i] for i in floats], allow_unused=True)
    for i, g in zip(floats, grads, strict=True):
        x = xs[i]
        wanted = np.zeros_like(x)
        for k in np.ndindex(*x.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [a.copy() if isinstance(a, np.ndarray) else a for a in xs]
                moved[i][k] += step
                ends.append(loss(moved))
            wanted[k] = (ends[0] - ends[1]) / 2e-5
        have = np.zeros_like(x) if g is None else g.numpy()
        np.testing.assert_allclose(have, wanted, tol, tol, err_msg=f"{label}: operand {i}")
    if order > 1 and all(xs[i].size for i in floats):
        used = [i for i, g in zip(floats, grads, strict=True) if g is not None]

        def gradient(*ts: Any) -> Any:
            ts = list(ts)
            for i in used:
                if not ts[i].requires_grad:
                    ts[i].requires_grad_()
            z = (fn(*ts) * weights).sum()
            parts = weft.autograd.grad(z, [ts[i] for i in used], create_graph=True)
            return weft.cat([p.reshape(-1) for p in parts])

        try:
            gradients(gradient, xs, label + " twice", 1, tol * 50)
        except AssertionError as e:
            if "no gradient" not in str(e):  # a linear op's gradient does not depend on x
                raise


def _vmap(op: Op, xs: list[Any], label: str) -> None:
    for which in range(1, 1 << len(xs)):
        dims = tuple(0 if which >> i & 1 else None for i in range(len(xs)))
        if any(d is not None and not isinstance(x, np.ndarray) for d, x in zip(dims, xs)):
            continue
        rows = [x if d is None else np.stack([x, x[::-1] if x.ndim else x + 1])
                for d, x in zip(dims, xs)]  # fmt: skip
        got, at = op.vmap(2, dims, *tensors(rows))
        for i in range(2):
            one = [r if d is None else np.asarray(r[i]) for d, r in zip(dims, rows)]
            wanted = apply(op, *tensors(one)).numpy()
            row = got.select(at, i).numpy()
            np.testing.assert_allclose(row, wanted, 1e-9, 1e-12, err_msg=f"{label} vmap {dims}")
