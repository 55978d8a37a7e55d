"""What `test_watch.py` runs in a process of its own: kernels at their vectors' edges, watched.

python -m tests.kernels.watched            first that the watch sees, then each part of PARTS
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import weft
from tests import watch
from weft.kernels.layout import Layout
from weft.kernels.schedule import amx, conv_int8, image_int8
from weft.kernels.target.llvm import Function, Module, Value
from weft.nn import functional as F
from weft.runtime import native

WIDTHS = (*range(1, 71), 501)
FLOATS = (weft.float32, weft.float64, weft.bfloat16, weft.float16)


def differentiated(y: weft.Tensor, *xs: weft.Tensor) -> None:
    weft.autograd.grad(y.sum(), xs)


def rows() -> None:
    """Softmax and norms: each row at once, the rest of it under masks or part by part."""
    for n, d in itertools.product(WIDTHS, FLOATS):
        if d is not weft.float32 and n % 5 and n not in (16, 17, 31, 33, 63, 64):
            continue
        x = weft.randn(3, n, dtype=d, requires_grad=True)
        differentiated(weft.softmax(x, 1), x)
        differentiated(weft.log_softmax(x, 1), x)
        weight = weft.ones(n, dtype=d, requires_grad=True)
        differentiated(F.layer_norm(x, (n,), weight, weight), x, weight)
        differentiated(F.rms_norm(x, (n,), weight), x, weight)
        if d is weft.float32:
            differentiated(weft.softmax(x, 0), x)
            differentiated(F.cross_entropy(x, weft.tensor([0, n - 1, n // 2])), x)
            differentiated(weft.softmax(weft.randn(n, 3).t(), 1) * x, x)
    for c, n in ((3, 5), (17, 1), (4, 33)):
        x = weft.randn(2, c, n, n, requires_grad=True)
        differentiated(F.batch_norm(x, None, None, weft.ones(c), weft.ones(c), training=True), x)
        differentiated(F.group_norm(x, 1), x)


def loops() -> None:
    """Elementwise loops, copies that turn, reductions along and across, running sums."""
    for n, d in itertools.product(WIDTHS, (weft.float32, weft.float16, weft.int8, weft.int64)):
        x = weft.ones(n, 5, dtype=d)
        y = weft.ones(5, n, dtype=d)
        for z in (x, y, x.t(), y.t(), x[:, ::2], y[:, ::2], y.flip(1), x[n > 1 :], y[:, n > 1 :]):
            (z + z).contiguous()
            z.contiguous()
            _ = z.sum(0), z.sum(1), z.sum(), z.amax(1), z.amax(0)
        _ = x.t() + y, y.cumsum(1), y.cumsum(0), y.argmax(1), y.eq(1).any(0)
        if d.is_floating_point:
            _ = y.exp(), x.t().tanh(), y.var(1), y.mean(0), y.logsumexp(1), y.softmax(0)
        _ = weft.where(y > 0, y, x.t()), weft.cat([y, y], 1), y.expand(2, 5, n).contiguous()
    for shape in ((67, 70), (3, 65, 66), (64, 64), (129, 16)):
        x = weft.randn(shape)
        x.transpose(-1, -2).contiguous()
        x.transpose(0, -1).exp().sum(0)
        _ = x.transpose(0, -1) + 1


def places() -> None:
    """Reading and setting by index."""
    for n in WIDTHS:
        x = weft.randn(7, n, requires_grad=True)
        at = weft.tensor([0, 6, 3, 6])
        differentiated(x[at], x)
        differentiated(weft.gather(x, 0, at[:, None].expand(4, n)), x)
        differentiated(weft.index_select(x, 1, weft.tensor([n - 1, 0])), x)
        differentiated(F.embedding(at, x), x)
        weft.zeros(7, n).scatter_add(0, at[:, None].expand(4, n), weft.ones(4, n))
        weft.zeros(7, n).index_put((at,), weft.ones(4, n), accumulate=True)
        weft.zeros(7, n).index_add(0, at, weft.ones(4, n))
        _ = x.detach().sort(1), x.detach().topk(min(n, 3), 1)


def pools() -> None:
    """Windows over the border, channels first and last."""
    for c, (h, w) in itertools.product((1, 3, 16, 17, 40), ((5, 7), (8, 8), (9, 34))):
        for last, (k, s, p) in itertools.product((0, 1), ((2, 2, 0), (3, 2, 1), (3, 1, 1))):
            x = weft.randn(2, c, h, w, requires_grad=True)
            if last:
                x = x.detach().contiguous(memory_format=weft.channels_last).requires_grad_()
            differentiated(F.max_pool2d(x, k, s, p), x)
            differentiated(F.avg_pool2d(x, k, s, p), x)
            differentiated(F.adaptive_avg_pool2d(x, (3, 2)), x)


def convolutions() -> None:
    """Direct, by rows, depthwise, in groups; gradients of inputs and weights."""
    cases = [(3, 5, 3, 1, 1, 1, 1), (16, 17, 3, 1, 1, 1, 1), (17, 33, 1, 1, 0, 1, 1),
             (8, 8, 3, 1, 1, 1, 8), (24, 24, 5, 2, 2, 1, 24), (6, 4, 3, 2, 0, 2, 2),
             (3, 65, 7, 2, 3, 1, 1), (64, 64, 3, 1, 1, 1, 1), (40, 66, 1, 2, 0, 1, 1),
             (31, 63, 3, 1, 1, 1, 1)]  # fmt: skip
    for case, (h, w), d in itertools.product(
        cases, ((9, 11), (7, 34)), (weft.float32, weft.float64, weft.bfloat16)
    ):
        c, o, k, stride, padding, dilation, groups = case
        if d is not weft.float32 and (h, w) == (7, 34):
            continue
        x = weft.randn(2, c, h, w, dtype=d, requires_grad=True)
        weight = weft.randn(o, c // groups, k, k, dtype=d, requires_grad=True)
        bias = weft.randn(o, dtype=d, requires_grad=True)
        window = (stride, padding, dilation, groups)
        differentiated(F.conv2d(x, weight, bias, *window), x, weight, bias)
        last = x.detach().contiguous(memory_format=weft.channels_last).requires_grad_()
        y = F.conv2d(last, weight, None, *window)
        y.backward(weft.ones_like(y).contiguous(memory_format=weft.channels_last))
        if d is weft.float32:
            with weft.no_grad():
                weft.set_fast_math(True)
                F.conv2d(x, weight, None, *window)
                weft.set_fast_math(False)


def products() -> None:
    """Matrices of odd sizes, along and across; single rows; batches."""
    sizes = [
        (1, 1, 1),
        (2, 0, 3),
        (1, 65, 7),
        (5, 3, 66),
        (7, 33, 65),
        (6, 64, 64),
        (13, 129, 1),
        (1, 400, 130),
    ]
    for (m, k, n), d in itertools.product(sizes, (*FLOATS, weft.int32)):
        a, b = (weft.ones(s, dtype=d) for s in ((m, k), (k, n)))
        across = [t.t().contiguous().t() for t in (a, b)]
        for x, y in itertools.product((a, across[0]), (b, across[1])):
            _ = x @ y, weft.stack([x, x]) @ y, weft.stack([x, x, x]) @ weft.stack([y, y, y])
        _ = a[0] @ b, a @ b[:, 0]
        if d is weft.float32:
            weft.set_fast_math(True)
            _ = a @ b, a @ across[1]
            weft.set_fast_math(False)


def nothing() -> None:
    """Sums of no products: of operands without an element nothing may be read."""
    for d in (*FLOATS, weft.int32):
        _ = weft.ones(2, 0, dtype=d) @ weft.ones(0, 70, dtype=d), weft.ones(0, 70, dtype=d).sum(0)
        _ = weft.ones(70, 0, dtype=d) @ weft.ones(0, dtype=d), weft.ones(2, 0, dtype=d).sum(1)


def attention() -> None:
    """Queries, keys and heads at the edges of tiles, with masks, and gradients."""
    cases = [(1, 1, 3), (1, 70, 64), (5, 17, 16), (33, 65, 24), (66, 66, 64), (7, 3, 130)]
    for (q, k, e), causal, d in itertools.product(cases, (0, 1), (weft.float32, weft.bfloat16)):
        if causal and q > k:
            continue
        a, b, c = (weft.randn(2, 3, n, e, dtype=d, requires_grad=True) for n in (q, k, k))
        mask = weft.zeros(q, k, dtype=d)
        for given in ({"is_causal": bool(causal)}, {"attn_mask": mask}):
            differentiated(F.scaled_dot_product_attention(a, b, c, **given), a, b, c)  # type: ignore[arg-type]
        with weft.no_grad():
            F.scaled_dot_product_attention(a, b, c, attn_mask=mask == 0)


def recurrent() -> None:
    kinds = weft.nn.LSTM, weft.nn.GRU, weft.nn.RNN
    for kind, n, fast in itertools.product(kinds, (1, 17, 66), (False, True)):
        weft.set_fast_math(fast)
        for rows in (2, 19, 37)[: 1 + 2 * fast]:  # in tile registers sixteen, or 32, are read
            layer, x = kind(5, n), weft.randn(3, rows, 5, requires_grad=True)
            differentiated(layer(x)[0], x, *layer.parameters())
    weft.set_fast_math(False)


def run(launch: native.Launch, out: np.ndarray, *ins: np.ndarray) -> None:
    assert native.launch(launch, out, ins) == 0


def quantized() -> None:
    """Products, convolutions, pools of bytes."""
    of, one = Layout.of, (1, 1)
    for m, n, k in (
        (1, 1, 4),
        (5, 63, 4),
        (6, 65, 8),
        (13, 200, 100),
        (49, 17, 260),
        (33, 65, 128),
    ):
        x, w = np.ones((1, m, 1, k), np.uint8), conv_int8.pack_int8(np.ones((n, k), np.int8))
        for to in ("int32", "uint8", "float32"):
            out = np.empty((1, m, 1, n), to)
            panel = np.ones(-(-n // conv_int8.COLUMNS) * conv_int8.COLUMNS, np.float32)
            ins = [x, w] if to == "int32" else [x, w, panel, panel]
            window: Any = (one, one, (0, 0), one, 1, conv_int8.Ending())
            run(conv_int8.plan_conv_int8([of(a) for a in ins], of(out), *window), out, *ins)
    for c, (k, s, p) in itertools.product(
        (1, 3, 64, 130), ((3, 2, 1), (2, 2, 0), (5, 3, 2), (3, 1, 1))
    ):
        x, side = np.ones((2, 11, 12, c), np.uint8), [(n + 2 * p - k) // s + 1 for n in (11, 12)]
        out = np.empty((2, *side, c), np.uint8)
        pairs: Any = [(v, v) for v in (k, s, p, 1)]
        run(image_int8.plan_max_pool_bytes(of(x), of(out), *pairs), out, x)
        ins = [x, np.ones((k * k, c), np.float32), *np.ones((2, c), np.float32)]
        for to in ("uint8", "float32"):
            out = np.empty((2, *side, c), to)
            ending = conv_int8.Ending(90, 5.0, 240.0, 0.5)
            plan: Any = image_int8.plan_depthwise_int8
            run(plan([of(a) for a in ins], of(out), *pairs, ending), out, *ins)
        w = conv_int8.pack_int8(np.ones((c + 1, k, k, -(-c // 4) * 4), np.int8))
        wide = np.ones((2, 11, 12, -(-c // 4) * 4), np.uint8)
        out = np.empty((2, *side, c + 1), np.int32)
        window = (*pairs, 1, conv_int8.Ending(3))
        run(conv_int8.plan_conv_int8([of(wide), of(w)], of(out), *window), out, wide, w)
        for x in (np.ones((2, c, 3, 7), np.float32), np.ones((7, 3, c, 2), np.float32).T):
            out = np.empty((2, 3, 7, -(-c // 4) * 4), np.uint8)
            run(image_int8.plan_to_bytes(of(x), of(out), 0.25, 101), out, x)


def programs() -> None:
    """Fused loops, epilogues and packed weights of compiled steps."""
    for n in (1, 7, 17, 66):
        net = weft.nn.Sequential(
            weft.nn.Linear(n, 33), weft.nn.GELU(), weft.nn.LayerNorm(33), weft.nn.Linear(33, n)
        )
        picture = weft.nn.Sequential(
            weft.nn.Conv2d(3, n, 3, padding=1), weft.nn.BatchNorm2d(n), weft.nn.ReLU(),
            weft.nn.MaxPool2d(2), weft.nn.Conv2d(n, 5, 1), weft.nn.Flatten(), weft.nn.LazyLinear(3),
        )  # fmt: skip
        for model, x in ((net, weft.randn(5, n)), (picture, weft.randn(2, 3, 9, 10))):
            model(x)
            optimizer = weft.optim.AdamW(model.parameters())

            @weft.compile
            def step(x: weft.Tensor, model=model, optimizer=optimizer) -> weft.Tensor:
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                optimizer.step()
                return loss.detach()

            for _ in range(4):
                step(x).item()
            look = weft.compile(model.eval())
            with weft.no_grad():
                for _ in range(5):
                    look(x).numpy()


PARTS: tuple[Callable[[], None], ...] = (
    rows, loops, places, pools, convolutions, products, nothing,
    attention, recurrent, quantized, programs,
)  # fmt: skip


# ---------------------------------------------------------------------- does the watch see?


def wrong() -> Iterator[tuple[str, Callable[[Function, Value, Value, Value], object]]]:
    """What a kernel of 5 floats out, 5 floats in and 64 bytes of scratch must not do."""
    four = "<4 x float>"
    zeros = Value("zeroinitializer", four)
    yield "store behind the result", lambda f, y, x, s: f.store(zeros, f.gep(y, 2, "float"))
    yield "store before the result", lambda f, y, x, s: f.store(zeros, f.gep(y, -1, "float"))
    yield "load behind the operand", lambda f, y, x, s: f.load("float", f.gep(x, 5, "float"))
    yield "load from nowhere", lambda f, y, x, s: f.load("float", Value("null", "ptr"))
    yield "more scratch than asked", lambda f, y, x, s: f.store(zeros, f.gep(s, 13, "float"))
    yield "a word behind the block", lambda f, y, x, s: f.load("i64", f.gep("%args", 6, "i64"))
    yield "alignment", lambda f, y, x, s: f.store(zeros, f.gep(s, 1, "float"), 16)

    def room(f: Function, *_: Value) -> None:
        f.store(zeros, f.gep(f.alloca(four), 1, "float"))

    def neighbour(f: Function, *_: Value) -> None:
        first, _second = f.alloca(four), f.alloca(four)
        f.store(f.load("float", f.gep(first, 16, "float")), first)

    def masked(f: Function, y: Value, *_: Value) -> None:
        f.masked_store(zeros, f.gep(y, 2, "float"), f.lane_mask(4, 4))

    def copied(f: Function, y: Value, x: Value, *_: Value) -> None:
        f.intrinsic("memcpy", "void", y, x, 24, Value("false", "i1"))

    yield "store behind a room", room
    yield "load of the room beside it", neighbour
    yield "a set lane outside", masked
    yield "copy of too much", copied
    if native.host().has("amx-tile"):
        yield from wrong_tiles()


def wrong_tiles() -> Iterator[tuple[str, Callable[[Function, Value, Value, Value], object]]]:
    """Tile registers of 2 rows of 8 bytes, and what must not be done with them."""

    def tried(what: Callable[[Function, Value, Value, Value], object]) -> Any:
        def body(f: Function, y: Value, x: Value, scratch: Value) -> None:
            amx.configure(f, [(2, 8), (2, 8)])
            what(f, y, x, scratch)
            amx.release(f)

        return body

    def shapes(f: Function, y: Value, x: Value, scratch: Value) -> None:
        f.intrinsic("memset", "void", scratch, Value("0", "i8"), 64, Value("false", "i1"))
        f.intrinsic("x86.ldtilecfg", "void", f.gep(scratch, 4))

    def late(f: Function, y: Value, x: Value, scratch: Value) -> None:
        tried(lambda f, *_: None)(f, y, x, scratch)
        amx.zero(f, 0)

    yield "a row behind the operand", tried(lambda f, y, x, s: amx.load(f, 0, x, 16))
    yield "a row before the operand", tried(lambda f, y, x, s: amx.load(f, 1, x, -4))
    yield "a tile behind the result", tried(lambda f, y, x, s: amx.store(f, 0, f.gep(y, 8), 8))
    yield "a register without a shape", tried(lambda f, y, x, s: amx.load(f, 2, x, 4))
    yield "a product of one", tried(lambda f, y, x, s: amx.multiply_pairs(f, 0, 1, 2))
    yield "a register that was released", late
    yield "shapes that are not released", lambda f, *_: amx.configure(f, [(2, 8)])
    yield "shapes from behind the scratch", shapes


def launch_of(body: Callable[[Function, Value, Value, Value], object]) -> native.Launch:
    module = Module()
    f = module.kernel("tried")
    (y, x), scratch, _, _ = f.given(1, [])
    body(f, y, x, scratch)
    f.ret()
    address = watch.load_watched(module.text(), ["tried"])["tried"]
    return native.Launch((native.Stage(address),), (), 64)


def right(f: Function, y: Value, x: Value, scratch: Value) -> None:
    """All there is, and not a byte more."""
    room, zeros = f.alloca("float", 5), Value("zeroinitializer", "<4 x float>")
    for place in (y, room):
        f.store(zeros, f.gep(place, 1, "float"))
        f.masked_store(zeros, f.gep(place, 4, "float"), f.lane_mask(1, 4))
        f.masked_store(zeros, f.gep(place, 77, "float"), f.lane_mask(0, 4))
        f.intrinsic("memcpy", "void", place, x, 20, Value("false", "i1"))
    f.store(zeros, f.gep(scratch, 12, "float"), 16)
    if native.host().has("amx-tile"):
        amx.configure(f, [(2, 8), (2, 8)])
        amx.load(f, 0, x, 12)
        amx.zero(f, 1)
        amx.store(f, 1, y, 12)
        amx.store(f, 0, y, 12)
        amx.release(f)


def sees() -> None:
    y, x = np.zeros(5, np.float32), np.arange(5, dtype=np.float32)
    run(launch_of(right), y, x)
    np.testing.assert_array_equal(y, x)
    for what, body in wrong():
        try:
            run(launch_of(body), y, x)
        except watch.OutsideRoom:
            continue
        raise AssertionError(f"not seen: {what}")


if __name__ == "__main__":
    watch.install()
    sees()
    for part in PARTS:
        if len(sys.argv) == 1 or part.__name__ in sys.argv:
            before = watch.launches
            part()
            print(part.__name__, watch.launches - before, flush=True)
