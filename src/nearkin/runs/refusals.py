"""Runs that are refused before they begin, since they could never learn, or never be judged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nearkin.data import Splits
from nearkin.data.splits import in_classes_of, places_in
from nearkin.losses.protocol import wants_of
from nearkin.measure import kin_counts
from nearkin.measure.metrics import NO_KIN
from nearkin.runs.build import is_whole, refuse_pieces
from nearkin.runs.manners import seeded
from nearkin.runs.recipe import DEFAULTS, Recipe

if TYPE_CHECKING:
    from nearkin.runs.run import Run
    from nearkin.runs.store import Store

COPIES = 16  # times that an image may stand in a batch, each time augmented in another way


def refuse_nothing_to_learn(run: Run) -> None:
    """Refuse a run that could never have a gradient.

    No batch holds two images of a class, or none holds two classes; or none of the pairs or
    triplets that the sampler hands over is one that the loss uses: then 32 random draws of
    embeddings all give a loss of 0, which a loss that can learn has with a probability near 0.
    """
    recipe, labels = run.recipe, run.splits.train.labels[run.batches]  # (steps, B)
    ordered = labels.sort(1).values
    alike = ordered[:, 1:] == ordered[:, :-1]
    for lacking, wanted in (
        (not alike.any(), "two images of a class"),
        (alike.all(), "two classes"),
    ):
        if lacking:
            raise ValueError(
                f"{recipe.loss} wanted {wanted} in a batch, and none has them: "
                f"sampler={recipe.sampler}, batch={recipe.batch}, per_class={recipe.per_class}"
            )
    if run.pattern and not run.miner:
        generator, first = torch.Generator().manual_seed(0), labels[0].to(run.device)
        anywhere = torch.randn(32, recipe.batch, recipe.dim, generator=generator).to(run.device)
        run.loss.eval()  # a loss with a state learns nothing from noise
        nothing = all(run.loss(x, first, run.mined(x, first)) == 0 for x in anywhere)
        run.loss.train()
        if nothing:
            raise ValueError(
                f"{recipe.loss} finds nothing to learn from in the {recipe.sampler} of "
                f"sampler={recipe.sampler}: use sampler=classes"
            )


def refuse_unheard_miner(run: Run) -> None:
    """Refuse a miner whose choice the loss does not take, before anything is written."""
    if run.miner is None or wants_of(run.loss):
        return
    generator, labels = torch.Generator().manual_seed(0), run.splits.train.labels[run.batches[0]]
    labels = labels.to(run.device)
    x = torch.randn(len(labels), run.recipe.dim, generator=generator).to(run.device)
    run.loss.eval()  # a loss with a state learns nothing from noise
    try:
        with torch.no_grad(), seeded(run.recipe.seed):
            run.loss(x, labels, run.mined(x, labels))
    finally:
        run.loss.train()


def refuse_no_kin(splits: Splits) -> None:
    """Refuse a test set in which no query has kin to be found: in the gallery or, where classes are
    shared, among the training images."""
    query, gallery = splits.query, splits.gallery
    kin = kin_counts(query.labels, in_classes_of(query, gallery), places_in(query, gallery))
    if not (kin.any() or splits.shared_classes or splits.mixed_classes):
        raise ValueError(f"{splits.name}: {NO_KIN}")


def refuse_other_precision(backbone: nn.Module) -> None:
    """Refuse an own backbone of other weights than float32, which batches are of."""
    kinds = {p.dtype for p in backbone.parameters() if p.dtype.is_floating_point}
    for kind in kinds - {torch.float32}:
        raise ValueError(
            f"wanted a backbone of float32, got {str(kind).removeprefix('torch.')}: take "
            "backbone.float(), and precision=bf16 for speed"
        )


def refuse_no_start(recipe: Recipe, store: Store) -> None:
    """Refuse a start that is neither a file, nor a folder, nor a run of the store."""
    start = recipe.start
    if start and not Path(start).expanduser().exists() and not store.of_hash(start):
        raise ValueError(f"start {start}: no such file or folder, and no run in {store.folder}")


def refuse_copies(run: Run) -> None:
    """Refuse batches that hold hardly anything but copies of a few images."""
    batch, images = run.recipe.batch, len(run.splits.train)
    most = max(COPIES * images, DEFAULTS["batch"])
    if run.recipe.sampler != "random" and batch > most:  # which refuses it itself
        raise ValueError(
            f"a batch of {batch:,} holds each of {images:,} training images {batch // images:,} "
            f"times: wanted a batch of {images:,}, and {most:,} at most"
        )


def refuse_too_many(recipe: Recipe, processes: int) -> None:
    """Refuse more processes than a batch has images."""
    if recipe.batch < processes:
        raise ValueError(
            f"a batch of {recipe.batch} cannot be cut in slices for {processes} processes"
        )


def refuse_another_dim(run: Run) -> None:
    """Refuse an own backbone that makes embeddings of another size than the loss is built for."""
    dim = run.embed(run.splits.train.select(torch.arange(1))).shape[1]
    if dim != run.recipe.dim:
        raise ValueError(f"dim is {run.recipe.dim}, but the backbone embeds into {dim} dimensions")


def refuse_no_features(recipe: Recipe, backbone: Any, loss: nn.Module) -> None:
    """Refuse a loss that looks at features, where there are none, or batches come in pieces."""
    refuse_pieces(recipe, loss)
    if not is_whole(backbone):
        name, got = type(loss).__name__, type(backbone).__name__
        raise ValueError(f"{name} wants a backbone with a `trunk` and a `head`, got {got}")
