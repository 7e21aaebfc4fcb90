"""Losses beside their twins in pytorch-metric-learning: time of value and gradient, peak memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from benchmarks.timing import Row, peak_memory, seconds

TITLE = "Losses: value and gradient of one batch"
DIM, PER_CLASS = 128, 4
SIZES = (128, 512, 2048)
LARGEST = 4096  # where a loss of ours must stay below the limit, and not all peers can follow
LIMIT = 1_000_000_000
AFFORDABLE = 3e8  # triplets: beyond these a peer that lists them needs tens of gigabytes


def ours(name: str) -> nn.Module:
    """Our loss of this name."""
    from nearkin.losses import make

    return make(name, {"margin": 0.2} if name == "triplet" else {})


def twin(name: str) -> tuple[str, nn.Module] | None:
    """pytorch-metric-learning's loss nearest to ours: the same sums over the same pairs."""
    from pytorch_metric_learning import distances
    from pytorch_metric_learning import losses as pml

    euclidean = distances.LpDistance(normalize_embeddings=False)
    product = distances.DotProductSimilarity(normalize_embeddings=False)
    return {
        "contrastive": ("ContrastiveLoss", pml.ContrastiveLoss(distance=euclidean)),
        "triplet": ("TripletMarginLoss", pml.TripletMarginLoss(0.2, distance=euclidean)),
        "ratio-triplet": (
            "TripletMarginLoss, smooth",
            pml.TripletMarginLoss(0.0, smooth_loss=True, distance=euclidean),
        ),
        "lifted-structure": ("LiftedStructureLoss", pml.LiftedStructureLoss(neg_margin=1)),
        "n-pair": ("NPairsLoss", pml.NPairsLoss(distance=product)),
    }.get(name)


NAMES = ("contrastive", "ratio-triplet", "triplet", "lifted-structure", "n-pair")
NAMES += ("tuple-triplet", "tuple-ratio")
LISTS = ("Triplet", "Lifted")  # peers that hold every pair of kin beside every pair of others


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Embeddings (size, 128) in loose clusters, and their labels, four of each class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(size) // PER_CLASS
    centres = torch.randn(size // PER_CLASS, DIM, generator=generator)
    x = centres[labels] + torch.randn(size, DIM, generator=generator)
    return x / DIM**0.5, labels


def step(loss: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    """Value and gradient of one batch, as a function without arguments."""
    x = x.clone().requires_grad_()
    return lambda: torch.autograd.grad(loss(x, y), x)


def alone(name: str, whose: str, size: int) -> None:
    """One value and gradient, for a process that does nothing else."""
    found = ours(name) if whose == "ours" else twin(name)
    assert found is not None
    step(found if isinstance(found, nn.Module) else found[1], *batch(size))()


def comparison(name: str, size: int) -> Row:
    """Our loss beside its twin at one batch size."""
    peer = twin(name)
    listed = size * (PER_CLASS - 1) * (size - PER_CLASS)  # triplets that a peer would list
    if peer is not None and peer[0].startswith("Lifted"):
        listed *= size - PER_CLASS  # it holds each pair of kin beside all pairs of others
    if peer is not None and peer[0].startswith(LISTS) and listed > AFFORDABLE:
        peer = None
    functions = {"ours": step(ours(name), *batch(size))}
    if peer is not None:
        functions["theirs"] = step(peer[1], *batch(size))
    times = seconds(functions, repeats=5 if size <= 512 else 3)
    return Row(
        what=f"{name}, B = {size:,}",
        ours=times["ours"],
        peer=peer[0] if peer else "",
        theirs=times.get("theirs"),
        memory=peak_memory(alone, name, "ours", size),
        peer_memory=peak_memory(alone, name, "theirs", size) if peer else None,
        limit=LIMIT if size == LARGEST else None,
        note="" if peer or size < LARGEST else "no peer that fits",
    )


def beside_base(quick: bool) -> Iterable[Row]:
    """The rivals from papers without a library, each beside the loss that it is built on."""
    from nearkin.losses import (
        HDC,
        Clustering,
        Contrastive,
        HierarchicalTriplet,
        SpanningTree,
        Triplet,
    )

    size = 64 if quick else 128
    x, y = batch(size)
    yield Row(
        what=f"clustering, B = {size}, {size // PER_CLASS} classes",
        ours=seconds({"ours": step(Clustering(), x, y)})["ours"],
        budget=0.150,
        note="NumPy, vectorised candidate by candidate: 450 ms",
    )
    tree = HierarchicalTriplet(size // PER_CLASS, DIM)
    tree.survey(x, y)
    for name, loss, base, goal in (
        ("hierarchical-triplet", tree, Triplet(), 2.0),
        ("hdc", HDC(), Contrastive(), 3.0),
    ):
        times = seconds({"ours": step(loss, x, y), "base": step(base, x, y)}, repeats=30)
        yield Row(
            what=f"{name}, B = {size}",
            ours=times["ours"],
            peer=f"our {type(base).__name__}",
            theirs=times["base"],
            goal=goal,
        )
    miner = SpanningTree()
    yield Row(
        what=f"miner spanning-tree, B = {size}, {PER_CLASS} a class",
        ours=seconds({"ours": lambda: miner(x, y)}, repeats=30)["ours"],
        budget=0.003,
    )
    yield hdml(size)
    classes = 500 if quick else 11_318
    yield Row(
        what=f"tree of {classes:,} classes, D = {DIM}",
        ours=seconds({"ours": lambda: surveyed(classes)}, repeats=1, warm_up=False)["ours"],
        memory=peak_memory(surveyed, classes),
        limit=LIMIT,
        budget=30.0,
        note="with a survey of two images a class",
    )


def surveyed(classes: int) -> None:
    """The tree of the hierarchical triplet loss, made of a survey."""
    from nearkin.losses import HierarchicalTriplet

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(2)
    centres = torch.randn(classes, DIM, generator=generator)
    x = centres[labels] + torch.randn(len(labels), DIM, generator=generator)
    HierarchicalTriplet(classes, DIM, tree="epoch").survey(x, labels)


def hdml(size: int) -> Row:
    """A training step of the Network builder on 28 x 28 pictures, by HDML and by its base alone."""
    from nearkin.losses import HDML, Triplet
    from nearkin.models import make

    torch.manual_seed(0)
    net = make("network", {}, (1, 28, 28), DIM)
    pictures, labels = torch.rand(size, 1, 28, 28), torch.arange(size) // PER_CLASS
    features = net.trunk(pictures).flatten(1).shape[1]
    loss, base = HDML(size // PER_CLASS, DIM, features, base="triplet"), Triplet(1.0)
    loss.first.fill_(1.0)
    loss.past.fill_(1.0)
    loss.steps.fill_(loss.window)  # past the first window: from there synthetic negatives count
    loss.warm.fill_(True)
    own = [*net.parameters(), *loss.parameters()]

    def by_hdml() -> object:
        features = net.trunk(pictures)
        value = loss(net.head(features), labels, features=features, head=net.head)
        return torch.autograd.grad(value, own)

    def by_base() -> object:
        return torch.autograd.grad(base(net(pictures), labels), [*net.parameters()])

    times = seconds({"ours": by_hdml, "base": by_base})
    return Row(
        what=f"hdml of triplets, step of the Network, B = {size}",
        ours=times["ours"],
        peer="our Triplet",
        theirs=times["base"],
        goal=4.0,
    )


def rows(quick: bool) -> Iterable[Row]:
    """Every loss at every size, the largest for the bound on memory; then the rivals' own goals."""
    for name in NAMES:
        for size in (64,) if quick else (*SIZES, LARGEST):
            yield comparison(name, size)
    yield from beside_base(quick)
