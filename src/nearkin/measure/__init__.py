"""How good an embedding is: exact neighbours, retrieval and clustering metrics, intervals."""

from nearkin.measure.metrics import Retrieval, evaluate, knn_accuracy, recalls, retrieval
from nearkin.measure.nearest.exact import check_embeddings
from nearkin.measure.nearest.search import Neighbours, neighbours
from nearkin.measure.propagation import label_propagation, propagation_accuracy
from nearkin.measure.scatter import confusion, overlap, scattering

__all__ = [
    "Neighbours",
    "Retrieval",
    "check_embeddings",
    "confusion",
    "evaluate",
    "knn_accuracy",
    "label_propagation",
    "neighbours",
    "overlap",
    "propagation_accuracy",
    "recalls",
    "retrieval",
    "scattering",
]
