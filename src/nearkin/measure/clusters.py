"""Do the clusters of an embedding agree with its classes? NMI and AMI of k-means.

Dimensions: N items, D embedding, k clusters.
"""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Generator, Tensor

from nearkin.extras import optional
from nearkin.measure.nearest.exact import blocks
from nearkin.tensors import unit

ITERATIONS = 20
STARTS = 4
WORK = 2e10
"""multiplications of one pass over all distances (N k D) that allow all starts: 1 s on one core"""
TRIALS = 12
SHARP = 16
"""the power of distances by which clusters that lie far apart are found nearly surely"""
BLOCK = 1024


def clustering(
    x: Tensor, labels: Tensor, *, metric: str = "cosine", seed: int = 0
) -> dict[str, float]:
    """nmi and ami between the labels and a k-means clustering into as many clusters as classes.

    nmi = 2 I(labels; clusters) / (H(labels) + H(clusters)); ami is the same corrected for chance,
    so that random clusters score 0 on average (now and then a little less), whatever their number.
    For the cosine, rows are normalised first. Every item counts, those of a class of one as well.

    Source: scikit-learn's normalized_ and adjusted_mutual_info_score (arithmetic mean).
    Differs: pytorch-metric-learning clusters once, from a random start, by faiss.
    """
    with optional():
        from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

    found = k_means(unit(x) if metric == "cosine" else x, len(labels.unique()), seed)
    pair = (labels.cpu().numpy(), found.numpy())
    return {
        "nmi": float(normalized_mutual_info_score(*pair)),
        "ami": float(adjusted_mutual_info_score(*pair)),
    }


def k_means(x: Tensor, k: int, seed: int = 0) -> Tensor:
    """The cluster (N,) of each row of x (N, D), in 0..k-1, chosen by the seed alone.

        minimise  sum_i |x_i - c_a(i)|^2   over assignments a and centres c

    Lloyd's algorithm from four starts: three drawn as in greedy k-means++, one more sharply (see
    `drawn_centres`), so that classes that lie far apart are found. The two with the lower sum of
    squares are refined, and the better result is kept. Of large data (Stanford Online Products)
    there are two starts of two candidates each, and the better one is refined.

    Source: Lloyd, Least squares quantization in PCM, 1982; Arthur & Vassilvitskii, k-means++, 2007.
    Differs: at most 20 iterations. Rows are centred and scaled first, which changes no cluster, so
    that embeddings of any size are clustered alike.
    """
    x = scaled(x.detach().cpu())
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise ValueError(f"seed must be a whole number, got {seed!r}")
    generator = torch.Generator().manual_seed(int(seed))
    count, trials = (STARTS, TRIALS) if x.shape[0] * x.shape[1] * k <= WORK else (2, 2)
    powers = [SHARP] + [2] * (count - 1)
    starts = [drawn_centres(x, k, power, trials, generator) for power in powers]
    starts.sort(key=lambda start: start[1])
    results = (refined_clusters(x, centres) for centres, _ in starts[: count // 2])
    return min(results, key=lambda result: result[1])[0]


def scaled(x: Tensor) -> Tensor:
    """x as float32 around its mean, of coordinates in -1..1."""
    mean = x.mean(0, dtype=torch.float64)
    moved = torch.empty(x.shape, dtype=torch.float32)
    size = max((float((b.double() - mean).abs().max()) for _, b in blocks(x, BLOCK)), default=0.0)
    for start, block in blocks(x, BLOCK):
        moved[start : start + len(block)] = (block.double() - mean) / (size or 1.0)
    return moved


def drawn_centres(
    x: Tensor, k: int, power: int, trials: int, generator: Generator
) -> tuple[Tensor, float]:
    """Up to k rows of x as first centres (k, D), and the sum of squared distances to the nearest.

        P(row i is a candidate)  proportional to  d_i ^ power,   d_i its distance to the nearest

    and of so many trials the one that lowers the sum of squares most is next. A power of 2 is
    greedy k-means++. Candidates are drawn in batches from distances that are out of date, and
    accepted with a chance of (d_i / old d_i) ^ power, as rejection sampling does: a few large
    products instead of k small ones. There are fewer than k where fewer rows differ.
    """
    centres = torch.randint(len(x), (1,), generator=generator)
    square = nearest_centres(x, x[centres])[1]  # (N,)
    square[centres] = 0
    while len(centres) < k and square.max() > 0:
        batch = min(64, 1 + len(centres) // 8)
        weight = (square.double() / square.max()) ** (power / 2)
        total = weight.cumsum(0)
        place = torch.rand(batch * trials, generator=generator, dtype=torch.float64) * total[-1]
        drawn = torch.searchsorted(total, place, right=True).clamp_max(len(x) - 1)
        best = gains(x, x[drawn], square).view(batch, trials).argmax(1)
        drawn = drawn.view(batch, trials).gather(1, best[:, None])[:, 0]
        luck = torch.rand(batch, generator=generator, dtype=torch.float64)
        threshold = luck ** (2 / power) * square[drawn]
        now, between = square[drawn], torch.cdist(x[drawn], x[drawn]).square()
        accepted: list[int] = []
        for i in range(batch):
            if now[i] > threshold[i] and len(centres) + len(accepted) < k:
                accepted.append(i)
                now = torch.minimum(now, between[i])
        new = drawn[accepted]
        square = torch.minimum(square, nearest_centres(x, x[new])[1])
        square[new] = 0
        centres = torch.cat([centres, new])
    return x[centres], float(square.double().sum())


def gains(x: Tensor, candidates: Tensor, square: Tensor) -> Tensor:
    """(C,) by how much each candidate (C, D) would lower the sum of `square` (N,)."""
    gain = torch.zeros(len(candidates))
    half = candidates.square().sum(1) / 2
    for start, block in blocks(x, BLOCK):
        lower = (square[start : start + len(block)] - block.square().sum(1))[:, None] / 2
        gain += (lower - half).addmm_(block, candidates.T).clamp_min_(0).sum(0)
    return gain


def refined_clusters(x: Tensor, centres: Tensor) -> tuple[Tensor, float]:
    """The clusters (N,) that Lloyd's algorithm comes to, and their sum of squares."""
    cluster, square = nearest_centres(x, centres)
    for _ in range(ITERATIONS):
        centres = means(x, cluster, square, len(centres))
        moved, square = nearest_centres(x, centres)
        if torch.equal(moved, cluster):
            break
        cluster = moved
    return cluster, float(square.double().sum())


def means(x: Tensor, cluster: Tensor, square: Tensor, k: int) -> Tensor:
    """The mean (k, D) of each cluster; an empty one moves to a row that is far from its centre."""
    sums = torch.zeros(k, x.shape[1], dtype=torch.float64)
    for start, block in blocks(x, BLOCK):
        sums.index_add_(0, cluster[start : start + len(block)], block.double())
    count = cluster.bincount(minlength=k)
    centres = (sums / count.clamp_min(1)[:, None]).float()
    empty = (count == 0).nonzero()[:, 0]
    centres[empty] = x[square.topk(len(empty)).indices]
    return centres


def nearest_centres(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) the nearest centre of each row, the first of equals, and the squared distance to it."""
    half = centres.square().sum(1) / 2
    cluster = torch.empty(len(x), dtype=torch.int64)
    square = torch.empty(len(x))
    out = torch.empty(BLOCK, len(centres))  # fresh memory for each block would cost as much
    for start, block in blocks(x, BLOCK):
        here = slice(start, start + len(block))
        # |x - c|^2 = |x|^2 + 2 (|c|^2 / 2 - x.c)
        score = torch.addmm(half, block, centres.T, alpha=-1, out=out[: len(block)])
        value, cluster[here] = score.min(1)
        square[here] = block.square().sum(1) + 2 * value
    return cluster, square.clamp_min_(0)
