"""LightGCN in PyTorch: `python pytorch_lightgcn.py DATA.npz EPOCHS`, run by an environment of its own.

Written as its users do, and to be fast: the normalized graph is one sparse matrix in the form whose products and
gradients are quickest here, an epoch is one permutation of all pairs, negatives are drawn a batch at a time and drawn
again where the user has met them, and Adam is fused.
"""

import json
import os
import sys
import time

import numpy as np
import torch
from torch.nn import functional


def graph(users, items, user_count, item_count, layout):
    rows = np.concatenate([users, items + user_count])
    columns = np.concatenate([items + user_count, users])
    degree = np.maximum(np.bincount(rows, minlength=user_count + item_count), 1)
    values = torch.from_numpy((degree[rows] * degree[columns]) ** -0.5).float()
    nodes = user_count + item_count
    found = torch.sparse_coo_tensor(torch.from_numpy(np.stack([rows, columns])), values, (nodes, nodes)).coalesce()
    return found if layout == "coo" else found.to_sparse_csr()


def spread(matrix, vectors, layers):
    total, layer = vectors, vectors
    for _ in range(layers):
        layer = torch.sparse.mm(matrix, layer)
        total = total + layer
    return total / (layers + 1)


def quickest(data):
    """Return the graph in the form in which spreading and its gradient take less time."""
    taken = {}
    for layout in ("coo", "csr"):
        matrix = graph(*data, layout)
        vectors = torch.randn(matrix.shape[0], 64, requires_grad=True)
        for _ in range(10):
            began = time.process_time()
            spread(matrix, vectors, 3).square().sum().backward()
            spent = time.process_time() - began
            taken[layout] = min(taken.get(layout, (spent, matrix))[0], spent), matrix
    return min(taken.values(), key=lambda t: t[0])[1]


def main():
    torch.set_num_threads(int(os.environ["THREADS"]))
    torch.manual_seed(1)
    z = np.load(sys.argv[1])
    pairs = np.unique(np.stack([z["users"], z["items"]], axis=1), axis=0)
    user_count, item_count = int(z["user_count"]), int(z["item_count"])
    matrix = quickest((pairs[:, 0], pairs[:, 1], user_count, item_count))
    met = torch.zeros(user_count, item_count, dtype=torch.bool)
    met[pairs[:, 0], pairs[:, 1]] = True
    users, items = torch.from_numpy(z["users"]), torch.from_numpy(z["items"])
    vectors = torch.nn.Parameter(torch.randn(user_count + item_count, 64) * 0.1)
    optimizer = torch.optim.Adam([vectors], 0.005, fused=True)
    for _ in range(int(sys.argv[2]) + 1):
        began, cpu = time.perf_counter(), time.process_time()
        order = torch.randperm(len(users))
        for start in range(0, len(users), 2048):
            rows = order[start : start + 2048]
            u, i = users[rows], items[rows]
            j = torch.randint(item_count, u.shape)
            for _ in range(3):
                own = met[u, j]
                if not own.any():
                    break
                j[own] = torch.randint(item_count, (int(own.sum()),))
            found = spread(matrix, vectors, 3)
            of_users, of_items = found[u], found[i + user_count] - found[j + user_count]
            loss = functional.softplus(-(of_users * of_items).sum(1)).mean()
            first = vectors[torch.cat([u, i + user_count, j + user_count])]
            loss = loss + 0.5 * 1e-4 * first.square().sum() / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        spent = time.process_time() - cpu
        print(
            json.dumps({"events_per_cpu_second": len(users) / spent, "seconds": time.perf_counter() - began}),
            flush=True,
        )


if __name__ == "__main__":
    main()
