"""Graphs over a batch: who listens to whom (build), what is said (attention, edges), refinement."""

from nearkin.graphs.attention import GAT, AttentionBlock, DotProduct, GATv2, Mean, NoEdges
from nearkin.graphs.build import (
    BUILDERS,
    Learned,
    full,
    knn,
    label_guided,
    make_builder,
    mutual_knn,
    neighbour_lists,
    random,
    threshold,
    top_ratio,
)
from nearkin.graphs.edges import GraphNetwork, edge_features
from nearkin.graphs.refine import Refiner, from_released

LAYERS = {
    "dot-product": DotProduct,
    "gat": GAT,
    "gatv2": GATv2,
    "graph-network": GraphNetwork,
    "mean": Mean,
    "no-edges": NoEdges,
}

__all__ = [
    "BUILDERS",
    "GAT",
    "LAYERS",
    "AttentionBlock",
    "DotProduct",
    "GATv2",
    "GraphNetwork",
    "Learned",
    "Mean",
    "NoEdges",
    "Refiner",
    "edge_features",
    "from_released",
    "full",
    "knn",
    "label_guided",
    "make_builder",
    "mutual_knn",
    "neighbour_lists",
    "random",
    "threshold",
    "top_ratio",
]
