"""A memory of past batches: more pairs to learn from than a batch holds, at the cost of a product.

Dimensions: B batch, S size of the memory, M = B + up to S references, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearkin.losses.inputs import Labels, Mined, at_least, checked_labels
from nearkin.losses.protocol import metric_of, rates_of, takes_references
from nearkin.tensors import pair_masks


class Memory(nn.Module):
    """A loss whose references are the batch and the S embeddings before it.

        loss = L(anchors = batch; references = batch, then memory),    no item is its own reference

    While the memory is empty this is L of the batch. A remembered embedding is a constant: it was
    made by earlier weights and gets no gradient. All pairs of batch and references are used, so a
    miner is refused; so are losses that compare no references: those on tuples, with proxies,
    classifiers, graphs or a miner of their own. In evaluation mode nothing is added to the memory,
    and never what is not finite.

    Source: Wang, Zhang, Huang & Scott, Cross-batch memory for embedding learning, CVPR 2020,
    algorithm 1. Differs: no warm-up; batch and memory are one set of references with one mean,
    where algorithm 1 adds two losses, so that kin in the batch meet others in the memory. In
    pytorch-metric-learning's CrossBatchMemory the batch as reference gets no gradient.

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

    past: Tensor
    past_labels: Tensor

    def __init__(self, loss: nn.Module, size: int = 4096):
        super().__init__()
        at_least(1, size=size)
        if size != int(size):
            raise ValueError(f"size must be a whole number, got {size}")
        if not compares_references(loss):
            name = type(getattr(loss, "loss", loss)).__name__
            raise ValueError(f"{name} has no use for a memory: it is not over any given pairs")
        self.loss, self.size, self.metric = loss, size, metric_of(loss)
        self.register_buffer("past", torch.empty(0, 0))  # (n, D), n <= S, the newest first
        self.register_buffer("past_labels", torch.empty(0, dtype=torch.int64))

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        if indices_tuple is not None:
            raise ValueError("a memory takes no miner: it uses all pairs of batch and references")
        if ref_emb is not None or ref_labels is not None:
            raise ValueError("a memory takes no references: it brings its own")
        labels = checked_labels(labels, embeddings)
        references, ref_labels = self.references_of(embeddings, labels)
        if self.training:
            sound = references.detach().isfinite().all(1)  # one bad step spoils no later one
            self.past = references.detach()[sound][: self.size].clone()
            self.past_labels = ref_labels[sound][: self.size].clone()
        kin, others = pair_masks(labels, ref_labels)  # (B, M)
        kin.diagonal().fill_(False)
        pairs = (*kin.nonzero(as_tuple=True), *others.nonzero(as_tuple=True))
        return self.loss(embeddings, labels, pairs, references, ref_labels)

    def references_of(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The batch and then the memory: (M, D) and (M,)."""
        if not len(self.past):
            return embeddings, labels
        if self.past.shape[1] != embeddings.shape[1]:
            raise ValueError(
                f"the memory holds embeddings of {self.past.shape[1]} dimensions, "
                f"got {embeddings.shape[1]}"
            )
        references = torch.cat([embeddings, self.past.to(embeddings)])
        return references, torch.cat([labels, self.past_labels.to(labels)])

    @property
    def active(self) -> Any:
        """That of the loss, on the batch without the memory; absent where the loss has none."""
        return self.loss.active

    def rates(self) -> dict[str, float]:
        """The learning rates that the loss asks for."""
        return {f"loss.{part}": rate for part, rate in rates_of(self.loss).items()}

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any
    ) -> None:
        """Take up a memory of any length: the buffers grow with what is remembered."""
        for name in ("past", "past_labels"):
            saved = state_dict.get(prefix + name)
            if saved is not None:
                setattr(self, name, torch.empty_like(saved, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def compares_references(loss: nn.Module) -> bool:
    """Whether a loss compares the batch with references, by exactly the pairs that it is handed.

    A loss with a miner of its own chooses its own pairs, and then an item could meet itself.
    """
    if type(loss).__module__.startswith("pytorch_metric_learning"):
        from pytorch_metric_learning.losses import CrossBatchMemory

        return type(loss).__name__ in CrossBatchMemory.supported_losses()
    return takes_references(loss) and getattr(loss, "miner", None) is None
