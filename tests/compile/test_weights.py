"""Weights that do not change are packed once, and every write to them is noticed."""

from __future__ import annotations

import copy
import ctypes
import gc
import io
import pickle
import threading

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from weft import nn
from weft.compile import arena, weights
from weft.kernels.schedule.tile import up
from weft.runtime import memory

ROWS, WIDE, OUT = 20, 100, 170


def bits(t):
    return t.detach().contiguous().view(-1).view(weft.int32).tolist()


class Case:
    """A compiled product of a weight that is packed already."""

    def __init__(self, weight=None, of=None):
        weft.manual_seed(3)
        self.layer = nn.Linear(WIDE, OUT)
        if weight is not None:
            self.layer.weight = nn.Parameter(weight)
        self.x = weft.randn(ROWS, WIDE)
        layer = self.layer
        self.plain = of or (lambda x: F.relu(layer(x)))
        self.fast = weft.compile(self.plain, replay=True)
        self.check(6)

    @property
    def packed(self):
        return any(w.copy is not None for w in self.fast._last.program.weights.all)

    def check(self, times=4):
        for _ in range(times):
            with weft.no_grad():
                got, wanted = self.fast(self.x), self.plain(self.x)
            assert bits(got) == bits(wanted)


def test_a_weight_is_packed_on_the_second_run_that_finds_it_unchanged():
    case = Case()
    assert case.packed and case.fast.stats["replay"] == "on"
    again = Case()
    with weft.no_grad():
        again.layer.weight.add_(1)
    again.check(1)
    assert not again.packed
    again.check(4)
    assert again.packed


def _stepper(layer, compiled):
    """A step of an optimizer, called often enough to be matched, or replayed."""
    opt = weft.optim.SGD(layer.parameters(), 0.5)
    x = weft.ones(4, WIDE)

    def step():
        opt.zero_grad()
        loss = layer(x).square().mean()
        loss.backward()
        opt.step()
        return loss.detach()

    step = weft.compile(step, replay=compiled == "replay") if compiled else step
    for _ in range(6):
        step()
    return step


def _load(layer, **how):
    layer.load_state_dict({k: v * 2 + 1 for k, v in layer.state_dict().items()}, **how)


def _rebind(layer):
    layer.weight = nn.Parameter(layer.weight.detach() * 3)


def _data(layer):
    layer.weight.data = layer.weight.detach() * 3


def _set(layer):
    layer.weight.detach().set_(weft.randn(OUT, WIDE))  # another handle: no change
    layer.weight.data.copy_(weft.randn(OUT, WIDE))


def _in_thread(layer):
    t = threading.Thread(target=lambda: layer.weight.data.mul_(1.5))
    t.start()
    t.join()


def _compiled_write(layer):
    f = weft.compile(lambda: layer.weight.data.mul_(1.25))
    for _ in range(4):
        f()


def _vmapped(layer):
    weight = layer.weight.requires_grad_(False)
    weft.func.vmap(lambda v: weight.add_(1).sum() * 0 + v)(weft.ones(2))


WRITES = {
    "add_": lambda m: m.weight.data.add_(1),
    "mul_ of a detached": lambda m: m.weight.detach().mul_(2),
    "no_grad": lambda m: weft.no_grad()(lambda: m.weight.sub_(m.weight * 0.5))(),
    "copy_": lambda m: m.weight.data.copy_(weft.randn(OUT, WIDE)),
    "fill_": lambda m: m.weight.data.fill_(0.25),
    "zero_": lambda m: m.weight.data.zero_(),
    "item": lambda m: m.weight.data.__setitem__((3, 4), 9.0),
    "row": lambda m: m.weight.data.__setitem__(2, weft.ones(WIDE)),
    "mask": lambda m: m.weight.data.__setitem__(m.weight.data > 0, 0.0),
    "places": lambda m: m.weight.data.__setitem__(weft.tensor([1, 5]), 2.0),
    "view": lambda m: m.weight.data.view(-1)[5:9].add_(3),
    "transposed": lambda m: m.weight.data.t().mul_(0.5),
    "strided": weft.no_grad()(lambda m: m.weight.as_strided((3, 4), (1, 7), 11).fill_(1)),
    "diagonal": lambda m: m.weight.data.diagonal().fill_(5),
    "view of another dtype": lambda m: m.weight.data.view(weft.int32).bitwise_xor_(1 << 22),
    "expanded": lambda m: m.weight.data[:1].unsqueeze(0).squeeze(0).add_(1),
    "flattened": lambda m: m.weight.data.flatten().add_(1),
    "unbound": lambda m: m.weight.data.unbind(0)[3].add_(1),
    "chunk": lambda m: m.weight.data.chunk(2)[1].add_(1),
    "index_add_": lambda m: m.weight.data.index_add_(0, weft.tensor([1]), weft.ones(1, WIDE)),
    "scatter_": lambda m: m.weight.data.scatter_(0, weft.zeros(1, WIDE, dtype=weft.int64), 4.0),
    "masked_fill_": lambda m: m.weight.data.masked_fill_(m.weight.data > 0, 0.5),
    "clamp_": lambda m: m.weight.data.clamp_(-0.01, 0.01),
    "out=": lambda m: weft.add(m.weight.data, 1, out=m.weight.data),
    "uniform_": lambda m: m.weight.data.uniform_(),
    "normal_": lambda m: m.weight.data.normal_(),
    "bernoulli_": lambda m: m.weight.data.bernoulli_(),
    "exponential_": lambda m: m.weight.data.exponential_(),
    "init": lambda m: nn.init.xavier_normal_(m.weight),
    "orthogonal": lambda m: nn.init.orthogonal_(m.weight),
    "relu_": lambda m: F.relu_(m.weight.data),
    "leaky in place": lambda m: F.leaky_relu(m.weight.data, 0.5, inplace=True),
    "dropout in place": lambda m: F.dropout(m.weight.data, 0.5, inplace=True),
    "sparse": lambda m: m.weight.data.add_(weft.eye(OUT, WIDE).to_sparse()),
    "load_state_dict": _load,
    "assigned state": lambda m: _load(m, assign=True),
    "sgd": lambda m: _stepper(m, None),
    "compiled write": _compiled_write,
    "another parameter": _rebind,
    "data =": _data,
    "set_": _set,
    "thread": _in_thread,
    "vmap": _vmapped,
    "numpy": lambda m: m.weight.detach().numpy().__setitem__(0, 7.0),
    "asarray": lambda m: np.asarray(m.weight.detach()).__setitem__(0, 7.0),
    "dlpack": lambda m: np.from_dlpack(m.weight.detach()).__setitem__(0, 7.0),
    "storage": lambda m: m.weight.data.storage().fill_(0.5),
    "storage item": lambda m: m.weight.data.untyped_storage().__setitem__(3, 65),
    "storage kept": lambda m: weft.empty(0).set_(m.weight.data.untyped_storage()).add_(1),
    "shared memory": lambda m: m.weight.data.share_memory_().add_(1),
    "averaged": lambda m: weft.optim.swa_utils.AveragedModel(m).module.weight.data.add_(1),
    "half and back": lambda m: m.half().float(),
    "shallow copy": lambda m: copy.copy(m.weight.data).add_(1),
    "unpickled": lambda m: pickle.loads(pickle.dumps(m.weight.data)).add_(1),  # no change
    "grown": lambda m: m.weight.data.resize_(OUT, WIDE).add_(1),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_noticed(write):
    case = Case()
    assert case.packed
    for _ in range(2):
        WRITES[write](case.layer)
        case.check()


@pytest.mark.parametrize("how", ["matched", "replay"])
def test_a_write_by_a_program_is_noticed(how):
    case = Case()
    step = _stepper(case.layer, how)
    for _ in range(3):
        case.check(6)
        assert case.packed
        step()
        case.check(1)
        assert not case.packed
        step()
        case.check(70)
    layer = case.layer
    write = weft.compile(lambda: layer.weight.data[4:9].mul_(1.25))
    for _ in range(4):
        write()
    case.check(6)
    write()
    case.check(70)
    assert case.packed


def test_an_array_kept_from_before_the_first_run():
    weight = weft.randn(OUT, WIDE)
    kept = weight.numpy()
    case = Case(weight)
    assert not case.packed
    for i in range(4):
        kept[i] += 1
        case.check(3)


def test_an_array_taken_while_the_weight_is_packed():
    case = Case()
    kept = case.layer.weight.detach().numpy()
    for i in range(4):
        kept[i] += 1
        case.check(3)
    assert not case.packed


@pytest.mark.parametrize("show", ["data_ptr", "of a view", "of a storage"])
def test_memory_whose_address_was_told_is_never_packed(show):
    weight = weft.randn(OUT, WIDE)
    told = {
        "data_ptr": weight.data_ptr,
        "of a view": lambda: weight[3].data_ptr(),
        "of a storage": lambda: weight.untyped_storage().data_ptr(),
    }[show]()
    case = Case(weight)
    assert not case.packed
    (ctypes.c_float * 40).from_address(told)[:] = range(40)
    case.check()
    assert not case.packed


class Subclass(np.ndarray):
    """An array whose views hold it and not what it views."""


# what is made of a tensor, through which its memory can be written; an array over that
SHOWN = {
    "numpy": lambda t: t.numpy(),
    "numpy of a view": lambda t: t[3].numpy(),
    "numpy across": lambda t: t.t().numpy(),
    "a part of it": lambda t: t.numpy()[1:][::2],
    "reshaped": lambda t: t.numpy().reshape(-1).view(np.int32).view(np.float32),
    "subclass": lambda t: t.numpy().view(Subclass)[2:].T,
    "strided": lambda t: np.lib.stride_tricks.as_strided(t.numpy()[4:], (3, 2), (8, 4)),
    "memoryview": lambda t: np.asarray(memoryview(t.numpy())),
    "buffer": lambda t: np.frombuffer(t.numpy(), np.float32),
    "ctypes": lambda t: np.ctypeslib.as_array((ctypes.c_float * 9).from_buffer(t.numpy())),
    "asarray": lambda t: np.asarray(t),
    "dlpack": lambda t: np.from_dlpack(t),
    "dlpack of a view": lambda t: np.from_dlpack(t[5:].t()),
    "another tensor": lambda t: weft.from_numpy(t.numpy())[2:].numpy(),
    "dlpack to and fro": lambda t: weft.from_dlpack(t)[2:].numpy(),
    "storage": lambda t: t.untyped_storage()._bytes[8:80].view(np.float32),
    "set": lambda t: weft.empty(0).set_(t.untyped_storage())[3:].numpy(),
}


@pytest.mark.parametrize("show", SHOWN)
def test_memory_is_packed_again_once_no_array_shows_it(show):
    weight = weft.randn(OUT, WIDE)
    kept = SHOWN[show](weight)
    case = Case(weight)
    assert not case.packed
    for value in (1, 2):
        kept[...] = value
        case.check(1)
    case.check(70)
    assert not case.packed
    kept[...] = 3
    del kept
    gc.collect()
    case.check(70)
    assert case.packed
    SHOWN[show](weight)[...] = 4
    case.check(1)
    assert not case.packed
    case.check(70)
    assert case.packed


def test_what_is_shown_cannot_be_resized():
    for t in (weft.ones(3), weft.ones(OUT, WIDE), weft.from_numpy(np.ones(5))):
        with pytest.raises(ValueError, match="resize"):
            t.numpy().resize((9,), refcheck=False)


MADE_OF = {
    "whole": weft.from_numpy,
    "part": lambda a: weft.from_numpy(a[1:][::2]),
    "view": lambda a: weft.as_tensor(a)[1:].T,
    "detached": lambda a: weft.from_numpy(a).detach().view(-1),
    "parameter": lambda a: nn.Parameter(weft.from_numpy(a)),
    "data": lambda a: setattr(t := weft.ones(1), "data", weft.from_numpy(a)) or t,
}


@pytest.mark.parametrize("made", MADE_OF)
@pytest.mark.parametrize("shape", [(5, 2), (OUT, WIDE)])
def test_what_a_tensor_was_made_of_cannot_be_resized(made, shape):
    """Its memory would be freed under a kernel; NumPy's `refcheck` does not know tensors."""
    a = np.ones(shape)
    t = MADE_OF[made](a)
    for size in (0, 1_000_000):
        with pytest.raises(ValueError, match="resize"):
            a.resize(size, refcheck=False)
    assert t.sum().item() == t.numel()
    del t
    gc.collect()
    a.resize(7, refcheck=False)
    assert a.shape == (7,)


def test_memory_that_is_not_ours_is_never_packed():
    a = np.ones((OUT, WIDE), np.float32)
    case = Case(weft.from_numpy(a))
    assert not case.packed
    for i in range(3):
        a[i] = i
        case.check(3)


def test_looking_at_a_weight_does_not_show_it():
    case = Case()
    m = case.layer
    str(m.weight), m.weight.tolist(), m.weight[0, 0].item(), m.weight.sum(), np.array(m.weight.data)
    copy.deepcopy(m), pickle.dumps(m.weight.data)
    weft.save(m.state_dict(), io.BytesIO())
    weft.histogram(m.weight.detach(), 4), m.weight.detach().to_sparse()
    case.check()
    assert case.packed


def test_a_copy_of_a_shown_weight_can_be_packed():
    shown = weft.randn(OUT, WIDE)
    a = shown.numpy()
    assert Case(shown.clone()).packed and Case(weft.tensor(a)).packed and not Case(shown).packed


def test_views_of_one_memory():
    whole = weft.randn(3, OUT, WIDE)

    def of(i):
        return lambda x: F.linear(x, whole[i])

    cases = [Case(of=of(i)) for i in range(3)]
    assert all(c.packed for c in cases)
    whole[1, 2, 3] = 5
    for c in cases:
        c.check()


def test_the_same_layout_at_another_address():
    layers = [nn.Linear(WIDE, OUT) for _ in range(3)]
    x = weft.randn(ROWS, WIDE)
    f = weft.compile(lambda i, x: F.linear(x, layers[i].weight))
    with weft.no_grad():
        for i in [0] * 5 + [1, 2, 0, 1] + [2] * 5 + [0]:
            assert bits(f(i, x)) == bits(F.linear(x, layers[i].weight))


def test_freed_memory_that_is_leased_again():
    x, f = weft.randn(ROWS, WIDE), weft.compile(lambda x, w: x @ w)
    with weft.no_grad():
        w = weft.randn(WIDE, OUT)
        for _ in range(5):
            f(x, w)
        place, again = w._a.__array_interface__["data"], []
        del w
        for _ in range(6):  # the block serves again, with other numbers
            w = weft.randn(WIDE, OUT)
            assert bits(f(x, w)) == bits(x @ w)
            again.append(w._a.__array_interface__["data"] == place)
            del w
    assert any(again)


SHAPES = [
    (1, 3, 65), (1, 384, 64), (1, 385, 10), (1, 800, 130), (2, 3, 65), (5, 384, 64), (13, 385, 70),
    (130, 800, 130),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("dtype", [weft.float32, weft.float64])
def test_bits_of_packed_products(shape, across, dtype):
    m, k, n = shape
    weft.manual_seed(1)
    x, c = weft.randn(m, k, dtype=dtype), weft.randn(n, dtype=dtype)
    big = weft.randn(n, 4096, dtype=dtype) if across else weft.randn(4096, n, dtype=dtype)
    w = big[:, 5 : k + 5].t() if across else big[5 : k + 5]
    plain = {
        "alone": lambda: x @ w,
        "bias": lambda: F.linear(x, w.t(), c),
        "loop": lambda: (x @ w + c).tanh(),
        "batch": lambda: weft.matmul(x.view(1, m, k).expand(2, m, k), w),
    }
    for name, f in plain.items():
        fast = weft.compile(f)
        for _ in range(5):
            got = fast()
        assert weft.equal(got, f()), name
        assert any(v.copy for v in fast._last.program.weights.all), name


CONVS = [
    (6, 40, 7, {"stride": 2, "padding": 3}), (40, 33, 3, {"padding": 1}), (400, 40, 1, {}),
    (400, 40, 1, {"stride": 2}), (24, 48, 3, {"groups": 2, "padding": 2}),
]  # fmt: skip


@pytest.mark.parametrize("case", CONVS, ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_bits_of_packed_convolutions(case, bias, batch):
    channels, out, kernel, how = case
    weft.manual_seed(2)
    first = nn.Conv2d(2, channels, 1)  # what it makes lies channels last
    layer = nn.Conv2d(channels, out, kernel, bias=bias, **how)
    images = weft.randn(batch, 2, 9, 7)

    def plain(x):
        y = layer(F.relu(first(x)))
        return F.relu(y + y.tanh()).sum((2, 3)), y

    fast = weft.compile(plain)
    with weft.no_grad():
        for i in range(8):
            if i == 5:
                layer.weight.mul_(2)
            for got, wanted in zip(fast(images), plain(images), strict=True):
                assert bits(got) == bits(wanted), i
    shape = tuple(layer.weight.shape)
    found = [w for w in fast._last.program.weights.all if w.place.layout.shape == shape]
    assert found and found[0].copy is not None


def test_batch_sizes_share_one_copy():
    layer = nn.Linear(300, 400)
    f = weft.compile(lambda x: layer(x))
    with weft.no_grad():
        for _ in range(4):
            for n in (3, 5, 9):
                f(weft.randn(n, 300))
        before = memory.memory_stats()["used_bytes"]
        copies = {
            id(w.copy) for program in _programs(f._root) for w in program.weights.all if w.copy
        }
        assert len(copies) == 1
        del f
        gc.collect()
    assert before - memory.memory_stats()["used_bytes"] >= 448 * 300 * 4


def _programs(node):
    for p in node.programs.values():
        yield p.program
    for child in node.children.values():
        yield from _programs(child)


def test_a_training_step_has_no_weights_to_look_at():
    model = nn.Sequential(nn.Linear(WIDE, 80), nn.ReLU(), nn.Linear(80, OUT))
    opt = weft.optim.Adam(model.parameters())
    x = weft.randn(ROWS, WIDE)

    def step():
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        opt.step()
        return loss.detach()

    def gradients():
        opt.zero_grad()
        model(x).square().mean().backward()

    for f in (weft.compile(step), weft.compile(gradients)):
        for _ in range(4):
            f()
            opt.step()
        assert f._last.program.weights.all == []


def test_weights_that_always_change_are_seldom_looked_at(monkeypatch):
    looks = []
    real = memory.mark
    x, w = weft.randn(ROWS, WIDE), weft.randn(WIDE, OUT)
    f = weft.compile(lambda: x @ w)
    f()
    monkeypatch.setattr(memory, "mark", lambda a: looks.append(a) or real(a))
    for _ in range(300):
        w.add_(1)
        f()
    assert 5 < len(looks) < 30
    for _ in range(70):
        f()
    assert f._last.program.weights.all[0].copy is not None


def test_a_packed_weight_that_lies_as_it_lay_tells_its_mark_itself(monkeypatch):
    looks = []
    real = memory.mark
    x, w, v = weft.randn(ROWS, WIDE), weft.randn(WIDE, OUT), weft.randn(WIDE, OUT)
    f = weft.compile(lambda: (x @ w, x @ v))

    def agrees():
        for got, want in zip(f(), (x @ w, x @ v), strict=True):
            np.testing.assert_array_equal(got.numpy(), want.numpy())

    def settle():
        for _ in range(200):
            f()
        looks.clear()
        f()
        agrees()
        return len(looks)

    monkeypatch.setattr(memory, "mark", lambda a: looks.append(a) or real(a))
    assert settle() == 0
    assert all(each.copy is not None for each in f._last.program.weights.all)
    w.mul_(2)
    agrees()
    assert settle() == 0
    w.numpy()[3] = 5.0  # memory that somebody may write to
    agrees()
    v.data = weft.randn(WIDE, OUT)
    gc.collect()
    agrees()
    old = v.data_ptr()
    v.data = weft.randn(WIDE, OUT)
    gc.collect()
    for _ in range(20):  # until one lies where the first did
        v.data = made = weft.randn(WIDE, OUT)
        agrees()
        if made.data_ptr() == old:
            break


def test_memory_counts_the_copies():
    model = nn.Sequential(nn.Linear(300, 400), nn.GELU(), nn.Linear(400, 300))
    x = weft.randn(30, 300)
    f = weft.compile(lambda: model(x))
    gc.collect()
    arena.ARENA.memory = np.empty(0, np.uint8)
    with weft.no_grad():
        f()
        planned = f.memory()
        assert planned.packed == memory.block_size((448 * 300 + 320 * 400) * 4)
        f()
        gc.collect()
        before = memory.memory_stats()["used_bytes"] - planned.arena
        f()
        memory.reset_peak()
        f()
    measured = memory.memory_stats()["peak_bytes"] - before
    told = planned.packed + planned.arena + planned.results
    assert f.memory() == planned and abs(told - measured) < 0.05 * measured


PREPACK = "cpp.weight_prepack"  # torch's name


@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize(
    ("options", "variable", "packs"),
    [
        ({PREPACK: False}, None, False), ({"cpp.weight-prepack": False}, "1", False),
        ({PREPACK: True}, None, True), ({PREPACK: True}, "0", True), (None, "0", False),
        ({}, "1", True),
    ],
)  # fmt: skip
def test_packing_can_be_switched_off(options, variable, packs, replay, monkeypatch):
    if variable is not None:
        monkeypatch.setenv("WEFT_WEIGHT_PREPACK", variable)
    model = nn.Sequential(nn.Linear(WIDE, OUT), nn.ReLU(), nn.Linear(OUT, WIDE))
    x = weft.randn(2, WIDE)
    fast = weft.compile(model, options=options, replay=replay)
    given = weft.compile(options=options, replay=replay)(lambda x: model(x))
    with weft.no_grad():
        wanted = bits(model(x))
        for f in (fast, given):
            assert all(bits(f(x)) == wanted for _ in range(5))
            assert (f.memory().packed > 0) == packs
            assert not replay or f.stats["replay"] == "on"
        for w in fast._compiled._last.program.weights.all:
            assert packs and w.copy is not None


def test_an_option_of_the_wrong_type():
    with pytest.raises(RuntimeError, match="got str should be bool"):
        weft.compile(lambda x: x, options={PREPACK: "no"})


@pytest.mark.parametrize(
    ("most", "copies", "cached"), [(WIDE * 192 * 4 + 1, 1, 1 << 26), (100, 0, 0), (1 << 26, 1, 0)]
)
def test_one_row_keeps_few_copies(most, copies, cached, monkeypatch):
    """It reads weights that come from memory where they lie, or short copies."""
    monkeypatch.setattr(weights, "_MOST_SPARE", most)
    monkeypatch.setattr(weights, "_CACHED", cached)
    layer, x = nn.Linear(WIDE, OUT), weft.randn(1, WIDE)
    wide, rows = nn.Linear(WIDE, 2 * OUT), weft.randn(9, WIDE)
    f = weft.compile(lambda: (layer(x), wide(rows)), replay=True)
    with weft.no_grad():
        for _ in range(6):
            assert list(map(bits, f())) == [bits(layer(x)), bits(wide(rows))]
    of = {w.place.layout.shape for w in f._last.program.weights.all if w.copy is not None}
    assert ((OUT, WIDE) in of) == bool(copies) and (2 * OUT, WIDE) in of
    want = (up(OUT, 64) * copies + up(2 * OUT, 64)) * WIDE * 4
    want += 0 if cached else copies * up(up(OUT, 64) // 64 * WIDE // 2)  # a byte a group
    assert f.memory().packed == memory.block_size(want)


def test_a_profile_between_runs():
    case = Case()
    with weft.profiler.profile():
        case.check()
    case.fast._last.program.time_steps(2)
    assert case.packed
    case.check()
    case.layer.weight.data.add_(1)
    case.fast._last.program.time_steps(2)
    case.check()


@pytest.mark.parametrize("seed", range(3))
def test_writes_and_calls_in_any_order(seed):
    rng = np.random.default_rng(seed)
    weft.manual_seed(seed)
    case = Case(of=None)
    layer = case.layer
    shown = weft.zeros(1, WIDE).numpy()
    kept = {}
    shows = list(SHOWN.values())

    def keep_view():
        kept["view"] = layer.weight.data[5:30]

    def keep_array():
        layer.weight.data = weft.randn(OUT, WIDE)
        kept["array"] = layer.weight.data.numpy()

    def show():
        kept[int(rng.integers(3))] = shows[rng.integers(len(shows))](layer.weight.data)

    def write_shown():
        for i in range(3):
            if i in kept:
                kept[i][...] = float(rng.integers(5)) / 4

    acts = [
        lambda: layer.weight.data.mul_(0.9),
        lambda: layer.weight.data.__setitem__(int(rng.integers(OUT)), weft.from_numpy(shown)[0]),
        keep_view,
        lambda: kept["view"].add_(0.1) if "view" in kept else None,
        keep_array,
        lambda: kept["array"].__setitem__(1, 0.5) if "array" in kept else None,
        lambda: setattr(layer, "weight", nn.Parameter(weft.randn(OUT, WIDE))),
        lambda: layer.bias.data.add_(1),
        lambda: layer.weight.data.copy_(layer.weight.data * 1.01),
        lambda: gc.collect(),
        show,
        write_shown,
        lambda: kept.pop(int(rng.integers(3)), None),
        kept.clear,
    ]
    for _ in range(250):
        if rng.random() < 0.4:
            acts[rng.integers(len(acts))]()
        case.check(1)
    kept.clear()
    gc.collect()
    case.check(70)
    assert case.packed


def test_threads_that_show_and_call():
    """An array is shown, written to and dropped by one thread while another one calls."""
    layer = nn.Linear(WIDE, OUT, bias=False)
    x = weft.ones(ROWS, WIDE)
    fast = weft.compile(lambda: layer(x), replay=True)
    done, errors = threading.Event(), []

    def call():
        with weft.no_grad():
            while not done.is_set():
                fast()

    threads = [threading.Thread(target=call) for _ in range(2)]
    for t in threads:
        t.start()
    for i in range(200):
        layer.weight.data.numpy()[...] = i
        with weft.no_grad():
            if fast().unique().tolist() != [float(i * WIDE)]:
                errors.append(i)
    done.set()
    for t in threads:
        t.join()
    assert not errors


def test_threads_that_write_and_call():
    layers = [nn.Linear(WIDE, OUT) for _ in range(2)]
    x = weft.randn(ROWS, WIDE)
    f = weft.compile(lambda layer, x: layer(x))
    errors = []

    def work(layer):
        with weft.no_grad():
            for i in range(60):
                if i % 5 == 0:
                    layer.weight.add_(0.01)
                if bits(f(layer, x)) != bits(layer(x)):
                    errors.append(i)

    threads = [threading.Thread(target=work, args=(layer,)) for layer in layers]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors


@pytest.mark.parametrize("dtype", [weft.bfloat16, weft.float16])
@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("replay", [False, True])
def test_weights_that_autocast_rounds_are_packed_rounded(replay, rows, dtype):
    """Of products whose operand nobody else reads: the loop that rounds it then rests."""
    weft.manual_seed(2)
    one, two, three = (weft.randn(96, 96) for _ in range(3))
    x = weft.randn(rows, 96)

    def f(x):
        with weft.autocast("cpu", dtype=dtype):
            low, other = weft.nn.functional.linear, three.to(dtype)
            y = low(x, one) + low(x.tanh(), one) + x @ two
            z = low(y, other) @ (other @ other)  # which reads it in place, too
            return z, (z.tanh() @ two).exp() @ two, (z.T @ y).cos() @ (y.T @ z).sin()

    def bits(ys):
        return [y.float().numpy().tobytes() for y in ys]

    compiled = weft.compile(f, replay=replay)
    with weft.no_grad():
        for w in (None, one, two, three, one):
            if w is not None:
                w.mul_(1.25)
            want = bits(f(x))
            for _ in range(8):
                assert bits(compiled(x)) == want
    assert compiled.memory().packed > 2 * 96 * 96 * 2


SIZES = [(3, 130, 65), (1, 384, 64), (2, 385, 90), (1, 800, 130), (13, 385, 70), (130, 800, 130)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("dtype", [weft.bfloat16, weft.float16])
def test_bits_of_products_packed_rounded(size, across, dtype):
    m, k, n = size
    weft.manual_seed(1)
    x, w = weft.randn(m, k), weft.randn(n, k) if across else weft.randn(k, n)

    def f():
        with weft.autocast("cpu", dtype=dtype):
            return F.linear(x, w) if across else x @ w

    fast = weft.compile(f)
    for _ in range(5):
        assert weft.equal(fast(), f())
    assert any(v.copy for v in fast._last.program.weights.all)
