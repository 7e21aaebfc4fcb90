"""How good an embedding is: do its nearest neighbours belong to the same class?

For a query with R matches (gallery items of its class, itself left out), neighbours in order:

    recall@k      is there a match among the k nearest?     1 if rank of the nearest match <= k
    mrr           1 / rank of the nearest match
    precision@k   share of matches among the k nearest
    r_precision   share of matches among the R nearest
    map@r         1/R sum over i = 1..R of  precision@i  where neighbour i is a match, else 0

each averaged over the queries. A query without a match (a class of one item, or a class that
the gallery lacks) has no right answer and is left out of all five, as in
pytorch-metric-learning. Where the gallery holds fewer than k items, the missing ones count as
wrong. Clustering (nmi, ami) and knn_accuracy take every query.

Source: Musgrave, Belongie & Lim, A metric learning reality check, ECCV 2020, section 3.2,
arXiv:2003.08505 (R-precision, MAP@R).

Dimensions: B queries, M gallery, L neighbours looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from nearkin.measure.nearest.exact import Array, blocks, from_keys, similarities, to_keys
from nearkin.measure.nearest.screen import plain_arithmetic
from nearkin.measure.nearest.search import (
    NOTHING,
    Search,
    both_embeddings,
    nearest_keys,
    neighbours,
    ranks,
    search_of,
)
from nearkin.measure.statistics import (
    SHARES,
    Difference,
    Estimate,
    bootstrap,
    bootstrap_difference,
)
from nearkin.tensors import as_tensor

NO_MATCH = "no query has a match: another item of its class in the gallery"


@dataclass(frozen=True)
class Retrieval:
    """What each query with a match scored: the values from which means and intervals are made.

    queries: (Q,) their positions among all queries; labels: (Q,) their classes.
    values: metric -> (Q,) float64 in 0..1, or bool.
    """

    queries: Tensor
    labels: Tensor
    values: dict[str, Tensor]

    def mean(self) -> dict[str, float]:
        """Each metric, averaged over the queries."""
        return {name: float(value.double().mean()) for name, value in self.values.items()}

    def per_class(self) -> dict[int, dict[str, float]]:
        """Class -> each metric, averaged over the queries of that class."""
        classes, place, count = self.labels.unique(return_inverse=True, return_counts=True)
        means = {
            name: (torch.bincount(place, value.double()) / count).tolist()
            for name, value in self.values.items()
        }
        return {
            label: {name: mean[i] for name, mean in means.items()}
            for i, label in enumerate(classes.tolist())
        }

    def intervals(self, *, seed: int = 0) -> dict[str, Estimate]:
        """Each metric with its 95 % interval over test classes (statistics.bootstrap)."""
        values = {name: value.cpu().numpy() for name, value in self.values.items()}
        return bootstrap(values, self.labels.cpu().numpy(), within=SHARES, seed=seed)

    def compare(self, other: Retrieval, *, seed: int = 0) -> dict[str, Difference]:
        """This run minus another on the same queries, paired, by a bootstrap over test classes."""
        same = torch.equal(self.queries, other.queries) and torch.equal(self.labels, other.labels)
        if not same:
            raise ValueError("only two runs on the same queries can be compared")
        a, b = ({k: v.cpu().numpy() for k, v in r.values.items()} for r in (self, other))
        return bootstrap_difference(a, b, self.labels.cpu().numpy(), seed=seed)


def evaluate(
    query: Array,
    query_labels: Array,
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    *,
    metric: str = "cosine",
    ks: Sequence[int] = (1, 2, 4, 8),
    precision_ks: Sequence[int] = (10,),
    clusters: bool = False,
    intervals: bool = False,
    seed: int = 0,
    memory: float = 1e9,
) -> dict[str, float]:
    """Retrieval (and clustering) metrics, all in 0..1: {"recall@1": 0.57, "map@r": ..., ...}.

    Args:
        query, query_labels: (B, D) floats and (B,) integers, of tensors or of NumPy.
        gallery, gallery_labels: what is searched; by default each query among all the others.
        metric: "cosine", "inner" or "euclidean".
        ks, precision_ks: the k of recall@k and of precision@k.
        clusters: also nmi and ami of a k-means clustering of the queries (slow for many classes).
        intervals: also recall@1/low and recall@1/high, and so on: 95 % intervals by a bootstrap
            over the test classes. `retrieval` gives values per query and class.
        seed: of k-means and of the bootstrap.
        memory: bytes that the work may take beside its inputs.

    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.1, 1.0]])
    >>> evaluate(x, torch.tensor([0, 0, 1, 1]), ks=[1], precision_ks=[])
    {'recall@1': 1.0, 'mrr': 1.0, 'r_precision': 1.0, 'map@r': 1.0}
    """
    query, gallery = both_embeddings(query, gallery)
    found = retrieval(
        query,
        query_labels,
        gallery,
        gallery_labels,
        metric=metric,
        ks=ks,
        precision_ks=precision_ks,
        memory=memory,
    )
    scores = found.mean()
    if intervals:
        for name, estimate in found.intervals(seed=seed).items():
            scores |= {f"{name}/low": estimate.low, f"{name}/high": estimate.high}
    if clusters:
        from nearkin.measure.clusters import clustering

        labels = check_labels(query, query_labels, "query")
        scores |= clustering(query, labels, metric=metric, seed=seed)
    return scores


def retrieval(
    query: Array,
    query_labels: Array,
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    *,
    metric: str = "cosine",
    ks: Sequence[int] = (1, 2, 4, 8),
    precision_ks: Sequence[int] = (10,),
    memory: float = 1e9,
) -> Retrieval:
    """The retrieval metrics of every query that has a match; arguments as in `evaluate`."""
    check_sizes((*ks, *precision_ks), memory)
    query, gallery = both_embeddings(query, gallery)
    query_labels, labels = both_labels(query, query_labels, gallery, gallery_labels)
    with plain_arithmetic(query.device):
        search = search_of(query, gallery, metric, memory)
        matches = count_matches(query_labels, labels) - int(gallery is None)
        asked = (matches > 0).nonzero()[:, 0]
        if not len(asked):
            raise ValueError(NO_MATCH)
        values = _retrieval(
            search[asked], matches[asked], query_labels[asked], labels, ks, precision_ks
        )
    return Retrieval(asked, query_labels[asked], values)


def recalls(
    query: Array,
    query_labels: Array,
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    *,
    metric: str = "cosine",
    ks: Sequence[int] = (1, 2, 4, 8),
    memory: float = 1e9,
) -> dict[str, float]:
    """recall@k alone, for a few small k: a third of the work of `evaluate`, with equal values.

    Arguments as in `evaluate`.

    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.1, 1.0]])
    >>> recalls(x, torch.tensor([0, 1, 1, 1]), ks=[1, 2])
    {'recall@1': 0.6666666666666666, 'recall@2': 1.0}
    """
    check_sizes(ks, memory)
    query, gallery = both_embeddings(query, gallery)
    query_labels, labels = both_labels(query, query_labels, gallery, gallery_labels)
    asked = count_matches(query_labels, labels) > int(gallery is None)
    if not asked.any():
        raise ValueError(NO_MATCH)
    most = len(labels) - (gallery is None)
    nearest = neighbours(query, min(max(ks), most), gallery, metric=metric, memory=memory).indices
    relevant = (labels[nearest] == query_labels[:, None])[asked]
    return {f"recall@{k}": float(relevant[:, :k].any(1).double().mean()) for k in ks}


def check_sizes(ks: Sequence[int], memory: float) -> None:
    """Every k is 1 or more, and there is memory to work in."""
    if min(ks, default=1) < 1:
        raise ValueError(f"k must be 1 or more, got {min(ks)}")
    if not 0 < memory < inf:
        raise ValueError(f"memory must be a number of bytes above 0, got {memory}")


def _retrieval(
    search: Search,
    matches: Tensor,
    query_labels: Tensor,
    labels: Tensor,
    ks: Sequence[int],
    precision_ks: Sequence[int],
) -> dict[str, Tensor]:
    """The metrics of queries that all have matches."""
    deepest = len(labels) - (search.itself is not None)
    depth = matches.clamp_min(max(precision_ks, default=1)).clamp_max(deepest)
    first = torch.zeros_like(matches)  # rank of the nearest match
    lists: dict[str, Tensor] = {}
    for rows, deep in by_depth(depth, search.memory):
        nearest = from_keys(nearest_keys(search[rows], deep))[1]  # (B, L)
        relevant = labels[nearest] == query_labels[rows, None]
        first[rows] = torch.where(relevant.any(1), 1 + relevant.int().argmax(1), 0)
        for name, value in list_metrics(relevant, matches[rows], precision_ks).items():
            lists.setdefault(name, value.new_empty(len(first)))[rows] = value
    deeper = (first == 0).nonzero()[:, 0]
    if len(deeper):
        rest = search[deeper]
        first[deeper] = ranks(rest, nearest_matches(rest, query_labels[deeper], labels))
    recalls = {f"recall@{k}": first <= k for k in ks}
    return recalls | {"mrr": 1 / first.double()} | lists


def by_depth(depth: Tensor, memory: float) -> Iterator[tuple[Tensor, int]]:
    """(rows, how deep to look), like depths together: a large class does not slow small ones."""
    power = depth.double().log2().ceil()
    for one in power.unique():
        rows = (power == one).nonzero()[:, 0]
        deep = int(depth[rows].max())
        for _, block in blocks(rows, max(1, int(memory / 100 / deep))):
            yield block, deep


def list_metrics(relevant: Tensor, matches: Tensor, ks: Sequence[int]) -> dict[str, Tensor]:
    """R-precision, MAP@R and precision@k of ranked lists.

    relevant: (B, L) bool, neighbour by neighbour; matches: (B,) R, at most L.
    """
    place = torch.arange(1, relevant.shape[1] + 1, device=relevant.device)
    hits = relevant.cumsum(1)
    precision = hits / place.double()  # (B, L): of the first 1, 2, ... neighbours
    counted = relevant & (place <= matches[:, None])
    values = {
        "r_precision": counted.sum(1) / matches.double(),
        "map@r": (precision * counted).sum(1) / matches.double(),
    }
    for k in ks:
        values[f"precision@{k}"] = hits[:, min(k, hits.shape[1]) - 1].double() / k
    return values


def nearest_matches(search: Search, query_labels: Tensor, labels: Tensor) -> Tensor:
    """The key (B,) of each query's nearest match, which must exist: one class after the other."""
    best = torch.empty_like(query_labels, dtype=torch.int64)
    for asked, kin in zip(*by_class(query_labels, labels), strict=True):
        for _, rows in blocks(asked, max(1, int(search.memory / 40 / len(kin)))):
            part = search[rows]
            keys = to_keys(similarities(part.query, search.gallery[kin]), kin)
            if part.itself is not None:
                keys.masked_fill_(part.itself[:, None] == kin, NOTHING)
            best[rows] = keys.amax(1)
    return best


def by_class(query_labels: Tensor, labels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """For each class among the queries: the positions of its queries, and of its gallery items."""
    classes, asked = query_labels.unique(return_inverse=True)
    place = torch.searchsorted(classes, labels).clamp_max(len(classes) - 1)
    known = (classes[place] == labels).nonzero()[:, 0]

    def split(group: Tensor) -> list[Tensor]:
        sizes = torch.bincount(group, minlength=len(classes)).tolist()
        return list(group.argsort(stable=True).split(sizes))

    return split(asked), [known[group] for group in split(place[known])]


def count_matches(query_labels: Tensor, labels: Tensor) -> Tensor:
    """(B,) how many of `labels` equal each query's."""
    classes, counts = labels.unique(return_counts=True)
    place = torch.searchsorted(classes, query_labels).clamp_max(len(classes) - 1)
    return torch.where(classes[place] == query_labels, counts[place], 0)


def both_labels(
    query: Tensor, query_labels: Array, gallery: Tensor | None, gallery_labels: Array | None
) -> tuple[Tensor, Tensor]:
    """Labels of the queries and of what is searched: without a gallery, the queries themselves."""
    own = check_labels(query, query_labels, "query")
    return own, own if gallery is None else check_labels(gallery, gallery_labels, "gallery")


def check_labels(x: Tensor, labels: Array | None, name: str) -> Tensor:
    """The labels as a tensor beside x (N, D), one integer a row, or an error that says so."""
    if labels is None:
        raise ValueError(f"{name} needs labels")
    wanted = f"{name} labels must be {len(x)} integers, one a row"
    labels = as_tensor(labels, wanted, x.device)
    if labels.shape != (len(x),) or labels.is_floating_point():
        raise ValueError(f"{wanted}, got {tuple(labels.shape)} of {labels.dtype}")
    return labels.long()


def knn_accuracy(
    query: Array,
    query_labels: Array,
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    k: int = 5,
    *,
    metric: str = "cosine",
    memory: float = 1e9,
) -> float:
    """Share of queries whose class wins the vote of their k nearest neighbours.

    Every neighbour has one vote. Between classes with equally many votes wins the one whose
    nearest member is nearest. Without a gallery a query does not vote for itself.

    >>> x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> knn_accuracy(x, torch.tensor([0, 0, 1, 1]), k=1)
    1.0
    """
    query, gallery = both_embeddings(query, gallery)
    query_labels, labels = both_labels(query, query_labels, gallery, gallery_labels)
    nearest = neighbours(query, k, gallery, metric=metric, memory=memory).indices
    votes = labels[nearest]  # (B, k), nearest first
    count = (votes[:, :, None] == votes[:, None, :]).sum(2)
    winner = votes.gather(1, count.argmax(1, keepdim=True))  # argmax: the first of equals
    return float((winner[:, 0] == query_labels).double().mean())
