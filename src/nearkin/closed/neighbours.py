"""The forms that look at single items: whom each has for neighbours, in its class and beyond it.

They read the items class by class, or again and again, so that a summary of them is not enough.

Dimensions: N items, F features, D embedding, B anchors at a time.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nearkin.closed.forms import (
    LinearMap,
    Shrinkage,
    labelled,
    signed,
    whitened,
    whitening,
)
from nearkin.closed.moments import Items, Set, spectrum
from nearkin.extras import optional
from nearkin.tensors import squared_distances

ANCHORS = 1024  # whose similarities to all items are in memory at a time
SCALES = 2.0 ** np.arange(-8, 3)


def lfda(of: Set, dim: int, shrinkage: Shrinkage = 1.0, neighbours: int = 7) -> LinearMap:
    """Local Fisher discriminant analysis: LDA in which only near items of a class must come near.

        a_ij  =  exp(-|x_i - x_j|² / (σ_i σ_j)),     σ_i = distance to the k-th neighbour in class
        S_lw  =  1/2 sum over i, j of one class of   a_ij / n_c         (x_i - x_j)(x_i - x_j)^T
        S_lb  =  1/2 sum over i, j of one class of   a_ij (1/N - 1/n_c) (x_i - x_j)(x_i - x_j)^T
               + 1/2 sum over i, j of two classes of 1/N                (x_i - x_j)(x_i - x_j)^T

    A whitens S_lw / N + λ; K: the leading eigenvectors of S_lb there. In a class of k items or
    fewer, σ is the distance to the furthest. Memory: the n² similarities of the largest class.

    Source: Sugiyama, Dimensionality reduction of multimodal labeled data by local Fisher
    discriminant analysis, JMLR 2007, eq. 8-12; σ of Zelnik-Manor & Perona, NIPS 2004.

    Args:
        neighbours: k.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours must be 1 or more, got {neighbours}")
    items = whole(of, "lfda")
    moments = labelled(items.moments, "lfda")
    near, local, kin = np.zeros((3, moments.features, moments.features))
    for x in items.by_class():
        x -= x.mean(0)
        a = affinity(x, neighbours)
        pulled = (x.T * a.sum(1)) @ x - x.T @ a @ x
        near += pulled
        local += pulled / len(x)
        kin += len(x) * (x.T @ x)
    count = moments.items
    far = count * moments.unlabelled.within - kin / count + near / count - local
    of_local = replace(moments, scatter=local)
    coordinates, _ = whitening(of_local, shrinkage, of)
    _, vectors = spectrum(coordinates @ far @ coordinates.T)
    coordinates = signed(vectors.T @ coordinates)
    return LinearMap(moments.mean, coordinates, np.eye(dim, moments.features))


def affinity(x: np.ndarray, neighbours: int) -> np.ndarray:
    """a_ij (n, n) of the items (n, F) of a class."""
    square = squared_distances(torch.from_numpy(x)).numpy()
    k = min(neighbours, len(x) - 1)
    reach = np.sqrt(np.partition(square, k, axis=1)[:, k])
    scale = np.outer(reach, reach)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scale > 0, np.exp(-square / scale), 0.0)


def nca(
    of: Set,
    dim: int,
    shrinkage: Shrinkage = 1.0,
    steps: int = 50,
    decay: float = 0.0,
    limit: int = 20_000,
) -> LinearMap:
    """Neighbourhood components: the map under which a random neighbour is most often kin.

        p_ij  =  exp(-|z_i - z_j|²) / sum over k other than i of exp(-|z_i - z_k|²)
        K     =  argmax  mean over i of  sum over kin j of p_ij  -  decay |K - K_0|² / |K_0|²

    A and K_0 are those of within-class whitening, K_0 scaled by the power of 2 that is best; from
    there L-BFGS takes up to `steps` steps. Each takes time of N² D + N F D.

    Source: Goldberger et al., Neighbourhood components analysis, NIPS 2004, eq. 1-3. Differs: the
    decay, without which the map fits the training classes alone.

    Args:
        steps: of L-BFGS; 0 leaves the whitening as it is.
        decay: towards the start.
        limit: items that are looked at; of more, evenly many of each class are taken.
    """
    if steps < 0 or decay < 0 or limit < 2:
        wanted = "wanted steps and decay of 0 or more, and a limit of 2 or more"
        raise ValueError(f"nca: {wanted}, got {steps}, {decay} and {limit}")
    with optional():
        from scipy.optimize import minimize
    items = thinned(whole(of, "nca"), limit)
    start = whitened(of, dim, shrinkage)
    x = torch.from_numpy((items.rows(slice(None)) - start.mean) @ start.coordinates.T)
    labels = torch.from_numpy(np.unique(items.labels, return_inverse=True)[1])
    first = torch.from_numpy(start.components.copy())
    first *= max(SCALES, key=lambda scale: kin_share(x @ (scale * first).T, labels)[0])

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        k = torch.from_numpy(flat).view_as(first)
        share, slope = kin_share(x @ k.T, labels)
        away, size = k - first, first.square().sum()
        value = decay * away.square().sum() / size - share
        return float(value), (2 * decay / size * away - slope.T @ x).flatten().numpy()

    found = first.flatten().numpy()
    if steps:  # scipy's L-BFGS takes one at least
        options = {"maxiter": steps}
        found = minimize(cost, found, jac=True, method="L-BFGS-B", options=options).x
    return replace(start, components=found.reshape(first.shape))


def kin_share(z: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Mean over the items z (N, D) of the share of kin among random neighbours, and its gradient.

    With w_ij = p_ij (1 if j is kin of i, else 0, less their sum p_i), the gradient at z_i is
    -2 / N sum over j of (w_ij + w_ji)(z_i - z_j).
    """
    total, slope = 0.0, torch.zeros_like(z)
    for rows in torch.arange(len(z)).split(ANCHORS):
        closeness = -squared_distances(z[rows], z)  # (B, N)
        closeness[torch.arange(len(rows)), rows] = -torch.inf
        p = closeness.softmax(1)
        kin = p * (labels[rows, None] == labels)
        share = kin.sum(1, keepdim=True)
        total += float(share.sum())
        w = kin - p * share
        slope[rows] -= w.sum(1, keepdim=True) * z[rows] - w @ z
        slope -= w.sum(0)[:, None] * z - w.T @ z[rows]
    return total / len(z), slope.mul_(2 / len(z))


def thinned(items: Items, limit: int) -> Items:
    """At most `limit` of the items, evenly taken from all classes."""
    if len(items) <= limit:
        return items
    order = np.argsort(items.labels, kind="stable")
    chosen = np.sort(order[np.linspace(0, len(order) - 1, limit).round().astype(int)])
    return Items(items.x[chosen], items.labels[chosen], items.power)


def whole(of: Set, name: str) -> Items:
    """The set, if its items are all there."""
    if not isinstance(of, Items):
        raise ValueError(f"{name} wanted all items at once, got a summary of them")
    return of
