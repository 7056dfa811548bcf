"""SASRec in PyTorch: `python pytorch_sasrec.py DATA.npz EPOCHS`, run by an environment of its own.

Written as its users do: users' events cut into windows of 200, filled up on the left, batches of windows of about one
length so that little is empty, PyTorch's own attention, and a softmax over all items at the events there are.
"""

import json
import os
import sys
import time

import numpy as np
import torch
from torch import nn

LENGTH, DIM, BLOCKS, DROPOUT, BATCH = 200, 64, 2, 0.2, 32


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.before = nn.ModuleList([nn.LayerNorm(DIM), nn.LayerNorm(DIM)])
        self.project, self.join = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.network = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM))
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, x, mask):
        q, k, v = self.project(self.before[0](x)).chunk(3, -1)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=DROPOUT)
        x = x + self.drop(self.join(seen))
        return x + self.drop(self.network(self.before[1](x)))


class SASRec(nn.Module):
    def __init__(self, items):
        super().__init__()
        self.items = nn.Embedding(items + 1, DIM, padding_idx=items)
        self.bias = nn.Parameter(torch.zeros(items))
        self.places = nn.Embedding(LENGTH, DIM)
        for table in (self.items, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.blocks = nn.ModuleList([Block() for _ in range(BLOCKS)])
        self.drop, self.norm = nn.Dropout(DROPOUT), nn.LayerNorm(DIM)

    def forward(self, events, targets):
        width = events.shape[1]
        x = self.drop(self.items(events) * DIM**0.5 + self.places.weight[LENGTH - width :])
        given = events != self.items.padding_idx
        mask = torch.ones(width, width, dtype=torch.bool).tril() & given[:, None, :]
        mask = mask | torch.eye(width, dtype=torch.bool)  # an empty place sees itself, or its softmax would be 0 / 0
        for block in self.blocks:
            x = block(x, mask)
        logits = self.norm(x)[given] @ self.items.weight[:-1].T + self.bias
        return nn.functional.cross_entropy(logits, targets[given])


def windows(z):
    found = []
    for s in np.split(z["events"], np.cumsum(z["lengths"])[:-1]):
        found += [s[max(end - LENGTH - 1, 0) : end] for end in range(len(s), 1, -LENGTH)]
    return sorted(found, key=len)


def main():
    torch.set_num_threads(int(os.environ["THREADS"]))
    torch.manual_seed(1)
    z = np.load(sys.argv[1])
    items, cut = int(z["item_count"]), windows(z)
    batches = []
    for start in range(0, len(cut), BATCH):
        some = cut[start : start + BATCH]
        width = len(some[-1]) - 1
        events, targets = np.full((2, len(some), width), items)
        for row, window in enumerate(some):
            events[row, width - len(window) + 1 :], targets[row, width - len(window) + 1 :] = window[:-1], window[1:]
        batches.append((torch.from_numpy(events), torch.from_numpy(targets)))
    model = SASRec(items)
    optimizer = torch.optim.Adam(model.parameters(), 0.001, fused=True)
    count = sum(len(w) - 1 for w in cut)
    for _ in range(int(sys.argv[2]) + 1):
        began, cpu = time.perf_counter(), time.process_time()
        for at in np.random.permutation(len(batches)):
            loss = model(*batches[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        spent = time.process_time() - cpu
        print(json.dumps({"events_per_cpu_second": count / spent, "seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main()
