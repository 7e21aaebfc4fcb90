"""Do the clusters of an embedding agree with its classes? NMI and AMI of k-means."""

from __future__ import annotations

import torch
from torch import Tensor

from nearkin.tensors import unit


def clustering(
    x: Tensor, labels: Tensor, *, metric: str = "cosine", seed: int = 0
) -> dict[str, float]:
    """nmi and ami between the labels and a k-means clustering into as many clusters as classes.

    nmi = 2 I(labels; clusters) / (H(labels) + H(clusters)); ami is the same corrected for chance,
    so that random clusters score 0 on average (now and then a little less), whatever their number.
    For the cosine, rows are normalised first. Every item counts, those of a class of one as well.

    Source: scikit-learn's normalized_ and adjusted_mutual_info_score (arithmetic mean); k-means
    by faiss, as in pytorch-metric-learning.
    """
    from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

    found = k_means(unit(x) if metric == "cosine" else x, len(labels.unique()), seed)
    pair = (labels.cpu().numpy(), found.numpy())
    return {
        "nmi": float(normalized_mutual_info_score(*pair)),
        "ami": float(adjusted_mutual_info_score(*pair)),
    }


def k_means(x: Tensor, k: int, seed: int = 0) -> Tensor:
    """The cluster (N,) of each row of x (N, D)."""
    import faiss

    x = x.detach().float().cpu()
    if len(x) and x.abs().max() > 1e9:
        x = x / x.abs().max()  # clusters know no unit; the squares of faiss overflow
    data = x.contiguous().numpy()
    means = faiss.Kmeans(data.shape[1], k, niter=20, seed=seed, min_points_per_centroid=1)
    means.train(data)
    return torch.from_numpy(means.index.search(data, 1)[1][:, 0])
