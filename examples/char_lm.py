"""A 4-layer GPT on Python's own language reference, character by character; then it writes.

    python examples/char_lm.py --steps 300

The text is `pydoc_data.topics`, which every Python installation holds (about 430 kB of prose).
The whole training step (forward, loss, backward, clipping, AdamW) is one compiled program.
The script is plain PyTorch: with `import torch as weft` and torch's names it runs there too.
"""

from __future__ import annotations

import argparse
import math
import time
from pydoc_data import topics

from tqdm import tqdm

import weft
import weft.nn.functional as F
from weft import nn


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm x), then x + mlp(norm x)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout)
        )

    def forward(self, x: weft.Tensor) -> weft.Tensor:
        b, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Token and position embeddings, blocks, a final norm, and logits tied to the embedding."""

    def __init__(
        self, vocab: int, length: int, width: int, heads: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.length = length
        self.token = nn.Embedding(vocab, width)
        self.position = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens: weft.Tensor) -> weft.Tensor:
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.token.weight)


def main() -> None:
    """Train, report the loss on held-out text, sample."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=int, default=400)
    parser.add_argument("--eager", action="store_true", help="do not compile the step")
    args = parser.parse_args()

    weft.manual_seed(args.seed)
    pages = "\n".join(topics.topics[k] for k in sorted(topics.topics))
    table = ("+-", "+=", "|")  # drawn with characters: easy to learn, dull to read
    text = "\n".join(x for x in pages.splitlines() if not x.lstrip().startswith(table))
    letters = sorted(set(text))
    code = {c: i for i, c in enumerate(letters)}
    data = weft.tensor([code[c] for c in text])
    cut = len(data) * 9 // 10
    training, held_out = data[:cut], data[cut:]
    print(f"{len(text):,} characters, {len(letters)} different")

    model = GPT(len(letters), args.length, args.width, args.heads, args.layers, dropout=0.1)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    optimizer = weft.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95))
    schedule = weft.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps)

    def batch(source: weft.Tensor) -> tuple[weft.Tensor, weft.Tensor]:
        start = weft.randint(0, len(source) - args.length - 1, (args.batch,)).tolist()
        rows = weft.stack([source[i : i + args.length + 1] for i in start])
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def step(x: weft.Tensor, y: weft.Tensor) -> weft.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    run = step if args.eager else weft.compile(step)
    start = time.perf_counter()
    with tqdm(range(1, args.steps + 1), desc="training", disable=None) as bar:
        for i in bar:
            loss = run(*batch(training)).item()
            schedule.step()
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            if bar.disable and i % 100 == 0:  # not a terminal
                print(f"step {i}: loss {loss:.3f}", flush=True)
    seconds = time.perf_counter() - start
    tokens = args.steps * args.batch * args.length
    print(f"{seconds:.1f} s, {tokens / seconds:,.0f} characters a second")

    model.eval()
    with weft.no_grad():
        losses = []
        for _ in range(10):
            x, y = batch(held_out)
            losses.append(F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item())
    mean = sum(losses) / len(losses)
    print(f"held-out loss {mean:.3f} nats, {mean / math.log(2):.2f} bits a character")
    print("-" * 60)
    print(sample(model, letters, code, "The ", args.sample))


def sample(model: GPT, letters: list[str], code: dict[str, int], prompt: str, count: int) -> str:
    """`count` characters that go on from the prompt, each drawn from the model's distribution."""
    tokens = [code[c] for c in prompt]
    with weft.no_grad():
        for _ in range(count):
            x = weft.tensor([tokens[-model.length :]])
            share = F.softmax(model(x)[0, -1] / 0.8, dim=-1)
            tokens.append(int(weft.multinomial(share, 1).item()))
    return "".join(letters[t] for t in tokens)


if __name__ == "__main__":
    main()
