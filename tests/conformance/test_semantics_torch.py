"""Random probes of what operations mean, against torch itself: promotion, views and writes through
them, indexing, reductions, integer arithmetic, memory formats.

Run by `make conformance`, which has torch; skipped without.  The cases that once differed are in
tests/test_semantics.py, with torch's answers written down.
"""

import functools
import itertools
import operator
import warnings

import numpy as np
import pytest

import weft

torch = pytest.importorskip("torch")

NAMES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
]
BINARY = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
    "floordiv": operator.floordiv, "mod": operator.mod, "pow": operator.pow, "lt": operator.lt,
    "eq": operator.eq, "ge": operator.ge,
}  # fmt: skip


def both(values, name):
    """The same values as a tensor of each."""
    with np.errstate(all="ignore"):
        a = np.array(values)
    return torch.tensor(a).to(getattr(torch, name)), weft.tensor(a).to(getattr(weft, name))


def numbers(t):
    if t.dtype in (torch.bfloat16, weft.bfloat16):
        t = t.float()
    return t.detach().numpy()


def outcome(f, *args):
    """(result, None), or (None, the exception's class)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return f(*args), None
        except Exception as e:
            return None, type(e)


class np_like:
    tensor = staticmethod(np.asarray)


def name_of(t):
    return str(t.dtype).rpartition(".")[2]


def agree(label, ours, theirs, tolerance=1e-5):
    (w, we), (t, te) = ours, theirs
    assert we == te, f"{label}: {we} for {te}"
    if t is None:
        return
    assert name_of(w) == name_of(t), f"{label}: {name_of(w)} for {name_of(t)}"
    assert tuple(w.shape) == tuple(t.shape), f"{label}: {tuple(w.shape)} for {tuple(t.shape)}"
    a, b = numbers(w), numbers(t)
    if a.dtype.kind == "f":
        tolerance = {"float16": 2e-3, "bfloat16": 1e-2}.get(name_of(t), tolerance)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=label)
    else:
        np.testing.assert_array_equal(a, b, err_msg=label)


# ------------------------------------------------------------ promotion
def operand(kind, name, which):
    if kind == "number":
        x = {"b": True, "u": 3, "i": 3, "f": 2.5, "V": 2.5}[np.dtype(
            {"bfloat16": "float32"}.get(name, name)).kind]  # fmt: skip
        return x, x
    values = [[3, 1, 2], [2, 3, 1]][which] if kind == "tensor" else [3, 2][which]
    return both(values, name)


@pytest.mark.parametrize("op", BINARY)
def test_promotion_of_every_pair(op):
    f = BINARY[op]
    for a, b in itertools.product(NAMES, NAMES):
        for first, second in itertools.product(("tensor", "0-dim", "number"), repeat=2):
            if first == second == "number":
                continue
            (t1, w1), (t2, w2) = operand(first, a, 0), operand(second, b, 1)
            agree(f"{first} {a} {op} {second} {b}", outcome(f, w1, w2), outcome(f, t1, t2), 1e-3)


def test_promotion_of_where_and_cat():
    mask = [True, False, True]
    for a, b in itertools.product(NAMES, NAMES):
        for kind in ("tensor", "0-dim", "number"):
            (t1, w1), (t2, w2) = operand("tensor", a, 0), operand(kind, b, 1)
            agree(
                f"where {a} {kind} {b}",
                outcome(weft.where, weft.tensor(mask), w1, w2),
                outcome(torch.where, torch.tensor(mask), t1, t2),
            )
            if kind == "tensor":
                agree(f"cat {a} {b}", outcome(weft.cat, [w1, w2]), outcome(torch.cat, [t1, t2]))


# ------------------------------------------------------------ integer arithmetic
@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "int32", "int64"])
def test_division_remainders_and_shifts_of_whole_numbers(name):
    info = np.iinfo(name)
    values = [v for v in (info.min, -7, -3, -1, 0, 1, 2, 3, 7, info.max) if v >= info.min]
    divisors = [v for v in (-3, -2, -1, 1, 2, 3, 7) if v >= info.min]
    pairs = [(a, b) for a in values for b in divisors if (a, b) != (info.min, -1)]
    t1, w1 = both([a for a, _ in pairs], name)
    t2, w2 = both([b for _, b in pairs], name)
    for op in ("floordiv", "mod", "div"):
        agree(op, outcome(BINARY[op], w1, w2), outcome(BINARY[op], t1, t2))
    for mode in ("floor", "trunc"):
        ours, theirs = (functools.partial(m.div, rounding_mode=mode) for m in (weft, torch))
        agree(mode, outcome(ours, w1, w2), outcome(theirs, t1, t2))
    agree("fmod", outcome(weft.fmod, w1, w2), outcome(torch.fmod, t1, t2))
    bits = info.bits
    for n in (0, 1, 3, bits - 1):
        for f in (operator.lshift, operator.rshift):
            agree(f"{f.__name__} {n}", outcome(f, w1, n), outcome(f, t1, n))
    shifts_t, shifts_w = both([i % bits for i in range(len(pairs))], name)
    for f in (operator.lshift, operator.rshift):
        agree(f.__name__, outcome(f, w1, shifts_w), outcome(f, t1, shifts_t))
        agree(f"2 {f.__name__}", outcome(f, 2, shifts_w), outcome(f, 2, shifts_t))


# ------------------------------------------------------------ reductions
REDUCTIONS = ("sum", "mean", "prod", "amax", "amin", "std", "var", "logsumexp", "any", "all",
              "nansum", "nanmean", "argmax", "argmin", "max", "min", "median", "norm")  # fmt: skip


@pytest.mark.parametrize("op", REDUCTIONS)
def test_reductions_over_dims_with_nan_and_inf(op):
    rng = np.random.default_rng(3)
    single = op in ("prod", "argmax", "argmin", "max", "min", "median")
    for shape in ((3, 4, 2), (2, 0, 3), (0,), (), (1, 5)):
        for special in (None, np.nan, np.inf, -np.inf):
            x = rng.standard_normal(shape)
            if special is not None and x.size:
                x.reshape(-1)[rng.integers(x.size)] = special
            t, w = torch.tensor(x), weft.tensor(x)
            n = len(shape)
            dims = [None, *range(-n, n)] if n else [None]
            if not single:
                dims += [d for k in (2, 3) for d in itertools.combinations(range(n), k)]
            for dim, keep in itertools.product(dims, (False, True)):
                args = () if dim is None else (dim,)
                kw = {} if dim is None else {"keepdim": keep}
                if op == "norm":
                    args, kw = (2, dim, keep) if dim is not None else (2,), {}

                def call(lib, x, args=args, kw=kw):
                    y = getattr(lib, op)(x, *args, **kw)
                    return y if isinstance(y, (torch.Tensor, weft.Tensor)) else y[0]

                agree(
                    f"{op} {shape} {special} dim={dim} keepdim={keep}",
                    outcome(call, weft, w), outcome(call, torch, t),
                )  # fmt: skip


# ------------------------------------------------------------ indexing
def some_index(rng, n, lib_tensors):
    """An index of a dim of size n, as a function of the library."""
    kind = rng.integers(7 if lib_tensors else 4)
    if kind == 0:
        i = int(rng.integers(-n, n))
        return lambda lib: i
    if kind == 1:
        a, b, s = (
            int(rng.integers(-n - 1, n + 1)),
            int(rng.integers(-n - 1, n + 2)),
            int(rng.integers(1, 4)),
        )
        return lambda lib: slice(a, b, s)
    if kind == 2:
        return lambda lib: slice(None)
    if kind == 3:
        s = int(rng.integers(1, 3))
        return lambda lib: slice(None, None, s)
    if kind == 4:
        at = rng.integers(-n, n, size=[(3,), (1,), (2, 3), ()][rng.integers(4)])
        return lambda lib: lib.tensor(at)
    if kind == 5:
        at = rng.integers(-n, n, size=3).tolist()
        return lambda lib: at
    mask = rng.integers(0, 2, size=n).astype(bool)
    return lambda lib: lib.tensor(mask)


def an_index(rng, shape):
    parts = [some_index(rng, n, rng.integers(2)) for n in shape[: rng.integers(1, len(shape) + 1)]]
    for _ in range(rng.integers(0, 2)):
        parts.insert(int(rng.integers(len(parts) + 1)), lambda lib: None)
    if rng.integers(3) == 0:
        parts.insert(int(rng.integers(len(parts) + 1)), lambda lib: Ellipsis)
    return lambda lib: tuple(p(lib) for p in parts)


@pytest.mark.parametrize("seed", range(8))
def test_indexing_reads_and_writes(seed):
    rng = np.random.default_rng(seed)
    for k in range(150):
        shape = tuple(rng.integers(1, 5, size=rng.integers(1, 5)).tolist())
        x = rng.standard_normal(shape)
        at = an_index(rng, shape)
        t, w = torch.tensor(x, requires_grad=True), weft.tensor(x).requires_grad_()
        label = f"{seed}.{k} {shape} {at(np_like)!r}"
        theirs, ours = (outcome(operator.getitem, x, at(m)) for x, m in ((t, torch), (w, weft)))
        agree(label, ours, theirs)
        if theirs[0] is None:
            continue
        if theirs[0].numel():
            g = rng.standard_normal(tuple(theirs[0].shape))
            (theirs[0] * torch.tensor(g)).sum().backward()
            (ours[0] * weft.tensor(g)).sum().backward()
            np.testing.assert_allclose(w.grad.numpy(), t.grad.numpy(), err_msg=label)
        value = rng.standard_normal(tuple(theirs[0].shape[int(rng.integers(0, 2)) :]))
        t2, w2 = torch.tensor(x), weft.tensor(x)

        def put(lib, y, value=value, at=at):
            y[at(lib)] = lib.tensor(value)
            return y

        places = (np.asarray(p) for p in at(np_like) if isinstance(p, (list, np.ndarray)))
        apart = (len(set(p.reshape(-1).tolist())) == p.size for p in places if p.dtype != bool)
        if all(apart):  # a place written twice holds either value
            agree("write " + label, outcome(put, weft, w2), outcome(put, torch, t2))


def test_negative_steps_raise():
    for lib in (torch, weft):
        with pytest.raises(ValueError, match="step must be greater than zero"):
            lib.arange(4)[::-1]


# ------------------------------------------------------------ views and writes
def a_view(rng, shape):
    """(name, function of a tensor) that gives a view of a tensor of this shape."""
    n = len(shape)
    kind = rng.integers(9)
    d = int(rng.integers(n)) if n else 0
    if kind == 0 and n > 1:
        e = int(rng.integers(n))
        return f"transpose({d},{e})", lambda x: x.transpose(d, e)
    if kind == 1 and n and shape[d] > 1:
        s = int(rng.integers(shape[d] - 1))
        return f"narrow({d},{s})", lambda x: x.narrow(d, s, shape[d] - s)
    if kind == 2 and n and shape[d]:
        i = int(rng.integers(shape[d]))
        return f"select({d},{i})", lambda x: x.select(d, i)
    if kind == 3:
        return f"unsqueeze({d})", lambda x: x.unsqueeze(d)
    if kind == 4 and n and shape[d] > 2:
        return f"[{d}::2]", lambda x: x[(slice(None),) * d + (slice(None, None, 2),)]
    if kind == 5 and n > 1:
        order = rng.permutation(n).tolist()
        return f"permute{order}", lambda x: x.permute(order)
    if kind == 6 and n > 1:
        return "diagonal", lambda x: x.diagonal()
    if kind == 7 and n > 1:
        return "view_as/reshape", lambda x: x.view(-1) if x.is_contiguous() else x
    return "[...]", lambda x: x[...]


def a_write(rng, shape):
    c, kind = float(rng.standard_normal()), rng.integers(6)
    g = rng.standard_normal(shape)
    if kind == 0:
        return "mul_", lambda lib, x, p: x.mul_(c)
    if kind == 1:
        return "add_ tensor", lambda lib, x, p: x.add_(lib.tensor(g) * p)
    if kind == 2:
        return "copy_", lambda lib, x, p: x.copy_(lib.tensor(g) * p)
    if kind == 3:
        return "fill_", lambda lib, x, p: x.fill_(c)
    if kind == 4:
        return "zero_", lambda lib, x, p: x.zero_()
    return "tanh_", lambda lib, x, p: x.tanh_()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("start", ["contiguous", "transposed", "gaps"])
def test_writes_through_chains_of_views(seed, start):
    """A write through a view shows in the base, in its other views, and in the gradients."""
    rng = np.random.default_rng(1000 + seed)
    for _ in range(12):
        shape = tuple(rng.integers(1, 5, size=rng.integers(1, 4)).tolist())
        whole = shape if start != "gaps" else (*shape[:-1], 2 * shape[-1])
        if start == "transposed":
            whole = shape[::-1]
        data = rng.standard_normal(whole)
        seeds = rng.integers(1 << 30)

        def run(lib, data=data, shape=shape, seeds=seeds):
            r = np.random.default_rng(seeds)
            own = data.copy()  # from_numpy takes NumPy's strides: the base itself is not contiguous
            leaf = lib.from_numpy({"transposed": own.T, "gaps": own[..., ::2]}.get(start, own))
            p = lib.tensor(0.7, dtype=lib.float64, requires_grad=True)
            q = leaf.clone().requires_grad_()
            base = q * 1.0 if start == "contiguous" else leaf
            views, story = [base], []
            for _ in range(6):
                x = views[int(r.integers(len(views)))]
                if r.integers(2):
                    name, f = a_view(r, tuple(x.shape))
                    views.append(f(x))
                elif x.numel():
                    name, f = a_write(r, tuple(x.shape))
                    f(lib, x, p)
                else:
                    continue
                story.append(name)
            loss = sum((v * v).sum() * (i + 1) for i, v in enumerate(views))
            grads = []
            if loss.requires_grad:
                grads = lib.autograd.grad(loss, [p, q], allow_unused=True)
            return story, views, grads

        theirs, te = outcome(run, torch)
        ours, we = outcome(run, weft)
        if te is RuntimeError and we is None:
            continue  # torch saves the tensor written to (tanh_), Weft the value: it still has it
        assert we == te, (start, shape, seeds, we, te)
        if theirs is None:
            continue
        (story, theirs, tg), (_, mine, wg) = theirs, ours
        for a, b in zip(mine, theirs, strict=True):
            assert a.stride() == b.stride() or a.numel() < 2 or 1 in a.shape, (
                story,
                a.stride(),
                b.stride(),
            )
            np.testing.assert_allclose(numbers(a), numbers(b), rtol=1e-9, err_msg=str(story))
            assert a.requires_grad == b.requires_grad, story
        for a, b in zip(wg, tg, strict=True):
            zero = np.zeros(())
            a, b = (zero if x is None else x.numpy() for x in (a, b))
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=str(story))


def test_what_in_place_writes_are_refused():
    def leaf(lib):
        lib.ones(3, requires_grad=True).add_(1)

    def view_of_leaf(lib):
        lib.ones(3, requires_grad=True)[1:].mul_(2)

    def saved(lib):
        x = lib.ones(3, requires_grad=True)
        y = x.exp()
        y.mul_(2)
        y.sum().backward()

    def saved_operand(lib):
        x, z = lib.ones(3, requires_grad=True), lib.ones(3)
        y = x * z
        z.add_(1)
        y.sum().backward()

    def saved_through_a_view(lib):
        x = lib.ones(2, 3, requires_grad=True)
        y = x.sigmoid()
        y[0].zero_()
        y.sum().backward()

    def expanded(lib):
        lib.ones(1).expand(3).add_(1)

    def wrong_dtype(lib):
        lib.ones(3, dtype=lib.int64).add_(0.5)

    def wrong_shape(lib):
        lib.ones(1).add_(lib.ones(3))

    for f in (leaf, view_of_leaf, saved, saved_operand, saved_through_a_view, expanded, wrong_dtype,
              wrong_shape):  # fmt: skip
        assert outcome(f, weft)[1] is outcome(f, torch)[1] is RuntimeError, f.__name__


# ------------------------------------------------------------ memory formats
def test_memory_formats():
    for shape in ((2, 3, 4, 5), (1, 3, 4, 4), (2, 1, 3, 1), (2, 3, 0, 2)):
        x = np.random.default_rng(0).standard_normal(shape)
        t, w = torch.tensor(x), weft.tensor(x)
        t_last, w_last = t.contiguous(memory_format=torch.channels_last), w.contiguous(
            memory_format=weft.channels_last
        )  # fmt: skip
        for name, a, b in [
            ("contiguous", w_last, t_last),
            ("to", w.to(memory_format=weft.channels_last), t.to(memory_format=torch.channels_last)),
            ("float", w.float(memory_format=weft.channels_last),
             t.float(memory_format=torch.channels_last)),
            ("back", w_last.contiguous(), t_last.contiguous()),
            ("zeros_like", weft.zeros_like(w_last), torch.zeros_like(t_last)),
            ("empty_like", weft.empty_like(w_last), torch.empty_like(t_last)),
            ("preserve", w_last.clone(memory_format=weft.preserve_format),
             t_last.clone(memory_format=torch.preserve_format)),
            ("permuted like", weft.ones_like(w.permute(3, 0, 2, 1)),
             torch.ones_like(t.permute(3, 0, 2, 1))),
        ]:  # fmt: skip
            strides = [
                (p, q) for p, q, n in zip(a.stride(), b.stride(), b.shape, strict=True) if n > 1
            ]
            assert 0 in shape or all(p == q for p, q in strides), (
                name,
                shape,
                a.stride(),
                b.stride(),
            )
            for ours, theirs in ((weft.channels_last, torch.channels_last),
                                 (weft.contiguous_format, torch.contiguous_format)):  # fmt: skip
                got = a.is_contiguous(memory_format=ours)
                if 0 not in shape:  # of nothing torch says either
                    assert got == b.is_contiguous(memory_format=theirs), (name, shape, ours)
    agree("rank", outcome(lambda: weft.ones(3).to(memory_format=weft.channels_last)),
          outcome(lambda: torch.ones(3).to(memory_format=torch.channels_last)))  # fmt: skip
