"""The origin of stored features: which Model made them, and that Model again where it is found.

An origin is plain data, the array `made_by` (JSON) of an embeddings file:

    identity, metric, dim, classes, recipe    the Model's
    preprocessing    as preprocess.json has it; None of a Model that takes vectors
    backbone         {"name", "options", "input_shape"} of a backbone by name; else None
    folder           of the Model; "" of a backbone by name
    data             {"name", "variant", "fingerprint"} of what was embedded
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from nearkin.models import assembly
from nearkin.models.folder import load
from nearkin.models.model import Model
from nearkin.models.preprocess import Preprocessing

DEEPEST = 4  # heads on features of heads


def describe(model: Model, folder: str = "", data: Mapping[str, Any] | None = None) -> dict:
    """The origin of the features that a Model makes; `folder` of one that lies on a disk."""
    made = getattr(model.backbone, "made", None) or {}
    named = {key: made.get(key) for key in ("name", "options", "input_shape")}
    return {
        "identity": model.identity,
        "metric": model.metric,
        "dim": model.dim,
        "preprocessing": model.preprocessing and model.preprocessing.to_json(),
        "backbone": named if made.get("dim") == 0 and not folder else None,
        "folder": folder,
        "classes": list(model.classes),
        "recipe": model.recipe,
        "data": dict(data or {}),
    }


def joined(
    head: Model, origin: Mapping[str, Any], folders: Iterable[Path] = (), depth: int = 0
) -> Model:
    """The head joined to the Model that made its features; the head alone, which knows why it
    takes no pictures, where that is not found."""
    try:
        return find(origin, folders, depth).join(head)
    except (ValueError, OSError, ImportError) as error:
        head.refusal = f"what made its features is not found: {error}"
        return head


def find(origin: Mapping[str, Any], folders: Iterable[Path] = (), depth: int = 0) -> Model:
    """The Model that made the features: by its name, from its folder, or from one of `folders`.

    Raises:
        ValueError: it is not found, or what is found is another one.
    """
    if depth > DEEPEST:
        raise ValueError("heads on features of heads, without an end")
    if origin.get("backbone"):
        return same(by_name(origin), origin)
    named = [Path(str(origin["folder"]))] if origin.get("folder") else []
    reasons = []
    for folder in (*named, *folders):
        try:
            return same(load(folder, depth=depth + 1), origin)
        except (ValueError, OSError) as error:
            reasons.append(str(error))
    raise ValueError(reasons[0] if reasons else "its file does not say where the Model is")


def by_name(origin: Mapping[str, Any]) -> Model:
    """The Model of a backbone by name; weights that are random are drawn as they were."""
    try:
        backbone = origin["backbone"]
        steps = origin["preprocessing"]
        name, options = str(backbone["name"]), dict(backbone["options"])
        return without_head(name, options, backbone["input_shape"], steps, origin["metric"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"the origin of the features is not whole: {error!r}") from None


def without_head(
    name: str, options: Mapping[str, Any], shape: Iterable[int], steps: Any, metric: str = "cosine"
) -> Model:
    """A Model of features: a backbone by name without its head, always with the same weights.

    Args:
        steps: its preprocessing, or that as plain data.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = assembly.make(name, options, tuple(shape), dim=0)
    steps = Preprocessing.from_json(steps) if isinstance(steps, dict) else steps
    return Model(backbone, steps, metric)


def same(model: Model, origin: Mapping[str, Any]) -> Model:
    """The Model, if it is the one that made the features.

    A file of weights alone does not tell the preprocessing and the metric: the origin does.
    """
    if model.identity != origin["identity"] and origin.get("preprocessing"):
        steps = Preprocessing.from_json(origin["preprocessing"])
        model = Model(model.backbone, steps, str(origin.get("metric")))
    if model.identity != origin["identity"]:
        raise ValueError(
            f"the Model found is not the one that made the features, whose identity is "
            f"{origin['identity']}"
        )
    return model
