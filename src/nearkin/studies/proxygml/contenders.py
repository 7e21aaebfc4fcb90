"""Methods of the table of rivals: recipes, what each is built on, and what was published."""

from __future__ import annotations

from typing import Any

from nearkin.studies.shared.methods import BARE, UNTRAINED

OURS = "ProxyGML"
HDC_AT_ONE_LEVEL = "HDC at its last level"

METHODS: dict[str, dict[str, Any]] = {
    UNTRAINED: BARE,
    "cross-entropy": {"loss": "cross-entropy"},
    "normalised cross-entropy": {"loss": "normalised-cross-entropy"},
    "contrastive": {"loss": "pml-contrastive"},
    "semi-hard triplet": {"loss": "semi-hard-triplet"},
    "lifted structure": {"loss": "lifted-structure"},
    "n-pair": {"loss": "pml-n-pair"},
    "margin": {"loss": "margin"},
    "multi-similarity": {"loss": "multi-similarity"},
    "SupCon": {"loss": "supcon"},
    "ArcFace": {"loss": "arcface"},
    "proxy-NCA": {"loss": "proxy-nca"},
    "SoftTriple": {"loss": "soft-triple"},
    "proxy-anchor": {"loss": "proxy-anchor"},
    "clustering": {"loss": "clustering"},
    "HDC": {"loss": "hdc", "backbone_options": {"stages": 3}},
    HDC_AT_ONE_LEVEL: {"loss": "hdc", "backbone_options": {"stages": 3, "levels": "last"}},
    "contrastive in three slices": {
        "loss": "hdc",
        "loss_options": {"ratios": "1,1,1"},
        "backbone_options": {"stages": 3},
    },
    "hierarchical triplet": {"loss": "hierarchical-triplet"},
    "spanning-tree positives": {"loss": "pml-contrastive", "miner": "spanning-tree"},
    "HDML's triplet alone": {"loss": "hdml", "loss_options": {"base": "triplet", "beta": 0.0}},
    "HDML by triplets": {"loss": "hdml", "loss_options": {"base": "triplet"}},
    OURS: {"loss": "proxy-gml"},
}
"""Name in the table -> what differs from the common recipe; losses/rivals.py has the settings.

Spanning-tree positives are what the abstract of DAMLRRM tells; its loss is not known to us. With
beta = 0 HDML's synthetic tuples have no weight, which leaves the loss that it is built on.
"""

OWN_BATCHES: dict[str, dict[str, Any]] = {
    "triplet on neighbours": {"loss": "triplet", "sampler": "neighbours"},
    "hierarchical triplet on neighbours": {
        "loss": "hierarchical-triplet",
        "sampler": "neighbours",
    },
    "contrastive at 8 a class": {"loss": "pml-contrastive", "per_class": 8},
    "spanning-tree positives at 8 a class": {
        "loss": "pml-contrastive",
        "miner": "spanning-tree",
        "per_class": 8,
    },
    "contrastive on two streams": {
        "loss": "pml-contrastive",
        "miner": "all",
        "sampler": "streams",
    },
    "spanning-tree positives on two streams": {"loss": "pml-contrastive", "sampler": "streams"},
    "HDML's n-pair alone on tuples": {
        "loss": "hdml",
        "loss_options": {"beta": 0.0},
        "sampler": "tuples",
    },
    "HDML on tuples": {"loss": "hdml", "sampler": "tuples"},
}
"""The same under batches that are not those of all others, each behind its base under the same."""

BASES = {
    "HDC": "contrastive in three slices",
    "spanning-tree positives": "contrastive",
    "HDML by triplets": "HDML's triplet alone",
    "hierarchical triplet on neighbours": "triplet on neighbours",
    "spanning-tree positives at 8 a class": "contrastive at 8 a class",
    "spanning-tree positives on two streams": "contrastive on two streams",
    "HDML on tuples": "HDML's n-pair alone on tuples",
}
"""Name -> the method that it is built on, which differs in one thing only."""

WANTED_CLASSES = 80
"""Training classes that the own batches need: 64 pairs of a batch, with a fifth held out."""

PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "cub": {
        "semi-hard triplet": {"BN-Inception, 64-D": 42.6},
        "lifted structure": {"GoogLeNet, 64-D": 43.6},
        "contrastive": {"GoogLeNet": 26.4},
        "proxy-NCA": {"BN-Inception, 64-D": 49.2},
        "SoftTriple": {"BN-Inception, 512-D": 65.4},
        "multi-similarity": {"BN-Inception, 512-D": 65.7},
        "proxy-anchor": {"BN-Inception, 512-D": 68.4},
        "clustering": {"BN-Inception, 64-D": 48.2},
        "HDC": {"GoogLeNet, three depths, 384-D": 53.6},
        "spanning-tree positives": {"DAMLRRM, its loss unknown; GoogLeNet, 512-D": 55.1},
        "hierarchical triplet on neighbours": {"BN-Inception, 512-D": 57.1},
        "HDML on tuples": {"GoogLeNet, 512-D": 53.7},
        OURS: {
            "BN-Inception, 64-D": 59.4,
            "BN-Inception, 384-D": 65.2,
            "BN-Inception, 512-D": 66.6,
        },
    },
    "cars": {
        "semi-hard triplet": {"BN-Inception, 64-D": 51.5},
        "lifted structure": {"GoogLeNet, 64-D": 53.0},
        "contrastive": {"GoogLeNet": 21.7},
        "proxy-NCA": {"BN-Inception, 64-D": 73.2},
        "SoftTriple": {"BN-Inception, 512-D": 84.5},
        "multi-similarity": {"BN-Inception, 512-D": 84.1},
        "proxy-anchor": {"BN-Inception, 512-D": 86.1},
        "clustering": {"BN-Inception, 64-D": 58.1},
        "HDC": {"GoogLeNet, three depths, 384-D": 73.7},
        "spanning-tree positives": {"DAMLRRM, its loss unknown; GoogLeNet, 512-D": 73.5},
        "hierarchical triplet on neighbours": {"BN-Inception, 512-D": 81.4},
        "HDML on tuples": {"GoogLeNet, 512-D": 79.1},
        OURS: {
            "BN-Inception, 64-D": 78.9,
            "BN-Inception, 384-D": 84.5,
            "BN-Inception, 512-D": 85.5,
        },
    },
    "sop": {
        "clustering": {"BN-Inception, 64-D": 67.0},
        "HDC": {"GoogLeNet, three depths, 384-D": 69.5},
        "spanning-tree positives": {"DAMLRRM, its loss unknown; GoogLeNet, 512-D": 69.7},
        "hierarchical triplet on neighbours": {"BN-Inception, 512-D": 74.8},
        "HDML on tuples": {"GoogLeNet, 512-D": 68.7},
    },
}
"""R@1 in per cent, of the ProxyGML poster; of proxy-anchor and contrastive, of the sources in
docs/methods.md, section G."""

IN_PART = ("HDC", "spanning-tree positives")
"""Methods of which the published numbers are of more than what is run here."""


def published_cell(published: dict[str, float], dim: int) -> str:
    """The published number of this dimension, else the last, with its backbone.

    >>> published_cell({"BN-Inception, 64-D": 59.4, "BN-Inception, 512-D": 66.6}, 64)
    '59.4 (BN-Inception, 64-D)'
    """
    if not published:
        return ""
    chosen = next((key for key in published if key.endswith(f" {dim}-D")), list(published)[-1])
    return f"{published[chosen]} ({chosen})"
