"""HDML: negatives that are moved nearer, made into features by a generator, and learnt from.

Dimensions: B batch, D embedding, F trunk features, C classes, N pairs or triplets.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import Any

import torch
import torch.nn.functional as nf
from torch import Tensor, nn
from torch.func import functional_call

from nearkin.losses.inputs import (
    Labels,
    Mined,
    as_weights,
    at_least,
    checked_labels,
    peer_names,
    refuse,
    within,
)
from nearkin.losses.synthesis import frozen, n_pairs, through, triplets
from nearkin.names import look_up


@dataclass(frozen=True)
class Constants:
    """How hard synthetic negatives are, and how much they weigh, by the means of past losses.

        lambda_0 = exp(-alpha / J_avg),    weight of J_m = exp(-beta / J_gen)

    relative: J_avg is a share of its first mean, J_gen is made of shares of chance.
    factor: sigma, of the classification of synthetic features.
    """

    relative: bool
    alpha: float
    beta: float
    factor: float


FORMS = {
    "right": Constants(relative=True, alpha=1.0, beta=0.4, factor=1.0),
    "released": Constants(relative=False, alpha=90.0, beta=1e4, factor=1e4),
}
LEAST = 1e-6
"""The least spread of features that a reconstruction is a share of."""

BEFORE = 1e6
"""The mean that the released code has before its first window is full."""


@peer_names
class HDML(nn.Module):
    """Hardness-aware deep metric learning: a loss on real and on synthetic tuples.

        n^    = a + (n - a) (d+ + l0 (d- - d+)) / d-   where d+ = |a - p| < d- = |a - n|, else n
        y~    = G(z^) of the whole tuple (a, p, n^),    z~ = head(y~)
        loss  = w J(z) + (1 - w) J(z~)  +  J_gen(G)  +  CE(classifier(y))
        J_gen = (1 - l) |G(z) - y|^2 + s l CE(classifier(y~))
        l0    = exp(-a / J_avg),    w = exp(-b / J_gen)

    y are the features of the trunk, z = head(y) the embeddings, J the N-pair or the triplet loss.
    Harder negatives come as the loss J_avg falls, and weigh more as the generator's J_gen falls;
    both are means over the last `window` steps. Each part teaches its own: the first the trunk and
    the head, also through G, whose weights it leaves alone; J_gen the generator only; CE the
    classifier only. Batch normalisation of the head does not count synthetic rows in its running
    statistics. A loss that is not finite is a FloatingPointError.

    Source: Zheng, Chen, Lu & Zhou, Hardness-aware deep metric learning, CVPR 2019, eqs. 3-12, and
    its released code (wzzheng/HDML), of which `form="released"` has the constants: sums over the
    batch, a = 90, b = 1e4, s = 1e4, J_avg the mean of w J.
    Differs: those constants hang on the scale of GoogLeNet's features and of the sums, so that
    form="right" takes shares: J_avg of its first mean (a = 1); the reconstruction of the features'
    spread, CE of log C (b = 0.4, s = 1). In print J_avg is the mean of the last epoch. In the code
    the weight decay is part of J, batch statistics count synthetic rows, and NaN becomes 0.
    Batch: tuples; any batch is read as tuples.py reads it, and a triplet's negative is the first
    image of the next pair of another class. The sampler `triplets` gives (a, p, n) of its own.
    Cost: triplet, two passes of 2-layer networks over the batch; n-pair, over N^2 + 3 N rows.
    Published, N-pair: R@1 53.7 on CUB, 79.1 on Cars196, 68.7 on SOP (GoogLeNet, 512-D).

    Args:
        classes: C.
        dim: D.
        features: F.
        base: J, "n-pair" or "triplet".
        form: "right" or "released".
        alpha, beta: a and b; None takes the form's.
        share: l, of the classification in J_gen.
        margin: of the triplet loss, |a - p|^2 - |a - n|^2 + margin, a sum over triplets.
        l2: of the N-pair loss, times a quarter of the mean squared lengths of both sides.
        hidden: units of G between its two layers.
        window: steps of the means; an epoch where that is shorter.
        rate: the learning rate that G asks for.
        classifier_rate: the learning rate that the classifier asks for.
    """

    metric = "cosine"
    wants = ("features", "head")
    generator: nn.Module
    past: Tensor
    steps: Tensor
    first: Tensor
    warm: Tensor

    def __init__(
        self,
        classes: int,
        dim: int,
        features: int,
        base: str = "n-pair",
        form: str = "right",
        alpha: float | None = None,
        beta: float | None = None,
        share: float = 0.5,
        margin: float = 1.0,
        l2: float = 0.003,
        hidden: int = 512,
        window: int = 64,
        rate: float = 0.01,
        classifier_rate: float = 0.001,
    ):
        super().__init__()
        self.constants = look_up(form, FORMS, "form")
        self.read = look_up(base, {"n-pair": n_pairs, "triplet": triplets}, "base")
        self.alpha = self.constants.alpha if alpha is None else alpha
        self.beta = self.constants.beta if beta is None else beta
        at_least(2, classes=classes)
        at_least(1, dim=dim, features=features, hidden=hidden, window=window)
        at_least(0, alpha=self.alpha, beta=self.beta, margin=margin, l2=l2)
        at_least(0, rate=rate, classifier_rate=classifier_rate)
        within(0, 1, share=share)
        self.weight = margin if base == "triplet" else l2
        self.share, self.window = share, window
        self.rate, self.classifier_rate = rate, classifier_rate
        self.generator = nn.Sequential(
            nn.Linear(dim, hidden), nn.ReLU(), nn.BatchNorm1d(hidden), nn.Linear(hidden, features)
        )
        self.classifier = nn.Linear(features, classes)
        self.register_buffer("past", torch.zeros(2, window))  # J and J_gen of the last steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("first", torch.zeros(()))  # J_0, the first mean of J
        self.register_buffer("warm", torch.zeros((), dtype=torch.bool))  # whether there is one

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
        features: Tensor | None = None,
        head: Any = None,
    ) -> Tensor:
        takes = self.read is triplets and indices_tuple is not None and len(indices_tuple) == 3
        mined = indices_tuple if takes else None
        refuse(self, None if takes else indices_tuple, ref_emb, ref_labels)
        if features is None or head is None:
            raise ValueError(
                "HDML must be called with features=, what the trunk gives, and head=, the layer "
                "that makes embeddings of it"
            )
        labels = checked_labels(labels, embeddings, self.classifier.out_features)
        with torch.autocast(embeddings.device.type, enabled=False):
            z, y = (as_weights(x, self.classifier.weight) for x in (embeddings, features))
            hardness, weight = self.constants_now()
            parts = self.parts(z, y, labels, head, hardness, weight, mined)
        if parts is None:
            return z.sum() * 0
        total = parts.metric + parts.generator + parts.classifier
        if not total.isfinite():
            raise FloatingPointError(
                f"HDML: the loss is {total.item()} (J {parts.real.item()}, synthetic "
                f"{parts.synthetic.item()}, J_gen {parts.generator.item()})"
            )
        if self.training:
            self.remember(parts, weight)
        return total

    def parts(
        self,
        z: Tensor,
        y: Tensor,
        labels: Tensor,
        head: Any,
        hardness: float,
        weight: float,
        mined: Mined = None,
    ) -> Parts | None:
        """The terms of the loss; None where the batch holds no tuple.

        Args:
            z, y: embeddings (B, D) and features (B, F).
            hardness: l0.
            weight: w.
        """
        tuples = self.read(z, labels, mined, hardness, self.weight)
        if not len(tuples.rows):
            return None
        fixed = frozen(self.generator, weights=True)
        generated = functional_call(self.generator, fixed, (tuples.rows,))  # y~ (R, F)
        synthetic = tuples.judge(through(head, generated))
        unexplained = (self.generator(z.detach()) - y.detach()).square().sum()
        made = self.generator(tuples.rows.detach())
        logits = nf.linear(made, self.classifier.weight.detach(), self.classifier.bias.detach())
        soft = (tuples.counts * nf.cross_entropy(logits, tuples.labels, reduction="none")).sum()
        return Parts(
            real=tuples.real,
            synthetic=synthetic,
            metric=weight * tuples.real + (1 - weight) * synthetic,
            recon=unexplained,
            soft=soft,
            generator=self.of_generator(unexplained, soft, y.detach(), tuples.counts.sum()),
            classifier=nf.cross_entropy(self.classifier(y.detach()), labels),
        )

    def of_generator(self, recon: Tensor, soft: Tensor, y: Tensor, groups: Tensor) -> Tensor:
        """J_gen, of the sums themselves or of their shares of what a generator of means has."""
        if self.constants.relative:
            recon = recon / (y - y.mean(0)).square().sum().clamp_min(LEAST)
            soft = soft / (groups * log(self.classifier.out_features))
        return (1 - self.share) * recon + self.constants.factor * self.share * soft

    def constants_now(self) -> tuple[float, float]:
        """l0 and w of the next step."""
        if not self.warm:
            if self.constants.relative:
                return 1.0, 1.0  # negatives as they are, and real ones alone
            return exp(-self.alpha / BEFORE), exp(-self.beta / BEFORE)
        count = min(int(self.steps), self.window)
        tiny = torch.finfo(self.past.dtype).tiny
        j, j_gen = self.past[:, :count].mean(1).clamp_min(tiny).tolist()
        start = float(self.first) if self.constants.relative else 1.0
        return exp(-self.alpha * start / j), exp(-self.beta / j_gen)

    @torch.no_grad()
    def remember(self, parts: Parts, weight: float) -> None:
        """Take J and J_gen of a step into the means."""
        j = parts.real if self.constants.relative else weight * parts.real
        self.past[:, int(self.steps) % self.window] = torch.stack([j, parts.generator])
        self.steps += 1
        if self.steps == self.window:
            self.begin()

    @torch.no_grad()
    def begin(self) -> None:
        """From now on there are means."""
        if not self.warm:
            self.first.copy_(self.past[0, : min(int(self.steps), self.window)].mean())
            self.warm.fill_(True)

    def survey(self, embeddings: Tensor | None = None, labels: Labels | None = None) -> None:
        """An epoch begins: one that was shorter than the window has means now."""
        if self.steps:
            self.begin()

    def rates(self) -> dict[str, float]:
        """Those of the generator and of the classifier."""
        return {"generator.": self.rate, "classifier.": self.classifier_rate}


@dataclass(frozen=True)
class Parts:
    """The terms of the loss of a batch: J(z), J(z~), their mixture, and those of G and classifier.

    recon, soft: sums of J_gen before they are weighed.
    """

    real: Tensor
    synthetic: Tensor
    metric: Tensor
    recon: Tensor
    soft: Tensor
    generator: Tensor
    classifier: Tensor
