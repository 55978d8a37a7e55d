"""Matrix factorisation of ratings: embeddings, biases, a Dataset of its own, SGD and a scheduler."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

np.random.seed(0)
torch.manual_seed(0)


class Ratings(Dataset):
    def __init__(self, users, items, n):
        self.u = np.random.randint(0, users, n)
        self.i = np.random.randint(0, items, n)
        taste = np.random.randn(users, 3), np.random.randn(items, 3)
        self.r = (taste[0][self.u] * taste[1][self.i]).sum(1).astype("float32")

    def __len__(self):
        return len(self.r)

    def __getitem__(self, k):
        return {"user": self.u[k], "item": self.i[k], "rating": self.r[k]}


class MatrixFactorization(nn.Module):
    def __init__(self, n_users, n_items, n_factors=8):
        super().__init__()
        self.user_factors = nn.Embedding(n_users, n_factors)
        self.item_factors = nn.Embedding(n_items, n_factors)
        self.user_biases = nn.Embedding(n_users, 1)
        self.item_biases = nn.Embedding(n_items, 1)
        for e in self.modules():
            if isinstance(e, nn.Embedding):
                e.weight.data.uniform_(-0.1, 0.1)
        self.user_biases.weight.data.zero_()
        self.item_biases.weight.data.fill_(0)

    def forward(self, user, item):
        pred = self.user_biases(user) + self.item_biases(item)
        pred += (self.user_factors(user) * self.item_factors(item)).sum(dim=1, keepdim=True)
        return pred.squeeze()


loader = DataLoader(Ratings(30, 40, 600), batch_size=50, shuffle=True, drop_last=True, num_workers=0)
model = MatrixFactorization(30, 40)
loss_func = nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=1e-5, nesterov=True)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "min", factor=0.5, patience=0)
for epoch in range(8):
    total = 0.0
    for batch in loader:
        prediction = model(batch["user"], batch["item"])
        loss = loss_func(prediction, batch["rating"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    scheduler.step(total / len(loader))
    print("epoch", epoch, "loss", f"{(total / len(loader)).item():.6f}", "lr", optimizer.param_groups[0]["lr"])
best = torch.topk(model(torch.zeros(40, dtype=torch.int64), torch.arange(40)), 3)
print(best.indices.tolist(), [round(v, 4) for v in best.values.tolist()])
