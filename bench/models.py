"""The models of the suite, written once for every library with torch's names (`t`)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any


def mlp(t: Any) -> Any:
    """784-512-256-10."""
    nn = t.nn
    return nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def cnn(t: Any) -> Any:
    """28x28: 3x3x32, 3x3x64, pool, 128, 10."""
    nn = t.nn
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def lstm(t: Any) -> Any:
    """Input 64, hidden 256, the last step's state to 10 classes."""

    class Tagger(t.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = t.nn.LSTM(64, 256, batch_first=True)
            self.out = t.nn.Linear(256, 10)

        def forward(self, x: Any) -> Any:
            return self.out(self.rnn(x)[0][:, -1])

    return Tagger()


def gpt(t: Any) -> Any:
    """6 pre-norm blocks, 6 heads, width 384, length 128, vocabulary 256."""

    class Block(t.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = t.nn.LayerNorm(384), t.nn.LayerNorm(384)
            self.qkv, self.out = t.nn.Linear(384, 1152), t.nn.Linear(384, 384)
            self.up, self.down = t.nn.Linear(384, 1536), t.nn.Linear(1536, 384)

        def forward(self, x: Any) -> Any:
            f = t.nn.functional
            b, n, c = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, 6, 64).permute(2, 0, 3, 1, 4).unbind(0)
            y = f.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, n, c))
            return x + self.down(f.gelu(self.up(self.norm2(x))))

    class Model(t.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.place = t.nn.Embedding(256, 384), t.nn.Embedding(128, 384)
            self.blocks = t.nn.ModuleList(Block() for _ in range(6))
            self.norm, self.head = t.nn.LayerNorm(384), t.nn.Linear(384, 256)

        def forward(self, x: Any) -> Any:
            x = self.token(x) + self.place.weight
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x)).flatten(0, 1)

    return Model()


def resnet18(t: Any) -> Any:
    """A 3x3 stem with stride 1, no first pool, 10 classes."""
    nn = t.nn

    class Basic(nn.Module):
        def __init__(self, cin: int, cout: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(cout)
            self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(cout)
            self.down = None
            if stride != 1 or cin != cout:
                self.down = nn.Sequential(
                    nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)
                )

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(t.relu(self.bn1(self.conv1(x)))))
            return t.relu(y + (x if self.down is None else self.down(x)))

    blocks, cin = [], 64
    for cout, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [Basic(cin, cout, stride), Basic(cout, cout, 1)]
        cin = cout
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def resnet50(t: Any) -> Any:
    """As published, 1,000 classes."""
    nn = t.nn

    class Bottleneck(nn.Module):
        def __init__(self, cin: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(4 * width)
            self.down = None
            if stride != 1 or cin != 4 * width:
                self.down = nn.Sequential(
                    nn.Conv2d(cin, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
                )

        def forward(self, x: Any) -> Any:
            y = t.relu(self.bn1(self.conv1(x)))
            y = t.relu(self.bn2(self.conv2(y)))
            return t.relu(self.bn3(self.conv3(y)) + (x if self.down is None else self.down(x)))

    blocks, cin = [], 64
    for width, stride, count in ((64, 1, 3), (128, 2, 4), (256, 2, 6), (512, 2, 3)):
        for i in range(count):
            blocks.append(Bottleneck(cin, width, stride if i == 0 else 1))
            cin = 4 * width
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(2048, 1000),
    )  # fmt: skip


def bert(t: Any) -> Any:
    """BERT-base's encoder: 12 post-norm layers, width 768, 12 heads, from token numbers."""
    nn = t.nn

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(768, 768) for _ in range(3))
            self.out = nn.Linear(768, 768)
            self.up, self.down = nn.Linear(768, 3072), nn.Linear(3072, 768)
            self.norm1, self.norm2 = nn.LayerNorm(768), nn.LayerNorm(768)

        def forward(self, x: Any) -> Any:
            b, n, c = x.shape
            q, k, v = (f(x).view(b, n, 12, 64).transpose(1, 2) for f in (self.q, self.k, self.v))
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            x = self.norm1(x + self.out(y.transpose(1, 2).reshape(b, n, c)))
            return self.norm2(x + self.down(nn.functional.gelu(self.up(x))))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.place = nn.Embedding(30522, 768), nn.Embedding(128, 768)
            self.norm = nn.LayerNorm(768)
            self.layers = nn.ModuleList(Layer() for _ in range(12))

        def forward(self, x: Any) -> Any:
            x = self.norm(self.token(x) + self.place.weight)
            for layer in self.layers:
                x = layer(x)
            return x

    return Model()


def gpt2_decode(t: Any) -> Any:
    """GPT-2 small on one token; keys and values of 256 earlier ones come as a tensor."""
    nn = t.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(768), nn.LayerNorm(768)
            self.qkv, self.out = nn.Linear(768, 2304), nn.Linear(768, 768)
            self.up, self.down = nn.Linear(768, 3072), nn.Linear(3072, 768)

        def forward(self, x: Any, past: Any) -> tuple[Any, Any]:
            b, n, c = x.shape
            new = self.qkv(self.norm1(x)).view(b, n, 3, 12, 64).permute(2, 0, 3, 1, 4)
            k = t.cat((past[0], new[1]), dim=2)
            v = t.cat((past[1], new[2]), dim=2)
            y = nn.functional.scaled_dot_product_attention(new[0], k, v)
            x = x + self.out(y.transpose(1, 2).reshape(b, n, c))
            x = x + self.down(nn.functional.gelu(self.up(self.norm2(x)), approximate="tanh"))
            return x, new[1:]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.place = nn.Embedding(50257, 768), nn.Embedding(1024, 768)
            self.blocks = nn.ModuleList(Block() for _ in range(12))
            self.norm = nn.LayerNorm(768)

        def forward(self, token: Any, past: Any) -> tuple[Any, Any]:
            x = self.token(token) + self.place.weight[256:257]
            made = []
            for i, block in enumerate(self.blocks):
                x, new = block(x, past[i])
                made.append(new)
            return self.norm(x) @ self.token.weight.t(), t.stack(made)

    return Model()


def _image_batch(t: Any, n: int, size: int) -> tuple:
    return (t.randn(n, 3, size, size),)


INPUTS: dict[str, Callable[[Any], tuple]] = {
    "mlp": lambda t: (t.randn(128, 784), t.randint(0, 10, (128,))),
    "cnn": lambda t: (t.randn(64, 1, 28, 28), t.randint(0, 10, (64,))),
    "lstm": lambda t: (t.randn(32, 64, 64), t.randint(0, 10, (32,))),
    "gpt": lambda t: (t.randint(0, 256, (8, 128)), t.randint(0, 256, (1024,))),
    "resnet18": lambda t: (t.randn(16, 3, 64, 64), t.randint(0, 10, (16,))),
    "mlp_b1": lambda t: (t.randn(1, 784),),
    "mlp_b32": lambda t: (t.randn(32, 784),),
    "bert": lambda t: (t.randint(0, 30522, (1, 128)),),
    "resnet50_b1": lambda t: _image_batch(t, 1, 224),
    "resnet50_b8": lambda t: _image_batch(t, 8, 224),
    "gpt2_decode": lambda t: (t.randint(0, 50257, (1, 1)), t.randn(12, 2, 1, 12, 256, 64)),
}
MODELS: dict[str, Callable[[Any], Any]] = {
    "mlp": mlp, "cnn": cnn, "lstm": lstm, "gpt": gpt, "resnet18": resnet18, "mlp_b1": mlp,
    "mlp_b32": mlp, "bert": bert, "resnet50_b1": resnet50, "resnet50_b8": resnet50,
    "gpt2_decode": gpt2_decode,
}  # fmt: skip


def example(name: str) -> Callable[[Any], tuple]:
    """What makes the workload's model, its inputs and its targets from a library."""
    return lambda t: (MODELS[name](t), *INPUTS[name](t))


def autocast(t: Any) -> Any:
    """The context in which products are of bfloat16."""
    return t.autocast("cpu", dtype=t.bfloat16)


def step_of(
    t: Any, make: Callable[[Any], tuple], *, narrow: bool = False, **adam: Any
) -> Callable[[], Any]:
    """Forward, loss, backward, Adam: called without arguments, gives the loss; `narrow`: forward
    under autocast."""
    t.manual_seed(0)
    context = autocast(t) if narrow else nullcontext()
    model, x, y = make(t)
    optimizer = t.optim.Adam(model.parameters(), **adam)

    def step() -> Any:
        optimizer.zero_grad()
        with context:
            loss = t.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def training_step(t: Any, name: str, **how: Any) -> Callable[[], Any]:
    """The workload's training step, as `step_of` makes it."""
    return step_of(t, example(name), **how)


def inference(t: Any, name: str) -> tuple[Any, tuple]:
    """The model, ready to serve, and its inputs."""
    t.manual_seed(0)
    model = MODELS[name](t).eval()
    return model, INPUTS[name](t)
