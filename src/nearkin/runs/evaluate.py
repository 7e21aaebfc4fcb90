"""How good a run's embeddings are, now: the metrics of its splits, and the files it leaves."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearkin.data import Splits
from nearkin.data.fingerprint import fingerprint
from nearkin.data.splits import in_classes_of, places_in
from nearkin.data.transforms import Pictures, centred
from nearkin.files import write_whole
from nearkin.graphs import refine_at_test
from nearkin.losses.protocol import metric_of
from nearkin.measure import evaluate, kin_counts, knn_accuracy, recalls, retrieval, scattering
from nearkin.models import origin
from nearkin.models.model import Model
from nearkin.runs.manners import seeded
from nearkin.runs.run import Run, refiner_of
from nearkin.tensors import unit

KS = (1, 2, 4, 8, 10, 100, 1000)
NEIGHBOURS = 5  # of the k-NN accuracy
CLASSES = 2_000  # at most so many test classes are told one by one in a row
PICTURES = 2_000  # at most so many pictures are kept for the page
SIDE = 56  # pixels of these: 2,000 in colour are 19 MB, of which npz's compression would save 15 %
LARGEST = 1e15  # length of an embedding; squares of longer ones, summed, leave float32


class Diverged(ArithmeticError):
    """Embeddings that are not finite, or too long to be compared."""


def headline(splits: Splits) -> str:
    """The metric by which validation chooses an epoch."""
    return "in_train.recall@1" if splits.shared_classes else "recall@1"


def nearness(run: Run) -> str:
    """The metric of the embedding space: the recipe's, else what the loss makes near."""
    return run.recipe.metric or metric_of(run.loss)


def examine(run: Run, splits: Splits, final: bool = False) -> dict[str, float]:
    """Metrics of the query set of `splits`, embedded by the backbone alone.

    Each query is searched among the gallery: all other queries, or a set of its own. R@1 to R@8.
    Where classes are shared, it is also searched among the training images (in_train.recall@1, ...,
    and the accuracy of 5 nearest neighbours there), as a new picture is among those that are known;
    where some classes are known and others new, the known ones in_train and the new ones as
    new.recall@1, ... The final examination adds all other retrieval metrics, and, but for a trial,
    scattering and separation, and clusters (NMI, AMI), which are slow.

    Several processes embed together, each item once, and rank 0 measures.
    """
    parts = [splits.query, splits.gallery]
    parts += [splits.train] if splits.shared_classes or splits.mixed_classes else []
    return run.led(lambda: measured(run, splits, final), *parts)


def measured(run: Run, splits: Splits, final: bool) -> dict[str, float]:
    """What `examine` tells, by one process."""
    query = run.embed(splits.query)
    metric = nearness(run)
    gallery = run.embed(splits.gallery) if splits.gallery is not splits.query else query
    for x in (query, gallery):
        if not (x.norm(dim=1) < LARGEST).all():
            raise Diverged
    labels, kinds = splits.query.labels, in_classes_of(splits.query, splits.gallery)
    itself = places_in(splits.query, splits.gallery)
    whole = final and not run.recipe.trial
    searched = partial(retrieval_metrics, metric=metric, final=final)
    metrics = searched(query, labels, gallery, kinds, itself, clusters=whole)
    if splits.shared_classes or splits.mixed_classes:
        train = run.embed(splits.train)
        known = in_classes_of(splits.query, splits.train)
        leaked = places_in(splits.query, splits.train)
        found = searched(query, labels, train, known, leaked)
        metrics |= {f"in_train.{name}": value for name, value in found.items()}
        if splits.shared_classes:
            sides = query, labels, train, known, NEIGHBOURS
            metrics["knn_accuracy"] = knn_accuracy(*sides, itself=leaked, metric=metric)
        new = (~torch.isin(labels, known)).nonzero()[:, 0]
        if len(new):
            found = searched(query[new], labels[new], gallery, kinds, itself[new])
            metrics |= {f"new.{name}": value for name, value in found.items()}
    if whole:
        metrics["norm"] = query.norm(dim=1).mean().item()
        metrics |= scattering(unit(query) if metric == "cosine" else query, splits.query.labels)
    return metrics


def class_means(
    run: Run, query: Tensor, splits: Splits | None = None
) -> dict[str, tuple[float, ...]] | None:
    """R@1 and MAP@R of each test class, and how many of its queries have kin: from these come
    intervals over test classes. None of too many classes, or where no query has kin.

    Args:
        query: (N, D) embeddings of the query set.
        splits: whose query set that is; by default the run's.
    """
    splits = splits or run.splits
    gallery = run.embed(splits.gallery) if splits.gallery is not splits.query else query
    labels, kinds = splits.query.labels, in_classes_of(splits.query, splits.gallery)
    itself = places_in(splits.query, splits.gallery)
    classes = len(splits.query.classes)
    if classes > CLASSES or not kin_counts(labels, kinds, itself).any():
        return None
    sides = query, labels, gallery, kinds
    found = retrieval(*sides, itself=itself, ks=[1], precision_ks=[], metric=nearness(run))
    counts = found.labels.bincount(minlength=classes)
    means = {"queries": counts.tolist()}
    for name in ("recall@1", "map@r"):
        sums = torch.bincount(found.labels, found.values[name].double(), classes)
        means[name] = (sums / counts.clamp_min(1)).tolist()
    return {name: tuple(round(float(value), 6) for value in row) for name, row in means.items()}


def retrieval_metrics(
    query: Tensor,
    labels: Tensor,
    gallery: Tensor,
    kinds: Tensor,
    itself: Tensor,
    *,
    metric: str,
    final: bool,
    clusters: bool = False,
) -> dict[str, float]:
    """R@1 to R@8 of queries in a gallery, and finally all metrics; none where no query has kin.

    itself: (B,) the place of each query in the gallery, -1 where it does not stand there.
    """
    if not kin_counts(labels, kinds, itself).any():
        return {}
    ks = tuple(k for k in KS if k <= len(kinds) - bool((itself >= 0).any()))
    sides = query, labels, gallery, kinds
    if final:
        return evaluate(*sides, itself=itself, ks=ks, clusters=clusters, metric=metric)
    return recalls(*sides, itself=itself, ks=ks[:4], metric=metric)


def refined_metrics(run: Run) -> dict[str, float | str]:
    """Metrics of the query set refined by the loss's graph layers, and what the graph came from."""
    refiner, splits, source = refiner_of(run), run.splits, run.recipe.refine
    apart = splits.gallery is not splits.query
    query = run.embed(splits.query).to(run.device)
    gallery = run.embed(splits.gallery).to(run.device) if apart else None
    with seeded(run.recipe.seed):
        seen, graph = refine_at_test(refiner, query, gallery, source=source)
    sides = [seen.cpu(), splits.query.labels]
    if gallery is not None:
        with seeded(run.recipe.seed):
            found, _ = refine_at_test(refiner, gallery, source=source)
        sides += [found.cpu(), splits.gallery.labels]
    return {**evaluate(*sides), "graph": graph}


def watched_batch(run: Run) -> dict[str, float]:
    """What the loss says of the embeddings of a batch that is the same in every epoch."""
    run.loss.eval()
    with seeded(run.recipe.seed):  # graphs may be drawn at random
        said = run.loss.monitor(run.embed_first_batch(), run.labels[run.first_batch.to(run.device)])
    run.loss.train()
    return said


def keep_attention(path: Path, run: Run, classes: int = 6) -> bool:
    """Write who listens to whom among the first classes of a batch of pictures, for the page.

    attention (n, n), y (n,), pictures (n, H, W) or (n, H, W, 3); nothing, and False, where inputs
    are no pictures, or none to be shown, or the loss has no attention.
    """
    inputs = run.splits.train.inputs
    if not (run.splits.showable and hasattr(run.loss, "attention")):
        return False
    labels = run.splits.train.labels[run.first_batch]
    with seeded(run.recipe.seed):
        attention = run.loss.attention(run.embed_first_batch(), labels.to(run.device))
    if attention is None:
        return False
    chosen = torch.isin(labels, labels.unique()[:classes]).nonzero()[:, 0]
    chosen = chosen[labels[chosen].argsort(stable=True)]
    arrays = {
        "attention": attention.cpu()[chosen][:, chosen].numpy(),
        "y": labels[chosen].numpy(),
        "pictures": thumbnails(inputs[run.first_batch[chosen]]),
    }
    write_whole(path, lambda file: np.savez_compressed(file, **arrays))
    return True


def keep_embeddings(path: Path, run: Run, embeddings: Tensor, model: Model) -> None:
    """Write the query set's embeddings for the page (and for `nearkin evaluate`) as one .npz file.

    x (N, D), y (N,), classes (C,), names (N or 0), metric (what near means), made_by (the Model,
    which lies beside the file, as nearkin.models.origin describes it), and, where the data set's
    terms allow it, `pictures` of the items `picture_index`.
    """
    query, splits = run.splits.query, run.splits
    data = {"name": splits.name, "variant": splits.variant, "fingerprint": fingerprint(splits)}
    arrays: dict[str, Any] = {
        "x": embeddings.numpy(),
        "y": query.labels.numpy(),
        "classes": np.array(query.classes),
        "names": np.array(query.names),
        "metric": np.array(nearness(run)),
        "made_by": np.array(json.dumps(origin.describe(model, "", data))),
    }
    if run.splits.showable:
        index = torch.arange(len(query))[:: max(1, -(-len(query) // PICTURES))]
        arrays |= {"pictures": thumbnails(query.inputs[index]), "picture_index": index.numpy()}
    # floats hardly shrink, and take as long as training to try
    write_whole(path, lambda file: np.savez(file, **arrays))


def thumbnails(pictures: Pictures) -> np.ndarray:
    """What a backbone sees of pictures that are not augmented, in at most 56 x 56 pixels.

    (n, H, W) where they are grey, else (n, H, W, 3), uint8.
    """
    small = isinstance(pictures, Tensor) and max(pictures.shape[-2:]) <= SIDE
    return centred(pictures, 0 if small else SIDE).cpu().movedim(1, -1).squeeze(-1).numpy()
