"""Exact neighbours and retrieval metrics beside faiss, scikit-learn and pytorch-metric-learning.

The embeddings are like those of Stanford Online Products' test set after training: 512-D on the
sphere, classes of five or six, R@1 about 0.6. Every case is exact, so all give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import Row, peak_memory, seconds
from nearkin.measure import evaluate, neighbours
from nearkin.measure.clusters import clustering

TITLE = "Evaluation: exact neighbours and retrieval metrics, 512-D"
SOP, CLASSES = 60_502, 11_316


def rows(quick: bool) -> Iterator[Row]:
    """Neighbours, then whole evaluations, then clusters."""
    sizes = (2_000, 3_000) if quick else (10_000, 30_000, SOP)
    for size in sizes:
        yield from nearest_rows(size, "scikit-learn" if size == sizes[0] else "bare product")
    for size in sizes:
        yield from evaluation_rows(size, every_k=size == sizes[0])
    yield clusters_row(2_000 if quick else SOP)


def embeddings(size: int) -> tuple[Tensor, Tensor]:
    """(size, 512) unit rows and their classes, of which there are as many a row as in SOP."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(size) * CLASSES // SOP
    falling = torch.arange(1, 513) ** -0.5  # a spectrum like that of trained embeddings
    centres = torch.randn(int(labels[-1]) + 1, 512, generator=random)
    x = 1.2 * torch.randn(size, 512, generator=random)
    return F.normalize(x.add_(centres[labels]).mul_(falling), out=x), labels


def ours_nearest(x: Tensor, labels: Tensor) -> object:
    return neighbours(x, 16)


def faiss_nearest(x: Tensor, labels: Tensor) -> object:
    import faiss

    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x.numpy())
    return index.search(x.numpy(), 17)  # itself is among them


def scikit_nearest(x: Tensor, labels: Tensor) -> object:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=17, algorithm="brute").fit(x).kneighbors(x)


def bare_product(x: Tensor, labels: Tensor) -> object:
    """All float32 similarities, and nothing done with them."""
    out = torch.empty(1024, len(x))
    for rows in x.split(1024):
        torch.mm(rows, x.T, out=out[: len(rows)])
    return out


def ours_evaluation(x: Tensor, labels: Tensor) -> dict[str, float]:
    return evaluate(x, labels, ks=range(1, 1001), precision_ks=())


def pml_evaluation(x: Tensor, labels: Tensor, k: str | None = "max_bin_count") -> dict:
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    include = ("precision_at_1", "mean_average_precision_at_r", "r_precision")
    return AccuracyCalculator(include=include, k=k).get_accuracy(x, labels)  # type: ignore


def pml_every_k(x: Tensor, labels: Tensor) -> dict:
    return pml_evaluation(x, labels, None)


NEAREST = {
    "faiss IndexFlatIP": faiss_nearest,
    "scikit-learn": scikit_nearest,
    "bare product": bare_product,
}


def alone(way: Callable[[Tensor, Tensor], object], size: int) -> None:
    """What a process of its own runs, to show its memory."""
    way(*embeddings(size))


def timed(size: int, ways: Mapping[str, Callable[[Tensor, Tensor], object]]) -> dict[str, float]:
    """Median seconds of each way on embeddings of this size."""
    alone_on = embeddings(size)
    small = embeddings(2_000)
    for way in ways.values():  # libraries are loaded, threads are started
        way(*small)
    calls = {name: partial(way, *alone_on) for name, way in ways.items()}
    return seconds(calls, repeats=3, warm_up=False)


def nearest_rows(size: int, other: str) -> Iterator[Row]:
    peers = {name: NEAREST[name] for name in ("faiss IndexFlatIP", other)}
    took = timed(size, {"ours": ours_nearest} | peers)
    memory = peak_memory(alone, ours_nearest, size)
    for name, way in peers.items():
        yield Row(
            f"neighbours, k = 16, {size:,}",
            took["ours"],
            name,
            took[name],
            goal={(30_000, faiss_nearest): 0.85, (SOP, bare_product): 0.35}.get((size, way)),
            memory=memory,
            peer_memory=peak_memory(alone, way, size),
        )


def evaluation_rows(size: int, every_k: bool) -> Iterator[Row]:
    """R@1 to R@1000, R-precision, MAP@R and MRR at once; the peers do less."""
    peers = {
        "faiss, k = 16 alone": faiss_nearest,
        "PML, k = max_bin_count": pml_evaluation,
    }
    peers |= {"PML, its default k": pml_every_k} if every_k else {}
    peers |= {"bare product": bare_product} if size == SOP else {}
    took = timed(size, {"ours": ours_evaluation} | peers)
    memory = peak_memory(alone, ours_evaluation, size)
    ours, theirs = (way(*embeddings(2_000)) for way in (ours_evaluation, pml_evaluation))
    gap = max(
        abs(ours["recall@1"] - theirs["precision_at_1"]),
        abs(ours["map@r"] - theirs["mean_average_precision_at_r"]),
    )
    goals = {faiss_nearest: 1.0, pml_evaluation: 1 / 3, bare_product: 0.5}
    for name, way in peers.items():
        yield Row(
            f"R@1..1000, MAP@R, {size:,}",
            took["ours"],
            name,
            took[name],
            goal=goals[way] if size == SOP else None,
            memory=memory,
            peer_memory=peak_memory(alone, way, size),
            limit=1_500_000_000 if size == SOP else None,
            note=f"values differ by {gap:.0e}" if name.startswith("PML") else "",
        )


def clusters_row(size: int) -> Row:
    x, labels = embeddings(size)
    took = seconds({"ours": lambda: clustering(x, labels)}, repeats=1, warm_up=False)["ours"]
    return Row(
        f"NMI and AMI, {size:,}, {len(labels.unique()):,} clusters",
        took,
        "three minutes",
        180.0,
        goal=1.0,
    )
