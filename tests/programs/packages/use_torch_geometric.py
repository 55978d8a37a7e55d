"""torch-geometric's pure Python parts: graph convolutions trained on a small graph."""

import torch
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv, global_mean_pool
from torch_geometric.utils import add_self_loops, degree, to_dense_adj

torch.manual_seed(0)
edges = torch.tensor([[0, 1, 1, 2, 3, 4, 2, 0], [1, 0, 2, 1, 4, 3, 3, 4]])
data = Data(x=torch.randn(5, 6), edge_index=edges, y=torch.tensor([0, 1, 0, 1, 1]))
mlp = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
for conv in (GCNConv(6, 2), SAGEConv(6, 2), GATConv(6, 2, heads=2, concat=False), GINConv(mlp)):
    optimizer = torch.optim.Adam(conv.parameters(), 1e-2)
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(conv(data.x, data.edge_index), data.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(type(conv).__name__, f"{loss.item():.5f}")
print(
    degree(edges[0]).tolist(), to_dense_adj(edges).sum().item(), add_self_loops(edges)[0].shape[1]
)
batch = Batch.from_data_list([data, data])
print(batch.num_graphs, f"{global_mean_pool(batch.x, batch.batch).sum():.5f}")
