"""The methods that the studies of transfer, samples and fine-tuning compare."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nearkin.models.pretrained import is_pretrained
from nearkin.names import look_up
from nearkin.runs.recipe import Recipe
from nearkin.studies.shared.sets import fitted

METHODS: dict[str, dict] = {
    "cross-entropy": {"loss": "cross-entropy"},
    "normalised cross-entropy": {"loss": "normalised-cross-entropy"},
    "contrastive": {"loss": "pml-contrastive"},
    "multi-similarity": {"loss": "multi-similarity"},
    "SoftTriple": {"loss": "soft-triple"},
    "proxy-anchor": {"loss": "proxy-anchor"},
    "ProxyGML": {"loss": "proxy-gml"},
    "group loss": {"loss": "group"},
    "intra-batch dot-product": {"loss": "graph-refinement"},
    "intra-batch GAT": {"loss": "graph-refinement", "loss_options": {"layer": "gat"}},
    "intra-batch GATv2": {"loss": "graph-refinement", "loss_options": {"layer": "gatv2"}},
}
"""Name in the tables -> what differs from the common recipe."""

UNTRAINED = "no training"
BARE: dict[str, Any] = {
    "backbone": "identity",
    "backbone_options": {},
    "loss": "contrastive",
    "metric": "cosine",
    "precision": "float32",
    "epochs": 0,
}
"""What makes a recipe evaluate its inputs as they are: the row that every table needs."""

SMALL = 64
"""Side in pixels up to which pictures can be compared as they are."""


def without_training(recipe: Recipe, side: int) -> Recipe:
    """The recipe that stands beside a run as `no training`: a pretrained network without a head;
    features and small pictures as they are; for large pictures the run's own network as it starts.

    Args:
        side: of the run's pictures in pixels; 0 of features.

    >>> without_training(Recipe(dim=2, epochs=9, seed=3), side=28).changes()["backbone"]
    'identity'
    """
    shared = ("data", "size", "keep_images", "keep_classes", "tail", "tail_bits")
    base = Recipe(**{name: getattr(recipe, name) for name in shared})
    base = replace(base, epochs=0, loss="contrastive", metric="cosine")
    if is_pretrained(recipe.backbone):
        options = {**recipe.backbone_options, "head": "none"}
        return replace(base, backbone=recipe.backbone, backbone_options=options)
    if side <= SMALL:
        return replace(base, **BARE)
    return replace(
        base,
        backbone=recipe.backbone,
        backbone_options=recipe.backbone_options,
        dim=recipe.dim,
        seed=recipe.seed,
    )


CLOSED: dict[str, dict[str, Any]] = {
    name: {"loss": "contrastive", "metric": "cosine", "epochs": 0, "head_start": form}
    for name, form in {
        "PCA-whitened": "pca-whitened",
        "within-class whitened": "whitened",
    }.items()
}
"""The closed forms that a table of heads on features needs beside `no training`."""

FEW = "cross-entropy,normalised cross-entropy,multi-similarity,proxy-anchor,ProxyGML,"
FEW += "intra-batch dot-product"
"""One of each kind: classifiers plain and by cosines, pairs, proxies, a graph of proxies, a graph
of the batch."""


def picked(names: str, methods: dict[str, dict] = METHODS) -> dict[str, dict]:
    """Those of the methods whose names, separated by commas, are given; "all" of them.

    >>> picked("ProxyGML,contrastive")
    {'ProxyGML': {'loss': 'proxy-gml'}, 'contrastive': {'loss': 'pml-contrastive'}}
    """
    wanted = list(methods) if names == "all" else names.split(",")
    return {name: look_up(name, methods, "method") for name in wanted}


def under(base: Recipe, names: str) -> dict[str, Recipe]:
    """The base by each of these methods; `all` of them."""
    return {
        name: replace(base, loss=change["loss"], loss_options=options(change, base.data))
        for name, change in picked(names).items()
    }


def options(change: dict, data: str) -> dict:
    """The options of a method's loss on this data set: ProxyGML's are those that fit it."""
    usual = fitted(data) if change["loss"] == "proxy-gml" else {}
    return change.get("loss_options", usual)


def sizes(dims: str) -> list[int]:
    """Embedding dimensions separated by commas.

    >>> sizes("2,64")
    [2, 64]
    """
    if not all(dim.isdecimal() for dim in dims.split(",")):
        raise ValueError(f"dims: wanted numbers separated by commas, got {dims!r}")
    return [int(dim) for dim in dims.split(",")]
