"""ProxyGML: a few learnable proxies for each class, and a k-NN graph from samples to proxies.

Dimensions: B batch, D embedding, C classes, N proxies a class, k proxies that a sample is joined
to. Proxies lie class by class: N consecutive rows of (C N, D) belong to one class.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

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
from nearkin.losses.protocol import part_means
from nearkin.names import look_up
from nearkin.tensors import at_least_float32, largest, unit

BONUS = {"released": 3.0, "printed": 1.0, "none": 0.0}
"""S^pos of each option: what cosines to the true class's proxies gain; cosines differ by 2."""

RATIO = 0.05
"""The released code's share of the proxies that a sample is joined to."""

MISSING = math.log(1e-20)
"""Log-probability of the true class where none of its proxies was chosen."""

CELLS = 2**24
"""Similarities of proxies to proxies that are held at once."""

ROWS = 256
"""Proxies whose votes are held at once: a block that stays in the cache."""


@peer_names
class ProxyGML(nn.Module):
    """ProxyGML: each sample's k nearest proxies vote for their classes, each with its cosine.

        S = X P^T                        cosines of samples and proxies        (B, C N)
        I_i = k largest of S_i + S^pos_i     S^pos: a bonus for the true class's proxies
        Z_ic = sum of S_ij over proxies j of class c in I_i
        L^s = mean over i of  -log( exp(s Z_iy) / sum over c in M_i of exp(s Z_ic) )
        loss = L^s + weight L^p

    M_i (the mask) are the classes with a proxy in I_i; L^p is the same loss with every proxy as a
    sample of its class, all proxies chosen and no mask. k = ceil(ratio C N).

    Source: Zhu, Yang, Deng & Liu, Fewer is more: a deep graph metric learning perspective using
    fewer proxies, NeurIPS 2020; defaults are the released code's (YuehuaZhu/ProxyGML).
    Differs, print from code: S^pos is 1 in print, so that the true class's proxies are likely to
    be chosen, and 1000 in code, so that they are certain. In print L^p chooses and masks as L^s
    does; in code it does neither. The mask is "Z is not 0" in code, "has a chosen proxy" in print,
    and they part at exact zeros only. The warm-up, head and proxies alone, is the first epoch in
    print and the second in code.
    Differs, ours from both: embeddings are normalised here; s is new; the softmax has no 1e-8 in
    its denominator; a ratio by which only proxies of the true class are chosen, so that the loss
    would be 0, is an error ("printed" too, where cosines 1 apart could save it).

    Args:
        classes: C.
        dim: D.
        proxies: N.
        ratio: r, the share of all proxies that a sample is joined to, in (0, 1]. 0 takes the
            released code's 0.05, or 2 / C where classes are few: twice as many as a class has.
        weight: of L^p, lambda; 0 leaves it out.
        positives: S^pos: "released" (certain), "printed" (1) or "none". Without it the true class
            can be missing from the mask: then its sample costs -log(1e-20) and has no gradient.
        mask: whether only classes with a chosen proxy compete, or all (Z = 0 where none is).
        mask_proxies: whether L^p chooses k proxies (itself included) and masks as L^s does.
        scale: s, an inverse temperature; Z lies in [-N, N], so that few proxies need a larger one.
        rate: the learning rate that the proxies ask for (0.3 in the released run on SOP, N = 1).

    >>> loss = ProxyGML(classes=100, dim=64)
    >>> loss.proxies.shape, loss.chosen
    (torch.Size([1200, 64]), 60)
    """

    metric = "cosine"

    def __init__(
        self,
        classes: int,
        dim: int,
        proxies: int = 12,
        ratio: float = 0.0,
        weight: float = 0.3,
        positives: str = "released",
        mask: bool = True,
        mask_proxies: bool = False,
        scale: float = 1.0,
        rate: float = 0.03,
    ):
        super().__init__()
        at_least(2, classes=classes)
        at_least(1, proxies=proxies)
        if not 0 <= ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], or 0 for the usual one, got {ratio}")
        at_least(0, weight=weight, rate=rate)
        above(0, scale=scale)
        ratio = ratio or max(RATIO, 2 / classes)
        self.bonus = look_up(positives, BONUS, "positives")
        count = classes * proxies
        self.chosen = math.ceil(round(ratio * count, 9))  # 0.07 of 1,200 is 84 and no bit more
        if positives != "none" and mask and self.chosen <= proxies:
            least = math.ceil(1e4 * proxies / count + 1) / 1e4
            raise ValueError(
                f"ratio {ratio} chooses {self.chosen} of {count} proxies, all of them of the true "
                f"class, which has {proxies}: the loss would be 0; a ratio of {least} would do"
            )
        self.classes, self.per_class, self.weight = classes, proxies, weight
        self.scale, self.rate, self.mask, self.mask_proxies = scale, rate, mask, mask_proxies
        bound = count**-0.5  # the released code's: Kaiming-uniform of a (D, C N) matrix
        self.proxies = nn.Parameter(torch.empty(count, dim).uniform_(-bound, bound))

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        refuse(self, indices_tuple, ref_emb, ref_labels)
        labels = checked_labels(labels, embeddings, self.classes)
        with torch.autocast(embeddings.device.type, enabled=False):
            samples = unit(as_weights(embeddings, self.proxies))
            loss = self.subgraphs(samples, labels) / max(len(labels), 1)
            if self.weight:
                loss = loss + self.weight * self.own_term()
        return loss

    def subgraphs(self, samples: Tensor, labels: Tensor) -> Tensor:
        """Sum over unit samples (B, D) of -log of the share of their class in their subgraph."""
        return Subgraphs.apply(
            samples,
            at_least_float32(self.proxies),
            labels,
            self.per_class,
            self.chosen,
            self.bonus,
            self.mask,
            self.scale,
        )

    def own_term(self) -> Tensor:
        """L^p, a block of proxies at a time, so that (C N)^2 similarities are never held."""
        proxies = unit(self.proxies)
        if not self.mask_proxies:
            return OwnVotes.apply(proxies, self.per_class, self.scale) / len(proxies)
        labels = torch.arange(self.classes, device=proxies.device)
        labels = labels.repeat_interleave(self.per_class)
        rows = max(1, CELLS // len(proxies))
        blocks = zip(proxies.split(rows), labels.split(rows), strict=True)
        once = partial(checkpoint, self.subgraphs, use_reentrant=False, preserve_rng_state=False)
        losses = [once(*block) for block in blocks]  # gradients compute each block once more
        return torch.stack(losses).sum() / len(proxies)

    @torch.no_grad()
    def start_at(self, embeddings: Tensor, labels: Tensor) -> None:
        """The N proxies of a class = the means of N parts of its unit embeddings."""
        means = part_means(unit(embeddings), labels, self.classes, self.per_class)
        self.proxies.copy_(means.flatten(0, 1))

    def rates(self) -> dict[str, float]:
        """The learning rate of the proxies, which learn faster than the network."""
        return {"proxies": self.rate}

    @torch.no_grad()
    def active(self, embeddings: Tensor, labels: Labels) -> Tensor:
        """Share of the proxies of the samples' own classes that are chosen, and so are pulled."""
        labels = checked_labels(labels, embeddings, self.classes)
        own = self.nearest(embeddings, labels) // self.per_class == labels[:, None]
        return own.sum() / max(len(labels) * self.per_class, 1)

    @torch.no_grad()
    def monitor(self, embeddings: Tensor, labels: Labels) -> dict[str, float]:
        """Shares of the graph of these samples, and how near the proxies of a class lie.

        own_chosen      share of the proxies of a sample's class that are chosen
        class_missing   share of the samples with no proxy of their class chosen
        proxies_idle    share of the proxies that no sample chooses
        proxy_cosine    mean cosine between two proxies of a class; 1 where each has but one
        """
        labels = checked_labels(labels, embeddings, self.classes)
        chosen = self.nearest(embeddings, labels)
        own = (chosen // self.per_class == labels[:, None]).sum(1).float()  # (B,)
        chosen_by = torch.bincount(chosen.flatten(), minlength=len(self.proxies))
        kin = unit(self.proxies).unflatten(0, (self.classes, self.per_class))  # (C, N, D)
        apart = 1 - (kin @ kin.mT).mean()  # of all N^2 pairs, of which N are no pairs
        return {
            "own_chosen": float(own.mean()) / self.per_class,
            "class_missing": float((own == 0).float().mean()),
            "proxies_idle": float((chosen_by == 0).float().mean()),
            "proxy_cosine": 1 - float(apart) * self.per_class / max(self.per_class - 1, 1),
        }

    def nearest(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The proxies (B, k) that samples (B, D) are joined to."""
        similarity = unit(embeddings.to(self.proxies.dtype)) @ unit(self.proxies).T
        return choose(similarity, labels, self.per_class, self.chosen, self.bonus)


class Subgraphs(torch.autograd.Function):
    """`ProxyGML.subgraphs` with its gradient written out, which passes 4 times over the proxies.

    With G = dL/dS, |p| the lengths of the raw proxies and P their directions,
        dL/dX = G P,    dL/dp_j = ( sum_i G_ij x_i - (sum_i G_ij S_ij) P_j ) / |p_j|
    where only the chosen cells of G differ from 0:
        G_ij = s ( share of the class of j in the softmax of i  -  [y_i is the class of j] )
    and no cell does for a sample whose true class is missing.
    """

    @staticmethod
    def forward(
        ctx,
        samples: Tensor,
        proxies: Tensor,
        labels: Tensor,
        per_class: int,
        k: int,
        bonus: float,
        mask: bool,
        scale: float,
    ) -> Tensor:
        lengths = torch.linalg.vector_norm(proxies, dim=1).clamp_min(1e-12)  # (C N,)
        similarity = (samples @ proxies.T).div_(lengths)  # (B, C N)
        chosen = choose(similarity, labels, per_class, k, bonus)  # (B, k)
        near = similarity.gather(1, chosen)
        kind = chosen // per_class  # (B, k): class of each chosen proxy
        own = kind == labels[:, None]
        if mask and per_class == 1:  # each chosen proxy is all that its class has
            log_share = (scale * near).log_softmax(1)
            log_true = torch.where(own, log_share, -math.inf).amax(1)
        else:
            shape = len(samples), len(proxies) // per_class
            votes = similarity.new_full(shape, -math.inf if mask else 0)  # s Z, (B, C)
            votes.scatter_(1, kind, 0).scatter_add_(1, kind, scale * near)
            log_shares = votes.log_softmax(1)
            log_share = log_shares.gather(1, kind)  # (B, k): of each chosen proxy's class
            log_true = log_shares.gather(1, labels[:, None])[:, 0]  # (B,): of the true class
        found = log_true > -math.inf
        slope = scale * (log_share.exp() - own.to(near.dtype)) * found[:, None]
        ctx.save_for_backward(samples, proxies, lengths, chosen, near, slope)
        return -torch.where(found, log_true, MISSING).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor):
        samples, proxies, lengths, chosen, near, slope = ctx.saved_tensors
        slope = slope * grad_output / lengths[chosen]  # (B, k)
        radial = torch.zeros_like(lengths).index_add_(0, chosen.flatten(), (slope * near).flatten())
        spread = samples.new_zeros(len(samples), len(proxies)).scatter_(1, chosen, slope)  # G / |p|
        grad_samples = spread @ proxies
        grad_proxies = spread.T @ samples
        grad_proxies.addcmul_((radial / lengths)[:, None], proxies, value=-1)
        return grad_samples, grad_proxies, *[None] * 6


class OwnVotes(torch.autograd.Function):
    """Sum over unit proxies P_j of the cross-entropy of all votes for their classes.

    All proxies are chosen, so that their cosines sum to that with the sum of a class's proxies:
        s Z_jc = s P_j . A_c,    A_c = sum of the proxies of class c
        dL/dP_j = s sum_c G_jc A_c + s sum_i G_ic P_i for the class c of j,   G = softmax - one-hot
    The gradient is taken on the way forward, while a block is in the cache: half the time of
    autograd, which computes or holds every block twice.
    """

    @staticmethod
    def forward(ctx, proxies: Tensor, per_class: int, scale: float) -> Tensor:
        sums = proxies.unflatten(0, (-1, per_class)).sum(1)  # (C, D)
        labels = torch.arange(len(sums), device=proxies.device).repeat_interleave(per_class)
        loss, pulls, pushes = proxies.new_zeros(()), [], torch.zeros_like(sums)
        for block, own in zip(proxies.split(ROWS), labels.split(ROWS), strict=True):
            log_shares = (scale * block @ sums.T).log_softmax(1)  # (ROWS, C)
            loss -= log_shares.gather(1, own[:, None]).sum()
            slope = log_shares.exp_().scatter_add_(1, own[:, None], -torch.ones_like(block[:, :1]))
            pulls.append(slope @ sums)
            pushes.addmm_(slope.T, block)
        pushes = pushes.repeat_interleave(per_class, 0)
        ctx.save_for_backward(scale * (torch.cat(pulls) + pushes))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor):
        (gradient,) = ctx.saved_tensors
        return grad_output * gradient, None, None


def choose(similarity: Tensor, labels: Tensor, per_class: int, k: int, bonus: float) -> Tensor:
    """The k proxies (B, k) of largest similarity (B, C N), those of the true class ahead."""
    rows = torch.arange(len(labels), device=labels.device)
    of_class = similarity.unflatten(1, (-1, per_class))  # (B, C, N), a view
    before = of_class[rows, labels]
    of_class[rows, labels] = before + bonus
    chosen = largest(similarity, k)
    of_class[rows, labels] = before
    return chosen
