"""Small models of each sort with an example: what files, exports and servers are tested on."""

from __future__ import annotations

import weft
from weft import nn
from weft.nn import functional as F


class Tokens(nn.Module):
    """A transformer over 6 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        self.position = nn.Parameter(weft.randn(6, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(16, 11)

    def forward(self, x: weft.Tensor) -> weft.Tensor:
        return self.out(self.encoder(self.embedding(x) + self.position))


class Recurrent(nn.Module):
    """A two-way LSTM over 4 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(5, 6, 2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(12, 3)

    def forward(self, x: weft.Tensor) -> weft.Tensor:
        y, _ = self.rnn(x)
        return self.out(y[:, -1])


class Mixed(nn.Module):
    """Indexing, sorting, windows, in-place writes, several outputs of several dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(weft.randn(8, 4, 3, 3) / 6)
        self.table = nn.Embedding(9, 4)

    def forward(self, x: weft.Tensor) -> dict[str, weft.Tensor]:
        y = F.conv2d(x, self.weight, padding=1)
        y = F.avg_pool2d(y, 3, 2, 1, ceil_mode=True) + F.max_pool2d(y, 3, 2, 1, ceil_mode=True)
        y = F.conv_transpose2d(y, self.weight, stride=2, output_padding=1)
        z = y.flatten(1)
        i = z.argsort(-1)[:, :5]
        a = z.gather(1, i) + self.table(i % 9).sum(-1) + z[:, [0, 3, 1, 2, 4]]
        b = weft.cat([a, a.flip(1)], 1).cumsum(1)
        c = F.pad(b, (1, 2)).unfold(1, 4, 2).sum(-1)
        return {
            "pooled": F.adaptive_avg_pool2d(y, (3, 2)).reshape(x.shape[0], -1),
            "chosen": weft.where(c > 0, c.exp().clamp(max=5), -c.tanh()).softmax(-1),
            "largest": y[:, :, ::2].amax((2, 3)).log_softmax(1),
            "diagonal": weft.diagonal(F.layer_norm(y[:, 0, :4, :4], (4,)), dim1=1, dim2=2),
            "any": (a > 0).any(1),
            "place": a.argmax(1),
            "turned": a.t(),
        }


def mlp() -> tuple[nn.Module, weft.Tensor]:
    model = nn.Sequential(
        nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3), nn.Softmax(-1)
    )
    return model, weft.randn(3, 4)


def cnn() -> tuple[nn.Module, weft.Tensor]:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.2), nn.Conv2d(8, 8, 3, groups=2, stride=2), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10), nn.LogSoftmax(-1),
    )  # fmt: skip
    model.train()(weft.randn(16, 1, 12, 12))  # running statistics that are not 0 and 1
    return model, weft.randn(3, 1, 12, 12)


def tokens() -> tuple[nn.Module, weft.Tensor]:
    return Tokens(), weft.randint(0, 11, (3, 6))


def recurrent() -> tuple[nn.Module, weft.Tensor]:
    return Recurrent(), weft.randn(3, 4, 5)


def mixed() -> tuple[nn.Module, weft.Tensor]:
    return Mixed(), weft.randn(3, 4, 7, 9)


MODELS = {"mlp": mlp, "cnn": cnn, "tokens": tokens, "recurrent": recurrent, "mixed": mixed}


def outputs(model: nn.Module, *x: weft.Tensor) -> dict[str, weft.Tensor]:
    """What the model answers in eager eval mode, by output name."""
    model.eval()
    with weft.no_grad():
        y = model(*x)
    return y if isinstance(y, dict) else {"output": y}
