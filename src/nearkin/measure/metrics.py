"""How good an embedding is: do its nearest neighbours belong to the same class?

The *kin* of a query are the gallery items of its class, itself left out; all else are *others*.
For a query with R kin, neighbours in order:

    recall@k      is there kin among the k nearest?         1 if rank of the nearest kin <= k
    mrr           1 / rank of the nearest kin
    precision@k   share of kin among the k nearest
    r_precision   share of kin among the R nearest
    map@r         1/R sum over i = 1..R of  precision@i  where neighbour i is kin, else 0

each averaged over the queries. A query without kin (of a class of one item, or one that the gallery
lacks) has no right answer: it is left out of all five, as in pytorch-metric-learning, and counted.
Clustering (nmi, ami) and knn_accuracy take every query.

Source: Musgrave, Belongie & Lim, A metric learning reality check, ECCV 2020, section 3.2,
arXiv:2003.08505 (R-precision, MAP@R).

Dimensions: B queries, M gallery, L neighbours looked at.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nearkin.measure.inputs import Sides, check_count, sides_of
from nearkin.measure.nearest.brute import NOTHING, Search, in_lists, key_lists, search_of
from nearkin.measure.nearest.exact import Array, blocks, from_keys, similarities, to_keys
from nearkin.measure.nearest.screen import plain_arithmetic
from nearkin.measure.nearest.search import check_k, nearest_keys, ranks
from nearkin.measure.statistics import (
    SHARES,
    Difference,
    Estimate,
    bootstrap,
    bootstrap_difference,
)

NO_KIN = "no query has kin: another item of its class in the gallery"
KS, PRECISION_KS = (1, 2, 4, 8), (10,)
"""the k of recall@k and of precision@k that are measured where none are named, and the gallery has
as many items"""
FEW = 16
"""items of a class, of which pairs are computed sooner than a product"""


@dataclass(frozen=True)
class Retrieval:
    """What each query with kin scored: the values from which means and intervals are made.

    queries: (Q,) their positions among all queries; labels: (Q,) their classes.
    values: metric -> (Q,) float64 in 0..1, or bool.
    total: how many queries there are, those without kin too.
    classes: the names of the classes, where labels came as text.
    """

    queries: Tensor
    labels: Tensor
    values: dict[str, Tensor]
    total: int
    classes: tuple[str, ...] = ()

    @property
    def without_kin(self) -> int:
        """How many queries have no right answer, and are left out."""
        return self.total - len(self.queries)

    def mean(self) -> dict[str, float]:
        """Each metric, averaged over the queries."""
        return {name: float(value.double().mean()) for name, value in self.values.items()}

    def per_class(self) -> dict[int, dict[str, float]] | dict[str, dict[str, float]]:
        """Class -> each metric, averaged over the queries of that class."""
        found, place, count = self.labels.unique(return_inverse=True, return_counts=True)
        means = {
            name: (torch.bincount(place, value.double()) / count).tolist()
            for name, value in self.values.items()
        }
        names = [self.classes[label] if self.classes else label for label in found.tolist()]
        return {label: {k: mean[i] for k, mean in means.items()} for i, label in enumerate(names)}

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
    itself: Array | None = None,
    metric: str = "cosine",
    ks: Sequence[int] | None = None,
    precision_ks: Sequence[int] | None = None,
    clusters: bool = False,
    intervals: bool = False,
    seed: int = 0,
    memory: float = 1e9,
) -> dict[str, float]:
    """Retrieval (and clustering) metrics, all in 0..1: {"recall@1": 0.57, "map@r": ..., ...}.

    Where queries have no kin, "queries_without_kin" says how many were left out.

    Args:
        query: (B, D) numbers: a tensor, an array of NumPy, a table of pandas or lists.
        query_labels: (B,) integers or text.
        gallery, gallery_labels: what is searched; by default each query among all the others.
        itself: (B,) the place of each query in the gallery, -1 where it does not stand there: no
            query is its own answer.
        metric: "cosine", "inner" or "euclidean".
        ks, precision_ks: the k of recall@k and of precision@k, at most as many as a query has
            items to be compared to; by default 1, 2, 4, 8 and 10, of which those that fit.
        clusters: also nmi and ami of a k-means clustering of the queries (slow for many classes).
        intervals: also recall@1/low and recall@1/high, and so on: 95 % intervals by a bootstrap
            over the test classes. `retrieval` gives values per query and class.
        seed: of k-means and of the bootstrap.
        memory: bytes that the work may take beside its inputs.

    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.1, 1.0]])
    >>> evaluate(x, ["cat", "cat", "dog", "dog"], ks=[1])
    {'recall@1': 1.0, 'mrr': 1.0, 'r_precision': 1.0, 'map@r': 1.0}
    """
    sides = sides_of(query, query_labels, gallery, gallery_labels, itself)
    if sides.gallery is not None and itself is None and sides.itself is None:
        tell_copies(sides.query, sides.gallery)
    found = retrieval_of(sides, metric, ks, precision_ks, memory)
    scores = found.mean()
    if intervals:
        for name, estimate in found.intervals(seed=seed).items():
            scores |= {f"{name}/low": estimate.low, f"{name}/high": estimate.high}
    if clusters:
        from nearkin.measure.clusters import clustering

        scores |= clustering(sides.query, sides.labels, metric=metric, seed=seed)
    if found.without_kin:
        scores["queries_without_kin"] = found.without_kin
    return scores


def tell_copies(query: Tensor, gallery: Tensor) -> None:
    """Warn of a gallery that is a copy of the queries: each would be its own answer."""
    if query.shape == gallery.shape and torch.equal(query, gallery.to(query.dtype)):
        warnings.warn(
            "the gallery is a copy of the queries, each of which finds itself: leave it out, or "
            "say itself=range(len(query))",
            stacklevel=3,
        )


def retrieval(
    query: Array,
    query_labels: Array,
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    *,
    itself: Array | None = None,
    metric: str = "cosine",
    ks: Sequence[int] | None = None,
    precision_ks: Sequence[int] | None = None,
    memory: float = 1e9,
) -> Retrieval:
    """The retrieval metrics of every query that has kin; arguments as in `evaluate`."""
    sides = sides_of(query, query_labels, gallery, gallery_labels, itself)
    return retrieval_of(sides, metric, ks, precision_ks, memory)


def retrieval_of(
    sides: Sides,
    metric: str,
    ks: Sequence[int] | None,
    precision_ks: Sequence[int] | None,
    memory: float,
) -> Retrieval:
    """The retrieval metrics of both sides."""
    ks = fitting(ks, KS, sides.size)
    precision_ks = fitting(precision_ks, PRECISION_KS, sides.size)
    with plain_arithmetic(sides.query.device):
        search = search_of(sides.query, sides.gallery, metric, memory, sides.itself)
        kin = sides.kin()
        queries = with_kin(kin)
        values = _retrieval(
            search[queries], kin[queries], sides.labels[queries], sides.kinds, ks, precision_ks
        )
    return Retrieval(queries, sides.labels[queries], values, len(kin), tuple(sides.classes))


def recalls(
    query: Array,
    query_labels: Array,
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    *,
    itself: Array | None = None,
    metric: str = "cosine",
    ks: Sequence[int] | None = None,
    memory: float = 1e9,
) -> dict[str, float]:
    """recall@k alone, for a few small k: a third of the work of `evaluate`, with equal values.

    Arguments as in `evaluate`.

    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.1, 1.0]])
    >>> recalls(x, torch.tensor([0, 1, 1, 1]), ks=[1, 2])
    {'recall@1': 0.6666666666666666, 'recall@2': 1.0}
    """
    sides = sides_of(query, query_labels, gallery, gallery_labels, itself)
    ks = fitting(ks, KS, sides.size)
    rows = with_kin(sides.kin())
    if not ks:
        return {}
    is_kin = nearest_classes(sides, max(ks), metric, memory) == sides.labels[:, None]
    return {f"recall@{k}": float(is_kin[rows, :k].any(1).double().mean()) for k in ks}


def with_kin(kin: Tensor) -> Tensor:
    """The positions of the queries that have kin; an error where none has."""
    queries = (kin > 0).nonzero()[:, 0]
    if not len(queries):
        raise ValueError(NO_KIN)
    return queries


def fitting(ks: Sequence[int] | None, usual: Sequence[int], size: int) -> Sequence[int]:
    """The k to measure: those named, which must fit, or of the usual ones those that do.

    >>> fitting(None, (1, 2, 4, 8), 5)
    (1, 2, 4)
    """
    if ks is None:
        return tuple(k for k in usual if k <= size)
    if not isinstance(ks, Iterable):
        raise ValueError(f"ks must be several numbers, such as (1, {ks}), got {ks!r}")
    return tuple(check_count(k, size, ", as many items as there are") for k in ks)


def nearest_classes(sides: Sides, k: int, metric: str, memory: float) -> Tensor:
    """(B, k) the classes of the k nearest of each query, nearest first."""
    with plain_arithmetic(sides.query.device):
        search = search_of(sides.query, sides.gallery, metric, memory, sides.itself)
        return sides.kinds[from_keys(nearest_keys(search, check_k(k, search)))[1]]


def _retrieval(
    search: Search,
    kin: Tensor,
    query_labels: Tensor,
    labels: Tensor,
    ks: Sequence[int],
    precision_ks: Sequence[int],
) -> dict[str, Tensor]:
    """The metrics of queries that all have kin, of which (B,) kin says how many."""
    deepest = len(labels) - (search.itself is not None)
    depth = kin.clamp_min(max(precision_ks, default=1)).clamp_max(deepest)
    first = torch.zeros_like(kin)  # rank of the nearest kin
    lists: dict[str, Tensor] = {}
    for rows, deep in by_depth(depth, search.memory):
        nearest = from_keys(nearest_keys(search[rows], deep))[1]  # (B, L)
        is_kin = labels[nearest] == query_labels[rows, None]
        first[rows] = torch.where(is_kin.any(1), 1 + is_kin.int().argmax(1), 0)
        for name, value in list_metrics(is_kin, kin[rows], precision_ks).items():
            lists.setdefault(name, value.new_empty(len(first)))[rows] = value
    deeper = (first == 0).nonzero()[:, 0]
    if len(deeper):
        rest = search[deeper]
        first[deeper] = ranks(rest, nearest_kin(rest, query_labels[deeper], labels))
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


def list_metrics(is_kin: Tensor, kin: Tensor, ks: Sequence[int]) -> dict[str, Tensor]:
    """R-precision, MAP@R and precision@k of ranked lists.

    is_kin: (B, L) bool, whether neighbour by neighbour is kin; kin: (B,) R, at most L.
    """
    place = torch.arange(1, is_kin.shape[1] + 1, device=is_kin.device)
    hits = is_kin.cumsum(1)
    precision = hits / place.double()  # (B, L): of the first 1, 2, ... neighbours
    counted = is_kin & (place <= kin[:, None])
    values = {
        "r_precision": counted.sum(1) / kin.double(),
        "map@r": (precision * counted).sum(1) / kin.double(),
    }
    for k in ks:
        values[f"precision@{k}"] = hits[:, k - 1].double() / k
    return values


def nearest_kin(search: Search, query_labels: Tensor, labels: Tensor) -> Tensor:
    """The key (B,) of each query's nearest kin, which must exist: by pairs where a class is small,
    else by the product of a class's queries and items."""
    best = torch.empty_like(query_labels)
    order = labels.argsort(stable=True)  # the items, class by class
    sorted_labels = labels[order]
    first = torch.searchsorted(sorted_labels, query_labels)
    count = torch.searchsorted(sorted_labels, query_labels, right=True) - first
    few = (count <= FEW).nonzero()[:, 0]
    for _, rows in blocks(few, max(1, int(search.memory / 40 / FEW))):
        part = search[rows]
        row = torch.arange(len(rows), device=rows.device).repeat_interleave(count[rows])
        column = order[first[rows][row] + in_lists(row, len(rows))[1]]
        others = slice(None) if part.itself is None else column != part.itself[row]
        best[rows] = key_lists(part, row[others], column[others]).amax(1)
    many = (count > FEW).nonzero()[:, 0]
    many = many[first[many].argsort(stable=True)]
    sizes = first[many].unique_consecutive(return_counts=True)[1].tolist()
    for queries in many.split(sizes):
        kin = order[first[queries[0]] :][: count[queries[0]]]
        for _, rows in blocks(queries, max(1, int(search.memory / 40 / len(kin)))):
            part = search[rows]
            keys = to_keys(similarities(part.query.on_grid(), search.gallery[kin].on_grid()), kin)
            if part.itself is not None:
                keys.masked_fill_(part.itself[:, None] == kin, NOTHING)
            best[rows] = keys.amax(1)
    return best


def knn_accuracy(
    query: Array,
    query_labels: Array,
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    k: int = 5,
    *,
    itself: Array | None = None,
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
    sides = sides_of(query, query_labels, gallery, gallery_labels, itself)
    votes = nearest_classes(sides, k, metric, memory)  # (B, k)
    count = (votes[:, :, None] == votes[:, None, :]).sum(2)
    winner = votes.gather(1, count.argmax(1, keepdim=True))  # argmax: the first of equals
    return float((winner[:, 0] == sides.labels).double().mean())
