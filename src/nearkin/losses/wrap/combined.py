"""A weighted sum of losses, to balance what each does well."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.losses.inputs import Mined
from nearkin.names import unknown

BETWEEN = re.compile(r"(?<![\d.][eE])\+")  # a plus, but for that of 1e+3


class Combined(nn.Module):
    """The sum of named losses, each times its weight.

        loss = sum over terms of   weight x loss_name(embeddings, labels)

    Seed 2 proposes it for the n-tuple losses: the triplet on a tuple separates the classes, the
    ratio over all classes scatters them.

    Source: seed 2, Future Research.

    Args:
        terms: such as "tuple-triplet + 0.5 * tuple-ratio".
        classes: of the training set, for terms that own proxies or classifiers.
        dim: of the embeddings, likewise.
        options: TERM.OPTION of each term's loss, such as contrastive.margin=0.5; of every term of
            that name, where there are more.

    >>> x, y = torch.tensor([[0.0], [0.0], [1.0], [1.0]]), torch.tensor([0, 0, 1, 1])
    >>> Combined("tuple-triplet + 0.5 * tuple-ratio")(x, y)  # 0.0723 + 0.3133 / 2
    tensor(0.2290)
    >>> Combined("triplet + contrastive", **{"contrastive.margin": 0.5}).losses[1].margin
    0.5
    """

    def __init__(
        self,
        terms: str = "tuple-triplet + tuple-ratio",
        classes: int | None = None,
        dim: int | None = None,
        **options: Any,
    ):
        from nearkin.losses import make

        super().__init__()
        names = names_of_terms(terms)
        self.weights = [weight_of(term) for term in BETWEEN.split(terms)]
        given = options_of_terms(names, options)
        losses = [make(name, given[name], classes=classes, dim=dim) for name in names]
        self.losses = nn.ModuleList(losses)
        self.metric = getattr(losses[0], "metric", "cosine")

    def forward(self, embeddings: Tensor, labels: Tensor, indices_tuple: Mined = None) -> Tensor:
        terms = [loss(embeddings, labels, indices_tuple) for loss in self.losses]
        return torch.stack([w * term for w, term in zip(self.weights, terms, strict=True)]).sum()

    @property
    def active(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Mean of the terms' shares of active pairs or triplets; absent where no term has one."""
        shares: list[Any] = [loss.active for loss in self.losses if hasattr(loss, "active")]
        if not shares:
            raise AttributeError("wanted a term that says what share is active, got none")
        return lambda x, labels: torch.stack([share(x, labels) for share in shares]).mean()

    def rates(self) -> dict[str, float]:
        """The learning rates that the terms ask for."""
        return {
            f"losses.{i}.{prefix}": rate
            for i, loss in enumerate(self.losses)
            for prefix, rate in getattr(loss, "rates", dict)().items()
        }


def options_of_terms(names: list[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Term -> its options, from TERM.OPTION.

    >>> options_of_terms(["triplet", "contrastive"], {"contrastive.margin": 0.5})
    {'triplet': {}, 'contrastive': {'margin': 0.5}}
    """
    given: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in options.items():
        name, _, option = key.partition(".")
        if name not in given or not option:
            valid = ("terms", *(f"{name}.OPTION" for name in given))
            raise unknown(key, valid, "option of combined")
        given[name][option] = value
    return given


def names_of_terms(terms: str) -> list[str]:
    """The losses of a sum, in its order.

    >>> names_of_terms("triplet + 0.5 * contrastive")
    ['triplet', 'contrastive']
    """
    return [term.rpartition("*")[2].strip() for term in BETWEEN.split(terms)]


def weight_of(term: str) -> float:
    """The weight in front of a term, 1 where there is none."""
    weight, _, _ = term.rpartition("*")
    if not weight.strip():
        return 1.0
    with suppress(ValueError):
        if isfinite(found := float(weight)):
            return found
    raise ValueError(f"a term is NAME or WEIGHT * NAME, got {term.strip()!r}")
