"""The row of a finished run, and the files that it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearkin.data import Splits
from nearkin.data.sets.listings import pictures_left_out
from nearkin.measure import VERSIONS, confusion
from nearkin.models.model import Model
from nearkin.runs.checkpoint import threads
from nearkin.runs.evaluate import (
    class_means,
    headline,
    keep_attention,
    keep_embeddings,
    nearness,
    refined_metrics,
)
from nearkin.runs.ingredients import Ingredients
from nearkin.runs.machine import machine, versions
from nearkin.runs.recipe import DEFAULTS, Recipe
from nearkin.runs.row import (
    Cost,
    Data,
    Epoch,
    Files,
    Machine,
    Metrics,
    Process,
    Row,
)
from nearkin.runs.run import Run
from nearkin.runs.validated import with_weights

CONFUSED = 20  # classes at most, of a data set whose rows tell which are mistaken for which


def conclude(
    current: Run,
    parts: Ingredients,
    folder: Path,
    study: str,
    model: Model | None,
    memory: int | None,
    weights: dict[str, Tensor] | None = None,
) -> Row:
    """The row of a finished run, of one that diverged without a Model; its embeddings are kept in
    the folder, but not of a trial.

    weights: those that the Model has in place of the last ones, as validation chose an earlier
        epoch; the numbers of the row are those of the last epoch, the embeddings the Model's.
    """
    recipe, splits, diverged = current.recipe, current.splits, model is None
    last = mistaken = means = None
    files = Files(f"runs/{folder.name}")
    if model and not recipe.trial:
        last = {"epoch": current.epochs[-1]["epoch"], **current.epochs[-1]["test"]}
        query = splits.query
        embeddings = current.embed(query)
        means = class_means(current, embeddings)
        kept = embeddings
        if weights is not None:
            kept = current.embed_by(with_weights(deepcopy(current.deployed), weights), query)
        keep_embeddings(folder / "embeddings.npz", current, kept, model)
        files = replace(files, embeddings="embeddings.npz")
        if len(query.classes) <= CONFUSED:
            mistaken = confusion(embeddings, query.labels, metric=nearness(current)).tolist()
        if keep_attention(folder / "attention.npz", current):
            files = replace(files, attention="attention.npz")
    metrics = Metrics(
        last=last,
        validated=chosen(current.epochs, headline(splits), "validation"),
        best_on_test=chosen(current.epochs, headline(splits), "test"),
        refined=refined_metrics(current) if recipe.refine and last else None,
    )
    return Row(
        hash=recipe.hash,
        recipe=recipe,
        metrics=metrics,
        data=described(splits, current.data_fingerprint, side_of(current)),
        status="diverged" if diverged else "done",
        study=study,
        own_object=parts.own_object,
        made_of=parts.made_of,
        metric=nearness(current),
        epochs=tuple(Epoch(**entry) for entry in current.epochs),
        by_class=means,
        confusion=tuple(map(tuple, mistaken)) if mistaken else None,
        cost=cost(current, memory),
        versions=versions(),
        metric_versions=dict(VERSIONS),
        machine=of_machine(current),
        files=files,
    )


def of_machine(current: Run) -> Machine:
    """The machine of rank 0, its threads, and all processes where there were ever several."""
    known = [*current.processes_before, *current.processes]
    several = any(process["rank"] for process in known)
    return replace(
        machine(current.device),
        threads=tuple(threads(current)),
        processes=tuple(Process(**process) for process in known) if several else None,
    )


def cost(current: Run, memory: int | None) -> Cost:
    """The time, memory and parameters of a finished run."""
    images = current.step * current.recipe.batch
    return Cost(
        seconds=round(current.seconds + current.other_seconds, 3),
        train_seconds=round(current.seconds, 3),
        images_per_second=round(images / current.seconds, 1) if images else None,
        peak_memory_mb=memory,
        parameters=sum(p.numel() for p in current.backbone.parameters()),
        loss_parameters=sum(p.numel() for p in current.loss.parameters()),
    )


def described(splits: Splits, fingerprint: str = "", size: int = 0) -> Data:
    """A data set as rows hold it."""
    return Data(
        name=splits.name,
        variant=splits.variant,
        fingerprint=fingerprint,
        left_out=pictures_left_out(splits.variant),
        showable=splits.showable,
        shared_classes=splits.shared_classes,
        size=size,
        train_images=len(splits.train),
        train_classes=len(splits.train.classes),
        query_images=len(splits.query),
        gallery_images=len(splits.gallery),
        test_classes=len(splits.query.classes),
    )


def side_of(current: Run) -> int:
    """The side in pixels of the pictures that come to the network; 0 of vectors."""
    one = current.prepare(current.splits.query.inputs, torch.zeros(1, dtype=torch.int64))
    return one.shape[-1] if one.ndim == 4 else 0


def chosen(epochs: list[dict], metric: str, by: str) -> dict | None:
    """The test metrics of the epoch that is best on `by` ("validation" or "test"); None where
    either was not examined."""
    seen = [e for e in epochs if by in e and "test" in e]
    if not seen:
        return None
    best = max(seen, key=lambda e: e[by][metric])
    return {"epoch": best["epoch"], **best["test"]}


AS_IT_STARTS = "untrained"
"""The name in place of a loss, where no step was taken."""


def taught(recipe: Mapping[str, Any]) -> str:
    """By which loss a network learnt; of one that took no step, that, and its closed form.

    >>> taught({"loss": "triplet", "epochs": 0, "steps": 0, "head_start": "whitened"})
    'untrained, whitened'
    """
    if recipe["epochs"] or recipe["steps"]:
        return recipe["loss"]
    form = recipe["head_start"]
    return AS_IT_STARTS if form == DEFAULTS["head_start"] else f"{AS_IT_STARTS}, {form}"


def title(recipe: Recipe) -> str:
    """What a run is called while it goes on.

    >>> title(Recipe(backbone="identity", epochs=0, data="cub"))
    'untrained cub seed 0'
    """
    dim = "" if recipe.backbone == "identity" else f" {recipe.dim}-D"
    return f"{taught(recipe.plain())} {recipe.data}{dim} seed {recipe.seed}"


def one_line(row: Row) -> str:
    """A finished run in one line."""
    found = row.metrics.last
    if row.recipe.trial and row.status == "done":
        found = row.epochs[-1].validation
    named = {"in_train.recall@1": "R@1 in train", "recall@1": "R@1", "knn_accuracy": "5-NN"}
    shares = [f"{name} {100 * found[k]:.1f} %" for k, name in named.items() if found and k in found]
    score = "diverged" if found is None else ", ".join(shares)
    return f"{row.hash}  {title(row.recipe)}  {score}  {row.cost.seconds or 0:.0f} s"
