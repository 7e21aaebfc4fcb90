"""
What losses ask of points
=========================

A loss is a landscape over embeddings. Its gradient says which way each embedding should go: kin
towards one another, others apart, each loss in its own way.
"""

import matplotlib.pyplot as plt
import torch

import nearkin as nk

torch.manual_seed(1)
labels = torch.arange(3).repeat_interleave(8)
centres = torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]])
points = centres[labels] + 0.5 * torch.randn(24, 2)

# %%
# Three losses that compare by Euclidean distance. The contrastive loss leaves alone whoever is a
# margin away; the triplet loss compares distances with one another; Fisher NCA also wants classes
# to be round.

losses = {
    "contrastive": nk.losses.Contrastive(margin=1.0),
    "triplet": nk.losses.Triplet(),
    "Fisher NCA": nk.losses.FisherNCA(),
}
colours = ["#0072b2", "#d55e00", "#009e73"]
figure, frames = plt.subplots(1, 3, figsize=(11, 3.8), sharex=True, sharey=True)
for frame, (name, loss) in zip(frames, losses.items(), strict=True):
    x = points.clone().requires_grad_()
    loss(x, labels).backward()
    step = -x.grad / x.grad.norm(dim=1).max()
    for kind, mark in enumerate("os^"):
        mine = labels == kind
        frame.scatter(*points[mine].T, c=colours[kind], marker=mark, s=30)
        frame.quiver(*points[mine].T, *step[mine].T, color=colours[kind], scale=4, width=0.007)
    frame.set(title=name, xlabel="first coordinate", aspect="equal")
frames[0].set_ylabel("second coordinate")
figure.tight_layout()

# %%
# After 200 steps of plain gradient descent on the points themselves, each loss has made what it
# holds to be near.

figure, frames = plt.subplots(1, 3, figsize=(11, 3.8))
for frame, (name, loss) in zip(frames, losses.items(), strict=True):
    x = points.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        loss(x, labels).backward()
        optimizer.step()
    for kind, mark in enumerate("os^"):
        frame.scatter(*x.detach()[labels == kind].T, c=colours[kind], marker=mark, s=30)
    frame.set(title=name, xlabel="first coordinate", aspect="equal")
frames[0].set_ylabel("second coordinate")
figure.tight_layout()
