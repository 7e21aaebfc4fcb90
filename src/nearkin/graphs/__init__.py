"""Graphs of a batch: builders, the layers over them, and refiners, which are both in one."""

from nearkin.graphs.attention import GAT, AttentionBlock, DotProduct, GATv2, Mean, NoEdges
from nearkin.graphs.build import (
    Learned,
    LearnedSimilarity,
    full,
    knn,
    label_guided,
    make_builder,
    mutual_knn,
    random,
    threshold,
    top_ratio,
)
from nearkin.graphs.edges import edge_features
from nearkin.graphs.graph import Graph, neighbour_lists
from nearkin.graphs.graph_network import GraphNetwork
from nearkin.graphs.refiner import Refiner, from_released, make_layers
from nearkin.graphs.rerank import refine_at_test
from nearkin.registry import BUILDERS, LAYERS

__all__ = [
    "BUILDERS",
    "GAT",
    "LAYERS",
    "AttentionBlock",
    "DotProduct",
    "GATv2",
    "Graph",
    "GraphNetwork",
    "Learned",
    "LearnedSimilarity",
    "Mean",
    "NoEdges",
    "Refiner",
    "edge_features",
    "from_released",
    "full",
    "knn",
    "label_guided",
    "make_builder",
    "make_layers",
    "mutual_knn",
    "neighbour_lists",
    "random",
    "refine_at_test",
    "threshold",
    "top_ratio",
]
