"""Graph attention, dense over a batch, beside torch-geometric's gather and scatter."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import Row, peak_memory, seconds
from nearkin.graphs import LAYERS, Refiner, full, knn, make_layers
from nearkin.names import resolve

TITLE = "Graph layers: forward and backward, 512-D, 4 heads"
DIM, HEADS = 512, 4
ATTENTION_ALONE = ("residual", "norms", "feedforward")  # left out, as the peers have none
GOALS = {"dot-product": 1 / 40, "gat": 1 / 30, "gatv2": 1 / 5}  # first trials: 1/47, 1/46, 1/5.7
LIMIT = 2_000_000_000


def rows(quick: bool) -> Iterator[Row]:
    """Full graphs of 256 nodes; then 4,096 nodes with 8 neighbours, and their memory."""
    size = 32 if quick else 256
    for name in GOALS:
        goal = None if quick else GOALS[name]  # of small graphs little is to be won
        yield beside_peer(name, f"{name}, full graph, {size} nodes", full, size, goal, 7)
    size = 128 if quick else 4096
    for name in GOALS:
        what = f"{name}, 8 neighbours, {size:,} nodes"
        yield beside_peer(name, what, partial(knn, k=8), size, None, 3)
    for name in GOALS:
        what = f"{name} block and its graph, 8 neighbours, {size:,} nodes"
        memory = peak_memory(block_step, name, size)
        block: dict[str, Callable[[], object]] = {name: partial(block_step, name, size)}
        yield Row(what, seconds(block, repeats=3)[name], memory=memory, limit=LIMIT)


def beside_peer(
    name: str,
    what: str,
    builder: Callable[[Tensor], Tensor],
    size: int,
    goal: float | None,
    repeats: int,
) -> Row:
    """Attention alone beside the layer of torch-geometric that computes the same numbers."""
    torch.manual_seed(0)
    layer, peer = twins(name)
    nodes = torch.randn(size, DIM)
    refiner = Refiner(builder, [layer])
    graph = refiner.refine(nodes).graph  # lists, where they are faster
    senders, receivers = builder(nodes).nonzero().T.flip(0)
    pairs = torch.stack([senders, receivers])

    def ours(x: Tensor) -> Tensor:
        return layer(x, graph)[0]

    def theirs(x: Tensor) -> Tensor:
        return peer(x, pairs)

    apart = (ours(nodes) - theirs(nodes)).abs().max().item()
    if apart > 1e-4:
        raise ValueError(f"{name}: outputs must agree before times count, they differ by {apart}")
    steps: dict[str, Callable[[], object]] = {
        "ours": partial(step, ours, nodes),
        "theirs": partial(step, theirs, nodes),
    }
    time = seconds(steps, repeats)
    return Row(
        what,
        time["ours"],
        f"torch-geometric's {type(peer).__name__}",
        time["theirs"],
        goal,
        note=f"outputs agree to {apart:.0e}",
    )


def twins(name: str) -> tuple[Any, nn.Module]:
    """One of our layers, and torch-geometric's with the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_geometric.nn import GATConv, GATv2Conv, TransformerConv
    bare: dict[str, Any] = {"heads": HEADS, "without": ATTENTION_ALONE}
    shared = {**bare, "shared_projection": True}
    sizes = (DIM, DIM // HEADS, HEADS)
    layer, peer, weights = {
        "dot-product": lambda: (
            resolve(LAYERS[name])(DIM, heads=HEADS, without=("out", *ATTENTION_ALONE)),
            TransformerConv(*sizes, root_weight=False),
            {"query": "lin_query", "key": "lin_key", "value": "lin_value"},
        ),
        "gat": lambda: (
            resolve(LAYERS[name])(DIM, **shared),
            GATConv(*sizes, add_self_loops=False),
            {"value": "lin", "score.listener": "att_dst", "score.speaker": "att_src"},
        ),
        "gatv2": lambda: (
            resolve(LAYERS[name])(DIM, **shared),
            GATv2Conv(*sizes, add_self_loops=False),
            {"query": "lin_r", "value": "lin_l", "score.weight": "att"},
        ),
    }[name]()
    source = dict(peer.named_parameters())
    with torch.no_grad():
        for key, parameter in layer.named_parameters():
            part, _, last = key.rpartition(".")
            twin = weights.get(key) or f"{weights[part]}.{last}"
            parameter.copy_(source[twin].reshape(parameter.shape) if twin in source else 0.0)
    return layer, peer


def step(layer: Callable[[Tensor], Tensor], nodes: Tensor) -> None:
    """Forward and backward, to the nodes and to the weights."""
    layer(nodes.clone().requires_grad_()).square().sum().backward()


def block_step(name: str, size: int) -> None:
    """A whole attention block over the k-NN graph, which is built too."""
    torch.manual_seed(0)
    refiner = Refiner(partial(knn, k=8), make_layers(name, 1, DIM, heads=HEADS))
    step(refiner, torch.randn(size, DIM))
