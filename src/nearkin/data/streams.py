"""Batches of two streams: pairs of images that are joined by an edge, and single images.

Dimensions: E edges.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nearkin.data.samplers import refuse_batch


def streams(
    labels: Tensor,
    batch: int,
    per_class: int,
    seed: int,
    epoch: int,
    edges: Tensor | None = None,
) -> Tensor:
    """Two streams side by side: edges of the trees of the classes, and single images of the set.

    The first half of a batch are edges, their ends at 2i and 2i + 1, the second half images; pairs
    of an edge are what is drawn together. Each stream goes through all that it has, shuffled anew,
    before anything comes again. As there are fewer edges than images, the streams drift apart, and
    an edge meets other images each time. per_class unused.

    Source: after Xu et al., DAMLRRM, CVPR 2019: two streams of unequal length that interlace.
    The loss of that paper, and the lengths of its streams, are not known to us.

    Args:
        edges: (E, 2) images that are joined; by default each image with the next of its class.
    """
    refuse_batch("streams", batch, 1)
    steps = max(1, len(labels) // batch)
    edges = chain_of_classes(labels) if edges is None else edges
    if not len(edges):
        raise ValueError("streams wanted a class of two images or more, and there is none")
    pairs = passes(len(edges), batch // 4, steps, (seed, 2), epoch)
    images = passes(len(labels), batch // 2, steps, (seed, 3), epoch)
    ends = edges.cpu().numpy()[pairs].reshape(steps, -1)
    return torch.from_numpy(np.hstack([ends, images]))


def chain_of_classes(labels: Tensor) -> Tensor:
    """(E, 2): each image and the next of its class."""
    order = labels.argsort(stable=True)
    same = labels[order[1:]] == labels[order[:-1]]
    return torch.stack([order[:-1][same], order[1:][same]], 1)


def passes(count: int, slots: int, steps: int, seed: tuple[int, int], epoch: int) -> np.ndarray:
    """The part (steps, slots) that an epoch has of an endless stream of shuffled passes."""
    start, length = epoch * steps * slots, steps * slots
    first, last = start // count, (start + length - 1) // count
    orders = [np.random.default_rng([*seed, n]).permutation(count) for n in range(first, last + 1)]
    return np.concatenate(orders)[start - first * count :][:length].reshape(steps, slots)
