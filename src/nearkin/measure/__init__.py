"""How good an embedding is: exact neighbours, retrieval and clustering metrics, intervals."""

from nearkin.measure.accumulator import Accumulator
from nearkin.measure.inputs import check_embeddings, kin_counts
from nearkin.measure.metrics import Retrieval, evaluate, knn_accuracy, recalls, retrieval
from nearkin.measure.nearest.search import Neighbours, neighbours
from nearkin.measure.propagation import label_propagation, propagation_accuracy
from nearkin.measure.scatter import confusion, overlap, scattering

VERSIONS = {"nmi": 2, "ami": 2}
"""How often the way of measuring a metric has changed; those that are not here are of version 1.

Rows hold it, and numbers of two versions are never averaged or tested together.
"""
_STARTS = (
    "Its k-means began at one random start; today's keeps the best of several k-means++ starts."
)
CHANGED = {"nmi": _STARTS, "ami": _STARTS}
"""What an earlier version of a metric did otherwise, for the readers of a page that leaves it out.
"""

__all__ = [
    "CHANGED",
    "VERSIONS",
    "Accumulator",
    "Neighbours",
    "Retrieval",
    "check_embeddings",
    "confusion",
    "evaluate",
    "kin_counts",
    "knn_accuracy",
    "label_propagation",
    "neighbours",
    "overlap",
    "propagation_accuracy",
    "recalls",
    "retrieval",
    "scattering",
]
