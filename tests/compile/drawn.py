"""Random programs: what people do in a step, in a random order, on tensors of sizes that change.

`program(seed)` makes one anew, its state too, so that it can run eagerly and compiled. What a call
does follows from the seed, the values met and the arguments alone. `python -m
tests.compile.drawn FIRST COUNT` runs more of them than the tests do, and `... SEED` shows one.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

import weft
import weft.nn.functional as F
from tests.compile.agree import bits, tensor
from weft import nn, optim

WIDTHS = (8, 8, 8, 33, 64)  # of the last dimension of most values, so that layers fit
LARGEST = 30_000  # elements of a value
FLOATS = (weft.float32, weft.float32, weft.float64, weft.bfloat16, weft.float16)


class Program:
    """One random program: parameters, state that it writes, and what it does with a batch."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.width = width = WIDTHS[seed % len(WIDTHS)]
        weft.manual_seed(seed)
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.batch_norm = nn.BatchNorm1d(width)
        self.conv = nn.Conv1d(width, width, 3, padding=1)
        self.image = nn.Conv2d(1, 2, 3, padding=1)
        self.table = nn.Embedding(11, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.modules = [self.linear, self.norm, self.batch_norm, self.conv, self.image,
                        self.table, self.lstm]  # fmt: skip
        self.parameters = [p for m in self.modules for p in m.parameters()]
        rng = np.random.default_rng(seed)
        kind = rng.integers(4)
        self.optimizer = (
            optim.SGD(self.parameters, lr=0.05, momentum=0.9 * (seed % 2))
            if kind < 2
            else optim.Adam(self.parameters, lr=0.01)
            if kind == 2
            else optim.AdamW(self.parameters, lr=0.01, weight_decay=0.1)
        )
        self.schedule = optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        self.state = [
            tensor(4, width, seed=seed),
            tensor(width, seed=seed + 1),
            weft.arange(width),
        ]
        self.kept: list[Any] = []
        self.calls = 0

    def memory(self) -> list[Any]:
        """All that a call may change."""
        buffers = [b for m in self.modules for b in m.buffers()]
        grads = [p.grad for p in self.parameters]
        return [*self.parameters, *buffers, *grads, *self.state, *self.kept, weft.get_rng_state()]

    def __call__(self, x: weft.Tensor, n: int, scale: float) -> list[Any]:
        self.calls += 1
        rng = np.random.default_rng(self.seed)
        values: list[Any] = [x, *self.state]
        numbers: list[Any] = []
        try:
            for _ in range(int(rng.integers(4, 22))):
                self.act(rng, values, numbers, n, scale)
            if rng.random() < 0.6:
                self.learn(rng, values, numbers)
        except (RuntimeError, ValueError, TypeError, IndexError) as e:
            numbers.append(type(e).__name__)
            if TRACE:
                traceback.print_exc(limit=-3)
        return [*values[-4:], *numbers]

    def act(self, rng: Any, values: list[Any], numbers: list[Any], n: int, scale: float) -> None:
        late = rng.random() < 0.5  # a chain, as in a network
        a = values[-1 if late else int(rng.integers(len(values)))]
        b = values[int(rng.integers(len(values)))]
        acts = [one, two, reduce, view, turn, whole, write, alias, layer, cast, pick, branch, draw,
                grad]  # fmt: skip
        weights = np.array([4, 5, 4, 5, 4, 2, 4, 3, 5, 2, 4, 2, 1, 1.0])
        act = acts[int(rng.choice(len(acts), p=weights / weights.sum()))]
        made = act(self, rng, a, b, values, numbers, n, scale)
        if TRACE:
            print(act.__name__, shown(a), shown(b), "->", shown(made))
        if made is not None and 0 < made.numel() <= LARGEST:
            values.append(made)

    def learn(self, rng: Any, values: list[Any], numbers: list[Any]) -> None:
        loss: Any = sum((v.float().tanh().sum() for v in values if v.requires_grad), weft.zeros(()))
        if not loss.requires_grad:
            return
        if rng.random() < 0.8 or self.calls % 2:  # else gradients of two calls add up
            self.optimizer.zero_grad(set_to_none=bool(rng.integers(2)))
        loss.backward()
        if rng.random() < 0.5:
            norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
            numbers.append(norm.item() if rng.random() < 0.3 else norm)
        if rng.random() < 0.8:
            self.optimizer.step()
        if rng.random() < 0.4:
            self.schedule.step()
        numbers.append(loss.detach() if rng.random() < 0.5 else loss.item())


def shown(v: Any) -> str:
    return f"{v.dtype}{tuple(v.shape)}".replace("weft.", "") if isinstance(v, weft.Tensor) else "-"


def as_float(a: Any) -> Any:
    return a if a.is_floating_point() else a.float()


def wide(a: Any, width: int) -> Any:
    """a as float32 whose last dimension is `width`, at least 2-D."""
    a = as_float(a).float()
    if a.dim() == 0 or a.shape[-1] != width:
        a = a.reshape(-1)[:1].expand(2, width)
    return a.unsqueeze(0) if a.dim() == 1 else a


def one(p, rng, a, b, values, numbers, n, scale) -> Any:
    fns: list[Callable[[Any], Any]] = [
        weft.tanh, weft.sigmoid, F.relu, F.gelu, F.silu, weft.abs, weft.neg,
        lambda t: weft.sqrt(t.abs() + 0.1), lambda t: t.clamp(-0.5, 0.5),
        lambda t: t.exp().clamp(max=9.0), lambda t: (t.abs() + 1).log(), weft.floor, weft.sign,
        lambda t: t * scale, lambda t: scale - t, lambda t: t**2, lambda t: t / (1 + t.abs()),
        F.elu, F.softplus, lambda t: F.leaky_relu(t, 0.1), lambda t: F.hardtanh(t), weft.erf,
        lambda t: t.round(), lambda t: t.detach(), lambda t: t.clone(), lambda t: weft.isnan(t),
        lambda t: t.cos() + t.sin(), lambda t: t.rsqrt() if n else t,
    ]  # fmt: skip
    return fns[int(rng.integers(len(fns)))](as_float(a))


def two(p, rng, a, b, values, numbers, n, scale) -> Any:
    fns: list[Callable[[Any, Any], Any]] = [
        weft.add, weft.sub, weft.mul, lambda s, t: s / (t.abs() + 1), weft.maximum, weft.minimum,
        lambda s, t: weft.where(s > t, s, t * 0.5), lambda s, t: s == t, lambda s, t: s < t,
        lambda s, t: weft.lerp(s, t, 0.3) if s.dtype == t.dtype else s + t,
        lambda s, t: weft.addcmul(s, s, t) if s.dtype == t.dtype else s * t,
        lambda s, t: F.mse_loss(s, t.expand_as(s) if t.numel() < s.numel() else t),
        lambda s, t: weft.atan2(s, t),
    ]  # fmt: skip
    s, t = as_float(a), as_float(b)
    if not fits(s.shape, t.shape):
        t = t.sum() if rng.random() < 0.5 else t.reshape(-1)[0]
    kind = int(rng.integers(len(fns) + 2))
    if kind >= len(fns):  # products
        u, v = wide(a, p.width), wide(b, p.width)
        return (
            (u @ v.transpose(-1, -2)[..., :, : p.width]) if fits(u.shape[:-2], v.shape[:-2]) else u
        )
    return fns[kind](s, t)


def fits(s: Any, t: Any) -> bool:
    return all(m == k or 1 in (m, k) for m, k in zip(reversed(s), reversed(t), strict=False))


def dim_of(rng: Any, a: Any) -> int:
    return int(rng.integers(a.dim()))


def reduce(p, rng, a, b, values, numbers, n, scale) -> Any:
    a = as_float(a)
    if a.dim() == 0:
        return a.sum()
    d, keep = dim_of(rng, a), bool(rng.integers(2))
    fns: list[Callable[[], Any]] = [
        lambda: a.sum(d, keepdim=keep), lambda: a.mean(d, keepdim=keep), lambda: a.sum(),
        lambda: a.amax(d, keepdim=keep), lambda: a.max(d).values, lambda: a.min(d).indices,
        lambda: a.argmax(d), lambda: a.var(d, unbiased=False), lambda: a.softmax(d),
        lambda: F.log_softmax(a, d), lambda: a.cumsum(d), lambda: a.logsumexp(d),
        lambda: a.norm(), lambda: a.prod(d), lambda: a.std(), lambda: (a > 0).any(d),
        lambda: a.sort(d).values, lambda: a.topk(1, d).values, lambda: (a > 0).sum(d),
        lambda: a.cummax(d).values, lambda: F.normalize(a, dim=d), lambda: a.median(),
    ]  # fmt: skip
    return fns[int(rng.integers(len(fns)))]()


def view(p, rng, a, b, values, numbers, n, scale) -> Any:
    if a.dim() == 0:
        return a.expand(3, p.width) if rng.random() < 0.5 else a.reshape(1, 1)
    d, e = dim_of(rng, a), dim_of(rng, a)
    size, order = a.shape[d], rng.permutation(a.dim()).tolist()
    fns: list[Callable[[], Any]] = [
        lambda: a.transpose(d, e), lambda: a.unsqueeze(d), lambda: a.squeeze(),
        lambda: a.select(d, size - 1), lambda: a.narrow(d, 0, (size + 1) // 2), lambda: a.flip(d),
        lambda: a.reshape(-1), lambda: a.flatten(), lambda: a[..., ::2], lambda: a[1:],
        lambda: a.contiguous(), lambda: a.permute(*order), lambda: a.permute(*order).movedim(d, e),
        lambda: a.movedim(d, e), lambda: a.unbind(d)[0],
        lambda: a.chunk(2, d)[-1], lambda: a.roll(1, d), lambda: a.mT if a.dim() > 1 else a,
        lambda: a.reshape(*a.shape[:-1], 2, -1) if a.shape[-1] % 2 == 0 else a,
        lambda: a.diagonal() if a.dim() > 1 else a, lambda: a.repeat_interleave(2, d),
        lambda: a[None].expand(2, *a.shape), lambda: a.view(a.shape), lambda: a.tril()
        if a.dim() > 1 else a, lambda: a.unfold(d, 2, 1) if size > 1 else a,
    ]  # fmt: skip
    return fns[int(rng.integers(len(fns)))]()


def turn(p, rng, a, b, values, numbers, n, scale) -> Any:
    """Chains of permuted views of a tensor whose sizes differ, read by what tells dims apart."""
    sizes = rng.permutation((2, 3, 4, 5))[: 3 + int(rng.integers(2))].tolist()
    count = int(np.prod(sizes))
    flat = as_float(a).reshape(-1)
    t = flat.repeat(count // max(flat.numel(), 1) + 1)[:count].reshape(sizes)
    for _ in range(int(rng.integers(2, 6))):
        t = turned(rng, t, scale)
    d = dim_of(rng, t)
    fns: list[Callable[[], Any]] = [
        lambda: t.sum(d), lambda: t.mean((0, 1)), lambda: t.amax(d), lambda: t.softmax(d),
        lambda: t @ t.mT, lambda: t.mT @ t, lambda: t.cumsum(d), lambda: t.reshape(-1)[: p.width],
        lambda: weft.einsum("...ij,...kj->...ik", t, t[..., :2, :]), lambda: t.argmax(d), lambda: t,
        lambda: F.layer_norm(t, t.shape[-1:]), lambda: t.flatten(1) @ t.flatten(1).T,
        lambda: t.reshape(-1) * t.contiguous().view(-1),
    ]  # fmt: skip
    return fns[int(rng.integers(len(fns)))]()


def turned(rng, t, scale) -> Any:
    d, e = dim_of(rng, t), dim_of(rng, t)
    order, back = rng.permutation(t.dim()).tolist(), rng.permutation(t.dim()).tolist()
    fns: list[Callable[[], Any]] = [
        lambda: t.permute(order), lambda: t.transpose(d, e), lambda: t.movedim(d, e),
        lambda: t.movedim(order, back), lambda: t.mT, lambda: t.permute(order).swapdims(d, e),
        lambda: t.unsqueeze(d).movedim(d, e).squeeze(e), lambda: t.permute(order)[:, -2:],
        lambda: t.flatten(0, 1).unflatten(0, t.shape[:2]), lambda: t.flip(d),
        lambda: t.expand(2, *t.shape)[1], lambda: t.transpose(d, e).contiguous(),
        lambda: weft.stack(t.unbind(d), e), lambda: t.permute(order) * scale,
    ]  # fmt: skip
    return fns[int(rng.choice(len(fns), p=[0.2, 0.15, 0.15, 0.1] + [0.04] * 10))]()


def whole(p, rng, a, b, values, numbers, n, scale) -> Any:
    """Integers; now and then one is divided by zero, and the call ends there."""
    kinds = (weft.int64, weft.int64, weft.int32, weft.int16, weft.uint8)
    kind = kinds[int(rng.integers(len(kinds)))]
    i, j = ((as_float(t).float().nan_to_num() * 3).clamp(-9, 9).to(kind) for t in (a, b))
    if not fits(i.shape, j.shape):
        j = j.reshape(-1)[0]
    by = j if rng.random() < 0.1 else j.abs() + 1
    fns: list[Callable[[], Any]] = [
        lambda: i // by, lambda: i % by, lambda: i.fmod(by), lambda: i / by, lambda: i * j + n,
        lambda: weft.div(i, by, rounding_mode="trunc"), lambda: i & j, lambda: (i | 5) ^ j,
        lambda: i << 2, lambda: i >> 1, lambda: ~i, lambda: weft.gcd(i, j), lambda: i.sum(),
        lambda: i.prod(-1) if i.dim() else i, lambda: i.cumsum(0) if i.dim() else -i,
        lambda: weft.where(i > j, i, j), lambda: (i - j).abs().to(weft.int8), lambda: i**2,
        lambda: i.flatten().unique(), lambda: i.max() - j, lambda: i.bool() & (j > 1),
        lambda: p.state[0].add_(1).sum() + (i // by).sum(),
    ]  # fmt: skip
    return fns[int(rng.integers(len(fns)))]()


def write(p, rng, a, b, values, numbers, n, scale) -> Any:
    """In place: on the program's state, a fresh copy, or (mostly an error) any value."""
    where = rng.random()
    if where < 0.45:
        target = p.state[int(rng.integers(2))]
    elif where < 0.9:
        target = a.clone()
    else:
        target = a
    source = b.detach() if target is not a and where < 0.45 else b
    source = source.to(target.dtype)
    if not fits(target.shape, source.shape) or source.dim() > target.dim() or any(
        m != k and k != 1 for m, k in zip(reversed(target.shape), reversed(source.shape),
                                          strict=False)
    ):  # fmt: skip
        source = source.reshape(-1)[0]
    row = target[-1] if target.dim() else target
    fns: list[Callable[[], Any]] = [
        lambda: target.mul_(0.5), lambda: target.add_(source),
        lambda: target.copy_(source), lambda: target.zero_(), lambda: row.add_(1),
        lambda: target.__setitem__(..., source), lambda: target.masked_fill_(target > 0.7, 0),
        lambda: target.__setitem__(target > 0.5, 0), lambda: target.t().mul_(2)
        if target.dim() == 2 else target.neg_(), lambda: target.clamp_(-1, 1),
        lambda: target[..., ::2].fill_(0.25) if target.dim() else target.fill_(1),
        lambda: target.view(-1)[0].fill_(scale) if target.is_contiguous() else None,
        lambda: target.index_fill_(0, weft.tensor([0]), 1) if target.dim() else None,
    ]  # fmt: skip
    fns[int(rng.integers(len(fns)))]()
    return target if target is not a else None


def alias(p, rng, a, b, values, numbers, n, scale) -> Any:
    """Writes seen through views that were taken before, both ways."""
    base = p.state[int(rng.integers(2))] if rng.random() < 0.5 else a.detach().clone()
    if base.dim() == 0 or base.numel() < 2:
        return None
    d = dim_of(rng, base)
    views = [base[0], base.flatten()[1:], base.movedim(d, 0), base.select(d, -1), base.unbind(d)[0],
             base[..., ::2], base.unsqueeze(d), base.transpose(d, -1).reshape(-1)]  # fmt: skip
    seen = views[int(rng.integers(len(views)))]
    if rng.random() < 0.3:
        seen = seen[-1:] if seen.dim() else seen
    target, other = (base, seen) if rng.random() < 0.5 else (seen, base)
    before = other * 1
    if rng.random() < 0.5:
        target.mul_(2).add_(1)
    else:
        target.copy_(target.flip(0) if target.dim() else target + 1)
    return other + before if rng.random() < 0.5 else other


def layer(p, rng, a, b, values, numbers, n, scale) -> Any:
    a = wide(a, p.width)
    rows = a.reshape(-1, p.width)
    fns: list[Callable[[], Any]] = [
        lambda: p.linear(a), lambda: p.norm(a), lambda: F.relu(p.linear(a)) + a,
        lambda: p.batch_norm(rows), lambda: p.conv(rows.t()[None]),
        lambda: p.image(rows[None, None]),
        lambda: F.max_pool1d(rows[None], 2), lambda: F.avg_pool2d(rows[None, None], 1),
        lambda: F.scaled_dot_product_attention(*[rows[None]] * 3, is_causal=n > 1),
        lambda: p.table(weft.arange(rows.shape[0]) % 11), lambda: p.lstm(rows[None])[0],
        lambda: F.cross_entropy(rows, weft.arange(rows.shape[0]) % p.width),
        lambda: F.dropout(a, 0.3), lambda: F.embedding(p.state[2], p.table.weight),
        lambda: F.linear(a, p.linear.weight.t()), lambda: F.gelu(p.norm(p.linear(a))),
        lambda: p.linear(p.linear(a).tanh()), lambda: F.interpolate(rows[None], scale_factor=2.0),
        lambda: F.binary_cross_entropy_with_logits(a, (a > 0).float()),
        lambda: weft.einsum("...i,ij->...j", a, p.linear.weight),
        lambda: F.pad(a, (1, 1))[..., 1:-1], lambda: F.group_norm(rows[..., None], 2),
        lambda: F.batch_norm(rows, p.batch_norm.running_mean, p.batch_norm.running_var),
    ]  # fmt: skip
    kind = int(rng.integers(len(fns) + 2))
    if kind == len(fns):
        p.batch_norm.train(not p.batch_norm.training)
        return None
    if kind > len(fns):
        with weft.autocast("cpu", dtype=weft.bfloat16):
            return p.linear(a)
    return fns[kind]()


def cast(p, rng, a, b, values, numbers, n, scale) -> Any:
    if rng.random() < 0.2:
        return a.long().clamp(-5, 5)
    return a.to(FLOATS[int(rng.integers(len(FLOATS)))])


def pick(p, rng, a, b, values, numbers, n, scale) -> Any:
    if a.dim() == 0:
        return weft.stack([a, a * 2])
    d = dim_of(rng, a)
    size = a.shape[d]
    index = (weft.arange(3) * 7 + n) % size
    fns: list[Callable[[], Any]] = [
        lambda: weft.cat([a, a.flip(0)], d), lambda: weft.stack([a, a], d),
        lambda: a.index_select(d, index), lambda: a[index % a.shape[0]],
        lambda: a.gather(d, weft.zeros(a.shape, dtype=weft.int64)), lambda: a[a > 0],
        lambda: weft.zeros_like(a).index_add(d, index, a.index_select(d, index)),
        lambda: weft.zeros_like(a).scatter(d, weft.zeros(a.shape, dtype=weft.int64), a),
        lambda: a[-1, ..., 0] if a.dim() > 1 else a[0], lambda: a.take(index % a.numel()),
        lambda: weft.where(a > 0, a, weft.zeros(())), lambda: a.masked_fill(a < 0, scale),
        lambda: weft.cat([a.reshape(-1)[:n], a.reshape(-1)[:2]]),
        lambda: F.one_hot(a.long().abs() % 3, 3) if a.numel() < 300 else a,
        lambda: weft.nonzero(a), lambda: weft.bucketize(a.float(), weft.linspace(-1, 1, 4)),
    ]  # fmt: skip
    return fns[int(rng.integers(len(fns)))]()


def branch(p, rng, a, b, values, numbers, n, scale) -> Any:
    """Python that looks at values, sizes and arguments."""
    kind = int(rng.integers(7))
    a = as_float(a)
    if kind == 0:
        return a * 0.5 if a.sum() > 0 else a + 1
    if kind == 1:
        for i in range(n):
            a = (a * 0.9 + i).tanh()
        return a
    if kind == 2:
        numbers.append(a.float().mean().item())
        return a.clamp(max=numbers[-1]) if numbers[-1] == numbers[-1] else None
    if kind == 3:
        steps = 0
        while a.abs().sum() > 3.0 and steps < 3:
            a, steps = a * 0.4, steps + 1
        numbers.append(steps)
        return a
    if kind == 4:
        return a + a.shape[0] if a.dim() and a.shape[0] % 2 else a - 1
    if kind == 5:
        p.kept = [*p.kept[-2:], a.detach()]  # outlives the call
        return None
    numbers.append(a.reshape(-1)[:3].tolist())
    return a


def draw(p, rng, a, b, values, numbers, n, scale) -> Any:
    a = as_float(a)
    kind = int(rng.integers(5))
    if kind == 0:
        return a + weft.rand_like(a)
    if kind == 1:
        return a * weft.bernoulli(weft.full(a.shape, 0.5))
    if kind == 2:
        return weft.randn(n + 1, p.width)
    if kind == 3:
        return weft.randperm(p.width)
    return weft.randint(0, 5, (2, p.width))


def grad(p, rng, a, b, values, numbers, n, scale) -> Any:
    kind = int(rng.integers(5))
    a = as_float(a)
    if kind == 0:
        leaf = a.detach().requires_grad_()
        return weft.autograd.grad(((leaf * scale).tanh() ** 2).sum(), leaf)[0]
    if kind == 1:
        leaf = a.detach().clone().requires_grad_()
        (g,) = weft.autograd.grad(leaf.sigmoid().sum(), leaf, create_graph=True)
        return weft.autograd.grad((g * g).sum(), leaf)[0]
    if kind == 2:
        with weft.no_grad():
            return p.linear(wide(a, p.width))
    if kind == 3:
        out = a * 2
        if out.requires_grad:
            out.register_hook(lambda g: g * 0.5)
        return out
    return weft.utils.checkpoint.checkpoint(
        lambda t: F.gelu(p.linear(t)), wide(a, p.width), use_reentrant=False
    )


TRACE = False


def arguments(seed: int, call: int) -> tuple[weft.Tensor, int, float]:
    """Sizes come back, so that programs run and not only record."""
    width = WIDTHS[seed % len(WIDTHS)]
    batch = (3, 4, 3, 5, 4, 3, 2, 3, 1, 0)[call % (10 if seed % 5 == 0 else 8)]
    batch *= 1 if seed % 4 else 11
    shape = ((batch, width), (batch, 3, width), (width,))[seed % 3]
    return tensor(*shape, seed=seed + call), (1, 2, 1, 3)[call % 4], 0.5 + 0.25 * (call % 3)


def trail(seed: int, wrap: Callable[[Any], Any], calls: int) -> list[Any]:
    """Results and memory after each call, as bytes."""
    program = Program(seed)
    fn = wrap(program.__call__)
    seen = []
    for call in range(calls):
        seen.append(bits(fn(*arguments(seed, call))))
        seen.append(bits(program.memory()))
    return seen


def check(seed: int, calls: int = 7) -> None:
    """Eager and compiled agree to the bit in every call."""
    eager, compiled = (trail(seed, wrap, calls) for wrap in (lambda f: f, weft.compile))
    for i, (want, got) in enumerate(zip(eager, compiled, strict=True)):
        for j, (w, g) in enumerate(zip(want, got, strict=True)):
            what = "memory" if i % 2 else "result"
            assert w == g, f"seed {seed}, call {i // 2}: {what} {j} differs: {first(w, g)}"


def first(w: Any, g: Any) -> str:
    """The first numbers that differ."""
    if not (isinstance(w, tuple) and isinstance(g, tuple)) or w[:2] != g[:2]:
        return f"{str(w)[:80]} against {str(g)[:80]}"
    kind = {"bfloat16": np.uint16, "bool": np.uint8}.get(w[0], w[0])
    u, v = (np.frombuffer(t[2], kind) for t in (w, g))
    at = np.flatnonzero(u.view(np.uint8).reshape(len(u), -1)
                        != v.view(np.uint8).reshape(len(v), -1))[:1]  # fmt: skip
    return f"{w[0]}{w[1]}: {u[:4]} against {v[:4]} (byte {at})"


if __name__ == "__main__":
    if len(sys.argv) == 2:
        TRACE = True
        check(int(sys.argv[1]))
    else:
        for seed in range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2])):
            try:
                check(seed)
            except Exception as e:
                print(f"{seed}: {type(e).__name__}: {str(e)[:300]}", flush=True)
