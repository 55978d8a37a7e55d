"""Eager overhead beside PyTorch: small ops in one process, interleaved, medians of ratios.

    python bench/eager.py [--rounds 41] [--threads 1] [--only add]
    python bench/eager.py --lines --rounds 9 [--only shape]  # lines of programs, the worst first

Each round times a block of calls in Weft and the same block in torch, one right after the other and
in turning order, so that a busy or throttled machine hits both. With one thread the clock is the
thread's own processor time: what other processes take of the machine does not count. The ratio is
taken within a round; the table shows the medians and the quartiles of the ratio. Below 1 Weft is
faster. Without torch (`make bench` installs it into bench/.venv) only Weft's times are printed.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from types import ModuleType

import numpy as np
from turns import BLOCK_S, block

import weft

try:
    import torch
except ImportError:
    torch = None


def add(lib: ModuleType, grad: bool) -> Callable[[], object]:
    x, y = lib.rand(10, requires_grad=grad), lib.rand(10, requires_grad=grad)
    return lambda: x + y


def add_scalar(lib: ModuleType, grad: bool) -> Callable[[], object]:
    x = lib.rand(10, requires_grad=grad)
    return lambda: x + 1.5


def relu(lib: ModuleType, grad: bool) -> Callable[[], object]:
    x = lib.randn(10, requires_grad=grad)
    return lambda: lib.relu(x)


def total(lib: ModuleType, grad: bool) -> Callable[[], object]:
    x = lib.rand(10, requires_grad=grad)
    return lambda: x.sum(0)


def transpose(lib: ModuleType, grad: bool) -> Callable[[], object]:
    x = lib.rand(4, 5, requires_grad=grad)
    return lambda: x.transpose(0, 1)


def matmul(lib: ModuleType, grad: bool) -> Callable[[], object]:
    a, b = (lib.rand(16, 16, requires_grad=grad) for _ in range(2))
    return lambda: a @ b


def add_backward(lib: ModuleType) -> Callable[[], object]:
    x, y = lib.rand(10, requires_grad=True), lib.rand(10, requires_grad=True)

    def run() -> None:
        x.grad = y.grad = None
        (x + y).sum().backward()

    return run


def _mlp(lib: ModuleType) -> tuple:
    lib.manual_seed(0)
    nn = lib.nn
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    return model, lib.randn(32, 64), lib.randint(0, 10, (32,))


def mlp_forward(lib: ModuleType) -> Callable[[], object]:
    model, x, _ = _mlp(lib)

    def run() -> None:
        with lib.no_grad():
            model(x)

    return run


def mlp_forward_backward(lib: ModuleType) -> Callable[[], object]:
    model, x, target = _mlp(lib)

    def run() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        lib.nn.functional.cross_entropy(model(x), target).backward()

    return run


def _small_mlp(lib: ModuleType) -> tuple:
    """Three layers of width 16, a batch of 1: next to no arithmetic."""
    lib.manual_seed(0)
    nn = lib.nn
    model = nn.Sequential(
        nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)
    )
    return model, lib.randn(1, 16)


def small_mlp_forward(lib: ModuleType) -> Callable[[], object]:
    model, x = _small_mlp(lib)
    return lambda: model(x)


def small_mlp_forward_backward(lib: ModuleType) -> Callable[[], object]:
    model, x = _small_mlp(lib)

    def run() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        model(x).sum().backward()

    return run


def mlp_step(lib: ModuleType) -> Callable[[], object]:
    model, x, target = _mlp(lib)
    optimizer = lib.optim.SGD(model.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad()
        lib.nn.functional.cross_entropy(model(x), target).backward()
        optimizer.step()

    return run


CASES: dict[str, Callable[[ModuleType], Callable[[], object]]] = {
    "add 10": lambda lib: add(lib, False),
    "add 10, grad": lambda lib: add(lib, True),
    "add 10, scalar": lambda lib: add_scalar(lib, False),
    "add 10, scalar, grad": lambda lib: add_scalar(lib, True),
    "add 10, sum, backward": add_backward,
    "relu 10": lambda lib: relu(lib, False),
    "relu 10, grad": lambda lib: relu(lib, True),
    "sum 10": lambda lib: total(lib, False),
    "transpose 4x5": lambda lib: transpose(lib, False),
    "matmul 16x16": lambda lib: matmul(lib, False),
    "matmul 16x16, grad": lambda lib: matmul(lib, True),
    "mlp 32x64-128-128-10": mlp_forward,
    "mlp forward, backward": mlp_forward_backward,
    "mlp step (SGD)": mlp_step,
    "mlp 1x16, grad": small_mlp_forward,
    "mlp 1x16, backward": small_mlp_forward_backward,
}


# Lines as programs have them, ten times in a row so that a loop around them costs next to nothing.
# `_names` makes what they name.
LINES = """
x.shape
x.shape[0]
x.dtype
x.dim()
x.ndim
x.size()
x.size(0)
x.device
x.requires_grad
p.grad
p.data
len(x)
x.numel()
x.is_contiguous()
one.item()
float(one)
int(whole)
bool(yes)
x.tolist()
x.numpy()
x.detach()
p.detach()
x.clone()
x.to("cpu")
x.to(lib.float32)
x.contiguous()
x.float()
ints.float()
a, b = pair
for row in x: pass
x.chunk(2, 1)
x.split(2)
x.unbind(0)
x[0]
x[0, 1]
x[:, 0]
x[1:3]
x[..., None]
x[mask]
x[places]
x[rows, places]
x.gather(1, picked)
y[0] = 1.0
y[0] = row0
y[mask] = 0.0
x.view(-1)
x.reshape(2, 16)
x.unsqueeze(0)
x.T
x.flatten(1)
x.expand(2, 4, 8)
lib.cat([x, y])
lib.cat((x, y), dim=1)
lib.cat([p, x])
lib.stack([x, y])
lib.stack(eight)
lib.stack(scalars)
x + 1
y += 1
y *= 0.5
y.add_(x)
y.mul_(0.999)
y.zero_()
y.copy_(x)
1 - x
-x
x ** 2
x / y
x > 0
x == y
x.exp()
x.sqrt()
x.abs()
x.tanh()
x.clamp(0, 1)
x.clamp(min=0.0)
x.sum()
x.sum().item()
x.sum(1, keepdim=True)
x.mean()
x.mean(dim=0)
x.std()
x.norm()
x.max()
x.max(1)
x.argmax(1)
x.argmax(dim=-1, keepdim=True)
(x.argmax(1) == target).float().mean().item()
(x.argmax(1) == target).sum().item()
x.softmax(-1)
x.topk(2)
x.sort()
x.cumsum(0)
x.any()
lib.where(mask2, x, y)
lib.maximum(x, y)
lib.isnan(x).any()
x @ w
lib.matmul(x, w)
lib.bmm(batch, batch2)
lib.einsum("ij,jk->ik", x, w)
lib.tensor(1.0)
lib.tensor([1.0, 2.0, 3.0, 4.0])
lib.tensor(numbers)
lib.tensor(nested)
lib.tensor(7)
lib.as_tensor(array)
lib.as_tensor(3.0)
lib.from_numpy(array)
lib.zeros(3, 4)
lib.ones(4)
lib.zeros(3, 4, device="cpu")
lib.zeros_like(x)
lib.arange(10)
lib.full((2, 3), 1.5)
lib.empty(3, 4)
lib.rand(3, 4)
lib.randn(3, 4)
lib.randint(0, 10, (4,))
lib.randperm(16)
lib.normal(x, 0.1)
with lib.no_grad(): pass
with lib.no_grad(): x + y
with lib.inference_mode(): x + y
with lib.enable_grad(): x + y
F.relu(x)
F.gelu(x)
F.silu(x)
F.leaky_relu(x, 0.1)
F.softmax(x, dim=-1)
F.log_softmax(x, dim=1)
F.linear(x, w2, bias8)
F.mse_loss(x, y)
F.mse_loss(x, y, reduction="sum")
F.cross_entropy(x, target)
F.nll_loss(x, target)
F.binary_cross_entropy_with_logits(x, unit)
F.smooth_l1_loss(x, y)
F.dropout(x, p=0.5, training=True)
F.dropout(x, p=0.5, training=False)
F.layer_norm(x, (8,))
F.embedding(picked1, table)
F.one_hot(target, 8)
F.normalize(x, dim=-1)
F.pad(x, (1, 1))
F.max_pool2d(image, 2)
F.cosine_similarity(x, y)
linear(x)
norm(x)
embedding(picked1)
dropout(x)
mlp(x)
batch_norm(x)
conv(image)
gru(x, x)
lstm(x)
attention(seq, seq, seq)
list(mlp.parameters())
mlp.state_dict()
mlp.zero_grad()
mlp.train()
mlp.eval()
for q in mlp.parameters(): q.requires_grad
sum(q.numel() for q in mlp.parameters())
(x * p).sum().backward()
F.mse_loss(linear(x), x).backward()
lib.autograd.grad((x * p).sum(), p)
sgd.step()
momentum.step()
adam.step()
adamw.step()
adam.zero_grad()
clip(mlp.parameters(), 1.0)
D.Categorical(logits=x)
categorical.sample()
categorical.log_prob(target)
categorical.entropy()
D.Normal(x, unit)
normal.sample()
normal.log_prob(x)
lib.multinomial(unit, 1)
lib.bernoulli(unit)
for item in loader: pass
hand_lstm()
repr(one)
"""


def _names(lib: ModuleType) -> dict[str, object]:
    """What the lines call their tensors and modules."""
    lib.manual_seed(0)
    nn, optim = lib.nn, lib.optim
    x, y = lib.rand(4, 8) + 0.1, lib.rand(4, 8) + 0.1
    p = nn.Parameter(lib.rand(4, 8))
    (p * 2).sum().backward()
    mlp = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))

    def optimizer(make: Callable, **settings: float) -> object:
        made = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 8))
        made(x).sum().backward()
        return make(made.parameters(), lr=1e-6, **settings)

    mlp(x).sum().backward()
    w_hand, u_hand = (lib.rand(8, 32, requires_grad=True) for _ in range(2))
    b_hand = lib.zeros(32, requires_grad=True)

    def hand_lstm() -> object:
        h = c = lib.zeros(4, 8)
        for _ in range(4):
            i, f, g, o = (x @ w_hand + h @ u_hand + b_hand).chunk(4, dim=1)
            c = lib.sigmoid(f) * c + lib.sigmoid(i) * lib.tanh(g)
            h = lib.sigmoid(o) * lib.tanh(c)
        return h

    data = lib.utils.data.TensorDataset(lib.rand(32, 8), lib.randint(0, 4, (32,)))
    return {
        "lib": lib, "F": nn.functional, "D": lib.distributions, "x": x, "y": y, "p": p,
        "one": lib.tensor(1.5), "whole": lib.tensor(3), "yes": lib.tensor(True),
        "ints": lib.arange(32).reshape(4, 8), "pair": lib.rand(2, 8),
        "mask": lib.tensor([True, False, True, True]), "mask2": x > y, "row0": lib.rand(8),
        "places": lib.tensor([2, 0, 1]), "rows": lib.tensor([0, 1, 3]),
        "picked": lib.tensor([[1], [0], [7], [3]]), "picked1": lib.tensor([1, 0, 7, 3]),
        "target": lib.tensor([1, 0, 7, 3]), "eight": [lib.rand(3, 4) for _ in range(8)],
        "scalars": [lib.rand(()) for _ in range(16)], "w": lib.rand(8, 8), "w2": lib.rand(8, 8),
        "bias8": lib.rand(8), "batch": lib.rand(2, 4, 4), "batch2": lib.rand(2, 4, 4),
        "numbers": [i / 7 for i in range(64)], "nested": [[1.0, 2.0, 3.0]] * 4,
        "array": np.ones((4, 8), np.float32), "unit": lib.rand(4, 8) * 0.9 + 0.05,
        "table": lib.rand(10, 8), "image": lib.rand(1, 2, 8, 8), "seq": lib.rand(4, 1, 8),
        "linear": nn.Linear(8, 8), "norm": nn.LayerNorm(8), "embedding": nn.Embedding(10, 8),
        "dropout": nn.Dropout(0.1), "mlp": mlp, "batch_norm": nn.BatchNorm1d(8),
        "conv": nn.Conv2d(2, 4, 3, padding=1), "gru": nn.GRUCell(8, 8), "lstm": nn.LSTM(8, 8),
        "attention": nn.MultiheadAttention(8, 2), "clip": nn.utils.clip_grad_norm_,
        "sgd": optimizer(optim.SGD), "momentum": optimizer(optim.SGD, momentum=0.9),
        "adam": optimizer(optim.Adam), "adamw": optimizer(optim.AdamW, weight_decay=0.01),
        "categorical": lib.distributions.Categorical(logits=x),
        "normal": lib.distributions.Normal(x, y), "hand_lstm": hand_lstm,
        "loader": lib.utils.data.DataLoader(data, batch_size=8, shuffle=True),
    }  # fmt: skip


TIMES = 10  # a line stands in a row


def line(text: str) -> Callable[[ModuleType], Callable[[], object]]:
    """A case of a line of LINES: a function that runs it TIMES times, on locals as programs do."""
    body = "".join(f"    {text}\n" for _ in range(TIMES))

    def make(lib: ModuleType) -> Callable[[], object]:
        named = set(compile(text, "line", "exec").co_names)
        given = {name: made for name, made in _names(lib).items() if name in named}
        space: dict[str, Callable] = {}
        defaults = ", ".join(f"{name}={name}" for name in given)
        exec(f"def run({defaults}):\n{body}", given, space)
        return space["run"]

    return make


clock: Callable[[], float] = time.perf_counter


def calls_for(call: Callable[[], object]) -> int:
    """How many calls fill a block; also warms caches and makes kernels."""
    call()
    times = 1
    while (spent := block(call, times, clock) * times) < BLOCK_S:
        times = max(times + 1, int(times * min(10.0, 1.2 * BLOCK_S / max(spent, 1e-7))))
    return times


def compare(calls: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds a call, `rounds` of them for each entry of `calls`, taken in turns."""
    times = [calls_for(call) for call in calls]
    seconds: list[list[float]] = [[] for _ in calls]
    gc.collect()
    gc.disable()
    try:
        for r in range(rounds):
            order = range(len(calls)) if r % 2 == 0 else reversed(range(len(calls)))
            for i in order:
                seconds[i].append(block(calls[i], times[i], clock))
    finally:
        gc.enable()
    return seconds


def row(
    name: str, make: Callable[[ModuleType], Callable[[], object]], rounds: int, each: int
) -> tuple[float, str]:
    """The case's ratio, and its line of the table; `each`: how many times a call does it."""
    if torch is None:
        (ours,) = compare([make(weft)], rounds)
        return 0.0, f"{name:<24} {statistics.median(ours) * 1e6 / each:>9.2f}"
    ours, theirs = compare([make(weft), make(torch)], rounds)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    our, their = (statistics.median(s) * 1e6 / each for s in (ours, theirs))
    return middle, f"{name:<24} {our:>9.2f} {their:>9.2f} {middle:>7.2f}  {low:.2f}-{high:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41, help="rounds of each case, 3 or more")
    parser.add_argument("--threads", type=int, default=1, help="threads of both libraries")
    parser.add_argument("--only", nargs="*", default=[""], help="words; cases that have one in it")
    parser.add_argument("--lines", action="store_true", help="lines of programs, the worst first")
    args = parser.parse_args()
    if args.rounds < 3:
        parser.error("--rounds must be 3 or more")
    if args.threads == 1:
        global clock
        clock = time.thread_time
    for lib in [weft] if torch is None else [weft, torch]:
        lib.set_num_threads(args.threads)
    version = "not installed" if torch is None else torch.__version__
    print(f"weft {weft.__version__}, torch {version}, {args.threads} thread(s), us a call")
    head = f"{'case':<24} {'weft':>9}"
    print(head if torch is None else f"{head} {'torch':>9} {'ratio':>7}  quartiles")
    failed = 0
    cases = {text: line(text) for text in LINES.split("\n") if text} if args.lines else CASES
    rows = []
    for name, make in cases.items():
        if any(word in name for word in args.only):
            try:
                rows.append(row(name, make, args.rounds, TIMES if args.lines else 1))
            except Exception as error:  # one broken case must not hide the others
                failed += 1
                rows.append((float("inf"), f"{name:<24} {type(error).__name__}: {error}"))
            if not args.lines:
                print(rows[-1][1], flush=True)
    for _, text in sorted(rows, reverse=True) if args.lines else []:
        print(text)
    return failed


if __name__ == "__main__":
    sys.exit(main())
