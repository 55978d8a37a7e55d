"""A graph convolutional network (Kipf and Welling 2017) on a made-up graph, adjacency sparse."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def communities(n=60, groups=3, seed=0):
    """A graph whose groups have many edges inside, and features that say little."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % groups
    chance = np.where(label[:, None] == label[None, :], 0.3, 0.02)
    upper = np.triu(rng.random((n, n)) < chance, 1)
    edges = np.argwhere(upper | upper.T)
    features = rng.normal(size=(n, 8)).astype(np.float32) + 0.3 * np.eye(8, dtype=np.float32)[label]
    return torch.from_numpy(edges.T.copy()), torch.from_numpy(features), torch.from_numpy(label)


def normalized(edges, n):
    """D^-1/2 (A + I) D^-1/2"""
    loops = torch.arange(n).repeat(2, 1)
    index = torch.cat([edges, loops], dim=1)
    a = torch.sparse_coo_tensor(index, torch.ones(index.shape[1]), (n, n)).coalesce()
    degree = torch.sparse.sum(a, dim=1).to_dense()
    scale = degree.pow(-0.5)
    row, col = a.indices()
    return torch.sparse_coo_tensor(a.indices(), scale[row] * a.values() * scale[col], a.shape)


class GraphConvolution(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x, adjacency):
        return torch.spmm(adjacency, torch.mm(x, self.weight)) + self.bias


class GCN(nn.Module):
    def __init__(self, inputs, hidden, classes):
        super().__init__()
        self.first = GraphConvolution(inputs, hidden)
        self.second = GraphConvolution(hidden, classes)

    def forward(self, x, adjacency):
        x = F.dropout(F.relu(self.first(x, adjacency)), 0.2, training=self.training)
        return F.log_softmax(self.second(x, adjacency), dim=1)


class Attention(nn.Module):
    """Edges weighted by a softmax over each node's neighbours: gradients to sparse values."""

    def __init__(self, width):
        super().__init__()
        self.source, self.target = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, x, adjacency):
        i = adjacency.coalesce().indices()
        score = F.leaky_relu(self.source(x)[i[0], 0] + self.target(x)[i[1], 0])
        weights = torch.sparse.softmax(torch.sparse_coo_tensor(i, score, adjacency.shape), dim=1)
        return torch.sparse.mm(weights, x)


torch.manual_seed(0)
edges, x, y = communities()
adjacency = normalized(edges, len(x))
print(adjacency.shape, adjacency._nnz(), adjacency.is_sparse, adjacency.dtype == torch.float32)
known = torch.arange(0, len(x), 4)
model = GCN(8, 16, 3)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
for epoch in range(60):
    model.train()
    optimizer.zero_grad()
    loss = F.nll_loss(model(x, adjacency)[known], y[known])
    loss.backward()
    optimizer.step()
    if epoch % 10 == 0:
        print(f"epoch {epoch} loss {loss.item():.5f}")
model.eval()
with torch.no_grad():
    right = (model(x, adjacency).argmax(1) == y).float().mean().item()
    by_row = model(x, adjacency.to_sparse_csr())
    dense = model(x, adjacency.to_dense())
print(f"accuracy {right:.3f}", torch.allclose(by_row, dense, atol=1e-5))

layer = Attention(8)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
for epoch in range(5):
    optimizer.zero_grad()
    loss = ((layer(x, adjacency) - x) ** 2).mean()
    loss.backward()
    optimizer.step()
    print(f"attention {epoch} {loss.item():.5f}")

table = nn.Embedding(len(x), 4, sparse=True)
optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.05)
source, target = edges[:, edges[0] < edges[1]]
for epoch in range(5):
    optimizer.zero_grad()
    loss = -F.logsigmoid((table(source) * table(target)).sum(1)).mean()
    loss.backward()
    optimizer.step()
    print(f"embedding {epoch} {loss.item():.5f} {table.weight.grad.coalesce()._nnz()}")
print(adjacency.coalesce()[0].coalesce().values().shape, (adjacency @ adjacency).is_sparse)
