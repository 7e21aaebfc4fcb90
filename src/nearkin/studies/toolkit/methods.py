"""The methods of the n-tuple report and our own, and the recipe that they share."""

from __future__ import annotations

from nearkin.runs.recipe import Recipe
from nearkin.studies.shared.methods import BARE, UNTRAINED

COMPACT = {"roundness": 1.0, "compactness": 0.3}
"""Chosen on the last sixth of MNIST's training digits (in 64-D between two that were): LOG."""

OURS: dict[str, dict] = {
    "ours: Fisher NCA": {"loss": "fisher-nca"},
    "ours: compact Fisher NCA": {"loss": "fisher-nca", "loss_options": COMPACT},
}
METHODS: dict[str, dict] = {
    UNTRAINED: BARE | {"metric": "euclidean"},
    "cross-entropy": {"loss": "cross-entropy"},
    "Siamese (1-3)": {"loss": "contrastive"},
    "triplet (4-6)": {"loss": "ratio-triplet"},
    "n-tuple (7)": {"loss": "n-pair"},
    "n-tuple (7) printed": {"loss": "n-pair", "loss_options": {"form": "printed"}},
    "n-tuple (7) + L2": {"loss": "n-pair", "loss_options": {"l2": 0.1}},
    "n-tuple (7) printed + L2": {"loss": "n-pair", "loss_options": {"form": "printed", "l2": 0.1}},
    "triplet on tuple": {"loss": "tuple-triplet"},
    "tuple ratio (8)": {"loss": "tuple-ratio"},
    "tuple ratio (8) printed": {"loss": "tuple-ratio", "loss_options": {"form": "printed"}},
    "combined": {"loss": "combined"},
    **OURS,
}
"""Name in the table -> what differs from the common recipe; numbers are the report's equations."""

BASE = Recipe(
    data="mnist-5k",
    batch=120,
    per_class=12,
    augment="affine",
    epochs=12,
    evaluate_every=3,
    schedule="cosine",
    warmup=100,
    precision="bf16",
    metric="euclidean",  # of every method, as in the report's pictures, n-pair's too
)
DATA = ("mnist-5k", "mnist", "fashion-mnist")
LARGE = {"epochs": 4, "evaluate_every": 2, "lr": 2e-3}
"""Of the full sets, whose epochs have 15 times as many steps; chosen on digits that validate."""

SMALL = {"backbone_options": {"filters": "16,32", "units": "256"}, "precision": "float32"}
"""A quarter of the report's network, for a demonstration; in float32, as a processor without units
for bf16 takes several times as long for that."""
