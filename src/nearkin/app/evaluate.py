"""`nearkin evaluate`: the metrics of embeddings that a file holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearkin.names import unknown
from nearkin.registry import METRICS

if TYPE_CHECKING:
    from torch import Tensor

    from nearkin.data import Split


def evaluate(
    embeddings: Path,
    gallery: Path | None = None,
    metric: str = "",
    ks: tuple[int, ...] = (),
    clusters: bool = True,
    intervals: bool = False,
    memory: float = 1e9,
) -> None:
    """Print the metrics of stored embeddings as JSON; the file holds x (N, D) and y (N,), and,
    where some of them are no queries, split (N,) of train, query and gallery.

    Example: nearkin evaluate --embeddings out/runs/HASH/embeddings.npz

    Example: nearkin evaluate --embeddings x.npz --ks 1 10 100 1000 --intervals --no-clusters

    Args:
        embeddings: .npz file of the queries; what `embed` writes has all splits, of which query and
            gallery count here.
        gallery: .npz file of what they are searched in, all of it; by default each other. A query
            that stands there, under its name and with its vector, is not its own answer.
        metric: what near means: cosine, inner or euclidean; by default what the file's array
            `metric` says, else cosine.
        ks: the k of recall@k; by default 1 2 4 8, of which those that fit.
        clusters: whether to add NMI and AMI, by k-means.
        intervals: whether to add 95 % intervals, by a bootstrap over the classes.
        memory: bytes that the search may use.
    """
    from nearkin import measure
    from nearkin.app.train import ONE_CLASS
    from nearkin.data.sets.features import origin_of, parts_of, read_features, told_metric
    from nearkin.data.splits import in_classes_of

    parts = parts_of(embeddings)
    query, searched = parts["query"], parts["gallery"]
    named = told_metric(embeddings)
    source = "as --metric says" if metric else "as the file says"
    metric = metric or named or "cosine"
    if metric not in METRICS:
        raise unknown(metric, METRICS, f"metric of {embeddings}")
    made_by = origin_of(embeddings)
    if named:
        maker = f", made by the Model {made_by['identity']}" if made_by else ""
        print(f"nearkin: {embeddings}{maker}: compared by {metric}, {source}", file=sys.stderr)
    if gallery:
        refuse_another_model(made_by, origin_of(gallery), gallery)
    sides: dict[str, Any] = {
        "query": vectors_of(query, embeddings, metric),
        "query_labels": query.labels,
    }
    if gallery:
        searched = read_features(gallery)
    if len(searched):
        sides["gallery"] = vectors_of(searched, gallery or embeddings, metric)
        sides["gallery_labels"] = in_classes_of(query, searched)
        sides["itself"] = own_places(query, searched)
    if len(set((searched if len(searched) else query).labels.tolist())) == 1:
        print(f"nearkin: {ONE_CLASS}", file=sys.stderr)
    options: dict[str, Any] = {"clusters": clusters, "intervals": intervals, "memory": memory}
    metrics = measure.evaluate(**sides, metric=metric, ks=ks or None, **options)
    if without := metrics.get("queries_without_kin"):
        note = f"{without:,} of {len(query):,} queries have no kin in the gallery: left out"
        print(f"nearkin: {note} of retrieval", file=sys.stderr)
    print(json.dumps({"metric": metric, **metrics}, indent=2))


def refuse_another_model(query: dict | None, gallery: dict | None, path: Path) -> None:
    """Embeddings of two Models cannot be compared, where both files say which made them."""
    if query and gallery and query["identity"] != gallery["identity"]:
        raise ValueError(
            f"{path}: made by the Model {gallery['identity']}, but the queries by "
            f"{query['identity']}: their embeddings cannot be compared"
        )


def own_places(query: Split, gallery: Split) -> Tensor:
    """Where each query stands in the gallery, as names tell; a line on stderr where any does."""
    from nearkin.data.splits import copies_in, places_in

    places = places_in(query, gallery)
    if standing := int((places >= 0).sum()):
        note = (
            f"{standing:,} of {len(query):,} queries stand in the gallery: none is its own answer"
        )
        print(f"nearkin: {note}", file=sys.stderr)
    elif copies := copies_in(query, gallery):
        note = f"{copies:,} of {len(query):,} queries have an equal vector in the gallery"
        advice = "they may find themselves; with `names` in both files none is its own answer"
        print(f"nearkin: {note}: {advice}", file=sys.stderr)
    return places


def vectors_of(split: Split, path: Path, metric: str) -> Tensor:
    """The vectors of a file, all of which have neighbours."""
    from nearkin.measure import check_embeddings

    check_embeddings(split.tensor, str(path), zero=metric != "cosine")
    return split.tensor
