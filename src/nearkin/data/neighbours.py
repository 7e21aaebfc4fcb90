"""Batches of classes beside those nearest to them, whose images are hard to tell apart.

Dimensions: C classes, k nearest of each.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from torch import Tensor

from nearkin.data.samplers import GROUP, class_stream, draw, images_by_class, refuse_batch

NEAREST = 15
"""Classes that are kept as the nearest of each: so many, since groups may share theirs."""


def neighbours(
    labels: Tensor,
    batch: int,
    per_class: int,
    seed: int,
    epoch: int,
    near: Tensor | None = None,
) -> Tensor:
    """Groups of four classes, each class with the three nearest to it, per_class images of each.

    Every class is drawn equally often as the first of a group. A class that is in the batch
    already is passed over for the next nearest, so that a batch holds batch / per_class different
    classes. Where nothing is known of what is near, the others of a group are drawn at random.

    Source: Ge et al., Deep metric learning with hierarchical triplet loss, ECCV 2018, section 3.2,
    anchor-neighbour sampling.

    Args:
        near: (C, k), for each label the labels of the nearest classes, the nearest first; -1 where
            there are no more.
    """
    refuse_batch("neighbours", batch, per_class)
    members, sizes = images_by_class(labels, 1 if per_class == 1 else 2)
    groups, steps = batch // (GROUP * per_class), max(1, len(labels) // batch)
    if groups * GROUP > len(sizes):
        most = len(sizes) // GROUP * GROUP * per_class
        raise ValueError(
            f"a batch of {batch} is {groups * GROUP} classes x {per_class} images, but there are "
            f"{len(sizes)} classes: wanted a batch of {most} at most"
        )
    names = labels[torch.from_numpy(members[sizes.cumsum() - sizes])].numpy()  # of the classes
    place = np.full(int(names.max()) + 2, -1)  # label -> class; label -1 -> no class
    place[names] = np.arange(len(names))
    known = np.empty((len(names), 0), dtype=np.int64)
    if near is not None:
        rows = near.cpu().numpy()[names]
        known = np.where(rows < len(place) - 1, place[rows.clip(max=len(place) - 1)], -1)
    first = class_stream(len(sizes), groups, steps, seed, epoch).reshape(steps, groups)
    rng = np.random.default_rng([seed, epoch, 1])
    order = np.array([grouped_by_nearness(anchors, known, rng) for anchors in first]).flatten()
    return torch.from_numpy(draw(members, sizes, order, per_class, rng)).view(steps, batch)


def grouped_by_nearness(
    anchors: np.ndarray, near: np.ndarray, rng: np.random.Generator
) -> list[int]:
    """The classes of a batch: each anchor with the nearest that are not in it yet."""
    held, order = set(anchors.tolist()), []
    for anchor in anchors.tolist():
        others = (c for c in near[anchor].tolist() if c >= 0 and c not in held)
        group = list(islice(others, GROUP - 1))
        held.update(group)
        while len(group) < GROUP - 1:
            drawn = int(rng.integers(len(near)))
            if drawn not in held:
                group.append(drawn)
                held.add(drawn)
        order += [anchor, *group]
    return order
