"""The Model that a run leaves in its folder.

A head that was trained on stored features joins the Model that made them, where the features' file
tells which that was and it is found; the Model then takes photographs. Of a study's many heads only
the heads are written, and joined when they are loaded.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearkin.data import Splits
from nearkin.data.sets.catalogue import named
from nearkin.models import origin
from nearkin.models.folder import save as write_folder
from nearkin.models.model import Model
from nearkin.models.preprocess import preprocessing_of
from nearkin.runs.evaluate import nearness
from nearkin.runs.made_by import declared
from nearkin.runs.row import Row, to_json
from nearkin.runs.run import Run
from nearkin.runs.validated import with_weights

KEPT = ("hash", "status", "metrics", "data", "cost", "versions", "machine")
"""Fields of the row that a Model keeps."""
HEADROOM = 2.0  # of int8's limit above the largest number seen in one batch of training images


def left_by(
    run: Run, root: str | None, whole: bool, weights: dict[str, Tensor] | None = None
) -> Model:
    """The Model of a finished run, with these weights in place of the last ones; if `whole`, joined
    to the Model that made its features."""
    model, made_by = model_of(run, weights), run.splits.made_by
    if not made_by:
        return model
    model.provenance["made_by"] = dict(made_by)
    _, path = named(run.recipe.data, root)
    return origin.joined(model, made_by, [path.parent]) if whole else model


def join_left(folder: Path, splits: Splits, made_by: str, made_size: int, root: str | None) -> None:
    """Join the head that a stored run has left to the backbone that a person says made its
    features."""
    known = declared(splits, made_by, made_size, root)
    head = Model.load(folder)
    if head.preprocessing is None and known.made_by:
        joined = origin.find(known.made_by).join(head)
        joined.provenance["made_by"] = dict(known.made_by)
        write_folder(joined, folder)


def save(model: Model, row: Row, folder: Path) -> None:
    """Write the Model of a run into its folder, with what its row says."""
    told = to_json(row)
    model.provenance |= {name: told[name] for name in KEPT}
    write_folder(model, folder)


def model_of(run: Run, weights: dict[str, Tensor] | None = None) -> Model:
    """A copy of the run's backbone as it stands, or with these weights, with its preprocessing and
    metric."""
    net: Any = with_weights(deepcopy(run.deployed), weights)
    net = net.to("cpu", memory_format=torch.contiguous_format)
    metric, inputs = nearness(run), run.splits.train.inputs
    steps = preprocessing_of(inputs, run.recipe.size, run.mean, run.std, run.splits.inverted)
    limit = None
    if metric != "cosine":
        limit = HEADROOM * run.embed_first_batch().abs().max().item()
    one = run.prepare(inputs, torch.zeros(1, dtype=torch.int64))
    return Model(
        net,
        steps,
        metric,
        classes=run.splits.train.classes,
        recipe=run.recipe.plain(),
        limit=limit,
        shape=None if steps else one.shape[1:],
    )
