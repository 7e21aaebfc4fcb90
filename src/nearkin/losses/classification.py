"""Cross-entropy over the training classes: the plain baseline, and the normalised one.

Dimensions: B batch, D embedding, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearkin.losses.inputs import (
    Labels,
    Mined,
    above,
    as_weights,
    at_least,
    checked_labels,
    peer_names,
    refuse,
    within,
)
from nearkin.losses.protocol import part_means
from nearkin.tensors import inner, unit


@peer_names
class CrossEntropy(nn.Module):
    """The cross-entropy of a linear classifier on the embeddings as they are.

        loss = mean over i of  -log softmax(W x_i + b) at y_i

    Source: any textbook; label smoothing: Szegedy et al., CVPR 2016, section 7.

    Args:
        classes: C.
        dim: D.
        smoothing: e of label smoothing, (1 - e) onehot + e / C.
        rate: the learning rate that the classifier asks for.

    >>> CrossEntropy(classes=10, dim=4).weight.shape
    torch.Size([10, 4])
    """

    metric = "cosine"

    def __init__(self, classes: int, dim: int, smoothing: float = 0.0, rate: float = 0.01):
        super().__init__()
        within(0, 1, smoothing=smoothing)
        at_least(0, rate=rate)
        self.smoothing, self.rate = smoothing, rate
        self.weight = nn.Parameter(torch.randn(classes, dim) * dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        refuse(self, indices_tuple, ref_emb, ref_labels)
        labels = checked_labels(labels, embeddings, len(self.weight))
        logits = self.logits(embeddings)
        total = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=self.smoothing)
        return total / max(len(labels), 1)

    def logits(self, embeddings: Tensor) -> Tensor:
        """(B, D) -> (B, C)."""
        return inner(as_weights(embeddings, self.weight), self.weight) + self.bias

    @torch.no_grad()
    def start_at(self, embeddings: Tensor, labels: Tensor) -> None:
        """W = the classes' means m, b = -|m|²/2: the nearest mean has the largest logit."""
        means = part_means(embeddings, labels, len(self.weight))[:, 0]
        self.weight.copy_(means)
        self.bias.copy_(-means.square().sum(1) / 2)

    def rates(self) -> dict[str, float]:
        """That of weight and bias."""
        return {"": self.rate}


@peer_names
class NormalisedCrossEntropy(nn.Module):
    """The cross-entropy of a classifier by cosines: one learnt direction a class.

        loss = mean over i of  -log softmax(cos(x_i, W) / T) at y_i

    Source: Zhai & Wu, Classification is a strong baseline for deep metric learning, BMVC 2019,
    section 3 (temperature 0.05). Differs: their layer normalisation before is left to the backbone.

    Args:
        classes: C.
        dim: D.
        temperature: T.
        rate: the learning rate that the directions ask for.

    >>> loss = NormalisedCrossEntropy(classes=2, dim=2)
    >>> _ = loss.weight.data.copy_(torch.eye(2))
    >>> loss(torch.tensor([[3.0, 0.0]]), torch.tensor([1]))  # log(1 + exp(20))
    tensor(20., grad_fn=<DivBackward0>)
    """

    metric = "cosine"

    def __init__(self, classes: int, dim: int, temperature: float = 0.05, rate: float = 0.01):
        super().__init__()
        above(0, temperature=temperature)
        at_least(0, rate=rate)
        self.temperature, self.rate = temperature, rate
        self.weight = nn.Parameter(torch.randn(classes, dim) * dim**-0.5)

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        refuse(self, indices_tuple, ref_emb, ref_labels)
        labels = checked_labels(labels, embeddings, len(self.weight))
        cosine = inner(unit(as_weights(embeddings, self.weight)), unit(self.weight))  # (B, C)
        total = F.cross_entropy(cosine / self.temperature, labels, reduction="sum")
        return total / max(len(labels), 1)

    @torch.no_grad()
    def start_at(self, embeddings: Tensor, labels: Tensor) -> None:
        """W = the means of the classes' unit embeddings."""
        self.weight.copy_(part_means(unit(embeddings), labels, len(self.weight))[:, 0])

    def rates(self) -> dict[str, float]:
        """That of the directions."""
        return {"weight": self.rate}
