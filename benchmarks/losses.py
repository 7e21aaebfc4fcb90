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


def rows(quick: bool) -> Iterable[Row]:
    """Every loss at every size; the largest for the bound on memory."""
    for name in NAMES:
        for size in (64,) if quick else (*SIZES, LARGEST):
            yield comparison(name, size)
