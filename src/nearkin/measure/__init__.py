"""How good an embedding is: exact neighbours, retrieval and clustering metrics, intervals."""

from nearkin.measure.exact import check_embeddings
from nearkin.measure.metrics import evaluate, knn_accuracy
from nearkin.measure.nearest import Neighbours, neighbours

__all__ = ["Neighbours", "check_embeddings", "evaluate", "knn_accuracy", "neighbours"]
