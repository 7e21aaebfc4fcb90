"""The metrics of embeddings that come batch by batch, as in a validation loop of one's own."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from nearkin.labels import plain_labels
from nearkin.measure.inputs import matrix
from nearkin.measure.metrics import evaluate
from nearkin.names import parameters_of, unknown


class Accumulator:
    """Queries, and what they are searched in, until their metrics are asked for.

        metrics = nk.Accumulator(metric="euclidean", ks=(1, 5))
        for x, y in loader:
            metrics.update(net(x), y)
        metrics.compute()["recall@1"]

    Embeddings are kept on the CPU in the precision that they come in: N D numbers.

    Args:
        options: of `nk.evaluate`, such as metric, ks, clusters.

    >>> metrics = Accumulator(clusters=False)
    >>> metrics.update([[1.0, 0.0], [0.0, 1.0]], ["a", "b"])
    >>> metrics.update([[0.9, 0.1], [0.1, 0.9]], ["a", "b"])
    >>> metrics.compute()["recall@1"]
    1.0
    """

    def __init__(self, **options: Any):
        self.options = known(options)
        self.reset()

    def reset(self) -> Self:
        """Forget all embeddings."""
        self.query: list[tuple[Tensor, np.ndarray]] = []
        self.gallery: list[tuple[Tensor, np.ndarray]] = []
        return self

    def update(self, embeddings: Any, labels: Any, *, gallery: bool = False) -> None:
        """Add a batch (B, D) with its labels (B,).

        Args:
            gallery: the batch is searched in, and asks nothing; without any such batch each query
                is searched among all the others.
        """
        x = matrix(embeddings, "embeddings").detach()
        x = x.to("cpu", copy=True)  # the caller may fill the same memory with the next batch
        wanted = f"labels must be {len(x)} integers or texts, one an embedding"
        y = plain_labels(labels, wanted)
        if len(y) != len(x):
            raise ValueError(f"{wanted}, got {len(y)}")
        before = (self.query + self.gallery)[:1]
        if before and before[0][0].shape[1] != x.shape[1]:
            raise ValueError(
                f"wanted embeddings of {before[0][0].shape[1]} dimensions, as before, got "
                f"{x.shape[1]}"
            )
        (self.gallery if gallery else self.query).append((x, y))

    def compute(self, **options: Any) -> dict[str, float]:
        """What `nk.evaluate` says of all batches so far; options given here go before the others.

        Raises:
            ValueError: there is no query yet.
        """
        if not self.query:
            raise ValueError("wanted a batch of queries before metrics can be computed")
        sides = [side for part in (self.query, self.gallery) if part for side in joined(part)]
        return evaluate(*sides, **{**self.options, **known(options)})


def known(options: dict[str, Any]) -> dict[str, Any]:
    """Options, if `evaluate` has them all."""
    valid = [
        name for name, each in parameters_of(evaluate).items() if each.kind == each.KEYWORD_ONLY
    ]
    for name in options:
        if name not in valid:
            raise unknown(name, valid, "option of evaluate")
    return options


def joined(parts: list[tuple[Tensor, np.ndarray]]) -> tuple[Tensor, np.ndarray]:
    """Batches as one."""
    labels = [y for _, y in parts]
    if len({y.dtype.kind for y in labels}) > 1:
        raise ValueError("labels must be of one kind: some batches hold integers, others text")
    return torch.cat([x for x, _ in parts]), np.concatenate(labels)
