"""What made stored features, where a person says it: their file does not tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from nearkin.data import Splits, default_root
from nearkin.data.sets.catalogue import is_features
from nearkin.files import resolved
from nearkin.models import origin
from nearkin.models.folder import folder_of
from nearkin.models.model import Model, find

ALIKE = 0.99  # mean cosine of pictures' embeddings to the features that are said to be theirs
LOOKED_AT = 16  # pictures at most of such a check


def refuse_unfit(data: str, made_by: str, made_size: int) -> None:
    """Refuse to say what made features of data that are none, as their name tells."""
    if made_size and not made_by:
        raise ValueError("--made-size goes with --made-by, the backbone that made the features")
    if made_by and not is_features(data):
        raise ValueError(f"--made-by goes with features:FILE, {data} holds pictures")


def declared(splits: Splits, made_by: str, size: int, root: str | None) -> Splits:
    """The splits of features whose file does not tell what made them, with the Model that a person
    says did; checked on the pictures that the items are named after, where these lie below root.

    Raises:
        ValueError: the Model makes other features than these.
    """
    if not made_by:
        if size:
            raise ValueError("--made-size goes with --made-by, the backbone that made the features")
        return splits
    inputs = splits.train.inputs
    if not isinstance(inputs, torch.Tensor) or not inputs.is_floating_point():
        raise ValueError(f"--made-by goes with features:FILE, {splits.name} holds pictures")
    model = find(made_by, size)
    if splits.made_by and splits.made_by["identity"] != model.identity:
        raise ValueError(
            f"{splits.name} was made by the Model {splits.made_by['identity']}, not by {made_by}"
        )
    if model.dim != inputs.shape[1]:
        raise ValueError(
            f"{made_by} makes {model.dim} features, {splits.name} holds {inputs.shape[1]}"
        )
    refuse_other_features(model, splits, Path(root or default_root()).expanduser())
    path = Path(made_by).expanduser()
    folder = str(resolved(folder_of(path))) if path.exists() else ""
    return replace(splits, made_by=origin.describe(model, folder))


def refuse_other_features(model: Model, splits: Splits, root: Path) -> None:
    """Compare the features with the Model's of the pictures that they are named after, if any."""
    train = splits.train
    places = torch.linspace(0, len(train) - 1, min(LOOKED_AT, len(train))).long().tolist()
    if not train.names:
        return
    pattern = train.names[places[0]]
    base = next(
        (b for b in (root, *root.glob("*/"), *root.glob("*/*/")) if (b / pattern).is_file()), None
    )
    if base is None:
        return
    paths = {i: base / train.names[i] for i in places if (base / train.names[i]).is_file()}
    found = model.embed(list(paths.values()))
    cosine = torch.cosine_similarity(found, train.tensor[list(paths)]).mean().item()
    if not cosine >= ALIKE:
        raise ValueError(
            f"{splits.name}: its features have a cosine of {cosine:.3f} to those that this "
            f"backbone makes of the pictures in {base} at this size, wanted {ALIKE} or more"
        )
