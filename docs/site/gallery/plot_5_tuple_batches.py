"""
Tuple batches
=============

What a batch holds decides what a loss can compare. Samplers are pure functions from labels to
batches: classes (P x K), tuples, triplets, pairs, or at random.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import nearkin as nk

labels = torch.arange(6).repeat_interleave(20)

# %%
# One batch of twelve by each sampler. A column is a place in the batch, its colour the class.

names = ["random", "classes", "tuples", "triplets", "pairs"]
rows = []
for name in names:
    batches = nk.data.Batches(labels, 12, name, per_class=3)
    rows.append(labels[torch.as_tensor(next(iter(batches)))].numpy())
figure, frame = plt.subplots(figsize=(8, 3.2))
frame.imshow(np.stack(rows), cmap="tab10", vmax=9, aspect="auto")
for i, row in enumerate(rows):
    for j, kind in enumerate(row):
        frame.text(j, i, str(kind), ha="center", va="center", color="white")
frame.set(
    yticks=range(len(names)), yticklabels=names, xticks=range(12), xlabel="place in the batch"
)
figure.tight_layout()

# %%
# How many pairs of kin a batch of twelve holds on average.

for name in names:
    batches = nk.data.Batches(labels, 12, name, per_class=3)
    counts = []
    for batch in batches:
        y = labels[torch.as_tensor(batch)]
        counts.append(int((y[:, None] == y).sum() - len(y)) // 2)
    print(f"{name}: {np.mean(counts):.1f} pairs of kin")
