"""Graph refinement from plain options, as recipes hold them, and the settings of its paper."""

from torch import nn

from nearkin.graphs.build import make_builder
from nearkin.graphs.refiner import Refiner, make_layers
from nearkin.losses.graph_refinement import DROPOUT, GraphRefinement
from nearkin.losses.inputs import at_least, peer_names
from nearkin.names import Plain, look_up


@peer_names
def refinement_from_options(
    classes: int,
    dim: int,
    builder: str = "full",
    k: int | None = None,
    threshold: float | None = None,
    ratio: float | None = None,
    symmetry: str | None = None,
    sign: str | None = None,
    similarity: str | None = None,
    bonus: float | None = None,
    like: str | None = None,
    graph_temperature: float | None = None,
    layer: str = "dot-product",
    layers: int = 1,
    heads: int | None = None,
    without: str = "",
    shared_projection: bool | None = None,
    edges: str | None = None,
    edge_dim: int | None = None,
    aggregate: str | None = None,
    null_neighbour: bool | None = None,
    dropout: float = DROPOUT,
    input_linear: bool = True,
    concat: bool = False,
    every: bool = False,
    neck: bool = True,
    smoothing: float = 0.1,
    temperature: float = 1.0,
    auxiliary: float = 1.0,
    refined: float = 1.0,
    edge_loss: float = 0.0,
    rate: float = 0.01,
) -> GraphRefinement:
    """A `GraphRefinement` of plain options, as a recipe holds them.

        loss = GraphRefinement(classes, dim, Refiner(graph of builder, L times layer), ...)

    Source: `GraphRefinement`, whose own options follow after `concat`.

    Args:
        classes: C.
        dim: D.
        builder: a name of `nearkin.graphs.BUILDERS`, with its options k, threshold, ratio,
            symmetry, sign, similarity (cosine, correlation or learned), bonus, like,
            graph_temperature.
        layer: a name of `nearkin.graphs.LAYERS`, with its options heads, without (parts to leave
            out, separated by spaces), shared_projection, edges, edge_dim, aggregate,
            null_neighbour, dropout. An option left at None is the builder's or layer's own.
        layers: L.
        input_linear: whether a linear map comes before the first layer.
        concat: classify the outputs of all layers side by side.
    """
    at_least(1, layers=layers)
    refiner = None
    if refined:
        graph = make_builder(
            builder,
            dim=dim,
            k=k,
            threshold=threshold,
            ratio=ratio,
            symmetry=symmetry,
            sign=sign,
            similarity=similarity,
            bonus=bonus,
            like=like,
            temperature=graph_temperature,
        )
        stack = make_layers(
            layer,
            layers,
            dim=dim,
            heads=heads,
            without=tuple(without.split()) or None,
            shared_projection=shared_projection,
            edges=edges,
            edge_dim=edge_dim,
            aggregate=aggregate,
            null_neighbour=null_neighbour,
            dropout=dropout,
        )
        first = nn.Linear(dim, dim) if input_linear else None
        refiner = Refiner(graph, stack, input_linear=first, concat=concat)
    return GraphRefinement(
        classes,
        dim,
        refiner,
        every=every,
        neck=neck,
        smoothing=smoothing,
        temperature=temperature,
        auxiliary=auxiliary,
        refined=refined,
        edge_loss=edge_loss,
        rate=rate,
    )


SETTINGS: dict[str, dict[str, Plain]] = {
    "cub": {"layers": 1, "heads": 2, "temperature": 0.2},
    "cars": {"layers": 2, "heads": 8, "temperature": 1 / 9, "concat": True},
    "sop": {"layers": 1, "heads": 8, "temperature": 0.6046909},
    "inshop": {"layers": 1, "heads": 4, "temperature": 0.1859135},
}
"""What the released training configurations of Seidenschwarz et al. set, by data set."""


def as_published(data: str) -> dict[str, Plain]:
    """The options of graph-refinement as its paper has them, on one of its data sets.

    One learning rate for all, as there.
    """
    return {**look_up(data, SETTINGS, "data set of the paper"), "rate": 0.0}


def as_released(data: str) -> dict[str, Plain]:
    """The options of the released code: with the null neighbour, and on SOP without a graph."""
    quirks = {"null_neighbour": True} if data != "sop" else {"refined": 0.0}
    return as_published(data) | quirks
