"""accelerate: a loop prepared by the Accelerator, with gradient accumulation and a checkpoint."""
# ruff: noqa: E402

import tempfile
import warnings

import torch

warnings.simplefilter("ignore")
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, TensorDataset

set_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
data = TensorDataset(torch.randn(32, 4), torch.randint(2, (32,)))
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(data, 8, shuffle=True))
for epoch in range(2):
    for x, y in loader:
        with accelerator.accumulate(model):
            loss = torch.nn.functional.cross_entropy(model(x), y)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    print(epoch, f"{loss.item():.5f}", accelerator.sync_gradients)
folder = tempfile.mkdtemp()
accelerator.save_state(folder)
before = model[0].weight.clone()
with torch.no_grad():
    model[0].weight.zero_()
accelerator.load_state(folder)
print(torch.equal(before, model[0].weight), accelerator.device)
