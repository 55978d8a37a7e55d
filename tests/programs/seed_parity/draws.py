"""Count the draws that differ from torch's: python draws.py, with torch and Weft together.

Each draw is made from 20 seeds by both; printed are the numbers made, how many differ, the largest
difference in units of the last place, and whether the generators stand at one place afterwards.
docs/seeds.md quotes the table.
"""

import numpy as np
import torch

import weft

SEEDS = 20
SIZES = (1, 7, 15, 16, 17, 1000, 100003)
FLOATS = ("float32", "float64", "bfloat16", "float16")


def draws(w):
    """name -> functions that draw with library w"""
    init = w.nn.init
    fills = {
        "uniform_": (-0.3, 0.7), "normal_": (0.5, 0.02), "exponential_": (1.3,),
        "cauchy_": (0.3, 1.3), "geometric_": (0.3,), "log_normal_": (0.3, 0.4),
        "bernoulli_": (0.3,),
    }  # fmt: skip
    alpha = w.arange(1, 1001) * 0.02
    data, layer = w.utils.data, {}
    for name, make in (
        ("Linear", lambda: w.nn.Linear(33, 40)), ("Conv2d", lambda: w.nn.Conv2d(3, 40, 3)),
        ("LSTM", lambda: w.nn.LSTM(30, 40)), ("Embedding", lambda: w.nn.Embedding(33, 40)),
        ("TransformerEncoderLayer", lambda: w.nn.TransformerEncoderLayer(32, 4, 64)),
    ):  # fmt: skip
        layer[name] = lambda make=make: w.cat([p.detach().flatten() for p in make().parameters()])
    return {
        **{f"rand {d}": [lambda n=n, d=d: w.rand(n, dtype=getattr(w, d)) for n in SIZES]
           for d in FLOATS},
        **{f"randn {d}": [lambda n=n, d=d: w.randn(n, dtype=getattr(w, d)) for n in SIZES]
           for d in FLOATS},
        **{f"{f} (4 dtypes)": [
            lambda f=f, a=a, d=d: getattr(w.empty(5000, dtype=getattr(w, d)), f)(*a)
            for d in FLOATS] for f, a in fills.items()},
        "randint, randperm": [lambda: w.randint(1000, (999,)), lambda: w.randperm(70000)],
        "multinomial": [lambda r=r: w.multinomial(w.rand(50, 100), 20, r) for r in (True, False)],
        "poisson": [lambda: w.poisson(w.arange(0, 60000, 60).float())],
        "binomial": [lambda n=n: w.binomial(w.full((1000,), n), w.arange(1000) * 0.001)
                     for n in (30.0, 5000.0)],
        "_standard_gamma": [lambda: w._standard_gamma(alpha),
                            lambda: w._standard_gamma(alpha.double())],
        "_sample_dirichlet": [lambda: w._sample_dirichlet(alpha.reshape(200, 5))],
        "dropout, alpha_dropout": [
            lambda: w.nn.functional.dropout(w.ones(100, 100), 0.3),
            lambda: w.nn.functional.alpha_dropout(w.ones(100, 100), 0.3, True)],
        "nn.init": [lambda f=f: getattr(init, f)(w.empty(33, 40)) for f in (
            "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_",
            "trunc_normal_", "uniform_", "normal_")],
        "nn.init.orthogonal_": [lambda: init.orthogonal_(w.empty(33, 40))],
        "parameters of 5 layers": list(layer.values()),
        "DataLoader, random_split": [
            lambda: w.cat(list(data.DataLoader(w.arange(100), batch_size=7, shuffle=True))),
            lambda: w.tensor(list(data.random_split(range(100), [70, 30])[0].indices))],
        "gumbel_softmax": [lambda: w.nn.functional.gumbel_softmax(w.ones(100, 100))],
    }  # fmt: skip


def array(x) -> np.ndarray:
    """In float64, where each dtype is exact."""
    return x.detach().double().contiguous().numpy()


def spacing(x, values: np.ndarray) -> np.ndarray:
    """The distance of neighbouring floats of x's dtype."""
    digits = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}[
        str(x.dtype).split(".")[1]
    ]
    return 2.0 ** (np.frexp(values)[1] - digits)


def main() -> None:
    ours = draws(weft)
    print("| draw | numbers | differ | largest difference | generators apart |")
    print("|---|---|---|---|---|")
    for name, theirs in draws(torch).items():
        made = differ = apart = 0
        worst = 0.0
        for f, g in zip(theirs, ours[name], strict=True):
            for seed in range(SEEDS):
                torch.manual_seed(seed), weft.manual_seed(seed)
                a, b = f(), g()
                x, y = array(a), array(b)
                made += x.size
                bad = (x != y) & ~(np.isnan(x) & np.isnan(y))
                differ += int(bad.sum())
                if bad.any():
                    worst = max(worst, float((np.abs(x - y) / spacing(a, x))[bad].max()))
                mine, other = weft.get_rng_state().numpy(), torch.get_rng_state().numpy()
                apart += not np.array_equal(mine, other)
        ulps = f"{worst:.0f} ulp" if differ else "none"
        print(f"| {name} | {made:,} | {differ:,} | {ulps} | {apart} |", flush=True)


if __name__ == "__main__":
    main()
