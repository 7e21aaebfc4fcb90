"""The contract of a loss: what it must have, what it may have, and how others ask for it.

A loss is an nn.Module that is called as pytorch-metric-learning's are (2.x):

    loss(embeddings, labels, indices_tuple=None, ref_emb=None, ref_labels=None) -> scalar

It gives 0 with a zero gradient where there is nothing to learn, never NaN. Whatever else it must
remember (past embeddings, running means) it holds in buffers, so that `state_dict` is tensors alone
and a resumed run goes on bit for bit; it changes them in training mode only.

A loss of one's own needs the call and `metric`. The other members are optional, and a loss that has
one follows its line here:

    metric            "cosine", "inner" or "euclidean": what the loss makes near, and is judged by
    references        True where the loss compares the batch with `ref_emb`
    rates()           name prefix of its own parameters -> the learning rate that they ask for
    active(x, y)      share in 0..1 of its pairs, triplets or proxies that still have a gradient
    monitor(x, y)     name -> number: what is worth knowing of a batch, once an epoch
    attention(x, y)   (B, B): what each image of a batch gives to each other, or None
    refiner           the graph layers by which test images may be refined
    wants             names of what a call needs beside the embeddings: "features" (B, F), what the
                      trunk of the backbone gives, and "head", the layer that makes embeddings of
                      them, come as keyword arguments; "survey": see `survey`
    survey(x, y)      is called at the start of each epoch, with the embeddings (N, D) of all
                      training images and their labels (N,) where `wants` names "survey", else with
                      None and None
    start_at(x, y)    lets proxies or a classifier start at the means of the classes: called once,
                      before the first step, with the embeddings (N, D) of all training images and
                      their labels (N,), where the recipe's loss_start is "means"
    near(k)           (C, k) int64: the k classes nearest to each, for the sampler `neighbours`;
                      None where nothing is known yet
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from nearkin.registry import METRICS
from nearkin.tensors import place_in_class

Labels = Tensor | np.ndarray | Sequence[int] | Sequence[str]
"""Classes of items, one each: integers, or text."""

Mined = tuple[Tensor, ...] | None
"""A miner's choice: triplets (a, p, n), pairs (a1, p, a2, n), or nothing; tensors of indices."""


@runtime_checkable
class Loss(Protocol):
    """The members that every loss has; the optional ones stand at the top of this file.

    >>> from nearkin.losses import Contrastive
    >>> isinstance(Contrastive(), Loss)
    True
    """

    metric: str

    def __call__(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor: ...


def metric_of(loss: Any) -> str:
    """The metric of the space that a loss makes; of a bare loss of PML, that of its distance.

    Raises:
        ValueError: where the loss does not say, so that nobody is judged by a guess.
    """
    metric = getattr(loss, "metric", None) or metric_of_distance(getattr(loss, "distance", None))
    if metric not in METRICS:
        raise ValueError(
            f"{type(loss).__name__} must have a metric, {', '.join(METRICS)}: what it makes near, "
            f"and is judged by; got {metric!r}"
        )
    return metric


def metric_of_distance(distance: Any) -> str | None:
    """The metric of a distance object of PML; None for what is none."""
    kind = type(distance).__name__
    if kind not in ("CosineSimilarity", "DotProductSimilarity", "LpDistance"):
        return None
    if distance.normalize_embeddings:
        return "cosine"
    return "euclidean" if kind == "LpDistance" else "inner"


def takes_references(loss: Any) -> bool:
    """Whether a loss compares the batch with references that are handed to it."""
    return bool(getattr(loss, "references", False))


def rates_of(loss: Any) -> dict[str, float]:
    """Prefix of parameter names -> the learning rate that the loss asks for."""
    rates = getattr(loss, "rates", None)
    return dict(rates()) if rates is not None else {}


def wants_of(loss: Any) -> tuple[str, ...]:
    """What a call of the loss needs beside the embeddings."""
    return tuple(getattr(loss, "wants", ()))


def call(loss: Any, *inputs: Any, **offered: Any) -> Tensor:
    """loss(*inputs), with those of the offered "features" and "head" that it wants."""
    return loss(*inputs, **{name: offered[name] for name in wants_of(loss) if name in offered})


def active_share(loss: Any, embeddings: Tensor, labels: Tensor) -> float | None:
    """The share of its pairs, triplets or proxies that are active; None where it does not say."""
    active = getattr(loss, "active", None)
    return None if active is None else float(active(embeddings, labels))


def can_monitor(loss: Any) -> bool:
    """Whether there is something to monitor."""
    return getattr(loss, "monitor", None) is not None


def start_epoch(loss: Any, embeddings: Tensor | None = None, labels: Tensor | None = None) -> None:
    """Tell the loss that an epoch begins; with all training images where it wants a survey."""
    survey = getattr(loss, "survey", None)
    if survey is not None:
        survey(embeddings, labels)


def nearest_classes(loss: Any, k: int) -> Tensor | None:
    """The k classes (C, k) nearest to each, as the loss knows them; None where it does not."""
    near = getattr(loss, "near", None)
    return None if near is None else near(k)


def part_means(x: Tensor, labels: Tensor, classes: int, parts: int = 1) -> Tensor:
    """(C, K, D) means of the items x (N, D) of each class, cut into K parts: every K-th item in
    turn. A part is the mean of its whole class where that has fewer items than K.

    >>> part_means(torch.tensor([[0.0], [1], [2], [9]]), torch.tensor([0, 0, 0, 1]), 2, 2)[:, :, 0]
    tensor([[1., 1.],
            [9., 9.]])
    """
    part = labels * parts + place_in_class(labels) % parts
    sums = x.new_zeros(classes * parts, x.shape[1]).index_add_(0, part, x)
    counts = part.bincount(minlength=classes * parts)
    sums, counts = sums.view(classes, parts, -1), counts.view(classes, parts, 1)
    whole = sums.sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp_min(1)
    return torch.where(counts > 0, sums / counts.clamp_min(1), whole)


def groups_of(loss: Any, lr: float, loss_lr: float = 0.0) -> Iterator[tuple[float, nn.Parameter]]:
    """The parameters of a loss, each with its learning rate.

    Args:
        lr: of those for which the loss asks for no rate of their own.
        loss_lr: of those for which it does, in its stead; 0 takes what it asks for.
    """
    rates = rates_of(loss)
    for name, parameter in loss.named_parameters():
        asked = next((rate for prefix, rate in rates.items() if name.startswith(prefix)), None)
        yield (lr if asked is None else loss_lr or asked), parameter


def param_groups(
    model: nn.Module | Iterable[nn.Parameter], loss: Any, lr: float, loss_lr: float = 0.0
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser of torch: the model's, and the loss's own at their rates.

    Proxies and classifiers want a learning rate some ten to a hundred times that of the network.

    Args:
        model: the network, or its parameters.
        loss: ours, a borrowed one, or any nn.Module.
        lr: the learning rate of the model.
        loss_lr: of the proxies and classifiers; 0 takes what the loss asks for.

    >>> from nearkin.losses import ProxyGML
    >>> groups = param_groups(nn.Linear(8, 4), ProxyGML(classes=10, dim=4), lr=1e-3)
    >>> [(group["lr"], len(group["params"])) for group in groups]
    [(0.001, 2), (0.03, 1)]
    """
    own = list(model.parameters() if isinstance(model, nn.Module) else model)
    groups: dict[float, list[nn.Parameter]] = {lr: own}
    for rate, parameter in groups_of(loss, lr, loss_lr):
        groups.setdefault(rate, []).append(parameter)
    return [{"params": found, "lr": rate} for rate, found in groups.items() if found]


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with pytorch-metric-learning's names for classes and dim in our words.

    >>> renamed({"num_classes": 10, "margin": 0.1})
    {'classes': 10, 'margin': 0.1}
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        ours = PEER_NAMES.get(name, name)
        if ours in found:
            raise ValueError(f"{ours} and {name} are one option, but both were given")
        found[ours] = value
    return found


PEER_NAMES = {"num_classes": "classes", "embedding_size": "dim"}
