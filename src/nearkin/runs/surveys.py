"""The start of an epoch: all training images, for the loss and the sampler that look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearkin.data.neighbours import NEAREST
from nearkin.losses import hierarchy
from nearkin.losses.mining import class_trees
from nearkin.losses.protocol import nearest_classes, start_epoch, wants_of

if TYPE_CHECKING:
    from nearkin.runs.run import Run


def begin_epoch(run: Run) -> None:
    """Tell the loss that an epoch begins, and draw its batches.

    The training images are embedded, as they are, where the loss wants a survey, and where the
    sampler is `neighbours` and the loss does not know which classes are near: this counts as
    training, and takes about a third of the time of an epoch. Once, before the first step, the
    trees of the sampler `streams` are made of what the trunk gives.
    """
    if "survey" in wants_of(run.loss):
        start_epoch(run.loss, run.survey(), run.labels)
    else:
        start_epoch(run.loss)
    if run.recipe.sampler == "neighbours":
        near = nearest_classes(run.loss, NEAREST)
        if near is None:
            classes = len(run.splits.train.classes)
            means, sizes = hierarchy.class_means(run.survey(), run.labels, classes)
            near = hierarchy.nearest_classes(means, sizes, NEAREST)
        known = {"near": near}
        run.known = run.ranks.lead(lambda: known)  # to the last bit, else batches would differ
        run.draw(run.step // len(run.batches))
    if run.recipe.sampler == "streams" and not run.known:
        backbone = run.backbone.module
        features = run.embed_by(getattr(backbone, "trunk", backbone), run.splits.train).flatten(1)
        edges = class_trees(features, run.splits.train.labels)
        run.known = run.ranks.lead(lambda: {"edges": edges})
        run.draw(run.step // len(run.batches))
