"""How good an embedding is: exact neighbours, retrieval and clustering metrics, intervals."""

from nearkin.measure.accumulator import Accumulator
from nearkin.measure.inputs import check_embeddings, kin_counts
from nearkin.measure.metrics import Retrieval, evaluate, knn_accuracy, recalls, retrieval
from nearkin.measure.nearest.search import Neighbours, neighbours
from nearkin.measure.propagation import label_propagation, propagation_accuracy
from nearkin.measure.scatter import confusion, overlap, scattering

VERSIONS = {"nmi": 2, "ami": 2}
"""How often the way of measuring a metric has changed; those that are not here are of version 1.

Rows hold it, and numbers of two versions are never averaged or tested together. 2: k-means from
several k-means++ starts, not from one random start.
"""

__all__ = [
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
