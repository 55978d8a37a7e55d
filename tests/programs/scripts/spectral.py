"""Spectral layers: a Fourier neural operator learns the heat equation; an STFT loss; spectra."""

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)


class SpectralConv1d(nn.Module):
    def __init__(self, in_channels, out_channels, modes):
        super().__init__()
        self.out_channels, self.modes = out_channels, modes
        scale = 1 / (in_channels * out_channels)
        self.weights1 = nn.Parameter(
            scale * torch.rand(in_channels, out_channels, modes, dtype=torch.cfloat)
        )

    def compl_mul1d(self, input, weights):
        return torch.einsum("bix,iox->box", input, weights)

    def forward(self, x):
        batchsize = x.shape[0]
        x_ft = torch.fft.rfft(x)
        out_ft = torch.zeros(
            batchsize, self.out_channels, x.size(-1) // 2 + 1, device=x.device, dtype=torch.cfloat
        )
        out_ft[:, :, : self.modes] = self.compl_mul1d(x_ft[:, :, : self.modes], self.weights1)
        return torch.fft.irfft(out_ft, n=x.size(-1))


class FNO1d(nn.Module):
    def __init__(self, modes, width):
        super().__init__()
        self.fc0 = nn.Linear(2, width)
        self.convs = nn.ModuleList(SpectralConv1d(width, width, modes) for _ in range(2))
        self.ws = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(2))
        self.fc1 = nn.Linear(width, 1)

    def forward(self, x):
        grid = torch.linspace(0, 1, x.shape[1]).reshape(1, -1, 1).repeat(x.shape[0], 1, 1)
        x = self.fc0(torch.cat((x, grid), dim=-1)).permute(0, 2, 1)
        for conv, w in zip(self.convs, self.ws):
            x = F.gelu(conv(x) + w(x))
        return self.fc1(x.permute(0, 2, 1))


def heat(u, time=0.005):
    k = torch.fft.fftfreq(u.shape[-1], 1 / u.shape[-1])
    decay = torch.exp(-((2 * torch.pi * k) ** 2) * time)
    return torch.fft.ifft(torch.fft.fft(u) * decay).real


u = torch.randn(32, 48).cumsum(-1)
u = u - u.mean(-1, keepdim=True)
v = heat(u)
model = FNO1d(8, 12)
print(
    sum(p.numel() for p in model.parameters()),
    {p.dtype for p in model.parameters()} == {torch.float32, torch.complex64},
)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for step in range(30):
    optimizer.zero_grad()
    loss = F.mse_loss(model(u.unsqueeze(-1)).squeeze(-1), v)
    loss.backward()
    optimizer.step()
    if step % 6 == 5:
        print(f"fno {step} {loss.item():.4f}")

window = torch.hann_window(32)
t = torch.arange(400) / 100.0
target = torch.sin(2 * torch.pi * 9 * t) + 0.3 * torch.sin(2 * torch.pi * 23 * t)
phase = torch.nn.Parameter(torch.randn(4))
for _ in range(12):
    wave = sum(p * torch.sin(2 * torch.pi * f * t) for p, f in zip(phase, (9, 17, 23, 31)))
    a, b = (torch.stft(s, 32, 8, window=window, return_complex=True).abs() for s in (wave, target))
    loss = (torch.log1p(a) - torch.log1p(b)).abs().mean()
    (g,) = torch.autograd.grad(loss, phase)
    with torch.no_grad():
        phase -= 2.0 * g
print("stft", [f"{p:.3f}" for p in phase.tolist()], f"{loss.item():.4f}")

spectrum = torch.stft(target, 32, 8, window=window, return_complex=True)
again = torch.istft(spectrum, 32, 8, window=window, length=400)
print("istft", torch.allclose(again, target, atol=1e-5), tuple(spectrum.shape))
m = torch.tensor([[0.0, 1.0], [-1.0, -0.2]], dtype=torch.float64, requires_grad=True)
values = torch.linalg.eigvals(m)
print(values.detach(), values.is_complex())
values.abs().sum().backward()
print((m.grad * 1000).round() / 1000 + 0)
state = torch.randn(3, 4, dtype=torch.complex64)
q, r = torch.linalg.qr(state)
print(
    torch.dist(q @ r, state) < 1e-5,
    torch.dist(q.mH @ q, torch.eye(3, dtype=torch.complex64)) < 1e-5,
)
