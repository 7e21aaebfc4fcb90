"""
Graphs of a batch
=================

A graph says who listens to whom among the images of a batch. A builder makes it from embeddings;
the layers over it mix each embedding with those that it listens to.
"""

import math

import matplotlib.pyplot as plt
import torch

import nearkin as nk

torch.manual_seed(0)
labels = torch.arange(4).repeat_interleave(4)
x = torch.randn(4, 8)[labels] + 0.7 * torch.randn(16, 8)

# %%
# Four builders on the same sixteen embeddings of four classes. Points stand in a circle, class by
# class; a line is drawn wherever one listens to another.

graphs = {
    "the 3 nearest": nk.graphs.knn(x, k=3),
    "mutual among the 3 nearest": nk.graphs.mutual_knn(x, k=3),
    "cosine above 0.5": nk.graphs.threshold(x, threshold=0.5),
    "3 at random": nk.graphs.random(x, k=3),
}
angle = torch.arange(16) * 2 * math.pi / 16
place = torch.stack([angle.cos(), angle.sin()], 1)
figure, frames = plt.subplots(1, 4, figsize=(13, 3.6))
for frame, (name, graph) in zip(frames, graphs.items(), strict=True):
    for i, j in graph.nonzero().tolist():
        if i != j:
            colour = "#444444" if labels[i] == labels[j] else "#d55e00"
            frame.plot(*zip(place[i], place[j], strict=True), c=colour, lw=0.8)
    frame.scatter(*place.T, c=labels, cmap="viridis", s=60, zorder=3)
    frame.set(title=name, aspect="equal", xticks=[], yticks=[])
figure.text(0.5, 0.02, "grey lines join kin, orange lines others", ha="center")

# %%
# What a layer makes of them: GATv2 over each graph, before any training.

layer = nk.graphs.GATv2(8)
for name, graph in graphs.items():
    refined, _ = layer(x, graph)
    moved = (refined - x).norm(dim=1).mean() / x.norm(dim=1).mean()
    print(f"{name}: embeddings move by {moved:.2f} of their length")
