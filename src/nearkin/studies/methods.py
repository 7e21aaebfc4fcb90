"""The methods that the studies of transfer, samples and fine-tuning compare."""

from __future__ import annotations

from typing import Any

from nearkin.names import look_up

METHODS: dict[str, dict] = {
    "cross-entropy": {"loss": "normalised-cross-entropy"},
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
    "epochs": 0,
}
"""What makes a recipe evaluate its inputs as they are: the row that every table needs."""

FEW = "cross-entropy,multi-similarity,proxy-anchor,ProxyGML,intra-batch dot-product"
"""One of each kind: a classifier, pairs, proxies, a graph of proxies, a graph of the batch."""


def picked(names: str, methods: dict[str, dict] = METHODS) -> dict[str, dict]:
    """Those of the methods whose names, separated by commas, are given; "all" of them.

    >>> picked("ProxyGML,contrastive")
    {'ProxyGML': {'loss': 'proxy-gml'}, 'contrastive': {'loss': 'pml-contrastive'}}
    """
    wanted = list(methods) if names == "all" else names.split(",")
    return {name: look_up(name, methods, "method") for name in wanted}


def sizes(dims: str) -> list[int]:
    """Embedding dimensions separated by commas.

    >>> sizes("2,64")
    [2, 64]
    """
    if not all(dim.isdecimal() for dim in dims.split(",")):
        raise ValueError(f"dims: wanted numbers separated by commas, got {dims!r}")
    return [int(dim) for dim in dims.split(",")]


def method(row: dict) -> str | None:
    """The name in METHODS of a row's loss; None for another loss, and where nothing was trained."""
    recipe = row["recipe"]
    for name, change in METHODS.items():
        wanted = {"loss_options": {}} | change
        if all(recipe[k] == v for k, v in wanted.items()) and recipe["backbone"] != "identity":
            return name
    return None
