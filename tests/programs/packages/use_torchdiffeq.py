"""torchdiffeq: solvers, and training through the adjoint."""

import torch
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

torch.manual_seed(0)


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 2))

    def forward(self, t, y):
        return self.net(y**3)


field = Field()
y0, t = torch.tensor([[2.0, 0.0]]), torch.linspace(0.0, 2.0, 10)
optimizer = torch.optim.RMSprop(field.parameters(), lr=1e-3)
for method in ("dopri5", "rk4", "euler", "midpoint", "bosh3", "adaptive_heun"):
    y = odeint(field, y0, t, method=method)
    print(method, tuple(y.shape), [round(v, 4) for v in y[-1, 0].tolist()])
for i in range(3):
    optimizer.zero_grad()
    loss = odeint_adjoint(field, y0, t, method="dopri5").abs().mean()
    loss.backward()
    optimizer.step()
    print(i, f"{loss.item():.5f}")
