"""Tuples with synthetic negatives: the reading of a batch for HDML, and what is made of it.

Dimensions: B batch, D embedding, N pairs or triplets, R rows that a generator makes features of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as nf
from torch import Tensor, nn
from torch.func import functional_call

from nearkin.losses.inputs import Mined, checked_choice
from nearkin.losses.tuples import places_of_tuples
from nearkin.tensors import inner


@dataclass(frozen=True)
class Tuples:
    """The tuples of a batch with synthetic negatives.

    real: J of the embeddings as they are. rows (R, D): z^, with their labels (R,). counts (R,): the
    weight of each row's classification. judge: z~ (R, D) -> J.
    """

    real: Tensor
    rows: Tensor
    labels: Tensor
    counts: Tensor
    judge: Callable[[Tensor], Tensor]


def triplets(z: Tensor, labels: Tensor, mined: Mined, hardness: float, margin: float) -> Tuples:
    """Triplets (a, p, n) of a batch; rows are all a, all p and all n^."""
    a, p, n = chosen_triplets(labels) if mined is None else checked_choice(mined, len(z), len(z))
    rows = torch.cat([z[a], z[p], pulled_in(z[a], z[p], z[n], hardness)])

    def judge(x: Tensor) -> Tensor:
        anchor, positive, negative = x.chunk(3)
        to_positive = (anchor - positive).square().sum(1)
        return (to_positive - (anchor - negative).square().sum(1) + margin).clamp_min(0).sum()

    counts = z.new_full((len(rows),), 1 / max(len(rows), 1))
    return Tuples(judge(z[torch.cat([a, p, n])]), rows, labels[torch.cat([a, p, n])], counts, judge)


def n_pairs(z: Tensor, labels: Tensor, mined: Mined, hardness: float, l2: float) -> Tuples:
    """Pairs (a_i, p_i) of a batch; rows are all a, and for each a_i all p_j, pulled towards it.

    p_i itself is not pulled, nor is another p_j of its class, which the loss passes over.
    """
    a, p, others = places_of_tuples(labels)
    anchor, partner, count = z[a], z[p], len(a)
    grid = pulled_in(anchor[:, None], partner[:, None], partner[None], hardness)  # (N, N, D)
    grid = torch.where(others[:, :, None], grid, partner[None])
    itself = torch.arange(count, device=z.device)

    def loss(anchor: Tensor, logits: Tensor, partners: Tensor) -> Tensor:
        logits = logits.masked_fill(~(others | (itself[:, None] == itself)), -torch.inf)
        lengths = anchor.square().sum(1).mean() + partners.square().sum(1).mean()
        return nf.cross_entropy(logits, itself) + l2 / 4 * lengths

    def judge(x: Tensor) -> Tensor:
        one, many = x[:count], x[count:]
        logits = many.unflatten(0, (count, count)) @ one[:, :, None]
        return loss(one, logits[:, :, 0], many)

    rows = torch.cat([anchor, grid.flatten(0, 1)])
    counts = torch.cat([z.new_full((n,), 1 / max(n, 1)) for n in (count, count**2)])
    real = loss(anchor, inner(anchor, partner), partner) if count else z.sum() * 0
    return Tuples(real, rows, torch.cat([labels[a], labels[p].repeat(count)]), counts, judge)


def chosen_triplets(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(a, p, n): the pairs of the tuples, and the first image of the next pair of another class."""
    a, p, others = places_of_tuples(labels)
    count = torch.arange(len(a), device=labels.device)
    after = (count[:, None] + 1 + count) % max(len(a), 1)  # (N, N): the pairs that follow each
    if not len(a):
        return a, p, a
    next_other = others.gather(1, after).to(torch.uint8).argmax(1)
    return a, p, a[after[count, next_other]]


def pulled_in(anchor: Tensor, positive: Tensor, negative: Tensor, hardness: float) -> Tensor:
    """n^: a farther negative, moved along its line to the anchor, no nearer than the positive.

    At hardness 1 it stays, at 0 it is as near as the positive; a nearer one always stays.

    >>> a, p, n = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    >>> pulled_in(a, p, n, 0.5)
    tensor([0., 2.])
    """
    near, far = ((anchor - x).norm(dim=-1, keepdim=True) for x in (positive, negative))
    moves = far > near
    scale = (near + hardness * (far - near)) / torch.where(moves, far, 1)
    return torch.where(moves, anchor + (negative - anchor) * scale, negative)


def through(head: Any, x: Tensor) -> Tensor:
    """head(x), which leaves the running statistics of its batch normalisation as they are."""
    if not isinstance(head, nn.Module):
        return head(x)
    return functional_call(head, frozen(head, weights=False), (x,))


def frozen(module: nn.Module, weights: bool) -> dict[str, Tensor]:
    """The buffers of a module as copies, and its parameters as constants where `weights` are."""
    parameters = {n: p.detach() if weights else p for n, p in module.named_parameters()}
    return {**parameters, **{name: b.clone() for name, b in module.named_buffers()}}
