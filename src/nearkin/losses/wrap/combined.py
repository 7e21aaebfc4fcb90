"""A weighted sum of losses, which balances what each does well."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.losses.inputs import Labels, Mined, peer_names
from nearkin.losses.protocol import (
    call,
    metric_of,
    rates_of,
    start_epoch,
    takes_references,
    wants_of,
)
from nearkin.names import unknown

BETWEEN = re.compile(r"(?<![\d.][eE])\+")  # a plus that is no part of a number such as 1e+3

TERMS = "tuple-triplet + tuple-ratio"


@peer_names
class Combined(nn.Module):
    """The sum of named losses, each times its weight.

        loss = sum over terms of   weight x loss_name(embeddings, labels)

    The n-tuple report proposes it for its own losses: the triplet on a tuple separates the classes,
    the ratio over all classes scatters them. The metric is that of the first term.

    Source: the n-tuple report, Future Research.

    Args:
        terms: such as "tuple-triplet + 0.5 * tuple-ratio".
        classes, dim, features: number of training classes, sizes of embeddings and of the trunk's
            features, for the terms that want them.
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
        terms: str = TERMS,
        classes: int | None = None,
        dim: int | None = None,
        features: int | None = None,
        **options: Any,
    ):
        from nearkin.losses import make

        super().__init__()
        names = names_of_terms(terms)
        self.weights = [weight_of(term) for term in BETWEEN.split(terms)]
        given = options_of_terms(names, options)
        sizes = {"classes": classes, "dim": dim, "features": features}
        losses = [make(name, given[name], **sizes) for name in names]
        self.losses = nn.ModuleList(losses)
        self.metric = metric_of(losses[0])
        self.references = all(takes_references(loss) for loss in losses)
        self.wants = tuple(dict.fromkeys(want for loss in losses for want in wants_of(loss)))

    @staticmethod
    def names_within(options: Mapping[str, Any]) -> list[str]:
        """The losses whose options are given as NAME.OPTION."""
        return names_of_terms(str(options.get("terms", TERMS)))

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
        **asked: Any,
    ) -> Tensor:
        inputs = (embeddings, labels, indices_tuple, ref_emb, ref_labels)
        terms = [call(loss, *inputs, **asked) for loss in self.losses]
        return torch.stack([w * term for w, term in zip(self.weights, terms, strict=True)]).sum()

    @property
    def active(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Mean of the terms' shares of active pairs or triplets; absent where no term has one."""
        shares: list[Any] = [loss.active for loss in self.losses if hasattr(loss, "active")]
        if not shares:
            raise AttributeError("no term says what share is active")
        return lambda x, labels: torch.stack([share(x, labels) for share in shares]).mean()

    def rates(self) -> dict[str, float]:
        """The learning rates that the terms ask for."""
        return {
            f"losses.{i}.{prefix}": rate
            for i, loss in enumerate(self.losses)
            for prefix, rate in rates_of(loss).items()
        }

    def survey(self, embeddings: Tensor | None, labels: Tensor | None) -> None:
        """Tell each term that an epoch begins."""
        for loss in self.losses:
            start_epoch(loss, embeddings, labels)


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
