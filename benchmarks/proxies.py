"""ProxyGML beside the products that it cannot do without, and beside its released arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import Row, peak_memory, seconds
from nearkin.losses import ProxyGML

TITLE = "ProxyGML: forward and backward, batch 128, 512-D"
BATCH, DIM = 128, 512


def rows(quick: bool) -> Iterator[Row]:
    """Time at the class count of Stanford Online Products; memory at 100,000 classes."""
    classes = 1_000 if quick else 11_318
    yield bare(classes)
    yield one_hot(classes)
    yield own_term(30 if quick else 100)
    yield memory(2_000 if quick else 100_000)
    yield memory_of_own_term(1_000 if quick else 20_000)


def bare(classes: int) -> Row:
    """The loss beside the product of similarities and its two backward products."""
    loss, embeddings, labels = example(classes, proxies=1, weight=0.0)
    proxies, samples = loss.proxies.detach(), embeddings.detach()
    gradient = torch.randn(BATCH, classes)

    def products() -> tuple[Tensor, ...]:
        return samples @ proxies.T, gradient @ proxies, gradient.T @ samples

    return compared(
        f"{classes:,} classes, 1 proxy each",
        lambda: step(loss, embeddings, labels),
        "3 bare products",
        products,
        goal=1.5,
        repeats=21,
    )


def one_hot(classes: int) -> Row:
    """The loss beside the released way: one-hot products and plain autograd."""
    loss, embeddings, labels = example(classes, proxies=1, weight=0.0)
    return compared(
        f"{classes:,} classes, 1 proxy each",
        lambda: step(loss, embeddings, labels),
        "one-hot products",
        lambda: as_released(loss, embeddings, labels),
        goal=0.1,
        repeats=3,
    )


def own_term(classes: int) -> Row:
    """The whole loss at the size of CUB-200-2011, the proxies' own term included."""
    loss, embeddings, labels = example(classes, proxies=12, weight=0.3)
    return compared(
        f"{classes} classes, 12 proxies each, with their own term",
        lambda: step(loss, embeddings, labels),
        "one-hot products",
        lambda: as_released(loss, embeddings, labels),
        repeats=21,
    )


def memory(classes: int) -> Row:
    """A step of Adam with as many classes as no one-hot matrix could hold."""
    return Row(
        f"{classes:,} classes, 1 proxy each, a step of Adam",
        timed(lambda: train_step(classes)),
        memory=peak_memory(train_step, classes),
        limit=4_000_000_000,
    )


def memory_of_own_term(classes: int) -> Row:
    """The proxies' own term, whose similarities alone are (C N)^2 floats."""
    square = 4 * classes**2
    return Row(
        f"{classes:,} classes, 1 proxy each, with their own term",
        timed(lambda: own_step(classes)),
        memory=peak_memory(own_step, classes),
        limit=max(square, 1_000_000_000),
        note=f"the similarities alone would be {square / 1e9:.1f} GB",
    )


def example(classes: int, proxies: int, weight: float) -> tuple[ProxyGML, Tensor, Tensor]:
    """A loss, and a batch for it."""
    torch.manual_seed(0)
    loss = ProxyGML(classes, DIM, proxies=proxies, weight=weight)
    embeddings = torch.randn(BATCH, DIM, requires_grad=True)
    return loss, embeddings, torch.randint(classes, (BATCH,))


def step(loss: ProxyGML, embeddings: Tensor, labels: Tensor) -> None:
    """Forward and backward, into fresh gradients."""
    embeddings.grad = loss.proxies.grad = None
    loss(embeddings, labels).backward()


def as_released(loss: ProxyGML, embeddings: Tensor, labels: Tensor) -> None:
    """The same by one-hot products: every proxy is multiplied with every class."""
    embeddings.grad = loss.proxies.grad = None
    kind = torch.arange(loss.classes).repeat_interleave(loss.per_class)
    classes_of = F.one_hot(kind, loss.classes).float()  # (C N, C)
    proxies = F.normalize(loss.proxies)
    similarity = F.normalize(embeddings) @ proxies.T
    ahead = similarity + 1000 * (kind[None, :] == labels[:, None]).float()
    chosen = torch.zeros_like(similarity).scatter(1, ahead.topk(loss.chosen).indices, 1)
    votes = (chosen * similarity) @ classes_of
    weights = votes.exp() * (votes != 0)
    share = weights / weights.sum(1, keepdim=True)
    value = -(share.gather(1, labels[:, None]) + 1e-20).log().mean()
    if loss.weight:
        value = value + loss.weight * F.cross_entropy(proxies @ proxies.T @ classes_of, kind)
    value.backward()


def train_step(classes: int) -> None:
    """One step, the optimiser's moments included."""
    loss, embeddings, labels = example(classes, proxies=1, weight=0.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    step(loss, embeddings, labels)
    optimizer.step()


def own_step(classes: int) -> None:
    """Forward and backward with the own term."""
    step(*example(classes, proxies=1, weight=0.3))


def compared(
    what: str,
    ours: Callable[[], object],
    peer: str,
    theirs: Callable[[], object],
    goal: float | None = None,
    repeats: int = 5,
) -> Row:
    """Medians of both, in turns."""
    times = seconds({"ours": ours, "theirs": theirs}, repeats)
    return Row(what, times["ours"], peer, times["theirs"], goal)


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call, warm."""
    return seconds({"it": function}, repeats=1)["it"]
