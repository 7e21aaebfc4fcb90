"""A memory of past batches: more pairs to learn from than a batch holds, at the cost of a product.

Dimensions: B batch, S size of the memory, M = B + up to S references, D embedding.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.losses.borrowed import Borrowed
from nearkin.losses.inputs import Mined, checked_labels
from nearkin.tensors import pair_masks


class Memory(nn.Module):
    """Anchors from the batch, references from the batch and the S embeddings before it.

        loss = L(anchors = batch; references = batch, then memory),    no item is its own reference

    While the memory is empty this is L of the batch. What is remembered is a constant: it was
    embedded by earlier weights and gets no gradient. All pairs of batch and references are used, so
    a miner is refused; so are losses that do not search references: those on tuples, with proxies,
    classifiers, graphs or a miner of their own.

    Source: Wang, Zhang, Huang & Scott, Cross-batch memory for embedding learning, CVPR 2020,
    algorithm 1. Differs: no warm-up; batch and memory are one set of references with one mean,
    where algorithm 1 adds two losses, so that a positive of the batch meets negatives of the
    memory. In pytorch-metric-learning's CrossBatchMemory the batch as reference gets no gradient.

    Args:
        loss: over pairs or triplets, ours or pytorch-metric-learning's.
        size: S.

    >>> from nearkin.losses.pairs import Contrastive
    >>> loss = Memory(Contrastive(), size=100)
    >>> loss(torch.tensor([[0.0], [0.5]]), torch.tensor([7, 7]))  # (1/8 + 1/8) / 2
    tensor(0.1250)
    >>> loss(torch.tensor([[1.0]]), torch.tensor([7]))  # from 1 to 0.5 and to 0: (1/8 + 1/2) / 2
    tensor(0.3125)
    """

    def __init__(self, loss: nn.Module, size: int = 4096):
        super().__init__()
        if size < 1:
            raise ValueError(f"a memory needs a size of 1 or more, got {size}")
        if not searches_references(loss):
            name = type(loss.loss if isinstance(loss, Borrowed) else loss).__name__
            raise ValueError(f"{name} has no use for a memory: it is not over any given pairs")
        self.loss, self.size = loss, size
        self.metric = getattr(loss, "metric", "cosine")
        self.past: tuple[Tensor, Tensor] | None = None  # embeddings, labels; newest first

    def forward(self, embeddings: Tensor, labels: Tensor, indices_tuple: Mined = None) -> Tensor:
        if indices_tuple is not None:
            raise ValueError("a memory takes no miner: it uses all pairs of batch and references")
        labels = checked_labels(labels, embeddings)
        references, ref_labels = embeddings, labels
        if self.past is not None:
            references = torch.cat([embeddings, self.past[0].to(embeddings)])
            ref_labels = torch.cat([labels, self.past[1].to(labels)])
        self.past = references.detach()[: self.size], ref_labels[: self.size]
        positive, negative = pair_masks(labels, ref_labels)  # (B, M)
        positive.diagonal().fill_(False)
        pairs = (*positive.nonzero(as_tuple=True), *negative.nonzero(as_tuple=True))
        return self.loss(embeddings, labels, pairs, references, ref_labels)

    @property
    def active(self) -> Any:
        """That of the loss, on the batch without the memory; absent where the loss has none."""
        return self.loss.active

    def rates(self) -> dict[str, float]:
        """The learning rates that the loss asks for."""
        asked = getattr(self.loss, "rates", dict)()
        return {f"loss.{part}": rate for part, rate in asked.items()}

    def get_extra_state(self) -> dict[str, Tensor]:
        """What is remembered, for a checkpoint."""
        if self.past is None:
            return {}
        return {"embeddings": self.past[0].clone(), "labels": self.past[1].clone()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take up what a checkpoint remembers."""
        self.past = (state["embeddings"], state["labels"]) if state else None


def searches_references(loss: nn.Module) -> bool:
    """Whether a loss compares the batch with references given to it, by whatever pairs it is told.

    One that brings its own miner chooses its own pairs, and then an item could meet itself.
    """
    if isinstance(loss, Borrowed):
        if loss.miner is not None:
            return False
        loss = loss.loss
    if type(loss).__module__.startswith("pytorch_metric_learning"):
        from pytorch_metric_learning.losses import CrossBatchMemory

        return type(loss).__name__ in CrossBatchMemory.supported_losses()
    return "ref_emb" in inspect.signature(loss.forward).parameters
