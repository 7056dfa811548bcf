"""A DeepFM in PyTorch, of the sizes it is told: `python pytorch_deepfm.py DATA.npz`, run by an environment of its own.

Written as its users do, and to be fast: examples lie in memory, an epoch is one permutation, batches are index
look-ups, tables are `nn.Embedding`, the optimizer is Adam over everything, in one fused call.
"""

import json
import os
import sys
import time

import numpy as np
import torch
from torch import nn


class DeepFM(nn.Module):
    def __init__(self, sizes, several, dim, hidden, dropout):
        super().__init__()
        self.several = several
        self.tables = nn.ModuleDict({n: nn.Embedding(s + 1, dim, padding_idx=s) for n, s in sizes.items()})
        self.weights = nn.ModuleDict({n: nn.Embedding(s + 1, 1, padding_idx=s) for n, s in sizes.items()})
        for table in [*self.tables.values(), *self.weights.values()]:
            nn.init.normal_(table.weight, std=0.01)
        self.bias = nn.Parameter(torch.zeros(()))
        layers, width = [nn.Dropout(dropout)], dim * len(sizes)
        for units in hidden:
            layers += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(dropout)]
            width = units
        self.deep = nn.Sequential(*layers, nn.Linear(width, 1, bias=False))

    def look_up(self, tables, ids):
        fields = []
        for name, table in tables.items():
            rows = table(ids[name])
            if name in self.several:
                given = (ids[name] != table.padding_idx).sum(1, keepdim=True).clamp(min=1)
                rows = rows.sum(1) / given
            fields.append(rows)
        return torch.stack(fields, 1)

    def forward(self, ids):
        fields = self.look_up(self.tables, ids)
        weights = self.look_up(self.weights, ids)
        pairs = 0.5 * (fields.sum(1).square() - fields.square().sum(1)).sum(1)
        logits = self.bias + weights.sum((1, 2)) + pairs + self.deep(fields.flatten(1)).squeeze(1)
        return logits, fields, weights


def main():
    torch.set_num_threads(int(os.environ["THREADS"]))
    torch.manual_seed(1)
    data = np.load(sys.argv[1])
    told = json.loads(str(data["told"]))
    ids = {n: torch.from_numpy(data[n].astype(np.int64)) for n in told["sizes"]}
    several = {n for n in ids if ids[n].ndim == 2}
    for name in several:
        ids[name] = torch.where(ids[name] < 0, told["sizes"][name], ids[name])
    labels = torch.from_numpy(data["label"])
    model = DeepFM(told["sizes"], several, told["dim"], told["hidden"], told["dropout"])
    optimizer = torch.optim.Adam(model.parameters(), told["learning_rate"], fused=True)
    batch, l2 = told["batch"], told["l2"]
    speeds = []
    for _ in range(told["epochs"]):
        began, loss_of_last = time.perf_counter(), 0.0
        order = torch.randperm(len(labels))
        for start in range(0, len(labels), batch):
            rows = order[start : start + batch]
            logits, fields, weights = model({n: column[rows] for n, column in ids.items()})
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels[rows])
            loss = loss + 0.5 * l2 * (fields.square().sum() + weights.square().sum()) / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_of_last = float(loss.detach())
        speeds.append(len(labels) / (time.perf_counter() - began))
        print(json.dumps({"examples_per_second": speeds[-1], "loss": loss_of_last}), flush=True)


if __name__ == "__main__":
    main()
