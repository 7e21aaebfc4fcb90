"""The group loss: the samples of a batch settle their classes among themselves.

Dimensions: B batch, D embedding, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearkin.graphs.build import correlation
from nearkin.losses.classification import CrossEntropy
from nearkin.losses.inputs import (
    Labels,
    Mined,
    above,
    as_weights,
    at_least,
    checked_labels,
    peer_names,
    refuse,
)
from nearkin.tensors import inner, place_in_class


@peer_names
class GroupLoss(nn.Module):
    """The group loss: a sample's belief in a class counts as far as samples like it share it.

        W = ReLU(Pearson correlation of the embeddings)                          (B, B)
        P_i = softmax((V x_i + b) / T), or the onehot y_i for an anchor          (B, C)
        P <- rows of P * (W P), each divided by its sum          (replicator dynamics)
        loss = weight x mean over i of -log P_iy  +  cross-entropy of V x_i + b

    Source: Elezi et al., The group loss for deep metric learning, ECCV 2020, eqs. 1-4, and its
    released code (dvl-tum/group_loss), whose settings on CUB-200-2011 are the defaults.
    Differs: the anchors are the first samples of each class in the batch, which is in random order
    anyway; a sample that nothing supports keeps its beliefs.

    Args:
        classes: C.
        dim: D.
        anchors: samples of each class whose beliefs are clamped to the truth.
        iterations: of the dynamics.
        temperature: T (the released code has 24 on CUB, 79 on Cars, 54 on SOP).
        weight: of the first term.
        rate: the learning rate that the classifier V, b asks for.
    """

    metric = "cosine"

    def __init__(
        self,
        classes: int,
        dim: int,
        anchors: int = 2,
        iterations: int = 1,
        temperature: float = 24.0,
        weight: float = 1.0,
        rate: float = 0.01,
    ):
        super().__init__()
        above(0, temperature=temperature)
        at_least(0, anchors=anchors, weight=weight)
        at_least(1, iterations=iterations)
        self.anchors, self.iterations = anchors, iterations
        self.temperature, self.weight = temperature, weight
        self.classifier = CrossEntropy(classes, dim, rate=rate)

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        refuse(self, indices_tuple, ref_emb, ref_labels)
        labels = checked_labels(labels, embeddings, len(self.classifier.weight))
        embeddings = as_weights(embeddings, self.classifier.weight)
        classification = self.classifier(embeddings, labels)
        logits = self.classifier.logits(embeddings)
        beliefs = (logits / self.temperature).softmax(1)  # (B, C)
        truth = F.one_hot(labels, logits.shape[1]).to(beliefs.dtype)
        anchors = place_in_class(labels) < self.anchors
        beliefs = torch.where(anchors[:, None], truth, beliefs)
        beliefs = replicate(correlation(embeddings).relu(), beliefs, self.iterations)
        own = beliefs.gather(1, labels[:, None]) + TINY
        return classification - self.weight * own.log().sum() / max(len(labels), 1)

    def rates(self) -> dict[str, float]:
        """That of the classifier."""
        return {"classifier.": self.classifier.rate}


TINY = 1e-12
"""A belief too small to matter, which keeps logarithms and divisions finite."""


def replicate(affinity: Tensor, beliefs: Tensor, iterations: int) -> Tensor:
    """Replicator dynamics: P <- P * (W P), rows summing to 1; (B, B), (B, C) -> (B, C).

    Beliefs of 0 stay 0, so that a clamped sample stays clamped.

    >>> like = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    >>> replicate(like, torch.tensor([[1.0, 0.0], [0.5, 0.5]]), iterations=1)
    tensor([[1.0000, 0.0000],
            [0.7500, 0.2500]])
    """
    for _ in range(iterations):
        beliefs = beliefs * (inner(affinity, beliefs.T) + TINY)
        beliefs = beliefs / beliefs.sum(1, keepdim=True)
    return beliefs
