"""Functions of one's own: a straight-through sign, a checked gradient, hooks, checkpointing."""

import torch
from torch import nn
from torch.autograd import Function, gradcheck
from torch.utils.checkpoint import checkpoint

torch.manual_seed(5)


class LegendrePolynomial3(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input):
        ctx.save_for_backward(input)
        return 0.5 * (5 * input ** 3 - 3 * input)

    @staticmethod
    def backward(ctx, grad_output):
        input, = ctx.saved_tensors
        return grad_output * 1.5 * (5 * input ** 2 - 1)


class BinarySign(Function):
    @staticmethod
    def forward(ctx, x, clip):
        ctx.clip = clip
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        g = g.clone()
        g[x.abs() > ctx.clip] = 0
        return g, None


class Binary(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(o, i))
        nn.init.kaiming_uniform_(self.weight, a=5 ** 0.5)

    def forward(self, x):
        return nn.functional.linear(x, BinarySign.apply(self.weight, 1.0))

    def extra_repr(self):
        return "{}, {}".format(*self.weight.shape)


print(gradcheck(LegendrePolynomial3.apply, (torch.randn(4, dtype=torch.double, requires_grad=True),)))

x = torch.linspace(-3.14159, 3.14159, 200)
y = torch.sin(x)
a, b, c, d = (torch.full((), v, requires_grad=True) for v in (0.0, -1.0, 0.0, 0.3))
for t in range(60):
    y_pred = a + b * LegendrePolynomial3.apply(c + d * x)
    loss = (y_pred - y).pow(2).sum()
    if t % 10 == 9:
        print(t, f"{loss.item():.5f}")
    loss.backward()
    with torch.no_grad():
        for p in (a, b, c, d):
            p -= 5e-6 * p.grad
            p.grad = None
print(f"y = {a.item():.5f} + {b.item():.5f} P3({c.item():.5f} + {d.item():.5f} x)")

net = nn.Sequential(Binary(6, 16), nn.BatchNorm1d(16), nn.Hardtanh(), Binary(16, 16), nn.Tanh(), nn.Linear(16, 3))
print(net)
seen = {}
net[0].register_forward_hook(lambda m, i, o: seen.__setitem__("mean", o.detach().abs().mean().item()))
opt = torch.optim.RMSprop(net.parameters(), lr=1e-2)
data, target = torch.randn(32, 6), torch.randint(3, (32,))
for step in range(20):
    h = checkpoint(net[:3], data, use_reentrant=False)
    loss = nn.functional.cross_entropy(net[3:](h), target, label_smoothing=0.1)
    opt.zero_grad()
    loss.backward()
    opt.step()
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, Binary):
                m.weight.clamp_(-1, 1)
    if step % 4 == 0:
        print(step, f"{loss.item():.5f} {seen['mean']:.5f}")
