"""Draw docs/seed_parity.png: the recorded curves of torch, and Weft's of now.

`python tests/programs/seed_parity/plot.py`, in an environment with Weft and matplotlib.  It also
prints the largest relative differences, which docs/seeds.md quotes.
"""

import json
import sys

import matplotlib.pyplot as plt
from record import HERE, SCRIPTS, curve

TITLES = {"gpt": "GPT, 2 blocks, AdamW", "cnn": "CNN with batch norm, SGD"}


def apart(a: list[float], b: list[float]) -> list[float]:
    """|a - b| / b for each step; zeros are drawn at 1e-9."""
    return [max(abs(x - y) / y, 1e-9) for x, y in zip(a, b, strict=True)]


def main() -> None:
    torch = json.loads((HERE / "curves.json").read_text("utf-8"))
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.4), sharex=True)
    for column, script in zip(axes.T, SCRIPTS, strict=True):
        run = [sys.executable, "-m", "weft", "run", str(HERE / f"{script}.py")]
        weft = {seed: curve([*run, seed]) for seed in torch[script]}
        plain = torch[f"{script}, plain"]
        top, below = column
        top.set_title(TITLES[script])
        for k, seed in enumerate(weft):
            top.plot(torch[script][seed], color="0.75", lw=3, label=None if k else "torch 2.13")
            top.plot(weft[seed], color=f"C{k}", lw=0.9, label=f"Weft, seed {seed}")
            below.semilogy(apart(weft[seed], torch[script][seed]), color=f"C{k}", lw=0.9)
            label = None if k else "torch against itself: one thread, no oneDNN"
            below.semilogy(apart(plain[seed], torch[script][seed]), "k:", lw=0.8, label=label)
        below.axhline(1e-4, color="r", lw=0.8, label="the bound that the test checks")
        below.set(xlabel="step", ylim=(3e-10, 1e-3))
        worst = max(max(apart(weft[s], torch[script][s])) for s in weft)
        itself = max(max(apart(plain[s], torch[script][s])) for s in weft)
        print(f"{script}: Weft {worst:.1e} from torch, torch {itself:.1e} from itself")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("relative difference")
    axes[0, 0].legend(fontsize=7)
    axes[1, 0].legend(fontsize=7, loc="upper left")
    figure.tight_layout()
    target = HERE.parents[2] / "docs/seed_parity.png"
    figure.savefig(target, dpi=72, metadata={"Software": None})
    print(target.name, target.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
